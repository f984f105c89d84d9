"""Prediction, heatmaps and export on the device beside the CPU's, by the model that the CPU has trained."""

import copy
import dataclasses
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from prediction import create_models

from acceptance.check import Machine, NotHere, Outcome, judge
from acceptance.sample import cpu_models, cpu_run, sample_folder, sample_settings
from acceptance.steps import FAMILIES, step_settings
from catheters.errors import UserError
from catheters.inference.export import export
from catheters.inference.heatmaps import attention_maps, grad_cam
from catheters.inference.loading import Models
from catheters.inference.predictor import Predictor
from catheters.inference.reading import ReadImage, read_image
from catheters.labels import RANZCR_HEADS
from catheters.models.classifier import Classifier
from catheters.runs.train import train
from catheters.runtime.device import prepare_device

REPOSITORY = Path(__file__).parents[2]
SAME_PREDICTION = 5e-3
"""How far probabilities may be from the CPU's in float32."""
SAME_HEAT = 1e-2
"""How far heatmaps may be from the CPU's, of their maximum."""
KEPT_BYTES = 10**6
"""What repeated work may leave on the GPU."""

Probabilities = npt.NDArray[np.float32]


def predictions(machine: Machine) -> Outcome:
    """The trained model predicts on the device what it predicts on the CPU, in float16 and in float32."""
    prepare_device(machine.device, deterministic=True)
    models = cpu_models(machine)
    images = _read_test_images(machine, models)
    expected = _predict(_with_amp(models, is_on=False), torch.device("cpu"), images)
    apart = {
        name: float(np.abs(_predict(_with_amp(models, is_on=is_on), machine.device, images) - expected).max())
        for name, is_on in (("float16", True), ("float32", False))
    }
    return judge(
        max(apart.values()) <= SAME_PREDICTION,
        ", ".join(f"{name} {difference:.1e} apart" for name, difference in apart.items()),
        f"at most {SAME_PREDICTION:g} of {len(images)} images; probabilities of {expected.min():.3f} to "
        f"{expected.max():.3f}",
    )


def predictions_of_families(machine: Machine) -> Outcome:
    """Random models of the four families predict in float16 on the device what they predict on the CPU in float32."""
    prepare_device(machine.device, deterministic=True)
    apart = {}
    for backbone in machine.size(FAMILIES, ("test_resnet",)):
        torch.manual_seed(0)
        models = create_models(step_settings(machine, backbone), machine.folder)
        images = _read_test_images(machine, models)
        expected = _predict(_with_amp(models, is_on=False), torch.device("cpu"), images)
        apart[backbone] = float(np.abs(_predict(models, machine.device, images) - expected).max())
    return judge(
        max(apart.values()) <= SAME_PREDICTION,
        ", ".join(f"{backbone} {difference:.1e}" for backbone, difference in apart.items()),
        f"at most {SAME_PREDICTION:g}",
    )


def prediction_script(machine: Machine) -> Outcome:
    """predict.py, whose decoding workers are forked after the model is on the GPU, predicts every image."""
    file = machine.folder / "predicted.csv"
    command = [sys.executable, str(REPOSITORY / "predict.py"), "--model", str(cpu_run(machine).run_folder)]
    command += [str(sample_folder(machine) / "test"), "--out", str(file), "--device", machine.device.type]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    rows = len(file.read_text().splitlines()) - 1 if file.exists() else 0
    number = len(list((sample_folder(machine) / "test").iterdir()))
    return judge(
        done.returncode == 0 and rows == number,
        f"status {done.returncode}, {rows} of {number} images",
        done.stderr.splitlines()[-1] if done.returncode else "all, with status 0",
    )


def heatmaps(machine: Machine) -> Outcome:
    """Grad-CAM and attention maps on the device are the CPU's, and images leave no memory behind."""
    apart, kept = 0.0, 0
    kinds: Mapping[str, Mapping[str, Any]] = {
        "linear": {},
        "attention": {"classifier": "attention", "heads": dict(RANZCR_HEADS)},
        "pooled": {"lines": "pooled", "line_stride": 2},
    }
    for kind, settings_of_kind in kinds.items():
        settings = sample_settings(machine, f"heat_{kind}", epochs=machine.size(2, 1), **settings_of_kind)
        train(settings)
        models = create_models(settings, machine.folder)
        checkpoint = models.checkpoints[0]
        weights = torch.load(settings.run_folder / "fold0" / "best.pt", weights_only=True)["model"]
        checkpoint.model.load_state_dict(weights)
        pixels = np.stack([image.pixels[0] for image in _read_test_images(machine, models)])[:, None]
        images = torch.from_numpy(pixels)
        on_cpu, on_device = copy.deepcopy(checkpoint.model), checkpoint.model.to(machine.device)
        for expected, got in zip(_maps(on_cpu, images), _maps(on_device, images.to(machine.device)), strict=True):
            apart = max(apart, float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-12)))
        if machine.device.type == "cuda":
            before = torch.cuda.memory_allocated(machine.device)
            for _ in range(20):
                _maps(on_device, images.to(machine.device))
            kept = max(kept, torch.cuda.memory_allocated(machine.device) - before)
    return judge(
        apart <= SAME_HEAT and kept <= KEPT_BYTES,
        f"{apart:.1e} of the maximum apart, {kept / 1e6:.1f} MB kept after 20 times {len(images)} images",
        f"at most {SAME_HEAT:g} and {KEPT_BYTES / 1e6:g} MB; linear, attention, pooled",
    )


def _maps(model: Classifier, images: torch.Tensor) -> list[torch.Tensor]:
    """On the CPU: Grad-CAM of the first label, and attention maps where there are heads that have them."""
    exact = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False  # heatmaps are of float32, whose rounding is checked elsewhere
    try:
        attention = attention_maps(model, images)
        return [grad_cam(model, images, 0).cpu(), *([] if attention is None else [attention.cpu()])]
    finally:
        torch.backends.cudnn.allow_tf32 = exact


def exported(machine: Machine) -> Outcome:
    """A model that is on the GPU is written as ONNX, whose probabilities are near the GPU's in float16."""
    models = cpu_models(machine)
    images = _read_test_images(machine, models)
    of_device = _predict(models, machine.device, images)  # the model is on the device from here on
    file = machine.folder / "exported.onnx"
    try:
        said = export(models, file, half=False)
    except UserError as error:
        if "needs onnx" in str(error):
            raise NotHere(str(error)) from None
        raise
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    pixels = np.stack([image.pixels[0] for image in images])[:, None]
    of_file = session.run(["probabilities"], {"images": pixels})[0]
    apart = float(np.abs(of_file - of_device).max())
    return judge(apart <= SAME_PREDICTION, f"{apart:.1e} from the device's; {said}", f"at most {SAME_PREDICTION:g}")


def _read_test_images(machine: Machine, models: Models) -> list[ReadImage]:
    files = sorted((sample_folder(machine) / "test").iterdir())
    return [read_image(file.read_bytes(), [models.checkpoints[0].preprocessing]) for file in files]


def _predict(models: Models, device: torch.device, images: Sequence[ReadImage]) -> Probabilities:
    """(n, K) of the only model."""
    probabilities: Probabilities = Predictor(models, device).predict(images).probabilities[0]
    return probabilities


def _with_amp(models: Models, *, is_on: bool) -> Models:
    """The same models, in mixed precision or not."""
    members = tuple(
        dataclasses.replace(
            member,
            checkpoints=tuple(
                dataclasses.replace(checkpoint, settings=dataclasses.replace(checkpoint.settings, use_amp=is_on))
                for checkpoint in member.checkpoints
            ),
        )
        for member in models.members
    )
    return dataclasses.replace(models, members=members)
