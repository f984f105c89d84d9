"""`predict.py` as a user runs it."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import filelock
import numpy as np
import pandas as pd
import pytest
import torch

from catheters.commands.predict import main
from catheters.errors import UserError
from catheters.labels import RANZCR_LABELS
from tests.conftest import REPOSITORY, assert_user_error, run_script
from tests.hangs import output_of, wait_until

LABELS = list(RANZCR_LABELS)


def read(file: Path) -> pd.DataFrame:
    return pd.read_csv(file, dtype={"StudyInstanceUID": str}).set_index("StudyInstanceUID")


@pytest.mark.slow
def test_out_of_fold_predictions_are_repeated(evaluated_run: Path, sample_folder: Path, tmp_path: Path) -> None:
    """From the original files, to 1e-5."""
    of_fold = read(evaluated_run / "fold1" / "predictions.csv")
    out = tmp_path / "p.csv"
    checkpoint = evaluated_run / "fold1" / "best.pt"
    done = run_script("predict.py", "--model", checkpoint, sample_folder / "train", "--no-calibration", "--out", out)
    assert done.returncode == 0, done.stderr
    predicted = read(out)
    assert len(predicted) == 40
    difference = predicted.loc[of_fold.index, LABELS] - of_fold[LABELS]
    assert difference.abs().max(axis=None) < 1e-5
    # ... which is the contract's file: it can be evaluated.
    evaluated = run_script("evaluate.py", "--predictions", out, "--labels", sample_folder / "train.csv")
    assert evaluated.returncode == 0, evaluated.stderr


@pytest.mark.slow
def test_everything_at_once(evaluated_run: Path, sample_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    images = tmp_path / "images"
    shutil.copytree(sample_folder / "test", images)
    (images / "bad.jpg").write_bytes(b"\xff\xd8\xff broken")
    sample = pd.read_csv(sample_folder / "sample_submission.csv", dtype=str)
    bad = pd.DataFrame({"StudyInstanceUID": ["bad"]} | {label: ["0"] for label in LABELS})
    sample = pd.concat([bad, sample]).iloc[:, [0, *range(11, 0, -1)]]
    sample.to_csv(tmp_path / "sample.csv", index=False)
    done = run_script(
        *("predict.py", "--model", evaluated_run, images, "--out", out, "--worklist"),
        *("--submission", tmp_path / "sample.csv", "--tta", "--batch-size", "3", "--workers", "2"),
    )
    assert done.returncode == 1, done.stderr
    assert "5 images, 2 models on the CPU; calibrated probabilities" in done.stdout
    assert "1 of 5 images not predicted:\n  bad: damaged JPEG" in done.stdout
    assert sorted(path.name for path in tmp_path.glob("p*")) == [
        "p.csv",
        "p_details.csv",
        "p_submission.csv",
        "p_worklist.csv",
    ]
    predicted = read(out)
    assert predicted.loc["bad", "reason"].startswith("damaged JPEG")
    assert predicted.loc["bad", LABELS].isna().all()
    readable = predicted.drop(index="bad")
    assert readable["reason"].isna().all()
    assert ((readable[LABELS] >= 0) & (readable[LABELS] <= 1)).all(axis=None)
    submission = pd.read_csv(tmp_path / "p_submission.csv", dtype={"StudyInstanceUID": str})
    assert list(submission.columns) == list(sample.columns)
    assert submission["StudyInstanceUID"].tolist() == sample["StudyInstanceUID"].tolist()
    submission = submission.set_index("StudyInstanceUID")
    of_others = submission.loc[readable.index, LABELS]
    assert submission.loc["bad", LABELS].to_numpy(dtype=float) == pytest.approx(of_others.mean().to_numpy())
    assert "could not be read: 1 image of the submission" in done.stderr
    worklist = pd.read_csv(tmp_path / "p_worklist.csv", dtype={"StudyInstanceUID": str})
    assert worklist["StudyInstanceUID"].iloc[0] == "bad"
    urgent = 1 - (1 - readable[["ETT - Abnormal", "NGT - Abnormal", "CVC - Abnormal"]]).prod(axis=1)
    assert worklist["StudyInstanceUID"].tolist()[1:] == urgent.sort_values(ascending=False).index.tolist()
    assert worklist["urgency"].tolist()[1:] == pytest.approx(sorted(urgent, reverse=True), abs=1e-4)
    assert worklist["ETT"].iloc[1].startswith("ETT: ")
    details = pd.read_csv(tmp_path / "p_details.csv", dtype={"StudyInstanceUID": str})
    assert len(details) == 4 * 11
    assert (details["spread"] >= 0).all()
    arguments = [
        "--model",
        str(evaluated_run),
        str(images),
        "--tta",
        "--no-calibration",
        "--out",
        str(tmp_path / "r.csv"),
    ]
    main(arguments)
    uncalibrated = read(tmp_path / "r.csv").loc[readable.index, LABELS]
    assert of_others.to_numpy() == pytest.approx(uncalibrated.to_numpy())
    raw = pd.read_csv(tmp_path / "r_details.csv", dtype={"StudyInstanceUID": str})
    assert ((raw["probability"] >= raw["threshold"]) == (raw["predicted_positive"] == 1)).all()
    assert (raw["predicted_positive"] == details["predicted_positive"]).all()  # judged before calibration


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_kill_loses_nothing(evaluated_run: Path, sample_folder: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Killed when some images are done, the same command resumes after them, with the same predictions."""
    whole, killed = tmp_path / "whole.csv", tmp_path / "killed.csv"
    arguments = ["--model", str(evaluated_run), str(sample_folder / "train"), "--batch-size", "1", "--workers", "1"]
    assert main([*arguments, "--out", str(whole)]) == 0
    command = [sys.executable, str(REPOSITORY / "predict.py"), *arguments, "--out", str(killed)]
    part = tmp_path / "killed.csv.unfinished"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: process.poll() is not None or (part.exists() and part.read_bytes().count(b"\n") > 3))
        assert process.poll() is None, "it was to be killed before its end"
        process.send_signal(number)
        _, errors = output_of(process)
    assert ("stopped by SIGTERM: the same command resumes" in errors) == (number == signal.SIGTERM)
    with part.open("ab") as stream:
        stream.write(b'{"row": 39, "rea')  # a line that the kill cut off
    other = run_script("predict.py", *arguments, "--tta", "--out", killed)
    assert_user_error(other, "an unfinished command with other images, models or options", "--fresh")
    done = run_script("predict.py", *arguments, "--out", killed)
    assert done.returncode == 0, done.stderr
    assert "of 40 images were predicted before: resuming from there" in done.stdout
    assert not part.exists()
    first, second = read(whole), read(killed)
    assert (first.index == second.index).all()
    assert np.abs(first[LABELS] - second[LABELS]).max(axis=None) < 1e-6
    part.write_text('{"key": "of another command"}\n')
    assert main([*arguments, "--out", str(killed), "--fresh"]) == 0


def test_one_process_at_a_time(evaluated_run: Path, sample_folder: Path, tmp_path: Path) -> None:
    arguments = ["--model", str(evaluated_run), str(sample_folder / "test"), "--out", str(tmp_path / "p.csv")]
    lock = filelock.FileLock(tmp_path / "p.csv.unfinished.lock")
    with lock, pytest.raises(UserError, match="another process is at it; choose another --out, or wait"):
        main(arguments)
    assert main(arguments) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.csv", "p_details.csv"]


def test_outputs_that_are_no_numbers(evaluated_run: Path, sample_folder: Path, tmp_path: Path) -> None:
    content = torch.load(evaluated_run / "fold0" / "best.pt", weights_only=True)
    content["model"]["head.linear.bias"][:] = float("nan")
    torch.save(content, tmp_path / "best.pt")
    arguments = ["--model", str(tmp_path / "best.pt"), str(sample_folder / "test"), "--out", str(tmp_path / "p.csv")]
    assert main([*arguments, "--worklist"]) == 1
    assert (read(tmp_path / "p.csv")["reason"] == "a model outputs NaN or infinity").all()
    with pytest.raises(UserError, match="none of the images could be predicted"):
        main([*arguments, "--submission", str(sample_folder / "sample_submission.csv")])


@pytest.mark.slow
def test_a_table_of_ids(evaluated_run: Path, sample_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    table = sample_folder / "sample_submission.csv"
    done = run_script("predict.py", "--model", evaluated_run, table, "--images", "test/{uid}.jpg", "--out", out)
    assert done.returncode == 0, done.stderr
    assert read(out).index.tolist() == pd.read_csv(table, dtype=str)["StudyInstanceUID"].tolist()


@pytest.mark.slow
def test_flagged_images(evaluated_run: Path, tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "blank.png"), np.full((300, 300), 130, dtype=np.uint8))
    cv2.imwrite(str(tmp_path / "long.png"), np.tile(np.arange(100, dtype=np.uint8), (300, 1)))
    cv2.imwrite(str(tmp_path / "tiny.png"), np.tile(np.arange(0, 200, 20, dtype=np.uint8), (10, 1)))
    done = run_script("predict.py", "--model", evaluated_run, tmp_path, "--out", tmp_path / "p.csv")
    assert done.returncode == 0, done.stderr
    quality_flags = read(tmp_path / "p.csv")["quality_flags"]
    assert quality_flags["blank"].startswith("almost blank: the greys differ by 0.0 of 255")
    assert "100 x 300 pixels: longer than a chest radiograph is" in quality_flags["long"]
    assert "only 10 x 10 pixels, the model sees 32 x 32" in quality_flags["tiny"]
    assert "3 of 3 images with quality flags, see the column `quality_flags`" in done.stdout
    # The tiny one, enlarged, is a smooth ramp, which this model of 32 px need not tell from a radiograph's background.
    assert all("out-of-distribution" in quality_flags[name] for name in ("blank", "long"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone"], "gone: no such file or folder"),
        (["xrays", "--worklist", "--urgent", "ETT"], "--urgent ETT: 'ETT' is not a label"),
        (["xrays", "--device", "cuda:9"], "this machine has 0 CUDA GPUs"),
    ],
)
def test_quick_mistakes_are_answered_before_models_are_read(
    evaluated_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    """Models that could not be read: those are found damaged only without the mistake."""
    run = Path(shutil.copytree(evaluated_run, tmp_path / "run"))
    (run / "fold0" / "best.pt").write_bytes(b"no model")
    (tmp_path / "xrays").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        main(["--model", str(run), *arguments])
    with pytest.raises(UserError, match=r"best\.pt"):
        main(["--model", str(run), "xrays", "--worklist"])


@pytest.mark.slow
def test_mistakes(evaluated_run: Path, sample_folder: Path, tmp_path: Path) -> None:
    test = sample_folder / "test"
    copied = Path(shutil.copy(sample_folder / "sample_submission.csv", tmp_path / "copied.csv"))
    cases: list[tuple[list[object], list[str]]] = [
        ([tmp_path, test], ["neither a checkpoint (.pt) nor a run folder"]),
        ([test, evaluated_run], ["neither a checkpoint (.pt) nor a run folder"]),
        ([evaluated_run / "fold0", test], ["it holds", "best.pt"]),
        ([evaluated_run, sample_folder / "sample_submission.csv"], ["none of its images is there", "--images"]),
        (
            [evaluated_run, test, "--out", evaluated_run / "predictions.csv"],
            ["its folder is that of a run or ensemble"],
        ),
        ([evaluated_run, copied, "--out", copied], ["would be written over"]),
        ([evaluated_run], ["no images: give files, folders or a CSV of ids after the models"]),
        ([evaluated_run, test, "--out", tmp_path], ["a file that ends in .csv is expected, in a folder that exists"]),
        ([evaluated_run, tmp_path / "gone"], ["gone: no such file or folder"]),
        ([evaluated_run, test, "--worklist", "--urgent", "ETT"], ["'ETT' is not a label"]),
        ([evaluated_run, test, "--device", "cuda:9"], ["this machine has 0 CUDA GPUs"]),
    ]
    (tmp_path / "odd.csv").write_text("id,ETT - Abnormal,Odd\na,0,0\n")
    table = pd.read_csv(sample_folder / "sample_submission.csv", dtype=str)
    table.replace(table.iloc[0, 0], "1.2.3").to_csv(tmp_path / "missing.csv", index=False)
    cases += [
        ([evaluated_run, test, "--submission", tmp_path / "odd.csv"], ["do not predict its column 'Odd'"]),
        (
            [evaluated_run, test, "--submission", tmp_path / "missing.csv"],
            ["1 of its 4 ids are not among the images, 1.2.3 for one"],
        ),
    ]
    for arguments, parts in cases:
        out = [] if "--out" in arguments else ["--out", tmp_path / "p.csv"]
        with pytest.raises(UserError) as error:
            main(["--model", *map(str, arguments), *map(str, out)])
        assert all(part in str(error.value) for part in parts)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copied.csv", "missing.csv", "odd.csv"]
    assert_user_error(run_script("predict.py", "--model", evaluated_run), "no images: give files")


def test_an_option_of_version_0_2_is_told_its_name() -> None:
    done = run_script("predict.py", "--model", "x.pt", "y.png", "--flip")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("error: --flip is called --tta now (test-time augmentation)")
