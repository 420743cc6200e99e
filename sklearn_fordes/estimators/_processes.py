"""The share of a fit that one of several processes does."""

from __future__ import annotations

from typing import Any

import numpy as np

from sklearn_fordes import inference, particles, training


def share_of(
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
        If the processes have other rows, or another number of members.
    """
    if communicator.n_processes == 1:
        return fitted
    sums = [float(part.double().sum()) for part in (rows.X, rows.y) if part is not None]
    seen = (fitted.members.n_members, *rows.X.shape)
    everyone = communicator.every((seen, sums))
    if any(s != seen or not np.allclose(v, sums, rtol=1e-6) for s, v in everyone):
        found = ", ".join(f"{s} with the sums {v}" for s, v in everyone)
        raise ValueError(
            f"Got other rows or members in other processes (numbers of members, rows and columns: "
            f"{found}), but expected the same table and parameters in each: a process computes its "
            "share of it."
        )
    own = fitted.members.select(range(fitted.members.n_members)[communicator.members])
    own.sequence = communicator.row_share
    return inference.FittedEnsemble(
        fitted.encoder, own, fitted.likelihood, fitted.input_shape, fitted.rows_per_chunk
    )


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
