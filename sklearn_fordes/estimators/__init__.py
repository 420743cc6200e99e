"""The estimators, how to load one, and the space of parameters that are worth tuning."""

from sklearn_fordes.estimators._classifier import FoRDEClassifier
from sklearn_fordes.estimators._load import load
from sklearn_fordes.estimators._regressor import FoRDERegressor
from sklearn_fordes.estimators._search_space import search_space

__all__ = ["FoRDEClassifier", "FoRDERegressor", "load", "search_space"]
