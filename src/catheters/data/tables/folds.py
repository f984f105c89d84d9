"""Folds for cross-validation: grouped by patient, balanced in every label."""

from typing import Any

import numpy as np
import numpy.typing as npt

from catheters.data.tables.label_table import LabelTable
from catheters.errors import UserError
from catheters.runtime.console import warn

MAX_PASSES = 50
"""Passes of `_refine` over all patients; real tables settle in fewer than ten."""


def choose_folds(table: LabelTable, num_folds: int | None, seed: int) -> npt.NDArray[np.int8]:
    """(N,) int8, the fold of each image: the table's own, or as `assign_folds` assigns it; all 0 for None."""
    if num_folds is None:
        return np.zeros(len(table), dtype=np.int8)
    if table.folds is not None:
        return table.folds
    return assign_folds(table.patient_ids, table.labels, num_folds, seed)


def in_several_folds(folds: npt.NDArray[np.int8], names: npt.NDArray[Any]) -> list[Any]:
    """Those of `names`, of the patient or the pixels of each image, that occur in more than one fold; sorted."""
    unique, name_of_image = np.unique(names, return_inverse=True)
    lowest = np.full(len(unique), np.iinfo(np.int8).max, dtype=np.int8)
    np.minimum.at(lowest, name_of_image, folds)
    highest = np.zeros(len(unique), dtype=np.int8)
    np.maximum.at(highest, name_of_image, folds)
    several: list[Any] = unique[lowest < highest].tolist()
    return several


def leaking_patients(folds: npt.NDArray[np.int8], patient_ids: npt.NDArray[np.str_]) -> list[str]:
    """What to say of patients in more than one fold: nothing, or one text."""
    patients = in_several_folds(folds, patient_ids)
    return [f"patients in more than one fold: {len(patients)}, {patients[0]} for one"] if patients else []


def refuse_leaks(leaks: list[str], *, are_allowed: bool) -> None:
    """Raise a UserError for what stands in several folds; only warn where that is allowed."""
    if not leaks:
        return
    found = f"{'; '.join(leaks)}: a model would be scored on what it was trained on"
    if are_allowed:
        warn(f"{found}; allow_leaking_folds=True")
        return
    raise UserError(
        f"{found}. Mend the table, list images in exclude_ids (preproc_npy.py --audit shows all), or set "
        "allow_leaking_folds=True"
    )


def assign_folds(
    patient_ids: npt.NDArray[np.str_], labels: npt.NDArray[np.float32], num_folds: int, seed: int
) -> npt.NDArray[np.int8]:
    """Assign patients to folds so that every fold has its share of images, and of each label's positives and of the
    images of which a label is known.

    Whole patients are assigned, the ones with the most of what is rare first, each to the fold where it brings
    the counts nearest to their share (the greedy idea of Sechidis et al. 2011, "On the stratification of multi-label
    data", with patients in place of images). Single patients then change folds as long as that helps, which repairs
    what the greedy order could not see.

    Args:
        patient_ids: (N,) patient of each image.
        labels: (N, K) 0, 1 or NaN.
        num_folds: number of folds.
        seed: breaks ties and orders patients with equal counts.

    Returns:
        (N,) int8, the fold of each image, from 0.

    Raises:
        UserError: fewer patients than folds.
    """
    patients, patient_of_image = np.unique(patient_ids, return_inverse=True)
    if len(patients) < num_folds:
        raise UserError(f"num_folds={num_folds}, but the table has {len(patients)} patients: no fold may be empty")
    is_known = ~np.isnan(labels)
    # Of each image: the labels that it has, those that are known of it where that is not all, itself.
    columns = np.column_stack([labels == 1, is_known[:, ~is_known.all(axis=0)], np.ones(len(labels))])
    counts = np.zeros((len(patients), columns.shape[1]))
    np.add.at(counts, patient_of_image, columns)

    # The imbalance of positives, or of known images, counts in relation to how many there are to share.
    totals = counts.sum(axis=0)
    weights = counts[:, totals > 0] / totals[totals > 0]
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(patients))
    order = order[np.argsort(-weights[order].max(axis=1), kind="stable")]
    fold_of_patient = _assign_patients(weights, order, num_folds)
    _refine(weights, order, fold_of_patient, num_folds)
    return fold_of_patient[patient_of_image]


def _assign_patients(
    weights: npt.NDArray[np.float64], order: npt.NDArray[np.intp], num_folds: int
) -> npt.NDArray[np.int8]:
    filled = np.zeros((num_folds, weights.shape[1]))
    fold_of_patient = np.empty(len(weights), dtype=np.int8)
    for patient in order:
        # Adding w to a fold that holds f changes the sum of squares by w * (2 f + w); the second term is the same for
        # all folds.
        fold = int(np.argmin(filled @ weights[patient]))
        fold_of_patient[patient] = fold
        filled[fold] += weights[patient]
    return fold_of_patient


def _refine(
    weights: npt.NDArray[np.float64],
    order: npt.NDArray[np.intp],
    fold_of_patient: npt.NDArray[np.int8],
    num_folds: int,
) -> None:
    """Move patients, one at a time and in place, while the sum of squared fold shares falls."""
    filled = np.zeros((num_folds, weights.shape[1]))
    np.add.at(filled, fold_of_patient, weights)
    patients_in_fold = np.bincount(fold_of_patient, minlength=num_folds)
    for _ in range(MAX_PASSES):
        has_moved = False
        for patient in order:
            old = fold_of_patient[patient]
            if patients_in_fold[old] == 1:
                continue
            share = weights[patient]
            filled[old] -= share
            cost = filled @ share
            new = int(np.argmin(cost))
            if cost[new] < cost[old] - 1e-15:
                fold_of_patient[patient] = new
                patients_in_fold[old] -= 1
                patients_in_fold[new] += 1
                has_moved = True
            filled[fold_of_patient[patient]] += share
        if not has_moved:
            return


def fold_table(
    folds: npt.NDArray[np.int8],
    patient_ids: npt.NDArray[np.str_],
    labels: npt.NDArray[np.float32],
    label_columns: tuple[str, ...],
) -> str:
    """A text table: images, patients and positives of each label in every fold, `12/80` where 80 are known."""
    num_folds = int(folds.max()) + 1
    rows = [
        ("images", [f"{(folds == fold).sum()}" for fold in range(num_folds)]),
        ("patients", [f"{len(np.unique(patient_ids[folds == fold]))}" for fold in range(num_folds)]),
    ]
    rows += [
        (label, [_positives(labels[:, k], folds == fold) for fold in range(num_folds)])
        for k, label in enumerate(label_columns)
    ]
    width = max(len(name) for name, _ in rows)
    column = max(9, *(len(count) + 2 for _, counts in rows for count in counts))
    lines = [" " * width + "".join(f"{f'fold {fold}':>{column}}" for fold in range(num_folds))]
    lines += [f"{name:<{width}}" + "".join(f"{count:>{column}}" for count in counts) for name, counts in rows]
    return "\n".join(lines)


def _positives(labels: npt.NDArray[np.float32], is_in: npt.NDArray[np.bool_]) -> str:
    """How many of some images have a label, `12/80` where it is known of 80 only."""
    positives, num_known = int((labels[is_in] == 1).sum()), int((~np.isnan(labels[is_in])).sum())
    return f"{positives}/{num_known}" if np.isnan(labels).any() else f"{positives}"
