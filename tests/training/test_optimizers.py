"""Optimizers of timm's factory: their kind, their groups, and what is refused."""

import dataclasses

import pytest
import torch
from timm.optim import Lamb

from catheters.errors import SettingsError
from catheters.models.classifier import Classifier, create_classifier
from catheters.settings import Settings
from catheters.training.optimizers import create_optimizer


def create(settings: Settings) -> tuple[Classifier, torch.optim.Optimizer]:
    model = create_classifier(settings, 0.5, 0.25)
    return model, create_optimizer(settings, model)


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
    ],
)
def test_refusals(settings: Settings, changes: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError) as error:
        create(settings_by_name(settings, changes))
    assert message in str(error.value)
