"""Everything that is found out about one set of predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from catheters.evaluation.calibration import Calibrator
from catheters.evaluation.calibration_choice import (
    Calibrated,
    CalibrationChoice,
    calibrate_by_all,
    choose_calibration,
    fit_chosen,
)
from catheters.evaluation.caveats import Caveat, join_caveats
from catheters.evaluation.hard_cases import Case, hardest_cases, is_informative, labels_to_read_again
from catheters.evaluation.intervals import Estimate
from catheters.evaluation.lines.evaluation import LineEvaluation
from catheters.evaluation.lines.explanations import Explanations
from catheters.evaluation.metrics import one_class_warnings, score_labels
from catheters.evaluation.operating_points import OperatingPoint, Rule, judge
from catheters.evaluation.options import BEST_CALIBRATION, ERROR_RATE
from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import (
    PredictionSet,
    device_type_presence,
    fitting_folds,
    names_several_folds,
)
from catheters.evaluation.recalibration import Recalibration, recalibrate
from catheters.evaluation.scores import Scores, score
from catheters.evaluation.selective_prediction import Abstention, abstain
from catheters.evaluation.subgroups import Subgroup, count_device_types, make_groups, score_subgroups

Floats = npt.NDArray[np.float64]

NUM_DEVICE_TYPES = "device types in the image"


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the user decides.

    Attributes:
        seed: of the permutations of a comparison, and of the images whose heatmaps are held against drawn tips.
        rule: how thresholds are chosen.
        prevalences: label or device type -> the prevalence for which its predictive values are restated.
        calibration: a key of `calibration.METHODS`, `none`, or `best`: the simplest of these, unless another is better
            beyond chance, see `choose_calibration`.
        abstain_error: share of each class that may be decided wrongly, while the rest is deferred.
        band_edges: column of `columns` -> where its bands of numbers begin; None where the column says it itself.
        max_explained: images of a run whose heatmaps are held against drawn tips; 0: none, `ALL_IMAGES`: all.
    """

    seed: int = 0
    rule: Rule = field(default_factory=lambda: Rule(name="youden"))
    prevalences: Mapping[str, float] = field(default_factory=dict)
    calibration: str = BEST_CALIBRATION
    abstain_error: float = ERROR_RATE
    band_edges: Mapping[str, Sequence[float] | None] = field(default_factory=dict)
    max_explained: int = 0


@dataclass(frozen=True, kw_only=True)
class FoldScore:
    """The images of one fold.

    Attributes:
        fold: its number.
        scores: theirs.
    """

    fold: int
    scores: Scores


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All of it.

    Attributes:
        evaluated: the labels' predictions.
        presence: those of the device types.
        choices: by which it was made.
        scores: of the labels.
        presence_scores: of the device types.
        points: the labels' operating points.
        presence_points: those of the device types.
        abstentions: what each label is when uncertain images are deferred to a person.
        calibrations: every method, and none; that alone where no other patients could judge a method.
        calibration: which of them is chosen, and why.
        calibrator: the chosen one, fitted on all images.
        recalibrations: slope, intercept and more of each label's probabilities as they are.
        recalibrations_of_calibrated: the same of the probabilities that the chosen one gives across folds.
        folds: each fold by itself; empty where the predictions name none.
        subgroups: by each column.
        hardest: the most confident errors.
        read_again: labels to be read again by a person.
        uninformative_labels: names of those of which none are sought for that, see `is_informative`.
        caveats: what has to be known before a score is believed.
        explanations: how well heatmaps point at drawn tips; None where that was not asked for.
        lines: how well lines and tips are found; None where no lines were predicted and drawn.
    """

    evaluated: PredictionSet
    presence: PredictionSet
    choices: Choices
    scores: Scores
    presence_scores: Scores
    points: list[OperatingPoint]
    presence_points: list[OperatingPoint]
    abstentions: list[Abstention]
    calibrations: list[Calibrated]
    calibration: CalibrationChoice
    calibrator: Calibrator
    recalibrations: list[Recalibration]
    recalibrations_of_calibrated: list[Recalibration]
    folds: list[FoldScore]
    subgroups: list[Subgroup]
    hardest: list[Case]
    read_again: list[Case]
    uninformative_labels: list[str]
    caveats: tuple[Caveat, ...]
    explanations: Explanations | None = None
    lines: LineEvaluation | None = None

    @property
    def judged_parts(self) -> str:
        """What thresholds and calibration are judged on, each by what the others gave, in words."""
        return "fold" if names_several_folds(self.evaluated) else "part of the patients, split for this,"

    def fold_macros(self, metric: str) -> list[Estimate]:
        """Each fold's mean over the labels that are defined in all of them."""
        is_defined = np.all([~np.isnan(fold.scores.values[metric]) for fold in self.folds], axis=0)
        return [fold.scores.macro(metric, is_defined) for fold in self.folds]

    def fold_spread(self, metric: str) -> float:
        """Standard deviation of `fold_macros`; NaN for a single fold."""
        values = [estimate.value for estimate in self.fold_macros(metric)]
        return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")

    @property
    def calibration_is_judged(self) -> bool:
        """Whether there are patients to fit on and others to judge by."""
        return len(self.calibrations) > 1

    @property
    def calibrated(self) -> Calibrated:
        """By the chosen method."""
        return next(calibrated for calibrated in self.calibrations if calibrated.method == self.calibrator.method)


def evaluate(
    evaluated: PredictionSet,
    heads: Mapping[str, tuple[str, ...]],
    columns: Mapping[str, npt.NDArray[np.str_]],
    choices: Choices,
) -> Evaluation:
    """Find out everything.

    Args:
        evaluated: predictions and truth of n images.
        heads: device type -> its labels, for presence and the number of device types; may be empty.
        columns: name -> (n,) values as text, for subgroups.
        choices: by which it is made.

    Raises:
        UserError: a column cannot be put into groups.
    """
    groups = {name: make_groups(name, values, choices.band_edges.get(name)) for name, values in columns.items()}
    if heads:
        groups[NUM_DEVICE_TYPES] = make_groups(NUM_DEVICE_TYPES, count_device_types(evaluated, heads), None)
    patients = Patients(evaluated.patient_ids)
    folds = fitting_folds(evaluated)
    presence = device_type_presence(evaluated, heads)
    calibrations = calibrate_by_all(evaluated, folds)
    choice = choose_calibration(choices.calibration, evaluated, calibrations, patients)
    calibrated = next(calibrated for calibrated in calibrations if calibrated.method == choice.method)
    calibrated_predictions = evaluated.with_probabilities(calibrated.probabilities)
    points = judge(evaluated, folds, choices.rule, patients, choices.prevalences)
    return Evaluation(
        evaluated=evaluated,
        presence=presence,
        choices=choices,
        scores=score(evaluated, patients),
        presence_scores=score(presence, patients),
        points=points,
        presence_points=judge(presence, folds, choices.rule, patients, choices.prevalences),
        abstentions=abstain(evaluated, folds, points, patients, choices.abstain_error),
        calibrations=calibrations,
        calibration=choice,
        calibrator=fit_chosen(choice.method, evaluated),
        recalibrations=recalibrate(evaluated, patients),
        recalibrations_of_calibrated=recalibrate(calibrated_predictions, patients),
        folds=_score_folds(evaluated),
        subgroups=score_subgroups(evaluated, groups),
        hardest=hardest_cases(evaluated, folds, points),
        read_again=labels_to_read_again(calibrated_predictions),
        uninformative_labels=np.array(evaluated.labels)[~is_informative(calibrated_predictions)].tolist(),
        caveats=join_caveats([evaluated.caveats, _find_caveats(evaluated)]),
    )


def _find_caveats(evaluated: PredictionSet) -> list[Caveat]:
    """What the predictions themselves show."""
    metrics = score_labels(evaluated.targets, evaluated.probabilities, evaluated.labels)
    found = [Caveat(kind="undefined_label", text=text) for text in one_class_warnings(metrics)]
    if len(np.unique(evaluated.patient_ids)) == 1:
        text = (
            "all images are of one patient: there are no intervals, operating points or calibration, which others "
            "would have to judge"
        )
        found.append(Caveat(kind="one_patient", text=text))
    return found


def _score_folds(evaluated: PredictionSet) -> list[FoldScore]:
    if evaluated.folds is None:
        return []
    scores = []
    for fold in np.unique(evaluated.folds):
        images = evaluated.take(evaluated.folds == fold)
        scores.append(FoldScore(fold=int(fold), scores=score(images, Patients(images.patient_ids))))
    return scores
