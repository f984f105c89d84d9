"""The figure of a training: what it draws and says."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from catheters.viz.curves import WITH_VALIDATION, WITHOUT_DOT, WITHOUT_VALIDATION, plot_curves

LOG = [{"epoch": epoch, "train/loss": 1 / epoch, "lr": 1e-3 / epoch} for epoch in (1, 2, 3)]
VALIDATED = [{**entry, "val/loss": 0.5, "val/macro_auc": 0.6 + 0.1 * entry["epoch"]} for entry in LOG]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *arguments: Any, **options: Any) -> None:
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_a_fold(drawn: list[Figure], tmp_path: Path) -> None:
    """Each axis has its name, the dot is the best epoch, and the title says what to make of its AUC."""
    plot_curves(VALIDATED, 2, "run, fold 0", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert drawn[0].get_suptitle() == f"run, fold 0\n{WITH_VALIDATION}"
    losses, aucs, rates = drawn[0].axes
    assert [axes.get_ylabel() for axes in (losses, aucs, rates)] == [
        "loss",
        "macro ROC AUC of the validation fold",
        "learning rate at the epoch's end",
    ]
    assert {axes.get_xlabel() for axes in drawn[0].axes} == {"epoch"}
    assert aucs.get_title() == "0.800 in epoch 2"
    dot = aucs.lines[-1]
    assert (list(dot.get_xdata()), list(dot.get_ydata())) == ([2], [0.8])  # type: ignore[arg-type]


def test_a_fold_whose_best_epoch_is_not_known(drawn: list[Figure], tmp_path: Path) -> None:
    """The AUCs are drawn all the same, as a tracker gets them."""
    plot_curves(VALIDATED, None, "run, fold 0", tmp_path / "curves.png")
    assert drawn[0].get_suptitle().endswith(WITHOUT_DOT)
    assert len(drawn[0].axes) == 3
    assert len(drawn[0].axes[1].lines) == 1


def test_a_training_without_validation(drawn: list[Figure], tmp_path: Path) -> None:
    plot_curves(LOG, None, "run, seed 0", tmp_path / "curves.png")
    assert drawn[0].get_suptitle() == f"run, seed 0\n{WITHOUT_VALIDATION}"
    assert [axes.get_ylabel() for axes in drawn[0].axes] == ["loss", "learning rate at the epoch's end"]
