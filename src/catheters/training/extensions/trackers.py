"""Experiment trackers: what the log says, shown elsewhere. A new one is a class here and a line in `TRACKERS`."""

import contextlib
import json
import os
import tempfile
import time
import uuid
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytorch_pfn_extras.training.extension import Extension

from catheters.errors import SettingsError, look_up, one_line
from catheters.io.files import UnreadableFileError, read_json, write_text
from catheters.runtime.console import warn
from catheters.runtime.distributed import Processes
from catheters.training.context import TrainContext
from catheters.training.extensions.log import TrainingLog, read_epochs
from catheters.viz.curves import plot_curves

NEVER = 10**9
"""Seconds."""
IDS_FILE = "trackers.json"
MAX_PARAM_LENGTH = 6000
"""Characters that MLflow takes of a parameter's value."""


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """What a tracker is told of a model besides its log.

    Attributes:
        run_name: of the run that the model is one of, for people.
        runs_folder: where its run folder lies, of a run in stages the whole run's.
        what: the model, "fold 0".
        settings: name -> value, plain data.
        environment: see `describe_environment`.
        folder: the model's; its `trackers.json` keeps the id of the tracked run, so that a killed one is resumed.
    """

    run_name: str
    runs_folder: Path
    what: str
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    folder: Path

    def id_of(self, tracker: str) -> str | None:
        """The tracked run's id at a tracker; None before it has one."""
        try:
            return str(read_json(self.folder / IDS_FILE)[tracker])
        except (UnreadableFileError, KeyError, TypeError):
            return None

    def keep_id(self, tracker: str, tracked_id: str) -> None:
        """Keep it for the process that resumes."""
        try:
            ids = dict(read_json(self.folder / IDS_FILE))
        except (UnreadableFileError, TypeError, ValueError):
            ids = {}
        write_text(self.folder / IDS_FILE, json.dumps({**ids, tracker: tracked_id}) + "\n")


class Tracker(Extension):
    """Shows the lines of a log elsewhere.

    Whatever goes wrong there is warned of once and training continues; lines that were not taken are offered again
    after each epoch, those before a snapshot to the process that resumes from it too. `log.jsonl` has them all.
    """

    trigger = (1, "iteration")

    def __init__(self, log: TrainingLog, run: TrackedRun) -> None:
        """Show the lines of a model's log."""
        self._log = log
        self.run = run
        self._waiting: list[Mapping[str, Any]] = []
        self._is_open = False
        self._is_away = False
        self._has_warned = False

    @abstractmethod
    def open(self, first_iteration: int) -> None:
        """Start to track the run, or resume it; this process shows lines from `first_iteration` on."""

    @abstractmethod
    def show(self, scalars: Mapping[str, float], iteration: int) -> None:
        """Show the numbers of a line."""

    @abstractmethod
    def end(self, curves: Path | None) -> None:
        """Let go of it; `curves` is a PNG where the training is complete, None where it is to be resumed."""

    def __call__(self, manager: Any) -> None:
        """Show what the log wrote in this iteration."""
        self._waiting += self._log.latest
        if self._waiting and (not self._is_away or self._waiting[-1]["kind"] == "epoch"):
            self._attempt(manager.iteration)

    def _attempt(self, iteration: int) -> None:
        try:
            if not self._is_open:
                self.open(iteration)
                self._is_open = True
            while self._waiting:
                self.show(scalars_of(self._waiting[0]), self._waiting[0]["iteration"])
                del self._waiting[0]
            self._is_away = False
        except Exception as error:  # of whatever library; training is not its business
            self._warn(error)
            self._is_away = True

    def _warn(self, error: Exception) -> None:
        if not self._has_warned:
            self._has_warned = True
            is_missing = isinstance(error, ImportError)
            how = f"pip install -e .[{self.name}] installs it" if is_missing else one_line(error, 200)
            warn(
                f"{self.run.what}: {self.name} does not take what the log says ({how}); training "
                f"continues, and {self.run.folder / 'log.jsonl'} has it all"
            )

    def finalize(self, manager: Any) -> None:
        """Show what is left, and the curves."""
        if self._waiting:
            self._attempt(manager.iteration)
        if not self._is_open:
            return
        try:
            with tempfile.TemporaryDirectory() as folder:
                curves = Path(folder) / "curves.png"
                plot_curves(read_epochs(self.run.folder), None, f"{self.run.run_name}, {self.run.what}", curves)
                self.end(curves)
        except Exception as error:  # as before
            self._warn(error)
        self._is_open = False

    def close(self) -> None:
        """Let go of a run that is to be resumed."""
        if self._is_open:
            try:
                self.end(None)
            except Exception as error:  # as before
                self._warn(error)
            self._is_open = False

    def state_dict(self) -> dict[str, Any]:
        """Lines that wait."""
        return {"waiting": list(self._waiting)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self._waiting = list(state.get("waiting", ()))


class TensorBoard(Tracker):
    """Event files in `tensorboard/`, for `tensorboard --logdir`; another file for each time that a run is resumed."""

    name = "tensorboard"
    _writer: Any

    def open(self, first_iteration: int) -> None:
        """Hide what a process that was killed had shown from there on."""
        from torch.utils.tensorboard import SummaryWriter

        # Written by `flush` alone: an error in tensorboard's own thread would be a traceback of it.
        folder = str(self.run.folder / "tensorboard")
        self._writer = SummaryWriter(folder, purge_step=first_iteration, flush_secs=NEVER)

    def show(self, scalars: Mapping[str, float], iteration: int) -> None:
        """One scalar for each of them."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, iteration)
        self._writer.flush()

    def end(self, curves: Path | None) -> None:
        """TensorBoard draws curves itself."""
        self._writer.close()


class MLflow(Tracker):
    """A run of MLflow, in the experiment that the run's name names.

    Where MLFLOW_TRACKING_URI says; without it in `mlflow.db` beside the run folder.
    """

    name = "mlflow"
    _client: Any
    _run_id: str

    def open(self, first_iteration: int) -> None:
        """Log settings and provenance with a new run."""
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # else a server that is away costs minutes
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        beside = self.run.runs_folder.resolve()
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = MlflowClient(tracking_uri=uri or f"sqlite:///{beside / 'mlflow.db'}")
        known = self.run.id_of(self.name)
        if known is not None:
            try:
                self._client.update_run(known, status="RUNNING")
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                known = None  # deleted there
        if known is None:
            with contextlib.suppress(MlflowException):  # it is there already, or just made for another fold
                artifacts = None if uri else (beside / "mlflow_artifacts").as_uri()
                self._client.create_experiment(self.run.run_name, artifact_location=artifacts)
            experiment = self._client.get_experiment_by_name(self.run.run_name)
            known = self._client.create_run(experiment.experiment_id, run_name=self.run.what).info.run_id
            self.run.keep_id(self.name, known)
            try:
                for name, value in self.run.settings.items():
                    self._client.log_param(known, name, str(value)[:MAX_PARAM_LENGTH])
                self._client.log_dict(known, dict(self.run.environment), "environment.json")
            except (MlflowException, OSError) as error:  # a store of artifacts that cannot be written: the metrics can
                self._warn(error)
        self._run_id = known

    def show(self, scalars: Mapping[str, float], iteration: int) -> None:
        """One metric for each of them."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(_allowed(name), value, now, iteration) for name, value in scalars.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def end(self, curves: Path | None) -> None:
        """Keep the curves as an artifact."""
        try:
            if curves is not None:
                self._client.log_artifact(self._run_id, str(curves))
        finally:
            self._client.set_terminated(self._run_id, "KILLED" if curves is None else "FINISHED")


class WeightsAndBiases(Tracker):
    """A run of Weights & Biases, in the project `catheters`, grouped by the run's name.

    As WANDB_MODE says; without it offline, in `wandb/` in the model's folder, for `wandb sync`.
    """

    name = "wandb"
    _wandb_run: Any

    def open(self, first_iteration: int) -> None:
        """Log settings and provenance with the run."""
        import wandb

        known = self.run.id_of(self.name)
        if known is None:
            known = uuid.uuid4().hex
            self.run.keep_id(self.name, known)
        self._wandb_run = wandb.init(
            project="catheters",
            group=self.run.run_name,
            name=f"{self.run.run_name}, {self.run.what}",
            id=known,
            resume="allow",
            dir=str(self.run.folder),
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]  # wandb says what it allows
            reinit="create_new",  # not a run that the user has open
            config={**self.run.settings, "environment": dict(self.run.environment)},
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._wandb_run.define_metric("*", step_metric="iteration")

    def show(self, scalars: Mapping[str, float], iteration: int) -> None:
        """Over the iteration, since a run that is resumed counts its own steps on."""
        self._wandb_run.log({**scalars, "iteration": iteration})

    def end(self, curves: Path | None) -> None:
        """Keep the curves as an image."""
        if curves is not None:
            import wandb

            self._wandb_run.log({"curves": wandb.Image(str(curves))})
        self._wandb_run.finish(exit_code=1 if curves is None else 0)


TRACKERS: Mapping[str, type[Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}


def create_trackers(context: TrainContext, log: TrainingLog, processes: Processes) -> Sequence[Tracker]:
    """The trackers of a model; only rank 0 tracks."""
    if not processes.is_first:
        return []
    run = TrackedRun(
        run_name=context.run_name,
        runs_folder=context.runs_folder,
        what=context.what,
        settings=json.loads(context.settings_json),
        environment=context.environment,
        folder=context.folder,
    )
    return [TRACKERS[name](log, run) for name in context.trackers]


def check_trackers(names: Sequence[str]) -> None:
    """Raise a SettingsError where one of the names is none of `TRACKERS`."""
    for name in names:
        look_up(TRACKERS, name, "trackers")
        if names.count(name) > 1:
            raise SettingsError(f"trackers names '{name}' twice")


def scalars_of(entry: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of the log, by names that groups of batches and epochs do not share."""
    if entry["kind"] == "batches":
        values = {**entry, **{f"speed/{name}": value for name, value in entry["speed"].items()}}
    else:
        values = {name: value for name, value in entry.items() if name.startswith("val/")}
        values["train/loss_of_epoch"] = entry["train/loss"]
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and name not in ("epoch", "iteration")
    }


def _allowed(name: str) -> str:
    """A metric's name with nothing but what MLflow allows in it."""
    return "".join(character if character.isalnum() or character in "_-. /:" else "_" for character in name)
