"""Changed copies of the run that finds lines."""

import dataclasses
import shutil
from pathlib import Path

import torch

from catheters.checkpoints.finished import write_finished
from catheters.config.settings import Settings


def copy_of_finder(second: Settings, tmp_path: Path) -> tuple[Settings, Path]:
    """The settings with a first stage that the test may change, and its folder."""
    folder = tmp_path / "first"
    assert second.first_stage is not None
    shutil.copytree(second.first_stage, folder)
    return dataclasses.replace(second, first_stage=str(folder)), folder


def plant(file: Path, logit: float) -> None:
    """Let a model answer every image with this logit in all maps: what it gives can be told from any other."""
    content = torch.load(file, weights_only=True)
    for name in ("lines", "tips"):
        content["model"][f"decoder.{name}.weight"].zero_()
        content["model"][f"decoder.{name}.bias"].fill_(logit)
    torch.save(content, file)
    write_finished(file.parent)
