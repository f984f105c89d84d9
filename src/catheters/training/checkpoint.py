"""`best.pt`: all that is needed to predict, in a file that `torch.load(weights_only=True)` reads."""

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

import torch

from catheters.data.preprocessing import Preprocessing
from catheters.files import write_whole
from catheters.models.classifier import Classifier
from catheters.settings import Settings
from catheters.settings_file import settings_to_json

PACKAGES = ("catheters", "torch", "timm", "albumentations", "numpy")
"""Packages whose versions are kept with a run."""


def package_versions() -> dict[str, str]:
    """The installed versions of the packages that decide a run's numbers."""
    return {package: importlib.metadata.version(package) for package in PACKAGES}


def save_checkpoint(file: Path, model: Classifier, settings: Settings, scores: Mapping[str, float]) -> None:
    """Write weights, settings, labels, preprocessing, score and versions; the file is whole or absent.

    Args:
        file: the `.pt` to write.
        model: the trained classifier.
        settings: the run's settings.
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
        "versions": package_versions(),
    }
    write_whole(file, lambda part: torch.save(content, part))
