"""`compare.py`'s command line."""

import argparse
import re
import signal
from pathlib import Path

from catheters.commands.command_line import program, refuse_ranks
from catheters.config.presets import PRESETS
from catheters.runtime.interrupts import Interrupted, interrupt_signal

DEFAULT_SEEDS = (0, 1, 2)
DEFAULT_TRIALS = 20
DESCRIPTION = """\
Train several variants with several seeds each, and say which is better: the paired difference of each from the first,
with an interval that holds the chance of patients and of seeds, and what each costs.

  python compare.py base.py flip.py ema.py --seeds 0 1 2     configs or presets, the first one is compared with
  python compare.py variants.py                              one file that names small changes to one of them

variants.py is a Python file such as

  base = "sample"
  variants = {"flip": {"train_transforms": (("HorizontalFlip", {"p": 0.5}),)}, "ema": {"ema_decay": 0.99}}

Or search for better settings, on one fold with one seed, by Optuna:

  python compare.py --search space.py --trials 30            writes best.py, a config to be compared with base.py

space.py is a Python file such as

  base = "sample"
  space = {"init_lr": ("log", 1e-5, 1e-3), "drop_rate": (0.0, 0.5), "optimizer": ["AdamW", "SGD"]}

The same command again resumes what was stopped or killed. Started on several machines that share the folder, it shares
the work. A seed changes weights, order and augmentation; the folds are the same for all.

Research software, not a medical device.
"""


def main(arguments: list[str]) -> int:
    """Train, compare, print a table and write a page. Returns the exit status."""
    options = parse_options(arguments)
    refuse_ranks("compare.py, which starts a process for each training (--jobs)")
    # torch, Optuna and others take seconds to load; `--help` and a mistake are answered at once.
    if options.search is None:
        from catheters.commands.compare import compare as command
    else:
        from catheters.commands.search import search as command

    try:
        return command(options, arguments)
    except KeyboardInterrupt:
        number = interrupt_signal() or signal.SIGINT
        raise Interrupted("the same command resumes where it stopped", number) from None


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """Parse the arguments; exits with status 2 where they do not go together."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION.replace("python compare.py", program("compare.py")),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "variants",
        nargs="*",
        metavar="VARIANT",
        help=f"config files or presets ({', '.join(PRESETS)}), or one file with `base` and `variants`; name=value "
        "replaces a setting of all of them",
    )
    parser.add_argument(
        "--search",
        type=Path,
        metavar="FILE",
        help="in place of variants: a file with `base` and `space`, settings with a range (low, high), a log range "
        '("log", low, high) or a list of choices; trials that fall behind are pruned',
    )
    parser.add_argument(
        "--trials", type=_number, metavar="N", help=f"with --search: trials in all (default: {DEFAULT_TRIALS})"
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=_number,
        metavar="N",
        help="of weights, order and augmentation; with one, the interval holds the patients alone (default: 0 1 2); a "
        "search has one (default: 0)",
    )
    parser.add_argument(
        "--folds",
        nargs="+",
        type=_number,
        metavar="N",
        help="train and compare these alone (default: the settings', of a search the first of them)",
    )
    parser.add_argument(
        "--equal",
        choices=["images", "seconds"],
        help="choose the epochs of all but the first, so that they see as many images, or take as many seconds by a "
        "short probe, as the first does (default: epochs as they are set)",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="trainings at a time (default: one per visible GPU, else one); each has a GPU of its own in turn",
    )
    parser.add_argument(
        "--name",
        metavar="NAME",
        help="of the folder in saved_models (default: compare_ and the variants' names, or search_ and the file's)",
    )
    options = parser.parse_intermixed_args(arguments)
    options.overrides = [text for text in options.variants if re.match(r"\w+=", text)]
    options.variants = [text for text in options.variants if text not in options.overrides]
    if options.search is None:
        if not options.variants:
            parser.error("name the variants: configs, presets, or one file with `base` and `variants`")
        if options.trials is not None:
            parser.error("--trials goes with --search")
        options.seeds = options.seeds or list(DEFAULT_SEEDS)
    else:
        _check_search(parser, options)
    for option in ("seeds", "folds"):
        numbers = getattr(options, option) or []
        twice = next((number for position, number in enumerate(numbers) if number in numbers[:position]), None)
        if twice is not None:
            parser.error(f"--{option}: {twice} is given twice")
    if options.jobs is not None and options.jobs < 1:
        parser.error("--jobs: 1 or more")
    if options.name is not None and not re.fullmatch(r"[\w.-]+", options.name):
        parser.error("--name: letters, digits, '_', '.' and '-' only")
    return options


def _check_search(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exits with status 2 where options do not go with --search; sets those that were not given."""
    if options.variants:
        parser.error(f"--search has its base in its file; {options.variants[0]} is no name=value")
    if options.equal is not None:
        parser.error("--equal goes with variants, not with --search")
    options.seeds = options.seeds or [DEFAULT_SEEDS[0]]
    if len(options.seeds) > 1:
        parser.error("--seeds: one with --search; the comparison of its result has several")
    options.trials = DEFAULT_TRIALS if options.trials is None else options.trials
    if options.trials < 1:
        parser.error("--trials: 1 or more")


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 0 on")
    return int(text)
