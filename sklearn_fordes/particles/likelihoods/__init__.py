"""What a network's outputs mean: one class, in one file, for each task."""

from sklearn_fordes.particles.likelihoods._base import Likelihood, RealLikelihood
from sklearn_fordes.particles.likelihoods._categorical import (
    GRADIENT_TARGETS,
    CategoricalLikelihood,
)
from sklearn_fordes.particles.likelihoods._gaussian import GaussianLikelihood
from sklearn_fordes.particles.likelihoods._quantile import QuantileLikelihood

__all__ = [
    "GRADIENT_TARGETS",
    "CategoricalLikelihood",
    "GaussianLikelihood",
    "Likelihood",
    "QuantileLikelihood",
    "RealLikelihood",
]
