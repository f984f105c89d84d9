"""Figures of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from catheters.io.files import write_whole

# From the palette of Okabe and Ito, which the colour-blind can tell apart.
BLUE, ORANGE = "#0072B2", "#D55E00"
WITH_VALIDATION = "The best epoch (dot) is chosen on the validation fold itself, so its AUC is slightly optimistic."
WITHOUT_DOT = "The best epoch is chosen on the validation fold itself, so its AUC is slightly optimistic."
WITHOUT_VALIDATION = "No validation: these curves do not say how good the model is."

HEIGHT_OF_ENTRIES = 0.09
"""Inches of the figure per curve in the legend of the losses, which has two columns."""


def plot_curves(log: Sequence[Mapping[str, float]], best_epoch: int | None, title: str, file: Path) -> None:
    """Draw losses, macro AUC and learning rate over the epochs, with what may be concluded from them above.

    Args:
        log: one entry per epoch, but for those whose line is damaged, with `epoch`, `train/loss` and `lr`; of a run
            with validation also `val/loss` and `val/macro_auc`, and `val/raw/macro_auc` where EMA weights were kept;
            `train/loss/<name>` and `val/loss/<name>` where several losses are summed.
        best_epoch: the epoch, from 1, whose weights were kept; None: there is none, or it is not known.
        title: which training it is.
        file: the PNG to write; it is whole or absent.
    """
    num_losses = sum(log[0].keys() >= {key} for key in _losses(log)) if log else 0
    figure = Figure(figsize=(12, 4.0 + HEIGHT_OF_ENTRIES * num_losses), layout="constrained")
    FigureCanvasAgg(figure)
    is_validated = any("val/macro_auc" in entry for entry in log)
    best = next((entry for entry in log if entry["epoch"] == best_epoch), None)  # its line may be damaged
    loss_axes, *auc_axes, rate_axes = figure.subplots(1, 3 if is_validated else 2)
    _draw(loss_axes, log, _losses(log), "loss")
    if is_validated:
        _draw_aucs(auc_axes[0], log, best)
    _draw(rate_axes, log, {"lr": ("learning rate", BLUE, "-")}, "learning rate at the epoch's end")
    if all(entry["lr"] > 0 for entry in log):
        rate_axes.set_yscale("log")
    with_validation = WITH_VALIDATION if best else WITHOUT_DOT
    conclusion = with_validation if is_validated else WITHOUT_VALIDATION
    # At the left, so that it is not read as the title of the axes in the middle.
    figure.suptitle(f"{title}\n{conclusion}", x=0.01, ha="left", size=11)
    write_whole(file, lambda part: figure.savefig(part, dpi=110, format="png"))


def _losses(log: Sequence[Mapping[str, float]]) -> dict[str, tuple[str, str, str]]:
    """The curves of the losses: their sum in training and validation, then each by its name."""
    curves = {"train/loss": ("training", BLUE, "-"), "val/loss": ("validation", ORANGE, "--")}
    names = [key.removeprefix("train/loss/") for key in (log[0] if log else {}) if key.startswith("train/loss/")]
    for number, name in enumerate(names, start=2):  # the first two colours are taken
        curves[f"train/loss/{name}"] = (f"{name}, training", f"C{number}", "-")
        curves[f"val/loss/{name}"] = (f"{name}, validation", f"C{number}", "--")
    return curves


def _draw_aucs(axes: Axes, log: Sequence[Mapping[str, float]], best: Mapping[str, float] | None) -> None:
    _draw(
        axes,
        log,
        {"val/raw/macro_auc": ("raw weights", BLUE, ":"), "val/macro_auc": ("EMA weights", ORANGE, "--")},
        "macro ROC AUC of the validation fold",
    )
    if best is None:
        return
    axes.plot([best["epoch"]], [best["val/macro_auc"]], "o", color=ORANGE)
    axes.set_ylim(top=min(axes.get_ylim()[1], 1.005))
    axes.set_title(f"{best['val/macro_auc']:.3f} in epoch {best['epoch']}", size=11)


def _draw(axes: Axes, log: Sequence[Mapping[str, float]], curves: Mapping[str, tuple[str, str, str]], y: str) -> None:
    """Draw those of the curves that the log has over the epochs; where there are several, with a legend below."""
    epochs = [entry["epoch"] for entry in log]
    drawn = {key: style for key, style in curves.items() if log and all(key in entry for entry in log)}
    for key, (name, colour, line) in drawn.items():
        axes.plot(epochs, [entry[key] for entry in log], line, label=name, color=colour, marker=".")
    if len(drawn) > 1:
        # Below the axis label, by letters: by shares of the axes, the layout would not settle.
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=4.5, ncols=2, fontsize=8, edgecolor="none"
        )
    axes.set_xlabel("epoch")
    axes.set_ylabel(y)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
