"""`evaluate.py`: predictions and labels to metrics, thresholds, calibration, comparisons, ensembles, and a page."""

import argparse
import dataclasses
import shlex
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path

from catheters.commands.command_line import program
from catheters.commands.evaluation_options import read_choices
from catheters.config.loading import changed_settings, load_settings
from catheters.errors import UserError, counted, listed
from catheters.evaluation.alignment import align_predictions
from catheters.evaluation.comparison import Comparison, compare
from catheters.evaluation.ensemble import Ensemble, combine, write_ensemble
from catheters.evaluation.evaluation import Evaluation
from catheters.evaluation.hard_cases import READ_AGAIN_FILE, SharedCases
from catheters.evaluation.intervals import COVERAGE_EXCEPTIONS, FEW_PATIENTS_MARK, FEW_PATIENTS_NOTE
from catheters.evaluation.lines.evaluation import LineEvaluation
from catheters.evaluation.options import NO_CALIBRATION
from catheters.evaluation.paired_tests import SIGNIFICANT
from catheters.evaluation.prediction_set import device_type_presence
from catheters.evaluation.predictions import write_predictions
from catheters.evaluation.report import tables
from catheters.evaluation.results import (
    METRICS_FILE,
    some_lack_intervals,
)
from catheters.evaluation.scores import METRICS
from catheters.evaluation.subgroups import make_groups
from catheters.io.files import sha256_of
from catheters.runs.evaluation.evaluate import COMPARISON_FILE, evaluate_input, write_evaluation
from catheters.runs.evaluation.explanations import check_explainable
from catheters.runs.evaluation.inputs import Input, read_file, read_run
from catheters.runs.evaluation.label_source import LabelSource
from catheters.runtime.console import say, warn
from catheters.runtime.progress import track


def evaluate_inputs(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Print tables and write `metrics.json`, `report.html` and more for each run or file.

    Args:
        options: what `parse_options` made of the arguments.
        arguments: the command's own, for the report.

    Returns:
        The exit status.
    """
    if options.resamples is not None:
        warn("--resamples: nothing is resampled any more; leave it out")
    inputs = _read_inputs(options)  # all of them, before anything is written
    first = inputs[0]
    choices = read_choices(
        options, (*first.evaluated.labels, *device_type_presence(first.evaluated, first.heads).labels)
    )
    for given in inputs:
        for column, edges in choices.band_edges.items():
            make_groups(column, given.column(column), edges)
        if choices.max_explained:
            check_explainable(given)
    members = align_predictions([given.evaluated for given in inputs])
    inputs = [given.with_evaluated(member) for given, member in zip(inputs, members, strict=True)]
    command = f"{program('evaluate.py')} {shlex.join(arguments)}"
    if options.ensemble is not None:
        folder = options.out or first.folder.parent / "ensemble"
        is_ensemble = (folder / "ensemble.json").exists()
        if (folder / "settings.json").exists() or ((folder / "predictions.csv").exists() and not is_ensemble):
            raise UserError(f"{folder}: holds predictions of its own; name another folder for the ensemble with --out")
        if (folder / "predictions.csv").resolve() in {given.file.resolve() for given in inputs}:
            raise UserError(f"{folder}: holds predictions that are to be combined; name another folder with --out")
        _make_folder(folder)
        ensemble, combined = _combine(options.ensemble, inputs, folder)
        _report(combined, evaluate_input(combined, choices).evaluation, command, None, ensemble, None)
        return 0
    _check_folders(inputs)
    for given in inputs:
        _make_folder(given.folder)
    evaluations = [evaluate_input(given, choices).evaluation for given in inputs]  # all, to see where they agree
    shared = None
    if len(inputs) > 1:
        lists = tuple(tuple(evaluation.read_again) for evaluation in evaluations)
        names = tuple(member.name for member in members)
        shared = SharedCases(names=names, labels=first.evaluated.labels, lists=lists)
    for number, (given, evaluation) in enumerate(zip(inputs, evaluations, strict=True)):
        comparison = None
        if number:
            say()
            of_first = evaluations[0]
            comparison = compare(
                of_first.evaluated,
                evaluation.evaluated,
                (of_first.scores, evaluation.scores),
                choices.seed,
                of_first.caveats,
            )
        _report(given, evaluation, command, comparison, None, shared)
    return 0


def _read_inputs(options: argparse.Namespace) -> list[Input]:
    source, label_values = None, None
    if options.label_values is not None:
        label_values = load_settings(None, [f"label_values={options.label_values}"]).label_values
    if options.labels is not None:
        source = LabelSource(
            file=options.labels,
            rules=None if options.config is None else load_settings(options.config),
            id_column=options.id_column,
            patient_column=options.patient_column,
            label_values=label_values,
        )
    if options.predictions is not None:
        assert source is not None, "the options say so"
        inputs = [
            read_file(
                file,
                source,
                are_logits=options.logits,
                annotations=options.annotations,
                path_pattern=options.images,
            )
            for file in track(options.predictions, "reading", len(options.predictions), unit="file", leave=False)
        ]
    else:
        with_lines = options.ensemble is None  # an ensemble has none
        inputs = [read_run(run, source, options.annotations, with_lines=with_lines) for run in options.runs]
    if options.out is None:
        return inputs
    if options.out.is_file() or not options.out.absolute().parent.is_dir():
        raise UserError(f"{options.out}: a folder for the results is expected, in one that exists")
    if len(inputs) == 1 or options.ensemble is not None:  # then none but the ensemble is evaluated
        folders = [options.out] * len(inputs)
    else:
        folders = [options.out / (given.folder.name or given.folder.resolve().name) for given in inputs]
    return [dataclasses.replace(given, folder=folder) for given, folder in zip(inputs, folders, strict=True)]


def _check_folders(inputs: list[Input]) -> None:
    """Raise a UserError where results would be written over one another, or beside an ensemble that they are not of."""
    seen: dict[Path, Path] = {}
    for given in inputs:
        folder = given.folder.resolve()
        if folder in seen:
            raise UserError(
                f"{given.folder}: the results of {seen[folder]} and of {given.file} would both go there; rename one of "
                "them"
            )
        seen[folder] = given.file
        if (folder / "ensemble.json").exists() and given.file.resolve() != folder / "predictions.csv":
            raise UserError(f"{given.folder}: holds an ensemble; name another folder for the results with --out")


def _make_folder(folder: Path) -> None:
    """Make the folder for results, and see that files can be written there, before anything is computed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"{folder}: results cannot be written there ({error.strerror}); name another folder with --out"
        ) from None


def _combine(method: str, inputs: list[Input], folder: Path) -> tuple[Ensemble, Input]:
    """Combine the inputs, print what each adds, and write the ensemble and its spec."""
    first, members = inputs[0], [given.evaluated for given in inputs]
    ensemble = combine(method, members, str(folder))
    say(tables.ensemble_table(ensemble))
    combined, file, written = ensemble.combined, folder / "predictions.csv", folder / "predictions.new.csv"
    (folder / METRICS_FILE).unlink(missing_ok=True)  # of an earlier evaluation, which is that of this folder no longer
    write_predictions(
        written,
        first.uid_column,
        combined.uids,
        combined.patient_ids,
        combined.folds,
        combined.probabilities,
        combined.labels,
    )
    sha256 = sha256_of(written)
    # The spec first: after a kill the folder is one of an ensemble, and the same command mends it.
    write_ensemble(folder / "ensemble.json", ensemble, sha256, [given.sha256 for given in inputs])
    written.replace(file)
    say(f"the ensemble -> {file}\nits specification -> {folder / 'ensemble.json'}\n")
    return ensemble, dataclasses.replace(
        first, evaluated=combined, file=file, sha256=sha256, folder=folder, settings=None, lines=None
    )


def _print_comparison(comparison: Comparison, folder: Path) -> None:
    """The paired differences, which go into the second's folder."""
    permutations = counted(comparison.tests.num_permutations, "permutation")
    say(
        f"\npaired differences over the same patients; p by {permutations} within patients, Holm's over the labels; "
        f"*: below {SIGNIFICANT} -> {folder / COMPARISON_FILE}"
    )
    say("\n\n".join(tables.differences_table(comparison, metric) for metric in METRICS))


def _report(
    given: Input,
    evaluation: Evaluation,
    command: str,
    comparison: Comparison | None,
    ensemble: Ensemble | None,
    shared: SharedCases | None,
) -> None:
    """Print tables and write files into the input's folder.

    Args:
        given: the predictions.
        evaluation: of them.
        command: for the page.
        comparison: with the first model.
        ensemble: how the predictions were combined.
        shared: what several models name to be read again.
    """
    evaluated = given.evaluated
    say(f"{given.file}: {len(evaluated)} of {counted(len(given.truth.uids), 'image')} in {given.truth.source}")
    _print(evaluation)
    background = write_evaluation(given, evaluation, command, comparison, ensemble, shared)
    if background.environment:
        say(f"\n{given.file.parent}, as its folder records it")
        say(textwrap.indent("\n  and was resumed with\n".join(background.environment), "  "))
        _print_settings(given)
    # What people look for comes last, where a terminal stands still.
    if comparison is not None:
        _print_comparison(comparison, given.folder)
    if shared is not None:
        say(f"\n{tables.read_again_table(shared)}")
    if evaluation.uninformative_labels:
        say(
            "\nno labels to be read again are sought where the calibrated probabilities are no better than the "
            f"prevalence: {listed(evaluation.uninformative_labels)}"
        )
    say(
        f"\n{counted(len(evaluation.read_again), 'label')} to be read again -> {given.folder / READ_AGAIN_FILE}\n"
        f"macro AUC {tables.with_interval(evaluation.scores.macro('roc_auc'), 4)} -> {given.folder / METRICS_FILE}\n"
        f"a page to look at -> {given.folder / 'report.html'}"
    )


def _print(evaluation: Evaluation) -> None:
    choices = evaluation.choices
    if evaluation.scores.num_patients > 1:
        say(f"95% intervals over {counted(evaluation.scores.num_patients, 'patient')}")
    say(tables.scores_table(evaluation.scores, with_mean=True))
    if evaluation.presence.labels:
        say(f"\nany label of the device type\n{tables.scores_table(evaluation.presence_scores, with_mean=False)}")
    part = evaluation.judged_parts
    say(f"\noperating points by {choices.rule}, each {part} judged by the threshold that the others chose")
    say(tables.points_table([*evaluation.points, *evaluation.presence_points]))
    share = f"{choices.abstain_error:.0%}"
    say(f"\ndeferred, aiming at {share} at most of all positives missed, and of all negatives predicted positive")
    say(tables.abstention_table(evaluation.abstentions))
    if evaluation.calibration_is_judged:
        say(f"\neach {part} calibrated by a fit on the others\n{tables.calibration_table(evaluation)}")
        for step in evaluation.calibration.steps:
            say(step)
    say(f"calibration {evaluation.calibrator.method} is kept: {evaluation.calibration.reason}\n")
    say(tables.recalibration_table(evaluation.recalibrations, "as they are"))
    if evaluation.calibrator.method != NO_CALIBRATION:
        of = f"by {evaluation.calibrator.method}"
        say(f"\n{tables.recalibration_table(evaluation.recalibrations_of_calibrated, of)}")
    if evaluation.folds:
        say(f"\n{tables.folds_table(evaluation)}")
    if evaluation.subgroups:
        say(f"\n{tables.subgroups_table(evaluation.subgroups)}")
    if evaluation.explanations is not None and evaluation.explanations.scores:
        say(f"\n{tables.explanations_table(evaluation.explanations)}")
    if evaluation.lines is not None:
        _print_lines(evaluation.lines)
    if evaluation.scores.num_patients == 1:
        return
    say(f"\n{FEW_PATIENTS_MARK}: {FEW_PATIENTS_NOTE}")
    for exception in COVERAGE_EXCEPTIONS:
        say(exception)
    if some_lack_intervals(evaluation):
        say(
            "a score without an interval: fewer than two patients have the label, or lack it, or are in the group or "
            "fold"
        )


def _print_lines(lines: LineEvaluation) -> None:
    say(f"\nlines and tips against {lines.annotations}, where it is known which there are")
    say(f"{tables.lines_table(lines)}\n\n{tables.line_errors_table(lines)}")
    if lines.lengths:
        say(f"\n{tables.lengths_table(lines.lengths)}")
    if lines.rules:
        say(
            "\nlabels by rule and the likeliest of the device type by model, of images with the former; *: the interval"
        )
        say(f"of the difference leaves out 0\n{tables.rules_table(lines.rules)}")
        for rule in lines.rules:
            if note := tables.describe_counting(rule):
                say(f"{rule.name}: {note}")


def _print_settings(given: Input) -> None:
    assert given.settings is not None
    changed = ", ".join(f"{name}={value!r}" for name, value in changed_settings(given.settings).items())
    text = textwrap.fill(f"settings other than the defaults: {changed}", 116, subsequent_indent="  ",
                         break_long_words=False)  # fmt: skip
    say(textwrap.indent(text, "  "))
