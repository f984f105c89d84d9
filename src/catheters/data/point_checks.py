"""What can be wrong with points that people placed on X-rays, whether landmarks or traced catheters."""

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import numpy.typing as npt

from catheters.errors import counted
from catheters.io.csv_files import TableError
from catheters.io.near_misses import same_id_hint

ENOUGH_POINTS, ENOUGH_IMAGES = 10, 5
"""From how many on they cannot all be wrong by chance."""
MAX_OUTSIDE = 0.05
"""Share of an image's side by which a point may lie beyond the edge. People do place points a little outside."""


def check_image_ids(ids: Collection[str], uids: Collection[str], source: str) -> list[str]:
    """Say which ids of a table of points are no image's.

    Args:
        ids: those of the table, in its order, each once.
        uids: those of the label table.
        source: the table, for the message.

    Returns:
        One warning, or none.
    """
    known = set(uids)
    others = [uid for uid in ids if uid not in known]
    if not others:
        return []
    hint = same_id_hint(others, known)
    if len(others) == len(ids):
        return [f"{source}: none of its ids, such as {others[0]}, is in the label table{hint}"]
    return [
        f"{source}: {len(others)} of its {counted(len(ids), 'id')} without a row in the label table, the "
        f"first is {others[0]}{hint}"
    ]


def check_any_image(ids: Collection[str], uids: Collection[str], source: str) -> None:
    """Refuse a table of points that has none of the images: nothing could be learnt from it.

    Args:
        ids: those of the table, each once.
        uids: those of the label table.
        source: the table, for the message.

    Raises:
        TableError: as said.
    """
    if set(ids).isdisjoint(uids):
        raise TableError(*check_image_ids(ids, uids, source))


def check_inside(
    points_of_image: Iterable[tuple[str, npt.ArrayLike]], full_shapes: Mapping[str, tuple[int, int]], source: str
) -> list[str]:
    """Say which points lie so far outside of their image that they were likely placed on one of another size.

    Args:
        points_of_image: uid, and (n, 2) x and y in pixels, whole numbers being pixel centres; an image may come again.
        full_shapes: uid -> (H, W) of the original image, in pixels; (0, 0) where it could not be read. Points of
            such and of other images are passed over.
        source: the table, for the message.

    Returns:
        One warning, or none.

    Raises:
        TableError: most images have such points, or all points are parts of a side in place of pixels.
    """
    known = [(uid, np.asarray(points, np.float64)) for uid, points in points_of_image if any(full_shapes.get(uid, ()))]
    if not known:
        return []
    points = np.concatenate([of_image for _, of_image in known])  # (N, 2)
    if len(points) >= ENOUGH_POINTS and (np.abs(points) <= 1).all():
        raise TableError(
            f"{source}: all points lie between -1 and 1, such as x={points[0, 0]:g}, y={points[0, 1]:g}; pixels of the "
            "original image are expected, not parts of its sides"
        )
    owner = np.repeat(np.arange(len(known)), [len(of_image) for _, of_image in known])  # (N,)
    sides = np.array([full_shapes[uid][::-1] for uid, _ in known], dtype=np.float64)[owner]  # (N, 2): W, H
    beyond = np.maximum(-0.5 - points, points - (sides - 0.5)) / sides
    is_far = (beyond > MAX_OUTSIDE).any(axis=1)
    if not is_far.any():
        return []
    first = int(np.flatnonzero(is_far)[0])
    images = {known[index][0] for index in owner[is_far].tolist()}
    num_images = len({uid for uid, _ in known})
    if len(images) > num_images / 2 and num_images >= ENOUGH_IMAGES:
        raise TableError(
            f"{source}: points of {len(images)} of {num_images} images lie far beyond the edge, such as "
            f"x={points[first, 0]:g}, y={points[first, 1]:g} of {known[owner[first]][0]}, which has "
            f"{sides[first, 0]:.0f} x {sides[first, 1]:.0f} pixels; pixels of the original image are expected, not of "
            "a copy of another size"
        )
    (x, y), (width, height) = points[first], sides[first]
    return [
        f"{source}: {counted(int(is_far.sum()), 'point')} of {counted(len(images), 'image')} more than "
        f"{MAX_OUTSIDE:.0%} of a side beyond the edge, the first at x={x:g}, y={y:g} of {known[owner[first]][0]}, "
        f"which has {width:.0f} x {height:.0f} pixels; pixels of the original image are expected, not of a copy of "
        "another size"
    ]
