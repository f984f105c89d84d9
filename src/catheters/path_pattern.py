"""Patterns of image files, such as `train/{uid}.jpg` and `images*/**/{uid}`."""

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
        )
    folders, _, name = pattern.rpartition("/")
    if "*" in name or ("*" in folders and "{" in folders):
        raise ValueError(f"path_pattern='{pattern}': * may stand in its folders, if they have no {{column}} in them")
    has_odd_stars = any("**" in part and part != "**" for part in folders.split("/"))
    if has_odd_stars or ("*" in folders and folders.startswith("/")):
        raise ValueError(
            f"path_pattern='{pattern}': with * it is relative to dataset_folder, and ** is the whole name of a folder"
        )
