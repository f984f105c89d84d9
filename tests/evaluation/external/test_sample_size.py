"""Sample sizes, against the examples of the papers' own package and against intervals of simulated samples."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from catheters.evaluation.external.local_fit import fit_locally
from catheters.evaluation.external.measures import compare
from catheters.evaluation.external.sample_size import Assumed, design_effect, images_needed
from catheters.evaluation.external.validation import sample_sizes
from catheters.evaluation.operating_points import Rule
from catheters.evaluation.options import INTERVAL_WIDTHS
from catheters.evaluation.prediction_set import PredictionSet
from catheters.evaluation.recalibration import fit_slope
from tests.evaluation.external.samples import freeze

QUANTILES = norm.ppf((np.arange(100_000) + 0.5) / 100_000)


def assumed(logits: np.ndarray, prevalence: float, area: float) -> Assumed:
    return Assumed(
        prevalence=prevalence, roc_auc=area, observed_to_expected=1.0, slope=1.0, intercept=0.0, logits=logits,
        sensitivity=0.8, specificity=0.9, ppv=0.4,
    )  # fmt: skip


def test_the_example_of_the_papers() -> None:
    """Riley et al. 2021, a mechanical heart valve's failure: pmvalsampsize finds 905, 4544 and 4252 patients.

    It steps standard errors by 0.0001 and draws logits at random, of which another seed gives 4501.
    """
    heart_valve = assumed(2.5 * QUANTILES - 5, 0.018, 0.8)
    assert images_needed("observed_to_expected", heart_valve, 1.0) == pytest.approx(905, abs=1)
    assert images_needed("slope", heart_valve, 0.2) == pytest.approx(4544, rel=0.01)
    assert images_needed("roc_auc", heart_valve, 0.1) == 4252


def test_shares_by_hand() -> None:
    """4 x 1.96^2 x 0.8 x 0.2 / 0.1^2 = 245.9 positives, and 0.1 of the images are positive."""
    here = assumed(QUANTILES, 0.1, 0.8)
    assert images_needed("sensitivity", here, 0.1) == math.ceil(4 * norm.ppf(0.975) ** 2 * 0.16 / 0.01 / 0.1)
    assert images_needed("specificity", here, 0.1) == math.ceil(4 * norm.ppf(0.975) ** 2 * 0.09 / 0.01 / 0.9)
    predicted = 0.8 * 0.1 + 0.1 * 0.9
    assert images_needed("ppv", here, 0.1) == math.ceil(4 * norm.ppf(0.975) ** 2 * 0.24 / 0.01 / predicted)
    assert math.isnan(images_needed("sensitivity", assumed(QUANTILES, 0.0, 0.8), 0.1))
    # A share of 1 does not say that no patient is needed, and a billion images are no plan.
    of_all = dataclasses.replace(assumed(QUANTILES, 0.3, 0.8), sensitivity=1.0, specificity=0.0)
    assert all(math.isnan(images_needed(name, of_all, 0.1)) for name in ("sensitivity", "specificity"))
    assert math.isnan(images_needed("roc_auc", assumed(QUANTILES, 0.001, 0.8), 0.0001))


@pytest.mark.parametrize("measure", ["roc_auc", "slope", "observed_to_expected"])
def test_so_many_images_have_an_interval_of_the_width(measure: str, rng: np.random.Generator) -> None:
    """Of 150 samples of the size that is given, 3.92 standard deviations of the number are the width."""
    logits = 1.5 * QUANTILES - 1
    truth = expit(logits)
    weights = truth[:, None] * (1 - truth)[None, ::500]
    area = float((weights * (logits[:, None] > logits[None, ::500])).sum() / weights.sum())
    width = {"roc_auc": 0.1, "slope": 0.6, "observed_to_expected": 0.3}[measure]
    size = int(images_needed(measure, assumed(logits, float(truth.mean()), area), width))
    found = []
    for _ in range(150):
        drawn = rng.choice(logits, size)
        targets = (rng.random(size) < expit(drawn)).astype(np.uint8)
        if measure == "roc_auc":
            found.append(roc_auc_score(targets, drawn))
        elif measure == "slope":
            found.append(fit_slope(targets, drawn)[1])
        else:
            found.append(targets.sum() / expit(drawn).sum())
    assert 2 * norm.ppf(0.975) * np.std(found) == pytest.approx(width, rel=0.2)


def test_design_effect() -> None:
    """All images of a patient alike, four each: four times as many. Independent ones: as many."""
    patients = np.repeat(np.arange(200), 4).astype(np.str_)
    alike = np.repeat(np.arange(200) % 3 == 0, 4).astype(np.float64)
    assert design_effect(alike, patients) == pytest.approx(4)
    independent = (np.random.default_rng(0).random(800) < 0.3).astype(np.float64)
    assert design_effect(independent, patients) == pytest.approx(1, abs=0.2)
    assert design_effect(alike, np.arange(800).astype(np.str_)) == 1
    assert design_effect(alike, np.zeros(800).astype(np.str_)) == 1


def sample(rng: np.random.Generator, num_patients: int, intercept: float, slope: float) -> PredictionSet:
    logits = rng.normal(-1, 1.5, num_patients)
    targets = (rng.random(num_patients) < expit(intercept + slope * logits)).astype(np.float64)
    ids = np.arange(num_patients).astype(np.str_)
    return PredictionSet(
        name="one", labels=("a",), uids=ids, patient_ids=ids, folds=None, targets=targets[:, None],
        probabilities=expit(logits)[:, None],
    )  # fmt: skip


def test_patients_are_images_times_the_design_effect(rng: np.random.Generator) -> None:
    """Every image twice under the same patient says nothing new: as many patients as of one image each."""
    one = sample(rng, 400, 0, 1)
    twice = one.take(np.repeat(np.arange(400), 2))
    sizes = [
        sample_sizes(predictions, compare(predictions, {}), INTERVAL_WIDTHS)
        for predictions in (freeze(one, np.array([0.3])), freeze(twice, np.array([0.3])))
    ]
    for single, double in zip(*sizes, strict=True):
        assert double.images == pytest.approx(single.images, abs=1)
        assert double.design_effect == pytest.approx(2)
        assert double.patients == pytest.approx(single.patients, abs=1)


def test_local_patients_mend_what_is_wrong(rng: np.random.Generator) -> None:
    """Probabilities that are too extreme and too high: an intercept mends the ratio, a slope the rest, more patients
    more of it; of right ones a fit of few patients is worse than none."""
    wrong = fit_locally(freeze(sample(rng, 900, -1.0, 0.5), np.array([0.3])), Rule(name="youden"), 0)
    numbers = {(fit.num_patients, fit.method): fit.numbers for fit in wrong}
    as_it_is, intercept, both = (numbers[400, name] for name in ("as it is", "intercept", "intercept and slope"))
    assert as_it_is["observed_to_expected"].mean < 0.8
    assert intercept["observed_to_expected"].mean == pytest.approx(1, abs=0.1)
    assert both["slope"].mean == pytest.approx(1, abs=0.15)
    assert both["log_loss"].mean < intercept["log_loss"].mean < as_it_is["log_loss"].mean
    for name in ("intercept", "intercept and slope"):
        few, many = (numbers[size, name]["observed_to_expected"] for size in (25, 400))
        assert few.high - few.low > 1.5 * (many.high - many.low)
    right = fit_locally(freeze(sample(rng, 900, 0.0, 1.0), np.array([0.3])), Rule(name="youden"), 0)
    of_few = {fit.method: fit.numbers for fit in right if fit.num_patients == 25}
    assert of_few["intercept and slope"]["log_loss"].mean > of_few["as it is"]["log_loss"].mean


def test_a_local_threshold_reaches_what_is_required(rng: np.random.Generator) -> None:
    """The frozen one finds too few of the positives there."""
    evaluated = sample(rng, 900, 1.0, 1.0)
    fits = fit_locally(freeze(evaluated, np.array([0.7])), Rule(name="sensitivity", required=0.9), 0)
    numbers = {fit.method: fit.numbers for fit in fits if fit.num_patients == 400}
    assert numbers["as it is"]["sensitivity"].mean < 0.5
    assert numbers["threshold"]["sensitivity"].mean == pytest.approx(0.9, abs=0.04)


def test_draws_without_both_classes_are_not_counted(rng: np.random.Generator) -> None:
    evaluated = sample(rng, 60, 0, 1)
    evaluated.targets[:] = 0
    evaluated.targets[:2] = 1
    fits = fit_locally(freeze(evaluated), Rule(name="youden"), 0)
    assert {fit.num_patients for fit in fits} == {25}
    # One of the two positives is drawn and the other is not: in 25/60 x 35/59 x 2 of the draws.
    assert 0 < fits[0].num_draws < 50
