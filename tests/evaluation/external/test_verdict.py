"""What an external validation says in words."""

from pathlib import Path

import numpy as np
import pytest

from catheters.evaluation.external.validation import ExternalChoices, ExternalValidation, OwnRun, validate
from catheters.evaluation.external.verdict import judge, summarise
from catheters.evaluation.intervals import Estimate
from catheters.evaluation.operating_points import parse_rule
from catheters.evaluation.prediction_set import PredictionSet
from tests.evaluation.external.samples import draw, freeze, own_numbers


def validate_elsewhere(
    elsewhere: PredictionSet, rng: np.random.Generator, folder: Path, shipped_threshold: float | None = None
) -> ExternalValidation:
    own = draw(rng, 150)
    numbers, thresholds, by_fold = own_numbers(own, folder)
    if shipped_threshold is not None:
        thresholds = np.full_like(thresholds, shipped_threshold)
    area = Estimate(value=0.5, low=0.4, high=0.6)
    run = OwnRun(numbers=numbers, macro_auc=area, predicted=own, has_truth=False, columns={}, num_models=5)
    predictions = freeze(elsewhere, thresholds, by_fold)
    return validate(predictions, run, parse_rule("youden"), "none", {}, None, [], ExternalChoices())


def test_the_runs_own_mean_is_of_the_labels_that_are_judged(rng: np.random.Generator, tmp_path: Path) -> None:
    """A label that nobody has there is in neither mean; the mean of the others has no interval of its own."""
    elsewhere = draw(rng, 150)
    whole = validate_elsewhere(elsewhere, rng, tmp_path)
    assert whole.own_macro_auc == Estimate(value=0.5, low=0.4, high=0.6)
    elsewhere.targets[:, 0] = 0
    fewer = validate_elsewhere(elsewhere, rng, tmp_path)
    areas = [fewer.own.numbers[label]["roc_auc"].value for label in ("some", "often")]
    assert fewer.own_macro_auc.value == pytest.approx(sum(areas) / 2)
    assert not fewer.own_macro_auc.has_interval
    assert f"with one model for each image, it was {sum(areas) / 2:.3f}. " in summarise(fewer)


def test_other_rates_as_shipped_are_said(rng: np.random.Generator, tmp_path: Path) -> None:
    """By a frozen threshold that nobody reaches, all models together find nobody; each alone finds as many as ever."""
    elsewhere = draw(rng, 150)
    as_ever = validate_elsewhere(elsewhere, np.random.default_rng(1), tmp_path)
    assert not any("as they are shipped" in judge(result) for result in as_ever.results)
    out_of_reach = validate_elsewhere(elsewhere, np.random.default_rng(1), tmp_path, shipped_threshold=1.1)
    for result in out_of_reach.results:
        assert not result.alarms
        found = result.alike["sensitivity"].value
        assert f"have another sensitivity (0.00 in place of {found:.2f}) and specificity (1.00" in judge(result)
