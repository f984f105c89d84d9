"""Optimizers: those of timm's factory, with parameter groups for weight decay and layer-wise learning rates."""

import functools
from collections.abc import Mapping
from typing import Any

import torch
from timm.optim import create_optimizer_v2, list_optimizers, param_groups_layer_decay, param_groups_weight_decay

from catheters.errors import SettingsError, one_line, unknown_name
from catheters.models.classifier import Classifier

OF_SETTINGS = {
    "lr": "the setting init_lr",
    "weight_decay": "the setting weight_decay",
    "layer_decay": "the setting layer_decay",
    "filter_bias_and_bn": "the program: norms and biases do not decay",
    "param_group_fn": "the program",
}
"""Arguments of timm's factory that are no parameters of an optimizer, and what stands for them."""

KERNEL_CHOICES = {"foreach", "fused", "capturable", "differentiable"}
"""Parameters of torch's optimizers by which a user has chosen how the step is computed."""

FUSED_UNASKED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad, torch.optim.SGD)
"""Optimizers whose fused kernel leaves weights and state alone where the gradient scaler skips a step, the first one
too; of SGD that is so with the zeros of `create_momentum`."""


def check_optimizer(name: str, params: Mapping[str, Any]) -> None:
    """Raise a SettingsError unless timm has an optimizer of this name, and its parameters are no settings' matter."""
    known = list_optimizers()
    if name.lower() not in known:
        raise SettingsError(f"optimizer: {unknown_name(name, 'an optimizer of timm', known)}")
    for param, setting in OF_SETTINGS.items():
        if param in params:
            raise SettingsError(f"optimizer_params: '{param}' is decided by {setting}")


def create_optimizer(
    model: Classifier,
    name: str,
    params: Mapping[str, Any],
    *,
    init_lr: float,
    weight_decay: float,
    layer_decay: float | None,
) -> torch.optim.Optimizer:
    """The optimizer of this name, with these parameters of its own, of a model's parameters at `init_lr`.

    Norms and biases get no weight decay. With `layer_decay` d, a parameter of the backbone that timm counts n layers
    below the backbone's last learns at `init_lr` d^n, head and line decoder at `init_lr`.

    Raises:
        SettingsError: no such optimizer, or a parameter that it does not take.
    """
    check_optimizer(name, params)
    groups = functools.partial(_group_parameters, model, init_lr, weight_decay, layer_decay)
    try:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(groups(), name, lr=init_lr, **params)
        is_chosen = bool(KERNEL_CHOICES & params.keys())
        if type(optimizer) in FUSED_UNASKED and not is_chosen and not _is_dampened(optimizer):
            # One pass over the weights where torch's default makes several; on a GPU it also reads whether the gradient
            # scaler skips the step there, where the CPU would wait for the result. The rule is the same.
            optimizer = create_optimizer_v2(groups(), name, lr=init_lr, **params, fused=True)
    except (TypeError, ValueError, AssertionError, ImportError) as error:
        raise SettingsError(f"optimizer={name}, optimizer_params={params}: {one_line(error)}") from error
    for param in params:
        if param not in optimizer.defaults:  # timm passes over what its optimizer does not know
            kind = f"a parameter of {name}"
            raise SettingsError(f"optimizer_params: {unknown_name(param, kind, optimizer.defaults)}")
    if optimizer.defaults.get("fused") and _is_dampened(optimizer):
        raise SettingsError(
            "optimizer_params: fused=True has no right first step with momentum and dampening where float16's gradient "
            "scaler skips it; leave fused or dampening out"
        )
    create_momentum(optimizer)
    return optimizer


def create_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Let torch's fused SGD start with a momentum of zeros where it has none; others are left alone.

    By itself it takes raw memory, which its first step writes over. Where the gradient scaler skips that step the
    memory stays, and the next one adds it to the weights. With zeros the first step is the same, since it makes the
    momentum momentum * 0 + gradient.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        if group["fused"] and group["momentum"]:
            for parameter in group["params"]:
                if optimizer.state[parameter].get("momentum_buffer") is None:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _is_dampened(optimizer: torch.optim.Optimizer) -> bool:
    """Whether SGD's first step differs from the later ones, so that a momentum of zeros would be wrong."""
    return bool(optimizer.defaults.get("momentum") and optimizer.defaults.get("dampening"))


def _group_parameters(
    model: Classifier, init_lr: float, weight_decay: float, layer_decay: float | None
) -> list[dict[str, Any]]:
    """Groups of parameters with their `weight_decay` and `lr`."""
    # What the parts themselves ask to leave alone, such as position embeddings.
    of_backbone: set[str] = getattr(model.backbone, "no_weight_decay", set)()
    of_head: set[str] = getattr(model.head, "no_weight_decay", set)()
    groups: list[dict[str, Any]]
    if layer_decay is None:
        exempt = {f"backbone.{name}" for name in of_backbone} | {f"head.{name}" for name in of_head}
        groups = param_groups_weight_decay(model, weight_decay, no_weight_decay_list=exempt)
    else:
        groups = param_groups_layer_decay(model.backbone, weight_decay, of_backbone, layer_decay=layer_decay)
        groups += param_groups_weight_decay(model.head, weight_decay, no_weight_decay_list=of_head)
        for part in (model.decoder, model.pooled_head):
            groups += [] if part is None else param_groups_weight_decay(part, weight_decay)
    for group in groups:
        # timm's own schedulers apply the scale at each step; a learning rate per group needs nothing further.
        group["lr"] = init_lr * group.pop("lr_scale", 1.0)
    return groups
