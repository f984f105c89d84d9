"""How far two ways of measuring the same thing agree, such as a distance read off predicted and off true lines."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catheters.evaluation.intervals import Estimate, PatientBootstrap, percentile_estimate, quantiles

Floats = npt.NDArray[np.float64]

LIMIT = 1.96
"""Standard deviations on either side of the mean: 95% of a normal distribution."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Differences, predicted minus true, in the unit of the measurement; NaN where they are too few.

    Attributes:
        num_pairs: images with both measurements.
        mean_difference: the bias.
        lower_limit: of agreement: the mean minus 1.96 standard deviations,
        upper_limit: and the mean plus as many.
        median_absolute_error: median of the differences without their sign.
    """

    num_pairs: int
    mean_difference: Estimate
    lower_limit: Estimate
    upper_limit: Estimate
    median_absolute_error: Estimate


def measure_agreement(predicted: Floats, truth: Floats, bootstrap: PatientBootstrap) -> Agreement:
    """Bland and Altman, Statistical methods for assessing agreement, Lancet 1986; i: 307-310.

    The limits are those of one image's difference. The intervals are over patients, whose images are alike; the paper's
    own take each pair for independent.

    Args:
        predicted: (n,) measurements of images; NaN where there is none.
        truth: (n,) likewise, of the same images.
        bootstrap: of the patients of these images.
    """
    differences = predicted - truth
    is_pair = ~np.isnan(differences)
    image_rows = np.flatnonzero(is_pair)
    pairs = differences[image_rows]
    # Around their mean, so that the squares lose no digits.
    centre = pairs.mean() if len(pairs) else 0.0
    offsets = np.where(is_pair, differences - centre, 0.0)
    terms = np.stack([is_pair, offsets, offsets**2], axis=1)
    values, replicates = _means_and_limits(terms.sum(axis=0)[None]), _means_and_limits(bootstrap.sums(terms))
    num_patients = bootstrap.num_patients_with(is_pair)
    mean, lower, upper = (
        percentile_estimate(float(centre + values[0, k]), centre + replicates[:, k], num_patients) for k in range(3)
    )
    errors = np.abs(pairs)
    median = percentile_estimate(
        float(quantiles(errors, [0.5])[0]), bootstrap.quantiles(errors, image_rows, [0.5])[:, 0], num_patients
    )
    return Agreement(
        num_pairs=len(pairs),
        mean_difference=mean,
        lower_limit=lower,
        upper_limit=upper,
        median_absolute_error=median,
    )


def _means_and_limits(sums: Floats) -> Floats:
    """(R, 3) numbers, sums and sums of squares -> (R, 3) mean, lower and upper limit; NaN of fewer than 1, 2 and 2."""
    count, total, squares = sums.T
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(count > 0, total / count, np.nan)
        variance = np.where(count > 1, np.maximum(squares - total * mean, 0) / (count - 1), np.nan)
    half = LIMIT * np.sqrt(variance)
    return np.stack([mean, mean - half, mean + half], axis=1)
