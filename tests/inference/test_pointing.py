"""Heatmaps held against tips: a model whose heatmap is known by hand, windows of padding, maps that are no numbers."""

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from catheters.data.batch import Batch
from catheters.data.preprocessing import Preprocessed, Preprocessing, place, preprocess
from catheters.evaluation.lines.pointing_game import tip_hit
from catheters.inference.heatmaps import attention_maps, grad_cam, project
from catheters.inference.pointing import ATTENTION, GRAD_CAM, Target, heatmaps, hits_of, mean_hit, shown_window
from catheters.models.classifier import Classifier
from catheters.models.heads import LinearHead
from tests.inference.conftest import make_checkpoint

WHOLE = (0, 0, 64, 64)
CPU = torch.device("cpu")


def make_target(*tips: tuple[float, float], column: int = 0, window: tuple[int, int, int, int] = WHOLE) -> Target:
    return Target(column=column, head=0, tips=np.array(tips, dtype=np.float64), window=window)


class _Brightness(nn.Module):
    """A backbone of one channel: mean grey of blocks of 8 x 8 pixels, as a timm model has it."""

    output_fmt = "NCHW"

    def forward_features(self, pixels: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(pixels, 8)

    def forward_head(self, features: Tensor) -> Tensor:
        return features.mean(dim=(2, 3))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(pixels))


def make_brightness(weights: list[list[float]]) -> Classifier:
    head = LinearHead(1, 2, 0.0)
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor(weights))
    return Classifier(_Brightness(), head, None, 0.5, 1.0, "by hand").eval()


@pytest.fixture
def brightness() -> Classifier:
    """Label 0 is spoken for by bright blocks, label 1 by dark ones: mean grey 0.5 is neither."""
    return make_brightness([[1.0], [-1.0]])


def batches_of(*images: np.ndarray, size: int) -> Iterator[Batch]:
    for start in range(0, len(images), size):
        stacked = torch.from_numpy(np.stack(images[start : start + size])[:, None])
        yield Batch(images=stacked, targets=torch.zeros(len(stacked), 2))


def test_hits_that_are_known(brightness: Classifier) -> None:
    """Grey images with one bright block and one dark one: each label's map is one block, spread by the enlargement."""
    images = []
    for x, y in ((16, 8), (40, 48), (16, 8)):
        image = np.full((64, 64), 128, dtype=np.uint8)
        image[y : y + 8, x : x + 8] = 255
        image[24:32, 48:56] = 0
        images.append(image)
    targets = [
        make_target((19.5, 11.5)),  # the bright block's middle
        make_target((19.5, 11.5)),  # where that block is in the first image only
        make_target((51.5, 27.5), column=1),  # the dark block's middle
    ]
    contrary = make_brightness([[-1.0], [1.0]])
    hits = hits_of([brightness, contrary], batches_of(*images, size=2), targets, CPU)
    assert list(hits) == [GRAD_CAM]
    assert hits[GRAD_CAM].tolist() == [[1, 0, 1], [0, 0, 0]]


def test_each_image_has_the_map_of_its_own_label(brightness: Classifier, images: Tensor) -> None:
    targets = [make_target((0, 0), column=column) for column in (1, 0, 1)]
    together = heatmaps(brightness, images, targets)[GRAD_CAM]
    for number, target in enumerate(targets):
        alone = grad_cam(brightness, images[number : number + 1], target.column)[0].numpy()
        np.testing.assert_array_equal(together[number], alone)
        assert alone.max() > 0


def test_attention_heads_have_a_second_map(images: Tensor) -> None:
    model = make_checkpoint(classifier="attention").model
    targets = [Target(column=4, head=head, tips=np.zeros((1, 2)), window=(0, 0, 128, 128)) for head in (1, 3, 0)]
    maps = heatmaps(model, images, targets)
    of_heads = attention_maps(model, images)
    assert of_heads is not None
    np.testing.assert_array_equal(maps[ATTENTION], of_heads[[0, 1, 2], [1, 3, 0]].numpy())
    assert torch.equal(torch.from_numpy(maps[GRAD_CAM]), grad_cam(model, images, 4))


def test_several_tips_count_as_a_share() -> None:
    small = np.zeros((8, 8), dtype=np.float32)
    small[1, 2] = 1
    tips = (19.5, 11.5), (60.0, 60.0), (20.0, 12.0)
    assert mean_hit(small, make_target(*tips), (64, 64)) == pytest.approx(2 / 3)
    assert mean_hit(small, make_target(*tips[:2]), (64, 64)) == 0.5


@pytest.mark.parametrize("value", [0.0, 7.0, float("nan"), float("inf")])
def test_a_map_that_says_nothing_is_chance(value: float) -> None:
    small = np.full((4, 4), value, dtype=np.float32)
    assert mean_hit(small, make_target((3.0, 60.0)), (64, 64)) == pytest.approx(0.05)


def test_padding_is_no_part_of_the_hottest() -> None:
    """The map is hottest in the padding; of what shows the X-ray the tip's place is."""
    small = np.zeros((8, 8), dtype=np.float32)
    small[:, 0], small[4, 5] = 9, 1
    tip = (43.5, 35.5)
    assert mean_hit(small, make_target(tip), (64, 64)) == 0
    assert mean_hit(small, make_target(tip, window=(0, 16, 64, 48)), (64, 64)) == 1


@pytest.mark.parametrize(
    ("changes", "shape", "window"),
    [
        ({}, (100, 50), (0, 0, 64, 64)),
        ({"resize": "pad"}, (100, 50), (0, 16, 64, 48)),
        ({"resize": "pad"}, (50, 100), (16, 0, 48, 64)),
        ({"resize": "pad"}, (99, 71), (0, 9, 64, 55)),
        ({"resize": "pad", "crop_borders": True}, (100, 50), (0, 16, 64, 48)),
    ],
)
def test_the_window_is_where_the_image_is(
    changes: dict[str, object], shape: tuple[int, int], window: tuple[int, int, int, int]
) -> None:
    """Against a bright image: what is black after preprocessing is padding. A border of 20 pixels is cut off."""
    preprocessing = Preprocessing(image_shape=(64, 64), **changes)  # type: ignore[arg-type]
    image = np.full(shape, 200, dtype=np.uint8)
    if preprocessing.crop_borders:
        image = np.pad(image, 20)
    made = preprocess(cv2.imencode(".png", image)[1].tobytes(), preprocessing)
    assert shown_window(made.box, place(made.box, preprocessing)) == window
    rows, columns = np.nonzero(made.pixels)
    assert (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1) == window


def test_the_same_as_on_the_x_ray(rng: np.random.Generator) -> None:
    """A tip is hit where it is hit on the X-ray itself, on which predict.py draws the map, of the same size here."""
    preprocessing = Preprocessing(image_shape=(64, 64), resize="pad")
    xray = np.zeros((64, 40), dtype=np.uint8)
    made = Preprocessed(pixels=np.zeros((64, 64), np.uint8), full_shape=xray.shape, box=(0, 0, 64, 40), notes=())
    placement = place(made.box, preprocessing)
    window = shown_window(made.box, placement)
    hits = []
    for _ in range(200):
        small = rng.random((4, 4)).astype(np.float32)
        tip = rng.random(2) * (39, 63)
        target = Target(column=0, head=0, tips=placement.apply(tip[None]), window=window)
        hits.append(mean_hit(small, target, (64, 64)))
        assert hits[-1] == tip_hit(project(small, made, preprocessing, xray), (tip[0], tip[1]))
    assert 0 < sum(hits) < 40
