"""Weights from a file into a backbone: ours, timm's, or another program's."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from timm.models import adapt_input_conv
from torch import Tensor, nn

from catheters.errors import UserError, listed
from catheters.models.foreign_names import at_size_of, by_own_names
from catheters.models.weight_files import WeightFile, read_weight_file
from catheters.models.weight_sources import WeightSource, find_weights

RGB_CHANS = 3
GREY_VALUES = ("mean", "std")
"""Buffers of a classifier that follow the images, see `catheters.models.classifier`."""
MAX_RESAMPLED = 3
"""Resampled tensors that are named."""
BACKBONE = "backbone."
"""Before the names of the backbone's tensors in our checkpoints."""
FIRST_STAGE = "first_stage."
"""Before the names of a first stage's tensors in our checkpoints."""


def load_weights(backbone: nn.Module, name: str, pretrained: str) -> str:
    """Fill a backbone from a file that has all its tensors, under whatever prefix, and say what was taken.

    `best.pt` of any run will do, of one that sees the maps of a first stage without what it makes of these. So will
    files of other programs: a state dict wherever it stands in the file, names with a prefix such as "model." or
    "module.", a classifier of another size, an RGB stem.

    Args:
        backbone: a timm model of one input channel without its classifier.
        name: timm's name of it, for messages.
        pretrained: a .pth, .pt or .safetensors file, or what leads to one, see `find_weights`.

    Returns:
        A line that says how many tensors were taken and which were not.

    Raises:
        UserError: no file, not a file of weights, or one tensor of the backbone is not in it: it is of another
            architecture. timm's own loading would take what fits and leave the rest random.
    """
    source, read = _read(pretrained)
    is_own = read.own is not None
    # A run that sees the maps of a first stage keeps that one's models too, whose backbones are none of its own.
    of_first_stage = [key for key in read.weights if is_own and key.startswith(FIRST_STAGE)]
    weights = {key: value for key, value in read.weights.items() if key not in set(of_first_stage)}
    weights = by_own_names(weights)
    prefix = _find_prefix(weights, backbone.state_dict())
    fit = _fit(weights, prefix, backbone, is_own=is_own)
    resampled: list[str] = []
    if fit.wrong:
        inner = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        adapted = at_size_of(backbone, inner)
        by_filter = _fit(adapted, "", backbone, is_own=is_own)
        if not by_filter.wrong:
            fit = by_filter
            resampled = [key for key, value in adapted.items() if key in inner and inner[key].shape != value.shape]
    num_wanted = len(backbone.state_dict())
    if fit.wrong:
        other = source.other_architecture(name)
        raise UserError(
            f"pretrained={source.origin}: not weights of {name}: {len(fit.wrong)} tensors differ from its "
            f"{num_wanted}; {fit.wrong[0]}" + (f"; its config.json says backbone_model={other}" if other else "")
        )
    backbone.load_state_dict(fit.taken)
    line = f"{name}: {len(fit.taken)} of its {num_wanted} tensors taken from {source.origin}"
    for key, number in fit.num_maps.items():
        line += f" (of {key} the image's channel, not those of {number} maps)"
    if resampled:
        line += f" ({listed(resampled, MAX_RESAMPLED)} resampled to this image size)"
    return line + _describe_left(fit.left, len(of_first_stage))


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """How far the tensors of a file are those of a model.

    Attributes:
        taken: name in the model -> tensor of its shape.
        wrong: what is missing, of another shape, or of a larger model of the same kind.
        left: names in the file that are not taken.
        num_maps: stem -> channels of a first stage's maps in it, which are left out.
    """

    taken: Mapping[str, Tensor]
    wrong: list[str]
    left: list[str]
    num_maps: Mapping[str, int]


def _fit(weights: Mapping[str, Tensor], prefix: str, backbone: nn.Module, *, is_own: bool) -> _Fit:
    """Compare the tensors of a file, whose names begin with a prefix, with those of a model of one input channel."""
    wanted = backbone.state_dict()
    config = backbone.pretrained_cfg
    assert isinstance(config, dict), "timm's models carry their configuration"
    stems = {f"{prefix}{stem}.weight" for stem in _names(config.get("first_conv"))}
    taken = {}
    wrong = []
    num_maps: dict[str, int] = {}
    for key, value in wanted.items():
        weight = weights.get(prefix + key)
        if weight is not None and prefix + key in stems and weight.shape[1] > value.shape[1]:
            if is_own and value.shape[1] == 1:
                num_maps[key] = weight.shape[1] - 1
                weight = weight[:, :1]
            elif weight.shape[1] == RGB_CHANS:
                weight = adapt_input_conv(value.shape[1], weight)
        if weight is None and key.endswith("num_batches_tracked"):
            taken[key] = value  # older programs save none, and nothing depends on it
        elif weight is None:
            wrong.append(f"{key} is missing")
        elif weight.shape != value.shape:
            wrong.append(f"{key} is {tuple(weight.shape)}, the model's {tuple(value.shape)}")
        else:
            taken[key] = weight
    left = [key for key in weights if key.removeprefix(prefix) not in taken or not key.startswith(prefix)]
    # A larger model of the same kind has all tensors of a smaller one. What else stands in the file is a head's.
    modules = {key.partition(".")[0] for key in wanted}
    classifiers = tuple(f"{classifier}." for classifier in _names(config.get("classifier")))
    inner = [key.removeprefix(prefix) for key in left if key.startswith(prefix)]
    wrong += [
        f"{key} is not the model's"
        for key in inner
        if key.partition(".")[0] in modules
        and key not in wanted
        and not key.startswith(classifiers)
        and weights[prefix + key].is_floating_point()  # others are indices that a model can make again
    ]
    return _Fit(taken=taken, wrong=wrong, left=left, num_maps=num_maps)


def load_all_weights(
    model: nn.Module, pretrained: str, label_columns: Sequence[str], meaning: Mapping[str, Mapping[str, Any]]
) -> str:
    """Fill a classifier from a checkpoint of the same kind of model, but for the grey mean and standard deviation.

    Args:
        model: a classifier without a first stage.
        pretrained: a checkpoint of this program, or what leads to one, see `find_weights`.
        label_columns: (K,) what it predicts.
        meaning: name of a setting -> its value: what says which tensor stands for what, beside its shape.

    Returns:
        A line that says how many tensors were taken.

    Raises:
        UserError: no such checkpoint, or of other labels or another model.
    """
    source, read = _read(pretrained)
    where = f"pretrained={source.origin}"
    if read.own is None:
        raise UserError(f"{where}: is no checkpoint of this program, which pretrained_parts='all' needs")
    labels = list(read.own["label_columns"])
    if labels != list(label_columns):
        raise UserError(
            f"{where}: predicts {listed(labels)}, not label_columns as they are here; "
            "pretrained_parts='backbone' takes the backbone alone"
        )
    earlier = json.loads(read.own["settings"])
    for name, value in meaning.items():
        here, there = (list(json.loads(json.dumps(dict(of))).items()) for of in (value, earlier.get(name, {})))
        if here != there:  # in the same order too, which is that of the tensors
            raise UserError(
                f"{where}: has {name}={dict(there)}, here {dict(here)}; set it as there, or "
                "pretrained_parts='backbone', which takes the backbone alone"
            )
    weights = {key: value for key, value in read.weights.items() if not key.startswith(FIRST_STAGE)}
    wanted = model.state_dict()
    if any(key in wanted and value.shape != wanted[key].shape for key, value in weights.items()):
        inner = {key.removeprefix(BACKBONE): value for key, value in weights.items() if key.startswith(BACKBONE)}
        adapted = at_size_of(cast("nn.Module", model.backbone), inner)
        weights |= {f"{BACKBONE}{key}": value for key, value in adapted.items() if f"{BACKBONE}{key}" in wanted}
    wrong = [f"{key} is missing" for key in wanted if key not in weights]
    wrong += [f"{key} is not the model's" for key in weights if key not in wanted]
    wrong += [
        f"{key} is {tuple(weights[key].shape)}, the model's {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in weights and weights[key].shape != value.shape
    ]
    if wrong:
        raise UserError(
            f"{where}: is of another model: {len(wrong)} tensors differ from its {len(wanted)}; {wrong[0]}; "
            "pretrained_parts='backbone' takes the backbone alone"
        )
    model.load_state_dict({**weights, **{name: wanted[name] for name in GREY_VALUES}})
    return f"all {len(wanted)} tensors taken from {source.origin}, but for the grey mean and standard deviation"


def _read(pretrained: str) -> tuple[WeightSource, WeightFile]:
    source = find_weights(pretrained)
    try:
        return source, read_weight_file(source.file)
    except UserError as error:
        is_path = source.origin == pretrained
        raise UserError(f"pretrained={error}" if is_path else f"pretrained={pretrained}: {error}") from None


def _describe_left(left: list[str], num_of_first_stage: int) -> str:
    """The end of a line: the modules whose tensors were not taken, and how many they are."""
    groups = Counter(key.rpartition(".")[0] or key for key in left)
    if num_of_first_stage:
        groups[FIRST_STAGE.removesuffix(".")] = num_of_first_stage
    return f"; not taken: {', '.join(f'{group} ({count})' for group, count in groups.items())}" if groups else ""


def _find_prefix(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """What stands before the names of the backbone's tensors in the file: the prefix that fits most of them."""
    first = next(iter(wanted))
    prefixes = [key.removesuffix(first) for key in weights if key.endswith(first)]
    return max(prefixes, key=lambda prefix: sum(prefix + key in weights for key in wanted), default="")


def _names(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """timm's configurations name one layer, several, or none."""
    return (value,) if isinstance(value, str) else tuple(value or ())
