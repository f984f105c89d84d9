"""Whether two models of the same images differ: a test that exchanges them within patients.

Were the models alike, it would not matter which of them is called the first, patient by patient. A permutation tosses a
coin for each patient and, by it, exchanges what the two models say of all images and labels of this patient; the
difference of the scores is then computed anew. The p-value is the share of the permutations whose difference is at
least as large as the one that was found, which counts among them (Phipson and Smyth, Permutation p-values should never
be zero, Statistical Applications in Genetics and Molecular Biology 9 (2010)).

What is exchanged: for the Brier score the probabilities as they are, which it judges. ROC AUC and average precision
know ranks alone, and models may use other scales: exchanged are the logits, brought to one median and one interquartile
range in each model, in which patients count alike. Ranks among all images, as Venkatraman and Begg exchange them (A
distribution-free procedure for comparing receiver operating characteristic curves from a paired experiment, Biometrika
83 (1996)), and quartiles of all images are less alike in two equal models: a patient of many images moves them for all
others, which made 6% of 8,000 equal pairs differ by p < .05, and 1.4% at an AUC of 0.999.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.special import logit

from catheters.evaluation.prediction_set import PredictionSet

NUM_PERMUTATIONS = 2000
SIGNIFICANT = 0.05
"""A difference is marked whose p-value, adjusted over the labels, is below this."""
BLOCK = 250
"""Permutations computed side by side."""
TOLERANCE = 1e-12
"""Differences that are nearer than this are equal: sums in another order round otherwise."""

SMALLEST_NUMBER, LAST_STEP = 1e-300, 2**-53
"""Probabilities are kept this far from 0 and 1, so that logits are finite: as far as float64 tells apart."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PairedTests:
    """Tests of K labels, and of the means over them.

    Attributes:
        labels: (K,) names.
        num_permutations: R.
        p: metric -> (K,) p-values, two-sided; NaN where the score is undefined.
        p_holm: metric -> (K,) likewise, adjusted over the labels.
        p_macro: metric -> of the mean over the labels that are defined: one test, so nothing is adjusted.
    """

    labels: tuple[str, ...]
    num_permutations: int
    p: Mapping[str, Floats]
    p_holm: Mapping[str, Floats]
    p_macro: Mapping[str, float]

    def of(self, metric: str, label: str) -> tuple[float, float]:
        """The p-value of a label, and the adjusted one."""
        k = self.labels.index(label)
        return float(self.p[metric][k]), float(self.p_holm[metric][k])

    def is_significant(self, metric: str, label: str | None) -> bool:
        """Whether a label differs by its adjusted p-value; None: the mean over the labels."""
        return (self.p_macro[metric] if label is None else self.of(metric, label)[1]) < SIGNIFICANT


def compare_models(
    first: PredictionSet, second: PredictionSet, seed: int, num_permutations: int = NUM_PERMUTATIONS
) -> PairedTests:
    """Test the differences of ROC AUC, average precision and Brier score, label by label and of the means.

    Args:
        first: n predictions.
        second: of the same images and labels, in the same order.
        seed: of the coins; the same ones for all labels, since a patient's labels are exchanged together.
        num_permutations: R, besides the data as they are.
    """
    assert (first.uids == second.uids).all() and first.labels == second.labels, "the same images and labels"
    patients, patient_of = np.unique(first.patient_ids, return_inverse=True)
    labels = range(len(first.labels))
    of_labels = [(first.of_label(k), second.of_label(k)) for k in labels]
    linear: dict[str, list[Floats]] = {"roc_auc": [], "brier": []}
    rankings: list[_ExchangedRanking | None] = []
    for one, other in of_labels:
        patients_here, shape = patient_of[one.rows], len(patients)
        linear["brier"].append(_brier_parts(one.targets, one.probabilities, other.probabilities, patients_here, shape))
        if not one.has_both:
            linear["roc_auc"].append(np.full(shape, math.nan))
            rankings.append(None)
            continue
        places = np.stack([to_common_scale(of_label.probabilities, patients_here) for of_label in (one, other)])
        linear["roc_auc"].append(_auc_parts(one.targets, places, patients_here, shape))
        rankings.append(_ExchangedRanking(one.targets, places, patients_here, shape))
    parts = {metric: np.stack(of_metric, axis=1) for metric, of_metric in linear.items()}  # (P, K)
    differences: dict[str, list[Floats]] = {"roc_auc": [], "average_precision": [], "brier": []}
    for is_kept in _coins(len(patients), num_permutations, seed):
        for metric, of_patients in parts.items():
            differences[metric].append((2 * is_kept - 1).T @ of_patients)
        columns = [
            np.full(is_kept.shape[1], math.nan) if ranking is None else ranking.differences(is_kept)
            for ranking in rankings
        ]
        differences["average_precision"].append(np.stack(columns, axis=1))
    found = {metric: np.concatenate(blocks) for metric, blocks in differences.items()}  # (1 + R, K)
    p = {metric: _p_values(of_metric) for metric, of_metric in found.items()}
    return PairedTests(
        labels=first.labels,
        num_permutations=num_permutations,
        p=p,
        p_holm={metric: adjust_by_holm(of_metric) for metric, of_metric in p.items()},
        p_macro={metric: _p_of_mean(of_metric) for metric, of_metric in found.items()},
    )


def adjust_by_holm(p: Floats) -> Floats:
    """(K,) p-values, adjusted so that below 5% of families of true hypotheses have one below .05; NaN stay and do not
    count.

    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979).
    """
    adjusted = np.full(len(p), math.nan)
    order = np.argsort(p)
    order = order[~np.isnan(p[order])]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1) if len(order) else steps
    return adjusted


def to_common_scale(probabilities: Floats, patient_of: npt.NDArray[np.intp]) -> Floats:
    """(n,) probabilities of (n,) patients -> (n,) logits less their median, over their interquartile range.

    All patients count alike in both, however many images they have. Equal probabilities stay equal; where all are, they
    are 0. Quantiles lie between the middles of the levels' shares, so that there is a range as soon as there are two.
    """
    logits = logit(np.clip(probabilities, SMALLEST_NUMBER, 1 - LAST_STEP))
    _, which, sizes = np.unique(patient_of, return_inverse=True, return_counts=True)
    distinct, level = np.unique(logits, return_inverse=True)
    weights = np.bincount(level, 1 / sizes[which])
    shares = (np.cumsum(weights) - weights / 2) / weights.sum()
    low, middle, high = np.interp([0.25, 0.5, 0.75], shares, distinct)
    return np.asarray((logits - middle) / (high - low or 1.0))


def _coins(num_patients: int, num_permutations: int, seed: int) -> Iterator[Floats]:
    """(P, r) blocks of 1 where a patient is kept and 0 where exchanged; the first column keeps all of them."""
    rng = np.random.default_rng(seed)
    yield np.ones((num_patients, 1))
    for start in range(0, num_permutations, BLOCK):
        shape = num_patients, min(BLOCK, num_permutations - start)
        yield rng.integers(0, 2, shape, dtype=np.uint8).astype(np.float64)


def _p_values(differences: Floats) -> Floats:
    """(1 + R, K) differences, the first as found, -> (K,)."""
    is_as_large = np.abs(differences) >= np.abs(differences[0]) - TOLERANCE
    return np.where(np.isnan(differences[0]), math.nan, is_as_large.mean(axis=0))


def _p_of_mean(differences: Floats) -> float:
    """(1 + R, K) -> of the mean over the labels that are defined."""
    is_defined = ~np.isnan(differences[0])
    if not is_defined.any():
        return math.nan
    return float(_p_values(differences[:, is_defined].mean(axis=1, keepdims=True))[0])


def _brier_parts(
    targets: npt.NDArray[np.uint8], first: Floats, second: Floats, patient_of: npt.NDArray[np.intp], num_patients: int
) -> Floats:
    """(P,) what each patient adds to the difference of the Brier scores; its sign turns with the patient."""
    if not len(targets):
        return np.full(num_patients, math.nan)
    gaps = (second - targets) ** 2 - (first - targets) ** 2
    return np.bincount(patient_of, gaps, num_patients) / len(targets)


def _auc_parts(
    targets: npt.NDArray[np.uint8], places: Floats, patient_of: npt.NDArray[np.intp], num_patients: int
) -> Floats:
    """(P,) what each patient adds to the difference of the ROC AUCs; its sign turns with the patient.

    Of a positive and a negative image, with places f and s by the models and w(x, y) = 1, 1/2, 0 for x above, beside,
    below y, exchanging both turns the sign of d = w(s, s) - w(f, f), exchanging the negative alone makes of it
    e = w(s, f) - w(f, s). With the patients' signs a and b it is (a + b) d / 2 + (a - b) e / 2, which is a times
    (d + e) / 2 plus b times (d - e) / 2: so the difference is a sum over patients, each with its sign, of an image's
    place among the other class's by both models (the statistic of Bandos, Rockette and Gur, A permutation test
    sensitive to differences in areas for comparing ROC curves from a paired design, Statistics in Medicine 24 (2005)).

    Args:
        targets: (n,) 0/1, both of them there.
        places: (2, n) what places the images, by the first and by the second.
        patient_of: (n,) in 0..P - 1.
        num_patients: P.
    """
    is_positive = targets == 1
    parts = np.empty(len(targets))
    parts[is_positive] = _place_gaps(places[:, ~is_positive], places[:, is_positive])
    parts[~is_positive] = -_place_gaps(places[:, is_positive], places[:, ~is_positive])
    num_pairs = int(is_positive.sum()) * int((~is_positive).sum())
    return np.bincount(patient_of, parts, num_patients) / num_pairs


def _place_gaps(others: Floats, places: Floats) -> Floats:
    """(2, m) and (2, n) places -> (n,): how many more of the others the second puts below an image.

    The others count by both models, each half.
    """
    pool = np.sort(others.ravel())
    first, second = (np.searchsorted(pool, places, "left") + np.searchsorted(pool, places, "right")) / 2
    return np.asarray((second - first) / 2)


class _ExchangedRanking:
    """One label's images in the order of their places by both models, ready to be exchanged.

    A level is a place that a positive has by one of the models, from the highest. Two sparse matrices turn the coins of
    the patients into each level's positives, and the negatives from it up to the level above, by the model that is
    called the second; the other one has all that are left.
    """

    def __init__(
        self,
        targets: npt.NDArray[np.uint8],
        places: Floats,
        patient_of: npt.NDArray[np.intp],
        num_patients: int,
    ) -> None:
        is_positive = targets == 1
        levels = np.unique(-places[:, is_positive])  # from the highest
        shape = (len(levels) + 1, num_patients)  # the last row is below all levels

        def count(is_in: npt.NDArray[np.bool_]) -> tuple[coo_array, Floats]:
            """What a patient who is kept adds to each level of the second, and what the second has of no patient."""
            rows, owners = np.searchsorted(levels, -places[:, is_in]), patient_of[is_in]
            signs = np.repeat([-1.0, 1.0], len(owners))
            change = coo_array((signs, (rows.ravel(), np.tile(owners, 2))), shape=shape).tocsr()
            return change, np.bincount(rows[0], minlength=shape[0]).astype(np.float64)[:, None]

        self._positives, self._positives_of_first = count(is_positive)
        self._negatives, self._negatives_of_first = count(~is_positive)
        self._all_positives = self._positives_of_first + self._positives.sum(axis=1)[:, None] + self._positives_of_first
        self._all_negatives = self._negatives_of_first + self._negatives.sum(axis=1)[:, None] + self._negatives_of_first
        self._num_positives = int(is_positive.sum())

    def differences(self, is_kept: Floats) -> Floats:
        """Average precision of the second minus the first, as scikit-learn defines it.

        Args:
            is_kept: (P, r) 1 or 0 for each patient.

        Returns:
            (r,).
        """
        positives = self._positives_of_first + self._positives @ is_kept  # (levels, r)
        negatives = self._negatives_of_first + self._negatives @ is_kept
        second = self._precision(positives, negatives)
        return second - self._precision(self._all_positives - positives, self._all_negatives - negatives)

    def _precision(self, positives: Floats, negatives: Floats) -> Floats:
        found, false = np.cumsum(positives, axis=0), np.cumsum(negatives, axis=0)
        false += found
        with np.errstate(invalid="ignore"):
            found /= false  # a level that nothing reaches yet is 0 / 0, and has no positive to count
        np.nan_to_num(found, copy=False, nan=0.0)
        return np.asarray(np.einsum("lr,lr->r", positives, found) / self._num_positives)


def describe_p(p: float) -> str:
    """`0.012`, `<0.001`, or a dash where there is none."""
    if math.isnan(p):
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"
