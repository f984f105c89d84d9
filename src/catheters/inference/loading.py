"""Which models predict: checkpoints, runs and ensembles, with the calibration and thresholds of their evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from catheters.checkpoints.checkpoint import Checkpoint, load_checkpoint
from catheters.checkpoints.finished import check_finished, is_finished, is_joined
from catheters.config.loading import read_run_settings
from catheters.errors import UserError, listed
from catheters.evaluation.calibration import Calibrator, read_calibrator
from catheters.evaluation.ensemble import METHODS, EnsembleSpec, read_ensemble_spec
from catheters.evaluation.prediction_set import common_groups
from catheters.evaluation.results import CALIBRATION_FILE, METRICS_FILE
from catheters.evaluation.thresholds import Thresholds, read_thresholds
from catheters.io.files import sha256_of
from catheters.labels import known_heads
from catheters.runtime.console import warn

ENSEMBLE_FILE, RUN_FILE = "ensemble.json", "settings.json"
"""What makes a folder one of an ensemble, or of a run."""
PREDICTIONS_FILE = "predictions.csv"
"""Of a run, out of fold, or of an ensemble."""
RANKS_ONLY = (
    "is an ensemble of ranks, which are those among many images and no probabilities: it can write predictions and a "
    "submission; for anything else combine by mean or weights"
)
"""Said where probabilities are needed."""


@dataclass(frozen=True, kw_only=True)
class LoadedMember:
    """A run, or a checkpoint by itself; the probabilities of its checkpoints are averaged.

    Attributes:
        name: of the run or file.
        checkpoints: at least one.
    """

    name: str
    checkpoints: tuple[Checkpoint, ...]


@dataclass(frozen=True, kw_only=True)
class Models:
    """All that turns an image into probabilities.

    Attributes:
        members: the models, in the order of the spec.
        spec: how they are combined.
        labels: (K,) what they predict, in the order of the first one.
        calibrator: for the combined probabilities; None: they stay as they are.
        thresholds: operating points for the combined probabilities before calibration; None: not known.
    """

    members: tuple[LoadedMember, ...]
    spec: EnsembleSpec
    labels: tuple[str, ...]
    calibrator: Calibrator | None
    thresholds: Thresholds | None

    def without_calibration(self) -> "Models":
        """The same, with the probabilities as the models give them."""
        return replace(self, calibrator=None)

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Of all members."""
        return tuple(checkpoint for member in self.members for checkpoint in member.checkpoints)

    @property
    def heads(self) -> Mapping[str, tuple[str, ...]]:
        """Device type -> its labels, as the first checkpoint that has any; empty where the labels are of none."""
        named = (checkpoint.settings.heads for checkpoint in self.checkpoints)
        return next((heads for heads in named if heads), known_heads(self.labels))

    @property
    def exclusive(self) -> tuple[tuple[str, ...], ...]:
        """Groups of labels that every checkpoint has a softmax over."""
        return common_groups([tuple(checkpoint.settings.exclusive.values()) for checkpoint in self.checkpoints])

    @property
    def is_calibrated(self) -> bool:
        """Whether its evaluation has found a calibration that changes probabilities."""
        return self.calibrator is not None and self.calibrator.changes_probabilities

    @property
    def gives_probabilities(self) -> bool:
        """Whether the ensemble can be taken for probabilities; ranks hang on the other images."""
        return METHODS[self.spec.method].gives_probabilities


def is_model(path: Path) -> bool:
    """Whether a path looks like something that predicts, and not like an image."""
    return path.suffix == ".pt" or (path / RUN_FILE).is_file() or (path / ENSEMBLE_FILE).is_file()


def read_models(paths: Sequence[Path]) -> Models:
    """Load checkpoints, the models of runs, or those of an ensemble.

    A run is the mean of its finished folds or seeds, an ensemble what its spec says, several of them their mean. What
    evaluate.py found out about a run or an ensemble, its calibration and thresholds, belongs to it alone, and to each
    checkpoint of the run; of several models nothing is known until their ensemble is evaluated.

    Raises:
        UserError: a file is missing or damaged, or the models predict different labels.
    """
    if len(paths) == 1 and (paths[0] / ENSEMBLE_FILE).is_file():
        spec = read_ensemble_spec(paths[0] / ENSEMBLE_FILE)
        spec = replace(spec, weights={name: weight for name, weight in spec.weights.items() if weight > 0})
        members = tuple(_read_member(_find_member(name, paths[0])) for name in spec.weights)
        evaluated = paths[0]
    else:
        for path in paths:
            if (path / ENSEMBLE_FILE).is_file():
                raise UserError(
                    f"{path}: is an ensemble already; give it alone, or combine all the runs with evaluate.py"
                )
        members = tuple(_read_member(path) for path in paths)
        spec = EnsembleSpec(method="mean", weights={str(path): 1 / len(paths) for path in paths})
        evaluated = paths[0] if paths[0].is_dir() else paths[0].absolute().parent.parent
    checkpoints = [checkpoint for member in members for checkpoint in member.checkpoints]
    files = [checkpoint.file.resolve() for checkpoint in checkpoints]
    for number, file in enumerate(files):
        if file in files[:number]:
            raise UserError(f"{checkpoints[number].file}: is among the models twice")
    models = Models(members=members, spec=spec, labels=_check_labels(checkpoints), calibrator=None, thresholds=None)
    may_be_evaluated = any((evaluated / name).is_file() for name in (RUN_FILE, ENSEMBLE_FILE))
    if len(paths) > 1 or not models.gives_probabilities or not may_be_evaluated:
        return models
    return _with_evaluation(models, evaluated)


def _with_evaluation(models: Models, folder: Path) -> Models:
    """The models with what evaluate.py found out about the predictions in the folder.

    It is passed over, with a warning, where it is not complete, or where its files, the predictions and those of the
    members of an ensemble do not belong together. Files of earlier versions, which name no predictions, are taken as
    they are, with a warning.

    Raises:
        UserError: a file is damaged, or the weights of an ensemble were fitted to other predictions of its members.
    """
    changed = _changed_member(models)
    metrics, calibration, predictions = (folder / name for name in (METRICS_FILE, CALIBRATION_FILE, PREDICTIONS_FILE))
    if not metrics.is_file():
        if calibration.is_file():
            warn(f"{folder}: its evaluation did not finish and is passed over; run evaluate.py again")
        return models
    thresholds = read_thresholds(metrics, models.exclusive)
    current = _sha256_if_any(predictions)
    if not is_joined(folder):
        warn(
            f"{folder}: a fold was trained since its evaluation, which is passed over; run train.py until it "
            "has finished, then evaluate.py"
        )
        return models
    if current != thresholds.predictions_sha256 or models.spec.predictions_sha256 not in (None, current):
        warn(
            f"{metrics} is the evaluation of other predictions than {predictions}: it is passed over; run evaluate.py "
            "again"
        )
        return models
    if changed is not None:
        warn(
            f"{metrics} is the evaluation of an ensemble of other predictions than {changed} holds now: it is passed "
            "over; run evaluate.py --ensemble again"
        )
        return models
    calibrator, fitted_on = read_calibrator(calibration)
    if fitted_on not in (None, current) or thresholds.calibration_sha256 not in (None, sha256_of(calibration)):
        warn(f"{calibration} is of another evaluation than {metrics}: both are passed over; run evaluate.py again")
        return models
    if fitted_on is None:
        warn(
            f"{calibration}: an earlier version wrote it, without saying which predictions it was fitted on; run "
            "evaluate.py again to be sure of it"
        )
    if thresholds.outdated_device_types:
        warn(
            f"{metrics}: an earlier version chose the thresholds of device types "
            f"({listed(thresholds.outdated_device_types)}), by probabilities on another scale: they are passed over; "
            "run evaluate.py again"
        )
    _check_maps(calibrator, calibration, models.labels)
    return replace(models, calibrator=calibrator, thresholds=thresholds)


def _changed_member(models: Models) -> Path | None:
    """The first member of an ensemble whose predictions are others than those that were combined.

    Raises:
        UserError: the ensemble's weights were fitted to those.
    """
    spec = models.spec
    for member, name in zip(models.members, spec.weights, strict=True):
        file = Path(member.name) / PREDICTIONS_FILE
        if name not in spec.members_sha256:
            continue
        if _sha256_if_any(file) != spec.members_sha256[name] or not is_joined(file.parent):
            if METHODS[spec.method].fits_weights:
                raise UserError(
                    f"{file}: is not what the ensemble's weights were fitted to; run evaluate.py --ensemble again"
                )
            return Path(member.name)
    return None


def _sha256_if_any(file: Path) -> str | None:
    return sha256_of(file) if file.is_file() else None


def _find_member(name: str, ensemble: Path) -> Path:
    """A member of an ensemble, named by the path that evaluate.py was given: from here, or beside the ensemble."""
    for path in (Path(name), ensemble.absolute().parent / Path(name).name):
        if is_model(path):
            return path
    raise UserError(
        f"{ensemble / ENSEMBLE_FILE}: its member {name} is no run folder that can be found from here or beside the "
        "ensemble; predictions of other programs can be combined, but only runs predict new images"
    )


def _read_member(path: Path) -> LoadedMember:
    if path.suffix == ".pt":
        check_finished(path.parent, names=(path.name,))
        return LoadedMember(name=str(path), checkpoints=(load_checkpoint(path),))
    if not (path / RUN_FILE).is_file():
        raise UserError(f"{path}: {_what_it_is(path)}")
    settings = read_run_settings(path / RUN_FILE)
    what, checkpoint = "fold", "best.pt"
    numbers = settings.folds_to_train
    if settings.all_data:
        what, checkpoint = "seed", "final.pt"
        numbers = settings.seeds_to_train
    folders = [folder for number in numbers if is_finished(folder := path / f"{what}{number}")]
    if not folders:
        raise UserError(f"{path}: no {what} of this run is finished; run train.py, or give a checkpoint")
    for folder in folders:
        check_finished(folder, names=(checkpoint,))
    return LoadedMember(name=str(path), checkpoints=tuple(load_checkpoint(folder / checkpoint) for folder in folders))


def _what_it_is(path: Path) -> str:
    """Of what is no model, in words that lead to one."""
    if not path.exists():
        return "no such file or folder; give best.pt of a run, a run folder, or the folder of an ensemble"
    if path.suffix in (".onnx", ".safetensors"):
        return "is an export for other programs; give the checkpoint or run that it was made from"
    near = sorted(path.glob("*.pt")) or [file.parent for file in sorted(path.glob(f"*/{RUN_FILE}"))]
    hint = f"; it holds {', '.join(map(str, near[:5]))}" if near else ""
    return f"neither a checkpoint (.pt) nor a run folder nor that of an ensemble{hint}"


def _check_labels(checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    first = checkpoints[0]
    labels = first.settings.label_columns
    for other in checkpoints[1:]:
        differing = set(other.settings.label_columns) ^ set(labels)
        if differing:
            raise UserError(
                f"{other.file}: predicts other labels than {first.file}: only one of them has "
                f"{listed(sorted(differing))}"
            )
    return labels


def _check_maps(calibrator: Calibrator, file: Path, labels: tuple[str, ...]) -> None:
    missing = [label for label in labels if label not in calibrator.labels]
    if missing:
        raise UserError(f"{file}: has no calibration of {missing[0]}; run evaluate.py again")
