"""Landmarks: named points of the anatomy, such as the carina, that people marked on the X-rays."""

from collections.abc import Collection, Mapping
from pathlib import Path

from catheters.data.point_checks import check_image_ids, check_inside
from catheters.errors import listed, unknown_name
from catheters.io.csv_files import TableError, check_columns, check_filled, finite_numbers, line_number, read_csv

NAME_COLUMN, X_COLUMN, Y_COLUMN = "name", "x", "y"

Landmarks = dict[str, dict[str, tuple[float, float]]]
"""Uid -> name -> (x, y) in pixels of the original image as shown, whole numbers being pixel centres."""


def read_landmarks(file: Path, uid_column: str) -> Landmarks:
    """Read a table of landmarks: one row per image and name, several rows per image.

    Args:
        file: CSV with the columns `uid_column`, name, x and y, the latter in pixels of the original image as shown:
            x to the right, y downwards, (0, 0) the centre of the first pixel.
        uid_column: the column that names the image.

    Returns:
        The landmarks, in the order of the file.

    Raises:
        TableError: the file, a column or a value is missing or wrong, or an image has a landmark twice.
    """
    frame = read_csv(file)
    check_columns(frame, (uid_column, NAME_COLUMN, X_COLUMN, Y_COLUMN), file)
    for column in (uid_column, NAME_COLUMN):
        check_filled(frame, column, file)
    x, y = (finite_numbers(frame, column, file, "pixels of the X-ray").tolist() for column in (X_COLUMN, Y_COLUMN))
    landmarks: Landmarks = {}
    for row, (uid, name) in enumerate(zip(frame[uid_column], frame[NAME_COLUMN], strict=True)):
        of_image = landmarks.setdefault(uid, {})
        if name in of_image:
            line = line_number(frame, row, file)
            raise TableError(f"{file}: line {line}: {uid} has '{name}' a second time; give each landmark once")
        of_image[name] = (x[row], y[row])
    return landmarks


def check_landmarks(
    landmarks: Landmarks,
    used_names: Collection[str],
    uids: Collection[str],
    full_shapes: Mapping[str, tuple[int, int]],
    source: str,
    tips: Collection[str] = (),
) -> list[str]:
    """Compare landmarks with the images and with what is asked of them.

    Args:
        landmarks: what `read_landmarks` returned.
        used_names: landmarks that settings name.
        uids: the ids of the label table.
        full_shapes: uid -> (H, W) of the original image, in pixels; (0, 0) or none where it could not be read.
        source: the table, for the messages.
        tips: what settings can name beside landmarks, for the message about a name that is neither.

    Returns:
        Warnings, one line each: ids without an image, points far outside of their image, names that nobody uses.

    Raises:
        TableError: a name that is used stands in no row.
    """
    names = list(dict.fromkeys(name for of_image in landmarks.values() for name in of_image))
    for name in used_names:
        if name not in names:
            kind = f"a tip ({', '.join(tips)}), nor a landmark in it" if tips else "a landmark in it"
            raise TableError(f"{source}: {unknown_name(name, kind, [*tips, *names])}")
    points_of_image = ((uid, list(of_image.values())) for uid, of_image in landmarks.items())
    warnings = check_image_ids(landmarks, uids, source) + check_inside(points_of_image, full_shapes, source)
    unused = [name for name in names if name not in used_names]
    if unused:
        warnings.append(f"{source}: landmarks that no setting uses: {listed(unused)}")
    return warnings
