"""`catheters.evaluate`: the numbers and the page of the command, as objects."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import catheters
from catheters.errors import UserError
from catheters.evaluation.evaluation import Choices


@pytest.mark.slow
def test_the_same_as_the_command(evaluated_run: Path, tmp_path: Path) -> None:
    """Against metrics.json, and the page word for word but for the command that made it."""
    result = catheters.evaluate(evaluated_run, choices=Choices(calibration="temperature"))
    metrics = json.loads((evaluated_run / "metrics.json").read_text())
    assert result.macro_auc == metrics["macro"]["roc_auc"]["value"]
    points = {point["label"]: point["operating_point"]["threshold"] for point in metrics["per_label"]}
    assert {
        point.label: None if np.isnan(point.threshold) else point.threshold for point in result.evaluation.points
    } == points
    assert result.evaluation.calibrator.method == metrics["calibration"]["chosen"]
    assert repr(result).endswith(f"images of {metrics['num_patients']} patients, macro AUC {result.macro_auc:.4f}")
    before = {file: file.read_bytes() for file in evaluated_run.iterdir() if file.is_file()}
    result.report(tmp_path / "page.html")
    with pytest.raises(UserError, match=r"gone/page\.html: no such folder"):
        result.report(tmp_path / "gone" / "page.html")
    written, page = (evaluated_run / "report.html").read_text(), (tmp_path / "page.html").read_text()
    differing = [pair for pair in zip(written.splitlines(), page.splitlines(), strict=True) if pair[0] != pair[1]]
    assert all("evaluate.py" in one and "catheters.evaluate" in other for one, other in differing)
    assert len(differing) <= 2
    assert {file: file.read_bytes() for file in evaluated_run.iterdir() if file.is_file()} == before


def test_predictions_from_elsewhere(tmp_path: Path, rng: np.random.Generator) -> None:
    """Logits of any program, with intervals over its patients; the AUC by scikit-learn."""
    targets = rng.integers(0, 2, 80)
    logits = targets + rng.normal(size=80)
    ids = [f"{number:03}" for number in range(80)]
    pd.DataFrame({"id": ids, "ETT - Normal": logits}).to_csv(tmp_path / "p.csv", index=False)
    patients = [f"p{number // 2}" for number in range(80)]
    table = pd.DataFrame({"id": ids, "who": patients, "ETT - Normal": targets, "view": ["AP", "PA"] * 40})
    table.to_csv(tmp_path / "l.csv", index=False)
    choices = Choices(band_edges={"view": None})
    result = catheters.evaluate(
        tmp_path / "p.csv", tmp_path / "l.csv", choices=choices, patient_column="who", logits=True
    )
    assert result.macro_auc == pytest.approx(roc_auc_score(targets, logits))
    interval = result.evaluation.scores.macro("roc_auc")
    assert interval.low < interval.value < interval.high
    assert result.evaluation.scores.num_patients == 40
    groups = [(group.column, group.value) for group in result.evaluation.subgroups]
    assert groups[:2] == [("view", "AP"), ("view", "PA")]


def test_wrong_inputs(evaluated_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"predictions\.csv: is no run folder, so the true labels have to be given"):
        catheters.evaluate(evaluated_run / "predictions.csv")
    with pytest.raises(UserError, match="nothing: no such file or folder"):
        catheters.evaluate(tmp_path / "nothing")
    with pytest.raises(UserError, match="no run folder"):
        catheters.evaluate(tmp_path)
    with pytest.raises(UserError, match=r"l\.csv"):
        catheters.evaluate(evaluated_run, tmp_path / "l.csv")


@pytest.mark.slow
def test_it_writes_what_the_command_writes(evaluated_run: Path, tmp_path: Path) -> None:
    """But for the command in the page, and where the files are."""
    folder = catheters.evaluate(evaluated_run, choices=Choices(calibration="temperature")).write(
        tmp_path / "new" / "deep"
    )
    written = {file.name for file in folder.iterdir()}
    assert written == {
        *("metrics.json", "metrics.csv", "calibration.json", "hardest_cases.csv", "read_again.csv"),
        *("report.html", "MODEL_CARD.md"),
    }
    for name in written - {"report.html", "MODEL_CARD.md"}:
        assert (folder / name).read_bytes() == (evaluated_run / name).read_bytes(), name
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/x: results cannot be written there"):
        catheters.evaluate(evaluated_run, choices=Choices(calibration="temperature")).write(tmp_path / "file" / "x")
