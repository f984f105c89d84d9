"""The list of extensions: its order, the user's own beside the built-in ones, and what a snapshot keeps of them."""

import dataclasses
import json
import os
import signal
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_pfn_extras.training.extension import Extension, ExtensionEntry

from catheters.settings import Settings
from catheters.training.run import train_run
from catheters.training.snapshot_files import FORMAT_VERSION, upgrade
from tests.processes import outcome, run_in_fork


class Recorder(Extension):
    """Notes what it sees at each call; can end the process at one of them, or raise."""

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


def test_an_extension_goes_on_with_its_state(one_fold: Settings) -> None:
    """Killed by itself in an epoch's midst and right after a validation: it has seen every iteration once."""
    whole = dataclasses.replace(one_fold, run_name="whole")
    undisturbed = Recorder()
    train_run(whole, fresh=False, extensions=[undisturbed])
    for iteration in (6, 8):
        with pytest.raises(AssertionError):
            run_in_fork(lambda: train_run(one_fold, fresh=False, extensions=[Recorder(kill_at=iteration)]))  # noqa: B023
    resumed = Recorder()
    train_run(one_fold, fresh=False, extensions=[resumed])
    assert resumed.seen == undisturbed.seen
    assert outcome(one_fold.run_folder) == outcome(whole.run_folder)


def test_an_extension_that_raises_loses_nothing(one_fold: Settings) -> None:
    """Its error is its own; the run can be resumed without it, and with another one that begins anew."""
    with pytest.raises(ZeroDivisionError, match="the user's code"):
        train_run(one_fold, fresh=False, extensions=[Recorder(raise_at=7)])
    late = Recorder()
    late.name = "late"
    train_run(one_fold, fresh=False, extensions=[late])
    assert [iteration for iteration, _, _ in late.seen] == list(range(7, 13))
    whole = dataclasses.replace(one_fold, run_name="whole")
    train_run(whole, fresh=False)
    assert outcome(one_fold.run_folder) == outcome(whole.run_folder)


def test_an_extension_can_stop_the_training(one_fold: Settings) -> None:
    class Enough(Extension):
        name = "enough"
        trigger = (1, "epoch")
        asks_to_stop = False

        def __call__(self, manager: Any) -> None:
            self.asks_to_stop = manager.epoch == 2

    train_run(one_fold, fresh=False, extensions=[ExtensionEntry(Enough(), priority=1)])
    assert [entry["epoch"] for entry in epochs_of(one_fold)] == [1, 2]
    assert (one_fold.run_folder / "fold1" / "predictions.csv").exists()


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
    """One in an epoch's midst, one after an epoch's score: the run ends bit for bit as if nothing had happened."""
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
