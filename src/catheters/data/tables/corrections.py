"""Published corrections of labels: a positive that stands in the wrong column moves to the right one."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from catheters.errors import listed, unknown_name
from catheters.io.csv_files import TableError, check_columns, line_number, read_csv
from catheters.io.near_misses import same_id_hint
from catheters.runtime.console import say, warn

CORRECTIONS_SHOWN = 30
"""Corrections that are printed; the file has all."""


def apply_corrections(
    labels: npt.NDArray[np.float32],
    uids: npt.NDArray[np.str_],
    label_columns: tuple[str, ...],
    file: Path,
    uid_column: str,
    source: str,
) -> npt.NDArray[np.float32]:
    """Move positives as the file says, row by row, and print what was moved.

    Args:
        labels: (N, K) 0, 1 or NaN; left as they are.
        uids: (N,) image ids.
        label_columns: (K,) names.
        file: a CSV with the columns `uid_column`, `label`, which becomes 0, and `new_label`, which becomes 1.
        uid_column: name of the id column.
        source: where the ids come from, for the messages.

    Returns:
        (N, K) the corrected labels.

    Raises:
        TableError: the file is missing or wrong, or made for other labels than these.
    """
    frame = _read_corrections(file, uid_column)
    corrected = labels.copy()
    row_of_uid = {uid: row for row, uid in enumerate(uids.tolist())}
    done, unknown = [], set()
    for position, (uid, label, new_label) in enumerate(frame.itertuples(index=False)):
        try:
            old, new = _columns_of(label, new_label, label_columns)
        except TableError as error:
            raise TableError(f"{file}: line {line_number(frame, position, file)}: {error}") from None
        if uid not in row_of_uid:
            unknown.add(uid)
            continue
        of_image = corrected[row_of_uid[uid]]
        if {float(of_image[old]), float(of_image[new])} != {0.0, 1.0}:
            before, after = ("no value" if np.isnan(of_image[k]) else f"{of_image[k]:g}" for k in (old, new))
            raise TableError(
                f"{file}: line {line_number(frame, position, file)}: in the label table {uid} has {before} "
                f"for '{label}' and {after} for '{new_label}', where 1 and 0 are expected; the corrections "
                "are for another table"
            )
        remark = "" if of_image[old] else " (already applied)"
        of_image[old], of_image[new] = 0, 1
        done.append(f"{uid}: {label} -> {new_label}{remark}")
    if not done:
        raise TableError(
            f"label_corrections={file}: none of its {len(frame)} rows has an id in {source}, where an id looks like "
            f"{uids[0]}{same_id_hint(sorted(unknown), row_of_uid)}"
        )
    _print_corrections(done, file)
    if unknown:
        warn(
            f"label_corrections={file}: {len(unknown)} of its ids are no id in {source}, {min(unknown)} for "
            f"one{same_id_hint(sorted(unknown), row_of_uid)}"
        )
    return corrected


def _read_corrections(file: Path, uid_column: str) -> pd.DataFrame:
    """The three columns, in the order id, label, new_label."""
    columns = [uid_column, "label", "new_label"]
    if not file.is_file():
        raise TableError(
            f"label_corrections={file}: no such file; a CSV with the columns {listed(columns)} is expected"
        )
    frame = read_csv(file, row_is_of="correction")
    check_columns(frame, tuple(columns), file)
    return frame[columns]


def _columns_of(label: str, new_label: str, label_columns: tuple[str, ...]) -> tuple[int, int]:
    for name in (label, new_label):
        if name not in label_columns:
            raise TableError(unknown_name(name, "one of label_columns", label_columns))
    if label == new_label:
        raise TableError(f"label and new_label are both '{label}'; nothing is corrected")
    return label_columns.index(label), label_columns.index(new_label)


def _print_corrections(done: list[str], file: Path) -> None:
    say(f"{len(done)} label corrections from {file}:")
    for line in done[:CORRECTIONS_SHOWN]:
        say(f"  {line}")
    if len(done) > CORRECTIONS_SHOWN:
        say(f"  ... and {len(done) - CORRECTIONS_SHOWN} more")
