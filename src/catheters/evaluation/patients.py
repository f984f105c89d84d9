"""What each patient contributes to a number: shares, means, quantiles, ROC AUC and average precision."""

import copy
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from catheters.evaluation.intervals import (
    ANY,
    NO_ESTIMATE,
    SHARE,
    UNDEFINED,
    Bounds,
    Contributions,
    Estimate,
    estimate,
    kish,
    mean_estimate,
)

Floats = npt.NDArray[np.float64]

LEAST_REST = 0.02
"""Of a class that is left without one patient; a patient who is all of it cannot be left out."""


class Patients:
    """The patients of n images."""

    def __init__(self, patient_ids: npt.NDArray[np.generic]) -> None:
        """Number them; (n,) whose image each one is."""
        names, self._patient_of = np.unique(patient_ids, return_inverse=True)
        self.num_patients = len(names)

    def take(self, rows: npt.NDArray[np.intp]) -> "Patients":
        """The same patients, of some of the images, in their order."""
        part = copy.copy(self)
        part._patient_of = self._patient_of[rows]
        return part

    def sums(self, values: npt.NDArray[np.generic]) -> Floats:
        """(n,) numbers of the images -> (P,) their sums of each patient."""
        weights = np.asarray(values, np.float64)
        sums: Floats = np.bincount(self._patient_of, weights, minlength=self.num_patients).astype(np.float64)
        return sums

    def num_patients_with(self, is_in: npt.NDArray[np.bool_]) -> int:
        """Patients of whom at least one of the (n,) images is in."""
        return len(np.unique(self._patient_of[is_in]))

    def ratio(
        self, parts: npt.NDArray[np.generic], wholes: npt.NDArray[np.generic], bounds: Bounds = SHARE
    ) -> Contributions:
        """The sum of (n,) numbers over the sum of (n,) others, 0 where an image has none.

        Without patient i the ratio is lower by u / (1 - h), where u = (part - ratio whole) / sum of wholes, and h is
        the patient's share of the wholes: the jackknife, without approximation.
        """
        part, whole = self.sums(parts), self.sums(wholes)
        total = float(whole.sum())
        if not total:
            return UNDEFINED
        value = float(part.sum()) / total
        return Contributions(
            value=value,
            of_patients=_left_out((part - value * whole) / total, whole / total),
            num_patients=int((whole > 0).sum()),
            effective_patients=kish(whole),
            bounds=bounds,
        )

    def mean(self, values: Floats, bounds: Bounds = SHARE) -> Contributions:
        """The mean of the (n,) numbers of the images; NaN are left out."""
        return self.ratio(np.nan_to_num(values), ~np.isnan(values), bounds)

    def spread_limits(self, values: Floats, factor: float) -> tuple[Contributions, Contributions]:
        """The mean of (n,) numbers minus and plus so many standard deviations; NaN are left out."""
        is_in = ~np.isnan(values)
        count = int(is_in.sum())
        if count < 2:
            return UNDEFINED, UNDEFINED
        centre = self.mean(values, ANY)
        offsets = np.where(is_in, values - centre.value, 0.0)
        deviation = math.sqrt(float((offsets**2).sum()) / (count - 1))
        shares = self.sums(is_in) / count
        # d sd = d variance / (2 sd), and a patient's part of the variance is its squares less as many variances
        squares = self.sums(offsets**2) / count - deviation**2 * shares
        of_deviation = _left_out(squares, shares) / (2 * deviation) if deviation else np.zeros(len(shares))
        lower, upper = (
            Contributions(
                value=centre.value + sign * factor * deviation,
                of_patients=centre.of_patients + sign * factor * of_deviation,
                num_patients=centre.num_patients,
                effective_patients=centre.effective_patients,
                bounds=ANY,
            )
            for sign in (-1, 1)
        )
        return lower, upper

    def quantiles(self, values: Floats, image_rows: npt.NDArray[np.intp], levels: Sequence[float]) -> list[Estimate]:
        """Quantiles with intervals: those at the ends of the interval of the share that lies below (Woodruff,
        Confidence intervals for medians and other position measures, Journal of the American Statistical Association
        47 (1952)).

        Args:
            values: (m,) numbers, infinite ones too.
            image_rows: (m,) the image that each belongs to, 0..n - 1.
            levels: (L,) in 0..1.
        """
        if not len(values):
            return [NO_ESTIMATE] * len(levels)
        of_values = self.take(image_rows)
        estimates = []
        for level, value in zip(levels, quantiles(values, levels).tolist(), strict=True):
            below = of_values.ratio(values <= value, np.ones(len(values)))
            at_level = Contributions(
                value=level,
                of_patients=below.of_patients,
                num_patients=below.num_patients,
                effective_patients=below.effective_patients,
            )
            of_share = estimate(at_level)
            low, high = math.nan, math.nan
            if of_share.has_interval:
                share = mean_estimate([at_level])  # a share in the middle is not skewed
                low, high = quantiles(values, [max(share.low, 0.0), min(share.high, 1.0)]).tolist()
            estimates.append(Estimate(value=value, low=low, high=high, few_patients=of_share.few_patients))
        return estimates

    def ranking(self, targets: npt.NDArray[np.uint8], scores: Floats) -> tuple[Contributions, Contributions]:
        """ROC AUC and average precision of one label, as scikit-learn defines them.

        Of the AUC: Obuchowski, Nonparametric analysis of clustered ROC curve data, Biometrics 53 (1997), formulas 2 to
        6, each class's part over what is left of it without the patient. Of average precision: its derivative by the
        weight of each image.

        Args:
            targets: (n,) 0/1.
            scores: (n,) that rank the images.
        """
        is_positive = targets == 1
        positives, negatives = np.sort(scores[is_positive]), np.sort(scores[~is_positive])
        if not len(positives) or not len(negatives):
            return UNDEFINED, UNDEFINED
        shares = [self.sums(is_in) / is_in.sum() for is_in in (is_positive, ~is_positive)]  # of each class's images
        rarer = min(shares, key=kish)
        num_patients = min(int((share > 0).sum()) for share in shares)

        def contributions(value: float, of_patients: Floats) -> Contributions:
            return Contributions(
                value=value, of_patients=of_patients, num_patients=num_patients, effective_patients=kish(rarer)
            )

        # The share of the other class that an image ranks rightly against.
        wins = np.empty(len(scores))
        wins[is_positive] = _share_below(negatives, scores[is_positive])
        wins[~is_positive] = 1 - _share_below(positives, scores[~is_positive])
        area = float(wins[is_positive].mean())
        of_classes = [
            _left_out(self.sums(np.where(is_in, wins - area, 0)) / is_in.sum(), share)
            for is_in, share in zip((is_positive, ~is_positive), shares, strict=True)
        ]
        precision, of_images = _average_precision(is_positive, scores)
        return (
            contributions(area, of_classes[0] + of_classes[1]),
            contributions(precision, _left_out(self.sums(of_images), shares[0])),
        )


def _left_out(parts: Floats, shares: Floats) -> Floats:
    """(P,) parts of a number and of its wholes -> (P,) by how much it is lower without each patient."""
    rest: Floats = parts / np.maximum(1 - shares, LEAST_REST)
    return rest


def _share_below(ordered: Floats, values: Floats) -> Floats:
    """The share of the ordered numbers that is below each value, with half of those at it."""
    below, up_to = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    share: Floats = (below + up_to) / 2 / len(ordered)
    return share


def _average_precision(is_positive: npt.NDArray[np.bool_], scores: Floats) -> tuple[float, Floats]:
    """The average precision, and (n,) its derivatives by the weights of the images.

    It is the mean over positives of precision = positives / images at their score and above. More weight on an image
    moves its own part of the mean, and the precision of all positives that are no higher.
    """
    order = np.argsort(-scores, kind="stable")
    ordered, positive = scores[order], is_positive[order].astype(np.float64)
    is_last = np.append(ordered[1:] != ordered[:-1], True)
    level = np.append(0, np.cumsum(is_last)[:-1])  # (n,) images of the same score share it
    images = np.flatnonzero(is_last) + 1.0  # (levels,) at the score and above
    found = np.cumsum(positive)[is_last]
    precision = found / images
    here = np.diff(np.append(0, found))  # positives of just this score
    num_positives = found[-1]
    value = float(here @ precision / num_positives)
    gained, lost = (np.cumsum(part[::-1])[::-1] for part in (here / images, here * precision / images))
    derivatives = np.empty(len(scores))
    derivatives[order] = positive * (precision[level] - value + gained[level]) - lost[level]
    return value, derivatives / num_positives


def quantiles(values: Floats, levels: Sequence[float]) -> Floats:
    """(m,) values, infinite ones too, -> (L,) quantiles, linear between values; NaN of none."""
    if not len(values):
        return np.full(len(levels), math.nan)
    ordered, positions = np.sort(values), np.asarray(levels) * (len(values) - 1)
    lower, upper = (ordered[whole.astype(np.intp)] for whole in (np.floor(positions), np.ceil(positions)))
    is_same = (lower == upper) | (positions % 1 == 0)
    way = np.where(is_same, 0.0, upper) - np.where(is_same, 0.0, lower)
    found: Floats = np.where(is_same, lower, lower + positions % 1 * way)
    return found
