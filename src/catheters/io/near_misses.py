"""Ids and files that were meant, perhaps: the same but for the form in which they are written."""

import math
import re
from collections.abc import Iterable
from pathlib import Path

IMAGE_ENDS = re.compile(r"\.(jpe?g|png|tiff?|webp|dcm|dicom)$")
WHOLE_NUMBER = re.compile(r"(\d+)\.0+")


def without_decimals(text: str) -> str:
    """`12` for `12.0`, as programs write whole numbers beside missing ones; other texts, `0012` too, as they are."""
    match = WHOLE_NUMBER.fullmatch(text)
    return match[1] if match else text


def form_of(text: str) -> str:
    """What is equal for texts that differ in case, blanks, folders, an image's suffix, decimals or leading zeros."""
    name = "".join(text.replace("\\", "/").rpartition("/")[2].casefold().split())
    name = without_decimals(IMAGE_ENDS.sub("", name))
    return (name.lstrip("0") or "0") if name.isdigit() else name


def same_id_hint(wanted: Iterable[str], known: Iterable[str]) -> str:
    """The first wanted id that has a known one of another form, as the end of a message; empty where none has."""
    id_of_form = {form_of(uid): uid for uid in known}
    for uid in wanted:
        found = id_of_form.get(form_of(uid))
        if found is not None and found != uid:
            return f"; {uid} and {found} differ only in their form, and ids are compared as text: use one form"
    return ""


def file_hint(path: Path) -> str:
    """The file that a missing one was meant for, as the end of a message; empty where none looks like it.

    Each part of the path is sought in its folder: with slashes for backslashes, in another case, with another suffix,
    without decimals (`0` for `0.0`) or with leading zeros.
    """
    try:
        return "" if path.exists() else _hint_of_parts(Path(str(path).replace("\\", "/")).parts)
    except (OSError, ValueError):  # no name of a file at all: too long, or with a NUL
        return ""


def _hint_of_parts(parts: tuple[str, ...]) -> str:
    found = Path(parts[0]) if Path(parts[0]).exists() else _entry_of_similar_name(Path(), parts[0])
    for part in parts[1:]:
        if found is None:
            return ""
        found = found / part if (found / part).exists() else _entry_of_similar_name(found, part)
    return "" if found is None else f"; {found} is there: is it meant?"


def _entry_of_similar_name(folder: Path, name: str) -> Path | None:
    """The first entry of the folder that has the name in another form."""
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return None
    return next((folder / other for other in names if form_of(other) == form_of(name)), None)


def number_in(text: str) -> float | None:
    """The finite number that a text holds, or None."""
    try:
        number = math.nan if "_" in text else float(text)  # 1_0 is a number to Python alone
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def number_or_age_in(text: str) -> float | None:
    """The finite number that a text holds, also an age in years as DICOM writes it, `058Y`; or None."""
    return number_in(text.strip().removesuffix("Y"))
