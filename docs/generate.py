"""The pages that are made from docstrings and `--help`: `python docs/generate.py`, or `make docs`."""

import contextlib
import io
import os
import re
from pathlib import Path
from unittest.mock import patch

from catheters.commands.console import COMMANDS, load_command
from catheters.config.groups import CACHE_GROUPS, GROUPS, default_of, meaning_of, type_of

FOLDER = Path(__file__).parent / "reference"
SCRIPTS = {
    "preproc": "preproc_npy.py",
    "train": "train.py",
    "multi-train": "multi_train.py",
    "evaluate": "evaluate.py",
    "predict": "predict.py",
    "synthetic": "python -m catheters.synthetic",
}
MADE = "<!-- Made by docs/generate.py from the program itself: change it there. -->\n\n"
WIDTH = 100


def settings_page() -> str:
    """One table per group of settings."""
    parts = [
        MADE,
        "# Settings\n\n"
        "A config is a Python file with `settings = Settings(...)`. Any setting can also be given on the command\n"
        "line as `name=value`, as in `python train.py image_size=512 folds=[0]`. A misspelt name or an impossible\n"
        "value fails before the work starts, with a line that says what is allowed.\n\n"
        "`preproc_npy.py` uses the first four groups. `train.py` and `multi_train.py` use all of them.\n",
    ]
    assert tuple(GROUPS)[: len(CACHE_GROUPS)] == CACHE_GROUPS
    for group, names in GROUPS.items():
        parts.append(f"\n## {group}\n\n| setting | takes | default | meaning |\n|---|---|---|---|\n")
        for name in names:
            cells = (f"`{name}`", type_of(name), f"`{default_of(name)}`", _plain(meaning_of(name)))
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return "".join(parts)


def command_line_page() -> str:
    """What each script's `--help` says, without the settings."""
    parts = [
        MADE,
        "# Command line\n\n"
        "Each script of the repository is also a subcommand of `catheters`, which an installation brings. Both call\n"
        "the same code. A user's mistake is one line on stderr and exit status 2. Status 1 means that the command\n"
        "finished although some images could not be read.\n",
    ]
    for name, (_, meaning) in COMMANDS.items():
        text = help_of(name).partition("\nsettings, with their defaults\n")[0].rstrip()
        more = "" if text == help_of(name).rstrip() else "\nIts settings are listed under [Settings](settings.md).\n"
        parts.append(
            f"\n## catheters {name}\n\n{meaning[0].upper()}{meaning.partition(' (')[0][1:]}. "
            f"In the repository: `{SCRIPTS[name]}`.\n{more}\n```text\n{text}\n```\n"
        )
    return "".join(parts)


def help_of(name: str) -> str:
    """What a subcommand's `--help` prints."""
    printed = io.StringIO()
    with (
        patch.dict(os.environ, {"COLUMNS": str(WIDTH), "NO_COLOR": "1"}),
        patch("sys.argv", [f"catheters {name}"]),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        load_command(name)(["--help"])
    return printed.getvalue()


PAGES = {FOLDER / "settings.md": settings_page, FOLDER / "command-line.md": command_line_page}


def stale_pages() -> list[Path]:
    """Those that are not what the program would write now."""
    return [file for file, page in PAGES.items() if not file.exists() or file.read_text(encoding="utf-8") != page()]


def _plain(text: str) -> str:
    """Markdown that shows a docstring as it is, but for its `code`."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*<\[\\])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


if __name__ == "__main__":
    for file, page in PAGES.items():
        file.write_text(page(), encoding="utf-8")
