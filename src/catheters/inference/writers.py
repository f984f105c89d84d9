"""What predict.py writes: predictions, details, a submission, a worklist."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from catheters.errors import UserError, counted, listed
from catheters.inference.batch_prediction import Predictions
from catheters.inference.inputs import Images
from catheters.inference.interpretation import (
    Findings,
    describe_deferred,
    describe_device_type,
    describe_others,
    has_others,
)
from catheters.inference.lines.finding import FoundLines
from catheters.inference.lines.sentences import describe_found
from catheters.io.csv_files import check_columns, check_ids, read_csv
from catheters.io.files import write_whole
from catheters.io.near_misses import same_id_hint
from catheters.runtime.console import warn

IMAGES_AT_A_TIME = 10_000
"""Whose details are one table in memory; text of all labels of a million images takes gigabytes."""


def write_predictions(
    file: Path, uid_column: str, images: Images, predictions: Predictions, findings: Findings
) -> None:
    """Write the contract's `predictions.csv`: id, one probability per label, quality_flags, and the reason where there
    is none.

    The file is whole or absent.
    """
    columns: dict[str, object] = {uid_column: images.uids}
    columns |= dict(zip(findings.labels, findings.probabilities.T, strict=True))
    columns["quality_flags"] = ["; ".join(quality_flags) for quality_flags in predictions.quality_flags]
    columns["reason"] = predictions.reasons
    _write(file, lambda: pd.DataFrame(columns))


def write_details(file: Path, uid_column: str, images: Images, predictions: Predictions, findings: Findings) -> None:
    """Write one row per image and label: probability, spread over the models, threshold, whether it is predicted
    positive, and whether that is better deferred to a person.

    The file is whole or absent.
    """
    rows = np.flatnonzero(predictions.is_read)
    starts = range(0, max(len(rows), 1), IMAGES_AT_A_TIME)
    _write(
        file,
        *(
            functools.partial(_details, uid_column, images, findings, rows[start : start + IMAGES_AT_A_TIME])
            for start in starts
        ),
    )


def _details(uid_column: str, images: Images, findings: Findings, rows: npt.NDArray[np.int64]) -> pd.DataFrame:
    """Of the images in these rows."""
    num_labels = len(findings.labels)
    frame = pd.DataFrame(
        {
            uid_column: np.repeat(np.array([images.uids[row] for row in rows], dtype=np.str_), num_labels),
            "label": np.tile(findings.labels, len(rows)),
            "probability": findings.probabilities[rows].ravel(),
            "threshold": np.tile(findings.thresholds, len(rows)),
            "predicted_positive": findings.is_predicted_positive[rows].ravel().astype(np.int64),
            "deferred": findings.is_deferred[rows].ravel().astype(np.int64),
        }
    )
    if findings.spread is not None:
        frame.insert(3, "spread", findings.spread[rows].ravel())
    return frame


def read_submission(sample: Path, images: Images, labels: tuple[str, ...]) -> pd.DataFrame:
    """A `sample_submission.csv`, as text, when it can be filled in.

    Raises:
        UserError: it has a column or id for which there is no prediction.
    """
    frame = read_csv(sample)
    uid_column = str(frame.columns[0])
    check_ids(frame, uid_column, sample)
    unknown = [column for column in frame.columns[1:] if column not in labels]
    if unknown:
        raise UserError(f"{sample}: the models do not predict its column '{unknown[0]}', but {listed(labels)}")
    check_columns(frame, labels, sample)
    missing = set(frame[uid_column]) - set(images.uids)
    if missing:
        raise UserError(
            f"{sample}: {len(missing)} of its {len(frame)} ids are not among the images, {min(missing)} for one; the "
            f"images are called like {images.uids[0]}{same_id_hint(sorted(missing), images.uids)}"
        )
    return frame


def write_submission(file: Path, sample: pd.DataFrame, images: Images, findings: Findings) -> None:
    """Write a submission with the sample's rows and columns, in their order; the file is whole or absent.

    Kaggle takes no empty values: images that could not be read get the mean of all others, with a warning.
    """
    # Uncalibrated: calibration may make equal what was ranked, and ROC AUC is a matter of ranks.
    probabilities = pd.DataFrame(findings.uncalibrated, index=list(images.uids), columns=list(findings.labels))
    if probabilities.isna().all(axis=None):
        raise UserError(f"{file}: not written: none of the images could be predicted")
    num_missing = int(probabilities.loc[sample.iloc[:, 0].tolist()].isna().any(axis=1).sum())
    if num_missing:
        warn(f"could not be read: {counted(num_missing, 'image')} of the submission, which get the mean of all others")
        probabilities = probabilities.fillna(probabilities.mean())
    uids = sample.iloc[:, 0].tolist()
    chosen = probabilities.loc[uids]
    _write(
        file,
        lambda: pd.DataFrame({name: chosen[name].to_numpy() if k else uids for k, name in enumerate(sample.columns)}),
    )


def write_worklist(
    file: Path,
    uid_column: str,
    images: Images,
    predictions: Predictions,
    findings: Findings,
    urgent: list[int],
    found_in_rows: Mapping[int, FoundLines] | None = None,
) -> None:
    """Write the images in the order in which they should be read, with one sentence per device type.

    Those that no model could read come first, since nothing is known of them; then the others by the probability that
    they show one of the urgent labels. The file is whole or absent.

    Args:
        file: the CSV.
        uid_column: name of the id column.
        images: n of them.
        predictions: what became of them.
        findings: what they show.
        urgent: columns of the urgent labels.
        found_in_rows: row -> its lines and what was measured on it; None where nobody has looked for them.
    """
    urgency = findings.probability_of_any(urgent)
    order = np.lexsort((-np.nan_to_num(urgency), predictions.is_read))
    columns: dict[str, list[object]] = {uid_column: [], "urgency": []}
    others = ["findings"] if has_others(findings) else []
    names = [*findings.heads, *others, "deferred", "operating_points", "quality_flags", "reason"]
    columns |= {name: [] for name in names}
    for row in order.tolist():
        is_read = predictions.reasons[row] == ""
        found = None if found_in_rows is None else found_in_rows.get(row)
        sentences = [
            describe_device_type(findings, device_type, row)
            + ("" if found is None else describe_found(findings, row, device_type, found))
            if is_read
            else ""
            for device_type in findings.heads
        ]
        sentences += [describe_others(findings, row) if is_read else ""] * len(others)
        deferred = describe_deferred(findings, row)
        values = [
            *sentences,
            deferred,
            findings.rule,
            "; ".join(predictions.quality_flags[row]),
            predictions.reasons[row],
        ]
        columns[uid_column].append(images.uids[row])
        columns["urgency"].append(round(float(urgency[row]), 4) if is_read else "")
        for name, value in zip(names, values, strict=True):
            columns[name].append(value)
    _write(file, lambda: pd.DataFrame(columns))


def _write(file: Path, *frames: Callable[[], pd.DataFrame]) -> None:
    """Write tables of the same columns one after the other."""

    def write(part: Path) -> None:
        with part.open("w", encoding="utf-8", newline="") as stream:
            for number, frame in enumerate(frames):
                frame().to_csv(stream, index=False, header=number == 0)

    write_whole(file, write)
