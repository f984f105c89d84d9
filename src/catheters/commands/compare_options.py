"""`compare.py`'s command line."""

import argparse
import re
import signal

from catheters.commands.command_line import program
from catheters.config.presets import PRESETS
from catheters.runtime.interrupts import Interrupted, interrupt_signal

DEFAULT_SEEDS = (0, 1, 2)
DESCRIPTION = """\
Train several variants with several seeds each, and say which is better: the paired difference of each from the first,
with an interval that holds the chance of patients and of seeds, and what each costs.

  python compare.py base.py flip.py ema.py --seeds 0 1 2     configs or presets, the first one is compared with
  python compare.py variants.py                              one file that names small changes to one of them

variants.py is a Python file such as

  base = "sample"
  variants = {"flip": {"train_transforms": (("HorizontalFlip", {"p": 0.5}),)}, "ema": {"ema_decay": 0.99}}

The same command again resumes a comparison that was stopped or killed. Started on several machines that share the
folder, it shares the work. A seed changes weights, order and augmentation; the folds are the same for all.

Research software, not a medical device.
"""


def main(arguments: list[str]) -> int:
    """Train, compare, print a table and write a page. Returns the exit status."""
    options = parse_options(arguments)
    # torch, Optuna and others take seconds to load; `--help` and a mistake are answered at once.
    from catheters.commands.compare import compare

    try:
        return compare(options, arguments)
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
        nargs="+",
        metavar="VARIANT",
        help=f"config files or presets ({', '.join(PRESETS)}), or one file with `base` and `variants`; name=value "
        "replaces a setting of all of them",
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=_number,
        default=list(DEFAULT_SEEDS),
        metavar="N",
        help="of weights, order and augmentation; with one, the interval holds the patients alone (default: 0 1 2)",
    )
    parser.add_argument(
        "--folds", nargs="+", type=_number, metavar="N", help="train and compare these alone (default: the settings')"
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
        "--name", metavar="NAME", help="of the folder in saved_models (default: compare_ and the variants' names)"
    )
    options = parser.parse_intermixed_args(arguments)
    options.overrides = [text for text in options.variants if re.match(r"\w+=", text)]
    options.variants = [text for text in options.variants if text not in options.overrides]
    if not options.variants:
        parser.error("name the variants: configs, presets, or one file with `base` and `variants`")
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


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 0 on")
    return int(text)
