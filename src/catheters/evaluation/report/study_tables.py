"""Results that papers are asked for as text, for a terminal: by patient, at a fixed specificity, readers."""

from collections.abc import Sequence

from catheters.evaluation.by_patient import PatientResults
from catheters.evaluation.evaluation import Evaluation
from catheters.evaluation.operating_points import OperatingPoint
from catheters.evaluation.readers import PairAgreement, ReaderResults
from catheters.evaluation.report.tables import likelihood_ratio, text_table, threshold_text, with_interval


def fixed_table(points: Sequence[OperatingPoint]) -> str:
    """One row per label: threshold, and the sensitivity and specificity that it reaches where it was not chosen."""
    return text_table(
        ["label", "threshold", "sensitivity", "specificity"],
        [
            [point.label, threshold_text(point.threshold), *map(with_interval, (point.sensitivity, point.specificity))]
            for point in points
        ],
    )


def patients_table(by_patient: PatientResults) -> str:
    """One row per label and device type: patients, ROC AUC, and the operating point among patients."""
    rows = []
    parts = (
        (by_patient.scores, by_patient.points, ""),
        (by_patient.presence_scores, by_patient.presence_points, " (any)"),
    )
    for scores, points, suffix in parts:
        for k, point in enumerate(points):
            rates = (point.sensitivity, point.specificity)
            ratios = (point.positive_likelihood_ratio, point.negative_likelihood_ratio)
            rows.append(
                [
                    point.label + suffix,
                    f"{scores.num_positives[k]}",
                    f"{scores.num_known[k]}",
                    with_interval(scores.estimate("roc_auc", point.label)),
                    *map(with_interval, rates),
                    *map(likelihood_ratio, ratios),
                ]
            )
    rows.append(["macro mean", "", "", with_interval(by_patient.scores.macro("roc_auc")), "", "", "", ""])
    return text_table(["label", "positives", "patients", "ROC AUC", "sensitivity", "specificity", "LR+", "LR-"], rows)


def indeterminate_table(evaluation: Evaluation) -> str:
    """One row per label: images of which it is unknown, and those that are deferred."""
    scores = evaluation.scores
    return text_table(
        ["indeterminate images", "label unknown", "deferred positives", "deferred negatives"],
        [
            [
                of.label,
                f"{scores.num_images - scores.num_known[k]}",
                f"{of.num_deferred_positives}",
                f"{of.num_deferred_negatives}",
            ]
            for k, of in enumerate(evaluation.abstentions)
        ],
    )


def readers_text(readers: ReaderResults) -> str:
    """Agreement of readers, and of the model with each."""
    parts = []
    if readers.pairs:
        parts.append(_pairs_table("between readers", readers.pairs))
    if readers.joint:
        rows = [[of.label, f"{of.num_readers}", f"{of.num_images}", with_interval(of.kappa)] for of in readers.joint]
        parts.append(text_table(["all readers", "readers", "images", "Fleiss' kappa"], rows))
    parts.append(_judged_table("against the label table", readers.against_labels, readers.model_against_labels))
    parts.append(_judged_table("the model against each reader", readers.model, ()))
    return "\n\n".join(parts)


def _pairs_table(heading: str, pairs: Sequence[PairAgreement]) -> str:
    return text_table(
        [heading, "images", "agreement", "Cohen's kappa"],
        [
            [
                f"{pair.label}: {pair.judge}, {pair.reference}",
                f"{pair.num_images}",
                *map(with_interval, (pair.agreement, pair.kappa)),
            ]
            for pair in pairs
        ],
    )


def _judged_table(heading: str, pairs: Sequence[PairAgreement], models: Sequence[PairAgreement]) -> str:
    """Readers, each with the model on the same images below it."""
    rows = []
    for number, pair in enumerate(pairs):
        name = pair.judge if models else pair.reference
        rows.append(_judged(f"{pair.label}: {name}", pair))
        if models:
            rows.append(_judged("  the model, same images", models[number]))
    return text_table([heading, "images", "sensitivity", "specificity", "agreement", "Cohen's kappa"], rows)


def _judged(name: str, pair: PairAgreement) -> list[str]:
    estimates = (pair.sensitivity, pair.specificity, pair.agreement, pair.kappa)
    return [name, f"{pair.num_images}", *map(with_interval, estimates)]
