"""The same labels patient by patient: whether a patient has a label in any image, and what the model says of that."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from catheters.evaluation.operating_points import OperatingPoint, Rule, judge
from catheters.evaluation.patients import Patients
from catheters.evaluation.prediction_set import PredictionSet, fitting_folds
from catheters.evaluation.scores import Scores, score

PATIENT_RULE = (
    "a patient has a label if any image has it, lacks it if all images lack it, and is left out otherwise; the "
    "patient's probability is the highest of the images"
)
"""How patients are made of images, for people."""


@dataclass(frozen=True, kw_only=True)
class PatientResults:
    """Results with one vote per patient, however many images there are.

    Attributes:
        scores: of the labels.
        presence_scores: of the device types.
        points: the labels' operating points, whose thresholds are chosen among patients, by the rule for images.
        presence_points: those of the device types.
    """

    scores: Scores
    presence_scores: Scores
    points: list[OperatingPoint]
    presence_points: list[OperatingPoint]


def join_images(evaluated: PredictionSet) -> PredictionSet:
    """One row per patient, by `PATIENT_RULE`; patients in the order of their names.

    The fold is the patient's own; nobody's where a patient has images in several.
    """
    names, patient_of = np.unique(evaluated.patient_ids, return_inverse=True)
    shape = (len(names), len(evaluated.labels))
    has_label, is_unknown = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
    np.logical_or.at(has_label, patient_of, evaluated.targets == 1)
    np.logical_or.at(is_unknown, patient_of, ~evaluated.is_known)
    highest = np.zeros(shape)
    np.maximum.at(highest, patient_of, evaluated.probabilities)
    folds = None
    if evaluated.folds is not None:
        folds = np.zeros(len(names), dtype=np.int64)
        folds[patient_of] = evaluated.folds
        if (folds[patient_of] != evaluated.folds).any():
            folds = None
    return dataclasses.replace(
        evaluated,
        uids=names,
        patient_ids=names,
        folds=folds,
        targets=np.where(has_label, 1.0, np.where(is_unknown, np.nan, 0.0)),
        probabilities=highest,
        exclusive=(),  # of several images: the highest ones need not sum to 1
    )


def score_patients(evaluated: PredictionSet, presence: PredictionSet, rule: Rule) -> PatientResults:
    """Score labels and device types patient by patient.

    Args:
        evaluated: the labels of the images.
        presence: the device types of the same images.
        rule: how thresholds are chosen.
    """
    labels, types = join_images(evaluated), join_images(presence)
    patients, folds = Patients(labels.patient_ids), fitting_folds(labels)
    return PatientResults(
        scores=score(labels, patients),
        presence_scores=score(types, patients),
        points=judge(labels, folds, rule, patients, {}),
        presence_points=judge(types, folds, rule, patients, {}),
    )
