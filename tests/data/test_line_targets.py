"""Line targets: masks and tips lie where the augmented image shows the line, whatever moved it."""

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from catheters.data.annotations import Annotation
from catheters.data.augmentation import Augmentation
from catheters.data.gpu_augmentation import GpuAugmentation
from catheters.data.line_targets import LINE_WIDTH, DrawnLines, LineTargets, draw_line
from catheters.data.preprocessing import Placement, Preprocessing, place, preprocess
from tests.data.test_augmentation import FOLLOWED

COLUMNS = ("ETT - Normal", "CVC - Normal", "CVC - Abnormal", "Swan")
TYPES = {"ETT": COLUMNS[:1], "CVC": COLUMNS[1:3]}
CURVE = np.array([[20.0, 4.0], [30.0, 30.0], [62.0, 44.0], [70.0, 66.0]])
ITSELF = Placement((1.0, 1.0), (0.0, 0.0))


def distance_mask(lines: list[npt.NDArray[np.float64]], shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """(h, w) the share of each pixel that lies nearer to a segment than half the width, in float64."""
    parts = 6
    rows, columns = (np.indices((shape[0] * parts, shape[1] * parts)) + 0.5) / parts - 0.5
    places = np.stack([columns.ravel(), rows.ravel()], axis=1)
    nearest = np.full(len(places), np.inf)
    for line in lines:
        for start, end in itertools.pairwise(line):
            along = np.clip((places - start) @ (end - start) / ((end - start) @ (end - start)), 0, 1)
            nearest = np.minimum(nearest, np.linalg.norm(places - start - along[:, None] * (end - start), axis=1))
    inside = (nearest <= LINE_WIDTH * shape[1] / 2).reshape(shape[0], parts, shape[1], parts)
    return inside.mean(axis=(1, 3))


def draw_lines(lines: list[npt.NDArray[np.float64]], shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    mask = np.zeros(shape, np.uint8)
    for line in lines:
        draw_line(line, mask)
    return mask


def overlap(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Soft Dice."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    return float(2 * np.minimum(one, other).sum() / (one.sum() + other.sum()))


def targets_of(
    lines: list[Annotation], shape: tuple[int, int], labels: tuple[int, ...], stride: int = 1
) -> LineTargets:
    drawn = DrawnLines.of([lines], [ITSELF], [shape], np.array([labels], np.uint8), COLUMNS, TYPES)
    map_shape = (-(-shape[0] // stride), -(-shape[1] // stride))
    return LineTargets(lines=drawn, image_shape=shape, map_shape=map_shape, max_lines=drawn.max_lines)


@pytest.mark.parametrize("width", [64, 128, 200])
def test_lines_are_as_thick_as_said(width: int) -> None:
    scale = width / 100
    crossing = np.array([[5.0, 60.0], [90.0, 20.0]])
    for lines in ([CURVE * scale], [CURVE * scale, crossing * scale]):
        drawn = draw_lines(lines, (width, width)) / 255
        expected = distance_mask(lines, (width, width))
        assert overlap(drawn, expected) > 0.93
        assert drawn.sum() == pytest.approx(expected.sum(), rel=0.12)


def test_odd_points() -> None:
    one_point = draw_lines([np.array([[10.0, 12.0]])], (64, 64))
    assert np.argwhere(one_point).mean(axis=0) == pytest.approx([12, 10], abs=0.3)
    far_outside = draw_lines([np.array([[-1e7, 20.0], [1e7, 20.0]])], (64, 64))
    assert (far_outside[20] == 255).all() and not far_outside[:18].any()
    assert not draw_lines([np.array([[-50.0, -50.0], [-20.0, -9.0]])], (64, 64)).any()
    assert not draw_lines([], (64, 64)).any()
    lost = np.array([[5.0, 5.0], [np.nan, np.nan], [5.0, 30.0]])
    assert (draw_lines([lost], (64, 64)) == draw_lines([lost[[0, 2]]], (64, 64))).all()
    assert not draw_lines([np.full((3, 2), np.nan)], (64, 64)).any()


@pytest.mark.filterwarnings("ignore:ShiftScaleRotate is a special case of Affine")
@pytest.mark.parametrize("case", FOLLOWED)
def test_mask_of_moved_line_is_moved_mask(case: str) -> None:
    """For each kind of transform: the line drawn after it against the drawn line put through it as an image."""
    transforms, _ = FOLLOWED[case]
    mirrors = any(params.get("border_mode", 0) in (2, 4) for _, params in transforms)
    shape = (192, 256)
    line = CURVE * 2
    before = draw_lines([line], shape)
    augmentation = Augmentation(transforms, shape)
    num_checked = 0
    for seed in range(8):
        moved_mask, points = augmentation.with_points(before, line, seed)
        mask = draw_lines([points], shape)
        if mask.sum() < before.sum() / 3:  # most of it has left the image
            continue
        if mirrors:  # beyond the border the image shows the line again, which is none
            moved_mask = np.where(cv2.dilate(mask, np.ones((9, 9), np.uint8)) > 0, moved_mask, 0)
        # A crop or a scale makes the moved mask thicker or thinner; the drawn line keeps its width.
        assert overlap(mask, moved_mask) > (0.6 if "distortion" in case or case == "elastic" else 0.75), seed
        num_checked += 1
    assert num_checked >= 4


def test_gpu_augmentation_moves_the_same_points() -> None:
    chain = (
        ("HorizontalFlip", {"p": 0.5}),
        ("Affine", {"scale": (0.9, 1.1), "translate_percent": (-0.06, 0.06), "rotate": (-15, 15), "p": 0.8}),
        ("RandomResizedCrop", {"scale": (0.85, 1.0), "ratio": (0.9, 1.1)}),
        ("CoarseDropout", {"num_holes_range": (1, 5), "p": 0.5}),
    )
    shape = (96, 128)
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    on_cpu, on_device = Augmentation(chain, shape), GpuAugmentation(chain, shape)
    for seed in range(20):
        row, moved = on_device.draw_with_points(CURVE, seed)
        assert (row == on_device.draw(seed)).all()
        np.testing.assert_array_equal(moved, on_cpu.with_points(image, CURVE, seed)[1])


@pytest.mark.parametrize("resize", ["stretch", "pad"])
@pytest.mark.parametrize("crop_borders", [False, True])
@pytest.mark.parametrize("orientation", [1, 6])
def test_masks_lie_on_the_preprocessed_image(tmp_path: Path, resize: Any, crop_borders: bool, orientation: int) -> None:
    """A bright line drawn into an X-ray, at its full size, is where its polyline is after preprocessing."""
    line = np.array([[120.0, 90.0], [150.0, 240.0], [310.0, 300.0]])
    shown = np.zeros((420, 560), np.uint8)
    shown[60:400, 70:500] = 60  # the rest is a black border
    cv2.polylines(shown, [line.astype(np.int32)[:, None]], False, 255, round(LINE_WIDTH * 560), cv2.LINE_AA)
    # EXIF's orientation 6 tells the viewer to turn the file by 90 degrees clockwise.
    stored = shown if orientation == 1 else np.rot90(shown)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "xray.png", exif=exif)
    preprocessing = Preprocessing(image_shape=(128, 160), resize=resize, crop_borders=crop_borders)
    result = preprocess((tmp_path / "xray.png").read_bytes(), preprocessing)
    assert result.full_shape == shown.shape
    mask = draw_lines([place(result.box, preprocessing).apply(line)], preprocessing.image_shape)
    seen = np.clip((result.pixels.astype(float) - 60) / 195, 0, 1)
    assert overlap(mask / 255, seen) > 0.7
    centres = [np.argwhere(image > 0.5).mean(axis=0) for image in (mask / 255, seen)]
    assert np.abs(centres[0] - centres[1]).max() < 1


def test_what_is_known() -> None:
    """Drawn, or absent by the labels; a label that an image has and nobody drew makes its device type unknown."""
    ett, normal, abnormal = (Annotation(label, CURVE) for label in COLUMNS[:3])
    swan = Annotation("Swan", CURVE)  # of no device type here
    cases = [
        ([ett], (1, 0, 0, 0), [True, True]),
        ([], (1, 0, 0, 1), [False, True]),
        ([normal], (0, 1, 1, 0), [True, False]),
        ([normal, abnormal], (0, 1, 1, 0), [True, True]),
        ([swan], (0, 0, 0, 1), [True, True]),
        ([normal], (0, 0, 0, 0), [True, True]),
    ]
    drawn = DrawnLines.of(
        [lines for lines, _, _ in cases],
        [ITSELF] * len(cases),
        [(100, 100)] * len(cases),
        np.array([labels for _, labels, _ in cases], np.uint8),
        COLUMNS,
        TYPES,
    )
    assert drawn.is_known.tolist() == [known for _, _, known in cases]
    assert [len(drawn.lines_of(image)[0]) for image in range(len(cases))] == [1, 0, 1, 2, 0, 1]
    taken = drawn.take(np.array([3, 1, 0]))
    assert taken.is_known.tolist() == [[True, True], [False, True], [True, True]]
    assert [taken.lines_of(image)[1].tolist() for image in range(3)] == [[1, 1], [], [0]]
    assert [taken.lines_of(image)[2].tolist() for image in range(3)] == [[1, 2], [], [0]]
    np.testing.assert_array_equal(taken.points_of(2), CURVE.astype(np.float32))
    none = drawn.take(np.zeros(len(cases), np.bool_))
    assert len(none) == 0 and none.points.shape == (0, 2)


def test_targets_of_an_image() -> None:
    """A mask per device type at the decoder's resolution, a point per tip; the tip is the deeper end."""
    upwards = Annotation("ETT - Normal", CURVE[::-1])  # traced from the tip to the neck
    other = Annotation("CVC - Abnormal", np.array([[2.0, 50.0], [40.0, 80.0]]))
    targets = targets_of([upwards, other], (100, 101), (1, 0, 1, 0), stride=2)
    assert targets.map_shape == (50, 51)
    drawn = targets.draw(0, targets.points_of(0))
    masks = drawn["line_masks"]
    assert masks.shape == (2, 50, 51) and masks.dtype == np.uint8
    assert drawn["lines_known"].tolist() == [1.0, 1.0]
    assert "landmarks" not in drawn
    on_map = [(line + 0.5) * [51 / 101, 0.5] - 0.5 for line in (CURVE, other.points)]
    for number, line in enumerate(on_map):
        assert overlap(masks[number] / 255, distance_mask([line], (50, 51))) > 0.9
    # x and y on the map, device type, column of the label, height
    expected = [[*on_map[0][-1], 0, 0, 1], [*on_map[1][-1], 1, 2, 1]]
    np.testing.assert_allclose(drawn["tips"], expected, rtol=1e-5)
    lost = targets.points_of(0)
    lost[len(CURVE) - 1] = np.nan
    np.testing.assert_allclose(targets.draw(0, lost)["tips"], [[0] * 5, expected[1]], rtol=1e-5)


@pytest.mark.filterwarnings("ignore:ShiftScaleRotate is a special case of Affine")
def test_landmarks_are_known_where_somebody_marked_them() -> None:
    """Points of their own, moved as the image is; NaN, which is nowhere, stays so through every kind of transform."""
    names = ("carina", "right diaphragm")
    drawn = DrawnLines.of(
        [[], []],
        [ITSELF, Placement((0.5, 0.5), (3.0, 1.0))],
        [(96, 128)] * 2,
        np.zeros((2, 4), np.uint8),
        COLUMNS,
        TYPES,
        [{"carina": (64.0, 30.0), "somewhere": (1.0, 1.0)}, {"right diaphragm": (20.0, 80.0)}],
        names,
    )
    targets = LineTargets(lines=drawn, image_shape=(96, 128), map_shape=(48, 64), max_lines=drawn.max_lines)
    for image, number, (x, y) in ((0, 0, (64.0, 30.0)), (1, 1, (13.0, 41.0))):
        expected = np.zeros((2, 5))
        expected[number] = (x + 0.5) / 2 - 0.5, (y + 0.5) / 2 - 0.5, number, 0, 1
        np.testing.assert_allclose(targets.draw(image, targets.points_of(image))["landmarks"], expected, rtol=1e-5)
    taken = drawn.take(np.array([1]))
    np.testing.assert_array_equal(taken.landmarks[0, 1], [13.0, 41.0])
    image = np.zeros((96, 128), np.uint8)
    for transforms, _ in FOLLOWED.values():
        moved = Augmentation(transforms, (96, 128)).with_points(image, targets.points_of(0), 1)[1]
        assert np.isnan(moved).tolist() == [[False, False], [True, True]]
