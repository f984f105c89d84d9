"""Labels that exclude each other: a softmax with "none of them" as the further class, from the table to the page."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.nn import functional

import catheters
from catheters.checkpoints.parts import build_classifier
from catheters.commands.evaluation_options import main as evaluate
from catheters.config.settings import Settings
from catheters.data.batch import Batch
from catheters.data.tables.label_table import read_label_table
from catheters.errors import SettingsError, UserError
from catheters.evaluation.calibration import fit_calibrator, read_calibrator, write_calibrator
from catheters.evaluation.prediction_set import device_type_presence, presence_rule, probability_of_any
from catheters.io.csv_files import TableError
from catheters.labels import RANZCR_HEADS
from catheters.models.outputs import Outputs
from catheters.runs.build import build_losses, build_table_source
from catheters.runs.run import train_run
from catheters.training.losses import total
from tests.evaluation.conftest import make_predictions

LABELS = ("a", "b", "c", "d")
GROUP = {"tube": ("d", "b")}
LOGITS = torch.tensor([[0.3, -1.2, 0.5, 2.0], [2.0, 0.7, -1.0, 0.1], [-3.5, 3.0, 0.0, -2.0]])
TARGETS = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0]])
CLASSES = torch.tensor([1, 2, 0])  # none of them, d, b


def terms(targets: torch.Tensor = TARGETS, **changes: Any) -> dict[str, float]:
    settings = Settings(label_columns=LABELS, **{"exclusive": GROUP, **changes})
    batch = Batch(images=torch.empty(0), targets=targets)
    return {name: float(value) for name, value in build_losses(settings)(Outputs(logits=LOGITS), batch).items()}


def with_none(logits: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.zeros(len(logits), 1), logits[:, [3, 1]]], 1).double()


def test_terms_against_torchs_own() -> None:
    """Cross-entropy over three classes, binary cross-entropy of the other labels, each over the number of labels."""
    found = terms()
    group = functional.cross_entropy(with_none(LOGITS), CLASSES)
    rest = functional.binary_cross_entropy_with_logits(LOGITS[:, [0, 2]].double(), TARGETS[:, [0, 2]].double())
    assert list(found) == ["labels", "tube"]
    assert found["tube"] == pytest.approx(float(group) / 4, rel=1e-6)
    assert found["labels"] == pytest.approx(float(rest) * 2 / 4, rel=1e-6)


def test_pos_weight_smoothing_and_weights_of_terms() -> None:
    """torch averages by weight and smooths unweighted classes alike, so it is summed by hand."""
    found = terms(
        pos_weight={"b": 3.0, "a": 2.0}, label_smoothing={"d": 0.3, "b": 0.3}, loss_weights={"tube": 0.5, "labels": 2.0}
    )
    logs = torch.log_softmax(with_none(LOGITS), 1)
    truth = functional.one_hot(CLASSES, 3) * 0.7 + 0.1
    by_hand = -(torch.tensor([1.0, 1.0, 3.0]) * truth * logs).sum(1).mean()
    assert found["tube"] == pytest.approx(0.5 * float(by_hand) / 4, rel=1e-6)
    rest = functional.binary_cross_entropy_with_logits(
        LOGITS[:, [0, 2]], TARGETS[:, [0, 2]], pos_weight=torch.tensor([2.0, 1.0])
    )
    assert found["labels"] == pytest.approx(2.0 * float(rest) * 2 / 4, rel=1e-6)


def test_focal_of_a_group() -> None:
    """-(1 - p)^gamma log(p) of the true class."""
    p = torch.softmax(with_none(LOGITS), 1)[torch.arange(3), CLASSES]
    for params, gamma in (({}, 2.0), ({"gamma": 1.5}, 1.5)):
        found = terms(loss_func="focal", loss_params=params)
        assert found["tube"] == pytest.approx(float((-((1 - p) ** gamma) * p.log()).mean()) / 4, rel=1e-5)


def test_a_group_of_one_is_the_label_by_itself() -> None:
    """Its loss; of its probability see `test_probabilities_by_hand`, whose softmax over two classes is a sigmoid."""
    alone = {"exclusive": {"one": ("c",)}, "label_smoothing": {"c": 0.2}, "pos_weight": {"c": 2.5}}
    by_itself = terms(**{**alone, "exclusive": {}})
    assert sum(terms(**alone).values()) == pytest.approx(by_itself["labels"], rel=1e-6)


def test_no_label_but_those_of_groups() -> None:
    found = terms(TARGETS * torch.tensor([1.0, 1, 1, 0]), exclusive={"x": ("a", "b"), "y": ("c", "d")})
    assert list(found) == ["x", "y"]


def test_probabilities_by_hand(settings: Settings) -> None:
    """Of the network's own logits; those of all other labels stay as they are without a group."""
    exclusive = {"ETT": RANZCR_HEADS["ETT"], "CVC": RANZCR_HEADS["CVC"][::-1]}
    model = build_classifier(dataclasses.replace(settings, exclusive=exclusive), 0.5, 0.25)
    logits = torch.randn(5, 11, generator=torch.Generator().manual_seed(0))
    found = model.probabilities(Outputs(logits=logits))
    expected = torch.sigmoid(logits)
    for columns in ([0, 1, 2], [7, 8, 9]):
        exponentials = logits[:, columns].double().exp()
        expected[:, columns] = (exponentials / (1 + exponentials.sum(1, keepdim=True))).float()
    assert torch.allclose(found, expected, atol=1e-7)
    assert (found[:, :3].sum(1) < 1).all()


def test_presence_adds_up() -> None:
    """1 - p(none of them), without independence; the rule is another one for files."""
    labels = ["CVC - Abnormal", "CVC - Borderline", "CVC - Normal"]
    probabilities = np.array([[0.5, 0.3, 0.1]])
    assert probability_of_any(labels, probabilities) == pytest.approx(1 - 0.5 * 0.7 * 0.9)
    assert probability_of_any(labels, probabilities, [labels]) == pytest.approx(0.9)
    evaluated = make_predictions([[0, 1, 0]], probabilities, labels=labels)
    evaluated = dataclasses.replace(evaluated, exclusive=(tuple(labels),))
    assert device_type_presence(evaluated, {"CVC": tuple(labels)}).probabilities == pytest.approx(np.array([[0.9]]))
    assert presence_rule([labels]) != presence_rule([])
    assert presence_rule([RANZCR_HEADS["ETT"]]) == presence_rule([])


def test_one_temperature_for_a_group(tmp_path: Path) -> None:
    """The likeliest by another search, in float64, over three classes; its file gives it back."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(400, 3))
    logits[:, 0] = 0
    cumulated = np.cumsum(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), axis=1)
    classes = (rng.random((400, 1)) > cumulated).sum(axis=1)
    shown = np.exp(3 * logits) / np.exp(3 * logits).sum(1, keepdims=True)  # far too sure of itself
    targets = np.stack([classes == 1, classes == 2, rng.random(400) < 0.5], axis=1)
    probabilities = np.column_stack([shown[:, 1:], rng.random(400)])
    evaluated = dataclasses.replace(
        make_predictions(targets, probabilities, labels=["x", "y", "z"]), exclusive=(("x", "y"),)
    )
    calibrator = fit_calibrator("platt", evaluated)
    assert set(calibrator.maps) == {"z"}
    (group,) = calibrator.groups

    def loss(slope: float) -> float:
        powers = shown**slope
        return float(-np.log((powers / powers.sum(1, keepdims=True))[np.arange(400), classes]).mean())

    best = minimize_scalar(loss, bounds=(0.01, 10), method="bounded").x
    assert group.slope == pytest.approx(best, rel=1e-3)
    assert group.slope == pytest.approx(1 / 3, rel=0.2)
    calibrated = calibrator(("x", "y", "z"), probabilities)
    assert (calibrated[:, :2].sum(axis=1) < 1).all()
    write_calibrator(tmp_path / "c.json", calibrator, "abc")
    assert read_calibrator(tmp_path / "c.json") == (calibrator, "abc")
    content = json.loads((tmp_path / "c.json").read_text())
    for damage in ({"labels": "xy"}, {"labels": ["x", "x"]}, {"slope": -1.0}, {"slope": 0}):
        (tmp_path / "damaged.json").write_text(json.dumps({**content, "groups": [{**content["groups"][0], **damage}]}))
        with pytest.raises(UserError, match="damaged"):
            read_calibrator(tmp_path / "damaged.json")
    thresholds = calibrator.of_thresholds(("x", "y", "z"), np.array([0.5, 0.2, 0.5]))
    assert thresholds[0] == pytest.approx(0.5)
    assert thresholds[1] == pytest.approx(1 / (1 + math.exp(-group.slope * math.log(0.2 / 0.8))))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exclusive": {"x": ("a", "b"), "y": ("b", "c")}}, "'b' stands in 'x' and in 'y'; a label has one group"),
        ({"exclusive": {"x": ("a", "a")}}, "'a' stands twice"),
        ({"exclusive": {"x": ("a", "e")}}, r"exclusive\['x'\]: 'e' is not"),
        ({"exclusive": {"x": ()}}, "at least 1 item"),
        ({"exclusive": {"labels": ("a", "b")}}, "'labels' is no name for a group"),
        ({"loss_weights": {"tub": 2.0}}, "loss_weights: 'tub' is not a term of the loss; did you mean 'tube'"),
        ({"loss_weights": {"tube": 0.0}}, "a number above 0 is expected"),
        ({"exclusive": {"x": LABELS}, "loss_weights": {"labels": 2.0}}, "there are: x"),
    ],
)
def test_wrong_groups(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings(label_columns=LABELS, **{"exclusive": GROUP, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss_func": "asymmetric"}, "loss_func='asymmetric': is for labels by themselves; .* bce, focal"),
        ({"loss_func": "focal", "loss_params": {"alpha": 0.3}}, "alpha weighs positives against negatives"),
        ({"label_smoothing": {"d": 0.1}}, r"exclusive\['tube'\] share one target, .* 0\.1 \(d\), 0 \(b\)"),
    ],
)
def test_losses_that_a_group_cannot_have(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        terms(**changes)


def test_two_labels_of_a_group(cached: Settings) -> None:
    """The image and both labels are named; or the one that the group names first holds."""
    file = Path(cached.dataset_folder) / cached.label_table
    frame = pd.read_csv(file, dtype=str)
    clean = frame[list(RANZCR_HEADS["CVC"])].astype(int).sum(axis=1)
    row = int(np.flatnonzero(clean > 1)[0])
    group = ("CVC - Normal", "CVC - Borderline", "CVC - Abnormal")
    settings = dataclasses.replace(cached, exclusive={"CVC": group})
    uid = frame[cached.uid_column][row]
    message = rf"{(clean > 1).sum()} images have two labels of exclusive\['CVC'\], {uid} has '.*' and '.*'; correct"
    with pytest.raises(TableError, match=message):
        read_label_table(build_table_source(settings))
    table = read_label_table(build_table_source(dataclasses.replace(settings, exclusive_conflicts="first")))
    columns = [cached.label_columns.index(label) for label in group]
    whole = frame[list(group)].astype(int).to_numpy()
    expected = [[int(k == given.argmax()) * given.max() for k in range(3)] for given in whole]
    assert table.labels[:, columns].tolist() == expected


@pytest.mark.slow
@pytest.mark.parametrize("classifier", ["linear", "attention"])
def test_a_run_with_a_group(cached: Settings, classifier: str, tmp_path: Path) -> None:
    """Trained, evaluated and loaded: terms in the log, one temperature, probabilities that sum to 1."""
    groups = {"ETT": RANZCR_HEADS["ETT"]}
    settings = dataclasses.replace(
        cached,
        exclusive=groups,
        exclusive_conflicts="first",
        classifier=classifier,
        heads=dict(RANZCR_HEADS) if classifier == "attention" else {},
        mixup_alpha=0.4,
    )
    train_run(settings, fresh=False)
    predictions = pd.read_csv(settings.run_folder / "predictions.csv")
    ett = predictions[list(groups["ETT"])].to_numpy()
    assert (ett.sum(axis=1) < 1).all()
    entry = [json.loads(line) for line in (settings.run_folder / "fold0" / "log.jsonl").read_text().splitlines()][-1]
    assert entry["val/loss"] == pytest.approx(entry["val/loss/labels"] + entry["val/loss/ETT"], rel=1e-6)
    assert entry["train/loss"] == pytest.approx(entry["train/loss/labels"] + entry["train/loss/ETT"], rel=1e-6)
    assert evaluate([str(settings.run_folder), "--calibration", "temperature"]) == 0
    calibration = json.loads((settings.run_folder / "calibration.json").read_text())
    assert [group["labels"] for group in calibration["groups"]] == [list(groups["ETT"])]
    model = catheters.load(settings.run_folder, device="cpu")
    result = model(next((Path(settings.dataset_folder) / "train").iterdir()))
    assert sum(result.probabilities[label] for label in groups["ETT"]) < 1
    assert total({"a": torch.tensor(1.0), "b": torch.tensor(2.0)}) == 3
