"""A run that was killed, signalled or damaged is resumed with the bits of an uninterrupted one."""

import dataclasses
import io
import json
import os
import shutil
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from catheters.checkpoints.parts import build_preprocessing
from catheters.config.settings import Settings
from catheters.data.cache.writer import build_cache
from catheters.data.tables.label_table import read_label_table
from catheters.errors import UserError
from catheters.runs.build import build_table_source
from catheters.runs.run import train_run
from tests.conftest import tiny_settings
from tests.processes import Training, num_snapshots, outcome, wait_until


def with_everything(settings: Settings) -> Settings:
    """All that has a state or draws, in 8 epochs of 4 batches, with a snapshot whenever there can be one."""
    return dataclasses.replace(
        settings,
        folds=(1,),
        batch_size=4,
        accumulation_steps=2,
        ema_decay=0.9,
        mixup_alpha=0.4,
        drop_rate=0.3,
        drop_path_rate=0.2,
        clip_grad_norm=1.0,
        optimizer="AdamW",
        schedule="plateau",
        plateau_patience=0,
        epochs=8,
        early_stop=7,
        snapshot_iterations=1,
    )


@pytest.fixture
def everything(cached: Settings) -> Settings:
    return with_everything(cached)


@pytest.fixture(scope="module")
def uninterrupted(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The result of such a run."""
    settings = with_everything(tiny_settings(sample_folder, tmp_path_factory.mktemp("uninterrupted")))
    build_cache(read_label_table(build_table_source(settings)), settings.cache_file, build_preprocessing(settings))
    train_run(settings, fresh=False)
    return outcome(settings.run_folder)


def fold_of(settings: Settings) -> Path:
    return settings.run_folder / "fold1"


def kill_at(settings: Settings, output: Path, number: int) -> None:
    """Train, and kill as soon as the snapshot of that number stands."""
    training = Training(settings, output)
    wait_until(lambda: num_snapshots(fold_of(settings)) >= number, training)
    training.kill()


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_killed_at_any_moment(
    everything: Settings, uninterrupted: dict[str, object], tmp_path: Path, num_workers: int
) -> None:
    """Three kills; the run without DataLoader workers and the one with them are the same as well."""
    settings = dataclasses.replace(everything, num_workers=num_workers)
    for number in (2, 7, 12):
        kill_at(settings, tmp_path / "out", number)
    train_run(settings, fresh=False)
    assert outcome(settings.run_folder) == uninterrupted
    assert [path.name for path in fold_of(settings).glob("last/*")] == [f"{num_snapshots(fold_of(settings)):06d}"]
    assert "resumes from its snapshot, " in (tmp_path / "out").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGTERM, "SIGTERM"), pytest.param(signal.SIGINT, "Ctrl-C", marks=pytest.mark.slow)],
)
def test_a_signal_writes_a_snapshot_first(
    everything: Settings,
    uninterrupted: dict[str, object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    number: int,
    name: str,
) -> None:
    """With none due for long: the run resumes from the very batch."""
    settings = dataclasses.replace(everything, snapshot_iterations=None, num_workers=1)
    training = Training(settings, tmp_path / "out")
    wait_until(lambda: num_snapshots(fold_of(settings)) >= 2, training)  # after two epochs
    training.signal(number)
    assert training.wait() == 128 + number
    last = training.text.splitlines()[-1]
    assert last.startswith(f"stopped by {name}: the same command resumes from fold 1, ")
    capsys.readouterr()
    train_run(settings, fresh=False)
    where = last.rpartition("fold 1, ")[2]
    assert f"fold 1: resumes from its snapshot, {where}" in capsys.readouterr().out
    assert outcome(settings.run_folder) == uninterrupted


@pytest.mark.slow
def test_a_signal_during_validation(everything: Settings, tmp_path: Path) -> None:
    """One image at a time, it takes long: the epoch's batches are not learnt from again, its validation is."""
    everything = dataclasses.replace(everything, snapshot_iterations=None, valid_batch_size=1)
    whole = dataclasses.replace(everything, run_name="whole")
    train_run(whole, fresh=False)
    log = fold_of(everything) / "log.jsonl"
    for epoch in range(2, 8):  # a signal may come too late for an epoch's validation on a busy machine
        training = Training(everything, tmp_path / f"out{epoch}")
        wait_until(lambda: log.exists() and log.read_text().count('"batches"') == epoch, training)  # noqa: B023
        training.signal(signal.SIGTERM)
        assert training.wait() == 128 + signal.SIGTERM
        if "batch 4 of 4" in training.text:
            break
    assert f"resumes from fold 1, epoch {epoch} of 8, batch 4 of 4" in training.text
    train_run(everything, fresh=False)
    assert outcome(everything.run_folder) == outcome(whole.run_folder)


def damage(state: Path) -> None:
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)


def truncate(state: Path) -> None:
    os.truncate(state, state.stat().st_size // 2)


def replace_by_text(state: Path) -> None:
    state.write_text("not a snapshot\n")


def replace_by_weights(state: Path) -> None:
    torch.save({"model": torch.zeros(3)}, state)


class Bomb:
    """Would write a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch bomb_went_off",)


def replace_by_bomb(state: Path) -> None:
    torch.save({"format_version": 1, "manager": Bomb()}, state)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (damage, "is not what was written"),
        pytest.param(truncate, "damaged (File is not a zip file)", marks=pytest.mark.slow),
        pytest.param(Path.unlink, "no such file", marks=pytest.mark.slow),
        pytest.param(replace_by_text, "damaged (File is not a zip file)", marks=pytest.mark.slow),
        pytest.param(replace_by_weights, "no snapshot that this version of the program wrote", marks=pytest.mark.slow),
        (replace_by_bomb, "refused, it holds more than tensors and plain data"),
    ],
)
def test_a_damaged_snapshot_gives_way_to_the_one_before(
    everything: Settings,
    uninterrupted: dict[str, object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], None],
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    kill_at(everything, tmp_path / "out", 6)
    newest = fold_of(everything) / "last" / f"{num_snapshots(fold_of(everything)):06d}"
    spoil(newest / "state.pt")
    capsys.readouterr()
    train_run(everything, fresh=False)
    printed = capsys.readouterr()
    assert f"warning: {newest / 'state.pt'}: " in printed.err
    assert reason in printed.err
    assert "the snapshot before it is looked for" in printed.err
    assert "fold 1: resumes from its snapshot, " in printed.out
    assert outcome(everything.run_folder) == uninterrupted
    assert not (tmp_path / "bomb_went_off").exists()


@pytest.mark.slow
def test_without_a_whole_snapshot_it_starts_again(
    everything: Settings, uninterrupted: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kill_at(everything, tmp_path / "out", 5)
    for state in fold_of(everything).glob("last/*/state.pt"):
        truncate(state)
    train_run(everything, fresh=False)
    assert "fold 1 has no whole snapshot and starts from its first epoch" in capsys.readouterr().err
    assert outcome(everything.run_folder) == uninterrupted


@pytest.mark.slow
def test_best_checkpoints_of_epochs_that_are_lost_are_taken_back(
    everything: Settings, uninterrupted: dict[str, object], tmp_path: Path
) -> None:
    """A later epoch had replaced best.pt, no snapshot of it was written, and on another machine it may not be the best.

    That the run would write the very same best.pt again is kept out: the last epochs are done.
    """
    train_run(everything, fresh=False)
    fold = fold_of(everything)
    other = torch.load(fold / "best_raw.pt", weights_only=True)
    torch.save({**other, "epoch": 99}, fold / "best.pt.new")
    (fold / "best.pt.new").replace(fold / "best.pt")
    (fold / "finished.json").unlink()
    train_run(everything, fresh=False)
    assert outcome(everything.run_folder) == uninterrupted


@pytest.mark.slow
def test_snapshots_of_other_settings_or_data(everything: Settings, tmp_path: Path) -> None:
    settings = dataclasses.replace(everything, run_name="other", init_lr=5e-4, epochs=9)
    kill_at(settings, tmp_path / "out", 2)
    train_run(dataclasses.replace(everything, folds=(0,), epochs=1), fresh=False)
    shutil.copytree(fold_of(settings), fold_of(everything))
    everything = dataclasses.replace(everything, epochs=8)
    with pytest.raises(UserError, match=r"last/00000\d: a snapshot of other settings: init_lr was 0.0005, is 0.001; "):
        train_run(everything, fresh=False)
    shutil.rmtree(everything.run_folder)
    kill_at(everything, tmp_path / "out", 2)
    for state in fold_of(everything).glob("last/*/state.pt"):
        content = torch.load(state, weights_only=True)
        content["environment"]["data_fingerprint"] = "another"
        torch.save(content, state)
    with pytest.raises(
        UserError, match="a snapshot of a run on other images, labels, folds, weights, lines or teacher; delete it"
    ):
        train_run(everything, fresh=False)


@pytest.mark.slow
def test_a_longer_run_starts_as_the_shorter_one_did(cached: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """More epochs, where the learning rates of the earlier ones do not depend on their number; more patience too."""
    longer = dataclasses.replace(
        cached, folds=(1,), cosine_epochs=5, epochs=4, early_stop=0, run_name="longer", ema_decay=0.9
    )
    train_run(longer, fresh=False)
    settings = dataclasses.replace(longer, run_name="grown", epochs=2, early_stop=1)
    train_run(settings, fresh=False)
    of_two = (fold_of(settings) / "predictions.csv").read_bytes()
    capsys.readouterr()
    train_run(dataclasses.replace(settings, epochs=4, early_stop=0), fresh=False)
    assert "fold 1: was trained for 2 epochs, resumes, to 4 epochs" in capsys.readouterr().out
    grown = outcome(settings.run_folder)
    assert grown.pop("fold1/predictions.epoch2.csv") == of_two
    assert grown == outcome(longer.run_folder)
    train_run(dataclasses.replace(settings, epochs=4, early_stop=0), fresh=False)
    assert "fold 1: already trained" in capsys.readouterr().out
    with pytest.raises(UserError, match="epochs were 4, are 3, and may not become fewer; early_stop was 0, is 2, and"):
        train_run(dataclasses.replace(settings, epochs=3, early_stop=2), fresh=False)


def test_without_its_snapshot_a_run_cannot_grow(cached: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """It says so, and its settings stay what it was trained with."""
    settings = dataclasses.replace(cached, folds=(1,), cosine_epochs=5, epochs=2, early_stop=0)
    train_run(settings, fresh=False)
    shutil.rmtree(fold_of(settings) / "last")
    before = (settings.run_folder / "settings.json").read_text()
    message = r"fold1: was trained for 2 epochs and cannot be made longer, since its snapshot in last/ is gone; leave"
    with pytest.raises(UserError, match=message):
        train_run(dataclasses.replace(settings, epochs=3), fresh=False)
    assert (settings.run_folder / "settings.json").read_text() == before
    capsys.readouterr()
    train_run(settings, fresh=False)
    assert "fold 1: already trained" in capsys.readouterr().out


def test_one_cycle_cannot_grow(cached: Settings) -> None:
    settings = dataclasses.replace(cached, folds=(1,), schedule="one_cycle", epochs=2)
    train_run(settings, fresh=False)
    with pytest.raises(UserError, match="epochs were 2, are 3, and may not change with schedule='one_cycle'"):
        train_run(dataclasses.replace(settings, epochs=3), fresh=False)


@pytest.mark.slow
def test_all_data_is_resumed_and_grows(cached: Settings, tmp_path: Path) -> None:
    settings = dataclasses.replace(
        cached, all_data=True, epochs=6, cosine_epochs=9, early_stop=0, ema_decay=0.9, snapshot_iterations=1
    )
    whole = dataclasses.replace(settings, run_name="whole")
    train_run(whole, fresh=False)
    training = Training(settings, tmp_path / "out")
    wait_until(lambda: num_snapshots(settings.run_folder / "seed0") >= 9, training)
    training.kill()
    train_run(settings, fresh=False)
    assert outcome(settings.run_folder) == outcome(whole.run_folder)
    assert {"seed0/final.pt", "seed0/final_raw.pt", "seed0/log.jsonl"} <= outcome(whole.run_folder).keys()
    grown = dataclasses.replace(settings, run_name="grown", epochs=2)
    train_run(grown, fresh=False)
    train_run(dataclasses.replace(grown, epochs=6), fresh=False)
    assert outcome(grown.run_folder) == outcome(whole.run_folder)


def test_what_a_snapshot_holds(cached: Settings) -> None:
    """Progress for people, plain data for torch; every byte has a checksum that another library compares."""
    train_run(cached, fresh=False)
    snapshot = next((cached.run_folder / "fold0" / "last").iterdir())
    progress = json.loads((snapshot / "progress.json").read_text())
    per_epoch = progress["iterations_per_epoch"]
    assert progress == {
        "epoch": 2,
        "best_epoch": progress["best_epoch"],
        "iteration": 2 * per_epoch,
        "iterations_per_epoch": per_epoch,
        "num_epochs_when_asked_to_stop": 0,
    }
    state = torch.load(io.BytesIO((snapshot / "state.pt").read_bytes()), weights_only=True)
    assert state["environment"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert zipfile.ZipFile(snapshot / "state.pt").testzip() is None
    assert (snapshot / "best.pt").samefile(cached.run_folder / "fold0" / "best.pt")  # no second copy of it


@pytest.mark.slow
def test_snapshots_when_they_are_due(cached: Settings) -> None:
    """Numbers count them: one per epoch, and one for every so many batches or minutes."""
    counts = []
    for changes in ({}, {"snapshot_iterations": 2}, {"snapshot_minutes": 1e-9}):
        settings = dataclasses.replace(cached, folds=(1,), batch_size=4, run_name=f"run{len(counts)}", **changes)
        train_run(settings, fresh=False)
        counts.append(num_snapshots(fold_of(settings)))
    per_epoch = json.loads(next(fold_of(settings).glob("last/*/progress.json")).read_text())["iterations_per_epoch"]
    assert per_epoch == 4
    assert counts == [2, 2 * (per_epoch // 2), 2 * per_epoch]
