"""`evaluate.py` as a user runs it, on predictions of any program."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from catheters.commands.evaluation_options import main
from catheters.config.loading import settings_to_json
from catheters.config.settings import Settings
from catheters.errors import UserError
from catheters.labels import RANZCR_LABELS
from catheters.runs.run import train_run
from tests.conftest import assert_user_error, join_again, run_script


@pytest.fixture
def files(tmp_path: Path, rng: np.random.Generator) -> list[str | Path]:
    """A label table of RANZCR's columns with a view of each image, and two models' predictions in other orders."""
    targets = (rng.random((200, 11)) < 0.3).astype(int)
    uids = [f"{number:03d}" for number in range(200)]
    table = pd.DataFrame(targets, columns=list(RANZCR_LABELS)).assign(
        id=uids, PatientID=[f"p{number // 4}" for number in range(200)], view=rng.choice(["AP", "PA"], 200)
    )
    table.to_csv(tmp_path / "labels.csv", index=False)
    for name, quality in (("one", 1.0), ("two", 2.0)):
        logits = quality * (2.0 * targets - 1) + rng.normal(size=targets.shape)
        frame = pd.DataFrame(1 / (1 + np.exp(-logits)), columns=list(RANZCR_LABELS))[list(RANZCR_LABELS)[::-1]]
        frame.insert(0, "id", uids)
        frame.sample(frac=1, random_state=int(quality)).to_csv(tmp_path / f"{name}.csv", index=False)
    return ["--predictions", tmp_path / "one.csv", tmp_path / "two.csv", "--labels", tmp_path / "labels.csv"]


@pytest.fixture
def trained(cached: Settings) -> Settings:
    train_run(dataclasses.replace(cached, epochs=1), fresh=False)
    return cached


@pytest.mark.slow
def test_two_models_and_their_ensemble(files: list[str | Path], tmp_path: Path) -> None:
    options = ["--by", "view", "--operating-point", "sensitivity=0.9", "--prevalence", "ETT=0.02"]
    done = run_script("evaluate.py", *files, *options)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "operating points by sensitivity=0.9" in done.stdout
    assert "view: AP" in done.stdout
    assert "device types in the image: 4" in done.stdout
    assert re.search(r"^ETT  .* 0\.0200 \(given\)$", done.stdout, re.MULTILINE)
    assert "each part of the patients, split for this, judged by the threshold that the others chose" in done.stdout
    folder = tmp_path / "two_evaluation"
    assert sorted(path.name for path in folder.iterdir()) == [
        "MODEL_CARD.md",
        "calibration.json",
        "comparison.json",
        "flow.csv",
        "flow.svg",
        "hardest_cases.csv",
        "left_out.csv",
        "metrics.csv",
        "metrics.json",
        "read_again.csv",
        "report.html",
        "table1.csv",
        "table1.svg",
    ]
    assert '<h2 id="comparison">' in (folder / "report.html").read_text()
    comparison = json.loads((folder / "comparison.json").read_text())
    of_one, of_two = (
        json.loads((tmp_path / f"{name}_evaluation" / "metrics.json").read_text())["macro"]["roc_auc"]["value"]
        for name in ("one", "two")
    )
    gap = comparison["macro"]["roc_auc"]
    assert gap["value"] == pytest.approx(of_two - of_one)
    assert 0 < gap["low"] < gap["value"] < gap["high"]
    assert gap["p"] < 0.05
    of_label = comparison["per_label"][0]["roc_auc"]
    assert of_label["p"] <= of_label["p_holm"] <= 1
    assert "one test *" in done.stdout and "by all of them" in done.stdout
    again = pd.read_csv(folder / "read_again.csv")
    named = json.loads((folder / "metrics.json").read_text())["read_again"]["models"]["num_named"]["all labels"]
    assert named["by_each"][1] == len(again)
    assert named["by_all"] == (again["named_by_models"] == 2).sum()
    device = json.loads((folder / "metrics.json").read_text())["per_device"][0]
    assert (device["label"], device["operating_point"]["prevalence"]) == ("ETT", 0.02)

    out = tmp_path / "ensemble"
    combined = run_script("evaluate.py", *files, "--ensemble", "mean", "--out", out)
    assert combined.returncode == 0, combined.stderr
    assert "of the ensemble without it" in combined.stdout
    one, two, both = (
        pd.read_csv(file, dtype={"id": str}).set_index("id").sort_index()
        for file in (tmp_path / "one.csv", tmp_path / "two.csv", out / "predictions.csv")
    )
    for label in RANZCR_LABELS:
        assert both[label].to_numpy() == pytest.approx((one[label] + two[label]).to_numpy() / 2)
    assert both["patient"].iloc[0] == "p0"
    assert '<h2 id="ensemble">' in (out / "report.html").read_text()
    apart = run_script("evaluate.py", *files, "--out", tmp_path / "all")
    assert apart.returncode == 0, apart.stderr
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["one_evaluation", "two_evaluation"]
    over = run_script(
        "evaluate.py", "--predictions", out / "predictions.csv", *files[2:], "--ensemble", "mean", "--out", out
    )
    assert_user_error(over, "holds predictions that are to be combined; name another folder")
    beside = run_script("evaluate.py", *files[:2], *files[3:], "--out", out)
    assert_user_error(beside, "holds an ensemble; name another folder for the results with --out")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "predictions.csv").write_text("another model's")
    foreign = run_script("evaluate.py", *files, "--ensemble", "mean", "--out", tmp_path / "foreign")
    assert_user_error(foreign, "holds predictions of its own; name another folder for the ensemble")
    again = run_script("evaluate.py", "--predictions", out / "predictions.csv", *files[-2:])
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_any_programs_predictions(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("x,id,y\n1,a,0\n0,b,0\n1,c,0\n0,d,0\n")
    (tmp_path / "p.csv").write_text("id,y,x\nc,0.1,0.9\nb,0.2,0.8\na,0.3,0.3\n")
    both = ["--predictions", tmp_path / "p.csv", "--labels", tmp_path / "labels.csv"]
    done = run_script("evaluate.py", *both)
    assert done.returncode == 0, done.stderr
    assert "3 of 4 images" in done.stdout
    assert "warning: 'y' has 0 positives in 3 images" in done.stderr
    assert "says whose the images are" in done.stderr
    metrics = json.loads((tmp_path / "p_evaluation" / "metrics.json").read_text())
    assert metrics["macro"]["roc_auc"]["value"] == pytest.approx(0.5)  # .9 beats .8, .3 does not
    assert [metric["label"] for metric in metrics["per_label"]] == ["y", "x"]

    (tmp_path / "p.csv").write_text("id,x\nc,2.9\nb,-0.5\n")
    assert_user_error(run_script("evaluate.py", *both), "'2.9' is not a probability in 0..1", "say --logits")
    logits = run_script("evaluate.py", *both, "--logits")
    assert logits.returncode == 0, logits.stderr
    (tmp_path / "p.csv").write_text("id,x,patient\nc,0.9,p\nb,0.8,p\n")
    one_patient = run_script("evaluate.py", *both)
    assert one_patient.returncode == 0, one_patient.stderr
    assert "warning: all images are of one patient: there are no intervals, operating points" in one_patient.stderr
    assert "Brier skill" not in one_patient.stdout and "isotonic" not in one_patient.stdout
    folder = tmp_path / "p_evaluation"
    assert "no others could judge a calibration" in (folder / "report.html").read_text()
    assert [row["method"] for row in json.loads((folder / "metrics.json").read_text())["calibration"]["methods"]] == [
        "none"
    ]


@pytest.mark.parametrize(
    ("predictions", "options", "parts"),
    [
        ("id,x\nc,0.9\nz ,0.8\n", [], ["1 of 2 ids have no row in", "'z' for one"]),
        ("id,xx\nc,0.9\n", [], ["the predictions' 'xx' is not a column of it; did you mean"]),
        ("id,x,note\nc,0.9,good\n", [], ["id c, column 'note': 'good' is not a probability"]),
        ("id,x\nc,0.9\nc,0.8\n", [], ["1 duplicate ids"]),
        ("", [], ["is empty"]),
        ("id,x\nc,0.9\n", ["--out", "absent/folder"], ["a folder for the results is expected, in one that exists"]),
        ("id,x\nc,0.9\n", ["--out", "labels.csv"], ["a folder for the results is expected"]),
        ("id,x\nc,0.9\n", ["--by", "vew"], ["'vew' is not a column; did you mean 'view'"]),
        ("id,x\nc,0.9\n", ["--by", "view=4"], ["bands are of numbers, 'AP' is none"]),
        ("id,x\nc,0.9\n", ["--by", "view=low"], ["'low' is not a number"]),
        ("id,x\nc,0.9\n", ["--by", "view=nan"], ["'nan' is not a number"]),
        ("id,x\nc,0.9\n", ["--by", "view", "--by", "view"], ["view is asked for twice"]),
        ("id,x\nc,0.9\n", ["--prevalence", "z=0.1"], ["'z' is not a label or device type"]),
        ("id,x\nc,0.9\n", ["--prevalence", "x=0.1", "--prevalence", "x=0.2"], ["x has one already"]),
        ("id,x\nc,0.9\n", ["--prevalence", "x"], ["--prevalence x: gives no number; write for example"]),
        ("id,x\nc,0.9\n", ["--prevalence", "x=2"], ["a number between 0 and 1 is expected, as in x=0.02"]),
        ("id,x\nc,0.9\n", ["--operating-point", "best"], ["'best' is not a rule"]),
        ("id,x\nc,0.9\n", ["--patient-column", "PID"], ["'PID' is not a column"]),
    ],
)
def test_mistakes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    predictions: str,
    options: list[str],
    parts: list[str],
) -> None:
    """Each ends with one line, before anything is written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.csv").write_text("x,id,view\n1,a,AP\n0,b,AP\n1,c,AP\n")
    (tmp_path / "p.csv").write_text(predictions)
    with pytest.raises(UserError) as error:
        main(["--predictions", "p.csv", "--labels", "labels.csv", *options])
    for part in parts:
        assert part in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.csv", "p.csv"]


@pytest.mark.slow
def test_groups_of_a_run_are_of_the_rows_that_it_keeps(trained: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """An id that `keep_rows` made unique stands twice in the table, with another view."""
    table = pd.read_csv(Path(trained.dataset_folder) / "train.csv", dtype=str)
    folder = trained.run_folder.with_name("data")
    folder.mkdir()
    twice = pd.concat([table.assign(kept="no", view="PA"), table.assign(kept="yes", view="AP")])
    twice.to_csv(folder / "train.csv", index=False)
    settings = dataclasses.replace(trained, dataset_folder=str(folder), keep_rows={"kept": ("yes", "maybe")})
    (trained.run_folder / "settings.json").write_text(settings_to_json(settings))
    (trained.run_folder / "comparison.json").write_text("of an earlier evaluation")
    main([str(trained.run_folder), "--by", "view"])
    groups = json.loads((trained.run_folder / "metrics.json").read_text())["subgroups"]
    groups = [group for group in groups if group["column"] == "view"]
    assert [(group["value"], group["num_images"]) for group in groups] == [("AP", 40)]
    assert capsys.readouterr().err.count("keep_rows: 'maybe' is not a value of column 'kept'") == 1
    assert not (trained.run_folder / "comparison.json").exists()
    assert "95% intervals by" not in (trained.run_folder / "MODEL_CARD.md").read_text()


@pytest.mark.slow
def test_a_fold_that_is_not_finished(trained: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    file = trained.run_folder / "predictions.csv"
    predictions = pd.read_csv(file, dtype=str)
    predictions[predictions["fold"] == "0"].to_csv(file, index=False)
    join_again(trained.run_folder)
    main([str(trained.run_folder)])
    printed = capsys.readouterr()
    assert "not all of its 2 folds are finished: the images of fold 1 are in no score; run train.py" in printed.err
    assert "each part of the patients, split for this, judged by" in printed.out


def test_a_score_without_an_interval_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "labels.csv").write_text("id,x,patient\n1,1,p\n2,0,q\n3,0,r\n4,0,s\n")
    (tmp_path / "p.csv").write_text("id,x\n1,0.9\n2,0.3\n3,0.1\n4,0.2\n")
    files = ["--predictions", str(tmp_path / "p.csv"), "--labels", str(tmp_path / "labels.csv")]
    main(files)
    assert "a score without an interval: fewer than two patients have the label" in capsys.readouterr().out
    rows = [(number, number % 2, 0.1 + 0.8 * (number % 2) + number / 1000) for number in range(40)]
    (tmp_path / "labels.csv").write_text("id,x,patient\n" + "".join(f"{n},{x},p{n}\n" for n, x, _ in rows))
    (tmp_path / "p.csv").write_text("id,x\n" + "".join(f"{n},{p}\n" for n, _, p in rows))
    main(files)
    assert "a score without an interval" not in capsys.readouterr().out


@pytest.mark.slow
def test_resamples_of_earlier_versions_are_ignored(files: list[str | Path], capsys: pytest.CaptureFixture[str]) -> None:
    main([str(file) for file in files] + ["--resamples", "2000"])
    assert "--resamples: nothing is resampled any more; leave it out" in capsys.readouterr().err


@pytest.mark.slow
def test_results_that_cannot_be_written(
    files: list[str | Path], mount_disk: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """Said before anything is computed."""
    disk = mount_disk("disk", "ro")
    arguments = [files[0], files[1], *files[3:], "--out", disk / "results"]
    done = run_script("evaluate.py", *arguments)
    assert_user_error(done, "results cannot be written there (Read-only file system); name another folder with --out")
    assert done.stdout == ""


@pytest.mark.slow
def test_names_that_stand_twice(files: list[str | Path], tmp_path: Path) -> None:
    twice = run_script("evaluate.py", *files[:2], files[1], *files[3:])
    assert twice.returncode == 2
    assert "one.csv is given twice" in twice.stderr
    (tmp_path / "other").mkdir()
    other = (tmp_path / "one.csv").rename(tmp_path / "other" / "two.csv")
    same = run_script("evaluate.py", "--predictions", other, *files[2:], "--out", tmp_path / "out")
    assert_user_error(same, "two_evaluation: the results of", "would both go there; rename one of them")


@pytest.mark.slow
def test_no_run_folder(tmp_path: Path) -> None:
    assert_user_error(run_script("evaluate.py", tmp_path), "no run folder")
    assert_user_error(run_script("evaluate.py", tmp_path / "gone"), "gone: no such folder; give a run folder")
    assert run_script("evaluate.py").returncode == 2


@pytest.mark.slow
def test_members_of_other_folds_are_warned_of(files: list[str | Path], tmp_path: Path) -> None:
    for name, num_folds in (("one", 3), ("two", 4)):
        frame = pd.read_csv(tmp_path / f"{name}.csv", dtype={"id": str})
        frame.assign(fold=frame["id"].astype(int) // 4 % num_folds).to_csv(tmp_path / f"{name}.csv", index=False)
    done = run_script("evaluate.py", *files, "--ensemble", "mean")
    assert done.returncode == 0, done.stderr
    assert "warning: the members have other folds than each other" in done.stderr


def test_labels_to_be_read_again_that_are_not_sought(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "labels.csv").write_text("id,x,patient\n1,1,p\n2,0,q\n3,1,r\n4,0,s\n")
    (tmp_path / "p.csv").write_text("id,x\n1,0.5\n2,0.5\n3,0.5\n4,0.5\n")
    main(["--predictions", str(tmp_path / "p.csv"), "--labels", str(tmp_path / "labels.csv")])
    sentence = "are no better than the prevalence: x"
    assert sentence in " ".join(capsys.readouterr().out.split())
    assert sentence in " ".join((tmp_path / "p_evaluation" / "report.html").read_text().split())
