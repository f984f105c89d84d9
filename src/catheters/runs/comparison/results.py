"""What the runs of a comparison gave: predictions, costs and learning curves, read from their folders."""

import hashlib
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from catheters.checkpoints.finished import check_finished
from catheters.errors import UserError
from catheters.evaluation.prediction_set import PredictionSet
from catheters.evaluation.predictions import read_predictions
from catheters.evaluation.variants.comparison import Cost, RunPredictions, VariantInput
from catheters.io.csv_files import check_columns
from catheters.io.files import sha256_of
from catheters.runs.comparison.queue import Job, JobQueue
from catheters.runs.comparison.variants import CommonData, Variant
from catheters.runs.comparison.workers import JobSettings
from catheters.training.extensions.log import read_epochs


def hashes_of_inputs(
    data: CommonData, jobs: Mapping[Job, JobSettings], finished: Sequence[Job], options: str
) -> dict[str, str]:
    """What a comparison is made of, name -> SHA-256: the labels, the predictions, what the command asks for."""
    truth = hashlib.sha256()
    for part in (data.table.uids, data.table.patient_ids, data.table.labels, data.folds):
        truth.update(np.ascontiguousarray(part).tobytes())
    predictions = {
        f"{job.run}/fold{job.fold}": sha256_of(jobs[job].fold_folder / "predictions.csv") for job in sorted(finished)
    }
    return {"labels": truth.hexdigest(), "options": hashlib.sha256(options.encode()).hexdigest(), **predictions}


def read_results(
    variants: Sequence[Variant],
    differing: Sequence[str],
    data: CommonData,
    jobs: Mapping[Job, JobSettings],
    finished: Sequence[Job],
    queue: JobQueue,
) -> list[VariantInput]:
    """What is known of each variant.

    Raises:
        UserError: predictions are not what was written, or of other images.
    """
    errors = queue.errors(jobs)
    results = []
    for variant in variants:
        own = [job for job in finished if job.variant == variant.slug]
        seeds = sorted({job.seed for job in own}, key=[job.seed for job in jobs].index)
        runs = {seed: _read_run(variant, data, [jobs[job] for job in own if job.seed == seed]) for seed in seeds}
        logs = [_read_log(jobs[job]) for job in own]
        logs = [log for log in logs if log]
        results.append(
            VariantInput(
                name=variant.name,
                settings={name: getattr(variant.settings, name) for name in differing},
                runs=runs,
                failures=tuple(
                    f"{variant.name}, seed {job.seed}, fold {job.fold}: {error} ({jobs[job].log_file})"
                    for job, error in errors.items()
                    if job.variant == variant.slug
                ),
                cost=_cost(logs, [queue.memory_bytes(job) for job in own]) if logs else None,
                curve=_curve(logs),
            )
        )
    return results


def truth_of(data: CommonData, name: str) -> PredictionSet:
    """The N images with their patients, labels and folds, as a prediction set without predictions."""
    table = data.table
    return PredictionSet(
        name=name,
        labels=table.label_columns,
        uids=table.uids,
        patient_ids=table.patient_ids,
        folds=data.folds.astype(np.int64),
        targets=table.labels.astype(np.float64),
        probabilities=np.zeros(table.labels.shape),
    )


def _read_run(variant: Variant, data: CommonData, jobs: Sequence[JobSettings]) -> RunPredictions:
    """The out-of-fold predictions of a seed's finished folds."""
    uid_column, labels = variant.settings.uid_column, data.table.label_columns
    index = pd.Index(data.table.uids)
    rows, probabilities = [], []
    for of_job in jobs:
        file = of_job.fold_folder / "predictions.csv"
        check_finished(of_job.fold_folder, names=(file.name,))
        _, frame, _ = read_predictions(file, uid_column)
        check_columns(frame, labels, file)
        found = index.get_indexer(pd.Index(frame[uid_column]))
        if (found < 0).any() or (data.folds[found] != of_job.fold).any():
            raise UserError(
                f"{file}: has images that are not of fold {of_job.fold} of {data.source}; was the table changed? Give "
                "another --name to start over"
            )
        rows.append(found)
        probabilities.append(frame[list(labels)].to_numpy(dtype=np.float64))
    all_rows = np.concatenate(rows)
    order = np.argsort(all_rows)
    return RunPredictions(rows=all_rows[order], probabilities=np.concatenate(probabilities)[order])


def _read_log(of_job: JobSettings) -> list[dict[str, float]]:
    """Of each epoch: `seconds` and `all_seconds` by the clock, `auc`, `gpu_memory_gb`; all stages one after another."""
    entries: list[dict[str, float]] = []
    before = 0.0
    for stage in of_job.settings.in_stages():
        folder: Path = stage.run_folder / of_job.fold_folder.name
        epochs = read_epochs(folder)
        for entry in epochs:
            speed = entry["speed"]
            entries.append(
                {
                    "seconds": speed["epoch_seconds"],
                    "all_seconds": before + speed["seconds"],
                    "auc": np.nan if entry.get("val/macro_auc") is None else entry["val/macro_auc"],
                    "gpu_memory_gb": np.nan if speed["gpu_memory_gb"] is None else speed["gpu_memory_gb"],
                }
            )
        before = entries[-1]["all_seconds"] if entries else 0.0
    return entries


def _cost(logs: Sequence[list[dict[str, float]]], memory_bytes: Sequence[int | None]) -> Cost:
    of_gpu = [entry["gpu_memory_gb"] for log in logs for entry in log if not np.isnan(entry["gpu_memory_gb"])]
    known = [number for number in memory_bytes if number is not None]
    return Cost(
        epochs=statistics.fmean(len(log) for log in logs),
        # An epoch in which a run was resumed was measured in part: the median passes it over.
        seconds_per_epoch=statistics.median(entry["seconds"] for log in logs for entry in log),
        seconds=statistics.fmean(log[-1]["all_seconds"] for log in logs),
        memory_gb=round(max(known) / 1e9, 2) if known else None,
        gpu_memory_gb=max(of_gpu, default=None),
    )


def _curve(logs: Sequence[list[dict[str, float]]]) -> dict[int, float]:
    """Epoch, from 1 -> mean AUC; up to the shortest training, so that each point is a mean of the same ones."""
    length = min(map(len, logs), default=0)
    means = {epoch: float(np.mean([log[epoch - 1]["auc"] for log in logs])) for epoch in range(1, length + 1)}
    return {epoch: mean for epoch, mean in means.items() if not np.isnan(mean)}
