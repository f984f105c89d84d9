"""A plain folder of X-rays as a table without labels."""

import os
from collections import Counter
from pathlib import Path

import numpy as np

from catheters.csv_files import TableError
from catheters.data.table import LabelTable
from catheters.files import printable

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".dcm", ".dicom")
"""Suffixes of images, in any case; a file without one may be DICOM."""
SUFFIXES_SHOWN = 10
"""Suffixes of other files that the message of a folder without images names."""


def folder_table(folder: Path) -> LabelTable:
    """Every image in the folder and the folders in it, sorted by path.

    Hidden files and folders are passed over, as are `__MACOSX`, which macOS adds to archives, and `DICOMDIR`, the index
    of a DICOM medium.

    Args:
        folder: where the images lie.

    Returns:
        uids: (N,) paths relative to the folder, with slashes; patient_ids: the same, since the patients are unknown;
        labels: (N, 0) uint8.

    Raises:
        TableError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        found = "is a file" if folder.is_file() else "no such folder"
        raise TableError(f"{folder}: {found}; a folder of images is expected")
    names = []
    other_suffixes: Counter[str] = Counter()
    seen: set[str] = set()
    for root, subfolders, files in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(root))
        subfolders[:] = [
            name
            for name in subfolders
            if not name.startswith(".")
            and name != "__MACOSX"
            and os.path.realpath(Path(root) / name) not in seen  # a link back would be followed for ever
        ]
        for name in files:
            if name.startswith(".") or name == "DICOMDIR" or not (Path(root) / name).is_file():
                continue
            suffix = _suffix(name)
            if suffix == "" or suffix in IMAGE_SUFFIXES:
                names.append((Path(root) / name).relative_to(folder).as_posix())
            else:
                other_suffixes[suffix] += 1
    others = ", ".join(f"{suffix} ({count})" for suffix, count in other_suffixes.most_common(SUFFIXES_SHOWN))
    if others:
        print(f"files of {folder} that are passed over: {others}")
    if not names:
        raise TableError(
            f"{folder}: no image in it, nor in its folders; files that end in {', '.join(IMAGE_SUFFIXES)} or have no "
            f"suffix are sought, and there are {f'only others: {others}' if others else 'no files'}"
        )
    names.sort()
    uids = np.array([printable(Path(name)) for name in names], dtype=np.str_)
    return LabelTable(
        uids=uids,
        patient_ids=uids,
        paths=tuple(folder / name for name in names),
        labels=np.zeros((len(uids), 0), dtype=np.uint8),
        label_columns=(),
    )


def _suffix(name: str) -> str:
    """The suffix in lower case; the last number of a UID, which names many a DICOM file, is none."""
    suffix = Path(name).suffix.lower()
    return "" if suffix[1:].isdigit() else suffix
