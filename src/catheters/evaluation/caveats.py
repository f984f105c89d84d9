"""What has to be known before a score is believed: one list, which goes wherever the scores go."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "leaking_folds": "the run was trained with `allow_leaking_folds`: models may have seen what they are judged on",
        "patients_in_several_folds": "likewise, since patients have images in several folds",
        "missing_folds": "folds of the run are not finished: their images are in no score",
        "folds_passed_over": "some images have no fold, so none counts",
        "other_folds": "members of an ensemble have other folds than each other",
        "no_patients": "nobody says whose the images are: intervals are too narrow",
        "other_patients": "predictions and label table group the images otherwise",
        "one_patient": "all images are of one patient: nothing can be judged on others",
        "undefined_label": "a label has one class alone, and no score",
        "left_out_images": "images could not be predicted: they are in no score",
        "taken_for_logits": "what was taken for logits looks like probabilities",
        "no_probabilities": "an ensemble of ranks, which are no probabilities",
        "labels_not_told": "an external label table does not tell all labels of the model",
        "patients_of_training": "patients from elsewhere have ids of the training's: they may be the same people",
        "images_not_compared": "images from elsewhere could not be compared with all of the training",
        "similar_images": "images from elsewhere look nearly like some of the training",
        "own_table_missing": "the run's label table is gone or changed, so some of its own numbers are missing",
    }
)
"""Kind -> what it means."""
LEAKS = frozenset({"leaking_folds", "patients_in_several_folds"})
"""Kinds by which scores may be far too good."""


@dataclass(frozen=True, kw_only=True)
class Caveat:
    """Something to know before a score is believed.

    Attributes:
        kind: a key of `KINDS`, for programs.
        text: a sentence for people, without a full stop.
    """

    kind: str
    text: str

    def __post_init__(self) -> None:
        assert self.kind in KINDS, self.kind


def join_caveats(lists: Iterable[Iterable[Caveat]]) -> tuple[Caveat, ...]:
    """Those of several lists in one, each once."""
    return tuple(dict.fromkeys(caveat for caveats in lists for caveat in caveats))
