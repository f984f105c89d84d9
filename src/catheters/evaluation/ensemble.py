"""Several models' predictions combined into one.

Weights that are fitted and scored on the same images flatter themselves: here each fold is combined by the weights that
the other folds gave, and the weights for new images come from all of them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.stats import rankdata

from catheters.errors import UserError
from catheters.evaluation.calibration import SMALLEST
from catheters.evaluation.caveats import Caveat, join_caveats
from catheters.evaluation.metrics import macro_mean, score_labels
from catheters.evaluation.options import ENSEMBLE_METHODS
from catheters.evaluation.prediction_set import PredictionSet, common_groups, fitting_folds
from catheters.io.files import read_written_json, write_text
from catheters.runtime.progress import track

Floats = npt.NDArray[np.float64]

FORMAT_VERSION = 1
STEPS_FROM_EQUAL = np.linspace(0, 1, 11)
"""How far fitted weights may be from equal ones, as shares of the way."""
TOLERANCE = 1e-9
"""Weights are found when a step improves the mean log-likelihood by less."""
NO_WEIGHT = 1e-6
"""What the search leaves of a weight whose place is 0."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A mean of the members, taken on another scale than that of probabilities where that is asked for.

    Attributes:
        meaning: for people.
        transform: (n, K) probabilities to the scale.
        back: from the scale.
        fits_weights: whether members count differently.
        gives_probabilities: whether the ensemble of probabilities can be taken for one.
    """

    meaning: str
    transform: Callable[[Floats], Floats] = field(default=lambda probabilities: probabilities)
    back: Callable[[Floats], Floats] = field(default=lambda combined: combined)
    fits_weights: bool = False
    gives_probabilities: bool = True


def _to_ranks(probabilities: Floats) -> Floats:
    """Ranks among the images, in 0..1; equal ones share theirs."""
    return np.asarray(rankdata(probabilities, axis=0) / len(probabilities))


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "mean": Method(meaning=ENSEMBLE_METHODS["mean"]),
        "rank": Method(
            meaning=ENSEMBLE_METHODS["rank"],
            transform=_to_ranks,
            gives_probabilities=False,
        ),
        "power": Method(meaning=ENSEMBLE_METHODS["power"], transform=np.square, back=np.sqrt),
        "weights": Method(meaning=ENSEMBLE_METHODS["weights"], fits_weights=True),
    }
)


@dataclass(frozen=True, kw_only=True)
class EnsembleMember:
    """A model in an ensemble.

    Attributes:
        name: what predicted.
        weight: its part in the ensemble; they add up to 1.
        macro_auc: of it alone.
        macro_auc_without: of the ensemble without it, its weight given to the others in proportion.
    """

    name: str
    weight: float
    macro_auc: float
    macro_auc_without: float


@dataclass(frozen=True, kw_only=True)
class EnsembleSpec:
    """How predictions of new images are combined.

    Attributes:
        method: a key of `METHODS`.
        weights: member -> its part, in the order of the members; they add up to 1.
        predictions_sha256: of the file that holds the ensemble of the members' predictions; None: not known.
        members_sha256: member -> that of the predictions that were combined; without those that are not known.
    """

    method: str
    weights: Mapping[str, float]
    predictions_sha256: str | None = None
    members_sha256: Mapping[str, str] = field(default_factory=dict)

    def combine(self, stacked: Floats) -> Floats:
        """(M, n, K) probabilities of the members -> (n, K)."""
        how = METHODS[self.method]
        weights = np.array(list(self.weights.values()))
        return _combine(how, weights, np.stack([how.transform(probabilities) for probabilities in stacked]))


def _combine(how: Method, weights: Floats, transformed: Floats) -> Floats:
    """(M,) weights and (M, n, K) transformed probabilities -> (n, K)."""
    combined = how.back(np.tensordot(weights / weights.sum(), transformed, axes=1))
    return np.clip(combined, 0, 1)  # sums round beyond 1


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """An ensemble.

    Attributes:
        method: a key of `METHODS`.
        members: the models.
        combined: their predictions; with fitted weights each fold's by those of the others.
    """

    method: str
    members: tuple[EnsembleMember, ...]
    combined: PredictionSet


def combine(method: str, members: Sequence[PredictionSet], name: str) -> Ensemble:
    """Combine the predictions of the same images, in the same order, by M models.

    Args:
        method: a key of `METHODS`.
        members: at least two.
        name: of the ensemble.
    """
    first, how = members[0], METHODS[method]
    assert len(members) > 1, "an ensemble needs two"
    assert all((member.uids == first.uids).all() and member.labels == first.labels for member in members), "alike"
    stacked = np.stack([how.transform(member.probabilities) for member in members])  # (M, n, K)
    equal = np.full(len(members), 1 / len(members))
    folds = fitting_folds(first)
    weights_of_folds = {int(fold): equal for fold in np.unique(folds)}
    weights = equal
    if how.fits_weights:
        numbers = list(weights_of_folds)
        for fold in track(numbers, "fitting weights", len(numbers), unit="fold", leave=False):
            others = folds != fold
            if others.any():
                rest = first.take(others)
                weights_of_folds[fold] = fit_weights(stacked[:, others], rest.targets, fitting_folds(rest))
        weights = fit_weights(stacked, first.targets, folds)

    taken = [member.exclusive for member, weight in zip(members, weights, strict=True) if weight > 0]

    def ensemble_of(is_in: npt.NDArray[np.bool_]) -> PredictionSet:
        """Each fold by its own weights; of some of the members, by equal ones where all of theirs are 0."""
        combined = np.empty(first.probabilities.shape)
        for fold, of_fold in weights_of_folds.items():
            kept = np.where(is_in, of_fold, 0.0) if of_fold[is_in].sum() > 0 else is_in.astype(np.float64)
            combined[folds == fold] = _combine(how, kept, stacked[:, folds == fold])
        exclusive = common_groups(taken) if how.gives_probabilities else ()
        combined_set = first.with_probabilities(combined, name)
        return replace(combined_set, exclusive=exclusive, caveats=_caveats_of(how, members))

    order = np.arange(len(members))
    parts = tuple(
        EnsembleMember(
            name=member.name,
            weight=float(weights[m]),
            macro_auc=_macro_auc(member),
            macro_auc_without=_macro_auc(ensemble_of(order != m)),
        )
        for m, member in enumerate(track(members, "scoring members", len(members), unit="member", leave=False))
    )
    return Ensemble(method=method, members=parts, combined=ensemble_of(order >= 0))


def _caveats_of(how: Method, members: Sequence[PredictionSet]) -> tuple[Caveat, ...]:
    """Those of all members, and of their combination."""
    own = []
    if len({None if member.folds is None else member.folds.tobytes() for member in members}) > 1:
        text = (
            "the members have other folds than each other: what is fitted on some folds of the ensemble has seen "
            "images of the others"
        )
        own.append(Caveat(kind="other_folds", text=text))
    if not how.gives_probabilities:
        text = (
            "this ensemble holds ranks, no probabilities: its Brier scores, device types, calibration and thresholds "
            "mean little, and nothing for new images"
        )
        own.append(Caveat(kind="no_probabilities", text=text))
    return join_caveats([*(member.caveats for member in members), own])


def fit_weights(stacked: Floats, targets: Floats, folds: npt.NDArray[np.int64]) -> Floats:
    """(M,) weights, at least 0 and adding up to 1, whose mean of the probabilities is the likeliest.

    The log-likelihood of each label is divided by the entropy of its prevalence, so that rare labels count as in a
    macro mean. It is concave in the weights, so there is one summit, which does not depend on where the search begins.
    Where members are about equally good it is flat, and its summit chance: the weights are drawn back towards equal
    ones, by as much as makes those fitted on all folds but one the likeliest on that one.

    Args:
        stacked: (M, n, K) probabilities.
        targets: (n, K) 0, 1 or NaN where it is unknown.
        folds: (n,) see `fitting_folds`.
    """
    num_members = len(stacked)
    equal = np.full(num_members, 1 / num_members)
    is_known = ~np.isnan(targets)
    prevalence = (targets == 1).sum(axis=0) / np.maximum(is_known.sum(axis=0), 1)
    has_both = (prevalence > 0) & (prevalence < 1)
    numbers = np.unique(folds)
    if not has_both.any() or len(numbers) == 1:
        return equal
    prevalence = prevalence[has_both]
    entropy = -prevalence * np.log(prevalence) - (1 - prevalence) * np.log(1 - prevalence)
    # What is unknown is as likely by any weights: it counts nothing.
    likelihoods = np.where(is_known, np.where(targets == 1, stacked, 1 - stacked), 1)[:, :, has_both]
    likelihoods = np.clip(likelihoods, SMALLEST, None)
    gains = np.zeros(len(STEPS_FROM_EQUAL))
    for fold in numbers:
        fitted = _likeliest_weights(likelihoods[:, folds != fold], entropy)
        of_equal, of_fitted = (
            np.tensordot(weights, likelihoods[:, folds == fold], axes=1) for weights in (equal, fitted)
        )
        for step, share in enumerate(STEPS_FROM_EQUAL):
            gains[step] += (np.log((1 - share) * of_equal + share * of_fitted) / entropy).sum()
    share = STEPS_FROM_EQUAL[int(np.argmax(gains))]
    return np.asarray((1 - share) * equal + share * _likeliest_weights(likelihoods, entropy))


def _likeliest_weights(likelihoods: Floats, entropy: Floats) -> Floats:
    """(M,) weights from (M, n, K) likelihoods of the truth."""
    num_members = len(likelihoods)
    importance = np.broadcast_to(1 / entropy, likelihoods.shape[1:]).ravel()
    importance = importance / importance.sum()
    flat = likelihoods.reshape(num_members, -1)

    def loss(weights: Floats) -> tuple[float, Floats]:
        mixture = weights @ flat
        return -float(importance @ np.log(mixture)), -(flat @ (importance / mixture))

    found = minimize(
        loss,
        np.full(num_members, 1 / num_members),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * num_members,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1, "jac": np.ones_like},
        options={"ftol": TOLERANCE},
    )
    weights = np.where(found.x < NO_WEIGHT, 0.0, found.x)
    return np.asarray(weights / weights.sum())


def write_ensemble(file: Path, ensemble: Ensemble, predictions_sha256: str, members_sha256: Sequence[str]) -> None:
    """Write the spec by which new predictions are combined: method, members, weights. The file is whole or absent.

    Args:
        file: the JSON file.
        ensemble: the ensemble.
        predictions_sha256: of the file that holds its predictions.
        members_sha256: of the files of its members' predictions.
    """
    content = {
        "format_version": FORMAT_VERSION,
        "method": ensemble.method,
        "predictions_sha256": predictions_sha256,
        "members": [
            {"name": member.name, "weight": member.weight, "predictions_sha256": sha256}
            for member, sha256 in zip(ensemble.members, members_sha256, strict=True)
        ],
    }
    write_text(file, json.dumps(content, indent=2) + "\n")


def read_ensemble_spec(file: Path) -> EnsembleSpec:
    """The inverse of `write_ensemble`.

    Raises:
        UserError: it is missing, damaged or of another version.
    """
    content = read_written_json(file, FORMAT_VERSION)
    try:
        weights = {str(member["name"]): float(member["weight"]) for member in content["members"]}
        method = str(content["method"])
        # Earlier versions wrote no hashes.
        combined = content.get("predictions_sha256")
        of_members = {
            str(member["name"]): str(member["predictions_sha256"])
            for member in content["members"]
            if "predictions_sha256" in member
        }
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{file}: damaged; run evaluate.py again") from None
    if method not in METHODS or len(weights) < 2 or sum(weights.values()) <= 0:
        raise UserError(f"{file}: damaged; run evaluate.py again")
    return EnsembleSpec(
        method=method,
        weights=weights,
        predictions_sha256=None if combined is None else str(combined),
        members_sha256=of_members,
    )


def _macro_auc(evaluated: PredictionSet) -> float:
    metrics = score_labels(evaluated.targets, evaluated.probabilities, evaluated.labels)
    return macro_mean([metric.roc_auc for metric in metrics])
