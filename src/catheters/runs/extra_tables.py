"""`extra_tables`: further label tables that a run learns from, and never validates on.

An image of a patient whom a fold validates on, or with the pixels of an image that it does, is not learnt from there.
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from catheters.config.settings import IMAGE_WEIGHT, Settings
from catheters.config.validation import SHARES_IDS
from catheters.data.tables.label_rules import warn_of_similar_patient_ids
from catheters.data.tables.label_table import LabelTable, read_label_table
from catheters.errors import UserError, counted
from catheters.runs.build import build_table_source
from catheters.runs.datasets import load_table
from catheters.runs.run_data import TRAINS_ALWAYS, TRAINS_NEVER, RunData
from catheters.runtime.console import say, warn


def read_extra_tables(settings: Settings, *, may_lack_labels: bool = False) -> list[tuple[Settings, LabelTable]]:
    """The label tables of `extra_tables`, each with the settings by which it was read.

    Args:
        settings: the run's.
        may_lack_labels: whether a table may tell no label although there is no teacher yet.

    Raises:
        UserError: see `read_label_table`; or a table has none of the labels.
    """
    tables = []
    for number in range(len(settings.extra_tables)):
        of_table = settings.of_extra_table(number)
        source = build_table_source(of_table, may_lack_labels=True)
        table = read_label_table(source)
        if settings.teacher is None and not may_lack_labels and np.isnan(table.targets).all():
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
    if not settings.all_data:
        folds_of_tables = _folds_to_avoid(data, loaded, settings.share_ids)
        loaded = [dataclasses.replace(of, folds=folds) for of, folds in zip(loaded, folds_of_tables, strict=True)]
    for number, of_table in enumerate(loaded):
        where = f"extra_tables[{number}] ({settings.of_extra_table(number).cache_name})"
        _say_what_is_known(of_table, settings.label_columns, where)
        if not settings.all_data:
            _say_what_is_left_out(of_table, data, where)
    shared = [of.patient_ids for of, is_shared in zip(loaded, settings.share_ids, strict=True) if is_shared]
    of_tables = [of_table.tolist() for of_table in (data.patient_ids, *shared)]
    told = [frozenset(of_table) for of_table in of_tables]  # when each was read
    warn_of_similar_patient_ids(list(itertools.chain(*of_tables)), "label_table and extra_tables", told)
    extra = [_weighted(of, weight) if is_weighted else of for of, weight in zip(loaded, weights, strict=True)]
    digest = hashlib.sha256(data.fingerprint.encode())
    for of_table in extra:
        digest.update(of_table.fingerprint.encode() + of_table.folds.tobytes())
        digest.update(of_table.numbers[IMAGE_WEIGHT].tobytes() if is_weighted else b"")
    own = _weighted(data, 1.0) if is_weighted else data
    return dataclasses.replace(own, extra=tuple(extra), fingerprint=digest.hexdigest())


def _folds_to_avoid(data: RunData, extra: Sequence[RunData], share_ids: Sequence[bool]) -> list[npt.NDArray[np.int8]]:
    """Of each extra table (n,) the fold whose model must not learn from each image.

    Patients are the same person by their id, by an image of the same id, or by an image with the same pixels, in
    whichever tables these stand. Whoever is tied to a patient of the label table in this way, over others too, is in
    that one's fold.
    """
    tables = (data, *extra)
    # Ids that are a table's own are told from those of others by its number.
    owners = ["", *("" if shared else f"{number}" for number, shared in enumerate(share_ids))]
    ids = [
        _numbered([f"{owner}/{name}" for owner, names in zip(owners, of_tables, strict=True) for name in names])
        for of_tables in ([of.patient_ids.tolist() for of in tables], [of.uids.tolist() for of in tables])
    ]
    pixels = _numbered([pixel_id for of in tables for pixel_id in of.pixel_ids.tolist()])
    person = _persons(*ids, pixels)
    num_own = len(data.rows)
    lowest = np.full(person.max() + 1, np.iinfo(np.int8).max, dtype=np.int8)
    highest = np.full(person.max() + 1, TRAINS_ALWAYS, dtype=np.int8)
    np.minimum.at(lowest, person[:num_own], data.folds)
    np.maximum.at(highest, person[:num_own], data.folds)
    folds = np.where(lowest < highest, TRAINS_NEVER, highest).astype(np.int8)[person[num_own:]]
    return np.split(folds, np.cumsum([len(of.rows) for of in extra])[:-1])


def _numbered(names: Sequence[str] | Sequence[int]) -> npt.NDArray[np.intp]:
    """(N,) a number for each name, from 0, equal for equal ones."""
    return np.unique(names, return_inverse=True)[1]


def _persons(*names_of_images: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """(N,) a number for each image, equal where a chain of images with equal names of some kind joins two."""
    # Slow to import, and only those with further tables need it.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    num_images = len(names_of_images[0])
    sizes = [int(names.max()) + 1 for names in names_of_images]
    starts = num_images + np.cumsum([0, *sizes[:-1]])
    ends = np.concatenate([start + names for start, names in zip(starts, names_of_images, strict=True)])
    images = np.tile(np.arange(num_images), len(names_of_images))
    size = num_images + sum(sizes)
    graph = coo_array((np.ones(len(ends), dtype=np.bool_), (images, ends)), shape=(size, size))
    persons: npt.NDArray[np.intp] = connected_components(graph, directed=False)[1][:num_images].astype(np.intp)
    return persons


def _say_what_is_left_out(of_table: RunData, data: RunData, where: str) -> None:
    """Of an extra table whose `folds` say what trains where."""
    is_tied = of_table.folds != TRAINS_ALWAYS
    if is_tied.any():
        patients = counted(len(np.unique(of_table.patient_ids[is_tied])), "patient")
        say(
            f"{where}: {counted(int(is_tied.sum()), 'image')} of {patients} of the label table, "
            f"{of_table.uids[is_tied][0]} for one: left out where a fold validates on them"
        )
    is_equal = np.isin(of_table.pixel_ids, data.pixel_ids)
    if is_equal.any():
        warn(
            f"{where}: {counted(int(is_equal.sum()), 'image')} with the pixels of one of the label table, "
            f"{of_table.uids[is_equal][0]} for one: it counts twice where it trains; list it in exclude_ids"
        )
    is_torn = of_table.folds == TRAINS_NEVER
    if is_torn.any():
        warn(
            f"{where}: left out everywhere: {counted(int(is_torn.sum()), 'image')}, {of_table.uids[is_torn][0]} for "
            "one, since their patients are tied to several folds by ids or pixels; if ids of this table mean other "
            f"people, say '{SHARES_IDS}': False"
        )


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
