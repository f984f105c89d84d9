"""From maps, and from trained models, to lines in pixels of the original image."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from catheters.data.annotations import read_annotations
from catheters.data.preprocessing import Preprocessing, place
from catheters.errors import UserError
from catheters.inference.api import Model
from catheters.inference.figures import read_xray
from catheters.inference.lines.maps import Frame, LineMaps, TipPositions
from catheters.inference.lines.prediction import (
    device_types_of,
    find_lines,
    predict_lines,
    predict_maps,
    tips_of,
    with_decoder,
)
from catheters.inference.loading import read_models
from catheters.inference.predictor import Predictor
from tests.inference.conftest import make_checkpoint, make_models
from tests.inference.lines.drawing import distances_to, draw_line_map, draw_tip_map, smooth

WIDTH = 64
LEFT = smooth((0.1, 0.2), (0.25, 0.25), (0.35, 0.4), (0.38, 0.6))
RIGHT = smooth((0.9, 0.2), (0.75, 0.25), (0.65, 0.4), (0.62, 0.55))
CVC = ("CVC - Abnormal", "CVC - Borderline", "CVC - Normal")
DEVICE_TYPES = {"ETT": ("ETT - Normal",), "CVC": CVC}
SIZE = np.array([500, 300])
"""Width and height of the original."""


def two_catheters(*positions: TipPositions) -> LineMaps:
    """An image without a tube and with two central venous catheters, stretched to 128 x 128."""
    preprocessing = Preprocessing(image_shape=(128, 128))
    frame = Frame(
        placement=place((0.0, 0.0, 300.0, 500.0), preprocessing), image_shape=(128, 128), map_shape=(WIDTH, WIDTH)
    )
    empty = np.zeros((WIDTH, WIDTH), dtype=np.float32)
    return LineMaps(
        device_types=DEVICE_TYPES,
        lines=np.stack([empty, draw_line_map([LEFT, RIGHT], WIDTH)]),
        tips=np.stack([empty, draw_tip_map([LEFT[-1], RIGHT[-1]], WIDTH)]),
        positions={"CVC": positions},
        frame=frame,
    )


def candidates(*of_tips: tuple[np.ndarray, tuple[float, float, float]]) -> TipPositions:
    """Of tips in parts of the width, with the probability of each label."""
    probabilities = np.array([values for _, values in of_tips])
    return TipPositions(
        points=np.array([place for place, _ in of_tips]) * WIDTH - 0.5,
        probabilities={label: probabilities[:, number] for number, label in enumerate(CVC)},
    )


def test_lines_lie_on_the_original() -> None:
    """Within a pixel of the map, which is 7.8 by 4.7 of the original's."""
    lines = find_lines(two_catheters(), {"ETT - Normal": 0.9, **dict(zip(CVC, (0.1, 0.7, 0.6), strict=True))})
    assert [line.device_type for line in lines] == ["CVC", "CVC"]
    assert {line.label for line in lines} == {"CVC - Borderline"}  # an image's likeliest, where nothing says more
    left, right = sorted(lines, key=lambda line: line.tip[0])
    for line, course in ((left, LEFT), (right, RIGHT)):
        expected = course * SIZE - 0.5
        assert distances_to(expected, line.points).max() < 8
        assert np.hypot(*(np.array(line.tip) - expected[-1])) < 5
        assert np.hypot(*(line.points[0] - expected[0])) < 24  # thinning takes some of an end
        assert line.length == pytest.approx(np.hypot(*np.diff(expected, axis=0).T).sum(), rel=0.08)
        assert 0.4 < line.confidence <= 1
        assert line.tip_probability > 0.5
    assert tips_of(lines, ["ETT", "CVC"]) == {"ETT": [], "CVC": [line.tip for line in lines]}
    joined = dataclasses.replace(lines[1], points=np.concatenate([lines[1].points[:1], lines[0].points[-1:]]))
    assert tips_of([lines[0], joined, lines[1]], ["CVC"]) == {"CVC": [lines[0].tip, lines[1].tip]}  # each once


def test_labels_of_tips() -> None:
    """Means over the models that have a candidate there: one is of the left tip alone, one is elsewhere."""
    one = candidates((LEFT[-1], (0.9, 0.2, 0.1)), (RIGHT[-1], (0.1, 0.2, 0.8)))
    other = candidates((LEFT[-1] + 0.02, (0.1, 0.3, 0.8)))  # on the left: 0.5, 0.25, 0.45
    elsewhere = candidates((np.array([0.5, 0.9]), (0.0, 1.0, 0.0)))
    lines = find_lines(two_catheters(one, other, elsewhere), dict.fromkeys(CVC, 0.5))
    left, right = sorted(lines, key=lambda line: line.tip[0])
    assert (left.label, right.label) == ("CVC - Abnormal", "CVC - Normal")
    (left, _) = sorted(find_lines(two_catheters(elsewhere), {CVC[2]: 0.5}), key=lambda line: line.tip[0])
    assert left.label == "CVC - Normal"


def test_models_without_a_decoder() -> None:
    message = r'^0\.pt: has no line decoder, so no lines can be predicted; train with lines="auxiliary" or "pooled"$'
    with pytest.raises(UserError, match=message):
        with_decoder(make_models(make_checkpoint()))
    with pytest.raises(UserError, match=r"^0\.pt and the other 1 checkpoint: have no line decoder"):
        device_types_of(make_models(make_checkpoint(), make_checkpoint(1)))


LINES = {"annotation_table": "lines.csv", "line_stride": 4}


def test_means_over_checkpoints(images: torch.Tensor) -> None:
    """Of those that have a decoder; by hand from the models' own outputs, of two images at once."""
    checkpoints = [
        make_checkpoint(0),
        make_checkpoint(1, lines="auxiliary", **LINES),
        make_checkpoint(2, lines="pooled", **LINES),
    ]
    predictor = Predictor(make_models(*checkpoints), torch.device("cpu"))
    (preprocessing,) = predictor.preprocessings
    pixels = images[:, 0].numpy()
    read = read_xray(_png(pixels[0]), [preprocessing])[1]
    batch = [[dataclasses.replace(read[0], pixels=image)] for image in pixels[:2]]
    found = predict_maps(predictor, batch)
    with torch.inference_mode():
        outputs = [checkpoint.model(images[:2], with_lines=True) for checkpoint in checkpoints[1:]]
    for name in ("line", "tip"):
        logits = torch.stack([getattr(of_model, f"{name}_logits") for of_model in outputs])
        expected = torch.sigmoid(logits).mean(dim=0).numpy()
        for row in (0, 1):
            assert getattr(found[row], f"{name}s") == pytest.approx(expected[row], abs=1e-5)
    (of_pooled,) = found[1].positions["NGT"]
    assert outputs[1].tip_pixels is not None
    assert (of_pooled.points @ [1, 32]).tolist() == outputs[1].tip_pixels[1, 1].tolist()


@pytest.mark.parametrize("broken", ["tips", "landmarks"])
def test_a_decoder_that_outputs_no_numbers(images: torch.Tensor, broken: str) -> None:
    """Its lines are refused; the probabilities of an auxiliary model are as good as ever."""
    landmarks = {"landmark_table": "l.csv", "measurements": {"height": ("ETT tip", "carina", "vertical")}}
    checkpoint = make_checkpoint(1, lines="auxiliary", **LINES, **landmarks)
    assert checkpoint.model.decoder is not None
    torch.nn.init.constant_(getattr(checkpoint.model.decoder, broken).bias, torch.nan)
    model = Model(Predictor(make_models(checkpoint), torch.device("cpu")))
    result = model(_png(images[0, 0].numpy()))
    for name in ("lines", "landmarks", "measurements", "disagreements"):
        with pytest.raises(UserError, match=r"^the X-ray: a model outputs NaN or infinity$"):
            getattr(result, name)


def test_a_model_without_landmarks(images: torch.Tensor) -> None:
    """It has none, and measures nothing; a spacing that is none is refused."""
    checkpoint = make_checkpoint(1, lines="auxiliary", **LINES)
    model = Model(Predictor(make_models(checkpoint), torch.device("cpu")))
    result = model(_png(images[0, 0].numpy()), spacing=(0.1, 0.2))
    assert (result.landmarks, result.measurements, result.disagreements) == ({}, (), ())
    for wrong in ((0.0, 0.1), (0.1, -1.0), (float("nan"), 0.1), (0.1, float("inf")), (0.1,), ("x", 0.1), 0.1):
        with pytest.raises(UserError, match=r"^spacing=.*: two numbers above 0 are expected, mm per pixel in x and y"):
            model(_png(images[0, 0].numpy()), spacing=wrong)  # type: ignore[arg-type]


def _png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def test_a_trained_model_finds_what_was_drawn(lines_run: Path, sample_folder: Path) -> None:
    """In images that it was trained on: tips of tubes, in pixels of X-rays of 64, and no tube where none is."""
    predictor = Predictor(read_models([lines_run]), torch.device("cpu"))
    annotations = read_annotations(sample_folder / "train_annotations.csv", "StudyInstanceUID")
    table = pd.read_csv(sample_folder / "train.csv").set_index("StudyInstanceUID")
    distances, num_found, num_false = [], 0, 0
    for uid in table.index:
        data = (sample_folder / "train" / f"{uid}.jpg").read_bytes()
        _, made = read_xray(data, predictor.preprocessings)
        lines = predict_lines(predictor, made, dict.fromkeys(predictor.models.labels, 0.5))
        tubes = [line for line in lines if line.device_type == "ETT" and line.tip_probability > 0]
        drawn = [of_image for of_image in annotations.get(uid, []) if of_image.label.startswith("ETT")]
        num_false += len(tubes) if not drawn else 0
        if tubes and drawn:
            num_found += 1
            tip = drawn[0].towards_tip((64, 64))[-1]
            distances.append(np.hypot(*(np.array(tubes[0].tip) - tip)))
    assert num_found >= 6
    assert num_false <= 3
    assert np.median(distances) < 2.5
