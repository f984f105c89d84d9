"""Exported files compute what the checkpoint does, and say what they are."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

import catheters
from catheters.errors import UserError
from catheters.inference.export import export
from catheters.inference.loading import read_models
from catheters.labels import RANZCR_HEADS, RANZCR_LABELS
from catheters.models.backbone import create_backbone
from tests.conftest import REPOSITORY, run_script
from tests.inference.conftest import make_checkpoint, make_models

FAMILIES = ("rexnet_100", "seresnet50", "efficientnet_b0", "resnest14d")


def assert_equal_predictions(file: Path, model: torch.nn.Module, images: torch.Tensor, tolerance: float) -> None:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = torch.sigmoid(model(images).logits).numpy()
    assert np.ptp(expected) > 0.1
    for batch in (images[:1], images):
        outputs = session.run(["probabilities"], {"images": batch.numpy()})[0]
        assert np.abs(outputs - expected[: len(batch)]).max() < tolerance


@pytest.mark.parametrize("classifier", ["linear", "attention"])
@pytest.mark.parametrize(
    "backbone_model", ["test_resnet", *(pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES)]
)
def test_onnx(backbone_model: str, classifier: str, images: torch.Tensor, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(backbone_model=backbone_model, classifier=classifier)
    line = export(make_models(checkpoint), tmp_path / "model.onnx", half=False)
    assert line.startswith("onnxruntime's probabilities differ from torch's by ")
    assert_equal_predictions(tmp_path / "model.onnx", checkpoint.model, images, 1e-4)
    file = onnx.load(tmp_path / "model.onnx")
    assert [output.name for output in file.graph.output] == ["probabilities"]
    assert not {"map_shape", "device_types"} & {entry.key for entry in file.metadata_props}


@pytest.mark.slow
def test_onnx_of_exclusive_labels(images: torch.Tensor, tmp_path: Path) -> None:
    """The softmax by hand, with a further class whose logit is 0; all other labels by themselves."""
    checkpoint = make_checkpoint(exclusive={"ETT": ("ETT - Normal", "ETT - Abnormal", "ETT - Borderline")})
    export(make_models(checkpoint), tmp_path / "model.onnx", half=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    outputs = session.run(["probabilities"], {"images": images.numpy()})[0]
    with torch.inference_mode():
        logits = checkpoint.model(images).logits.double().numpy()
    expected = 1 / (1 + np.exp(-logits))
    exponentials = np.exp(logits[:, :3])
    expected[:, :3] = exponentials / (1 + exponentials.sum(axis=1, keepdims=True))
    assert np.abs(outputs - expected).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lines", "classifier", "half", "has_landmarks"),
    [
        ("auxiliary", "linear", False, True),
        ("pooled", "linear", False, False),
        ("pooled", "attention", False, True),
        ("pooled", "linear", True, True),
    ],
)
def test_onnx_with_lines(
    lines: str, classifier: str, half: bool, has_landmarks: bool, images: torch.Tensor, tmp_path: Path
) -> None:
    """Maps of as many images as there are, by the names of the outputs; what they are stands in the file."""
    file = tmp_path / "model.onnx"
    landmarks = {"landmark_table": "l.csv", "measurements": {"carina to dome": ("carina", "dome", "distance")}}
    checkpoint = make_checkpoint(
        lines=lines,
        classifier=classifier,
        annotation_table="lines.csv",
        line_stride=4,
        **(landmarks if has_landmarks else {}),
    )
    model = checkpoint.model
    assert model.decoder is not None and model.decoder.tips.bias is not None
    with torch.no_grad():  # tips and labels that differ from image to image
        model.decoder.tips.weight.mul_(20)
        model.decoder.tips.bias.zero_()
        if model.decoder.landmarks is not None:
            model.decoder.landmarks.weight.mul_(20)
        for network in [] if model.pooled_head is None else model.pooled_head.networks:
            network[-1].weight.mul_(20)  # type: ignore[index, union-attr]
    line = export(make_models(checkpoint), file, half=half)
    names = ["lines", "tips", *(["landmarks"] if has_landmarks else [])]
    assert line.startswith(f"onnxruntime's {', '.join(['probabilities', *names])} differ from torch's by ")
    tolerance = 2e-2 if half else 1e-4
    assert_equal_predictions(file, model, images, tolerance)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["probabilities", *names]
    with torch.inference_mode():
        outputs = model(images, with_lines=True)
    for batch in (images[:1], images):
        found = session.run(names, {"images": batch.numpy()})
        of_torch = [outputs.line_logits, outputs.tip_logits, outputs.landmark_logits][: len(names)]
        for values, logits, num_maps in zip(found, of_torch, (4, 4, 2)[: len(names)], strict=True):
            expected = 1 / (1 + np.exp(-logits[: len(batch)].double().numpy()))
            assert values.shape == (len(batch), num_maps, 32, 32)
            assert np.abs(values - expected).max() < tolerance
    metadata = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert json.loads(metadata["map_shape"]) == [32, 32]
    assert json.loads(metadata["landmarks"]) == (["carina", "dome"] if has_landmarks else [])
    assert json.loads(metadata["device_types"]) == {name: list(labels) for name, labels in RANZCR_HEADS.items()}


@pytest.mark.slow
@pytest.mark.parametrize("backbone_model", ["mobilenetv3_small_050", "hgnetv2_b0", "ghostnet_100", "efficientvim_m1"])
def test_onnx_of_other_feature_maps(backbone_model: str, images: torch.Tensor, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(backbone_model=backbone_model, classifier="attention")
    export(make_models(checkpoint), tmp_path / "model.onnx", half=False)
    assert_equal_predictions(tmp_path / "model.onnx", checkpoint.model, images, 1e-4)


@pytest.mark.slow
def test_half_precision(images: torch.Tensor, tmp_path: Path) -> None:
    checkpoint = make_checkpoint()
    for half in (False, True):
        export(make_models(checkpoint), tmp_path / f"{half}.onnx", half=half)
    assert_equal_predictions(tmp_path / "True.onnx", checkpoint.model, images, 2e-2)
    assert (tmp_path / "True.onnx").stat().st_size < 0.7 * (tmp_path / "False.onnx").stat().st_size


@pytest.mark.slow
def test_the_script_and_what_the_file_says(evaluated_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    done = run_script("predict.py", "--model", evaluated_run / "fold0" / "best.pt", "--export", file)
    assert done.returncode == 0, done.stderr
    assert f"of batches of 1 and 3 -> {file}" in done.stdout
    metadata = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert json.loads(metadata["labels"]) == list(RANZCR_LABELS)
    assert json.loads(metadata["preprocessing"])["image_size"] == [32, 32]
    assert json.loads(metadata["thresholds"]).keys() <= set(RANZCR_LABELS)
    assert json.loads(metadata["calibration"])["method"] in ("none", "temperature", "platt", "isotonic")
    assert "not a medical device" in metadata["warning"]
    shape = onnx.load(file).graph.input[0].type.tensor_type.shape.dim
    assert (shape[0].dim_param, shape[2].dim_value) == ("batch", 32)


def test_safetensors_can_be_trained_from(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    checkpoint = make_checkpoint()
    export(make_models(checkpoint), file, half=False)
    weights = load_file(file)
    assert all(torch.equal(weights[name], value) for name, value in checkpoint.model.state_dict().items())
    backbone, origin = create_backbone("test_resnet", pretrained=str(file), image_shape=(128, 128), is_pooled=True)
    assert "tensors taken from" in origin
    name, value = next(iter(backbone.state_dict().items()))
    assert torch.equal(weights[f"backbone.{name}"], value)


def test_mistakes(tmp_path: Path) -> None:
    one, two = make_checkpoint(0), make_checkpoint(1)
    with pytest.raises(UserError, match=r"2 checkpoints; one is exported, for example 0\.pt"):
        export(make_models(one, two), tmp_path / "model.onnx", half=False)
    with pytest.raises(UserError, match=r"a file that ends in \.onnx or \.safetensors is expected"):
        export(make_models(one), tmp_path / "model.pb", half=False)
    with pytest.raises(UserError, match=r"a file that ends in \.onnx is expected"):
        export(make_models(one), tmp_path / "model.safetensors", half=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_program_in_the_docs(evaluated_run: Path, sample_folder: Path, tmp_path: Path) -> None:
    """It runs the file without this package, and comes close: its resizing is OpenCV's own."""
    page = (REPOSITORY / "docs/how-to/deploy-onnx.md").read_text()
    program = next(code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "onnxruntime" in code)
    assert "catheters" not in program
    xray = min((sample_folder / "test").iterdir())
    file = tmp_path / "model.onnx"
    export(read_models([evaluated_run / "fold0" / "best.pt"]), file, half=False)
    done = subprocess.run(
        [sys.executable, "-c", program, str(file), str(xray)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    printed = dict(re.findall(r"^(.+): (0\.\d+), threshold", done.stdout, re.MULTILINE))
    result = catheters.load(evaluated_run / "fold0" / "best.pt", calibrated=False)(xray)
    assert {label: float(text) for label, text in printed.items()} == pytest.approx(result.probabilities, abs=0.01)
    assert sum(line != "" for line in program.splitlines()) <= 15
