"""The public names of `sklearn_fordes.networks`."""

from sklearn_fordes.networks._mlp import MLP, Dropout, PeriodicEmbedding
from sklearn_fordes.networks._noise import HomoscedasticNoise, with_homoscedastic_noise
from sklearn_fordes.networks.fast import is_as_built, stack_members
