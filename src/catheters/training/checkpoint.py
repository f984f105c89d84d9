"""`best.pt`: all that is needed to predict, in a file that `torch.load(weights_only=True)` reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from catheters.data.preprocessing import Preprocessing
from catheters.files import write_whole
from catheters.models.classifier import Classifier
from catheters.settings import Settings
from catheters.settings_file import settings_to_json


def save_checkpoint(
    file: Path,
    model: Classifier,
    settings: Settings,
    environment: Mapping[str, Any],
    scores: Mapping[str, float],
) -> None:
    """Write weights, settings, labels, preprocessing, score and environment; the file is whole or absent.

    Args:
        file: the `.pt` to write.
        model: the trained classifier.
        settings: the run's settings.
        environment: see `describe_environment`, with the `data_fingerprint` of what it was trained on.
        scores: `epoch`, how many were trained; `fold` and `macro_auc` of a validated model, `seed` of another.
    """
    content = {
        "model": {name: value.cpu() for name, value in model.state_dict().items()},  # any machine can load it
        "settings": settings_to_json(settings),
        "label_columns": list(settings.label_columns),
        "preprocessing": {
            **Preprocessing.of(settings).describe(),
            "mean": float(model.mean),
            "std": float(model.std),
        },
        **scores,
        "environment": dict(environment),
    }
    write_whole(file, lambda part: save_tensors(part, content))


def save_tensors(file: Path, content: Mapping[str, Any]) -> None:
    """`torch.save`, through Python's file, whose error says why the disk would take no more."""
    with file.open("wb") as stream:
        torch.save(content, stream)
