"""The public names of `sklearn_fordes.inference`."""

from sklearn_fordes.inference._fitted import (
    Chunks,
    FittedEnsemble,
    available_device,
    one_thread,
    ordinary_state,
)
