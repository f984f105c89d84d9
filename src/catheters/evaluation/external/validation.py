"""Everything that an external validation finds out."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from catheters.errors import UserError
from catheters.evaluation.calibration import SMALLEST
from catheters.evaluation.caveats import Caveat
from catheters.evaluation.external.calibration_curve import CalibrationCurve, calibration_curve
from catheters.evaluation.external.case_mix import ColumnShift, FeatureShift, Spread, column_shifts, spreads
from catheters.evaluation.external.decision_curve import DecisionCurve, decision_curves
from catheters.evaluation.external.local_fit import LocalFit, fit_locally
from catheters.evaluation.external.measures import (
    CHECKED,
    OF_ALL_TOGETHER,
    FrozenPredictions,
    Judged,
    LabelResult,
    Numbers,
    compare,
    macro_auc,
    measure,
)
from catheters.evaluation.external.sample_size import Assumed, SampleSize, design_effect, images_needed
from catheters.evaluation.intervals import Estimate
from catheters.evaluation.operating_points import Rule
from catheters.evaluation.options import INTERVAL_WIDTHS
from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import PredictionSet
from catheters.evaluation.subgroups import Subgroup, make_groups, score_subgroups

Texts = npt.NDArray[np.str_]


@dataclass(frozen=True, kw_only=True)
class OwnRun:
    """What is known of the run's own images.

    Attributes:
        numbers: label -> name of the measure -> the run's own number, out of fold.
        macro_auc: mean over all its labels.
        predicted: calibrated out-of-fold predictions, with the truth where its label table is at hand, else unknown.
        has_truth: whether it is.
        columns: column -> (m,) texts of its label table; empty likewise.
        num_models: that predict new images together, while one predicted each image out of fold.
    """

    numbers: Mapping[str, Numbers]
    macro_auc: Estimate
    predicted: PredictionSet
    has_truth: bool
    columns: Mapping[str, Texts]
    num_models: int


@dataclass(frozen=True, kw_only=True)
class ExternalChoices:
    """What the user decides.

    Attributes:
        seed: of the draws of local patients.
        widths: measure -> width of the interval that a sample size is asked for.
        band_edges: column of subgroups -> where its bands of numbers begin; None where the column says it itself.
    """

    seed: int = 0
    widths: Mapping[str, float] = dataclasses.field(default_factory=lambda: dict(INTERVAL_WIDTHS))
    band_edges: Mapping[str, Sequence[float] | None] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ExternalValidation:
    """All of it.

    Attributes:
        predictions: of the images from elsewhere.
        own: of the run's own.
        rule: by which its thresholds were chosen.
        calibration: its method of calibration.
        results: of each label.
        macro_auc: mean over the labels that have both classes here, of the model as it is shipped.
        alike_macro_auc: the same of what is held against the run's own, see `FrozenPredictions`.
        own_macro_auc: the run's own of the same labels; where they are not all of its labels, without an interval.
        calibration_curves: label -> curve.
        decision_curves: label -> curve.
        own_decision_curves: label -> of the run's own images; empty where their truth is not at hand.
        spreads: of the predictions of each label, here and out of fold.
        columns: that both tables have.
        columns_passed_over: those of them that have too many values to be compared.
        features: how far the images lie; None where that is not known.
        subgroups: of the images from elsewhere.
        local_fits: what local patients would give.
        sample_sizes: for the widths that are wanted.
        caveats: what has to be known before a number is believed.
    """

    predictions: FrozenPredictions
    own: OwnRun
    rule: Rule
    calibration: str
    results: list[LabelResult]
    macro_auc: Estimate
    alike_macro_auc: Estimate
    own_macro_auc: Estimate
    calibration_curves: Mapping[str, CalibrationCurve]
    decision_curves: Mapping[str, DecisionCurve]
    own_decision_curves: Mapping[str, DecisionCurve]
    spreads: list[Spread]
    columns: list[ColumnShift]
    columns_passed_over: list[str]
    features: FeatureShift | None
    subgroups: list[Subgroup]
    local_fits: list[LocalFit]
    sample_sizes: list[SampleSize]
    caveats: tuple[Caveat, ...]

    @property
    def num_images(self) -> int:
        """From elsewhere."""
        return len(self.predictions.evaluated)

    @property
    def num_patients(self) -> int:
        """Whose they are."""
        return len(np.unique(self.predictions.evaluated.patient_ids))

    @property
    def is_model_by_model(self) -> bool:
        """Whether differences are of the fold models one by one, as the run's own numbers are."""
        return _is_model_by_model(self.predictions, self.own)

    @property
    def alike_name(self) -> str:
        """What the numbers are of that are held against the run's own."""
        return "model by model" if self.is_model_by_model else "together, by the folds' thresholds"

    @property
    def checked(self) -> tuple[str, ...]:
        """The measures that may raise an alarm."""
        return _checked(self.predictions, self.own)

    @property
    def judged(self) -> list[LabelResult]:
        """The labels that have both classes here."""
        return [result for result in self.results if result.is_judged]

    @property
    def compared(self) -> list[LabelResult]:
        """Those of which a number is held against the run's own."""
        return [result for result in self.results if result.is_compared]

    @property
    def with_alarm(self) -> list[LabelResult]:
        """Those with a difference that is more than chance."""
        return [result for result in self.judged if result.alarms]


def validate(
    predictions: FrozenPredictions,
    own: OwnRun,
    rule: Rule,
    calibration: str,
    columns: Mapping[str, Texts],
    features: FeatureShift | None,
    caveats: Sequence[Caveat],
    choices: ExternalChoices,
) -> ExternalValidation:
    """Find out everything; nothing of the model is fitted.

    Args:
        predictions: of n images from elsewhere.
        own: of the run's own.
        rule: by which its thresholds were chosen.
        calibration: its method of calibration.
        columns: column -> (n,) texts of the label table from elsewhere.
        features: how far the images lie; None where that is not known.
        caveats: what is known beforehand.
        choices: by which it is made.

    Raises:
        UserError: no label has positives and negatives, or a column cannot be put into groups.
    """
    evaluated = predictions.evaluated
    groups = {name: make_groups(name, columns[name], edges) for name, edges in choices.band_edges.items()}
    results = compare(predictions, _with_own_truth(own), _checked(predictions, own))
    judged = [result for result in results if result.is_judged]
    if not judged:
        told = ", ".join(
            f"{result.label} ({result.num_positives} of {result.num_known} positive)"
            for result in results
            if result.is_told
        )
        raise UserError(
            f"{evaluated.name}: no label has both positives and negatives there, so nothing can be validated: {told}"
        )
    patients = Patients(evaluated.patient_ids)
    curves = {
        result.label: calibration_curve(of_label := evaluated.of_label(k), patients.take(of_label.rows))
        for k, result in enumerate(results)
        if result.is_judged
    }
    is_judged = np.array([result.is_judged for result in results])
    shifts, passed_over = column_shifts(columns, own.columns)
    ranked = evaluated.with_probabilities(predictions.frozen.scores)
    return ExternalValidation(
        predictions=predictions,
        own=own,
        rule=rule,
        calibration=calibration,
        results=results,
        macro_auc=macro_auc(evaluated, [predictions.frozen], is_judged),
        alike_macro_auc=macro_auc(evaluated, predictions.alike, is_judged),
        own_macro_auc=_own_macro_auc(own, results),
        calibration_curves={label: curve for label, curve in curves.items() if curve is not None},
        decision_curves=decision_curves(evaluated),
        own_decision_curves=decision_curves(own.predicted) if own.has_truth else {},
        spreads=spreads(evaluated, predictions.alike, own.predicted),
        columns=shifts,
        columns_passed_over=passed_over,
        features=features,
        subgroups=score_subgroups(ranked, groups),
        local_fits=fit_locally(predictions, rule, choices.seed),
        sample_sizes=sample_sizes(predictions, results, choices.widths),
        caveats=tuple(caveats),
    )


def _own_macro_auc(own: OwnRun, results: Sequence[LabelResult]) -> Estimate:
    """The run's mean over the labels that have both classes here: its evaluation writes the interval of all alone."""
    if all(result.is_judged for result in results):
        return own.macro_auc
    areas = [result.own["roc_auc"].value for result in results if result.is_judged]
    return Estimate(value=float(np.mean(areas)), low=math.nan, high=math.nan)


def _is_model_by_model(predictions: FrozenPredictions, own: OwnRun) -> bool:
    return len(predictions.alike) > 1 or own.num_models == 1


def _checked(predictions: FrozenPredictions, own: OwnRun) -> tuple[str, ...]:
    return CHECKED if _is_model_by_model(predictions, own) else OF_ALL_TOGETHER


def _with_own_truth(own: OwnRun) -> dict[str, Numbers]:
    """The run's numbers, with those that its evaluation does not write."""
    if not own.has_truth:
        return dict(own.numbers)
    probabilities = own.predicted.probabilities
    judged = Judged(probabilities=probabilities, scores=probabilities, predicted=np.zeros(probabilities.shape))
    numbers_of_labels = measure(own.predicted, [judged], np.zeros(probabilities.shape[1], dtype=np.bool_))
    further = ("brier", "prevalence", "mean_prediction")
    of_labels = zip(own.predicted.labels, numbers_of_labels, strict=True)
    return {
        label: {**{name: numbers[name] for name in further}, **own.numbers.get(label, {})}
        for label, numbers in of_labels
    }


def sample_sizes(
    predictions: FrozenPredictions, results: Sequence[LabelResult], widths: Mapping[str, float]
) -> list[SampleSize]:
    """What the wanted widths need, of each label that has both classes, if what was found here holds.

    Args:
        predictions: of n images.
        results: (K,) what was found.
        widths: measure -> wanted width of its interval.
    """
    evaluated, found = predictions.evaluated, []
    for k, result in enumerate(results):
        if not result.is_judged:
            continue
        of_label = evaluated.of_label(k)
        patient_ids = evaluated.patient_ids[of_label.rows]
        effect = design_effect(of_label.targets.astype(np.float64), patient_ids)
        per_patient = len(of_label.rows) / len(np.unique(patient_ids))
        assumed = _assumed(result, logit(np.clip(of_label.probabilities, SMALLEST, 1 - SMALLEST)))
        for name, width in widths.items():
            images = images_needed(name, assumed, width)
            patients = images * effect / per_patient
            found.append(
                SampleSize(
                    label=result.label,
                    measure=name,
                    width=width,
                    images=images,
                    design_effect=effect,
                    patients=patients if math.isnan(patients) else math.ceil(patients),
                )
            )
    return found


def _assumed(result: LabelResult, logits: npt.NDArray[np.float64]) -> Assumed:
    """That what was found here holds for the images to come."""
    here = {name: estimate.value for name, estimate in result.here.items()}
    slope, intercept = here["slope"], here["intercept"]
    if math.isnan(slope):  # a threshold keeps the classes apart: as if the probabilities were right
        slope, intercept = 1.0, 0.0
    return Assumed(
        prevalence=here["prevalence"],
        roc_auc=here["roc_auc"],
        observed_to_expected=here["observed_to_expected"],
        slope=slope,
        intercept=intercept,
        logits=logits,
        sensitivity=here["sensitivity"],
        specificity=here["specificity"],
        ppv=here["ppv"],
    )
