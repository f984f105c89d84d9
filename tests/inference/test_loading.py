"""Which models predict, and with what their evaluation found out."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import catheters
from catheters.commands.evaluation_options import main as evaluate
from catheters.commands.predict import main as predict
from catheters.errors import UserError
from catheters.evaluation.ensemble import EnsembleSpec, read_ensemble_spec
from catheters.evaluation.results import read_thresholds
from catheters.inference.loading import is_model, read_models
from catheters.labels import RANZCR_LABELS
from tests.conftest import join_again


@pytest.fixture
def run(evaluated_run: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(evaluated_run, tmp_path / "run"))


def test_a_run_is_the_mean_of_its_folds(evaluated_run: Path) -> None:
    models = read_models([evaluated_run])
    assert [checkpoint.file.parent.name for checkpoint in models.checkpoints] == ["fold0", "fold1"]
    assert models.spec.weights == {str(evaluated_run): 1}
    assert models.labels == RANZCR_LABELS
    assert models.calibrator is not None and models.thresholds is not None
    per_label = json.loads((evaluated_run / "metrics.json").read_text())["per_label"]
    chosen = {entry["label"]: entry["operating_point"]["threshold"] for entry in per_label}
    assert dict(models.thresholds.labels) == {label: value for label, value in chosen.items() if value is not None}
    assert read_models([evaluated_run / "fold1" / "best.pt"]).thresholds == models.thresholds
    assert models.without_calibration().calibrator is None


def test_an_unfinished_fold_is_left_out(run: Path) -> None:
    (run / "fold0" / "finished.json").unlink()
    assert [checkpoint.file.parent.name for checkpoint in read_models([run]).checkpoints] == ["fold1"]
    (run / "fold1" / "finished.json").unlink()
    with pytest.raises(UserError, match="no fold of this run is finished"):
        read_models([run])


def test_several_are_averaged_without_an_evaluation(run: Path) -> None:
    paths = [run / "fold0" / "best.pt", run / "fold1" / "best.pt"]
    models = read_models(paths)
    assert list(models.spec.weights.values()) == [0.5, 0.5]
    assert models.calibrator is None and models.thresholds is None


def test_an_ensemble_finds_its_members(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the names that evaluate.py was given, or beside the ensemble."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, "other")
    ensemble = tmp_path / "ensemble"
    ensemble.mkdir()
    members = [{"name": "run", "weight": 0.25}, {"name": "elsewhere/other", "weight": 0.75}]
    content = {"format_version": 1, "method": "mean", "members": members}
    (ensemble / "ensemble.json").write_text(json.dumps(content))
    models = read_models([ensemble])
    assert [member.name for member in models.members] == ["run", str(tmp_path / "other")]
    assert len(models.checkpoints) == 4
    with pytest.raises(UserError, match="is an ensemble already; give it alone"):
        read_models([run, ensemble])
    (ensemble / "ensemble.json").write_text(json.dumps(content).replace("elsewhere/other", "theirs.csv"))
    with pytest.raises(UserError, match=r"its member theirs\.csv is no run folder that can be found"):
        read_models([ensemble])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "missing or damaged; evaluate.py writes it"),
        ('{"format_version": 9}', "is of format 9, 1 is read; run evaluate.py again"),
        ('{"format_version": 1, "method": "best", "members": []}', "damaged; run evaluate.py again"),
        ('{"format_version": 1, "method": "mean"}', "damaged; run evaluate.py again"),
    ],
)
def test_a_damaged_description(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "ensemble.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read_ensemble_spec(tmp_path / "ensemble.json")


def test_an_evaluation_of_other_predictions_is_passed_over(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (run / "predictions.csv").open("a") as stream:
        stream.write("\n")
    models = read_models([run])
    assert models.thresholds is None and models.calibrator is None
    assert "is the evaluation of other predictions than" in capsys.readouterr().err


def test_an_evaluation_from_before_a_fold_was_trained_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its new predictions are not among those that were joined and evaluated."""
    of_fold = run / "fold0" / "predictions.csv"
    of_fold.write_bytes(of_fold.read_bytes() + b"\n")
    models = read_models([run])
    assert models.thresholds is None and models.calibrator is None
    assert "a fold was trained since its evaluation, which is passed over" in capsys.readouterr().err


def change(file: Path, **values: object) -> None:
    """Give some of a JSON file's keys other values."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def forget_identity(folder: Path) -> None:
    """Take from an evaluation what earlier versions did not write."""
    calibration, metrics = (json.loads((folder / name).read_text()) for name in ("calibration.json", "metrics.json"))
    del calibration["predictions_sha256"], metrics["calibration"]["sha256"], metrics["presence_rule"]
    (folder / "calibration.json").write_text(json.dumps(calibration))
    (folder / "metrics.json").write_text(json.dumps(metrics))


@pytest.mark.slow
def test_a_calibration_of_another_evaluation_is_passed_over(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a kill between two files, or a part of a copy, leaves: new thresholds beside an old calibration."""
    old = (run / "calibration.json").read_text()
    predictions = (run / "predictions.csv").read_bytes()
    (run / "predictions.csv").write_bytes(predictions + b"\n")
    join_again(run)
    assert evaluate([str(run)]) == 0
    assert read_models([run]).calibrator is not None
    (run / "calibration.json").write_text(old)
    capsys.readouterr()
    models = read_models([run])
    assert models.calibrator is None and models.thresholds is None
    assert "calibration.json is of another evaluation than" in capsys.readouterr().err
    # The same predictions, evaluated by other choices
    assert evaluate([str(run), "--calibration", "platt"]) == 0
    of_platt = (run / "calibration.json").read_text()
    assert evaluate([str(run), "--calibration", "isotonic"]) == 0
    (run / "calibration.json").write_text(of_platt)
    assert read_models([run]).calibrator is None


@pytest.mark.slow
def test_an_evaluation_that_ended_too_early_is_passed_over(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The metrics, which say that all is there, are removed first and written last."""
    (run / "MODEL_CARD.md").unlink()
    (run / "MODEL_CARD.md").mkdir()  # so that it cannot be written
    with pytest.raises(OSError, match="MODEL_CARD"):
        evaluate([str(run)])
    assert (run / "calibration.json").is_file() and not (run / "metrics.json").exists()
    models = read_models([run])
    assert models.calibrator is None and models.thresholds is None
    assert "its evaluation did not finish and is passed over; run evaluate.py again" in capsys.readouterr().err
    (run / "MODEL_CARD.md").rmdir()
    assert evaluate([str(run)]) == 0
    assert read_models([run]).calibrator is not None


def test_an_evaluation_of_an_earlier_version_is_taken(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = read_models([run]).thresholds
    forget_identity(run)
    models = read_models([run])
    assert models.calibrator is not None
    assert models.thresholds is not None and new is not None and new.device_types
    assert (models.thresholds.labels, models.thresholds.device_types) == (new.labels, {})  # another scale
    err = capsys.readouterr().err
    assert "an earlier version wrote it, without saying which predictions" in err
    assert (
        f"metrics.json: an earlier version chose the thresholds of device types ({', '.join(new.device_types)}), by"
        in err
    )


def test_no_word_of_device_types_that_had_no_thresholds(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A single label has no presence of its own; its threshold stays."""
    forget_identity(run)
    change(run / "metrics.json", per_device=[])
    assert read_models([run]).thresholds is not None
    assert "device types" not in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mean", "weights"])
def test_an_ensemble_whose_member_has_changed(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    other, ensemble = shutil.copytree(run, tmp_path / "other"), tmp_path / "ensemble"
    command = [str(run), str(other), "--ensemble", method, "--out", str(ensemble)]
    assert evaluate(command) == 0
    assert sorted(path.name for path in ensemble.glob("*.csv")) == [
        *("hardest_cases.csv", "metrics.csv", "predictions.csv", "read_again.csv")
    ]
    assert read_models([ensemble]).calibrator is not None
    capsys.readouterr()
    # One that predicts another ensemble now than it did
    change(ensemble / "ensemble.json", predictions_sha256="0" * 64)
    assert read_models([ensemble]).calibrator is None
    assert "is the evaluation of other predictions than" in capsys.readouterr().err
    assert evaluate(command) == 0

    def check_that_it_is_noticed() -> None:
        if method == "weights":
            said = r"other/predictions\.csv: is not what the ensemble's weights were fitted to"
            with pytest.raises(UserError, match=said):
                read_models([ensemble])
        else:
            assert read_models([ensemble]).calibrator is None
            assert (
                f"is the evaluation of an ensemble of other predictions than {other} holds" in capsys.readouterr().err
            )

    of_fold = other / "fold0" / "predictions.csv"
    before = of_fold.read_bytes()
    of_fold.write_bytes(before + b"\n")  # trained again, and not joined yet
    check_that_it_is_noticed()
    of_fold.write_bytes(before)
    with (other / "predictions.csv").open("a") as stream:
        stream.write("\n")
    join_again(other)
    check_that_it_is_noticed()
    assert evaluate(command) == 0
    assert read_models([ensemble]).calibrator is not None
    content = json.loads((ensemble / "ensemble.json").read_text())
    del content["predictions_sha256"]
    for member in content["members"]:
        del member["predictions_sha256"]
    (ensemble / "ensemble.json").write_text(json.dumps(content))  # as earlier versions wrote it
    assert read_models([ensemble]).calibrator is not None


@pytest.mark.slow
def test_ranks_have_no_thresholds(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "other")
    ensemble = tmp_path / "ensemble"
    assert evaluate([str(run), str(tmp_path / "other"), "--ensemble", "rank", "--out", str(ensemble)]) == 0
    models = read_models([ensemble])
    assert not models.gives_probabilities
    assert models.thresholds is None and models.calibrator is None
    with pytest.raises(UserError, match="is an ensemble of ranks"):
        catheters.load(ensemble)
    xray = str(next(Path(models.checkpoints[0].settings.dataset_folder).glob("test/*")))
    with pytest.raises(UserError, match="is an ensemble of ranks"):
        predict(["--model", str(ensemble), xray, "--out", str(tmp_path / "p.csv"), "--worklist"])
    assert predict(["--model", str(ensemble), xray, "--out", str(tmp_path / "p.csv")]) == 0
    assert not (tmp_path / "p_details.csv").exists()
    mean = tmp_path / "mean"
    assert evaluate([str(run), str(tmp_path / "other"), "--ensemble", "mean", "--out", str(mean)]) == 0
    assert read_models([mean]).thresholds is not None


def test_a_checkpoint_given_twice(run: Path) -> None:
    with pytest.raises(UserError, match=r"fold0/best\.pt: is among the models twice"):
        read_models([run, run / "fold0" / "best.pt"])


def test_damaged_thresholds(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"format_version": 2, "per_label": [{}]}')
    with pytest.raises(UserError, match=r"damaged; run evaluate\.py again"):
        read_thresholds(tmp_path / "metrics.json")


def test_an_ensemble_by_hand() -> None:
    """Two members, one label, two images."""
    stacked = np.array([[[0.2], [0.6]], [[0.9], [0.1]]])
    weights = {"a": 0.75, "b": 0.25}
    combined = EnsembleSpec(method="mean", weights=weights).combine(stacked)
    assert combined[:, 0] == pytest.approx([0.375, 0.475])
    combined = EnsembleSpec(method="power", weights=weights).combine(stacked)
    assert combined[:, 0] == pytest.approx([(0.75 * 0.04 + 0.25 * 0.81) ** 0.5, (0.75 * 0.36 + 0.25 * 0.01) ** 0.5])
    combined = EnsembleSpec(method="rank", weights=weights).combine(stacked)
    assert combined[:, 0] == pytest.approx([0.75 * 0.5 + 0.25, 0.75 + 0.25 * 0.5])


def test_other_labels_are_refused(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "other.pt"
    content = torch.load(run / "fold0" / "best.pt", weights_only=True)
    settings = json.loads(content["settings"])
    settings["label_columns"][0] = "ETT - Odd"
    torch.save({**content, "settings": json.dumps(settings)}, file)
    with pytest.raises(UserError, match=r"predicts other labels than .* has ETT - Abnormal, ETT - Odd"):
        read_models([run, file])


def test_what_is_no_model(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "best.pt"
    cases: list[tuple[bytes, str]] = [
        (b"", r"damaged \(File is not a zip file\); best\.pt of a run is expected"),
        ((run / "fold0" / "best.pt").read_bytes()[:20_000], "damaged"),
        (b"not a checkpoint at all", "damaged"),
    ]
    for content, message in cases:
        file.write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_models([file])
    for content in (torch.zeros(3), {"model": [], "settings": "{}", "preprocessing": {}}, [1, 2]):
        torch.save(content, file)
        with pytest.raises(UserError, match="no checkpoint of train"):
            read_models([file])
    torch.save({"model": {}}, file)
    with pytest.raises(UserError, match=r"no checkpoint of train\.py, which has weights, settings and preprocessing"):
        read_models([file])
    content = torch.load(run / "fold0" / "best.pt", weights_only=True)
    content["model"].popitem()
    torch.save(content, file)
    with pytest.raises(UserError, match="its weights are not those of test_resnet as this version of timm makes it"):
        read_models([file])
    with pytest.raises(UserError, match=r"gone\.pt: no such file; best\.pt of a run is expected"):
        read_models([tmp_path / "gone.pt"])
    with pytest.raises(UserError, match="neither a checkpoint"):
        read_models([tmp_path])
    assert [is_model(path) for path in (run, file, tmp_path, tmp_path / "a.png")] == [True, True, False, False]
