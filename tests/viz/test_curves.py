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


def test_legends_cover_no_curve(drawn: list[Figure], tmp_path: Path) -> None:
    """With the eight losses of a model that learns lines too, each legend lies below its axes, within the figure."""
    names = ("labels", "lines", "tips", "landmarks", "positions", "global", "ett")
    terms = {f"{part}/loss/{name}": 0.2 for part in ("train", "val") for name in names}
    plot_curves([{**entry, **terms, "val/raw/macro_auc": 0.6} for entry in VALIDATED], 2, "run", tmp_path / "c.png")
    losses, aucs, _ = drawn[0].axes
    whole = drawn[0].get_window_extent()
    for axes, num_curves in ((losses, 16), (aucs, 2)):
        legend = axes.get_legend()
        assert legend is not None and len(legend.get_texts()) == num_curves
        around, inside = legend.get_window_extent(), axes.get_window_extent()
        assert around.y1 < inside.y0 and around.y0 >= whole.y0 - 1 and around.x0 >= whole.x0 - 1
        assert inside.height > 0.4 * whole.height
    assert losses.get_window_extent().y0 == pytest.approx(aucs.get_window_extent().y0)


def test_a_training_without_validation(drawn: list[Figure], tmp_path: Path) -> None:
    plot_curves(LOG, None, "run, seed 0", tmp_path / "curves.png")
    assert drawn[0].get_suptitle() == f"run, seed 0\n{WITHOUT_VALIDATION}"
    assert [axes.get_ylabel() for axes in drawn[0].axes] == ["loss", "learning rate at the epoch's end"]
