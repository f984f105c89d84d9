"""The page: whole by itself, its numbers those of the evaluation, working in a browser."""

import dataclasses
import html
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from catheters.evaluation.caveats import Caveat
from catheters.evaluation.comparison import compare
from catheters.evaluation.ensemble import combine
from catheters.evaluation.evaluation import Choices, Evaluation, evaluate
from catheters.evaluation.intervals import Estimate
from catheters.evaluation.paired_tests import describe_p
from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import PredictionSet
from catheters.evaluation.report.figures import MAX_POINTS, ReportFigure, draw_aucs, thin
from catheters.evaluation.report.report import Background, write_model_card, write_report
from catheters.evaluation.report.tables import with_interval
from catheters.evaluation.scores import score
from tests.browser import PHONE, SCREEN, Browser
from tests.evaluation.conftest import make_predictions

HOSTILE = "<script>alert(1)</script>"
GREY_DOT = "data:image/gif;base64,R0lGODlhAQABAIAAAAUEBAAAACwAAAAAAQABAAACAkQBADs="
CURVES = ReportFigure(url=GREY_DOT, text="Loss, macro AUC and learning rate of fold0 over the epochs")


def make_pair(rng: np.random.Generator) -> tuple[PredictionSet, PredictionSet]:
    targets = (rng.random((240, 3)) < [0.3, 0.5, 0.0]).astype(np.uint8)

    def predict(quality: float, name: str) -> PredictionSet:
        return make_predictions(
            targets,
            1 / (1 + np.exp(-(quality * (2.0 * targets - 1) + rng.normal(size=targets.shape)))),
            patients=[f"p{number // 3}" for number in range(240)],
            folds=[number // 3 % 2 for number in range(240)],
            labels=["tube", HOSTILE, "never"],
            name=name,
        )

    return predict(1.0, "first"), predict(1.5, "second")


def make_background(**changes: object) -> Background:
    fields: dict[str, object] = {
        "predictions": "p.csv",
        "labels": "labels.csv",
        "num_labelled": 240,
        "image_kind": "real",
        "command": "python evaluate.py run",
        "settings": {
            "backbone_model": "rexnet_100",
            "classifier": "linear",
            "image_size": 64,
            "run_name": HOSTILE,
            "allow_leaking_folds": False,
            "pretrained": False,
        },
        "environment": ["hardware: the CPU"],
        "curves": [],
        "comparison": None,
        "ensemble": None,
    }
    return Background(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture
def evaluation(rng: np.random.Generator) -> Evaluation:
    columns = {"view": rng.choice(["AP", "PA"], 240).astype(np.str_)}
    return evaluate(make_pair(rng)[1], {"device": ("tube", HOSTILE)}, columns, Choices())


def thumbnails(rows: list[int]) -> dict[int, str]:
    return {row: GREY_DOT if row % 2 else "" for row in rows}


def test_the_page_holds_the_numbers_and_nothing_from_elsewhere(evaluation: Evaluation, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", evaluation, make_background(), thumbnails)
    page = (tmp_path / "report.html").read_text()
    for estimate in (
        evaluation.scores.macro("roc_auc"),
        evaluation.scores.estimate("brier", HOSTILE),
        evaluation.points[0].ppv,
        evaluation.presence_points[0].sensitivity,
        evaluation.folds[1].scores.macro("average_precision"),
        evaluation.subgroups[0].macros("roc_auc")[1],
    ):
        assert with_interval(estimate) in page
    assert "not a medical device" in page
    assert "Synthetic" not in page
    assert "the dot may lie off the curve" in page
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(link.startswith(("data:", "#")) for link in links)
    assert "url(" not in page and "@import" not in page
    assert HOSTILE not in page
    assert html.escape(HOSTILE) in page
    assert page.count("<img") == page.count(" alt=")
    assert "All images are of one class." in page
    assert "cannot be read" in page and GREY_DOT in page
    write_report(tmp_path / "report.html", evaluation, make_background(), None)
    assert "cannot be read" not in (tmp_path / "report.html").read_text()


def test_what_only_some_pages_have(rng: np.random.Generator, evaluation: Evaluation, tmp_path: Path) -> None:
    first, second = make_pair(rng)
    patients = Patients(first.patient_ids)
    scores = [score(evaluated, patients) for evaluated in (first, second)]
    comparison = compare(first, second, (scores[0], scores[1]), seed=0)
    ensemble = combine("weights", [first, second], "ensemble")
    background = make_background(image_kind="synthetic", comparison=comparison, ensemble=ensemble, settings={})
    write_report(tmp_path / "report.html", evaluation, background, thumbnails)
    page = (tmp_path / "report.html").read_text()
    assert "<strong>Synthetic data.</strong>" in page
    assert with_interval(comparison.differences.macro("roc_auc"), 4) in page
    gap = " ".join(page[page.index("Against first") :][:300].split())
    said = "that is more than chance" if comparison.tests.p_macro["roc_auc"] < 0.05 else "neither is shown"
    assert f"(p-value {describe_p(comparison.tests.p_macro['roc_auc'])}); {said}" in html.unescape(gap)
    assert page.count('aria-label="Comparison of ') == 3
    for member in ensemble.members:
        assert f"<td>{member.weight:.3f}</td>" in page
    assert "<summary>Settings</summary>" not in page
    assert "holds ranks" not in page
    ranks = make_background(ensemble=combine("rank", [first, second], "ensemble"))
    write_report(tmp_path / "report.html", evaluation, ranks, None)
    assert "This ensemble holds ranks, no probabilities" in (tmp_path / "report.html").read_text()
    write_model_card(tmp_path / "MODEL_CARD.md", evaluation, ranks)
    assert "This ensemble holds ranks, no probabilities" in (tmp_path / "MODEL_CARD.md").read_text()


def test_a_page_without_a_score(tmp_path: Path) -> None:
    nothing = make_predictions([[0], [0]], [[0.2], [0.7]])
    write_report(tmp_path / "report.html", evaluate(nothing, {}, {}, Choices()), make_background(), None)
    assert "with intervals:" not in (tmp_path / "report.html").read_text()  # the words of the figure of all scores


def test_curves_are_drawn_where_they_turn(rng: np.random.Generator) -> None:
    """Of a rare label's precision and recall nearly all points lie at the end: the area under what is drawn is kept."""
    targets = np.zeros(30_000, dtype=np.uint8)
    targets[:79] = 1
    precisions, recalls, _ = precision_recall_curve(targets, 4 * targets + rng.normal(size=30_000))
    drawn_recalls, drawn_precisions = thin(recalls, precisions)
    assert len(drawn_recalls) <= MAX_POINTS
    whole, drawn = (-np.trapezoid(y, x) for x, y in ((recalls, precisions), (drawn_recalls, drawn_precisions)))
    assert drawn == pytest.approx(whole, abs=0.01)
    assert (drawn_recalls[[0, -1]] == recalls[[0, -1]]).all()


@pytest.mark.parametrize("low", [0.4, 0.6, float("nan")])
def test_intervals_that_leave_out_their_value_or_are_none(low: float) -> None:
    estimate = Estimate(value=0.5, low=low, high=low + 0.05)
    figure = draw_aucs(["a $\\bad$ b", "c"], [estimate, estimate])
    assert figure.text == "ROC AUC with intervals: a $\\bad$ b 0.500, c 0.500"


def test_the_model_card(evaluation: Evaluation, tmp_path: Path) -> None:
    write_model_card(tmp_path / "MODEL_CARD.md", evaluation, make_background(image_kind="synthetic"))
    card = (tmp_path / "MODEL_CARD.md").read_text()
    assert "timm's `rexnet_100`" in card
    assert "**Synthetic data.**" in card
    assert "not a medical device" in card
    assert HOSTILE not in card
    assert "&lt;script&gt;" in card
    rows = [line for line in card.splitlines() if line.startswith("| tube |")]
    assert with_interval(evaluation.scores.estimate("roc_auc", "tube")) in rows[0]
    assert with_interval(evaluation.points[0].npv) in rows[1]


@pytest.fixture
def shown(rng: np.random.Generator, evaluation: Evaluation, tmp_path: Path) -> Iterator[Browser]:
    """The page with all that some pages have, in a browser."""
    pair = make_pair(rng)
    patients = Patients(pair[0].patient_ids)
    scores = [score(evaluated, patients) for evaluated in pair]
    comparison = compare(*pair, (scores[0], scores[1]), seed=0)
    ensemble = combine("weights", list(pair), "ensemble")
    background = make_background(image_kind="synthetic", comparison=comparison, ensemble=ensemble, curves=[CURVES])
    write_report(tmp_path / "report.html", evaluation, background, thumbnails)
    with Browser(tmp_path) as browser:
        browser.show(SCREEN)
        browser.open((tmp_path / "report.html").as_uri())
        yield browser


@pytest.mark.slow
def test_in_a_browser(evaluation: Evaluation, shown: Browser) -> None:
    """No errors in the console, and a table sorts by the heading that is pressed."""
    first_column = """[...document.querySelector("table.sorts").tBodies[0].rows]
        .map((row) => row.cells[0].textContent.trim())"""
    press = "document.querySelector('table.sorts thead').rows[0].cells[1].querySelector('button').click()"
    areas = {label: evaluation.scores.estimate("roc_auc", label).value for label in ("tube", HOSTILE)}
    falling = sorted(areas, key=lambda label: -areas[label])
    shown.evaluate(press)
    assert shown.evaluate(first_column) == [*falling, "never"]
    shown.evaluate(press)
    assert shown.evaluate(first_column) == [*falling[::-1], "never"]
    order = "document.querySelector('table.sorts thead').rows[0].cells[1].getAttribute('aria-sort')"
    assert shown.evaluate(order) == "ascending"
    assert shown.console == []


def test_it_can_be_read_on_a_screen_a_phone_and_paper(shown: Browser) -> None:
    assert shown.cut_boxes() == []
    shown.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    shown.assert_readable()


def test_no_table_is_cut_on_a_screen(rng: np.random.Generator, tmp_path: Path, browser: Browser) -> None:
    """With the longest names of the data sets that are known."""
    labels = ["NGT - Incompletely Imaged, Enlarged Cardiomediastinum", "Swan Ganz Catheter Present"]
    targets = rng.integers(0, 2, (120, 2)).astype(np.uint8)
    predictions = make_predictions(targets, rng.random((120, 2)), labels=labels)
    write_report(tmp_path / "report.html", evaluate(predictions, {}, {}, Choices()), make_background(), None)
    browser.show(SCREEN)
    browser.open((tmp_path / "report.html").as_uri())
    assert browser.cut_boxes() == []


@pytest.mark.parametrize("width", [SCREEN, 1600, PHONE])
def test_ids_of_dicom_stay_in_their_cells(
    rng: np.random.Generator, tmp_path: Path, browser: Browser, width: int
) -> None:
    """UIDs have up to 64 characters, of images as of patients; what is to be read again shows both side by side."""
    targets = rng.integers(0, 2, (200, 1)).astype(np.uint8)
    is_wrong = np.arange(200) % 40 == 0
    probabilities = np.where((targets == 1) ^ is_wrong[:, None], 0.99, 0.01) + rng.uniform(-0.009, 0.009, (200, 1))
    ids = [f"1.2.826.0.1.3680043.8.498.{number:038d}" for number in range(400)]
    assert len(ids[0]) == 64
    labels = ["NGT - Incompletely Imaged, Enlarged Cardiomediastinum"]
    predictions = make_predictions(targets, probabilities, patients=ids[200:], labels=labels)
    predictions = dataclasses.replace(predictions, uids=np.array(ids[:200]))
    groups = {"scanner": np.array(ids[:2], dtype=np.str_)[targets[:, 0]]}
    evaluation = evaluate(predictions, {}, groups, Choices())
    write_report(tmp_path / "report.html", evaluation, make_background(), None)
    browser.show(width)
    browser.open((tmp_path / "report.html").as_uri())
    rows = "document.querySelector('[aria-label=\"Labels to be read again\"] tbody').rows.length"
    assert browser.evaluate(rows) == len(evaluation.read_again) > 0
    assert browser.overfull_cells() == []
    assert width == PHONE or browser.cut_boxes() == []


def text_of(page: Path) -> str:
    """What a page says before its first section, in one line."""
    header = re.search(r"<header>(.*?)</header>", page.read_text(), re.DOTALL)
    assert header is not None
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", header[1])).split())


def test_the_first_lines_say_what_to_conclude(evaluation: Evaluation, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    write_report(file, evaluation, make_background(), None)
    macro = evaluation.scores.macro("roc_auc")
    assert f"is {macro.value:.3f}. The 95% confidence interval, over patients, is {macro.low:.3f} to" in text_of(file)
    assert "The predictions are out-of-fold" in text_of(file)
    assert "slightly optimistic" in text_of(file)
    assert "other hospitals" in text_of(file)
    assert "no better than chance" not in text_of(file)
    write_report(file, evaluation, make_background(settings={}), None)
    assert "does not know how the predictions were made" in text_of(file)
    assert "out-of-fold" not in text_of(file)
    assert "are from a file" not in text_of(file)
    from_file = {**make_background().settings, "pretrained": "nih/best.pt"}
    write_report(file, evaluation, make_background(settings=from_file), None)
    assert "weights that training began with are from a file, and may have been trained on these" in text_of(file)
    leaking = Caveat(kind="leaking_folds", text="run: was trained with allow_leaking_folds")
    write_report(file, dataclasses.replace(evaluation, caveats=(leaking,)), make_background(), None)
    assert "may share patients or equal images" in text_of(file)
    assert "Caveats. run: was trained with allow_leaking_folds." in text_of(file)
    assert "out-of-fold" not in text_of(file)


def test_what_chance_may_have_made_is_called_so(rng: np.random.Generator, tmp_path: Path) -> None:
    targets = rng.integers(0, 2, (200, 1)).astype(np.uint8)
    by_chance = make_predictions(targets, rng.random((200, 1)))
    write_report(tmp_path / "report.html", evaluate(by_chance, {}, {}, Choices()), make_background(), None)
    assert "may be no better than chance" in text_of(tmp_path / "report.html")
    of_one = make_predictions(targets, by_chance.probabilities, patients=[7] * 200)
    without = evaluate(of_one, {}, {}, Choices())
    write_report(tmp_path / "report.html", without, make_background(), None)
    assert "95% CI" not in text_of(tmp_path / "report.html")
    assert "chance;" in text_of(tmp_path / "report.html")
