"""The public names of `sklearn_fordes.networks`."""

from sklearn_fordes.networks._dropout import Dropout
from sklearn_fordes.networks._embedding import PeriodicEmbedding
from sklearn_fordes.networks._mlp import MLP
from sklearn_fordes.networks._noise import HomoscedasticNoise, with_homoscedastic_noise
from sklearn_fordes.networks._stack import stack_members
