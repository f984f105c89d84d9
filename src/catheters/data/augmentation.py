"""Augmentation: albumentations transforms named in the settings, checked before any work starts."""

import inspect
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from catheters.data.quiet_albumentations import A
from catheters.errors import SettingsError, one_line, unknown_name

Params = dict[str, Any] | None
"""What albumentations drew for a transform and an image; None: it is not applied."""
Points = npt.NDArray[np.float64]

Transforms = Sequence[tuple[str, dict[str, Any]]]

ONE_OF = "OneOf"
"""Applies one of several: ("OneOf", {"transforms": ((name, params), ...), "p": 0.25})."""
ROW_COLUMN = 5
"""albumentations' keypoints are x, y, z, angle, scale; columns after these go along unchanged."""

WRONG_POINTS = ("ThinPlateSpline",)
"""Transforms that move points elsewhere than the pixels there, in albumentations 2.0.8; its others were tried."""


class Augmentation:
    """A chain of albumentations transforms whose draws depend on nothing but a seed given with each image.

    Attributes:
        transforms: (name, params) pairs, in their order; see `ONE_OF`.
    """

    def __init__(self, transforms: Transforms, image_shape: tuple[int, int]) -> None:
        """Build and try the chain.

        Args:
            transforms: (name, params) pairs, applied in this order.
            image_shape: (height, width) of the images, in pixels; also a transform's `size` where none is given.

        Raises:
            SettingsError: an unknown transform, a mistyped or impossible parameter, or a chain that does not give
                back uint8 images of the same size.
        """
        self.transforms = transforms
        self._image_shape = image_shape
        created = [_create_transform(name, params, image_shape) for name, params in transforms]
        self._compose = A.Compose(created, mask_interpolation=cv2.INTER_LINEAR)
        # Twins that carry points: the pixels that training sees must not hang on how points are carried along.
        self._followers = [
            _create_transform(name, _with_plain_border(name, params), image_shape) for name, params in _each(transforms)
        ]
        _check_result(transforms, image_shape)

    def __call__(self, image: npt.NDArray[np.uint8], seed: int) -> npt.NDArray[np.uint8]:
        """Transform one image.

        Args:
            image: (H, W) uint8.
            seed: seed of all draws for this image.

        Returns:
            (H, W) uint8.
        """
        _seed(self._compose, seed)
        for transform in self._leaves:
            transform.params = {}  # one that is not chosen would keep those of an image before
        augmented: npt.NDArray[np.uint8] = self._compose(image=image)["image"]
        return augmented

    def with_maps(
        self, image: npt.NDArray[np.uint8], maps: npt.NDArray[np.uint8], seed: int
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Transform one image, and move maps of it along; what changes its greys leaves them as they are.

        Args:
            image: (H, W) uint8.
            maps: (H, W, C) uint8.
            seed: seed of all draws for this image.

        Returns:
            What `__call__` gives, and (H, W, C).
        """
        _seed(self._compose, seed)
        result = self._compose(image=image, mask=maps)
        return result["image"], result["mask"]

    def with_points(
        self, image: npt.NDArray[np.uint8], points: Points, seed: int
    ) -> tuple[npt.NDArray[np.uint8], Points]:
        """Transform one image, and carry points of it along.

        Args:
            image: (H, W) uint8.
            points: (n, 2) x and y in pixels, whole numbers being the centres; they may lie outside.
            seed: seed of all draws for this image.

        Returns:
            What `__call__` gives, and (n, 2), see `carry`.
        """
        augmented = self(image, seed)
        # An applied transform has the image's shape among its parameters, others have none.
        applied = [transform.get_applied_params() or None for transform in self._leaves]
        return augmented, self.carry(points, applied)

    def draw(self, seed: int) -> Iterator[tuple[A.BasicTransform, Params]]:
        """What `__call__` draws with this seed, where that does not depend on an image's pixels.

        Yields:
            Each transform with its parameters for this image, or None where it is not applied, or is `ONE_OF` several.
        """
        _seed(self._compose, seed)
        # As albumentations goes about it (Compose.__call__ and BasicTransform.__call__), up to the pixels.
        self._compose.py_random.random()  # whether to run at all, which it does
        data = {"image": np.broadcast_to(np.uint8(0), self._image_shape)}
        for transform in self._compose.transforms:
            if isinstance(transform, A.BaseCompose) or not transform.should_apply():
                yield transform, None
                continue
            params = transform.update_transform_params(transform.get_params(), data)
            yield transform, {**params, **transform.get_params_dependent_on_data(params, data)}

    @property
    def unfollowed(self) -> tuple[str, ...]:
        """Names of the transforms whose pixels `carry` cannot follow."""
        return tuple(name for name, _ in _each(self.transforms) if name in WRONG_POINTS)

    @property
    def _leaves(self) -> Iterator[A.BasicTransform]:
        """The transforms themselves, those of `ONE_OF` one after another."""
        for transform in self._compose.transforms:
            yield from transform.transforms if isinstance(transform, A.BaseCompose) else (transform,)

    def carry(self, points: Points, drawn: Sequence[Params]) -> Points:
        """Where points of an image lie once it is transformed.

        Args:
            points: (n, 2) x and y in pixels, whole numbers being the centres; they may lie outside, and NaN stays NaN.
            drawn: what was drawn for each transform of the chain, those of `ONE_OF` one after another.

        Returns:
            (n, 2); NaN for points that a distortion moved out of what it can follow.
        """
        assert not self.unfollowed
        for transform, params in zip(self._followers, drawn, strict=True):
            if params is None or not isinstance(transform, A.DualTransform):
                continue
            move = QUICK_MOVES.get(type(transform))
            points = _follow(points, transform, params) if move is None else move(points, params)
        return points


def _follow(points: Points, transform: A.DualTransform, params: dict[str, Any]) -> Points:
    """Where a transform moves points, as albumentations says; NaN for those that it gives up."""
    rows = np.flatnonzero(~np.isnan(points).any(axis=1))
    result = np.full(points.shape, np.nan)
    if len(rows):
        keypoints = np.zeros((len(rows), ROW_COLUMN + 1), dtype=np.float32)
        keypoints[:, :2], keypoints[:, ROW_COLUMN] = points[rows], rows
        moved = transform.apply_to_keypoints(keypoints, **params)
        result[moved[:, ROW_COLUMN].astype(np.intp)] = moved[:, :2]
    return result


def _flip_across(points: Points, params: dict[str, Any]) -> Points:
    flipped = points.copy()
    np.subtract(params["shape"][1] - 1, points[:, 0], out=flipped[:, 0])
    return flipped


def _flip_down(points: Points, params: dict[str, Any]) -> Points:
    flipped = points.copy()
    np.subtract(params["shape"][0] - 1, points[:, 1], out=flipped[:, 1])
    return flipped


def _warp(points: Points, params: dict[str, Any]) -> Points:
    matrix = params["matrix"]
    moved: Points = points @ matrix[:2, :2].T + matrix[:2, 2]
    return moved


def _crop(points: Points, params: dict[str, Any]) -> Points:
    """The crop is enlarged to the whole image, edge to edge, as OpenCV does it."""
    left, top, right, bottom = params["crop_coords"]
    height, width = params["shape"][:2]
    corner = np.array([left, top])
    moved: Points = (points - corner + 0.5) * (width / (right - left), height / (bottom - top)) - 0.5
    return moved


QUICK_MOVES: Mapping[type[A.DualTransform], Callable[[Points, dict[str, Any]], Points]] = MappingProxyType(
    {
        A.HorizontalFlip: _flip_across,
        A.VerticalFlip: _flip_down,
        A.Affine: _warp,
        A.RandomResizedCrop: _crop,
        A.RandomSizedCrop: _crop,
        A.CoarseDropout: lambda points, params: points,
    }
)
"""The usual transforms, done here: albumentations takes ten times as long for a few dozen points."""


def _seed(compose: A.Compose, seed: int) -> None:
    """Let all draws of a chain follow from a seed.

    Compose draws from generators of its own, of which all DataLoader workers would inherit the same state. One pair
    serves the whole chain: `set_random_seed` would give each transform the same numbers, so that two flips come
    always together.
    """
    compose.set_random_state(np.random.default_rng(seed), random.Random(seed))


def _with_plain_border(name: str, params: dict[str, Any]) -> dict[str, Any]:
    """Where the border mirrors the image, albumentations returns the mirrored points too, in no order."""
    has_border = "border_mode" in inspect.signature(getattr(A, name)).parameters
    return {**params, "border_mode": cv2.BORDER_CONSTANT} if has_border else params


def _check_result(transforms: Transforms, image_shape: tuple[int, int]) -> None:
    """Apply each transform for certain, whatever its `p`, and see that a grey uint8 image stays one of that size."""
    image = np.zeros(image_shape, dtype=np.uint8)
    for name, params in _each(transforms):
        transform = _create_transform(name, params, image_shape)
        transform.p = 1.0
        try:
            result = A.Compose([transform])(image=image)["image"]
        except Exception as error:
            raise SettingsError(f"train_transforms: {name}: fails on a grey uint8 image: {one_line(error)}") from error
        if result.shape != image.shape or result.dtype != np.uint8:
            raise SettingsError(
                f"train_transforms: {name}: turns {image.dtype} {image.shape} into {result.dtype} {result.shape}; "
                "uint8 of the same shape is expected (normalisation and conversion to tensors happen later)"
            )


def _each(transforms: Transforms) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and parameters of each transform, those of `ONE_OF` one after another."""
    for name, params in transforms:
        if name == ONE_OF:
            yield from params["transforms"]
        else:
            yield name, params


def _create_choice(params: dict[str, Any], image_shape: tuple[int, int]) -> A.OneOf:
    pairs = params.get("transforms")
    are_pairs = isinstance(pairs, list | tuple) and all(
        isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], dict)
        for pair in pairs
    )
    if not are_pairs or not pairs or set(params) - {"transforms", "p"}:
        raise SettingsError(
            f"train_transforms: {ONE_OF}: {params!r}; expected {{'transforms': ((name, parameters), ...), 'p': 0..1}}"
        )
    if any(name == ONE_OF for name, _ in pairs):
        raise SettingsError(f"train_transforms: {ONE_OF}: holds another one; name its transforms themselves")
    p = params.get("p", 0.5)
    if not isinstance(p, int | float) or not 0 <= p <= 1:
        raise SettingsError(f"train_transforms: {ONE_OF}: p={p!r}; a probability in 0..1 is expected")
    created = [_create_transform(name, of_name, image_shape) for name, of_name in pairs]
    if not any(transform.p for transform in created):
        raise SettingsError(
            f"train_transforms: {ONE_OF}: each of its transforms has p=0, and one is chosen by them; set one above 0"
        )
    return A.OneOf(created, p=p)


def _create_transform(
    name: str, params: dict[str, Any], image_shape: tuple[int, int]
) -> A.BasicTransform | A.BaseCompose:
    if name == ONE_OF:
        return _create_choice(params, image_shape)
    transform_class = getattr(A, name, None)
    if not (inspect.isclass(transform_class) and issubclass(transform_class, A.BasicTransform)):
        known = [
            other for other, value in vars(A).items() if inspect.isclass(value) and issubclass(value, A.BasicTransform)
        ]
        raise SettingsError(f"train_transforms: {unknown_name(name, 'an albumentations transform', known)}")
    # albumentations only warns of a parameter that it does not know, and then ignores it.
    known_params = [param for param in inspect.signature(transform_class).parameters if param != "kwargs"]
    for param in params:
        if param not in known_params:
            raise SettingsError(f"train_transforms: {name}: {unknown_name(param, 'a parameter', known_params)}")
    if "size" in known_params and "size" not in params:
        params = {**params, "size": image_shape}
    try:
        return transform_class(**params)
    except (ValueError, TypeError) as error:
        # pydantic's report has a line with the parameter, one with the reason, then more that a user need not see.
        lines = [line.strip() for line in str(error).splitlines()]
        reason = ": ".join(line.partition(" [type=")[0] for line in (lines[1:3] or lines))
        raise SettingsError(f"train_transforms: {name}: {reason}") from None
