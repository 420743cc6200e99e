"""Workers as tasks of Dask, each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import distributed
import joblib

from sklearn_fordes.distributed._outcomes import Died, Failed, Outcome
from sklearn_fordes.distributed._parcel import Parcel

_SECONDS_BETWEEN_LOOKS = 0.1
_SECONDS_BETWEEN_COUNTS = 0.5
_SECONDS_TO_LEAVE = 5.0
_SECONDS_FOR_A_RESULT = 30.0

# What differs between the processes of Dask workers; where the workers of a fit meet, by the name
# of the fit; and the fits that nobody waits for any more.
_PROCESS = uuid.uuid4().hex
_stores: dict[str, Any] = {}
_given_up: set[str] = set()


class Home(NamedTuple):
    """A Dask worker.

    Attributes
    ----------
    address : str
    process : str
        The name of its process, which may hold several of them.
    machine, devices : str
        Its machine, and what ``CUDA_VISIBLE_DEVICES`` shows of it.
    n_gpus : int
    n_cores : int or None
        None if the number of threads is set already.
    """

    address: str
    process: str
    machine: str
    devices: str
    n_gpus: int
    n_cores: int | None


class DaskTasks:
    """Tasks that fit, one for each process, to which the data are scattered once.

    Parameters
    ----------
    client : distributed.Client
    content : object
        What workers get.
    n_workers : int
    timeout : float
        Seconds for which workers wait for each other.
    uses_gpus : bool
        Whether each worker uses a CUDA device of its own if there are enough.
    """

    def __init__(
        self, client: Any, content: Any, n_workers: int, timeout: float, uses_gpus: bool
    ) -> None:
        if not isinstance(client, distributed.Client) or client.asynchronous:
            raise ValueError(f"Got backend={client!r}, but expected a Client that is synchronous.")
        self._client = client
        self._fit = f"sklearn_fordes-{uuid.uuid4().hex}"
        self._futures: list[Any] = []
        self._counted = time.monotonic()
        self._homes = _chosen(client.run(_home, uses_gpus), n_workers)
        try:
            self._start(content, n_workers, timeout, uses_gpus)
        except BaseException:
            self.end()
            raise

    def _start(self, content: Any, n_workers: int, timeout: float, uses_gpus: bool) -> None:
        client, addresses = self._client, [home.address for home in self._homes]
        topic = f"sklearn_fordes-{client.id}"
        client.subscribe_topic(topic, _show)
        meeting = client.run(_open_store, self._fit, timeout, workers=addresses[:1])[addresses[0]]
        [data] = client.scatter([Parcel.of(content)], workers=addresses, broadcast=True, hash=False)
        gpus = gpus_of(self._homes) if uses_gpus else [None] * n_workers
        threads = threads_of(self._homes)
        for rank, address in enumerate(addresses):
            place = (rank, n_workers, timeout, gpus[rank], threads[rank])
            future = client.submit(
                _fit_here,
                *(data, self._fit, meeting, place, topic),
                key=f"{self._fit}-{rank}",
                workers=[address],
                allow_other_workers=False,
                pure=False,
            )
            self._futures.append(future)

    def poll(self, ranks: list[int]) -> list[Outcome]:
        """Return the outcomes of those of some workers that are done, after a short wait."""
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        found = [self._outcome(rank) for rank in ranks if self._futures[rank].done()]
        now = time.monotonic()
        if now - self._counted > _SECONDS_BETWEEN_COUNTS:
            self._counted = now
            found += self._lost({*ranks} - {one.rank for one in found if one})
        return [one for one in found if one]

    def _lost(self, ranks: set[int]) -> list[Outcome | None]:
        """Return the deaths among some workers, for which Dask would wait for ever."""
        there = self._client.nthreads()
        addresses = {rank: self._homes[rank].address for rank in sorted(ranks)}
        return [
            Died(rank, f"with the Dask worker {address}")
            for rank, address in addresses.items()
            if address not in there
        ]

    def _outcome(self, rank: int) -> Outcome | None:
        future = self._futures[rank]
        try:
            outcome: Outcome = future.result(timeout=_SECONDS_FOR_A_RESULT)
        except TimeoutError:
            return None  # Its worker has died with the result, which shows in a later look.
        except distributed.KilledWorker as error:
            return Died(rank, f"with the Dask worker {self._homes[rank].address}", str(error))
        except Exception as error:
            return Failed(rank, f"{type(error).__name__}: {error}", str(error))
        return outcome

    def end(self, *, succeeded: bool = False) -> None:
        """Forget the tasks; after a failure, have those that wait for others end first."""
        if not succeeded:
            with contextlib.suppress(Exception):  # Its workers may be lost, or the cluster.
                there = self._client.nthreads()
                addresses = [one.address for one in self._homes if one.address in there]
                self._client.run(_give_up, self._fit, workers=addresses, on_error="ignore")
                self._wait_for_tasks_on(addresses)
            with contextlib.suppress(Exception):
                self._client.cancel(self._futures, force=True)
        self._futures = []

    def _wait_for_tasks_on(self, addresses: list[str]) -> None:
        """Wait a little, so that the workers can take part in another fit."""
        ends = time.monotonic() + _SECONDS_TO_LEAVE
        homes = zip(self._homes, self._futures, strict=False)
        waiting = [future for home, future in homes if home.address in addresses]
        while time.monotonic() < ends and not all(future.done() for future in waiting):
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def _chosen(homes: dict[str, Home], n_workers: int) -> list[Home]:
    """Return one Dask worker of each process, in the order of their addresses."""
    # A process can be in one process group only.
    of_process = {home.process: home for _, home in sorted(homes.items(), reverse=True)}
    found = sorted(of_process.values())
    if len(found) < n_workers:
        raise ValueError(
            f"Got n_workers={n_workers}, but expected at most {len(found)}, the number of "
            f"processes of the {len(homes)} workers of the Dask cluster."
        )
    return found[:n_workers]


def gpus_of(homes: list[Home]) -> list[int | None]:
    """Return a CUDA device for each worker, or None for all if not every one can have its own.

    Parameters
    ----------
    homes : list of Home
        In the order of ranks.
    """
    seen: Counter[tuple[str, str]] = Counter()
    found: list[int | None] = []
    for home in homes:
        # Workers that see different devices of a machine have been given their own.
        key = (home.machine, home.devices)
        found.append(seen[key])
        seen[key] += 1
        if seen[key] > home.n_gpus:
            return [None] * len(homes)
    return found


def threads_of(homes: list[Home]) -> list[int | None]:
    """Return the number of threads of each worker: its share of the cores of its machine.

    Parameters
    ----------
    homes : list of Home
    """
    n_on = Counter(home.machine for home in homes)
    return [
        None if home.n_cores is None else max(1, home.n_cores // n_on[home.machine])
        for home in homes
    ]


def _show(event: tuple[float, Any]) -> None:
    """Write at the client what rank 0 has written."""
    name, text = event[1]
    with contextlib.suppress(AttributeError, OSError, ValueError):
        stream = getattr(sys, name)
        stream.write(text)
        stream.flush()


# ---- in the processes of Dask workers


def _home(needs_gpus: bool, dask_worker: Any) -> Home:
    n_gpus = 0
    if needs_gpus:
        import torch

        n_gpus = torch.cuda.device_count()
    return Home(
        dask_worker.address,
        _PROCESS,
        socket.gethostname(),
        os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        n_gpus,
        None if "OMP_NUM_THREADS" in os.environ else joblib.cpu_count(),
    )


def _open_store(fit: str, timeout: float, dask_worker: Any) -> tuple[str, int]:
    from sklearn_fordes.distributed._stores import opened

    _stores[fit], address = opened(dask_worker.ip, timeout)
    return address


def _give_up(fit: str) -> None:
    _given_up.add(fit)
    _stores.pop(fit, None)


def _fit_here(
    parcel: Parcel, fit: str, meeting: tuple[str, int], place: tuple[Any, ...], topic: str
) -> Outcome:
    """Fit as one of the workers: the task."""
    from sklearn_fordes.distributed._stores import joined
    from sklearn_fordes.distributed._worker import Place, fit_as

    here = Place(*place)

    def meet() -> Any:
        if here.rank > 0:
            return joined(meeting, here.timeout)
        if fit not in _stores:
            raise RuntimeError("Got a new process for rank 0, whose first one died in the fit.")
        return _stores.pop(fit)

    with _spoken(topic) if here.rank == 0 else contextlib.nullcontext():
        return fit_as(here, meet, parcel, lambda: fit in _given_up)


@contextlib.contextmanager
def _spoken(topic: str) -> Iterator[None]:
    """Send the client what this thread writes inside the block."""
    with (
        contextlib.redirect_stdout(_ToClient("stdout", topic)),
        contextlib.redirect_stderr(_ToClient("stderr", topic)),
    ):
        yield


class _ToClient:
    """A stream whose text goes to the client. Other threads than this one write as before."""

    encoding = "utf-8"

    def __init__(self, name: str, topic: str) -> None:
        self._name = name
        self._topic = topic
        self._before = getattr(sys, name)
        self._thread = threading.get_ident()
        self._worker = distributed.get_worker()

    def write(self, text: str) -> int:
        """Write a text."""
        if threading.get_ident() != self._thread:
            return int(self._before.write(text))
        if text:
            self._worker.log_event(self._topic, (self._name, text))
        return len(text)

    def flush(self) -> None:
        """Write out what is kept, which is nothing."""

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return False
