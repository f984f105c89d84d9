"""What is wrong with a data set, from what every file and the label table say."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from catheters.audit.duplicates import equal_groups, near_groups
from catheters.audit.examination import Examined
from catheters.data.decoding.radiograph import NO_SUCH_FILE
from catheters.data.tables.folds import in_several_folds
from catheters.data.tables.image_folder import IMAGE_SUFFIXES
from catheters.data.tables.label_table import LabelTable
from catheters.errors import counted
from catheters.labels import EXCLUSIVE_LABELS

Severity = Literal["stop", "look", "note"]
MIN_READABLE = 0.5
"""Where fewer of the files can be read, most are elsewhere."""
BLANK_STD = 4.0
"""Greys that spread less are of no image: standard deviation, of 255."""
TINY_SIDE = 256
"""Shorter sides are those of thumbnails, in pixels."""
RARE_PATIENTS = 10
"""Labels with positives of fewer patients cannot be scored well in folds."""
MIXED_SHOWN = 4
"""Images of the rarer depth that are shown."""
USUAL_ASPECTS = (0.6, 1.7)
"""Width over height; chest radiographs lie between, 0.7 to 1.25 as a rule."""


@dataclass(frozen=True)
class Kind:
    """A kind of audit issue.

    Attributes:
        severity: "stop": scores would be wrong, or training refuses; "look": a person should; "note": good to know.
        title: what it is.
        advice: what to do about it.
    """

    severity: Severity
    title: str
    advice: str


KINDS = {
    "too little": Kind("stop", "Too little to train on", "Check dataset_folder, path_pattern and label_columns."),
    "leaking patient": Kind(
        "stop",
        "Patients in several folds",
        "Their images would be trained on and validated with. Mend fold_column, or leave the folds to the program.",
    ),
    "same image, other fold": Kind(
        "stop",
        "The same image in several folds",
        "It would be trained on and validated with. Are these one patient under two ids? Give them one, or list all "
        "but one of the files in exclude_ids.",
    ),
    "same image, other labels": Kind(
        "stop",
        "The same image with different labels",
        "At least one of them is wrong. Correct the table, or list them in exclude_ids.",
    ),
    "unreadable": Kind("look", "Files that cannot be read", "Training leaves them out. Copy them again if you can."),
    "no file": Kind("look", "Rows without a file", "Training leaves them out. Check path_pattern and the archive."),
    "blank": Kind("look", "Blank images", "Nothing can be learnt from them. List them in exclude_ids."),
    "tiny": Kind("look", "Tiny images", "Thumbnails, perhaps; a catheter's tip cannot be seen in them."),
    "inverted": Kind(
        "look",
        "Likely inverted grayscale",
        "Look at them; with inverted='invert' they are turned round, with 'exclude' left out.",
    ),
    "lateral": Kind("look", "No frontal view, by their tags", "List them in exclude_ids, or keep_rows frontal ones."),
    "not a chest": Kind("look", "No chest radiograph, by their tags", "List them in exclude_ids."),
    "raw": Kind("look", "DICOM files of raw values", "They are not meant to be looked at; use those for presentation."),
    "contradiction": Kind("look", "Labels that exclude each other", "Correct the table."),
    "nearly the same, other fold": Kind(
        "look",
        "Nearly the same image in several folds",
        "If they are one radiograph, it is trained on and validated with: give both one patient id.",
    ),
    "nearly the same, other labels": Kind(
        "look", "Nearly the same image with different labels", "If they are one radiograph, one label is wrong."
    ),
    "same image of several patients": Kind(
        "look", "The same or nearly the same image of several patients", "Are these one patient under two ids?"
    ),
    "frames": Kind("note", "Files of several images", "The first one is used."),
    "window": Kind("note", "DICOM files with a useless window", "The middle 99% of their values is shown."),
    "mixed depth": Kind(
        "note",
        "Files with and without a grey scale of their own",
        "16-bit PNG and TIFF, and DICOM without a window, are shown by the middle 99% of their values, others as they "
        "are: the same radiograph looks otherwise. Where one kind is of one hospital or class, a model may learn that; "
        "convert all in the same way.",
    ),
    "odd shape": Kind("note", "Unusually wide or high images", "Stretched to a square they are distorted: see resize."),
    "repeated": Kind(
        "note", "The same or nearly the same image more than once", "Same patient, fold and labels: it counts twice."
    ),
    "no row": Kind("note", "Files that no row names", "They are not used."),
    "rare label": Kind("note", "Labels with hardly any positives", "Their scores have wide intervals, or are NaN."),
    "no label": Kind("note", "Images without any label", "They count as negatives of every label."),
}


@dataclass(frozen=True)
class Issue:
    """An audit issue.

    Attributes:
        kind: a key of `KINDS`.
        rows: the images it is about, together; empty where it is about none.
        text: what was found.
        file: the file, where no row names it.
    """

    kind: str
    rows: tuple[int, ...]
    text: str
    file: Path | None = None


def find_issues(table: LabelTable, folds: npt.NDArray[np.int8] | None, examined: list[Examined]) -> list[Issue]:
    """All issues, the worst first.

    Args:
        table: N images.
        folds: (N,) the fold of each; None: a plain folder of files, of which neither folds nor patients are known.
        examined: (N,) what each file says.
    """
    issues = [
        *_too_little(table, folds, examined),
        *_single_files(examined),
        *_mixed_depth(examined),
        *_repetitions(table, folds, examined),
        *_labels(table),
        *_files_without_row(table),
        *(() if folds is None else _leaking_patients(table, folds, examined)),
    ]
    order = list(KINDS)
    return sorted(issues, key=lambda issue: order.index(issue.kind))


def _leaking_patients(table: LabelTable, folds: npt.NDArray[np.int8], examined: list[Examined]) -> Iterator[Issue]:
    """By the images that training would use."""
    is_readable = np.array([file.reason is None for file in examined])
    leaking = set(in_several_folds(folds[is_readable], table.patient_ids[is_readable]))
    rows_of: dict[str, list[int]] = {}
    for row, patient in enumerate(table.patient_ids.tolist()):
        if patient in leaking and is_readable[row]:
            rows_of.setdefault(patient, []).append(row)
    for patient, rows in sorted(rows_of.items()):
        yield Issue("leaking patient", tuple(rows), f"patient {patient} in folds {sorted(set(folds[rows].tolist()))}")


def _too_little(table: LabelTable, folds: npt.NDArray[np.int8] | None, examined: list[Examined]) -> Iterator[Issue]:
    """What training refuses outright."""
    is_readable = np.array([file.reason is None for file in examined])
    if not is_readable.any():
        yield Issue("too little", (), "not one file can be read")
        return
    if is_readable.mean() < MIN_READABLE:
        yield Issue("too little", (), f"{(~is_readable).sum()} of {counted(len(examined), 'file')} cannot be read")
    if folds is None:
        return
    labels = table.labels[is_readable]
    if not ((labels == 0).any(axis=0) & (labels == 1).any(axis=0)).any():
        yield Issue("too little", (), "no label has both positives and negatives among the readable images")
    for fold in np.unique(folds):
        if not is_readable[folds == fold].any():
            yield Issue("too little", (), f"fold {fold} has no readable image")


def _single_files(examined: list[Examined]) -> Iterator[Issue]:
    for row, file in enumerate(examined):
        if file.reason is not None:
            yield Issue("no file" if file.reason == NO_SUCH_FILE else "unreadable", (row,), file.reason)
            continue
        for note in file.notes:
            yield Issue(note.kind, (row,), note.text)
        height, width = file.full_shape
        if file.grey_std < BLANK_STD:
            yield Issue("blank", (row,), f"standard deviation of the greys {file.grey_std:.1f}")
        if min(file.full_shape) < TINY_SIDE:
            yield Issue("tiny", (row,), f"{width} x {height} pixels")
        elif not USUAL_ASPECTS[0] <= width / height <= USUAL_ASPECTS[1]:
            yield Issue("odd shape", (row,), f"{width} x {height} pixels")


def _mixed_depth(examined: list[Examined]) -> Iterator[Issue]:
    readable = [row for row, file in enumerate(examined) if file.reason is None]
    stretched = [row for row in readable if examined[row].is_stretched]
    if 0 < len(stretched) < len(readable):
        plain = [row for row in readable if not examined[row].is_stretched]
        text = f"{len(stretched)} of {len(readable)} images are shown by the middle 99% of their values"
        yield Issue("mixed depth", tuple(min(stretched, plain, key=len)[:MIXED_SHOWN]), text)


def _repetitions(table: LabelTable, folds: npt.NDArray[np.int8] | None, examined: list[Examined]) -> Iterator[Issue]:
    """What is worst about each group of equal files and of similar images."""
    seen = [row for row, file in enumerate(examined) if file.reason is None and file.grey_std >= BLANK_STD]
    same = [tuple(seen[i] for i in group) for group in equal_groups(examined[row].pixels_sha256 for row in seen)]
    near = [tuple(seen[i] for i in group) for group in near_groups([examined[row].perceptual_hash for row in seen])]
    same_sets = set(same)
    known: dict[str, npt.NDArray[Any]] = {}
    if folds is not None:
        known = {"folds": folds, "labels": table.labels, "patients": table.patient_ids}
    for rows, is_same in [*((rows, True) for rows in same), *((rows, False) for rows in near if rows not in same_sets)]:
        what = "the same image" if is_same else "nearly the same image, directly or by way of others"
        differs = [name for name, values in known.items() if _has_two(values[list(rows)])]
        prefix = "same image" if is_same else "nearly the same"
        if "folds" in differs:
            kind = f"{prefix}, other fold"
        elif "labels" in differs:
            kind = f"{prefix}, other labels"
        elif "patients" in differs:
            kind = "same image of several patients"
        else:
            kind = "repeated"
        yield Issue(kind, rows, f"{what}; {'other ' + ', '.join(differs) if differs else 'nothing else differs'}")


def _has_two(values: npt.NDArray[Any]) -> bool:
    """Whether (n, ...) values of the images differ; unknown labels, NaN, differ from none."""
    return any(len(np.unique(of[of == of])) > 1 for of in values.reshape(len(values), -1).T)


def _labels(table: LabelTable) -> Iterator[Issue]:
    column_of = {label: k for k, label in enumerate(table.label_columns)}
    for labels in EXCLUSIVE_LABELS:
        columns = [column_of[label] for label in labels if label in column_of]
        for row in np.flatnonzero((table.labels[:, columns] == 1).sum(axis=1) > 1):
            given = [table.label_columns[k] for k in columns if table.labels[row, k] == 1]
            yield Issue("contradiction", (int(row),), " and ".join(given))
    if len(table.label_columns) > 1:  # one label alone is a question of yes or no
        for row in np.flatnonzero((table.labels == 0).all(axis=1)):
            yield Issue("no label", (int(row),), "no label is 1")
    for label, k in column_of.items():
        is_positive = table.labels[:, k] == 1
        num_patients = len(np.unique(table.patient_ids[is_positive]))
        if num_patients < RARE_PATIENTS:
            yield Issue(
                "rare label",
                (),
                f"{label}: {counted(int(is_positive.sum()), 'positive')} of {counted(num_patients, 'patient')}",
            )


def _files_without_row(table: LabelTable) -> Iterator[Issue]:
    named = set(table.paths)
    for folder in sorted({path.parent for path in table.paths}):
        if not folder.is_dir():
            continue
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_file())
        for file in (folder / name for name in names):
            if file not in named and file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith("."):
                yield Issue("no row", (), "", file)
