"""Finished folds, seeds and runs: every file is compared with what was written, and the remedy that is named works."""

import dataclasses
import json
import zipfile
from pathlib import Path

import pytest

from catheters.checkpoints.finished import is_joined
from catheters.config.settings import Settings
from catheters.errors import UserError
from catheters.inference.loading import read_models
from catheters.runs.evaluation.inputs import read_run
from catheters.runs.run import train_run

pytestmark = pytest.mark.slow  # each test changes a run, and trains again


def flip_a_bit(file: Path) -> None:
    """In the middle of the largest tensor of a torch file."""
    with zipfile.ZipFile(file) as archive:
        entry = max((item for item in archive.infolist() if "/data/" in item.filename), key=lambda item: item.file_size)
        with archive.open(entry) as stream:
            content = stream.read()
    whole = bytearray(file.read_bytes())
    whole[whole.index(content) + len(content) // 2] ^= 0x40
    file.write_bytes(whole)


def edit_a_number(file: Path) -> None:
    lines = file.read_text().splitlines(keepends=True)
    cells = lines[1].split(",")
    cells[-1] = "0.123\n"
    file.write_text("".join([lines[0], ",".join(cells), *lines[2:]]))


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("best.pt", flip_a_bit),
        ("best.pt", truncate),
        ("best.pt", Path.unlink),
        ("predictions.csv", edit_a_number),
    ],
)
def test_a_damaged_fold_is_named_and_repaired(trained: Settings, name: str, damage: object) -> None:
    fold = trained.run_folder / "fold0"
    files = [fold / "best.pt", fold / "predictions.csv", trained.run_folder / "predictions.csv"]
    before = [file.read_bytes() for file in files]
    assert callable(damage)
    damage(fold / name)
    with pytest.raises(UserError, match=rf"fold0/{name}: .*delete {fold}/finished\.json and run train\.py") as error:
        train_run(trained, fresh=False)
    assert "\n" not in str(error.value)
    (fold / "finished.json").unlink()
    train_run(trained, fresh=False)
    assert [file.read_bytes() for file in files] == before


@pytest.mark.parametrize("damage", [flip_a_bit, truncate])
def test_a_damaged_checkpoint_does_not_predict(trained: Settings, damage: object) -> None:
    file = trained.run_folder / "fold0" / "best.pt"
    assert callable(damage)
    damage(file)
    for path in (file, trained.run_folder):
        with pytest.raises(UserError, match=r"fold0/best\.pt: damaged"):
            read_models([path])


def test_a_checkpoint_of_another_fold_does_not_predict_in_its_place(trained: Settings) -> None:
    fold = trained.run_folder / "fold0"
    (fold / "best.pt").write_bytes((trained.run_folder / "fold1" / "best.pt").read_bytes())
    with pytest.raises(UserError, match=r"fold0/best\.pt: damaged or changed"):
        read_models([trained.run_folder])
    with pytest.raises(UserError, match=r"fold0/best\.pt: damaged or changed"):
        read_models([fold / "best.pt"])


def test_edited_predictions_of_a_fold_that_is_not_asked_for(trained: Settings) -> None:
    """They are joined all the same."""
    before = (trained.run_folder / "predictions.csv").read_bytes()
    edit_a_number(trained.run_folder / "fold1" / "predictions.csv")
    with pytest.raises(UserError, match=r"fold1/predictions\.csv: damaged or changed"):
        train_run(dataclasses.replace(trained, folds=(0,)), fresh=False)
    assert (trained.run_folder / "predictions.csv").read_bytes() == before


def test_edited_predictions_of_the_run(trained: Settings) -> None:
    file = trained.run_folder / "predictions.csv"
    before = file.read_bytes()
    edit_a_number(file)
    with pytest.raises(UserError, match=r"predictions\.csv: damaged or changed, .*; run train\.py as before"):
        read_run(trained.run_folder, None)
    train_run(trained, fresh=False)
    assert file.read_bytes() == before
    read_run(trained.run_folder, None)


def as_of_version_0_2(run_folder: Path) -> None:
    """What version 0.2.0 wrote: no records of what is finished, and none of their format."""
    for record in run_folder.rglob("finished.json"):
        record.unlink()
    file = run_folder / "environment.json"
    content = json.loads(file.read_text())
    del content["format_version"]
    file.write_text(json.dumps(content))


def test_a_run_of_version_0_2_gets_its_records(trained: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    as_of_version_0_2(trained.run_folder)
    assert len(read_models([trained.run_folder]).checkpoints) == 2
    train_run(trained, fresh=False)
    assert capsys.readouterr().out.count("already trained") == 2
    assert len(list(trained.run_folder.glob("fold*/finished.json"))) == 2
    assert len(read_models([trained.run_folder]).checkpoints) == 2
    as_of_version_0_2(trained.run_folder)
    flip_a_bit(trained.run_folder / "fold1" / "best.pt")
    with pytest.raises(UserError, match=r"fold1/best\.pt: damaged"):
        train_run(trained, fresh=False)
    (trained.run_folder / "fold1" / "best.pt").unlink()
    fold = trained.run_folder / "fold1"
    with pytest.raises(UserError, match=rf"fold1/best\.pt: no such file.*; delete {fold}/predictions\.csv and run"):
        train_run(trained, fresh=False)
    (fold / "predictions.csv").unlink()
    train_run(trained, fresh=False)
    assert len(read_models([trained.run_folder]).checkpoints) == 2


def test_a_fold_of_version_0_2_that_was_not_finished(trained: Settings) -> None:
    as_of_version_0_2(trained.run_folder)
    (trained.run_folder / "fold1" / "predictions.csv").unlink()
    assert len(read_models([trained.run_folder]).checkpoints) == 1


def test_a_fold_that_was_killed_before_its_record_is_resumed(trained: Settings) -> None:
    """From its last snapshot, with the same bytes; until then it is no model of the run."""
    fold = trained.run_folder / "fold0"
    before = [(fold / name).read_bytes() for name in ("best.pt", "predictions.csv")]
    (fold / "finished.json").unlink()
    edit_a_number(fold / "predictions.csv")
    assert len(read_models([trained.run_folder]).checkpoints) == 1
    train_run(trained, fresh=False)
    assert [(fold / name).read_bytes() for name in ("best.pt", "predictions.csv")] == before


def test_the_predictions_of_a_run_are_of_its_folds(trained: Settings) -> None:
    """A fold that is trained longer, or another one, belongs to no evaluation of before until the folds are joined."""
    folder = trained.run_folder
    assert is_joined(folder)
    record = (folder / "finished.json").read_bytes()
    predictions, fold_record = folder / "fold0" / "predictions.csv", folder / "fold0" / "finished.json"
    fold_record.rename(folder / "kept.json")  # as a fold's that is trained longer
    assert not is_joined(folder)
    (folder / "kept.json").rename(fold_record)
    content = predictions.read_bytes()
    predictions.write_bytes((folder / "fold1" / "predictions.csv").read_bytes())
    assert not is_joined(folder)
    predictions.write_bytes(content)
    assert is_joined(folder)
    (folder / "finished.json").unlink()  # a kill while they were joined
    assert not is_joined(folder)
    as_of_version_0_2(folder)
    assert is_joined(folder)
    (folder / "finished.json").write_bytes(record[:20])
    assert not is_joined(folder)


@pytest.mark.parametrize("content", ["{", '{"sha256": []}', "[]", '{"sha256": NaN}'])
def test_a_damaged_record(trained: Settings, content: str) -> None:
    (trained.run_folder / "fold0" / "finished.json").write_text(content)
    with pytest.raises(UserError, match=r"finished\.json: damaged.*; delete .*fold0/finished\.json and run train\.py"):
        train_run(trained, fresh=False)


def test_a_damaged_seed_is_named_and_repaired(cached: Settings) -> None:
    settings = dataclasses.replace(cached, all_data=True, seeds=(3,), cosine_epochs=0)
    train_run(settings, fresh=False)
    folder = settings.run_folder / "seed3"
    before = (folder / "final.pt").read_bytes()
    flip_a_bit(folder / "final.pt")
    with pytest.raises(
        UserError, match=rf"seed3/final\.pt: damaged .*delete {folder}/finished\.json and run train\.py"
    ):
        train_run(settings, fresh=False)
    with pytest.raises(UserError, match=r"seed3/final\.pt: damaged"):
        read_models([settings.run_folder])
    (folder / "finished.json").unlink()
    train_run(settings, fresh=False)
    assert (folder / "final.pt").read_bytes() == before
    assert len(read_models([settings.run_folder]).checkpoints) == 1


def test_a_longer_run_is_recorded_again(cached: Settings) -> None:
    train_run(dataclasses.replace(cached, epochs=1), fresh=False)
    train_run(cached, fresh=False)
    train_run(cached, fresh=False)
    flip_a_bit(cached.run_folder / "fold1" / "best.pt")
    with pytest.raises(UserError, match=r"fold1/best\.pt: damaged"):
        train_run(cached, fresh=False)
