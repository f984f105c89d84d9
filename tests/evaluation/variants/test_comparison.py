"""Variants against the first: pairs, verdicts, and the page in a browser."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from catheters.evaluation.variants.comparison import (
    Cost,
    RunPredictions,
    VariantComparison,
    VariantInput,
    compare_variants,
)
from catheters.evaluation.variants.files import write_csv
from catheters.evaluation.variants.page import write_page
from catheters.evaluation.variants.seeds import MACRO
from catheters.evaluation.variants.tables import comparison_text
from tests.evaluation.conftest import make_predictions

NUM_PATIENTS = 150
FOLDS = np.arange(NUM_PATIENTS).repeat(2) % 2
COST = Cost(epochs=3, seconds_per_epoch=1.5, seconds=4.5, memory_gb=1.2, gpu_memory_gb=None)


def compare(
    shifts: dict[str, float], *, seeds: Sequence[int] = (0, 1, 2), missing: Sequence[tuple[str, int, int]] = ()
) -> VariantComparison:
    """Variants whose positives score higher by so much; `missing` are names, seeds and folds that were not trained."""
    rng = np.random.default_rng(0)
    targets = (rng.random((len(FOLDS), 3)) < 0.4).astype(np.float64)
    images = rng.normal(size=targets.shape)
    patients = np.arange(NUM_PATIENTS).repeat(2)
    truth = make_predictions(targets, np.zeros(targets.shape), patients.tolist(), FOLDS.tolist())
    inputs = []
    for name, shift in shifts.items():
        runs = {}
        for seed in seeds:
            logits = (1 + shift + rng.normal(0, 0.02)) * targets + images + rng.normal(0, 0.2, targets.shape)
            is_there = ~np.isin(FOLDS, [fold for of, at, fold in missing if (of, at) == (name, seed)])
            if is_there.any():
                probabilities = 1 / (1 + np.exp(-logits[is_there]))
                runs[seed] = RunPredictions(rows=np.flatnonzero(is_there), probabilities=probabilities)
        failures = tuple(f"{of}, seed {seed}, fold {fold}: why" for of, seed, fold in missing if of == name)
        inputs.append(
            VariantInput(
                name=name, settings={"shift": shift}, runs=runs, failures=failures, cost=COST, curve={1: 0.5, 2: 0.6}
            )
        )
    return compare_variants(
        inputs,
        truth,
        name="named",
        seeds=seeds,
        folds=(0, 1),
        image_kind="synthetic",
        notes=(),
        command="python compare.py",
    )


def test_verdicts() -> None:
    for shifts, winner, words in (
        ({"a": 0, "b": 0.5}, "b", "winner: b, better than a"),
        ({"a": 0, "b": -0.5}, "a", "winner: a; the other is worse"),
        ({"a": 0, "b": -0.5, "c": -0.6}, "a", "winner: a; all others are worse"),
        ({"a": 0, "b": 0.0}, None, "no winner: no interval leaves out 0"),
        ({"a": 0, "b": 0.0, "c": -0.5}, None, "no winner; worse than a: c"),
        ({"a": 0, "b": 0.5, "c": 0.6}, None, "better than a: b, c; which of them is best was not tested"),
    ):
        comparison = compare(shifts)
        assert comparison.winner == winner
        assert comparison.verdict.startswith(words)
        assert comparison_text(comparison).splitlines()[-1] == comparison.verdict


def test_pairs_that_both_have_are_compared() -> None:
    """A seed without a fold counts with the other fold, one without any not at all; the same images on both sides."""
    whole = compare({"a": 0, "b": 0.5})
    assert not any(result.is_partial for result in whole.results)
    one_fold = compare({"a": 0, "b": 0.5}, missing=[("b", 1, 0)])
    (other,) = one_fold.others
    assert (other.seeds, other.is_partial) == ((0, 1, 2), True)
    assert other.differences[MACRO].of_seeds[[0, 2]] == pytest.approx(
        whole.others[0].differences[MACRO].of_seeds[[0, 2]]
    )
    no_seed = compare({"a": 0, "b": 0.5}, missing=[("a", 1, 0), ("a", 1, 1)])
    assert no_seed.others[0].seeds == (0, 2)
    text = comparison_text(no_seed)
    assert "2 jobs failed:\n  a, seed 1, fold 0: why" in text
    assert "not of all seeds and folds, but of those that both have: a, b" in text
    nothing = compare({"a": 0, "b": 0.5}, seeds=(0,), missing=[("b", 0, 0), ("b", 0, 1)])
    assert nothing.others[0].differences == {}
    assert nothing.verdict == "no winner: no interval leaves out 0"


def test_one_seed_is_said_to_hold_the_patients_alone(tmp_path: Path) -> None:
    comparison = compare({"a": 0, "b": 0.5}, seeds=(7,))
    assert "95% intervals over 150 patients alone: one seed does not say" in comparison_text(comparison)
    write_csv(tmp_path / "comparison.csv", comparison)
    header, macro = (line.split(",") for line in (tmp_path / "comparison.csv").read_text().splitlines()[:2])
    assert macro[header.index("seed_variance")] == ""
    assert macro[header.index("num_seeds")] == "1"


def test_the_page_names_what_people_look_for(tmp_path: Path) -> None:
    comparison = compare({"base": 0, "<b>": 0.5}, missing=[("<b>", 1, 0)])
    write_page(tmp_path / "page.html", comparison)
    page = (tmp_path / "page.html").read_text()
    assert "<b>&lt;b&gt;</b>winner" in page  # names are text
    assert "1 job failed." in page
    assert "<strong>Synthetic data.</strong>" in page
    assert "Research software, not a medical device" in page
    real = dataclasses.replace(comparison, image_kind="real")
    write_page(tmp_path / "page.html", real)
    assert "Synthetic data" not in (tmp_path / "page.html").read_text()
