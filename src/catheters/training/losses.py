"""Losses over (B, K) logits and targets: each label by itself, since an X-ray can have several labels of one device.

Every loss is the mean over all elements, and `pos_weight` multiplies the positives' term. A new one is a module here
and a line in `LOSSES`.
"""

import inspect
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from catheters.data.batch import Batch
from catheters.errors import SettingsError, look_up, unknown_name
from catheters.models.outputs import Outputs
from catheters.settings import Settings

SMALLEST = 1e-12
"""Least base of a power: that of 0 has no finite gradient where the exponent is below 1."""


class BinaryCrossEntropy(nn.BCEWithLogitsLoss):
    """Binary cross-entropy."""

    def __init__(self, pos_weight: Tensor) -> None:
        """Weigh positives by `pos_weight`, (K,)."""
        super().__init__(pos_weight=pos_weight)


class FocalLoss(nn.Module):
    """Binary cross-entropy that counts well classified elements less.

    Lin et al. 2017, "Focal Loss for Dense Object Detection", eq. 5: -alpha_t (1 - p_t)^gamma log(p_t), averaged.
    """

    pos_weight: Tensor

    def __init__(self, pos_weight: Tensor, *, gamma: float = 2.0, alpha: float | None = None) -> None:
        """Set the loss up.

        Args:
            pos_weight: (K,) weights of the positives.
            gamma: 0 makes it binary cross-entropy.
            alpha: weight of the positives against 1 - alpha of the negatives; None: both count alike.

        Raises:
            ValueError: a value that the formula has no meaning for.
        """
        if gamma < 0 or not (alpha is None or 0 <= alpha <= 1):
            raise ValueError(f"gamma={gamma}, alpha={alpha}: gamma of at least 0 and alpha in 0..1 are expected")
        super().__init__()
        self.register_buffer("pos_weight", pos_weight)
        self.gamma = gamma
        self.alpha = alpha

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B, K), (B, K) -> scalar."""
        logits = logits.float()
        cross_entropy = functional.binary_cross_entropy_with_logits(
            logits, targets, pos_weight=self.pos_weight, reduction="none"
        )
        probabilities = torch.sigmoid(logits)
        of_the_truth = probabilities * targets + (1 - probabilities) * (1 - targets)  # p_t
        losses = (1 - of_the_truth).clamp(min=SMALLEST) ** self.gamma * cross_entropy
        if self.alpha is not None:
            losses = (self.alpha * targets + (1 - self.alpha) * (1 - targets)) * losses
        return losses.mean()


class AsymmetricLoss(nn.Module):
    """Binary cross-entropy that focuses positives and negatives differently and drops easy negatives.

    Ridnik et al. 2021, "Asymmetric Loss For Multi-Label Classification", eq. 2 to 7; there summed, here averaged.
    """

    pos_weight: Tensor

    def __init__(
        self, pos_weight: Tensor, *, gamma_neg: float = 4.0, gamma_pos: float = 1.0, clip: float = 0.05
    ) -> None:
        """Set the loss up.

        Args:
            pos_weight: (K,) weights of the positives.
            gamma_neg: focusing of the negatives.
            gamma_pos: focusing of the positives.
            clip: taken off a negative's probability, so that those below it count nothing.

        Raises:
            ValueError: a value that the formula has no meaning for.
        """
        if min(gamma_neg, gamma_pos) < 0 or not 0 <= clip < 1:
            raise ValueError(
                f"gamma_neg={gamma_neg}, gamma_pos={gamma_pos}, clip={clip}: gammas of at least 0 and clip in 0..1 are "
                "expected"
            )
        super().__init__()
        self.register_buffer("pos_weight", pos_weight)
        self.gamma_neg = gamma_neg
        self.gamma_pos = gamma_pos
        self.clip = clip

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B, K), (B, K) -> scalar."""
        logits = logits.float()
        probabilities = torch.sigmoid(logits)
        shifted = (probabilities - self.clip).clamp(min=0)
        # Without a shift the logarithm comes from the logit, which a probability near 1 no longer holds.
        log_negative = torch.log1p(-shifted) if self.clip > 0 else functional.logsigmoid(-logits)
        easy = (1 - probabilities).clamp(min=SMALLEST)
        positive = self.pos_weight * easy**self.gamma_pos * functional.logsigmoid(logits)
        negative = shifted.clamp(min=SMALLEST) ** self.gamma_neg * log_negative
        return -(targets * positive + (1 - targets) * negative).mean()


class LabelSmoothing(nn.Module):
    """Moves the targets of each label towards one half before another loss sees them.

    Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7, for two classes: y -> y (1 - s) + s / 2.
    """

    smoothing: Tensor

    def __init__(self, loss: nn.Module, smoothing: Tensor) -> None:
        """Smooth the targets of `loss` by `smoothing`, (K,) in 0..1."""
        super().__init__()
        self.loss = loss
        self.register_buffer("smoothing", smoothing)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B, K), (B, K) -> scalar."""
        smoothed: Tensor = self.loss(logits, targets * (1 - self.smoothing) + self.smoothing / 2)
        return smoothed


LOSSES: Mapping[str, type[nn.Module]] = {
    "bce": BinaryCrossEntropy,
    "focal": FocalLoss,
    "asymmetric": AsymmetricLoss,
}


class Losses(nn.Module):
    """What a model is trained by: a scalar for each kind of its outputs, by name."""

    def __init__(self, labels: nn.Module) -> None:
        """Take the loss of the labels, (B, K) logits, (B, K) targets -> scalar."""
        super().__init__()
        self.labels = labels

    def forward(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Outputs of a batch -> name -> scalar, to be summed by `total`."""
        return {"labels": self.labels(outputs.logits, batch.targets)}


def total(losses: Mapping[str, Tensor]) -> Tensor:
    """The scalar whose gradient moves the weights."""
    return torch.stack(list(losses.values())).sum() if len(losses) > 1 else next(iter(losses.values()))


def create_losses(settings: Settings) -> Losses:
    """The losses that the settings name.

    Raises:
        SettingsError: no such loss, or a parameter that it does not have or allow.
    """
    loss_class = look_up(LOSSES, settings.loss_func, "loss_func")
    known = [name for name in inspect.signature(loss_class).parameters if name != "pos_weight"]
    for name in settings.loss_params:
        if name not in known:
            kind = f"a parameter of {settings.loss_func}"
            raise SettingsError(f"loss_params: {unknown_name(name, kind, known or ['none'])}")
    try:
        loss = loss_class(_of_labels(settings, settings.pos_weight, 1.0), **settings.loss_params)
    except ValueError as error:
        raise SettingsError(f"loss_params: {error}") from None
    if settings.label_smoothing:
        loss = LabelSmoothing(loss, _of_labels(settings, settings.label_smoothing, 0.0))
    return Losses(loss)


def _of_labels(settings: Settings, values: Mapping[str, float], default: float) -> Tensor:
    """(K,) float32 in label order."""
    return torch.tensor([values.get(label, default) for label in settings.label_columns])
