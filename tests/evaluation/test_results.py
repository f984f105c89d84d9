"""Everything together, and the files that hold it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from catheters.evaluation.evaluation import Choices, Evaluation, evaluate
from catheters.evaluation.intervals import COVERAGE_EXCEPTIONS, Estimate
from catheters.evaluation.operating_points import parse_rule
from catheters.evaluation.report import tables
from catheters.evaluation.results import some_lack_intervals, write_metrics, write_table
from tests.evaluation.conftest import make_predictions


@pytest.fixture
def evaluation(rng: np.random.Generator) -> Evaluation:
    """Three labels, the last one never there; two devices; two hospitals."""
    targets = (rng.random((300, 3)) < [0.3, 0.4, 0.0]).astype(np.uint8)
    evaluated = make_predictions(
        targets,
        1 / (1 + np.exp(-(2.0 * targets - 1 + rng.normal(size=(300, 3))))),
        patients=np.repeat(range(100), 3).tolist(),
        folds=np.repeat(np.arange(100) % 3, 3).tolist(),
        labels=["a", "b", "c"],
    )
    columns = {"hospital": rng.choice(["north", "south"], 300).astype(np.str_)}
    choices = Choices(rule=parse_rule("sensitivity=0.8"), prevalences={"a": 0.1})
    return evaluate(evaluated, {"tube": ("a", "b"), "line": ("c",)}, columns, choices)


def test_metrics_json(evaluation: Evaluation, tmp_path: Path) -> None:
    predictions = tmp_path / "p.csv"
    write_metrics(tmp_path / "metrics.json", evaluation, predictions, "ba78", "cafe", "labels.csv", num_labelled=310)
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["predictions_sha256"] == "ba78"
    assert content["calibration"]["sha256"] == "cafe"
    assert (content["num_images"], content["num_patients"], content["num_images_in_label_table"]) == (300, 100, 310)
    a, b, c = content["per_label"]
    assert content["macro"]["roc_auc"]["value"] == pytest.approx((a["roc_auc"]["value"] + b["roc_auc"]["value"]) / 2)
    for part in (content, content["folds"][0], content["subgroups"][0]):
        precision = part["macro"]["average_precision"]
        assert 0 < precision["value"] < 1 and precision["low"] < precision["value"] < precision["high"]
    assert list(COVERAGE_EXCEPTIONS) == content["intervals"]["exceptions"]
    assert c["roc_auc"] == {"value": None, "low": None, "high": None, "few_patients": False}
    assert c["operating_point"]["threshold"] is None
    assert a["operating_point"]["prevalence"] == 0.1
    assert sum(a["operating_point"]["confusion"].values()) == 300
    assert set(a["operating_point"]["fold_thresholds"]) == {"0", "1", "2"}
    assert [device["label"] for device in content["per_device"]] == ["tube"]
    assert [fold["num_images"] for fold in content["folds"]] == [102, 99, 99]
    assert {(group["column"], group["value"]) for group in content["subgroups"]} >= {("hospital", "north")}
    assert content["calibration"]["chosen"] in {row["method"] for row in content["calibration"]["methods"]}
    calibration = content["calibration"]
    assert [step["method"] for step in calibration["steps"]] == ["temperature", "platt", "isotonic"]
    better = [step["method"] for step in calibration["steps"] if step["is_better"]]
    assert calibration["chosen"] == (["none", *better])[-1]
    assert calibration["reason"] == evaluation.calibration.reason
    recalibration = evaluation.recalibrations[0]
    assert calibration["per_label"][0]["slope"]["high"] == recalibration.slope.high
    assert calibration["per_label"][2]["observed_to_expected"]["value"] is None
    assert [of["label"] for of in calibration["per_label_of_calibrated"]] == ["a", "b", "c"]
    by_type = {(group["column"], group["is_case_mix"]) for group in content["subgroups"]}
    assert by_type == {("hospital", False), ("device types in the image", True)}
    north = next(group for group in content["subgroups"] if group["value"] == "north")
    gap = north["macro"]["roc_auc"]["value"] - north["macro_of_rest"]["roc_auc"]["value"]
    assert north["difference"]["roc_auc"]["value"] == pytest.approx(gap)
    gap_of_precision = north["difference"]["average_precision"]
    assert gap_of_precision["low"] < gap_of_precision["value"] < gap_of_precision["high"]
    assert content["read_again"]["num_cases"] == sum(content["read_again"]["per_label"].values())
    assert content["read_again"]["models"] is None
    assert content["intervals"]["level"] == 0.95 and content["intervals"]["few_patients"]


def test_metrics_csv_has_the_same_numbers(evaluation: Evaluation, tmp_path: Path) -> None:
    write_table(tmp_path / "metrics.csv", evaluation)
    frame = pd.read_csv(tmp_path / "metrics.csv").set_index(["of", "name", "metric"]).sort_index()
    for label in ("a", "b"):
        row = frame.loc[("label", label, "roc_auc")]
        estimate = evaluation.scores.estimate("roc_auc", label)
        assert (row["value"], row["low"], row["high"]) == pytest.approx((estimate.value, estimate.low, estimate.high))
    assert ("device", "tube", "ppv") in frame.index
    assert ("macro", "all images", "brier") in frame.index
    assert ("macro of a group", "hospital: south", "roc_auc") in frame.index
    assert ("macro of a group minus of the rest", "hospital: south", "brier") in frame.index
    assert ("calibration", "a", "slope") in frame.index
    assert ("calibration of calibrated", "b", "observed_to_expected") in frame.index


def test_what_has_no_interval_by_rule_is_not_said_to_lack_one(rng: np.random.Generator) -> None:
    targets = (rng.random((60, 2)) < 0.5).astype(np.uint8)
    evaluated = make_predictions(targets, 0.25 + 0.25 * targets + 0.5 * rng.random((60, 2)))
    assert not some_lack_intervals(evaluate(evaluated, {}, {}, Choices()))


def test_one_patient_has_no_calibration(rng: np.random.Generator) -> None:
    """Nobody else could judge it, whichever is asked for."""
    targets = (rng.random((40, 2)) < 0.5).astype(np.uint8)
    evaluated = make_predictions(targets, rng.random((40, 2)), patients=[7] * 40)
    for calibration in ("best", "platt"):
        evaluation = evaluate(evaluated, {}, {}, Choices(calibration=calibration))
        assert [calibrated.method for calibrated in evaluation.calibrations] == ["none"]
        assert evaluation.calibrator.method == "none" and not evaluation.calibration_is_judged


def test_tables_show_what_is_undefined(evaluation: Evaluation) -> None:
    lines = tables.scores_table(evaluation.scores, with_mean=True).splitlines()
    assert lines[3].split()[:4] == ["c", "0", "300", "undefined"]
    assert lines[4].startswith("macro mean")
    assert tables.with_interval(Estimate(value=0.5, low=0.25, high=0.75)) == "0.500 (0.250 to 0.750)"
    assert tables.with_interval(Estimate(value=0.5, low=float("nan"), high=float("nan"))) == "0.500"
    spread = np.std([fold.scores.macro("brier").value for fold in evaluation.folds], ddof=1)
    assert tables.folds_table(evaluation).splitlines()[-1].split()[-1] == f"{spread:.3f}"
    assert "(chosen)" in tables.calibration_table(evaluation)
    assert tables.subgroups_table(evaluation.subgroups).count("hospital: ") == 2
