"""What the audit writes: `audit.csv`, one line per issue and image, and `audit.html`, a page to look at."""

import csv
import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt

from catheters.audit.examination import Examined
from catheters.audit.issues import KINDS, Issue, Severity
from catheters.data.tables.label_table import LabelTable
from catheters.io.files import printable, write_text

CSV_COLUMNS = ("severity", "kind", "group", "uid", "patient", "fold", "labels", "file", "issue")
MAX_SHOWN = 12
"""Issues of a kind that the page shows images of; `audit.csv` has all."""
MAX_IMAGES_OF_ISSUE = 4
"""Images of an issue that is about several images."""
NUM_SAMPLES = 12
"""Images that the page shows whatever was found."""
NUM_SIZES = 8
OF_PATIENTS = "Images per patient"
"""The title of the one distribution that counts patients; the others count images."""
VERDICTS: dict[Severity | None, str] = {
    "stop": "Do not train yet: scores would be wrong, or training refuses.",
    "look": "Look at what was found before you train.",
    "note": "Nothing stands against training.",
    None: "Nothing stands against training.",
}


@dataclass(frozen=True, kw_only=True)
class Audit:
    """An audited data set.

    Attributes:
        name: of the data set.
        table: N images.
        folds: (N,) the fold of each; None: a plain folder of files, without patients.
        examined: (N,) what each file says.
        issues: the worst first.
    """

    name: str
    table: LabelTable
    folds: npt.NDArray[np.int8] | None
    examined: list[Examined]
    issues: list[Issue]

    @property
    def worst(self) -> Severity | None:
        """The worst severity of all issues."""
        found = {KINDS[issue.kind].severity for issue in self.issues}
        order: tuple[Severity, ...] = ("stop", "look", "note")
        return next((severity for severity in order if severity in found), None)

    @property
    def verdict(self) -> str:
        """One sentence."""
        return VERDICTS[self.worst]

    def labels_of(self, row: int) -> str:
        """The positive labels of an image."""
        labels = self.table.labels[row]
        return ", ".join(label for label, value in zip(self.table.label_columns, labels, strict=True) if value == 1)


def summary_lines(audit: Audit) -> list[str]:
    """The verdict and how often each kind was found, for a terminal."""
    counts = Counter(issue.kind for issue in audit.issues)
    lines = [f"{KINDS[kind].severity:>6}  {count:>6}  {KINDS[kind].title}" for kind, count in counts.items()]
    return [*lines, audit.verdict]


def write_csv(audit: Audit, file: Path) -> None:
    """Write one line for each issue and image; issues about several images share a group's number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for group, issue in enumerate(audit.issues):
        severity = KINDS[issue.kind].severity
        for row in issue.rows:
            fold = "" if audit.folds is None else int(audit.folds[row])
            patient = "" if audit.folds is None else str(audit.table.patient_ids[row])
            about = (str(audit.table.uids[row]), patient, fold, audit.labels_of(row))
            writer.writerow((severity, issue.kind, group, *about, printable(audit.table.paths[row]), issue.text))
        if not issue.rows:
            path = "" if issue.file is None else printable(issue.file)
            writer.writerow((severity, issue.kind, group, "", "", "", "", path, issue.text))
    write_text(file, text.getvalue())


def write_page(audit: Audit, file: Path, make_thumbnails: Callable[[list[int]], dict[int, str]]) -> None:
    """Write the page: one file, without anything from elsewhere.

    Args:
        audit: what to show.
        file: the `.html` to write.
        make_thumbnails: rows -> each row's thumbnail as a data URL, empty where there is none.
    """
    shown = {kind: [f for f in audit.issues if f.kind == kind][:MAX_SHOWN] for kind in KINDS}
    samples = _sample_rows(audit)
    rows = {row for issues in shown.values() for issue in issues for row in issue.rows[:MAX_IMAGES_OF_ISSUE]}
    thumbnails = make_thumbnails(sorted(rows | set(samples)))
    counts = Counter(issue.kind for issue in audit.issues)

    def describe(row: int) -> dict[str, Any]:
        return {
            "uid": str(audit.table.uids[row]),
            "patient": "" if audit.folds is None else str(audit.table.patient_ids[row]),
            "fold": None if audit.folds is None else int(audit.folds[row]),
            "labels": audit.labels_of(row),
            "thumbnail": thumbnails[row],
        }

    sections = [
        {
            "kind": KINDS[kind],
            "anchor": kind.replace(",", "").replace(" ", "-"),
            "count": counts[kind],
            "issues": [
                {
                    "text": issue.text,
                    "file": "" if issue.file is None else printable(issue.file),
                    "images": [describe(row) for row in issue.rows[:MAX_IMAGES_OF_ISSUE]],
                    "num_more": len(issue.rows[MAX_IMAGES_OF_ISSUE:]),
                }
                for issue in issues
            ],
        }
        for kind, issues in shown.items()
        if issues
    ]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("catheters.audit", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("page.html.jinja").render(
        name=audit.name,
        verdict=audit.verdict,
        worst=audit.worst or "note",
        num_images=len(audit.table),
        num_patients=None if audit.folds is None else len(np.unique(audit.table.patient_ids)),
        num_readable=sum(file.reason is None for file in audit.examined),
        size=_size_in_words(sum(file.num_bytes for file in audit.examined)),
        sections=sections,
        samples=[describe(row) for row in samples],
        labels=_label_statistics(audit),
        fold_numbers=[] if audit.folds is None else sorted(set(audit.folds.tolist())),
        sizes=_size_statistics(audit),
        histograms=_histograms(audit),
    )
    write_text(file, page)


def _size_in_words(num_bytes: int) -> str:
    """`31.5 GB`; `1.3 MB` where it is less than one."""
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def _sample_rows(audit: Audit) -> list[int]:
    readable = [row for row, file in enumerate(audit.examined) if file.reason is None]
    if len(readable) <= NUM_SAMPLES:
        return readable
    chosen: list[int] = np.random.default_rng(0).choice(readable, NUM_SAMPLES, replace=False).tolist()
    return sorted(chosen)


def _label_statistics(audit: Audit) -> list[dict[str, Any]]:
    """For each label: images, those of which it is known, share of them, patients, images in each fold."""
    table = audit.table
    statistics = []
    for k, label in enumerate(table.label_columns):
        is_positive, num_known = table.labels[:, k] == 1, int((~np.isnan(table.labels[:, k])).sum())
        folds = [] if audit.folds is None else sorted(set(audit.folds.tolist()))
        statistics.append(
            {
                "label": label,
                "images": int(is_positive.sum()),
                "known": num_known,
                "share": float(is_positive.sum() / num_known) if num_known else None,
                "patients": len(np.unique(table.patient_ids[is_positive])),
                "in_folds": [int(is_positive[audit.folds == fold].sum()) for fold in folds],
            }
        )
    return statistics


def _size_statistics(audit: Audit) -> list[tuple[str, int]]:
    """The most frequent sizes, and how many images have another."""
    shapes = Counter(file.full_shape for file in audit.examined if file.reason is None)
    common = [(f"{width} x {height}", count) for (height, width), count in shapes.most_common(NUM_SIZES)]
    num_others = shapes.total() - sum(count for _, count in common)
    return [*common, (f"{len(shapes) - NUM_SIZES} other sizes", num_others)] if num_others else common


def _histograms(audit: Audit) -> list[dict[str, Any]]:
    """Distributions of what is one number per image."""
    readable = [file for file in audit.examined if file.reason is None]
    if not readable:
        return []
    values: dict[str, npt.NDArray[Any]] = {
        "Mean grey of an image (0 black, 255 white)": np.array([file.grey_mean for file in readable]),
        "Standard deviation of an image's greys": np.array([file.grey_std for file in readable]),
        "Height of an image, pixels": np.array([file.full_shape[0] for file in readable]),
        "Width over height": np.array([file.full_shape[1] / file.full_shape[0] for file in readable]),
    }
    if audit.folds is not None:
        values[OF_PATIENTS] = np.unique(audit.table.patient_ids, return_counts=True)[1]
    histograms = []
    for title, numbers in values.items():
        counts, edges = np.histogram(numbers, bins=20)
        histograms.append(
            {
                "title": title,
                "low": f"{edges[0]:.4g}",
                "high": f"{edges[-1]:.4g}",
                "median": f"{np.median(numbers):.4g}",
                "bars": [float(count / counts.max()) for count in counts],
                "highest": int(counts.max()),
                "unit": "patients" if title == OF_PATIENTS else "images",
            }
        )
    return histograms
