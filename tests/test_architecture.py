"""Imports go one way: settings < data, models, evaluation < training < inference < runs < commands < scripts."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "catheters"
# What each part of the package may import besides itself; modules at the package's top are the ground all stand on.
MAY_IMPORT = {
    "": set(),
    "data": {""},
    "models": {""},
    "evaluation": {""},
    "training": {"", "data", "models", "evaluation"},
    "inference": {"", "data", "models", "evaluation", "training"},
    "runs": {"", "data", "models", "evaluation", "training", "inference"},
    "commands": {"", "data", "models", "evaluation", "training", "inference", "runs"},
}


def part_of(module: str) -> str:
    """`catheters.data.cache` -> `data`; `catheters.settings` -> ``."""
    name = module.split(".")[1]
    return name if (PACKAGE / name).is_dir() else ""


def imported_modules(file: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            # `from catheters import training` imports a module as well as `from catheters.training import run` does.
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
            assert all(alias.name != "*" for alias in node.names), f"{file}: star import"
    return modules


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_one_way(file: Path) -> None:
    folders = file.relative_to(PACKAGE).parts[:-1]
    here = folders[0] if folders else ""
    for module in imported_modules(file):
        assert module not in {"config", "multi_config", "preproc_npy", "train", "evaluate", "predict"}
        if module.startswith("catheters.") and file != PACKAGE / "__init__.py":  # the door, which opens late
            assert part_of(module) in {here} | MAY_IMPORT[here], f"{file} imports {module}"


def test_every_part_is_covered() -> None:
    parts = {folder.name for folder in PACKAGE.iterdir() if folder.is_dir() and folder.name != "__pycache__"}
    assert parts == set(MAY_IMPORT) - {""}
