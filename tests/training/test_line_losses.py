"""Losses of lines: by their formulas in float64, and nothing where nothing is known."""

import dataclasses

import numpy as np
import pytest
import torch

from catheters.config.settings import Settings
from catheters.data.batch import Batch
from catheters.models.outputs import Outputs
from catheters.runs.build import build_losses
from catheters.training.line_losses import (
    LANDMARK_SCALE,
    LINE_POS_WEIGHT,
    draw_points,
    line_loss,
    point_loss,
    position_loss,
)
from catheters.training.losses import total
from catheters.training.mixup import Mixup
from catheters.training.step import TrainStep
from tests.training.test_step import create_step, part

SHAPE = (3, 2, 6, 8)
"""Images, device types, height, width."""


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def masks_of(shape: tuple[int, ...], seed: int = 1) -> torch.Tensor:
    """Shares in 0..1, none in the second device type of the first image."""
    masks = torch.from_numpy(np.random.default_rng(seed).random(shape).astype(np.float32)) ** 4
    masks[0, 1] = 0
    return masks


def test_line_loss_by_hand() -> None:
    logits, masks = numbers(*SHAPE), masks_of(SHAPE)
    known = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.5]])
    expected = 0.0
    for image in range(3):
        for kind in range(2):
            p = 1 / (1 + np.exp(-logits[image, kind].double().numpy()))
            y = masks[image, kind].double().numpy()
            loss = -(LINE_POS_WEIGHT * y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
            if y.any():
                loss += 1 - (2 * (p * y).sum() + 1) / ((p**2).sum() + (y**2).sum() + 1)
            expected += float(known[image, kind]) * loss / 6
    assert float(line_loss(logits, masks, known)) == pytest.approx(expected, rel=1e-5)


def test_point_loss_by_hand() -> None:
    logits, maps = numbers(*SHAPE), masks_of(SHAPE)
    known = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    p, y = 1 / (1 + np.exp(-logits.double().numpy())), maps.double().numpy()
    of_pixels = -((y - p) ** 2) * (y * np.log(p) + (1 - y) * np.log(1 - p))
    expected = (of_pixels.sum((2, 3)) * known.numpy()).mean()
    assert float(point_loss(logits, maps, known)) == pytest.approx(expected, rel=1e-5)


def test_position_loss_by_hand() -> None:
    """Of 2 labels and 3 candidates: one on a tip of the first label, one beside a tip of the second, one on none."""
    logits = numbers(1, 2, 3)
    of_labels = torch.tensor([[[1.0, 0.0, 0.1], [0.0, 0.6, 0.0]]])
    of_tips = of_labels.amax(1)
    known = torch.ones(1)
    p = 1 / (1 + np.exp(-logits[0].double().numpy()))
    of_candidates = [-np.log(p[0, 0]) - np.log(1 - p[1, 0]), -np.log(p[1, 1]) - np.log(1 - p[0, 1])]
    assert float(position_loss(logits, of_labels, of_tips, known)) == pytest.approx(sum(of_candidates) / 2, rel=1e-5)
    assert float(position_loss(logits, of_labels, of_tips, 0 * known)) == 0


def test_points_are_bumps_around_their_places() -> None:
    """Of 100 px wide maps sigma is 1.25 px; where two overlap the higher one counts, and one of height 0 is none."""
    points = torch.tensor([[[40.3, 20.0, 1, 5, 1.0], [44.0, 20.0, 1, 6, 0.5], [3.0, 3.0, 0, 0, 0.0]]])
    maps = draw_points(points, 2, (64, 100))
    assert maps.shape == (1, 2, 64, 100) and not maps[0, 0].any()
    rows, columns = np.indices((64, 100))
    bumps = [
        height * np.exp(-((columns - x) ** 2 + (rows - 20.0) ** 2) / 2 / 1.25**2)
        for x, height in ((40.3, 1), (44.0, 0.5))
    ]
    np.testing.assert_allclose(maps[0, 1].numpy(), np.maximum(*bumps), atol=1e-6)


@pytest.fixture
def learning(settings: Settings) -> Settings:
    return dataclasses.replace(settings, lines="pooled", annotation_table="train_annotations.csv", image_size=64)


def points_of(num_images: int, generator: torch.Generator, number: int) -> torch.Tensor:
    """(B, number, 5) in the middle of pixels of 16 x 16 maps, one of each device type after another."""
    places = torch.randint(0, 16, (num_images, number, 2), generator=generator).float()
    types = torch.arange(number)[None, :, None].expand(num_images, -1, -1) % 4
    columns = torch.tensor([0, 4, 8, 10])[types]
    return torch.cat([places, types, columns, torch.ones(num_images, number, 1)], 2)


def line_batch(num_images: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(
        images=torch.randint(0, 256, (num_images, 1, 64, 64), dtype=torch.uint8, generator=generator),
        targets=torch.randint(0, 2, (num_images, 11), generator=generator).float(),
        line_masks=torch.randint(0, 256, (num_images, 4, 16, 16), dtype=torch.uint8, generator=generator),
        lines_known=torch.ones(num_images, 4),
        tips=points_of(num_images, generator, 5),
    )


def gradients(step: TrainStep, batch: Batch) -> dict[str, torch.Tensor]:
    """Of the line terms alone."""
    step.model.eval()
    step.model.zero_grad()
    losses = step.losses(step.model(batch.images, with_lines=True), batch)
    total({name: losses[name] for name in ("lines", "tips", "positions")}).backward()
    return {name: value.grad for name, value in step.model.named_parameters() if value.grad is not None}


def test_unknown_lines_have_no_gradient_at_all(learning: Settings) -> None:
    """Exactly 0, whatever the maps hold; and what is known of one device type moves the others' outputs nowhere."""
    step, batch = create_step(learning), line_batch(3)
    unknown = dataclasses.replace(batch, lines_known=torch.zeros(3, 4))
    assert all(not gradient.any() for gradient in gradients(step, unknown).values())
    known = torch.zeros(3, 4)
    known[1, 2] = 1
    one_known = gradients(step, dataclasses.replace(batch, lines_known=known))
    for name in ("decoder.lines.weight", "decoder.tips.weight"):
        assert one_known[name].flatten(1).any(1).tolist() == [False, False, True, False]
    # Another image's maps, which are unknown, count as little.
    masks = batch.line_masks
    assert masks is not None
    changed = dataclasses.replace(batch, lines_known=known, line_masks=torch.cat([255 - masks[:1], masks[1:]]))
    for name, gradient in gradients(step, changed).items():
        assert torch.equal(gradient, one_known[name]), name


def test_terms_by_name_and_weight(learning: Settings) -> None:
    batch = line_batch(2)
    step = create_step(learning)
    model = step.model.eval()
    with torch.no_grad():
        outputs = model(batch.images, with_lines=True)
        terms = step.losses(outputs, batch)
        assert list(terms) == ["labels", "global", "lines", "tips", "positions"]
        weighted = build_losses(dataclasses.replace(learning, loss_weights={"tips": 3.0}))(outputs, batch)
        assert weighted["tips"] == pytest.approx(3 * float(terms["tips"]))
        assert weighted["lines"] == terms["lines"]
        # In validation nobody asks for lines; the batches have no targets of them either.
        plain = Batch(images=batch.images, targets=batch.targets)
        assert list(step.losses(model(batch.images), batch)) == ["labels"]
        assert list(step.losses(outputs, plain)) == ["labels", "global"]
        # An image's weight is that of its lines too.
        heavy = dataclasses.replace(batch, numbers={"weight": torch.tensor([0.0, 2.0])})
        second = Outputs(**{name: tensor[1:] for name, tensor in outputs.tensors().items()})
        of_second = step.losses(second, part(batch, 1, 2))
        assert step.losses(outputs, heavy)["lines"] == pytest.approx(float(of_second["lines"]), rel=1e-5)


def test_a_step_with_lines_moves_every_parameter(learning: Settings) -> None:
    step, batch = create_step(learning), line_batch(4)
    before = {name: value.detach().clone() for name, value in step.model.named_parameters()}
    results = [step(batch) for _ in range(4)]
    assert results[-1].losses["tips"] < results[0].losses["tips"]
    assert list(results[0].losses) == ["labels", "global", "lines", "tips", "positions"]
    for name, value in step.model.named_parameters():
        assert not torch.equal(value, before[name]), name


def test_mixup_mixes_maps_like_images() -> None:
    """The same share for an image, its masks and the heights of its tips; what of two is unknown is so of both."""
    batch = line_batch(6)
    masks, known = batch.line_masks, torch.ones(6, 4)
    assert masks is not None and batch.tips is not None
    known[2, 1] = 0
    images = masks[:, :1].clone()  # images that are their own first mask
    mixed = Mixup(0.4, seed=3)(dataclasses.replace(batch, images=images, lines_known=known), number=7)
    assert mixed.line_masks is not None and mixed.tips is not None and mixed.lines_known is not None
    assert torch.equal(mixed.images, mixed.line_masks[:, :1])
    assert 1 <= (mixed.lines_known[:, 1] == 0).sum() <= 2 and mixed.lines_known[:, 0].all()
    assert mixed.tips.shape == (6, 10, 5)
    assert torch.equal(mixed.tips[:, :5, :4], batch.tips[:, :, :4])
    torch.testing.assert_close(mixed.tips[:, :5, 4] + mixed.tips[:, 5:, 4], torch.ones(6, 5))
    for image in range(6):
        partner = next(other for other in range(6) if torch.equal(mixed.tips[image, 5:, :4], batch.tips[other, :, :4]))
        share = mixed.tips[image, 0, 4]
        expected = share * images[image].float() + (1 - share) * images[partner].float()
        torch.testing.assert_close(mixed.images[image], expected)


def test_an_image_mixed_with_itself_keeps_its_points() -> None:
    """Mixup leaves its pixels and masks alone, and so the peaks at its tips and landmarks too."""
    batch = line_batch(1)
    assert batch.tips is not None
    landmarks = torch.tensor([[[3.0, 5.0, 0, 0, 1], [0, 0, 1, 0, 0]]])
    mixed = Mixup(0.4, seed=3)(dataclasses.replace(batch, landmarks=landmarks), number=7)
    assert mixed.tips is not None and mixed.landmarks is not None
    for after, before, num_channels in ((mixed.tips, batch.tips, 4), (mixed.landmarks, landmarks, 2)):
        expected = draw_points(before, num_channels, (16, 16))
        assert expected.max() > 0.5
        assert torch.equal(draw_points(after, num_channels, (16, 16)), expected)


def test_accumulated_line_terms_are_those_of_the_whole(learning: Settings) -> None:
    """Sums over what is known divided by all images: halves of a batch add up, whatever is known of each."""
    batch = line_batch(4)
    known = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]])
    batch = dataclasses.replace(batch, lines_known=known)
    step = create_step(learning)
    whole = gradients(step, batch)
    halves = [gradients(step, part(batch, start, start + 2)) for start in (0, 2)]
    for name, gradient in whole.items():
        torch.testing.assert_close((halves[0][name] + halves[1][name]) / 2, gradient, rtol=1e-3, atol=1e-6)


def test_landmarks_have_a_term_of_their_own(learning: Settings) -> None:
    """That of tips, of the landmarks that somebody marked."""
    measurements = {"above": ("ETT tip", "carina", "vertical"), "apart": ("carina", "left diaphragm", "distance")}
    settings = dataclasses.replace(learning, landmark_table="landmarks.csv", measurements=measurements)
    assert settings.landmarks == ("carina", "left diaphragm")
    step = create_step(settings)
    marked = torch.tensor([[[4.0, 5, 0, 0, 1], [0, 0, 0, 0, 0]], [[7, 2, 0, 0, 1], [9, 9, 1, 0, 1]]])
    batch = dataclasses.replace(line_batch(2), landmarks=marked)
    with torch.no_grad():
        outputs = step.model(batch.images)
    assert outputs.landmark_logits is not None and outputs.landmark_logits.shape == (2, 2, 16, 16)
    terms = step.losses(outputs, batch)
    assert list(terms) == ["labels", "global", "lines", "tips", "landmarks", "positions"]
    known = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    expected = LANDMARK_SCALE * point_loss(outputs.landmark_logits, draw_points(marked, 2, (16, 16)), known)
    assert terms["landmarks"] == pytest.approx(float(expected), rel=1e-5)
    # Of two mixed images a landmark counts where both have it.
    both = dataclasses.replace(
        batch, landmarks=torch.cat([marked, marked.flip(0)], 1) * torch.tensor([1, 1, 1, 1, 0.5])
    )
    with torch.no_grad():
        of_both = step.losses(outputs, both)["landmarks"]
    halves = draw_points(both.landmarks, 2, (16, 16))  # type: ignore[arg-type]
    expected = LANDMARK_SCALE * point_loss(outputs.landmark_logits, halves, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    assert of_both == pytest.approx(float(expected), rel=1e-5)


def test_layer_decay_leaves_no_part_of_the_model_out(learning: Settings) -> None:
    """Every parameter is in one group of the optimizer; head, decoder and pooled head learn at the full rate."""
    step = create_step(dataclasses.replace(learning, layer_decay=0.5))
    rate_of = {parameter: group["lr"] for group in step.optimizer.param_groups for parameter in group["params"]}
    for name, parameter in step.model.named_parameters():
        assert (rate_of[parameter] == max(rate_of.values())) or name.startswith("backbone."), name
    assert len(rate_of) == sum(len(group["params"]) for group in step.optimizer.param_groups)
