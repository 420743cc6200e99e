"""How the learning rate changes in a run of training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from skorch.callbacks import LRScheduler

# Maps the share of a run that is done, in [0, 1], and its number of epochs to a factor of the
# learning rates.
Schedule = Callable[[float, int], float]
# Share of a run in which one cycle's rate rises, and epochs at most: a run may be ended early.
_RISE, _LONGEST_RISE = 0.05, 3


def one_cycle(done: float, n_epochs: int) -> float:
    """Rise from zero to one in a twentieth of a run, three epochs at most, and fall to zero.

    Both are linear (Smith, Topin: Super-convergence, 2018, with one phase for the way down).

    Parameters
    ----------
    done : float
        Share of the run's steps, in [0, 1].
    n_epochs : int
        Of the run.

    Returns
    -------
    float
        In [0, 1].
    """
    rise = min(_RISE, _LONGEST_RISE / n_epochs)
    return min(done / rise, (1 - done) / (1 - rise))


def constant(done: float, n_epochs: int) -> float:  # noqa: ARG001 (schedules take them)
    """Return one."""
    return 1.0


def schedule_of(name: str, callbacks: Iterable[Any]) -> Schedule:
    """Return the schedule of a name.

    Parameters
    ----------
    name : {"auto", "one_cycle", "constant"}
        "auto" is one cycle, unless there is an `LRScheduler`.
    callbacks : iterable
        Callbacks of skorch's, or pairs of a name and one.
    """
    if name == "auto":
        alone = [entry[1] if isinstance(entry, tuple) else entry for entry in callbacks]
        kinds = [entry if isinstance(entry, type) else type(entry) for entry in alone]
        name = "constant" if any(issubclass(kind, LRScheduler) for kind in kinds) else "one_cycle"
    return {"one_cycle": one_cycle, "constant": constant}[name]
