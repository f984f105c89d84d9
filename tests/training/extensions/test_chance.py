"""A training that is no better than chance says so once; one that learns does not."""

import dataclasses
import json
import math
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest
from pytorch_pfn_extras.training.extension import Extension
from scipy.stats import rankdata

from catheters.checkpoints.parts import build_preprocessing
from catheters.config.settings import Settings
from catheters.data.cache.writer import build_cache
from catheters.data.tables.label_table import read_label_table
from catheters.evaluation.metrics import chance_bound, score_labels
from catheters.runs.advice import advice_at_chance
from catheters.runs.build import build_table_source
from catheters.runs.run import train_run
from catheters.runtime.distributed import ALONE
from catheters.training.extensions.chance import ChanceCheck
from catheters.training.extensions.epochs import Stopping
from catheters.training.validation import Validation
from tests.processes import Training, outcome

NUM_IMAGES = 120
Brightness = Callable[..., Settings]


@pytest.fixture
def brightness(tmp_path: Path) -> Brightness:
    """Settings of a run on images that are bright where they have the label "bright", unless labels are shuffled."""

    def make(*, shuffled: bool, **changes: Any) -> Settings:
        rng = np.random.default_rng(3)
        folder = tmp_path / f"shuffled_{shuffled}"
        (folder / "train").mkdir(parents=True, exist_ok=True)
        labels = np.arange(NUM_IMAGES) % 2
        rows = ["StudyInstanceUID,bright,PatientID"]
        shown = rng.permutation(labels) if shuffled else labels
        for number, (label, is_bright) in enumerate(zip(labels, shown, strict=True)):
            noise = rng.integers(0, 100, (32, 32)) + 100 * is_bright
            cv2.imwrite(str(folder / "train" / f"{number}.png"), noise.astype(np.uint8))
            rows.append(f"{number},{label},p{number}")
        (folder / "train.csv").write_text("\n".join(rows) + "\n")
        settings = Settings(
            dataset_folder=str(folder),
            path_pattern="train/{uid}.png",
            label_columns=("bright",),
            cache_folder=str(folder / "cache"),
            image_size=32,
            num_folds=2,
            folds=(1,),
            batch_size=10,
            num_workers=0,
            backbone_model="test_resnet",
            pretrained=False,
            channels_last=False,
            init_lr=1e-3,
            warmup_epochs=0,
            cosine_epochs=6,
            early_stop=0,
            device="cpu",
            saved_models_folder=str(folder / "saved_models"),
            run_name="run",
        )
        settings = dataclasses.replace(settings, **changes)
        build_cache(read_label_table(build_table_source(settings)), settings.cache_file, build_preprocessing(settings))
        return settings

    return make


def warnings_in(text: str) -> list[str]:
    return [line for line in text.splitlines() if "is no better than chance" in line]


def scores_of(settings: Settings) -> list[float]:
    lines = (settings.run_folder / "fold1" / "log.jsonl").read_text().splitlines()
    return [entry["val/macro_auc"] for entry in map(json.loads, lines) if entry["kind"] == "epoch"]


@pytest.mark.slow
def test_shuffled_labels_are_warned_of_once(brightness: Brightness, capsys: pytest.CaptureFixture[str]) -> None:
    """After epoch 5, with the score of that epoch and the bound by hand."""
    settings = brightness(shuffled=True)
    train_run(settings, fresh=False)
    (warning,) = warnings_in(capsys.readouterr().err)
    score = scores_of(settings)[4]
    bound = 0.5 + 1.645 * (61 / (12 * 30 * 30)) ** 0.5  # 30 of the fold's 60 images have the label
    assert 0.6 < bound < 0.63
    assert score < bound
    assert warning.startswith(
        f"warning: fold 1: macro AUC {score:.4f} after 5 epochs is no better than chance, which alone gives "
        f"more than {bound:.4f} about once in twenty times on 60 validation images, which are few, if they were "
        "independent; try, the likeliest first: init_lr three times lower"
    )
    assert warning.endswith("; docs/how-to/better-models.md says more")


@pytest.mark.slow
def test_a_longer_run_does_not_say_it_again(brightness: Brightness, capsys: pytest.CaptureFixture[str]) -> None:
    settings = brightness(shuffled=True, schedule="constant", epochs=3)
    for epochs, num_warnings in ((3, 1), (6, 0)):
        train_run(dataclasses.replace(settings, epochs=epochs), fresh=False)
        assert len(warnings_in(capsys.readouterr().err)) == num_warnings
    assert len(scores_of(settings)) == 6


@pytest.mark.slow
def test_a_run_that_learns_is_not_warned_of(brightness: Brightness, capsys: pytest.CaptureFixture[str]) -> None:
    settings = brightness(shuffled=False)
    train_run(settings, fresh=False)
    assert scores_of(settings)[4] > 0.9
    assert warnings_in(capsys.readouterr().err) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "epoch"),
    [
        ({"warmup_epochs": 3, "cosine_epochs": 4}, 6),  # three epochs after the warm-up
        # stopped early: no epoch is better than the first
        ({"cosine_epochs": 9, "early_stop": 2, "init_lr": 1e-9, "min_lr": 0.0}, 3),
        ({"cosine_epochs": 2}, None),
    ],
    ids=["warm-up", "early stopping", "too short"],
)
def test_when_it_looks(
    brightness: Brightness, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], epoch: int | None
) -> None:
    train_run(brightness(shuffled=True, **changes), fresh=False)
    found = [re.findall(r"after (\d+) epochs", text) for text in warnings_in(capsys.readouterr().err)]
    assert found == ([] if epoch is None else [[str(epoch)]])


class Kill(Extension):
    name = "kill"
    trigger = (1, "iteration")

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def __call__(self, manager: Any) -> None:
        if manager.iteration == self.iteration:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_run_says_it_once(brightness: Brightness, tmp_path: Path) -> None:
    """Killed before and after the epoch that it looks at; the result is that of an uninterrupted run."""
    settings = brightness(shuffled=True)
    whole = dataclasses.replace(settings, run_name="whole")
    trainings = [Training(whole, tmp_path / "whole")]
    assert trainings[0].wait() == 0
    said = []
    for number, iteration in enumerate((4 * 6 + 2, 5 * 6 + 2, None)):  # 6 batches are an epoch
        extensions = [] if iteration is None else [Kill(iteration)]
        training = Training(settings, tmp_path / f"part{number}", extensions=extensions)
        assert training.wait() == (0 if iteration is None else -signal.SIGKILL), training.text
        said.append(warnings_in(training.text))
    assert said == [[], warnings_in(trainings[0].text), []]
    assert len(said[1]) == 1
    assert outcome(settings.run_folder) == outcome(whole.run_folder)


@pytest.mark.parametrize(("macro_auc", "num_warnings"), [(math.nan, 0), (0.5, 1)])
def test_an_undefined_score_is_not_called_chance(
    macro_auc: float, num_warnings: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    validation = Validation(cast(Any, None), cast(Any, None), ("bright",), tmp_path)
    validation.scores = {"val/macro_auc": macro_auc}
    validation.metrics = score_labels(np.array([[0.0], [1.0]]), np.array([[0.5], [0.5]]), ("bright",))
    check = ChanceCheck(validation, Stopping((), 9, "fold 1", ALONE), 9, 0, "fold 1", ("luck",), ALONE)
    check(SimpleNamespace(epoch=5))
    assert len(warnings_in(capsys.readouterr().err)) == num_warnings


def test_advice_follows_from_the_settings(settings: Settings, tmp_path: Path) -> None:
    """What is so already is not advised; lines only where some are drawn."""
    (tmp_path / "lines.csv").touch()
    drawn = dataclasses.replace(settings, dataset_folder=str(tmp_path), annotation_table="lines.csv")
    advice = advice_at_chance(drawn)
    assert [text.split()[0] for text in advice] == [
        "init_lr",
        "pretrained=True",
        "image_size=512",
        "`python",
        "lines='pooled',",
    ]
    assert "(the peak is 0.002)" in advice[0]
    better = dataclasses.replace(drawn, pretrained=True, image_size=512, lines="pooled")
    assert [text.split()[0] for text in advice_at_chance(better)] == ["init_lr", "`python"]
    absent = dataclasses.replace(drawn, annotation_table="absent.csv")
    assert len(advice_at_chance(absent)) == 4


def test_the_bound_is_seldom_exceeded(rng: np.random.Generator) -> None:
    """Of models without skill, whether their labels are independent or one and the same five times."""
    num_trials, num_images = 4000, 60
    independent = rng.random((num_images, 5)) < (0.1, 0.2, 0.3, 0.4, 0.5)
    same = np.repeat(independent[:, 1:2], 5, axis=1)
    shares = []
    for targets in (independent, same):
        scores = rng.random((num_trials, num_images, 5))
        if targets is same:
            scores = np.repeat(scores[:, :, :1], 5, axis=2)
        m, n = targets.sum(axis=0), (~targets).sum(axis=0)
        of_positives = (rankdata(scores, axis=1) * targets).sum(axis=1)  # (trials, 5) sums of ranks
        macro_aucs = ((of_positives - m * (m + 1) / 2) / (m * n)).mean(axis=1)
        bound = chance_bound(score_labels(targets.astype(np.uint8), scores[0], tuple("abcde")))
        shares.append(np.mean(macro_aucs > bound))
    tolerance = 4 * (0.05 * 0.95 / num_trials) ** 0.5
    assert shares[0] < 0.05
    assert shares[1] == pytest.approx(0.05, abs=tolerance)  # then it is no larger than it has to be
