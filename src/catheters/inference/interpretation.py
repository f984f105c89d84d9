"""From probabilities to what is predicted positive, and to plain sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catheters.data.decoding.image import UnreadableImage
from catheters.errors import UserError, listed, unknown_name
from catheters.evaluation.prediction_set import probability_of_any
from catheters.inference.loading import Models
from catheters.inference.predictor import NO_NUMBER, Predictor
from catheters.inference.reading import ReadImage
from catheters.labels import SELDOM_TOGETHER

Floats = npt.NDArray[np.float64]

DEFAULT_THRESHOLD = 0.5
"""Where no evaluation has chosen one."""
WORDS = {
    "abnormal": "abnormal position",
    "borderline": "borderline position",
    "normal": "normal position",
    "incompletely imaged": "tip not imaged",
}
"""What the second half of RANZCR CLiP's label names says, in a sentence."""
URGENT_WORD = "abnormal"
"""Labels with this in their names make an image urgent, where the user names no others."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What n images are said to show.

    Attributes:
        labels: (K,) names.
        heads: device type -> its labels.
        rule: how the thresholds were chosen, in words.
        probabilities: (n, K), calibrated where there is a calibration; NaN for images that could not be predicted.
        uncalibrated: (n, K) likewise, as the models give them.
        exclusive: groups of labels that exclude each other, by the models' softmax.
        thresholds: (K,) at and above which a label is predicted positive, on the scale of `probabilities`; of a label
            in an exclusive group, whose calibration hangs on the others of the group, about so.
        is_predicted_positive: (n, K) whether it is.
        presence: device type -> (n,) probability that it is there, uncalibrated.
        presence_thresholds: device type -> at and above which it is predicted positive.
        is_deferred: (n, K) whether a label is better deferred to a person; nowhere without an evaluation.
        spread: (n, K) standard deviation over the checkpoints; None for a single one.
    """

    labels: tuple[str, ...]
    heads: Mapping[str, tuple[str, ...]]
    exclusive: tuple[tuple[str, ...], ...] = ()
    rule: str
    probabilities: Floats
    uncalibrated: Floats
    thresholds: Floats
    is_predicted_positive: npt.NDArray[np.bool_]
    presence: Mapping[str, Floats]
    presence_thresholds: Mapping[str, float]
    is_deferred: npt.NDArray[np.bool_]
    spread: Floats | None

    def of_device_type(self, device_type: str) -> list[int]:
        """Columns of its labels."""
        return [self.labels.index(label) for label in self.heads[device_type]]

    def is_present(self, device_type: str, row: int) -> bool:
        """Whether a device type is predicted positive: by its own operating point, one of a single label by that."""
        columns = self.of_device_type(device_type)
        if len(columns) == 1:
            return bool(self.is_predicted_positive[row, columns[0]])
        return bool(self.presence[device_type][row] >= self.presence_thresholds[device_type])

    def not_predicted(self, row: int) -> tuple[str, ...]:
        """The device types that are not predicted positive in an image."""
        return tuple(device_type for device_type in self.heads if not self.is_present(device_type, row))

    def probability_of_any(self, columns: Sequence[int]) -> Floats:
        """(n,) that an image has one of these labels at least."""
        return probability_of_any([self.labels[k] for k in columns], self.probabilities[:, columns], self.exclusive)


def find(predictor: Predictor, predictions: npt.NDArray[np.float32]) -> Findings:
    """Combine, judge and calibrate.

    Judging goes before calibration, since the operating points were chosen there.

    Args:
        predictor: the models.
        predictions: (C, n, K) of each checkpoint; NaN for images that could not be read.
    """
    models = predictor.models
    is_read = ~np.isnan(predictions).any(axis=(0, 2))
    combined = np.full(predictions.shape[1:], np.nan)
    calibrated = combined.copy()
    if is_read.any():
        combined[is_read] = predictor.combine(predictions[:, is_read])
        calibrated[is_read] = predictor.calibrate(combined[is_read])
    known = models.thresholds
    of_labels = {} if known is None else known.labels
    of_device_types = {} if known is None else known.device_types
    raw = np.array([of_labels.get(label, DEFAULT_THRESHOLD) for label in models.labels])
    is_deferred = np.zeros(combined.shape, dtype=np.bool_)
    for k, label in enumerate(models.labels):
        if known is not None and label in known.bands:
            is_deferred[:, k] = known.bands[label].is_deferred(combined[:, k])
    presence, presence_thresholds = {}, {}
    for device_type, labels in models.heads.items():
        columns = [models.labels.index(label) for label in labels]
        presence[device_type] = probability_of_any(labels, combined[:, columns], models.exclusive)
        # A device type's only label is its presence.
        by_label = float(raw[columns[0]]) if len(columns) == 1 else DEFAULT_THRESHOLD
        presence_thresholds[device_type] = of_device_types.get(device_type, by_label)
    return Findings(
        labels=models.labels,
        heads=models.heads,
        exclusive=models.exclusive,
        rule=_rule_in_words(models),
        probabilities=calibrated,
        uncalibrated=combined,
        thresholds=raw if models.calibrator is None else models.calibrator.of_thresholds(models.labels, raw),
        is_predicted_positive=combined >= raw,
        presence=presence,
        presence_thresholds=presence_thresholds,
        is_deferred=is_deferred,
        spread=np.std(predictions.astype(np.float64), axis=0, ddof=1) if len(predictions) > 1 else None,
    )


def find_one(predictor: Predictor, image: ReadImage) -> tuple[Findings, tuple[str, ...]]:
    """What one image shows, and its quality flags.

    Raises:
        UnreadableImage: it could not be read, or a model gives NaN or infinity.
    """
    if image.reason is not None:
        raise UnreadableImage(image.reason)
    probabilities, (quality_flags,), _ = predictor.predict([image])
    if not np.isfinite(probabilities).all():
        raise UnreadableImage(NO_NUMBER)
    return find(predictor, probabilities), quality_flags


def _rule_in_words(models: Models) -> str:
    known = models.thresholds
    if known is None:
        return f"from {DEFAULT_THRESHOLD} on, since no evaluation of these models is at hand"
    missing = [label for label in models.labels if label not in known.labels]
    return f"chosen by {known.rule}" + (f"; from {DEFAULT_THRESHOLD} on: {listed(missing)}" if missing else "")


def describe_device_type(findings: Findings, device_type: str, row: int) -> str:
    """What an image shows of a device type, as in `NGT: present, tip not imaged (0.91, threshold 0.34)`.

    Whether it is there is said by the device type's own operating point, what position it has by those of its labels.
    Where a label is predicted positive and the device type is not, it is uncertain. Labels that are deferred are named,
    predicted positive or not. A tube has one position: of labels that an image has one of, the most probable of those
    that are predicted positive is said, and the others in its brackets (see `positions_of`).
    """
    columns = findings.of_device_type(device_type)
    positions = positions_of(findings, columns, row)
    presence, threshold = findings.presence[device_type][row], findings.presence_thresholds[device_type]
    is_present = findings.is_present(device_type, row)
    if len(columns) == 1:
        found = "present" if is_present else "not seen"
        return f"{device_type}: {found} {_label_in_brackets(findings, columns[0], row)}"
    in_brackets = f"({_short(presence)}, {_threshold(threshold)})"
    names = {k: _state(findings.labels[k], device_type) for k in columns}
    said = ", ".join(_describe_position(findings, position, row, names) for position in positions)
    # Several lines of a kind may lie in several positions, and which of them is not known.
    said += " (of one line or of several)" if len(positions) > 1 else ""
    if not is_present:
        sentence = f"{device_type}: {f'uncertain {in_brackets}, {said}' if positions else f'not seen {in_brackets}'}"
    else:
        sentence = f"{device_type}: present, {said or f'position unclear {in_brackets}'}"
    return "; ".join(filter(None, [sentence, _deferred_below(findings, names, row, positions)]))


def describe_others(findings: Findings, row: int) -> str:
    """What an image shows of labels that are of no device type; `none` where it shows none of them and all are
    decided."""
    of_device_types = {label for labels in findings.heads.values() for label in labels}
    columns = [k for k, label in enumerate(findings.labels) if label not in of_device_types]
    names = {k: findings.labels[k] for k in columns}
    positions = positions_of(findings, columns, row)
    said = ", ".join(_describe_position(findings, position, row, names) for position in positions)
    return "; ".join(filter(None, [said, _deferred_below(findings, names, row, positions)])) or "none"


@dataclass(frozen=True, kw_only=True)
class Position:
    """What is said of labels that an image has one of at most, or of one label alone.

    Attributes:
        column: the label that is said.
        alternatives: others that are predicted positive too, or are more probable; the most probable one first.
    """

    column: int
    alternatives: tuple[int, ...] = ()


def positions_of(findings: Findings, columns: Sequence[int], row: int) -> list[Position]:
    """What is predicted positive of some labels of an image, so that nothing contradicts itself.

    Labels of which an image has one, by the models' softmax or as a rule (`SELDOM_TOGETHER`: a tube has one position),
    may have thresholds by which several are predicted positive. The most probable of these is said, the others are its
    alternatives, and so are labels that are more probable and below their thresholds. All other labels stand by
    themselves.
    """
    positions, seen = [], set[int]()
    for column in columns:
        if column in seen:
            continue
        groups = [labels for labels in (*findings.exclusive, *SELDOM_TOGETHER) if findings.labels[column] in labels]
        alike = {findings.labels[column]}.union(*groups)
        together = [k for k in columns if findings.labels[k] in alike and k not in seen]
        seen.update(together)
        together.sort(key=lambda k: -findings.probabilities[row, k])
        positives = [k for k in together if findings.is_predicted_positive[row, k]]
        if positives:
            likelier = together[: together.index(positives[0])]
            positions.append(Position(column=positives[0], alternatives=(*likelier, *positives[1:])))
    return positions


def describe_deferred(findings: Findings, row: int) -> str:
    """The labels of an image that are better deferred to a person."""
    return ", ".join(label for k, label in enumerate(findings.labels) if findings.is_deferred[row, k])


def has_others(findings: Findings) -> bool:
    """Whether there are labels that are of no device type."""
    return bool(set(findings.labels) - {label for labels in findings.heads.values() for label in labels})


def sentences_of(findings: Findings, row: int) -> dict[str, str]:
    """What an image shows: device type -> its sentence; labels of no device type under `findings`."""
    sentences = {device_type: describe_device_type(findings, device_type, row) for device_type in findings.heads}
    if has_others(findings):
        sentences["findings"] = f"findings: {describe_others(findings, row)}"
    return sentences


def urgent_columns(labels: tuple[str, ...], named: Sequence[str]) -> list[int]:
    """The labels that make an image urgent: those named, else those whose names say abnormal.

    Raises:
        UserError: a name is no label, or none is named and none says abnormal.
    """
    for name in named:
        if name not in labels:
            raise UserError(f"--urgent {name}: {unknown_name(name, 'a label', labels)}")
    columns = [k for k, label in enumerate(labels) if (label in named if named else URGENT_WORD in label.lower())]
    if not columns:
        raise UserError(
            f"--worklist: no label says {URGENT_WORD}; name those that make an image urgent with --urgent, as in "
            f"--urgent '{labels[0]}'"
        )
    return columns


def _state(label: str, device_type: str) -> str:
    """`NGT - Incompletely Imaged` -> `tip not imaged`."""
    state = label.removeprefix(device_type).strip(" -").lower()
    return WORDS.get(state, state)


def _describe_position(findings: Findings, position: Position, row: int, names: Mapping[int, str]) -> str:
    """As in "normal position (0.61, threshold 0.40; or abnormal position, 0.22, threshold 0.10)"."""
    in_brackets = "; or ".join(
        [
            _numbers_of_said(findings, position.column, row),
            *(f"{names[k]}, {_numbers_of_said(findings, k, row)}" for k in position.alternatives),
        ]
    )
    return f"{names[position.column]} ({in_brackets})"


def _deferred_below(findings: Findings, names: Mapping[int, str], row: int, positions: Sequence[Position]) -> str:
    """The labels, column -> name, that are deferred and not said in a position; empty where there are none.

    Of one that is said, its brackets say so.
    """
    said = {k for position in positions for k in (position.column, *position.alternatives)}
    deferred = [
        f"{name} ({_numbers(findings, k, row)})"
        for k, name in names.items()
        if findings.is_deferred[row, k] and k not in said
    ]
    return f"deferred: {', '.join(deferred)}" if deferred else ""


def _label_in_brackets(findings: Findings, k: int, row: int) -> str:
    return f"({_numbers_of_said(findings, k, row)})"


def _numbers_of_said(findings: Findings, k: int, row: int) -> str:
    return f"{_numbers(findings, k, row)}{', deferred' if findings.is_deferred[row, k] else ''}"


def _numbers(findings: Findings, k: int, row: int) -> str:
    return f"{_short(findings.probabilities[row, k])}, {_threshold(findings.thresholds[k])}"


def _threshold(threshold: float) -> str:
    """In words; one above 1 was chosen where nothing is to be predicted positive."""
    return "never predicted positive" if threshold > 1 else f"threshold {_short(threshold)}"


def _short(probability: float) -> str:
    """Two decimals, and as many more as a small one needs to show two digits."""
    if probability >= 0.1 or probability == 0:
        return f"{probability:.2f}"
    return np.format_float_positional(probability, precision=2, fractional=False, trim="-")
