"""Which checkpoint is that of a fit: the same call, on the same rows, finds its own."""

from __future__ import annotations

import os
from typing import Any

import sklearn_fordes
from sklearn_fordes import inference, particles, persistence, training
from sklearn_fordes.estimators._validation import CALLBACK_ATTRIBUTES

# Parameters that are not part of the name: they change nothing of a fit, or their effect is in the
# rows, the members and the seeds.
_NOT_IN_THE_NAME = (
    "checkpoint_dir",
    "distributed",
    "max_time",
    "verbose",
    "device",
    "random_state",
    "warm_start",
    "encoder",
    "validation_fraction",
    "class_weight",
    "categorical_features",
)


def random_state_of(estimator: Any) -> Any:
    """Return the estimator's `random_state`, and for None with checkpoints that of their folder."""
    if estimator.random_state is not None or estimator.checkpoint_dir is None:
        return estimator.random_state
    folder = _folder_of(estimator)
    with persistence.naming_checkpoint_dir():
        return persistence.seed_in(folder)


def checkpoint_of(
    estimator: Any,
    fitted: inference.FittedEnsemble,
    rows: training.DeviceDataset,
    seeds: list[int],
    state: training.TrainingState | None,
    communicator: particles.Communicator,
) -> persistence.Checkpoint | None:
    """Return the checkpoint of a fit, if the estimator's `checkpoint_dir` asks for one.

    Parameters
    ----------
    estimator : BaseFoRDE
    fitted : FittedEnsemble
        With a fitted encoder, and all members as they are before training.
    rows : DeviceDataset
        On which they will be trained.
    seeds : list of int
    state : TrainingState or None
        What an earlier fit has left, from which this one goes on.
    communicator : Communicator
        Reaches processes that train together.

    Returns
    -------
    Checkpoint or None
        Its name is a checksum of all that determines the fit: also of the parameters, versions,
        scikit-learn's callbacks and the kind of device (see `persistence.Describer`).
    """
    if estimator.checkpoint_dir is None:
        return None
    describe = persistence.Describer(has_weights=True).describe
    # The weights of a module matter as far as the members have them.
    parameters = {
        name: persistence.Describer(has_weights=name != "module").describe(value)
        for name, value in sorted(estimator.get_params(deep=False).items())
        if name not in _NOT_IN_THE_NAME
    }
    identity = persistence.digest(
        {
            "kind": type(estimator).__qualname__,
            "device": rows.X.device.type,
            "parameters": parameters,
            "rows": rows.tensors(),
            # An encoder says by which columns of the table encoded ones are corrupted and compared.
            "column_map": getattr(fitted.encoder, "column_map_", None),
            "augmentation": describe(rows.augmentation),
            "callbacks": describe(vars(estimator).get(CALLBACK_ATTRIBUTES[0])),
            "members": dict(fitted.members.state_dict()),
            "seeds": seeds,
            "state": None if state is None else _of_all_processes(state).to_dict(),
            "version": sklearn_fordes.__version__,
        }
    )
    name = f"{type(estimator).__name__}-{identity}.safetensors"
    # Processes that read other rows of a source have other names in mind.
    path = communicator.broadcast(os.path.join(_folder_of(estimator), name))
    return persistence.Checkpoint(path, sklearn_fordes.__version__, communicator)


def _of_all_processes(state: training.TrainingState) -> training.TrainingState:
    """Return a state without how long its epochs took."""
    history = [{k: v for k, v in epoch.items() if k != "dur"} for epoch in state.history]
    return state._replace(history=history)


def _folder_of(estimator: Any) -> str:
    # Code of the user's may change the working directory.
    folder = os.path.abspath(os.fsdecode(estimator.checkpoint_dir))
    with persistence.naming_checkpoint_dir():
        os.makedirs(folder, exist_ok=True)
    return folder
