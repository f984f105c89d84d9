"""Label sets: which columns a classifier predicts, and which device type each of them belongs to."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

UNKNOWN: Final = "unknown"
"""What a cell of a label table means that says neither 0 nor 1; in arrays of labels it is NaN."""
LabelValue = Literal[0, 1, "unknown"]
"""What a cell of a label table means."""
ImageKind = Literal["synthetic", "semi-synthetic", "real"]
"""Whether a data set's X-rays are drawn by a program, real with tubes and lines drawn on them, or real."""

RANZCR_HEADS = MappingProxyType(
    {
        "ETT": ("ETT - Abnormal", "ETT - Borderline", "ETT - Normal"),
        "NGT": ("NGT - Abnormal", "NGT - Borderline", "NGT - Incompletely Imaged", "NGT - Normal"),
        "CVC": ("CVC - Abnormal", "CVC - Borderline", "CVC - Normal"),
        "Swan Ganz": ("Swan Ganz Catheter Present",),
    }
)
"""Device type -> its label columns, in the order of RANZCR CLiP's `train.csv`: endotracheal tube, nasogastric tube,
central venous catheter, Swan-Ganz (pulmonary artery) catheter."""

RANZCR_LABELS = tuple(label for labels in RANZCR_HEADS.values() for label in labels)
"""The 11 label columns of RANZCR CLiP's `train.csv`, in file order."""

EXCLUSIVE_LABELS = (RANZCR_HEADS["ETT"],)
"""Labels of which an image has one at most: there is one endotracheal tube. Of nasogastric tubes and central venous
catheters RANZCR CLiP has up to 2 and 3 in an image."""

SELDOM_TOGETHER = (RANZCR_HEADS["ETT"], RANZCR_HEADS["NGT"])
"""Labels of which an image hardly ever has two. In RANZCR CLiP's `train.csv` none of the 8,457 images with an ETT label
has another one, and 45 of the 8,308 with an NGT label (0.5%); of the 29,333 with a CVC label 3,575 have (12%)."""

NIH_LABELS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
"""The 14 findings of NIH ChestX-ray14, as its `Finding Labels` column spells them."""


def known_heads(labels: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    """RANZCR CLiP's device types with those of the labels that are its own; empty where none is."""
    known = {
        device: tuple(label for label in of_device if label in labels) for device, of_device in RANZCR_HEADS.items()
    }
    return {device: of_device for device, of_device in known.items() if of_device}


def tip_name(device_type: str) -> str:
    """What the tip of a device type's line is called where it is measured: "ETT" -> "ETT tip"."""
    return f"{device_type} tip"
