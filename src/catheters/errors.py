"""The exceptions that mean: the user can mend this; and the words for what most often goes wrong."""

import difflib
import errno
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")
OF_PATH = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)
"""What the system says of a path that is not there, is something else or is not for this user."""


class UserError(Exception):
    """A mistake in a setting, a file or a command.

    Its message is one line that says where, what was found, what is expected and what to do. The scripts print it to
    stderr without a traceback and end with exit status 2.
    """


class SettingsError(UserError):
    """A setting that does not exist, or a value that it does not allow."""


def unknown_name(name: str, kind: str, known: Iterable[str]) -> str:
    """Say that `name` is not `kind`, with the nearest right name, or all of them where none is near."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(known[:40])}"
    return f"'{name}' is not {kind}; {hint}"


def look_up(registry: Mapping[str, T], name: str, setting: str) -> T:
    """`registry[name]`, or a SettingsError that lists the right names.

    Args:
        registry: what can be chosen, by name.
        name: the user's choice.
        setting: the setting that holds the choice, for the message.
    """
    if name not in registry:
        raise SettingsError(f"{setting}: {unknown_name(name, 'known', registry)}")
    return registry[name]


def is_of_path(error: OSError) -> bool:
    """Whether the system refuses this very path, and not every file: for want of memory, descriptors, a sound disk."""
    return error.errno in OF_PATH


def raise_of_machine(error: Exception) -> None:
    """Raise what a decoder brings out that has its content in memory, if the system is the one that failed.

    Libraries make OSErrors of their own for damaged content, which have no errno.
    """
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def one_line(error: Exception, max_length: int = 300) -> str:
    """A library's message as a part of one line of ours: no line breaks, and not too long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= max_length else text[: max_length - 3] + "..."
