"""A search as text, page and CSV: the best trial, and that its score is optimistic."""

import dataclasses
from pathlib import Path

import pandas as pd

from catheters.evaluation.search.files import write_csv, write_page
from catheters.evaluation.search.results import SearchResult, State, TrialResult
from catheters.evaluation.search.tables import search_text


def trial(number: int, state: State, macro_auc: float | None, lr: float, optimizer: object = "SGD") -> TrialResult:
    return TrialResult(
        number=number,
        state=state,
        macro_auc=macro_auc,
        epochs=None if state == "failed" else 3 + number,
        seconds=None if state == "failed" else 70.0,
        values={"init_lr": lr, "optimizer": optimizer},
        error="the training loss is nan" if state == "failed" else "",
    )


RESULT = SearchResult(
    name="search_x",
    trials=(
        trial(0, "complete", 0.7, 1e-4),
        trial(1, "failed", None, 1.0),
        trial(2, "complete", 0.8, 3.16e-4, ("odd", {"<a>": 1})),
        trial(3, "pruned", 0.95, 2e-4),
        trial(4, "complete", 0.8, 5e-4),
    ),
    space={"init_lr": "0.0001 to 1.0, log", "optimizer": "'SGD', ('odd', {'<a>': 1})"},
    log_settings=frozenset({"init_lr"}),
    folds=(0,),
    seed=7,
    is_base_first=True,
    image_kind="synthetic",
    command="python compare.py --search x.py",
    comparison="python compare.py base.py best.py --seeds 0 1 2 --folds 1 2",
)


def test_the_best_is_complete_and_said_to_be_optimistic() -> None:
    """A pruned trial is not the best, whatever it had; of equal ones the earlier is."""
    assert RESULT.best is RESULT.trials[2]
    lines = search_text(RESULT).splitlines()
    assert lines[0] == "search_x: 5 trials on fold 0, seed 7 (3 complete, 1 failed, 1 pruned)"
    assert lines[2].split() == ["trial", "macro", "AUC", "epochs", "training", "init_lr", "optimizer"]
    assert [line.split()[0] for line in lines[3:6]] == ["2", "4", "0"]
    assert lines[5].startswith("0 (base)")
    assert "  trial 1: the training loss is nan" in lines
    assert (
        "trial 2 is the best of 5 trials on fold 0; it was chosen by that very score, which is optimistic" in lines[-3]
    )
    assert lines[-1] == f"  {RESULT.comparison}"


def test_nothing_to_compare() -> None:
    no_better = dataclasses.replace(RESULT, trials=RESULT.trials[:2])
    assert no_better.is_base_best
    text = search_text(no_better)
    assert text.endswith("no trial was better than the base, which is trial 0, on fold 0")
    assert not dataclasses.replace(no_better, is_base_first=False).is_base_best
    none = dataclasses.replace(RESULT, trials=RESULT.trials[1:2])
    assert none.best is None
    assert search_text(none).endswith("no trial is complete, so nothing was found")


def test_csv(tmp_path: Path) -> None:
    write_csv(tmp_path / "search.csv", RESULT)
    frame = pd.read_csv(tmp_path / "search.csv")
    assert list(frame) == ["trial", "state", "macro_auc", "epochs", "seconds", "init_lr", "optimizer", "error"]
    assert frame["macro_auc"].fillna(-1).tolist() == [0.7, -1, 0.8, 0.95, 0.8]
    assert frame["init_lr"].tolist() == [1e-4, 1.0, 3.16e-4, 2e-4, 5e-4]
    assert frame.loc[1, "error"] == "the training loss is nan"


def test_the_page_names_what_people_look_for(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", RESULT)
    page = (tmp_path / "page.html").read_text()
    assert "best macro ROC AUC, optimistic" in page
    assert "<strong>Synthetic data.</strong>" in page
    assert "Research software, not a medical" in page
    assert RESULT.comparison in page
    assert page.count("data:image/svg+xml;base64,") == 3  # the history, and each setting
    assert "&lt;a&gt;" in page
    assert "<a>" not in page  # values are text
    nothing = dataclasses.replace(RESULT, trials=RESULT.trials[1:2], image_kind="real")
    write_page(tmp_path / "page.html", nothing)
    page = (tmp_path / "page.html").read_text()
    assert "1 trial failed." in page
    assert "data:image/svg" not in page
    assert "Synthetic data" not in page
