"""True labels, and predictions matched to them: rows by id, columns by name."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from catheters.evaluation.caveats import Caveat
from catheters.evaluation.prediction_set import PredictionSet, find_torn_patient
from catheters.io.csv_files import TableError, check_filled
from catheters.io.near_misses import same_id_hint, without_decimals
from catheters.runtime.console import say


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The label table that predictions are held against.

    Attributes:
        source: where it comes from, for messages.
        uids: (N,) image ids.
        labels: (N, K) 0, 1 or NaN where it is unknown.
        patient_ids: (N,) patients; None where the table does not say.
        frame: (N rows) the table itself, as text, for subgroups; its index counts the rows of the file.
    """

    source: str
    uids: npt.NDArray[np.str_]
    labels: npt.NDArray[np.float32]
    patient_ids: npt.NDArray[np.str_] | None
    frame: pd.DataFrame


def match_rows(truth: Truth, uids: list[str], predictions_file: Path) -> npt.NDArray[np.intp]:
    """The rows of the label table that hold the predicted images, (n,); these may be a part of it.

    Raises:
        TableError: a predicted image has no row in the label table.
    """
    row_of = {uid: row for row, uid in enumerate(truth.uids.tolist())}
    unknown = [uid for uid in uids if uid not in row_of]
    if unknown:
        raise TableError(
            f"{predictions_file}: {len(unknown)} of {len(uids)} ids have no row in {truth.source}, {unknown[0]!r} "
            "for one; give the label table of these images with --labels, or leave their rows out of the predictions"
            f"{same_id_hint(unknown, row_of)}"
        )
    return np.array([row_of[uid] for uid in uids], dtype=np.intp)


def hold_against(
    truth: Truth,
    predictions: pd.DataFrame,
    uid_column: str,
    labels: tuple[str, ...],
    file: Path,
    name: str,
    exclusive: tuple[tuple[str, ...], ...] = (),
) -> tuple[PredictionSet, npt.NDArray[np.intp]]:
    """Predictions beside the truth, and (n,) the rows of the label table that they are of.

    Patients are those of the label table, with a caveat where the predictions group the images otherwise, or else of
    the predictions; where neither says, each image is a patient of its own, with a caveat. Folds are those of the
    predictions.

    Args:
        truth: the label table, its labels in the order of `labels`.
        predictions: see `read_predictions`.
        uid_column: its id column.
        labels: (K,) its label columns.
        file: where they come from, for messages.
        name: what predicted, for tables.
        exclusive: groups of labels that it has a softmax over.

    Raises:
        TableError: a predicted image has no row in the label table.
    """
    uids = predictions[uid_column].tolist()
    rows = match_rows(truth, uids, file)
    caveats: list[Caveat] = []
    if truth.patient_ids is not None:
        patient_ids = truth.patient_ids[rows]
        if "patient" in predictions:
            others = _patients_of(predictions)
            caveats += _find_other_patients(patient_ids, others, np.array(uids), file, truth.source)
    elif "patient" in predictions:
        check_filled(predictions, "patient", file)
        patient_ids = _patients_of(predictions)
    else:
        text = (
            f"neither {file} nor {truth.source} says whose the images are: intervals take each for a patient of its "
            "own and come out too narrow where patients have several; name their column with --patient-column"
        )
        caveats.append(Caveat(kind="no_patients", text=text))
        patient_ids = np.array(uids, dtype=np.str_)
    folds, of_folds = _read_folds(predictions, file)
    caveats += [*of_folds, *_find_shared_patients(patient_ids, folds, file)]
    evaluated = PredictionSet(
        name=name,
        labels=labels,
        uids=np.array(uids, dtype=np.str_),
        patient_ids=patient_ids,
        folds=folds,
        targets=truth.labels[rows].astype(np.float64),
        probabilities=predictions[list(labels)].to_numpy(dtype=np.float64),
        exclusive=exclusive,
        caveats=tuple(caveats),
    )
    return evaluated, rows


def _patients_of(predictions: pd.DataFrame) -> npt.NDArray[np.str_]:
    """(n,) patients, written as in a label table that is read: 12 and 12.0 are one."""
    return np.array([without_decimals(patient) for patient in predictions["patient"]], dtype=np.str_)


def _find_other_patients(
    patient_ids: npt.NDArray[np.str_],
    others: npt.NDArray[np.str_],
    uids: npt.NDArray[np.str_],
    file: Path,
    source: str,
) -> list[Caveat]:
    is_named = others != ""
    torn = find_torn_patient(patient_ids[is_named], others[is_named])
    if torn is None:
        return []
    one, other = (uids[is_named][row] for row in torn)
    say(f"{one} and {other} are of one patient in one of {file} and {source}, and of two in the other")
    # Without ids: caveats go into cards, which leave the hospital.
    text = (
        f"{file} and {source} name other patients: images are of one in the one and of two in the other; intervals are "
        f"over those of {source}"
    )
    return [Caveat(kind="other_patients", text=text)]


def _find_shared_patients(
    patient_ids: npt.NDArray[np.str_], folds: npt.NDArray[np.int64] | None, file: Path
) -> list[Caveat]:
    if folds is None:
        return []
    num_folds = pd.Series(folds).groupby(patient_ids).nunique()
    num_shared = int((num_folds > 1).sum())
    if not num_shared:
        return []
    text = (
        f"{file}: {num_shared} of {len(num_folds)} patients are in several folds: models may have seen them, and "
        "scores be too good"
    )
    return [Caveat(kind="patients_in_several_folds", text=text)]


def _read_folds(predictions: pd.DataFrame, file: Path) -> tuple[npt.NDArray[np.int64] | None, list[Caveat]]:
    """(n,) folds; None where an image has none. Names that are no numbers are numbered."""
    if "fold" not in predictions:
        return None, []
    text = predictions["fold"]
    if (text == "").any():
        is_mixed = bool((text != "").any())
        said = f"{file}: some images have no fold: folds are passed over"
        return None, [Caveat(kind="folds_passed_over", text=said)] if is_mixed else []
    numbers = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64)
    if np.isfinite(numbers).all() and (numbers == np.round(numbers)).all():
        return numbers.astype(np.int64), []
    return np.unique(text.to_numpy(dtype=np.str_), return_inverse=True)[1].astype(np.int64), []
