"""What a paper needs besides scores: the flow of the images, Table 1, and reporting checklists that the run answers."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from catheters.evaluation.evaluation import Evaluation
from catheters.evaluation.report.figures import ReportFigure, svg_figure
from catheters.evaluation.report.report import Background
from catheters.io.files import write_text
from catheters.runs.evaluation.inputs import Input
from catheters.runs.paper.checklist import Checklist, answer_items, count_words, write_checklist
from catheters.runs.paper.claim2024 import CLAIM_2024
from catheters.runs.paper.facts import collect_facts
from catheters.runs.paper.flow import ImageFlow, draw_images, list_steps, trace_images
from catheters.runs.paper.stard_ai import STARD_AI
from catheters.runs.paper.table_one import TableOne, describe_splits, draw_table_one, list_characteristics
from catheters.runs.paper.tripod_ai import TRIPOD_AI
from catheters.viz.svg import as_svg

CHECKLISTS: Mapping[str, Checklist] = MappingProxyType(
    {checklist.key: checklist for checklist in (CLAIM_2024, TRIPOD_AI, STARD_AI)}
)


@dataclass(frozen=True, kw_only=True)
class Study:
    """The images and patients of an evaluation.

    Attributes:
        flow: what became of the images.
        table_one: who and what they are.
    """

    flow: ImageFlow
    table_one: TableOne

    @functools.cached_property
    def svgs(self) -> Mapping[str, bytes]:
        """File name -> flow diagram and Table 1, drawn once for files and page."""
        title = f"Table 1. Images of {Path(self.flow.table).name}"
        return {
            "flow.svg": as_svg(draw_images(self.flow)),
            "table1.svg": as_svg(draw_table_one(self.table_one, title)),
        }


def describe_study(given: Input, evaluation: Evaluation) -> Study:
    """Count and describe the images and patients of an evaluation."""
    return Study(flow=trace_images(given), table_one=describe_splits(given, list(evaluation.choices.band_edges)))


def write_study(folder: Path, study: Study) -> None:
    """Write flow diagram and Table 1 as SVG and CSV, and which images are left out. Each file is whole or absent."""
    tables = {
        "flow.csv": list_steps(study.flow),
        "left_out.csv": study.flow.rows,
        "table1.csv": list_characteristics(study.table_one),
    }
    for name, table in tables.items():
        write_text(folder / name, table.to_csv(index=False))
    for name, content in study.svgs.items():
        write_text(folder / name, content.decode())


def study_figures(study: Study) -> list[ReportFigure]:
    """The same for the page."""
    words = {"flow.svg": "Flow of the images, as in flow.csv", "table1.svg": "Table 1, as in table1.csv"}
    return [svg_figure(content, words[name]) for name, content in study.svgs.items()]


def write_checklists(
    given: Input,
    evaluation: Evaluation,
    background: Background,
    study: Study,
    validations: Mapping[str, Mapping[str, Any]],
    keys: Sequence[str],
) -> list[str]:
    """Answer checklists from a run, and write them into its folder.

    Args:
        given: the predictions.
        evaluation: of them.
        background: what the page says besides.
        study: its images and patients.
        validations: of this evaluation on images from elsewhere, see `read_validations`.
        keys: of `CHECKLISTS`.

    Returns:
        A sentence for each: how many items are answered, and where they are.

    Raises:
        UserError: a checkpoint is damaged.
    """
    if not keys:
        return []
    facts = collect_facts(given, evaluation, background, study.flow, study.table_one, validations)
    sentences = []
    for key in keys:
        checklist = CHECKLISTS[key]
        answered = answer_items(checklist, facts)
        file = write_checklist(given.folder, checklist, answered, facts)
        sentences.append(f"{count_words(checklist, answered)} -> {file}")
    return sentences
