"""Where a model's features of ordinary images lie, and how far those of another image are from there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.decomposition import PCA
from sklearn.model_selection import GroupKFold
from torch import Tensor

Floats = npt.NDArray[np.float64]

MAX_COMPONENTS = 64
IMAGES_PER_COMPONENT = 10
"""A direction takes so many images to know how far they spread along it."""
NUM_PARTS = 5
"""Parts of the patients; each is measured by the fit on the others."""
ORDINARY_SHARE = 0.99
"""Share of such images that are not far."""


@dataclass(frozen=True, kw_only=True)
class FeatureSpace:
    """A normal distribution of features: principal components, and equal noise in all other directions.

    Tipping and Bishop, Probabilistic principal component analysis, J. R. Statist. Soc. B 61 (1999). The distance is
    Mahalanobis', as in Lee et al., A simple unified framework for detecting out-of-distribution samples, NeurIPS 2018,
    without classes.

    Attributes:
        mean: (C,) of the features.
        components: (k, C) orthonormal directions.
        variances: (k,) along them.
        noise: variance in each of the other directions.
        limit: the squared distance that 99% of ordinary images do not exceed.
    """

    mean: Floats
    components: Floats
    variances: Floats
    noise: float
    limit: float

    def squared_distances(self, features: Floats) -> Floats:
        """(n, C) -> (n,)."""
        centred = features - self.mean
        along = centred @ self.components.T
        beside = np.maximum((centred**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        distances: Floats = (along**2 / self.variances).sum(axis=1) + beside / self.noise
        return distances

    def over_limit(self, features: Floats) -> Floats:
        """(n, C) -> (n,) squared distances over the limit: above 1 an image is farther than 99% of ordinary ones."""
        return self.squared_distances(features) / self.limit

    def state_dict(self) -> dict[str, Any]:
        """As data that `torch.load(weights_only=True)` reads; float32, which is as much as features are known to."""
        return {
            "mean": torch.from_numpy(self.mean).float(),
            "components": torch.from_numpy(self.components).float(),
            "variances": torch.from_numpy(self.variances).float(),
            "noise": self.noise,
            "limit": self.limit,
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "FeatureSpace":
        """The inverse of `state_dict`."""
        mean, components, variances = (state[name].double().numpy() for name in ("mean", "components", "variances"))
        return cls(mean=mean, components=components, variances=variances, noise=state["noise"], limit=state["limit"])


def fit_feature_space(features: npt.NDArray[np.float32], patient_ids: npt.NDArray[np.str_]) -> FeatureSpace | None:
    """Fit to features of ordinary images that the model was not trained on; None where they are too few, or all alike.

    Args:
        features: (n, C).
        patient_ids: (n,) whose images they are; the limit is measured on other patients than those of the fit.
    """
    num_parts = min(NUM_PARTS, len(np.unique(patient_ids)))
    values = features.astype(np.float64)
    if num_parts < 2 or len(values) < 2 * IMAGES_PER_COMPONENT or not values.var(axis=0).any():
        return None
    parts = list(GroupKFold(num_parts).split(values, groups=patient_ids))
    smallest_fit = min(len(others) for others, _ in parts)
    # As many directions for all of these fits, or their distances would be on different scales.
    num_components = max(1, min(MAX_COMPONENTS, smallest_fit // IMAGES_PER_COMPONENT, values.shape[1] - 1))
    held_out = np.empty(len(values))
    for others, part in parts:
        held_out[part] = _fit(values[others], num_components, limit=np.inf).squared_distances(values[part])
    return _fit(values, num_components, limit=float(np.quantile(held_out, ORDINARY_SHARE)))


def pooled(features: Tensor) -> Tensor:
    """(B, C) or (B, C, h, w) features -> (B, C) float32."""
    return (features.mean(dim=(2, 3)) if features.ndim == 4 else features).float()


def _fit(values: Floats, num_components: int, limit: float) -> FeatureSpace:
    fitted = PCA(num_components, svd_solver="randomized", random_state=0).fit(values)
    # The rest of the variance, over all other directions: with fewer images than channels scikit-learn's own
    # noise_variance_ spreads it over as many as there are images.
    rest = values.var(axis=0, ddof=1).sum() - fitted.explained_variance_.sum()
    smallest = float(np.finfo(np.float32).tiny)
    return FeatureSpace(
        mean=fitted.mean_,
        components=fitted.components_,
        variances=np.maximum(fitted.explained_variance_, smallest),
        noise=max(float(rest) / (values.shape[1] - num_components), smallest),
        limit=limit,
    )
