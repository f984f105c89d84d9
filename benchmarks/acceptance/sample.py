"""What several checks learn from and hold against: the synthetic sample, its cache, and a run of the CPU."""

import dataclasses
from pathlib import Path
from typing import Any

from acceptance.check import Machine
from catheters.config.presets import SAMPLE
from catheters.config.settings import Settings
from catheters.evaluation.intervals import Estimate
from catheters.evaluation.patients import Patients
from catheters.evaluation.scores import score
from catheters.inference.loading import Models, read_models
from catheters.runs.evaluation.inputs import read_run
from catheters.runs.preproc import preproc
from catheters.runs.train import train
from catheters.synthetic import generate_sample

TINY: dict[str, Any] = {"image_size": 32, "batch_size": 8, "backbone_model": "test_resnet", "num_folds": 2, "epochs": 2}
"""Of a dry run."""


def sample_settings(machine: Machine, run_name: str, **changes: Any) -> Settings:
    """The settings of `configs/sample.py` for one fold on the device, whose images are in the cache afterwards."""
    of_checks: dict[str, Any] = {
        "dataset_folder": str(sample_folder(machine)),
        "cache_folder": str(machine.folder / "cache"),
        "saved_models_folder": str(machine.folder),
        "run_name": run_name,
        "folds": (0,),
        "device": machine.device.type,
        "num_workers": machine.size(None, 0),
        "channels_last": False,  # measured, it may come out either way
    }
    settings = dataclasses.replace(SAMPLE, **{**of_checks, **machine.size({"epochs": 20}, TINY), **changes})
    preproc(settings)
    return settings


def sample_folder(machine: Machine) -> Path:
    """The synthetic sample, which is made when it is first asked for."""
    folder = machine.folder / "sample"
    generate_sample(
        folder, num_images=machine.size(600, 40), num_test_images=8, image_size=machine.size(256, 64), seed=0
    )
    return folder


def cpu_run(machine: Machine) -> Settings:
    """The settings of a finished run that the CPU has trained in float32, when it was first asked for."""
    settings = sample_settings(machine, "cpu", device="cpu")
    train(settings)
    return settings


def cpu_models(machine: Machine) -> Models:
    """The model of that run, on the CPU."""
    return read_models([cpu_run(machine).run_folder])


def macro_auc(settings: Settings) -> Estimate:
    """Out of fold, of a finished run, with its interval over patients."""
    evaluated = read_run(settings.run_folder, None, with_lines=False).evaluated
    return score(evaluated, Patients(evaluated.patient_ids)).macro("roc_auc")
