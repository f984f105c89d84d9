"""What `evaluate.py` evaluates: a run folder, or anybody's predictions beside a label table."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from catheters.checkpoints.finished import LINES_FILE, MEASUREMENTS_FILE, check_finished
from catheters.config.loading import read_run_settings
from catheters.config.settings import Settings
from catheters.data.landmarks import read_landmarks
from catheters.data.spacing import read_spacing_table
from catheters.data.tables.label_table import read_columns, read_label_table
from catheters.errors import UserError, counted
from catheters.evaluation.caveats import Caveat
from catheters.evaluation.prediction_set import PredictionSet
from catheters.evaluation.predictions import read_predictions
from catheters.evaluation.truth import Truth, hold_against
from catheters.io.csv_files import TableError, check_columns
from catheters.io.files import sha256_of
from catheters.labels import known_heads
from catheters.measurements import MeasurementDefinition, PixelSpacing
from catheters.runs.build import build_table_source
from catheters.runs.evaluation.label_source import LabelSource, read_truth
from catheters.runs.evaluation.line_inputs import (
    LineTables,
    paths_of_table,
    read_line_tables,
    shapes_of_files,
    shapes_of_run,
)
from catheters.runs.evaluation.measurement_inputs import MeasurementTables, read_measurements
from catheters.runtime.console import say, warn


@dataclass(frozen=True, kw_only=True)
class Input:
    """Predictions with all that is known of them.

    Attributes:
        evaluated: n predictions beside the truth.
        uid_column: name of the id column.
        file: the predictions.
        sha256: of that file's content.
        truth: the label table.
        label_order: (K,) the labels as the columns of `truth.labels` are ordered.
        rows: (n,) its rows that are predicted.
        folder: where results go.
        heads: device type -> its labels; empty where the labels are of no device type.
        settings: of the run; None for a file from elsewhere.
        paths: (n,) the image files, where they are known.
        lines: predicted and drawn lines; None where there are none to compare.
    """

    evaluated: PredictionSet
    uid_column: str
    file: Path
    sha256: str
    truth: Truth
    label_order: tuple[str, ...]
    rows: npt.NDArray[np.intp]
    folder: Path
    heads: Mapping[str, tuple[str, ...]]
    settings: Settings | None
    paths: tuple[Path, ...] | None
    lines: LineTables | None = None

    def with_evaluated(self, evaluated: PredictionSet) -> "Input":
        """The same with the same images in another order, or other labels or patients."""
        row_of = {uid: row for row, uid in enumerate(self.evaluated.uids.tolist())}
        order = [row_of[uid] for uid in evaluated.uids.tolist()]
        paths = None if self.paths is None else tuple(self.paths[row] for row in order)
        return replace(self, evaluated=evaluated, rows=self.rows[order], paths=paths)

    def column(self, name: str) -> npt.NDArray[np.str_]:
        """(n,) values of a column of the label table.

        Raises:
            TableError: it has none of this name.
        """
        check_columns(self.truth.frame, (name,), Path(self.truth.source))
        return self.truth.frame[name].to_numpy(dtype=np.str_)[self.rows]


def read_run(
    run: Path, source: LabelSource | None, annotations: Path | None = None, *, with_lines: bool = True
) -> Input:
    """A run folder, against its own label table (None) or another one.

    Args:
        run: the folder.
        source: the other label table.
        annotations: drawn lines to compare the run's with; None: those of the run's annotation table.
        with_lines: whether to compare lines at all.

    Raises:
        UserError: it is none, has no predictions, or they do not fit the table.
    """
    if not run.exists():
        raise UserError(f"{run}: no such folder; give a run folder that train.py wrote")
    settings_file = run / "settings.json"
    if not settings_file.is_file() and (run / "ensemble.json").is_file():
        raise UserError(
            f"{run}: is an ensemble; to evaluate it again, repeat the command that made it, with --ensemble and --out "
            f"{run}"
        )
    if not settings_file.is_file():
        raise UserError(f"{run}: no run folder (it has no settings.json); give one that train.py wrote")
    settings = read_run_settings(settings_file)
    if settings.all_data:
        raise UserError(f"{run}: was trained on all data, so it has no predictions of images that it had not seen")
    file = run / "predictions.csv"
    if not file.is_file():
        raise UserError(f"{file}: no such file; no fold of this run is finished: run train.py")
    how_to_mend = "run train.py as before: it joins the folds' predictions again"
    check_finished(run, how_to_mend, (file.name, LINES_FILE, MEASUREMENTS_FILE))
    # Before it is read: what is written over it meanwhile is then never taken for what was evaluated.
    sha256 = sha256_of(file)
    caveats = _leaks_of(run, settings)
    if source is not None:
        uid_column, predictions, labels = read_predictions(file, source.id_column, caveats=caveats)
        truth, left_out = read_truth(source, source.rules_for(settings), uid_column, labels)
        predictions, paths = _without(predictions, uid_column, left_out, file, truth), None
    else:
        _check_label_files(run, settings)
        table_source = build_table_source(settings)
        table = read_label_table(table_source)
        columns = read_columns(table_source)
        labels = table.label_columns
        uid_column, predictions, _ = read_predictions(file, settings.uid_column, caveats=caveats)
        check_columns(predictions, labels, file)
        truth = Truth(
            source=str(table_source.file),
            uids=table.uids,
            labels=table.labels,
            patient_ids=table.patient_ids,
            frame=columns[columns[settings.uid_column].isin(table.uids)],  # in the same order
        )
        paths = table.paths
    evaluated, rows = hold_against(
        truth, predictions, uid_column, labels, file, str(run), tuple(settings.exclusive.values())
    )
    caveats += [*evaluated.caveats, *_find_missing_folds(run, settings, evaluated)]
    evaluated = replace(evaluated, caveats=tuple(caveats))
    paths = None if paths is None else tuple(paths[row] for row in rows)
    heads = settings.heads or known_heads(labels)
    return Input(
        evaluated=evaluated,
        uid_column=uid_column,
        file=file,
        sha256=sha256,
        truth=truth,
        label_order=labels,
        rows=rows,
        folder=run,
        heads=heads,
        settings=settings,
        paths=paths,
        lines=_read_lines(run, settings, annotations, evaluated, heads, truth, paths) if with_lines else None,
    )


def _read_lines(
    run: Path,
    settings: Settings,
    annotations: Path | None,
    evaluated: PredictionSet,
    heads: Mapping[str, tuple[str, ...]],
    truth: Truth,
    paths: tuple[Path, ...] | None,
) -> LineTables | None:
    """The lines that a run predicts and those that were drawn; None where one of both is not there."""
    file = run / LINES_FILE
    if not file.is_file():
        if annotations is not None:
            raise UserError(f"{file}: no such file, so there are no lines to compare with {annotations}")
        return None
    if annotations is None:
        assert settings.annotation_table is not None, "what learns lines has one"
        annotations = Path(settings.dataset_folder) / settings.annotation_table
        if not annotations.is_file():
            warn(
                f"{run}: learnt from {annotations}, which is not here, so no lines are compared; say --annotations FILE"
            )
            return None
    full_shapes = shapes_of_run(settings, evaluated.uids.tolist(), paths)
    if not full_shapes:
        return None
    return read_line_tables(
        file,
        annotations,
        settings.uid_column,
        evaluated.labels,
        heads,
        truth.uids.tolist(),
        full_shapes,
        _read_spacings(run, settings),
        _read_measurements(run, settings),
    )


def _read_spacings(run: Path, settings: Settings) -> Mapping[str, PixelSpacing]:
    """Id -> pixel spacing, as a table gives them."""
    if settings.spacing_table is None:
        return {}
    file = Path(settings.dataset_folder) / settings.spacing_table
    if not file.is_file():
        warn(f"{run}: was trained with {file}, which is not here, so no length is in mm")
        return {}
    return read_spacing_table(file, settings.uid_column)


def read_file(
    file: Path,
    source: LabelSource,
    *,
    are_logits: bool,
    annotations: Path | None = None,
    path_pattern: str | None = None,
) -> Input:
    """Predictions of any program; results go to a folder beside them that is named after the file.

    Args:
        file: the predictions.
        source: the label table.
        are_logits: whether they are logits.
        annotations: drawn lines to compare with those that stand beside the file, as predict.py writes them; None: no
            lines are compared.
        path_pattern: of the image files, relative to the label table or to the folder above it; None: not known.

    Raises:
        UserError: a file is missing or wrong, or they do not fit.
    """
    sha256 = sha256_of(file) if file.is_file() else ""  # else reading it says what is wrong
    stem = Path(file.name.removesuffix(".gz")).stem
    caveats: list[Caveat] = []
    uid_column, predictions, labels = read_predictions(file, source.id_column, are_logits=are_logits, caveats=caveats)
    rules = source.rules_for(None)
    truth, left_out = read_truth(source, rules, uid_column, labels)
    predictions = _without(predictions, uid_column, left_out, file, truth)
    evaluated, rows = hold_against(truth, predictions, uid_column, labels, file, str(file))
    evaluated = replace(evaluated, caveats=(*caveats, *evaluated.caveats))
    heads, paths, lines = _heads_of(rules, labels), None, None
    if path_pattern is not None:
        all_paths = paths_of_table(truth.frame, path_pattern, uid_column, source.file)
        paths = tuple(all_paths[row] for row in rows)
    if annotations is not None:
        if paths is None:
            raise UserError(
                f"{annotations}: lines are compared by the size of their X-rays; say with --images where these are"
            )
        if not heads:
            raise UserError(
                f"{annotations}: none of the labels is of a device type, so no line is known by its label; name the "
                "labels of each in heads, in a config that --config names"
            )
        uids = evaluated.uids.tolist()
        lines = read_line_tables(
            file.with_name(f"{stem}_lines.csv"),
            annotations,
            uid_column,
            labels,
            heads,
            truth.uids.tolist(),
            shapes_of_files(uids, paths),
            {},
            None,
        )
    return Input(
        evaluated=evaluated,
        uid_column=uid_column,
        file=file,
        sha256=sha256,
        truth=truth,
        label_order=labels,
        rows=rows,
        folder=file.with_name(f"{stem}_evaluation"),
        heads=heads,
        settings=None,
        paths=paths,
        lines=lines,
    )


def _heads_of(rules: Settings | None, labels: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    """Device type -> those of the labels that are its own, by the settings or else as RANZCR CLiP has them."""
    if rules is None or not rules.heads:
        return known_heads(labels)
    heads = {name: tuple(label for label in of_type if label in labels) for name, of_type in rules.heads.items()}
    return {name: of_type for name, of_type in heads.items() if of_type}


def _read_measurements(run: Path, settings: Settings) -> MeasurementTables | None:
    """What a run measured, and the landmarks to measure from; None where it measured nothing."""
    file, landmarks = run / MEASUREMENTS_FILE, Path(settings.dataset_folder) / (settings.landmark_table or "")
    if not file.is_file():
        return None
    definitions = {name: MeasurementDefinition(*points) for name, points in settings.measurements.items()}
    has_landmarks = settings.landmark_table is not None and landmarks.is_file()
    if settings.landmark_table is not None and not has_landmarks:
        warn(f"{run}: learnt from {landmarks}, which is not here, so no lengths from a landmark are compared")
    return MeasurementTables(
        definitions=definitions,
        predicted=read_measurements(file, settings.uid_column, definitions),
        landmarks=read_landmarks(landmarks, settings.uid_column) if has_landmarks else {},
    )


def _leaks_of(run: Path, settings: Settings) -> list[Caveat]:
    if not settings.allow_leaking_folds:
        return []
    text = (
        f"{run}: was trained with allow_leaking_folds: its folds may share patients or equal images, and scores be far "
        "too good"
    )
    return [Caveat(kind="leaking_folds", text=text)]


def _find_missing_folds(run: Path, settings: Settings, evaluated: PredictionSet) -> list[Caveat]:
    if evaluated.folds is None:
        return []
    missing = sorted(set(settings.folds_to_train) - set(evaluated.folds.tolist()))
    if not missing:
        return []
    text = (
        f"{run}: not all of its {settings.num_folds} folds are finished: the images of "
        f"{', '.join(f'fold {fold}' for fold in missing)} are in no score; run train.py to resume"
    )
    return [Caveat(kind="missing_folds", text=text)]


def _check_label_files(run: Path, settings: Settings) -> None:
    """What the run was trained on is named relative to where it was trained: say what to do elsewhere."""
    table = Path(settings.dataset_folder) / settings.label_table
    named = (str(table), settings.label_corrections, settings.exclude_ids)
    missing = next((file for file in named if file is not None and not Path(file).is_file()), None)
    if missing is not None:
        raise UserError(
            f"{run}: was trained with {missing}, which is not here; run evaluate.py where train.py was run, or give "
            "the label table with --labels FILE"
        )


def _without(predictions: pd.DataFrame, uid_column: str, left_out: set[str], file: Path, truth: Truth) -> pd.DataFrame:
    """The predictions less those of images that `keep_rows` leaves out of the label table."""
    is_left_out = predictions[uid_column].isin(left_out)
    if is_left_out.all():
        raise TableError(f"{file}: keep_rows leaves out all images, {len(predictions)}, in {truth.source}")
    if is_left_out.any():
        part = f"{is_left_out.sum()} of {counted(len(predictions), 'image')} left out"
        say(f"{file}: {part}, since keep_rows drops their rows")
    return predictions[~is_left_out].reset_index(drop=True)
