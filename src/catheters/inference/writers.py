"""What predict.py writes: predictions, details, a submission, a worklist."""

from pathlib import Path

import numpy as np
import pandas as pd

from catheters.errors import UserError, listed
from catheters.inference.batch_prediction import Answers
from catheters.inference.inputs import Images
from catheters.inference.interpretation import (
    Findings,
    describe_device,
    describe_others,
    describe_undecided,
    has_others,
)
from catheters.io.csv_files import check_columns, check_ids, read_csv
from catheters.io.files import write_whole
from catheters.io.near_misses import same_id_hint
from catheters.runtime.console import warn


def write_predictions(file: Path, uid_column: str, images: Images, answers: Answers, findings: Findings) -> None:
    """Write the contract's `predictions.csv`: id, a probability a label, doubts, and the reason where there is none.

    The file is whole or absent.
    """
    columns: dict[str, object] = {uid_column: images.uids}
    columns |= dict(zip(findings.labels, findings.probabilities.T, strict=True))
    columns["doubts"] = ["; ".join(doubts) for doubts in answers.doubts]
    columns["reason"] = answers.reasons
    _write(file, pd.DataFrame(columns))


def write_details(file: Path, uid_column: str, images: Images, answers: Answers, findings: Findings) -> None:
    """Write a row an image and label: probability, spread over the models, threshold, whether it is called present, and
    whether that is better left to a person.

    The file is whole or absent.
    """
    rows = np.flatnonzero(answers.is_read)
    num_labels = len(findings.labels)
    frame = pd.DataFrame(
        {
            uid_column: np.repeat(np.array(images.uids)[rows], num_labels),
            "label": np.tile(findings.labels, len(rows)),
            "probability": findings.probabilities[rows].ravel(),
            "threshold": np.tile(findings.thresholds, len(rows)),
            "called_present": findings.is_called[rows].ravel().astype(np.int64),
            "undecided": findings.is_undecided[rows].ravel().astype(np.int64),
        }
    )
    if findings.spread is not None:
        frame.insert(3, "spread", findings.spread[rows].ravel())
    _write(file, frame)


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


def write_submission(file: Path, sample: pd.DataFrame, images: Images, answers: Answers, findings: Findings) -> None:
    """Write a submission with the sample's rows and columns, in their order; the file is whole or absent.

    Kaggle takes no empty values: images that could not be read get the mean of all others, with a warning.
    """
    # Uncalibrated: calibration may make equal what was ranked, and ROC AUC is a matter of ranks.
    probabilities = pd.DataFrame(findings.uncalibrated, index=list(images.uids), columns=list(findings.labels))
    if probabilities.isna().all(axis=None):
        raise UserError(f"{file}: not written: none of the images could be predicted")
    num_missing = int(probabilities.loc[sample.iloc[:, 0].tolist()].isna().any(axis=1).sum())
    if num_missing:
        warn(f"{num_missing} images of the submission could not be read: they get the mean of all others")
        probabilities = probabilities.fillna(probabilities.mean())
    uids = sample.iloc[:, 0].tolist()
    chosen = probabilities.loc[uids]
    _write(file, pd.DataFrame({name: chosen[name].to_numpy() if k else uids for k, name in enumerate(sample.columns)}))


def write_worklist(
    file: Path, uid_column: str, images: Images, answers: Answers, findings: Findings, urgent: list[int]
) -> None:
    """Write the images in the order in which they should be read, with a sentence for each device.

    Those that no model could read come first, since nothing is known of them; then the others by the probability that
    they show one of the urgent labels. The file is whole or absent.

    Args:
        file: the CSV.
        uid_column: name of the id column.
        images: n of them.
        answers: what became of them.
        findings: what they show.
        urgent: columns of the urgent labels.
    """
    urgency = findings.probability_of_any(urgent)
    order = np.lexsort((-np.nan_to_num(urgency), answers.is_read))
    columns: dict[str, list[object]] = {uid_column: [], "urgency": []}
    others = ["findings"] if has_others(findings) else []
    names = [*findings.heads, *others, "undecided", "operating_points", "doubts", "reason"]
    columns |= {name: [] for name in names}
    for row in order.tolist():
        is_read = answers.reasons[row] == ""
        sentences = [describe_device(findings, device, row) if is_read else "" for device in findings.heads]
        sentences += [describe_others(findings, row) if is_read else ""] * len(others)
        undecided = describe_undecided(findings, row)
        values = [*sentences, undecided, findings.rule, "; ".join(answers.doubts[row]), answers.reasons[row]]
        columns[uid_column].append(images.uids[row])
        columns["urgency"].append(round(float(urgency[row]), 4) if is_read else "")
        for name, value in zip(names, values, strict=True):
            columns[name].append(value)
    _write(file, pd.DataFrame(columns))


def _write(file: Path, frame: pd.DataFrame) -> None:
    write_whole(file, lambda part: frame.to_csv(part, index=False))
