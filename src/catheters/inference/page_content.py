"""What the local page is told about an X-ray: each function reads, predicts and draws one upload."""

import base64
import functools
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from catheters.data.decoding.image import UnreadableImage
from catheters.data.preprocessing import Preprocessed, Preprocessing, resize
from catheters.data.spacing import read_dicom_spacing
from catheters.inference.figures import Xray, try_to_read
from catheters.inference.heatmaps import explain, overlay
from catheters.inference.interpretation import Findings, find_one, sentences_of
from catheters.inference.lines.drawing import draw_over
from catheters.inference.lines.finding import FoundLines, find_all
from catheters.inference.lines.measuring import planned_of
from catheters.inference.lines.prediction import device_types_of
from catheters.inference.lines.sentences import describe_disagreements, describe_measurement
from catheters.inference.predictor import Predictor
from catheters.inference.reading import image_of
from catheters.measurements import PixelSpacing
from catheters.runtime.workers import Failure, map_guarded

Pixels = npt.NDArray[np.uint8]

MAX_SIDE = 900
"""Pixels of the longer side at which the page shows an X-ray."""
SIDE_OF_SIZE_1 = 450
"""Pixels of the shorter side up to which lines are as thick as on contact sheets: about what a browser makes of it."""


@dataclass(frozen=True)
class TurnedAway(Exception):
    """An upload that is not answered."""

    status: int
    reason: str


def predict_upload(predictor: Predictor, data: bytes) -> dict[str, object]:
    """What the page shows of an X-ray: the image, sentences, probabilities, and what the models measure."""
    xray, made, spacing = _read(predictor, data)
    findings, quality_flags = _find(predictor, made)
    rows = zip(
        findings.labels,
        findings.probabilities[0].tolist(),
        findings.thresholds.tolist(),
        findings.is_predicted_positive[0].tolist(),
        findings.is_deferred[0].tolist(),
        strict=True,
    )
    names = ("label", "probability", "threshold", "predicted_positive", "deferred")
    return {
        "image": "data:image/jpeg;base64," + base64.b64encode(_jpeg(_shown(xray))).decode(),
        "not_predicted": list(findings.not_predicted(0)),
        "sentences": list(sentences_of(findings, 0).values()),
        "measurements": _measure(predictor, xray, made, spacing, findings),
        "quality_flags": list(quality_flags),
        "labels": [dict(zip(names, row, strict=True)) for row in rows],
    }


def _find(predictor: Predictor, made: list[Preprocessed]) -> tuple[Findings, tuple[str, ...]]:
    try:
        return find_one(predictor, image_of(made))
    except UnreadableImage as error:
        raise TurnedAway(422, str(error)) from None


def _measure(
    predictor: Predictor, xray: Pixels, made: list[Preprocessed], spacing: PixelSpacing, findings: Findings
) -> list[str]:
    """Sentences; those about rules that the model does not agree with come first."""
    if not planned_of(predictor.models):
        return []
    try:
        taken = _find_lines(predictor, xray, made, spacing, findings).measurements
    except TurnedAway as error:
        return [f"no measurements: {error.reason}"]
    unsure = findings.not_predicted(0)
    return [
        *describe_disagreements(findings, 0, taken),
        *dict.fromkeys(describe_measurement(each, unsure) for each in taken),
    ]


def draw_lines(predictor: Predictor, data: bytes) -> tuple[bytes, int]:
    """The X-ray with its lines, landmarks and lengths, as a JPEG, and how many lines there are."""
    xray, made, spacing = _read(predictor, data)
    findings, _ = _find(predictor, made)
    found = _find_lines(predictor, xray, made, spacing, findings)
    shown = _shown(xray)
    size = max(1.0, min(shown.shape) / SIDE_OF_SIZE_1)
    drawn = draw_over(shown, found, device_types_of(predictor.models), size, findings.not_predicted(0))
    return _jpeg(np.asarray(drawn)), len(found.lines)


def _find_lines(
    predictor: Predictor, xray: Pixels, made: list[Preprocessed], spacing: PixelSpacing, findings: Findings
) -> FoundLines:
    probabilities = dict(zip(findings.labels, findings.probabilities[0].tolist(), strict=True))
    height, width = xray.shape
    try:
        return find_all(predictor, made, probabilities, spacing, (height, width))
    except UnreadableImage as error:
        raise TurnedAway(422, str(error)) from None


def draw_heatmap(predictor: Predictor, label: str, data: bytes) -> bytes:
    """The X-ray with a label's heatmap, as a JPEG."""
    xray, made, _ = _read(predictor, data)
    heat = explain(predictor, xray, made, [label]).maps[label]
    return _jpeg(_shown(overlay(xray, heat)))


def _read(predictor: Predictor, data: bytes) -> tuple[Pixels, list[Preprocessed], PixelSpacing]:
    """In a process of its own, which a hostile file may crash or fill."""
    try:
        ((_, outcome),) = map_guarded(functools.partial(_read_upload, predictor.preprocessings), [data], num_workers=1)
    except OSError as error:
        raise TurnedAway(503, f"this machine cannot read X-rays now: {error.strerror}") from None
    if isinstance(outcome, Failure):
        raise TurnedAway(422, outcome.reason)
    if isinstance(outcome, str):
        raise TurnedAway(422, outcome)
    (xray, made), spacing = outcome
    return xray, made, spacing


def _read_upload(preprocessings: tuple[Preprocessing, ...], data: bytes) -> tuple[Xray, PixelSpacing] | str:
    """In a worker: the X-ray and the spacing of its pixels, or the reason why it cannot be read."""
    read = try_to_read(preprocessings, data)
    return read if isinstance(read, str) else (read, read_dicom_spacing(data))


def _shown(xray: Pixels) -> Pixels:
    """At the size of the page."""
    scale = min(1.0, MAX_SIDE / max(xray.shape[:2]))
    return resize(xray, (max(1, round(xray.shape[0] * scale)), max(1, round(xray.shape[1] * scale))))


def _jpeg(xray: Pixels) -> bytes:
    content = io.BytesIO()
    Image.fromarray(xray).save(content, format="JPEG", quality=88)
    return content.getvalue()
