"""What the scripts share: the options that give settings, error messages and exit statuses."""

import argparse
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from catheters.config.groups import describe_settings
from catheters.config.loading import load_settings
from catheters.config.presets import PRESETS
from catheters.config.settings import Settings
from catheters.errors import UserError, one_line
from catheters.runtime.console import note
from catheters.runtime.host import num_processes, process_rank
from catheters.runtime.interrupts import Interrupted, interrupt_signal, note_interrupts

BAD_IMAGES_STATUS = 1
"""Exit status of a command that finished although some images could not be read, or have no heatmaps."""
USER_ERROR_STATUS = 2
"""Exit status of a command that failed on a user's mistake."""
SIGNAL_STATUS = 128
"""Exit status of a command that a signal stopped, less the signal's number."""


def settings_parser(
    description: str, default_config: str, groups: Sequence[str], first: Sequence[str]
) -> argparse.ArgumentParser:
    """A parser with `--config FILE` and `name=value` overrides; `--help` lists the settings that the command uses.

    Args:
        description: what the command does.
        default_config: config file used without `--config`.
        groups: of settings, see `describe_settings`.
        first: settings that are listed first.
    """
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f"settings, with their defaults\n\n{describe_settings(groups, first)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=Path(default_config),
        metavar="FILE",
        help=f"settings file, or the name of a preset: {', '.join(PRESETS)} (default: {default_config})",
    )
    parser.add_argument("overrides", nargs="*", metavar="name=value", help="settings that replace the file's")
    return parser


def program(script: str) -> str:
    """How this command is started: as `python <script>`, or as a subcommand such as `catheters train`."""
    name = Path(sys.argv[0]).name
    return name if name.startswith("catheters ") else f"python {script}"


def read_settings(arguments: argparse.Namespace) -> Settings:
    """The settings that the command's options ask for; training says what is odd about them."""
    return load_settings(arguments.config, arguments.overrides)


def refuse_ranks(what: str) -> None:
    """Refuse to be one of several ranks, each of which would do the same work.

    Args:
        what: is done by one process, for the message.

    Raises:
        UserError: torchrun has started several processes.
    """
    if num_processes() > 1:
        raise UserError(f"{what}: one process does it; start it without torchrun")


def run_command(command: Callable[[list[str]], int]) -> None:
    """Run `command` with the process's arguments and exit with its status.

    A `UserError`, or what the system refuses, becomes one line on stderr and status 2; anything else keeps its
    traceback, since it is a bug.
    """
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True)  # in a log file, lines of stdout and stderr stay in their order
    note_interrupts()
    try:
        status = command(sys.argv[1:])
    except UserError as error:
        _print_error(str(error))
        status = USER_ERROR_STATUS
    except (MemoryError, RuntimeError) as error:
        if not _is_for_want_of_memory(error):
            raise
        what = one_line(error) or type(error).__name__
        _print_error(
            f"this machine has no memory left ({what}); close other programs, take a smaller batch_size or fewer "
            "num_workers, or use a machine with more"
        )
        status = USER_ERROR_STATUS
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone; without this the interpreter's own flush would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    except OSError as error:
        if error.errno is None:
            raise
        where = error.filename or ("disk" if error.errno == errno.ENOSPC else "this machine")
        _print_error(f"{where}: {error.strerror}")
        status = USER_ERROR_STATUS
    except KeyboardInterrupt as interrupt:
        number = interrupt_signal() or signal.SIGINT
        if isinstance(interrupt, Interrupted):
            number = interrupt.signal_number
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        if process_rank() == 0 or str(interrupt):  # others speak where they have trained a fold of their own
            note(f"\nstopped by {name}{f': {interrupt}' if str(interrupt) else ''}")
        status = SIGNAL_STATUS + number
    sys.exit(status)


def _is_for_want_of_memory(error: Exception) -> bool:
    """Whether Python says so, or torch, which is not loaded for the question."""
    if isinstance(error, MemoryError) or "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from catheters.runtime.memory import is_out_of_memory

    return is_out_of_memory(error)


def _print_error(text: str) -> None:
    rank = process_rank()
    note(f"error{f' on rank {rank}' if rank else ''}: {text}")
