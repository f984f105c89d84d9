"""The image cache in Python: `catheters.preproc(settings)`, what `preproc_npy.py` does."""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from catheters.checkpoints.parts import build_preprocessing
from catheters.config.settings import Settings
from catheters.data.cache.cache import CacheError, ImageCache, open_cache
from catheters.data.cache.index import decoder_versions
from catheters.data.cache.writer import build_cache, can_be_read_now, help_to_build, need_no_help, tidy_up
from catheters.data.preprocessing import EXCLUDED
from catheters.data.tables.folds import leaking_patients, refuse_leaks
from catheters.data.tables.label_table import LabelTable, read_label_table
from catheters.errors import counted
from catheters.runs.build import build_table_source
from catheters.runs.extra_tables import read_extra_tables
from catheters.runs.ranks import check_alike
from catheters.runtime.console import say, silent
from catheters.runtime.distributed import TorchrunProcesses, joined_torchrun
from catheters.runtime.progress import track


@dataclass(frozen=True, kw_only=True)
class CacheResult:
    """An image cache that is up to date, and what is to be said of its X-rays.

    Attributes:
        file: the `.npy`, (N, H, W) uint8, for `np.load(file, mmap_mode="r")`.
        table: the label table that it was made for.
        cache: the same, opened.
        failed: id of an X-ray -> why it could not be read; training leaves it out.
        excluded: id -> why the settings leave it out.
        quality_flags: id -> what is odd about it, although it is used.
        extra: the same of each of `extra_tables`.
    """

    file: Path
    table: LabelTable
    cache: ImageCache
    failed: Mapping[str, str]
    excluded: Mapping[str, str]
    quality_flags: Mapping[str, str]
    extra: tuple["CacheResult", ...] = ()

    def __repr__(self) -> str:
        """A line, since a notebook shows it."""
        return f"CacheResult of {self.file}: {counted(len(self.table), 'X-ray')}, {len(self.failed)} unreadable"


def preproc(settings: Settings) -> CacheResult:
    """Build the image cache that the settings name, and those of `extra_tables`, unless they stand and are up to date.

    Needed once per data set and image size; `train` reads it. The same call again resumes a build that was stopped.
    Started by torchrun, all ranks call it and each decodes a share of the X-rays into the one cache.

    Raises:
        UserError: a setting or the label table is not as it has to be, no X-ray can be read, or the ranks have other
            settings, tables or folders.
    """
    with joined_torchrun() as torchrun, silent(torchrun.rank > 0):
        return _preproc(settings, torchrun)


def _preproc(settings: Settings, torchrun: TorchrunProcesses) -> CacheResult:
    table = read_label_table(build_table_source(settings))
    if table.folds is not None:  # hours before training would say so
        refuse_leaks(leaking_patients(table.folds, table.patient_ids), are_allowed=settings.allow_leaking_folds)
    # All tables are read before the first cache is built, which may take hours; stages of one size share theirs.
    of_stages = [[(stage, table), *read_extra_tables(stage)] for stage in settings.in_stages()]
    ids = hashlib.sha256("\n".join(uid for _, of in of_stages[0] for uid in of.uids.tolist()).encode()).hexdigest()
    check_alike(torchrun, settings, {"ids of the images (SHA-256)": ids, "decoders": decoder_versions()})
    results: dict[Path, CacheResult] = {}
    for of_table, its_rows in (each for of_stage in of_stages for each in of_stage):
        if of_table.cache_file not in results:
            results[of_table.cache_file] = _cached(of_table, its_rows, torchrun)
    own, *extra = (results[of_table.cache_file] for of_table, _ in of_stages[-1])
    return dataclasses.replace(own, extra=tuple(extra))


def _cached(settings: Settings, table: LabelTable, torchrun: TorchrunProcesses) -> CacheResult:
    """Build the cache of a label table, unless it stands and is up to date."""
    if torchrun.rank == 0:
        cache = _bring_up_to_date(settings, table, torchrun)
        torchrun.barrier()
    else:
        preprocessing = build_preprocessing(settings)
        help_to_build(table, settings.cache_file, preprocessing, torchrun)
        torchrun.barrier()
        cache = open_cache(settings.cache_file, table, preprocessing)
    excluded = {uid: reason for uid, reason in cache.failed.items() if reason.startswith(EXCLUDED)}
    return CacheResult(
        file=settings.cache_file,
        table=table,
        cache=cache,
        failed={uid: reason for uid, reason in cache.failed.items() if uid not in excluded},
        excluded=excluded,
        quality_flags={uid: "; ".join(flags.values()) for uid, flags in cache.quality_flags.items()},
    )


def _bring_up_to_date(settings: Settings, table: LabelTable, torchrun: TorchrunProcesses) -> ImageCache:
    cache_file, preprocessing = settings.cache_file, build_preprocessing(settings)
    try:
        cache = open_cache(cache_file, table, preprocessing)
        if can_be_read_now(table, cache, preprocessing):
            raise CacheError(f"{cache_file}: X-rays that could not be read can be read now")
        cache.check_pixels(track(range(len(table)), "comparing checksums", len(table)))
        tidy_up(cache_file)
        need_no_help(cache_file, torchrun)
        say(f"{cache_file} is up to date")
    except CacheError as error:
        if cache_file.exists():
            say(f"bringing it up to date: {error.found}")
        height, width = settings.image_shape
        gigabytes = len(table) * height * width / 1e9
        say(f"{counted(len(table), 'X-ray')} at {width} x {height} px -> {cache_file} ({gigabytes:.2f} GB)")
        build_cache(table, cache_file, preprocessing, torchrun=torchrun)
        cache = open_cache(cache_file, table, preprocessing)
    say(f"{counted(len(table) - len(cache.failed), 'image')}, grey mean {cache.mean:.4f}, std {cache.std:.4f}")
    if cache.num_absent:
        say(f"{counted(cache.num_absent, 'X-ray')} gone; the cache keeps how they looked")
    return cache
