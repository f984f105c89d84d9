"""Maps of several models, brought into one frame."""

import numpy as np
import pytest
import torch

from catheters.data.preprocessing import Preprocessing, place
from catheters.inference.lines.maps import Frame, LineMaps, mean_maps, move_map, split_outputs
from catheters.models.outputs import Outputs

BOX = (20.0, 30.0, 180.0, 270.0)
"""Top, left, bottom, right of what is kept of an image of 200 x 300 pixels."""
LABELS = ("ETT - Normal", "CVC - Abnormal", "CVC - Normal")
DEVICE_TYPES = {"ETT": LABELS[:1], "CVC": LABELS[1:]}


def frame_of(side: int, map_side: int, resize: str = "stretch", *, cropped: bool = False) -> Frame:
    preprocessing = Preprocessing(image_shape=(side, side), resize=resize)  # type: ignore[arg-type]
    placement = place(BOX if cropped else (0.0, 0.0, 200.0, 300.0), preprocessing)
    return Frame(placement=placement, image_shape=(side, side), map_shape=(map_side, map_side))


def ramp(frame: Frame) -> np.ndarray:
    """What a map of the frame shows of a grey ramp over the original, 0 to 1 from its left upper to its lower right."""
    rows, columns = np.mgrid[: frame.map_shape[0], : frame.map_shape[1]]
    points = frame.to_original(np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float64))
    return (0.5 * points[:, 0] / 300 + 0.5 * points[:, 1] / 200).reshape(frame.map_shape).astype(np.float32)


def test_points_there_and_back() -> None:
    """The middle of the image stays the middle, whatever is cut off, padded and shrunk."""
    frame = frame_of(96, 16, "pad", cropped=True)
    middle = np.array([[149.5, 99.5]])
    assert frame.from_original(middle) == pytest.approx(np.array([[7.5, 7.5]]))
    points = np.array([[0.0, 3.0], [12.5, 15.0]])
    assert frame.from_original(frame.to_original(points)) == pytest.approx(points)


@pytest.mark.parametrize(
    "source", [frame_of(64, 32), frame_of(96, 24), frame_of(64, 16, "pad"), frame_of(64, 16, "pad", cropped=True)]
)
@pytest.mark.parametrize("target", [frame_of(64, 32), frame_of(64, 16, "pad"), frame_of(128, 32, cropped=True)])
def test_a_ramp_stays_where_it_lies_in_the_image(source: Frame, target: Frame) -> None:
    moved, expected = move_map(ramp(source), source, target), ramp(target)
    rows, columns = np.mgrid[: target.map_shape[0], : target.map_shape[1]]
    points = np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float64)
    in_source = source.from_original(target.to_original(points)).reshape(*target.map_shape, 2)
    size = np.array(source.map_shape[::-1])
    is_inside = ((in_source >= 0) & (in_source <= size - 1)).all(axis=2)
    is_outside = ((in_source < -0.51) | (in_source > size - 0.49)).any(axis=2)
    assert is_inside.mean() > 0.4
    assert np.abs(moved - expected)[is_inside].max() < 0.01
    assert (moved[is_outside] == 0).all()


def test_outputs_of_a_batch() -> None:
    """Sigmoids; the places of the candidates in x and y; the labels by name."""
    rng = np.random.default_rng(0)
    logits = {name: torch.from_numpy(rng.normal(size=(2, 2, 4, 6))) for name in ("line_logits", "tip_logits")}
    positions = torch.from_numpy(rng.normal(size=(2, 3, 3)))
    pixels = torch.tensor([[[0, 7, 23], [5, 6, 1]]] * 2)
    outputs = Outputs(logits=torch.zeros(2, 3), tip_pixels=pixels, position_logits=positions, **logits)
    frame = frame_of(64, 16)
    first, second = split_outputs(outputs, LABELS, DEVICE_TYPES, [frame, frame])
    assert second.lines == pytest.approx(1 / (1 + np.exp(-logits["line_logits"][1].numpy())), abs=1e-6)
    assert first.tips == pytest.approx(1 / (1 + np.exp(-logits["tip_logits"][0].numpy())), abs=1e-6)
    (of_tips,) = second.positions["CVC"]
    assert of_tips.points.tolist() == [[5, 0], [0, 1], [1, 0]]
    assert list(of_tips.probabilities) == ["CVC - Abnormal", "CVC - Normal"]
    assert of_tips.probabilities["CVC - Normal"] == pytest.approx(1 / (1 + np.exp(-positions[1, 2].numpy())))
    without = split_outputs(Outputs(logits=torch.zeros(2, 3), **logits), LABELS, DEVICE_TYPES, [frame, frame])
    assert without[0].positions == {}
    assert dict(without[0].landmarks) == {}
    of_landmarks = torch.from_numpy(rng.normal(size=(2, 2, 4, 6)))
    with_landmarks = Outputs(logits=torch.zeros(2, 3), landmark_logits=of_landmarks, **logits)
    _, second = split_outputs(with_landmarks, LABELS, DEVICE_TYPES, [frame, frame], ("carina", "dome"))
    assert list(second.landmarks) == ["carina", "dome"]
    assert second.landmarks["dome"] == pytest.approx(1 / (1 + np.exp(-of_landmarks[1, 1].numpy())), abs=1e-6)
    assert second.are_finite


def constant(device_types: dict[str, tuple[str, ...]], frame: Frame, *values: float) -> LineMaps:
    maps = np.stack([np.full(frame.map_shape, value, dtype=np.float32) for value in values])
    return LineMaps(device_types=device_types, lines=maps, tips=maps / 2, positions={}, frame=frame)


def test_means_by_the_names_of_device_types() -> None:
    """Each type's over the models that have it, whatever their order and size."""
    one = constant({"ETT": ("a",), "CVC": ("b",)}, frame_of(64, 16), 0.2, 0.6)
    other = constant({"CVC": ("b",), "NGT": ("c",)}, frame_of(96, 48), 0.8, 0.4)
    mean = mean_maps([one, other])
    assert mean.frame == one.frame
    assert dict(mean.device_types) == {"ETT": ("a",), "CVC": ("b",), "NGT": ("c",)}
    assert mean.lines.shape == mean.tips.shape == (3, 16, 16)
    for number, value in enumerate((0.2, 0.7, 0.4)):
        assert mean.lines[number] == pytest.approx(np.full((16, 16), value), abs=1e-5)
        assert mean.tips[number] == pytest.approx(np.full((16, 16), value / 2), abs=1e-5)
