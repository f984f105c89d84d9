"""Mixed precision and TF32 on the device: losses beside float32's, steps that are skipped, types, rounding."""

import dataclasses
import math
import statistics
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from acceptance.check import Machine, Outcome, judge
from acceptance.steps import FAMILIES, KINDS, learn, new_step, step_settings
from catheters.config.presets import SAMPLE_LINES
from catheters.runs.probe import probe_batch
from catheters.runtime.device import prepare_device
from catheters.runtime.precision import AMP_DTYPES, autocast
from catheters.training.step import TrainStep

FIRST_LOSS: Mapping[str, float] = {"float16": 0.02, "bfloat16": 0.05}
"""How far the first loss may be from float32's, relative."""
NUM_STEPS = 20
FALLS = f", and the loss falls over {NUM_STEPS} steps"
OPTIMIZERS = ("Adam", "AdamW", "momentum", "Adagrad")
"""Those with fused kernels, which are told on the GPU that a step is skipped."""
TF32 = (1e-5, 5e-3)
"""Relative error of a product of TF32 factors, which have 10 bits of mantissa: more than float32's, less than this."""


def losses_of_families(machine: Machine, dtype: Literal["float16", "bfloat16"]) -> Outcome:
    """In mixed precision every kind of model of the four families learns, from a loss near float32's."""
    prepare_device(machine.device, deterministic=True)
    wrong, worst = [], 0.0
    families = machine.size(FAMILIES, ("test_resnet",))
    for backbone in families:
        for kind, changes in KINDS.items():
            settings = step_settings(
                machine, backbone, image_size=machine.size(128, 32), line_stride=2, amp_dtype=dtype, **changes
            )
            exact = learn(machine, dataclasses.replace(settings, use_amp=False), 1, drops=False)[0][0]
            losses = learn(machine, settings, machine.size(NUM_STEPS, 4), drops=False)[0]
            falls = machine.is_dry or statistics.mean(losses[-5:]) < losses[0]
            apart = abs(losses[0] / exact - 1)
            worst = max(worst, apart)
            if not (all(map(math.isfinite, losses)) and falls and apart <= FIRST_LOSS[dtype]):
                wrong.append(f"{backbone} {kind} ({losses[0]:.3f} to {losses[-1]:.3f}, float32 {exact:.3f})")
    return judge(
        not wrong,
        f"{len(families) * len(KINDS)} models, first loss at most {worst:.1e} from float32's",
        "; ".join(wrong) or f"at most {FIRST_LOSS[dtype]:g}{machine.size(FALLS, '')}",
    )


def planted_infinity(machine: Machine) -> Outcome:
    """A gradient that is infinite leaves weights and optimizer as they are, at the first step and later ones."""
    wrong = []
    scales = []
    for optimizer in OPTIMIZERS:
        settings = step_settings(machine, "test_resnet", optimizer=optimizer, init_lr=1e-2)
        step, batch = new_step(machine, settings), probe_batch(settings, settings.images_per_batch)
        if not step.scaler.is_enabled():
            wrong.append(f"{optimizer}: the gradient scaler is off")
            continue
        used = [torch.full_like(weight, 1e4) for weight in step.model.parameters() for _ in range(4)]
        del used  # what raw memory holds is then no zeros
        scale = step.scaler.get_scale()
        for moment in ("first step", "later step"):
            before = _state(step)
            weight = next(step.model.parameters())
            infinite = weight.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: torch.full_like(gradient, math.inf)
            )
            step(batch)
            infinite.remove()
            after = _state(step)
            # What the optimizer has made in this step is zeros.
            changed = [
                name
                for name, value in after.items()
                if not torch.equal(value, before.get(name, torch.zeros_like(value)))
            ]
            if changed:
                wrong.append(f"{optimizer}, {moment}: {changed[0]} and {len(changed) - 1} others have changed")
            for _ in range(2):
                step(batch)
        if not all(bool(torch.isfinite(value).all()) for value in _state(step).values()):
            wrong.append(f"{optimizer}: NaN or infinity afterwards")
        scales.append(f"{optimizer} {scale:g} to {step.scaler.get_scale():g}")
    return judge(not wrong, f"scale: {', '.join(scales)}", "; ".join(wrong) or "nothing changes but the scale")


def _state(step: TrainStep) -> dict[str, Tensor]:
    """Weights, and what the optimizer keeps of each."""
    state = {f"weight {name}": value.detach().clone() for name, value in step.model.named_parameters()}
    for number, parameter in enumerate(step.optimizer.state):
        for name, value in step.optimizer.state[parameter].items():
            if isinstance(value, Tensor) and value.numel():
                state[f"{name} {number}"] = value.clone()
    return state


def types(machine: Machine) -> Outcome:
    """Under mixed precision losses and probabilities are float32, whatever the types of the model's outputs."""
    found, is_right = [], True
    for dtype in AMP_DTYPES:
        settings = step_settings(
            machine,
            machine.size("efficientnet_b0", "test_resnet"),
            lines="pooled",
            landmark_table="landmarks.csv",
            measurements=SAMPLE_LINES.measurements,
            amp_dtype=dtype,
        )
        step = new_step(machine, settings)
        batch = probe_batch(settings, settings.images_per_batch).to(machine.device)
        with autocast(machine.device, step.dtype):
            outputs = step.model(batch.images)
            losses = step.losses(outputs, batch)
        kinds = {
            name: str(value.dtype).removeprefix("torch.")
            for name in ("logits", "line_logits", "tip_logits", "landmark_logits")
            if (value := getattr(outputs, name)) is not None
        }
        is_right &= all(value.dtype == torch.float32 for value in losses.values())
        is_right &= step.model.probabilities(outputs).dtype == torch.float32
        found.append(f"{dtype}: {', '.join(f'{name} {kind}' for name, kind in kinds.items())}")
    return judge(is_right, "; ".join(found), "losses and probabilities are float32")


def tf32(machine: Machine) -> Outcome:
    """Float32 products take TF32 factors where the GPU has such units, and torch's settings of it can be read."""
    prepare_device(machine.device, deterministic=True)
    torch.manual_seed(0)
    size = machine.size(1024, 64)
    one, other = (torch.randn(size, size, device=machine.device) for _ in range(2))
    images = torch.randn(4, machine.size(64, 8), 32, 32, device=machine.device)
    kernel = torch.randn(machine.size(64, 8), machine.size(64, 8), 3, 3, device=machine.device)
    errors = {
        "matmul": _error(one @ other, one.double() @ other.double()),
        "convolution": _error(
            torch.nn.functional.conv2d(images, kernel), torch.nn.functional.conv2d(images.double(), kernel.double())
        ),
    }
    text = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
    if machine.device.type == "cpu":
        return machine.of_gpu_alone(judge(max(errors.values()) < TF32[1], text, ""), "a CPU has no TF32")
    settings = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    has_units = torch.cuda.get_device_capability(machine.device) >= (8, 0)
    low = TF32[0] if has_units else 0.0
    is_right = torch.get_float32_matmul_precision() == "high" and all(low < e < TF32[1] for e in errors.values())
    return judge(
        is_right,
        f"relative error: {text}; allow_tf32 {settings}",
        f"precision 'high', errors between {low:g} and {TF32[1]:g}",
    )


def _error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())
