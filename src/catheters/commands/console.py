"""`catheters`, the command that an installed package brings: the scripts as subcommands."""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.metadata import version
from types import MappingProxyType

from catheters.commands.command_line import run_command
from catheters.errors import UserError, unknown_name

COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "preproc": ("preproc_options", "X-rays to a .npy image cache, or an audit of them (preproc_npy.py)"),
        "train": ("train", "train every fold, one linear head by config.py (train.py)"),
        "multi-train": ("train", "the same by multi_config.py, one head per device type (multi_train.py)"),
        "compare": (
            "compare_options",
            "ways to train, with several seeds, against the first; or a search (compare.py)",
        ),
        "evaluate": ("evaluation_options", "predictions and labels to metrics with intervals (evaluate.py)"),
        "predict": ("predict", "checkpoints and X-rays to probabilities (predict.py)"),
        "synthetic": ("synthetic", "draw the synthetic sample that `--config sample` trains on"),
    }
)
"""Subcommand -> the module here whose `main` it is, and what it does."""
DEFAULT_CONFIGS: Mapping[str, str] = MappingProxyType({"multi-train": "multi_config.py"})


def main() -> None:
    """Run a subcommand with the process's further arguments and exit with its status."""
    run_command(_dispatch)


def _dispatch(arguments: list[str]) -> int:
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name == "--version":
        print(f"catheters {version('catheters')}")
        return 0
    if name not in COMMANDS:
        raise UserError(unknown_name(name, "a command", COMMANDS))
    sys.argv[0] = f"catheters {name}"  # as usage and errors say
    return load_command(name)(arguments[1:])


def load_command(name: str) -> Callable[[list[str]], int]:
    """What runs a subcommand with its arguments and returns the exit status."""
    command: Callable[..., int] = import_module(f"catheters.commands.{COMMANDS[name][0]}").main
    return partial(command, default_config=DEFAULT_CONFIGS[name]) if name in DEFAULT_CONFIGS else command


def _help() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {meaning}" for name, (_, meaning) in COMMANDS.items())
    return (
        "usage: catheters COMMAND ...\n\n"
        "Train, evaluate and use classifiers of catheter and tube position on chest X-rays.\n"
        "Research software, not a medical device.\n\n"
        f"commands:\n{commands}\n\n`catheters COMMAND --help` explains one. `catheters --version` says which this is."
    )
