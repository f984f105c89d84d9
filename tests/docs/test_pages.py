"""The documents are readable, whole, and true to the program: words, links, settings and commands."""

import ast
import dataclasses
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest

from catheters.commands import compare_options, evaluation_options, prediction_options
from catheters.commands.console import COMMANDS
from catheters.config.loading import SETTING_NAMES, load_settings
from catheters.inference.api import Result
from catheters.inference.lines.landmarks import FoundLandmark
from catheters.inference.lines.measuring import TakenMeasurement
from catheters.inference.lines.prediction import PredictedLine
from catheters.measurements import Measurement
from docs.generate import PAGES as GENERATED
from tests.conftest import REPOSITORY
from tests.docs.pages import DOCS, PAGES, PROSE, anchors, blocks, commands, links
from tests.docs.prose import complaints

SETTINGS_SCRIPTS = {"preproc_npy.py", "train.py", "multi_train.py", "preproc", "train", "multi-train"}
PARSERS: Mapping[str, Callable[[list[str]], Any]] = {
    "compare.py": compare_options.parse_options,
    "compare": compare_options.parse_options,
    "evaluate.py": evaluation_options.parse_options,
    "evaluate": evaluation_options.parse_options,
    "predict.py": prediction_options.parse_options,
    "predict": prediction_options.parse_options,
}
PARAMETERS = {"weights_only", "sensitivity", "specificity", "age", "index", "calibrated", "tta", "name"}
"""What else is written as `name=value`: parameters of functions, operating points, columns."""
OPTIONS = {"--help", "--fresh", "--audit", "--show", "--folder", "--config"}


def name_of(file: Path) -> str:
    return str(file.relative_to(REPOSITORY))


@pytest.mark.parametrize("file", PROSE, ids=name_of)
def test_sentences_and_paragraphs_are_short(file: Path) -> None:
    assert complaints(file.read_text(encoding="utf-8")) == []


def test_what_is_too_long_is_found() -> None:
    long = "A sentence " + "word " * 40 + "ends. A short one."
    assert complaints(long) == [
        f"line 1: a line of {len(long)} characters",
        f"line 1: a sentence of 43 words, at most 35: {long[:60]}...",
    ]
    assert complaints("one\n" * 7) == ["line 1: a paragraph of 7 lines, at most 6"]
    assert complaints("```text\n" + "one\n" * 7 + "```\n\n| " + "word " * 40 + "|\n") == []


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize(
    "word",
    ["resume", "fine-tun", "dataloader", "test-time", "early stopping", "multi-label", "licen[cs]e", "troubleshoot"],
)
def test_words_that_readers_search_for(word: str) -> None:
    entrance = (REPOSITORY / "README.md").read_text() + (DOCS / "index.md").read_text()
    assert re.search(word, " ".join(entrance.split()), re.IGNORECASE)


@pytest.mark.parametrize("file", PAGES, ids=name_of)
def test_links_lead_somewhere(file: Path) -> None:
    for link in links(file):
        if re.match(r"https?:|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = file if not path else (file.parent / path).resolve()
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link


def test_every_page_is_in_the_index() -> None:
    listed = {(DOCS / link.partition("#")[0]).resolve() for link in links(DOCS / "index.md")}
    pages = {file for file in PAGES if file.is_relative_to(DOCS)} | set((DOCS / "tutorials").glob("*.ipynb"))
    assert pages - listed == {DOCS / "index.md"}


@pytest.mark.parametrize("file", GENERATED, ids=name_of)
def test_the_generated_reference_is_up_to_date(file: Path) -> None:
    """`python docs/generate.py` writes it anew."""
    assert file.read_text(encoding="utf-8") == GENERATED[file]()


def test_every_setting_is_in_the_reference() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (DOCS / "reference/settings.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(SETTING_NAMES)


def test_every_part_of_a_result_is_in_the_reference() -> None:
    """What the model says of an X-ray, and the fields of its lines, landmarks and measurements."""
    text = (DOCS / "reference/python.md").read_text()
    for name in vars(Result):
        if not name.startswith("_"):
            assert f"### Result.{name}\n" in text, name
    for part in (Result, PredictedLine, FoundLandmark, TakenMeasurement, Measurement):
        described = re.search(rf"class (?:catheters\.)?{part.__name__}\n(.*?)```", text, re.DOTALL)
        assert described is not None
        for field in dataclasses.fields(part):
            assert field.name.startswith("_") or f"\n    {field.name}: " in described[1], field.name


@pytest.mark.parametrize("file", PAGES, ids=name_of)
def test_commands_are_understood(file: Path) -> None:
    """By the parsers of the scripts and by the settings, those of blocks that are not run as well."""
    for block in blocks(file):
        if block.language == "bash":
            for command in commands(block):
                understand(command)
        elif block.language == "python":
            ast.parse(block.text)


def understand(command: str) -> None:
    for part in re.split(r"\s(?:&&|\||;)\s", command):
        words = shlex.split(part)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # variables of the environment
            words = words[1:]
        script = next((n for n, word in enumerate(words) if Path(word).name in {*SETTINGS_SCRIPTS, *PARSERS}), None)
        is_ours = words and Path(words[0]).name in ("python", "torchrun", "catheters", "srun")
        if script is None or not is_ours:
            assert not (words and words[0] == "catheters" and words[1] not in COMMANDS), command
            continue
        name, arguments = Path(words[script]).name, words[script + 1 :]
        if name in PARSERS:
            PARSERS[name](arguments)
            continue
        overrides, config = [], "sample"
        expects = ""
        for word in arguments:
            if expects:
                config = word if expects == "--config" else config
                expects = ""
            elif word.startswith("--"):
                assert word in OPTIONS, command
                expects = word if word in ("--config", "--show", "--folder") else ""
            else:
                overrides.append(word)
        is_there = config.startswith("configs/") or config in ("config.py", "multi_config.py")
        load_settings(REPOSITORY / config if is_there else "published_single", overrides)


@pytest.mark.parametrize("file", PAGES, ids=name_of)
def test_settings_in_the_text_exist(file: Path) -> None:
    prose = re.sub(r"```.*?```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert set(re.findall(r"`([a-z_]+)=[^`\n]+`", prose)) <= {*SETTING_NAMES, *PARAMETERS}


def test_the_notebook_is_small_and_compiles() -> None:
    for file in (DOCS / "tutorials").glob("*.ipynb"):
        assert file.stat().st_size < 250_000
        for cell in nbformat.read(file, as_version=4).cells:
            if cell.cell_type == "code":
                ast.parse(cell.source)


def test_images_are_small() -> None:
    images = [file for file in (DOCS / "images").iterdir() if file.suffix in (".png", ".jpg", ".svg")]
    assert len(images) >= 4
    for file in images:
        assert file.stat().st_size < 150_000, file
