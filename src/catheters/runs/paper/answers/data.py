"""What a run says of its images, patients, labels and folds."""

from collections.abc import Mapping
from pathlib import Path

from catheters.config.settings import Settings
from catheters.errors import counted, listed
from catheters.evaluation.caveats import LEAKS
from catheters.evaluation.report.tables import with_interval
from catheters.runs.paper.checklist import Answer
from catheters.runs.paper.facts import Facts

ACQUISITION_ROWS = ("view", "projection", "manufacturer", "modelname", "scanner", "pixel spacing")
"""Beginnings of the rows of Table 1 that say how images were taken, in small letters."""


def data_sources(facts: Facts) -> Answer:
    """Which tables the images come from, and how many there are."""
    flow = facts.flow
    text = f"The label table is {Path(flow.table).name}, with {flow.in_table}; {flow.evaluated} are evaluated."
    kind = facts.background.image_kind
    if kind != "real":
        text += f" The X-rays are {kind}: made by a program."
    settings = facts.settings
    if settings is not None and settings.extra_tables:
        folders = listed(table.get("dataset_folder", table["cache_name"]) for table in settings.extra_tables)
        text += f" Further tables are trained on and never evaluated: {folders}."
    return Answer(text=text, source="flow.csv")


def eligibility(facts: Facts) -> Answer:
    """What the settings and the files leave out."""
    settings = facts.settings
    rules = []
    if settings is not None and settings.keep_rows:
        kept = "; ".join(
            f"{column} is {values if isinstance(values, str) else ' or '.join(values)}"
            for column, values in settings.keep_rows.items()
        )
        rules.append(f"rows are kept where {kept}")
    if settings is not None and settings.exclude_ids is not None:
        rules.append(f"images listed in {Path(settings.exclude_ids).name} are left out")
    if settings is not None and settings.inverted == "exclude":
        rules.append("images in inverted grayscale are left out")
    rule = f"{'; '.join(rules)}. " if rules else "No rule of the settings leaves an image out. "
    return Answer(text=f"{rule[0].upper()}{rule[1:]}{_left_out(facts)}", source="settings.json, flow.csv")


def _left_out(facts: Facts) -> str:
    counts = {**facts.flow.left_out_of_study, **facts.flow.left_out}
    if not counts:
        return "Every image of the label table is evaluated."
    return f"Not evaluated: {'; '.join(f'{why} ({count})' for why, count in counts.items())}."


def flow_numbers(facts: Facts) -> Answer:
    """The flow diagram in a sentence."""
    flow = facts.flow
    text = f"Label table: {flow.in_table}. {_left_out(facts)} Evaluated: {flow.evaluated}. flow.svg is the diagram."
    return Answer(text=text, source="flow.csv, left_out.csv")


def subsets(facts: Facts) -> Answer | None:
    """Whether only a part of the images was taken."""
    settings = facts.settings
    if settings is None:
        return None
    parts = []
    if settings.debug:
        parts.append(f"This is a debug run, on {settings.debug_fraction:.0%} of the patients of each fold.")
    if set(settings.folds_to_train) != set(range(settings.num_folds)):
        parts.append(f"Of {settings.num_folds} folds, {listed(settings.folds_to_train)} were trained.")
    if settings.keep_rows:
        parts.append(f"keep_rows selects rows by {listed(settings.keep_rows)}.")
    text = " ".join(parts) or "No subset was selected: all images that could be read are used."
    return Answer(text=f"{text} {_left_out(facts)}", source="settings.json, flow.csv")


def missing_data(facts: Facts) -> Answer:
    """Unknown labels and images without a prediction."""
    scores = facts.evaluation.scores
    unknown = {label: scores.num_images - known for label, known in zip(scores.labels, scores.num_known, strict=True)}
    found = {label: number for label, number in unknown.items() if number}
    text = "Every label of every evaluated image is known."
    if found:
        numbers = "; ".join(f"{label} {number:,}" for label, number in found.items())
        text = f"A label that is unknown counts in no threshold and no score. Unknown: {numbers}."
        if facts.flow.without_labels:
            text += f" Of {counted(facts.flow.without_labels, 'evaluated image')} no label is known."
    text += f" {_left_out(facts)}"
    settings = facts.settings
    if settings is None:
        return Answer(text=text, source="metrics.json, flow.csv")
    return Answer(text=f"{text} {_unknown_in_training(settings)}", source="metrics.json, flow.csv, settings.json")


def _unknown_in_training(settings: Settings) -> str:
    """What becomes of an unknown label in the loss."""
    if settings.teacher is not None:
        where = ""
        if settings.pseudo_labels == "confident":
            where = f", where a probability or its opposite is {settings.pseudo_label_confidence:g} or more"
        return (
            "For training, unknown labels were filled in by out-of-fold predictions of the teacher "
            f"{settings.teacher} ({settings.pseudo_labels} pseudo-labels{where})."
        )
    text = "In training, an unknown label does not count in the loss"
    if settings.soft_labels and settings.soft_label_threshold is None:
        text += "; a share between 0 and 1, which scores take for unknown, does"
    return f"{text}. Nothing is imputed."


def reference_standard(facts: Facts) -> Answer:
    """Which labels there are, and how cells of the table become them."""
    settings, labels = facts.settings, facts.evaluation.evaluated.labels
    text = f"{counted(len(labels), 'label')}, 0, 1 or unknown for an image: {', '.join(labels)}."
    if settings is None:
        return Answer(text=f"{text} They are columns of {Path(facts.flow.table).name}.", source="metrics.json")
    if settings.findings_column is not None:
        text += f" They are read from the list of findings in column {settings.findings_column}."
    derived = [label for label in labels if label in settings.derived_labels]
    if derived:
        rules = "; ".join(f"{label} where {' is '.join(settings.derived_labels[label])}" for label in derived)
        text += f" Derived from other columns: {rules}."
    if settings.label_values:
        text += f" Further values mean: {_as_words(settings.label_values)}."
    if settings.label_corrections is not None:
        text += f" {Path(settings.label_corrections).name} corrects single labels."
    if settings.soft_labels:
        threshold = settings.soft_label_threshold
        text += " Shares between 0 and 1 are learnt as they are"
        text += "." if threshold is None else f", and count as positive from {threshold:g} on."
    if settings.exclusive:
        text += f" Labels that exclude each other: {'; '.join(map(' / '.join, settings.exclusive.values()))}."
    return Answer(text=text, source="settings.json")


def _as_words(values: Mapping[str, object]) -> str:
    return ", ".join(f"{value!r} is {meaning}" for value, meaning in values.items())


def partitions(facts: Facts) -> Answer | None:
    """How images were assigned to folds."""
    settings = facts.settings
    if settings is None:
        return None
    if settings.fold_column is not None:
        how = f"as column {settings.fold_column} of the label table says"
    else:
        how = f"whole patients at a time, balanced in every label, by seed {settings.seed_of_folds}"
    folds = "; ".join(
        f"fold {fold.fold}, {fold.validation} to validate"
        + ("" if fold.training is None else f" and {fold.training} to train")
        for fold in facts.flow.folds
    )
    is_whole = len(facts.flow.folds) == settings.num_folds
    text = f"Images were assigned to {settings.num_folds} folds{' for cross-validation' if is_whole else ''}, {how}: "
    text += f"{folds}." if is_whole else f"{folds}. The other folds are not evaluated."
    return Answer(text=text, source="settings.json, flow.csv")


def held_out(facts: Facts, num_folds: int) -> str:
    """On what part of a run's images it is evaluated: those of its finished folds, of `num_folds` that there are."""
    num_finished = len(facts.flow.folds)
    if num_finished == num_folds:
        return f"by {num_folds}-fold cross-validation"
    if num_finished == 1:
        return f"on one fold of {num_folds} that was held out"
    return f"on {num_finished} folds of {num_folds}, each held out from a model of its own"


def leaks_between_folds(facts: Facts) -> str:
    """Why models may have seen what they are judged on; empty where nothing says so."""
    return "; ".join(caveat.text for caveat in facts.evaluation.caveats if caveat.kind in LEAKS)


def disjoint_level(facts: Facts) -> Answer | None:
    """That no patient is in two folds, or that some are."""
    settings = facts.settings
    if settings is None:
        return None
    leaks = leaks_between_folds(facts)
    if leaks:
        return Answer(text=f"The folds leak: {leaks}.", source="metrics.json (caveats)")
    text = (
        "The folds are disjoint by patient: no patient has images in two of them. Training also refuses folds that "
        "share an image with the same pixels under another id."
    )
    return Answer(text=text, source="predictions.csv, settings.json (allow_leaking_folds=False)")


def sample_size(facts: Facts) -> Answer:
    """How many images, patients and positives there are; not how that was decided."""
    scores = facts.evaluation.scores
    positives = "; ".join(
        f"{label} {scores.num_positives[k]:,} of {counted(scores.num_positive_patients[k], 'patient')}"
        for k, label in enumerate(scores.labels)
    )
    return Answer(text=f"{facts.flow.evaluated} are evaluated. Positive images: {positives}.", source="metrics.json")


def numbers_in_analyses(facts: Facts) -> Answer:
    """Images, patients and positives for training and evaluation."""
    size, split = sample_size(facts), partitions(facts)
    if split is None:
        return size
    return Answer(text=f"{size.text} {split.text}", source=f"{size.source}, {split.source}")


def characteristics(facts: Facts) -> Answer:
    """What Table 1 says."""
    rows = "; ".join(name for name, _ in facts.table_one.rows if not name.startswith("  "))
    splits = "; ".join(facts.table_one.splits)
    return Answer(text=f"Table 1 gives {rows}. For each of these: {splits}.", source="table1.csv, table1.svg")


def acquisition(facts: Facts) -> Answer | None:
    """What the label table and the spacing table say of how images were taken."""
    found = []
    rows = facts.table_one.rows
    for number, (name, cells) in enumerate(rows):
        if not name.lower().replace(" ", "").startswith(tuple(row.replace(" ", "") for row in ACQUISITION_ROWS)):
            continue
        if cells[0]:
            found.append(f"{name} {cells[0]}")
            continue
        values = []
        for below, of_below in rows[number + 1 :]:
            if not below.startswith("  "):
                break
            values.append(f"{below.strip()} {of_below[0]}")
        found.append(f"{name}: {', '.join(values)}")
    return Answer(text=f"{'; '.join(found)}.", source="table1.csv") if found else None


def reader_agreement(facts: Facts) -> Answer | None:
    """Kappa between readers, where the label table has them."""
    readers = facts.evaluation.readers
    if readers is None:
        return None
    kappas = [f"{of.label}, Fleiss' kappa of {of.num_readers} {with_interval(of.kappa)}" for of in readers.joint]
    joint = {of.label for of in readers.joint}
    kappas += [
        f"{of.label}, {of.judge} and {of.reference}, Cohen's kappa {with_interval(of.kappa)}"
        for of in readers.pairs
        if of.label not in joint
    ]
    pattern = facts.evaluation.choices.reader_columns
    text = (
        f"Of the readers in columns {pattern}, {counted(len(readers.readers), 'reader')} ({listed(readers.readers)}): "
        f"{'; '.join(kappas)}. Whether they made the label table is yours to say."
    )
    return Answer(text=text, source="metrics.json (readers)")


def quality_checks(facts: Facts) -> Answer | None:
    """Preprocessing's checks of each image."""
    settings = facts.settings
    if settings is None:
        return None
    text = (
        "Every image file is decoded whole and checked: files that are missing or cannot be read are left out, X-rays "
        f"in inverted grayscale are found by their pixels (setting inverted: {settings.inverted})."
    )
    return Answer(text=f"{text} {_left_out(facts)}", source="settings.json, flow.csv")
