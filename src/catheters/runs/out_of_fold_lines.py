"""Out-of-fold lines of a run whose models find them, and what is measured: each fold's, and all finished folds'."""

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from catheters.checkpoints.checkpoint import load_checkpoint
from catheters.checkpoints.finished import LINES_FILE, MEASUREMENTS_FILE, check_finished
from catheters.config.settings import Settings
from catheters.data.loader import Loader
from catheters.data.preprocessing import Placement
from catheters.errors import counted
from catheters.inference.lines.landmarks import find_landmarks
from catheters.inference.lines.maps import Frame, split_outputs
from catheters.inference.lines.measuring import TakenMeasurement, plan, take_measurements
from catheters.inference.lines.prediction import PredictedLine, find_lines
from catheters.inference.lines.table import write_lines, write_measurements
from catheters.inference.predictor import NO_NUMBER
from catheters.io.files import write_whole
from catheters.measurements import PixelSpacing
from catheters.runs.run_data import RunData
from catheters.runtime.console import warn
from catheters.runtime.precision import autocast
from catheters.runtime.progress import track


@torch.inference_mode()
def write_fold_lines(settings: Settings, data: RunData, fold: int, loader: Loader, device: torch.device) -> None:
    """Write the lines that a fold's best model finds in the fold's images, and what `measurements` ask for.

    Images for whose maps the model gives NaN or infinity, as mixed precision may, have none; a warning counts them.

    Args:
        settings: the run's settings.
        data: its images.
        fold: the validation fold.
        loader: batches of its images, in order.
        device: where to compute.
    """
    assert data.placements is not None and data.full_shapes is not None, "runs that learn lines know these"
    folder = settings.run_folder / f"fold{fold}"
    checkpoint = load_checkpoint(folder / "best.pt")
    model = checkpoint.model.to(device)
    rows = iter(np.flatnonzero(data.folds == fold).tolist())
    found: list[tuple[str, PredictedLine]] = []
    taken: list[tuple[str, TakenMeasurement]] = []
    without_maps: list[str] = []
    planned, device_types = plan(settings.measurements, settings.rules_by_name), tuple(settings.device_types)
    uids = data.uids
    for batch in track(loader, "finding lines", len(loader), unit="batch", leave=False):
        with autocast(device, checkpoint.dtype_on(device)):
            outputs = model(batch.images.to(device, non_blocking=True), with_lines=True)
        probabilities = model.probabilities(outputs).cpu().numpy()
        of_batch = [next(rows) for _ in range(len(batch))]
        frames = [_frame(settings, data.placements[row].tolist()) for row in of_batch]
        maps = split_outputs(outputs, settings.label_columns, settings.device_types, frames, settings.landmarks)
        for row, of_image, of_labels in zip(of_batch, maps, probabilities.tolist(), strict=True):
            if not of_image.are_finite:
                without_maps.append(str(uids[row]))
                continue
            lines = find_lines(of_image, dict(zip(settings.label_columns, of_labels, strict=True)))
            found += [(str(uids[row]), line) for line in lines]
            height, width = data.full_shapes[row].tolist()
            spacing, landmarks = _spacing(data, row), find_landmarks(of_image)
            of_row = take_measurements(planned, lines, device_types, landmarks, spacing, (height, width))
            taken += [(str(uids[row]), measurement) for measurement in of_row]
    if without_maps:
        is_half = checkpoint.dtype_on(device) is torch.float16
        remedy = "; amp_dtype='bfloat16' or use_amp=False has a wider range" if is_half else ""
        warn(
            f"{checkpoint.file}: {NO_NUMBER} in the maps of {counted(len(without_maps), 'image')}, {without_maps[0]} "
            f"for one, so no line is found there{remedy}"
        )
    write_lines(folder / LINES_FILE, settings.uid_column, found)
    if planned:
        write_measurements(folder / MEASUREMENTS_FILE, settings.uid_column, taken)


def _spacing(data: RunData, row: int) -> PixelSpacing | None:
    """Of an image; None where no table says."""
    if data.spacings is None or np.isnan(data.spacings[row]).any():
        return None
    x, y = data.spacings[row].tolist()
    return PixelSpacing((x, y))


def _frame(settings: Settings, placement: list[float]) -> Frame:
    scale_x, scale_y, offset_x, offset_y = placement
    return Frame(
        placement=Placement((scale_x, scale_y), (offset_x, offset_y)),
        image_shape=settings.image_shape,
        map_shape=settings.map_shape,
    )


def join_lines(folders: list[Path], run_folder: Path) -> list[Path]:
    """Write the run's files of lines and measurements, of the folds in these folders that have them.

    Returns:
        Those of the folds.

    Raises:
        UserError: a fold's is not what was written.
    """
    joined_files = []
    for name in (LINES_FILE, MEASUREMENTS_FILE):
        files = [folder / name for folder in folders if (folder / name).is_file()]
        if files:
            for file in files:
                check_finished(file.parent, names=(file.name,))
            # A fold of a model that finds no line yet has a file without rows.
            joined = pd.concat([pd.read_csv(file, dtype=str, keep_default_na=False) for file in files])
            write_whole(run_folder / name, functools.partial(joined.to_csv, index=False))
        joined_files += files
    return joined_files
