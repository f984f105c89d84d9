"""Classifiers of catheter and tube position on chest X-rays.

`preproc` builds the image cache, `train` trains a run by `Settings`, `evaluate` scores its predictions, `load` reads a
trained run and predicts.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catheters.config.loading import load_settings
    from catheters.config.settings import Settings
    from catheters.inference.api import Model, Result, load
    from catheters.runs.evaluation.evaluate import EvaluationResult, evaluate
    from catheters.runs.preproc import CacheResult, preproc
    from catheters.runs.train import ModelResult, RunResult, train

__all__ = [
    "CacheResult",
    "EvaluationResult",
    "Model",
    "ModelResult",
    "Result",
    "RunResult",
    "Settings",
    "evaluate",
    "load",
    "load_settings",
    "preproc",
    "train",
]

_MODULES = {
    **dict.fromkeys(("Model", "Result", "load"), "catheters.inference.api"),
    **dict.fromkeys(("ModelResult", "RunResult", "train"), "catheters.runs.train"),
    **dict.fromkeys(("EvaluationResult", "evaluate"), "catheters.runs.evaluation.evaluate"),
    **dict.fromkeys(("CacheResult", "preproc"), "catheters.runs.preproc"),
    "Settings": "catheters.config.settings",
    "load_settings": "catheters.config.loading",
}


def __getattr__(name: str) -> object:
    # torch and timm take seconds to load, which only who trains or predicts shall wait for.
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'catheters' has no attribute '{name}'")
