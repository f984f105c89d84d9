"""Python files that define a base and what is made of it: variants, or the space of a search."""

import dataclasses
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from catheters.config.loading import SETTING_NAMES, load_settings, where_in_file, with_overrides
from catheters.config.mistakes import WrongSetting, unknown_setting
from catheters.config.presets import PRESETS
from catheters.config.settings import FIELDS, Settings
from catheters.errors import SettingsError, unknown_name


def run_definitions(file: Path) -> dict[str, Any]:
    """What a Python file defines, name -> value.

    Raises:
        SettingsError: it cannot be run.
    """
    if not file.is_file():
        raise SettingsError(f"{file}: no such file")
    try:
        return runpy.run_path(str(file))
    except WrongSetting as error:
        raise SettingsError(f"{where_in_file(file, error)}: {error}") from None
    except SyntaxError as error:
        raise SettingsError(f"{file}:{error.lineno}: {error.msg}") from None
    except (Exception, SystemExit) as error:
        raise SettingsError(f"{where_in_file(file, error)}: {type(error).__name__}: {error}") from None


def check_defined(file: Path, content: Mapping[str, Any], names: Sequence[str], example: str) -> None:
    """Raise a SettingsError with an example where a file does not define one of the names."""
    for name in names:
        if name not in content:
            own = [other for other in content if not other.startswith("__") and other not in names]
            near = next((other for other in own if unknown_name(other, "", [name]).endswith(f"'{name}'?")), None)
            what = "no" if near is None else f"'{near}', but no"
            raise SettingsError(f"{file}: has {what} `{name}`; write {example}")


def read_base(file: Path, base: object, overrides: Sequence[str]) -> tuple[Settings, str]:
    """The settings that a file's `base` stands for, with the overrides of the command line, and a name.

    Raises:
        SettingsError: it is no preset, config or Settings; or an override is wrong.
    """
    if isinstance(base, Settings):
        return with_overrides(base, overrides), "base"
    if isinstance(base, str):
        source = base if base in PRESETS and not Path(base).is_file() else _beside(file, base)
        return load_settings(source, overrides), Path(base).stem
    raise SettingsError(f"{file}: base is {base!r}; a preset's name, a config file or Settings(...) is expected")


def check_setting(name: object, where: str) -> None:
    """Raise a SettingsError where there is no such setting."""
    if name not in SETTING_NAMES:
        raise SettingsError(f"{where}: {unknown_setting(str(name), FIELDS)}")


def with_values(settings: Settings, values: Mapping[str, Any], where: str) -> Settings:
    """The settings with other values of some.

    Raises:
        SettingsError: they are not allowed; `where` begins the message.
    """
    try:
        return dataclasses.replace(settings, **values)
    except WrongSetting as error:
        raise SettingsError(f"{where}: {error}") from None


def _beside(file: Path, name: str) -> str:
    """A config that a file names: in the folder of the command, else beside the file."""
    return name if Path(name).is_file() or not (file.parent / name).is_file() else str(file.parent / name)
