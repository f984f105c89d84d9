"""What an external validation says, in plain words: a sentence on the whole, one on each label."""

import math

from catheters.errors import counted, listed
from catheters.evaluation.external.measures import LabelResult
from catheters.evaluation.external.validation import ExternalValidation

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
FAULTS = {
    "observed_to_expected": ("too high on average", "too low on average", "observed / expected"),
    "slope": ("too extreme", "too timid", "calibration slope"),
}
"""Measure that should be 1 -> what its probabilities are where it is below, or above; what it is called."""


def summarise(validation: ExternalValidation) -> str:
    """The first sentences of the page and the last of the command."""
    judged, differing = validation.judged, validation.with_alarm
    own = validation.own_macro_auc
    against = f", against {own.value:.3f} ({own.low:.3f} to {own.high:.3f}) out of fold" if own.is_defined else ""
    macro = validation.macro_auc
    interval = f" ({macro.low:.3f} to {macro.high:.3f})" if macro.has_interval else ""
    sentences = [
        f"On {counted(validation.num_images, 'image')} of {counted(validation.num_patients, 'patient')} from elsewhere "
        f"the macro ROC AUC is {macro.value:.3f}{interval}{against}."
    ]
    if differing:
        names = listed([result.label for result in differing])
        sentences.append(f"Of {counted(len(judged), 'label')}, {len(differing)} differ by more than chance: {names}.")
    else:
        of_labels = f"none of {len(judged)} labels" if len(judged) > 1 else "the one label"
        verb = "does any checked number differ" if len(judged) > 1 else "no checked number differs"
        sentences.append(f"In {of_labels} {verb} from the run's own by more than chance.")
    if len(judged) < len(validation.results):
        sentences.append(f"Not judged: {listed([of.label for of in validation.results if not of.is_judged])}.")
    return " ".join(sentences)


def headline(validation: ExternalValidation) -> str:
    """A few words for the page's first fact."""
    if validation.with_alarm:
        return f"{len(validation.with_alarm)} of {len(validation.judged)} labels differ"
    return "nothing differs by more than chance"


def judge(result: LabelResult) -> str:
    """One label in words."""
    if not result.is_told:
        return "Not validated: the table does not tell this label."
    if not result.is_judged:
        which = "none" if not result.num_positives else "every one"
        return f"Cannot be judged: {which} of {counted(result.num_known, 'image')} has it."
    sentences = []
    if all(math.isnan(p) for p in result.p_holm.values()):
        sentences.append("Not compared: the run has no numbers of its own for it.")
    elif result.alarms:
        sentences.append(f"Differs: {'; '.join(_describe(result, name) for name in result.alarms)}.")
    else:
        sentences.append("Holds: no checked number differs by more than chance.")
        low = result.differences["roc_auc"].low
        if low < 0:  # never with NaN
            sentences.append(f"An AUC lower by {-low:.3f} is not ruled out.")
    off = [_miscalibrated(result, name) for name in result.miscalibrated if name not in result.alarms]
    if off:
        sentences.append(f"Its probabilities are {' and '.join(off)}.")
    fewest = min(result.num_positive_patients, result.num_negative_patients)
    if fewest < FEW:
        which = "with" if result.num_positive_patients == fewest else "without"
        sentences.append(f"Only {counted(fewest, 'patient')} {which} it: little can be said.")
    return " ".join(sentences)


def advise(result: LabelResult) -> str:
    """What follows for who wants to use the label there; empty where nothing does."""
    if not result.is_judged:
        return "do not use it there before it is validated"
    if "roc_auc" in result.alarms and result.differences["roc_auc"].value < 0:
        return "find out why before it is used there"
    steps = []
    if {"observed_to_expected", "slope"} & {*result.alarms, *result.miscalibrated}:
        steps.append("recalibrate on local patients")
    if {"sensitivity", "specificity"} & set(result.alarms):
        steps.append("choose a local threshold")
    return " and ".join(steps)


def _describe(result: LabelResult, name: str) -> str:
    lower, higher, called = CHANGES[name]
    difference = result.differences[name]
    what = lower if difference.value < 0 else higher
    return f"{what} ({called} {result.alike[name].value:.2f}, own {result.own[name].value:.2f})"


def _miscalibrated(result: LabelResult, name: str) -> str:
    lower, higher, called = FAULTS[name]
    found = result.here[name]
    interval = "" if math.isnan(found.low) else f", {found.low:.2f} to {found.high:.2f}"
    return f"{lower if found.value < 1 else higher} ({called} {found.value:.2f}{interval})"
