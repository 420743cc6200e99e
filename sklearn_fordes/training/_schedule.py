"""How the learning rate changes in a run of training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from skorch.callbacks import LRScheduler

# Maps the share of a run that is done, in [0, 1], to a factor of the learning rates.
Schedule = Callable[[float], float]
# Share of a run in which one cycle's rate rises.
_RISE = 0.05


def one_cycle(done: float) -> float:
    """Rise from zero to one in the first twentieth of a run, and fall to zero.

    Both are linear (Smith, Topin: Super-convergence, 2018, with one phase for the way down).

    Parameters
    ----------
    done : float
        Share of the run's steps, in [0, 1].

    Returns
    -------
    float
        In [0, 1].
    """
    return min(done / _RISE, (1 - done) / (1 - _RISE))


def constant(done: float) -> float:  # noqa: ARG001 (schedules take it)
    """Return one."""
    return 1.0


def schedule_of(name: str, callbacks: Iterable[Any]) -> Schedule:
    """Return the schedule of a name.

    Parameters
    ----------
    name : {"auto", "one_cycle", "constant"}
        "auto" is one cycle, unless a callback changes the rates itself.
    callbacks : iterable
        Callbacks of skorch's, or pairs of a name and one.
    """
    if name == "auto":
        alone = [entry[1] if isinstance(entry, tuple) else entry for entry in callbacks]
        kinds = [entry if isinstance(entry, type) else type(entry) for entry in alone]
        name = "constant" if any(issubclass(kind, LRScheduler) for kind in kinds) else "one_cycle"
    return {"one_cycle": one_cycle, "constant": constant}[name]
