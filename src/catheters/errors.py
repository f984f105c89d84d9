"""The exceptions that mean: the user can mend this; and the words for what most often goes wrong."""

import difflib
import errno
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")
OF_PATH = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)
"""What the system says of a path that is not there, is something else or is not for this user."""

MAX_NAMES = 15
"""Names in one line; RANZCR has 11 labels, NIH 14."""
NUM_NEAREST = 3


class UserError(Exception):
    """A mistake in a setting, a file or a command.

    Its message is one line that says where, what was found, what is expected and what to do. The scripts print it to
    stderr without a traceback and end with exit status 2.
    """


class SettingsError(UserError):
    """A setting that does not exist, or a value that it does not allow."""


def counted(number: int, noun: str) -> str:
    """A number of things: "1 image", "2 images"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(names: Iterable[object], max_shown: int = MAX_NAMES) -> str:
    """Names in a line for people: all of them where there are few, else the first ones and how many more there are."""
    texts = list(map(str, names))
    num_more = len(texts) - max_shown
    return ", ".join(texts[:max_shown]) + (f" and {num_more} more" if num_more > 0 else "")


def unknown_name(
    name: str, kind: str, known: Iterable[str], where_all_are: str = "", *, may_be_meant: Iterable[str] | None = None
) -> str:
    """Say that `name` is not `kind`, with the right name where one is near.

    Args:
        name: what the user wrote.
        kind: what it should be, with an article.
        known: the right names. All of a few are named; of many those that resemble it, else the first ones.
        where_all_are: what shows all of many, as in "--help names all".
        may_be_meant: those of the right names that this one can stand for; None: each.
    """
    known = list(known)
    near = difflib.get_close_matches(name, known if may_be_meant is None else list(may_be_meant), n=1)
    if near:
        hint = f"did you mean '{near[0]}'?"
    elif not known:
        hint = "there are none"
    elif len(known) <= MAX_NAMES:
        hint = f"there are: {', '.join(known)}"
    else:
        nearest = difflib.get_close_matches(name, known, n=NUM_NEAREST, cutoff=0.3) or known[:NUM_NEAREST]
        hint = f"there are {len(known)}, {', '.join(nearest)} for some"
        hint += f"; {where_all_are}" if where_all_are else ""
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
