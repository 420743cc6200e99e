"""What each worker does, whatever started it: join the group, fit, and say how that ended."""

from __future__ import annotations

import pickle
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from sklearn_fordes.distributed._outcomes import Failed, Fitted
from sklearn_fordes.distributed._pickling import dumps

_SECONDS_BETWEEN_LOOKS = 0.02
# What gloo's errors, which have no type of their own, say of a peer that is gone.
_TRANSPORT = "gloo/transport"


@dataclass(frozen=True)
class Place:
    """The place of a worker among all.

    Attributes
    ----------
    rank, n_workers : int
    timeout : float
        Seconds that it waits for the others, in the beginning and in each exchange.
    gpu : int or None
        Index of the CUDA device of its own, if all have one.
    n_threads : int or None
        Of torch; None leaves them as they are.
    """

    rank: int
    n_workers: int
    timeout: float
    gpu: int | None = None
    n_threads: int | None = None


def fit_as(
    place: Place,
    meet: Callable[[], Any],
    parcel: Any,
    is_given_up: Callable[[], bool] = lambda: False,
) -> Fitted | Failed:
    """Fit in a process group, which ends with the fit.

    Parameters
    ----------
    place : Place
    meet : callable
        Returns the `torch.distributed.Store` where the workers meet.
    parcel : Parcel or FileOfParcel
        Estimator, X, y, further arguments of `fit`, and the value of ``distributed``.
    is_given_up : callable
        Returns whether nobody waits for the fit any more.
    """
    try:
        with _settings(place), _group(place, meet(), is_given_up):
            pickled = _fit(place, parcel)
            # Nobody leaves before all have what they need.
            distributed.all_reduce(torch.zeros(1, device="cpu" if place.gpu is None else "cuda"))
        return Fitted(place.rank, pickled)
    except BaseException as error:
        return failure(place.rank, error)


def _fit(place: Place, parcel: Any) -> bytes | None:
    """Fit, and return what rank 0 hands back."""
    estimator, X, y, fit_params, mode = parcel.open()
    estimator.set_params(distributed=mode)
    before = dict(vars(estimator))
    with warnings.catch_warnings(record=True) as caught:
        # The filters of the calling process decide what is shown.
        warnings.simplefilter("always")
        estimator.fit(X, y, **fit_params)
    if place.rank > 0:
        return None
    same = {name for name in before if vars(estimator).get(name, before) is before[name]}
    said = [(str(one.message), one.category) for one in caught]
    return dumps((estimator, same, said))


@contextmanager
def _settings(place: Place) -> Iterator[None]:
    """Use the threads and the device of a worker inside the block."""
    with ExitStack() as stack:
        if place.gpu is not None:
            stack.enter_context(torch.cuda.device(place.gpu))
        if place.n_threads is not None:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(place.n_threads)
        yield


@contextmanager
def _group(place: Place, store: Any, is_given_up: Callable[[], bool]) -> Iterator[None]:
    """Be in the default process group inside the block."""
    if distributed.is_initialized():
        raise RuntimeError(
            "Got a worker whose process is in a process group of torch already, but expected one "
            "that takes part in no other fit."
        )
    _wait_for_all(place, store, is_given_up)
    distributed.init_process_group(
        "gloo" if place.gpu is None else "nccl",
        store=store,
        rank=place.rank,
        world_size=place.n_workers,
        timeout=timedelta(seconds=place.timeout),
    )
    try:
        yield
    except BaseException:
        if place.gpu is not None:
            # NCCL would wait for an exchange that the others don't take part in any more.
            distributed.distributed_c10d._abort_process_group()
        raise
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _wait_for_all(place: Place, store: Any, is_given_up: Callable[[], bool]) -> None:
    """Wait until all workers are there.

    Torch would wait in a call that nothing can end when one of them is lost.
    """
    names = [f"sklearn_fordes/rank{rank}" for rank in range(place.n_workers)]
    if store.add(names[place.rank], 1) > 1:
        raise RuntimeError(
            "Got a second start of a worker, whose process died and was started again, but "
            "expected one. A fit in several processes can't go on without one of them."
        )
    ends = time.monotonic() + place.timeout
    while not store.check(names):
        if is_given_up():
            raise distributed.DistStoreError("The fit has failed in another worker.")
        if time.monotonic() > ends:
            there = sum(store.check([name]) for name in names)
            raise TimeoutError(
                f"Got {there} of {place.n_workers} workers in {place.timeout:g} s, but expected "
                "all. The cluster may be busy; try a longer timeout."
            )
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def failure(rank: int, error: BaseException) -> Failed:
    """Return the outcome of a worker that raised an error."""
    summary = "".join(traceback.format_exception_only(error)).strip()
    text = "".join(traceback.format_exception(error))
    try:
        pickled = dumps(error)
        pickle.loads(pickled)
    except Exception:  # The error's own code may raise anything.
        pickled = None
    return Failed(rank, summary, text, pickled, _is_consequence(error))


def _is_consequence(error: BaseException | None) -> bool:
    """Return whether an error, or one behind it, says that the exchange with a worker is lost."""
    while error is not None:
        if isinstance(error, distributed.DistError):
            return True
        if isinstance(error, RuntimeError) and _TRANSPORT in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
