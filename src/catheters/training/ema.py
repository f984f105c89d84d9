"""EMA weights: timm's rule, over the optimizer steps that moved the weights."""

import torch
from timm.utils import ModelEmaV3
from torch import Tensor

from catheters.models.classifier import Classifier


class EmaWeights(ModelEmaV3):  # type: ignore[misc]  # the package has no types
    """timm's ModelEmaV3 with its warm-up, for which a step that a gradient scaler skips has not been.

    new = d old + (1 - d) weights, with d = min(decay, 1 - n^(-2/3)) at the n-th step that moved the weights. timm's own
    training counts skipped steps too: float16 skips its first ones, and the n-th weights, the first that are learnt,
    would then enter with a share as if others had come before them.

    Attributes:
        module: the model with the EMA weights.
        num_skipped: steps that moved nothing; of a gradient scaler a tensor on the device, which nobody waits for.
    """

    module: Classifier
    num_skipped: int | Tensor

    def __init__(self, model: Classifier, decay: float) -> None:
        """Start from the weights of a model, on its device."""
        super().__init__(model, decay=decay, use_warmup=True)
        self.num_skipped = 0

    @torch.no_grad()
    def follow(self, model: Classifier, num_steps: int, is_skipped: Tensor | None) -> None:
        """Move towards the model's weights.

        Args:
            model: after a step of its optimizer.
            num_steps: steps so far, this one and skipped ones among them.
            is_skipped: () bool on the device, whether this one was; None: no gradient scaler skips any.
        """
        if is_skipped is None:
            assert isinstance(self.num_skipped, int), "a gradient scaler is there from the first step to the last"
            self.update(model, step=num_steps - self.num_skipped)
            return
        self.num_skipped = self.num_skipped + is_skipped
        num_moved = (num_steps - self.num_skipped).clamp(min=1)
        share = (num_moved**-self.warmup_power).clamp(min=1 - self.decay) * ~is_skipped
        # A share that only the device knows is no number that timm's update, or torch's lerp of many tensors, takes.
        old, new = [], []
        for of_ema, of_model in zip(self.module.state_dict().values(), model.state_dict().values(), strict=True):
            if of_ema.is_floating_point():
                old.append(of_ema)
                new.append(of_model)
            else:
                of_ema.copy_(of_model)  # how many batches batch norm has seen
        differences = torch._foreach_sub(new, old)
        torch._foreach_mul_(differences, share)
        torch._foreach_add_(old, differences)
