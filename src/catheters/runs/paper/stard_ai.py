"""STARD-AI, for studies of diagnostic accuracy of AI."""

from catheters.runs.paper.answers import data, model, results
from catheters.runs.paper.checklist import Checklist, Item

TITLE, INTRODUCTION, DESIGN = "Title and abstract", "Introduction", "Methods: study design and ethics"
PARTICIPANTS, DATASET, TEST = "Methods: participants", "Methods: dataset", "Methods: test methods"
ANALYSIS, OF_DATA, OF_TEST = "Methods: analysis", "Results: participants and dataset", "Results: test results"
DISCUSSION, OTHER = "Discussion", "Other information"

STARD_AI = Checklist(
    key="stard-ai",
    name="STARD-AI",
    source="Sounderajah et al., The STARD-AI reporting guideline for diagnostic accuracy studies using artificial "
    "intelligence, Nature Medicine 2025;31:3283-3289.",
    items=(
        Item("1", TITLE, "Diagnostic accuracy of AI, with a measure", results.headline, "Say so in title or abstract."),
        Item("2", TITLE, "Structured summary", results.headline, "Write the abstract by STARD for Abstracts."),
        Item("3", INTRODUCTION, "Background and intended use", None, "Background, novelty, place in the workflow."),
        Item("4", INTRODUCTION, "Objectives and hypotheses", None, "Objectives, and hypotheses where there are any."),
        Item(
            "5", DESIGN, "Prospective or retrospective", None, "Whether data were collected before or after the tests."
        ),
        Item("6", DESIGN, "Ethics approval", None, "Committee and number, or why none was needed."),
        Item("7", PARTICIPANTS, "Eligibility, in the order applied", data.eligibility, "Criteria for participants."),
        Item("8", PARTICIPANTS, "How participants were identified", None, "By symptoms, earlier results, a registry."),
        Item("9", PARTICIPANTS, "Where and when", None, "Setting, places, dates."),
        Item("10", PARTICIPANTS, "Consecutive, random or convenience series", None, "Say which."),
        Item("11", DATASET, "Source of the data", data.data_sources, "Routine, collected for this, or public."),
        Item("12", DATASET, "Who annotated, and how", None, "Number, experience and background, context."),
        Item("13", DATASET, "Devices and software", model.software, "Manufacturer and model of the X-ray devices."),
        Item("14", DATASET, "Acquisition and preprocessing", model.preprocessing, "How the X-rays were taken."),
        Item("15a", TEST, "Index test", model.architecture),
        Item("15b", TEST, "How the index test was developed", results.development),
        Item(
            "15c", TEST, "Thresholds of the index test", results.thresholds, "Whether prespecified, and why this rule."
        ),
        Item("15d", TEST, "Intended users", None, "Who uses it, with which expertise."),
        Item("16a", TEST, "Reference standard", data.reference_standard, "How labels were made."),
        Item("16b", TEST, "Reason for the reference standard", None, "Why this one."),
        Item(
            "16c",
            TEST,
            "Thresholds of the reference standard",
            None,
            "When a label is given, and whether prespecified.",
        ),
        Item("17a", TEST, "What the index test knew", model.model_input),
        Item(
            "17b", TEST, "What the assessors of the reference knew", None, "Clinical information, output of the model."
        ),
        Item("18", ANALYSIS, "Statistical methods", results.statistical_methods),
        Item("19", ANALYSIS, "Indeterminate results", results.indeterminate),
        Item("20", ANALYSIS, "Missing data", data.missing_data),
        Item("21", ANALYSIS, "Analyses of variability", results.robustness, "Which were prespecified."),
        Item("22", ANALYSIS, "Intended sample size", data.sample_size, "How it was determined."),
        Item("23", ANALYSIS, "Errors, bias and fairness", results.subgroups, "Which groups, and why these."),
        Item("24", OF_DATA, "Flow of participants, as a diagram", data.flow_numbers),
        Item("25", OF_DATA, "Characteristics of each set", data.characteristics, "What the label table lacks."),
        Item("26a", OF_DATA, "Severity in those with the condition", None, "What is known beyond the labels."),
        Item("26b", OF_DATA, "Other diagnoses in those without it", None, "What else the X-rays show."),
        Item("27", OF_DATA, "Time and treatment between both tests", None, "None, where both read the same X-ray."),
        Item(
            "28",
            OF_DATA,
            "Whether the data represent intended use",
            None,
            "Whether those in Table 1 are such as are expected in use.",
        ),
        Item(
            "29",
            OF_DATA,
            "External data against the others",
            results.case_mix,
            "Validate elsewhere, or say none; what else differs.",
        ),
        Item("30", OF_TEST, "Cross-tabulation", results.cross_tabulation),
        Item("31", OF_TEST, "Accuracy with precision", results.accuracy_estimates),
        Item("32", OF_TEST, "Adverse events", None, "Of the tests, or that there were none."),
        Item("33", DISCUSSION, "Limitations", results.limitations, "Bias, uncertainty, generalisability."),
        Item("34", DISCUSSION, "Implications for practice", None, "Intended use and clinical role."),
        Item("35", DISCUSSION, "Ethics and fairness", None, "Of using the model."),
        Item("36", OTHER, "Registration", None, "Number and registry."),
        Item("37", OTHER, "Protocol", None, "Where it is."),
        Item("38", OTHER, "Funding", None, "Sources, and the funders' role."),
        Item("39", OTHER, "Commercial interests", None, "Of the authors, or that there are none."),
        Item(
            "40a",
            OTHER,
            "Availability of data and code",
            model.availability,
            "Where they can be had, with restrictions.",
        ),
        Item("40b", OTHER, "Stored and auditable outputs", model.full_model, "Who can see them."),
    ),
)
