"""`finished.json` of a fold, a seed or a run: that it is finished, and the checksums of its files.

It is deleted before one of the files changes and written last: whoever asks whether something is finished asks for it.
Version 0.2.0 wrote none. There, what was written last said so; a run that is resumed gets the records, see `adopt`.
"""

import json
from collections.abc import Collection
from pathlib import Path

from catheters.errors import UserError
from catheters.io.files import UnreadableFileError, read_json, sha256_of, write_text
from catheters.io.run_record import is_of_version_0_2
from catheters.io.torch_files import check_archive

FILE_NAME = "finished.json"
LINES_FILE = "predictions_lines.csv"
MEASUREMENTS_FILE = "predictions_measurements.csv"
"""Of a run, out of fold; predict.py's are named after its predictions."""
FILES = {
    "fold": ("best.pt", "best_raw.pt", "predictions.csv", LINES_FILE, MEASUREMENTS_FILE),
    "seed": ("final.pt", "final_raw.pt"),
}
"""Of a finished fold or seed: its checkpoint, that of the raw weights if it has one, its predictions, its lines and
what was measured if its model finds any."""
LAST_FILE_OF_0_2 = {"fold": "predictions.csv", "seed": "curves.png"}


def is_finished(folder: Path) -> bool:
    """Whether a fold or seed of this folder has been trained, predicted and recorded."""
    return (folder / FILE_NAME).exists() or (
        is_of_version_0_2(folder.parent) and (folder / LAST_FILE_OF_0_2[_kind(folder)]).exists()
    )


def finished_folds(run_folder: Path) -> list[Path]:
    """Folders of the folds that are, in the order of their names."""
    return [folder for folder in sorted(run_folder.glob("fold*")) if is_finished(folder)]


def write_finished(folder: Path, names: Collection[str] | None = None) -> None:
    """Record that a folder is finished, with the SHA-256 of its files.

    Args:
        folder: of a fold, a seed or a run.
        names: its files, of which those that are not there are left out; None: those of a fold or seed.
    """
    names = FILES[_kind(folder)] if names is None else names
    sums = {name: sha256_of(folder / name) for name in names if (folder / name).is_file()}
    write_text(folder / FILE_NAME, json.dumps({"sha256": sums}, indent=2) + "\n")


def forget_finished(folder: Path) -> None:
    """Delete the record, before one of its files is written again."""
    (folder / FILE_NAME).unlink(missing_ok=True)


def adopt(run_folder: Path) -> None:
    """Give the finished folds and seeds of a run of version 0.2.0 their records.

    Raises:
        UserError: a checkpoint of them is missing or damaged.
    """
    for folder in sorted([*run_folder.glob("fold*"), *run_folder.glob("seed*")]):
        if not folder.is_dir() or not is_finished(folder) or (folder / FILE_NAME).exists():
            continue
        checkpoint, raw = FILES[_kind(folder)][:2]
        try:
            check_archive(folder / checkpoint)
            if (folder / raw).exists():
                check_archive(folder / raw)
        except UnreadableFileError as error:
            last = folder / LAST_FILE_OF_0_2[_kind(folder)]
            raise UserError(f"{error}; {_remedy(folder, last)}") from None
        write_finished(folder)


def remedy(folder: Path) -> str:
    """What mends a fold or seed."""
    return _remedy(folder, folder / FILE_NAME)


def _remedy(folder: Path, file: Path) -> str:
    return (
        f"delete {file} and run train.py as before: {folder.name} is then made again from its snapshot, or trained "
        "again where that is damaged too"
    )


def check_finished(folder: Path, how_to_mend: str | None = None, names: Collection[str] | None = None) -> None:
    """Compare files with the record; without one nothing is known of them.

    Args:
        folder: of a fold, a seed or a run.
        how_to_mend: what to do about a damaged file, the end of the message; None: the `remedy` of a fold or seed.
        names: the files to compare; None: all that are recorded.

    Raises:
        UserError: a file is missing or another than was written, or the record is damaged.
    """
    record = folder / FILE_NAME
    if not record.exists():
        return
    how_to_mend = remedy(folder) if how_to_mend is None else how_to_mend
    try:
        sums = _read_sums(record)
    except UnreadableFileError as error:
        raise UserError(f"{error}; {how_to_mend}") from None
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

    Runs of version 0.2.0, which have no record, are taken as they are.
    """
    record = run_folder / FILE_NAME
    folds = finished_folds(run_folder)
    if not record.exists():
        return not any((folder / FILE_NAME).exists() for folder in folds)
    try:
        joined = {name: value for name, value in _read_sums(record).items() if name.endswith("/predictions.csv")}
    except UnreadableFileError:
        return False
    files = [folder / "predictions.csv" for folder in folds]
    return joined == {f"{file.parent.name}/{file.name}": sha256_of(file) for file in files if file.is_file()}


def _kind(folder: Path) -> str:
    return "seed" if folder.name.startswith("seed") else "fold"


def _read_sums(record: Path) -> dict[str, str]:
    content = read_json(record)
    try:
        return {str(name): str(value) for name, value in content["sha256"].items()}
    except (KeyError, TypeError, AttributeError):
        raise UnreadableFileError(f"{record}: damaged") from None
