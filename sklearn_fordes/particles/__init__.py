"""The method in pure torch: ensembles of particles and the forces between them.

This package knows neither skorch nor scikit-learn, so it serves training loops of your own.
"""

from sklearn_fordes.particles._ensemble import (
    Ensemble,
    Evaluation,
    Gradients,
    Hessian,
    MemberFactory,
    OutputDerivatives,
    OutputFunction,
    autograd_derivatives,
    autograd_evaluation,
)
from sklearn_fordes.particles._kernel import BANDWIDTHS, Comparison, Kernel
from sklearn_fordes.particles._lengthscales import (
    LENGTHSCALES,
    MIXES,
    Metric,
    from_lengthscales,
    from_precision_matrix,
    tuned,
)
from sklearn_fordes.particles._likelihoods import (
    CATEGORICAL,
    GAUSSIAN,
    GRADIENT_TARGETS,
    Likelihood,
    cross_entropy,
    gaussian_moments,
    gaussian_nll,
)
from sklearn_fordes.particles._random import call_seeded, derived_seed, seeded_generators
from sklearn_fordes.particles._spaces import (
    SPACES,
    Space,
    features,
    functions,
    input_gradients,
    space_of,
    weights,
)
from sklearn_fordes.particles._step import (
    Repulsion,
    StepResult,
    accumulate_gradients,
    compile_step,
)
from sklearn_fordes.particles._updates import (
    UPDATES,
    Interaction,
    independence,
    stein,
    wasserstein,
)

__all__ = [
    "BANDWIDTHS",
    "CATEGORICAL",
    "GAUSSIAN",
    "GRADIENT_TARGETS",
    "LENGTHSCALES",
    "MIXES",
    "SPACES",
    "UPDATES",
    "Comparison",
    "Ensemble",
    "Evaluation",
    "Gradients",
    "Hessian",
    "Interaction",
    "Kernel",
    "Likelihood",
    "MemberFactory",
    "Metric",
    "OutputDerivatives",
    "OutputFunction",
    "Repulsion",
    "Space",
    "StepResult",
    "accumulate_gradients",
    "autograd_derivatives",
    "autograd_evaluation",
    "call_seeded",
    "compile_step",
    "cross_entropy",
    "derived_seed",
    "features",
    "from_lengthscales",
    "from_precision_matrix",
    "functions",
    "gaussian_moments",
    "gaussian_nll",
    "independence",
    "input_gradients",
    "seeded_generators",
    "space_of",
    "stein",
    "tuned",
    "wasserstein",
    "weights",
]
