"""Ensembles of neural networks that repel each other in the space of their input gradients."""

from typing import TYPE_CHECKING, Any

from sklearn_fordes import particles, training
from sklearn_fordes.estimators import FoRDEClassifier, FoRDERegressor, load, search_space

if TYPE_CHECKING:
    from sklearn_fordes.particles import Repulsion as Repulsion
    from sklearn_fordes.training import CellCorruption as CellCorruption

__version__ = "0.2.0"

__all__ = [
    "CellCorruption",
    "FoRDEClassifier",
    "FoRDERegressor",
    "Repulsion",
    "__version__",
    "load",
    "search_space",
]
# These need torch, which is not imported with the package.
_LAZY = {"CellCorruption": training, "Repulsion": particles}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(_LAZY[name], name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
