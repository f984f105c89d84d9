"""Heatmaps: the formula by hand, their place on the X-ray, and that they hang on the weights."""

import copy
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from catheters.data.preprocessing import Preprocessed, Preprocessing
from catheters.errors import UserError
from catheters.inference.figures import read_xray, safe_names
from catheters.inference.heatmaps import (
    attention_maps,
    check_maps,
    explain,
    grad_cam,
    overlay,
    project,
)
from catheters.inference.predictor import Predictor
from catheters.models.heads import LinearHead
from tests.conftest import run_script
from tests.inference.conftest import make_checkpoint, make_models


def test_grad_cam_of_a_linear_head_by_hand(images: torch.Tensor) -> None:
    """Over averaged features the gradient of a logit is its weights over the number of places, the same everywhere."""
    model = make_checkpoint().model
    assert isinstance(model.head, LinearHead)
    with torch.no_grad():
        features = model.backbone.forward_features(model.normalise(images))  # type: ignore[operator]
        weights = model.head.linear.weight[4] / features[0, 0].numel()
        expected = torch.relu((features * weights[:, None, None]).sum(dim=1))
    assert torch.allclose(grad_cam(model, images, 4), expected, atol=1e-6)
    assert expected.shape == (3, 4, 4)


def test_grad_cam_of_attention_heads_by_finite_differences(images: torch.Tensor) -> None:
    """The gradient of a logit by the mean of a channel, from moving that channel a little everywhere."""
    model = make_checkpoint(classifier="attention").model.double()
    image = images[:1]
    with torch.no_grad():
        features = model.backbone((image.double() / 255 - model.mean) / model.std)
        step, num_places = 1e-5, features[0, 0].numel()
        gradients = torch.empty(features.shape[1], dtype=torch.float64)
        for channel in range(features.shape[1]):
            moved = [features.clone() for _ in range(2)]
            moved[0][:, channel] += step
            moved[1][:, channel] -= step
            above, below = (model.head(shifted)[0, 0] for shifted in moved)
            gradients[channel] = (above - below) / (2 * step) / num_places
        expected = torch.relu((features[0] * gradients[:, None, None]).sum(dim=0))
    model.float()
    assert torch.allclose(grad_cam(model, image, 0)[0], expected.float(), atol=1e-4 * float(expected.max()) + 1e-6)


def test_grad_cam_of_tokens_by_finite_differences(images: torch.Tensor) -> None:
    """Of a transformer under a linear head: by the tokens that its last block reads, without the class token."""
    model = make_checkpoint(backbone_model="test_vit").model.double()
    backbone, image = model.backbone, images[:1]
    pixels = (image.double() / 255 - model.mean) / model.std
    read: list[torch.Tensor] = []
    handle = backbone.blocks[-1].register_forward_pre_hook(lambda _, arguments: read.append(arguments[0]))  # type: ignore[index, union-attr]
    with torch.no_grad():
        backbone(pixels)
        handle.remove()

        def logit(tokens: torch.Tensor) -> torch.Tensor:
            return model.head(backbone.forward_head(backbone.norm(backbone.blocks[-1](tokens))))[0, 2]  # type: ignore[index, operator, union-attr]

        tokens, step = read[0], 1e-5
        assert tokens.shape == (1, 1 + 8 * 8, 64)
        gradients = torch.empty(64, dtype=torch.float64)
        for channel in range(64):
            moved = [tokens.clone(), tokens.clone()]
            moved[0][:, 1:, channel] += step
            moved[1][:, 1:, channel] -= step
            gradients[channel] = (logit(moved[0]) - logit(moved[1])) / (2 * step) / 64
        expected = torch.relu(tokens[0, 1:] @ gradients).unflatten(0, (8, 8))
    model.float()
    assert expected.max() > 0
    assert torch.allclose(grad_cam(model, image, 2)[0], expected.float(), atol=1e-3 * float(expected.max()))


@pytest.mark.parametrize("classifier", ["linear", "attention"])
@pytest.mark.parametrize(
    ("backbone_model", "side"),
    [
        ("test_vit", 8),
        ("test_mambaout", 4),
        ("mobilenetv3_small_050", 4),
        ("efficientvit_b0", 4),
        ("efficientvim_m1", 2),
        *(
            pytest.param(*values, marks=pytest.mark.slow)
            for values in (("swin_s3_tiny_224", 4), ("cait_xxs24_224", 8), ("twins_svt_small", 4))
        ),
    ],
)
def test_maps_of_any_model(backbone_model: str, side: int, classifier: str, images: torch.Tensor) -> None:
    """One that lies over the X-ray, that hangs on it, and that leaves the predictions what they are."""
    model = make_checkpoint(backbone_model=backbone_model, classifier=classifier).model
    with torch.inference_mode():
        logits = model(images).logits
    # With random weights nothing may speak for a label anywhere, so that its map is 0.
    column, maps = next((column, maps) for column in range(11) if (maps := grad_cam(model, images, column)).max() > 0)
    assert maps.shape == (3, side, side)
    assert maps.isfinite().all()
    assert maps.min() >= 0
    assert torch.allclose(grad_cam(model, images[1:2], column)[0], maps[1], rtol=1e-3, atol=1e-3 * float(maps.max()))
    with torch.inference_mode():
        assert torch.equal(model(images).logits, logits)


def test_a_model_without_a_map_is_named_before_anything_is_predicted() -> None:
    """CoaT's linear head reads three class tokens; its attention heads read a map."""
    for classifier in ("attention", "linear"):
        checkpoint = make_checkpoint(backbone_model="coat_tiny", classifier=classifier)
        predictor = Predictor(make_models(checkpoint), torch.device("cpu"))
        if classifier == "attention":
            check_maps(predictor)
            continue
        with pytest.raises(UserError, match=r"^0\.pt: CoaT has neither a feature map nor tokens .*'attention'$"):
            check_maps(predictor)


@pytest.mark.parametrize("classifier", ["linear", "attention"])
def test_other_weights_give_another_map(classifier: str, images: torch.Tensor) -> None:
    """Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018: a map that stays would show edges, no reasons."""
    model = make_checkpoint(classifier=classifier).model
    randomised = copy.deepcopy(model)
    torch.manual_seed(1)
    for module in randomised.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()
    similar = []
    for column in range(11):
        here, there = (grad_cam(either, images, column).flatten(1).numpy() for either in (model, randomised))
        assert (here == grad_cam(model, images, column).flatten(1).numpy()).all()
        similar += [
            spearmanr(of_here, of_there).statistic
            for of_here, of_there in zip(here, there, strict=True)
            if np.ptp(of_here) > 0 and np.ptp(of_there) > 0
        ]
    assert len(similar) >= 10
    assert np.mean(similar) < 0.4  # of the same map it would be 1


def test_attention_maps_are_the_heads_own(images: torch.Tensor) -> None:
    model = make_checkpoint(classifier="attention").model
    maps = attention_maps(model, images)
    assert maps is not None
    assert maps.shape == (3, 4, 4, 4)
    assert ((maps >= 0) & (maps <= 1)).all()
    assert attention_maps(make_checkpoint().model, images) is None


def test_a_map_lies_where_the_model_saw_it() -> None:
    """A spot of the preprocessed image comes to lie on the same spot of the X-ray, padded and cropped."""
    preprocessing = Preprocessing(image_shape=(64, 64), resize="pad", crop_borders=True)
    xray = np.zeros((300, 500), dtype=np.uint8)
    xray[40:260, 60:460] = 60  # the borders are black
    xray[200:216, 100:116] = 255
    _, (made,) = read_xray(cv2.imencode(".png", xray)[1].tobytes(), [preprocessing])
    heat = project(made.pixels.astype(np.float32), made, preprocessing, xray)
    assert heat.shape == (300, 500)
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    assert abs(row - 207.5) <= 4 and abs(column - 107.5) <= 4
    assert (heat[:40] == 0).all() and (heat[:, 460:] == 0).all()


def test_a_constant_map_stays_constant() -> None:
    made = Preprocessed(pixels=np.zeros((8, 8), np.uint8), full_shape=(30, 20), box=(0.0, 0.0, 30.0, 20.0), notes=())
    xray = np.zeros((30, 20), np.uint8)
    heat = project(np.full((2, 2), 0.7, np.float32), made, Preprocessing(image_shape=(8, 8)), xray)
    assert heat == pytest.approx(np.full((30, 20), 0.7), abs=1e-6)


def test_every_image_has_a_folder_of_its_own() -> None:
    names = safe_names(["a_b_2", "a b", "a_b", "A/b", "../..", "contact_sheet.jpg"], ["contact_sheet.jpg"])
    assert names == ["a_b_2", "a_b", "a_b_3", "A_b_4", "image", "contact_sheet.jpg_2"]


def test_overlay() -> None:
    xray = np.array([[0, 100]], dtype=np.uint8)
    drawn = overlay(xray, np.array([[0.0, 1.0]], dtype=np.float32))
    assert drawn[0, 0].tolist() == [0, 0, 0]
    brightest = np.array([252, 255, 164])  # inferno's last colour
    assert drawn[0, 1] == pytest.approx(0.45 * 100 + 0.55 * brightest, abs=1)


def test_means_over_checkpoints() -> None:
    """Of other sizes too, on the X-ray of the file."""
    checkpoints = [make_checkpoint(0), make_checkpoint(1, image_size=96, classifier="attention")]
    predictor = Predictor(make_models(*checkpoints), torch.device("cpu"))
    rng = np.random.default_rng(0)
    xray = cv2.resize(rng.integers(0, 256, (8, 10), dtype=np.uint8), (150, 120))
    data = cv2.imencode(".png", xray)[1].tobytes()
    explained = explain(predictor, *read_xray(data, predictor.preprocessings), ["CVC - Normal"])
    assert list(explained.maps) == ["CVC - Normal", "CVC, attention"]
    assert (explained.xray == xray).all()
    for heat in explained.maps.values():
        assert heat.shape == (120, 150)
        assert 0 <= heat.min() <= heat.max() <= 1


@pytest.mark.slow
def test_the_script_draws_them(evaluated_run: Path, sample_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "maps"
    test = sample_folder / "test"
    done = run_script("predict.py", "--model", evaluated_run, test, "--out", tmp_path / "p.csv", "--heatmaps", folder)
    assert done.returncode == 0, done.stderr
    drawn = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    assert drawn[-1] == "contact_sheet.jpg"
    assert f"{len(drawn) - 1} heatmaps of labels that are predicted positive" in done.stdout
    assert len(drawn) - 1 == pd.read_csv(tmp_path / "p_details.csv")["predicted_positive"].sum()
    xray = cv2.imread(str(sample_folder / "test" / f"{Path(drawn[0]).parts[0]}.jpg"))
    assert cv2.imread(str(folder / drawn[0])).shape == xray.shape
