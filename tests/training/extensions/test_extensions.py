"""The list of extensions: its order, the user's own beside the built-in ones, and what a snapshot keeps of them."""

import dataclasses
import json
import os
import signal
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_pfn_extras.reporting import report
from pytorch_pfn_extras.training.extension import Extension, ExtensionEntry
from pytorch_pfn_extras.training.triggers import MaxValueTrigger

import catheters
from catheters.checkpoints.snapshots import FORMAT_VERSION, upgrade
from catheters.config.settings import Settings
from catheters.errors import SettingsError, UserError
from catheters.runs.run import train_run
from catheters.runtime.interrupts import Interrupted, note_interrupts
from tests.processes import outcome, run_in_fork

pytestmark = pytest.mark.slow  # each test trains


class Recorder(Extension):
    """Notes what it sees at each call; can stop the process at one of them, or raise."""

    name = "recorder"
    trigger = (1, "iteration")

    def __init__(self, kill_at: int | None = None, raise_at: int | None = None) -> None:
        self.seen: list[tuple[int, float, float | None]] = []
        self.kill_at = kill_at
        self.raise_at = raise_at

    def __call__(self, manager: Any) -> None:
        score = manager.observation.get("val/macro_auc")
        self.seen.append((manager.iteration, float(manager.observation["train/loss"]), score))
        if manager.iteration == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if manager.iteration == self.raise_at:
            raise ZeroDivisionError("what the user's code does wrong")

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seen = [tuple(call) for call in state["seen"]]


@pytest.fixture
def one_fold(cached: Settings) -> Settings:
    return dataclasses.replace(cached, folds=(1,), batch_size=4, epochs=3, cosine_epochs=3, snapshot_iterations=1)


def epochs_of(settings: Settings) -> list[dict[str, Any]]:
    lines = (settings.run_folder / "fold1" / "log.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["kind"] == "epoch"]


def test_an_extension_sees_losses_and_scores(one_fold: Settings) -> None:
    """Each batch's loss, and after an epoch, in the same iteration, its score; nothing of the training changes."""
    recorder = Recorder()
    train_run(one_fold, fresh=False, extensions=[recorder])
    assert [iteration for iteration, _, _ in recorder.seen] == list(range(1, 13))
    log = epochs_of(one_fold)
    losses = np.reshape([loss for _, loss, _ in recorder.seen], (3, 4)).mean(axis=1)
    assert losses == pytest.approx([entry["train/loss"] for entry in log], rel=1e-6)
    scores = [score for _, _, score in recorder.seen]
    assert [score is None for score in scores] == [True, True, True, False] * 3
    assert [score for score in scores if score is not None] == [entry["val/macro_auc"] for entry in log]
    without = dataclasses.replace(one_fold, run_name="without")
    train_run(without, fresh=False)
    assert outcome(without.run_folder) == outcome(one_fold.run_folder)


def test_an_extension_is_resumed_with_its_state(one_fold: Settings) -> None:
    """Killed by itself in an epoch's midst and right after a validation: it has seen every iteration once."""
    whole = dataclasses.replace(one_fold, run_name="whole")
    uninterrupted = Recorder()
    train_run(whole, fresh=False, extensions=[uninterrupted])
    for iteration in (6, 8):
        with pytest.raises(AssertionError):
            run_in_fork(lambda: train_run(one_fold, fresh=False, extensions=[Recorder(kill_at=iteration)]))  # noqa: B023
    resumed = Recorder()
    train_run(one_fold, fresh=False, extensions=[resumed])
    assert resumed.seen == uninterrupted.seen
    assert outcome(one_fold.run_folder) == outcome(whole.run_folder)


def test_an_extension_that_raises_loses_nothing(one_fold: Settings) -> None:
    """Its error is its own; the run can be resumed without it, and with another one in its first state."""
    with pytest.raises(ZeroDivisionError, match="the user's code"):
        train_run(one_fold, fresh=False, extensions=[Recorder(raise_at=7)])
    late = Recorder()
    late.name = "late"
    train_run(one_fold, fresh=False, extensions=[late])
    assert [iteration for iteration, _, _ in late.seen] == list(range(7, 13))
    whole = dataclasses.replace(one_fold, run_name="whole")
    train_run(whole, fresh=False)
    assert outcome(one_fold.run_folder) == outcome(whole.run_folder)


class Enough(Extension):
    """Asks to stop from an epoch on, in its midst already."""

    name = "enough"
    trigger = (1, "iteration")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.asks_to_stop = False

    def initialize(self, manager: Any) -> None:
        self.asks_to_stop = False

    def __call__(self, manager: Any) -> None:
        self.asks_to_stop = manager.iteration > (self.epoch - 1) * 4


def test_an_extension_can_stop_each_fold(one_fold: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """After the epoch, with its checkpoint; the same call again finds both folds trained, a longer one is resumed."""
    settings = dataclasses.replace(one_fold, folds=(0, 1))
    result = catheters.train(settings, [ExtensionEntry(Enough(2), priority=1)])
    for fold in (0, 1):
        lines = (settings.run_folder / f"fold{fold}" / "log.jsonl").read_text().splitlines()
        assert [entry["epoch"] for entry in map(json.loads, lines) if entry["kind"] == "epoch"] == [1, 2]
    assert "fold 1: an extension asked to stop after epoch 2 of 3" in capsys.readouterr().out
    assert catheters.train(settings) == result
    assert capsys.readouterr().out.count("already trained") == 2
    longer = dataclasses.replace(settings, folds=(1,), epochs=4, cosine_epochs=3)
    catheters.train(longer)
    assert [entry["epoch"] for entry in epochs_of(settings)] == [1, 2, 3, 4]


def test_two_extensions_of_one_name(one_fold: Settings) -> None:
    """Also a built-in one's: snapshots keep states by name."""
    other = Recorder()
    other.name = "snapshots"
    for extensions, message in (
        ([Recorder(), Recorder()], "extensions: 2 are named 'recorder'; give each a `name` of its own"),
        ([other], "extensions: 'snapshots' is the name of a built-in one"),
        (Recorder(), "extensions: a list of extensions is expected, Recorder came"),
        ([Recorder], "extensions: Recorder came, an object of a class like"),
        (["recorder"], "extensions: 'recorder' came, an object"),
    ):
        with pytest.raises(SettingsError, match=message):
            train_run(one_fold, fresh=True, extensions=extensions)  # type: ignore[arg-type]
        assert not one_fold.run_folder.exists()


def test_a_state_that_cannot_be_read_again(one_fold: Settings) -> None:
    """Said at the first snapshot, not when it is needed."""

    class Odd(Recorder):
        def state_dict(self) -> dict[str, Any]:
            return {"path": Path("x")}

    with pytest.raises(UserError, match="extension 'recorder': its state_dict cannot be kept in a snapshot"):
        train_run(one_fold, fresh=False, extensions=[Odd()])


def test_a_trigger_is_reset_in_each_fold(one_fold: Settings) -> None:
    """One that fires at a new highest value, of which the first epoch of each fold is one."""
    recorder = Recorder()
    entry = ExtensionEntry(recorder, trigger=MaxValueTrigger("val/macro_auc", (1, "epoch")))
    train_run(dataclasses.replace(one_fold, folds=(0, 1)), fresh=False, extensions=[entry])
    seen = [iteration for iteration, _, _ in recorder.seen]
    assert seen[0] == 5  # batches of fold 0's first epoch
    assert 4 in seen  # of fold 1's


def test_states_made_by_initialize_are_resumed(one_fold: Settings) -> None:
    class Counter(Extension):
        name = "counter"
        trigger = (1, "iteration")

        def __init__(self, kill_at: int = 0) -> None:
            self.kill_at = kill_at

        def initialize(self, manager: Any) -> None:
            self.count = 0

        def __call__(self, manager: Any) -> None:
            report({"several": torch.zeros(3)})  # no scalar, and so in no snapshot
            self.count += 1
            if self.count == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        def state_dict(self) -> dict[str, Any]:
            return {"count": self.count}

        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            self.count = state["count"]

    with pytest.raises(AssertionError):
        run_in_fork(lambda: train_run(one_fold, fresh=False, extensions=[Counter(7)]))
    counter = Counter()
    train_run(one_fold, fresh=False, extensions=[counter])
    assert counter.count == 12


def test_a_signal_during_validation_loses_no_call(one_fold: Settings) -> None:
    """The iteration's losses and the rest of its extensions are in the snapshot; a tracker shows each line once."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    settings = dataclasses.replace(
        one_fold, snapshot_iterations=None, valid_batch_size=1, epochs=3, trackers=("tensorboard",)
    )
    whole = dataclasses.replace(settings, run_name="whole")
    uninterrupted = Recorder()
    train_run(whole, fresh=False, extensions=[uninterrupted])

    def interrupt(shared: Recorder) -> None:
        class Interrupt(Extension):
            """Before the validation of the second epoch, as a signal that comes at its first image."""

            name = "interrupt"
            trigger = (1, "epoch")

            def __call__(self, manager: Any) -> None:
                if manager.epoch == 2:
                    os.kill(os.getpid(), signal.SIGTERM)

        note_interrupts()
        with pytest.raises(Interrupted):
            train_run(settings, fresh=False, extensions=[ExtensionEntry(Interrupt(), priority=500), shared])

    run_in_fork(lambda: interrupt(Recorder()))
    time.sleep(1.1)  # TensorBoard orders its files by the second
    resumed = Recorder()
    train_run(settings, fresh=False, extensions=[resumed])
    assert resumed.seen == uninterrupted.seen
    assert outcome(settings.run_folder) == outcome(whole.run_folder)
    shown = []
    for run in (settings, whole):
        events = accumulator.EventAccumulator(str(run.run_folder / "fold1" / "tensorboard"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            events.Reload()
        shown.append({tag: [(s.step, s.value) for s in events.Scalars(tag)] for tag in ("train/loss", "val/macro_auc")})
    assert shown[0] == shown[1]


def as_of_0_2_0(state: dict[str, Any]) -> dict[str, Any]:
    """A snapshot as version 0.2.0 laid it out: one object that validated and kept, a log without later fields."""
    manager = dict(state["manager"])
    extensions = manager["extensions"]
    log = dict(extensions["log"]["extension"])
    del log["latest"], log["latest_norms"]
    log["batches"] = [batch[:3] for batch in log["batches"]]
    keeper = {**extensions["best_checkpoint"]["extension"], "macro_auc": 0.5}
    manager["state_objects"] = {**manager["state_objects"], "scorer": keeper}
    manager["extensions"] = {
        "log": {**extensions["log"], "extension": log},
        "snapshots": extensions["snapshots"],
    }
    del manager["extensions_left"], manager["observation"]
    return {**state, "format_version": 1, "manager": manager}


@pytest.mark.parametrize("iteration", [6, 8])
def test_snapshots_of_0_2_0_are_resumed(one_fold: Settings, iteration: int) -> None:
    """One in an epoch's midst, one after an epoch's score: bit for bit the result of an uninterrupted run."""
    whole = dataclasses.replace(one_fold, run_name="whole")
    train_run(whole, fresh=False)
    with pytest.raises(AssertionError):
        run_in_fork(lambda: train_run(one_fold, fresh=False, extensions=[Recorder(kill_at=iteration + 1)]))
    newest = max((one_fold.run_folder / "fold1" / "last").iterdir()) / "state.pt"
    state = torch.load(newest, weights_only=True)
    assert state["manager"]["_start_iteration"] == iteration
    torch.save(as_of_0_2_0(state), newest)
    train_run(one_fold, fresh=False)
    assert outcome(one_fold.run_folder) == outcome(whole.run_folder)


def test_a_snapshot_of_0_2_0_before_its_validation() -> None:
    """Its epoch's batches are learnt from, its score is not known: what is left is what follows the last batch."""
    log = {"epoch": 1, "num_in_lines": 4, "batches": [(0.1, 0.5, float("inf"))] * 4, "num_bytes": 0, "seconds": 1.0}
    state = {
        "format_version": 1,
        "manager": {
            "_start_iteration": 8,
            "state_objects": {"step": {}, "scorer": {"num_epochs": 1}},
            "extensions": {"log": {"extension": log, "trigger": {}}, "snapshots": {}},
        },
    }
    upgraded = upgrade(state, num_batches=4)
    assert upgraded["format_version"] == FORMAT_VERSION
    manager = upgraded["manager"]
    assert manager["extensions_left"][:2] == ["validation", "best_checkpoint"]
    assert manager["extensions"]["best_checkpoint"]["extension"] == {"num_epochs": 1}
    assert manager["extensions"]["log"]["extension"]["latest_norms"] == [float("inf")] * 4
    assert upgrade(state, num_batches=5)["manager"]["extensions_left"] == []
