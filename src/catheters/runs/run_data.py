"""The images of a run, as all of its models share them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from catheters.data.cache.cache import CacheFile
from catheters.data.cache.row_checks import RowChecks
from catheters.data.input_maps import InputMaps
from catheters.data.line_targets import DrawnLines
from catheters.data.pseudo_labels import Kind, with_pseudo_labels

TRAINS_ALWAYS = -1
"""The fold of an image, of `extra_tables`, of a patient whom no fold validates on."""
TRAINS_NEVER = -2
"""That of one whose patient several folds validate on."""


@dataclass(frozen=True, kw_only=True)
class Pseudolabels:
    """What a teacher says of N images, and how it is learnt, see `with_pseudo_labels`.

    Attributes:
        probabilities: fold -> (N, K) float32, of the teacher that the fold's model has; None -> of all folds' model.
        soft_weight: the teacher's share in the target of a known label.
        kind: how probabilities become pseudo-labels.
        confidence: of "confident" ones.
        exclusive: groups of columns whose labels exclude each other.
        lines: fold -> the lines of the images, those that the teacher sees where nobody has drawn any among them; None
            where it finds none, or none are learnt.
    """

    probabilities: Mapping[int | None, npt.NDArray[np.float32]]
    soft_weight: float
    kind: Kind
    confidence: float
    exclusive: tuple[tuple[int, ...], ...]
    lines: Mapping[int | None, DrawnLines] | None = None


@dataclass(frozen=True, kw_only=True)
class RunData:
    """The images of a run, readable ones only.

    It stays in memory as long as the run lasts, so it is arrays alone: no Python object per image, and texts as UTF-8,
    where numpy's have four bytes per character.

    Attributes:
        encoded_uids: (N,) UTF-8, unique names of the images.
        encoded_patient_ids: (N,) UTF-8, patients.
        labels: (N, K) float32, 0, 1 or NaN where it is unknown, columns in the order of the setting `label_columns`.
        targets: (N, K) float32, what is learnt: the labels, or shares in 0..1 where the table has soft ones.
        folds: (N,) the fold of each image.
        numbers: name -> (N,), further numbers of each image.
        pixel_ids: (N,) numbers, equal for images with equal pixels, whatever the cache.
        rows: (N,) the images' rows in the cache.
        cache_file: the cache's `.npy`.
        checks: compares its rows at their first read.
        mean: mean of the cached images' grey values, in 0..1.
        std: their standard deviation, in 0..1.
        pixels_hash: hash of the pixels alone, of all images of the label table.
        fingerprint: hash of pixels, ids, labels, folds, numbers and lines.
        lines: the drawn lines of the images; None where no lines are learnt.
        placements: (N, 4) where their original pixels lie in the cached ones, scale and offset of x and y; or None.
        full_shapes: (N, 2) height and width of the original images, in pixels; None likewise.
        spacings: (N, 2) mm per pixel of them in x and y, NaN where `spacing_table` has no row; None without one,
            or where nothing is measured.
        input_maps: of a first stage, which the model sees beside the images; None: it sees none.
        pseudo_labels: what a teacher says of the images; None: there is none.
        extra: those of `extra_tables`, whose images only train, but for the fold that `folds` says.
    """

    encoded_uids: npt.NDArray[np.bytes_]
    encoded_patient_ids: npt.NDArray[np.bytes_]
    labels: npt.NDArray[np.float32]
    targets: npt.NDArray[np.float32]
    folds: npt.NDArray[np.int8]
    numbers: Mapping[str, npt.NDArray[np.float32]]
    pixel_ids: npt.NDArray[np.int64]
    rows: npt.NDArray[np.intp]
    cache_file: CacheFile
    checks: RowChecks
    mean: float
    std: float
    pixels_hash: str
    fingerprint: str
    lines: DrawnLines | None
    placements: npt.NDArray[np.float64] | None
    full_shapes: npt.NDArray[np.int64] | None
    spacings: npt.NDArray[np.float64] | None
    input_maps: InputMaps | None = None
    pseudo_labels: Pseudolabels | None = None
    extra: tuple["RunData", ...] = ()

    @property
    def uids(self) -> npt.NDArray[np.str_]:
        """(N,) unique names of the images."""
        return np.strings.decode(self.encoded_uids, "utf-8")

    def learnt_targets(self, fold: int | None) -> npt.NDArray[np.float32]:
        """(N, K) what the model of a fold, or of all folds, learns: the targets, with its teacher's share in them."""
        taught = self.pseudo_labels
        if taught is None:
            return self.targets
        return with_pseudo_labels(
            self.targets,
            taught.probabilities[fold],
            soft_weight=taught.soft_weight,
            kind=taught.kind,
            confidence=taught.confidence,
            exclusive=taught.exclusive,
        )

    def learnt_lines(self, fold: int | None) -> DrawnLines | None:
        """The lines that the model of a fold, or of all folds, learns, its teacher's among them; None: none."""
        taught = self.pseudo_labels
        return self.lines if taught is None or taught.lines is None else taught.lines[fold]

    @property
    def patient_ids(self) -> npt.NDArray[np.str_]:
        """(N,) patients."""
        return np.strings.decode(self.encoded_patient_ids, "utf-8")


def training_images(data: RunData, fold: int | None) -> list[tuple[RunData, npt.NDArray[np.bool_]]]:
    """What the model of a fold, or of all folds, learns from: each table's data with (N,) which of its images."""
    tables = (data, *data.extra)
    if fold is None:
        return [(of, np.full(len(of.rows), True)) for of in tables]
    return [(of, ~np.isin(of.folds, (fold, TRAINS_NEVER))) for of in tables]
