"""Training steps on the device: the same bits twice, alike in each memory layout, without waiting for the GPU."""

import dataclasses
import itertools
import re
import tempfile
import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from end_to_end import load_made_up
from timing import FULL_CHAIN, MEAN, STD
from torch import Tensor, nn

from acceptance.check import GB, Machine, Outcome, judge
from catheters.checkpoints.parts import build_classifier
from catheters.config.presets import SAMPLE_LINES
from catheters.config.settings import Settings
from catheters.labels import RANZCR_HEADS
from catheters.runs.build import build_step
from catheters.runs.probe import probe_batch
from catheters.runtime.device import prepare_device, wait_for
from catheters.runtime.precision import AMP_DTYPES, autocast
from catheters.training.step import TrainStep

FAMILIES = ("rexnet_100", "seresnet50", "efficientnet_b0", "resnest14d")
KINDS: Mapping[str, Mapping[str, Any]] = {
    f"{classifier}, {lines or 'labels alone'}": {
        "classifier": classifier,
        "heads": dict(RANZCR_HEADS) if classifier == "attention" else {},
        "lines": lines,
    }
    for classifier in ("linear", "attention")
    for lines in (None, "auxiliary", "pooled")
}
"""Kinds of models, of each family."""
NUM_STEPS = 6
SAME_LOSS = 2e-2
"""How far losses of some steps may be apart, relative: mixed precision rounds to 8 or 11 bits."""
NO_DETERMINISTIC = re.compile(r"^(\S+) does not have a deterministic implementation")
"""How torch's warning of an operation begins, which with `warn_only` goes on."""


def step_settings(machine: Machine, backbone: str, **changes: Any) -> Settings:
    """Settings of some steps on the device."""
    return Settings(
        **{
            "backbone_model": backbone,
            "pretrained": False,
            "image_size": machine.size(256, 32),
            "line_stride": machine.size(4, 2),
            "batch_size": machine.size(16, 4),
            "device": machine.device.type,
            "optimizer": "AdamW",
            "init_lr": 1e-3,
            "warmup_epochs": 0,
            "channels_last": False,
            "annotation_table": "train_annotations.csv",  # of which batches of noise read nothing
            **changes,
        }
    )


def new_step(machine: Machine, settings: Settings) -> TrainStep:
    """The step of a model of the same random weights each time; in a dry run mixed precision is the CPU's."""
    torch.manual_seed(0)
    model = build_classifier(settings, MEAN, STD).to(machine.device).train()
    step = build_step(settings, model, 64, machine.device)
    if machine.device.type == "cpu" and settings.use_amp:
        step.dtype = AMP_DTYPES[settings.amp_dtype]
        step.scaler = torch.amp.GradScaler("cpu", enabled=settings.amp_dtype == "float16")
    return step


def learn(
    machine: Machine, settings: Settings, num_steps: int = NUM_STEPS, *, drops: bool = True
) -> tuple[list[float], dict[str, Tensor]]:
    """Losses of some steps from the same weights on the same batch, and the state that they lead to, on the CPU.

    Without dropout (`drops`) where types are compared: its draws may be others for another type.
    """
    step, batch = new_step(machine, settings), probe_batch(settings, settings.images_per_batch)
    for layer in step.model.modules():
        if isinstance(layer, nn.Dropout) and not drops:
            layer.p = 0.0
    losses = [step(batch).loss for _ in range(num_steps)]  # read at the end, as a run's log does
    return torch.stack(losses).tolist(), {name: value.cpu() for name, value in step.model.state_dict().items()}


def deterministic(machine: Machine, backbone: str) -> Outcome:
    """deterministic=True gives the same bits twice, for each kind of model; what torch warns of is named."""
    prepare_device(machine.device, deterministic=True)
    differing, operations = [], set()
    kinds = machine.size(list(KINDS), ["attention, pooled"])
    for kind, changes in ((kind, KINDS[kind]) for kind in kinds):
        settings = step_settings(
            machine, machine.size(backbone, "test_resnet"), **changes, train_transforms=FULL_CHAIN, augment_on="device"
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            (losses, state), (losses_again, again) = (learn(machine, settings) for _ in range(2))
        operations |= {found[1] for warning in caught if (found := NO_DETERMINISTIC.match(str(warning.message)))}
        if losses != losses_again or any(not torch.equal(value, again[name]) for name, value in state.items()):
            differing.append(kind)
        assert len(set(losses)) > 1, f"{kind}: no step has moved the weights, so that nothing is known"
    bits = f"other bits in {', '.join(differing)}" if differing else "the same bits"
    warned = ", ".join(sorted(operations)) or "no operation"
    return judge(not differing, f"{len(kinds)} kinds, {NUM_STEPS} steps twice: {bits}", f"torch warns of {warned}")


def price_of_deterministic(machine: Machine) -> Outcome:
    """What deterministic=True costs a step of a model that learns lines, in time and memory."""
    settings = step_settings(
        machine,
        machine.size("resnest50d", "test_resnet"),
        image_size=machine.size(512, 32),
        batch_size=8,
        lines="pooled",
        train_transforms=(),
    )
    found = {}
    for is_deterministic in (False, True):
        prepare_device(machine.device, deterministic=is_deterministic)
        step, batch = new_step(machine, settings), probe_batch(settings, settings.images_per_batch).to(machine.device)
        for _ in range(3):
            step(batch)
        memory = 0.0
        if machine.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(machine.device)
        wait_for(machine.device)
        started = time.perf_counter()
        for _ in range(machine.size(10, 2)):
            step(batch)
        wait_for(machine.device)
        if machine.device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(machine.device) / GB
        found[is_deterministic] = ((time.perf_counter() - started) / machine.size(10, 2), memory)
        del step
    text = "; ".join(
        f"deterministic={key}: {1e3 * seconds:.1f} ms, {memory:.2f} GB" for key, (seconds, memory) in found.items()
    )
    number = Outcome(status="number", found=text, note=f"{settings.backbone_model}, 8 x {settings.image_size} px")
    return machine.of_gpu_alone(number, "a CPU computes the same either way")


def channels_last(machine: Machine, backbone: str) -> Outcome:
    """channels_last on and off train alike."""
    prepare_device(machine.device, deterministic=True)
    settings = step_settings(machine, machine.size(backbone, "test_resnet"))
    losses = [learn(machine, dataclasses.replace(settings, channels_last=layout))[0] for layout in (False, True)]
    return alike({"contiguous": losses[0], "channels_last": losses[1]})


def alike(losses: Mapping[str, Sequence[float]], further: str = "") -> Outcome:
    """Whether two trainings have the same losses, which fall."""
    one, other = losses.values()
    difference = max(abs(b / a - 1) for a, b in zip(one, other, strict=True))
    first, second = losses
    return judge(
        difference <= SAME_LOSS and one[-1] < one[0] and other[-1] < other[0],
        f"loss {one[0]:.4f} to {one[-1]:.4f} {first}, {other[-1]:.4f} {second}, {difference:.1e} apart{further}",
        f"falls, and at most {SAME_LOSS:.0e} apart in each of {len(one)} steps",
    )


def no_waiting(machine: Machine, dtype: str) -> Outcome:
    """No training step waits for the GPU: torch watches for calls that would, with all that a step can have."""
    everything = {
        "amp_dtype": dtype,
        "train_transforms": FULL_CHAIN,
        "augment_on": "device",
        "mixup_alpha": 0.4,
        "clip_grad_norm": 1.0,
        "ema_decay": 0.99,
        "drop_rate": 0.1,
        "exclusive": {"ETT": RANZCR_HEADS["ETT"]},
    }
    ways: Sequence[Mapping[str, Any]] = (
        {},
        {"lines": "pooled", "measurements": SAMPLE_LINES.measurements, "landmark_table": "landmarks.csv"},
        {"lines": "auxiliary", "accumulation_steps": 2},
    )
    places: list[str] = []
    is_finite = True
    for changes in ways:
        settings = step_settings(machine, machine.size("efficientnet_b0", "test_resnet"), **everything, **changes)
        step, batch = new_step(machine, settings), probe_batch(settings, settings.images_per_batch)
        batch = batch.pin_memory() if machine.device.type == "cuda" else batch

        def train(step: TrainStep = step, batch: Any = batch) -> None:
            for _ in range(NUM_STEPS):
                step(batch)

        def predict(step: TrainStep = step, batch: Any = batch) -> Tensor:
            with torch.inference_mode(), autocast(step.device, step.dtype):
                logits: Tensor = step.scored_model(batch.images.to(step.device, non_blocking=True)).logits
            return logits

        train()  # the optimizer makes its state
        places += watch(machine, train)
        step.scored_model.eval()
        predict()
        places += watch(machine, predict)
        is_finite &= bool(torch.isfinite(predict()).all())
    found = judge(
        not places and is_finite,
        f"{len(places)} calls in {NUM_STEPS} steps and a validation of {len(ways)} models wait",
        f"none{': ' + ', '.join(sorted(set(places))) if places else ''}",
    )
    return machine.of_gpu_alone(found, "nothing waits for a CPU")


def watch(machine: Machine, work: Callable[[], object]) -> list[str]:
    """Where some work calls what waits for the GPU, file and line; nothing on a CPU."""
    if machine.device.type == "cpu":
        work()
        return []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [warning for warning in caught if "synchronizing CUDA operation" in str(warning.message)]
    return [f"{Path(warning.filename).name}:{warning.lineno}" for warning in waits]


def pinned_memory(machine: Machine) -> Outcome:
    """Batches of DataLoader workers reach the GPU whole, although nobody waits for their copies."""
    settings = step_settings(machine, "test_resnet", train_transforms=(), num_workers=machine.size(4, 0))
    steps = machine.size(300, 8)
    options = Namespace(num_images=64, steps=steps, num_workers=settings.num_workers)
    busy = torch.rand((machine.size(2048, 8),) * 2, device=machine.device)
    sums_sent, sums = [], []
    with tempfile.TemporaryDirectory(dir=machine.folder) as folder:
        for batch in itertools.islice(_batches(settings, Path(folder), machine, options), steps):
            busy = torch.nn.functional.normalize(busy @ busy)  # so that the copies lag behind
            sums_sent.append(batch.to(machine.device).images.sum(dtype=torch.int64))
            sums.append(batch.images.sum(dtype=torch.int64))
    wrong = int((torch.stack(sums_sent).cpu() != torch.stack(sums)).sum())
    differ = len({int(total) for total in sums})
    return judge(wrong == 0, f"{wrong} of {len(sums)} batches differ ({differ} sums)", "all arrive as they were sent")


def _batches(settings: Settings, folder: Path, machine: Machine, options: Namespace) -> Iterator[Any]:
    yield from load_made_up(settings, folder, machine.device, options)
