"""Mixed precision on a CPU: as float32 within bounds, losses in float32, and what float16 cannot hold."""

import dataclasses
import io
import math

import numpy as np
import pytest
import torch

from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.labels import RANZCR_HEADS
from catheters.models.outputs import Outputs
from catheters.runs.build import build_losses, build_step
from catheters.runtime.precision import autocast, create_scaler
from catheters.training.losses import total
from tests.training.mixed import CPU, mixed_step, random_batches, without_batch_norm
from tests.training.test_line_losses import line_batch

pytestmark = pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")

LABELS = ("abnormal", "normal", "absent")


@pytest.mark.parametrize(
    ("dtype", "of_loss", "of_gradient"), [(torch.float16, 2e-3, 0.02), (torch.bfloat16, 2e-2, 0.15)]
)
@pytest.mark.parametrize("classifier", ["linear", "attention"])
@pytest.mark.parametrize("backbone_model", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_gradients_are_those_of_float32(
    settings: Settings, backbone_model: str, classifier: str, dtype: torch.dtype, of_loss: float, of_gradient: float
) -> None:
    """The loss, and the length of the difference of all gradients, each relative to float32's.

    One rounding of float16 is 5e-4 relative, one of bfloat16 4e-3.
    """
    settings = dataclasses.replace(
        settings,
        backbone_model=backbone_model,
        classifier=classifier,
        heads=dict(RANZCR_HEADS) if classifier == "attention" else {},
        image_size=64,
    )
    (batch,) = random_batches(1, size=64)
    losses, gradients = [], []
    for of_step in (None, dtype):
        step = mixed_step(settings, of_step, init_scale=None if of_step is None else 256.0)
        step.model.eval()  # dropout draws other masks for other types
        with autocast(CPU, of_step):
            outputs = step.model(batch.images)
        assert outputs.logits.dtype == (of_step or torch.float32)
        loss = total(step.losses(outputs, batch))
        step.scaler.scale(loss).backward()
        step.scaler.unscale_(step.optimizer)
        losses.append(float(loss.detach()))
        gradients.append(torch.cat([value.grad.double().flatten() for value in step.model.parameters()]))
    assert losses[1] == pytest.approx(losses[0], rel=of_loss)
    assert (gradients[1] - gradients[0]).norm() < of_gradient * gradients[0].norm()


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 0.02), (torch.bfloat16, 0.15)])
def test_weights_stay_in_float32_and_learn(settings: Settings, dtype: torch.dtype, bound: float) -> None:
    """How far the weights move in four steps, against float32; the length of the difference, relative."""
    settings = without_batch_norm(settings, optimizer="momentum", init_lr=0.01, clip_grad_norm=1.0)
    ends = []
    for of_step in (None, dtype):
        step = mixed_step(settings, of_step, init_scale=256.0 if of_step is torch.float16 else None)
        start = torch.cat([value.detach().flatten().clone() for value in step.model.parameters()])
        for batch in random_batches(4):
            step(batch)
        for part in (step.model, step.scored_model):
            assert {value.dtype for value in part.parameters()} == {torch.float32}
        ends.append(torch.cat([value.detach().flatten() for value in step.model.parameters()]) - start)
    assert (ends[1] - ends[0]).norm() < bound * ends[0].norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("loss_func", "exclusive"),
    [
        *((name, {}) for name in ("bce", "focal", "asymmetric")),
        *((name, {"position": ("abnormal", "normal")}) for name in ("bce", "focal")),
    ],
)
def test_losses_of_labels_are_in_float32(
    settings: Settings, dtype: torch.dtype, loss_func: str, exclusive: dict[str, tuple[str, ...]]
) -> None:
    """Inside a region of autocast too: those of the same logits in float32, to the bit; finite at the type's ends."""
    settings = dataclasses.replace(
        settings,
        label_columns=LABELS,
        loss_func=loss_func,
        exclusive=exclusive,
        pos_weight={"normal": 3000.0},
        label_smoothing={"absent": 0.1},
    )
    losses = build_losses(settings)
    (batch,) = random_batches(1)
    batch = dataclasses.replace(batch, targets=torch.eye(4, 3))
    generator = torch.Generator().manual_seed(1)
    for scale in (1.0, 60000.0):
        logits = (scale * (2 * torch.rand(4, 3, generator=generator) - 1)).to(dtype).requires_grad_()
        with autocast(CPU, dtype):
            got = losses(Outputs(logits=logits), batch)
        expected = losses(Outputs(logits=logits.float()), batch)
        assert got.keys() == expected.keys()
        for name, value in got.items():
            assert value.dtype == torch.float32
            assert torch.equal(value, expected[name]), name
            assert value.isfinite(), name
        total(got).backward()
        assert logits.grad is not None and logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_of_lines_are_in_float32(settings: Settings, dtype: torch.dtype) -> None:
    """Sums over 256 x 256 pixels, which float16 ends below (65,504), against the formula in float64."""
    settings = dataclasses.replace(settings, lines="auxiliary", annotation_table="train_annotations.csv", image_size=64)
    losses = build_losses(settings)
    shape = (2, 4, 256, 256)
    batch = dataclasses.replace(line_batch(2), line_masks=torch.full(shape, 255, dtype=torch.uint8))
    line_logits = torch.full(shape, 8.0, dtype=dtype)
    outputs = Outputs(logits=torch.zeros(2, 11, dtype=dtype), line_logits=line_logits, tip_logits=line_logits)
    with autocast(CPU, dtype):
        got = losses(outputs, batch)
    assert {value.dtype for value in got.values()} == {torch.float32}
    p, num_pixels = 1 / (1 + math.exp(-8.0)), 256 * 256
    dice = 1 - (2 * num_pixels * p + 1) / (num_pixels * (p**2 + 1) + 1)
    assert num_pixels * (p**2 + 1) > torch.finfo(torch.float16).max
    assert float(got["lines"]) == pytest.approx(-10 * math.log(p) + dice, rel=1e-3)
    # A map of tips that says yes everywhere: -p^2 log(1 - p) at each of 65,536 pixels, but around few tips.
    assert float(got["tips"]) == pytest.approx(0.6 * num_pixels * p**2 * (8 + math.log1p(math.exp(-8))), rel=1e-2)


def test_a_step_of_the_line_decoder(settings: Settings) -> None:
    """With a pooled head, whose probabilities multiply: finite in float16, and near float32's."""
    settings = dataclasses.replace(settings, lines="pooled", annotation_table="train_annotations.csv", image_size=64)
    terms = []
    for dtype in (None, torch.float16):
        step = mixed_step(settings, dtype, init_scale=None if dtype is None else 256.0)
        result = step(line_batch(4))
        assert result.grad_norm is not None and result.grad_norm.isfinite()
        assert {value.dtype for value in result.losses.values()} == {torch.float32}
        terms.append({name: float(value) for name, value in result.losses.items()})
    for name, expected in terms[0].items():
        if name != "positions":  # of other candidates, where two peaks are nearly of one height
            assert terms[1][name] == pytest.approx(expected, rel=2e-2), name


def test_a_rare_label_of_high_weight(settings: Settings) -> None:
    """SGD in float16 with a pos_weight of 3000: the scaler skips until the gradients fit, losses are always finite."""
    settings = without_batch_norm(
        settings, optimizer="SGD", init_lr=1e-5, pos_weight={"ETT - Abnormal": 3000.0}, clip_grad_norm=1.0, epochs=8
    )
    step = mixed_step(settings, torch.float16)
    losses, skipped = [], []
    (batch,) = random_batches(1)
    assert batch.targets[:, 0].any()
    for _ in range(30):
        result = step(batch)
        losses.append(float(result.loss))
        assert result.grad_norm is not None
        skipped.append(not bool(result.grad_norm.isfinite()))
    assert np.isfinite(losses).all() and losses[0] > 100
    num_skipped = sum(skipped)
    assert skipped == [True] * num_skipped + [False] * (30 - num_skipped)
    assert 0 < num_skipped < 12
    assert step.scaler.get_scale() == 2.0 ** (16 - num_skipped)
    assert losses[-1] < losses[num_skipped]


def test_resumed_in_mixed_precision(settings: Settings) -> None:
    """Bit for bit, where the scaler has skipped a step and is about to grow; the count of skipped steps too."""
    settings = dataclasses.replace(settings, ema_decay=0.9, clip_grad_norm=1.0, drop_rate=0.2, mixup_alpha=0.3)
    batches = random_batches(8)

    def start() -> torch.amp.GradScaler:
        return torch.amp.GradScaler("cpu", init_scale=2.0**40, backoff_factor=2.0**-14, growth_interval=2)

    whole = mixed_step(settings, torch.float16)
    whole.scaler = start()
    norms = [whole(batch).grad_norm for batch in batches[:4]]
    assert [bool(norm.isfinite()) for norm in norms if norm is not None] == [False, False, True, True]
    whole(batches[4])
    file = io.BytesIO()
    torch.save([whole.model.state_dict(), whole.optimizer.state_dict(), whole.state_dict()], file)
    scale = whole.scaler.get_scale()
    losses = [whole(batch).loss for batch in batches[5:]]
    assert whole.scaler.get_scale() != scale
    torch.manual_seed(99)
    again = build_step(settings, build_classifier(settings, 0.5, 0.25), 8, CPU)
    again.dtype, again.scaler = torch.float16, create_scaler(CPU, torch.float16)
    again.scaler = start()
    file.seek(0)
    model, of_optimizer, state = torch.load(file, weights_only=True)
    assert state["num_steps_without_ema"] == 2
    again.model.load_state_dict(model)
    again.optimizer.load_state_dict(of_optimizer)
    again.load_state_dict(state)
    assert [again(batch).loss for batch in batches[5:]] == losses
    assert again.scaler.state_dict() == whole.scaler.state_dict()
    for expected, got in ((whole.model, again.model), (whole.scored_model, again.scored_model)):
        for name, value in expected.state_dict().items():
            assert torch.equal(value, got.state_dict()[name]), name


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_which_types_need_a_scaler(device: str) -> None:
    """float16 alone; torch disables the scaler of a GPU that is not there by itself, with a warning."""
    for dtype in (None, torch.bfloat16):
        assert not create_scaler(torch.device(device), dtype).is_enabled()
    assert create_scaler(CPU, torch.float16).is_enabled()
