"""The distance of features, against scipy and by what it says of other images."""

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis

from catheters.models.feature_space import FeatureSpace, fit_feature_space


def draw(rng: np.random.Generator, num_images: int) -> np.ndarray:
    """Features of 5 channels, two of which go together."""
    mixing = np.eye(5)
    mixing[0, 1] = 2.0
    return (rng.normal(size=(num_images, 5)) @ mixing + [1, 2, 3, 4, 5]).astype(np.float32)


def test_with_all_directions_it_is_mahalanobis_distance(rng: np.random.Generator) -> None:
    features = draw(rng, 400)
    space = fit_feature_space(features, np.arange(400).astype(np.str_))
    assert space is not None
    assert space.components.shape == (4, 5)  # the fifth direction is the noise
    inverse = np.linalg.inv(np.cov(features.astype(np.float64).T))
    expected = [mahalanobis(row, features.mean(axis=0), inverse) ** 2 for row in features[:20]]
    assert space.squared_distances(features[:20].astype(np.float64)) == pytest.approx(expected, rel=1e-3)


def test_one_in_a_hundred_ordinary_images_is_far(rng: np.random.Generator) -> None:
    space = fit_feature_space(draw(rng, 2000), np.repeat(np.arange(500), 4).astype(np.str_))
    assert space is not None
    others = draw(rng, 4000).astype(np.float64)
    assert (space.over_limit(others) > 1).mean() == pytest.approx(0.01, abs=0.006)
    assert (space.over_limit(others + 6) > 1).all()
    against = np.array(
        [[1.0, 8.0, 3.0, 4.0, 5.0], [4.0, 8.0, 3.0, 4.0, 5.0]]
    )  # the second lies along what goes together
    assert (space.over_limit(against) > 1).tolist() == [True, False]


@pytest.mark.parametrize("num_images", [120, 400])
def test_fewer_images_than_channels(rng: np.random.Generator, num_images: int) -> None:
    """Of new ordinary images about one in a hundred is far, all the same."""
    spread = np.arange(1, 1281) ** -0.5

    def draw_wide(number: int) -> np.ndarray:
        return (rng.normal(size=(number, 1280)) * spread).astype(np.float32)

    space = fit_feature_space(draw_wide(num_images), np.repeat(np.arange(num_images // 4), 4).astype(np.str_))
    assert space is not None
    assert space.components.shape == (num_images * 4 // 5 // 10, 1280)
    assert (space.over_limit(draw_wide(2000).astype(np.float64)) > 1).mean() < 0.04
    assert (space.over_limit(draw_wide(100).astype(np.float64) * 2) > 1).mean() > 0.95


def test_too_few_to_tell(rng: np.random.Generator) -> None:
    features = rng.normal(size=(30, 4)).astype(np.float32)
    assert fit_feature_space(features[:19], np.arange(19).astype(np.str_)) is None
    assert fit_feature_space(features, np.full(30, "one patient")) is None
    assert fit_feature_space(np.ones((30, 4), np.float32), np.arange(30).astype(np.str_)) is None


def test_kept_and_read_back(rng: np.random.Generator) -> None:
    space = fit_feature_space(draw(rng, 100), np.arange(100).astype(np.str_))
    assert space is not None
    again = FeatureSpace.from_state_dict(space.state_dict())
    features = draw(rng, 10).astype(np.float64)
    assert again.squared_distances(features) == pytest.approx(space.squared_distances(features), rel=1e-5)
    assert again.limit == space.limit
