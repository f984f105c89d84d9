"""`predict.py`: checkpoints and X-rays to probabilities."""

import argparse
import hashlib
import signal
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from catheters.commands.command_line import BAD_IMAGES_STATUS, refuse_ranks
from catheters.commands.prediction_options import parse_options
from catheters.config.loading import read_run_settings
from catheters.errors import UserError, counted
from catheters.runtime.console import say, silent, warn
from catheters.runtime.host import available_cores, num_local_processes, num_restarts
from catheters.runtime.interrupts import Interrupted, interrupt_signal

if TYPE_CHECKING:
    import torch

    from catheters.inference.batch_prediction import Predictions
    from catheters.inference.inputs import Images
    from catheters.inference.interpretation import Findings
    from catheters.inference.lines.finding import FoundLines
    from catheters.inference.loading import Models
    from catheters.inference.predictor import Predictor
    from catheters.measurements import PixelSpacing
    from catheters.runtime.distributed import TorchrunProcesses

DEFAULT_BATCH_SIZES = {"cpu": 4, "cuda": 16, "xpu": 16, "mps": 16}


def main(arguments: list[str]) -> int:
    """Predict images, or what else the options ask for. Returns the exit status."""
    options = parse_options(arguments)
    # Imported only now: torch and timm take seconds to load, and a mistyped option is answered at once.
    from catheters.inference.inputs import check_given
    from catheters.inference.interpretation import urgent_columns
    from catheters.inference.loading import is_model
    from catheters.runtime.distributed import joined_torchrun

    num_models = next((n for n, path in enumerate(options.model) if n and not is_model(path)), len(options.model))
    model_paths, inputs = options.model[:num_models], options.model[num_models:] + options.inputs
    if options.serve or options.export is not None:
        refuse_ranks("--serve" if options.serve else "--export")
        if inputs:
            raise UserError(f"{inputs[0]}: is no model, and with --serve and --export no images are given")
        if not options.serve:
            return _export(_read_models(model_paths, options, needs_probabilities=True), options)
        device = _open_device(options.device)
        return _serve(_read_models(model_paths, options, needs_probabilities=True), device, model_paths, options)
    with joined_torchrun() as torchrun, silent(torchrun.rank > 0):
        if not is_model(model_paths[0]):
            _read_models(model_paths[:1], options, needs_probabilities=False)  # says what it is instead
        if not inputs:
            raise UserError("no images: give files, folders or a CSV of ids after the models")
        further = [file for file in (options.submission, options.spacing) if file is not None]
        _check_out(options.out, [*inputs, *further])
        _check_folders(options)
        # What is quickly looked at comes before the models, which take seconds.
        check_given(inputs)
        settings_file = model_paths[0] / "settings.json"
        if options.worklist and settings_file.is_file():
            urgent_columns(read_run_settings(settings_file).label_columns, options.urgent)
        needs_probabilities = options.worklist or options.heatmaps is not None or options.lines is not None
        device = _open_device(options.device)
        models = _read_models(model_paths, options, needs_probabilities=needs_probabilities)
        status = _predict_and_write(models, device, inputs, options, torchrun)
        return status if torchrun.count == 1 else 0  # any other one torchrun takes for a rank that has failed


def _read_models(paths: list[Path], options: argparse.Namespace, *, needs_probabilities: bool) -> "Models":
    from catheters.inference.loading import RANKS_ONLY, read_models

    models = read_models(paths)
    if needs_probabilities and not models.gives_probabilities:
        raise UserError(f"{paths[0]}: {RANKS_ONLY}")
    return models.without_calibration() if options.no_calibration else models


def _export(models: "Models", options: argparse.Namespace) -> int:
    from catheters.inference.export import export

    say(f"{export(models, options.export, half=options.half)} -> {options.export}")
    return 0


def _serve(models: "Models", device: "torch.device", model_paths: list[Path], options: argparse.Namespace) -> int:
    from catheters.inference.predictor import Predictor
    from catheters.inference.server import serve

    _prepare_device(models, device)
    predictor = Predictor(models, device, tta=options.tta)
    serve(predictor, ", ".join(map(str, model_paths)), options.host, options.port)
    return 0


def _open_device(name: str) -> "torch.device":
    from catheters.runtime.device import open_device

    return open_device(name)


def _prepare_device(models: "Models", device: "torch.device") -> None:
    """Let it compute as exactly as in training, so that its predictions come again but for rounding."""
    from catheters.runtime.device import prepare_device
    from catheters.runtime.precision import warn_of_precision

    warn_of_precision([checkpoint.dtype_on(device) for checkpoint in models.checkpoints], device)
    prepare_device(device, deterministic=True)


def _predict_and_write(
    models: "Models",
    device: "torch.device",
    inputs: list[Path],
    options: argparse.Namespace,
    torchrun: "TorchrunProcesses",
) -> int:
    """Predict the images, write what is asked for, and say where it is. Returns the exit status.

    Of several ranks each predicts a share, and rank 0 does all the rest.
    """
    from catheters.inference import writers
    from catheters.inference.inputs import list_images
    from catheters.inference.interpretation import find, urgent_columns
    from catheters.inference.lines.measuring import planned_of
    from catheters.inference.lines.table import remove_tables, write_lines, write_measurements
    from catheters.inference.predictor import Predictor
    from catheters.runs.build import build_table_source
    from catheters.runtime.device import device_name

    _prepare_device(models, device)
    settings = models.checkpoints[0].settings
    images = list_images(inputs, build_table_source(settings), options.images)
    urgent = urgent_columns(models.labels, options.urgent) if options.worklist else []
    spacings = {} if options.spacing is None else _read_spacings(options.spacing, settings.uid_column, images, models)
    sample = None if options.submission is None else writers.read_submission(options.submission, images, models.labels)
    say(
        f"{counted(len(images), 'image')}, {counted(len(models.checkpoints), 'model')} on {device_name(device)}; "
        f"{_kind_in_words(models, tta=options.tta)}"
    )
    if len(models.members) > 1 and models.thresholds is None and models.gives_probabilities:
        say("calibration and operating points of several models: evaluate.py --ensemble, then --model its folder")
    predictor = Predictor(models, device, tta=options.tta)
    if options.heatmaps is not None:
        _check_heatmaps(predictor)
    if options.lines is not None:
        _check_lines(models)
    _check_ranks(torchrun, device, models, images, options)
    predictions = _predict(predictor, images, options, torchrun)
    if torchrun.rank > 0:
        return 0
    findings = find(predictor, predictions.probabilities)
    out: Path = options.out
    uid_column = settings.uid_column
    written = {"the predictions": out}
    is_complete = True
    lines_file, measurements_file = (out.with_name(f"{out.stem}_{name}.csv") for name in ("lines", "measurements"))
    remove_tables((lines_file, measurements_file))  # of earlier predictions: they would be taken for these ones
    writers.write_predictions(out, uid_column, images, predictions, findings)
    if models.gives_probabilities:
        written["one row per image and label"] = out.with_name(f"{out.stem}_details.csv")
        writers.write_details(written["one row per image and label"], uid_column, images, predictions, findings)
    if sample is not None:
        written["the submission"] = out.with_name(f"{out.stem}_submission.csv")
        writers.write_submission(written["the submission"], sample, images, findings)
    found = None
    if options.lines is not None:
        written["lines over the X-rays"], is_complete, found = _draw_lines(
            options, predictor, images, predictions, findings, spacings
        )
        written["one row per line"] = lines_file
        lines = [(images.uids[row], line) for row in sorted(found) for line in found[row].lines]
        write_lines(written["one row per line"], uid_column, lines)
        if planned_of(models):
            written["one row per measurement"] = measurements_file
            taken = [(images.uids[row], each) for row in sorted(found) for each in found[row].measurements]
            write_measurements(written["one row per measurement"], uid_column, taken)
    if options.worklist:
        written["the worklist"] = out.with_name(f"{out.stem}_worklist.csv")
        writers.write_worklist(written["the worklist"], uid_column, images, predictions, findings, urgent, found)
    if options.heatmaps is not None:
        written["heatmaps"], has_all = _draw_heatmaps(options, predictor, images, predictions, findings)
        is_complete = is_complete and has_all
    _part_file(out).unlink()
    say("\n".join(f"{what} -> {file}" for what, file in written.items()))
    return max(_report(images, predictions), 0 if is_complete else BAD_IMAGES_STATUS)


def _check_ranks(
    torchrun: "TorchrunProcesses",
    device: "torch.device",
    models: "Models",
    images: "Images",
    options: argparse.Namespace,
) -> None:
    """Refuse ranks that share a GPU, or of which one has another program, other models, images or options."""
    from catheters.io.files import sha256_of
    from catheters.runtime.device import check_own_devices, identity_of

    if torchrun.count == 1:
        return
    check_own_devices(torchrun.gather("device", identity_of(device)))
    facts = {
        "version": version("catheters"),
        "SHA-256 of the checkpoints": [sha256_of(checkpoint.file) for checkpoint in models.checkpoints],
        "ids of the images (SHA-256)": hashlib.sha256("\n".join(images.uids).encode()).hexdigest(),
        "--tta": options.tta,
    }
    torchrun.check_alike("command", facts)


def _predict(
    predictor: "Predictor", images: "Images", options: argparse.Namespace, torchrun: "TorchrunProcesses"
) -> "Predictions":
    from catheters.inference.batch_prediction import predict_images
    from catheters.inference.unfinished import remove_parts
    from catheters.runtime.shortage import DeviceError

    part_file = _part_file(options.out)
    if options.fresh and torchrun.rank == 0 and num_restarts() == 0:
        remove_parts(part_file)
    checkpoints = [checkpoint.file for checkpoint in predictor.models.checkpoints]
    states = [(file.stat().st_size, file.stat().st_mtime_ns) for file in checkpoints]
    try:
        return predict_images(
            predictor,
            images,
            part_file,
            batch_size=options.batch_size or DEFAULT_BATCH_SIZES[predictor.device.type],
            num_workers=_num_workers(options),
            key=f"{version('catheters')} {[str(file) for file in checkpoints]} {states} {options.tta}",
            torchrun=torchrun,
        )
    except KeyboardInterrupt:
        if torchrun.rank > 0:
            raise
        raise Interrupted("the same command resumes where it stopped", interrupt_signal() or signal.SIGINT) from None
    except DeviceError as error:
        raise UserError(f"{error}. What is done is in {part_file}; the same command resumes from there") from None


def _read_spacings(file: Path, uid_column: str, images: "Images", models: "Models") -> "dict[str, PixelSpacing]":
    """Uid -> what a table says of the pixels of an image.

    Raises:
        UserError: it is no such table, has none of the images, or the models measure nothing.
    """
    from catheters.data.spacing import check_spacing_ids, read_spacing_table
    from catheters.inference.lines.measuring import planned_of

    spacings = read_spacing_table(file, uid_column)
    if not planned_of(models):
        raise UserError(f"--spacing {file}: the model measures nothing; train it with the setting measurements")
    check_spacing_ids(spacings, images.uids, str(file))
    without = [uid for uid in images.uids if uid not in spacings]
    if without:
        warn(
            f"--spacing {file}: no row for {len(without)} of {counted(len(images), 'image')}, {without[0]} for one, so "
            "no lengths in mm there, unless a DICOM header has the spacing"
        )
    return spacings


def _check_heatmaps(predictor: "Predictor") -> None:
    from catheters.inference.heatmaps import check_maps

    check_maps(predictor)


def _check_lines(models: "Models") -> None:
    from catheters.inference.lines.prediction import with_decoder

    with_decoder(models)


def _draw_heatmaps(
    options: argparse.Namespace,
    predictor: "Predictor",
    images: "Images",
    predictions: "Predictions",
    findings: "Findings",
) -> tuple[Path, bool]:
    """The contact sheet, or the folder where there is none; and whether each image has its heatmaps."""
    from catheters.inference.heatmaps import write_heatmaps

    drawn = write_heatmaps(options.heatmaps, predictor, images, predictions, findings, _num_workers(options))
    say(f"{counted(drawn.num_figures, 'heatmap')} of labels that are predicted positive ({findings.rule})")
    if drawn.missing:
        _print_some(f"{counted(len(drawn.missing), 'image')} without heatmaps:", list(drawn.missing.items()))
    return drawn.sheet or Path(options.heatmaps), not drawn.missing


def _draw_lines(
    options: argparse.Namespace,
    predictor: "Predictor",
    images: "Images",
    predictions: "Predictions",
    findings: "Findings",
    spacings: Mapping[str, "PixelSpacing"],
) -> tuple[Path, bool, dict[int, "FoundLines"]]:
    """The contact sheet, or the folder where there is none; whether each image has its figure; row -> its lines."""
    from catheters.inference.lines.drawing import write_line_figures

    drawn, found = write_line_figures(
        options.lines, predictor, images, predictions, findings, _num_workers(options), spacings, options.spacing
    )
    num_lines = sum(len(of_image.lines) for of_image in found.values())
    num_with = sum(bool(of_image.lines) for of_image in found.values())
    say(f"{counted(num_lines, 'line')} in {num_with} of {counted(len(found), 'image')}")
    lengths = [taken.measurement for of_image in found.values() for taken in of_image.measurements]
    if lengths:
        num_without = sum(length.mm is None for length in lengths)
        without = f", {num_without} without mm, see the column `doubt`" if num_without else ""
        say(f"{counted(len(lengths), 'measurement')}{without}")
    if drawn.missing:
        _print_some(f"{counted(len(drawn.missing), 'image')} without lines:", list(drawn.missing.items()))
    return drawn.sheet or Path(options.lines), not drawn.missing, found


def _num_workers(options: argparse.Namespace) -> int:
    """Those of `--workers`, of each rank; by default one per core, which the ranks of a machine share."""
    return max(1, available_cores() // num_local_processes()) if options.workers is None else int(options.workers)


def _part_file(out: Path) -> Path:
    return out.with_name(f"{out.name}.unfinished")  # `.part` is what whole files are written under


def _check_folders(options: argparse.Namespace) -> None:
    """Figures go into folders that can be made, each kind into its own."""
    for option in ("heatmaps", "lines"):
        folder = getattr(options, option)
        if folder is not None and (folder.is_file() or not folder.absolute().parent.is_dir()):
            raise UserError(f"--{option} {folder}: a folder is expected, in one that exists")
    both = [folder.resolve() for folder in (options.heatmaps, options.lines) if folder is not None]
    if len(both) > len(set(both)):
        raise UserError(f"--lines {options.lines}: is the folder of --heatmaps too; choose another one")


def _check_out(out: Path, read: list[Path]) -> None:
    """Refuse to write over what is read, or over what training or evaluation have written."""
    folder = out.absolute().parent
    if out.is_dir() or out.suffix != ".csv" or not folder.is_dir():
        raise UserError(f"--out {out}: a file that ends in .csv is expected, in a folder that exists")
    ends = ("", "_details", "_submission", "_worklist", "_lines", "_measurements")
    written = {out.with_name(f"{out.stem}{end}.csv").resolve() for end in ends}
    for path in read:
        if path.resolve() in written:
            raise UserError(f"--out {out}: {path} would be written over; choose another name")
    if any((folder / name).is_file() for name in ("settings.json", "ensemble.json")):
        raise UserError(f"--out {out}: its folder is that of a run or ensemble; choose another one")


def _kind_in_words(models: "Models", *, tta: bool) -> str:
    if not models.gives_probabilities:
        kind = "ranks among these images, no probabilities"
    else:
        kind = "calibrated probabilities" if models.is_calibrated else "probabilities as the models give them"
    return f"{kind}, with test-time augmentation" if tta else kind


def _report(images: "Images", predictions: "Predictions") -> int:
    """Say which images could not be read, and how many have quality flags; returns the exit status."""
    bad = [(uid, reason) for uid, reason in zip(images.uids, predictions.reasons, strict=True) if reason]
    flagged = [(uid, flags[0]) for uid, flags in zip(images.uids, predictions.quality_flags, strict=True) if flags]
    for what, found in (("not predicted", bad), ("with quality flags, see the column `quality_flags`", flagged)):
        if found:
            _print_some(f"{len(found)} of {counted(len(images), 'image')} {what}:", found)
    return BAD_IMAGES_STATUS if bad else 0


def _print_some(heading: str, reasons: list[tuple[str, str]]) -> None:
    say(heading)
    say("\n".join(f"  {uid}: {text}" for uid, text in reasons[:5]) + ("\n  ..." if len(reasons) > 5 else ""))
