"""What an evaluation says of scores, thresholds, calibration, subgroups and failures."""

from collections.abc import Callable, Sequence

from catheters.errors import counted, listed
from catheters.evaluation.by_patient import PATIENT_RULE
from catheters.evaluation.evaluation import NUM_DEVICE_TYPES
from catheters.evaluation.external.files import JSON_FILE
from catheters.evaluation.external.known import FOLDER
from catheters.evaluation.intervals import COVERAGE_EXCEPTIONS, METHOD
from catheters.evaluation.lines.pointing_game import HOTTEST_SHARE
from catheters.evaluation.operating_points import OperatingPoint
from catheters.evaluation.options import NO_CALIBRATION
from catheters.evaluation.readers import PairAgreement
from catheters.evaluation.report.tables import likelihood_ratio, threshold_text, with_interval
from catheters.evaluation.scores import METRICS
from catheters.runs.paper.answers.data import held_out, partitions
from catheters.runs.paper.answers.model import training
from catheters.runs.paper.checklist import Answer
from catheters.runs.paper.facts import Facts


def _of_points(points: Sequence[OperatingPoint], describe: Callable[[OperatingPoint], str]) -> str:
    return "; ".join(f"{point.label} {describe(point)}" for point in points)


def headline(facts: Facts) -> Answer:
    """The one number, and of how many."""
    scores = facts.evaluation.scores
    text = (
        f"Macro ROC AUC {with_interval(scores.macro('roc_auc'))} (95% CI) over {counted(len(scores.labels), 'label')}, "
        f"{facts.flow.evaluated}."
    )
    settings = facts.settings
    if settings is None or not facts.flow.is_out_of_fold:
        return Answer(text=text, source="metrics.json")
    text += f" Evaluated {held_out(facts, settings.num_folds)}, each image by a model without its patient."
    return Answer(text=text, source="metrics.json")


def metrics(facts: Facts) -> Answer:
    """Which measures there are."""
    evaluation = facts.evaluation
    text = (
        f"{', '.join(METRICS.values())} of every label and their macro means; sensitivity, specificity, predictive "
        f"values and likelihood ratios at a threshold by {evaluation.choices.rule.words}; sensitivity at a specificity "
        f"of {evaluation.choices.at_specificity:g}; the same by patient ({PATIENT_RULE}); calibration slope, intercept "
        "and observed over expected. Plots: ROC, precision-recall and reliability curves (report.html)."
    )
    return Answer(text=text, source="metrics.json, report.html")


def uncertainty(facts: Facts) -> Answer:
    """How intervals are made, and when they miss."""
    text = (
        f"95% confidence intervals {METHOD}, since images of a patient are alike. Not every interval holds exactly: "
        f"{'; '.join(COVERAGE_EXCEPTIONS)}."
    )
    if facts.background.comparison is not None:
        tests = facts.background.comparison.tests
        text += (
            f" Two models are compared by the paired difference and by {tests.num_permutations:,} permutations within "
            "patients, with Holm's correction over the labels."
        )
    return Answer(text=text, source="metrics.json (intervals)")


def statistical_methods(facts: Facts) -> Answer:
    """Both of the above."""
    first, second = metrics(facts), uncertainty(facts)
    return Answer(text=f"{first.text} {second.text}", source="metrics.json, report.html")


def development(facts: Facts) -> Answer | None:
    """Training, and the folds that it was done and tested on, with their sizes."""
    trained, split = training(facts), partitions(facts)
    if trained is None or split is None:
        return None
    tested = internal_testing(facts)
    texts = [trained.text, split.text, *([] if tested is None else [tested.text])]
    return Answer(text=" ".join(texts), source="settings.json, flow.csv, predictions.csv")


def performance(facts: Facts) -> Answer:
    """ROC AUC of every label, by image and by patient."""
    scores, by_patient = facts.evaluation.scores, facts.evaluation.by_patient.scores
    labels = "; ".join(f"{label} {with_interval(scores.estimate('roc_auc', label))}" for label in scores.labels)
    text = (
        f"ROC AUC (95% CI): macro mean {with_interval(scores.macro('roc_auc'))}; {labels}. By patient: macro mean "
        f"{with_interval(by_patient.macro('roc_auc'))} of {counted(by_patient.num_patients, 'patient')}."
    )
    if facts.background.comparison is not None:
        comparison = facts.background.comparison
        gap = with_interval(comparison.differences.macro("roc_auc"), 4)
        text += f" Difference from {comparison.first.name}: {gap}."
    return Answer(text=text, source="metrics.json")


def diagnostic_performance(facts: Facts) -> Answer:
    """Sensitivity, specificity, likelihood ratios of every label."""
    evaluation = facts.evaluation

    def describe(point: OperatingPoint) -> str:
        above, below = map(likelihood_ratio, (point.positive_likelihood_ratio, point.negative_likelihood_ratio))
        rates = f"{with_interval(point.sensitivity)} and {with_interval(point.specificity)}"
        return f"{rates}, LR+ {above}, LR- {below}"

    text = (
        f"Sensitivity and specificity (95% CI), each {evaluation.judged_parts} by the threshold that the others chose: "
        f"{_of_points(evaluation.points, describe)}. Predictive values are in metrics.csv."
    )
    readers = model_against_readers(facts)
    text += "" if readers is None else f" {readers}"
    return Answer(text=text, source="metrics.json (per_label)")


def accuracy_estimates(facts: Facts) -> Answer:
    """Both of the above."""
    first, second = performance(facts), diagnostic_performance(facts)
    return Answer(text=f"{first.text} {second.text}", source="metrics.json, metrics.csv")


def cross_tabulation(facts: Facts) -> Answer:
    """The four numbers of every label."""
    table = _of_points(facts.evaluation.points, lambda point: " / ".join(f"{number:,}" for number in point.confusion))
    text = f"Images that are true positive / false positive / false negative / true negative: {table}."
    return Answer(text=text, source="metrics.json (operating_point.confusion)")


def thresholds(facts: Facts) -> Answer:
    """How thresholds are chosen, and which they are."""
    evaluation = facts.evaluation
    chosen = _of_points(evaluation.points, lambda point: threshold_text(point.threshold))
    text = (
        f"Positive from a threshold on, chosen by {evaluation.choices.rule.words}. Each {evaluation.judged_parts} is "
        f"judged by the threshold that the others chose; those for new images are chosen on all: {chosen}."
    )
    return Answer(text=text, source="metrics.json (per_label)")


def indeterminate(facts: Facts) -> Answer:
    """Deferred images, unknown labels, unreadable files."""
    evaluation = facts.evaluation
    scores = evaluation.scores
    deferred = "; ".join(
        f"{of.label} {of.num_deferred_positives:,} positive and {of.num_deferred_negatives:,} negative, unknown "
        f"{scores.num_images - scores.num_known[k]:,}"
        for k, of in enumerate(evaluation.abstentions)
    )
    text = (
        "Above, every image is decided, and images of which a label is unknown are left out for that label. With a "
        f"band that defers uncertain images (at most {evaluation.choices.abstain_error:.0%} of each class decided "
        f"wrongly), deferred would be: {deferred}. X-rays that could not be read: {facts.flow.num_unreadable:,}."
    )
    return Answer(text=text, source="metrics.json (abstention), flow.csv")


def calibration(facts: Facts) -> Answer:
    """Slope and intercept of the probabilities as they are, and what is done about them."""
    evaluation = facts.evaluation
    labels = "; ".join(
        f"{of.label} {with_interval(of.slope)} and {with_interval(of.intercept)}" for of in evaluation.recalibrations
    )
    kept = f"{evaluation.calibrator.method} is kept: {evaluation.calibration.reason}"
    return Answer(text=f"Calibration slope and intercept: {labels}. {kept}.", source="metrics.json (calibration)")


def recalibration(facts: Facts) -> Answer:
    """Whether probabilities are recalibrated for new images."""
    evaluation = facts.evaluation
    method = evaluation.calibrator.method
    if method == NO_CALIBRATION:
        text = f"Probabilities are not recalibrated: {evaluation.calibration.reason}."
    else:
        chosen = evaluation.calibrated
        text = (
            f"Probabilities of new images are recalibrated by {method}, fitted on all evaluated images: "
            f"{evaluation.calibration.reason}. Judged across folds: Brier skill {chosen.brier_skill:.4f}, calibration "
            f"error {chosen.expected_error:.4f}."
        )
    return Answer(text=text, source="metrics.json (calibration), calibration.json")


def subgroups(facts: Facts) -> Answer | None:
    """Scores of groups, by the columns that were asked for."""
    groups = [group for group in facts.evaluation.subgroups if group.column != NUM_DEVICE_TYPES]
    if not groups:
        return None
    columns = listed(dict.fromkeys(group.column for group in groups))
    scores = "; ".join(
        f"{group.column} {group.value} ({counted(group.scores.num_images, 'image')}) "
        f"{with_interval(group.macros('roc_auc')[0])}"
        for group in groups
    )
    apart = [f"{group.column} {group.value}: {listed(group.apart('roc_auc'))}" for group in groups]
    apart = [text for text, group in zip(apart, groups, strict=True) if group.apart("roc_auc")]
    found = (
        f"Apart from the rest by more than chance: {'; '.join(apart)}."
        if apart
        else "No group is apart by more than chance."
    )
    return Answer(text=f"Macro ROC AUC by {columns}: {scores}. {found}", source="metrics.json (subgroups)")


def heterogeneity(facts: Facts) -> Answer | None:
    """Scores fold by fold; hospitals are subgroups."""
    evaluation = facts.evaluation
    if len(evaluation.folds) < 2:
        return None
    macros = evaluation.fold_macros("roc_auc")
    folds = "; ".join(
        f"fold {fold.fold} {with_interval(macro)}" for fold, macro in zip(evaluation.folds, macros, strict=True)
    )
    text = f"Macro ROC AUC by fold: {folds}; standard deviation {evaluation.fold_spread('roc_auc'):.3f}."
    return Answer(text=text, source="metrics.json (folds)")


def robustness(facts: Facts) -> Answer:
    """By patient, at another threshold, by fold."""
    evaluation = facts.evaluation
    fixed = _of_points(evaluation.fixed_points, lambda point: with_interval(point.sensitivity))
    text = (
        f"By patient, macro ROC AUC {with_interval(evaluation.by_patient.scores.macro('roc_auc'))}. Sensitivity at a "
        f"specificity of {evaluation.choices.at_specificity:g}: {fixed}."
    )
    by_fold = heterogeneity(facts)
    return Answer(text=text if by_fold is None else f"{text} {by_fold.text}", source="metrics.json")


def internal_testing(facts: Facts) -> Answer | None:
    """Out-of-fold predictions."""
    settings = facts.settings
    if settings is None or not facts.flow.is_out_of_fold:
        return None
    text = (
        f"{facts.flow.evaluated} {held_out(facts, settings.num_folds)}: each image is predicted by the model that was "
        f"trained without its patient{', and all folds are scored as one set' if len(facts.flow.folds) > 1 else ''}. "
        "The epoch was chosen on the same images, so scores are slightly optimistic"
    )
    text += "." if facts.validations else "; there is no other held-out set in this run."
    return Answer(text=text, source="predictions.csv")


def external_testing(facts: Facts) -> Answer | None:
    """What the frozen model did on images from elsewhere."""
    if not facts.validations:
        return None
    texts = [f"{name}: {content['summary']}" for name, content in facts.validations.items()]
    text = f"Model, thresholds and calibration were frozen. {' '.join(texts)}"
    return Answer(text=text, source=_files_of_validations(facts))


def tested_on(facts: Facts) -> Answer | None:
    """Which images were developed on, and which evaluated."""
    answers = [answer for answer in (internal_testing(facts), external_testing(facts)) if answer is not None]
    if not answers:
        return None
    return Answer(text=" ".join(of.text for of in answers), source=", ".join(of.source for of in answers))


def case_mix(facts: Facts) -> Answer | None:
    """Sizes and prevalences of images from elsewhere beside those of the run."""
    if not facts.validations:
        return None
    texts = []
    for name, content in facts.validations.items():
        known = [of for of in content["per_label"] if of["num_known"]]
        shares = "; ".join(f"{of['label']} {of['num_positives']:,} of {of['num_known']:,}" for of in known)
        images, patients = counted(content["num_images"], "image"), counted(content["num_patients"], "patient")
        texts.append(f"{name}: {images} of {patients}; positive: {shares}.")
    return Answer(text=" ".join(texts), source=_files_of_validations(facts))


def _files_of_validations(facts: Facts) -> str:
    return ", ".join(f"{FOLDER}/{name}/{JSON_FILE}" for name in facts.validations)


def failures(facts: Facts) -> Answer:
    """Confident errors, and labels that contradict the model."""
    evaluation = facts.evaluation
    errors = _of_points(evaluation.points, lambda point: f"{point.confusion[1]:,} / {point.confusion[2]:,}")
    text = (
        f"False positive / false negative images: {errors}. The "
        f"{counted(len(evaluation.hardest), 'most confident error')} are "
        f"shown in report.html. {counted(len(evaluation.read_again), 'label')} of the table contradict the model and "
        "are to be read again."
    )
    return Answer(text=text, source="hardest_cases.csv, read_again.csv, report.html")


def explainability(facts: Facts) -> Answer | None:
    """Heatmaps held against drawn tips, where that was asked for."""
    explanations = facts.evaluation.explanations
    if explanations is None or not explanations.scores:
        return None
    shares = "; ".join(
        f"{score.method}, {score.device_type}, {counted(score.num_cases, 'case')}: "
        f"{with_interval(score.estimates['hits'])}, of a model with random weights "
        f"{with_interval(score.estimates['randomised'])}"
        for score in explanations.scores
    )
    text = (
        f"Heatmaps; share of drawn tips in their hottest {HOTTEST_SHARE:.0%}: {shares}. Chance is {HOTTEST_SHARE:.0%}."
    )
    return Answer(text=text, source="metrics.json (explanations)")


def model_against_readers(facts: Facts) -> str | None:
    """The model beside the readers, on the same images."""
    readers = facts.evaluation.readers
    if readers is None:
        return None

    def rates(pair: PairAgreement) -> str:
        return f"{with_interval(pair.sensitivity)} and {with_interval(pair.specificity)}"

    pairs = zip(readers.against_labels, readers.model_against_labels, strict=True)
    text = "; ".join(f"{of.label}, {of.judge}: {rates(of)}, the model {rates(model)}" for of, model in pairs)
    return f"Readers' sensitivity and specificity against the label table, and the model's on the same images: {text}."


def limitations(facts: Facts) -> Answer:
    """What the run knows of its own limits."""
    known = [caveat.text for caveat in facts.evaluation.caveats]
    if facts.flow.is_out_of_fold:
        known.append("the best epoch was chosen on the images that are scored")
    if facts.background.image_kind != "real":
        known.append(f"the X-rays are {facts.background.image_kind}")
    rare = [
        f"{label} ({number})"
        for label, number in zip(
            facts.evaluation.scores.labels, facts.evaluation.scores.num_positive_patients, strict=True
        )
        if number < 10
    ]
    if rare:
        known.append(f"fewer than 10 positive patients: {listed(rare)}")
    text = "; ".join(known) or "the evaluation found no caveat"
    return Answer(text=f"Known to the run: {text}.", source="metrics.json (caveats)")
