"""Augmentation on the GPU: what albumentations draws for each image, done to whole batches as tensor operations.

The DataLoader workers draw, by the same seeds and code as for the CPU, and send one row of numbers per image. On the
GPU flips, an affine transform and a crop that follow one another become one warp: one interpolation, where the CPU
makes one for each.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from catheters.data.augmentation import Augmentation, Params, Points
from catheters.data.quiet_albumentations import A
from catheters.errors import SettingsError

Row = npt.NDArray[np.float32]

FLIPS = (A.HorizontalFlip, A.VerticalFlip)
CROPS = (A.RandomResizedCrop, A.RandomSizedCrop)
KNOWN = (*FLIPS, A.Affine, *CROPS, A.CoarseDropout, A.RandomBrightnessContrast)
"""Transforms that a device can do; a subclass of one does what it does."""

PADDINGS = {
    cv2.BORDER_CONSTANT: ("zeros", True),
    cv2.BORDER_REPLICATE: ("border", True),
    cv2.BORDER_REFLECT_101: ("reflection", True),
    cv2.BORDER_REFLECT: ("reflection", False),
}
"""OpenCV's border -> padding_mode and align_corners of `grid_sample`, which decides what reflection mirrors at."""


class GpuAugmentation:
    """A chain of transforms whose draws are made in one place and whose pixels are made in another."""

    def __init__(self, transforms: tuple[tuple[str, dict[str, Any]], ...], image_shape: tuple[int, int]) -> None:
        """Check the chain and put its transforms together.

        Args:
            transforms: (name, params) pairs, applied in this order.
            image_shape: (height, width) of the images, in pixels.

        Raises:
            SettingsError: as `Augmentation`, or a transform or parameter that only a CPU can do.
        """
        self._augmentation = Augmentation(transforms, image_shape)
        self._stages: list[_Stage] = []
        for transform, _ in self._augmentation.draw(0):
            _check(transform)
            if not (self._stages and self._stages[-1].take(transform)):
                self._stages.append(_create_stage(transform, image_shape))

    @property
    def unfollowed(self) -> tuple[str, ...]:
        """As of `Augmentation`: none of what a device can do."""
        return self._augmentation.unfollowed

    def draw(self, seed: int) -> Row:
        """The draws for one image, (P,) float32."""
        return self._encode(list(self._augmentation.draw(seed)))

    def draw_with_points(self, points: Points, seed: int) -> tuple[Row, Points]:
        """The draws for one image, and where its points will lie, (n, 2); see `Augmentation.carry`."""
        drawn = list(self._augmentation.draw(seed))
        return self._encode(drawn), self._augmentation.carry(points, [params for _, params in drawn])

    def _encode(self, drawn: Sequence[tuple[A.BasicTransform, Params]]) -> Row:
        rows, start = [np.empty(0, dtype=np.float32)], 0
        for stage in self._stages:
            rows.append(stage.encode(drawn[start : start + stage.num_transforms]))
            start += stage.num_transforms
        return np.concatenate(rows)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Transform a batch.

        Args:
            images: (B, 1 + C, H, W) uint8, the image, then C maps that move along with it.
            draws: (B, P), a row for each image, on the same device.

        Returns:
            (B, 1 + C, H, W) float32 in 0..255.
        """
        pixels, maps = images[:, :1].float(), images[:, 1:]
        has_maps = maps.shape[1] > 0
        start = 0
        for stage in self._stages:
            of_stage = draws[:, start : start + stage.num_columns]
            pixels = stage.apply(pixels, of_stage)
            if has_maps:
                maps = stage.move(maps, of_stage)
            start += stage.num_columns
        return torch.cat([pixels, maps.float()], 1) if has_maps else pixels


class _Stage(ABC):
    """Transforms that are done together, and how their draws look as numbers.

    Attributes:
        num_transforms: how many of the chain they are.
        num_columns: numbers for an image.
    """

    num_transforms: int
    num_columns: int

    def take(self, transform: A.BasicTransform) -> bool:
        """Do the chain's next transform as well, if that is the same as doing it afterwards."""
        return False

    @abstractmethod
    def encode(self, drawn: Sequence[tuple[A.BasicTransform, Params]]) -> Row:
        """(num_columns,) what was drawn for an image."""

    @abstractmethod
    def apply(self, pixels: Tensor, draws: Tensor) -> Tensor:
        """(B, 1, H, W) float32, (B, num_columns) -> (B, 1, H, W) float32."""

    def move(self, maps: Tensor, draws: Tensor) -> Tensor:
        """(B, C, H, W), (B, num_columns) -> (B, C, H, W) where the pixels lie now; what changes greys moves nothing."""
        return maps


@dataclass
class _Warp(_Stage):
    """Flips, at most one affine transform, then at most one crop, and flips.

    An affine transform after another, or after a crop, would show what the one before it has cut off. A pixel of the
    result comes from a point of the crop, x = p column + q, held between the crop's outermost pixels as OpenCV does,
    which an affine matrix takes to a point of the image.
    """

    image_shape: tuple[int, int]
    num_transforms: int = 0
    num_columns: int = 14
    border: A.Affine | None = None
    has_crop: bool = False

    def take(self, transform: A.BasicTransform) -> bool:
        if isinstance(transform, A.Affine) and self.border is None and not self.has_crop:
            self.border = transform
        elif isinstance(transform, CROPS) and not self.has_crop:
            self.has_crop = True
        elif not isinstance(transform, FLIPS):
            return False
        self.num_transforms += 1
        return True

    def encode(self, drawn: Sequence[tuple[A.BasicTransform, Params]]) -> Row:
        height, width = self.image_shape
        matrix = np.eye(3)  # of the image's points -> those of the result so far
        x, y = _Line.whole(width), _Line.whole(height)
        is_cropped = False
        for transform, params in drawn:
            if params is None:
                is_cropped |= isinstance(transform, CROPS)
            elif isinstance(transform, CROPS):
                left, top, right, bottom = params["crop_coords"]
                x, y = _Line.crop(left, right, width), _Line.crop(top, bottom, height)
                is_cropped = True
            elif isinstance(transform, A.Affine):
                matrix = params["matrix"] @ matrix
            elif is_cropped:
                x, y = (x.flip(width), y) if isinstance(transform, A.HorizontalFlip) else (x, y.flip(height))
            elif isinstance(transform, A.HorizontalFlip):
                matrix = np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]]) @ matrix
            else:
                matrix = np.array([[1, 0, 0], [0, -1, height - 1], [0, 0, 1]]) @ matrix
        numbers = [*np.linalg.inv(matrix)[:2].ravel(), *x.numbers(), *y.numbers()]
        return np.array(numbers, dtype=np.float32)

    def apply(self, pixels: Tensor, draws: Tensor) -> Tensor:
        return self._sample(
            pixels, draws, 0.0 if self.border is None else min(max(float(self.border.fill), 0.0), 255.0)
        )

    def move(self, maps: Tensor, draws: Tensor) -> Tensor:
        return self._sample(maps.float(), draws, 0.0)

    def _sample(self, pixels: Tensor, draws: Tensor, fill: float) -> Tensor:
        """Read pixels where they come from; beyond a border of one grey they are `fill`."""
        height, width = self.image_shape
        columns = torch.arange(width, device=pixels.device, dtype=torch.float32)
        rows = torch.arange(height, device=pixels.device, dtype=torch.float32)
        p, q, low, high = draws[:, 6:10, None].unbind(1)
        x = (p * columns + q).clamp(low, high)[:, None, :]  # (B, 1, W)
        p, q, low, high = draws[:, 10:14, None].unbind(1)
        y = (p * rows + q).clamp(low, high)[:, :, None]  # (B, H, 1)
        a, b, c, d, e, f = draws[:, :6, None, None].unbind(1)
        padding, align_corners = ("border", True) if self.border is None else PADDINGS[self.border.border_mode]
        of_image = ((a * x + b * y + c, width), (d * x + e * y + f, height))  # (B, H, W) each
        # grid_sample's own coordinates go from -1 to 1, between pixel centres or pixel edges.
        grid = torch.stack(
            [
                2 * place / (length - 1) - 1 if align_corners else (2 * place + 1) / length - 1
                for place, length in of_image
            ],
            dim=-1,
        )  # (B, H, W, 2)
        fill = fill if padding == "zeros" else 0.0
        sampled = grid_sample(pixels - fill, grid, mode="bilinear", padding_mode=padding, align_corners=align_corners)
        return sampled + fill


@dataclass(frozen=True)
class _Line:
    """Where along one side of the image each pixel comes from: slope * pixel + start, between low and high."""

    slope: float
    start: float
    low: float
    high: float

    @classmethod
    def whole(cls, length: int) -> "_Line":
        return cls(1.0, 0.0, 0.0, length - 1)

    @classmethod
    def crop(cls, first: int, end: int, length: int) -> "_Line":
        """The pixels from `first` to before `end`, stretched to `length`: OpenCV maps edges to edges."""
        slope = (end - first) / length
        return cls(slope, first + slope / 2 - 0.5, first, end - 1)

    def flip(self, length: int) -> "_Line":
        return _Line(-self.slope, self.start + self.slope * (length - 1), self.low, self.high)

    def numbers(self) -> tuple[float, float, float, float]:
        return self.slope, self.start, self.low, self.high


class _Holes(_Stage):
    """CoarseDropout: rectangles of one grey."""

    num_transforms = 1

    def __init__(self, transform: A.CoarseDropout) -> None:
        self._fill = min(max(float(transform.fill), 0.0), 255.0)
        self._max_holes = transform.num_holes_range[1]
        self.num_columns = 4 * self._max_holes

    def encode(self, drawn: Sequence[tuple[A.BasicTransform, Params]]) -> Row:
        holes = np.zeros((self._max_holes, 4), dtype=np.float32)  # an empty rectangle covers nothing
        params = drawn[0][1]
        if params is not None:
            holes[: len(params["holes"])] = params["holes"]
        return holes.ravel()

    def apply(self, pixels: Tensor, draws: Tensor) -> Tensor:
        rows = torch.arange(pixels.shape[2], device=pixels.device)[:, None]
        columns = torch.arange(pixels.shape[3], device=pixels.device)
        for hole in draws.view(len(draws), self._max_holes, 4).unbind(1):
            left, top, right, bottom = hole[:, :, None, None].unbind(1)
            is_inside = ((columns >= left) & (columns < right)) & ((rows >= top) & (rows < bottom))  # (B, H, W)
            pixels = pixels.masked_fill(is_inside[:, None], self._fill)
        return pixels


class _Brightness(_Stage):
    """RandomBrightnessContrast: grey times a factor plus a number."""

    num_transforms = 1
    num_columns = 2

    def encode(self, drawn: Sequence[tuple[A.BasicTransform, Params]]) -> Row:
        params = drawn[0][1]
        numbers = (1.0, 0.0) if params is None else (params["alpha"], params["beta"])
        return np.array(numbers, dtype=np.float32)

    def apply(self, pixels: Tensor, draws: Tensor) -> Tensor:
        factor, summand = draws[:, :, None, None, None].unbind(1)
        return (factor * pixels + summand).clamp(0, 255)


def _create_stage(transform: A.BasicTransform, image_shape: tuple[int, int]) -> _Stage:
    if isinstance(transform, A.CoarseDropout):
        return _Holes(transform)
    if isinstance(transform, A.RandomBrightnessContrast):
        return _Brightness()
    warp = _Warp(image_shape)
    warp.take(transform)
    return warp


def _check(transform: A.BasicTransform) -> None:
    """Raise a SettingsError for what only a CPU can do."""
    name = type(transform).__name__
    if not isinstance(transform, KNOWN):
        names = ", ".join(known.__name__ for known in KNOWN)
        raise SettingsError(
            f"train_transforms: {name} runs on a CPU only; set augment_on='cpu' (a device does {names})"
        )
    wrong = None
    if getattr(transform, "interpolation", cv2.INTER_LINEAR) != cv2.INTER_LINEAR:
        wrong = "another interpolation than linear"
    elif isinstance(transform, A.Affine) and transform.border_mode not in PADDINGS:
        wrong = f"border_mode={transform.border_mode}"
    elif isinstance(transform, A.Affine) and transform.fit_output:
        wrong = "fit_output=True"
    elif not isinstance(getattr(transform, "fill", 0), int | float):
        wrong = f"fill={transform.fill!r}"
    elif isinstance(transform, A.RandomBrightnessContrast) and not transform.brightness_by_max:
        wrong = "brightness_by_max=False"
    if wrong is not None:
        raise SettingsError(f"train_transforms: {name}: {wrong} is for a CPU only; set augment_on='cpu'")
