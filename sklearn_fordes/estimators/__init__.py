"""What a scikit-learn user touches."""

from sklearn_fordes.estimators._classifier import FoRDEClassifier
from sklearn_fordes.estimators._regressor import FoRDERegressor

__all__ = ["FoRDEClassifier", "FoRDERegressor"]
