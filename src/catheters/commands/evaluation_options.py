"""`evaluate.py`'s command line."""

import argparse
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from catheters.commands.command_line import program, refuse_ranks
from catheters.commands.external_options import add_external_options, check_external, check_not_external
from catheters.errors import UserError, unknown_name
from catheters.evaluation.options import (
    ALL_IMAGES,
    AT_SPECIFICITY,
    BEST_CALIBRATION,
    CALIBRATION_METHODS,
    CHECKLIST_KEYS,
    ENSEMBLE_METHODS,
    ERROR_RATE,
    NO_CALIBRATION,
    READER_COLUMNS,
)

if TYPE_CHECKING:
    from catheters.evaluation.evaluation import Choices

DESCRIPTION = """\
Score predictions against labels: ROC AUC, average precision and Brier score of every label and device type with 95%
intervals over patients, operating points, calibration, folds, subgroups, hardest cases.

  python evaluate.py saved_models/config                             a run, against its own label table
  python evaluate.py saved_models/config saved_models/multi_config   several runs, each compared with the first
  python evaluate.py --ensemble weights saved_models/a saved_models/b --out saved_models/ensemble
  python evaluate.py --predictions FILE.csv --labels FILE.csv        any program's predictions
  python evaluate.py --external saved_models/config --config theirs.py   a run, frozen, on images from elsewhere

Research software, not a medical device.
"""


def main(arguments: list[str]) -> int:
    """Print tables and write `metrics.json`, `report.html` and more for each run or file. Returns the exit status."""
    options = parse_options(arguments)
    refuse_ranks("evaluate.py")
    # SciPy, scikit-learn and matplotlib take seconds to load; `--help` and a mistake are answered at once.
    if options.external is not None:
        from catheters.commands.external import validate_external

        return validate_external(options, arguments)
    from catheters.commands.evaluate import evaluate_inputs

    return evaluate_inputs(options, arguments)


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """Parse the arguments; exits with status 2 where they do not go together."""
    parser = _create_parser()
    options = parser.parse_args(arguments)
    if options.external is None:
        _check_together(parser, options)
    else:
        check_external(parser, options, arguments)
    return options


def _create_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=DESCRIPTION.replace("python evaluate.py", program("evaluate.py")),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs",
        nargs="*",
        type=Path,
        metavar="RUN",
        help="run folders, for example saved_models/config; several are compared with the first",
    )
    parser.add_argument(
        "--predictions",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="CSV: id column, one probability column per label; `patient` and `fold` where known",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="CSV with the same ids; a run reads it by its own settings (findings_column, label_values, ...)",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="a config by which --labels is read (default: the run's; for --predictions 0/1 columns)",
    )
    parser.add_argument(
        "--label-values",
        metavar="DICT",
        help='what further values of --labels mean, as the setting: \'{"": "unknown", "-1.0": 1}\'; what is unknown '
        "is left out, label by label (default: those of --config or of the run)",
    )
    parser.add_argument("--id-column", metavar="NAME", help="id column of both files (default: the predictions' first)")
    parser.add_argument(
        "--patient-column", metavar="NAME", help="of --labels (default: patient, PatientID and the like)"
    )
    parser.add_argument(
        "--annotations",
        type=Path,
        metavar="FILE",
        help="CSV of drawn lines that predicted ones are compared with (default: the run's annotation_table); those of "
        "FILE.csv stand in FILE_lines.csv beside it, as predict.py writes them",
    )
    parser.add_argument(
        "--images",
        metavar="PATTERN",
        help="where the X-rays of --labels are, relative to that table or to the folder above it, as in "
        "'test/{uid}.jpg'; the page then shows them",
    )
    parser.add_argument("--logits", action="store_true", help="the predictions are logits, not probabilities")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="for the results, a folder in it for each of several (default: the run folder; for a file FILE_evaluation "
        "beside it; for an ensemble `ensemble` beside the first run)",
    )
    parser.add_argument(
        "--ensemble",
        choices=list(ENSEMBLE_METHODS),
        help="; ".join(f"{name}: {meaning}" for name, meaning in ENSEMBLE_METHODS.items()),
    )
    parser.add_argument(
        "--by",
        action="append",
        default=[],
        metavar="COLUMN[=EDGES]",
        help="subgroups by a column of the label table, 20 groups at most; numbers in bands that begin at the edges, "
        "as in age=40,60,80; repeatable",
    )
    parser.add_argument(
        "--operating-point",
        default="youden",
        metavar="RULE",
        help="youden (default), f1, sensitivity=0.9, specificity=0.95",
    )
    parser.add_argument(
        "--prevalence",
        action="append",
        default=[],
        metavar="LABEL=P",
        help="restate PPV and NPV of a label or device type for another prevalence; repeatable",
    )
    parser.add_argument(
        "--abstain-error",
        type=float,
        default=ERROR_RATE,
        metavar="E",
        help="defer images to a person, so that of all positives at most this share is missed, and of all negatives "
        "predicted positive (%(default)s)",
    )
    parser.add_argument(
        "--at-specificity",
        type=float,
        default=AT_SPECIFICITY,
        metavar="P",
        help="specificity at which the sensitivity of every label is given besides (%(default)s)",
    )
    parser.add_argument(
        "--reader-columns",
        default=READER_COLUMNS,
        metavar="PATTERN",
        help="names of the columns of the label table that hold single readers' labels, to see how far these agree "
        "with each other and with the model (%(default)r)",
    )
    parser.add_argument(
        "--checklist",
        action="append",
        choices=CHECKLIST_KEYS,
        default=[],
        help="answer a reporting checklist from what the run knows, as checklist_....md and .csv; repeatable",
    )
    parser.add_argument(
        "--calibration",
        choices=[BEST_CALIBRATION, NO_CALIBRATION, *CALIBRATION_METHODS],
        default=BEST_CALIBRATION,
        help="which one calibration.json holds (default: the simplest, unless Brier skill or log loss is better beyond "
        "its interval)",
    )
    parser.add_argument(
        "--resamples",
        type=int,
        help=argparse.SUPPRESS,  # of earlier versions, whose intervals needed them
    )
    parser.add_argument(
        "--explanations",
        nargs="?",
        type=_num_images,
        const=ALL_IMAGES,
        default=0,
        metavar="N",
        help="hold heatmaps against drawn tips (the run's annotation_table), of at most N images (default: all that "
        "are drawn); takes a heatmap per image and device type; name the run folders first",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of the images of --explanations, and of the local patients of --external (%(default)s)",
    )
    add_external_options(parser)
    return parser


def _check_together(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    check_not_external(parser, options)
    if not options.runs and (options.predictions is None or options.labels is None):
        parser.error("give run folders, or both --predictions and --labels")
    if options.runs and options.predictions is not None:
        parser.error("give run folders or --predictions, not both")
    inputs = [path.resolve() for path in options.runs or options.predictions]
    for number, path in enumerate(inputs):
        if path in inputs[:number]:
            parser.error(f"{(options.runs or options.predictions)[number]} is given twice")
    if options.ensemble is not None and len(inputs) < 2:
        parser.error("--ensemble combines two or more")
    if options.id_column is not None and options.labels is None:
        parser.error("--id-column goes with --labels; a run knows its own")
    if options.patient_column is not None and options.labels is None:
        parser.error("--patient-column goes with --labels; a run knows its own")
    if options.config is not None and options.labels is None:
        parser.error("--config goes with --labels; a run knows its own")
    if options.label_values is not None and options.labels is None:
        parser.error("--label-values goes with --labels; a run knows its own")
    if options.logits and options.predictions is None:
        parser.error("--logits goes with --predictions; a run has probabilities")
    if options.explanations and options.predictions is not None:
        parser.error("--explanations goes with run folders; a file of predictions has no model to make heatmaps of")
    if options.explanations and options.ensemble is not None:
        parser.error("--explanations goes without --ensemble; evaluate each run by itself")
    if options.images is not None and options.predictions is None:
        parser.error("--images goes with --predictions; a run knows its own")
    if options.ensemble is not None and options.annotations is not None:
        parser.error("--annotations goes with single models; an ensemble of predictions has no lines")
    if not 0 < options.abstain_error < 0.5:
        parser.error("--abstain-error: above 0 and below 0.5")
    if not 0 < options.at_specificity < 1:
        parser.error("--at-specificity: above 0 and below 1")
    fields = (options.reader_columns.count("{label}"), options.reader_columns.count("{reader}"))
    if fields != (1, 1):
        parser.error(f"--reader-columns: {{label}} and {{reader}} once each, as in {READER_COLUMNS!r}")
    if options.seed < 0:
        parser.error("--seed is not negative")


def read_choices(options: argparse.Namespace, names: Iterable[str]) -> "Choices":
    """What the options decide; `names` are the labels and device types that they may speak of.

    Raises:
        UserError: a name or number is wrong.
    """
    # Loaded for those who evaluate, not for `--help`.
    from catheters.evaluation.evaluation import Choices
    from catheters.evaluation.operating_points import parse_rule

    names = list(names)
    prevalences = {}
    for text in options.prevalence:
        name, equals, number = text.rpartition("=")
        if not equals:
            raise UserError(f"--prevalence {text}: gives no number; write for example --prevalence '{text}=0.02'")
        if name not in names:
            raise UserError(f"--prevalence {text}: {unknown_name(name, 'a label or device type', names)}")
        if name in prevalences:
            raise UserError(f"--prevalence {text}: {name} has one already")
        prevalences[name] = read_number(number, f"--prevalence {text}")
        if not 0 < prevalences[name] < 1:
            raise UserError(f"--prevalence {text}: a number between 0 and 1 is expected, as in {name}=0.02")
    return Choices(
        seed=options.seed,
        rule=parse_rule(options.operating_point),
        prevalences=prevalences,
        calibration=options.calibration,
        abstain_error=options.abstain_error,
        at_specificity=options.at_specificity,
        reader_columns=options.reader_columns,
        band_edges=read_band_edges(options.by),
        max_explained=options.explanations,
    )


def read_band_edges(texts: Iterable[str]) -> dict[str, Sequence[float] | None]:
    """Column -> where its bands begin, or None, of `COLUMN[=EDGES]`.

    Raises:
        UserError: a column comes twice, or an edge is no number.
    """
    edges: dict[str, Sequence[float] | None] = {}
    for text in texts:
        column, equals, numbers = text.partition("=")
        if column in edges:
            raise UserError(f"--by {text}: {column} is asked for twice")
        edges[column] = [read_number(number, f"--by {text}") for number in numbers.split(",")] if equals else None
    return edges


def _num_images(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of images above 0; run folders stand before --explanations"
        )
    return number


def read_number(text: str, where: str) -> float:
    """A finite number of an option.

    Raises:
        UserError: it is none.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: {text!r} is not a number")
    return number
