"""Whether a probability of 0.3 is right three times in ten, and maps that make it so.

Each fold is judged by the map that was fitted on the other folds; the one for new images is fitted on all of them.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logit, softmax
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from catheters.errors import UserError
from catheters.evaluation.prediction_set import PredictionSet, mean_of_known
from catheters.io.files import read_written_json, write_text

Floats = npt.NDArray[np.float64]
Targets = npt.NDArray[np.uint8]

FORMAT_VERSION = 1
NUM_BINS = 10
SMALLEST = 1e-7
"""Probabilities are kept this far from 0 and 1, where logits and logarithms end; float32 knows none nearer to 1."""


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """A reliability curve: bins of as many images each, in the order of their probabilities.

    Attributes:
        predicted: (B,) mean probability of each bin.
        observed: (B,) share of positives.
        counts: (B,) images.
    """

    predicted: Floats
    observed: Floats
    counts: npt.NDArray[np.int64]

    @property
    def expected_error(self) -> float:
        """Expected calibration error: the mean distance from the diagonal over the images.

        With bins of equal counts: Nixon et al., Measuring calibration in deep learning, CVPR workshops 2019.
        """
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.counts))


def reliability(targets: Targets, probabilities: Floats) -> Reliability:
    """The reliability curve of one label; images of equal probability share a bin.

    Args:
        targets: (n,) 0/1.
        probabilities: (n,).
    """
    order = np.argsort(probabilities, kind="stable")
    ordered = probabilities[order]
    starts = np.searchsorted(ordered, ordered[np.arange(NUM_BINS) * len(ordered) // NUM_BINS])
    starts = np.unique(starts)  # a bin that began among equals begins where they do
    counts = np.diff(np.append(starts, len(ordered)))
    return Reliability(
        predicted=np.add.reduceat(ordered, starts) / counts,
        observed=np.add.reduceat(targets[order].astype(np.float64), starts) / counts,
        counts=counts,
    )


@dataclass(frozen=True, kw_only=True)
class LogitMap:
    """p -> sigmoid(slope logit(p) + intercept)."""

    slope: float
    intercept: float

    def __call__(self, probabilities: Floats) -> Floats:
        """(n,) -> (n,)."""
        mapped: Floats = expit(self.slope * _logit(probabilities) + self.intercept)
        return mapped


@dataclass(frozen=True, kw_only=True)
class StepMap:
    """Straight lines between points, level outside of them."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __call__(self, probabilities: Floats) -> Floats:
        """(n,) -> (n,)."""
        return np.interp(probabilities, self.x, self.y)


@dataclass(frozen=True, kw_only=True)
class SoftmaxMap:
    """Of labels that exclude each other: softmax(slope log(p)), over them and none of them."""

    labels: tuple[str, ...]
    slope: float

    def __call__(self, probabilities: Floats) -> Floats:
        """(n, m) -> (n, m)."""
        mapped: Floats = softmax(self.slope * np.log(_with_absent(probabilities)), axis=1)[:, 1:]
        return mapped


CalibrationMap = LogitMap | StepMap
IDENTITY = LogitMap(slope=1.0, intercept=0.0)
"""For a label of which all images are of one class."""


def _fit_platt(targets: Targets, probabilities: Floats) -> LogitMap:
    """Platt, Probabilistic outputs for support vector machines (1999), on logits.

    With his targets, a little off 1 and 0, so that a fit exists where the classes do not overlap.
    """
    num_positives, logits = int(targets.sum()), _logit(probabilities)
    if np.ptp(logits) == 0:
        return LogitMap(slope=0.0, intercept=float(_logit(np.array(num_positives / len(targets)))))
    off_one, off_zero = 1 / (num_positives + 2), 1 / (len(targets) - num_positives + 2)
    soft = np.where(targets == 1, 1 - off_one, off_zero)
    with threadpool_limits(1):  # so small a fit only waits for its threads
        fitted = LogisticRegression(C=np.inf, solver="newton-cholesky").fit(
            np.tile(logits, 2)[:, None],
            np.repeat([1, 0], len(targets)),
            sample_weight=np.concatenate([soft, 1 - soft]),
        )
    return LogitMap(slope=float(fitted.coef_[0, 0]), intercept=float(fitted.intercept_[0]))


def _fit_temperature(targets: Targets, probabilities: Floats) -> LogitMap:
    """Guo et al., On calibration of modern neural networks, ICML 2017, a temperature for each label."""
    logits = _logit(probabilities)
    signs = 2.0 * targets - 1

    def log_loss(log_slope: float) -> float:
        return float(np.logaddexp(0, -math.exp(log_slope) * logits * signs).mean())

    found = minimize_scalar(log_loss, bounds=(-5, 5), method="bounded")
    return LogitMap(slope=math.exp(found.x), intercept=0.0)


def _fit_isotonic(targets: Targets, probabilities: Floats) -> StepMap:
    """Zadrozny and Elkan, Transforming classifier scores into accurate probability estimates, KDD 2002."""
    fitted = IsotonicRegression(y_min=0, y_max=1).fit(probabilities, targets)
    return StepMap(x=tuple(fitted.X_thresholds_.tolist()), y=tuple(fitted.y_thresholds_.tolist()))


def _fit_softmax(labels: tuple[str, ...], targets: Targets, probabilities: Floats) -> SoftmaxMap:
    """One temperature for labels that exclude each other, as Guo et al. have it for classes."""
    classes = np.where(targets.any(axis=1), targets.argmax(axis=1) + 1, 0)
    if len(np.unique(classes)) < 2:
        return SoftmaxMap(labels=labels, slope=1.0)
    logs = np.log(_with_absent(probabilities))

    def log_loss(log_slope: float) -> float:
        return float(-log_softmax(math.exp(log_slope) * logs, axis=1)[np.arange(len(classes)), classes].mean())

    found = minimize_scalar(log_loss, bounds=(-5, 5), method="bounded")
    return SoftmaxMap(labels=labels, slope=math.exp(found.x))


METHODS: Mapping[str, Callable[[Targets, Floats], CalibrationMap]] = MappingProxyType(
    {"temperature": _fit_temperature, "platt": _fit_platt, "isotonic": _fit_isotonic}
)


@dataclass(frozen=True, kw_only=True)
class Calibrator:
    """A map for each label, and one for each group of labels that exclude each other.

    Attributes:
        method: a key of `METHODS`, of the labels by themselves; a group has a temperature.
        maps: label -> its map.
        groups: the others' maps.
    """

    method: str
    maps: Mapping[str, CalibrationMap]
    groups: tuple[SoftmaxMap, ...] = ()

    @property
    def changes_probabilities(self) -> bool:
        """Whether it calibrates anything: "none" is a method too."""
        return self.method != "none" or bool(self.groups)

    @property
    def labels(self) -> set[str]:
        """All that it has a map for."""
        return {*self.maps, *(label for group in self.groups for label in group.labels)}

    def __call__(self, labels: tuple[str, ...], probabilities: Floats) -> Floats:
        """Calibrate (n, K) probabilities, columns in the order of `labels`."""
        calibrated = np.empty(probabilities.shape)
        for k, label in enumerate(labels):
            if label in self.maps:
                calibrated[:, k] = self.maps[label](probabilities[:, k])
        for group in self.groups:
            columns = [labels.index(label) for label in group.labels]
            calibrated[:, columns] = group(probabilities[:, columns])
        return calibrated

    def of_thresholds(self, labels: tuple[str, ...], thresholds: Floats) -> Floats:
        """(K,) thresholds for probabilities -> about the same for calibrated ones.

        A label's calibrated probability hangs on the others of its exclusive group: here as if none of them had any.
        """
        slopes = {label: group.slope for group in self.groups for label in group.labels}
        return np.array(
            [
                (self.maps[label] if label in self.maps else LogitMap(slope=slopes[label], intercept=0.0))(threshold)
                for label, threshold in zip(labels, thresholds[:, None], strict=True)
            ]
        )[:, 0]


def fit_calibrator(method: str, evaluated: PredictionSet) -> Calibrator:
    """Fit a map for each label, or exclusive group, on all images of which it is known."""
    maps = {}
    in_groups = {label for group in evaluated.exclusive for label in group}
    for k, label in enumerate(evaluated.labels):
        if label in in_groups:
            continue
        of_label = evaluated.of_label(k)
        maps[label] = METHODS[method](of_label.targets, of_label.probabilities) if of_label.has_both else IDENTITY
    groups = []
    for labels in evaluated.exclusive:
        columns = [evaluated.labels.index(label) for label in labels]
        known = evaluated.take(np.flatnonzero(evaluated.is_known[:, columns].all(axis=1)))
        targets = known.targets[:, columns].astype(np.uint8)
        groups.append(_fit_softmax(labels, targets, known.probabilities[:, columns]))
    return Calibrator(method=method, maps=maps, groups=tuple(groups))


def calibrate_across_folds(method: str, evaluated: PredictionSet, folds: npt.NDArray[np.int64]) -> Floats:
    """(n, K) probabilities, each fold's by the maps that were fitted on the others; see `fitting_folds`."""
    calibrated = evaluated.probabilities.copy()
    for fold in np.unique(folds):
        others, held_out = evaluated.take(folds != fold), evaluated.take(folds == fold)
        if len(others):
            calibrated[folds == fold] = fit_calibrator(method, others)(evaluated.labels, held_out.probabilities)
    return calibrated


def cross_entropies(targets: Floats, probabilities: Floats) -> Floats:
    """(n, K) binary cross-entropies, of probabilities kept `SMALLEST` from 0 and 1; of no use where unknown."""
    return np.asarray(-np.log(np.clip(np.where(targets == 1, probabilities, 1 - probabilities), SMALLEST, 1)))


def log_losses(evaluated: PredictionSet) -> Floats:
    """(K,) mean binary cross-entropies."""
    return mean_of_known(cross_entropies(evaluated.targets, evaluated.probabilities), evaluated.is_known)


def calibrator_to_json(calibrator: Calibrator) -> dict[str, Any]:
    """As plain data; see `write_calibrator`."""
    return {
        "format_version": FORMAT_VERSION,
        "method": calibrator.method,
        "maps": {label: dataclasses.asdict(map_) for label, map_ in calibrator.maps.items()},
        **({"groups": [dataclasses.asdict(group) for group in calibrator.groups]} if calibrator.groups else {}),
    }


def write_calibrator(file: Path, calibrator: Calibrator, predictions_sha256: str) -> None:
    """Write it as JSON; the file is whole or absent.

    Args:
        file: the JSON file.
        calibrator: what it holds.
        predictions_sha256: of the file of predictions that it was fitted on.
    """
    content = calibrator_to_json(calibrator) | {"predictions_sha256": predictions_sha256}
    write_text(file, json.dumps(content, indent=1) + "\n")


def read_calibrator(file: Path) -> tuple[Calibrator, str | None]:
    """The inverse of `write_calibrator`.

    Returns:
        The calibrator, and the hash of the predictions that it was fitted on; None where an earlier version, which did
        not write that, has written it.

    Raises:
        UserError: it is missing, damaged or of another version.
    """
    content = read_written_json(file, FORMAT_VERSION)
    try:
        maps = {label: _map_from_json(fields) for label, fields in content["maps"].items()}
        groups = tuple(map(_group_from_json, content.get("groups", [])))
        method = str(content["method"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{file}: damaged; run evaluate.py again") from None
    fitted_on = content.get("predictions_sha256")
    return Calibrator(method=method, maps=maps, groups=groups), None if fitted_on is None else str(fitted_on)


def _map_from_json(fields: Mapping[str, Any]) -> CalibrationMap:
    if "slope" in fields:
        return LogitMap(slope=float(fields["slope"]), intercept=float(fields["intercept"]))
    x, y = (tuple(map(float, fields[name])) for name in ("x", "y"))
    if len(x) != len(y) or not x:
        raise ValueError("points of x and y")
    return StepMap(x=x, y=y)


def _group_from_json(fields: Mapping[str, Any]) -> SoftmaxMap:
    labels, slope = fields["labels"], float(fields["slope"])
    if not isinstance(labels, list) or len(set(map(str, labels))) < len(labels) or not 0 < slope < math.inf:
        raise ValueError("labels, each once, and a positive slope")
    return SoftmaxMap(labels=tuple(map(str, labels)), slope=slope)


def _with_absent(probabilities: Floats) -> Floats:
    """(n, m) -> (n, m + 1), the first one being that of none of them; kept `SMALLEST` from 0.

    Of an ensemble that is no mean they may sum to more than 1.
    """
    absent = 1 - probabilities.sum(axis=1, keepdims=True)
    clipped: Floats = np.clip(np.concatenate([absent, probabilities], axis=1), SMALLEST, 1)
    return clipped


def _logit(probabilities: Floats) -> Floats:
    logits: Floats = logit(np.clip(probabilities, SMALLEST, 1 - SMALLEST))
    return logits
