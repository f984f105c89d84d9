"""Files of weights, ours and other programs', read without running anything that stands in them."""

import pickle
import re
import zipfile
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from timm.models import clean_state_dict
from torch import Tensor

from catheters.errors import UserError, one_line
from catheters.io.files import UnreadableFileError
from catheters.io.torch_files import check_archive
from catheters.runtime.memory import raise_if_out_of_memory

OWN_ENTRIES = ("model", "settings", "label_columns", "preprocessing")
"""What a checkpoint of train.py has."""
NAMES_SHOWN = 4
"""Entries of a file without weights that are named."""


class _Inert:
    """Stands for one beside the weights: keeps what it was made of, in which weights may stand, and does nothing."""

    def __new__(cls, *content: Any) -> "_Inert":
        made = super().__new__(cls)
        made.content = [*content]
        return made

    def __init__(self, *content: Any) -> None:
        """`__new__` has done it, by which an unpickler makes it as well."""

    content: list[Any]

    def __setstate__(self, state: Any) -> None:
        self.content.append(state)


class _PlainDict:
    """A plain dict in place of a class derived from it: torch lets an unpickler fill no other."""

    def __new__(cls, *_: Any) -> dict[Any, Any]:  # type: ignore[misc]
        return {}


class _PlainList:
    """A plain list in place of a class derived from it."""

    def __new__(cls, *_: Any) -> list[Any]:  # type: ignore[misc]
        return []


_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
STAND_INS: Mapping[str, type] = {
    "argparse.Namespace": _Inert,
    "types.SimpleNamespace": _Inert,
    "datetime.datetime": _Inert,
    "datetime.date": _Inert,
    "datetime.timedelta": _Inert,
    "decimal.Decimal": _Inert,
    "uuid.UUID": _Inert,
    "builtins.slice": _Inert,
    "builtins.range": _Inert,
    "builtins.frozenset": _Inert,
    "builtins.int": _Inert,
    "builtins.float": _Inert,
    "builtins.str": _Inert,
    "builtins.bool": _Inert,
    "builtins.list": _PlainList,
    "builtins.dict": _PlainDict,
    "collections.defaultdict": _PlainDict,
    "collections.deque": _PlainList,
    **{f"pathlib.{name}": _Inert for name in _PATHS},
    **{f"pathlib._local.{name}": _Inert for name in _PATHS},  # where Python 3.13 has them
    "numpy.dtype": _Inert,
    "numpy.ndarray": _Inert,
    **{
        f"numpy.{core}.multiarray.{name}": _Inert
        for core in ("core", "_core")  # before and since numpy 2
        for name in ("_reconstruct", "scalar")
    },
    "torch.torch_version.TorchVersion": _Inert,
    "pytorch_lightning.utilities.parsing.AttributeDict": _PlainDict,
    "lightning_fabric.utilities.data.AttributeDict": _PlainDict,
    "lightning.fabric.utilities.data.AttributeDict": _PlainDict,
    "omegaconf.dictconfig.DictConfig": _Inert,
    "omegaconf.listconfig.ListConfig": _Inert,
    "omegaconf.nodes.AnyNode": _Inert,
    "omegaconf.base.ContainerMetadata": _Inert,
    "omegaconf.base.Metadata": _Inert,
    "typing.Any": _Inert,
}
"""Types that stand beside weights in what people save -> what is made in their place. None of them is imported or made
itself, so no line of theirs runs; any other type is refused by name."""


CONTAINERS = (dict, list, tuple, _Inert)
"""In which weights are looked for."""


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """What stands in a file of weights.

    Attributes:
        weights: name -> tensor; without the prefixes of torch's wrappers.
        own: the content of a checkpoint of train.py; None for other programs' files.
    """

    weights: Mapping[str, Tensor]
    own: Mapping[str, Any] | None


def read_weight_file(file: Path) -> WeightFile:
    """The largest dict of tensors in a file, wherever it stands.

    Of two equally large ones, as of a model and its average, the one whose key says "ema" is taken, else the first.

    Args:
        file: what torch.save wrote, in its format of today or the one before 1.6, which has no checksums; or a
            .safetensors file.

    Raises:
        UserError: it is missing, damaged, holds no weights by name, or a type that is not known to be harmless; the
            message then has the line of Python that saves the weights again.
    """
    if not file.is_file():
        found = f"is a folder; of one with weights say local-dir:{file}" if file.is_dir() else "no such file"
        raise UserError(f"{file}: {found}; best.pt of a run, a .pth or a .safetensors file is expected")
    content = _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickled(file)
    found_dicts = list(_state_dicts(content))
    if not found_dicts:
        names = f"; it has: {', '.join(map(str, list(content)[:NAMES_SHOWN]))}" if isinstance(content, dict) else ""
        raise UserError(f"{file}: no weights by name in it; a state dict is expected, under whatever key{names}")
    _, weights = max(found_dicts, key=lambda found: _size(*found))
    is_own = isinstance(content, dict) and all(name in content for name in OWN_ENTRIES)
    return WeightFile(weights=clean_state_dict(weights), own=content if is_own else None)


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(file)
    except Exception as error:  # safetensors has errors of its own, of the system's and of Python's
        raise_if_out_of_memory(error, file)
        raise UserError(f"{file}: not a file of weights ({one_line(error, 120)})") from None


def _read_pickled(file: Path) -> Any:
    if zipfile.is_zipfile(file):
        try:
            check_archive(file)
        except UnreadableFileError as error:
            raise UserError(str(error)) from None
    try:
        with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in STAND_INS.items()]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found is None:
            raise UserError(f"{file}: not a file of weights ({_first_sentence(error)})") from None
        raise UserError(
            f"{file}: not a file of weights alone: it holds {found[1]}, which could run code. Where you trust the "
            f"file, save its weights again, where its own program can be imported: {_python_to_save(file)}"
        ) from None
    except Exception as error:  # whatever torch stumbles over; it is the file's fault
        raise_if_out_of_memory(error, file)
        raise UserError(f"{file}: not a file of weights ({_first_sentence(error)})") from None


def _python_to_save(file: Path) -> str:
    """One line that saves the weights of a whole model, or those under the usual key of a dict."""
    return (
        f"import torch; content = torch.load({str(file)!r}, map_location='cpu', weights_only=False); "
        "torch.save(content.state_dict() if hasattr(content, 'state_dict') else content['state_dict'], "
        f"{str(file.with_name(f'{file.stem}_weights.pth'))!r})  # 'state_dict' being the key of the weights in it"
    )


def _first_sentence(error: Exception) -> str:
    return one_line(error).partition(". ")[0]


def _state_dicts(content: Any) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every dict with tensors under names: the key that it stands under, and those tensors."""
    seen: set[int] = set()
    waiting = deque([("", content)])
    while waiting:
        key, value = waiting.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            tensors = {name: entry for name, entry in value.items() if _is_weight(name, entry)}
            if tensors:
                yield key, tensors
            waiting += [(str(name), entry) for name, entry in value.items() if isinstance(entry, CONTAINERS)]
        elif isinstance(value, CONTAINERS):
            entries = value.content if isinstance(value, _Inert) else value
            waiting += [(key, entry) for entry in entries if isinstance(entry, CONTAINERS)]


def _is_weight(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor)


def _size(key: str, weights: Mapping[str, Tensor]) -> tuple[int, int, bool]:
    """What makes one dict larger than another."""
    return len(weights), sum(value.numel() for value in weights.values()), "ema" in key.lower()
