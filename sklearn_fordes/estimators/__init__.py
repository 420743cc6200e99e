"""The estimators, and the space of parameters that are worth tuning."""

from sklearn_fordes.estimators._classifier import FoRDEClassifier
from sklearn_fordes.estimators._parameters import search_space
from sklearn_fordes.estimators._regressor import FoRDERegressor

__all__ = ["FoRDEClassifier", "FoRDERegressor", "search_space"]
