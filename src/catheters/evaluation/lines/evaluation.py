"""Everything that is found out about predicted lines."""

from collections.abc import Sequence
from dataclasses import dataclass

from catheters.evaluation.lines.comparison import DeviceLines, TipCase
from catheters.evaluation.lines.measurements import MeasuredLengths, RuleEvaluation


@dataclass(frozen=True, kw_only=True)
class LineEvaluation:
    """All of it.

    Attributes:
        predictions: the file of predicted lines.
        annotations: the table of drawn ones.
        num_images: images that were predicted.
        per_device: lines and tips of each device type.
        lengths: of each measurement that was taken.
        rules: of each measurement of which an image has a label by rule.
    """

    predictions: str
    annotations: str
    num_images: int
    per_device: Sequence[DeviceLines]
    lengths: Sequence[MeasuredLengths] = ()
    rules: Sequence[RuleEvaluation] = ()

    @property
    def has_mm(self) -> bool:
        """Whether the pixel spacing of an image with a drawn tip is known."""
        return any(device.num_tips_in_mm for device in self.per_device)

    @property
    def cases(self) -> list[TipCase]:
        """The drawn tips with the largest errors, device type by device type."""
        return [case for device in self.per_device for case in device.cases]
