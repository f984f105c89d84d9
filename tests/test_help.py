"""`--help` prints at once: before anything is loaded that takes seconds."""

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

HEAVY = {"torch", "timm", "scipy", "sklearn", "matplotlib", "pandas", "cv2", "albumentations", "optuna"}


@pytest.mark.parametrize("name", ["preproc_npy", "train", "multi_train", "compare", "evaluate", "predict"])
def test_help_loads_no_large_library(name: str) -> None:
    command = [sys.executable, "-X", "importtime", str(REPOSITORY / f"{name}.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: ")
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "catheters" in imported
    assert not imported & HEAVY
