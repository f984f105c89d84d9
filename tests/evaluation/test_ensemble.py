"""Ensembles by hand; weights that are neither chance nor flattery."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from catheters.evaluation.ensemble import METHODS, combine, fit_weights, write_ensemble
from catheters.evaluation.prediction_set import PredictionSet
from tests.evaluation.conftest import make_predictions

PREVALENCES = np.array([0.05, 0.3, 0.6])


def make_members(
    rng: np.random.Generator, qualities: list[float], num_images: int = 6000, own_noise: float = 0.5
) -> list[PredictionSet]:
    """Models whose errors are partly shared, as those of networks are; calibrated but for their noise."""
    targets = (rng.random((num_images, 3)) < PREVALENCES).astype(np.uint8)
    shared = rng.normal(size=targets.shape)
    signs = 2.0 * targets - 1
    base = np.log(PREVALENCES / (1 - PREVALENCES))
    return [
        make_predictions(
            targets,
            expit(base + quality * signs + shared + own_noise * rng.normal(size=targets.shape)),
            folds=(np.arange(num_images) % 5).tolist(),
            name=f"model {number}",
        )
        for number, quality in enumerate(qualities)
    ]


def macro_auc(evaluated: PredictionSet) -> float:
    return float(roc_auc_score(evaluated.targets, evaluated.probabilities, average="macro"))


def test_ensembles_by_hand(rng: np.random.Generator) -> None:
    members = make_members(rng, [1.0, 1.0, 0.5], num_images=50)
    stacked = np.stack([member.probabilities for member in members])
    expected = {
        "mean": stacked.mean(axis=0),
        "rank": np.mean([rankdata(one, axis=0) / 50 for one in stacked], axis=0),
        "power": np.sqrt((stacked**2).mean(axis=0)),
    }
    for method, probabilities in expected.items():
        ensemble = combine(method, members, "ensemble")
        assert ensemble.combined.probabilities == pytest.approx(probabilities)
        assert [member.weight for member in ensemble.members] == pytest.approx([1 / 3] * 3)
        assert ensemble.members[1].macro_auc == pytest.approx(macro_auc(members[1]))
        without = combine(method, [members[0], members[2]], "pair").combined
        assert ensemble.members[1].macro_auc_without == pytest.approx(macro_auc(without))


def test_groups_that_not_all_members_have_exclude_each_other_no_more(rng: np.random.Generator) -> None:
    good, alike, noise = make_members(rng, [2.0, 2.0, 0.0], own_noise=1.0)
    group = good.labels[:2]
    grouped, turned = (replace(member, exclusive=(labels,)) for member, labels in ((good, group), (alike, group[::-1])))
    assert combine("mean", [grouped, turned], "e").combined.exclusive == (group,)
    assert combine("mean", [grouped, alike], "e").combined.exclusive == ()
    weighted = combine("weights", [grouped, noise], "e")
    assert weighted.members[1].weight == 0  # so that it has no say in what excludes what
    assert weighted.combined.exclusive == (group,)
    assert combine("weights", [grouped, alike], "e").combined.exclusive == ()
    assert combine("rank", [grouped, turned], "e").combined.exclusive == ()  # ranks sum to nothing


def test_equal_members_get_about_equal_weights(rng: np.random.Generator) -> None:
    members = make_members(rng, [1.0] * 6)
    weights = [member.weight for member in combine("weights", members, "ensemble").members]
    assert sum(weights) == pytest.approx(1)
    assert weights == pytest.approx([1 / 6] * 6, abs=0.05)


def test_noise_gets_no_weight(rng: np.random.Generator) -> None:
    members = make_members(rng, [1.5, 1.5, 0.0])
    ensemble = combine("weights", members, "ensemble")
    assert ensemble.members[2].weight < 0.05
    assert macro_auc(ensemble.combined) > macro_auc(combine("mean", members, "ensemble").combined) + 0.01
    assert ensemble.members[2].macro_auc_without > ensemble.members[0].macro_auc_without


def test_one_summit_against_a_grid(rng: np.random.Generator) -> None:
    """The likeliest weight of two members, by trying them all, lies where the fit draws towards from equal ones."""
    members = make_members(rng, [2.0, 0.7], num_images=3000, own_noise=1.0)
    stacked = np.stack([member.probabilities for member in members])
    targets, folds = members[0].targets, members[0].folds
    assert folds is not None
    prevalence = targets.mean(axis=0)
    entropy = -prevalence * np.log(prevalence) - (1 - prevalence) * np.log(1 - prevalence)
    grid = np.linspace(0, 1, 201)
    likelihoods = np.where(targets == 1, stacked, 1 - stacked)
    gains = [(np.log(w * likelihoods[0] + (1 - w) * likelihoods[1]) / entropy).mean() for w in grid]
    best = grid[int(np.argmax(gains))]
    weight = fit_weights(stacked, targets, folds)[0]
    assert 0.5 < weight <= best + 0.005
    assert weight == pytest.approx(best, abs=0.1 * (best - 0.5) + 0.005)  # a tenth of the way, or none, is drawn back


@pytest.mark.slow
def test_the_reported_score_is_not_above_that_on_fresh_data(rng: np.random.Generator) -> None:
    """Many weak models, few images: weights scored on what they were fitted on flatter; the reported score does not."""
    reported, fresh, flattering = [], [], []
    for _ in range(20):
        everything = make_members(rng, [0.6] * 8, num_images=4200, own_noise=2.0)
        few, many = np.arange(200), np.arange(200, 4200)
        members = [member.take(few) for member in everything]
        ensemble = combine("weights", members, "ensemble")
        weights = np.array([member.weight for member in ensemble.members])
        reported.append(macro_auc(ensemble.combined))

        def by_final_weights(
            rows: np.ndarray, weights: np.ndarray = weights, everything: list[PredictionSet] = everything
        ) -> float:
            stacked = np.stack([member.probabilities[rows] for member in everything])
            return macro_auc(everything[0].take(rows).with_probabilities(np.tensordot(weights, stacked, axes=1)))

        fresh.append(by_final_weights(many))
        flattering.append(by_final_weights(few))
    standard_error = np.std(np.subtract(reported, fresh)) / np.sqrt(20)
    assert np.mean(reported) <= np.mean(fresh) + 2 * standard_error
    assert np.mean(flattering) > np.mean(reported)


def test_weights_of_a_fold_do_not_know_its_labels(rng: np.random.Generator) -> None:
    members = make_members(rng, [1.5, 1.0, 0.3], num_images=1000)
    before = combine("weights", members, "ensemble").combined.probabilities
    folds = np.arange(1000) % 5
    targets = members[0].targets.copy()
    targets[folds == 3] = 1 - targets[folds == 3]
    changed = [
        make_predictions(targets, member.probabilities, folds=folds.tolist(), name=member.name) for member in members
    ]
    after = combine("weights", changed, "ensemble").combined.probabilities
    assert (after[folds == 3] == before[folds == 3]).all()
    assert (after[folds != 3] != before[folds != 3]).any()


def test_one_class_alone_gives_equal_weights() -> None:
    stacked = np.array([[[0.2], [0.3]], [[0.1], [0.4]]])
    assert fit_weights(stacked, np.zeros((2, 1), dtype=np.uint8), np.array([0, 1])).tolist() == [0.5, 0.5]


@pytest.mark.slow
@pytest.mark.parametrize("method", list(METHODS))
def test_ensembles_stay_probabilities(method: str) -> None:
    """The mean of seven ones is a little above 1 in floating point."""
    for count in range(2, 20):
        combined = combine(method, [make_predictions([[1], [0]], [[1.0], [0.0]])] * count, "ensemble").combined
        assert combined.probabilities.max() <= 1


def test_two_folds_fit_weights_too(rng: np.random.Generator) -> None:
    """What one fold's weights are fitted on is dealt into folds of its own."""
    members = [
        make_predictions(
            member.targets, member.probabilities, folds=(np.arange(len(member)) % 2).tolist(), name=member.name
        )
        for member in make_members(rng, [2.0, 0.0])
    ]
    ensemble = combine("weights", members, "ensemble")
    assert ensemble.members[0].weight > 0.9
    assert macro_auc(ensemble.combined) > macro_auc(combine("mean", members, "ensemble").combined) + 0.01


def test_the_description(tmp_path: Path, rng: np.random.Generator) -> None:
    members = make_members(rng, [1.0, 0.5], num_images=100)
    for method in METHODS:
        ensemble = combine(method, members, "ensemble")
        write_ensemble(tmp_path / "ensemble.json", ensemble, "ab", ["cd", "ef"])
        assert json.loads((tmp_path / "ensemble.json").read_text()) == {
            "format_version": 1,
            "method": method,
            "predictions_sha256": "ab",
            "members": [
                {"name": member.name, "weight": member.weight, "predictions_sha256": sha256}
                for member, sha256 in zip(ensemble.members, ("cd", "ef"), strict=True)
            ],
        }
