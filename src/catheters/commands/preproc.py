"""`preproc_npy.py`: X-rays to a `.npy` cache."""

import sys

from catheters.command_line import BAD_IMAGES_STATUS, read_settings, settings_parser
from catheters.data.cache import CacheError, build_cache, index_file, open_cache
from catheters.data.table import read_label_table

REASONS_SHOWN = 20
"""Unreadable X-rays that are listed on the terminal; the index lists all."""


def main(arguments: list[str]) -> int:
    """Build the cache that the settings name, unless it stands and is up to date. Returns the exit status."""
    parser = settings_parser("Decode and resize every X-ray once, into a .npy cache that training reads.", "config.py")
    settings = read_settings(parser.parse_intermixed_args(arguments))
    table = read_label_table(settings)
    cache_file = settings.cache_file
    try:
        failed = open_cache(cache_file, table).failed
        print(f"{cache_file} is up to date")
    except CacheError as error:
        if cache_file.exists():
            print(f"building anew: {error.found}")
        gigabytes = len(table) * settings.image_size**2 / 1e9
        print(f"{len(table)} X-rays at {settings.image_size} px -> {cache_file} ({gigabytes:.2f} GB)")
        failed = build_cache(table, cache_file, settings.image_size)
    cache = open_cache(cache_file, table)
    print(f"{len(table) - len(failed)} images, grey mean {cache.mean:.4f}, std {cache.std:.4f}")
    if not failed:
        return 0
    path_of = dict(zip(table.uids.tolist(), table.paths, strict=True))
    print(f"{len(failed)} X-rays could not be read; training leaves them out:", file=sys.stderr)
    for uid, reason in list(failed.items())[:REASONS_SHOWN]:
        print(f"  {path_of[uid]}: {reason}", file=sys.stderr)
    if len(failed) > REASONS_SHOWN:
        print(f"  ... and {len(failed) - REASONS_SHOWN} more, listed in {index_file(cache_file)}", file=sys.stderr)
    return BAD_IMAGES_STATUS
