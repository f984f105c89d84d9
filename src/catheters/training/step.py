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
from timm.utils import ModelEmaV3
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.profiler import record_function

from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.data.batch import Batch
from catheters.data.gpu_augmentation import GpuAugmentation
from catheters.errors import SettingsError
from catheters.models.backbone import IN_CHANS
from catheters.models.classifier import Classifier
from catheters.models.outputs import Outputs
from catheters.runtime.distributed import ALONE, Processes
from catheters.runtime.precision import autocast, choose_dtype
from catheters.runtime.random import seed_layers
from catheters.training.losses import create_losses, total
from catheters.training.mixup import Mixup
from catheters.training.optimizers import KERNEL_CHOICES, begin_momentum, create_optimizer
from catheters.training.schedules import create_schedule

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
    """Forward, backward, optimizer, schedule and averaged weights, for one batch.

    Attributes:
        num_batches_seen: batches of the whole training so far.
        last_learning_rate: the rate of the step before, which made the weights what they are.
    """

    def __init__(
        self,
        settings: Settings,
        model: Classifier,
        num_batches: int,
        device: torch.device,
        processes: Processes = ALONE,
    ) -> None:
        """Create what a model needs to learn.

        One gradient scaler serves all of it: a new one would search for its scale anew.

        Args:
            settings: the run's settings.
            model: on `device`.
            num_batches: batches of an epoch, a multiple of `accumulation_steps`.
            device: where the batches go.
            processes: those that learn together, each from its part of every batch; their gradients are averaged.

        Raises:
            SettingsError: a loss, optimizer or schedule that does not exist or cannot be made so.
        """
        # Before anything holds its parameters; None: nothing was measured.
        self.model = model.to(memory_format=torch.channels_last if settings.channels_last else torch.contiguous_format)
        self.processes = processes
        self._sharing = None if processes.count == 1 else _share_gradients(model, device)
        self._forward: Callable[[Tensor], Outputs] = self._sharing or self.model
        if settings.compile_mode is not None:
            # The model itself stays as it is, so that checkpoints and validation know nothing of it.
            self._forward = torch.compile(self._forward, mode=settings.compile_mode)
        self.losses = create_losses(settings).to(device)
        self.optimizer = create_optimizer(settings, model)
        self.schedule = create_schedule(settings, self.optimizer, num_batches // settings.accumulation_steps)
        self.device = device
        self.dtype = choose_dtype(settings.use_amp, settings.amp_dtype, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.ema = (
            ModelEmaV3(model, decay=settings.ema_decay, use_warmup=True) if settings.ema_decay is not None else None
        )
        self.augmentation = (
            GpuAugmentation(settings.train_transforms, settings.image_shape)
            if settings.augment_on == "device"
            else None
        )
        self._mixup = Mixup(settings.mixup_alpha, settings.seed, processes.rank) if settings.mixup_alpha > 0 else None
        self._seed = settings.seed
        self._clip_grad_norm = settings.clip_grad_norm
        self._accumulation_steps = settings.accumulation_steps
        self.num_batches_seen = 0
        self.last_learning_rate = self.learning_rate

    @property
    def scored_model(self) -> Classifier:
        """The model that is validated and kept: the one of averaged weights where there is one."""
        model: Classifier = self.model if self.ema is None else self.ema.module
        return model

    @property
    def learning_rate(self) -> float:
        """The rate of the next step, of the parameters that learn fastest."""
        return float(max(group["lr"] for group in self.optimizer.param_groups))

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
        # Gradients travel between processes once an optimizer step.
        with contextlib.nullcontext() if self.is_whole or self._sharing is None else self._sharing.no_sync():
            with record_function(PHASES["forward"]), autocast(self.device, self.dtype):
                losses: dict[str, Tensor] = self.losses(self._forward(batch.images), batch)
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
        """One step of the optimizer; returns the total norm of its gradients."""
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
            self.ema.update(self.model, step=self.num_batches_seen // self._accumulation_steps)
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

    def _adopt_optimizer_state(self) -> None:
        """Let a loaded state lie in memory as the weights do, and this optimizer's kernels go on with it.

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
        begin_momentum(self.optimizer)  # a snapshot of steps that were all skipped has none


@contextlib.contextmanager
def without_needless_warnings() -> Iterator[None]:
    """Train in here without what torch warns of for no reason."""
    with warnings.catch_warnings():
        # The gradient scaler may skip the first optimizer steps while it looks for its scale; the schedule goes on.
        warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler\.step\(\)` before")
        # Of weights with a dimension of length 1, whose stride means nothing.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        yield


def trial_step(
    settings: Settings, device: torch.device, num_batches: int, model: Classifier | None = None
) -> TrainStep:
    """The step of a model, of one with random weights where none is given, which a trial throws away.

    Without gradient scaler: it would pass over the first steps until it has found its scale, and the optimizer might
    make no state.
    """
    if model is None:
        model = build_classifier(dataclasses.replace(settings, pretrained=False), mean=0.5, std=0.25).to(device)
    step = TrainStep(settings, model.train(), num_batches, device)
    step.scaler = torch.amp.GradScaler(device.type, enabled=False)
    return step


def trial_batch(settings: Settings, num_images: int) -> Batch:
    """Images of noise with targets, the same each time; of draws, where there are any, those of one image for all.

    Of black images batch norm would make gradients beyond any range.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (num_images, IN_CHANS, *settings.image_shape)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    targets = torch.randint(0, 2, (num_images, len(settings.label_columns)), generator=generator).float()
    draws = None
    if settings.augment_on == "device":
        one = GpuAugmentation(settings.train_transforms, settings.image_shape).draw(0)
        draws = torch.from_numpy(one).repeat(num_images, 1)
    return Batch(images=images, targets=targets, draws=draws)


def convert_batch_norm(model: Classifier, device: torch.device) -> Classifier:
    """Let batch norm take its statistics over the parts of all processes.

    Raises:
        SettingsError: on a CPU, where torch has no such layer.
    """
    if device.type == "cpu":
        raise SettingsError("sync_batch_norm=True: torch has it for GPUs alone; set it to False")
    converted: Classifier = convert_sync_batchnorm(model)
    return converted


def _share_gradients(model: Classifier, device: torch.device) -> DistributedDataParallel:
    """The model, whose backward pass averages the gradients over the processes."""
    return DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        # Buffers are shared before they are used: in validation. Batch norm's statistics of a batch are no buffers.
        forward_sync_buffers=False,
        gradient_as_bucket_view=True,
    )
