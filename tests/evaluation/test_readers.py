"""Kappas against scikit-learn, by hand and by leaving out each patient; readers beside a model."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, recall_score

from catheters.evaluation.intervals import Estimate
from catheters.evaluation.operating_points import judge, parse_rule
from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import fitting_folds
from catheters.evaluation.reader_results import describe_readers, list_reader_estimates
from catheters.evaluation.readers import Readings, as_kappa, cohen_kappa, compare_readers, fleiss_kappa
from tests.evaluation.conftest import make_predictions

NAN = float("nan")


def test_cohens_kappa_and_its_patients_as_scikit_learn(rng: np.random.Generator) -> None:
    """Also without each patient in turn: the jackknife."""
    one = rng.random(90) < 0.3
    other = np.where(rng.random(90) < 0.8, one, ~one)
    whose = rng.integers(0, 20, 90)
    found = cohen_kappa(one, other, Patients(whose))
    assert found.value == pytest.approx(cohen_kappa_score(one, other))
    lower = [found.value - cohen_kappa_score(one[whose != who], other[whose != who]) for who in np.unique(whose)]
    assert found.of_patients == pytest.approx(np.array(lower))
    estimate = as_kappa(found)
    assert estimate.low < estimate.value < estimate.high <= 1


def test_cohens_kappa_by_hand() -> None:
    """Of 50 images 20 are 1 for both, 15 for none, 5 and 10 for one: Cohen's kappa (0.7 - 0.5) / (1 - 0.5) = 0.4."""
    one, other = (np.repeat(values, [20, 5, 10, 15]) for values in ([True, True, False, False], [True, False] * 2))
    assert cohen_kappa(one, other, Patients(np.arange(50))).value == pytest.approx(0.4)


def test_the_interval_of_many_independent_images_as_the_asymptotic_one(rng: np.random.Generator) -> None:
    """Fleiss, Cohen and Everitt, Psychological Bulletin 72 (1969), formula 13, of two raters and two categories."""
    num_images = 4000
    one = rng.random(num_images) < 0.4
    other = np.where(rng.random(num_images) < 0.85, one, ~one)
    shares = np.array([[np.mean((one == a) & (other == b)) for b in (False, True)] for a in (False, True)])
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    agreed, chance = np.trace(shares), rows @ columns
    kappa = (agreed - chance) / (1 - chance)
    diagonal = sum(shares[i, i] * (1 - (rows[i] + columns[i]) * (1 - kappa)) ** 2 for i in range(2))
    aside = (1 - kappa) ** 2 * sum(
        shares[i, j] * (columns[i] + rows[j]) ** 2 for i in range(2) for j in range(2) if i != j
    )
    variance = (diagonal + aside - (kappa - chance * (1 - kappa)) ** 2) / (1 - chance) ** 2 / num_images
    found = cohen_kappa(one, other, Patients(np.arange(num_images)))
    assert found.standard_error == pytest.approx(np.sqrt(variance), rel=0.02)


def test_fleiss_kappa_by_hand() -> None:
    """Five images, three raters, who say 1 of 3, 2, 0, 2 and 0 of them.

    Shares of agreeing pairs 1, 1/3, 1, 1/3, 1: 11/15 on average. Of 15 ratings 7 are 1: chance (49 + 64) / 225. Kappa
    is (165 - 113) / (225 - 113) = 52 / 112.
    """
    ratings = np.array([[1, 1, 0, 1, 0], [1, 0, 0, 1, 0], [1, 1, 0, 0, 0]], dtype=np.bool_)
    found = fleiss_kappa(ratings, Patients(np.arange(5)))
    assert found.value == pytest.approx(52 / 112)
    without_last = fleiss_kappa(ratings[:, :4], Patients(np.arange(4))).value
    assert found.of_patients[4] == pytest.approx(found.value - without_last)


def test_without_variation_there_is_no_interval() -> None:
    patients = Patients(np.arange(4))
    complete = as_kappa(cohen_kappa(np.array([1, 1, 0, 0]) == 1, np.array([1, 1, 0, 0]) == 1, patients))
    assert complete.value == 1 and not complete.has_interval
    one_thing = as_kappa(cohen_kappa(np.zeros(4) == 1, np.zeros(4) == 1, patients))
    assert not one_thing.is_defined
    # The first patient alone has a 1: without that one kappa is undefined, and how sure it is not known.
    alone = as_kappa(cohen_kappa(np.array([1, 0, 0, 0]) == 1, np.array([1, 0, 0, 0]) == 1, patients))
    assert alone.value == 1 and not alone.has_interval


def test_readers_a_label_table_and_a_model(rng: np.random.Generator) -> None:
    truth = rng.integers(0, 2, (200, 2)).astype(np.float64)
    scores = np.clip(truth * 0.4 + rng.random((200, 2)) * 0.6, 0, 1)
    whose = [f"p{number // 2}" for number in range(200)]
    evaluated = make_predictions(truth, scores, whose, labels=["x", "y"])
    flip = rng.random((3, 200, 2)) < np.array([0.05, 0.1, 0.2])[:, None, None]
    values = np.where(flip, 1 - truth, truth)
    values[0, :30, 0] = NAN  # the first has not read some for x
    values[1:, :, 1] = NAN  # the others have read none for y
    folds = fitting_folds(evaluated)
    points = judge(evaluated, folds, parse_rule("youden"), Patients(evaluated.patient_ids), {})
    results = compare_readers(evaluated, Readings(readers=("A", "B", "C"), values=values), points, folds)

    assert [(pair.label, pair.judge, pair.reference, pair.num_images) for pair in results.pairs] == [
        ("x", "A", "B", 170),
        ("x", "A", "C", 170),
        ("x", "B", "C", 200),
    ]
    assert [(joint.label, joint.num_readers, joint.num_images) for joint in results.joint] == [("x", 3, 170)]
    assert results.pairs[2].num_patients == 100
    of_b = results.pairs[2]
    assert of_b.kappa.value == pytest.approx(cohen_kappa_score(values[1, :, 0], values[2, :, 0]))
    assert of_b.agreement.value == pytest.approx((values[1, :, 0] == values[2, :, 0]).mean())
    assert not of_b.sensitivity.is_defined  # no reader is the truth of another one

    against = results.against_labels
    assert [(pair.label, pair.judge) for pair in against] == [("x", "A"), ("x", "B"), ("x", "C"), ("y", "A")]
    assert against[1].sensitivity.value == pytest.approx(recall_score(truth[:, 0], values[1, :, 0]))
    assert against[1].specificity.value == pytest.approx(recall_score(truth[:, 0], values[1, :, 0], pos_label=0))

    predicted = scores[:, 0] >= np.array([points[0].fold_thresholds[int(fold)] for fold in folds])
    model = results.model[1]
    assert (model.judge, model.reference) == ("model", "B")
    assert model.sensitivity.value == pytest.approx(recall_score(values[1, :, 0], predicted))
    assert model.kappa.value == pytest.approx(cohen_kappa_score(values[1, :, 0], predicted))
    assert model.kappa.low < model.kappa.value < model.kappa.high
    # What A is compared with is the model on the images that A has read.
    read = slice(30, None)
    of_a = results.model_against_labels[0]
    assert of_a.num_images == 170
    assert of_a.sensitivity.value == pytest.approx(recall_score(truth[read, 0], predicted[read]))

    described = describe_readers(results)
    assert described["readers"] == ["A", "B", "C"]
    assert described["model_against_labels"][0]["images_of"] == "A"
    rows = {(of, name, metric) for of, name, metric, _ in list_reader_estimates(results)}
    assert ("model against reader", "y: model and A", "kappa") in rows
    assert ("all readers", "x", "kappa") in rows
    beside = {of: found for of, _, metric, found in list_reader_estimates(results) if metric == "sensitivity"}
    assert beside["model against labels, images of C"] == results.model_against_labels[2].sensitivity
    assert len(rows) == 3 * 2 + 1 + 3 * 4 * 4


def test_coverage(rng: np.random.Generator) -> None:
    """Of 400 trials with 60 patients of three images; who is hard to read is so for all readers and all images."""

    def draw(num_patients: int) -> tuple[Estimate, Estimate]:
        whose = np.repeat(np.arange(num_patients), 3)
        truth = rng.random(len(whose)) < 1 / (1 + np.exp(2 - rng.normal(size=num_patients)))[whose]
        errors = rng.beta(1, 8, size=num_patients)[whose]
        ratings = np.array([truth ^ (rng.random(len(whose)) < errors * often) for often in (1, 1.5, 0.7)])
        patients = Patients(whose)
        return as_kappa(cohen_kappa(*ratings[:2], patients)), as_kappa(fleiss_kappa(ratings, patients))

    truth = [kappa.value for kappa in draw(40_000)]
    held = np.array([[of.low < value < of.high for of, value in zip(draw(60), truth, strict=True)] for _ in range(400)])
    assert (held.mean(axis=0) > 0.91).all()
    assert (held.mean(axis=0) < 0.99).all()
