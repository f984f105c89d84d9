"""`evaluate.py`: predictions and labels to metrics, thresholds, calibration, comparisons and blends."""

import argparse
import dataclasses
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from catheters.commands.evaluation_inputs import Input, read_file, read_run
from catheters.errors import UserError, unknown_name
from catheters.evaluation import calibration, ensemble, tables
from catheters.evaluation.bootstrap import PatientBootstrap
from catheters.evaluation.calibration import write_calibrator
from catheters.evaluation.cases import write_cases
from catheters.evaluation.ensemble import blend, check_alike, write_ensemble
from catheters.evaluation.evaluation import (
    BEST_CALIBRATION,
    NO_CALIBRATION,
    NUM_RESAMPLES,
    Choices,
    Evaluation,
    evaluate,
)
from catheters.evaluation.metrics import one_class_warnings, score_labels
from catheters.evaluation.operating_points import parse_rule
from catheters.evaluation.predictions import write_predictions
from catheters.evaluation.results import write_comparison, write_metrics, write_table
from catheters.evaluation.scores import difference, score
from catheters.evaluation.subgroups import make_groups
from catheters.run_record import describe_environment_in_words, read_record
from catheters.settings_file import changed_settings

DESCRIPTION = """\
Score predictions against labels: ROC AUC, average precision and Brier score of every label and device with 95%
intervals over patients, operating points, calibration, folds, subgroups, hardest cases.

  python evaluate.py saved_models/config                             a run, against its own label table
  python evaluate.py saved_models/config saved_models/multi_config   several runs, each compared with the first
  python evaluate.py --ensemble weights saved_models/a saved_models/b --out saved_models/blend
  python evaluate.py --predictions FILE.csv --labels FILE.csv        any program's predictions

Research software, not a medical device.
"""


def main(arguments: list[str]) -> int:
    """Print tables and write `metrics.json` and more for each run or file. Returns the exit status."""
    options = _parse(arguments)
    inputs = _read_inputs(options)  # all of them, before anything is written
    choices = _read_choices(options, inputs[0])
    for given in inputs:
        for column, edges in choices.band_edges.items():
            make_groups(column, given.column(column), edges)
    if options.ensemble is not None:
        inputs = [_blend(inputs, options)]
    elif len(inputs) > 1:
        check_alike([given.evaluated for given in inputs])
    for number, given in enumerate(inputs):
        if number:
            print()
        _evaluate(given, choices, options)
    for given in inputs[1:]:
        _compare(inputs[0], given, choices)
    return 0


def _read_inputs(options: argparse.Namespace) -> list[Input]:
    if options.predictions is not None:
        inputs = [
            read_file(file, options.labels, options.id_column, options.patient_column, are_logits=options.logits)
            for file in options.predictions
        ]
    else:
        inputs = [read_run(run, options.labels, options.id_column, options.patient_column) for run in options.runs]
    if options.out is None:
        return inputs
    if options.out.is_file() or not options.out.absolute().parent.is_dir():
        raise UserError(f"{options.out}: a folder for the results is expected, in one that exists")
    return [dataclasses.replace(given, folder=options.out) for given in inputs]


def _read_choices(options: argparse.Namespace, given: Input) -> Choices:
    prevalences = {}
    names = (*given.evaluated.labels, *given.heads)
    for text in options.prevalence:
        name, _, number = text.rpartition("=")
        if name not in names:
            raise UserError(f"--prevalence {text}: {unknown_name(name, 'a label or device', names)}; write LABEL=0.02")
        prevalences[name] = _number(number, f"--prevalence {text}")
        if not 0 < prevalences[name] < 1:
            raise UserError(f"--prevalence {text}: a number between 0 and 1 is expected, as in {name}=0.02")
    edges: dict[str, Sequence[float] | None] = {}
    for text in options.by:
        column, equals, numbers = text.partition("=")
        edges[column] = [_number(number, f"--by {text}") for number in numbers.split(",")] if equals else None
    return Choices(
        num_resamples=options.resamples,
        seed=options.seed,
        rule=parse_rule(options.operating_point),
        prevalences=prevalences,
        calibration=options.calibration,
        band_edges=edges,
    )


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{where}: {text!r} is not a number") from None


def _blend(inputs: list[Input], options: argparse.Namespace) -> Input:
    """Blend the inputs, print what each adds, and write the blend and its recipe."""
    first = inputs[0]
    folder = options.out or first.folder.parent / "ensemble"
    members = check_alike([given.evaluated for given in inputs])
    result = blend(options.ensemble, members, str(folder))
    print(tables.ensemble_table(result))
    folder.mkdir(exist_ok=True)
    blended, file = result.blended, folder / "predictions.csv"
    write_predictions(
        file,
        first.uid_column,
        blended.uids,
        blended.patient_ids,
        blended.folds,
        blended.probabilities,
        blended.labels,
    )
    write_ensemble(folder / "ensemble.json", result)
    print(f"the blend -> {file}\nits recipe -> {folder / 'ensemble.json'}\n")
    return dataclasses.replace(first, evaluated=blended, file=file, folder=folder, settings=None)


def _evaluate(given: Input, choices: Choices, options: argparse.Namespace) -> None:
    """Evaluate predictions, print tables and write files into the input's folder."""
    evaluated = given.evaluated
    print(f"{given.file}: {len(evaluated)} of the {len(given.truth.uids)} images in {given.truth.source}")
    for warning in one_class_warnings(score_labels(evaluated.targets, evaluated.probabilities, evaluated.labels)):
        print(f"warning: {warning}", file=sys.stderr)
    columns = {column: given.column(column) for column in choices.band_edges}
    evaluation = evaluate(evaluated, given.heads, columns, choices)
    if evaluation.scores.num_patients == 1:
        print("warning: all images are of one patient: there are no intervals", file=sys.stderr)
    _print(evaluation)
    folder = given.folder
    folder.mkdir(exist_ok=True)
    write_metrics(
        folder / "metrics.json", evaluation, str(given.file), given.truth.source, num_labelled=len(given.truth.uids)
    )
    write_table(folder / "metrics.csv", evaluation)
    write_calibrator(folder / "calibration.json", evaluation.calibrator)
    write_cases(folder / "hardest_cases.csv", evaluated, evaluation.hardest, given.uid_column)
    write_cases(folder / "label_errors.csv", evaluated, evaluation.label_errors, given.uid_column)
    print(
        f"\n{len(evaluation.label_errors)} labels are probably wrong -> {folder / 'label_errors.csv'}\n"
        f"macro AUC {tables.with_interval(evaluation.scores.macro('roc_auc'), 4)} -> {folder / 'metrics.json'}"
    )
    if given.settings is not None:
        _describe_run(given)


def _print(evaluation: Evaluation) -> None:
    choices = evaluation.choices
    if evaluation.scores.num_patients > 1 and choices.num_resamples:
        print(f"95% intervals over {evaluation.scores.num_patients} patients, {choices.num_resamples} resamples")
    print(tables.scores_table(evaluation.scores, with_mean=True))
    if evaluation.presence.labels:
        print(f"\nany label of the device\n{tables.scores_table(evaluation.presence_scores, with_mean=False)}")
    print(f"\noperating points by {choices.rule}, each fold judged by the threshold that the others chose")
    print(tables.points_table([*evaluation.points, *evaluation.presence_points]))
    print(f"\neach fold calibrated by a fit on the others\n{tables.calibration_table(evaluation)}")
    if evaluation.folds:
        print(f"\n{tables.folds_table(evaluation)}")
    if evaluation.subgroups:
        print(f"\n{tables.subgroups_table(evaluation.subgroups)}")


def _compare(first: Input, second: Input, choices: Choices) -> None:
    """Print the paired differences and write them into the second's folder."""
    pair = check_alike([first.evaluated, second.evaluated])
    bootstrap = PatientBootstrap(pair[0].patient_ids, choices.num_resamples, choices.seed)
    of_first, of_second = (score(evaluated, bootstrap) for evaluated in pair)
    differences = difference(of_first, of_second)
    file = second.folder / "comparison.json"
    print(f"\npaired differences over the same patients; *: the interval leaves out 0 -> {file}")
    print(tables.differences_table(of_first, of_second, differences))
    write_comparison(file, of_first, of_second, differences)


def _describe_run(given: Input) -> None:
    """Print what the run was trained with: settings, data, versions, commit, command, hardware."""
    assert given.settings is not None
    try:
        fingerprint, environments = read_record(given.file.parent)
    except UserError as error:
        print(f"warning: {error}: what it was trained with is not known", file=sys.stderr)
        return
    print(f"\n{given.file.parent}, as its folder records it\n{_indent(f'data fingerprint: {fingerprint}')}")
    for number, environment in enumerate(environments):
        if number:
            print("  and went on with")
        print(_indent(describe_environment_in_words(environment)))
    changed = ", ".join(f"{name}={value!r}" for name, value in changed_settings(given.settings).items())
    print(
        _indent(
            textwrap.fill(
                f"settings other than the defaults: {changed}", 116, subsequent_indent="  ", break_long_words=False
            )
        )
    )


def _indent(text: str) -> str:
    return textwrap.indent(text, "  ")


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
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
        help="CSV: id column, one probability column a label; `patient` and `fold` where known",
    )
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="CSV: the same id column, 0/1 columns of these names"
    )
    parser.add_argument("--id-column", metavar="NAME", help="id column of both files (default: the predictions' first)")
    parser.add_argument(
        "--patient-column", metavar="NAME", help="of --labels (default: patient, PatientID and the like)"
    )
    parser.add_argument("--logits", action="store_true", help="the predictions are logits, not probabilities")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="for the results (default: the run folder; for a file FILE_evaluation; for a blend `ensemble` beside the "
        "first run)",
    )
    parser.add_argument(
        "--ensemble",
        choices=list(ensemble.METHODS),
        help="; ".join(f"{name}: {method.meaning}" for name, method in ensemble.METHODS.items()),
    )
    parser.add_argument(
        "--by",
        action="append",
        default=[],
        metavar="COLUMN[=EDGES]",
        help="subgroups by a column of the label table; numbers in bands that begin at the edges, as in age=40,60,80; "
        "repeatable",
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
        help="restate PPV and NPV of a label or device for another prevalence; repeatable",
    )
    parser.add_argument(
        "--calibration",
        choices=[BEST_CALIBRATION, NO_CALIBRATION, *calibration.METHODS],
        default=BEST_CALIBRATION,
        help="which one calibration.json holds (default: the one of the best Brier skill)",
    )
    parser.add_argument(
        "--resamples", type=int, default=NUM_RESAMPLES, metavar="N", help="of the patients (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the resamples (%(default)s)")
    options = parser.parse_args(arguments)
    if not options.runs and (options.predictions is None or options.labels is None):
        parser.error("give run folders, or both --predictions and --labels")
    if options.runs and options.predictions is not None:
        parser.error("give run folders or --predictions, not both")
    num_inputs = len(options.runs or options.predictions)
    if options.ensemble is None and num_inputs > 1 and options.out is not None:
        parser.error("--out is one folder, and each of several runs has its own")
    if options.ensemble is not None and num_inputs < 2:
        parser.error("--ensemble blends two or more")
    if options.id_column is not None and options.labels is None:
        parser.error("--id-column goes with --labels; a run knows its own")
    if options.patient_column is not None and options.labels is None:
        parser.error("--patient-column goes with --labels; a run knows its own")
    if options.logits and options.predictions is None:
        parser.error("--logits goes with --predictions; a run has probabilities")
    if options.resamples < 0 or options.seed < 0:
        parser.error("--resamples and --seed are not negative")
    return options
