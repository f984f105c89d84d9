"""Landmarks: named points of the anatomy, such as the carina, that people marked on the X-rays."""

import difflib
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from catheters.data.point_checks import check_any_image, check_image_ids, check_inside
from catheters.errors import counted, unknown_name
from catheters.io.csv_files import TableError, check_columns, check_filled, finite_numbers, line_number, read_csv

MIN_LIKENESS = 0.75
"""From which on a word is another one mistyped: "carnia" is as like "carina" as 0.83, "left" as "right" as 0.22."""
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
    frame = read_csv(file, row_is_of="landmark")
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
        used_names: landmarks that are learnt, since settings name them; of none, everything wrong is a warning.
        uids: the ids of the label table.
        full_shapes: uid -> (H, W) of the original image, in pixels; (0, 0) or none where it could not be read.
        source: the table, for the messages.
        tips: what settings can name beside landmarks, for the message about a name that is neither.

    Returns:
        Warnings, one line each: ids without an image, points far outside of their image, names that look like one that
        is learnt. Others that nobody uses are no fault.

    Raises:
        TableError: no id is that of an image, or a name that is used stands in no row of one.
    """
    num_rows = Counter(name for of_image in landmarks.values() for name in of_image)
    names = list(num_rows)
    if used_names:
        check_any_image(landmarks, uids, source)
    known = set(uids)
    marked = {name for uid, of_image in landmarks.items() if uid in known for name in of_image}
    for name in used_names:
        if name not in names:
            kind = f"a tip ({', '.join(tips)}), nor a landmark in it" if tips else "a landmark in it"
            raise TableError(f"{source}: {unknown_name(name, kind, [*tips, *names])}")
        if name not in marked:
            raise TableError(
                f"{source}: the {counted(num_rows[name], 'row')} of '{name}' are of images that are not in the label "
                "table, so nobody could learn it; look at the ids"
            )
    points_of_image = ((uid, list(of_image.values())) for uid, of_image in landmarks.items())
    warnings = check_image_ids(landmarks, uids, source) + check_inside(points_of_image, full_shapes, source)
    for name in names:
        meant = None if name in used_names else _learnt_name_like(name, used_names, landmarks)
        if meant is not None:
            rows = f"{counted(num_rows[name], 'row')} {'has' if num_rows[name] == 1 else 'have'}"
            warnings.append(f"{source}: {rows} '{name}', but '{meant}' is learnt; did you mean '{meant}'?")
    return warnings


def _learnt_name_like(name: str, learnt: Collection[str], landmarks: Landmarks) -> str | None:
    """The first learnt name that this one is but for its form, or for typing mistakes; None where there is none.

    Two names that one image has are two landmarks, such as "rib 10" and "rib 11".
    """
    for other in learnt:
        if _form(name) == _form(other):
            return other
        words = list(zip(name.casefold().split(), other.casefold().split(), strict=False))
        if len(words) != len(name.split()) or len(words) != len(other.split()):
            continue
        is_like = all(difflib.SequenceMatcher(None, *pair).ratio() >= MIN_LIKENESS for pair in words)
        if is_like and not any(name in of_image and other in of_image for of_image in landmarks.values()):
            return other
    return None


def _form(name: str) -> str:
    """Without case, blanks and punctuation."""
    return "".join(filter(str.isalnum, name.casefold()))
