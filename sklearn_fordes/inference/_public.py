"""The public names of `sklearn_fordes.inference`."""

from sklearn_fordes.inference._chunks import Chunks
from sklearn_fordes.inference._fitted import FittedEnsemble
from sklearn_fordes.inference._surroundings import available_device, one_thread, ordinary_state
