"""Several ways to train, each against the first: what was found out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from catheters.evaluation.metrics import macro_mean, score_labels
from catheters.evaluation.paired_tests import adjust_by_holm
from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import PredictionSet
from catheters.evaluation.scores import Scores, score
from catheters.evaluation.variants.seeds import MACRO, SeedDifference, compare_seeds, is_shown
from catheters.labels import ImageKind

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What the training of one fold took; a mean over folds and seeds, but for memory.

    Attributes:
        epochs: that were trained.
        seconds_per_epoch: validation included.
        seconds: of all epochs.
        memory_gb: the most that a training process had; None: it is not known.
        gpu_memory_gb: the most on a GPU; None without one.
    """

    epochs: float
    seconds_per_epoch: float
    seconds: float
    memory_gb: float | None
    gpu_memory_gb: float | None


@dataclass(frozen=True, kw_only=True)
class RunPredictions:
    """Out-of-fold predictions of one variant and seed.

    Attributes:
        rows: (n,) the images, in the order of all N.
        probabilities: (n, K).
    """

    rows: npt.NDArray[np.intp]
    probabilities: Floats


@dataclass(frozen=True, kw_only=True)
class VariantInput:
    """What is known of a variant.

    Attributes:
        name: for people.
        settings: those in which the variants differ, name -> value.
        runs: seed -> predictions of its finished folds.
        failures: what was not trained, and why.
        cost: None where nothing is trained.
        curve: epoch, from 1 -> macro ROC AUC of the validation fold, the mean over folds and seeds.
    """

    name: str
    settings: Mapping[str, Any]
    runs: Mapping[int, RunPredictions]
    failures: tuple[str, ...]
    cost: Cost | None
    curve: Mapping[int, float]


@dataclass(frozen=True, kw_only=True)
class VariantResult:
    """A variant against the first.

    Attributes:
        given: the variant.
        seeds: those that count: that both have images of.
        is_partial: whether folds of a seed are missing that were asked for.
        aucs: (S,) macro ROC AUC of each of its seeds, of the images that it has; NaN where it is undefined.
        differences: `MACRO` and each label -> its ROC AUC minus the first's; empty for the first, and where no seed
            counts.
        adjusted_p_value: Holm's, of the macro mean among all variants; NaN likewise.
    """

    given: VariantInput
    seeds: tuple[int, ...]
    is_partial: bool
    aucs: Floats
    differences: Mapping[str, SeedDifference]
    adjusted_p_value: float

    @property
    def name(self) -> str:
        """Of the variant."""
        return self.given.name

    @property
    def macro(self) -> SeedDifference | None:
        """The difference of the macro mean; None where there is none."""
        return self.differences.get(MACRO)

    @property
    def direction(self) -> int:
        """1: shown to be better than the first; -1: worse; 0: neither is shown."""
        if self.macro is None or not is_shown(self.macro, self.adjusted_p_value):
            return 0
        return 1 if self.macro.estimate.value > 0 else -1


@dataclass(frozen=True, kw_only=True)
class VariantComparison:
    """Several variants on the same images.

    Attributes:
        name: of the comparison.
        labels: (K,) names.
        seeds: those that were asked for.
        folds: likewise.
        num_images: images that count.
        num_patients: their patients.
        results: of each variant, the first one first.
        image_kind: whether the X-rays are real.
        notes: what has to be known beside the numbers.
        command: that made it.
    """

    name: str
    labels: tuple[str, ...]
    seeds: tuple[int, ...]
    folds: tuple[int, ...]
    num_images: int
    num_patients: int
    results: tuple[VariantResult, ...]
    image_kind: ImageKind
    notes: tuple[str, ...]
    command: str

    @property
    def first(self) -> VariantResult:
        """What the others are compared with."""
        return self.results[0]

    @property
    def others(self) -> tuple[VariantResult, ...]:
        """All but the first."""
        return self.results[1:]

    @property
    def winner(self) -> str | None:
        """The one variant that is shown to be better than the first, or the first where all others are worse."""
        better = [result.name for result in self.others if result.direction > 0]
        if len(better) == 1:
            return better[0]
        all_worse = all(result.direction < 0 for result in self.others)
        return self.first.name if all_worse else None

    @property
    def verdict(self) -> str:
        """What the intervals say, in a sentence."""
        better = [result.name for result in self.others if result.direction > 0]
        if len(better) > 1:
            return (
                f"better than {self.first.name}: {', '.join(better)}; which of them is best was not tested, compare "
                "them with each other"
            )
        if self.winner is None:
            worse = [result.name for result in self.others if result.direction < 0]
            if worse:
                return f"no winner; worse than {self.first.name}: {', '.join(worse)}"
            if any(result.macro is not None and result.macro.leaves_out_zero for result in self.others):
                return "no winner: where an interval leaves out 0, Holm's test of all comparisons does not agree"
            return "no winner: no interval leaves out 0"
        if self.winner == self.first.name:
            others = "the other is" if len(self.others) == 1 else "all others are"
            return f"winner: {self.winner}; {others} worse"
        return f"winner: {self.winner}, better than {self.first.name}"


def compare_variants(
    variants: Sequence[VariantInput],
    truth: PredictionSet,
    *,
    name: str,
    seeds: Sequence[int],
    folds: Sequence[int],
    image_kind: ImageKind,
    notes: Sequence[str],
    command: str,
) -> VariantComparison:
    """Compare each variant with the first, seed by seed on the images that both have.

    Args:
        variants: the first one is what the others are compared with.
        truth: N images with patients, labels and folds, those of other folds among them; its probabilities say nothing.
        name: of the comparison.
        seeds: that were asked for.
        folds: likewise.
        image_kind: see `VariantComparison`.
        notes: likewise.
        command: likewise.
    """
    runs = [run for variant in variants for run in variant.runs.values()]
    used = np.unique(np.concatenate([run.rows for run in runs])) if runs else np.empty(0, dtype=np.intp)
    place = np.full(len(truth), -1, dtype=np.intp)
    place[used] = np.arange(len(used))
    patients = Patients(truth.patient_ids[used])
    assert truth.folds is not None, "a comparison is one of folds"
    num_wanted = int(np.isin(truth.folds[used], folds).sum())
    known: dict[tuple[int, int, bytes], Scores] = {}

    def scores_of(number: int, seed: int, rows: npt.NDArray[np.intp]) -> Scores:
        key = (number, seed, rows.tobytes())
        if key not in known:
            run = variants[number].runs[seed]
            probabilities = run.probabilities[np.searchsorted(run.rows, rows)]
            of_run = truth.take(rows).with_probabilities(probabilities, variants[number].name)
            known[key] = score(of_run, patients.take(place[rows]))
        return known[key]

    found: list[tuple[tuple[int, ...], bool, dict[str, SeedDifference]]] = []
    for number, variant in enumerate(variants):
        shared = [seed for seed in seeds if seed in variant.runs and seed in variants[0].runs]
        rows = {seed: np.intersect1d(variant.runs[seed].rows, variants[0].runs[seed].rows) for seed in shared}
        counting = tuple(seed for seed in shared if len(rows[seed]))
        is_partial = len(counting) < len(seeds) or any(len(rows[seed]) < num_wanted for seed in counting)
        differences: dict[str, SeedDifference] = {}
        if number and counting:
            first, second = ([scores_of(of, seed, rows[seed]) for seed in counting] for of in (0, number))
            differences = compare_seeds(first, second)
        found.append((counting, is_partial, differences))
    p_values = [differences[MACRO].p_value if differences else math.nan for _, _, differences in found[1:]]
    adjusted = [math.nan, *adjust_by_holm(np.array(p_values))]
    return VariantComparison(
        name=name,
        labels=truth.labels,
        seeds=tuple(seeds),
        folds=tuple(folds),
        num_images=len(used),
        num_patients=patients.num_patients,
        results=tuple(
            VariantResult(
                given=variant,
                seeds=counting,
                is_partial=is_partial,
                aucs=np.array([_macro_auc(truth, run) for run in variant.runs.values()]),
                differences=differences,
                adjusted_p_value=float(p_value),
            )
            for variant, (counting, is_partial, differences), p_value in zip(variants, found, adjusted, strict=True)
        ),
        image_kind=image_kind,
        notes=tuple(notes),
        command=command,
    )


def _macro_auc(truth: PredictionSet, run: RunPredictions) -> float:
    metrics = score_labels(truth.targets[run.rows], run.probabilities, truth.labels)
    return macro_mean([metric.roc_auc for metric in metrics])
