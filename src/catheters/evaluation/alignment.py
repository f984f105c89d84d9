"""Predictions of several models side by side: the same images, labels and patients, in one order."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from catheters.errors import UserError, listed
from catheters.evaluation.prediction_set import PredictionSet, find_torn_patient


def align_predictions(members: Sequence[PredictionSet]) -> list[PredictionSet]:
    """The models' predictions with rows and columns in the order of the first one's.

    Patients get the names that the first of them has that knows any: where each image is a patient of its own, none are
    known.

    Raises:
        UserError: they are not of the same images, labels and patients.
    """
    first = members[0]
    ordered = [first]
    for member in members[1:]:
        if set(member.labels) != set(first.labels):
            raise UserError(
                f"{member.name} predicts other labels than {first.name}: only one of them has "
                f"{listed(sorted(set(member.labels) ^ set(first.labels)))}"
            )
        missing, extra = set(first.uids.tolist()) - set(member.uids.tolist()), set(member.uids.tolist())
        extra -= set(first.uids.tolist())
        if missing or extra:
            example = min(missing or extra)
            raise UserError(
                f"{member.name} predicts other images than {first.name}: {len(missing)} are missing and {len(extra)} "
                f"are extra, {example} for one; the same images are compared and combined"
            )
        row_of = {uid: row for row, uid in enumerate(member.uids.tolist())}
        member = member.take(np.array([row_of[uid] for uid in first.uids.tolist()]))
        columns = [member.labels.index(label) for label in first.labels]
        targets = member.targets[:, columns]
        is_other = (targets != first.targets) & ~(np.isnan(targets) & np.isnan(first.targets))
        if is_other.any():
            row = int(np.flatnonzero(is_other.any(axis=1))[0])
            raise UserError(f"{member.name} has other true labels than {first.name}, of {first.uids[row]} for one")
        probabilities = member.probabilities[:, columns]
        ordered.append(replace(member, labels=first.labels, targets=targets, probabilities=probabilities))
    return _share_patients(ordered)


def _share_patients(members: Sequence[PredictionSet]) -> list[PredictionSet]:
    knowing = [member for member in members if (member.patient_ids != member.uids).any()]
    for member in knowing[1:]:
        torn = find_torn_patient(knowing[0].patient_ids, member.patient_ids)
        if torn is not None:
            one, other = (knowing[0].uids[row] for row in torn)
            raise UserError(
                f"{member.name} has other patients than {knowing[0].name}: {one} and {other} are of one in the one and "
                "of two in the other; give one label table that names them, with --labels and --patient-column"
            )
    if not knowing:
        return list(members)
    return [
        replace(
            member,
            patient_ids=knowing[0].patient_ids,
            caveats=tuple(caveat for caveat in member.caveats if caveat.kind != "no_patients"),
        )
        for member in members
    ]
