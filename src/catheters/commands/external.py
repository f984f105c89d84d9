"""`evaluate.py --external`: a run, frozen, on images from elsewhere."""

import argparse
import contextlib
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

from catheters.commands.command_line import program
from catheters.commands.external_options import read_external_choices
from catheters.config.loading import load_settings
from catheters.errors import UserError
from catheters.evaluation.external import tables
from catheters.evaluation.external.files import CARD_FILE, JSON_FILE, PAGE_FILE
from catheters.evaluation.external.known import FOLDER, read_source
from catheters.evaluation.external.validation import ExternalChoices
from catheters.evaluation.external.verdict import summarise
from catheters.evaluation.intervals import FEW_PATIENTS_MARK, FEW_PATIENTS_NOTE
from catheters.runs.evaluation.label_source import LabelSource
from catheters.runs.external.frozen_run import PREDICTIONS_FILE, check_run
from catheters.runs.external.prediction import PredictionOptions
from catheters.runs.external.validate import (
    PART_FILE,
    Validated,
    validate_config,
    validate_predictions,
    write_all,
)
from catheters.runtime.console import say, warn
from catheters.runtime.device import open_device
from catheters.runtime.host import available_cores

DEFAULT_BATCH_SIZES = {"cpu": 4, "cuda": 16, "xpu": 16, "mps": 16}


def validate_external(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Print tables, and write the page, the card and more.

    Args:
        options: what `parse_options` made of the arguments.
        arguments: the command's own, for the page.

    Returns:
        The exit status.
    """
    choices = read_external_choices(options)
    check_run(options.external)
    name, folder, made = _find_folder(options)
    try:
        validated = _validate(options, folder, choices)
    except BaseException:
        for path in made:  # nothing is left of what is refused
            with contextlib.suppress(OSError):  # there is something in it
                path.rmdir()
        raise
    _print(validated)
    write_all(validated, name, _source(options), f"{program('evaluate.py')} {shlex.join(arguments)}")
    say(f"\n{summarise(validated.validation)}")
    say(f"a page to look at -> {folder / PAGE_FILE}\na card for the model -> {folder / CARD_FILE}")
    say(f"all numbers -> {folder / JSON_FILE}")
    return 0


def _validate(options: argparse.Namespace, folder: Path, choices: ExternalChoices) -> Validated:
    """Predict the images of a config, or read predictions, and validate them."""
    run: Path = options.external
    if options.predictions is None:
        theirs = load_settings(options.config)
        device = open_device(options.device or "auto")
        how = PredictionOptions(
            device=device,
            batch_size=options.batch_size or DEFAULT_BATCH_SIZES[device.type],
            num_workers=options.workers or available_cores(),
            fresh=options.fresh,
        )
        return validate_config(run, theirs, options.config, folder, how, choices)
    return validate_predictions(
        run,
        options.predictions[0],
        _label_source(options),
        folder,
        choices,
        are_logits=options.logits,
        are_calibrated=not (options.uncalibrated or options.logits),
    )


def _find_folder(options: argparse.Namespace) -> tuple[str, Path, list[Path]]:
    """The name and the folder of the results, made and writable, and which folders are new, the deepest first."""
    file = _source(options)
    name = options.name or Path(file.name.removesuffix(".gz")).stem
    if name in (".", ".."):
        raise UserError(f"{name} is no name of a folder for the results; give one with --name")
    folder = options.out or options.external / FOLDER / name
    if options.out is not None and (folder.is_file() or not folder.absolute().parent.is_dir()):
        raise UserError(f"{folder}: a folder for the results is expected, in one that exists")
    _check_not_taken(folder, file)
    made = [path for path in (folder, folder.parent) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"{folder}: results cannot be written there ({error.strerror}); name another folder with --out"
        ) from None
    return name, folder, made


def _source(options: argparse.Namespace) -> Path:
    """The config or the predictions that are validated."""
    return Path(options.config if options.predictions is None else options.predictions[0])


def _check_not_taken(folder: Path, source: Path) -> None:
    """Raise a UserError where the results would overwrite anything but those of an earlier validation of the source."""
    of_run = next((name for name in ("settings.json", "ensemble.json") if (folder / name).exists()), None)
    is_validation = (folder / JSON_FILE).exists() or (folder / PART_FILE).exists()
    if of_run is None and (folder / PREDICTIONS_FILE).exists() and not is_validation:
        of_run = PREDICTIONS_FILE
    if of_run is not None:
        raise UserError(f"{folder}: has a {of_run} that is of no validation; name another folder with --out")
    earlier = read_source(folder)
    if earlier not in (None, str(source.resolve())):
        raise UserError(
            f"{folder}: has the validation of {earlier}, not of {source}; give this one another name with --name"
        )


def _label_source(options: argparse.Namespace) -> LabelSource:
    label_values = None
    if options.label_values is not None:
        label_values = load_settings(None, [f"label_values={options.label_values}"]).label_values
    return LabelSource(
        file=options.labels,
        rules=None if options.config is None else load_settings(options.config),
        id_column=options.id_column,
        patient_column=options.patient_column,
        label_values=label_values,
    )


def _print(validated: Validated) -> None:
    validation = validated.validation
    for caveat in validation.caveats:
        warn(caveat.text)
    say(
        f"{validated.theirs.source}: {validation.num_images} images of {validation.num_patients} patients; thresholds "
        f"by {validation.rule}, calibration {validation.calibration}, both frozen"
    )
    for measure in tables.SHOWN:
        say(f"\n{tables.measures_table(validation, measure)}")
    say("\n*: more than chance, by Holm over all labels and all that is checked")
    say(f"{FEW_PATIENTS_MARK}: {FEW_PATIENTS_NOTE}\n")
    say(tables.verdicts(validation.results))
    if shift := tables.describe_shift(validation):
        say(f"\n{shift}")
    say(f"\n{tables.sizes_table(validation.sample_sizes)}")
