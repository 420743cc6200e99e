"""Members agree where there is data and disagree where there is none."""

from functools import partial

import numpy as np
import pytest
from sklearn.datasets import make_blobs, make_moons
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from sklearn_fordes import FoRDEClassifier, FoRDERegressor, Repulsion

pytestmark = pytest.mark.slow

GAP = np.linspace(-0.3, 0.3, 31)[:, None]
RANGE = np.linspace(-1.6, 1.6, 200)[:, None]


def settings(space, seed, **others):
    repulsion = Repulsion(space, fraction=1.0, period=1, relative=False)
    fixed = {"repulsion": repulsion, "repulsion_strength": 5.0, "encoder": StandardScaler()}
    fixed |= {"hidden_layer_sizes": (32, 32), "module__dropout": 0.0, "lr": 0.01}
    fixed |= {"lr_schedule": "constant"}
    fixed |= {"weight_decay": 0, "ema_decay": 0.0, "early_stopping": False}
    return {**fixed, "random_state": seed, **others}


def disagreement(seed, space, X_repulsion=None):
    """Mean epistemic standard deviation at the training rows and in the gap between them."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.uniform(-1, -0.4, 30), rng.uniform(0.4, 1, 30)])
    X, y = x[:, None], np.sin(4 * x) + 0.3 * x + 0.05 * rng.normal(size=60)
    others = {"noise": "homoscedastic", "module__activation": "tanh", "max_epochs": 400}
    model = FoRDERegressor(**settings(space, seed, **others)).fit(X, y, X_repulsion=X_repulsion)
    assert np.abs(model.predict_members(X) - y).std() < 0.1  # noise of 0.05: every member fits
    return [np.sqrt(model.predict_uncertainty(rows).epistemic).mean() for rows in (X, GAP)]


@pytest.mark.parametrize("seed", [0, 1])
def test_members_disagree_in_a_gap_between_the_data(seed):
    _, plain_gap = disagreement(seed, "none")
    for X_repulsion, factor, over_plain in [(None, 5, 1.5), (RANGE, 10, 2.5)]:
        at_data, in_gap = disagreement(seed, "input_gradient", X_repulsion)
        assert in_gap > factor * at_data
        assert in_gap > over_plain * plain_gap


def entropies(X, y, seed, space, distance):
    """Mean entropy of the mean probability at the training rows and away from all of them."""
    low, high = X.min(0) - 2.5 * distance, X.max(0) + 2.5 * distance
    grid = np.stack(np.meshgrid(*np.linspace(low, high, 40).T), axis=-1).reshape(-1, 2)
    nearest = NearestNeighbors(n_neighbors=1).fit(X).kneighbors(grid)[0][:, 0]
    model = FoRDEClassifier(**settings(space, seed, max_epochs=60, batch_size=60)).fit(X, y)
    assert model.score(X, y) > 0.98
    rows = (X, grid[nearest > distance])
    return [model.predict_uncertainty(points).total.mean() for points in rows]


clusters = partial(make_blobs, centers=[[0, 2], [-1.8, -1.2], [1.8, -1.2]], cluster_std=0.4)
moons = partial(make_moons, noise=0.1)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("problem", "distance"), [(clusters, 1.5), (moons, 0.8)])
def test_entropy_is_high_away_from_the_data(problem, distance, seed):
    X, y = problem(180, random_state=seed)
    _, plain_away = entropies(X, y, seed, "none", distance)
    at_data, away = entropies(X, y, seed, "input_gradient", distance)
    assert at_data < 0.1
    assert away > 5 * at_data
    assert away > 1.5 * plain_away
