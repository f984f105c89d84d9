"""Equal means for all variants of a comparison: as many images, or as many seconds, as the first one takes."""

import dataclasses
import hashlib
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from catheters.config.loading import settings_to_json
from catheters.config.settings import Settings
from catheters.errors import SettingsError, UserError, counted, listed
from catheters.io.files import UnreadableFileError, read_json, write_text
from catheters.io.locks import exclusive_lock
from catheters.runs.comparison.variants import Variant
from catheters.runs.comparison.workers import JobSettings, train_alone
from catheters.runs.data_checks import num_training_images
from catheters.runs.datasets import load_data
from catheters.runs.extra_tables import with_extra_tables
from catheters.runtime.console import say, silent, warn
from catheters.training.extensions.log import read_epochs

KINDS = ("images", "seconds")
PROBE_EPOCHS = 3
"""Of which the first counts nothing: workers start and libraries choose their kernels in it."""
PROBE_FILE = "probe.json"


def with_equal_means(
    variants: Sequence[Variant], kind: str | None, folder: Path, folds: Sequence[int], seed: int
) -> list[Variant]:
    """The variants with epochs as `--equal` says; None leaves them, with a warning where they differ.

    Args:
        variants: with their run folders.
        kind: one of `KINDS`, or None.
        folder: of the comparison.
        folds: that are trained.
        seed: of the probe.

    Raises:
        UserError: the epochs of a variant cannot be chosen so.
    """
    if kind is None:
        num_epochs = {variant.name: variant.settings.num_epochs for variant in variants}
        if len(set(num_epochs.values())) > 1:
            of_each = listed(f"{name} {number}" for name, number in num_epochs.items())
            warn(
                f"the variants have other numbers of epochs ({of_each}); --equal images or --equal seconds chooses them"
            )
        return list(variants)
    for variant in variants:
        settings = variant.settings
        if settings.stages:
            raise UserError(f"{variant.name}: --equal {kind} does not know how to divide epochs among stages")
        if settings.early_stop:
            raise UserError(
                f"{variant.name}: early_stop={settings.early_stop} ends folds at epochs of their own, which "
                f"--equal {kind} cannot make equal; add early_stop=0 to the command"
            )
    first = variants[0]
    each: list[float]
    if kind == "images":
        each = [_images_per_epoch(variant.settings, folds) for variant in variants]
        unit = "image"
    else:
        each = [_probed_seconds(variant, folder, folds[0], seed) for variant in variants]
        unit = "second"
    equal = [first]
    for variant, number in zip(variants[1:], each[1:], strict=True):
        epochs = max(round(first.settings.num_epochs * each[0] / number), 1)
        if epochs != variant.settings.num_epochs:
            say(
                f"{variant.name}: {counted(epochs, 'epoch')} instead of {variant.settings.num_epochs}, at {number:.4g} "
                f"{unit}s an epoch where {first.name} has {each[0]:.4g}"
            )
        equal.append(dataclasses.replace(variant, settings=_with_epochs(variant, epochs)))
    return equal


def _with_epochs(variant: Variant, epochs: int) -> Settings:
    """The settings with another length, the whole schedule in it where it follows from the length."""
    settings = variant.settings
    if epochs == settings.num_epochs:
        return settings
    if settings.epochs is not None or settings.schedule != "cosine":
        return _lasting(settings, epochs)
    if epochs <= settings.warmup_epochs:
        raise SettingsError(
            f"{variant.name}: equal means leave it {counted(epochs, 'epoch')}, no more than its warm-up of "
            f"{settings.warmup_epochs}; lower warmup_epochs, or compare without --equal"
        )
    return dataclasses.replace(settings, cosine_epochs=epochs - settings.warmup_epochs)


def _lasting(settings: Settings, epochs: int) -> Settings:
    """The settings with `epochs`, and a cosine that is not over before."""
    if settings.schedule != "cosine":
        return dataclasses.replace(settings, epochs=epochs)
    cosine_epochs = max(settings.cosine_epochs, epochs - settings.warmup_epochs)
    return dataclasses.replace(settings, epochs=epochs, cosine_epochs=cosine_epochs)


def _images_per_epoch(settings: Settings, folds: Sequence[int]) -> int:
    """Training images of the fold that has fewest, those of `extra_tables` among them."""
    chosen = dataclasses.replace(settings, folds=tuple(folds))
    with silent(True):  # what is odd about the data is said when it is trained on
        return num_training_images(chosen, with_extra_tables(chosen, load_data(chosen)))


def _probed_seconds(variant: Variant, folder: Path, fold: int, seed: int) -> float:
    """Seconds of an epoch, validation included: of a short run, kept in a file, since a resumed comparison needs them.

    Raises:
        UserError: the probe fails.
    """
    settings = dataclasses.replace(
        _lasting(variant.settings, PROBE_EPOCHS), run_name=f"probe_{variant.slug}", seed=seed, folds=(fold,)
    )
    key = hashlib.sha256(settings_to_json(settings).encode()).hexdigest()
    file = folder / PROBE_FILE
    # One at a time, so that no probe slows another one; other machines wait for its result.
    with exclusive_lock(folder / f"{PROBE_FILE}.lock", "", timeout_s=-1):
        known = _read_probes(file)
        if key not in known:
            say(f"probing {variant.name}: {counted(PROBE_EPOCHS, 'epoch')} of fold {fold}")
            of_job = JobSettings(settings=settings, folder=folder)
            error = None if of_job.is_finished else train_alone(of_job)
            if error is not None:
                raise UserError(f"{variant.name}: its probe failed: {error} ({of_job.log_file})")
            seconds = [entry["speed"]["epoch_seconds"] for entry in read_epochs(of_job.fold_folder)][1:]
            known[key] = max(statistics.median(seconds), 1e-3)
            write_text(file, json.dumps(known, indent=2) + "\n")
        return known[key]


def _read_probes(file: Path) -> dict[str, float]:
    try:
        return {str(key): float(seconds) for key, seconds in read_json(file).items()} if file.is_file() else {}
    except (UnreadableFileError, AttributeError, TypeError, ValueError):
        return {}
