"""What a model returns, by name."""

from dataclasses import dataclass

from torch import Tensor

from catheters.named_tensors import NamedTensors


@dataclass(frozen=True, kw_only=True)
class Outputs(NamedTensors):
    """Of B images, before anything is made a probability; that is `Classifier.probabilities`.

    Attributes:
        logits: (B, K), columns in label order.
    """

    logits: Tensor

    @property
    def are_finite(self) -> bool:
        """Whether no output of any image is NaN or infinite; reading it waits for a GPU."""
        return all(bool(tensor.isfinite().all()) for tensor in self.tensors().values())
