"""A reporting checklist that a run answers: each item with what the run knows, or as the author's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from catheters.evaluation.intervals import FEW_PATIENTS_MARK, FEW_PATIENTS_NOTE
from catheters.io.files import write_text, write_whole
from catheters.runs.paper.facts import Facts

Status = Literal["answered", "in part", "author"]
STATUS_WORDS: dict[Status, str] = {
    "answered": "answered from the run",
    "in part": "answered in part, the author adds",
    "author": "the author's",
}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a run says to an item.

    Attributes:
        text: sentences, for the author to use.
        source: the files that they come from.
    """

    text: str
    source: str


@dataclass(frozen=True)
class Item:
    """One item of a checklist.

    Attributes:
        number: as the source numbers it.
        section: where it stands there.
        topic: what it asks for, in our own words.
        answer: makes the answer, or none where this run does not know; None: no run knows.
        author: what the author has to write, besides the answer where there is one; empty: nothing.
    """

    number: str
    section: str
    topic: str
    answer: Callable[[Facts], Answer | None] | None
    author: str = ""


@dataclass(frozen=True, kw_only=True)
class Checklist:
    """A reporting guideline.

    Attributes:
        key: what it is called on the command line and in file names.
        name: for people.
        source: where it was published; numbers are those of the source.
        items: in the source's order.
    """

    key: str
    name: str
    source: str
    items: tuple[Item, ...]


@dataclass(frozen=True, kw_only=True)
class AnsweredItem:
    """An item with what one run says to it; `author` says what is left to write."""

    item: Item
    status: Status
    answer: Answer | None
    author: str


def answer_items(checklist: Checklist, facts: Facts) -> list[AnsweredItem]:
    """Each item of a checklist, answered as far as the run knows."""
    answered = []
    for item in checklist.items:
        answer = None if item.answer is None else item.answer(facts)
        author = item.author
        if answer is None and not author:
            author = "Not known from this evaluation: write it yourself."
        status: Status = "author" if answer is None else "in part" if author else "answered"
        answered.append(AnsweredItem(item=item, status=status, answer=answer, author=author))
    return answered


def count_words(checklist: Checklist, answered: Sequence[AnsweredItem]) -> str:
    """How many items are answered, for people."""
    counts = {status: sum(item.status == status for item in answered) for status in STATUS_WORDS}
    return (
        f"{checklist.name}: {counts['answered']} of {len(answered)} items answered from the run, {counts['in part']} "
        f"in part, {counts['author']} are the author's"
    )


def write_checklist(folder: Path, checklist: Checklist, answered: Sequence[AnsweredItem], facts: Facts) -> Path:
    """Write `checklist_KEY.md`, to read, and `checklist_KEY.csv`, one row per item.

    Returns:
        The Markdown file.
    """
    name = f"checklist_{checklist.key.replace('-', '_')}"
    frame = pd.DataFrame(
        [
            (
                of.item.number,
                of.item.section,
                of.item.topic,
                of.status,
                "" if of.answer is None else of.answer.text,
                of.author,
                "" if of.answer is None else of.answer.source,
            )
            for of in answered
        ],
        columns=["item", "section", "topic", "status", "answer", "author", "source"],
    )
    write_whole(folder / f"{name}.csv", lambda part: frame.to_csv(part, index=False))
    write_text(folder / f"{name}.md", _as_markdown(checklist, answered, facts))
    return folder / f"{name}.md"


def _as_markdown(checklist: Checklist, answered: Sequence[AnsweredItem], facts: Facts) -> str:
    parts = [
        f"# {checklist.name}: {_plain(facts.evaluation.evaluated.name)}",
        f"Source: {checklist.source} Item numbers are those of the source; topics are in our own words. Read the items "
        "there before you submit.",
        f"{count_words(checklist, answered)}.",
        "Answers are made from the files that they name, by the program. They say nothing about how the data were "
        "collected, about ethics or about patients: that is the author's. Research software, not a medical device.",
    ]
    if FEW_PATIENTS_MARK in "".join(of.answer.text for of in answered if of.answer is not None):
        parts.append(f"{FEW_PATIENTS_MARK}: {FEW_PATIENTS_NOTE}.")
    kind = facts.background.image_kind
    if kind != "real":
        parts.append(f"**These X-rays are {kind}.** The numbers say nothing about real ones.")
    section = ""
    for of in answered:
        if of.item.section != section:
            section = of.item.section
            parts.append(f"## {section}")
        lines = [f"**{of.item.number}. {of.item.topic}** ({STATUS_WORDS[of.status]})"]
        if of.answer is not None:
            lines.append(f"{_plain(of.answer.text)} *From {_plain(of.answer.source)}.*")
        if of.author:
            lines.append(f"*Author:* {of.author}")
        parts.append("\n\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _plain(text: str) -> str:
    """Names of labels and files, so that they neither become HTML nor emphasis."""
    escaped = " ".join(text.split()).replace("<", "&lt;")
    return escaped.replace("*", "\\*").replace("_", "\\_").replace("|", "\\|")
