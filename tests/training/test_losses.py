"""Losses against values worked out from their definitions in float64."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from catheters.config.settings import Settings
from catheters.data.batch import Batch
from catheters.errors import SettingsError
from catheters.models.outputs import Outputs
from catheters.runs.build import build_losses
from catheters.training.losses import LOSSES, Losses

LABELS = ("a", "b")
LOGITS = [[0.3, -1.2], [2.0, 0.7], [-3.5, 9.0]]
TARGETS = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
WEIGHTS = {"b": 2.0}


def mean_loss(element: Callable[[float, float, float], float], targets: list[list[float]] = TARGETS) -> float:
    """The mean over all elements of element(probability, target, weight of a positive)."""
    total = 0.0
    for logit_row, target_row in zip(LOGITS, targets, strict=True):
        for weight, logit, target in zip((1.0, 2.0), logit_row, target_row, strict=True):
            total += element(1 / (1 + math.exp(-logit)), target, weight)
    return total / 6


def measured(**changes: Any) -> float:
    settings = Settings(label_columns=LABELS, pos_weight=WEIGHTS, **changes)
    return float(losses_of(build_losses(settings))["labels"])


def losses_of(losses: Losses, weights: list[float] | None = None) -> dict[str, torch.Tensor]:
    """The terms of the three images, which weigh 1 where no weights are given."""
    numbers = {} if weights is None else {"weight": torch.tensor(weights)}
    batch = Batch(images=torch.zeros(3), targets=torch.tensor(TARGETS), numbers=numbers)
    terms: dict[str, torch.Tensor] = losses(Outputs(logits=torch.tensor(LOGITS)), batch)
    return terms


def cross_entropy(p: float, y: float, w: float) -> float:
    return -w * y * math.log(p) - (1 - y) * math.log(1 - p)


def test_bce_with_pos_weight() -> None:
    assert measured() == pytest.approx(mean_loss(cross_entropy), rel=1e-6)


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, None), (1.5, 0.25), (0.0, 0.6)])
def test_focal_is_element_wise(gamma: float, alpha: float | None) -> None:
    def element(p: float, y: float, w: float) -> float:
        p_t = p if y else 1 - p
        alpha_t = 1.0 if alpha is None else (alpha if y else 1 - alpha)
        return alpha_t * (1 - p_t) ** gamma * cross_entropy(p, y, w)

    params = {"gamma": gamma} if alpha is None else {"gamma": gamma, "alpha": alpha}
    assert measured(loss_func="focal", loss_params=params) == pytest.approx(mean_loss(element), rel=1e-5)


def test_focal_with_gamma_0_is_bce() -> None:
    assert measured(loss_func="focal", loss_params={"gamma": 0.0}) == pytest.approx(measured(), rel=1e-6)


@pytest.mark.parametrize(("gamma_neg", "gamma_pos", "clip"), [(4.0, 1.0, 0.05), (2.0, 0.0, 0.3), (3.0, 1.0, 0.0)])
def test_asymmetric(gamma_neg: float, gamma_pos: float, clip: float) -> None:
    def element(p: float, y: float, w: float) -> float:
        shifted = max(p - clip, 0.0)
        positive = w * (1 - p) ** gamma_pos * math.log(p)
        return -y * positive - (1 - y) * shifted**gamma_neg * math.log(1 - shifted)

    params = {"gamma_neg": gamma_neg, "gamma_pos": gamma_pos, "clip": clip}
    assert measured(loss_func="asymmetric", loss_params=params) == pytest.approx(mean_loss(element), rel=1e-5)


def test_asymmetric_without_focus_is_bce() -> None:
    params = {"gamma_neg": 0.0, "gamma_pos": 0.0, "clip": 0.0}
    assert measured(loss_func="asymmetric", loss_params=params) == pytest.approx(measured(), rel=1e-6)


@pytest.mark.parametrize(
    ("loss_func", "params"),
    [
        ("bce", {}),
        ("focal", {}),
        ("focal", {"gamma": 0.5}),
        ("asymmetric", {}),
        ("asymmetric", {"clip": 0.0}),
        ("asymmetric", {"gamma_neg": 0.5, "gamma_pos": 0.5}),
    ],
)
def test_extreme_logits_stay_finite(loss_func: str, params: dict[str, float]) -> None:
    loss = build_losses(Settings(label_columns=LABELS, loss_func=loss_func, loss_params=params))
    logits = torch.tensor([[80.0, -80.0], [-80.0, 80.0]], requires_grad=True)
    value = loss.labels(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    value.backward()
    assert torch.isfinite(value)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_label_smoothing_of_one_label() -> None:
    smoothed = [[row[0], row[1] * 0.8 + 0.1] for row in TARGETS]
    assert measured(label_smoothing={"b": 0.2}) == pytest.approx(mean_loss(cross_entropy, smoothed), rel=1e-6)


def test_unknown_loss_and_parameter() -> None:
    with pytest.raises(SettingsError, match="loss_func: 'bcee' is not known; did you mean 'bce'"):
        build_losses(Settings(loss_func="bcee"))
    with pytest.raises(SettingsError, match="loss_params: 'gama' is not a parameter of focal; did you mean 'gamma'"):
        build_losses(Settings(loss_func="focal", loss_params={"gama": 1.0}))
    with pytest.raises(SettingsError, match="loss_params: 'gamma' is not a parameter of bce; there are: none"):
        build_losses(Settings(loss_params={"gamma": 1.0}))


@pytest.mark.parametrize(
    ("loss_func", "params", "message"),
    [
        ("focal", {"gamma": -1.0}, "loss_params: gamma=-1.0, alpha=None: gamma of at least 0"),
        ("focal", {"alpha": 1.5}, "alpha=1.5: gamma of at least 0 and alpha in 0..1 are expected"),
        ("asymmetric", {"clip": 1.0}, "loss_params: gamma_neg=4.0, gamma_pos=1.0, clip=1.0: "),
        ("asymmetric", {"gamma_neg": -0.5}, "gamma_neg=-0.5"),
    ],
)
def test_impossible_parameters(loss_func: str, params: dict[str, float], message: str) -> None:
    with pytest.raises(SettingsError) as error:
        build_losses(Settings(loss_func=loss_func, loss_params=params))
    assert message in str(error.value)


@pytest.mark.parametrize("loss_func", LOSSES)
def test_a_weight_multiplies_the_loss_of_its_image(loss_func: str) -> None:
    """By itself an image has its loss; together they have the mean of the weighted ones."""
    losses = build_losses(Settings(label_columns=LABELS, pos_weight=WEIGHTS, loss_func=loss_func))
    alone = [float(losses_of(losses, [float(row == other) for other in range(3)])["labels"]) for row in range(3)]
    assert sum(alone) == pytest.approx(float(losses_of(losses)["labels"]), rel=1e-6)
    weighted = float(losses_of(losses, [0.5, 0.0, 3.0])["labels"])
    assert weighted == pytest.approx(0.5 * alone[0] + 3 * alone[2], rel=1e-6)


def test_a_weight_multiplies_the_loss_of_a_group() -> None:
    losses = build_losses(Settings(label_columns=LABELS, exclusive={"both": LABELS}))
    alone = [float(losses_of(losses, [float(row == other) for other in range(3)])["both"]) for row in range(3)]
    assert float(losses_of(losses, [2.0, 1.0, 0.0])["both"]) == pytest.approx(2 * alone[0] + alone[1], rel=1e-6)
