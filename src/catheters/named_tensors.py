"""Tensors by name instead of by position, of one number of images."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor


class NamedTensors:
    """Base of dataclasses whose fields are tensors with one row per image, names of such tensors, or None."""

    def tensors(self) -> Mapping[str, Tensor]:
        """Those that there are; one in a mapping has the name `field.name`."""
        found: dict[str, Tensor] = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Mapping):
                found |= {f"{field.name}.{name}": tensor for name, tensor in value.items()}
            elif value is not None:
                found[field.name] = value
        return found

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to each of them."""
        return self._of({name: function(tensor) for name, tensor in self.tensors().items()})

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The images of all parts, in their order; all of them have the same tensors."""
        of_parts = [part.tensors() for part in parts]
        return cls._of({name: torch.cat([tensors[name] for tensors in of_parts]) for name in of_parts[0]})

    @classmethod
    def _of(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The inverse of `tensors`."""
        fields: dict[str, Any] = {}
        for name, tensor in tensors.items():
            field, dot, key = name.partition(".")
            if dot:
                fields.setdefault(field, {})[key] = tensor
            else:
                fields[field] = tensor
        return cls(**fields)
