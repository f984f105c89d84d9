"""From probabilities to decisions and sentences, by hand."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from catheters.errors import UserError
from catheters.evaluation.calibration import Calibrator, LogitMap
from catheters.evaluation.report.tables import threshold_text
from catheters.evaluation.selective_prediction import Band
from catheters.evaluation.thresholds import Thresholds
from catheters.inference.interpretation import (
    Findings,
    describe_deferred,
    describe_device_type,
    describe_others,
    find,
    has_others,
    sentences_of,
    urgent_columns,
)
from catheters.inference.loading import Models, read_models
from catheters.inference.predictor import Predictor
from catheters.labels import RANZCR_LABELS

LABELS = (
    "NGT - Abnormal",
    "NGT - Incompletely Imaged",
    "NGT - Normal",
    "Swan Ganz Catheter Present",
    "Effusion",
)
HEADS: Mapping[str, tuple[str, ...]] = {"NGT": LABELS[:3], "Swan Ganz": LABELS[3:4]}


@pytest.fixture
def findings() -> Findings:
    """Of four images: a tube whose tip is not imaged; nothing; a tube of which no label is positive; a label alone."""
    probabilities = np.array(
        [
            [0.05, 0.91, 0.2, 0.98, 0.8],
            [0.01, 0.02, 0.0, 0.004, 0.1],
            [0.3, 0.3, 0.3, 0.0, 0.0],
            [0.45, 0.0, 0.0, 0.0, 0.0],
        ],
        dtype=np.float64,
    )
    thresholds = np.array([0.4, 0.34, 0.5, 0.5, 0.25])
    is_deferred = np.zeros(probabilities.shape, dtype=np.bool_)
    is_deferred[3, 0] = True
    return Findings(
        labels=LABELS,
        heads=HEADS,
        rule="chosen by youden",
        probabilities=probabilities,
        uncalibrated=probabilities,
        thresholds=thresholds,
        is_predicted_positive=probabilities >= thresholds,
        presence={"NGT": 1 - np.prod(1 - probabilities[:, :3], axis=1), "Swan Ganz": probabilities[:, 3]},
        presence_thresholds={"NGT": 0.5, "Swan Ganz": 0.5},
        is_deferred=is_deferred,
        spread=None,
    )


def test_sentences(findings: Findings) -> None:
    assert describe_device_type(findings, "NGT", 0) == "NGT: present, tip not imaged (0.91, threshold 0.34)"
    assert describe_device_type(findings, "Swan Ganz", 0) == "Swan Ganz: present (0.98, threshold 0.50)"
    assert describe_device_type(findings, "NGT", 1) == "NGT: not seen (0.03, threshold 0.50)"  # 1 - .99 x .98
    assert describe_device_type(findings, "Swan Ganz", 1) == "Swan Ganz: not seen (0.004, threshold 0.50)"
    # 1 - .7^3
    assert describe_device_type(findings, "NGT", 2) == "NGT: present, position unclear (0.66, threshold 0.50)"
    assert describe_device_type(findings, "NGT", 3) == (
        "NGT: uncertain (0.45, threshold 0.50), abnormal position (0.45, threshold 0.40, deferred)"
    )
    findings.probabilities[1, 3] = 0.000015
    findings.presence["Swan Ganz"][1] = 0.000015
    assert describe_device_type(findings, "Swan Ganz", 1) == "Swan Ganz: not seen (0.000015, threshold 0.50)"
    assert has_others(findings)
    assert describe_others(findings, 0) == "Effusion (0.80, threshold 0.25)"
    assert describe_others(findings, 1) == "none"


def test_deferred_labels_that_are_not_predicted_positive_are_named(findings: Findings) -> None:
    """Nothing is denied of what is deferred."""
    is_deferred = np.zeros(findings.is_deferred.shape, dtype=np.bool_)
    is_deferred[1] = [False, True, True, True, True]
    is_deferred[0, [0, 4]] = True
    is_deferred[2, 0] = True
    deferred = dataclasses.replace(findings, is_deferred=is_deferred)
    assert sentences_of(deferred, 1) == {
        "NGT": "NGT: not seen (0.03, threshold 0.50); deferred: tip not imaged (0.02, threshold 0.34), "
        "normal position (0.00, threshold 0.50)",
        "Swan Ganz": "Swan Ganz: not seen (0.004, threshold 0.50, deferred)",
        "findings": "findings: deferred: Effusion (0.10, threshold 0.25)",
    }
    assert sentences_of(deferred, 0)["findings"] == "findings: Effusion (0.80, threshold 0.25, deferred)"
    assert sentences_of(deferred, 0)["NGT"] == (
        "NGT: present, tip not imaged (0.91, threshold 0.34); deferred: abnormal position (0.05, threshold 0.40)"
    )
    assert sentences_of(deferred, 2)["NGT"] == (
        "NGT: present, position unclear (0.66, threshold 0.50); deferred: abnormal position (0.30, threshold 0.40)"
    )


def make_findings(probabilities: list[float], exclusive: tuple[tuple[str, ...], ...] = ()) -> Findings:
    """One image of RANZCR's first ten labels, all predicted positive from 0.1 on but the ninth and tenth from 0.5."""
    labels = RANZCR_LABELS[:10]
    made = np.array([probabilities])
    thresholds = np.array([0.1] * 8 + [0.5] * 2)
    heads = {"ETT": labels[:3], "NGT": labels[3:7], "CVC": labels[7:]}
    return Findings(
        labels=labels,
        heads=heads,
        exclusive=exclusive,
        rule="chosen by youden",
        probabilities=made,
        uncalibrated=made,
        thresholds=thresholds,
        is_predicted_positive=made >= thresholds,
        presence={name: np.array([0.9]) for name in heads},
        presence_thresholds=dict.fromkeys(heads, 0.5),
        is_deferred=np.zeros(made.shape, dtype=np.bool_),
        spread=None,
    )


def test_a_tube_has_one_position() -> None:
    """All of ETT's labels are predicted positive: the most probable is said. Of CVCs there may be several."""
    findings = make_findings([0.22, 0.15, 0.61, 0.02, 0.3, 0.05, 0.12, 0.4, 0.1, 0.7])
    assert describe_device_type(findings, "ETT", 0) == (
        "ETT: present, normal position (0.61, threshold 0.10; or abnormal position, 0.22, threshold 0.10; or "
        "borderline position, 0.15, threshold 0.10)"
    )
    assert describe_device_type(findings, "NGT", 0) == (
        "NGT: present, borderline position (0.30, threshold 0.10; or normal position, 0.12, threshold 0.10)"
    )
    assert describe_device_type(findings, "CVC", 0) == (
        "CVC: present, abnormal position (0.40, threshold 0.10), normal position (0.70, threshold 0.50) (of one line "
        "or of several)"
    )


def test_what_is_likelier_but_below_its_threshold_is_an_alternative() -> None:
    """CVC's labels exclude each other here: normal is likelier than abnormal, and not predicted positive."""
    findings = make_findings([0.0] * 7 + [0.2, 0.1, 0.45], exclusive=(RANZCR_LABELS[7:10],))
    findings.is_deferred[0, 8:] = True
    assert describe_device_type(findings, "CVC", 0) == (
        "CVC: present, abnormal position (0.20, threshold 0.10; or normal position, 0.45, threshold 0.50, deferred); "
        "deferred: borderline position (0.10, threshold 0.50)"
    )
    assert describe_device_type(findings, "ETT", 0) == "ETT: present, position unclear (0.90, threshold 0.50)"
    findings = dataclasses.replace(make_findings([0.4, 0.2, 0.3] + [0.0] * 7, exclusive=(RANZCR_LABELS[:2],)), heads={})
    assert describe_others(findings, 0) == (
        "ETT - Abnormal (0.40, threshold 0.10; or ETT - Normal, 0.30, threshold 0.10; or ETT - Borderline, 0.20, "
        "threshold 0.10)"
    )


def test_what_is_present(findings: Findings) -> None:
    """By the device type's own operating point; one of a single label by the label's, whatever the other says."""
    assert [findings.is_present("NGT", row) for row in range(4)] == [True, False, True, False]
    assert findings.not_predicted(1) == ("NGT", "Swan Ganz")
    findings.presence["Swan Ganz"][1] = 0.99
    assert not findings.is_present("Swan Ganz", 1)


def test_what_is_urgent() -> None:
    assert urgent_columns(RANZCR_LABELS, []) == [0, 3, 7]
    assert urgent_columns(LABELS, ["Effusion"]) == [4]
    with pytest.raises(UserError, match="--urgent Efusion: 'Efusion' is not a label; did you mean 'Effusion'"):
        urgent_columns(LABELS, ["Efusion"])
    with pytest.raises(UserError, match="no label says abnormal; name those that make an image urgent"):
        urgent_columns(("Mass",), [])


@pytest.fixture
def models(evaluated_run) -> Models:  # type: ignore[no-untyped-def]
    """With thresholds and a calibration that halves the odds."""
    halved = LogitMap(slope=1.0, intercept=float(np.log(0.5)))
    return dataclasses.replace(
        read_models([evaluated_run]),
        calibrator=Calibrator(method="platt", maps=dict.fromkeys(RANZCR_LABELS, halved)),
        thresholds=Thresholds(
            rule="f1",
            labels={"ETT - Abnormal": 0.6},
            device_types={"ETT": 0.9},
            bands={"ETT - Abnormal": Band(low=0.44, high=0.6), "ETT - Borderline": Band(low=-np.inf, high=0.3)},
            abstain_error=0.05,
            predictions_sha256="",
            calibration_sha256=None,
        ),
    )


def test_judged_before_calibration(models: Models) -> None:
    """Two checkpoints, three images, the last one unreadable; the first label at 0.6, the others at 0.5."""
    predictions = np.full((2, 3, 11), 0.1, dtype=np.float32)
    predictions[:, 2] = np.nan
    predictions[:, 0, 0] = 0.55, 0.75
    predictions[:, 1, :3] = 0.45
    found = find(Predictor(models, torch.device("cpu")), predictions)
    assert found.is_predicted_positive[:, 0].tolist() == [True, False, False]
    assert found.probabilities[0, 0] == pytest.approx(0.65 * 0.5 / (0.65 * 0.5 + 0.35))
    assert found.thresholds[:2] == pytest.approx([0.3 / (0.3 + 0.4), 1 / 3])
    assert np.isnan(found.probabilities[2]).all()
    assert found.spread is not None
    assert found.spread[0, 0] == pytest.approx(np.std([0.55, 0.75], ddof=1), abs=1e-6)
    assert found.uncalibrated[0, 0] == pytest.approx(0.65)
    assert found.presence["ETT"][1] == 1  # 3 x 0.45 is more than can be
    assert found.presence["ETT"][0] == pytest.approx(0.65 + 0.1 + 0.1)
    assert found.presence["CVC"][0] == pytest.approx(1 - 0.9**3)
    assert found.presence_thresholds == {"ETT": 0.9, "NGT": 0.5, "CVC": 0.5, "Swan Ganz": 0.5}
    assert found.rule.startswith("chosen by f1; from 0.5 on: ETT - Borderline, ETT - Normal, ")
    assert found.is_deferred[:, :3].tolist() == [[False, True, False], [True, False, False], [False] * 3]
    assert describe_deferred(found, 0) == "ETT - Borderline"


def test_without_an_evaluation(models: Models) -> None:
    bare = dataclasses.replace(models, calibrator=None, thresholds=None)
    predictions = np.full((2, 1, 11), 0.19, dtype=np.float32)
    found = find(Predictor(bare, torch.device("cpu")), predictions)
    assert not found.is_predicted_positive.any()
    assert describe_device_type(found, "NGT", 0) == "NGT: present, position unclear (0.76, threshold 0.50)"  # 4 x .19
    assert found.rule == "from 0.5 on, since no evaluation of these models is at hand"
    assert (found.probabilities == np.float32(0.19)).all()


def test_a_threshold_that_nothing_reaches_says_never(findings: Findings) -> None:
    """Chosen where no label is to be predicted positive; as a number it would be 1.00, which a sum may show too."""
    never = np.nextafter(1.0, np.inf)
    changed = dataclasses.replace(
        findings, presence_thresholds=dict.fromkeys(findings.presence_thresholds, never), thresholds=np.full(5, never)
    )
    assert sentences_of(changed, 1)["NGT"] == "NGT: not seen (0.03, never predicted positive)"
    assert threshold_text(never) == "never"
    assert threshold_text(1.0) == "1.0000"
