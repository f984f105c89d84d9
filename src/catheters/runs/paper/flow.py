"""What became of every image of the label table: evaluated, or left out, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from catheters.config.settings import Settings
from catheters.data.cache.index import ABSENT, CacheError, CacheRow, read_index
from catheters.data.preprocessing import EXCLUDED
from catheters.data.tables.label_rules import read_patients
from catheters.errors import counted
from catheters.evaluation.caveats import LEAKS
from catheters.io.csv_files import TableError, read_csv
from catheters.runs.evaluation.inputs import Input
from catheters.viz.flow_diagram import Stage, draw_flow

NOT_KEPT, LISTED = "dropped by keep_rows", "listed in exclude_ids"
NO_FILE, UNREADABLE, INVERTED = "no such file", "could not be read", "inverted grayscale, excluded by the settings"
NOT_CACHED, NOT_IN_DEBUG = "not in the image cache", "not one of the debug run's patients"
OTHER_FOLD, NO_REASON = "in a fold that is not finished", "no prediction, it is not known why"
UNPREDICTED = "could not be predicted"
CHECKED = (NO_FILE, UNREADABLE, INVERTED, NOT_CACHED)
"""What the image cache knows."""


@dataclass(frozen=True, kw_only=True)
class Count:
    """Images and their patients; None where nobody says whose the images are."""

    images: int
    patients: int | None

    def describe(self) -> dict[str, int | None]:
        """As plain data."""
        return {"images": self.images, "patients": self.patients}

    def __str__(self) -> str:
        images = _counted(self.images, "image")
        return images if self.patients is None else f"{images}, {_counted(self.patients, 'patient')}"


@dataclass(frozen=True, kw_only=True)
class FoldCount:
    """The images of one fold.

    Attributes:
        fold: its number.
        validation: its images, which its model has not learnt from.
        training: all others, which it has; None where that is not known, since not all folds are finished.
    """

    fold: int
    validation: Count
    training: Count | None


@dataclass(frozen=True, kw_only=True)
class ImageFlow:
    """From the label table to what is evaluated.

    Attributes:
        table: its file.
        in_table: its rows.
        left_out_of_study: reason -> rows that the settings leave out.
        studied: the others: X-rays that are looked for.
        left_out: reason -> of these, images without a prediction.
        evaluated: those with one.
        without_labels: of these, images of which no label is known.
        folds: the parts; empty where the predictions name none.
        is_out_of_fold: whether a run's own models have predicted them so.
        rows: `uid`, `patient` and `reason` of each image that is left out.
    """

    table: str
    in_table: Count
    left_out_of_study: dict[str, Count]
    studied: Count
    left_out: dict[str, Count]
    evaluated: Count
    without_labels: int
    folds: tuple[FoldCount, ...]
    is_out_of_fold: bool
    rows: pd.DataFrame

    def describe(self) -> dict[str, Any]:
        """The object `images` of `metrics.json`."""
        return {
            "in_label_table": self.in_table.describe(),
            "left_out_of_study": [{"reason": why} | count.describe() for why, count in self.left_out_of_study.items()],
            "looked_for": self.studied.describe(),
            "left_out": [{"reason": why} | count.describe() for why, count in self.left_out.items()],
            "evaluated": self.evaluated.describe(),
            "without_known_label": self.without_labels,
        }

    @property
    def num_unreadable(self) -> int:
        """X-rays that are there and cannot be read."""
        return sum(self.left_out[reason].images for reason in (UNREADABLE, UNPREDICTED) if reason in self.left_out)


def trace_images(given: Input) -> ImageFlow:
    """Count the images of an evaluation's label table by what became of them.

    Args:
        given: the predictions beside their label table.
    """
    truth, evaluated = given.truth, given.evaluated
    settings = given.settings
    raw = read_csv(Path(truth.source))
    is_studied = raw.index.isin(truth.frame.index)
    listed = _listed_ids(settings)
    dropped = raw[~is_studied]
    uid_column = next(name for name in (given.uid_column, *_own_column(settings), *raw.columns) if name in raw)
    dropped_uids = dropped[uid_column].to_numpy(dtype=np.str_)
    dropped_patients = _patients_of(dropped, settings, Path(truth.source))
    dropped_reasons = np.where(np.isin(dropped_uids, list(listed)), LISTED, NOT_KEPT)

    patients = truth.patient_ids
    is_missing = np.full(len(truth.uids), True)
    is_missing[given.rows] = False
    missing = np.flatnonzero(is_missing)
    reasons = np.array(_reasons(given, truth.uids[missing].tolist(), listed), dtype=np.str_)
    left_out_patients = None if patients is None else patients[missing]
    everyone = None
    if patients is not None and dropped_patients is not None:
        everyone = np.concatenate([patients, dropped_patients])
    return ImageFlow(
        table=truth.source,
        in_table=Count(images=len(raw), patients=None if everyone is None else len(np.unique(everyone))),
        left_out_of_study=_by_reason(dropped_reasons, dropped_patients),
        studied=_count(len(truth.uids), patients),
        left_out=_by_reason(reasons, left_out_patients),
        evaluated=_count(len(evaluated), evaluated.patient_ids),
        without_labels=int((~evaluated.is_known.any(axis=1)).sum()),
        folds=_folds_of(given),
        is_out_of_fold=settings is not None and not any(caveat.kind in LEAKS for caveat in evaluated.caveats),
        rows=pd.DataFrame(
            {
                given.uid_column: np.concatenate([dropped_uids, truth.uids[missing]]),
                "patient": np.concatenate(
                    [
                        np.full(len(group), "") if whose is None else whose
                        for group, whose in ((dropped, dropped_patients), (missing, left_out_patients))
                    ]
                ),
                "reason": np.concatenate([dropped_reasons, reasons]),
            }
        ),
    )


def list_steps(flow: ImageFlow) -> pd.DataFrame:
    """The table `flow.csv`: one row per number, `step`, `reason`, `images` and `patients`."""
    lines = [("in the label table", "", flow.in_table)]
    lines += [("left out of the study", reason, count) for reason, count in flow.left_out_of_study.items()]
    lines += [("looked for", "", flow.studied)]
    lines += [("left out", reason, count) for reason, count in flow.left_out.items()]
    lines += [("evaluated", "", flow.evaluated)]
    for fold in flow.folds:
        lines.append((f"fold {fold.fold}, validation", "", fold.validation))
        if fold.training is not None:
            lines.append((f"fold {fold.fold}, training", "", fold.training))
    rows = [
        (step, reason, count.images, "" if count.patients is None else count.patients) for step, reason, count in lines
    ]
    return pd.DataFrame(rows, columns=["step", "reason", "images", "patients"])


def draw_images(flow: ImageFlow) -> Figure:
    """The flow diagram."""
    return draw_flow(*_diagram(flow))


def _diagram(flow: ImageFlow) -> tuple[list[Stage], list[list[str]]]:
    stages = [
        Stage(
            lines=[f"In {Path(flow.table).name}", str(flow.in_table)],
            left_out=_side("Left out of the study", flow.left_out_of_study),
        )
    ]
    checked = {reason: count for reason, count in flow.left_out.items() if reason in CHECKED}
    others = {reason: count for reason, count in flow.left_out.items() if reason not in CHECKED}
    stages.append(Stage(lines=["X-rays looked for", str(flow.studied)], left_out=_side("Left out", checked or others)))
    if checked and others:
        usable = Count(images=flow.studied.images - sum(count.images for count in checked.values()), patients=None)
        stages.append(Stage(lines=["X-rays found and readable", str(usable)], left_out=_side("Left out", others)))
    heading = "Evaluated, each by a model that has not seen the patient" if flow.is_out_of_fold else "Evaluated"
    lines = [heading, str(flow.evaluated)]
    if flow.without_labels:
        lines.append(f"of these no label is known: {_counted(flow.without_labels, 'image')}")
    stages.append(Stage(lines=lines))
    parts = []
    for fold in flow.folds:
        part = [f"Fold {fold.fold}", f"validation: {_counted(fold.validation.images, 'image')}"]
        part.append(f"  {_counted(fold.validation.patients or 0, 'patient')}")
        if fold.training is not None:
            part.append(f"training: {_counted(fold.training.images, 'image')}")
            part.append(f"  {_counted(fold.training.patients or 0, 'patient')}")
        parts.append(part)
    return stages, parts


def _side(heading: str, counts: dict[str, Count]) -> list[str]:
    if not counts:
        return []
    total = sum(count.images for count in counts.values())
    return [f"{heading}: {_counted(total, 'image')}", *(f"{count.images:,}  {why}" for why, count in counts.items())]


def _own_column(settings: Settings | None) -> tuple[str, ...]:
    return () if settings is None else (settings.uid_column,)


def _listed_ids(settings: Settings | None) -> set[str]:
    """The ids that `exclude_ids` names; none where the file is not here."""
    if settings is None or settings.exclude_ids is None or not Path(settings.exclude_ids).is_file():
        return set()
    lines = Path(settings.exclude_ids).read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return {line.strip() for line in lines} - {""}


def _patients_of(frame: pd.DataFrame, settings: Settings | None, file: Path) -> npt.NDArray[np.str_] | None:
    """(n,) patients of rows that the study leaves out; None where they cannot be told, as that may be the reason."""
    if frame.empty:
        return np.empty(0, dtype=np.str_)
    if settings is None or settings.patient_column not in frame:
        return None
    try:
        return read_patients(frame, settings.patient_column, settings.patient_pattern, file)
    except TableError:
        return None


def _reasons(given: Input, uids: Sequence[str], listed: set[str]) -> list[str]:
    """Why each of these images of the label table has no prediction."""
    if not uids:
        return []
    entries = _cache_rows(given.settings)
    unpredicted = _unpredicted(given)
    return [_reason(given, uid, listed, entries, unpredicted) for uid in uids]


def _reason(
    given: Input, uid: str, listed: set[str], entries: dict[str, CacheRow] | None, unpredicted: set[str]
) -> str:
    settings = given.settings
    if uid in listed:
        return LISTED
    if uid in unpredicted:
        return UNPREDICTED
    if settings is None or entries is None:
        return NO_REASON
    entry = entries.get(uid)
    if entry is None:
        return NOT_CACHED
    if entry.reason is not None:
        if entry.state == ABSENT:
            return NO_FILE
        return INVERTED if entry.reason.startswith(EXCLUDED) else UNREADABLE
    if settings.debug:
        return NOT_IN_DEBUG
    folds = set() if given.evaluated.folds is None else set(given.evaluated.folds.tolist())
    return NO_REASON if folds >= set(range(settings.num_folds)) else OTHER_FOLD


def _cache_rows(settings: Settings | None) -> dict[str, CacheRow] | None:
    """Id -> what the image cache of a run says of it; None where the cache is not here."""
    if settings is None:
        return None
    try:
        return {row.uid: row for row in read_index(settings.cache_file).rows}
    except CacheError:
        return None


def _unpredicted(given: Input) -> set[str]:
    """Ids that the file of predictions gives a reason for having none."""
    frame = read_csv(given.file)
    if "reason" not in frame:
        return set()
    return set(frame.loc[frame["reason"] != "", given.uid_column])


def _folds_of(given: Input) -> tuple[FoldCount, ...]:
    evaluated, settings = given.evaluated, given.settings
    if evaluated.folds is None:
        return ()
    numbers = np.unique(evaluated.folds).tolist()
    is_whole = settings is not None and set(numbers) == set(range(settings.num_folds))
    counts = []
    for fold in numbers:
        is_in = evaluated.folds == fold
        training = None
        if is_whole:
            training = _count(int((~is_in).sum()), evaluated.patient_ids[~is_in])
        validation = _count(int(is_in.sum()), evaluated.patient_ids[is_in])
        counts.append(FoldCount(fold=int(fold), validation=validation, training=training))
    return tuple(counts)


def _by_reason(reasons: npt.NDArray[np.str_], patients: npt.NDArray[np.str_] | None) -> dict[str, Count]:
    counts = {}
    for reason in dict.fromkeys(reasons.tolist()):
        is_of = reasons == reason
        counts[reason] = _count(int(is_of.sum()), None if patients is None else patients[is_of])
    return counts


def _count(images: int, patients: npt.NDArray[np.str_] | None) -> Count:
    return Count(images=images, patients=None if patients is None else len(np.unique(patients)))


def _counted(number: int, noun: str) -> str:
    return counted(number, noun).replace(str(number), f"{number:,}", 1)
