"""What a scikit-learn user touches."""

from sklearn_fordes.estimators._classifier import FoRDEClassifier

__all__ = ["FoRDEClassifier"]
