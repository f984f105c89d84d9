"""`predict.py`'s command line."""

import argparse
from pathlib import Path

from catheters.commands.command_line import program

DESCRIPTION = """\
Predict X-rays with trained models.

  python predict.py --model saved_models/config images --out predictions.csv
      the mean of all folds of a run, for every image in a folder and the folders in it (DICOM, JPEG, PNG, TIFF, WebP)
  python predict.py --model saved_models/config/fold0/best.pt a.dcm b.png --out predictions.csv
      one checkpoint, two files
  python predict.py --model saved_models/ensemble test --submission sample_submission.csv --out predictions.csv
      an ensemble that evaluate.py made, and a submission for Kaggle

  python predict.py --model saved_models/config --serve
      a local page: drop X-rays on it, see what the model says and where it looked
  python predict.py --model saved_models/config/fold0/best.pt --export model.onnx
      one checkpoint as a file that runs without this program

Where evaluate.py has been run, its calibration and operating points are used. Research software, not a medical device:
nothing it says may decide about a patient.
"""


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """Parse the arguments; exits with status 2 where they do not go together."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION.replace("python predict.py", program("predict.py")),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model",
        nargs="+",
        type=Path,
        required=True,
        metavar="MODEL",
        help="checkpoints (.pt), run folders or the folder of an ensemble; images may follow them",
    )
    parser.add_argument(
        "inputs",
        nargs="*",
        type=Path,
        metavar="INPUT",
        help="image files, folders, a CSV with ids, or a .txt with an id per line (see --images)",
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
        help="where the images of a CSV or list of ids are, relative to its folder, to the run's dataset_folder or to "
        "the folder above, as in test/{uid}.jpg (default: as in training)",
    )
    parser.add_argument(
        "--submission", type=Path, metavar="FILE", help="a sample_submission.csv: write one in its format and order"
    )
    parser.add_argument(
        "--worklist",
        action="store_true",
        help="write the images in the order in which to read them, with one sentence per device type",
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
        help="draw over the X-ray where the models looked, for each predicted positive label, and a contact sheet",
    )
    parser.add_argument(
        "--lines",
        type=Path,
        metavar="FOLDER",
        help="of models trained with lines: draw the lines and tips that they see over each X-ray, into this folder, "
        "with a contact sheet; their points in pixels go into <out>_lines.csv beside the predictions, what the model "
        "measures into <out>_measurements.csv",
    )
    parser.add_argument(
        "--spacing",
        type=Path,
        metavar="FILE",
        help="with --lines: a CSV of the images' ids, spacing_x and spacing_y in mm per pixel, for lengths in mm "
        "(default: as the headers of DICOM files say)",
    )
    parser.add_argument(
        "--tta", action="store_true", help="test-time augmentation: predict each image mirrored too, and take the mean"
    )
    parser.add_argument("--flip", action="store_true", help=argparse.SUPPRESS)  # of version 0.2.0
    parser.add_argument("--no-calibration", action="store_true", help="leave the probabilities as the models give them")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:<index>")
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="images at a time (default: 4 on a CPU, 16 on a GPU)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes that read images (default: one per core)")
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
    if options.flip:
        parser.error("--flip is called --tta now (test-time augmentation)")
    if options.batch_size is not None and options.batch_size < 1:
        parser.error("--batch-size: 1 or more")
    if options.workers is not None and options.workers < 1:
        parser.error("--workers: 1 or more")
    of_predictions = ("worklist", "heatmaps", "lines", "spacing", "submission", "images")
    for other, idle in (("export", (*of_predictions, "tta")), ("serve", of_predictions)):
        given = [name for name in idle if getattr(options, name)]
        if getattr(options, other) and given:
            parser.error(f"--{given[0]} does nothing with --{other}")
    if options.half and options.export is None:
        parser.error("--half goes with --export")
    if options.urgent and not options.worklist:
        parser.error("--urgent goes with --worklist")
    if options.spacing is not None and options.lines is None:
        parser.error("--spacing goes with --lines")
    return options
