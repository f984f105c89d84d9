"""A search as files: `search.csv` and `search.html`."""

from pathlib import Path

import pandas as pd

from catheters.evaluation.report.report import page_environment
from catheters.evaluation.search.figures import draw_history, draw_setting
from catheters.evaluation.search.results import SearchResult
from catheters.evaluation.search.tables import auc_text, time_text, value_text
from catheters.io import files

CSV_FILE = "search.csv"
PAGE_FILE = "search.html"


def write_csv(file: Path, result: SearchResult) -> None:
    """Write a row per trial; it is whole or absent."""
    rows = [
        {
            "trial": trial.number,
            "state": trial.state,
            "macro_auc": trial.macro_auc,
            "epochs": trial.epochs,
            "seconds": trial.seconds,
            **trial.values,
            "error": trial.error,
        }
        for trial in result.trials
    ]
    columns = ["trial", "state", "macro_auc", "epochs", "seconds", *result.space, "error"]
    frame = pd.DataFrame(rows, columns=columns).astype({"epochs": "Int64"})
    files.write_whole(file, lambda part: frame.to_csv(part, index=False))


def write_page(file: Path, result: SearchResult) -> None:
    """Write the page; it is whole or absent."""
    figures = [draw_setting(result, name) for name in result.space]
    page = (
        page_environment()
        .get_template("search.html.jinja")
        .render(
            result=result,
            history_figure=draw_history(result),
            setting_figures=[figure for figure in figures if figure is not None],
            auc_text=auc_text,
            time_text=time_text,
            value_text=value_text,
        )
    )
    files.write_text(file, page)
