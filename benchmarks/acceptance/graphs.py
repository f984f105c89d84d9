"""Compiled steps and CUDA graphs: alike, with draws of their own for each batch, and nothing of a graph kept."""

import dataclasses
import time
from typing import Any, Literal

from acceptance.check import Machine, NotHere, Outcome, judge
from acceptance.steps import alike, learn, new_step, step_settings
from catheters.config.settings import Settings
from catheters.runs.probe import probe_batch
from catheters.runtime.device import prepare_device

Mode = Literal["default", "reduce-overhead", "max-autotune"]
EMA_DECAY = 0.5
SAME_EMA = 1e-4
"""How far EMA weights may be from those by hand in float64, relative to the largest weight."""


def compiled(machine: Machine, mode: Mode) -> Outcome:
    """A compiled step trains like one that is not compiled."""
    prepare_device(machine.device, deterministic=True)
    settings = _settings(machine)
    plain = learn(machine, settings)[0]
    started = time.monotonic()
    of_mode = learn(machine, dataclasses.replace(settings, compile_mode=mode))[0]
    return alike({"not compiled": plain, mode: of_mode}, f", {time.monotonic() - started:.0f} s with compilation")


def draws_of_graphs(machine: Machine, mode: Mode) -> Outcome:
    """Dropout in a compiled step draws anew for each batch, and the same again for the same seed and batch."""
    prepare_device(machine.device, deterministic=True)
    still: dict[str, Any] = {
        "init_lr": 1e-30,
        "min_lr": 0.0,
        "weight_decay": 0.0,
        "drop_rate": 0.5,
        "drop_path_rate": 0.2,
    }
    settings = dataclasses.replace(_settings(machine), compile_mode=mode, **still)
    one, again = (learn(machine, settings)[0] for _ in range(2))
    return judge(
        one == again and len(set(one)) == len(one),
        f"{len(set(one))} different losses in {len(one)} steps, {'the same' if one == again else 'others'} again",
        "all differ, and come again",
    )


def nothing_kept(machine: Machine) -> Outcome:
    """With CUDA graphs losses and gradient norms may be read late, and EMA weights are those by hand."""
    prepare_device(machine.device, deterministic=True)
    settings = dataclasses.replace(_settings(machine), compile_mode="reduce-overhead", ema_decay=EMA_DECAY)
    number = 50
    step, batch = new_step(machine, settings), probe_batch(settings, settings.images_per_batch)
    name, weight = next((name, value) for name, value in step.model.named_parameters() if value.ndim > 1)
    by_hand = weight.detach().double()
    results, at_once = [], []
    for count in range(1, number + 1):
        result = step(batch)
        assert result.grad_norm is not None, "no gradients wait here"
        results.append((result.loss, result.grad_norm))
        at_once.append((float(result.loss), float(result.grad_norm)))
        decay = min(EMA_DECAY, 1 - count ** (-2 / 3))
        by_hand = decay * by_hand + (1 - decay) * weight.detach().double()
    late = [(float(loss), float(norm)) for loss, norm in results]
    same_losses = repr(late) == repr(at_once)  # the norm of a skipped step may be NaN
    assert step.ema is not None
    ema = step.ema.module.state_dict()[name].double()
    apart = float((ema - by_hand).abs().max() / by_hand.abs().max())
    return judge(
        same_losses and apart <= SAME_EMA,
        f"{number} steps: {'the same' if same_losses else 'other'} numbers read late, EMA {apart:.1e} from by hand",
        f"the same, at most {SAME_EMA:g}",
    )


def _settings(machine: Machine) -> Settings:
    if machine.is_dry:
        raise NotHere(
            "needs a GPU: a CPU compiles for a minute; tests/training/test_compiled.py compares what it computes"
        )
    return step_settings(machine, "efficientnet_b0")
