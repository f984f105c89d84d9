"""Pseudo-labels: by hand, and the loss that they stand for."""

import numpy as np
import pytest

from catheters.data.pseudo_labels import Kind, with_pseudo_labels

NAN = np.nan
TARGETS = np.array([[0, 1, NAN, NAN], [1, 0, 0.4, NAN]], dtype=np.float32)
PROBABILITIES = np.array([[0.2, 0.7, 0.5, 0.95], [0.08, 0.1, 0.9, 0.3]], dtype=np.float32)


@pytest.mark.parametrize(
    ("kind", "soft_weight", "expected"),
    [
        ("soft", 0.0, [[0, 1, 0.5, 0.95], [1, 0, 0.4, 0.3]]),
        ("soft", 1.0, [[0.2, 0.7, 0.5, 0.95], [0.08, 0.1, 0.9, 0.3]]),
        ("soft", 0.25, [[0.05, 0.925, 0.5, 0.95], [0.77, 0.025, 0.525, 0.3]]),
        ("hard", 0.25, [[0, 1, 1, 1], [0.75, 0, 0.55, 0]]),
        # .9 or more on either side: .95, .08, .1 and .9.
        ("confident", 0.25, [[0, 1, NAN, 1], [0.75, 0, 0.55, NAN]]),
        ("confident", 0.0, [[0, 1, NAN, 1], [1, 0, 0.4, NAN]]),
    ],
)
def test_targets(kind: Kind, soft_weight: float, expected: list[list[float]]) -> None:
    mixed = with_pseudo_labels(TARGETS, PROBABILITIES, soft_weight=soft_weight, kind=kind, confidence=0.9)
    assert mixed.dtype == np.float32
    np.testing.assert_allclose(mixed, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "targets", "probabilities", "expected"),
    [
        # None of them has .04, each label .32: the first of these is the most probable, and nothing is sure.
        ("hard", [NAN, NAN, NAN], [0.32, 0.32, 0.32], [1, 0, 0]),
        ("confident", [NAN, NAN, NAN], [0.32, 0.32, 0.32], [NAN, NAN, NAN]),
        ("confident", [NAN, NAN, NAN], [0.05, 0.92, 0.01], [0, 1, 0]),
        ("confident", [NAN, NAN, NAN], [0.03, 0.02, 0.03], [0, 0, 0]),  # none of them, with .92
        ("soft", [NAN, NAN, NAN], [0.05, 0.9, 0.05], [0.05, 0.9, 0.05]),
        # .8 and half of .05 - .8 is .425; .575 is left for the others, which would have .95.
        ("soft", [0.8, NAN, NAN], [0.05, 0.9, 0.05], [0.425, 0.575 * 0.9 / 0.95, 0.575 * 0.05 / 0.95]),
        ("soft", [1, 0, 0], [0.1, 0.2, 0.3], [0.55, 0.1, 0.15]),
    ],
)
def test_labels_that_exclude_each_other(
    kind: Kind, targets: list[float], probabilities: list[float], expected: list[float]
) -> None:
    """The fourth label is in no group; what the three of the group sum to is 1 at most."""
    learnt = with_pseudo_labels(
        np.array([[*targets, NAN]], np.float32),
        np.array([[*probabilities, 0.95]], np.float32),
        soft_weight=0.5,
        kind=kind,
        confidence=0.9,
        exclusive=[(0, 1, 2)],
    )
    np.testing.assert_allclose(learnt[0, :3], expected, atol=1e-6)
    assert learnt[0, 3] == pytest.approx(0.95 if kind == "soft" else 1)
    assert np.nansum(learnt[0, :3]) <= 1 + 1e-6


def test_the_loss_is_that_of_both_mixed() -> None:
    """Binary cross-entropy with the mixed target is (1 - w) of that with the label and w of that with the teacher."""

    def cross_entropy(logit: float, target: float) -> float:
        probability = 1 / (1 + np.exp(-logit))
        return float(-target * np.log(probability) - (1 - target) * np.log(1 - probability))

    for label, taught, logit in ((1.0, 0.3, 0.7), (0.0, 0.9, -1.2)):
        mixed = with_pseudo_labels(
            np.array([[label]], np.float32),
            np.array([[taught]], np.float32),
            soft_weight=0.3,
            kind="soft",
            confidence=0.9,
        )
        both = 0.7 * cross_entropy(logit, label) + 0.3 * cross_entropy(logit, taught)
        assert cross_entropy(logit, float(mixed[0, 0])) == pytest.approx(both, rel=1e-6)
