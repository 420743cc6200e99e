"""The public names of `sklearn_fordes.particles`."""

from torch.nn import Module

from sklearn_fordes.particles._arrays import to_arrays, to_tensors
from sklearn_fordes.particles._communication import (
    ALONE,
    Communicator,
    LostProcessError,
    ProcessGroups,
)
from sklearn_fordes.particles._drawing import MemberFactory, accepts_generator, derived_seed
from sklearn_fordes.particles._evaluation import (
    Evaluation,
    Gradients,
    Hessian,
    OutputDerivatives,
    OutputFunction,
    autograd_derivatives,
)
from sklearn_fordes.particles._kernel import BANDWIDTHS, Kernel, KernelValues
from sklearn_fordes.particles._lengthscales import (
    LENGTHSCALES,
    Lengthscale,
    from_lengthscales,
    from_precision_matrix,
    tuned_lengthscale,
)
from sklearn_fordes.particles._members import (
    ACTIVATIONS_AT_ONCE,
    Ensemble,
    autograd_evaluation,
)
from sklearn_fordes.particles._memory import expect_memory
from sklearn_fordes.particles._random import seeded_generators
from sklearn_fordes.particles._repulsion import BuiltRepulsion, Repulsion, as_repulsion
from sklearn_fordes.particles._rows import filled_up, n_missing
from sklearn_fordes.particles._spaces import (
    SPACES,
    FeatureSpace,
    FunctionOfEnsemble,
    FunctionSpace,
    InputGradientSpace,
    Space,
    WeightSpace,
)
from sklearn_fordes.particles._step import (
    StepResult,
    accumulate_gradients,
    differentiate,
    mean_loss,
)
from sklearn_fordes.particles._updates import (
    UPDATES,
    Forces,
    independence_update,
    repulsion_force,
    stein_update,
    wasserstein_update,
)
from sklearn_fordes.particles.likelihoods import *  # noqa: F403
