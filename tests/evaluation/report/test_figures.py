"""Figures of the report: what is drawn, read back from the SVG."""

import base64
import math
import re

import numpy as np
import pytest

from catheters.evaluation.evaluation import Choices, evaluate
from catheters.evaluation.lines.agreement import measure_agreement
from catheters.evaluation.patients import Patients
from catheters.evaluation.report.figures import (
    MAX_PAIRS,
    ReportFigure,
    draw_agreement,
    draw_precision_recall,
    draw_reliability,
    draw_roc,
)
from tests.evaluation.conftest import make_predictions


def content(figure: ReportFigure) -> str:
    return base64.b64decode(figure.url.removeprefix("data:image/svg+xml;base64,")).decode()


def draw(predicted: list[float], truth: list[float]) -> ReportFigure:
    patients = np.arange(len(predicted)).astype(str)
    pairs = np.array(predicted), np.array(truth)
    agreement = measure_agreement(*pairs, Patients(patients))
    return draw_agreement("tip above the carina", "mm", *pairs, agreement)


def test_agreement_in_words() -> None:
    """Differences of 1, 3 and 5, a standard deviation of 2: limits of 3 - 3.92 and 3 + 3.92."""
    figure = draw([11.0, 23.0, 35.0, math.nan], [10.0, 20.0, 30.0, 40.0])
    assert figure.text == (
        "Difference against mean of tip above the carina, 3 pairs: mean difference 3.00 mm, "
        "limits of agreement -0.92 to 6.92 mm"
    )


def boxes_of(svg: str) -> tuple[tuple[float, float], list[tuple[float, float]]]:
    """Top and bottom of the axes, and of each legend's frame: of the first path of each."""

    def heights(part: str) -> tuple[float, float]:
        path = re.search(r'<path d="([^"]*)"', part)
        assert path is not None
        ys = [float(y) for y in re.findall(r"-?[\d.]+ (-?[\d.]+)", path[1])]
        return min(ys), max(ys)

    _, axes = svg.split('<g id="axes_1">', 1)
    return heights(axes), [heights(part) for part in svg.split('<g id="legend_')[1:]]


@pytest.mark.parametrize("kind", ["roc", "precision and recall", "reliability", "agreement"])
def test_legends_cover_nothing(kind: str, rng: np.random.Generator) -> None:
    targets = rng.integers(0, 2, 200).astype(np.uint8)
    evaluation = evaluate(make_predictions(targets[:, None], rng.random((200, 1))), {}, {}, Choices())
    point, score = evaluation.points[0], evaluation.scores.estimate("roc_auc", "label 0")
    scores = evaluation.evaluated.probabilities[:, 0]
    figure = {
        "roc": lambda: draw_roc("x", targets, scores, score, point),
        "precision and recall": lambda: draw_precision_recall("x", targets, scores, score, point),
        "reliability": lambda: draw_reliability("x", targets, scores, scores**2, "platt"),
        "agreement": lambda: draw([11.0, 23.0, 35.0], [10.0, 20.0, 30.0]),
    }[kind]()
    (_, bottom), legends = boxes_of(content(figure))
    assert len(legends) == 1
    assert legends[0][0] > bottom


def dots(svg: str) -> list[tuple[float, float]]:
    found = re.findall(r'<use xlink:href="#\w+" x="([\d.]+)" y="([\d.]+)" style="fill: #0072b2', svg)
    return [(float(x), float(y)) for x, y in found]


def lines_across(svg: str) -> list[float]:
    """The heights of the orange lines that are not the legend's."""
    line = r'd="M [\d.]+ ([\d.]+) \nL [\d.]+ ([\d.]+) \n" clip-path="[^"]+" style="[^"]*#d55e00'
    return [float(start) for start, end in re.findall(line, svg) if start == end]


def test_agreement_as_drawn() -> None:
    """A dot per pair at its mean and difference; three lines across, at the mean and the limits, by their heights."""
    svg = content(draw([11.0, 23.0, 35.0, math.nan], [10.0, 20.0, 30.0, 40.0]))
    (x0, y0), (x1, y1), (x2, y2) = dots(svg)
    assert x1 - x0 == pytest.approx(x2 - x1, rel=1e-3)  # means of 10.5, 21.5 and 32.5
    assert y0 - y1 == pytest.approx(y1 - y2, rel=1e-3)
    per_unit = (y0 - y1) / 2  # of a difference of 1
    assert sorted((y1 - y) / per_unit + 3 for y in lines_across(svg)) == pytest.approx([-0.92, 3, 6.92], abs=0.01)
    assert "mean of predicted and true (mm)" in svg
    assert "predicted - true (mm)" in svg


def test_agreement_of_many_pairs_stays_small(rng: np.random.Generator) -> None:
    truth = rng.normal(size=5000)
    figure = draw((truth + rng.normal(size=5000)).tolist(), truth.tolist())
    assert len(dots(content(figure))) == MAX_PAIRS
    assert "tip above the carina, 1000 of 5000<" in content(figure)
    assert "5000 pairs" in figure.text


def test_agreement_of_one_pair_has_no_limits() -> None:
    figure = draw([11.0, math.nan], [10.0, 20.0])
    assert figure.text.endswith("1 pair: mean difference 1.00 mm, no limits of agreement")
    assert len(lines_across(content(figure))) == 1


def test_agreement_of_nothing() -> None:
    figure = draw([math.nan, math.nan], [10.0, 20.0])
    assert figure.text == "Difference against mean of tip above the carina, 0 pairs: nothing to compare"
