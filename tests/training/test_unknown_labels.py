"""Labels that nobody knows: no loss, no gradient, no place in mixup's targets."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from catheters.config.settings import IMAGE_WEIGHT
from catheters.data.batch import Batch
from catheters.models.outputs import Outputs
from catheters.training.losses import Losses, create_losses, total
from catheters.training.mixup import Mixup

LABELS = ("A", "B", "C", "D")
NAN = float("nan")


def make_batch(labels: Any, **others: Any) -> Batch:
    """Of (B, 4) labels, NaN where they are unknown."""
    values = torch.tensor(labels, dtype=torch.float32)
    known = ~values.isnan()
    images = torch.zeros(len(values), 1, 2, 2)
    return Batch(images=images, targets=values.nan_to_num(0.0), labels_known=known.float(), **others)


def gradient(losses: Losses, logits: Tensor, batch: Batch) -> Tensor:
    logits = logits.clone().requires_grad_()
    total(losses(Outputs(logits=logits), batch)).backward()
    assert logits.grad is not None
    return logits.grad


@pytest.fixture
def logits(rng: np.random.Generator) -> Tensor:
    return torch.tensor(rng.normal(size=(3, 4)), dtype=torch.float32)


@pytest.mark.parametrize("name", ["bce", "focal", "asymmetric"])
def test_unknown_labels_have_no_gradient(name: str, logits: Tensor) -> None:
    """The others have that of a batch in which all are known; a label that nobody knows has exactly none."""
    losses = create_losses(name, {}, LABELS, pos_weight={"A": 3.0}, label_smoothing={"B": 0.1})
    known = [[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0]]
    partly = [[1.0, NAN, 1.0, NAN], [NAN, 1.0, 0.0, NAN], [1.0, 1.0, 0.0, NAN]]
    of_all, of_known = (gradient(losses, logits, make_batch(labels)) for labels in (known, partly))
    is_known = ~torch.tensor(partly).isnan()
    assert (of_known[~is_known] == 0).all()
    assert torch.equal(of_known[is_known], of_all[is_known])
    assert (of_known[is_known] != 0).all()


@pytest.mark.parametrize("name", ["bce", "focal", "asymmetric"])
def test_all_known_are_the_bits_of_before(name: str, logits: Tensor) -> None:
    """Whether a batch says that all are known or says nothing."""
    losses = create_losses(name, {}, LABELS, exclusive={"group": ("C", "D")} if name != "asymmetric" else {})
    batch = make_batch([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0]])
    silent = Batch(images=batch.images, targets=batch.targets)
    assert torch.equal(gradient(losses, logits, batch), gradient(losses, logits, silent))


def test_the_loss_by_hand(logits: Tensor) -> None:
    """A sum over what is known, divided by the number of all: parts of a batch add up to it."""
    labels = [[1.0, NAN, 0.0, NAN], [NAN, 1.0, 0.0, 1.0], [1.0, 1.0, NAN, 0.0]]
    losses = create_losses("bce", {}, LABELS)
    batch = make_batch(labels, numbers={IMAGE_WEIGHT: torch.tensor([1.0, 2.0, 0.5])})
    probabilities = torch.sigmoid(logits.double())
    expected = 0.0
    for row, weight in enumerate((1.0, 2.0, 0.5)):
        for k, label in enumerate(labels[row]):
            if label == label:  # not NaN
                p = float(probabilities[row, k])
                expected -= weight * float(np.log(p if label == 1 else 1 - p)) / 12
    assert float(total(losses(Outputs(logits=logits), batch))) == pytest.approx(expected, rel=1e-6)


def test_an_exclusive_group_with_an_unknown_label(logits: Tensor) -> None:
    """Is unknown as a whole: its softmax cannot do without any of them."""
    losses = create_losses("bce", {}, LABELS, exclusive={"group": ("B", "C")})
    of_known = gradient(losses, logits, make_batch([[1.0, NAN, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, NAN]]))
    assert (of_known[0, 1:3] == 0).all()
    assert (of_known[1:, 1:3] != 0).all()
    assert of_known[2, 3] == 0


def test_mixup_knows_what_is_known_of_both() -> None:
    labels = [[1.0, NAN, 0.0, 1.0], [0.0, 1.0, NAN, 1.0], [1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, NAN]]
    batch = make_batch(labels)
    mixed = Mixup(0.4, seed=1)(batch, 3)
    assert mixed.labels_known is not None and batch.labels_known is not None
    # Which image each was mixed with is read off a batch whose images are their own numbers.
    numbered = Batch(images=torch.arange(4.0)[:, None, None, None], targets=torch.eye(4))
    partners = Mixup(0.4, seed=1)(numbered, 3).targets
    for row in range(4):
        others = [k for k in range(4) if k != row and partners[row, k] > 0]
        partner = others[0] if others else row
        expected = [float(not (np.isnan(labels[row][k]) or np.isnan(labels[partner][k]))) for k in range(4)]
        assert mixed.labels_known[row].tolist() == expected
    assert torch.isfinite(mixed.targets).all()


def test_labels_of_a_batch() -> None:
    labels = [[1.0, NAN, 0.0, 1.0], [0.0, 1.0, NAN, 1.0]]
    np.testing.assert_array_equal(make_batch(labels).labels(), np.array(labels, dtype=np.float32))
