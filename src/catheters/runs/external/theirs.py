"""Images and labels from elsewhere: which of the model's labels they tell, and where the images are."""

import dataclasses
import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catheters.config.settings import Settings
from catheters.data.spacing import read_spacing_table
from catheters.data.tables.label_table import read_columns, read_label_table
from catheters.errors import UserError, listed
from catheters.evaluation.caveats import Caveat
from catheters.evaluation.prediction_set import PredictionSet
from catheters.evaluation.predictions import read_predictions
from catheters.evaluation.truth import Truth, hold_against
from catheters.io.csv_files import TableError, check_columns, read_csv
from catheters.runs.build import build_table_source
from catheters.runs.evaluation.label_source import LabelSource, read_truth

NEAR = 0.85
"""Likeness of two names from which on one is taken for a misspelt other."""
Texts = npt.NDArray[np.str_]


@dataclass(frozen=True, kw_only=True)
class Theirs:
    """Images from elsewhere.

    Attributes:
        source: where the labels come from.
        uid_column: name of the id column.
        uids: (n,) their ids.
        patient_ids: (n,) their patients.
        targets: (n, K) of the model's labels; one that is not told is NaN everywhere.
        told: the labels that are told.
        paths: (n,) their files; None where they are not known.
        columns: column -> (n,) texts of the label table.
        caveats: what has to be known of them.
    """

    source: str
    uid_column: str
    uids: Texts
    patient_ids: Texts
    targets: npt.NDArray[np.float64]
    told: tuple[str, ...]
    paths: tuple[Path, ...] | None
    columns: Mapping[str, Texts]
    caveats: tuple[Caveat, ...]

    def take(self, rows: npt.NDArray[np.intp]) -> "Theirs":
        """Some of the images."""
        return dataclasses.replace(
            self,
            uids=self.uids[rows],
            patient_ids=self.patient_ids[rows],
            targets=self.targets[rows],
            paths=None if self.paths is None else tuple(self.paths[row] for row in rows),
            columns={name: values[rows] for name, values in self.columns.items()},
        )


def choose_labels(labels: Sequence[str], tellable: Collection[str], others: Collection[str], file: Path) -> list[str]:
    """Those of the model's labels that a table from elsewhere tells.

    Args:
        labels: (K,) the model's.
        tellable: names that the table, as it is read, can tell.
        others: all other names there, of which one may be a misspelt label.
        file: the table, for messages.

    Raises:
        UserError: it tells none of them, or has a name that is nearly that of a label which it lacks.
    """
    told = [label for label in labels if label in tellable]
    unused = [name for name in dict.fromkeys([*tellable, *others]) if name not in labels]
    written_as = {name.casefold(): name for name in unused}
    for label in labels:
        near = [] if label in told else difflib.get_close_matches(label.casefold(), written_as, n=1, cutoff=NEAR)
        if near:
            raise TableError(
                f"{file}: '{written_as[near[0]]}' is none of the model's labels; is '{label}' meant? rename it there, "
                "or say with derived_labels in a config how the table tells it"
            )
    if not told:
        raise TableError(
            f"{file}: tells none of the model's labels ({listed(labels)}), but has {listed(unused)}; rename its "
            "columns, or say with derived_labels or findings_column in a config how it tells them"
        )
    return told


def read_config(theirs: Settings, config: Path, labels: tuple[str, ...]) -> Theirs:
    """The label table and the images of a config from elsewhere.

    Args:
        theirs: its settings, of which those of table and images count.
        config: its file, for messages.
        labels: (K,) the model's.

    Raises:
        UserError: the table is missing or wrong, or tells none of the labels.
    """
    source = build_table_source(theirs)
    if not source.file.is_file():
        raise UserError(f"{config}: names the label table {source.file}, which is not here; see dataset_folder there")
    file_columns = read_csv(source.file).columns.tolist()
    if theirs.findings_column is None:
        tellable, others = [*theirs.derived_labels, *file_columns], list(theirs.derived_labels)
    else:
        tellable, others = list(theirs.label_columns), list(theirs.label_columns)
    told = choose_labels(labels, tellable, others, source.file)
    exclusive = {name: group for name, group in theirs.exclusive.items() if set(group) <= set(told)}
    source = dataclasses.replace(source, label_columns=tuple(told), exclusive=exclusive, fold_column=None)
    table = read_label_table(source)
    frame = read_columns(source).set_index(source.uid_column, drop=False).loc[table.uids.tolist()]
    columns = {str(name): frame[name].to_numpy(dtype=np.str_) for name in frame.columns}
    columns |= spacing_columns(theirs, table.uids.tolist())
    return Theirs(
        source=str(source.file),
        uid_column=source.uid_column,
        uids=table.uids,
        patient_ids=table.patient_ids,
        targets=_of_all_labels(table.labels, told, labels),
        told=tuple(told),
        paths=table.paths,
        columns=_further(columns, source.uid_column, [source.patient_column, *labels]),
        caveats=(),
    )


def read_predicted(
    predictions: Path, source: LabelSource, settings: Settings, *, are_logits: bool
) -> tuple[Theirs, PredictionSet]:
    """The labels of images that the model predicted elsewhere, and these predictions, as the file has them.

    Args:
        predictions: a CSV, as predict.py writes it.
        source: the label table.
        settings: the run's.
        are_logits: whether the predictions are logits.

    Raises:
        UserError: a file is missing or wrong, they do not fit, or the predictions lack one of the model's labels.
    """
    labels = settings.label_columns
    caveats: list[Caveat] = []
    uid_column, frame, _ = read_predictions(predictions, source.id_column, are_logits=are_logits, caveats=caveats)
    check_columns(frame, labels, predictions)
    rules = source.rules
    file_columns = read_csv(source.file).columns.tolist()
    if rules is not None and rules.findings_column is not None:
        tellable, others = list(rules.label_columns), list(rules.label_columns)
    else:
        derived = [] if rules is None else list(rules.derived_labels)
        tellable, others = [*derived, *file_columns], derived
    told = choose_labels(labels, tellable, others, source.file)
    truth, left_out = read_truth(source, source.rules_for(None), uid_column, tuple(told))
    frame = frame[~frame[uid_column].isin(left_out)].reset_index(drop=True)
    truth = Truth(
        source=truth.source,
        uids=truth.uids,
        labels=_of_all_labels(truth.labels, told, labels).astype(np.float32),
        patient_ids=truth.patient_ids,
        frame=truth.frame,
    )
    exclusive = tuple(settings.exclusive.values())
    predicted, rows = hold_against(truth, frame, uid_column, labels, predictions, str(predictions), exclusive)
    columns = {str(name): truth.frame[name].to_numpy(dtype=np.str_)[rows] for name in truth.frame.columns}
    patient_columns = [name for name in columns if _is_of_patients(columns[name], predicted.patient_ids)]
    theirs = Theirs(
        source=truth.source,
        uid_column=uid_column,
        uids=predicted.uids,
        patient_ids=predicted.patient_ids,
        targets=predicted.targets,
        told=tuple(told),
        paths=None,
        columns=_further(columns, uid_column, [*patient_columns, *labels]),
        caveats=(*caveats, *predicted.caveats),
    )
    return theirs, predicted


def spacing_columns(settings: Settings, uids: Sequence[str]) -> dict[str, Texts]:
    """The pixel spacing of images as a column, where a table tells it."""
    if settings.spacing_table is None:
        return {}
    file = Path(settings.dataset_folder) / settings.spacing_table
    if not file.is_file():
        return {}
    known = read_spacing_table(file, settings.uid_column)
    spacings = [known[uid].mm if uid in known else None for uid in uids]
    return {"spacing_x (mm)": np.array(["" if mm is None else f"{mm[0]:g}" for mm in spacings], dtype=np.str_)}


def untold_caveat(theirs: Theirs, labels: Sequence[str]) -> list[Caveat]:
    """That some of the model's labels are not told there."""
    untold = [label for label in labels if label not in theirs.told]
    if not untold:
        return []
    text = f"{theirs.source}: does not tell {listed(untold)}: not validated"
    return [Caveat(kind="labels_not_told", text=text)]


def _of_all_labels(
    targets: npt.NDArray[np.float32], told: Sequence[str], labels: Sequence[str]
) -> npt.NDArray[np.float64]:
    """(n, T) of the told labels -> (n, K) of all, unknown elsewhere."""
    found = np.full((len(targets), len(labels)), np.nan)
    found[:, [labels.index(label) for label in told]] = targets
    return found


def _further(columns: Mapping[str, Texts], uid_column: str, known: Collection[str]) -> dict[str, Texts]:
    """The columns that tell neither who nor what is on the image."""
    return {name: values for name, values in columns.items() if name != uid_column and name not in known}


def _is_of_patients(values: Texts, patient_ids: Texts) -> bool:
    return bool((values == patient_ids).all())
