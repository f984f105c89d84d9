"""One training step."""

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.profiler import record_function

from catheters.data.batch import Batch
from catheters.data.gpu_augmentation import GpuAugmentation
from catheters.errors import SettingsError
from catheters.models.classifier import Classifier
from catheters.models.outputs import Outputs
from catheters.runtime.distributed import ALONE, Processes
from catheters.runtime.precision import autocast, create_scaler
from catheters.runtime.random import seed_layers
from catheters.training.ema import EmaWeights
from catheters.training.losses import Losses, total
from catheters.training.mixup import Mixup
from catheters.training.optimizers import KERNEL_CHOICES, create_momentum
from catheters.training.schedules import Schedule

PHASES = MappingProxyType(
    {
        "send": "step: send to the device",
        "augment": "step: augmentation on the device",
        "mixup": "step: mixup",
        "forward": "step: forward and loss",
        "backward": "step: backward",
        "optimizer": "step: optimizer and averages",
    }
)
"""Names of a step's parts in a profile."""


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a step gave: scalars still on the device, since reading them would make the CPU wait.

    Attributes:
        loss: the sum of the losses, whose gradient moves the weights.
        losses: each by its name.
        learning_rate: of the step.
        grad_norm: total norm of the gradients, unclipped; None after a batch whose gradients wait for others.
    """

    loss: Tensor
    losses: Mapping[str, Tensor]
    learning_rate: float
    grad_norm: Tensor | None


class TrainStep:
    """Forward, backward, optimizer, schedule and EMA weights, for one batch.

    Attributes:
        num_batches_seen: batches of the whole training so far.
        last_learning_rate: that of the step before, which made the weights what they are.
    """

    def __init__(
        self,
        model: Classifier,
        losses: Losses,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        device: torch.device,
        *,
        seed: int,
        dtype: torch.dtype | None = None,
        processes: Processes = ALONE,
        accumulation_steps: int = 1,
        clip_grad_norm: float | None = None,
        ema_decay: float | None = None,
        mixup_alpha: float = 0.0,
        compile_mode: str | None = None,
        augmentation: GpuAugmentation | None = None,
    ) -> None:
        """Put together what a model needs to learn.

        One gradient scaler serves all of it: a new one would search for its scale again.

        Args:
            model: on `device`, in the memory format that it is trained in.
            losses: on `device`.
            optimizer: of the model.
            schedule: of the optimizer.
            device: where the batches go.
            seed: of the layers' draws and of mixup.
            dtype: of mixed precision; None: full precision.
            processes: the ranks that learn together, each from its share of every global batch; gradients are averaged.
            accumulation_steps: batches for each step of the optimizer.
            clip_grad_norm: largest norm of the gradients; None: they stay as they are.
            ema_decay: of the EMA weights; None: there are none.
            mixup_alpha: of mixup; 0: without.
            compile_mode: of torch.compile; None: the model is not compiled.
            augmentation: what is augmented on the device.
        """
        self.model = model
        self.processes = processes
        self._sharing = None if processes.count == 1 else _share_gradients(model, device)
        self._forward: Callable[[Tensor], Outputs] = self._sharing or self.model
        if compile_mode is not None:
            # The model itself stays as it is, so that checkpoints and validation know nothing of it.
            self._forward = torch.compile(self._forward, mode=compile_mode)
        self.losses = losses
        self.optimizer = optimizer
        self.schedule = schedule
        self.device = device
        self.dtype = dtype
        self.scaler = create_scaler(device, dtype)
        self.ema = EmaWeights(model, ema_decay) if ema_decay is not None else None
        self.augmentation = augmentation
        self._mixup = Mixup(mixup_alpha, seed, processes.rank) if mixup_alpha > 0 else None
        self._seed = seed
        self._clip_grad_norm = clip_grad_norm
        self._accumulation_steps = accumulation_steps
        self.num_batches_seen = 0
        self.last_learning_rate = self.learning_rate

    @property
    def scored_model(self) -> Classifier:
        """The model that is validated and kept: with the EMA weights where there are any, else the raw weights."""
        return self.model if self.ema is None else self.ema.module

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step, of the parameters that learn fastest."""
        return float(max(group["lr"] for group in self.optimizer.param_groups))

    @property
    def has_mixup(self) -> bool:
        """Whether it mixes images of a batch."""
        return self._mixup is not None

    @property
    def is_whole(self) -> bool:
        """Whether no gradient waits for further batches, so that the state is all there is."""
        return self.num_batches_seen % self._accumulation_steps == 0

    def __call__(self, batch: Batch) -> StepResult:
        """Learn from one batch; every `accumulation_steps` of them the weights move.

        Nothing here waits for a GPU, which has its next step to do before it is done with this one; but for the
        gradient scaler of float16, where the optimizer has no fused kernel to tell it in.

        Args:
            batch: with draws where the settings augment on the device.
        """
        learning_rate = self.learning_rate
        with record_function(PHASES["send"]):
            batch = batch.to(self.device)
        if self.augmentation is not None:
            assert batch.draws is not None, "the loader draws what is augmented here"
            with record_function(PHASES["augment"]):
                batch = dataclasses.replace(batch, images=self.augmentation(batch.images, batch.draws))
        if self._mixup is not None:
            with record_function(PHASES["mixup"]):
                batch = self._mixup(batch, self.num_batches_seen)
        seed_layers(self._seed, self.num_batches_seen, self.processes.rank)
        self.num_batches_seen += 1
        # Gradients are reduced over the ranks once per optimizer step.
        with contextlib.nullcontext() if self.is_whole or self._sharing is None else self._sharing.no_sync():
            with record_function(PHASES["forward"]):
                with autocast(self.device, self.dtype):
                    outputs = self._forward(batch.images)
                losses: dict[str, Tensor] = self.losses(outputs, batch)  # in float32
                loss = total(losses)
            with record_function(PHASES["backward"]):
                self.scaler.scale(loss / self._accumulation_steps).backward()  # type: ignore[no-untyped-call]
        with record_function(PHASES["optimizer"]):
            grad_norm = self._move() if self.is_whole else None
        return StepResult(
            loss=loss.detach(),
            losses={name: value.detach() for name, value in losses.items()},
            learning_rate=learning_rate,
            grad_norm=grad_norm,
        )

    def _move(self) -> Tensor:
        """One step of the optimizer; returns the total norm of its gradients.

        Where that is not finite, a gradient scaler skips the step: weights, optimizer and EMA weights stay as they are,
        and the gradients are gone. The schedule goes on, since its lengths are epochs.
        """
        self.last_learning_rate = self.learning_rate
        self.scaler.unscale_(self.optimizer)
        if self._clip_grad_norm is None:
            gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
            grad_norm = get_total_norm(gradients)
        else:
            grad_norm = clip_grad_norm_(self.model.parameters(), self._clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        if self.ema is not None:
            is_skipped = ~grad_norm.isfinite() if self.scaler.is_enabled() else None
            self.ema.follow(self.model, self.num_batches_seen // self._accumulation_steps, is_skipped)
        return grad_norm

    def state_dict(self) -> dict[str, Any]:
        """All of it but the model and the optimizer, as data that `torch.load(weights_only=True)` reads.

        No generator is part of it: draws follow from the seed and the number of the batch.
        """
        assert self.is_whole, "gradients that wait for others would be lost"
        return {
            "num_batches_seen": self.num_batches_seen,
            "last_learning_rate": self.last_learning_rate,
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "num_steps_without_ema": 0 if self.ema is None else int(self.ema.num_skipped),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`, for the same settings; the optimizer's state has to be loaded before."""
        self._adopt_optimizer_state()
        self.num_batches_seen = state["num_batches_seen"]
        self.last_learning_rate = state["last_learning_rate"]
        self.schedule.load_state_dict(state["schedule"])
        if state["scaler"]:  # a device without mixed precision has none
            self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
            # Earlier versions counted skipped steps like others.
            self.ema.num_skipped = state.get("num_steps_without_ema", 0)

    def _adopt_optimizer_state(self) -> None:
        """Let a loaded state lie in memory as the weights do, for this optimizer's kernels.

        A snapshot may be of another layout, and fused kernels go through state and weights side by side; and torch's
        optimizers take over the choice of kernel with the state.
        """
        for group in self.optimizer.param_groups:
            group.update({name: self.optimizer.defaults[name] for name in KERNEL_CHOICES & group.keys()})
            # Where the number of a parameter's steps has to lie, by torch's optimizers.
            counts_on_device = group.get("fused") or group.get("capturable")
            for parameter in group["params"]:
                state = self.optimizer.state.get(parameter, {})
                for name, value in state.items():
                    if name == "step":
                        if counts_on_device and isinstance(value, Tensor):
                            state[name] = value.to(parameter.device)
                    elif isinstance(value, Tensor) and value.shape == parameter.shape:
                        state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        create_momentum(self.optimizer)  # a snapshot of steps that were all skipped has none


@contextlib.contextmanager
def without_needless_warnings() -> Iterator[None]:
    """Train in here without what torch warns of for no reason."""
    with warnings.catch_warnings():
        # The gradient scaler may skip the first optimizer steps while it looks for its scale; the schedule advances.
        warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler\.step\(\)` before")
        # Of weights with a dimension of length 1, whose stride means nothing.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        yield


def convert_batch_norm(model: Classifier, device: torch.device) -> Classifier:
    """Let batch norm take its statistics over the global batch (SyncBatchNorm).

    Raises:
        SettingsError: on a CPU, where torch has no such layer.
    """
    if device.type == "cpu":
        raise SettingsError("sync_batch_norm=True: torch has it for GPUs alone; set it to False")
    converted: Classifier = convert_sync_batchnorm(model)
    return converted


def _share_gradients(model: Classifier, device: torch.device) -> DistributedDataParallel:
    """The model, whose backward pass averages the gradients over the ranks."""
    return DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        # Buffers are shared before they are used: in validation. Batch norm's statistics of a batch are no buffers.
        forward_sync_buffers=False,
        gradient_as_bucket_view=True,
    )
