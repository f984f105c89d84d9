"""What a model returns, by name."""

from dataclasses import dataclass

from torch import Tensor

from catheters.named_tensors import NamedTensors


@dataclass(frozen=True, kw_only=True)
class Outputs(NamedTensors):
    """Of B images, before anything is made a probability; that is `Classifier.probabilities`.

    Attributes:
        logits: (B, K), columns in label order.
        line_logits: (B, T, h, w) of a model with a line decoder, one map per device type; None where nobody asked.
        tip_logits: (B, T, h, w) of the lines' tips.
        landmark_logits: (B, P, h, w) of landmarks, where the decoder has learnt any.
        global_logits: (B, K) of a model with a pooled head, those of its other head, which train the backbone.
        tip_pixels: (B, T, M) of a pooled head, see `TipLabels`.
        position_logits: (B, K, M), see `TipLabels`.
    """

    logits: Tensor
    line_logits: Tensor | None = None
    tip_logits: Tensor | None = None
    landmark_logits: Tensor | None = None
    global_logits: Tensor | None = None
    tip_pixels: Tensor | None = None
    position_logits: Tensor | None = None

    def in_float32(self) -> "Outputs":
        """The same with float32 in place of mixed precision's types; positions, which are whole numbers, stay so."""
        return self.map(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor)

    @property
    def are_finite(self) -> bool:
        """Whether no output of any image is NaN or infinite; reading it waits for a GPU."""
        return all(bool(tensor.isfinite().all()) for tensor in self.tensors().values())
