"""The pages that are made from docstrings and `--help`: `python docs/generate.py`, or `make docs`."""

import contextlib
import inspect
import io
import os
import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

import catheters
from catheters.commands.console import COMMANDS, load_command
from catheters.config.groups import CACHE_GROUPS, GROUPS, default_of, meaning_of, type_of
from catheters.inference.lines.landmarks import FoundLandmark
from catheters.inference.lines.measuring import TakenMeasurement
from catheters.inference.lines.prediction import PredictedLine
from catheters.measurements import Measurement

FOLDER = Path(__file__).parent / "reference"
SCRIPTS = {
    "preproc": "preproc_npy.py",
    "train": "train.py",
    "multi-train": "multi_train.py",
    "compare": "compare.py",
    "evaluate": "evaluate.py",
    "predict": "predict.py",
    "synthetic": "python -m catheters.synthetic",
}
MADE = "<!-- Made by docs/generate.py from the program itself: change it there. -->\n\n"
WIDTH = 100
PYTHON = {
    "Settings": ("load_settings",),
    "Build the image cache": ("preproc", "CacheResult"),
    "Train": ("train", "RunResult", "ModelResult"),
    "Evaluate": ("evaluate", "EvaluationResult"),
    "Predict": ("load", "Model", "Result"),
}
"""Heading -> names in `catheters`."""
MEMBERS = {
    "RunResult": ("models",),
    "EvaluationResult": ("macro_auc", "write", "report"),
    "Model": ("__call__",),
    "Result": ("heatmap", "overlay"),
    "PredictedLine": ("tip",),
    "Measurement": ("describe",),
}
OF_LINES: dict[str, tuple[type, ...]] = {
    "lines": (PredictedLine,),
    "tips": (),
    "landmarks": (FoundLandmark,),
    "measurements": (TakenMeasurement, Measurement),
    "disagreements": (),
    "draw_lines": (),
}
"""Members of `Result` that a line decoder gives -> the classes of what they hold."""
LINES_BEGINNING = """
## Lines, landmarks and measurements

A model that was trained with `lines` also finds lines and their tips. Landmarks and lengths are those of its
setting `measurements`. Points are in pixels of the X-ray as shown.

<!-- parse only: needs a run that has learnt lines -->
```python
result = catheters.load("saved_models/sample_lines")("xray.dcm")
for line in result.lines:
    print(line.device_type, line.label, line.tip, line.confidence)
carina = result.landmarks["carina"]  # None: not found
for taken in result.measurements:
    print(taken.name, taken.measurement.mm, taken.label_by_rule, taken.doubt)  # mm is None without a pixel spacing
    print(taken.measurement.describe())  # as in "ETT tip 42.0 mm above the carina"
result.draw_lines().save("lines.png")
```
"""
PYTHON_BEGINNING = """\
# Python API

`preproc`, `train`, `evaluate` and `load` do what the scripts do, and give their results as objects. Importing
`catheters` is quick and changes nothing in the process. Messages go through `logging`, by the logger
`catheters`, so a notebook or a service can silence or redirect them.

A user's mistake raises `catheters.errors.UserError`, whose message is one line. `catheters.Settings` is the
dataclass that a config makes, and [Settings](settings.md) lists its fields.

<!-- parse only: needs a data set -->
```python
import catheters

settings = catheters.load_settings("config.py", ["folds=[0]"])
catheters.preproc(settings)  # as preproc_npy.py
result = catheters.train(settings)  # as train.py
evaluation = catheters.evaluate(result.folder)  # as evaluate.py
evaluation.write()  # calibration and operating points, for load and predict.py
model = catheters.load(result.folder)  # as predict.py
print(model("xray.dcm"))
```
"""


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


def python_page() -> str:
    """Signatures and docstrings of what `import catheters` gives."""
    parts = [MADE, PYTHON_BEGINNING]
    for heading, names in PYTHON.items():
        parts.append(f"\n## {heading}\n")
        for name in names:
            thing = getattr(catheters, name)
            parts.append(_described(f"catheters.{name}", thing))
            for member in MEMBERS.get(name, ()):
                parts.append(_described(f"{name}.{member}", inspect.getattr_static(thing, member)))
    parts.append(LINES_BEGINNING)
    for member, held in OF_LINES.items():
        parts.append(_described(f"Result.{member}", inspect.getattr_static(catheters.Result, member)))
        for thing in held:
            parts.append(_described(thing.__name__, thing))
            for of_thing in MEMBERS.get(thing.__name__, ()):
                parts.append(_described(f"{thing.__name__}.{of_thing}", inspect.getattr_static(thing, of_thing)))
    return "".join(parts)


def _described(name: str, thing: Any) -> str:
    """A heading, the signature of what can be called by a user, and the docstring as it stands."""
    called = inspect.unwrap(thing) if inspect.isfunction(thing) else None
    if called is None:
        shown = f"class {name}" if inspect.isclass(thing) else name
    else:
        # Without `self`, and annotations without their modules: Sequence, not collections.abc.Sequence.
        signature = inspect.signature(called)
        parameters = [parameter for parameter in signature.parameters.values() if parameter.name != "self"]
        text = str(signature.replace(parameters=parameters))
        text = re.sub(r"<class '([^']*)'>", r"\1", text)
        text = re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z])", "", text)
        taken, _, returned = text.rpartition(" -> ")
        separate = ",\n    ".join(re.split(r", (?=\*|\w+:)", taken[1:-1]))
        one_line = f"{name}{taken} -> {returned}"
        shown = one_line if len(one_line) <= WIDTH else f"{name}(\n    {separate},\n) -> {returned}"
    return f"\n### {name}\n\n```text\n{shown}\n\n{inspect.getdoc(thing)}\n```\n"


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


PAGES = {
    FOLDER / "settings.md": settings_page,
    FOLDER / "command-line.md": command_line_page,
    FOLDER / "python.md": python_page,
}


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
