"""What is refused before a run trains on its images, or warned of: leaks, labels and folds, batches."""

import numpy as np
import numpy.typing as npt

from catheters.config.settings import Settings
from catheters.data.tables.folds import in_several_folds, leaking_patients, refuse_leaks
from catheters.errors import MAX_NAMES, SettingsError, UserError
from catheters.runs.run_data import RunData, training_images
from catheters.runtime.console import warn


def check_leaks(settings: Settings, data: RunData) -> None:
    """Refuse folds that share a patient, or an image, unless the settings allow it; then only warn."""
    if settings.all_data:
        return
    leaks = leaking_patients(data.folds, data.patient_ids)
    shared = in_several_folds(data.folds, data.pixel_ids)
    if shared:
        uids = data.uids[data.pixel_ids == shared[0]].tolist()
        leaks.append(f"images in more than one fold under several ids: {len(shared)}, {' and '.join(uids)} for one")
    refuse_leaks(leaks, are_allowed=settings.allow_leaking_folds)


def check_positives(settings: Settings, data: RunData) -> None:
    """Warn of labels that a fold cannot train or score; refuse a fold that can score none."""
    labels = data.labels
    if not ((labels == 0).any(axis=0) & (labels == 1).any(axis=0)).any():
        hint = "; set soft_label_threshold" if settings.soft_labels else ""
        raise UserError(
            f"{settings.label_table}: no label has both positives and negatives; there is nothing to learn{hint}"
        )
    is_unknown = np.all([np.isnan(of.targets).all(axis=0) for of in (data, *data.extra)], axis=0)
    if is_unknown.any():
        name = settings.label_columns[int(is_unknown.argmax())]
        raise UserError(
            f"{settings.label_table}: '{name}' is unknown of every image, so it cannot be learnt; leave it out of "
            "label_columns, or look at label_values"
        )
    if settings.all_data:
        return
    for fold in settings.folds_to_train:
        is_valid = data.folds == fold
        if not is_valid.any():
            raise UserError(f"fold {fold} has no readable image; run preproc_npy.py or set a smaller num_folds")
        if is_valid.all():
            raise UserError(f"fold {fold} has every image, so none is left to train on; see fold_column and num_folds")
        positives, num_known = (labels[is_valid] == 1).sum(axis=0), (~np.isnan(labels[is_valid])).sum(axis=0)
        is_scorable = (positives > 0) & (positives < num_known)
        if not is_scorable.any():
            raise UserError(
                f"fold {fold}: no label has both positives and negatives among its {is_valid.sum()} images, so no "
                f"epoch can be scored; set {'a larger debug_fraction' if settings.debug else 'a smaller num_folds'}"
            )
        names = np.array(settings.label_columns)
        _warn_of_labels(
            [
                f"'{names[k]}' has {positives[k]} positives in {num_known[k]} validation images"
                f"{'' if num_known[k] == is_valid.sum() else ' of which it is known'}"
                for k in np.flatnonzero(~is_scorable)
            ],
            f"fold {fold}: ",
            ": its AUC is undefined (NaN) and left out of the mean",
        )
        if settings.teacher is None:  # which may teach it
            _warn_of_labels(
                [f"'{name}'" for name in names[~_has_positives(data, fold)]],
                f"fold {fold}: ",
                " has no positive in the training images: it cannot be learnt",
            )


def _has_positives(data: RunData, fold: int) -> npt.NDArray[np.bool_]:
    """(K,) whether each label has a positive among the images that a fold's model learns from."""
    of_tables = [(of.targets[is_chosen] > 0).any(axis=0) for of, is_chosen in training_images(data, fold)]
    has_positives: npt.NDArray[np.bool_] = np.any(of_tables, axis=0)
    return has_positives


def _warn_of_labels(found: list[str], start: str, end: str) -> None:
    """A line for each label, or for the first few of many."""
    for text in found[:MAX_NAMES]:
        warn(f"{start}{text}{end}")
    if len(found) > MAX_NAMES:
        warn(f"{start}so it is with {len(found) - MAX_NAMES} more labels")


def check_batches(settings: Settings, data: RunData, num_processes: int) -> None:
    """Raise a UserError where a model has fewer training images than one optimizer step takes.

    One process without accumulation can make do with one smaller batch per epoch.
    """
    if settings.batch_size == "auto" or (settings.accumulation_steps == 1 and num_processes == 1):
        return
    num_images = num_training_images(settings, data)
    if num_images < settings.batch_size * settings.accumulation_steps:
        raise UserError(
            f"batch_size={settings.batch_size} times accumulation_steps={settings.accumulation_steps} is more than "
            f"the {num_images} training images; lower one of them"
        )


def num_training_images(settings: Settings, data: RunData) -> int:
    """Of the model that has fewest."""
    folds = [None] if settings.all_data else settings.folds_to_train
    return min(sum(int(is_chosen.sum()) for _, is_chosen in training_images(data, fold)) for fold in folds)


def check_global_batch(settings: Settings, num_processes: int) -> None:
    """Raise a SettingsError unless the global batch divides equally among the ranks."""
    if settings.batch_size != "auto" and settings.batch_size % num_processes:
        near = max(settings.batch_size // num_processes, 1) * num_processes
        raise SettingsError(
            f"batch_size={settings.batch_size} is that of all {num_processes} processes together and cannot be divided "
            f"among them equally; {near} can"
        )
