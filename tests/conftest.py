import sys

import hypothesis
import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification

from sklearn_fordes import FoRDEClassifier

# A busy machine makes any example slow.
hypothesis.settings.register_profile("without deadlines", deadline=None)
hypothesis.settings.load_profile("without deadlines")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Nets so small gain nothing from a second thread, and wait for it on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_figures_left():
    """Close what a test drew."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.fixture
def small():
    """Make a classifier of the default recipe, whose fit takes a fraction of a second.

    Its rate is constant, so that a few epochs are the first ones of any number.
    """

    def make(**params):
        defaults = {
            "n_members": 3,
            "hidden_layer_sizes": (16,),
            "max_epochs": 6,
            "batch_size": 32,
            "lr": 1e-2,
            "lr_schedule": "constant",
            "random_state": 0,
            "validation_fraction": 0.1,
        }
        return FoRDEClassifier(**{**defaults, **params})

    return make


@pytest.fixture(scope="session")
def binary():
    return make_classification(200, 6, n_informative=4, random_state=0)


@pytest.fixture(scope="session")
def multiclass():
    return make_classification(300, 6, n_informative=4, n_classes=3, class_sep=2.0, random_state=1)


@pytest.fixture(scope="session")
def reference():
    """Values computed in float64 by an independent program from the published formulas."""
    path = __file__.replace("conftest.py", "data/reference_values.npz")
    with np.load(path) as values:
        return {name: values[name] for name in values.files}
