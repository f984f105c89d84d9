"""A training that is no better than chance after some epochs says so, and what to try."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_pfn_extras.training.extension import Extension

from catheters.errors import counted
from catheters.evaluation.metrics import chance_bound
from catheters.runtime.console import warn
from catheters.runtime.distributed import Processes
from catheters.training.extensions.epochs import Stopping
from catheters.training.validation import Validation

MIN_EPOCHS = 3
"""A training that is over before says nothing about how to train."""
USUAL_EPOCH = 5
EPOCHS_AFTER_WARMUP = 3
CHANCE = 0.5
WIDE = 0.1
"""Of what chance adds to an AUC: from here on the fold has too few images to tell a model that learns."""
MORE = "docs/how-to/better-models.md says more"


class ChanceCheck(Extension):
    """Warns once where the validation's macro ROC AUC is no better than what chance alone gives.

    It looks after epoch 5, or three epochs after a longer warm-up; where the training is over before, after its last
    epoch. A run that is resumed and made longer is looked at again, unless it has been warned of.
    """

    name = "chance_check"
    trigger = (1, "epoch")

    def __init__(
        self,
        validation: Validation,
        stopping: Stopping,
        num_epochs: int,
        warmup_epochs: int,
        what: str,
        advice: Sequence[str],
        processes: Processes,
    ) -> None:
        """Look at the scores of a validation.

        Args:
            validation: has scored the epoch.
            stopping: knows whether the training is over before its last epoch.
            num_epochs: of the training.
            warmup_epochs: during which the learning rate rises.
            what: the model, for the warning.
            advice: what to try, the likeliest first.
            processes: the ranks that train it; rank 0 warns.
        """
        self._validation = validation
        self._stopping = stopping
        self._num_epochs = num_epochs
        self._epoch = max(USUAL_EPOCH, warmup_epochs + EPOCHS_AFTER_WARMUP)
        self._what = what
        self._advice = advice
        self._processes = processes
        self._has_warned = False

    def __call__(self, manager: Any) -> None:
        """Warn, if the epoch is the one to look at and its score is no better than chance."""
        is_over = self._stopping.is_over or manager.epoch == self._num_epochs
        is_time = manager.epoch == self._epoch or (is_over and MIN_EPOCHS <= manager.epoch < self._epoch)
        bound = chance_bound(self._validation.metrics)
        macro_auc = self._validation.macro_auc
        if not is_time or self._has_warned or math.isnan(macro_auc) or macro_auc > bound:
            return
        self._has_warned = True
        if not self._processes.is_first:
            return
        num_images = max(metric.num_images for metric in self._validation.metrics)
        few = ", which are few" if bound - CHANCE > WIDE else ""
        warn(
            f"{self._what}: macro AUC {macro_auc:.4f} after {counted(manager.epoch, 'epoch')} is no "
            f"better than chance, which alone gives more than {bound:.4f} about once in twenty times on "
            f"{counted(num_images, 'validation image')}{few}, if they were independent; try, the likeliest first: "
            f"{'; '.join(self._advice)}; {MORE}"
        )

    def state_dict(self) -> dict[str, Any]:
        """Whether the warning was given."""
        return {"has_warned": self._has_warned}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self._has_warned = state["has_warned"]
