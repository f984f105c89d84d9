"""Intervals over patients: images of one patient are alike, so patients are what varies.

How much a number depends on each patient is known in closed form (`Contributions`), so nothing is resampled. The
interval is built on the scale on which the number is closest to normal: the logit of a share. It has

- the jackknife's variance over patients, which leaves each patient out in turn (Efron and Tibshirani, An Introduction
  to the Bootstrap, 1993, chapter 11);
- Student's t with the degrees of freedom that this variance itself has where few patients make it up (Satterthwaite,
  An approximate distribution of estimates of variance components, Biometrics Bulletin 2 (1946));
- Hall's correction for skewness (On the removal of skewness by transformation, Journal of the Royal Statistical
  Society B 54 (1992), 221-228), since the patient who would lower a score most may not have been among them;
- at most the width of the exact binomial interval (Clopper and Pearson, Biometrika 26 (1934)), in which every patient
  counts as all right or all wrong. It alone gives a share of exactly 0 or 1 its width.

Means over labels and differences of two models combine such intervals by the correlation of their contributions (Zou
and Donner, Construction of confidence limits about effect measures, Statistics in Medicine 27 (2008)).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, expit, logit, stdtrit

LEVEL = 0.95
TAIL = (1 - LEVEL) / 2
FEW_PATIENTS = 10
"""Effective patients below which a number is marked."""
DOMINATED = 2
"""Patients that make up the variance, effectively, below which a number is marked."""
LEAST_SKEWNESS = 3.0
"""Of one patient's contribution to a share near 0 or 1, though the data show less: the patients who would show it are
rarely drawn. Chosen in simulations, see docs/explanation/confidence-intervals.md."""
NEAREST = 1e-6
"""How near to the ends of its scale a number is taken to be."""

METHOD = "over patients: jackknife, Student's t and Hall's correction on the logit, at most the exact binomial"
FEW_PATIENTS_MARK = "\u2020"
FEW_PATIENTS_NOTE = "a few patients decide this number; its interval is rather too wide"
COVERAGE_EXCEPTIONS = (
    "in simulations, with 100 patients or more and 10 with the label, a label's 95% interval held the truth in 94 to "
    "96% of trials on average, at worst in 83% (NPV), 87% (Brier score, PPV), 88% (calibration slope), 89% (ROC AUC, "
    "average precision), 90% (calibration in the large, observed over expected) or 91% (sensitivity, specificity, "
    "calibration intercept), and of some labels in more than 99%",
    "macro means: 93 to 99% of trials; differences of two models, of a label 78 to 100%, 97% on average, and of macro "
    "means 94 to 100%: rather too wide",
    "fewer than 10 positive or negative patients, calibrated or restated values, results by patient, and false lines, "
    "medians and percentiles of lines were not simulated so",
    "Brier skill, log loss and calibration error of the calibration methods have no interval; the calibration error of "
    "few patients is too large, so that no interval of it holds",
)
"""What 93 to 97% does not hold of, by benchmarks/coverage.py; see docs/explanation/confidence-intervals.md."""

Floats = npt.NDArray[np.float64]
Bounds = tuple[float, float]

SHARE: Bounds = (0.0, 1.0)
COUNT: Bounds = (0.0, math.inf)
ANY: Bounds = (-math.inf, math.inf)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its uncertainty.

    Attributes:
        value: on the images themselves.
        low: lower end of the 95% interval; NaN where there is none.
        high: upper end.
        few_patients: whether a few patients decide the number, so that its interval may miss more often.
    """

    value: float
    low: float
    high: float
    few_patients: bool = False

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


@dataclass(frozen=True, kw_only=True)
class Contributions:
    """A number and how much of it each patient makes up.

    Attributes:
        value: the number; NaN where it is undefined.
        of_patients: (P,) how much the number is lower without the patient, to first order; they sum to about 0.
        num_patients: patients that the number depends on; for a ranking, those of the class that has fewer.
        effective_patients: Kish's number of these, by their images: as many patients with one image each would say as
            much (Survey Sampling, 1965, 11.7).
        bounds: what the number lies between: `SHARE`, `COUNT` or `ANY`.
        widening: of a difference: how much wider its interval is than the plain one, for itself and in a mean.
    """

    value: float
    of_patients: Floats
    num_patients: int
    effective_patients: float
    bounds: Bounds = SHARE
    widening: tuple[float, float] | None = None

    @property
    def standard_error(self) -> float:
        """The jackknife's."""
        return math.sqrt(float(self.of_patients @ self.of_patients))

    @property
    def is_constant(self) -> bool:
        """Whether the patients show no variation at all."""
        return self.standard_error < 1e-9

    @property
    def patients_in_variance(self) -> float:
        """How many patients make up the variance, effectively: 1 where a single one does."""
        squares = (self.of_patients / np.abs(self.of_patients).max()) ** 2  # in tiny ones the fourth power is lost
        return float(squares.sum() ** 2 / (squares @ squares))

    @property
    def degrees_of_freedom(self) -> float:
        """Of the variance, at least 1."""
        num_patients = len(self.of_patients)
        spread = max(1 / self.patients_in_variance - 1 / num_patients, 1e-12)
        return float(max(min(2 / spread, num_patients - 1, self.effective_patients - 1), 1))

    @property
    def student(self) -> float:
        """The quantile of Student's t."""
        return float(stdtrit(self.degrees_of_freedom, 1 - TAIL))

    def skewness(self) -> float:
        """Of the number itself, at least that of `LEAST_SKEWNESS` for a share."""
        found = float((self.of_patients**3).sum() / self.standard_error**3)
        if self.bounds == SHARE:
            least = LEAST_SKEWNESS * (1 - 2 * self.value) / math.sqrt(self.effective_patients)
            return found if abs(found) >= abs(least) else least
        if self.bounds == COUNT:
            # The logarithm bends the studentised number, so its skewness is less; without this the upper end of few
            # counts runs away. For g it is 3 g'' error / (2 g') more.
            return found - 3 * self.standard_error / (2 * self.value)
        return found


UNDEFINED = Contributions(value=math.nan, of_patients=np.zeros(0), num_patients=0, effective_patients=0.0)
"""Of what is undefined."""


def kish(weights: Floats) -> float:
    """Kish's effective number of (P,) patients by what each weighs; 0 where nothing does."""
    total = float(weights.sum())
    return total**2 / float(weights @ weights) if total else 0.0


def exact_binomial(share: float, num_patients: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share of patients, whose number need not be whole."""
    found = share * num_patients
    low = float(betaincinv(found, num_patients - found + 1, TAIL)) if found > 0 else 0.0
    high = float(betaincinv(found + 1, num_patients - found, 1 - TAIL)) if found < num_patients else 1.0
    return low, high


def estimate(contributions: Contributions) -> Estimate:
    """The number with its interval; without one where it depends on fewer than two patients, or on none's variation."""
    value = contributions.value
    if math.isnan(value) or contributions.num_patients < 2:
        return Estimate(value=value, low=math.nan, high=math.nan)
    low, high = _ends(contributions, is_skewed=True)
    is_dominated = not contributions.is_constant and contributions.patients_in_variance < DOMINATED
    few_patients = contributions.effective_patients < FEW_PATIENTS or is_dominated
    return Estimate(value=value, low=low, high=high, few_patients=few_patients)


def subtract(first: Contributions, second: Contributions) -> Contributions:
    """The second share minus the first one, of the same patients.

    Its interval is Student's, widened as the logit's intervals of the two shares are wider than Student's: near 0 and 1
    the spread itself is unsure.
    """
    if math.isnan(first.value) or math.isnan(second.value):
        return UNDEFINED
    sides = np.array([_widening(share) for share in (first, second)])  # (2, 2) larger side, mean of both
    larger, mean = np.clip(np.sqrt((sides**2).mean(axis=0)), 1, 5).tolist()
    return Contributions(
        value=second.value - first.value,
        of_patients=second.of_patients - first.of_patients,
        num_patients=min(first.num_patients, second.num_patients),
        effective_patients=min(first.effective_patients, second.effective_patients),
        bounds=ANY,
        widening=(larger, mean),
    )


def mean_estimate(parts: Sequence[Contributions]) -> Estimate:
    """The mean of several numbers of the same patients; NaN of none, or where one of them is.

    Single numbers' skewness is not corrected for here: in a mean it is less. A number of one patient is as unsure as
    one patient makes it.
    """
    if not parts or any(math.isnan(part.value) for part in parts):
        return NO_ESTIMATE
    values = np.array([part.value for part in parts])
    value = float(values.mean())
    if all(part.num_patients < 2 for part in parts):
        return Estimate(value=value, low=math.nan, high=math.nan)
    ends = np.array([_ends(part, is_skewed=False) for part in parts])  # (K, 2)
    ends = np.where(np.isnan(ends), values[:, None], ends)  # of a part that does not vary, on no scale
    contributions = np.array([part.of_patients for part in parts])  # (K, P)
    norms = np.sqrt((contributions**2).sum(axis=1))
    units = contributions / np.where(norms > 0, norms, 1)[:, None]
    correlations = units @ units.T
    np.fill_diagonal(correlations, 1)
    low, high = (
        math.sqrt(max(float(distances @ correlations @ distances), 0)) / len(parts)
        for distances in (values - ends[:, 0], ends[:, 1] - values)
    )
    few_patients = any(part.effective_patients < FEW_PATIENTS for part in parts)
    return Estimate(value=value, low=value - low, high=value + high, few_patients=few_patients)


def _ends(contributions: Contributions, *, is_skewed: bool) -> tuple[float, float]:
    value, bounds = contributions.value, contributions.bounds
    if contributions.widening is not None:
        if contributions.is_constant:  # no patient tells the two apart
            half = exact_binomial(0.0, max(contributions.effective_patients, 1))[1]
        else:
            half = contributions.student * contributions.standard_error * contributions.widening[0 if is_skewed else 1]
        return max(value - half, -1.0), min(value + half, 1.0)
    exact = (-math.inf, math.inf)
    if bounds != ANY:
        exact = exact_binomial(min(value, 1.0), max(contributions.effective_patients, 1))
    if contributions.is_constant:
        if bounds == ANY:
            return math.nan, math.nan
        if bounds == COUNT and value:  # as if the patients who were not drawn had none, or as many more
            left = 1 - exact_binomial(0.0, max(contributions.effective_patients, 1))[1]
            return value * left, value / left
        return exact
    if bounds == COUNT:
        exact = (0.0, math.inf)
    low, high = _transformed_ends(contributions, contributions.skewness() if is_skewed else 0.0)
    return min(max(low, exact[0]), value), max(min(high, exact[1]), value)


def _transformed_ends(contributions: Contributions, skewness: float) -> tuple[float, float]:
    """On the logit, the logarithm or as it is."""
    value, error = contributions.value, contributions.standard_error
    below, above = (_hall(sign * contributions.student, skewness) for sign in (1, -1))
    if contributions.bounds == ANY:
        return value - error * below, value - error * above
    if contributions.bounds == COUNT:
        error /= value
        return value * math.exp(-error * below), value * math.exp(min(-error * above, 700))
    value = min(max(value, NEAREST), 1 - NEAREST)
    error /= value * (1 - value)
    centre = float(logit(value))
    return float(expit(centre - error * below)), float(expit(centre - error * above))


def _hall(quantile: float, skewness: float) -> float:
    """What a quantile of the number less its truth, over the standard error, is for a skewed one.

    Hall's transformation is W + g W^2 / 3 + g^2 W^3 / 27 + g / 6, with g the skewness of the number; this inverts it.
    """
    if abs(skewness) < 1e-6:
        return quantile
    inside = 1 + skewness * (quantile - skewness / 6)
    return 3 / skewness * (float(np.cbrt(inside)) - 1)


def _widening(share: Contributions) -> tuple[float, float]:
    """Of the logit's interval over Student's: of the larger side, and of the mean of both."""
    if share.is_constant:
        return 1.0, 1.0
    half = share.student * share.standard_error
    low, high = _transformed_ends(share, 0.0)
    return max(share.value - low, high - share.value) / half, (high - low) / 2 / half
