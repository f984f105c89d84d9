"""`preproc_npy.py`'s command line."""

import argparse
from pathlib import Path

from catheters.commands.command_line import read_settings, settings_parser
from catheters.config.groups import CACHE_FIRST, CACHE_GROUPS

DEFAULT_CONFIG = "config.py"
MAX_SHOWN = 500
"""Images that a contact sheet can have and still be opened."""


def main(arguments: list[str]) -> int:
    """Build the image cache that the settings name, or audit its sources. Returns the exit status."""
    parser = settings_parser(
        "Decode and resize every X-ray once, into a .npy cache that training reads.",
        DEFAULT_CONFIG,
        CACHE_GROUPS,
        CACHE_FIRST,
    )
    parser.add_argument(
        "--audit",
        action="store_true",
        help="cache nothing; read every file and write what is wrong with the data set to audit.csv and audit.html in "
        "<cache_folder>/<cache_name>_audit",
    )
    parser.add_argument(
        "--folder", type=Path, metavar="FOLDER", help="with --audit: a plain folder of images, without a label table"
    )
    parser.add_argument(
        "--show",
        type=_count,
        metavar="N",
        help="also draw N cached images with their labels, annotated catheters and landmarks, and up to 8 of them as "
        "training augments them",
    )
    options = parser.parse_intermixed_args(arguments)
    if options.folder and not options.audit:
        parser.error("--folder goes with --audit; a cache is made of a label table")
    if options.audit and options.show:
        parser.error("--show draws what is cached; --audit draws images of its own")
    if options.folder and options.config == Path(DEFAULT_CONFIG) and not options.config.exists():
        options.config = None  # nothing of it is needed
    settings = read_settings(options)
    # pandas and OpenCV take a second to load; `--help` and a mistyped setting are answered at once.
    from catheters.commands.preproc import prepare

    return prepare(settings, options)


def _count(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if not 1 <= number <= MAX_SHOWN:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of images from 1 to {MAX_SHOWN}")
    return number
