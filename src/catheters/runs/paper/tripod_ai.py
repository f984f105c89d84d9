"""TRIPOD+AI, for studies that develop or evaluate a prediction model."""

from catheters.runs.paper.answers import data, model, results
from catheters.runs.paper.checklist import Checklist, Item

TITLE, INTRODUCTION, METHODS = "Title and abstract", "Introduction", "Methods"
OPEN, INVOLVEMENT, RESULTS, DISCUSSION = "Open science", "Patient and public involvement", "Results", "Discussion"

TRIPOD_AI = Checklist(
    key="tripod-ai",
    name="TRIPOD+AI",
    source="Collins et al., TRIPOD+AI statement: updated guidance for reporting clinical prediction models that use "
    "regression or machine learning methods, BMJ 2024;385:e078378.",
    items=(
        Item("1", TITLE, "Model, population and outcome in the title", model.study_goal, "Title, with the population."),
        Item("2", TITLE, "Abstract", results.headline, "Write it by TRIPOD+AI for Abstracts."),
        Item("3a", INTRODUCTION, "Healthcare context and rationale", None, "Context, reason, existing models."),
        Item(
            "3b", INTRODUCTION, "Target population and intended use", None, "Whom, where in the pathway, which users."
        ),
        Item("3c", INTRODUCTION, "Known health inequalities", None, "Between sociodemographic groups."),
        Item("4", INTRODUCTION, "Objectives", model.study_goal, "The clinical objective."),
        Item("5a", METHODS, "Sources of data", data.data_sources, "Kind of data, why these, how representative."),
        Item("5b", METHODS, "Dates", None, "Begin and end of the collection."),
        Item("6a", METHODS, "Setting", None, "Kind of care, number and place of centres."),
        Item("6b", METHODS, "Eligibility", data.eligibility, "Clinical criteria by which images were collected."),
        Item("6c", METHODS, "Treatments", None, "Those that matter, or that none do."),
        Item("7", METHODS, "Preparation and quality checks", data.quality_checks, "Whether alike across groups."),
        Item("8a", METHODS, "Outcome", data.reference_standard, "What each label means, how and when it was assessed."),
        Item("8b", METHODS, "Outcome assessors", None, "Their qualification and demography."),
        Item("8c", METHODS, "Blinding of the outcome assessment", None, "What the assessors knew."),
        Item(
            "9a",
            METHODS,
            "Choice of predictors",
            model.preprocessing,
            "That the X-ray alone is the predictor, and why.",
        ),
        Item("9b", METHODS, "Definition of predictors", model.preprocessing, "How and when the X-rays were taken."),
        Item("9c", METHODS, "Predictor assessors", model.model_input),
        Item("10", METHODS, "Sample size", data.sample_size, "How it was arrived at, and why it is enough."),
        Item("11", METHODS, "Missing data", data.missing_data),
        Item("12a", METHODS, "How data were used and partitioned", data.partitions),
        Item("12b", METHODS, "Handling of predictors", model.preprocessing),
        Item("12c", METHODS, "Type of model, building, internal validation", model.training, "The rationale."),
        Item("12d", METHODS, "Heterogeneity across clusters", results.heterogeneity, "Across hospitals, with --by."),
        Item("12e", METHODS, "Measures and plots of performance", results.metrics),
        Item("12f", METHODS, "Model updating", results.recalibration),
        Item("12g", METHODS, "How predictions were calculated", model.ensembling),
        Item("13", METHODS, "Class imbalance", model.class_imbalance),
        Item("14", METHODS, "Fairness", results.subgroups, "Which approaches to fairness were taken, and why."),
        Item("15", METHODS, "Output and thresholds", results.thresholds, "Why this rule."),
        Item(
            "16",
            METHODS,
            "Development against evaluation data",
            results.tested_on,
            "Differences, if any.",
        ),
        Item("17", METHODS, "Ethical approval", None, "Committee, number, consent or its waiver."),
        Item("18a", OPEN, "Funding", None, "Sources, and the funders' role."),
        Item("18b", OPEN, "Conflicts of interest", None, "Of all authors."),
        Item("18c", OPEN, "Protocol", None, "Where it is, or that there was none."),
        Item("18d", OPEN, "Registration", None, "Register and number, or that there is none."),
        Item("18e", OPEN, "Availability of data", None, "Where the data can be had."),
        Item("18f", OPEN, "Availability of code", model.availability, "Where the code can be had."),
        Item("19", INVOLVEMENT, "Involvement of patients and the public", None, "Which, or that there was none."),
        Item("20a", RESULTS, "Flow of participants", data.flow_numbers),
        Item("20b", RESULTS, "Characteristics", data.characteristics, "Dates, and what the label table lacks."),
        Item("20c", RESULTS, "Comparison with the development data", results.case_mix, "For an external evaluation."),
        Item("21", RESULTS, "Participants and events in each analysis", data.numbers_in_analyses),
        Item("22", RESULTS, "The full model", model.full_model, "Where it can be had, and under which terms."),
        Item("23a", RESULTS, "Performance with intervals", results.accuracy_estimates, "Key subgroups, with --by."),
        Item("23b", RESULTS, "Heterogeneity of performance", results.heterogeneity, "Across hospitals, with --by."),
        Item("24", RESULTS, "Results of model updating", results.recalibration),
        Item("25", DISCUSSION, "Interpretation, with fairness", None, "In the light of aims and earlier studies."),
        Item("26", DISCUSSION, "Limitations", results.limitations, "Their effect on bias and generalisability."),
        Item("27a", DISCUSSION, "Poor or missing input", model.input_quality, "What users should do then."),
        Item("27b", DISCUSSION, "Interaction and expertise of users", None, "What users have to do and to know."),
        Item("27c", DISCUSSION, "Next steps", None, "Further research, applicability, generalisability."),
    ),
)
