"""What a run says of its model and how it was trained."""

from typing import Any

from catheters.config.settings import Settings
from catheters.errors import counted, listed
from catheters.evaluation.ensemble import METHODS
from catheters.runs.paper.answers.data import held_out, leaks_between_folds
from catheters.runs.paper.checklist import Answer
from catheters.runs.paper.facts import Facts


def technology(facts: Facts) -> Answer | None:
    """What kind of AI it is."""
    settings = facts.settings
    if settings is None:
        return None
    text = (
        f"Deep learning: a classifier of chest radiographs ({counted(len(settings.label_columns), 'label')}) on the "
        f"network {settings.backbone_model}."
    )
    return Answer(text=text, source="settings.json")


def study_goal(facts: Facts) -> Answer | None:
    """Development with internal testing."""
    settings = facts.settings
    if settings is None:
        return None
    leaks = leaks_between_folds(facts)
    apart = f"the folds leak: {leaks}" if leaks else "no patient is in two folds"
    text = (
        f"A model is developed, and evaluated on internal data {held_out(facts, settings.num_folds)}; {apart}. The "
        "task is diagnostic: labels of one image, no prognosis."
    )
    return Answer(text=text, source="settings.json")


def preprocessing(facts: Facts) -> Answer | None:
    """From a file to what the network sees."""
    settings = facts.settings
    if settings is None:
        return None
    height, width = settings.image_shape
    shape = "keeping the aspect, with black padding" if settings.resize == "pad" else "both sides stretched to fit"
    resampling = "averaging by area" if settings.resampling == "area" else "bilinear and blocks (version 0.2.0)"
    inverted = {"keep": "kept as they are", "invert": "inverted back", "exclude": "left out"}[settings.inverted]
    text = (
        f"X-rays are decoded to 8-bit grey and resized to {height} x {width} pixels (height x width), {shape}, by "
        f"{resampling}. Black borders are {'' if settings.crop_borders else 'not '}cut off first. Images in inverted "
        f"grayscale are {inverted}."
    )
    if facts.models:
        model = facts.models[0]
        text += f" Grey values in 0..1 are normalised by mean {model.mean:.4f} and standard deviation {model.std:.4f}."
    return Answer(text=text, source="settings.json, fold*/best.pt")


def architecture(facts: Facts) -> Answer | None:
    """Input, network, heads, output."""
    settings = facts.settings
    if settings is None:
        return None
    height, width = settings.image_shape
    head = "one linear layer on pooled features"
    if settings.classifier == "attention":
        head = f"attention heads, one per device type ({listed(settings.device_types) or 'one for all labels'})"
    text = (
        f"Input: one grey image of {height} x {width} pixels. Network: timm's {settings.backbone_model}. Head: {head}. "
        f"Output: a probability per label ({len(settings.label_columns)}), by a sigmoid each"
    )
    text += f", by a softmax over {listed(settings.exclusive)}." if settings.exclusive else "."
    if settings.lines is not None:
        text += f" Lines and tips: lines='{settings.lines}', see the documentation."
    if settings.drop_rate or settings.drop_path_rate:
        text += f" Dropout {settings.drop_rate:g}, stochastic depth {settings.drop_path_rate:g}."
    if facts.models:
        text += f" {facts.models[0].num_parameters:,} parameters and running averages."
    return Answer(text=text, source="settings.json, fold*/best.pt")


def model_input(facts: Facts) -> Answer | None:
    """What the model knows of an image that it predicts."""
    if facts.settings is None:
        return None
    text = "The pixels of the X-ray alone go in: no clinical information, and no label of an image that is predicted."
    return Answer(text=text, source="settings.json")


def initialization(facts: Facts) -> Answer | None:
    """What training starts from."""
    settings = facts.settings
    if settings is None:
        return None
    if settings.pretrained is True:
        start = (
            f"The network starts from timm's pretrained weights of {settings.backbone_model}; heads start at random."
        )
    elif settings.pretrained is False:
        start = "All weights start at random."
    else:
        parts = "all parts" if settings.pretrained_parts == "all" else "the network; heads start at random"
        start = f"Weights of {settings.pretrained} are taken for {parts}."
    return Answer(text=f"{start} Seed {settings.seed}.", source="settings.json")


def training(facts: Facts) -> Answer | None:
    """Optimizer, schedule, loss, batches, augmentation."""
    settings = facts.settings
    if settings is None:
        return None
    parts = [
        f"At most {settings.num_epochs} epochs per fold, {settings.optimizer}{_params(settings.optimizer_params)}, "
        f"peak learning rate {settings.peak_lr:g} after {counted(settings.warmup_epochs, 'warm-up epoch')}, schedule "
        f"{settings.schedule}, weight decay {settings.weight_decay:g}",
        f"batches of {settings.batch_size} images{_accumulated(settings)}",
        f"loss {settings.loss_func}{_params(settings.loss_params)}",
        f"early stopping after {counted(settings.early_stop, 'epoch')}" if settings.early_stop else "no early stopping",
    ]
    if settings.ema_decay is not None:
        parts.append(f"EMA weights (decay {settings.ema_decay:g})")
    if settings.mixup_alpha:
        parts.append(f"mixup (alpha {settings.mixup_alpha:g})")
    if settings.label_smoothing:
        parts.append(f"label smoothing{_params(settings.label_smoothing)}")
    if settings.clip_grad_norm is not None:
        parts.append(f"gradients clipped to a norm of {settings.clip_grad_norm:g}")
    if settings.teacher is not None:
        parts.append(f"soft labels of the teacher {settings.teacher}, out of fold")
    if settings.stages:
        parts.append(f"{len(settings.stages)} stages, each from the weights of the one before")
    augmentation = "; ".join(f"{name}{_params(params)}" for name, params in settings.train_transforms) or "none"
    text = f"{'; '.join(parts)}. Augmentation: {augmentation}. Seed {settings.seed}. settings.json has every setting."
    return Answer(text=text, source="settings.json")


def _accumulated(settings: Settings) -> str:
    steps = settings.accumulation_steps
    return "" if steps == 1 else f", gradients accumulated over {steps}"


def _params(params: dict[str, Any]) -> str:
    return f" ({', '.join(f'{name} {value}' for name, value in params.items())})" if params else ""


def class_imbalance(facts: Facts) -> Answer | None:
    """Weighted losses."""
    settings = facts.settings
    if settings is None:
        return None
    ways = []
    if settings.pos_weight:
        ways.append(f"positives are weighed in the loss{_params(settings.pos_weight)}")
    if settings.loss_func != "bce":
        ways.append(f"the loss is {settings.loss_func}{_params(settings.loss_params)}")
    if settings.weight_column is not None:
        ways.append(f"images are weighed by column {settings.weight_column}")
    ways = ways or ["no weighting and no resampling of classes"]
    if settings.fold_column is None:
        ways.append("folds are balanced in every label")
    text = "; ".join(ways)
    text = (
        f"{text[0].upper()}{text[1:]}. Calibration is checked afterwards: {facts.evaluation.calibrator.method} is kept."
    )
    return Answer(text=text, source="settings.json, metrics.json (calibration)")


def selection(facts: Facts) -> Answer | None:
    """Which epoch is kept."""
    settings = facts.settings
    if settings is None:
        return None
    epochs = ", ".join(f"fold {model.fold} epoch {model.epoch}" for model in facts.models)
    text = (
        "Of each fold the epoch with the highest macro ROC AUC on the fold's validation images is kept"
        f"{f' ({epochs})' if epochs else ''}. The fold is scored on the same images, so scores are slightly "
        "optimistic. Whether settings were searched before, the run does not know."
    )
    return Answer(text=text, source="fold*/best.pt")


def ensembling(facts: Facts) -> Answer | None:
    """One model per image here, all fold models for new images."""
    ensemble = facts.background.ensemble
    if ensemble is not None:
        names = listed(member.name for member in ensemble.members)
        return Answer(
            text=f"Ensemble of {len(ensemble.members)} ({names}): {METHODS[ensemble.method].meaning}.",
            source="ensemble.json",
        )
    if facts.settings is None:
        return None
    which = "one model that has not seen its patient" if facts.flow.is_out_of_fold else "model of its fold alone"
    text = (
        f"None in the evaluation: each image is predicted by the {which}. New images "
        f"get the mean of the probabilities of {counted(len(facts.models), 'fold model')}."
    )
    return Answer(text=text, source="predictions.csv, fold*/best.pt")


def software(facts: Facts) -> Answer | None:
    """Versions, commit, hardware."""
    environment = facts.environment
    if environment is None:
        return None
    versions = ", ".join(f"{package} {version}" for package, version in environment["versions"].items())
    hardware = environment["hardware"]
    gpus = f", {listed(hardware['gpus'])}" if hardware["gpus"] else ""
    text = (
        f"{versions}, Python {environment['python']}, commit {environment['git_commit'] or 'unknown'}. Computed on "
        f"{environment['device']} ({hardware['cpu']}, {hardware['memory_gb']} GB of memory{gpus})."
    )
    if facts.num_environments > 1:
        text += f" The run was resumed under {facts.num_environments - 1} other environments."
    return Answer(text=text, source="environment.json")


def full_model(facts: Facts) -> Answer | None:
    """Where the model itself is."""
    if not facts.models:
        return None
    files = listed(f"fold{model.fold}/best.pt" for model in facts.models)
    text = (
        f"The models are the checkpoints {files}, with settings, preprocessing and labels in each. predict.py computes "
        "the probabilities of new images with them, calibration.json calibrates, metrics.json has the thresholds."
    )
    return Answer(text=text, source="run folder")


def availability(facts: Facts) -> Answer | None:
    """What names code and data exactly."""
    if facts.environment is None:
        return None
    version = facts.environment["versions"].get("catheters", "unknown")
    text = (
        f"Code: catheters {version}, commit {facts.environment['git_commit'] or 'unknown'}. The data that were trained "
        f"on have the fingerprint {facts.fingerprint} (SHA-256)."
    )
    return Answer(text=text, source="environment.json")


def input_quality(facts: Facts) -> Answer | None:
    """What happens to poor new images."""
    if facts.settings is None:
        return None
    text = (
        "predict.py leaves out files that it cannot read, with the reason, and flags images that are nearly blank, in "
        "inverted grayscale, or unlike the training images (out-of-distribution)."
    )
    return Answer(text=text, source="documentation")
