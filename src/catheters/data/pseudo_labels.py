"""Pseudo-labels: what a teacher says of an image as targets of a student, beside labels that people have given."""

from collections.abc import Sequence
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
    exclusive: Sequence[Sequence[int]] = (),
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
        exclusive: groups of columns whose labels exclude each other. In such a group the most probable of its labels
            and none of them is the hard pseudo-label, and targets sum to 1 at most.

    Returns:
        (N, K) in 0..1, NaN where there is neither label nor pseudo-label.
    """
    pseudo = probabilities if kind == "soft" else (probabilities >= 0.5).astype(np.float32)
    sureness = np.maximum(probabilities, 1 - probabilities)
    for group in exclusive:
        columns = list(group)
        of_group = probabilities[:, columns]
        classes = np.column_stack([of_group, 1 - of_group.sum(axis=1)])
        sureness[:, columns] = classes.max(axis=1)[:, None]
        if kind != "soft":
            pseudo[:, columns] = np.eye(len(columns) + 1)[classes.argmax(axis=1)][:, :-1]
    if kind == "confident":
        pseudo = np.where(sureness >= confidence, pseudo, np.nan)
    is_known = ~np.isnan(targets)
    mixed = (1 - soft_weight) * targets + soft_weight * pseudo
    learnt = np.where(is_known, np.where(np.isnan(pseudo), targets, mixed), pseudo)
    for group in exclusive:
        columns = list(group)
        learnt[:, columns] = _fill(learnt[:, columns], is_known[:, columns])
    return learnt.astype(np.float32)


def _fill(targets: npt.NDArray[np.floating], is_known: npt.NDArray[np.bool_]) -> npt.NDArray[np.floating]:
    """(N, K) targets of a group; those that are not known become smaller where all together exceed 1."""
    left = np.clip(1 - np.where(is_known, targets, 0).sum(axis=1), 0, 1)
    filled = np.nansum(np.where(is_known, 0, targets), axis=1)
    factor = np.divide(left, filled, out=np.ones_like(left), where=filled > left)
    return np.where(is_known, targets, targets * factor[:, None])
