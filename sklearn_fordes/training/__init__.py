"""Where the method meets skorch: the net, its batches, and a run of training."""

from sklearn_fordes.training._averaging import WeightAverage
from sklearn_fordes.training._data import Batches, Rows
from sklearn_fordes.training._device import move_net, resolve_device
from sklearn_fordes.training._net import (
    ParticleClassifierNet,
    ParticleNet,
    ParticleRegressorNet,
    can_compile,
)
from sklearn_fordes.training._outputs import mean_probability, member_probabilities
from sklearn_fordes.training._run import (
    BestEpoch,
    EpochProgress,
    copied_callback,
    keep_freed_memory,
    select_members,
    take_over,
    train,
)
from sklearn_fordes.training._schedule import (
    PERTURBATIONS,
    Schedule,
    drawn_from,
    perturbed_by,
)
from sklearn_fordes.training._trial import try_step

__all__ = [
    "PERTURBATIONS",
    "Batches",
    "BestEpoch",
    "EpochProgress",
    "ParticleClassifierNet",
    "ParticleNet",
    "ParticleRegressorNet",
    "Rows",
    "Schedule",
    "WeightAverage",
    "can_compile",
    "copied_callback",
    "drawn_from",
    "keep_freed_memory",
    "mean_probability",
    "member_probabilities",
    "move_net",
    "perturbed_by",
    "resolve_device",
    "select_members",
    "take_over",
    "train",
    "try_step",
]
