"""A frozen model elsewhere, against numbers that are worked out another way, and in simulations with a known truth."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

from catheters.evaluation.evaluation import Choices, evaluate
from catheters.evaluation.external.calibration_curve import calibration_curve
from catheters.evaluation.external.case_mix import intercept_by_prevalence
from catheters.evaluation.external.measures import (
    CHECKED,
    OF_ALL_TOGETHER,
    Judged,
    LabelResult,
    compare,
    macro_auc,
    measure,
    subtract_independent,
)
from catheters.evaluation.external.own_numbers import read_own_numbers
from catheters.evaluation.intervals import NO_ESTIMATE, Estimate
from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import PredictionSet
from catheters.evaluation.results import write_metrics
from tests.evaluation.external.samples import CENTRES, draw, freeze, own_numbers

Floats = npt.NDArray[np.float64]


def test_every_measure_of_a_few_images_by_hand() -> None:
    """Six images: 1, 1, 0, 0, 0, 1 with the probabilities below, threshold 0.5."""
    targets = np.array([1, 1, 0, 0, 0, 1.0])
    probabilities = np.array([0.9, 0.4, 0.6, 0.2, 0.1, 0.7])
    predictions = freeze(PredictionSet(
        name="few", labels=("a",), uids=np.array(list("abcdef")), patient_ids=np.array(list("abcdef")), folds=None,
        targets=targets[:, None], probabilities=probabilities[:, None],
    ), np.array([0.5]))  # fmt: skip
    (found,) = measure(predictions.evaluated, [predictions.frozen], predictions.has_threshold)
    values = {name: estimate.value for name, estimate in found.items()}
    assert values["roc_auc"] == pytest.approx(8 / 9)
    assert values["sensitivity"] == pytest.approx(2 / 3)
    assert values["specificity"] == pytest.approx(2 / 3)
    assert values["ppv"] == pytest.approx(2 / 3)
    assert values["npv"] == pytest.approx(2 / 3)
    assert values["observed_to_expected"] == pytest.approx(3 / 2.9)
    assert values["brier"] == pytest.approx((0.01 + 0.36 + 0.36 + 0.04 + 0.01 + 0.09) / 6)
    assert values["prevalence"] == 0.5
    assert values["mean_prediction"] == pytest.approx(2.9 / 6)


def test_the_mean_of_two_models_is_that_of_their_numbers(rng: np.random.Generator) -> None:
    evaluated = draw(rng, 80)
    other = expit(logit(evaluated.probabilities) + rng.normal(size=evaluated.probabilities.shape))
    judged = [
        Judged(probabilities=of, scores=of, predicted=(of >= threshold).astype(np.float64))
        for of, threshold in ((evaluated.probabilities, 0.3), (other, 0.2))
    ]
    has_threshold = np.ones(len(CENTRES), dtype=np.bool_)
    both = measure(evaluated, judged, has_threshold)
    one, two = (measure(evaluated, [of_model], has_threshold) for of_model in judged)
    for k in range(len(CENTRES)):
        for name in ("roc_auc", "sensitivity", "slope", "observed_to_expected", "ppv"):
            assert both[k][name].value == pytest.approx((one[k][name].value + two[k][name].value) / 2)
            assert both[k][name].low < both[k][name].value < both[k][name].high


def test_independent_differences_have_the_normal_interval() -> None:
    """Of two normal intervals: half widths 0.3 and 0.4 make 0.5."""
    here = Estimate(value=0.8, low=0.5, high=1.1)
    own = Estimate(value=0.6, low=0.2, high=1.0)
    found = subtract_independent(here, own)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, -0.3, 0.7))
    assert not subtract_independent(here, NO_ESTIMATE).has_interval


def test_own_numbers_are_those_of_the_evaluation(rng: np.random.Generator, tmp_path: Path) -> None:
    own = draw(rng, 120)
    evaluation = evaluate(own, {}, {}, Choices(calibration="none", prevalences={"rare": 0.01}))
    file = tmp_path / "metrics.json"
    write_metrics(file, evaluation, Path("predictions.csv"), "a", "b", "labels.csv", len(own))
    found = read_own_numbers(file)
    for k, label in enumerate(own.labels):
        assert found[label]["roc_auc"] == evaluation.scores.estimate("roc_auc", label)
        assert found[label]["sensitivity"] == evaluation.points[k].sensitivity
        assert found[label]["slope"] == evaluation.recalibrations[k].slope
        assert found[label]["brier"] == evaluation.scores.estimate("brier", label)
    # Restated predictive values are of no images.
    assert "ppv" in found["often"] and "ppv" not in found["rare"]


def test_identical_data_give_no_alarm_and_1(rng: np.random.Generator, tmp_path: Path) -> None:
    """The very images of the run, which a run refuses: every difference is 0 but for the choice of thresholds."""
    own = draw(rng, 150)
    numbers, thresholds, by_fold = own_numbers(own, tmp_path)
    for result in compare(freeze(own, thresholds, by_fold), numbers):
        assert not result.alarms
        assert result.differences["roc_auc"].value == 0
        assert result.differences["observed_to_expected"].value == pytest.approx(0)
        assert result.here["observed_to_expected"].low < 1 < result.here["observed_to_expected"].high
        assert result.differences["brier"].value == pytest.approx(0, abs=1e-12)
        assert intercept_by_prevalence(result) is not None


@pytest.mark.slow
def test_alike_samples_rarely_raise_an_alarm(tmp_path: Path) -> None:
    """12 repeats here; benchmarks/external.py has hundreds."""
    alarms = 0
    for repeat in range(12):
        rng = np.random.default_rng(repeat)
        numbers, thresholds, by_fold = own_numbers(draw(rng, 150), tmp_path)
        results = compare(freeze(draw(rng, 120), thresholds, by_fold), numbers)
        alarms += any(result.alarms for result in results)
    assert alarms <= 2


class Elsewhere:
    """Another hospital of a known truth: logit P(y = 1) = intercept + slope logit(p)."""

    intercept, slope = -0.8, 0.6

    def truth(self, probabilities: Floats) -> Floats:
        return np.asarray(expit(self.intercept + self.slope * logit(probabilities)))

    def draw(self, rng: np.random.Generator, num_patients: int) -> PredictionSet:
        return draw(rng, num_patients, intercept=self.intercept, slope=self.slope)


def test_a_second_hospital_is_found_within_the_intervals() -> None:
    """In 40 repeats: observed over expected, slope, intercept, and the recalibrated curve at three probabilities."""
    elsewhere = Elsewhere()
    held: dict[str, list[bool]] = {name: [] for name in ("ratio", "slope", "intercept", "curve")}
    many = elsewhere.draw(np.random.default_rng(99), 40_000)
    ratios = elsewhere.truth(many.probabilities).mean(axis=0) / many.probabilities.mean(axis=0)
    for repeat in range(40):
        evaluated = elsewhere.draw(np.random.default_rng(repeat), 250)
        results = compare(freeze(evaluated, np.full(len(CENTRES), 0.3)), {})
        patients = Patients(evaluated.patient_ids)
        for k, result in enumerate(results):
            of = result.here
            held["ratio"].append(of["observed_to_expected"].low <= ratios[k] <= of["observed_to_expected"].high)
            held["slope"].append(of["slope"].low <= elsewhere.slope <= of["slope"].high)
            held["intercept"].append(of["intercept"].low <= elsewhere.intercept <= of["intercept"].high)
            curve = calibration_curve(evaluated.of_label(k), patients)
            assert curve is not None
            for point in (5, 20, 35):
                truth = float(elsewhere.truth(curve.predicted[point : point + 1])[0])
                held["curve"].append(curve.observed[point].low <= truth <= curve.observed[point].high)
    for name, found in held.items():
        assert 0.9 <= np.mean(found) <= 0.995, name


def test_what_differs_raises_an_alarm(rng: np.random.Generator, tmp_path: Path) -> None:
    numbers, thresholds, by_fold = own_numbers(draw(rng, 400), tmp_path)
    results = compare(freeze(Elsewhere().draw(rng, 400), thresholds, by_fold), numbers)
    assert all({"slope", "observed_to_expected"} <= set(result.alarms) for result in results if result.label == "often")
    # A model that guesses there: the AUC is what is lost.
    guessing = draw(rng, 400)
    guessed = guessing.with_probabilities(rng.permuted(guessing.probabilities, axis=0))
    assert all("roc_auc" in result.alarms for result in compare(freeze(guessed, thresholds, by_fold), numbers))


def test_the_prevalence_alone_moves_the_calibration_in_the_large(rng: np.random.Generator) -> None:
    """Of the positives every other one is dropped: the odds halve, and so does the intercept move by log 2."""
    own = draw(rng, 4000)
    targets, probabilities = own.targets[:, 2], own.probabilities[:, 2]
    is_kept = (targets == 0) | (rng.random(len(own)) < 0.5)
    (there,), (here,) = (
        measure(of.evaluated, [of.frozen], of.has_threshold)
        for of in (
            freeze(one_label(own, targets, probabilities)),
            freeze(one_label(own, targets, probabilities, is_kept)),
        )
    )
    result = LabelResult(
        label="a", num_known=1, num_positives=1, num_positive_patients=1, num_negative_patients=1, here=here,
        alike=here, own=there, differences={}, p_holm={},
    )  # fmt: skip
    assert intercept_by_prevalence(result) == pytest.approx(-math.log(2), abs=0.1)
    assert here["in_the_large"].value == pytest.approx(intercept_by_prevalence(result), abs=0.1)


def one_label(
    own: PredictionSet, targets: Floats, probabilities: Floats, is_kept: npt.NDArray[np.bool_] | None = None
) -> PredictionSet:
    kept = np.ones(len(own), dtype=np.bool_) if is_kept is None else is_kept
    return PredictionSet(
        name="one", labels=("a",), uids=own.uids[kept], patient_ids=own.patient_ids[kept], folds=None,
        targets=targets[kept, None], probabilities=probabilities[kept, None],
    )  # fmt: skip


def test_one_class_and_no_label_have_no_numbers(rng: np.random.Generator) -> None:
    evaluated = draw(rng, 40)
    evaluated.targets[:, 0] = 0
    evaluated.targets[:, 1] = np.nan
    first, second, third = compare(freeze(evaluated, np.full(3, 0.3)), {})
    assert first.is_told and not first.is_judged
    assert not first.here["roc_auc"].is_defined and first.here["specificity"].is_defined
    assert not second.is_told and not second.here["prevalence"].is_defined
    assert third.is_judged and third.here["roc_auc"].value == pytest.approx(
        roc_auc_score(evaluated.targets[:, 2], evaluated.probabilities[:, 2])
    )
    assert all(math.isnan(third.p_holm[name]) for name in CHECKED) and not third.alarms


def test_models_together_raise_no_alarm_of_what_single_models_alone_could_tell(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    """Slope, sensitivity and specificity; the mean of two models' AUCs is the mean over the labels, too."""
    numbers, thresholds, by_fold = own_numbers(draw(rng, 150), tmp_path)
    predictions = freeze(Elsewhere().draw(rng, 150), thresholds, by_fold)
    for result in compare(predictions, numbers, OF_ALL_TOGETHER):
        assert set(result.alarms) <= set(OF_ALL_TOGETHER)
        assert result.not_compared == ("sensitivity", "specificity", "slope")
    evaluated = predictions.evaluated
    guess = rng.random(evaluated.probabilities.shape)
    guessed = Judged(probabilities=guess, scores=guess, predicted=guess)
    areas = [
        roc_auc_score(evaluated.targets[:, k], of[:, k]) for of in (evaluated.probabilities, guess) for k in range(3)
    ]
    found = macro_auc(evaluated, [predictions.frozen, guessed], np.ones(3, dtype=np.bool_))
    assert found.value == pytest.approx(np.mean(areas)) and found.low < found.value < found.high
