"""A trained model in Python: `model = catheters.load("saved_models/run"); result = model("xray.dcm")`."""

import functools
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from catheters.data.decoding.image import UnreadableImage
from catheters.data.decoding.radiograph import read_file
from catheters.data.spacing import NO_DICOM, read_dicom_spacing
from catheters.errors import UserError, counted, unknown_name
from catheters.inference.figures import Xray, read_xray
from catheters.inference.interpretation import Findings, find_one, sentences_of
from catheters.inference.lines.drawing import draw_with_legend
from catheters.inference.lines.finding import FoundLines, find_all
from catheters.inference.lines.landmarks import FoundLandmark
from catheters.inference.lines.measuring import TakenMeasurement
from catheters.inference.lines.prediction import PredictedLine, device_types_of, tips_of
from catheters.inference.lines.sentences import describe_disagreements
from catheters.inference.loading import RANKS_ONLY, read_models
from catheters.inference.predictor import Predictor
from catheters.inference.reading import read_image
from catheters.measurements import PixelSpacing
from catheters.runtime.device import open_device


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a model says of one X-ray. Research software, not a medical device.

    Attributes:
        probabilities: label -> probability, calibrated where the model's evaluation has a calibration.
        predicted_positive: label -> whether it is, by the operating point of the model's evaluation, else from 0.5 on.
        deferred: labels that are better deferred to a person, see `evaluate.py --abstain-error`.
        thresholds: label -> the probability from which on it is predicted positive.
        sentences: device type -> what the X-ray shows of it; labels of no device type under `findings`.
        quality_flags: why the prediction may be worth little: odd sizes, inverted grayscale, out-of-distribution.
        spread: label -> standard deviation over the checkpoints; empty for a single one.
    """

    probabilities: Mapping[str, float]
    predicted_positive: Mapping[str, bool]
    deferred: tuple[str, ...]
    thresholds: Mapping[str, float]
    sentences: Mapping[str, str]
    quality_flags: tuple[str, ...]
    spread: Mapping[str, float]
    _data: bytes = field(repr=False)
    _predictor: Predictor = field(repr=False)
    _findings: Findings = field(repr=False, compare=False)
    _spacing: PixelSpacing | None = field(repr=False)

    def heatmap(self, label: str) -> npt.NDArray[np.float32]:
        """Where the models looked for a label, by Grad-CAM: (H, W) in 0..1, on the X-ray itself.

        Raises:
            UserError: no such label.
        """
        return self._explain(label)[1]

    def overlay(self, label: str) -> Image.Image:
        """The heatmap in colours over the X-ray, as an image that a notebook shows.

        Raises:
            UserError: no such label.
        """
        from catheters.inference.heatmaps import overlay

        return Image.fromarray(overlay(*self._explain(label)))

    @property
    def lines(self) -> tuple[PredictedLine, ...]:
        """The catheters that the models see, found when they are first asked for.

        Raises:
            UserError: no checkpoint of the model has a line decoder, or one outputs NaN or infinity.
        """
        return self._found.lines

    @property
    def tips(self) -> dict[str, list[tuple[float, float]]]:
        """Device type -> the tips of its lines, x and y in pixels of the X-ray; an empty list where it has none.

        A tip at which several lines end is listed once.

        Raises:
            UserError: as of `lines`.
        """
        return tips_of(self.lines, tuple(device_types_of(self._predictor.models)))

    @property
    def landmarks(self) -> dict[str, FoundLandmark | None]:
        """Name -> where the landmark lies, in pixels of the X-ray; None where it is not found.

        Raises:
            UserError: as of `lines`.
        """
        return dict(self._found.landmarks)

    @property
    def measurements(self) -> tuple[TakenMeasurement, ...]:
        """What the setting `measurements` names, between tips and landmarks that are found, and its label by rule.

        Two tubes of one type have two lengths. None is in mm where the pixel spacing is not known.

        Raises:
            UserError: as of `lines`.
        """
        return self._found.measurements

    @property
    def disagreements(self) -> tuple[str, ...]:
        """A sentence for each measurement whose label by rule is not predicted positive; empty where all agree.

        Raises:
            UserError: as of `lines`.
        """
        return describe_disagreements(self._findings, 0, self.measurements)

    def draw_lines(self) -> Image.Image:
        """Lines, tips, landmarks and lengths over the X-ray, with a legend, as an image that a notebook shows.

        Lines of a device type that is not predicted positive are dashed, and their labels have a question mark.

        Raises:
            UserError: as of `lines`.
        """
        unsure = self._findings.not_predicted(0)
        return draw_with_legend(self._read()[0], self._found, device_types_of(self._predictor.models), unsure)

    @functools.cached_property
    def _found(self) -> FoundLines:
        xray, made = self._read()
        height, width = xray.shape
        spacing = read_dicom_spacing(self._data) if self._spacing is None else self._spacing
        if spacing.doubt == NO_DICOM:
            spacing = PixelSpacing(None, f"{NO_DICOM}; give spacing=(x, y), in mm per pixel")
        try:
            return find_all(self._predictor, made, self.probabilities, spacing, (height, width))
        except UnreadableImage as error:
            raise UserError(f"the X-ray: {error}") from None

    def _read(self) -> Xray:
        return read_xray(self._data, self._predictor.preprocessings)

    def _explain(self, label: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        from catheters.inference.heatmaps import explain

        if label not in self.probabilities:
            raise UserError(unknown_name(label, "a label", self.probabilities))
        xray, made = self._read()
        return xray, explain(self._predictor, xray, made, [label]).maps[label]

    def __str__(self) -> str:
        """One line per device type and per quality flag."""
        return "\n".join([*self.sentences.values(), *(f"quality flag: {flag}" for flag in self.quality_flags)])


class Model:
    """A trained model, or several; made by `load`.

    Attributes:
        labels: (K,) what it predicts.
    """

    def __init__(self, predictor: Predictor) -> None:
        """Predict with these models."""
        self._predictor = predictor
        self.labels = predictor.models.labels

    def __repr__(self) -> str:
        """What it is made of."""
        models = self._predictor.models
        count = len(models.checkpoints)
        how = "calibrated" if models.is_calibrated else "not calibrated"
        names = ", ".join(member.name for member in models.members)
        return f"Model of {names}: {counted(count, 'checkpoint')}, {how}"

    def __call__(self, xray: str | os.PathLike[str] | bytes, *, spacing: tuple[float, float] | None = None) -> Result:
        """Predict one X-ray.

        Args:
            xray: a file (DICOM, JPEG, PNG, TIFF, WebP), or the content of one.
            spacing: mm per pixel of it, to the right and downwards, for measurements in mm; None: as the header of a
                DICOM file says.

        Raises:
            UserError: it cannot be read; the message is the reason. Or `spacing` is not two numbers above 0.
        """
        given = None if spacing is None else PixelSpacing(_check_spacing(spacing))
        try:
            data = xray if isinstance(xray, bytes) else read_file(Path(xray))
            findings, quality_flags = find_one(self._predictor, read_image(data, self._predictor.preprocessings))
        except UnreadableImage as error:
            raise UserError(f"{'the X-ray' if isinstance(xray, bytes) else xray}: {error}") from None

        def by_label(values: npt.NDArray[np.generic]) -> dict[str, float]:
            return {label: float(value) for label, value in zip(self.labels, values, strict=True)}

        return Result(
            probabilities=by_label(findings.probabilities[0]),
            predicted_positive=dict(zip(self.labels, findings.is_predicted_positive[0].tolist(), strict=True)),
            deferred=tuple(np.array(self.labels)[findings.is_deferred[0]].tolist()),
            thresholds=by_label(findings.thresholds),
            sentences=sentences_of(findings, 0),
            quality_flags=quality_flags,
            spread={} if findings.spread is None else by_label(findings.spread[0]),
            _data=data,
            _predictor=self._predictor,
            _findings=findings,
            _spacing=given,
        )


def _check_spacing(spacing: tuple[float, float]) -> tuple[float, float]:
    try:
        x, y = (float(number) for number in spacing)
    except (TypeError, ValueError):
        x = y = math.nan
    if not (0 < x < math.inf and 0 < y < math.inf):
        raise UserError(f"spacing={spacing!r}: two numbers above 0 are expected, mm per pixel in x and y")
    return x, y


def load(*models: str | os.PathLike[str], device: str = "auto", calibrated: bool = True, tta: bool = False) -> Model:
    """Load a trained model.

    torch's settings of the whole process (TF32, deterministic algorithms) stay as they are, the caller's: on a GPU the
    predictions may round otherwise than `predict.py`'s.

    Args:
        models: a run folder (the mean of its folds), a checkpoint, the folder of an ensemble; or several runs and
            checkpoints, whose probabilities are averaged.
        device: auto (the first NVIDIA GPU, else the CPU), cpu, cuda or cuda:<index>.
        calibrated: whether the calibration of its evaluation is applied.
        tta: whether each X-ray is predicted mirrored as well.

    Raises:
        UserError: a file is missing or damaged, the models predict different labels, there is no such device, or it
            does not compute.
    """
    if not models:
        raise UserError("load() takes a run folder, a checkpoint or the folder of an ensemble")
    read = read_models([Path(model) for model in models])
    if not read.gives_probabilities:
        raise UserError(f"{models[0]}: {RANKS_ONLY}")
    return Model(Predictor(read if calibrated else read.without_calibration(), open_device(device), tta=tta))
