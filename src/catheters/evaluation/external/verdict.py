"""What an external validation says, in plain words: a sentence on the whole, one on each label."""

import math

from catheters.errors import counted, listed
from catheters.evaluation.external.measures import LabelResult
from catheters.evaluation.external.validation import ExternalValidation
from catheters.evaluation.intervals import Estimate

FEW = 10
"""Patients with a label, or without it, below which little can be said."""
CHANGES = {
    "roc_auc": ("tells positives from negatives worse", "tells positives from negatives better", "AUC"),
    "sensitivity": ("finds fewer of the positives", "finds more of the positives", "sensitivity"),
    "specificity": ("gives more false alarms", "gives fewer false alarms", "specificity"),
    "observed_to_expected": (
        "finds fewer positives for each that it expects",
        "finds more positives for each that it expects",
        "observed / expected",
    ),
    "slope": ("gives more extreme probabilities", "gives more timid probabilities", "calibration slope"),
}
"""Checked measure -> what the model does where it is lower, or higher, than out of fold; what it is called."""
THRESHOLDED = ("sensitivity", "specificity")
"""What hangs on where a threshold lies: the mean of several models is less sure, so that it has other rates there."""
FAULTS = {
    "observed_to_expected": ("too high on average", "too low on average", "observed / expected"),
    "slope": ("too extreme", "too timid", "calibration slope"),
}
"""Measure that should be 1 -> what its probabilities are where it is below, or above; what it is called."""


def summarise(validation: ExternalValidation) -> str:
    """The first sentences of the page and the last of the command."""
    compared, differing = validation.compared, validation.with_alarm
    sentences = [
        f"On {counted(validation.num_images, 'image')} of {counted(validation.num_patients, 'patient')} from elsewhere "
        f"{_macro(validation)}."
    ]
    if not compared:
        sentences.append("No label could be compared with the run's own numbers.")
    elif differing:
        names = listed([result.label for result in differing])
        of_labels = f"Of {len(compared)} compared labels" if len(compared) > 1 else "Of the one compared label"
        number = f"{len(differing)} {_verb(len(differing))}" if len(compared) > 1 else "something differs"
        sentences.append(f"{of_labels}, {number} by more than chance: {names}.")
    elif len(compared) == 1:
        sentences.append("The one compared label is not shown to differ from the run's own numbers.")
    else:
        sentences.append(f"None of {len(compared)} compared labels is shown to differ from the run's own numbers.")
    partly = [result.label for result in compared if set(result.not_compared) & set(result.checked)]
    not_at_all = [result.label for result in validation.judged if not result.is_compared]
    not_judged = [result.label for result in validation.results if not result.is_judged]
    for what, labels in {"Compared in part": partly, "Not compared": not_at_all, "Not judged": not_judged}.items():
        if labels:
            sentences.append(f"{what}: {listed(labels)}.")
    return " ".join(sentences)


def headline(validation: ExternalValidation) -> str:
    """A few words for the page's first fact."""
    num_compared, num_differing = len(validation.compared), len(validation.with_alarm)
    if not num_compared:
        return "nothing could be compared"
    if num_differing:
        return f"{num_differing} of {counted(num_compared, 'compared label')} {_verb(num_differing)}"
    return f"{counted(num_compared, 'label')} compared, no difference shown"


def judge(result: LabelResult) -> str:
    """One label in words."""
    if not result.is_told:
        return "Not validated: the table does not tell this label."
    if not result.is_judged:
        which = "none" if not result.num_positives else "every one"
        return f"Cannot be judged: {which} of {counted(result.num_known, 'image')} has it."
    sentences = []
    if not result.is_compared:
        sentences.append(f"Not compared: {_why_not_compared(result)}.")
    elif result.alarms:
        sentences.append(f"Differs: {'; '.join(_describe(result, name) for name in result.alarms)}.")
        if result.not_compared:
            sentences.append(f"Not compared are {_why_not_compared(result)}.")
    else:
        if result.not_compared:
            sentences.append(f"Not shown to differ: not compared are {_why_not_compared(result)}.")
        else:
            sentences.append("Holds: no checked number differs by more than chance.")
        low = result.differences["roc_auc"].low
        if low < 0:  # never with NaN
            sentences.append(f"An AUC lower by {-low:.3f} is not ruled out.")
    other = [_as_shipped(result, name) for name in THRESHOLDED if _is_other_as_shipped(result, name)]
    if other:
        sentences.append(f"The models together, as they are shipped, have another {' and '.join(other)}.")
    off = [_miscalibrated(result, name) for name in result.miscalibrated if name not in result.alarms]
    if off:
        sentences.append(f"Its probabilities are {' and '.join(off)}.")
    fewest = min(result.num_positive_patients, result.num_negative_patients)
    if fewest < FEW:
        which = "with" if result.num_positive_patients == fewest else "without"
        sentences.append(f"Only {counted(fewest, 'patient')} {which} it: little can be said.")
    return " ".join(sentences)


def advise(result: LabelResult) -> str:
    """The steps of a study that these numbers ask for."""
    if not result.is_judged:
        return "before any use: validate it on images that tell it"
    if "roc_auc" in result.alarms and result.differences["roc_auc"].value < 0:
        return "before any use: find out why, and validate again"
    steps = []
    if {"observed_to_expected", "slope"} & {*result.alarms, *result.miscalibrated}:
        steps.append("recalibrate on local patients")
    if {"sensitivity", "specificity"} & set(result.alarms):
        steps.append("choose a local threshold")
    if steps:
        return f"before any use: {' and '.join(steps)}, and validate that on others"
    is_few = min(result.num_positive_patients, result.num_negative_patients) < FEW
    if is_few or not result.alike["roc_auc"].has_interval:
        return "before any use: validate it on more patients"
    if not result.own["roc_auc"].has_interval:
        return "before any use: compare it with numbers of the run's own"
    return "no step follows from these numbers"


def _macro(validation: ExternalValidation) -> str:
    """The model as it is shipped; what is like the run's own beside that."""

    def told(area: Estimate) -> str:
        return f"{area.value:.3f}" + (f" ({area.low:.3f} to {area.high:.3f})" if area.has_interval else "")

    own, shipped = validation.own_macro_auc, f"the macro ROC AUC is {told(validation.macro_auc)}"
    if validation.own.num_models == 1:
        return shipped + (f", against {told(own)} out of fold" if own.is_defined else "")
    shipped += f" with {validation.own.num_models} models together"
    if not own.is_defined:
        return shipped
    if validation.is_model_by_model:
        return f"{shipped}; model by model it is {told(validation.alike_macro_auc)}, against {told(own)} out of fold"
    return f"{shipped}; out of fold, with one model for each image, it was {told(own)}"


def _verb(number: int) -> str:
    return "differs" if number == 1 else "differ"


def _why_not_compared(result: LabelResult) -> str:
    """`AUC and slope (why)`; the reason alone where nothing is compared for one reason."""
    names_of: dict[str, list[str]] = {}
    for name in result.not_compared:
        names_of.setdefault(_reason(result, name), []).append(CHANGES[name][2])
    if not result.is_compared and len(names_of) == 1:
        return next(iter(names_of))
    return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in names_of.items())


def _reason(result: LabelResult, name: str) -> str:
    if name not in result.checked:
        return "the models' single predictions are not known"
    has_here, has_own = result.alike[name].has_interval, result.own[name].has_interval
    if has_here and not has_own:
        is_defined = result.own[name].is_defined
        return "the run's own has no interval" if is_defined else "the run has no numbers of its own for it"
    return "there is no interval here" if has_own else "there is no interval, neither here nor of the run's own"


def _describe(result: LabelResult, name: str) -> str:
    lower, higher, called = CHANGES[name]
    difference = result.differences[name]
    what = lower if difference.value < 0 else higher
    return f"{what} ({called} {result.alike[name].value:.2f}, own {result.own[name].value:.2f})"


def _is_other_as_shipped(result: LabelResult, name: str) -> bool:
    """Whether what the shipped model has lies outside the interval of what was compared; never with NaN."""
    compared = result.alike[name]
    return not compared.low <= result.here[name].value <= compared.high if compared.has_interval else False


def _as_shipped(result: LabelResult, name: str) -> str:
    return f"{name} ({result.here[name].value:.2f} in place of {result.alike[name].value:.2f})"


def _miscalibrated(result: LabelResult, name: str) -> str:
    lower, higher, called = FAULTS[name]
    found = result.here[name]
    interval = "" if math.isnan(found.low) else f", {found.low:.2f} to {found.high:.2f}"
    return f"{lower if found.value < 1 else higher} ({called} {found.value:.2f}{interval})"
