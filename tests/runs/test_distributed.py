"""Distributed training: several ranks compute what one process does; when one dies, all stop."""

import dataclasses
import functools
import gc
import os
import re
import signal
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_pfn_extras.training.extension import Extension

from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.errors import SettingsError
from catheters.labels import RANZCR_HEADS
from catheters.runs.data_checks import check_global_batch
from catheters.runs.datasets import load_data
from catheters.runs.run import train_run
from catheters.runtime import distributed
from catheters.runtime.distributed import TorchrunProcesses, joined_torchrun
from catheters.runtime.host import process_rank
from catheters.training.extensions.log import read_epochs
from catheters.training.step import convert_batch_norm
from tests import hangs
from tests.models.test_backbone import FAMILIES
from tests.processes import (
    Command,
    Training,
    environments_of_ranks,
    num_snapshots,
    outcome,
    run_in_forks,
    start_ranks,
    train_with_ranks,
    wait_until,
)

pytestmark = pytest.mark.filterwarnings("ignore:Grad strides do not match bucket view strides")


@pytest.fixture
def plain(cached: Settings) -> Settings:
    """Nothing that depends on how a batch is divided: no batch norm, dropout or mixup."""
    return dataclasses.replace(
        cached,
        backbone_model="test_convnext",
        folds=(1,),
        batch_size=4,
        accumulation_steps=2,
        ema_decay=0.9,
        clip_grad_norm=1.0,
        epochs=5,
        cosine_epochs=9,
        early_stop=0,
    )


def losses_of(settings: Settings) -> np.ndarray:
    log = read_epochs(settings.run_folder / "fold1")
    return np.array([[entry["train/loss"], entry["val/loss"], entry["val/raw/loss"]] for entry in log])


@pytest.mark.slow
def test_two_ranks_compute_what_one_process_does(plain: Settings, tmp_path: Path) -> None:
    """The losses of every epoch within 1e-5 relative; every validation image once, in the table's order."""
    one = dataclasses.replace(plain, run_name="one")
    train_run(one, fresh=False)
    train_with_ranks(plain, tmp_path, 2)
    np.testing.assert_allclose(losses_of(plain), losses_of(one), rtol=1e-5)
    data = load_data(plain)
    expected, got = (pd.read_csv(settings.run_folder / "predictions.csv") for settings in (one, plain))
    assert got["StudyInstanceUID"].tolist() == data.uids[data.folds == 1].tolist()
    labels = list(plain.label_columns)
    np.testing.assert_allclose(got[labels], expected[labels], rtol=1e-4)
    assert (tmp_path / "out1").read_text() == ""  # the first one speaks for both
    assert "test_convnext on the CPU, 2 processes, -> " in (tmp_path / "out0").read_text()


class WorkOfRank0(Extension):
    """At the end of a training rank 0 has work of its own, until all others wait for it where there is no limit."""

    name = "work_of_rank_0"
    trigger = (1, "epoch")

    def __call__(self, manager: Any) -> None: ...

    def finalize(self, manager: Any) -> None:
        if process_rank() == 0:
            # Those of earlier tests, which trained alone in the process that this one was forked from, have none.
            found = [torchrun for torchrun in gc.get_objects() if type(torchrun) is TorchrunProcesses]
            (torchrun,) = (torchrun for torchrun in found if torchrun.store is not None)
            store, key = torchrun.store, f"barrier/{torchrun._num_barriers + 1}"
            assert store is not None
            hangs.wait_until(lambda: store.add(key, 0) == torchrun.count - 1, lambda: "the others wait elsewhere")


@pytest.mark.slow
def test_others_wait_for_rank_0_without_a_limit(plain: Settings, tmp_path: Path) -> None:
    """At the store, not in an exchange of tensors that gives up after an hour; after each of two folds."""
    settings = dataclasses.replace(plain, folds=(0, 1), epochs=1, cosine_epochs=1)
    trainings = [
        Training(settings, tmp_path / f"out{rank}", environment, [WorkOfRank0()])
        for rank, environment in enumerate(environments_of_ranks(2))
    ]
    assert [training.wait() for training in trainings] == [0, 0], "\n".join(training.text for training in trainings)


class StopOnRank1(Extension):
    """After the second epoch, on rank 1 alone."""

    name = "stop_on_rank_1"
    trigger = (1, "epoch")
    asks_to_stop = False

    def __call__(self, manager: Any) -> None:
        self.asks_to_stop = process_rank() == 1 and manager.epoch == 2


@pytest.mark.slow
def test_groups_trackers_and_extensions_of_two_ranks(plain: Settings, tmp_path: Path) -> None:
    """The terms of the loss as one process has them; a rank that asks to stop stops both; rank 0 tracks."""
    groups = {"exclusive": {"ETT": RANZCR_HEADS["ETT"]}, "exclusive_conflicts": "first"}
    one = dataclasses.replace(plain, run_name="one", **groups)
    train_run(one, fresh=False)
    two = dataclasses.replace(plain, trackers=("tensorboard",), **groups)
    trainings = [
        Training(two, tmp_path / f"out{rank}", environment, [StopOnRank1()])
        for rank, environment in enumerate(environments_of_ranks(2))
    ]
    assert [training.wait() for training in trainings] == [0, 0], "\n".join(training.text for training in trainings)
    assert "fold 1: an extension asked to stop after epoch 2 of 5" in trainings[0].text
    assert trainings[1].text == ""
    names = ("train/loss/labels", "train/loss/ETT", "val/loss/labels", "val/loss/ETT")
    terms = [
        [[entry[name] for name in names] for entry in read_epochs(settings.run_folder / "fold1")]
        for settings in (one, two)
    ]
    assert (len(terms[0]), len(terms[1])) == (5, 2)
    np.testing.assert_allclose(terms[1], terms[0][:2], rtol=1e-5)
    assert len(list((two.run_folder / "fold1" / "tensorboard").iterdir())) == 1


def test_ranks_join_several_times_in_a_process() -> None:
    """As for each stage of a run; without torchrun, which keeps what they share: rank 0 does."""

    def join() -> None:
        with joined_torchrun() as torchrun:
            assert torchrun.gather("rank", str(torchrun.rank)) == ["0", "1"]

    def join_again(environment: dict[str, str]) -> None:
        os.environ.update(environment)
        for _ in range(4):
            join()

    run_in_forks([functools.partial(join_again, environment) for environment in environments_of_ranks(2)])


@pytest.mark.slow
def test_a_store_that_is_not_there_is_named(tmp_path: Path) -> None:
    """As where torchrun was killed while its ranks were starting: they do not wait for ever."""

    def join(_: list[str]) -> int:
        distributed.MAX_WAIT_FOR_STORE = timedelta(seconds=2)
        with joined_torchrun():
            return 0

    rank = Command(join, tmp_path / "out", environments_of_ranks(2)[1])
    assert rank.wait() == 2
    (line,) = [line for line in rank.text.splitlines() if line.startswith("error")]
    assert line.startswith("error on rank 1: the store of torchrun at 127.0.0.1:")


@pytest.mark.slow
def test_ranks_with_different_numbers_of_validation_batches(plain: Settings, tmp_path: Path) -> None:
    """4 ranks: 21 images are 5, 5, 5 and 6, in batches of 5 some have one more than others."""
    one = dataclasses.replace(plain, run_name="one", epochs=2)
    train_run(one, fresh=False)
    settings = dataclasses.replace(plain, epochs=2, valid_batch_size=5)
    train_with_ranks(settings, tmp_path, 4)
    np.testing.assert_allclose(losses_of(settings), losses_of(one), rtol=1e-5)


@pytest.mark.slow
def test_killed_ranks_are_resumed(cached: Settings, tmp_path: Path) -> None:
    """With batch norm, dropout and mixup two ranks that were killed give the bits of two that were not."""
    settings = dataclasses.replace(
        cached,
        folds=(1,),
        batch_size=4,
        mixup_alpha=0.4,
        drop_rate=0.3,
        ema_decay=0.9,
        epochs=6,
        cosine_epochs=9,
        early_stop=0,
        snapshot_iterations=1,
    )
    whole = dataclasses.replace(settings, run_name="whole")
    train_with_ranks(whole, tmp_path, 2)
    trainings = start_ranks(settings, tmp_path, 2)
    wait_until(lambda: num_snapshots(settings.run_folder / "fold1") >= 8, trainings[0])
    for training in trainings:
        training.signal(signal.SIGKILL)
    assert [training.wait() for training in trainings] == [-signal.SIGKILL] * 2
    train_with_ranks(settings, tmp_path, 2)
    assert "fold 1: resumes from its snapshot, " in (tmp_path / "out0").read_text()
    assert outcome(settings.run_folder) == outcome(whole.run_folder)


@pytest.mark.slow
def test_another_world_size(plain: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It may change in the middle; what that changes is said."""
    one = dataclasses.replace(plain, run_name="one")
    train_run(one, fresh=False)
    train_with_ranks(dataclasses.replace(plain, epochs=2), tmp_path, 2)
    capsys.readouterr()
    train_run(plain, fresh=False)
    printed = capsys.readouterr()
    assert "the snapshot is of world size 2, this is 1: the batches stay the same, the result differs by" in printed.out
    np.testing.assert_allclose(losses_of(plain), losses_of(one), rtol=1e-5)
    mixed = dataclasses.replace(plain, run_name="mixed", backbone_model="test_resnet", mixup_alpha=0.4, drop_rate=0.1)
    train_run(dataclasses.replace(mixed, epochs=1), fresh=False)
    train_with_ranks(dataclasses.replace(mixed, epochs=2), tmp_path, 2)
    assert (
        "warning: the snapshot is of world size 1, this is 2: the result will differ from an uninterrupted run's, "
        "since batch norm's statistics, the draws of dropout, mixup's partners depend on each rank's share of a batch"
    ) in (tmp_path / "out0").read_text()


@pytest.mark.slow
def test_one_fold_per_rank(plain: Settings, tmp_path: Path) -> None:
    """The same files as one process writes, to the bit, with batch norm and mixup too; then nothing is left."""
    settings = dataclasses.replace(
        plain, backbone_model="test_resnet", num_folds=3, folds=None, epochs=2, cosine_epochs=3, mixup_alpha=0.2
    )
    one = dataclasses.replace(settings, run_name="one")
    train_run(one, fresh=False)
    settings = dataclasses.replace(settings, folds_parallel=True)
    train_with_ranks(settings, tmp_path, 2)
    assert outcome(settings.run_folder) == outcome(one.run_folder)
    texts = [(tmp_path / f"out{rank}").read_text() for rank in range(2)]
    assert sum(text.count("best macro AUC") for text in texts) == 3
    assert all("best macro AUC" in text for text in texts)
    assert texts[0].count("out-of-fold predictions of 40 images, 3 of 3 folds") == 1
    train_with_ranks(settings, tmp_path, 2)
    assert (tmp_path / "out0").read_text().count("already trained") == 3


@pytest.mark.slow
@pytest.mark.parametrize(("folds_parallel", "number"), [(False, signal.SIGUSR1), (True, signal.SIGTERM)])
def test_a_signal_to_one_rank_stops_all_with_a_snapshot(
    plain: Settings, tmp_path: Path, folds_parallel: bool, number: signal.Signals
) -> None:
    """The other one too says what it has saved, and for which signal: batch systems read the status."""
    settings = dataclasses.replace(
        plain, folds=(0, 1), epochs=200, cosine_epochs=200, folds_parallel=folds_parallel, valid_batch_size=1
    )
    trainings = start_ranks(settings, tmp_path, 2)
    wait_until(lambda: num_snapshots(settings.run_folder / "fold0") >= 1, trainings[0])
    trainings[1].signal(number)
    assert trainings[1].wait() == 128 + number
    # With a fold of its own it heard of it from the other one alone, by SIGTERM.
    assert trainings[0].wait() == 128 + (signal.SIGTERM if folds_parallel else number)
    assert re.search(rf"stopped by {number.name}: the same command resumes from fold [01], ", trainings[0].text)


@pytest.mark.slow
def test_a_signal_to_a_rank_that_only_waits(plain: Settings, tmp_path: Path) -> None:
    """It has no fold to train; the other one still saves its own."""
    settings = dataclasses.replace(plain, epochs=200, cosine_epochs=200, folds_parallel=True)
    trainings = start_ranks(settings, tmp_path, 2)
    wait_until(lambda: num_snapshots(settings.run_folder / "fold1") >= 1, trainings[0])
    idle = next(training for training in trainings if "epoch 1/200" not in training.text)
    busy = next(training for training in trainings if training is not idle)
    idle.signal(signal.SIGTERM)
    assert [training.wait() for training in trainings] == [128 + signal.SIGTERM] * 2
    assert "stopped by SIGTERM: the same command resumes from fold 1, " in busy.text


@pytest.mark.slow
def test_other_ranks_write_nothing_on_their_machine(plain: Settings, tmp_path: Path) -> None:
    """On a machine that shares no disk with the first one's: neither a folder is made nor another run touched."""
    for has_run in (False, True):
        settings = dataclasses.replace(plain, epochs=1, run_name=f"run{has_run}")
        elsewhere = dataclasses.replace(settings, saved_models_folder=str(tmp_path / "elsewhere"))
        log = elsewhere.run_folder / "fold1" / "log.jsonl"
        if has_run:
            log.parent.mkdir(parents=True)
            log.write_text("another run's\n")
        environments = environments_of_ranks(2)
        trainings = [
            Training(settings, tmp_path / "out0", environments[0]),
            Training(elsewhere, tmp_path / "out1", environments[1]),
        ]
        assert [training.wait() for training in trainings] == [0, 0], trainings[0].text
        assert (tmp_path / "elsewhere").exists() == has_run
    assert log.read_text() == "another run's\n"
    assert [path.name for path in elsewhere.run_folder.rglob("*")] == ["fold1", "log.jsonl"]


@pytest.mark.parametrize(("changes", "fresh"), [({"run_name": "other"}, False), ({}, True)])
def test_ranks_that_would_train_another_run_are_refused(
    plain: Settings, tmp_path: Path, changes: dict[str, str], fresh: bool
) -> None:
    environments = environments_of_ranks(2)
    first = Training(plain, tmp_path / "out0", environments[0])
    second = Training(dataclasses.replace(plain, **changes), tmp_path / "out1", environments[1], fresh=fresh)
    assert [first.wait(), second.wait()] == [2, 2]
    differs = (
        "--fresh is True on rank 1, False on rank 0" if fresh else "run_name is 'other' on rank 1, 'run' on rank 0"
    )
    assert "rank 1 (" in first.text
    assert f"has another command than rank 0 ({socket.gethostname()}): {differs}; start the same command" in first.text


def test_a_mistake_on_one_rank_stops_the_other(plain: Settings, tmp_path: Path) -> None:
    """As where one machine lacks the cache."""
    absent = dataclasses.replace(plain, cache_folder=str(tmp_path / "absent"))
    environments = environments_of_ranks(2)
    first = Training(plain, tmp_path / "out0", environments[0])
    second = Training(absent, tmp_path / "out1", environments[1])
    assert second.wait() == 2
    assert "error on rank 1: " in second.text
    assert "no such image cache" in second.text
    assert first.wait() != 0
    assert "stopped, since rank 1 (" in first.text
    assert "absent/tiny_32.npy: no such image cache" in first.text


@pytest.mark.slow
@pytest.mark.parametrize(("number", "reason"), [(signal.SIGKILL, "rank 1 died"), (signal.SIGSTOP, "rank 1 gave no")])
def test_a_dead_rank_stops_the_other(plain: Settings, tmp_path: Path, number: int, reason: str) -> None:
    """Killed, of which torchrun tells the other; or silent, as when its machine loses its network."""
    settings = dataclasses.replace(plain, epochs=400, cosine_epochs=400)
    first, second = start_ranks(settings, tmp_path, 2)
    wait_until(lambda: num_snapshots(settings.run_folder / "fold1") >= 1, first)
    second.signal(number)
    if number == signal.SIGKILL:
        first.signal(signal.SIGTERM)
    try:
        assert first.wait() != 0  # long before its 400 epochs are over
        assert f"stopped, since {reason}" in first.text
    finally:
        second.signal(signal.SIGKILL)
        second.wait()


def test_a_batch_that_does_not_divide_among_the_ranks() -> None:
    check_global_batch(Settings(batch_size=12), 4)
    with pytest.raises(SettingsError, match=r"batch_size=12 is that of all 5 processes together .*; 10 can"):
        check_global_batch(Settings(batch_size=12), 5)
    with pytest.raises(SettingsError, match="16 can"):
        check_global_batch(Settings(batch_size=3), 16)


@pytest.mark.parametrize("backbone_model", FAMILIES)
def test_sync_batch_norm(settings: Settings, backbone_model: str) -> None:
    """Every batch norm becomes a SyncBatchNorm and keeps its weights' names; on a CPU torch has none."""
    model = build_classifier(dataclasses.replace(settings, backbone_model=backbone_model), 0.5, 0.25)
    before = model.state_dict()
    batch_norm = torch.nn.modules.batchnorm._BatchNorm
    number = sum(isinstance(module, batch_norm) for module in model.modules())
    with pytest.raises(SettingsError, match="sync_batch_norm=True: torch has it for GPUs alone"):
        convert_batch_norm(model, torch.device("cpu"))
    model = convert_batch_norm(model, torch.device("cuda"))
    assert sum(isinstance(module, torch.nn.SyncBatchNorm) for module in model.modules()) == number > 10
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.state_dict().keys() == before.keys()
