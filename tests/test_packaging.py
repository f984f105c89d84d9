"""The package by itself: its dependencies, its command, and an installation away from the checkout."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from catheters.commands.console import COMMANDS
from catheters.config.loading import load_settings
from catheters.config.presets import PRESETS
from catheters.errors import SettingsError
from tests.conftest import REPOSITORY

EXTRAS = {"mlflow", "wandb", "onnx", "onnxruntime", "tensorboard"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return dict(tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"])


def imported_modules() -> set[str]:
    """Top-level names of what the package's modules import, in functions too."""
    names: set[str] = set()
    for file in (REPOSITORY / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {"catheters"}


def read_pins(file: str) -> dict[str, str]:
    """Package -> version, of a file of requirements."""
    pinned = re.findall(r"^([\w.-]+)==(\S+)$", (REPOSITORY / file).read_text(), re.MULTILINE)
    return {str(canonicalize_name(name)): pin for name, pin in pinned}


def test_all_that_is_imported_is_a_dependency(project: dict[str, Any]) -> None:
    declared = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    provided = packages_distributions()
    for module in imported_modules() - EXTRAS:
        found = {canonicalize_name(name) for name in provided[module]}
        assert found & (declared | {"pydantic-core"}), module  # pydantic pins its core


def test_the_tested_versions_are_in_the_ranges(project: dict[str, Any]) -> None:
    pins = read_pins("requirements.txt")
    requirements = [Requirement(text) for text in project["dependencies"]]
    assert sorted(canonicalize_name(requirement.name) for requirement in requirements) == sorted(pins)
    of_extras = [Requirement(text) for extra in project["optional-dependencies"].values() for text in extra]
    pins |= read_pins("requirements-dev.txt")
    for requirement in [*requirements, *of_extras]:
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


def test_presets_go_by_name_where_there_is_no_such_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings("sample", ["image_size=64"])
    assert (settings.run_name, settings.image_size, settings.backbone_model) == ("sample", 64, "test_efficientnet")
    Path("sample").write_text("from catheters import Settings\nsettings = Settings(image_size=32)\n")
    assert load_settings("sample").image_size == 32
    Path("sample").unlink()
    Path("sample").mkdir()
    assert load_settings("sample").image_size == 128
    with pytest.raises(SettingsError, match=rf"config\.py: no such config file; .*: {', '.join(PRESETS)}$"):
        load_settings("config.py")


def run(*command: str | Path, folder: Path, status: int = 0, **environment: str) -> str:
    """What a command prints, of an environment without the checkout's variables."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=keep | environment, capture_output=True, text=True
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_command_names_its_subcommands(tmp_path: Path) -> None:
    catheters = [sys.executable, "-m", "catheters"]
    listed = run(*catheters, folder=tmp_path)
    assert all(f"\n  {name}" in listed for name in COMMANDS)
    assert "did you mean 'train'?" in run(*catheters, "tran", folder=tmp_path, status=2)
    assert run(*catheters, "--version", folder=tmp_path) == f"catheters {version('catheters')}\n"
    usage = run(*catheters, "multi-train", "--help", folder=tmp_path)
    assert usage.startswith("usage: catheters multi-train") and "(default: multi_config.py)" in " ".join(usage.split())


@pytest.mark.slow
def test_installed_away_from_the_checkout(tmp_path: Path) -> None:
    """A wheel in an environment with nothing but its dependencies, then demo data to predictions by its command.

    The dependencies are those of the environment of the tests, so that nothing is fetched.
    """
    home, work = tmp_path / "environment", tmp_path / "work"
    work.mkdir()
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=work).strip())
    # Read as a path, its own .pth files are not: the checkout that is installed there stays out.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(python, "-m", "pip", "uninstall", "--yes", "setuptools", folder=work)  # older than torch asks for
    source = tmp_path / "source"  # where no earlier build lies, from which setuptools would take files
    shutil.copytree(REPOSITORY / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", work]
    run(*build, source, folder=work)
    (wheel,) = work.glob("catheters-*.whl")
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    for file in (path for path in (source / "src").rglob("*") if path.suffix in (".py", ".jinja", ".typed")):
        assert str(file.relative_to(source / "src")) in in_wheel
    run(python, "-m", "pip", "install", "--no-index", "--force-reinstall", "--no-deps", wheel, folder=work)
    assert "No broken requirements" in run(python, "-m", "pip", "check", folder=work)
    where = run(python, "-c", "import catheters; print(catheters.__file__)", folder=work)
    assert Path(where.strip()).is_relative_to(site)

    command = home / "bin" / "catheters"
    run(command, "synthetic", "dataset/sample", "--num-images", "40", "--num-test-images", "2", folder=work)
    small = ("--config", "sample", "image_size=64", "num_folds=2", "epochs=1", "warmup_epochs=0")
    run(command, "preproc", *small, folder=work)
    run(command, "train", *small, folder=work)
    run(command, "evaluate", "saved_models/sample", folder=work)
    run(command, "predict", "--model", "saved_models/sample", "dataset/sample/test", "--out", "p.csv", folder=work)
    assert len(pd.read_csv(work / "p.csv")) == 2
    assert "</html>" in (work / "saved_models/sample/report.html").read_text()
