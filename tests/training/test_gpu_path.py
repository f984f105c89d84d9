"""What a step does on a GPU, proven without one: torch's fake tensors say what runs where, and in which type.

A fake tensor of a GPU has a device, a shape and a type and no numbers, and torch dispatches on it as on a real one:
CUDA's list of autocast, its deterministic detours, an error where a CPU's tensor is mixed in or a number is read.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.data.gpu_augmentation import GpuAugmentation
from catheters.labels import RANZCR_HEADS
from catheters.models.outputs import Outputs
from catheters.runs.build import build_augmentation, build_losses
from catheters.runs.probe import probe_batch
from catheters.training.losses import total
from tests.models.test_backbone import FAMILIES
from tests.processes import in_fork

GPU = torch.device("cuda", 0)
NOT_DETERMINISTIC = (
    "AdaptiveAvgPool",
    "AdaptiveMaxPool",
    "AvgPool3D",
    "EmbeddingBag",
    "FractionalMaxPool",
    "GridSampler",
    "MaxPool3D",
    "MaxUnpool",
    "NllLoss",
    "Put",
    "ReflectionPad",
    "Upsample",
)
"""Backward functions of which `torch.use_deterministic_algorithms` says that they raise, by autograd's names."""

pytestmark = pytest.mark.filterwarnings("ignore:CUDA is not available or torch_xla is imported")


class NoCopies(TorchDispatchMode):
    """Raises where a tensor is copied from the CPU: from memory that is not pinned, the copy is waited for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = [value for value in torch.utils._pytree.tree_leaves(args) if isinstance(value, Tensor)]
        if isinstance(result, Tensor) and result.device == GPU and any(value.device.type == "cpu" for value in inputs):
            raise AssertionError(f"{func} copies from the CPU")
        return result


@contextmanager
def as_prepared(*, deterministic: bool) -> Iterator[None]:
    """What `prepare_device` asks of torch."""
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def gpu_autocast(dtype: torch.dtype | None) -> Iterator[None]:
    """That of CUDA, which `torch.autocast` refuses where there is no GPU."""
    torch.set_autocast_enabled("cuda", dtype is not None)
    torch.set_autocast_dtype("cuda", dtype or torch.float16)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)


def move(module: nn.Module) -> None:
    """As `module.to("cuda")`, which would read the numbers."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            part._parameters[name] = None if parameter is None else nn.Parameter(empty(parameter))
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else empty(buffer)


def empty(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=GPU)


def step_on_gpu(
    settings: Settings, dtype: torch.dtype | None, *, deterministic: bool = True
) -> tuple[Outputs, Mapping[str, Tensor], set[str]]:
    """Augmentation, forward and losses of a training step, and the functions of its backward pass."""
    model, losses = build_classifier(settings, 0.5, 0.25).train(), build_losses(settings)
    batch, augmentation = probe_batch(settings, 2), build_augmentation(settings)
    assert isinstance(augmentation, GpuAugmentation)
    with as_prepared(deterministic=deterministic), FakeTensorMode():
        move(model)
        move(losses)
        batch = batch.map(empty)
        assert batch.draws is not None
        with NoCopies():
            # cuDNN's own function for float32 images has no fake; torch's, of the same formula, has.
            with torch.backends.cudnn.flags(enabled=False):
                batch = dataclasses.replace(batch, images=augmentation(batch.images, batch.draws))
            with gpu_autocast(dtype):
                outputs = model(batch.images)
            of_batch = losses(outputs, batch)
            return outputs, of_batch, backward_functions(total(of_batch))


def backward_functions(scalar: Tensor) -> set[str]:
    """Names of what autograd would do."""
    waiting, seen = [scalar.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
    return {node.name() for node in seen}


@pytest.fixture
def on_gpu(settings: Settings) -> Settings:
    return dataclasses.replace(
        settings,
        image_size=64,
        augment_on="device",
        train_transforms=(
            ("HorizontalFlip", {"p": 0.5}),
            ("Affine", {"rotate": (-5, 5)}),
            ("CoarseDropout", {}),
            ("RandomBrightnessContrast", {}),
        ),
        exclusive={"ETT": RANZCR_HEADS["ETT"]},
        pos_weight={"NGT - Abnormal": 10.0},
        drop_path_rate=0.1,
    )


def with_parts(settings: Settings, backbone_model: str, classifier: str, lines: str | None) -> Settings:
    return dataclasses.replace(
        settings,
        backbone_model=backbone_model,
        classifier=classifier,
        heads=dict(RANZCR_HEADS) if classifier == "attention" else {},
        lines=lines,
        annotation_table=None if lines is None else "train_annotations.csv",
    )


@pytest.mark.parametrize(
    ("backbone_model", "classifier", "lines"),
    [
        ("test_convnext", "linear", None),
        (FAMILIES[0], "attention", "pooled"),
        *(pytest.param(family, "linear", "auxiliary", marks=pytest.mark.slow) for family in FAMILIES),
        *(pytest.param(family, "attention", "pooled", marks=pytest.mark.slow) for family in FAMILIES[1:]),
    ],
)
@in_fork  # the backward pass of a GPU's tensors starts autograd's threads
def test_a_step_stays_on_the_gpu(on_gpu: Settings, backbone_model: str, classifier: str, lines: str | None) -> None:
    """Nothing is copied from the CPU or read by it; what is computed in float16, and losses in float32.

    Nothing of the backward pass is among torch's list of what is not deterministic.
    """
    settings = with_parts(on_gpu, backbone_model, classifier, lines)
    outputs, losses, backward = step_on_gpu(settings, torch.float16)
    half, full = (outputs.logits, outputs.global_logits)[:: -1 if lines == "pooled" else 1]
    assert half is not None and half.dtype == torch.float16
    assert full is None or full.dtype == torch.float32  # of products of probabilities
    assert {value.device for value in losses.values()} == {GPU}
    assert {value.dtype for value in losses.values()} == {torch.float32}
    assert len(losses) == {None: 2, "auxiliary": 4, "pooled": 6}[lines]
    assert "ConvolutionBackward0" in backward
    assert not [name for name in backward if name.startswith(NOT_DETERMINISTIC)]


@in_fork
def test_without_determinism_the_decoder_enlarges_otherwise(on_gpu: Settings) -> None:
    """torch's own function, whose backward pass sums in any order; what is looked for above is found."""
    settings = with_parts(on_gpu, "test_resnet", "linear", "auxiliary")
    names = []
    for deterministic in (True, False):
        backward = step_on_gpu(settings, None, deterministic=deterministic)[2]
        names.append({name for name in backward if name.startswith(NOT_DETERMINISTIC)})
    assert names == [set(), {"UpsampleBilinear2DBackward0"}]


@in_fork
def test_what_would_wait_is_found() -> None:
    """A list as an index, a tensor made of Python's numbers, a number that is read, devices that are mixed."""
    with FakeTensorMode(), NoCopies():
        values = torch.empty((3, 4), device=GPU)
        for waits in (lambda: values[:, [0, 2]], lambda: torch.tensor([1.0], device=GPU)):
            with pytest.raises(AssertionError, match="copies from the CPU"):
                waits()
        with pytest.raises(DataDependentOutputException):
            values.sum().item()
        with pytest.raises(RuntimeError, match="at least two devices"):
            values + torch.zeros(4)
