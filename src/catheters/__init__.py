"""Classifiers of catheter and tube position on chest X-rays: `catheters.load` reads a trained one."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catheters.inference.model import Model, Result, load

__all__ = ["Model", "Result", "load"]


def __getattr__(name: str) -> object:
    # torch and timm take seconds to load, which only who predicts shall wait for.
    if name in __all__:
        from catheters.inference import model

        return getattr(model, name)
    raise AttributeError(f"module 'catheters' has no attribute '{name}'")
