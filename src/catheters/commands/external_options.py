"""The options of `evaluate.py --external`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from catheters.errors import UserError, unknown_name
from catheters.evaluation.options import INTERVAL_WIDTHS

if TYPE_CHECKING:
    from catheters.evaluation.external.validation import ExternalChoices

OF_EXTERNAL = ("name", "uncalibrated", "want_width", "device", "batch_size", "workers", "fresh")
"""Options that nothing else takes."""
OF_OTHERS = (
    *("ensemble", "annotations", "images", "prevalence", "explanations", "operating_point", "checklist"),
    *("calibration", "at_specificity", "abstain_error", "reader_columns", "resamples"),
)
"""Options that it does not take: the run's evaluation has decided all of this."""


def add_external_options(parser: argparse.ArgumentParser) -> None:
    """Add them as a group of their own."""
    group = parser.add_argument_group(
        "external validation",
        "A run's models, with thresholds and calibration as its evaluation has them, on images from elsewhere: either "
        "--config, a config of these images, or --predictions and --labels.",
    )
    group.add_argument("--external", type=Path, metavar="RUN", help="the run folder, which has been evaluated")
    group.add_argument(
        "--name",
        metavar="NAME",
        help="of the folder RUN/external/NAME for the results (default: as the file is called)",
    )
    group.add_argument(
        "--uncalibrated",
        action="store_true",
        help="the predictions are as the models give them (predict.py --no-calibration), not calibrated",
    )
    group.add_argument(
        "--want-width",
        action="append",
        default=[],
        metavar="NUMBER=W",
        help="how wide an interval may be, of "
        + ", ".join(f"{name} ({width:g})" for name, width in INTERVAL_WIDTHS.items())
        + "; says how many patients that needs; repeatable",
    )
    group.add_argument("--device", help="auto (default), cpu, cuda or cuda:<index>")
    group.add_argument(
        "--batch-size", type=int, metavar="N", help="images at a time (default: 4 on a CPU, 16 on a GPU)"
    )
    group.add_argument("--workers", type=int, metavar="N", help="processes that read images (default: one per core)")
    group.add_argument("--fresh", action="store_true", help="predict anew what an earlier command has predicted")


def check_not_external(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Without --external none of its own options does anything."""
    for name in OF_EXTERNAL:
        if getattr(options, name):
            parser.error(f"--{name.replace('_', '-')} goes with --external")


def check_external(parser: argparse.ArgumentParser, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Exit with status 2 where the options do not go together.

    Args:
        parser: of the command.
        options: what it made of the arguments.
        arguments: themselves.
    """
    if options.runs:
        parser.error(f"--external names the one run; {options.runs[0]} is one more")
    # Without defaults, so that naming one is seen as well.
    given = parser.parse_args(arguments, argparse.Namespace(**dict.fromkeys(OF_OTHERS)))
    for name in OF_OTHERS:
        if getattr(given, name) is not None:
            parser.error(f"--{name.replace('_', '-')} does nothing with --external: the run's evaluation is frozen")
    if options.predictions is None:
        if options.labels is not None:
            parser.error("--external: --labels goes with --predictions; a config names its own label table")
        if options.config is None:
            parser.error("--external: give --config theirs.py, or --predictions FILE and --labels FILE")
        for name in ("logits", "uncalibrated", "id_column", "patient_column", "label_values"):
            if getattr(options, name):
                parser.error(f"--{name.replace('_', '-')} goes with --predictions; a config says it itself")
    else:
        if len(options.predictions) > 1:
            parser.error("--external: one file of predictions at a time")
        if options.labels is None:
            parser.error("--external: --predictions goes with --labels")
        for name in ("device", "batch_size", "workers", "fresh"):
            if getattr(options, name):
                parser.error(f"--{name.replace('_', '-')} does nothing with --predictions: no model is run")
    if options.batch_size is not None and options.batch_size < 1:
        parser.error("--batch-size: 1 or more")
    if options.workers is not None and options.workers < 1:
        parser.error("--workers: 1 or more")
    if options.name is not None and (options.out is not None or Path(options.name).name != options.name):
        parser.error("--name: the name of a folder, without --out")
    if options.seed < 0:
        parser.error("--seed is not negative")


def read_external_choices(options: argparse.Namespace) -> "ExternalChoices":
    """What the options decide.

    Raises:
        UserError: a name or number is wrong.
    """
    from catheters.commands.evaluation_options import read_band_edges, read_number
    from catheters.evaluation.external.validation import ExternalChoices

    widths = dict(INTERVAL_WIDTHS)
    for text in options.want_width:
        name, equals, number = text.partition("=")
        if name not in widths:
            raise UserError(f"--want-width {text}: {unknown_name(name, 'a number', widths)}")
        widths[name] = read_number(number, f"--want-width {text}") if equals else 0.0
        if not widths[name] > 0:
            raise UserError(f"--want-width {text}: a width above 0 is expected, as in {name}=0.1")
    return ExternalChoices(seed=options.seed, widths=widths, band_edges=read_band_edges(options.by))
