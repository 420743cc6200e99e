"""The method in pure torch: ensembles of particles and the forces between them.

This package knows neither skorch nor scikit-learn, so it serves training loops of your own.
"""

from sklearn_fordes.particles._ensemble import (
    Ensemble,
    Evaluation,
    LogitFunction,
    MemberFactory,
    autograd_evaluation,
)
from sklearn_fordes.particles._kernel import repulsion_force
from sklearn_fordes.particles._lengthscales import LENGTHSCALES, Metric
from sklearn_fordes.particles._random import derived_seed, seeded_generators
from sklearn_fordes.particles._spaces import GRADIENT_TARGETS, SPACES, input_gradients
from sklearn_fordes.particles._step import (
    Repulsion,
    StepResult,
    accumulate_gradients,
    cross_entropy,
)

__all__ = [
    "GRADIENT_TARGETS",
    "LENGTHSCALES",
    "SPACES",
    "Ensemble",
    "Evaluation",
    "LogitFunction",
    "MemberFactory",
    "Metric",
    "Repulsion",
    "StepResult",
    "accumulate_gradients",
    "autograd_evaluation",
    "cross_entropy",
    "derived_seed",
    "input_gradients",
    "repulsion_force",
    "seeded_generators",
]
