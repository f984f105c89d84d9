"""`preproc_npy.py`: X-rays to a `.npy` cache; what is wrong with them; how they look."""

import argparse
from pathlib import Path

from catheters.checkpoints.parts import build_preprocessing
from catheters.commands.command_line import BAD_IMAGES_STATUS
from catheters.config.settings import Settings
from catheters.data.cache.cache import CacheError, ImageCache, index_file, open_cache
from catheters.data.cache.writer import build_cache, can_be_read_now, tidy_up
from catheters.data.decoding.radiograph import NO_SUCH_FILE
from catheters.data.preprocessing import EXCLUDED
from catheters.data.tables.folds import choose_folds, leaking_patients, refuse_leaks
from catheters.data.tables.image_folder import folder_table
from catheters.data.tables.label_table import LabelTable, read_label_table
from catheters.errors import counted
from catheters.io.files import printable
from catheters.io.near_misses import file_hint
from catheters.runs.build import build_table_source
from catheters.runtime.console import note, say
from catheters.runtime.progress import track
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
        return _audit(settings, options.folder)
    table = read_label_table(build_table_source(settings))
    if table.folds is not None:  # hours before train.py would say so
        refuse_leaks(leaking_patients(table.folds, table.patient_ids), are_allowed=settings.allow_leaking_folds)
    cache = _bring_up_to_date(settings, table)
    if options.show:
        for file in show_images(settings, table, cache, options.show):
            say(f"drawn: {file}")
    return _report(settings, table, cache)


def show_images(settings: Settings, table: LabelTable, cache: ImageCache, num_images: int) -> list[Path]:
    """Write the contact sheets of a cache, of `num_images` images at most; returns the files."""
    annotations = settings.annotation_table
    return write_contact_sheets(
        table,
        cache,
        num_images,
        name=settings.cache_name,
        preprocessing=build_preprocessing(settings),
        annotation_table=None if annotations is None else Path(settings.dataset_folder) / annotations,
        uid_column=settings.uid_column,
        transforms=settings.train_transforms,
        choice_seed=settings.seed,
        augmentation_seed=settings.seeds_to_train[0],
    )


def _bring_up_to_date(settings: Settings, table: LabelTable) -> ImageCache:
    cache_file, preprocessing = settings.cache_file, build_preprocessing(settings)
    try:
        cache = open_cache(cache_file, table, preprocessing)
        if can_be_read_now(table, cache, preprocessing):
            raise CacheError(f"{cache_file}: X-rays that could not be read can be read now")
        cache.check_pixels(track(range(len(table)), "comparing checksums", len(table)))
        tidy_up(cache_file)
        say(f"{cache_file} is up to date")
    except CacheError as error:
        if cache_file.exists():
            say(f"bringing it up to date: {error.found}")
        height, width = settings.image_shape
        gigabytes = len(table) * height * width / 1e9
        say(f"{counted(len(table), 'X-ray')} at {width} x {height} px -> {cache_file} ({gigabytes:.2f} GB)")
        build_cache(table, cache_file, preprocessing)
        cache = open_cache(cache_file, table, preprocessing)
    say(f"{counted(len(table) - len(cache.failed), 'image')}, grey mean {cache.mean:.4f}, std {cache.std:.4f}")
    if cache.num_absent:
        say(f"{counted(cache.num_absent, 'X-ray')} gone; the cache keeps how they looked")
    return cache


def _report(settings: Settings, table: LabelTable, cache: ImageCache) -> int:
    """Name the X-rays with quality flags and the unreadable ones; returns the exit status."""
    name_of = {uid: printable(path) for uid, path in zip(table.uids.tolist(), table.paths, strict=True)}
    text_of_flagged = {name_of[uid]: "; ".join(notes.values()) for uid, notes in cache.quality_flags.items()}
    reasons = {name_of[uid]: reason for uid, reason in cache.failed.items()}
    reason_of_excluded = {name: reason for name, reason in reasons.items() if reason.startswith(EXCLUDED)}
    reason_of_failed = {name: reason for name, reason in reasons.items() if name not in reason_of_excluded}
    index = index_file(settings.cache_file)
    _list("X-rays are left out, as the settings say", reason_of_excluded, index)
    _list("X-rays have quality flags, and are kept", text_of_flagged, index)
    _list("X-rays could not be read; training leaves them out", reason_of_failed, index)
    return BAD_IMAGES_STATUS if reason_of_failed else 0


def _list(what: str, reasons: dict[str, str], index: Path) -> None:
    """Name files and why, as many as a terminal shows."""
    if not reasons:
        return
    note(f"{len(reasons)} {what}:")
    for name, reason in list(reasons.items())[:REASONS_SHOWN]:
        hint = file_hint(Path(name)) if reason == NO_SUCH_FILE else ""
        note(f"  {name}: {reason}{hint}")
    if len(reasons) > REASONS_SHOWN:
        note(f"  ... and {len(reasons) - REASONS_SHOWN} more, listed in {index}")


def _audit(settings: Settings, folder: Path | None) -> int:
    # SciPy and jinja2 are loaded for those who ask for an audit.
    from catheters.audit.report import summary_lines
    from catheters.audit.run import audit_data_set

    if folder is None:
        table = read_label_table(build_table_source(settings))
        folds = choose_folds(table, None if settings.all_data else settings.num_folds, settings.seed_of_folds)
        name = settings.cache_name
    else:
        table, folds, name = folder_table(folder), None, folder.resolve().name
    result_folder = Path(settings.cache_folder) / f"{name}_audit"
    audit = audit_data_set(name, table, folds, result_folder)
    for line in summary_lines(audit):
        say(line)
    num_readable = sum(file.reason is None for file in audit.examined)
    say(f"{num_readable} of {counted(len(table), 'X-ray')} could be read -> {result_folder}: audit.csv, audit.html")
    return BAD_IMAGES_STATUS if audit.worst == "stop" else 0
