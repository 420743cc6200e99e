"""What a fit warns of at its end."""

from __future__ import annotations

from typing import Any

from sklearn.exceptions import ConvergenceWarning

from sklearn_fordes import inference
from sklearn_fordes._warnings import warn


def warn_of_end(ended_by: str, n_epochs: int, max_epochs: int) -> None:
    """Warn that training did not come to its end.

    Parameters
    ----------
    ended_by : {"interrupted", "late", "cut"}
        As `training.train` returns it.
    n_epochs, max_epochs : int
        How many epochs there were, and how many there could have been.
    """
    end = {
        "interrupted": f"interrupted after {n_epochs} of {max_epochs} epochs",
        "late": f"ended by max_time after {n_epochs} of {max_epochs} epochs",
        "cut": f"ended by max_time within epoch {n_epochs} of {max_epochs}",
    }[ended_by]
    advice = ""
    if ended_by == "cut" and n_epochs == 1:
        advice = " The first epoch alone takes longer, so give more time."
    warn(
        f"Training was {end}, and the fit is kept as it was then (with early stopping: as in the "
        f"best epoch).{advice}",
        ConvergenceWarning,
    )


def warn_if_nothing_was_learnt(fitted: inference.FittedEnsemble, rows: Any, best: float) -> None:
    """Warn if the best validation loss is no better than that of a constant.

    Parameters
    ----------
    fitted : FittedEnsemble
    rows : DeviceDataset
        Training rows, with those that validate.
    best : float
        The best validation loss.
    """
    weight = rows.sample_weight
    if weight is not None and weight.ndim == 2:
        weight = weight.mean(1)
    valid = rows.valid
    constant = fitted.likelihood.constant_loss(rows.y, weight, valid.y, valid.sample_weight)
    if best >= constant:
        look = ", and look at encoder_.report()" if hasattr(fitted.encoder, "report") else ""
        warn(
            f"The best validation loss, {best:.4g}, is no better than that of predicting the "
            f"distribution of y for every row, {constant:.4g}: nothing was learnt from X. Try "
            f"more epochs, another lr or more rows{look}.",
            ConvergenceWarning,
        )
