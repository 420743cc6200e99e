"""Workers as actors of Ray, one process each."""

from __future__ import annotations

import contextlib
import math
import os
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from sklearn_fordes.distributed._outcomes import Died, Failed, Outcome
from sklearn_fordes.distributed._parcel import Parcel

_SECONDS_BETWEEN_LOOKS = 0.1


class Rank:
    """What runs in the process of an actor.

    Parameters
    ----------
    rank, n_workers : int
    timeout : float
    """

    def __init__(self, rank: int, n_workers: int, timeout: float) -> None:
        self._rank = rank
        self._n_workers = n_workers
        self._timeout = timeout
        self._store: Any = None

    def open_store(self) -> tuple[str, int]:
        """Open the place where workers meet, and return its address. For rank 0."""
        from sklearn_fordes.distributed._stores import opened

        self._store, address = opened(ray.util.get_node_ip_address(), self._timeout)
        return address

    def fit(self, address: tuple[str, int], gpu: int | None, parcel: Parcel) -> Outcome:
        """Fit as one of the workers."""
        from sklearn_fordes.distributed._stores import joined
        from sklearn_fordes.distributed._worker import Place, fit_as

        place = Place(self._rank, self._n_workers, self._timeout, gpu)
        with contextlib.ExitStack() as stack:
            if self._rank > 0:  # Ray shows what its workers write, and rank 0 speaks for all.
                nowhere = stack.enter_context(open(os.devnull, "w"))
                stack.enter_context(contextlib.redirect_stderr(nowhere))
                stack.enter_context(contextlib.redirect_stdout(nowhere))
            return fit_as(place, lambda: self._store or joined(address, self._timeout), parcel)


class RayActors:
    """Actors that fit, on one CPU each, with one copy of the data for each machine.

    Parameters
    ----------
    content : object
        What workers get.
    n_workers : int
    timeout : float
        Seconds for which workers wait for each other.
    uses_gpus : bool
        Whether each worker uses a CUDA device of its own if there are enough.
    """

    def __init__(self, content: Any, n_workers: int, timeout: float, uses_gpus: bool) -> None:
        self._is_own_cluster = not ray.is_initialized()
        self._actors: list[Any] = []
        if self._is_own_cluster:
            ray.init(include_dashboard=False)
        try:
            self._start(content, n_workers, timeout, uses_gpus)
        except BaseException:
            self.end()
            raise

    def _start(self, content: Any, n_workers: int, timeout: float, uses_gpus: bool) -> None:
        has = ray.cluster_resources()
        n_cpus = math.floor(has.get("CPU", 0))
        if n_cpus < n_workers:
            raise ValueError(
                f"Got n_workers={n_workers}, but expected at most {n_cpus}, the number of CPUs of "
                "the Ray cluster."
            )
        # Ray shows each actor its own device as the first one.
        gpu = 0 if uses_gpus and has.get("GPU", 0) >= n_workers else None
        kind = ray.remote(num_cpus=1, num_gpus=0 if gpu is None else 1, max_restarts=0)(Rank)
        for rank in range(n_workers):
            self._actors.append(kind.remote(rank, n_workers, timeout))
        data = ray.put(Parcel.of(content))
        address = self._address(timeout)
        self._fits = [actor.fit.remote(address, gpu, data) for actor in self._actors]

    def _address(self, timeout: float) -> tuple[str, int]:
        """Wait for rank 0 to start, and return where it waits for the others."""
        try:
            address: tuple[str, int] = ray.get(self._actors[0].open_store.remote(), timeout=timeout)
        except ray.exceptions.GetTimeoutError:
            raise TimeoutError(
                f"Got no worker in {timeout:g} s, but expected that the Ray cluster starts one. It "
                "may be busy; try a longer timeout."
            ) from None
        except RayActorError as error:
            raise RuntimeError("The worker of rank 0 died before the fit.") from error
        return address

    def poll(self, ranks: list[int]) -> list[Outcome]:
        """Return the outcomes of those of some workers that are done, after a short wait."""
        waiting = [self._fits[rank] for rank in ranks]
        done, _ = ray.wait(waiting, num_returns=1, timeout=_SECONDS_BETWEEN_LOOKS)
        return [self._outcome(self._fits.index(one)) for one in done]

    def _outcome(self, rank: int) -> Outcome:
        try:
            outcome: Outcome = ray.get(self._fits[rank])
        except RayActorError as error:
            return Died(rank, "in its Ray actor", str(error))
        except RayError as error:
            return Failed(rank, f"{type(error).__name__}: {error}", str(error))
        return outcome

    def end(self, *, succeeded: bool = False) -> None:
        """End all actors, and the cluster if it was started for them."""
        for actor in self._actors:
            ray.kill(actor)
        if self._is_own_cluster:
            ray.shutdown()
