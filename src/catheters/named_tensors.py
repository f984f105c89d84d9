"""Tensors by name instead of by position, of one number of images."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor


class NamedTensors:
    """Base of dataclasses whose fields are tensors with one row per image, or None."""

    def tensors(self) -> Mapping[str, Tensor]:
        """Those that there are."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in values.items() if value is not None}

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to each of them."""
        of_each = {name: function(tensor) for name, tensor in self.tensors().items()}
        return dataclasses.replace(self, **of_each)  # type: ignore[type-var]

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The images of all parts, in their order; all of them have the same tensors."""
        of_parts = [part.tensors() for part in parts]
        return cls(**{name: torch.cat([tensors[name] for tensors in of_parts]) for name in of_parts[0]})
