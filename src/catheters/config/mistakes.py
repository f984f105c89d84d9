"""pydantic's errors about settings, as one line for people."""

import difflib
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from catheters.config.field_types import bounded_numbers, in_words, type_inside
from catheters.config.rules import RuleMistake
from catheters.errors import SettingsError, counted, unknown_name

T = TypeVar("T")
OUT_OF_BOUNDS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")


class WrongSetting(SettingsError):
    """A setting that does not exist, or has a value that it does not allow; made by `Settings(...)`.

    Attributes:
        setting: its name; None where settings do not go together.
        kind: pydantic's name for what is wrong.
    """

    def __init__(self, message: str, setting: str | None, kind: str) -> None:
        """Say `message`."""
        super().__init__(message)
        self.setting = setting
        self.kind = kind

    def __reduce__(self) -> tuple[type["WrongSetting"], tuple[str, str | None, str]]:
        """Let another process raise it, as those of a search do."""
        return type(self), (str(self), self.setting, self.kind)


def raises_one_line(settings_class: type[T]) -> type[T]:
    """Let a pydantic dataclass raise one line of ours, in a config, a script or a notebook alike.

    pydantic has no hook for its errors.
    """
    validate = settings_class.__init__

    @functools.wraps(validate)
    def validate_or_raise_one_line(self: T, *arguments: Any, **values: Any) -> None:
        try:
            validate(self, *arguments, **values)
        except ValidationError as error:
            fields = settings_class.__pydantic_fields__  # type: ignore[attr-defined]
            raise in_one_line(error, fields, values) from None

    settings_class.__init__ = validate_or_raise_one_line  # type: ignore[assignment]
    return settings_class


def in_one_line(
    error: ValidationError, fields: Mapping[str, FieldInfo], values: Mapping[str, object] | None = None
) -> WrongSetting:
    """The first wrong setting of pydantic's list of errors.

    Args:
        error: what pydantic raised.
        fields: name -> what pydantic knows of a setting.
        values: name -> what was given; None: it is not known.
    """
    errors = error.errors(include_url=False)
    first = _first(errors)
    name = str(first["loc"][0]) if first["loc"] else None
    if first["type"] == "value_error":
        reason = first["ctx"]["error"]
        message = reason.describe((values or {}).get("rules")) if isinstance(reason, RuleMistake) else str(reason)
    elif first["loc"] and isinstance(first["loc"][0], int):
        name, message = None, "settings are given by name, as in Settings(image_size=512); load_settings reads a file"
    elif first["type"] == "unexpected_keyword_argument":
        message = unknown_setting(str(name), fields)
    elif name is None:
        message = first["msg"]
    else:
        is_text = first["type"] == "string_pattern_mismatch"
        expected = "" if is_text else f", {_expected(errors, first, fields[name])} is expected"
        meaning = " ".join((fields[name].description or "").split())
        choices = [other["ctx"]["expected"] for other in errors if other["type"] == "literal_error"]
        if choices:  # each is named in `expected`, so the first sentence of what the setting is for is enough
            near = difflib.get_close_matches(str(first["input"]), re.findall("'([^']+)'", " ".join(choices)), n=1)
            expected += f"; did you mean '{near[0]}'?" if near else ""
            meaning = re.split(r"(?<=\.)\s", meaning)[0]
        message = f"{name}: {first['input']!r} came{expected} ({meaning})"
    return WrongSetting(message, name, first["type"])


def _first(errors: Sequence[ErrorDetails]) -> ErrorDetails:
    """The error to say: of a list that might also be one number, a number in it that is out of bounds."""
    if isinstance(errors[0]["input"], list | tuple):
        for other in errors:
            if other["loc"][:1] == errors[0]["loc"][:1] and other["type"] in OUT_OF_BOUNDS:
                return other
    return errors[0]


def _expected(errors: Sequence[ErrorDetails], first: ErrorDetails, field: FieldInfo) -> str:
    """What a setting takes, in words, where the first error has found something else."""
    of_setting = [other for other in errors if other["loc"][:1] == first["loc"][:1]]
    for other in of_setting:
        if other["type"] in ("missing", "too_long") and other["input"] == first["input"]:
            # Of a list with a place for each part: pydantic names the part that is missing, not what the list takes.
            path = other["loc"][1:-1] if other["type"] == "missing" else other["loc"][1:]
            return in_words(type_inside(field.annotation, path))
    is_element = any(isinstance(part, int) for part in first["loc"])
    # A union such as `bool | str` reports each of its types.
    wanted = dict.fromkeys(
        _in_words(other, field)
        for other in of_setting
        if other["type"] != "missing" and (not is_element or other["loc"] == first["loc"])
    )
    if type(None) in get_args(field.annotation) and not is_element:
        wanted["None"] = None
    if first["type"] in OUT_OF_BOUNDS and len(wanted) > 1:  # of several words each, so commas part them
        return f"{', or '.join(wanted)},"
    return " or ".join(wanted)


def _in_words(error: ErrorDetails, field: FieldInfo) -> str:
    """What one of pydantic's errors says is expected."""
    if error["type"] in OUT_OF_BOUNDS:
        for bounds, number in bounded_numbers(field.annotation, field.metadata):
            if error["ctx"].items() <= bounds.items():
                return number
    if error["type"] == "too_short":
        return f"a list of at least {counted(error['ctx']['min_length'], 'item')}"
    return (
        error["msg"]
        .removeprefix("Input should be ")
        .replace("valid tuple", "list")
        .replace("a valid boolean", "True or False")
    )


def unknown_setting(name: str, fields: Mapping[str, FieldInfo]) -> str:
    """Say that there is no such setting, and what is meant."""
    if name == "resume":
        return (
            "'resume' is not a setting: the same command again resumes where it stopped; a new run that starts from "
            "weights has pretrained=<file> and a run_name of its own"
        )
    return unknown_name(name, "a setting", fields, "--help explains all")
