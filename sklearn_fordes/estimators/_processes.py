"""The share of a fit that one of several processes does, and that they do the same fit."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_fordes import inference, particles, persistence, training

# Parameters that may differ between processes.
_OF_EACH = ("callbacks", "checkpoint_dir", "device", "max_time", "random_state", "verbose")
# Sums of rows that differ by more, as a share of the sums of absolute numbers, are not rounded.
_ROUNDING = 1e-5


def expect_same_settings(estimator: Any, communicator: particles.Communicator) -> None:
    """Compare the parameters of an estimator with those in other processes.

    Raises
    ------
    ValueError
        If one differs.
    """
    if communicator.n_processes == 1:
        return
    describe = persistence.Describer(has_weights=False).describe
    own = {
        name: describe(value)
        for name, value in estimator.get_params(deep=False).items()
        if name not in _OF_EACH
    }
    for rank, other in enumerate(communicator.all_gather_object(own)):
        for name in sorted({*own, *other}):
            if own.get(name) != other.get(name):
                raise ValueError(
                    f"Got another value of {name} in process {rank} than in this one, but expected "
                    "the same parameters in all processes: they do one fit together."
                )


def expect_workers(estimator: Any, n_workers: int, mode: str, given: Any, start: Any) -> None:
    """Raise an error that a fit in several processes would raise in each of them.

    Parameters
    ----------
    estimator : BaseFoRDE
    n_workers : int
    mode : {"members", "rows"}
        What they share out.
    given : iterable of str
        Names of arguments of `fit`.
    start : callable
        The function that starts the processes, whose arguments an error names too.

    Raises
    ------
    TypeError, ValueError
    """
    home = next(kind for kind in type(estimator).__mro__ if "_expect_workers" in vars(kind))
    if type(estimator).fit is not vars(home)["fit"]:
        return  # That of a subclass may take other arguments, and change parameters.
    known = inspect.signature(estimator.fit).parameters
    for name in given:
        if name not in known:
            raise TypeError(estimator._unexpected(name, "argument of fit", estimator.fit, start))
    estimator._validate_params()
    if mode == "members" and n_workers > estimator.n_members:
        raise ValueError(
            f"Got n_workers={n_workers} and n_members={estimator.n_members}, but expected at most "
            "a process for each member, or mode='rows'."
        )


def own_part(
    fitted: inference.FittedEnsemble,
    rows: training.DeviceDataset,
    communicator: particles.Communicator,
) -> inference.FittedEnsemble:
    """Return the ensemble that this process trains: all members, or some of them.

    Parameters
    ----------
    fitted : FittedEnsemble
        Of all members, which are the same in each process.
    rows : DeviceDataset
        Training rows, which should be the same in each process.
    communicator : Communicator

    Raises
    ------
    ValueError
        If the processes have other rows.
    """
    if communicator.n_processes == 1:
        return fitted
    shape, sums, sizes = seen = _sums_of(rows)
    for rank, other in enumerate(communicator.all_gather_object(seen)):
        is_same = other[0] == shape and (abs(other[1] - sums) <= _ROUNDING * sizes).all()
        if not is_same:
            raise ValueError(
                f"Got other rows in process {rank}, or in another order (encoded rows of shape "
                f"{other[0]} there, and {shape} here), but expected the same table in all "
                "processes: each computes its share of it."
            )
    own = fitted.members.select(range(fitted.members.n_members)[communicator.members])
    own.mask_sequence = communicator.row_share
    return inference.FittedEnsemble(
        fitted.encoder, own, fitted.likelihood, fitted.input_shape, fitted.rows_per_chunk
    )


def _sums_of(
    rows: training.DeviceDataset,
) -> tuple[tuple[int, ...], NDArray[np.float64], NDArray[np.float64]]:
    """Return the shape of the rows, and sums over them that depend on their order.

    They are not compared bit by bit, since machines of several kinds may round otherwise.
    """
    X = rows.X.flatten(1)
    factors = X.new_tensor(np.cos(np.arange(len(X))))
    parts = [X] if rows.y is None else [X, rows.y.to(X).unsqueeze(1)]
    sums, sizes = (
        np.concatenate([values.double().cpu().numpy() for values in of_parts])
        for of_parts in ([factors @ part for part in parts], [part.abs().sum(0) for part in parts])
    )
    return tuple(rows.X.shape), sums, sizes


def expect_all_members(net: Any) -> None:
    """Raise an error if a net has some of the members only, which make no estimator.

    Raises
    ------
    ValueError
        If it does.
    """
    if net.communicator.n_processes > 1:
        raise ValueError(
            "Got a callback that asks for the fitted attributes of each epoch, in one of several "
            "processes that train together, but expected one that does not."
        )
