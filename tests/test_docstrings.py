"""Public docstrings are complete numpydoc."""

import inspect

import pytest
from numpydoc.validate import validate

from sklearn_fordes import FoRDEClassifier, particles, tabular

# Sections in order, parameters documented as they are, returns described.
CODES = {"GL06", "GL07", "GL08", "PR01", "PR02", "PR03", "PR04", "RT01", "RT03", "SS01", "SS03"}


def public_names():
    for package in (particles, tabular):
        for name in package.__all__:
            thing = getattr(package, name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                yield f"{package.__name__}.{name}"
    yield "sklearn_fordes.FoRDEClassifier"
    for name, method in vars(FoRDEClassifier).items():
        if inspect.isfunction(method) and not name.startswith("_"):
            yield f"sklearn_fordes.FoRDEClassifier.{name}"


@pytest.mark.parametrize("name", list(public_names()))
def test_docstring(name):
    found = [
        (code, text)
        for code, text in validate(name)["errors"]
        # **kwargs is left out of the signature, see PassThroughParameters.
        if code in CODES and "{'**kwargs'}" not in text
    ]
    assert not found
