"""Whether images from elsewhere were in the training: by their ids, by what they show."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from catheters.audit.duplicates import MAX_DISTANCE
from catheters.checkpoints.parts import build_preprocessing
from catheters.config.settings import Settings
from catheters.data.cache.cache import CacheError, open_cache
from catheters.data.image_hashes import HASH_BYTES, perceptual_hash
from catheters.data.tables.label_table import LabelTable, read_label_table
from catheters.errors import UserError, counted
from catheters.evaluation.caveats import Caveat
from catheters.io.csv_files import TableError
from catheters.runs.build import build_table_source
from catheters.runs.external.frozen_run import FrozenRun
from catheters.runs.external.theirs import Theirs
from catheters.runtime.console import say, silent
from catheters.runtime.progress import track

SAME_DISTANCE = 16
"""Bits up to which two images are taken for the same. On 52 real chest radiographs at 256 px the same image differs in
14 at most after JPEG compression, halving, other brightness or gamma; other images of a patient in 72 or more."""
MAX_NAMED = 5
ROWS_AT_ONCE = 64


def check_ids(frozen: FrozenRun, theirs: Theirs) -> list[Caveat]:
    """Refuse images of the training; what remains unsure is a caveat.

    Caveats go into the card, which leaves the hospital: ids are said on the terminal alone.

    Raises:
        UserError: an image has the id of one that the run was trained on or validated with.
    """
    own = frozen.own.predicted
    uids, patients = set(own.uids.tolist()), set(own.patient_ids.tolist())
    for _, table in _training_tables(frozen.settings, only_shared=True):
        uids |= set(table.uids.tolist())
        patients |= set(table.patient_ids.tolist())
    shared = [uid for uid in theirs.uids.tolist() if uid in uids]
    if shared:
        _refuse(theirs, shared, "have the id of an image of the training", ", or give other images other ids")
    same = sorted(set(theirs.patient_ids.tolist()) & patients)
    if not same:
        return []
    say(f"patients with the id of a patient of the training: {_named(same)}")
    text = (
        f"{theirs.source}: {counted(len(same), 'patient')} with the id of a patient of the training: if they are the "
        "same people, the model has seen them, and the numbers may be too good"
    )
    return [Caveat(kind="patients_of_training", text=text)]


def check_images(frozen: FrozenRun, theirs: Theirs, image_hashes: Sequence[bytes]) -> list[Caveat]:
    """Refuse images that show what one of the training shows; those that nearly do are a caveat.

    Compared are perceptual hashes of the pixels that the model sees, those of the training from the run's cache.

    Args:
        frozen: the run.
        theirs: n images.
        image_hashes: (n,) their hashes, see `Predictions`.

    Raises:
        UserError: an image is one of the training.
    """
    hashes, reasons = [], []
    for settings, table in _training_tables(frozen.settings, only_shared=False):
        try:
            hashes += _cached_hashes(settings, table)
        except CacheError as error:
            say(error.found)
            reasons.append(f"the cache {settings.cache_file} cannot be read")
    if not _training_tables_are_here(frozen.settings):
        reasons.append(f"{build_table_source(frozen.settings).file} is not here")
    caveats = []
    if reasons:
        text = f"not all images of the training could be compared with these: {reasons[0]}"
        caveats.append(Caveat(kind="images_not_compared", text=text))
    if not hashes:
        return caveats
    nearest = nearest_distances(image_hashes, hashes)
    same = theirs.uids[nearest <= SAME_DISTANCE].tolist()
    if same:
        _refuse(theirs, same, "show what an image of the training shows")
    similar = theirs.uids[nearest <= MAX_DISTANCE].tolist()
    if similar:
        say(f"images nearly like one of the training: {_named(similar)}")
        text = (
            f"{theirs.source}: {counted(len(similar), 'image')} nearly like one of the training: look at them, and "
            "list them in exclude_ids if they are the same"
        )
        caveats.append(Caveat(kind="similar_images", text=text))
    return caveats


def nearest_distances(image_hashes: Sequence[bytes], hashes: Collection[bytes]) -> npt.NDArray[np.int64]:
    """(n,) bits in which each hash differs from the nearest of others; blank images are near to none.

    Args:
        image_hashes: (n,) of 32 bytes each.
        hashes: what they are compared with.
    """
    others = _words([other for other in set(hashes) if not _is_blank(other)])
    found = np.full(len(image_hashes), np.iinfo(np.int64).max)
    rows = np.array([row for row, of_image in enumerate(image_hashes) if not _is_blank(of_image)], dtype=np.intp)
    if not len(others):
        return found
    for start in range(0, len(rows), ROWS_AT_ONCE):
        block = rows[start : start + ROWS_AT_ONCE]
        words = _words([image_hashes[row] for row in block])
        distances = np.zeros((len(block), len(others)), dtype=np.uint16)
        for word in range(words.shape[1]):
            distances += np.bitwise_count(words[:, None, word] ^ others[None, :, word])
        found[block] = distances.min(axis=1)
    return found


def _words(hashes: Sequence[bytes]) -> npt.NDArray[np.uint64]:
    return np.frombuffer(b"".join(hashes), dtype=np.uint64).reshape(len(hashes), HASH_BYTES // 8)


def _is_blank(image_hash: bytes) -> bool:
    """Of an image of one grey, which has no frequencies but the mean."""
    return int.from_bytes(image_hash).bit_count() <= 1


def _cached_hashes(settings: Settings, table: LabelTable) -> list[bytes]:
    cache = open_cache(settings.cache_file, table, build_preprocessing(settings))
    rows = [int(row) for row, entry in zip(cache.rows, cache.entries, strict=True) if entry.reason is None]
    tracked = track(rows, "comparing with the training", len(rows), leave=False)
    return [perceptual_hash(np.ascontiguousarray(cache.images[row])) for row in tracked]


def _training_tables(settings: Settings, *, only_shared: bool) -> Iterator[tuple[Settings, LabelTable]]:
    """The label tables that are here, with the settings that read them; or those whose ids name the same images."""
    numbers = [number for number, is_shared in enumerate(settings.share_ids) if is_shared or not only_shared]
    for of_table in (settings, *map(settings.of_extra_table, numbers)):
        try:
            with silent(True):  # training has said all of it
                table = read_label_table(build_table_source(of_table, may_lack_labels=True))
        except TableError:
            continue
        yield of_table, table


def _training_tables_are_here(settings: Settings) -> bool:
    extra = [settings.of_extra_table(number) for number in range(len(settings.extra_tables))]
    return all(build_table_source(of_table).file.is_file() for of_table in (settings, *extra))


def _refuse(theirs: Theirs, uids: Sequence[str], what: str, otherwise: str = "") -> None:
    raise UserError(
        f"{theirs.source}: {len(uids)} of {counted(len(theirs.uids), 'image')} {what}: {_named(uids)}; an external "
        f"validation is of images that the model has not seen: leave them out (exclude_ids){otherwise}"
    )


def _named(ids: Sequence[str]) -> str:
    return ", ".join(ids[:MAX_NAMED]) + (" ..." if len(ids) > MAX_NAMED else "")
