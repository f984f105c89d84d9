"""`extra_tables`: further label tables that a run learns from, and never validates on.

An image of a patient whom a fold validates on, or with the pixels of an image that it does, is not learnt from there.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from catheters.config.settings import IMAGE_WEIGHT, Settings
from catheters.data.tables.label_table import LabelTable, read_label_table
from catheters.errors import UserError, counted
from catheters.runs.build import build_table_source
from catheters.runs.datasets import load_table
from catheters.runs.run_data import TRAINS_ALWAYS, TRAINS_NEVER, RunData
from catheters.runtime.console import say, warn


def read_extra_tables(settings: Settings) -> list[tuple[Settings, LabelTable]]:
    """The label tables of `extra_tables`, each with the settings by which it was read.

    Raises:
        UserError: see `read_label_table`; or a table has none of the labels.
    """
    tables = []
    for number in range(len(settings.extra_tables)):
        of_table = settings.of_extra_table(number)
        source = build_table_source(of_table, may_lack_labels=True)
        table = read_label_table(source)
        if settings.teacher is None and np.isnan(table.targets).all():
            raise UserError(
                f"extra_tables[{number}]: {source.file} tells no label of any image, so there is nothing to learn from "
                "it without a teacher; look at its columns, derived_labels and label_values"
            )
        tables.append((of_table, table))
    return tables


def with_extra_tables(settings: Settings, data: RunData) -> RunData:
    """The data with that of `extra_tables`; how many images they are, and what is known of them, is said.

    Raises:
        UserError: see `read_extra_tables`, `load_table`.
    """
    if not settings.extra_tables:
        return data
    loaded = [
        load_table(of_table, settings, table, np.full(len(table), TRAINS_ALWAYS, dtype=np.int8))
        for of_table, table in read_extra_tables(settings)
    ]
    weights = settings.extra_weights
    is_weighted = settings.weight_column is not None or any(weight != 1 for weight in weights)
    is_weighted |= any(IMAGE_WEIGHT in of.numbers for of in loaded)
    extra = []
    for number, (of_table, weight) in enumerate(zip(loaded, weights, strict=True)):
        where = f"extra_tables[{number}] ({settings.of_extra_table(number).cache_name})"
        _say_what_is_known(of_table, settings.label_columns, where)
        apart = of_table if settings.all_data else _keep_apart(of_table, data, where)
        extra.append(_weighted(apart, weight) if is_weighted else apart)
    digest = hashlib.sha256(data.fingerprint.encode())
    for of_table in extra:
        digest.update(of_table.fingerprint.encode() + of_table.folds.tobytes())
        digest.update(of_table.numbers[IMAGE_WEIGHT].tobytes() if is_weighted else b"")
    own = _weighted(data, 1.0) if is_weighted else data
    return dataclasses.replace(own, extra=tuple(extra), fingerprint=digest.hexdigest())


def _keep_apart(of_table: RunData, data: RunData, where: str) -> RunData:
    """The images of a further table, with the fold that must not learn from each.

    A patient of the table is one of the label table's by the id, or by an image with the same pixels.
    """
    by_patient = _folds_of(of_table.patient_ids, data.patient_ids, data.folds)
    by_pixels = _folds_of(of_table.pixel_ids, data.pixel_ids, data.folds)
    patients, patient_of_image = np.unique(of_table.patient_ids, return_inverse=True)
    lowest = np.full(len(patients), np.iinfo(np.int8).max, dtype=np.int8)
    highest = np.full(len(patients), TRAINS_ALWAYS, dtype=np.int8)
    for folds in (by_patient, by_pixels):
        is_known = folds != TRAINS_ALWAYS
        np.minimum.at(lowest, patient_of_image[is_known], folds[is_known])
        np.maximum.at(highest, patient_of_image[is_known], folds[is_known])
    fold_of_patient = np.where(lowest < highest, TRAINS_NEVER, highest)
    folds = fold_of_patient[patient_of_image].astype(np.int8)
    is_shared = folds != TRAINS_ALWAYS
    if is_shared.any():
        shared = counted(int((fold_of_patient != TRAINS_ALWAYS).sum()), "patient")
        say(
            f"{where}: {counted(int(is_shared.sum()), 'image')} of {shared} of the label table, "
            f"{of_table.uids[is_shared][0]} for one: left out where a fold validates on them"
        )
    if (by_pixels != TRAINS_ALWAYS).any():
        equal = by_pixels != TRAINS_ALWAYS
        warn(
            f"{where}: {counted(int(equal.sum()), 'image')} with the pixels of one of the label table, "
            f"{of_table.uids[equal][0]} for one: it counts twice where it trains; list it in exclude_ids"
        )
    if (lowest < highest).any():
        name = str(patients[lowest < highest][0])
        warn(f"{where}: left out: images of {name} are in several folds of the label table, by ids and pixels")
    return dataclasses.replace(of_table, folds=folds)


def _folds_of(
    names: npt.NDArray[Any], known_names: npt.NDArray[Any], known_folds: npt.NDArray[np.int8]
) -> npt.NDArray[np.int8]:
    """(n,) the fold of each name among the known ones, (N,), of which each has one; `TRAINS_ALWAYS` of others."""
    unique, first = np.unique(known_names, return_index=True)
    place = np.minimum(np.searchsorted(unique, names), len(unique) - 1)
    return np.where(unique[place] == names, known_folds[first][place], TRAINS_ALWAYS).astype(np.int8)


def _weighted(data: RunData, weight: float) -> RunData:
    """The data with a weight for each image: the table's own, if it has one, times `weight`."""
    own = data.numbers.get(IMAGE_WEIGHT, np.ones(len(data.rows), dtype=np.float32))
    return dataclasses.replace(data, numbers={**data.numbers, IMAGE_WEIGHT: (own * weight).astype(np.float32)})


def _say_what_is_known(data: RunData, labels: Sequence[str], where: str) -> None:
    """Images, patients, and of each label how many are positive and of how many it is known."""
    known = ~np.isnan(data.targets)
    counts = [
        f"{label} {int((data.targets[:, column] > 0).sum())}/{int(known[:, column].sum())}"
        for column, label in enumerate(labels)
        if known[:, column].any()
    ]
    patients = counted(len(np.unique(data.patient_ids)), "patient")
    if not counts:
        say(f"{where}: {counted(len(data.rows), 'image')} of {patients} more to learn from, of which no label is known")
        return
    unknown = len(labels) - len(counts)
    say(
        f"{where}: {counted(len(data.rows), 'image')} of {patients} more to learn from; positives of those known: "
        f"{', '.join(counts)}" + (f"; {counted(unknown, 'label')} unknown" if unknown else "")
    )
