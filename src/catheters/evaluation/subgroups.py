"""The same scores for a part of the images and for the rest: views, sexes, ages, hospitals, numbers of device types."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catheters.errors import UserError
from catheters.evaluation.intervals import NO_ESTIMATE, Estimate
from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import PredictionSet, is_any
from catheters.evaluation.scores import Scores, score
from catheters.runtime.progress import track

MAX_GROUPS = 20
MAX_NUMBERS = 8
"""Different numbers up to which each is a group of its own; more are put into bands."""
MISSING = "(empty)"

_NUMBER = re.compile(r"-?\d+(\.\d+)?(?=Y?$)")  # ages are also written as in DICOM: 058Y


@dataclass(frozen=True, kw_only=True)
class Subgroup:
    """Images that share a value, against all others.

    Attributes:
        column: what the value is of.
        value: it, or a band of numbers.
        scores: of these images.
        rest: of all others; None where there are none.
    """

    column: str
    value: str
    scores: Scores
    rest: Scores | None

    def macros(self, metric: str) -> tuple[Estimate, Estimate]:
        """The means here and in the rest, over the labels that are defined in both."""
        if self.rest is None:
            return self.scores.macro(metric), NO_ESTIMATE
        is_defined = ~np.isnan(self.scores.values[metric]) & ~np.isnan(self.rest.values[metric])
        return self.scores.macro(metric, is_defined), self.rest.macro(metric, is_defined)

    def apart(self, metric: str) -> list[str]:
        """The labels whose intervals here and in the rest do not overlap; `macro mean` among them for the mean."""
        if self.rest is None:
            return []
        here, there = self.scores, self.rest
        pairs = {label: (here.estimate(metric, label), there.estimate(metric, label)) for label in here.labels}
        pairs["macro mean"] = self.macros(metric)
        return [name for name, estimates in pairs.items() if _are_apart(*estimates)]


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
    numbers = [_NUMBER.match(value) for value in values.tolist()]
    are_numbers = all(match is not None or value == "" for match, value in zip(numbers, values.tolist(), strict=True))
    if edges is not None and not are_numbers:
        row = next(row for row, match in enumerate(numbers) if match is None and values[row] != "")
        raise UserError(f"--by {column}: bands are of numbers, {str(values[row])!r} is none")
    parsed = np.array([np.nan if match is None else float(match[0]) for match in numbers])
    distinct = np.unique(parsed[~np.isnan(parsed)])
    if are_numbers and (edges is not None or len(distinct) > MAX_NUMBERS):
        if edges is None:
            quartiles = np.unique(np.quantile(parsed[~np.isnan(parsed)], [0.25, 0.5, 0.75]))
            edges = quartiles[quartiles > distinct[0]].tolist() or [float(distinct[1])]  # each band holds something
        names = _bands(parsed, sorted(edges))
    else:
        order = np.unique(values).tolist()
        if are_numbers:
            order.sort(key=lambda value: float(_NUMBER.match(value)[0]) if value else np.inf)  # type: ignore[index]
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

    def score_rows(is_in: npt.NDArray[np.bool_]) -> Scores:
        part = evaluated.take(is_in)
        return score(part, Patients(part.patient_ids))

    subgroups = []
    named = [(column, value, rows) for column, of_column in groups.items() for value, rows in of_column.items()]
    for column, value, rows in track(named, "scoring subgroups", len(named), unit="group", leave=False):
        is_in = np.isin(np.arange(len(evaluated)), rows)
        rest = None if is_in.all() else score_rows(~is_in)
        subgroups.append(Subgroup(column=column, value=value, scores=score_rows(is_in), rest=rest))
    return subgroups


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


def _are_apart(here: Estimate, there: Estimate) -> bool:
    return here.low > there.high or there.low > here.high  # never with NaN
