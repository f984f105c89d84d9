"""The same scores for a part of the images and for the rest: views, sexes, ages, hospitals, numbers of device types."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from catheters.errors import UserError
from catheters.evaluation.intervals import LEVEL, NO_ESTIMATE, Estimate
from catheters.evaluation.paired_tests import SIGNIFICANT, adjust_by_holm
from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import PredictionSet, is_any
from catheters.evaluation.scores import Scores, difference, score
from catheters.io.near_misses import number_or_age_in
from catheters.runtime.progress import track

MAX_GROUPS = 20
MAX_NUMBERS = 8
"""Different numbers up to which each is a group of its own; more are put into bands."""
MISSING = "(empty)"
MIN_REPEATS = 20
"""Images beyond the first of their combination of labels, from which on a column is seen to follow from the labels."""


@dataclass(frozen=True, kw_only=True)
class Subgroup:
    """Images that share a value, against all others.

    Attributes:
        column: what the value is of.
        value: it, or a band of numbers.
        scores: of these images.
        rest: of all others; None where there are none.
        differences: of these images minus of all others, patients paired; None likewise.
        is_case_mix: whether the column follows from the labels, so that its groups differ in what they show. Scores
            then differ since the cases do.
    """

    column: str
    value: str
    scores: Scores
    rest: Scores | None
    differences: Scores | None
    is_case_mix: bool

    def macros(self, metric: str) -> tuple[Estimate, Estimate, Estimate]:
        """The means here and in the rest, and their difference, over the labels that are defined in both."""
        if self.rest is None or self.differences is None:
            return self.scores.macro(metric), NO_ESTIMATE, NO_ESTIMATE
        is_defined = ~np.isnan(self.differences.values[metric])
        here, there, gap = (part.macro(metric, is_defined) for part in (self.scores, self.rest, self.differences))
        return here, there, gap

    def apart(self, metric: str) -> list[str]:
        """The labels whose difference is more than chance, by Holm's correction over them; `macro mean` among them for
        the mean, which is one test.

        None where the groups follow from the labels: they have other cases, which says nothing about the model.
        """
        if self.differences is None or self.is_case_mix:
            return []
        gaps = [self.differences.estimate(metric, label) for label in self.differences.labels]
        adjusted = adjust_by_holm(np.array([p_of_interval(gap) for gap in gaps]))
        p = dict(zip(self.differences.labels, adjusted.tolist(), strict=True))
        p["macro mean"] = p_of_interval(self.macros(metric)[2])
        return [name for name, value in p.items() if value < SIGNIFICANT]  # never with NaN


def p_of_interval(difference: Estimate) -> float:
    """The p-value that a difference's interval has, as if normal on the side of 0: below .05 where it leaves out 0.

    Altman and Bland, How to obtain the P value from a confidence interval, BMJ 343 (2011). NaN without an interval.
    """
    towards_0 = difference.value - difference.low if difference.value > 0 else difference.high - difference.value
    if math.isnan(towards_0) or difference.value == 0 or towards_0 <= 0:
        return math.nan if math.isnan(towards_0) or towards_0 <= 0 else 1.0
    errors = abs(difference.value) / towards_0 * norm.ppf((1 + LEVEL) / 2)
    return float(2 * norm.sf(errors))


def make_groups(column: str, values: npt.NDArray[np.str_], edges: Sequence[float] | None) -> dict[str, list[int]]:
    """Group -> rows, in the order of the values.

    Args:
        column: their name, for messages.
        values: (n,) as text.
        edges: where bands of numbers begin; None: the column's own values are the groups, or, where they are more
            than 8 numbers, bands that begin at their quartiles.

    Raises:
        UserError: too many groups, or no numbers where edges are given.
    """
    values = np.char.strip(values)
    numbers = [number_or_age_in(value) for value in values.tolist()]
    are_numbers = all(number is not None or value == "" for number, value in zip(numbers, values.tolist(), strict=True))
    if edges is not None and not are_numbers:
        row = next(row for row, number in enumerate(numbers) if number is None and values[row] != "")
        raise UserError(f"--by {column}: bands are of numbers, {str(values[row])!r} is none")
    parsed = np.array([np.nan if number is None else number for number in numbers])
    distinct = np.unique(parsed[~np.isnan(parsed)])
    if are_numbers and (edges is not None or len(distinct) > MAX_NUMBERS):
        if edges is None:
            quartiles = np.unique(np.quantile(parsed[~np.isnan(parsed)], [0.25, 0.5, 0.75]))
            edges = quartiles[quartiles > distinct[0]].tolist() or [float(distinct[1])]  # each band holds something
        names = _bands(parsed, sorted(edges))
    else:
        order = np.unique(values).tolist()
        if are_numbers:
            number_of = dict(zip(values.tolist(), parsed.tolist(), strict=True))
            order.sort(key=lambda value: number_of[value] if value else np.inf)
        names = {value or MISSING: np.flatnonzero(values == value).tolist() for value in order}
    if len(names) > MAX_GROUPS:
        raise UserError(
            f"--by {column}: has {len(names)} different values, {MAX_GROUPS} groups at most are told apart; numbers "
            f"are put into bands, as in --by age=40,60"
        )
    return names


def score_subgroups(evaluated: PredictionSet, groups: Mapping[str, Mapping[str, Sequence[int]]]) -> list[Subgroup]:
    """Score each group and its rest.

    Args:
        evaluated: all images.
        groups: column -> group -> rows, see `make_groups`.
    """
    patients = Patients(evaluated.patient_ids)

    def score_rows(is_in: npt.NDArray[np.bool_]) -> Scores:
        """Patients are those of all images, since some have images here and in the rest."""
        part = evaluated.take(is_in)
        scores = score(part, patients.take(np.flatnonzero(is_in)))
        return replace(scores, num_patients=len(np.unique(part.patient_ids)))

    subgroups = []
    case_mix = {column for column, of_column in groups.items() if follows_from_labels(evaluated, of_column)}
    named = [(column, value, rows) for column, of_column in groups.items() for value, rows in of_column.items()]
    for column, value, rows in track(named, "scoring subgroups", len(named), unit="group", leave=False):
        is_in = np.isin(np.arange(len(evaluated)), rows)
        here, rest = score_rows(is_in), None if is_in.all() else score_rows(~is_in)
        subgroups.append(
            Subgroup(
                column=column,
                value=value,
                scores=here,
                rest=rest,
                differences=None if rest is None else _difference(rest, here),
                is_case_mix=column in case_mix,
            )
        )
    return subgroups


def follows_from_labels(evaluated: PredictionSet, groups: Mapping[str, Sequence[int]]) -> bool:
    """Whether images with the same labels are always in the same group, as where device types are counted.

    That it is so by chance is ruled out by the number of images that share their labels with another one. Where nearly
    every image has labels of its own, nothing can be seen, and the answer is no.

    Args:
        evaluated: n images.
        groups: group -> rows, each in one of them.
    """
    of_image = np.full(len(evaluated), -1)
    for number, rows in enumerate(groups.values()):
        of_image[list(rows)] = number
    combinations, firsts, which = np.unique(
        np.nan_to_num(evaluated.targets, nan=-1), axis=0, return_index=True, return_inverse=True
    )
    num_repeats = len(evaluated) - len(combinations)
    follows = bool((of_image == of_image[firsts[which.reshape(-1)]]).all())
    return follows and len(groups) > 1 and num_repeats >= MIN_REPEATS


def _difference(rest: Scores, here: Scores) -> Scores:
    """As sure as the smaller part lets it be."""

    def smaller(of_rest: Sequence[int], of_here: Sequence[int]) -> list[int]:
        return [min(pair) for pair in zip(of_rest, of_here, strict=True)]

    return replace(
        difference(rest, here),
        num_patients=min(rest.num_patients, here.num_patients),
        num_positive_patients=smaller(rest.num_positive_patients, here.num_positive_patients),
        num_negative_patients=smaller(rest.num_negative_patients, here.num_negative_patients),
    )


def count_device_types(evaluated: PredictionSet, heads: Mapping[str, tuple[str, ...]]) -> npt.NDArray[np.str_]:
    """(n,) how many of the device types each image shows by its true labels; empty where that is not known."""
    of_types = [is_any(evaluated.targets[:, np.isin(evaluated.labels, labels)]) for labels in heads.values()]
    numbers = np.sum(of_types, axis=0)
    return np.array(["" if np.isnan(number) else f"{number:.0f}" for number in numbers], dtype=np.str_)


def _bands(numbers: npt.NDArray[np.float64], edges: Sequence[float]) -> dict[str, list[int]]:
    """Bands that begin at the edges; what is missing is a group of its own, empty ones are left out."""
    names = [f"below {edges[0]:g}"]
    names += [f"{low:g} to below {high:g}" for low, high in itertools.pairwise(edges)]
    names.append(f"{edges[-1]:g} and above")
    band = np.searchsorted(np.asarray(edges), numbers, side="right")
    is_missing = np.isnan(numbers)
    rows = {name: np.flatnonzero((band == b) & ~is_missing).tolist() for b, name in enumerate(names)}
    rows[MISSING] = np.flatnonzero(is_missing).tolist()
    return {name: found for name, found in rows.items() if found}
