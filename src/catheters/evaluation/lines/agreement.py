"""How far two ways of measuring the same thing agree, such as a distance read off predicted and off true lines."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catheters.evaluation.intervals import ANY, Estimate, estimate
from catheters.evaluation.patients import Patients

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


def measure_agreement(predicted: Floats, truth: Floats, patients: Patients) -> Agreement:
    """Bland and Altman, Statistical methods for assessing agreement, Lancet 1986; i: 307-310.

    The limits are those of one image's difference. The intervals are over patients, whose images are alike; the paper's
    own take each pair for independent.

    Args:
        predicted: (n,) measurements of images; NaN where there is none.
        truth: (n,) likewise, of the same images.
        patients: of these images.
    """
    differences = predicted - truth
    is_pair = ~np.isnan(differences)
    image_rows = np.flatnonzero(is_pair)
    errors = np.abs(differences[image_rows])
    lower, upper = patients.spread_limits(differences, LIMIT)
    (median,) = patients.quantiles(errors, image_rows, [0.5])
    return Agreement(
        num_pairs=len(errors),
        mean_difference=estimate(patients.mean(differences, ANY)),
        lower_limit=estimate(lower),
        upper_limit=estimate(upper),
        median_absolute_error=median,
    )
