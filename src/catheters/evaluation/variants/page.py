"""`comparison.html`: a comparison of variants for people, one file without anything from elsewhere."""

from pathlib import Path

from catheters.evaluation.report.report import page_environment
from catheters.evaluation.variants.comparison import VariantComparison
from catheters.evaluation.variants.figures import draw_curves, draw_labels, draw_macro, draw_seeds
from catheters.evaluation.variants.tables import describe_interval, mean_auc, memory_text, p_text
from catheters.io.files import write_text


def write_page(file: Path, comparison: VariantComparison) -> None:
    """Write the page; it is whole or absent."""
    figures = [draw_labels(comparison, number) for number in range(1, len(comparison.results))]
    page = (
        page_environment()
        .get_template("comparison.html.jinja")
        .render(
            comparison=comparison,
            interval_words=describe_interval(comparison),
            failures=[failure for result in comparison.results for failure in result.given.failures],
            macro_figure=draw_macro(comparison),
            label_figures=[figure for figure in figures if figure is not None],
            seeds_figure=draw_seeds(comparison),
            curves_figure=draw_curves(comparison),
            mean_auc=mean_auc,
            memory_text=memory_text,
            p_text=p_text,
        )
    )
    write_text(file, page)
