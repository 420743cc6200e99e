"""Ensembles of neural networks that repel each other in the space of their input gradients."""

from typing import TYPE_CHECKING, Any

from sklearn_fordes import particles
from sklearn_fordes.estimators import FoRDEClassifier, FoRDERegressor, load, search_space

if TYPE_CHECKING:
    from sklearn_fordes.particles import Repulsion as Repulsion

__version__ = "0.2.0a1"

__all__ = ["FoRDEClassifier", "FoRDERegressor", "Repulsion", "__version__", "load", "search_space"]


def __getattr__(name: str) -> Any:
    if name == "Repulsion":  # It needs torch, which is not imported with the package.
        return particles.Repulsion
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
