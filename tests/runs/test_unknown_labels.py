"""Label tables with gaps, through preparing, training and evaluating."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from catheters.commands.evaluation_options import main as evaluate
from catheters.config.settings import Settings
from catheters.errors import UserError
from catheters.runs.datasets import load_data
from catheters.runs.run import train_run
from tests.conftest import assert_user_error, run_script

pytestmark = pytest.mark.slow  # each test trains
CVC = "CVC - Normal"


def with_gaps(settings: Settings, hide: Callable[[pd.DataFrame], None], values: dict[str, str]) -> Settings:
    """The same with a table of its own, some of whose cells `hide` has changed."""
    frame = pd.read_csv(Path(settings.dataset_folder) / "train.csv", dtype=str)
    hide(frame)
    table = settings.run_folder.parent.parent / "gaps.csv"
    frame.to_csv(table, index=False)
    changes = {"label_table": str(table.resolve()), "label_values": values, "run_name": "gaps", "epochs": 1}
    return dataclasses.replace(settings, **changes)


def test_a_label_with_gaps(cached: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Everywhere as many are known as the table says; another table tells the rest."""

    def hide(frame: pd.DataFrame) -> None:
        frame.loc[::3, CVC] = ""
        frame.loc[1::6, "NGT - Normal"] = "-1.0"

    settings = with_gaps(cached, hide, {"": "unknown", "-1": "unknown"})
    train_run(settings, fresh=False)
    frame = pd.read_csv(settings.label_table, dtype=str, na_filter=False).set_index("StudyInstanceUID")
    known, positive = frame[CVC] != "", frame[CVC] == "1"
    predictions = pd.read_csv(settings.run_folder / "predictions.csv").set_index("StudyInstanceUID")
    folds = predictions["fold"].reindex(frame.index)
    counts = [f"{(positive & (folds == fold)).sum()}/{(known & (folds == fold)).sum()}" for fold in (0, 1)]
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith(CVC) and "/" in line)
    assert line.split()[-2:] == counts

    assert evaluate([str(settings.run_folder)]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{CVC}  "))
    metrics = json.loads((settings.run_folder / "metrics.json").read_text())
    (of_label,) = (entry for entry in metrics["per_label"] if entry["label"] == CVC)
    assert (of_label["num_known"], of_label["num_positives"]) == (known.sum(), positive.sum())
    assert row.split()[3:5] == [str(positive.sum()), str(known.sum())]
    scores = predictions[CVC].reindex(frame.index)
    assert of_label["roc_auc"]["value"] == pytest.approx(roc_auc_score(positive[known], scores[known]))
    assert sum(of_label["operating_point"]["confusion"].values()) == known.sum()


def test_a_label_that_only_one_fold_knows(cached: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Is trained on where it can be, and said to be out of every other score."""
    train_run(dataclasses.replace(cached, epochs=1), fresh=False)
    folds = pd.read_csv(cached.run_folder / "predictions.csv").set_index("StudyInstanceUID")["fold"]
    capsys.readouterr()

    def hide(frame: pd.DataFrame) -> None:
        frame["fold"] = folds.reindex(frame["StudyInstanceUID"]).to_numpy()
        frame.loc[frame["fold"] == 1, CVC] = ""

    settings = dataclasses.replace(with_gaps(cached, hide, {"": "unknown"}), fold_column="fold")
    train_run(settings, fresh=False)
    warnings = capsys.readouterr().err
    assert f"fold 0: '{CVC}' has no positive in the training images: it cannot be learnt" in warnings
    assert f"fold 1: '{CVC}' has 0 positives in 0 validation images of which it is known" in warnings


def test_a_label_that_nobody_knows(cached: Settings) -> None:
    def hide(frame: pd.DataFrame) -> None:
        frame[CVC] = ""

    with pytest.raises(UserError, match=f"'{CVC}' is unknown of every image, so it cannot be learnt"):
        train_run(with_gaps(cached, hide, {"": "unknown"}), fresh=False)


def test_a_table_without_gaps_goes_on_with_the_same_bits(cached: Settings) -> None:
    """Whatever label_values would say of cells that there are not."""
    train_run(dataclasses.replace(cached, epochs=1), fresh=False)
    settings = with_gaps(cached, lambda frame: None, {"": "unknown"})
    train_run(settings, fresh=False)
    first, second = (folder / "predictions.csv" for folder in (cached.run_folder, settings.run_folder))
    assert first.read_bytes() == second.read_bytes()


def test_label_values_of_a_foreign_table(evaluated_run: Path, sample_folder: Path, tmp_path: Path) -> None:
    """Predictions of anybody, held against a table with gaps; without a word about these, a proposal."""
    frame = pd.read_csv(sample_folder / "train.csv", dtype=str)
    frame.loc[::4, CVC] = "?"
    frame.to_csv(tmp_path / "theirs.csv", index=False)
    predictions = pd.read_csv(evaluated_run / "predictions.csv", dtype=str)
    predictions.to_csv(tmp_path / "p.csv", index=False)
    options = ("--predictions", tmp_path / "p.csv", "--labels", tmp_path / "theirs.csv")
    assert_user_error(run_script("evaluate.py", *options), "line 2, column 'CVC - Normal': '?' is not 0 or 1")
    result = run_script("evaluate.py", *options, "--label-values", '{"?": "unknown"}')
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "p_evaluation/metrics.json").read_text())
    known = [entry["num_known"] for entry in metrics["per_label"] if entry["label"] == CVC]
    assert known == [len(frame) - len(frame.loc[::4])]
    wrong = run_script("evaluate.py", *options, "--label-values", '{"?": "nobody knows"}')
    assert_user_error(wrong, "label_values")


@pytest.mark.parametrize("fit", ["bce", "focal"])
def test_mixup_and_accumulation_with_gaps(cached: Settings, fit: str) -> None:
    """Scores stay finite, and an exclusive group takes part."""

    def hide(frame: pd.DataFrame) -> None:
        labels = frame.columns[1:-1]
        gaps = np.random.default_rng(0).random((len(frame), len(labels))) < 0.3
        frame[labels] = frame[labels].mask(gaps, "")

    settings = dataclasses.replace(
        with_gaps(cached, hide, {"": "unknown"}),
        mixup_alpha=0.4,
        accumulation_steps=2,
        loss_func=fit,
        exclusive={"ETT": ("ETT - Abnormal", "ETT - Borderline", "ETT - Normal")},
    )
    train_run(settings, fresh=False)
    log = [json.loads(line) for line in (settings.run_folder / "fold0/log.jsonl").read_text().splitlines()]
    assert np.isfinite([log[-1][name] for name in ("train/loss", "val/loss", "val/macro_auc")]).all()


def test_soft_labels(cached: Settings) -> None:
    """Are learnt as they are, which another loss shows, and scored by their threshold alone."""

    def soften(frame: pd.DataFrame) -> None:
        frame[CVC] = frame[CVC].map({"0": "0.2", "1": "0.9"})

    plain = dataclasses.replace(cached, epochs=1, run_name="plain")
    train_run(plain, fresh=False)
    settings = dataclasses.replace(with_gaps(cached, soften, {}), soft_labels=True, soft_label_threshold=0.5)
    train_run(settings, fresh=False)
    for name in ("fold0/predictions.csv", "predictions.csv"):
        hard, soft = (pd.read_csv(run.run_folder / name, index_col=0) for run in (plain, settings))
        assert (hard[CVC] != soft[CVC]).all()
        pd.testing.assert_series_equal(hard["fold"], soft["fold"])  # the folds are those of hard labels
    aucs = []
    for run in (plain, settings):
        assert evaluate([str(run.run_folder)]) == 0
        (entry,) = (
            of for of in json.loads((run.run_folder / "metrics.json").read_text())["per_label"] if of["label"] == CVC
        )
        aucs.append((entry["num_known"], entry["num_positives"]))
    assert aucs[0] == aucs[1]
    unscored = dataclasses.replace(settings, soft_label_threshold=None, run_name="unscored")
    train_run(unscored, fresh=False)
    log = [json.loads(line) for line in (unscored.run_folder / "fold0/log.jsonl").read_text().splitlines()]
    assert log[-1][f"val/auc/{CVC}"] is None


def test_an_exclusive_table_reads_the_same_from_elsewhere(cached: Settings) -> None:
    """Where one label of a group holds, the others are known, in the run's own table and in --labels."""
    group = ("ETT - Abnormal", "ETT - Borderline", "ETT - Normal")

    def hide(frame: pd.DataFrame) -> None:
        frame.loc[frame[group[2]] == "1", list(group[:2])] = ""

    settings = dataclasses.replace(with_gaps(cached, hide, {"": "unknown"}), exclusive={"ETT": group})
    train_run(settings, fresh=False)
    known = []
    for options in ([], ["--labels", str(settings.label_table)]):
        assert evaluate([str(settings.run_folder), *options]) == 0
        metrics = json.loads((settings.run_folder / "metrics.json").read_text())
        known.append([(of["num_known"], of["roc_auc"]["value"]) for of in metrics["per_label"]])
    assert known[0] == known[1]
    assert known[0][0][0] == len(pd.read_csv(settings.label_table))


def test_the_fingerprint_of_hard_labels_is_that_of_before(cached: Settings) -> None:
    """Of bytes 0 and 1, so that runs of earlier versions go on; of labels with gaps it is another."""
    data = load_data(cached)
    digest = hashlib.sha256(data.pixels_hash.encode())
    digest.update("\n".join(data.uids.tolist()).encode())
    digest.update(data.labels.astype(np.uint8).tobytes())
    digest.update(data.folds.tobytes())
    assert data.fingerprint == digest.hexdigest()

    def hide(frame: pd.DataFrame) -> None:
        frame.loc[0, CVC] = ""

    gaps = with_gaps(cached, hide, {"": "unknown"})
    assert load_data(gaps).fingerprint != data.fingerprint


def test_patients_of_a_foreign_table_with_gaps(evaluated_run: Path, sample_folder: Path, tmp_path: Path) -> None:
    """Are found as ever: --label-values says nothing about columns of patients."""
    frame = pd.read_csv(sample_folder / "train.csv", dtype=str).assign(patient="everybody")
    frame.to_csv(tmp_path / "theirs.csv", index=False)
    pd.read_csv(evaluated_run / "predictions.csv", dtype=str).to_csv(tmp_path / "p.csv", index=False)
    for options in ([], ["--label-values", '{"?": "unknown"}']):
        files = ["--predictions", str(tmp_path / "p.csv"), "--labels", str(tmp_path / "theirs.csv")]
        assert evaluate([*files, *options]) == 0
        assert json.loads((tmp_path / "p_evaluation/metrics.json").read_text())["num_patients"] == 1
