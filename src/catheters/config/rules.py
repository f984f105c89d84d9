"""The setting `rules`: a TOML file, or what it holds, as rules that settings keep."""

import math
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from catheters.errors import one_line, unknown_name
from catheters.io.files import UnreadableFileError, read_utf8
from catheters.io.near_misses import file_hint
from catheters.measurement_rules import UNITS, Band, Rule

KEYS = ("unit", "bands")
EXAMPLE = '["ETT tip above carina"], unit = "mm" and bands = [[-inf, 30, "ETT - Borderline"], ...]'


class RuleMistake(ValueError):
    """What is wrong with a rule beside other settings; the settings know when that is found, and not the file."""

    def __init__(self, name: str, reason: str, *, is_named: bool = True) -> None:
        """Say the reason, of the rule of this name.

        Args:
            name: of the measurement.
            reason: in words for a user.
            is_named: whether the rule is to be named before the reason.
        """
        super().__init__(f"rules['{name}']: {reason}" if is_named else f"rules: {reason}")
        self._inside = f"'{name}': {reason}" if is_named else reason

    def describe(self, given: object) -> str:
        """The message, where the setting `rules` was given so: with the file, if it was one."""
        return f"rules={given}: {self._inside}" if isinstance(given, str) else str(self)


def read_rules(value: object) -> dict[str, Rule]:
    """Rules from a file, or from what one holds, so that they stay what they are when the file changes or is gone.

    Args:
        value: path of a TOML file, relative to where you are; or {measurement: {"unit": ..., "bands": [...]}}, where an
            edge may be None in place of infinity.

    Returns:
        Measurement -> its rule, in the order of the file.

    Raises:
        ValueError: in words for a user, with the file.
    """
    source, content = "rules", value
    if isinstance(value, str):
        source = f"rules={value}"
        content = _read_toml(Path(value), source)
    if not isinstance(content, Mapping):
        raise ValueError(f"{source}: {content!r} came; a TOML file or {{measurement: its rule}} is expected")
    return {str(name): _read_rule(rule, f"{source}: '{name}'") for name, rule in content.items()}


def _read_toml(file: Path, source: str) -> Mapping[str, object]:
    try:
        content = tomllib.loads(read_utf8(file))
    except UnreadableFileError as error:
        reason = str(error).removeprefix(f"{file}: ")
        raise ValueError(f"{source}: {reason}; a TOML file is expected, with {EXAMPLE}{file_hint(file)}") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is one; Python's own for a number of 4301 digits
        raise ValueError(f"{source}: is no TOML ({one_line(error, 120)}); {EXAMPLE} are expected") from None
    if not content:
        raise ValueError(f"{source}: holds no rule; {EXAMPLE} are expected")
    return content


def _read_rule(rule: object, source: str) -> Rule:
    if isinstance(rule, Rule):
        return rule
    if not isinstance(rule, Mapping):
        raise ValueError(f"{source}: {rule!r} is no rule; unit and bands are expected, as in {EXAMPLE}")
    for key in rule:
        if key not in KEYS:
            raise ValueError(f"{source}: {unknown_name(str(key), 'a part of a rule', KEYS)}")
    for key in KEYS:
        if key not in rule:
            raise ValueError(f"{source}: {key} is missing, as in {EXAMPLE}")
    unit, bands = rule["unit"], rule["bands"]
    if unit not in tuple(UNITS):
        raise ValueError(f"{source}: {unknown_name(str(unit), 'a unit', UNITS)}")
    if not isinstance(bands, Sequence) or isinstance(bands, str) or not bands:
        raise ValueError(f"{source}: bands={bands!r}; at least one [from, to, label] is expected")
    read = tuple(_read_band(band, source) for band in bands)
    try:
        return Rule(unit=unit, bands=read)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def _read_band(band: object, source: str) -> Band:
    """[from, to, label]; infinite edges become None, which JSON has."""
    message = f"{source}: the band {band!r} is not [from, to, label], as in [30, 70, 'ETT - Normal']"
    if not isinstance(band, Sequence) or isinstance(band, str) or len(band) != 3 or not isinstance(band[2], str):
        raise ValueError(message)
    edges: list[float | None] = []
    for edge, open_end in zip(band[:2], (-math.inf, math.inf), strict=True):
        if edge is None or edge == open_end:
            edges.append(None)
        elif isinstance(edge, int | float) and not isinstance(edge, bool) and abs(edge) <= sys.float_info.max:
            edges.append(float(edge))
        else:  # NaN, the other infinity and whole numbers that no float holds among them
            raise ValueError(message)
    return edges[0], edges[1], band[2].strip()
