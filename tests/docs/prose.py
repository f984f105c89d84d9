"""Sentences and paragraphs of a Markdown page that are too long to be read easily.

python tests/docs/prose.py README.md docs/how-to/resume.md
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

MAX_WORDS = 35
"""Of a sentence."""
MAX_LINES = 6
"""Of a paragraph or an item of a list, at most 120 characters each."""
MAX_LINE_LENGTH = 120

_FENCE = re.compile(r"^\s*(```|~~~)")
_ITEM = re.compile(r"^\s*([-*+]|\d+\.)\s+")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_END_OF_SENTENCE = re.compile(r"(?<=[.!?])[\"')*]*\s+(?=[\"'(*`]*[A-Z0-9`])")


def paragraphs(text: str) -> Iterator[tuple[int, list[str]]]:
    """Paragraphs and items of lists of a page, each with the number of its first line; no code, tables, headings."""
    lines: list[str] = []
    is_code = False
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        is_fence = _FENCE.match(line) is not None
        is_code ^= is_fence
        is_prose = not (
            is_code or is_fence or line.lstrip().startswith(("#", "|", "<", ":::", ">")) or not line.strip()
        )
        if lines and (not is_prose or _ITEM.match(line)):
            yield number - len(lines), lines
            lines = []
        # Four spaces begin a block of code, but for the further lines of an item.
        if is_prose and (lines or not line.startswith("    ")):
            lines.append(line)


def sentences(lines: list[str]) -> list[str]:
    """Those of a paragraph; a link counts as its text, a piece of code as one word."""
    text = " ".join(_ITEM.sub("", line).strip() for line in lines)
    text = re.sub(r"`[^`]*`", "`code`", _LINK.sub(r"\1", text))
    return _END_OF_SENTENCE.split(text)


def complaints(text: str) -> list[str]:
    """One line for each sentence and paragraph of a page that is too long."""
    found = []
    for number, lines in paragraphs(text):
        if len(lines) > MAX_LINES:
            found.append(f"line {number}: a paragraph of {len(lines)} lines, at most {MAX_LINES}")
        found += [f"line {number}: a line of {len(line)} characters" for line in lines if len(line) > MAX_LINE_LENGTH]
        for sentence in sentences(lines):
            num_words = sum(any(map(str.isalnum, word)) for word in sentence.split())
            if num_words > MAX_WORDS:
                found.append(f"line {number}: a sentence of {num_words} words, at most {MAX_WORDS}: {sentence[:60]}...")
    return found


if __name__ == "__main__":
    found_in = {name: complaints(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:]}
    print("\n".join(f"{name}: {complaint}" for name, found in found_in.items() for complaint in found))
    sys.exit(any(found_in.values()))
