"""`finished.json` of a fold, a seed or a run: checksums of its files, compared before they are used.

The record goes before one of its files changes and comes back last: a kill in between leaves none, and what has none,
as in run folders of earlier versions, is taken as it is.
"""

import json
from collections.abc import Collection
from pathlib import Path

from catheters.errors import UserError
from catheters.io.files import UnreadableFileError, read_json, sha256_of, write_text

FILE_NAME = "finished.json"
FOLDS_PREDICTIONS = "fold*/predictions.csv"


def write_finished(folder: Path, names: Collection[str]) -> None:
    """Record the SHA-256 of a folder's files; those that are not there are left out."""
    sums = {name: sha256_of(folder / name) for name in names if (folder / name).is_file()}
    write_text(folder / FILE_NAME, json.dumps({"sha256": sums}, indent=2) + "\n")


def forget_finished(folder: Path) -> None:
    """Delete the record, before one of its files is written anew."""
    (folder / FILE_NAME).unlink(missing_ok=True)


def remedy(folder: Path, last_file: str) -> str:
    """What mends a fold or seed, `last_file` being what is written last into its folder."""
    return (
        f"delete {folder / last_file} and run train.py as before: {folder.name} is then made anew from its snapshot, "
        "or trained again where that is damaged too"
    )


def check_finished(folder: Path, how_to_mend: str, names: Collection[str] | None = None) -> None:
    """Compare files with the record; without one nothing is known of them.

    Args:
        folder: of a fold, a seed or a run.
        how_to_mend: what to do about a damaged file, the end of the message.
        names: the files to compare; None: all that are recorded.

    Raises:
        UserError: a file is missing or another than was written, or the record is damaged.
    """
    record = folder / FILE_NAME
    if not record.exists():
        return
    try:
        sums = _read_sums(record)
    except UnreadableFileError as error:
        raise UserError(
            f"{error}; delete it if the files beside it are as train.py wrote them, else {how_to_mend}"
        ) from None
    for name, expected in sums.items():
        if names is not None and name not in names:
            continue
        file = folder / name
        if not file.is_file():
            raise UserError(f"{file}: missing, although {record.name} says that it was written; {how_to_mend}")
        if sha256_of(file) != expected:
            raise UserError(f"{file}: damaged or changed, it is not what was written; {how_to_mend}")


def is_joined(run_folder: Path) -> bool:
    """Whether a run's `predictions.csv` is of the folds as they are: none has been trained, or trained longer, since.

    Runs of earlier versions, which have no record, are taken as they are.
    """
    record = run_folder / FILE_NAME
    if not record.exists():
        return not any(run_folder.glob(f"fold*/{FILE_NAME}"))
    try:
        joined = {name: value for name, value in _read_sums(record).items() if "/" in name}
    except UnreadableFileError:
        return False
    files = {file.relative_to(run_folder).as_posix(): sha256_of(file) for file in run_folder.glob(FOLDS_PREDICTIONS)}
    return joined == files


def _read_sums(record: Path) -> dict[str, str]:
    content = read_json(record)
    try:
        return {str(name): str(value) for name, value in content["sha256"].items()}
    except (KeyError, TypeError, AttributeError):
        raise UnreadableFileError(f"{record}: damaged") from None
