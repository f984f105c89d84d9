"""Checks of what the types of the settings leave open; each raises a ValueError in words for a user."""

import difflib
import math
import re
from collections.abc import Collection, Iterable, Mapping

from pydantic_core import PydanticSerializationError, to_json

from catheters.config.rules import RuleMistake
from catheters.errors import unknown_name
from catheters.io.near_misses import number_in
from catheters.labels import LabelValue, tip_name
from catheters.measurement_rules import Rule
from catheters.measurements import MeasurementDefinition

USUAL_DICOM_IDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "AccessionNumber", "StudyID", "PatientID")
"""What is named to somebody whose DICOM keyword is far from all that there are, which are thousands."""


LABELS_TERM = "labels"
"""Term of the loss, and its name in the log: all labels that are in no exclusive group."""
LINES_TERM, TIPS_TERM, LANDMARKS_TERM, POSITIONS_TERM, GLOBAL_TERM = LINE_TERMS = (
    "lines",
    "tips",
    "landmarks",
    "positions",
    "global",
)
"""Those of a line decoder: masks, tips and landmarks; the labels that a pooled head gives to tips, and those of the
model's other head, which then trains the backbone alone."""

TABLE_WEIGHT = "weight"
"""Of a further label table: by how much the loss of its images is multiplied."""
SHARES_IDS = "shares_ids"
"""Whether its ids of patients and images mean the same as in other tables."""
OF_EXTRA_TABLES = (TABLE_WEIGHT, SHARES_IDS)
MAX_TABLE_WEIGHT = 1e6
LEARNT_LINES = ("auxiliary", "pooled")
"""Values of `lines` with which a run has a line decoder of its own."""


def check_column_names(uid_column: str, label_columns: tuple[str, ...], prediction_columns: tuple[str, ...]) -> None:
    """Labels are named once, and neither they nor the id like another column of `predictions.csv`."""
    if len(set(label_columns)) < len(label_columns):
        raise ValueError("label_columns names a label twice")
    taken = {uid_column, *prediction_columns}.intersection(label_columns)
    if taken or uid_column in prediction_columns:
        name = taken.pop() if taken else uid_column
        raise ValueError(
            f"'{name}' is a column of its own in predictions.csv (the id, {' and '.join(prediction_columns)}); "
            "name the label or id column otherwise in the table"
        )


def check_label_names(setting: str, labels: Iterable[str], label_columns: tuple[str, ...]) -> None:
    """The labels that a setting names are among those to learn."""
    for label in labels:
        if label not in label_columns:
            raise ValueError(f"{setting}: {unknown_name(label, 'one of label_columns', label_columns)}")


def check_heads(heads: Mapping[str, tuple[str, ...]], label_columns: tuple[str, ...]) -> None:
    """Together, the heads have every label once."""
    in_heads = [label for labels in heads.values() for label in labels]
    check_label_names("heads", in_heads, label_columns)
    if heads and sorted(in_heads) != sorted(label_columns):
        wrong = next(label for label in label_columns if in_heads.count(label) != 1)
        raise ValueError(f"heads: '{wrong}' stands in {in_heads.count(wrong)} of them; every label has one head")


def check_exclusive(exclusive: Mapping[str, tuple[str, ...]], label_columns: tuple[str, ...]) -> None:
    """Groups of labels that exist, none of them in two groups."""
    group_of: dict[str, str] = {}
    for name, labels in exclusive.items():
        if not name or name in (LABELS_TERM, *LINE_TERMS):
            raise ValueError(f"exclusive: {name!r} is no name for a group; other terms of the loss have such names")
        check_label_names(f"exclusive['{name}']", labels, label_columns)
        for label in labels:
            if label in group_of:
                other = "twice" if group_of[label] == name else f"in '{group_of[label]}' and in '{name}'"
                raise ValueError(f"exclusive: '{label}' stands {other}; a label has one group at most")
            group_of[label] = name


def check_lines(
    lines: str | None,
    annotation_table: str | None,
    first_stage: str | None,
    device_types: Mapping[str, tuple[str, ...]],
) -> None:
    """Lines are learnt from drawings, or by another run, one map per device type."""
    if first_stage is not None and lines != "input":
        raise ValueError(f"first_stage='{first_stage}' is for lines='input'; set that, or leave it out")
    if lines is None:
        return
    if lines == "input":
        if first_stage is None:
            raise ValueError("lines='input' needs first_stage, the run folder of a run that finds lines")
    elif annotation_table is None:
        raise ValueError(
            f"lines='{lines}' needs annotation_table, a CSV of drawn lines, as train_annotations.csv; without one set "
            "lines=None, which learns from labels alone"
        )
    if not device_types:
        raise ValueError(
            f"lines='{lines}' needs heads={{device type: its labels}}, one map for each; lines=None learns from labels "
            "alone"
        )


def check_measurements(
    measurements: Mapping[str, tuple[str, str, str]],
    device_types: Iterable[str],
    lines: str | None,
    landmark_table: str | None,
) -> None:
    """Measurements go from and to tips and landmarks, which a line decoder has to find."""
    if not measurements:
        return
    if lines is None:
        raise ValueError(
            "measurements: tips and landmarks are found by a line decoder; set lines='pooled' or 'auxiliary'"
        )
    tips = {tip_name(device_type) for device_type in device_types}
    for name, (start, end, kind) in measurements.items():
        try:
            MeasurementDefinition(start, end, kind)
        except ValueError as error:
            raise ValueError(f"measurements['{name}']: {error}") from None
        for point in (start, end):
            # A first stage knows its own landmarks, and is asked for them when the run starts.
            if point not in tips and landmark_table is None and lines != "input":
                others = sorted(tips)
                raise ValueError(
                    f"measurements['{name}']: {unknown_name(point, 'a tip', others)}; a landmark needs landmark_table"
                )


def check_rules(
    rules: Mapping[str, Rule],
    measurements: Mapping[str, tuple[str, str, str]],
    label_columns: tuple[str, ...],
    device_types: Mapping[str, tuple[str, ...]],
) -> None:
    """Rules are of measurements that are taken, have a label for every length, and labels that there are.

    These are of the device type whose tip is measured; a length between two landmarks may give any label.
    """
    for name, rule in rules.items():
        if not measurements:
            reason = f"measurements is empty, so there is no '{name}'; set both, or leave both out"
            raise RuleMistake(name, reason, is_named=False)
        if name not in measurements:
            raise RuleMistake(name, unknown_name(name, "one of measurements", measurements), is_named=False)
        for _, _, label in rule.bands:
            if label not in label_columns:
                raise RuleMistake(name, unknown_name(label, "one of label_columns", label_columns))
        _check_labels_of_tips(name, rule, measurements[name], device_types)
        kind = measurements[name][2]
        if rule.begin > (0 if kind == "distance" else -math.inf):
            least = "0" if kind == "distance" else "-inf"
            raise RuleMistake(name, f"no band holds what is below {rule.begin:g}; begin at {least}")
        if rule.end < math.inf:
            raise RuleMistake(name, f"no band holds {rule.end:g} and what is above; end at inf")


def _check_labels_of_tips(
    name: str, rule: Rule, measurement: tuple[str, str, str], device_types: Mapping[str, tuple[str, ...]]
) -> None:
    start, end, _ = measurement
    measured = [device_type for device_type in device_types if tip_name(device_type) in (start, end)]
    if not measured:
        return
    for _, _, label in rule.bands:
        of_label = next((device_type for device_type, labels in device_types.items() if label in labels), None)
        if of_label is not None and of_label not in measured:
            raise RuleMistake(
                name,
                f"'{label}' is a label of {of_label}, but '{start}' to '{end}' is measured; a label of "
                f"{' or '.join(measured)} is expected",
            )


def check_loss_weights(
    weights: Mapping[str, float],
    label_columns: tuple[str, ...],
    exclusive: Mapping[str, tuple[str, ...]],
    lines: str | None,
    landmarks: tuple[str, ...],
) -> None:
    """Weights of terms that the loss has."""
    in_groups = {label for labels in exclusive.values() for label in labels}
    terms = ([LABELS_TERM] if set(label_columns) - in_groups else []) + list(exclusive)
    terms += [LINES_TERM, TIPS_TERM] if lines in LEARNT_LINES else []
    terms += [POSITIONS_TERM, GLOBAL_TERM] if lines == "pooled" else []
    terms += [LANDMARKS_TERM] if lines in LEARNT_LINES and landmarks else []
    for name in weights:
        if name not in terms:
            raise ValueError(f"loss_weights: {unknown_name(name, 'a term of the loss', terms)}")


def check_named_once(setting: str, what: str, numbers: tuple[int, ...] | None) -> None:
    """No fold or seed is named twice."""
    if numbers is not None and len(set(numbers)) < len(numbers):
        raise ValueError(f"{setting}={list(numbers)} names a {what} twice")


def check_fold_numbers(folds: tuple[int, ...] | None, num_folds: int) -> None:
    """The folds to train are among those that there are."""
    if folds is not None and max(folds) >= num_folds:
        raise ValueError(f"folds={list(folds)}: num_folds={num_folds}, so at most {num_folds - 1}")


def check_all_data(all_data: bool, seeds: tuple[int, ...] | None, schedule: str) -> None:
    """Several seeds are for models of all data, which have no validation for a schedule to follow."""
    if seeds is not None and not all_data:
        raise ValueError(f"seeds={list(seeds)} needs all_data=True; folds are trained with the one seed")
    if all_data and schedule == "plateau":
        raise ValueError("schedule='plateau' follows the validation's macro AUC, and all_data=True has none")


def check_epochs(
    schedule: str, epochs: int | None, warmup_epochs: int, cosine_epochs: int, warmup_multiplier: float
) -> None:
    """The schedule has a length, and is as long as the run."""
    schedule_epochs = warmup_epochs + cosine_epochs
    if schedule == "cosine":
        if schedule_epochs == 0:
            raise ValueError("warmup_epochs and cosine_epochs are both 0: nothing to train")
        if epochs is not None and epochs > schedule_epochs:
            raise ValueError(
                f"epochs={epochs}, but the schedule ends after warmup_epochs + cosine_epochs = {schedule_epochs}; "
                "raise cosine_epochs"
            )
    elif epochs is None:
        raise ValueError(f"schedule='{schedule}' needs epochs, the length of the run")
    elif schedule == "one_cycle" and not 0 < warmup_epochs < epochs:
        raise ValueError(f"one_cycle goes up in warmup_epochs={warmup_epochs} and down until epochs={epochs}")
    elif schedule == "one_cycle" and warmup_multiplier == 1:
        raise ValueError("one_cycle goes up to warmup_multiplier times init_lr; set it above 1")


def check_patient_pattern(pattern: str | None) -> None:
    """The pattern is a regular expression with one group."""
    if pattern is None:
        return
    try:
        num_groups = re.compile(pattern).groups
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"patient_pattern='{pattern}': no regular expression ({error})") from None
    if num_groups != 1:
        raise ValueError(
            f"patient_pattern='{pattern}': has {num_groups} groups; one, around the patient, is expected, as in "
            r"/patient(\d+)/ ((?:...) groups without counting)"
        )


def check_label_values(label_values: Mapping[str, LabelValue]) -> None:
    """No value means two things; numbers are the same however they are written."""
    meanings: dict[str | float, LabelValue] = {0.0: 0, 1.0: 1}
    for value, label in label_values.items():
        number = number_in(value)
        known = meanings.setdefault(value.strip() if number is None else number, label)
        if known != label:
            raise ValueError(f"label_values={dict(label_values)}: {value!r} means {known} already")


def check_soft_labels(threshold: float | None, exclusive: Mapping[str, object]) -> None:
    """Of shares that sum to 1 only one may be above it."""
    if exclusive and threshold is not None and threshold <= 0.5:
        raise ValueError(
            f"soft_label_threshold={threshold:g}: two labels of a group in exclusive could reach it; more than 0.5 is "
            "expected beside exclusive"
        )


def check_extra_table(
    table: Mapping[str, object], number: int, settings: Collection[str], taken: Collection[object]
) -> None:
    """A further label table has a cache of its own, and names nothing but settings that it may have.

    Args:
        table: what the config says of it.
        number: its position in `extra_tables`.
        settings: names of those that it may have.
        taken: names of caches that others have.
    """
    where = f"extra_tables[{number}]"
    for name in table:
        if name not in settings:
            raise ValueError(f"{where}: {unknown_name(name, 'a setting of a further label table', settings)}")
    for name, example in (("cache_name", "nih"), ("dataset_folder", "dataset/nih")):
        if name not in table:
            raise ValueError(f"{where}: needs {name}, as in {{'{name}': '{example}'}}")
    if table["cache_name"] in taken:
        raise ValueError(f"{where}: cache_name='{table['cache_name']}' is another table's; each has a cache of its own")
    weight = table.get(TABLE_WEIGHT, 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= MAX_TABLE_WEIGHT:
        raise ValueError(
            f"{where}: {TABLE_WEIGHT}: {weight!r} came, a number above 0 and at most {MAX_TABLE_WEIGHT:g} is expected"
        )
    if not isinstance(table.get(SHARES_IDS, True), bool):
        raise ValueError(f"{where}: {SHARES_IDS}: {table[SHARES_IDS]!r} came, True or False is expected")


def check_stage(stage: Mapping[str, object], number: int, settings: Collection[str], fixed: Collection[str]) -> None:
    """A stage names settings that may differ from one to the next.

    Args:
        stage: what the config says of it.
        number: its position in `stages`.
        settings: names of all settings.
        fixed: those that all stages share.
    """
    for name in stage:
        if name in fixed:
            raise ValueError(f"stages[{number}]: {name} is the same in all stages; set it outside of them")
        if name not in settings:
            raise ValueError(f"stages[{number}]: {unknown_name(name, 'a setting', settings)}")


def check_dicom_id(keyword: str | None) -> None:
    """The keyword stands in DICOM's data dictionary."""
    if keyword is None:
        return
    # Slow to import, and only those with a DICOM archive need it.
    from pydicom.datadict import keyword_dict

    if not keyword or keyword not in keyword_dict:
        near = difflib.get_close_matches(keyword, keyword_dict, n=1)
        raise ValueError(f"dicom_id: {unknown_name(keyword, 'a DICOM keyword', near or USUAL_DICOM_IDS)}")


def check_plain(setting: str, value: object) -> None:
    """The value can be kept as JSON."""
    try:
        to_json(value)
    except PydanticSerializationError as error:
        raise ValueError(f"{setting}: {error}; plain Python numbers, texts and lists are expected") from None
