"""Patterns of image files, such as `train/{uid}.jpg` and `images*/**/{uid}`; with `dicom_id`, `export/**/*`."""

import string


def pattern_fields(pattern: str) -> set[str]:
    """Names in curly brackets."""
    return {name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None}


def check_path_pattern(pattern: str) -> None:
    """Raise a ValueError, in words for a user, where it is no pattern that rows can be filled into and looked up by."""
    try:
        fields = [field for field in string.Formatter().parse(pattern) if field[1] is not None]
    except ValueError as error:
        raise ValueError(f"path_pattern='{pattern}': {error}") from None
    if not fields or any(name == "" or spec or conversion for _, name, spec, conversion in fields):
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
