"""The public names of `sklearn_fordes.particles`."""

from torch.nn import Module

from sklearn_fordes.particles._arrays import to_arrays, to_tensors
from sklearn_fordes.particles._communication import LOCAL, Communicator, Local
from sklearn_fordes.particles._evaluation import (
    Evaluation,
    Gradients,
    Hessian,
    OutputDerivatives,
    OutputFunction,
    autograd_derivatives,
    autograd_evaluation,
)
from sklearn_fordes.particles._kernel import BANDWIDTHS, Kernel, KernelValues
from sklearn_fordes.particles._lengthscales import (
    LENGTHSCALES,
    Lengthscale,
    from_lengthscales,
    from_precision_matrix,
    tuned_lengthscale,
)
from sklearn_fordes.particles._members import Ensemble, MemberFactory
from sklearn_fordes.particles._random import (
    accepts_generator,
    call_seeded,
    derived_seed,
    ordinary_state,
    seeded_generators,
)
from sklearn_fordes.particles._repulsion import BuiltRepulsion, Repulsion, as_repulsion
from sklearn_fordes.particles._spaces import (
    SPACES,
    FeatureSpace,
    FunctionOfEnsemble,
    FunctionSpace,
    InputGradientSpace,
    Space,
    WeightSpace,
)
from sklearn_fordes.particles._step import StepResult, accumulate_gradients, differentiate
from sklearn_fordes.particles._updates import (
    UPDATES,
    Forces,
    independence_update,
    repulsion_force,
    stein_update,
    wasserstein_update,
)
from sklearn_fordes.particles.likelihoods import (
    GRADIENT_TARGETS,
    CategoricalLikelihood,
    GaussianLikelihood,
    Likelihood,
    QuantileLikelihood,
    RealLikelihood,
)

__all__ = [
    "BANDWIDTHS",
    "GRADIENT_TARGETS",
    "LENGTHSCALES",
    "LOCAL",
    "SPACES",
    "UPDATES",
    "BuiltRepulsion",
    "CategoricalLikelihood",
    "Communicator",
    "Ensemble",
    "Evaluation",
    "FeatureSpace",
    "Forces",
    "FunctionOfEnsemble",
    "FunctionSpace",
    "GaussianLikelihood",
    "Gradients",
    "Hessian",
    "InputGradientSpace",
    "Kernel",
    "KernelValues",
    "Lengthscale",
    "Likelihood",
    "Local",
    "MemberFactory",
    "Module",
    "OutputDerivatives",
    "OutputFunction",
    "QuantileLikelihood",
    "RealLikelihood",
    "Repulsion",
    "Space",
    "StepResult",
    "WeightSpace",
    "accepts_generator",
    "accumulate_gradients",
    "as_repulsion",
    "autograd_derivatives",
    "autograd_evaluation",
    "call_seeded",
    "derived_seed",
    "differentiate",
    "from_lengthscales",
    "from_precision_matrix",
    "independence_update",
    "ordinary_state",
    "repulsion_force",
    "seeded_generators",
    "stein_update",
    "to_arrays",
    "to_tensors",
    "tuned_lengthscale",
    "wasserstein_update",
]
