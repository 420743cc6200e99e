"""Warnings of a fit point at the line that asks for it."""

import inspect
import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(300, 3)), RNG.integers(0, 2, 300)  # Nothing can be learnt.


def alone(model):
    return model


def in_a_pipeline(model):
    return make_pipeline(StandardScaler(), model)


def in_a_search(model):
    return GridSearchCV(model, {"n_members": [2]}, cv=2)


@pytest.mark.parametrize("wrapped", [alone, in_a_pipeline, in_a_search])
def test_a_warning_of_fit_points_at_the_line_that_calls_it(small, wrapped):
    model = wrapped(small(lr=1e-6, max_epochs=2, ema_decay=0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        line = inspect.currentframe().f_lineno + 1
        model.fit(X, Y)
    places = {(w.filename, w.lineno) for w in caught if w.category is ConvergenceWarning}
    assert places == {(__file__, line)}
