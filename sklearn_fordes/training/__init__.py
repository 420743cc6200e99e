"""Where the method meets skorch: the net, its batches, and a run of training."""

from sklearn_fordes.training._data import Batches, Rows
from sklearn_fordes.training._device import move_net, resolve_device
from sklearn_fordes.training._net import ParticleNet, mean_probability
from sklearn_fordes.training._run import (
    BestEpoch,
    EpochProgress,
    copied_callback,
    take_over,
    train,
)

__all__ = [
    "Batches",
    "BestEpoch",
    "EpochProgress",
    "ParticleNet",
    "Rows",
    "copied_callback",
    "mean_probability",
    "move_net",
    "resolve_device",
    "take_over",
    "train",
]
