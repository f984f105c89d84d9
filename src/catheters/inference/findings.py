"""From probabilities to what is called present, and to plain sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catheters.errors import UserError, unknown_name
from catheters.evaluation.evaluated import presence_probability
from catheters.inference.predictor import Predictor

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
        heads: device -> its labels.
        rule: how the thresholds were chosen, in words.
        probabilities: (n, K), calibrated where there is a calibration; NaN for images that could not be read.
        thresholds: (K,) at and above which a label is called present, on the same scale.
        is_called: (n, K) whether it is.
        is_present: device -> (n,) whether it is called present.
        is_undecided: (n, K) whether a label is better left to a person; nowhere without an evaluation.
        spread: (n, K) standard deviation over the checkpoints; None for a single one.
    """

    labels: tuple[str, ...]
    heads: Mapping[str, tuple[str, ...]]
    rule: str
    probabilities: Floats
    thresholds: Floats
    is_called: npt.NDArray[np.bool_]
    is_present: Mapping[str, npt.NDArray[np.bool_]]
    is_undecided: npt.NDArray[np.bool_]
    spread: Floats | None

    def of_device(self, device: str) -> list[int]:
        """Columns of its labels."""
        return [self.labels.index(label) for label in self.heads[device] if label in self.labels]

    def probability_of_any(self, columns: Sequence[int]) -> Floats:
        """(n,) that an image has one of these labels at least."""
        return presence_probability(self.probabilities[:, columns])


def find(predictor: Predictor, answers: npt.NDArray[np.float32]) -> Findings:
    """Blend, judge and calibrate.

    Judging goes before calibration, since the operating points were chosen there.

    Args:
        predictor: the models.
        answers: (C, n, K) of each checkpoint; NaN for images that could not be read.
    """
    models = predictor.models
    is_read = ~np.isnan(answers).any(axis=(0, 2))
    blended = np.full(answers.shape[1:], np.nan)
    calibrated = blended.copy()
    if is_read.any():
        blended[is_read] = predictor.blend(answers[:, is_read])
        calibrated[is_read] = predictor.calibrate(blended[is_read])
    known = models.thresholds
    raw = np.full(len(models.labels), DEFAULT_THRESHOLD)
    if known is not None:
        raw = np.array([known.labels.get(label, DEFAULT_THRESHOLD) for label in models.labels])
    is_called = blended >= raw
    is_undecided = np.zeros(blended.shape, dtype=np.bool_)
    for k, label in enumerate(models.labels):
        if known is not None and label in known.bands:
            is_undecided[:, k] = known.bands[label].is_undecided(blended[:, k])
    is_present: dict[str, npt.NDArray[np.bool_]] = {}
    for device, labels in models.heads.items():
        columns = [models.labels.index(label) for label in labels]
        threshold = DEFAULT_THRESHOLD if known is None else known.devices.get(device, DEFAULT_THRESHOLD)
        is_any_called = is_called[:, columns].any(axis=1)
        is_seen = presence_probability(blended[:, columns]) >= threshold
        is_present[device] = is_any_called | (is_seen & (len(columns) > 1))
    return Findings(
        labels=models.labels,
        heads=models.heads,
        rule=f"at {DEFAULT_THRESHOLD}, since the models are not evaluated" if known is None else f"by {known.rule}",
        probabilities=calibrated,
        thresholds=predictor.calibrate(raw[None])[0],
        is_called=is_called,
        is_present=is_present,
        is_undecided=is_undecided,
        spread=np.std(answers.astype(np.float64), axis=0, ddof=1) if len(answers) > 1 else None,
    )


def describe_device(findings: Findings, device: str, row: int) -> str:
    """What an image shows of a device, as in `NGT: present, tip not imaged (0.91, called from 0.34)`."""
    columns = findings.of_device(device)
    called = [k for k in columns if findings.is_called[row, k]]
    if not findings.is_present[device][row]:
        return f"{device}: not seen ({_percent(findings.probability_of_any(columns)[row])})"
    if not called:
        return f"{device}: present, position unclear ({_percent(findings.probability_of_any(columns)[row])})"
    states = [
        f"{_state(findings.labels[k], device)} ({_percent(findings.probabilities[row, k])}, called from "
        f"{_percent(findings.thresholds[k])})"
        for k in called
    ]
    return f"{device}: present{', ' if len(columns) > 1 else ' '}{', '.join(states)}".replace("  ", " ")


def describe_others(findings: Findings, row: int) -> str:
    """What an image shows of labels that are of no device; `none` where it shows none of them."""
    of_devices = {label for labels in findings.heads.values() for label in labels}
    called = [
        f"{label} ({_percent(findings.probabilities[row, k])}, called from {_percent(findings.thresholds[k])})"
        for k, label in enumerate(findings.labels)
        if label not in of_devices and findings.is_called[row, k]
    ]
    return ", ".join(called) or "none"


def describe_undecided(findings: Findings, row: int) -> str:
    """The labels of an image that are better left to a person."""
    return ", ".join(label for k, label in enumerate(findings.labels) if findings.is_undecided[row, k])


def has_others(findings: Findings) -> bool:
    """Whether there are labels that are of no device."""
    return bool(set(findings.labels) - {label for labels in findings.heads.values() for label in labels})


def sentences_of(findings: Findings, row: int) -> dict[str, str]:
    """What an image shows: device -> its sentence; labels of no device under `findings`."""
    sentences = {device: describe_device(findings, device, row) for device in findings.heads}
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


def _state(label: str, device: str) -> str:
    """`NGT - Incompletely Imaged` -> `tip not imaged`; nothing for a device's only label."""
    state = label.removeprefix(device).strip(" -").lower()
    return WORDS.get(state, "" if state.endswith("present") else state)


def _percent(probability: float) -> str:
    return f"{probability:.2f}"
