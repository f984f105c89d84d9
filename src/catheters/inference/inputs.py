"""Which images are to be predicted, and what each is called."""

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from catheters.data.tables.image_folder import folder_table, repeated_files, warn_of_repeated
from catheters.data.tables.label_rules import choose_rows_of_other_table
from catheters.data.tables.label_table import TableSource, fill_in_paths
from catheters.errors import UserError
from catheters.io.csv_files import check_columns, check_ids, read_csv
from catheters.io.files import printable
from catheters.io.near_misses import file_hint
from catheters.io.path_pattern import check_path_pattern
from catheters.runtime.console import say, warn

LIST_SUFFIX = ".txt"
TABLE_SUFFIXES = (".csv", ".gz", LIST_SUFFIX)


@dataclass(frozen=True, kw_only=True)
class Images:
    """n images to predict.

    Attributes:
        uids: their names, each once.
        paths: their files.
    """

    uids: tuple[str, ...]
    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.uids)


def check_given(inputs: Sequence[Path]) -> None:
    """Raise a UserError that names the first of the inputs which is neither a file nor a folder."""
    for given in inputs:
        if not given.exists():
            raise UserError(
                f"{given}: no such file or folder; images, folders of images or a CSV or .txt of ids are expected"
            )


def list_images(inputs: Sequence[Path], source: TableSource, path_pattern: str | None) -> Images:
    """Files, folders with the folders in them, and tables or lists of ids, as one list.

    An image of a file or folder is called as the training table calls its images: after the file's name, without its
    suffix where `path_pattern` has one, as in train/{uid}.jpg. Where two would have one name, all are called after
    their paths. A file that is given several times is taken once, which a warning says; only the ids of a table each
    keep their row.

    Args:
        inputs: what the user gave.
        source: of the table that the model was trained on.
        path_pattern: of the images of a table, relative to the table's folder; None: the source's own.

    Raises:
        UserError: one is missing, or holds no image.
    """
    names: list[str] = []  # of the training table's kind
    full_names: list[str] = []  # each its own
    paths: list[Path] = []
    listed: set[int] = set()  # positions of a table's images
    check_given(inputs)
    for given in inputs:
        if given.is_dir():
            table = folder_table(given)
            paths += table.paths
            names += [_training_name(path, source) for path in table.paths]
            full_names += [printable(path) for path in table.paths] if len(inputs) > 1 else table.uids.tolist()
        elif given.suffix.lower() in TABLE_SUFFIXES:
            uids, files = _read_table(given, source, path_pattern)
            listed.update(range(len(paths), len(paths) + len(files)))
            paths += files
            names += uids
            full_names += uids
        else:
            paths.append(given)
            names.append(_training_name(given, source))
            full_names.append(printable(given))
    kept = _once_each(paths, listed)
    names = [names[position] for position in kept]
    repeated = _first_repeated(names)
    if repeated is not None:
        example = names[repeated]
        warn(f"several images are named {example}: all are called after their paths")
        names = [full_names[position] for position in kept]
    return Images(uids=tuple(names), paths=tuple(paths[position] for position in kept))


def _once_each(paths: Sequence[Path], listed: Collection[int]) -> list[int]:
    """Positions of the images, without files that stand before or, by an id, in a table; a warning names these."""
    others = [position for position in range(len(paths)) if position not in listed]
    repeated = repeated_files(
        [paths[position] for position in others], [paths[position] for position in sorted(listed)]
    )
    dropped = {others[number]: first for number, first in repeated.items()}
    warn_of_repeated([(printable(paths[position]), printable(first)) for position, first in dropped.items()])
    return [position for position in range(len(paths)) if position not in dropped]


def _first_repeated(names: Sequence[str]) -> int | None:
    """The position of the first name that stands before."""
    seen: set[str] = set()
    for position, name in enumerate(names):
        if name in seen:
            return position
        seen.add(name)
    return None


def _training_name(path: Path, source: TableSource) -> str:
    pattern = source.path_pattern.rpartition("/")[2]
    has_suffix = source.dicom_id is None and pattern.startswith("{uid}.")
    name = Path(path.name)
    return printable(name.with_suffix("") if has_suffix and not name.suffix[1:].isdigit() else name)


def _read_table(file: Path, source: TableSource, path_pattern: str | None) -> tuple[list[str], tuple[Path, ...]]:
    """Ids and files of a table's rows, or of a list of ids; those that `keep_rows` leaves out are none of them."""
    if path_pattern is not None:
        try:
            check_path_pattern(path_pattern)
        except ValueError as error:
            raise UserError(f"--images {path_pattern}: {error}") from None
        source = dataclasses.replace(source, path_pattern=path_pattern, dicom_id=None)
    if source.dicom_id is not None:
        raise UserError(
            f"{file}: the model's training images were found by {source.dicom_id}; say with --images where these "
            "are, as in --images 'images/{uid}.dcm'"
        )
    if file.suffix.lower() == LIST_SUFFIX:
        frame = _read_list(file, source.uid_column)
    else:
        frame = read_csv(file)
        kept = choose_rows_of_other_table(frame, source.keep_rows, file)
        if len(kept) < len(frame):
            say(f"{len(kept)} of {len(frame)} rows of {file} are kept by the model's keep_rows")
        frame = kept
    check_columns(frame, (source.uid_column,), file)
    check_ids(frame, source.uid_column, file)
    # Published tables name images from their own folder, or from the one that the data set was unpacked into.
    folders = [file.parent, source.dataset_folder]
    if "*" not in source.path_pattern:  # which could mean a search of the whole disk there
        folders.append(file.absolute().parent.parent)
    missing = []
    for folder in folders:
        paths = fill_in_paths(frame, source.path_pattern, source.uid_column, folder, file)
        if any(path.exists() for path in paths):
            return frame[source.uid_column].tolist(), paths
        missing.append(paths[0])
    hint = next(filter(None, map(file_hint, missing)), "")
    raise UserError(
        f"{file}: none of its images is there, {missing[0]} for one; say with --images "
        f"where they are, relative to the table, to dataset_folder={source.dataset_folder} or to the folder above the "
        f"table's, as in --images 'test/{{uid}}.jpg'{hint}"
    )


def _read_list(file: Path, uid_column: str) -> pd.DataFrame:
    """The ids of a text file, one per line, as a table of one column."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise UserError(f"{file}: is not UTF-8 text; a list of ids, one per line, is expected") from None
    uids = [line for line in lines if line and line != uid_column]
    if not uids:
        raise UserError(f"{file}: is empty; a list of ids, one per line, is expected")
    return pd.DataFrame({uid_column: uids})
