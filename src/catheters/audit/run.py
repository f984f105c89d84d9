"""The audit: read every file, find what is wrong, write it down."""

import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catheters.audit.examination import Examined, examine, thumbnails
from catheters.audit.issues import find_issues
from catheters.audit.report import Audit, write_csv, write_page
from catheters.data.tables.label_table import LabelTable
from catheters.runtime.host import available_cores
from catheters.runtime.progress import track
from catheters.runtime.workers import Failure, map_guarded


def audit_data_set(name: str, table: LabelTable, folds: npt.NDArray[np.int8] | None, folder: Path) -> Audit:
    """Audit a data set and write `audit.csv` and `audit.html`.

    Memory does not hold images, only some hundred bytes per image.

    Args:
        name: of the data set, for the page.
        table: its N images.
        folds: (N,) the fold of each; None: a plain folder of files, without patients.
        folder: where the two files go; made if it does not stand.

    Returns:
        What was found.
    """
    examined = [Examined()] * len(table)
    outcomes = map_guarded(functools.partial(examine, table.paths), range(len(table)), available_cores())
    for row, outcome in track(outcomes, "auditing X-rays", len(table)):
        examined[row] = Examined(reason=outcome.reason) if isinstance(outcome, Failure) else outcome
    issues = find_issues(table, folds, examined)
    audit = Audit(name=name, table=table, folds=folds, examined=examined, issues=issues)
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(audit, folder / "audit.csv")
    write_page(audit, folder / "audit.html", functools.partial(thumbnails, table.paths))
    return audit
