"""A checkpoint as a file that runs without this package: ONNX, or the weights alone as safetensors."""

import contextlib
import copy
import importlib
import importlib.metadata
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from catheters.checkpoints.checkpoint import Checkpoint
from catheters.config.loading import settings_to_json
from catheters.errors import UserError, listed, one_line
from catheters.evaluation.calibration import calibrator_to_json
from catheters.inference.loading import Models
from catheters.io.files import write_whole
from catheters.models.classifier import Classifier

OPSET = 20
MAX_DIFFERENCE = 1e-4
"""How far probabilities of the ONNX file may be from torch's."""
MAX_HALF_DIFFERENCE = 2e-2
"""The same at half precision, whose numbers have 11 bits."""
FUSED_ATTENTION = "fused_attn"
"""What timm's layers call the switch of torch's fused attention."""
FORMATS = (".onnx", ".safetensors")
WARNING = "Research software, not a medical device: nothing it says may decide about a patient."


class _Probabilities(nn.Module):
    """What is exported: pixels in, probabilities out; of a model with a line decoder those of its maps as well."""

    def __init__(self, classifier: Classifier, *, has_landmarks: bool) -> None:
        super().__init__()
        self.classifier = classifier
        self.output_names = ["probabilities"]
        if classifier.finds_lines:
            self.output_names += ["lines", "tips", *(["landmarks"] if has_landmarks else [])]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs = self.classifier(images, with_lines=True)
        probabilities = self.classifier.probabilities(outputs)
        maps = (outputs.line_logits, outputs.tip_logits, outputs.landmark_logits)
        return probabilities, *(torch.sigmoid(logits) for logits in maps if logits is not None)


def export(models: Models, file: Path, *, half: bool) -> str:
    """Write one checkpoint as a file for other programs; it is whole or absent. Returns a line on what was checked.

    Args:
        models: a single checkpoint, with its calibration and thresholds where they are known.
        file: ends in .onnx or .safetensors.
        half: ONNX at half precision.

    Raises:
        UserError: several checkpoints, another ending, packages are missing, or the file does not compute what torch
            does.
    """
    if len(models.checkpoints) > 1:
        raise UserError(
            f"--export: {len(models.checkpoints)} checkpoints; one is exported, for example "
            f"{models.checkpoints[0].file}"
        )
    if file.suffix not in FORMATS or (half and file.suffix != ".onnx"):
        raise UserError(f"--export {file}: a file that ends in {'.onnx' if half else ' or '.join(FORMATS)} is expected")
    if not file.absolute().parent.is_dir():
        raise UserError(f"--export {file}: a file in a folder that exists is expected")
    checkpoint = models.checkpoints[0]
    metadata = describe(models)
    if file.suffix == ".safetensors":
        weights = {name: value.contiguous() for name, value in checkpoint.model.state_dict().items()}
        content = save(weights, metadata=metadata)
        write_whole(file, lambda part: part.write_bytes(content))
        return f"{len(weights)} tensors"
    return _export_onnx(checkpoint, metadata, file, half=half)


def describe(models: Models) -> dict[str, str]:
    """What a program needs to know to run a checkpoint, name -> text; what is no plain text is JSON."""
    checkpoint = models.checkpoints[0]
    content: dict[str, Any] = {
        "labels": list(models.labels),
        "heads": {device: list(labels) for device, labels in models.heads.items()},
        "preprocessing": checkpoint.preprocessing.describe(),
        "thresholds": {} if models.thresholds is None else dict(models.thresholds.labels),
        "threshold_rule": None if models.thresholds is None else models.thresholds.rule,
        "calibration": None if models.calibrator is None else calibrator_to_json(models.calibrator),
    }
    if checkpoint.model.finds_lines:
        settings = checkpoint.line_settings
        content["device_types"] = {name: list(labels) for name, labels in settings.device_types.items()}
        content["map_shape"] = list(settings.map_shape)
        content["landmarks"] = list(settings.landmarks)
    return {
        **{name: json.dumps(value) for name, value in content.items()},
        "backbone_model": checkpoint.settings.backbone_model,
        "settings": settings_to_json(checkpoint.settings),
        "made_by": f"catheters {importlib.metadata.version('catheters')}",
        "warning": WARNING,
    }


def _export_onnx(checkpoint: Checkpoint, metadata: Mapping[str, str], file: Path, *, half: bool) -> str:
    try:
        import onnx
        import onnxruntime

        importlib.import_module("onnxscript")  # torch's exporter needs it
    except ImportError as error:
        raise UserError(f"--export {file}: needs {error.name}; pip install 'catheters[export]'") from None
    # On the CPU, wherever the model predicts: the file is held against what torch computes there.
    classifier = copy.deepcopy(checkpoint.model).cpu()
    module = _Probabilities(classifier, has_landmarks=bool(checkpoint.line_settings.landmarks)).eval()
    height, width = checkpoint.preprocessing.image_shape
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (3, 1, height, width), dtype=np.uint8))
    try:
        model = _as_onnx(module, images[:2], half=half)
        for name, value in metadata.items():
            entry = model.metadata_props.add()
            entry.key, entry.value = name, value
        onnx.checker.check_model(model)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        computed = [
            dict(zip(module.output_names, session.run(module.output_names, {"images": batch.numpy()}), strict=True))
            for batch in (images[:1], images)
        ]
    except Exception as error:  # models and the exporter fail in ways of their own
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise UserError(
            f"--export {file}: {checkpoint.settings.backbone_model} cannot be written as ONNX "
            f"({one_line(cause, 160)}); a .safetensors file has its weights"
        ) from error
    with torch.inference_mode():
        expected = dict(zip(module.output_names, (output.numpy() for output in module(images)), strict=True))
    limit = MAX_HALF_DIFFERENCE if half else MAX_DIFFERENCE
    differences = {}
    for name, of_torch in expected.items():
        of_batches = [outputs[name] for outputs in computed]
        differences[name] = max(float(np.abs(output - of_torch[: len(output)]).max()) for output in of_batches)
        if not differences[name] <= limit:
            raise UserError(
                f"--export {file}: onnxruntime's {name} differ from torch's by {differences[name]:.1e}, more than "
                f"{limit:.0e}; nothing is written"
            )
    write_whole(file, lambda part: onnx.save(model, part))
    what, difference = listed(expected), max(differences.values())
    return f"onnxruntime's {what} differ from torch's by {difference:.1e} at most, of batches of 1 and 3"


def _as_onnx(module: _Probabilities, images: Tensor, *, half: bool) -> Any:
    """The onnx.ModelProto of a module that reads such images, in batches of any size.

    Args:
        module: in evaluation mode.
        images: (B, 1, H, W) uint8, of which the exporter follows the way; B > 1, or it would be taken for a constant.
        half: at half precision.
    """
    with _quiet(), _unfused_attention(module):
        program = torch.onnx.export(
            module,
            (images,),
            dynamo=True,
            input_names=["images"],
            output_names=module.output_names,
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            opset_version=OPSET,
            verbose=False,
        )
        assert program is not None
        model = program.model_proto
        if half:
            from onnxruntime.transformers.float16 import convert_float_to_float16
            from onnxruntime.transformers.onnx_model import OnnxModel

            model = convert_float_to_float16(model, keep_io_types=True)
            OnnxModel(model).topological_sort()  # it puts some casts behind what reads them
        return model


@contextlib.contextmanager
def _unfused_attention(module: nn.Module) -> Iterator[None]:
    """Let timm's attention be products and a softmax, which the exporter writes in any case.

    Of the fused function with a mask it loses the order in memory, and fails at the reshaping after it.
    """
    fused = [layer for layer in module.modules() if getattr(layer, FUSED_ATTENTION, False)]
    for layer in fused:
        setattr(layer, FUSED_ATTENTION, False)
    try:
        yield
    finally:
        for layer in fused:
            setattr(layer, FUSED_ATTENTION, True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and its warnings about itself from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
