"""The estimators and recipes for which the tests of a contract run."""

import numpy as np
import pytest
from sklearn.datasets import make_classification

from sklearn_fordes import FoRDEClassifier, FoRDERegressor, Repulsion

PAPER = {
    "repulsion": Repulsion.paper(),
    "repulsion_strength": 1.0,
    "ema_decay": 0.0,
    "augmentation": None,
}
RECIPES = {"default": {}, "paper": PAPER}
# The rate is constant, so that a few epochs are the first ones of any number.
SIZES = {
    "n_members": 3,
    "hidden_layer_sizes": (8,),
    "batch_size": 32,
    "max_epochs": 3,
    "lr": 1e-2,
    "lr_schedule": "constant",
}


class EstimatorContract:
    """What each estimator promises, in each recipe.

    A subclass names the estimator, with `ForClassifier` or `ForRegressor`: their `predict` returns
    the prediction and its spread (n_rows, 2 or more), `predict_members` the members' predictions
    (n_members, n_rows, …).
    """

    kind: type
    X: np.ndarray
    y: np.ndarray

    @pytest.fixture
    def data(self):
        return self.X, self.y

    @pytest.fixture(params=RECIPES)
    def make(self, request):
        """Make an estimator of a recipe, whose fit takes a moment."""
        settings = {**SIZES, **RECIPES[request.param], "random_state": 0}
        return lambda **parameters: self.kind(**{**settings, **parameters})

    def begin(self, model, X, y):
        """The first call of partial_fit."""
        return model.partial_fit(X, y)


class ForClassifier:
    kind = FoRDEClassifier
    X, y = make_classification(120, 4, n_informative=4, n_redundant=0, random_state=0)

    def predict(self, model, X):
        return model.predict_proba(X)

    def predict_members(self, model, X):
        return model.predict_proba_members(X)

    def begin(self, model, X, y):
        return model.partial_fit(X, y, classes=[0, 1])


class ForRegressor:
    kind = FoRDERegressor
    X = np.random.default_rng(0).normal(size=(120, 4))
    y = 50 + 10 * np.sin(2 * X[:, 0]) + X[:, 1] * X[:, 2]

    def predict(self, model, X):
        return np.stack(model.predict(X, return_std=True), axis=1)

    def predict_members(self, model, X):
        return model.predict_members(X)
