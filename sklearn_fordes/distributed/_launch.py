"""Start workers, wait for them, and give the caller's estimator what they have learnt."""

from __future__ import annotations

import math
import pickle
import time
from contextlib import ExitStack
from numbers import Integral
from typing import Any, Protocol, TypeVar

from sklearn_fordes._warnings import warn
from sklearn_fordes.distributed._outcomes import (
    Died,
    Failed,
    Fitted,
    Outcome,
    is_final,
    raise_cause,
)

Estimator = TypeVar("Estimator")

_MODES = ("members", "rows")
# A worker that has lost another one may say so before it is known how the other one ended.
_SECONDS_FOR_THE_CAUSE = 5.0


class Workers(Protocol):
    """What a back end offers."""

    def poll(self, ranks: list[int]) -> list[Outcome]:
        """Return the outcomes of those of some workers that are done, after a short wait."""

    def end(self, *, succeeded: bool = False) -> None:
        """End all workers, and remove what they leave."""


def fit(
    estimator: Estimator,
    X: Any,
    y: Any = None,
    *,
    n_workers: int = 2,
    backend: Any = "processes",
    mode: str | None = None,
    timeout: float = 1800.0,
    **fit_params: Any,
) -> Estimator:
    """Fit an estimator in several processes at once.

    Each process trains its share of the members, or all of them on its share of the rows. The call
    starts the processes and ends them, so a script or a notebook needs nothing else.

    Parameters
    ----------
    estimator : estimator
        With the parameter ``distributed``, such as a `FoRDEClassifier`. Its other parameters and
        the data reach workers by pickle; lambdas and classes of a script or notebook do, too.
    X, y : as in fit
    n_workers : int, default=2
        Number of processes.
    backend : {"processes", "ray"} or dask.distributed.Client, default="processes"
        Where they run. "processes" is this machine; each worker computes with its share of the
        cores, unless the environment variable ``OMP_NUM_THREADS`` says with how many. "ray" is the
        cluster that Ray is connected to; if there is none ``ray.init()`` starts one here, and it
        ends with the call. A client of Dask names that cluster; each worker is a process of its
        own.
    mode : {"members", "rows"}, optional
        The value of ``distributed`` in this fit. By default that of the estimator, or "members" if
        it is None.
    timeout : float, default=1800
        Seconds that a worker waits for the others, at the start and in each exchange. An error
        or a death of a worker ends the call in seconds, whatever the timeout is.
    **fit_params
        Further arguments of ``estimator.fit``.

    Returns
    -------
    estimator
        The given estimator, fitted as the one of rank 0. Its parameters are those it had, the same
        objects. What callbacks record of epochs is in ``history_``; their records of batches, and
        what they and the like keep in objects of their own, stay in the workers.

    Raises
    ------
    ValueError
        If an argument is not as expected.
    TypeError
        If the estimator has no parameter ``distributed``, or something can't be pickled.
    TimeoutError
        If workers don't start in time.
    RuntimeError
        If a worker dies.
    Exception
        The error of a worker, with its traceback as the cause. After any error the estimator is as
        it was before the call.

    Warns
    -----
    Warning
        What the fit of rank 0 warns of.

    Notes
    -----
    CUDA devices serve if `device` is "cuda" or "auto" and there is one for each worker, with NCCL
    between them. Else workers exchange by gloo.

    An interrupt from the keyboard ends the workers, and the estimator stays as it was. With
    `checkpoint_dir` the same call goes on after it, as after the death of a worker.

    Workers on a cluster need this package, and paths that mean the same on each machine. They
    listen on ports of their machines without a password, as those of torch do. Where these have
    several networks, the environment variable ``GLOO_SOCKET_IFNAME`` of the workers names the right
    one. Arrays in Ray's shared memory can't be written to, which an encoder of your own must bear.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_fordes import FoRDEClassifier
    >>> from sklearn_fordes.distributed import fit
    >>> X, y = load_iris(return_X_y=True)
    >>> model = fit(FoRDEClassifier(4), X, y, n_workers=2)  # doctest: +SKIP
    """
    mode = _checked(estimator, n_workers, mode, timeout)
    expect = getattr(type(estimator), "_expect_workers", None)
    if expect is not None:  # Before processes start, which takes seconds.
        expect(estimator, int(n_workers), mode, fit_params, fit)
    content = (estimator, X, y, fit_params, mode)
    uses_gpus = str(getattr(estimator, "device", "cpu")) in ("auto", "cuda")
    workers = _started(backend, content, int(n_workers), float(timeout), uses_gpus)
    with ExitStack() as stack:
        stack.callback(workers.end)
        pickled = _awaited(workers, int(n_workers), _advice(estimator))
        stack.pop_all()
    workers.end(succeeded=True)
    _adopt(estimator, pickled)
    return estimator


def _checked(estimator: Any, n_workers: Any, mode: Any, timeout: Any) -> str:
    """Return the mode, after checks of all arguments but the back end."""
    is_estimator = hasattr(estimator, "get_params") and not isinstance(estimator, type)
    if not is_estimator or "distributed" not in estimator.get_params(deep=False):
        raise TypeError(
            f"Got estimator={estimator!r}, but expected one with the parameter distributed, such "
            "as a FoRDEClassifier."
        )
    if isinstance(n_workers, bool) or not isinstance(n_workers, Integral) or n_workers < 1:
        raise ValueError(f"Got n_workers={n_workers!r}, but expected a whole number of at least 1.")
    if mode is None:
        mode = estimator.get_params(deep=False)["distributed"] or "members"
    if mode not in _MODES:
        raise ValueError(f"Got mode={mode!r}, but expected 'members', 'rows' or None.")
    if not 0 < timeout < math.inf:
        raise ValueError(f"Got timeout={timeout!r}, but expected a positive number of seconds.")
    return str(mode)


def _started(backend: Any, content: Any, n_workers: int, timeout: float, gpus: bool) -> Workers:
    """Start the workers of a back end, whose library is only imported if it is asked for."""
    if isinstance(backend, str) and backend == "processes":
        from sklearn_fordes.distributed._processes import Processes

        return Processes(content, n_workers, timeout, gpus)
    if isinstance(backend, str) and backend == "ray":
        from sklearn_fordes.distributed._ray import RayActors

        return RayActors(content, n_workers, timeout, gpus)
    if any(kind.__module__.startswith("distributed.") for kind in type(backend).__mro__):
        from sklearn_fordes.distributed._dask import DaskTasks

        return DaskTasks(backend, content, n_workers, timeout, gpus)
    raise ValueError(
        f"Got backend={backend!r}, but expected 'processes', 'ray' or a Client of dask.distributed."
    )


def _awaited(workers: Workers, n_workers: int, advice: str) -> bytes:
    """Return what rank 0 hands back, when all are done.

    Raises
    ------
    Exception
        As soon as it is known why the fit failed.
    """
    waiting = set(range(n_workers))
    failures: list[Failed | Died] = []
    pickled, deadline = b"", math.inf
    while waiting and not is_final(failures) and time.monotonic() < deadline:
        for outcome in workers.poll(sorted(waiting)):
            waiting.discard(outcome.rank)
            if isinstance(outcome, Fitted):
                pickled = outcome.pickled or pickled
                continue
            failures.append(outcome)
            deadline = min(deadline, time.monotonic() + _SECONDS_FOR_THE_CAUSE)
    if failures:
        raise_cause(failures, n_workers, advice)
    return pickled


def _advice(estimator: Any) -> str:
    """Return what to do after the death of a worker."""
    folder = estimator.get_params(deep=False).get("checkpoint_dir", ...)
    if folder is ...:
        return "The estimator is as it was before the call."
    if folder is None:
        return "With checkpoint_dir the same call goes on where the last one wrote a checkpoint."
    return f"The same call goes on from the last checkpoint in checkpoint_dir={str(folder)!r}."


def _adopt(estimator: Any, pickled: bytes) -> None:
    """Give the estimator what the one of rank 0 has learnt, all at once."""
    fitted, same, said = pickle.loads(pickled)
    for message, category in said:
        warn(message, category)
    own = {name for name in same if not (name.startswith("_") or name.endswith("_"))}
    own.update(estimator.get_params(deep=False))
    kept = {name: value for name, value in vars(estimator).items() if name in own}
    estimator.__dict__ = {**vars(fitted), **kept}
