"""What a scikit-learn user touches."""

from sklearn_fordes.estimators._classifier import FoRDEClassifier
from sklearn_fordes.estimators._regressor import FoRDERegressor
from sklearn_fordes.estimators._search import search_space

__all__ = ["FoRDEClassifier", "FoRDERegressor", "search_space"]
