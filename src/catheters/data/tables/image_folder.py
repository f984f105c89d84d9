"""A plain folder of X-rays as a table without labels."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from catheters.data.tables.label_table import LabelTable
from catheters.errors import is_of_path
from catheters.io.csv_files import TableError
from catheters.io.files import printable
from catheters.runtime.console import say, warn

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".dcm", ".dicom")
"""Suffixes of images, in any case; a file without one may be DICOM."""
SUFFIXES_SHOWN = 10
"""Suffixes of other files that the message of a folder without images names."""
REPEATS_SHOWN = 5
"""Files under further names that a warning names."""


def folder_table(folder: Path) -> LabelTable:
    """Every image in the folder and the folders in it, sorted by path.

    Hidden files and folders are passed over, as are `__MACOSX`, which macOS adds to archives, and `DICOMDIR`, the index
    of a DICOM medium. A file that has several names there, by links, is taken once, by the name that is no link or else
    the first; a warning names the others. Links to nowhere are images too, whose reading says so.

    Args:
        folder: where the images lie.

    Returns:
        uids: (N,) paths relative to the folder, with slashes; patient_ids: the same, since the patients are unknown;
        labels: (N, 0) uint8.

    Raises:
        TableError: no such folder, no image in it, or it cannot be listed; a folder in it that cannot be is passed over
            with a warning.
    """
    if not folder.is_dir():
        found = "is a file" if folder.is_file() else "no such folder"
        raise TableError(f"{folder}: {found}; a folder of images is expected")

    def refuse_folder(error: OSError) -> None:
        if error.filename == str(folder) or not is_of_path(error):
            raise TableError(f"{error.filename}: cannot be listed: {error.strerror}")
        warn(f"{error.filename}: passed over, it cannot be listed: {error.strerror}")

    names = []
    other_suffixes: Counter[str] = Counter()
    seen: set[str] = set()
    for root, subfolders, files in os.walk(folder, followlinks=True, onerror=refuse_folder):
        seen.add(os.path.realpath(root))
        subfolders[:] = [
            name
            for name in subfolders
            if not name.startswith(".")
            and name != "__MACOSX"
            and os.path.realpath(Path(root) / name) not in seen  # a link back would be followed for ever
        ]
        for name in files:
            if name.startswith(".") or name == "DICOMDIR":
                continue
            suffix = _suffix(name)
            if suffix == "" or suffix in IMAGE_SUFFIXES:
                names.append((Path(root) / name).relative_to(folder).as_posix())
            else:
                other_suffixes[suffix] += 1
    others = ", ".join(f"{suffix} ({count})" for suffix, count in other_suffixes.most_common(SUFFIXES_SHOWN))
    if others:
        say(f"files of {folder} that are passed over: {others}")
    if not names:
        raise TableError(
            f"{folder}: no image in it, nor in its folders; files that end in {', '.join(IMAGE_SUFFIXES)} or have no "
            f"suffix are sought, and there are {f'only others: {others}' if others else 'no files'}"
        )
    names = _without_further_names(folder, names)
    uids = np.array([printable(Path(name)) for name in names], dtype=np.str_)
    no_labels = np.zeros((len(uids), 0), dtype=np.float32)
    return LabelTable(
        uids=uids,
        patient_ids=uids,
        paths=tuple(folder / name for name in names),
        labels=no_labels,
        targets=no_labels,
        label_columns=(),
    )


def repeated_files(paths: Iterable[Path], taken: Sequence[Path] = ()) -> dict[int, Path]:
    """Position -> the path before it, or of `taken`, that leads to the same file; only those that have one."""
    first_of_file = {_file_of(path): path for path in reversed(taken)}
    repeated = {}
    for position, path in enumerate(paths):
        first = first_of_file.setdefault(_file_of(path), path)
        if first is not path:
            repeated[position] = first
    return repeated


def warn_of_repeated(names: Sequence[tuple[str, str]]) -> None:
    """Say which files, each by its further name and the one that it goes by, are taken once."""
    if names:
        shown = ", ".join(f"{further} ({name})" for further, name in names[:REPEATS_SHOWN])
        more = f" and {len(names) - REPEATS_SHOWN} more" if len(names) > REPEATS_SHOWN else ""
        warn(f"{len(names)} further names of files that are taken once (in brackets their own): {shown}{more}")


def _file_of(path: Path) -> str:
    """What a path leads to; a link to nowhere stands for itself."""
    return os.path.realpath(path) if path.exists() else str(path.absolute())


def _without_further_names(folder: Path, names: Sequence[str]) -> list[str]:
    """Sorted, each file once."""
    real_folder = Path(os.path.realpath(folder))
    # Of several names, one without a link on its way comes first.
    ordered = sorted(names, key=lambda name: (_file_of(folder / name) != str(real_folder / name), name))
    repeated = repeated_files([folder / name for name in ordered])
    warn_of_repeated(
        [(ordered[position], printable(first.relative_to(folder))) for position, first in repeated.items()]
    )
    return sorted(name for position, name in enumerate(ordered) if position not in repeated)


def _suffix(name: str) -> str:
    """The suffix in lower case; the last number of a UID, which names many a DICOM file, is none."""
    suffix = Path(name).suffix.lower()
    return "" if suffix[1:].isdigit() else suffix
