"""Public docstrings are complete numpydoc."""

import inspect
from importlib.util import find_spec

import pytest
from numpydoc.validate import validate

from sklearn_fordes import (
    FoRDEClassifier,
    FoRDERegressor,
    distributed,
    inspection,
    networks,
    particles,
    preprocessing,
    streaming,
    uncertainty,
)

# Sections in order, parameters documented as they are, returns described.
CODES = {"GL06", "GL07", "GL08", "PR01", "PR02", "PR03", "PR04", "RT01", "RT03", "SS01", "SS03"}


def public_names():
    for package in (distributed, networks, particles, preprocessing, streaming, inspection):
        for name in package.__all__:
            thing = getattr(package, name)
            is_own = getattr(thing, "__module__", "").startswith("sklearn_fordes")
            is_documented = inspect.isclass(thing) or inspect.isfunction(thing)
            if is_own and is_documented and not getattr(thing, "_is_protocol", False):
                yield f"{package.__name__}.{name}"
    if find_spec("dask"):
        for name in ("predict", "predict_interval", "predict_proba"):
            yield f"sklearn_fordes.dask.{name}"
    for name in ("Uncertainty", "entropy_decomposition", "variance_decomposition"):
        yield f"{uncertainty.__name__}.{name}"
    for name in ("CellCorruption", "CorruptedVersions", "ClipMemberGradients"):
        yield f"sklearn_fordes.training.{name}"
    yield "sklearn_fordes.training.CellCorruption.build"
    for estimator in (FoRDEClassifier, FoRDERegressor):
        yield f"sklearn_fordes.{estimator.__name__}"
        for name, method in inspect.getmembers(estimator, inspect.isfunction):
            if not name.startswith("_") and method.__module__.startswith("sklearn_fordes"):
                yield f"sklearn_fordes.{estimator.__name__}.{name}"
    for display in filter(inspect.isclass, map(inspection.__dict__.get, inspection.__all__)):
        for name, _ in inspect.getmembers(display, callable):
            if not name.startswith("_"):
                yield f"sklearn_fordes.inspection.{display.__name__}.{name}"


@pytest.mark.parametrize("name", list(public_names()))
def test_docstring(name):
    found = [
        (code, text)
        for code, text in validate(name)["errors"]
        # **kwargs is left out of the signature of the estimators.
        if code in CODES and "{'**kwargs'}" not in text
    ]
    assert not found
