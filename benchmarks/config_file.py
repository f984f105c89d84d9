"""A settings module for the real scripts."""

import dataclasses
from pathlib import Path

from catheters.config.settings import Settings


def write_config(settings: Settings, file: Path) -> Path:
    """Write what a user would write by hand; returns `file`."""
    values = ", ".join(f"{name}={value!r}" for name, value in dataclasses.asdict(settings).items())
    file.write_text(f"from catheters import Settings\n\nsettings = Settings({values})\n")
    return file
