"""`best.pt`: all that is needed to predict, in a file that `torch.load(weights_only=True)` reads."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from catheters.checkpoints.parts import build_classifier, build_preprocessing
from catheters.config.loading import settings_from_json, settings_to_json
from catheters.config.settings import Settings
from catheters.data.loader import Loader
from catheters.data.preprocessing import Preprocessing
from catheters.errors import UserError, one_line
from catheters.io.files import UnreadableFileError, write_whole
from catheters.io.torch_files import read_torch_file
from catheters.models.classifier import Classifier
from catheters.models.feature_space import FeatureSpace, fit_feature_space, pooled
from catheters.models.first_stage import FirstStage
from catheters.runtime.precision import autocast, choose_dtype
from catheters.runtime.progress import track


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A trained model with what it needs to know of an image.

    Attributes:
        file: where it comes from.
        model: in evaluation mode, on the CPU.
        settings: of its run.
        preprocessing: from a file to its pixels.
        feature_space: where its features of ordinary images lie; None where that was not measured.
        line_settings: those of the model that finds lines, where one does: its own, or its first stage's.
    """

    file: Path
    model: Classifier
    settings: Settings
    preprocessing: Preprocessing
    feature_space: FeatureSpace | None
    line_settings: Settings

    def dtype_on(self, device: torch.device) -> torch.dtype | None:
        """Type of mixed precision that it computes in on a device; None for full precision."""
        return choose_dtype(self.settings.use_amp, self.settings.amp_dtype, device)


def save_checkpoint(
    file: Path,
    model: Classifier,
    settings: Settings,
    environment: Mapping[str, Any],
    scores: Mapping[str, float],
    first_stage: Sequence["Checkpoint"] = (),
) -> None:
    """Write weights, settings, labels, preprocessing, score and environment; the file is whole or absent.

    Args:
        file: the `.pt` to write.
        model: the trained classifier.
        settings: the run's settings.
        environment: see `describe_environment`, with the `data_fingerprint` of what it was trained on.
        scores: `epoch`, how many were trained; `fold` and `macro_auc` of a validated model, `seed` of another.
        first_stage: the models whose maps it sees, which go into the file, so that it predicts by itself.
    """
    weights = dict(model.state_dict())
    if first_stage:
        of_first = FirstStage([member.model for member in first_stage]).state_dict()
        weights |= {f"first_stage.{name}": value for name, value in of_first.items()}
    content = {
        "model": {name: value.cpu() for name, value in weights.items()},  # any machine can load it
        "settings": settings_to_json(settings),
        "label_columns": list(settings.label_columns),
        "preprocessing": {
            **build_preprocessing(settings).describe(),
            "mean": float(model.mean),
            "std": float(model.std),
        },
        **scores,
        "environment": dict(environment),
        **({"first_stage": [_describe_member(member) for member in first_stage]} if first_stage else {}),
    }
    write_whole(file, lambda part: save_tensors(part, content))


def _describe_member(member: "Checkpoint") -> dict[str, Any]:
    grey_values = {"mean": float(member.model.mean), "std": float(member.model.std)}
    return {"file": str(member.file), "settings": settings_to_json(member.settings), **grey_values}


def save_tensors(file: Path, content: Mapping[str, Any]) -> None:
    """`torch.save`, through Python's file, whose error says why the disk would take no more."""
    with file.open("wb") as stream:
        torch.save(content, stream)


def add_feature_space(file: Path, loader: Loader, patient_ids: npt.NDArray[np.str_], device: torch.device) -> None:
    """Measure where the features of ordinary images lie, and keep it in a checkpoint.

    Args:
        file: the checkpoint; it is replaced, whole or not at all.
        loader: batches of n images, in order; those that the model was not trained on where there are any.
        patient_ids: (n,) whose images they are.
        device: where to compute.
    """
    content = _read(file)
    checkpoint = _from_content(file, content)
    model, dtype = checkpoint.model.to(device), checkpoint.dtype_on(device)
    parts = []
    with torch.inference_mode(), autocast(device, dtype):
        for batch in track(loader, "measuring features", len(loader), unit="batch", leave=False):
            features = model.features(batch.images.to(device, non_blocking=True))
            parts.append(pooled(features.seen).cpu().numpy())
    space = fit_feature_space(np.concatenate(parts), patient_ids)
    if space is not None:
        write_whole(file, lambda part: save_tensors(part, {**content, "feature_space": space.state_dict()}))


def load_checkpoint(file: Path) -> Checkpoint:
    """The inverse of `save_checkpoint`.

    Raises:
        UserError: it is missing, damaged (every byte is compared with a checksum), or no checkpoint of train.py.
    """
    content = _read(file)
    try:
        return _from_content(file, content)
    except (KeyError, TypeError, IndexError, AttributeError):
        raise UserError(f"{file}: no checkpoint of train.py, which has weights, settings and preprocessing") from None


def _read(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = read_torch_file(file)
    except UnreadableFileError as error:
        raise UserError(f"{error}; best.pt of a run is expected, as train.py wrote it") from None
    return content


def _from_content(file: Path, content: Mapping[str, Any]) -> Checkpoint:
    weights, preprocessing = content["model"], content["preprocessing"]
    versions = content.get("environment", {}).get("versions", {})
    settings = settings_from_json(content["settings"], str(file), versions.get("catheters"))
    model = _build_bare(settings, preprocessing["mean"], preprocessing["std"])
    line_settings = settings
    if "first_stage" in content:
        members = []
        for member in content["first_stage"]:
            line_settings = settings_from_json(member["settings"], f"{file}: first stage", versions.get("catheters"))
            members.append(_build_bare(line_settings, member["mean"], member["std"]))
        model.first_stage = FirstStage(members)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"{file}: its weights are not those of {settings.backbone_model} as this version of timm makes it "
            f"({one_line(error)})"
        ) from None
    model.origin = str(file)
    space = content.get("feature_space")
    return Checkpoint(
        file=file,
        model=model.eval(),
        settings=settings,
        preprocessing=build_preprocessing(settings),
        feature_space=None if space is None else FeatureSpace.from_state_dict(space),
        line_settings=line_settings,
    )


def _build_bare(settings: Settings, mean: float, std: float) -> Classifier:
    """A model for a checkpoint's weights, which has them all: no others are looked for."""
    return build_classifier(dataclasses.replace(settings.with_random_weights(), grad_checkpointing=False), mean, std)
