"""Imports go one way, from a floor of the package to those below it; few floors know all the settings."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "catheters"
GROUND = frozenset({""})
"""Modules at the package's top."""
TOOLS = GROUND | {"runtime", "io", "config"}
# What each part of the package may import besides itself.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "": frozenset(),
    "runtime": GROUND,
    "io": GROUND | {"runtime"},
    "config": GROUND | {"runtime", "io"},
    "data": TOOLS,
    "models": TOOLS,
    "viz": TOOLS | {"data"},
    "evaluation": TOOLS | {"viz"},
    "synthetic": TOOLS | {"data"},
    "audit": TOOLS | {"data"},
    "checkpoints": TOOLS | {"data", "models"},
    "training": TOOLS | {"data", "models", "viz", "evaluation", "checkpoints"},
    "inference": TOOLS | {"data", "models", "viz", "evaluation", "checkpoints"},
}
MAY_IMPORT["runs"] = frozenset(MAY_IMPORT)  # all of those
MAY_IMPORT["commands"] = frozenset(MAY_IMPORT)
KNOW_SETTINGS = {"config", "runs", "commands", "checkpoints"}
"""Who takes the settings whole; everybody else takes the values and parts that it uses, by name."""


def part_of(module: str) -> str:
    """`catheters.data.cache` -> `data`; `catheters.labels` -> ``."""
    name = module.split(".")[1]
    return name if (PACKAGE / name).is_dir() else ""


def imported_modules(file: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            # `from catheters import training` imports a module as well as `from catheters.training import loop` does.
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
            assert all(alias.name != "*" for alias in node.names), f"{file}: star import"
    return modules


DOORS = (PACKAGE / "__init__.py", PACKAGE / "__main__.py", PACKAGE / "synthetic" / "__main__.py")
"""The public API, which opens late, and what `python -m` runs."""

FILES = pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))


def floor_of(file: Path) -> str:
    folders = file.relative_to(PACKAGE).parts[:-1]
    return folders[0] if folders else ""


@FILES
def test_imports_go_one_way(file: Path) -> None:
    here = floor_of(file)
    for module in imported_modules(file):
        assert module not in {"config", "multi_config", "preproc_npy", "train", "compare", "evaluate", "predict"}
        if module.startswith("catheters.") and file not in DOORS:
            assert part_of(module) in {here} | MAY_IMPORT[here], f"{file} imports {module}"


@FILES
def test_who_takes_the_settings_whole(file: Path) -> None:
    if file not in DOORS and floor_of(file) not in KNOW_SETTINGS:
        assert "catheters.config.settings.Settings" not in imported_modules(file)


def test_every_part_is_covered() -> None:
    parts = {folder.name for folder in PACKAGE.iterdir() if folder.is_dir() and folder.name != "__pycache__"}
    assert parts == set(MAY_IMPORT) - GROUND
