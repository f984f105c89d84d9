"""An external validation as text, for a terminal."""

from collections.abc import Sequence

from catheters.errors import listed
from catheters.evaluation.external.measures import MEASURES, LabelResult
from catheters.evaluation.external.sample_size import SampleSize
from catheters.evaluation.external.validation import ExternalValidation
from catheters.evaluation.external.verdict import judge
from catheters.evaluation.report.tables import text_table, with_interval

SHOWN = ("roc_auc", "sensitivity", "specificity", "observed_to_expected", "slope")


def measures_table(validation: ExternalValidation, measure: str) -> str:
    """One row per label: as it is shipped, like the run's own, own, difference; a star where it is more than chance."""
    rows = [
        [
            result.label,
            f"{result.num_positive_patients}",
            with_interval(result.here[measure]),
            with_interval(result.alike[measure]),
            with_interval(result.own[measure]),
            with_interval(result.differences[measure]) + (" *" if measure in result.alarms else "  "),
        ]
        for result in validation.judged
    ]
    return text_table([MEASURES[measure], "patients with it", "here", validation.alike_name, "own", "difference"], rows)


def verdicts(results: Sequence[LabelResult]) -> str:
    """A line per label."""
    width = max(len(result.label) for result in results)
    return "\n".join(f"{result.label.ljust(width)}  {judge(result)}" for result in results)


def sizes_table(sizes: Sequence[SampleSize]) -> str:
    """One row per label: the patients that the widths need."""
    measures = list(dict.fromkeys(size.measure for size in sizes))
    widths = {size.measure: size.width for size in sizes}
    patients = {(size.label, size.measure): size.patients for size in sizes}
    labels = list(dict.fromkeys(size.label for size in sizes))
    header = [f"{MEASURES[measure]}, {widths[measure]:g} wide" for measure in measures]
    rows = [[label, *(_count(patients[label, measure]) for measure in measures)] for label in labels]
    return text_table(["patients for", *header], rows)


def describe_shift(validation: ExternalValidation) -> str:
    """How far the images lie, and which columns differ most."""
    lines = []
    if validation.features is not None:
        far = with_interval(validation.features.far)
        lines.append(f"{far} of the images are farther than 99% of ordinary ones in the models' features")
    large = [shift for shift in validation.columns if shift.is_large]
    for shift in large:
        value = "" if shift.value is None else f" {shift.value}"
        lines.append(f"{shift.column}{value}: {shift.here:.3g} here, {shift.own:.3g} in the run's own")
    if validation.columns_passed_over:
        lines.append(f"columns with too many values to be compared: {listed(validation.columns_passed_over)}")
    return "\n".join(lines)


def _count(value: float) -> str:
    return "-" if value != value else f"{value:,.0f}"
