"""Patterns of image files, such as `train/{uid}.jpg` and `images*/**/{uid}`; with `dicom_id`, `export/**/*`."""

import re
from collections.abc import Mapping, Sequence

TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
"""A literal bracket (written twice), a name in brackets, a bracket too many, or plain text.

Not `str.format`, to which dots, square brackets, digits, colons and exclamation marks in a name mean something.
"""


def pattern_fields(pattern: str) -> set[str]:
    """Names in curly brackets."""
    return {match[1].strip() for match in TOKEN.finditer(pattern) if match[1] is not None}


def fill_pattern(pattern: str, values: Mapping[str, Sequence[str]]) -> list[str]:
    """The pattern with each row's values filled in.

    Args:
        pattern: one that `check_path_pattern` lets pass.
        values: name -> (N,) texts, for each of its `pattern_fields`.

    Returns:
        (N,) paths.
    """
    num_rows = len(next(iter(values.values())))
    columns: list[Sequence[str]] = []
    for match in TOKEN.finditer(pattern):
        if match[1] is not None:
            columns.append(values[match[1].strip()])
        else:
            columns.append([{"{{": "{", "}}": "}"}.get(match[0], match[0])] * num_rows)
    return ["".join(row) for row in zip(*columns, strict=True)]


def check_path_pattern(pattern: str) -> None:
    """Raise a ValueError, in words for a user, where it is no pattern that rows can be filled into and looked up by."""
    if any(match[0] in ("{", "}") for match in TOKEN.finditer(pattern)):
        raise ValueError(f"path_pattern='{pattern}': a curly bracket without its other one; in a file's name write two")
    fields = pattern_fields(pattern)
    if not fields or "" in fields:
        raise ValueError(
            f"path_pattern='{pattern}': {{uid}} or a {{column}} of the table is expected in it, as in train/{{uid}}.jpg"
            + ("; a glob without them needs dicom_id" if "*" in pattern and not fields else "")
        )
    folders, _, name = pattern.rpartition("/")
    if "*" in name or ("*" in folders and "{" in folders):
        raise ValueError(f"path_pattern='{pattern}': * may stand in its folders, if they have no {{column}} in them")
    _check_stars(pattern, folders)


def check_glob(pattern: str) -> None:
    """Raise a ValueError, in words for a user, where it is no glob of the files to seek `dicom_id` in."""
    name = pattern.rpartition("/")[2]
    if "{" in pattern or "}" in pattern or name in ("", "**", ".", ".."):
        raise ValueError(
            f"path_pattern='{pattern}': with dicom_id a glob of the DICOM files is expected, without {{columns}}, "
            "as in export/**/*.dcm or export/**/*"
        )
    if pattern.startswith("/"):
        raise ValueError(f"path_pattern='{pattern}': with dicom_id it is relative to dataset_folder")
    _check_stars(pattern, pattern)


def _check_stars(pattern: str, starred: str) -> None:
    has_odd_stars = any("**" in part and part != "**" for part in starred.split("/"))
    if has_odd_stars or ("*" in starred and starred.startswith("/")):
        raise ValueError(
            f"path_pattern='{pattern}': with * it is relative to dataset_folder, and ** is the whole name of a folder"
        )
