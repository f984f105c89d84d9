"""CLAIM, the Checklist for Artificial Intelligence in Medical Imaging, in its update of 2024."""

from catheters.runs.paper.answers import data, model, results
from catheters.runs.paper.checklist import Checklist, Item

TITLE, INTRODUCTION, DISCUSSION, OTHER = "Title and abstract", "Introduction", "Discussion", "Other information"
DESIGN, DATA, REFERENCE = "Methods: study design", "Methods: data", "Methods: reference standard"
PARTITIONS, TESTING, MODEL = "Methods: data partitions", "Methods: testing data", "Methods: model"
TRAINING, EVALUATION = "Methods: training", "Methods: evaluation"
OF_DATA, PERFORMANCE = "Results: data", "Results: model performance"

CLAIM_2024 = Checklist(
    key="claim2024",
    name="CLAIM 2024",
    source="Tejani et al., Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 Update, Radiology: "
    "Artificial Intelligence 2024;6(4):e240300.",
    items=(
        Item("1", TITLE, "Study of AI, with the kind of technology", model.technology, "Name it in title or abstract."),
        Item("2", TITLE, "Summary of design, methods, results, conclusions", results.headline, "Write the abstract."),
        Item(
            "3", INTRODUCTION, "Background, intended use and role", None, "Clinical background, use and role of the AI."
        ),
        Item("4", INTRODUCTION, "Aims and hypotheses", None, "Aims, and hypotheses where there are any."),
        Item("5", DESIGN, "Prospective or retrospective", None, "Say which, from how the images were collected."),
        Item("6", DESIGN, "Goal of the study", model.study_goal, "The clinical goal."),
        Item(
            "7", DATA, "Sources of the data", data.data_sources, "Hospitals, dates, why the images were taken, licence."
        ),
        Item(
            "8", DATA, "Inclusion and exclusion", data.eligibility, "Clinical criteria by which images were collected."
        ),
        Item("9", DATA, "Preprocessing", model.preprocessing),
        Item("10", DATA, "Subsets that were selected", data.subsets),
        Item("11", DATA, "De-identification", None, "How, and by whom, images and tables were de-identified."),
        Item("12", DATA, "Missing data", data.missing_data),
        Item("13", DATA, "Image acquisition", data.acquisition, "Devices, views, settings of the X-rays."),
        Item(
            "14", REFERENCE, "Definition of the reference standard", data.reference_standard, "What each label means."
        ),
        Item("15", REFERENCE, "Reason for that reference standard", None, "Why these labels, and what else there was."),
        Item("16", REFERENCE, "Who annotated", None, "Number, qualification and training of the annotators."),
        Item("17", REFERENCE, "How the test set was annotated", None, "Instructions and software of the annotators."),
        Item(
            "18",
            REFERENCE,
            "Variability between and within readers",
            data.reader_agreement,
            "Variability within readers.",
        ),
        Item("19", PARTITIONS, "How data were assigned to partitions", data.partitions),
        Item("20", PARTITIONS, "Level at which partitions are disjoint", data.disjoint_level),
        Item("21", TESTING, "Intended sample size", data.sample_size, "Which size was intended, and why it is enough."),
        Item("22", MODEL, "The model in detail", model.architecture),
        Item("23", MODEL, "Software with versions", model.software),
        Item("24", MODEL, "Initial weights", model.initialization),
        Item("25", TRAINING, "Training in detail", model.training),
        Item("26", TRAINING, "How the final model was selected", model.selection),
        Item("27", TRAINING, "Ensembling", model.ensembling),
        Item("28", EVALUATION, "Measures of performance", results.metrics),
        Item("29", EVALUATION, "Significance and uncertainty", results.uncertainty),
        Item("30", EVALUATION, "Robustness and sensitivity analyses", results.robustness, "Analyses of your own."),
        Item("31", EVALUATION, "Explainability", results.explainability, "Say what was done, or that nothing was."),
        Item("32", EVALUATION, "Testing on internal data", results.internal_testing),
        Item("33", EVALUATION, "Testing on external data", results.external_testing, "What it was, or that none was."),
        Item("34", EVALUATION, "Registration as a clinical trial", None, "The number, or that it is no trial."),
        Item("35", OF_DATA, "Numbers included and excluded", data.flow_numbers),
        Item("36", OF_DATA, "Characteristics of each partition", data.characteristics, "What the label table lacks."),
        Item("37", PERFORMANCE, "Performance with uncertainty", results.performance),
        Item("38", PERFORMANCE, "Diagnostic performance with precision", results.diagnostic_performance),
        Item("39", PERFORMANCE, "Analysis of failures", results.failures, "What the errors have in common."),
        Item(
            "40",
            DISCUSSION,
            "Limitations",
            results.limitations,
            "Bias, generalisability, and what the data cannot show.",
        ),
        Item("41", DISCUSSION, "Implications for practice", None, "Intended use and clinical role."),
        Item("42", OTHER, "Protocol or technical details", None, "Where the protocol is."),
        Item("43", OTHER, "Availability of software, model, data", model.availability, "Where they can be had."),
        Item("44", OTHER, "Funding", None, "Sources of support, and the funders' role."),
    ),
)
