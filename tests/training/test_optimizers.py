"""Optimizers of timm's factory: their kind, their groups, what is refused, and steps that are skipped."""

import dataclasses
import math

import pytest
import torch
from timm.optim import Lamb, list_optimizers

from catheters.checkpoints.parts import build_classifier
from catheters.config.settings import Settings
from catheters.errors import SettingsError
from catheters.models.classifier import Classifier
from catheters.runs.build import build_optimizer, build_step

FUSED_UNASKED = ["adagrad", "adam", "adamw", "momentum", "nesterov", "sgd"]


def create(settings: Settings) -> tuple[Classifier, torch.optim.Optimizer]:
    model = build_classifier(settings, 0.5, 0.25)
    return model, build_optimizer(settings, model)


def settings_by_name(settings: Settings, values: dict[str, object]) -> Settings:
    return dataclasses.replace(settings, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "kind", "defaults"),
    [
        ("Adam", torch.optim.Adam, {"betas": (0.9, 0.999)}),
        ("AdamW", torch.optim.AdamW, {"betas": (0.9, 0.999)}),
        ("SGD", torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        ("momentum", torch.optim.SGD, {"momentum": 0.9, "nesterov": False}),
        ("LAMB", Lamb, {"betas": (0.9, 0.999)}),
    ],
)
def test_names(settings: Settings, name: str, kind: type, defaults: dict[str, object]) -> None:
    _, optimizer = create(dataclasses.replace(settings, optimizer=name, init_lr=0.02))
    assert type(optimizer) is kind
    for group in optimizer.param_groups:
        assert group["lr"] == 0.02
        assert {key: group[key] for key in defaults} == defaults


def test_params_are_passed_on(settings: Settings) -> None:
    _, optimizer = create(
        dataclasses.replace(settings, optimizer="AdamW", optimizer_params={"betas": (0.8, 0.9), "eps": 1e-5})
    )
    assert all(group["betas"] == (0.8, 0.9) and group["eps"] == 1e-5 for group in optimizer.param_groups)


@pytest.mark.parametrize("layer_decay", [None, 0.7])
@pytest.mark.parametrize("classifier", ["linear", "attention"])
@pytest.mark.parametrize("backbone_model", ["test_resnet", "test_vit"])
def test_norms_and_biases_do_not_decay(
    settings: Settings, backbone_model: str, classifier: str, layer_decay: float | None
) -> None:
    settings = settings_by_name(
        settings,
        {
            "backbone_model": backbone_model,
            "classifier": classifier,
            "weight_decay": 0.1,
            "layer_decay": layer_decay,
            "image_size": 160,
        },
    )
    model, optimizer = create(settings)
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    decay = {name_of[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        is_exempt = parameter.ndim == 1 or name.endswith("bias") or name in ("backbone.pos_embed", "backbone.cls_token")
        assert decay[name] == (0.0 if is_exempt else 0.1), name


def test_layers_learn_slower_towards_the_stem(settings: Settings) -> None:
    model, optimizer = create(dataclasses.replace(settings, layer_decay=0.5, init_lr=1.0))
    rate_of = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    rates = {name: rate_of[id(parameter)] for name, parameter in model.named_parameters()}
    # One block in each of four stages, above them the head, below them the stem.
    assert rates["head.linear.weight"] == rates["backbone.layer4.0.conv1.weight"] == 1.0
    assert rates["backbone.layer3.0.bn1.bias"] == 0.5
    assert rates["backbone.layer2.0.conv1.weight"] == 0.25
    assert rates["backbone.layer1.0.conv1.weight"] == 0.125
    assert rates["backbone.conv1.0.weight"] == rates["backbone.bn1.weight"] == 0.0625


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "Adan2"}, "optimizer: 'Adan2' is not an optimizer of timm; did you mean 'adan'"),
        ({"optimizer_params": {"moment": 1}}, "optimizer=Adam, optimizer_params={'moment': 1}: "),
        (
            {"optimizer_params": {"weight_decay": 0.5}},
            "optimizer_params: 'weight_decay' is decided by the setting w",
        ),
        ({"optimizer_params": {"lr": 0.5}}, "optimizer_params: 'lr' is decided by the setting init_lr"),
        (
            {"optimizer_params": {"momentum": 0.5}},
            "optimizer_params: 'momentum' is not a parameter of Adam; there are",
        ),
        ({"optimizer_params": {"betas": (2.0, 0.9)}}, "Invalid beta parameter"),
        (
            {"optimizer": "momentum", "optimizer_params": {"momentum": 0.9, "dampening": 0.1, "fused": True}},
            "fused=True has no right first step with momentum and dampening",
        ),
    ],
)
def test_refusals(settings: Settings, changes: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError) as error:
        create(settings_by_name(settings, changes))
    assert message in str(error.value)


@pytest.mark.filterwarnings("ignore:It is highly recommended to have 'opt_einsum' installed")
def test_what_is_fused_unasked(settings: Settings) -> None:
    """Nothing but what the tests below hold for, and all of those."""
    needs_gpu = ("bnb", "fused")  # of NVIDIA's apex and of bitsandbytes
    names = [name for name in list_optimizers() if not name.startswith(needs_gpu)]
    optimizers = {name: create(dataclasses.replace(settings, optimizer=name))[1] for name in names}
    assert [name for name, optimizer in optimizers.items() if optimizer.defaults.get("fused")] == FUSED_UNASKED


@pytest.mark.parametrize(
    ("name", "params"),
    [
        *((name, {}) for name in FUSED_UNASKED),
        ("momentum", {"momentum": 0.0}),
        ("momentum", {"momentum": 0.9, "dampening": 0.1}),  # not fused
        ("sgd", {"fused": True}),
    ],
)
def test_a_skipped_step_changes_nothing(settings: Settings, name: str, params: dict[str, object]) -> None:
    """The first one too, although memory is full of what was there before; accepted steps equal the plain loop's."""
    plain = {"foreach": False, **{key: value for key, value in params.items() if key != "fused"}}
    changes = {"optimizer": name, "weight_decay": 0.01, "init_lr": 0.01}
    pairs = [create(settings_by_name(settings, {**changes, "optimizer_params": of})) for of in (params, plain)]
    weights, expected = (list(model.parameters()) for model, _ in pairs)
    expected_weights = dict(zip(weights, expected, strict=True))
    for weight, other in expected_weights.items():
        other.data.copy_(weight.data)
    scalers = [torch.amp.GradScaler("cpu", init_scale=1024.0) for _ in pairs]
    torch.manual_seed(3)
    for number, is_skipped in enumerate((True, True, False, False, True, False)):
        weights_before = [weight.detach().clone() for weight in weights]
        state_before = {key: value.clone() for key, value in tensors_of_state(pairs[0][1], weights).items()}
        scale = float(scalers[0].scale(torch.ones(())))
        scalers[1].scale(torch.ones(()))
        for weight, other in expected_weights.items():
            weight.grad = torch.randn_like(weight) * scale
            other.grad = weight.grad.clone()
        if is_skipped:
            expected[0].grad[0] = weights[0].grad[0] = math.inf  # type: ignore[index]
        used = [torch.full_like(weight, 1e4) for weight in weights for _ in range(4)]
        del used
        for (_, optimizer), scaler in zip(pairs, scalers, strict=True):
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
        if is_skipped:
            assert all(map(torch.equal, weights, weights_before))
            for key, value in tensors_of_state(pairs[0][1], weights).items():
                # A state that is created in a skipped step is zeros.
                assert torch.equal(value, state_before.get(key, torch.zeros_like(value))), (number, key)
        for weight, other in expected_weights.items():
            torch.testing.assert_close(weight, other, rtol=1e-5, atol=1e-7)


def tensors_of_state(optimizer: torch.optim.Optimizer, weights: list[torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    return {
        f"{number}.{name}": value
        for number, weight in enumerate(weights)
        for name, value in optimizer.state.get(weight, {}).items()
        if isinstance(value, torch.Tensor)
    }


def test_a_snapshot_of_skipped_steps_alone(settings: Settings) -> None:
    """One of a plain optimizer has no momentum yet: the fused one that resumes from it starts with zeros."""
    steps = []
    for params in ({"foreach": False}, {}):
        torch.manual_seed(0)
        changed = settings_by_name(settings, {"optimizer": "SGD", "optimizer_params": params})
        steps.append(build_step(changed, build_classifier(changed, 0.5, 0.25), 2, torch.device("cpu")))
    plain, fused = steps
    fused.optimizer.load_state_dict(plain.optimizer.state_dict())
    fused.load_state_dict(plain.state_dict())
    momenta = [fused.optimizer.state[weight]["momentum_buffer"] for weight in fused.model.parameters()]
    assert momenta
    assert not any(momentum.any() for momentum in momenta)
