"""Ensembles of neural networks that repel each other in the space of their input gradients."""

from sklearn_fordes.estimators import FoRDEClassifier, FoRDERegressor, search_space

__version__ = "0.1.0"

__all__ = ["FoRDEClassifier", "FoRDERegressor", "__version__", "search_space"]
