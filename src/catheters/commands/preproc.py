"""`preproc_npy.py`: X-rays to a `.npy` cache; what is wrong with them; how they look."""

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catheters.checkpoints.parts import build_preprocessing
from catheters.commands.command_line import BAD_IMAGES_STATUS, refuse_ranks
from catheters.config.settings import Settings
from catheters.data.cache.cache import ImageCache, index_file
from catheters.data.decoding.radiograph import NO_SUCH_FILE
from catheters.data.tables.folds import choose_folds
from catheters.data.tables.image_folder import folder_table
from catheters.data.tables.label_table import LabelTable, read_label_table
from catheters.errors import counted
from catheters.io.files import printable
from catheters.io.near_misses import file_hint
from catheters.runs.build import build_table_source
from catheters.runs.extra_tables import read_extra_tables
from catheters.runs.preproc import CacheResult, preproc
from catheters.runtime.console import note, say
from catheters.runtime.host import num_processes, process_rank
from catheters.viz import write_contact_sheets

REASONS_SHOWN = 20
"""Unreadable X-rays that are listed on the terminal; the index lists all."""


def prepare(settings: Settings, options: argparse.Namespace) -> int:
    """Build the cache that the settings name, unless it stands and is up to date; or audit its sources.

    Args:
        settings: the run's settings.
        options: the command's other options.

    Returns:
        The exit status: `BAD_IMAGES_STATUS` where X-rays could not be read, or the audit found what stands against
        training.
    """
    if options.audit:
        refuse_ranks("--audit")
        return _audit(settings, options.folder)
    result = preproc(settings)
    if process_rank() > 0:
        return 0
    if options.show:
        for file in show_images(settings.in_stages()[-1], result.table, result.cache, options.show):
            say(f"drawn: {file}")
    status = max(_report(of_table) for of_table in (result, *result.extra))
    return status if num_processes() == 1 else 0  # any other one torchrun takes for a rank that has failed


def show_images(settings: Settings, table: LabelTable, cache: ImageCache, num_images: int) -> list[Path]:
    """Write the contact sheets of a cache, of `num_images` images at most; returns the files."""
    annotations, landmarks = (
        None if table_file is None else Path(settings.dataset_folder) / table_file
        for table_file in (settings.annotation_table, settings.landmark_table)
    )
    return write_contact_sheets(
        table,
        cache,
        num_images,
        name=settings.cache_name,
        preprocessing=build_preprocessing(settings),
        annotation_table=annotations,
        landmark_table=landmarks,
        learns_lines=settings.lines is not None,
        uid_column=settings.uid_column,
        device_types=settings.device_types,
        transforms=settings.train_transforms,
        choice_seed=settings.seed,
        augmentation_seed=settings.seeds_to_train[0],
    )


def _report(result: CacheResult) -> int:
    """Name the X-rays with quality flags and the unreadable ones; returns the exit status."""
    name_of = {uid: printable(path) for uid, path in zip(result.table.uids.tolist(), result.table.paths, strict=True)}

    def by_name(reasons: Mapping[str, str]) -> dict[str, str]:
        return {name_of[uid]: reason for uid, reason in reasons.items()}

    index = index_file(result.file)
    _list("X-ray", "left out, as the settings say", by_name(result.excluded), index)
    _list("X-ray", "with quality flags, used all the same", by_name(result.quality_flags), index)
    _list("X-ray", "that could not be read; training leaves them out", by_name(result.failed), index)
    return BAD_IMAGES_STATUS if result.failed else 0


def _list(noun: str, what: str, reasons: dict[str, str], index: Path) -> None:
    """Name files and why, as many as a terminal shows."""
    if not reasons:
        return
    note(f"{counted(len(reasons), noun)} {what}:")
    for name, reason in list(reasons.items())[:REASONS_SHOWN]:
        hint = file_hint(Path(name)) if reason == NO_SUCH_FILE else ""
        note(f"  {name}: {reason}{hint}")
    if len(reasons) > REASONS_SHOWN:
        note(f"  ... and {len(reasons) - REASONS_SHOWN} more, listed in {index}")


def _audit(settings: Settings, folder: Path | None) -> int:
    if folder is not None:
        return _audit_table(settings, folder.resolve().name, folder_table(folder), None)
    table = read_label_table(build_table_source(settings))
    folds = choose_folds(table, None if settings.all_data else settings.num_folds, settings.seed_of_folds)
    status = _audit_table(settings, settings.cache_name, table, folds)
    for of_table, its_rows in read_extra_tables(settings, may_lack_labels=True):
        status = max(status, _audit_table(settings, of_table.cache_name, its_rows, None))
    return status


def _audit_table(settings: Settings, name: str, table: LabelTable, folds: npt.NDArray[np.int8] | None) -> int:
    """Audit the images of one table; returns the exit status."""
    # SciPy and jinja2 are loaded for those who ask for an audit.
    from catheters.audit.report import summary_lines
    from catheters.audit.run import audit_data_set

    result_folder = Path(settings.cache_folder) / f"{name}_audit"
    audit = audit_data_set(name, table, folds, result_folder)
    for line in summary_lines(audit):
        say(line)
    num_readable = sum(file.reason is None for file in audit.examined)
    say(f"{num_readable} of {counted(len(table), 'X-ray')} could be read -> {result_folder}: audit.csv, audit.html")
    return BAD_IMAGES_STATUS if audit.worst == "stop" else 0
