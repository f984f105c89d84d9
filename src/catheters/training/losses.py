"""Losses over (B, K) logits and targets.

Each label is learnt by itself, since an X-ray can have several labels of one device type. Every loss is the mean over
all elements. `pos_weight` multiplies the positives' term (class imbalance), the setting `weight_column` those of an
image, and 0 those of an unknown label. So a batch counts by what is known of it, and gradients of accumulated batches,
or of several ranks, add up to those of the whole. A new one is a module here and a line in `LOSSES`. Labels that
exclude each other have a softmax instead, see `SoftmaxCrossEntropy`.
"""

import inspect
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from catheters.config.settings import IMAGE_WEIGHT
from catheters.config.validation import GLOBAL_TERM, LABELS_TERM
from catheters.data.batch import Batch
from catheters.errors import SettingsError, look_up, unknown_name
from catheters.models.outputs import Outputs
from catheters.training.line_losses import LineLosses

SMALLEST = 1e-12
"""Least base of a power: that of 0 has no finite gradient where the exponent is below 1."""


def mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    """The mean of losses, each multiplied by its weight, of a shape that they broadcast with; None: all weigh 1."""
    return losses.mean() if weights is None else (losses * weights).mean()


class BinaryCrossEntropy(nn.Module):
    """Binary cross-entropy."""

    pos_weight: Tensor

    def __init__(self, pos_weight: Tensor) -> None:
        """Weigh positives by `pos_weight`, (K,)."""
        super().__init__()
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """(B, K), (B, K), weights (B, K) -> scalar."""
        return functional.binary_cross_entropy_with_logits(logits, targets, weights, pos_weight=self.pos_weight)


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

    def forward(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """(B, K), (B, K), weights (B, K) -> scalar."""
        cross_entropy = functional.binary_cross_entropy_with_logits(
            logits, targets, pos_weight=self.pos_weight, reduction="none"
        )
        probabilities = torch.sigmoid(logits)
        of_the_truth = probabilities * targets + (1 - probabilities) * (1 - targets)  # p_t
        losses = (1 - of_the_truth).clamp(min=SMALLEST) ** self.gamma * cross_entropy
        if self.alpha is not None:
            losses = (self.alpha * targets + (1 - self.alpha) * (1 - targets)) * losses
        return mean(losses, weights)


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

    def forward(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """(B, K), (B, K), weights (B, K) -> scalar."""
        probabilities = torch.sigmoid(logits)
        shifted = (probabilities - self.clip).clamp(min=0)
        # Without a shift the logarithm comes from the logit, which a probability near 1 no longer holds.
        log_negative = torch.log1p(-shifted) if self.clip > 0 else functional.logsigmoid(-logits)
        easy = (1 - probabilities).clamp(min=SMALLEST)
        positive = self.pos_weight * easy**self.gamma_pos * functional.logsigmoid(logits)
        negative = shifted.clamp(min=SMALLEST) ** self.gamma_neg * log_negative
        return -mean(targets * positive + (1 - targets) * negative, weights)


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

    def forward(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """(B, K), (B, K), weights (B, K) -> scalar."""
        smoothed: Tensor = self.loss(logits, targets * (1 - self.smoothing) + self.smoothing / 2, weights)
        return smoothed


class SoftmaxCrossEntropy(nn.Module):
    """Cross-entropy over labels that exclude each other and a further class, none of them, whose logit is 0.

    Of one label this is binary cross-entropy. With `gamma` a class that is well classified counts less, as in focal
    loss: -(1 - p)^gamma log(p), weighted by each class's share of the target.
    """

    weights: Tensor
    columns: Tensor

    def __init__(self, columns: Sequence[int], pos_weight: Tensor, smoothing: float, gamma: float = 0.0) -> None:
        """Set the loss up.

        Args:
            columns: (m,) those of the labels among all.
            pos_weight: (m,) weights of the labels' terms; that of none of them has 1.
            smoothing: share of the target that is spread over all m + 1 classes, in 0..1.
            gamma: of focal loss; 0: cross-entropy.
        """
        super().__init__()
        self.register_buffer("columns", torch.tensor(columns), persistent=False)
        self.register_buffer("weights", torch.cat([torch.ones(1), pos_weight]))
        self.smoothing = smoothing
        self.gamma = gamma

    def forward(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """(B, K), (B, K) targets of which those of the group sum to 1 at most, weights (B, K) -> scalar.

        The group has the least weight of its labels: where one of them is unknown it is.
        """
        logits, targets = logits.index_select(1, self.columns), targets.index_select(1, self.columns)
        if weights is not None:
            weights = weights.index_select(1, self.columns).amin(1)
        log_probabilities = torch.log_softmax(torch.cat([torch.zeros_like(logits[:, :1]), logits], 1), 1)
        truth = torch.cat([1 - targets.sum(1, keepdim=True), targets], 1)
        truth = truth * (1 - self.smoothing) + self.smoothing / truth.shape[1]
        losses = -self.weights * truth * log_probabilities
        if self.gamma > 0:
            losses = (1 - log_probabilities.exp()).clamp(min=SMALLEST) ** self.gamma * losses
        return mean(losses.sum(1), weights)


LOSSES: Mapping[str, type[nn.Module]] = {
    "bce": BinaryCrossEntropy,
    "focal": FocalLoss,
    "asymmetric": AsymmetricLoss,
}

SOFTMAX_LOSSES: Mapping[str, float] = MappingProxyType({"bce": 0.0, "focal": 2.0})
"""Those of `LOSSES` that have a form for exclusive labels, and its `gamma`."""


class Losses(nn.Module):
    """What a model is trained by: a scalar for each kind of its outputs, by name.

    Each label by itself and each exclusive group is a decision; a term is the sum over its decisions, divided by K, the
    number of labels, so that a label weighs the same whatever is exclusive beside it.
    """

    ungrouped: Tensor

    def __init__(
        self,
        num_labels: int,
        labels: nn.Module | None,
        groups: Mapping[str, SoftmaxCrossEntropy] = MappingProxyType({}),
        weights: Mapping[str, float] = MappingProxyType({}),
        lines: LineLosses | None = None,
    ) -> None:
        """Put the terms together.

        Args:
            num_labels: K.
            labels: the loss of the labels that are in no group; None where there are none.
            groups: name -> loss of an exclusive group.
            weights: term -> what it is multiplied by; 1 for others.
            lines: those of the line decoder; None: the model has none.
        """
        super().__init__()
        self.labels = labels
        self.groups = nn.ModuleList(groups.values())
        self._names = tuple(groups)
        in_groups = {int(column) for group in groups.values() for column in group.columns}
        # On the device: an index from elsewhere would make each step wait for it.
        ungrouped = torch.tensor([column for column in range(num_labels) if column not in in_groups], dtype=torch.long)
        self.register_buffer("ungrouped", ungrouped, persistent=False)
        self._num_labels = num_labels
        self._weights = dict(weights)
        self.lines = lines

    def forward(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Outputs of a batch -> name -> float32 scalar, to be summed by `total`.

        Float32 whatever the model computes in, and inside a region of autocast too: which functions autocast takes to
        float32 differs from device to device, and float16 ends at 65,504.
        """
        with torch.autocast(outputs.logits.device.type, enabled=False):
            return self._in_float32(outputs.in_float32(), batch)

    def _in_float32(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        of_images = batch.numbers.get(IMAGE_WEIGHT)
        weights = None if of_images is None else of_images[:, None].expand_as(batch.targets)
        if batch.labels_known is not None:
            weights = batch.labels_known if weights is None else weights * batch.labels_known
        losses = self._of_labels(outputs.logits, batch.targets, weights)
        if outputs.global_logits is not None:
            losses[GLOBAL_TERM] = total(self._of_labels(outputs.global_logits, batch.targets, weights))
        if self.lines is not None and outputs.line_logits is not None and batch.lines_known is not None:
            losses |= self.lines(outputs, batch, of_images)
        return {name: value * self._weights[name] if name in self._weights else value for name, value in losses.items()}

    def _of_labels(self, logits: Tensor, targets: Tensor, weights: Tensor | None) -> dict[str, Tensor]:
        """Those of (B, K) logits and targets, name -> scalar."""
        losses: dict[str, Tensor] = {}
        if self.labels is not None and not self._names:
            losses[LABELS_TERM] = self.labels(logits, targets, weights)
        elif self.labels is not None:
            chosen = [tensor.index_select(1, self.ungrouped) for tensor in (logits, targets)]
            of_labels = self.labels(*chosen, None if weights is None else weights.index_select(1, self.ungrouped))
            losses[LABELS_TERM] = of_labels * (len(self.ungrouped) / self._num_labels)
        for name, loss in zip(self._names, self.groups, strict=True):
            losses[name] = loss(logits, targets, weights) / self._num_labels
        return losses


def total(losses: Mapping[str, Tensor]) -> Tensor:
    """The scalar whose gradient moves the weights."""
    return torch.stack(list(losses.values())).sum() if len(losses) > 1 else next(iter(losses.values()))


def create_losses(
    name: str,
    params: Mapping[str, Any],
    label_columns: tuple[str, ...],
    *,
    pos_weight: Mapping[str, float] = MappingProxyType({}),
    label_smoothing: Mapping[str, float] = MappingProxyType({}),
    exclusive: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    weights: Mapping[str, float] = MappingProxyType({}),
    device_types: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> Losses:
    """The losses of a model.

    Args:
        name: one of `LOSSES`.
        params: further parameters of it.
        label_columns: (K,) the labels.
        pos_weight: label -> weight of its positives; 1 for others.
        label_smoothing: label -> smoothing of its targets; 0 for others.
        exclusive: name -> labels that exclude each other.
        weights: term -> what it is multiplied by; 1 for others.
        device_types: name -> its labels, of a model with a line decoder; empty: it has none.

    Raises:
        SettingsError: no such loss, or a parameter that it does not have or allow, or none for exclusive labels.
    """
    loss_class = look_up(LOSSES, name, "loss_func")
    known = [name for name in inspect.signature(loss_class).parameters if name != "pos_weight"]
    for param in params:
        if param not in known:
            kind = f"a parameter of {name}"
            raise SettingsError(f"loss_params: {unknown_name(param, kind, known or ['none'])}")
    in_groups = {label for labels in exclusive.values() for label in labels}
    ungrouped = [label for label in label_columns if label not in in_groups]
    try:  # without ungrouped labels too: a wrong parameter is wrong
        of_labels = loss_class(_of_labels(ungrouped, pos_weight, 1.0), **params)
    except ValueError as error:
        raise SettingsError(f"loss_params: {error}") from None
    if any(label in label_smoothing for label in ungrouped):
        of_labels = LabelSmoothing(of_labels, _of_labels(ungrouped, label_smoothing, 0.0))
    column_of = {label: column for column, label in enumerate(label_columns)}
    return Losses(
        len(label_columns),
        of_labels if ungrouped else None,
        {
            group: _loss_of_group(
                group, labels, [column_of[label] for label in labels], name, params, pos_weight, label_smoothing
            )
            for group, labels in exclusive.items()
        },
        weights,
        LineLosses([[column_of[label] for label in labels] for labels in device_types.values()])
        if device_types
        else None,
    )


def _loss_of_group(
    group: str,
    labels: Sequence[str],
    columns: Sequence[int],
    name: str,
    params: Mapping[str, Any],
    pos_weight: Mapping[str, float],
    label_smoothing: Mapping[str, float],
) -> SoftmaxCrossEntropy:
    smoothings = {label: label_smoothing.get(label, 0.0) for label in labels}
    if len(set(smoothings.values())) > 1:
        raise SettingsError(
            f"label_smoothing: the labels of exclusive['{group}'] share one target, so they have one value; they have "
            f"{', '.join(f'{value:g} ({label})' for label, value in smoothings.items())}"
        )
    if name not in SOFTMAX_LOSSES:
        raise SettingsError(
            f"loss_func='{name}': is for labels by themselves; exclusive needs one of {', '.join(SOFTMAX_LOSSES)}"
        )
    if params.get("alpha") is not None:
        raise SettingsError("loss_params: alpha weighs positives against negatives, which exclusive labels do not have")
    gamma = params.get("gamma", SOFTMAX_LOSSES[name])
    return SoftmaxCrossEntropy(columns, _of_labels(labels, pos_weight, 1.0), next(iter(smoothings.values())), gamma)


def _of_labels(labels: Sequence[str], values: Mapping[str, float], default: float) -> Tensor:
    """(K,) float32 in the order of `labels`."""
    return torch.tensor([values.get(label, default) for label in labels])
