"""A trained model in Python, as a notebook uses it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import catheters
from catheters.commands.predict import main
from catheters.errors import UserError


def test_it_says_what_the_command_says(evaluated_run: Path, sample_folder: Path, tmp_path: Path) -> None:
    xray = min((sample_folder / "test").iterdir())
    main(["--model", str(evaluated_run), str(xray), "--out", str(tmp_path / "p.csv"), "--worklist"])
    predicted = pd.read_csv(tmp_path / "p.csv").iloc[0]
    model = catheters.load(evaluated_run)
    result = model(xray)
    assert list(result.probabilities) == list(model.labels)
    assert list(result.probabilities.values()) == pytest.approx(predicted[list(model.labels)].tolist(), abs=1e-6)
    worklist = pd.read_csv(tmp_path / "p_worklist.csv").iloc[0]
    assert {device: worklist[device] for device in result.sentences} == dict(result.sentences)
    assert str(result).splitlines()[0] == result.sentences["ETT"]
    assert set(result.spread) == set(model.labels)
    assert model(xray.read_bytes()).probabilities == result.probabilities
    heat = result.heatmap("CVC - Normal")
    assert heat.min() >= 0 and heat.max() <= 1
    assert np.asarray(result.overlay("CVC - Normal")).shape == (*heat.shape, 3)
    with pytest.raises(UserError, match="'CVC' is not a label"):
        result.heatmap("CVC")


def test_choices(evaluated_run: Path, sample_folder: Path) -> None:
    xray = min((sample_folder / "test").iterdir())
    checkpoint = evaluated_run / "fold0" / "best.pt"
    one = catheters.load(checkpoint, device="cpu", calibrated=False)(xray)
    assert one.spread == {}
    flipped = catheters.load(checkpoint, device="cpu", calibrated=False, tta=True)(xray)
    assert flipped.probabilities != one.probabilities
    assert flipped.predicted_positive.keys() == one.predicted_positive.keys()


def test_mistakes(evaluated_run: Path, sample_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"load\(\) takes a run folder"):
        catheters.load()
    model = catheters.load(evaluated_run)
    with pytest.raises(UserError, match=r"gone\.dcm: no such file"):
        model(tmp_path / "gone.dcm")
    with pytest.raises(UserError, match="the X-ray: is no image file of a known format"):
        model(b"nonsense, of some length")
    result = model(min((sample_folder / "test").iterdir()))
    for ask in (lambda: result.lines, lambda: result.tips, result.draw_lines):
        with pytest.raises(UserError, match=r"best\.pt and the other 1 checkpoint: have no line decoder"):
            ask()
    with pytest.raises(AttributeError, match="module 'catheters' has no attribute 'lod'"):
        catheters.lod  # noqa: B018


def test_the_package_is_quick_to_import() -> None:
    """Settings and help wait for no torch."""
    program = "import catheters.config.settings, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
