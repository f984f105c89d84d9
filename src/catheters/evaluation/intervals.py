"""Intervals by a bootstrap over patients: images of one patient are alike, so whole patients are drawn.

Each resample draws as many patients as there are, with replacement, and counts an image as often as its patient was
drawn (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13). Nothing is copied: every metric
is computed from the counts, for all resamples side by side.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.stats import norm
from scipy.stats import t as student_t

LEVEL = 0.95
BLOCK = 250
"""Resamples computed side by side; what is in memory at a time is this many numbers for each positive image."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its uncertainty.

    Attributes:
        value: on the images themselves.
        low: lower end of the 95% interval; NaN where there is none.
        high: upper end.
    """

    value: float
    low: float
    high: float

    @property
    def is_defined(self) -> bool:
        """Whether there is a value."""
        return not math.isnan(self.value)

    @property
    def has_interval(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.low)

    def __str__(self) -> str:
        return f"{self.value:.4f} ({self.low:.4f} to {self.high:.4f})"


NO_ESTIMATE = Estimate(value=math.nan, low=math.nan, high=math.nan)
"""Of what is undefined."""


def percentile_estimate(value: float, replicates: Floats, num_patients: int) -> Estimate:
    """The expanded percentile interval of (R,) resampled values.

    Percentiles alone are too narrow with few patients, as a normal interval is beside Student's: they are moved out by
    as much (Hesterberg, What teachers should know about the bootstrap, The American Statistician 69 (2015), 3.3).
    Resamples in which the value is undefined (NaN) are left out; where they are most, there is no interval.

    Args:
        value: on the images themselves.
        replicates: (R,) in resamples.
        num_patients: that the value depends on; of one there is no interval. For a label they are those of its rarer
            class: however many others there are, they say nothing more about it.
    """
    defined = replicates[~np.isnan(replicates)]
    if math.isnan(value) or num_patients < 2 or len(defined) <= len(replicates) / 2:
        return Estimate(value=value, low=math.nan, high=math.nan)
    widening = math.sqrt(num_patients / (num_patients - 1))
    tail = norm.cdf(widening * student_t.ppf((1 - LEVEL) / 2, num_patients - 1))
    if np.isfinite(defined).all():
        low, high = np.quantile(defined, [tail, 1 - tail])
    else:
        low, high = quantiles(defined, [tail, 1 - tail])
    return Estimate(value=value, low=float(low), high=float(high))


def quantiles(values: Floats, levels: Sequence[float]) -> Floats:
    """(m,) values, infinite ones too, -> (L,) quantiles, linear between values; NaN of none."""
    if not len(values):
        return np.full(len(levels), math.nan)
    ordered, positions = np.sort(values), np.asarray(levels) * (len(values) - 1)
    lower, upper = (ordered[whole.astype(np.intp)] for whole in (np.floor(positions), np.ceil(positions)))
    return _between(lower, upper, positions % 1)


def _between(lower: Floats, upper: Floats, share: Floats) -> Floats:
    """`share` of the way from one number to another, which may be infinite."""
    is_same = (lower == upper) | (share == 0)
    way = np.where(is_same, 0.0, upper) - np.where(is_same, 0.0, lower)
    return np.where(is_same, lower, lower + share * way)


class PatientBootstrap:
    """Resamples of the patients of n images."""

    def __init__(self, patient_ids: npt.NDArray[np.str_], num_resamples: int, seed: int) -> None:
        """Draw them.

        Args:
            patient_ids: (n,) whose image each one is.
            num_resamples: R; 0 gives point values without intervals.
            seed: the same one draws the same patients again, so that two models are resampled alike.
        """
        patients, self._patient_of = np.unique(patient_ids, return_inverse=True)
        self.num_patients = len(patients)
        places = (self._patient_of, np.arange(len(patient_ids)))
        self._images_of = coo_array((np.ones(len(patient_ids)), places)).tocsr()  # (patients, n) 0/1
        if self.num_patients == 1:
            num_resamples = 0  # all resamples would be the same
        self.num_resamples = num_resamples
        rng = np.random.default_rng(seed)
        # (patients, R); small, since an archive has tens of thousands of patients
        self._counts = np.empty((self.num_patients, num_resamples), dtype=np.uint16)
        for resample in range(num_resamples):
            drawn = rng.integers(0, self.num_patients, self.num_patients)
            self._counts[:, resample] = np.bincount(drawn, minlength=self.num_patients)

    def take(self, rows: npt.NDArray[np.intp]) -> "PatientBootstrap":
        """The same resamples of the patients, of some of the images, in their order."""
        if len(rows) == len(self._patient_of):  # as a rule all labels are known
            return self
        part = copy.copy(self)
        part._patient_of = self._patient_of[rows]
        part._images_of = self._images_of[:, rows]
        return part

    def sums(self, values: npt.NDArray[np.generic]) -> Floats:
        """Sums over the resampled images.

        Args:
            values: (n, M) numbers of the images.

        Returns:
            (R, M).
        """
        of_patients = (self._images_of @ np.asarray(values, np.float64)).T  # (M, patients)
        blocks = [(of_patients @ block).T for block in self._blocks()]
        return np.concatenate([np.empty((0, len(of_patients))), *blocks])

    def num_patients_with(self, is_in: npt.NDArray[np.bool_]) -> int:
        """Patients of whom at least one of the (n,) images is in."""
        return len(np.unique(self._patient_of[is_in]))

    def mean(self, values: Floats) -> Estimate:
        """The mean of the (n,) numbers of the images with its interval; NaN are left out, in the resamples too."""
        return self.ratio(np.nan_to_num(values), (~np.isnan(values)).astype(np.float64))

    def ratio(self, parts: Floats, wholes: Floats) -> Estimate:
        """The sum of (n,) numbers over the sum of (n,) others, 0 where an image has none, with its interval."""
        sums = self.sums(np.stack([parts, wholes], axis=1))
        value = float(parts.sum() / wholes.sum()) if wholes.sum() else math.nan
        with np.errstate(invalid="ignore", divide="ignore"):
            replicates = np.where(sums[:, 1] == 0, math.nan, sums[:, 0] / sums[:, 1])
        return percentile_estimate(value, replicates, self.num_patients_with(wholes != 0))

    def quantiles(self, values: Floats, image_rows: npt.NDArray[np.intp], levels: Sequence[float]) -> Floats:
        """Quantiles over the resampled images, linear between values as NumPy's.

        Args:
            values: (m,) numbers, infinite ones too.
            image_rows: (m,) the image that each belongs to, 0..n - 1.
            levels: (L,) in 0..1.

        Returns:
            (R, L); NaN in resamples without a value.
        """
        order = np.argsort(values)
        ordered, patients = values[order], self._patient_of[image_rows[order]]
        results = [np.full((0, len(levels)), math.nan)]
        for block in self._blocks():
            up_to = np.cumsum(block[patients], axis=0)  # (m, R) values up to each one
            found = np.full((block.shape[1], len(levels)), math.nan)
            num_values = up_to[-1] if len(values) else np.zeros(block.shape[1])
            has_values = num_values > 0
            for column, level in enumerate(levels):
                positions = level * (num_values[has_values] - 1)
                lower, upper = (
                    ordered[(up_to[:, has_values] <= whole).sum(axis=0)]
                    for whole in (np.floor(positions), np.ceil(positions))
                )
                found[has_values, column] = _between(lower, upper, positions % 1)
            results.append(found)
        return np.concatenate(results)

    def ranking_scores(self, targets: npt.NDArray[np.uint8], scores: Floats) -> tuple[Floats, Floats]:
        """ROC AUC and average precision of one label in every resample.

        Args:
            targets: (n,) 0/1.
            scores: (n,) that rank the images.

        Returns:
            (R,) areas under the ROC curve, (R,) average precisions, as scikit-learn defines them; NaN where a
            resample has one class alone.
        """
        ranking = _Ranking(targets, scores, self._patient_of, self.num_patients)
        parts = [ranking.scores(block) for block in self._blocks()]
        if not parts:
            return np.empty(0), np.empty(0)
        areas, precisions = (np.concatenate(part) for part in zip(*parts, strict=True))
        return areas, precisions

    def _blocks(self) -> Iterator[Floats]:
        for start in range(0, self.num_resamples, BLOCK):
            yield self._counts[:, start : start + BLOCK].astype(np.float64, order="C")


class _Ranking:
    """One label's images in the order of their scores, ready to be counted in any resample.

    Only scores that a positive has matter: below, a level is such a score, from the highest. Three sparse matrices
    turn counts of patients into each level's positives, negatives of just this score, and negatives between the level
    above and this one.
    """

    def __init__(
        self, targets: npt.NDArray[np.uint8], scores: Floats, patient_of: npt.NDArray[np.intp], num_patients: int
    ) -> None:
        is_positive = targets == 1
        levels = -np.unique(-scores[is_positive])  # from the highest
        of_negatives = scores[~is_positive]
        # The first level that is below or at the score; the last row is for scores below all levels.
        row = np.searchsorted(-levels, -of_negatives, side="left")
        is_tied = np.zeros(len(row), dtype=np.bool_)
        in_levels = row < len(levels)
        is_tied[in_levels] = levels[row[in_levels]] == of_negatives[in_levels]
        shape = (len(levels) + 1, num_patients)
        patient_of_negatives = patient_of[~is_positive]

        def count(rows: npt.NDArray[np.intp], patients: npt.NDArray[np.intp]) -> coo_array:
            return coo_array((np.ones(len(rows)), (rows, patients)), shape=shape).tocsr()

        self._positives = count(np.searchsorted(-levels, -scores[is_positive]), patient_of[is_positive])
        self._between = count(row[~is_tied], patient_of_negatives[~is_tied])
        self._tied = count(row[is_tied], patient_of_negatives[is_tied]) if is_tied.any() else None

    def scores(self, counts: Floats) -> tuple[Floats, Floats]:
        """ROC AUC and average precision for (patients, R) counts."""
        positives = (self._positives @ counts)[:-1]  # (levels, R)
        negatives = np.cumsum(self._between @ counts, axis=0)
        half_tied: Floats | float = 0.0
        if self._tied is not None:
            tied = self._tied @ counts
            negatives += np.cumsum(tied, axis=0)  # down to each level, and with those at it
            half_tied = tied[:-1] / 2
        all_negatives = negatives[-1]
        negatives = negatives[:-1]
        all_positives = positives.sum(axis=0)
        # A positive beats the negatives that are below it, and half of those beside it.
        wins = all_negatives * all_positives - np.einsum("lr,lr->r", positives, negatives - half_tied)
        found = np.cumsum(positives, axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            # A level that no drawn patient reaches is 0 / 0, and counts for nothing.
            precision = np.nan_to_num(found / (found + negatives), nan=0.0)
            areas = wins / (all_positives * all_negatives)
            precisions = np.einsum("lr,lr->r", positives, precision) / all_positives
        has_both = (all_positives > 0) & (all_negatives > 0)
        return np.where(has_both, areas, math.nan), np.where(has_both, precisions, math.nan)
