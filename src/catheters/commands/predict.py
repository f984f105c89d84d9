"""`predict.py`: checkpoints and X-rays to probabilities."""

import argparse
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from catheters.command_line import BAD_IMAGES_STATUS
from catheters.errors import UserError
from catheters.host import available_cores
from catheters.interrupts import Interrupted, interrupt_signal

if TYPE_CHECKING:
    from catheters.inference.findings import Findings
    from catheters.inference.inputs import Images
    from catheters.inference.models import Models
    from catheters.inference.predictor import Predictor
    from catheters.inference.stream import Answers

DESCRIPTION = """\
Predict X-rays with trained models.

  python predict.py --model saved_models/config images --out predictions.csv
      the mean of all folds of a run, for every image in a folder and the folders in it (DICOM, JPEG, PNG, TIFF, WebP)
  python predict.py --model saved_models/config/fold0/best.pt a.dcm b.png --out predictions.csv
      one checkpoint, two files
  python predict.py --model saved_models/ensemble test --submission sample_submission.csv --out predictions.csv
      a blend that evaluate.py made, and a submission for Kaggle

  python predict.py --model saved_models/config --serve
      a local page: drop X-rays on it, see what the model says and where it looked
  python predict.py --model saved_models/config/fold0/best.pt --export model.onnx
      one checkpoint as a file that runs without this program

Where evaluate.py has been run, its calibration and operating points are used. Research software, not a medical device:
nothing it says may decide about a patient.
"""

DEFAULT_BATCH_SIZES = {"cpu": 4, "cuda": 16}


def main(arguments: list[str]) -> int:
    """Predict images, or what else the options ask for. Returns the exit status."""
    options = _parse(arguments)
    # Imported only now: torch and timm take seconds to load, and a mistyped option is answered at once.
    import torch

    from catheters.inference.findings import find, urgent_columns
    from catheters.inference.inputs import list_images
    from catheters.inference.models import RANKS_ONLY, is_model, read_models
    from catheters.inference.outputs import (
        read_submission,
        write_details,
        write_predictions,
        write_submission,
        write_worklist,
    )
    from catheters.inference.predictor import Predictor
    from catheters.training.step import choose_device, device_name

    num_models = next((n for n, path in enumerate(options.model) if n and not is_model(path)), len(options.model))
    model_paths, inputs = options.model[:num_models], options.model[num_models:] + options.inputs
    if options.serve:
        return _serve(model_paths, inputs, options)
    if options.export is not None:
        return _export(model_paths, inputs, options)
    if not is_model(model_paths[0]):
        read_models(model_paths[:1])  # says what it is instead
    if not inputs:
        raise UserError("no images: give files, folders or a CSV of ids after the models")
    out: Path = options.out
    _check_out(out, [*inputs, *([] if options.submission is None else [options.submission])])
    if options.heatmaps is not None and (options.heatmaps.is_file() or not options.heatmaps.absolute().parent.is_dir()):
        raise UserError(f"--heatmaps {options.heatmaps}: a folder is expected, in one that exists")
    device = choose_device(options.device)
    models = read_models(model_paths)
    if options.no_calibration:
        models = models.without_calibration()
    if not models.gives_probabilities and (options.worklist or options.heatmaps is not None):
        raise UserError(f"{model_paths[0]}: {RANKS_ONLY}")
    images = list_images(inputs, models.settings, options.images)
    urgent = urgent_columns(models.labels, options.urgent) if options.worklist else []
    sample = None if options.submission is None else read_submission(options.submission, images, models.labels)
    num_checkpoints = len(models.checkpoints)
    print(
        f"{_count(len(images), 'image')}, {_count(num_checkpoints, 'model')} on {device_name(device)}; "
        f"{_kind_in_words(models)}"
    )
    if len(model_paths) > 1:
        print("calibration and operating points of several models: evaluate.py --ensemble, then --model its folder")
    predictor = Predictor(models, device, flip=options.flip)
    try:
        answers = _predict(predictor, images, options)
    except KeyboardInterrupt:
        raise Interrupted("the same command goes on where it stopped", interrupt_signal() or signal.SIGINT) from None
    except torch.OutOfMemoryError:
        raise UserError(
            f"the GPU has no memory for so much; give a smaller --batch-size. What is done is in {_part_file(out)}"
        ) from None
    findings = find(predictor, answers.probabilities)
    uid_column = models.settings.uid_column
    written = {"the predictions": out}
    write_predictions(out, uid_column, images, answers, findings)
    if models.gives_probabilities:
        written["a row an image and label"] = out.with_name(f"{out.stem}_details.csv")
        write_details(written["a row an image and label"], uid_column, images, answers, findings)
    if sample is not None:
        written["the submission"] = out.with_name(f"{out.stem}_submission.csv")
        write_submission(written["the submission"], sample, images, answers, findings)
    if options.worklist:
        written["the worklist"] = out.with_name(f"{out.stem}_worklist.csv")
        write_worklist(written["the worklist"], uid_column, images, answers, findings, urgent)
    if options.heatmaps is not None:
        written["heatmaps"] = _draw_heatmaps(options, predictor, images, answers, findings)
    _part_file(out).unlink()
    print("\n".join(f"{what} -> {file}" for what, file in written.items()))
    return _report(images, answers)


def _export(model_paths: list[Path], inputs: list[Path], options: argparse.Namespace) -> int:
    from catheters.inference.export import export
    from catheters.inference.models import read_models

    if inputs:
        raise UserError(f"--export: {inputs[0]} is no model, and no images are predicted")
    models = read_models(model_paths)
    if options.no_calibration:
        models = models.without_calibration()
    checked = export(models, options.export, half=options.half)
    print(f"{checked} -> {options.export}")
    return 0


def _serve(model_paths: list[Path], inputs: list[Path], options: argparse.Namespace) -> int:
    from catheters.inference.models import RANKS_ONLY, read_models
    from catheters.inference.predictor import Predictor
    from catheters.inference.server import serve
    from catheters.training.step import choose_device

    if inputs:
        raise UserError(f"--serve: {inputs[0]} is no model; X-rays are dropped on the page")
    models = read_models(model_paths)
    if not models.gives_probabilities:
        raise UserError(f"{model_paths[0]}: {RANKS_ONLY}")
    if options.no_calibration:
        models = models.without_calibration()
    predictor = Predictor(models, choose_device(options.device), flip=options.flip)
    serve(predictor, ", ".join(map(str, model_paths)), options.host, options.port)
    return 0


def _predict(predictor: "Predictor", images: "Images", options: argparse.Namespace) -> "Answers":
    from catheters.inference.stream import predict_images

    part_file = _part_file(options.out)
    if options.fresh:
        part_file.unlink(missing_ok=True)
    checkpoints = [checkpoint.file for checkpoint in predictor.models.checkpoints]
    states = [(file.stat().st_size, file.stat().st_mtime_ns) for file in checkpoints]
    return predict_images(
        predictor,
        images,
        part_file,
        batch_size=options.batch_size or DEFAULT_BATCH_SIZES[predictor.device.type],
        num_workers=_num_workers(options),
        key=f"{[str(file) for file in checkpoints]} {states} {options.flip}",
    )


def _draw_heatmaps(
    options: argparse.Namespace, predictor: "Predictor", images: "Images", answers: "Answers", findings: "Findings"
) -> Path:
    from catheters.inference.heatmaps import write_heatmaps

    num_maps, sheet = write_heatmaps(options.heatmaps, predictor, images, answers, findings, _num_workers(options))
    print(f"{num_maps} heatmaps of labels that are called present ({findings.rule})")
    return sheet or Path(options.heatmaps)


def _num_workers(options: argparse.Namespace) -> int:
    return available_cores() if options.workers is None else int(options.workers)


def _part_file(out: Path) -> Path:
    return out.with_name(f"{out.name}.unfinished")  # `.part` is what whole files are written under


def _check_out(out: Path, read: list[Path]) -> None:
    """Refuse to write over what is read, or over what training or evaluation have written."""
    folder = out.absolute().parent
    if out.is_dir() or out.suffix != ".csv" or not folder.is_dir():
        raise UserError(f"--out {out}: a file that ends in .csv is expected, in a folder that exists")
    written = {out.with_name(f"{out.stem}{end}.csv").resolve() for end in ("", "_details", "_submission", "_worklist")}
    for path in read:
        if path.resolve() in written:
            raise UserError(f"--out {out}: {path} would be written over; choose another name")
    if any((folder / name).is_file() for name in ("settings.json", "ensemble.json")):
        raise UserError(f"--out {out}: its folder is that of a run or blend; choose another one")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _kind_in_words(models: "Models") -> str:
    if not models.gives_probabilities:
        return "ranks among these images, no probabilities"
    return "probabilities as the models give them" if models.calibrator is None else "calibrated probabilities"


def _report(images: "Images", answers: "Answers") -> int:
    """Say which images could not be read, and how many are doubtful; returns the exit status."""
    bad = [(uid, reason) for uid, reason in zip(images.uids, answers.reasons, strict=True) if reason]
    doubtful = [(uid, doubts[0]) for uid, doubts in zip(images.uids, answers.doubts, strict=True) if doubts]
    for what, found in (("not predicted", bad), ("doubtful, see the column `doubts`", doubtful)):
        if found:
            print(f"{len(found)} of {_count(len(images), 'image')} {what}:")
            print("\n".join(f"  {uid}: {text}" for uid, text in found[:5]) + ("\n  ..." if len(found) > 5 else ""))
    return BAD_IMAGES_STATUS if bad else 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model",
        nargs="+",
        type=Path,
        required=True,
        metavar="MODEL",
        help="checkpoints (.pt), run folders or the folder of a blend; images may follow them",
    )
    parser.add_argument(
        "inputs", nargs="*", type=Path, metavar="INPUT", help="image files, folders, or a CSV of ids (see --images)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("predictions.csv"),
        metavar="FILE",
        help="the predictions; what else is written is named after it (default: %(default)s)",
    )
    parser.add_argument(
        "--images",
        metavar="PATTERN",
        help="where the images of a CSV of ids are, relative to it, as in test/{uid}.jpg (default: as in training)",
    )
    parser.add_argument(
        "--submission", type=Path, metavar="FILE", help="a sample_submission.csv: write one in its format and order"
    )
    parser.add_argument(
        "--worklist",
        action="store_true",
        help="write the images in the order in which to read them, with a sentence for each device",
    )
    parser.add_argument(
        "--urgent",
        action="append",
        default=[],
        metavar="LABEL",
        help="what makes an image urgent (default: every label that says abnormal); repeatable",
    )
    parser.add_argument(
        "--heatmaps",
        type=Path,
        metavar="FOLDER",
        help="draw over the X-ray where the models looked, for each label that is called present, and a contact sheet",
    )
    parser.add_argument("--flip", action="store_true", help="predict each image mirrored as well, and take the mean")
    parser.add_argument("--no-calibration", action="store_true", help="leave the probabilities as the models give them")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:<index>")
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="images at a time (default: 4 on a CPU, 16 on a GPU)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes that read images (default: one a core)")
    parser.add_argument(
        "--export",
        type=Path,
        metavar="FILE",
        help="write one checkpoint for other programs: .onnx, or .safetensors with the weights; nothing is predicted",
    )
    parser.add_argument("--serve", action="store_true", help="open a local page to drop X-rays on")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address of the page (%(default)s: this machine alone can reach it)"
    )
    parser.add_argument(
        "--port", type=int, default=8000, metavar="N", help="of the page; 0: any free one (%(default)s)"
    )
    parser.add_argument("--half", action="store_true", help="--export an .onnx at half precision (fp16)")
    parser.add_argument(
        "--fresh", action="store_true", help="start over, where a command that was stopped has left a part"
    )
    options = parser.parse_intermixed_args(arguments)
    if options.batch_size is not None and options.batch_size < 1:
        parser.error("--batch-size: 1 or more")
    if options.workers is not None and options.workers < 1:
        parser.error("--workers: 1 or more")
    of_predictions = ("worklist", "heatmaps", "submission", "images")
    for other, idle in (("export", (*of_predictions, "flip")), ("serve", of_predictions)):
        given = [name for name in idle if getattr(options, name)]
        if getattr(options, other) and given:
            parser.error(f"--{given[0]} does nothing with --{other}")
    if options.half and options.export is None:
        parser.error("--half goes with --export")
    if options.urgent and not options.worklist:
        parser.error("--urgent goes with --worklist")
    return options
