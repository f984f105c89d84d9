"""One step: equal to the bare one, and its learning rate."""

import dataclasses
import io

import pytest
import torch

from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.data.batch import Batch
from catheters.labels import RANZCR_HEADS
from catheters.runs.build import build_step
from catheters.runs.probe import probe_batch, probe_step
from catheters.runs.run import train_run
from catheters.runtime.distributed import Processes
from catheters.runtime.precision import choose_dtype
from catheters.training.mixup import Mixup
from catheters.training.step import TrainStep
from tests.models.test_backbone import FAMILIES

CPU = torch.device("cpu")


def create_step(settings: Settings, device: torch.device = CPU) -> TrainStep:
    torch.manual_seed(0)
    return build_step(settings, build_classifier(settings, 0.5, 0.25).to(device), 2, device)


@pytest.mark.parametrize("classifier", ["linear", "attention"])
@pytest.mark.parametrize("backbone_model", FAMILIES)
def test_a_step_of_every_family(settings: Settings, backbone_model: str, classifier: str) -> None:
    """Forward, backward and step: every parameter moves, and the loss of the batch falls."""
    settings = dataclasses.replace(
        settings, backbone_model=backbone_model, classifier=classifier, heads=dict(RANZCR_HEADS), image_size=64
    )
    step = create_step(settings)
    before = {name: value.detach().clone() for name, value in step.model.named_parameters()}
    torch.manual_seed(0)
    images = torch.randint(0, 256, (4, 1, 64, 64), dtype=torch.uint8)
    batch = Batch(images=images, targets=torch.randint(0, 2, (4, 11)).float())
    losses = [float(step(batch).loss) for _ in range(3)]
    assert losses[-1] < losses[0]
    for name, value in step.model.named_parameters():
        assert not torch.equal(value, before[name]), name


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW"])
def test_equals_the_bare_steps(settings: Settings, optimizer: str) -> None:
    settings = dataclasses.replace(settings, optimizer=optimizer, weight_decay=0.01)
    step = create_step(settings)
    torch.manual_seed(0)
    model = build_classifier(settings, 0.5, 0.25)
    optimizer_class = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}[optimizer]
    norms_and_biases = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    bare = optimizer_class(
        [{"params": norms_and_biases, "weight_decay": 0.0}, {"params": others, "weight_decay": 0.01}],
        lr=settings.init_lr,
        fused=True,
    )
    for rate in (1e-3, 1.5e-3, 2e-3):  # warm-up over two iterations to twice init_lr, then the top of the cosine
        images = torch.randint(0, 256, (4, 1, 32, 32), dtype=torch.uint8)
        targets = torch.randint(0, 2, (4, 11)).float()
        for group in bare.param_groups:
            group["lr"] = rate
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(images).logits, targets)
        bare.zero_grad()
        loss.backward()
        bare.step()
        assert torch.equal(step(Batch(images=images, targets=targets)).loss, loss.detach())
    for expected, got in zip(model.parameters(), step.model.parameters(), strict=True):
        assert torch.equal(expected, got)


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "SGD", "momentum"])
def test_fused_optimizers_keep_the_rule(settings: Settings, optimizer: str) -> None:
    """One kernel over all weights, against torch's plain loop, which a parameter asks for."""
    plain = {"foreach": False, **({"momentum": 0.9} if optimizer in ("SGD", "momentum") else {})}
    steps = []
    for params in ({key: value for key, value in plain.items() if key != "foreach"}, plain):
        changes = {"optimizer": optimizer, "optimizer_params": params, "weight_decay": 0.01, "init_lr": 0.01}
        steps.append(create_step(dataclasses.replace(settings, **changes)))
    fused, loop = steps
    assert (fused.optimizer.defaults["fused"], loop.optimizer.defaults["fused"]) == (True, None)
    torch.manual_seed(3)
    for _ in range(4):
        # The same gradients for both: where one is nearly 0, Adam makes a step of its rounding.
        for got, expected in zip(fused.model.parameters(), loop.model.parameters(), strict=True):
            got.grad = torch.randn_like(got)
            expected.grad = got.grad.clone()
        fused.optimizer.step()
        loop.optimizer.step()
    for got, expected in zip(fused.model.parameters(), loop.model.parameters(), strict=True):
        assert torch.allclose(got, expected, rtol=1e-5, atol=1e-7)


def test_channels_last_computes_the_same(settings: Settings) -> None:
    """Another order in memory, other rounding."""
    settings = dataclasses.replace(settings, backbone_model="test_convnext", image_size=64)
    steps = [create_step(dataclasses.replace(settings, channels_last=layout)) for layout in (False, True)]
    weights = [
        next(value for value in step.model.parameters() if value.ndim == 4 and value.shape[1] > 1) for step in steps
    ]
    assert [value.is_contiguous(memory_format=torch.channels_last) for value in weights] == [False, True]
    torch.manual_seed(5)
    images = torch.randint(0, 256, (4, 1, 64, 64), dtype=torch.uint8)
    targets = torch.randint(0, 2, (4, 11)).float()
    for _ in range(3):
        losses = [step(Batch(images=images, targets=targets)).loss for step in steps]
        assert torch.allclose(*losses, rtol=1e-4)


def test_augmentation_on_the_device_is_what_the_model_sees(settings: Settings) -> None:
    """With the weights still, the loss of a batch is that of the flipped images, flipped beforehand."""
    still = {"init_lr": 1e-30, "min_lr": 0.0, "warmup_epochs": 0, "train_transforms": (("HorizontalFlip", {"p": 1.0}),)}
    settings = dataclasses.replace(settings, **still)
    on_device = dataclasses.replace(settings, augment_on="device")
    batch = probe_batch(on_device, 4)
    loss = create_step(on_device)(batch).loss
    flipped = dataclasses.replace(batch, images=batch.images.flip(3))
    assert torch.allclose(loss, create_step(settings)(flipped).loss, rtol=1e-5)
    assert not torch.allclose(loss, create_step(settings)(batch).loss, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_step_never_waits_for_the_gpu(settings: Settings, dtype: str) -> None:
    """torch raises at every call that would; the first steps may, while the optimizer makes its state."""
    settings = dataclasses.replace(
        settings,
        amp_dtype=dtype,
        augment_on="device",
        mixup_alpha=0.4,
        clip_grad_norm=1.0,
        ema_decay=0.99,
        drop_rate=0.1,
        optimizer="AdamW",
    )
    step = create_step(settings, torch.device("cuda"))
    batch = probe_batch(settings, 8).pin_memory()
    step(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = [step(batch).loss for _ in range(3)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(torch.stack(losses)).all()


@pytest.mark.parametrize("device", [CPU, pytest.param(torch.device("cuda"), marks=pytest.mark.gpu)])
def test_a_probe_moves_the_optimizer(settings: Settings, device: torch.device) -> None:
    """One step is enough to see what its state takes, in float16 too; black images gave rexnet no finite gradients."""
    settings = dataclasses.replace(settings, backbone_model="rexnet_100", image_size=64, optimizer="LAMB")
    step = probe_step(settings, device, 1)
    grad_norm = step(probe_batch(settings, 2)).grad_norm
    assert grad_norm is not None
    assert device != CPU or torch.isfinite(grad_norm)
    assert step.optimizer.state.keys() == set(step.model.parameters())


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("optimizer", ["SGD", "momentum", "Adam"])
def test_float16_learns_after_its_first_steps_are_skipped(settings: Settings, optimizer: str) -> None:
    """With a scale that is far too large at first, in memory that is full of large numbers."""
    changes = {"optimizer": optimizer, "init_lr": 0.01, "warmup_epochs": 0, "schedule": "constant", "epochs": 8}
    step = create_step(dataclasses.replace(settings, **changes))
    step.dtype = torch.float16
    step.scaler = torch.amp.GradScaler("cpu", init_scale=3e6)
    torch.manual_seed(2)
    batch = random_batch(4)
    losses, skipped = [], []
    for _ in range(16):
        used = [torch.full_like(weight, 1e4) for weight in step.model.parameters() for _ in range(4)]
        del used
        result = step(batch)
        losses.append(float(result.loss))
        assert result.grad_norm is not None
        skipped.append(not bool(result.grad_norm.isfinite()))
    assert skipped[0]
    assert not skipped[-1]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.gpu
def test_a_snapshot_from_before_fused_kernels(settings: Settings) -> None:
    """Its numbers of steps lie on the CPU, where a fused kernel does not find them."""
    settings = dataclasses.replace(settings, optimizer="AdamW", use_amp=False)
    plain, fused = (
        create_step(dataclasses.replace(settings, optimizer_params=params), torch.device("cuda"))
        for params in ({"foreach": False}, {})
    )
    batch = random_batch(4)
    plain(batch)
    fused.optimizer.load_state_dict(plain.optimizer.state_dict())
    fused.load_state_dict(plain.state_dict())
    fused.model.load_state_dict(plain.model.state_dict())
    for _ in range(2):
        assert torch.allclose(fused(batch).loss, plain(batch).loss, rtol=1e-3)


def random_batch(num_images: int) -> Batch:
    images = torch.randint(0, 256, (num_images, 1, 32, 32), dtype=torch.uint8)
    return Batch(images=images, targets=torch.randint(0, 2, (num_images, 11)).float())


def part(batch: Batch, start: int, end: int) -> Batch:
    return batch.map(lambda tensor: tensor[start:end])


def test_accumulation_equals_the_large_batch(settings: Settings) -> None:
    """For a model without batch norm; with the clipping, EMA and schedule of whole steps."""
    settings = dataclasses.replace(
        settings, backbone_model="test_convnext", optimizer="SGD", init_lr=0.1, clip_grad_norm=0.5, ema_decay=0.9
    )
    torch.manual_seed(1)
    batch = random_batch(24)
    large = create_step(dataclasses.replace(settings, batch_size=12))
    settings = dataclasses.replace(settings, batch_size=4, accumulation_steps=3)
    small = build_step(settings, create_step(settings).model, 6, CPU)
    for start in (0, 12):
        large_loss = large(part(batch, start, start + 12)).loss
        losses = [small(part(batch, i, i + 4)).loss for i in range(start, start + 12, 4)]
        assert torch.allclose(torch.stack(losses).mean(), large_loss, rtol=1e-5)
        assert small.learning_rate == large.learning_rate
    for (name, expected), got in zip(
        large.scored_model.state_dict().items(), small.scored_model.state_dict().values(), strict=True
    ):
        assert torch.allclose(got, expected, rtol=1e-4, atol=1e-6), name
    moved = small.scored_model.state_dict()["head.linear.weight"] - create_step(settings).model.head.linear.weight
    assert moved.abs().max() > 1e-3


def test_clipped_gradients_have_the_asked_norm(settings: Settings) -> None:
    """Plain gradient descent moves the weights by learning rate times gradient: its norm can be read from them."""
    changes = {"optimizer": "momentum", "optimizer_params": {"momentum": 0.0}, "warmup_epochs": 0, "init_lr": 0.5}
    batch = random_batch(4)
    moved = {}
    for norm in (None, 0.01, 1e6):
        step = create_step(dataclasses.replace(settings, clip_grad_norm=norm, **changes))
        before = torch.cat([value.detach().flatten().clone() for value in step.model.parameters()]).double()
        step(batch)
        after = torch.cat([value.detach().flatten() for value in step.model.parameters()]).double()
        moved[norm] = float((after - before).norm()) / 0.5
    assert moved[0.01] == pytest.approx(0.01, rel=1e-3)
    assert moved[None] > 0.05
    assert moved[1e6] == pytest.approx(moved[None], rel=1e-4)


def test_unscaling_comes_before_clipping(settings: Settings) -> None:
    """A gradient scaler multiplies the loss by a power of 2 and takes it out again: the same weights, to the bit."""
    settings = dataclasses.replace(
        settings, clip_grad_norm=0.05, accumulation_steps=2, optimizer="momentum", backbone_model="test_convnext"
    )
    torch.manual_seed(3)
    batches = [random_batch(4) for _ in range(4)]
    weights = []
    for scale in (None, 1024.0):
        step = create_step(settings)
        if scale is not None:
            step.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        for batch in batches:
            step(batch)
        weights.append(step.model.state_dict())
    for name, expected in weights[0].items():
        assert torch.equal(weights[1][name], expected), name


def test_a_step_with_mixup_is_one_on_mixed_batches(settings: Settings) -> None:
    """Batch after batch, with the number of the batch in the whole training."""
    mixed = create_step(dataclasses.replace(settings, mixup_alpha=0.5, seed=4))
    bare = create_step(dataclasses.replace(settings, seed=4))
    mixup = Mixup(0.5, seed=4)
    for number in range(3):
        batch = random_batch(4)
        assert torch.equal(mixed(batch).loss, bare(mixup(batch, number)).loss)


def test_ema_weights_by_hand(settings: Settings) -> None:
    """new = d old + (1 - d) weights, with d = min(ema_decay, 1 - n^(-2/3)) at step n, from 1."""
    step = create_step(dataclasses.replace(settings, ema_decay=0.5, init_lr=0.05))
    name = "head.linear.weight"
    expected = step.model.state_dict()[name].double()
    for n in range(1, 6):
        step(random_batch(4))
        decay = min(0.5, 1 - n ** (-2 / 3))
        expected = decay * expected + (1 - decay) * step.model.state_dict()[name].double()
    got = step.scored_model.state_dict()[name]
    assert torch.allclose(got.double(), expected, rtol=1e-5)
    assert not torch.allclose(got, step.model.state_dict()[name], rtol=1e-3)
    statistics = "backbone.bn1.running_mean"
    assert not torch.equal(step.scored_model.state_dict()[statistics], step.model.state_dict()[statistics])


def test_learning_rates_of_a_layer(settings: Settings) -> None:
    """With layer decay every group keeps its share of the learning rate, from warm-up to the end."""
    step = create_step(dataclasses.replace(settings, layer_decay=0.5))
    shares = [group["lr"] / settings.init_lr for group in step.optimizer.param_groups]
    assert {0.0625, 0.125, 0.25, 0.5, 1.0} == {round(share, 9) for share in shares}
    for _ in range(4):
        step(random_batch(2))
        rates = [group["lr"] for group in step.optimizer.param_groups]
        assert rates == pytest.approx([step.learning_rate * share for share in shares])


@pytest.mark.parametrize(
    "optimizer", ["Adam", "AdamW", "SGD", "LAMB", "Lion", "NAdamW", "RMSprop", "MADGRAD", "adafactor", "adan", "muon"]
)
def test_a_step_is_resumed_from_its_state(settings: Settings, optimizer: str) -> None:
    """Through a file that holds nothing but tensors and plain data; to the bit, in the middle of warm-up."""
    settings = dataclasses.replace(
        settings, optimizer=optimizer, ema_decay=0.9, mixup_alpha=0.3, drop_rate=0.2, layer_decay=0.8, init_lr=1e-3
    )
    torch.manual_seed(4)
    batches = [random_batch(4) for _ in range(5)]
    whole = create_step(settings)
    for batch in batches[:2]:
        whole(batch)
    file = io.BytesIO()
    torch.save([whole.model.state_dict(), whole.optimizer.state_dict(), whole.state_dict()], file)
    losses = [whole(batch).loss for batch in batches[2:]]
    torch.manual_seed(99)
    again = build_step(settings, build_classifier(settings, 0.5, 0.25), 2, CPU)
    file.seek(0)
    model, of_optimizer, state = torch.load(file, weights_only=True)
    again.model.load_state_dict(model)
    again.optimizer.load_state_dict(of_optimizer)
    again.load_state_dict(state)
    assert [again(batch).loss for batch in batches[2:]] == losses
    for expected, got in ((whole.model, again.model), (whole.scored_model, again.scored_model)):
        for name, value in expected.state_dict().items():
            assert torch.equal(value, got.state_dict()[name]), name
    assert again.learning_rate == whole.learning_rate


def test_a_state_of_a_device_without_scaler(settings: Settings) -> None:
    """A run that was started on a CPU may be resumed in mixed precision."""
    state = create_step(settings).state_dict()
    step = create_step(settings)
    step.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    step.load_state_dict(state)
    assert step.scaler.get_scale() == 8.0


@pytest.mark.gpu
def test_a_run_on_a_gpu_is_reproducible_and_resumed(cached: Settings) -> None:
    results = []
    for name, epochs in (("a", (2,)), ("b", (2,)), ("c", (1, 2))):
        settings = dataclasses.replace(cached, device="auto", run_name=name, folds=(1,), early_stop=0)
        for number in epochs:
            train_run(dataclasses.replace(settings, epochs=number), fresh=False)
        results.append((settings.run_folder / "predictions.csv").read_bytes())
    assert results[0] == results[1] == results[2]


def test_draws_of_layers_follow_from_seed_and_batch(settings: Settings) -> None:
    """Not from what was drawn before, nor from another rank's share."""
    settings = dataclasses.replace(settings, drop_rate=0.5, init_lr=1e-30, min_lr=0.0)
    batch = random_batch(4)
    losses = []
    for seed, rank, num_before in ((0, 0, 0), (0, 0, 3), (1, 0, 0), (0, 1, 0)):
        step = create_step(dataclasses.replace(settings, seed=seed))
        step.processes = Processes(rank, 1)
        torch.rand(7 * num_before)
        losses.append(float(step(batch).loss))
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


def test_mixed_precision_is_off_on_a_cpu() -> None:
    assert choose_dtype(True, "float16", CPU) is None
    gpu = torch.device("cuda")
    assert choose_dtype(False, "float16", gpu) is None
    assert choose_dtype(True, "float16", gpu) == torch.float16
    assert choose_dtype(True, "bfloat16", gpu) == torch.bfloat16


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_mixed_precision_learns_on_a_gpu(settings: Settings, dtype: str) -> None:
    settings = dataclasses.replace(settings, amp_dtype=dtype, use_amp=True, clip_grad_norm=1.0)
    step = create_step(settings, torch.device("cuda"))
    batch = random_batch(8)
    scaler = step.scaler
    losses = [float(step(batch).loss) for _ in range(30)]
    assert step.scaler is scaler
    assert scaler.is_enabled() == (dtype == "float16")
    assert losses[-1] < losses[0]
