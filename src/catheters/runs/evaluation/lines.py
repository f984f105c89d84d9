"""How well a run's lines and tips are found, as `evaluate.py` says."""

from catheters.data.line_targets import draw_line
from catheters.evaluation.lines.comparison import compare_lines
from catheters.evaluation.lines.evaluation import LineEvaluation
from catheters.evaluation.lines.measurements import compare_lengths, judge_rule
from catheters.evaluation.patients import Patients
from catheters.runs.evaluation.inputs import Input
from catheters.runs.evaluation.line_inputs import build_line_set
from catheters.runs.evaluation.measurement_inputs import build_length_sets


def evaluate_lines(given: Input) -> LineEvaluation | None:
    """Compare predicted lines with drawn ones; None where there are none."""
    if given.lines is None:
        return None
    evaluated = given.evaluated
    patients = Patients(evaluated.patient_ids)
    lines = build_line_set(given.lines, evaluated, given.heads)
    measurements = given.lines.measurements
    lengths = [] if measurements is None else build_length_sets(measurements, lines, evaluated.uids.tolist())
    rules = [judge_rule(of_name, evaluated, given.heads, patients) for of_name in lengths]
    return LineEvaluation(
        predictions=str(given.lines.file),
        annotations=str(given.lines.source),
        num_images=len(evaluated),
        per_device=compare_lines(lines, patients, draw_line),
        lengths=[compare_lengths(of_name, evaluated.patient_ids) for of_name in lengths],
        rules=[rule for rule in rules if rule is not None],
    )
