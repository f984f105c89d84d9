"""Maps that are known come back; curves by hand; files whole or refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss

from catheters.errors import UserError
from catheters.evaluation.calibration import (
    METHODS,
    Calibrator,
    LogitMap,
    calibrate_across_folds,
    fit_calibrator,
    log_losses,
    read_calibrator,
    reliability,
    write_calibrator,
)
from catheters.evaluation.prediction_set import PredictionSet
from tests.evaluation.conftest import make_predictions


def distorted(rng: np.random.Generator, slope: float, intercept: float) -> tuple[PredictionSet, np.ndarray]:
    """Predictions whose logits have to be multiplied and shifted to be right; and the right probabilities."""
    right = expit(rng.normal(-1, 2, 40_000))
    targets = (rng.random(40_000) < right).astype(np.uint8)
    given = expit((logit(right) - intercept) / slope)
    return make_predictions(targets[:, None], given[:, None], folds=(np.arange(40_000) % 5).tolist()), right


def test_platt_finds_slope_and_intercept(rng: np.random.Generator) -> None:
    evaluated, _ = distorted(rng, 0.5, -1.0)
    found = fit_calibrator("platt", evaluated).maps["label 0"]
    assert isinstance(found, LogitMap)
    assert (found.slope, found.intercept) == pytest.approx((0.5, -1.0), abs=0.05)


def test_temperature_finds_the_slope(rng: np.random.Generator) -> None:
    evaluated, _ = distorted(rng, 0.4, 0.0)
    found = fit_calibrator("temperature", evaluated).maps["label 0"]
    assert isinstance(found, LogitMap)
    assert (found.slope, found.intercept) == pytest.approx((0.4, 0.0), abs=0.02)


def test_isotonic_is_scikit_learns(rng: np.random.Generator) -> None:
    evaluated, _ = distorted(rng, 0.4, 0.3)
    targets, probabilities = evaluated.targets[:, 0], evaluated.probabilities[:, 0]
    new = rng.random(1000)
    expected = IsotonicRegression(out_of_bounds="clip").fit(probabilities, targets).predict(new)
    assert fit_calibrator("isotonic", evaluated).maps["label 0"](new) == pytest.approx(expected)


@pytest.mark.parametrize("method", list(METHODS))
def test_across_folds(rng: np.random.Generator, method: str) -> None:
    """Nearer to the truth than before, and each fold without its own labels: changing them changes nothing there."""
    evaluated, right = distorted(rng, 0.4, 0.0)
    assert evaluated.folds is not None
    calibrated = calibrate_across_folds(method, evaluated, evaluated.folds)[:, 0]
    before = np.abs(evaluated.probabilities[:, 0] - right).mean()
    assert np.abs(calibrated - right).mean() < before / 4
    targets = evaluated.targets.copy()
    targets[evaluated.folds == 2] = 1 - targets[evaluated.folds == 2]
    other = make_predictions(targets, evaluated.probabilities, folds=evaluated.folds.tolist())
    again = calibrate_across_folds(method, other, evaluated.folds)[:, 0]
    assert (again[evaluated.folds == 2] == calibrated[evaluated.folds == 2]).all()
    assert (again[evaluated.folds != 2] != calibrated[evaluated.folds != 2]).any()


def test_what_separates_perfectly_stays_finite() -> None:
    evaluated = make_predictions([[1], [1], [0], [0]], [[1.0], [0.9], [0.1], [0.0]])
    for method in METHODS:
        mapped = fit_calibrator(method, evaluated).maps["label 0"](evaluated.probabilities[:, 0])
        assert np.isfinite(mapped).all()
        assert (np.diff(mapped) <= 0).all()


def test_equal_probabilities_become_the_prevalence() -> None:
    evaluated = make_predictions([[1], [0], [0], [0]], [[0.9]] * 4)
    for method in ("platt", "isotonic"):
        calibrated = fit_calibrator(method, evaluated)(evaluated.labels, evaluated.probabilities)
        assert calibrated[:, 0] == pytest.approx([0.25] * 4)


def test_one_class_is_left_alone() -> None:
    evaluated = make_predictions([[0], [0]], [[0.2], [0.7]])
    for method in METHODS:
        calibrated = fit_calibrator(method, evaluated)(evaluated.labels, evaluated.probabilities)
        assert calibrated == pytest.approx(evaluated.probabilities)


def test_reliability_by_hand() -> None:
    """20 images, two a bin; the error is the mean of the bins' distances."""
    probabilities = np.repeat(np.arange(10) / 10, 2) + np.tile([0.0, 0.05], 10)
    targets = np.array([0, 0] * 5 + [0, 1] * 3 + [1, 1] * 2, dtype=np.uint8)
    curve = reliability(targets, probabilities)
    assert curve.counts.tolist() == [2] * 10
    assert curve.predicted == pytest.approx(np.arange(10) / 10 + 0.025)
    assert curve.observed.tolist() == [0] * 5 + [0.5] * 3 + [1] * 2
    gaps = [0.025, 0.125, 0.225, 0.325, 0.425, 0.025, 0.125, 0.225, 0.175, 0.075]
    assert curve.expected_error == pytest.approx(np.mean(gaps))


def test_equal_probabilities_share_a_bin() -> None:
    curve = reliability(np.array([1, 0, 0, 0, 1, 1], dtype=np.uint8), np.array([0.2, 0.2, 0.2, 0.2, 0.9, 0.9]))
    assert curve.counts.tolist() == [4, 2]
    assert curve.observed.tolist() == [0.25, 1.0]


def test_log_losses_are_scikit_learns(rng: np.random.Generator) -> None:
    targets, probabilities = (rng.random((50, 2)) < 0.5).astype(np.uint8), rng.random((50, 2))
    expected = [log_loss(targets[:, k], probabilities[:, k]) for k in range(2)]
    assert log_losses(make_predictions(targets, probabilities)) == pytest.approx(expected)
    assert np.isfinite(log_losses(make_predictions([[1]], [[0.0]]))).all()


def test_written_and_read_back(tmp_path: Path, rng: np.random.Generator) -> None:
    targets, probabilities = (rng.random((60, 2)) < 0.5).astype(np.uint8), rng.random((60, 2))
    evaluated = make_predictions(targets, probabilities, labels=["x", "y"])
    for method in METHODS:
        calibrator = fit_calibrator(method, evaluated)
        write_calibrator(tmp_path / "c.json", calibrator, "ab")
        read, fitted_on = read_calibrator(tmp_path / "c.json")
        assert (read, fitted_on) == (calibrator, "ab")
        swapped = read(("y", "x"), probabilities[:, ::-1])  # columns by name
        assert (swapped[:, ::-1] == calibrator(("x", "y"), probabilities)).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "missing or damaged"),
        ("[]", "missing or damaged"),
        ('{"format_version": 1, "method": "platt"}', "damaged"),
        ('{"format_version": 1, "method": "platt", "maps": {"x": {"slope": "a"}}}', "damaged"),
        ('{"format_version": 1, "method": "isotonic", "maps": {"x": {"x": [0, 1], "y": [0]}}}', "damaged"),
        ('{"format_version": 2, "other": "content"}', "is of format 2, 1 is read"),
    ],
)
def test_damaged_files(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read_calibrator(tmp_path / "c.json")
    with pytest.raises(UserError, match=r"absent\.json: missing"):
        read_calibrator(tmp_path / "absent.json")


def test_the_file_is_plain_json(tmp_path: Path) -> None:
    calibrator = Calibrator(method="platt", maps={"x": LogitMap(slope=1.5, intercept=-0.25)})
    write_calibrator(tmp_path / "c.json", calibrator, "ab")
    content = json.loads((tmp_path / "c.json").read_text())
    maps = {"x": {"slope": 1.5, "intercept": -0.25}}
    assert content == {"format_version": 1, "method": "platt", "maps": maps, "predictions_sha256": "ab"}
    del content["predictions_sha256"]  # as earlier versions wrote it
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert read_calibrator(tmp_path / "c.json") == (calibrator, None)
