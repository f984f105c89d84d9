"""What has to be known before a score is believed goes wherever the scores go."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from catheters.evaluation.alignment import align_predictions
from catheters.evaluation.caveats import KINDS, Caveat, join_caveats
from catheters.evaluation.ensemble import combine
from catheters.evaluation.evaluation import Choices, evaluate
from catheters.evaluation.report.report import write_model_card
from catheters.evaluation.results import write_metrics
from tests.conftest import REPOSITORY
from tests.evaluation.conftest import make_predictions
from tests.evaluation.report.test_report import make_background

NO_PATIENTS = Caveat(kind="no_patients", text="nobody says whose")
LEAKING = Caveat(kind="leaking_folds", text="folds | may leak")


def test_they_are_in_the_evaluation_the_card_and_metrics_json(tmp_path: Path, rng: np.random.Generator) -> None:
    targets = np.stack([rng.random(40) < 0.5, np.zeros(40)], axis=1)
    given = make_predictions(targets, rng.random((40, 2)), labels=["x", "never"], patients=[0] * 40)
    given = dataclasses.replace(given, caveats=(LEAKING,))
    evaluation = evaluate(given, {}, {}, Choices())
    assert [caveat.kind for caveat in evaluation.caveats] == ["leaking_folds", "undefined_label", "one_patient"]
    write_metrics(tmp_path / "metrics.json", evaluation, tmp_path / "p.csv", "", "", "labels.csv", 40)
    written = json.loads((tmp_path / "metrics.json").read_text())["caveats"]
    assert written == [{"kind": caveat.kind, "text": caveat.text} for caveat in evaluation.caveats]
    write_model_card(tmp_path / "card.md", evaluation, make_background())
    card = (tmp_path / "card.md").read_text()
    assert "- folds &#124; may leak.\n- 'never' has 0 positives in 40 images" in card
    write_model_card(tmp_path / "card.md", dataclasses.replace(evaluation, caveats=()), make_background())
    assert "- None was found." in (tmp_path / "card.md").read_text()


def test_they_stay_with_the_predictions(rng: np.random.Generator) -> None:
    """Images that are taken, other probabilities, an ensemble; patients that another model knows are known."""
    targets, probabilities = rng.integers(0, 2, (60, 1)), rng.random((60, 1))
    first = make_predictions(targets, probabilities, folds=[0, 1] * 30)
    first = dataclasses.replace(first, caveats=(NO_PATIENTS, LEAKING))
    assert first.take(np.arange(5)).with_probabilities(probabilities[:5]).caveats == (NO_PATIENTS, LEAKING)
    knowing = make_predictions(targets, probabilities, patients=[f"p{row // 2}" for row in range(60)])
    aligned = align_predictions([first, knowing])
    assert [member.caveats for member in aligned] == [(LEAKING,), ()]
    kinds = [caveat.kind for caveat in combine("rank", aligned, "ensemble").combined.caveats]
    assert kinds == ["leaking_folds", "other_folds", "no_probabilities"]


def test_each_once() -> None:
    assert join_caveats([[NO_PATIENTS, LEAKING], [NO_PATIENTS]]) == (NO_PATIENTS, LEAKING)
    with pytest.raises(AssertionError, match="typo"):
        Caveat(kind="typo", text="")


def test_every_kind_is_in_the_reference() -> None:
    text = (REPOSITORY / "docs/reference/metrics-json.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", text[text.index("### caveats") :].split("\n### ")[0], re.MULTILINE)
    assert {kind: meaning for kind, meaning in rows if kind in KINDS} == dict(KINDS)
