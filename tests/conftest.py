import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification

from sklearn_fordes import FoRDEClassifier


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
    """Make a classifier whose fit takes a fraction of a second."""

    def make(**params):
        defaults = {
            "n_members": 3,
            "hidden_layer_sizes": (16,),
            "max_epochs": 6,
            "batch_size": 32,
            "lr": 1e-2,
            "random_state": 0,
            # Tests compare with computations of their own.
            "repulsion_strength": 20.0,
            "relative_strength": False,
            "repulsion_period": 1,
            "ema_decay": 0.0,
            "validation_fraction": 0.1,
        }
        if params.get("module") is None:
            defaults["module__dropout"] = 0.0
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
