"""The documents as the tests read them: pages, their headings, links, and blocks of code."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
MEASURED = (DOCS / "performance.md", DOCS / "lab-notes.md")
"""Made by a benchmark, or a log of experiments: read by who looks for a number."""
PAGES = sorted(file for file in [*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md")] if "_build" not in file.parts)
PROSE = [file for file in PAGES if file not in MEASURED]

_BLOCK = re.compile(
    r"^(?: *<!-- parse only: (?P<reason>[^>]*) -->\n)?(?P<indent> *)```(?P<language>\w+|\{[\w-]+\}|)[^\n]*\n"
    r"(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of code.

    Attributes:
        line: the number of its first line.
        reason: why a test cannot run it, as the page says; None: it is run.
    """

    language: str
    text: str
    line: int
    reason: str | None


def blocks(file: Path) -> list[Block]:
    """Those of a page, in their order."""
    page = file.read_text(encoding="utf-8")
    return [
        Block(
            language=match["language"],
            text=match["text"],
            line=page.count("\n", 0, match.start("text")) + 1,
            reason=match["reason"],
        )
        for match in _BLOCK.finditer(page)
    ]


def commands(block: Block) -> Iterator[str]:
    """The commands of a bash block, without comments; one that ends in a backslash goes on in the next line."""
    for line in block.text.replace("\\\n", " ").splitlines():
        command = re.sub(r"(^|\s)#.*", "", line).strip()
        if command:
            yield command


def anchors(file: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = _BLOCK.sub("", file.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links(file: Path) -> list[str]:
    """What a page's links and images point to."""
    text = _BLOCK.sub("", file.read_text(encoding="utf-8"))
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text))
