"""The real scripts, as a user runs them, on a tiny sample: what they write, print and refuse."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from catheters.config.loading import load_settings, settings_warnings
from catheters.config.settings import Settings
from catheters.data.augmentation import Augmentation
from catheters.labels import RANZCR_HEADS, RANZCR_LABELS
from catheters.runs.build import build_losses
from tests.conftest import REPOSITORY, SHARED_DATA, assert_user_error, run_script
from tests.hangs import output_of, wait_until
from tests.processes import num_snapshots

Write = Callable[[Settings], Path]


@pytest.mark.slow
def test_from_x_rays_to_metrics(settings: Settings, write_config: Write) -> None:
    config = write_config(settings)
    cached = run_script("preproc_npy.py", "--config", config)
    assert cached.returncode == 0, cached.stderr
    assert "40 images, grey mean" in cached.stdout
    again = run_script("preproc_npy.py", "--config", config)
    assert "is up to date" in again.stdout

    trained = run_script("train.py", "--config", config)
    assert trained.returncode == 0, trained.stderr
    assert "fold 1 epoch 2/2  loss " in trained.stdout
    assert "\r" not in trained.stdout + trained.stderr  # readable in a log file

    evaluated = run_script("evaluate.py", settings.run_folder)
    assert evaluated.returncode == 0, evaluated.stderr
    metrics = json.loads((settings.run_folder / "metrics.json").read_text())
    labels = pd.read_csv(Path(settings.dataset_folder) / "train.csv").set_index("StudyInstanceUID")
    predictions = pd.read_csv(settings.run_folder / "predictions.csv").set_index("StudyInstanceUID")
    assert list(predictions.columns) == ["patient", "fold", *RANZCR_LABELS]
    assert metrics["num_images"] == 40
    scores = []
    for metric in metrics["per_label"]:
        target = labels.loc[predictions.index, metric["label"]]
        assert metric["num_positives"] == target.sum()
        if 0 < target.sum() < 40:
            scores.append(roc_auc_score(target, predictions[metric["label"]]))
            assert metric["roc_auc"]["value"] == pytest.approx(scores[-1])
            expected = average_precision_score(target, predictions[metric["label"]])
            assert metric["average_precision"]["value"] == pytest.approx(expected)
        else:
            assert metric["roc_auc"]["value"] is None
            assert f"warning: '{metric['label']}' has" in evaluated.stderr
    macro_auc = metrics["macro"]["roc_auc"]["value"]
    assert macro_auc == pytest.approx(sum(scores) / len(scores))
    assert f"macro AUC {macro_auc:.4f}" in evaluated.stdout
    page = (settings.run_folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2  # the curves of both folds
    assert "data:image/jpeg;base64," in page  # the hardest cases
    assert "<strong>Synthetic data.</strong>" in page
    assert "timm's `test_resnet`" in (settings.run_folder / "MODEL_CARD.md").read_text()
    record = json.loads((settings.run_folder / "environment.json").read_text())
    for shown in (
        f"data fingerprint: {record['data_fingerprint']}",
        f"command: {REPOSITORY / 'train.py'} --config {config}",
        f"torch {torch.__version__.partition('+')[0]}, ",
        f"commit {record['environments'][0]['git_commit'] or 'unknown'}",
        f"hardware: the CPU; {record['environments'][0]['hardware']['cpu']}, ",
        "backbone_model='test_resnet'",
    ):
        assert shown in evaluated.stdout
    (settings.run_folder / "environment.json").write_text("{}")
    without = run_script("evaluate.py", settings.run_folder)
    assert without.returncode == 0
    assert "environment.json: missing or damaged: what it was trained with is not known" in without.stderr
    (settings.run_folder / "environment.json").write_text(json.dumps(record))

    checkpoint = torch.load(settings.run_folder / "fold0" / "best.pt", weights_only=True)
    assert checkpoint["environment"]["versions"]["torch"] == torch.__version__.partition("+")[0]

    done = run_script("train.py", "--config", config)
    assert done.returncode == 0
    assert "fold 0: already trained" in done.stdout
    other = run_script("train.py", "--config", config, "seed=3")
    assert_user_error(other, "holds a run of other settings: seed was 0, is 3", "--fresh")


@pytest.mark.slow
def test_one_bad_image_does_not_stop_it(settings: Settings, write_config: Write, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(settings.dataset_folder, folder)
    uids = pd.read_csv(folder / "train.csv")["StudyInstanceUID"]
    broken, missing = (folder / "train" / f"{uid}.jpg" for uid in uids[:2])
    broken.write_bytes(broken.read_bytes()[:200])
    missing.unlink()
    settings = dataclasses.replace(settings, dataset_folder=str(folder), folds=(0,), cosine_epochs=0)
    config = write_config(settings)
    done = run_script("preproc_npy.py", "--config", config)
    assert done.returncode == 1
    assert "2 X-rays that could not be read; training" in done.stderr
    assert f"{missing}: no such file" in done.stderr
    assert f"{broken}: damaged JPEG" in done.stderr
    trained = run_script("train.py", "--config", config, "folds=[0,1]")
    assert trained.returncode == 0, trained.stderr
    assert "left out: 2 images that could not be read" in trained.stderr
    predicted = pd.read_csv(settings.run_folder / "predictions.csv")["StudyInstanceUID"]
    assert set(predicted) == set(uids[2:])


@pytest.mark.slow
def test_mistakes_fail_with_one_line(settings: Settings, write_config: Write) -> None:
    config = write_config(settings)
    for script in ("preproc_npy.py", "train.py"):
        assert_user_error(run_script(script, "--config", "absent.py"), "absent.py: no such config file")
        assert_user_error(run_script(script, "--config", config, "imagesize=1"), "did you mean 'image_size'?")
        assert_user_error(run_script(script, "--config", config, "dataset_folder=absent"), "absent: no such folder")
    assert_user_error(run_script("train.py", "--config", config), "no such image cache", "run preproc_npy.py")
    assert_user_error(run_script("train.py", config), f"a settings file is given with --config {config}")
    in_the_way = config.with_name("file")
    in_the_way.touch()
    blocked = f"cache_folder={in_the_way}"
    assert_user_error(run_script("preproc_npy.py", "--config", config, blocked), f"{in_the_way}: ")
    result = run_script("train.py", "--config", config, "warmup_epochs=0")
    assert "warning: warmup_multiplier=2.0 has no effect: warmup_epochs=0" in result.stderr


@pytest.mark.slow
def test_multi_head_training(cached: Settings, write_config: Write) -> None:
    """One head per device type: the same run folder, predictions in label order, the maps' weights in best.pt."""
    settings = dataclasses.replace(
        cached, classifier="attention", heads=dict(reversed(RANZCR_HEADS.items())), grey_mean=0.4887, grey_std=0.2306
    )
    config = write_config(settings)
    trained = run_script("multi_train.py", "--config", config)
    assert trained.returncode == 0, trained.stderr
    predictions = pd.read_csv(settings.run_folder / "predictions.csv")
    assert list(predictions.columns[3:]) == list(RANZCR_LABELS)
    checkpoint = torch.load(settings.run_folder / "fold1" / "best.pt", weights_only=True)
    assert checkpoint["preprocessing"]["mean"] == pytest.approx(0.4887)
    assert checkpoint["preprocessing"]["std"] == pytest.approx(0.2306)
    assert checkpoint["model"]["head.hidden_weight"].shape[0] == 4
    single = run_script("train.py", "--config", config, "classifier=linear", "run_name=single", "folds=[0]")
    assert single.returncode == 0, single.stderr
    both = run_script("evaluate.py", settings.run_folder, settings.run_folder.with_name("single"))
    assert_user_error(both, "predicts other images than", " are missing and 0 are extra, ")
    of_all = run_script("train.py", "--config", config, "all_data=True", "run_name=all", "epochs=1")
    assert of_all.returncode == 0, of_all.stderr
    refused = run_script("evaluate.py", settings.run_folder.with_name("all"))
    assert_user_error(refused, "was trained on all data, so it has no predictions of images that it had not seen")
    shown = run_script("multi_train.py", "--help")
    assert "default: multi_config.py" in " ".join(shown.stdout.split())


def test_help_explains_every_setting() -> None:
    done = run_script("train.py", "--help")
    assert done.returncode == 0
    for field in dataclasses.fields(Settings):
        assert f"  {field.name} = " in done.stdout


CONFIGS = [REPOSITORY / "config.py", REPOSITORY / "multi_config.py", *sorted((REPOSITORY / "configs").glob("*.py"))]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_configs_say_which_batch_their_learning_rate_is_meant_for(config: Path) -> None:
    """With batch_size="auto" their learning rate then follows the batch from there."""
    settings = load_settings(config)
    assert settings.lr_batch_size == settings.images_per_batch * settings.accumulation_steps


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_configs_are_valid(config: Path) -> None:
    settings = load_settings(config)
    assert settings.run_name == config.stem
    assert settings_warnings(settings) == []
    Augmentation(settings.train_transforms, settings.image_shape)
    build_losses(settings)
    assert timm.is_model(settings.backbone_model)
    assert settings.pretrained is False or timm.get_pretrained_cfg(settings.backbone_model).has_weights


def test_a_bug_keeps_its_traceback() -> None:
    code = "from catheters.commands.command_line import run_command\nrun_command(lambda arguments: 1 // 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("work", "what"),
    [
        ("raise MemoryError", "MemoryError"),
        ("import numpy; numpy.empty(1 << 60, 'u1')", "Unable to allocate 1.00 EiB"),
        ("import torch; torch.empty(1 << 60, dtype=torch.uint8)", "DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_no_memory_is_one_line(work: str, what: str) -> None:
    """Wherever it runs out, by Python's error or torch's."""
    code = f"from catheters.commands.command_line import run_command\ndef work(_):\n    {work}\nrun_command(work)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: this machine has no memory left (")
    assert what in line


def test_ctrl_c_is_not_lost() -> None:
    """Python drops a KeyboardInterrupt that is raised in a destructor; the work still stops, with status 130."""
    code = """
import os, signal
from catheters.commands.command_line import run_command
from catheters.runtime.progress import track

class Held:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):  # the signal is handled in here
            pass

def command(arguments):
    for number in track(range(5), "counting", 5):
        print(number)
        if number == 2:
            Held()
    return 0

run_command(command)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Exception ignored" in done.stderr  # it did get lost
    assert done.stdout.split() == ["0", "1", "2"]
    assert done.stderr.endswith("stopped by Ctrl-C\n")
    assert done.returncode == 130


def test_scripts_import_without_running() -> None:
    """Nothing happens at import: arguments are parsed and work is done only when the file is run."""
    code = "import preproc_npy, train, multi_train, evaluate"
    done = subprocess.run(
        [sys.executable, "-c", code, "--nonsense"], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_killed_training_is_resumed(settings: Settings, write_config: Write) -> None:
    """SIGKILL while the last fold trains: the finished fold is kept, the other is resumed, the result is the same."""
    config = write_config(dataclasses.replace(settings, cosine_epochs=3))
    assert run_script("preproc_npy.py", "--config", config).returncode == 0
    assert run_script("train.py", "--config", config, "run_name=whole").returncode == 0
    whole = (settings.run_folder.with_name("whole") / "predictions.csv").read_bytes()

    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "train.py"), "--config", str(config)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("fold 1 epoch 2/4"):
            process.kill()
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    partial = run_script("evaluate.py", settings.run_folder)  # fold 0 can be looked at already
    assert partial.returncode == 0, partial.stderr
    done = run_script("train.py", "--config", config)
    assert "fold 0: already trained" in done.stdout
    assert "fold 1: resumes from its snapshot, after epoch " in done.stdout
    assert (settings.run_folder / "predictions.csv").read_bytes() == whole


@pytest.mark.slow
def test_three_kills_at_random_moments() -> None:
    """Three of tests/stress/kill_training.py's; its 30 are run by hand."""
    done = subprocess.run(
        [sys.executable, "tests/stress/kill_training.py", "--num-kills", "3", "--num-images", "120"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kills in 1 runs" in done.stdout


@pytest.mark.slow
def test_torchrun(cached: Settings, write_config: Write) -> None:
    """Two ranks for each script; one that is killed stops the run, with torchrun's report of which it was."""
    config = write_config(dataclasses.replace(cached, epochs=200, cosine_epochs=200, early_stop=0))
    torchrun = [str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    for script in ("train.py", "multi_train.py"):
        done = subprocess.run(
            [*torchrun, script, "--config", config, "epochs=1", f"run_name={script}"],
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("fold 1 epoch 1/1") == 1
        predictions = pd.read_csv(cached.run_folder.with_name(script) / "predictions.csv")
        assert len(predictions) == 40
    refused = subprocess.run(
        [*torchrun, "train.py", "--config", config, "batch_size=9"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=environment,
        check=False,
    )
    assert refused.returncode != 0
    assert "error: batch_size=9 is that of all 2 processes together" in refused.stderr

    process = subprocess.Popen(
        [*torchrun, "train.py", "--config", config], stderr=subprocess.PIPE, text=True, cwd=REPOSITORY, env=environment
    )
    wait_until(lambda: num_snapshots(cached.run_folder / "fold0") >= 1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, errors = output_of(process)
    assert process.returncode != 0
    assert "(SIGKILL)" in errors


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED_DATA / "xrays").is_dir(), reason="the real radiographs are not at hand")
def test_real_radiographs(tmp_path: Path) -> None:
    """The projection config on 52 real X-rays, for two epochs of one fold."""
    options = [
        "--config",
        REPOSITORY / "configs" / "projection.py",
        f"dataset_folder={SHARED_DATA / 'xrays'}",
        f"cache_folder={tmp_path}",
        f"saved_models_folder={tmp_path}",
        "cosine_epochs=1",
        "folds=[0]",
    ]
    cached = run_script("preproc_npy.py", *options)
    assert cached.returncode == 0, cached.stderr
    assert "52 images" in cached.stdout
    trained = run_script("train.py", *options)
    assert trained.returncode == 0, trained.stderr
    evaluated = run_script("evaluate.py", tmp_path / "projection")
    assert evaluated.returncode == 0, evaluated.stderr
    metrics = json.loads((tmp_path / "projection" / "metrics.json").read_text())
    assert metrics["num_images_in_label_table"] == 52
    assert metrics["per_label"][0]["label"] == "AP projection"
    predictions = pd.read_csv(tmp_path / "projection" / "predictions.csv")
    index = pd.read_csv(SHARED_DATA / "xrays" / "index.csv").set_index("image_id")
    target = index.loc[predictions["image_id"], "projection"] == "ap"
    assert metrics["macro"]["roc_auc"]["value"] == pytest.approx(roc_auc_score(target, predictions["AP projection"]))


@pytest.mark.slow
def test_a_missing_file_that_is_there_in_another_form_is_hinted_at(
    sample_folder: Path, tmp_path: Path, write_config: Callable[[Settings], Path], settings: Settings
) -> None:
    shutil.copytree(sample_folder, tmp_path / "data")
    file = min((tmp_path / "data" / "train").iterdir())
    file.rename(file.with_suffix(".JPG"))
    config = write_config(dataclasses.replace(settings, dataset_folder=str(tmp_path / "data")))
    result = run_script("preproc_npy.py", "--config", config)
    assert result.returncode == 1
    assert f"{file}: no such file; {file.with_suffix('.JPG')} is there: is it meant?" in result.stderr
