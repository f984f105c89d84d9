"""Pseudo-labels: what a teacher says of an image as targets of a student, beside labels that people have given."""

from typing import Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["soft", "hard", "confident"]


def with_pseudo_labels(
    targets: npt.NDArray[np.float32],
    probabilities: npt.NDArray[np.float32],
    *,
    soft_weight: float,
    kind: Kind,
    confidence: float,
) -> npt.NDArray[np.float32]:
    """Targets of which a teacher has its share.

    Where a label is known, the target is (1 - soft_weight) label + soft_weight pseudo-label, of which the binary
    cross-entropy is that of the two losses mixed, since it is linear in the target. Where it is unknown, the target is
    the pseudo-label.

    Args:
        targets: (N, K) in 0..1, NaN where a label is unknown.
        probabilities: (N, K) the teacher's, in 0..1.
        soft_weight: the teacher's share, in 0..1.
        kind: "soft": a pseudo-label is the probability; "hard": 1 from one half on, else 0; "confident": that where
            the probability of it is `confidence` or more, else none.
        confidence: in 0.5..1.

    Returns:
        (N, K) in 0..1, NaN where there is neither label nor pseudo-label.
    """
    pseudo = probabilities if kind == "soft" else (probabilities >= 0.5).astype(np.float32)
    if kind == "confident":
        pseudo = np.where(np.maximum(probabilities, 1 - probabilities) >= confidence, pseudo, np.nan)
    mixed = (1 - soft_weight) * targets + soft_weight * pseudo
    return np.where(np.isnan(targets), pseudo, np.where(np.isnan(pseudo), targets, mixed)).astype(np.float32)
