"""What models of an earlier run say of this run's images, written once into a cache of its own, and resumed."""

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from catheters.checkpoints.checkpoint import Checkpoint
from catheters.config.settings import Settings
from catheters.data.cache.cache import CacheError
from catheters.data.cache.index import FORMAT_VERSION, MADE_BY, CacheIndex, CacheRow, index_file, read_index
from catheters.data.cache.partial import CachePart
from catheters.data.input_maps import damaged_outputs
from catheters.errors import UserError, counted
from catheters.io.locks import exclusive_lock
from catheters.models.outputs import Outputs
from catheters.runs.datasets import create_valid_loader, plain_samples
from catheters.runs.run_data import RunData
from catheters.runtime.console import say
from catheters.runtime.precision import autocast
from catheters.runtime.progress import track

BATCH_SIZE = 16
"""Images at a time, unless the settings say how many validation has."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Images of which some models have to say something.

    Attributes:
        data: of N images.
        is_chosen: (N,) which of them.
        first_row: row of the first of the N in the cache.
        checkpoints: the models; of several it is the mean.
    """

    data: RunData
    is_chosen: npt.NDArray[np.bool_]
    first_row: int
    checkpoints: Sequence[Checkpoint]


def write_outputs(
    settings: Settings,
    works: Sequence[Work],
    rows_of: Callable[[Sequence[Checkpoint], Tensor], npt.NDArray[Any]],
    *,
    file: Path,
    row_shape: tuple[int, int],
    fingerprint: str,
    what: str,
    device: torch.device,
) -> None:
    """Write what models say of all images, unless it is there; an unfinished cache is resumed.

    Args:
        settings: of the run that wants it.
        works: which models say it of which images; together they have every row once.
        rows_of: the models of a work and (B, 1, H, W) images, all on `device` -> (B, h, w), or anything of as many
            bytes, what is written; see `outputs_of`.
        file: the cache's `.npy`, (N, h, w) uint8.
        row_shape: (h, w).
        fingerprint: of the models, the images and which is whose.
        what: is written, and of which run, for messages.
        device: where to compute.

    Raises:
        UserError: no room on the disk, another process is at it, or a model gives NaN.
    """
    if file.is_file() and index_file(file).is_file():
        return
    num_rows = sum(int(work.is_chosen.sum()) for work in works)
    shape = (num_rows, *row_shape)
    say(f"{what} -> {file} ({np.prod(shape) / 1e9:.2f} GB), once for all runs that see them")
    refusal = f"{file}: another process is writing it; wait until it has finished"
    with (
        exclusive_lock(file.with_suffix(".lock"), refusal, remove=True),
        contextlib.closing(CachePart(file, shape, fingerprint)) as part,
    ):
        part.keep_valid(lambda row, entry: True)
        try:
            for work in works:
                _write(settings, part, work, rows_of, what, device)
        except KeyboardInterrupt:
            say(f"{what}: {len(part.done)} of {counted(num_rows, 'image')} done; the same command resumes there")
            raise
        rows = [part.done[row] for row in range(num_rows)]
        made_of = {MADE_BY: fingerprint}
        part.finish(
            CacheIndex(
                format_version=FORMAT_VERSION, shape=shape, preprocessing=made_of, decoders={}, mean=0, std=0, rows=rows
            )
        )


@torch.inference_mode()
def _write(
    settings: Settings,
    part: CachePart,
    work: Work,
    rows_of: Callable[[Sequence[Checkpoint], Tensor], npt.NDArray[Any]],
    what: str,
    device: torch.device,
) -> None:
    """Write what is not there yet of one work."""
    batch_size = settings.valid_batch_size or BATCH_SIZE
    positions = np.flatnonzero(work.is_chosen)
    is_missing = np.array([work.first_row + position not in part.done for position in positions.tolist()], np.bool_)
    # Whole batches, since another batch rounds otherwise: what was killed ends as if it had not been.
    waiting = positions[np.isin(np.arange(len(positions)) // batch_size, np.flatnonzero(is_missing) // batch_size)]
    is_waiting = np.zeros(len(work.is_chosen), dtype=np.bool_)
    is_waiting[waiting] = True
    by_batch = replace(settings, valid_batch_size=batch_size)
    samples = plain_samples(by_batch, work.data, is_waiting)
    for checkpoint in work.checkpoints:
        checkpoint.model.to(device)
    file = work.checkpoints[0].file
    uids, todo = work.data.uids, iter(waiting.tolist())
    with contextlib.closing(create_valid_loader(by_batch, samples, device)) as loader:
        for batch in track(loader, f"{what}, {file.parent.name}", len(loader), unit="batch", leave=False):
            for of_image in rows_of(work.checkpoints, batch.images.to(device, non_blocking=True)):
                position, content = next(todo), of_image.tobytes()
                digest = hashlib.sha256(content).hexdigest()
                entry = CacheRow(uid=str(uids[position]), file=str(file), size=0, mtime_ns=0, digest=digest, notes={})
                part.write(work.first_row + position, entry, content)
    for checkpoint in work.checkpoints:
        checkpoint.model.cpu()


@torch.inference_mode()
def outputs_of(checkpoint: Checkpoint, images: Tensor, *, with_lines: bool = False) -> Outputs:
    """What a model says of (B, 1, H, W) images on its device, in the precision that it was trained in."""
    with autocast(images.device, checkpoint.dtype_on(images.device)):
        outputs: Outputs = checkpoint.model(images, with_lines=with_lines)
    return outputs


def check_finite(checkpoint: Checkpoint, values: Tensor) -> None:
    """Refuse what nothing can be learnt from; reading it waits for a GPU.

    Raises:
        UserError: a value that the checkpoint gives is NaN or infinite.
    """
    if not bool(values.isfinite().all()):
        raise UserError(f"{checkpoint.file}: gives NaN or infinity, so nothing can be learnt from it")


def read_outputs(file: Path, uids: Sequence[str], fingerprint: str, what: str) -> npt.NDArray[np.uint8]:
    """(N, 32) the SHA-256 of each row of a cache that `write_outputs` has written.

    Args:
        file: the cache's `.npy`.
        uids: (N,) whose rows they have to be.
        fingerprint: what it has to be made of.
        what: stands in it, for messages.

    Raises:
        UserError: it is damaged, or of other models or images.
    """
    try:
        index = read_index(file)
    except CacheError as error:
        raise damaged_outputs(file, error.found) from None
    if index.preprocessing.get(MADE_BY) != fingerprint or [row.uid for row in index.rows] != list(uids):
        raise damaged_outputs(file, f"{file}: holds others than {what}")
    return np.array([np.frombuffer(bytes.fromhex(row.digest), dtype=np.uint8) for row in index.rows])
