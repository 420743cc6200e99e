"""Work that is shared out over threads, each of which computes alone, with results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from threading import Event
from typing import TypeVar

import torch

from sklearn_fordes.inference._surroundings import can_compute_alone, this_thread_alone

T = TypeVar("T")


class NoThreadError(RuntimeError):
    """The system gives this process no more threads."""


def n_threads_alone() -> int:
    """Return how many threads may compute alone at once: as many as torch would use together."""
    return torch.get_num_threads() if can_compute_alone() else 1


def in_order(calls: Iterable[Callable[[], Iterable[T]]], n_threads: int) -> Iterator[list[T]]:
    """Yield all that each call yields, in their order, while threads work on the next ones.

    One thread that runs a whole piece of work keeps its numbers in its cache, and waits for no
    other thread at the end of each operation. No more than two calls for each thread are begun or
    done and not yet asked for, so that memory does not grow with their number.

    Parameters
    ----------
    calls : iterable of callables
        Each returns what it yields. This thread makes them; another one calls them, where torch
        computes with one thread, and takes over the context variables of this one.
    n_threads : int

    Yields
    ------
    list
        Of one call.

    Raises
    ------
    NoThreadError
        If the system starts no thread.
    BaseException
        The error of the first call that raises one, after the lists of the calls before it. An
        error, an interrupt of this thread and the end of this generator end the other calls where
        they next yield something; when it has ended, so have its threads.
    """
    is_over = Event()

    def work(call: Callable[[], Iterable[T]]) -> list[T]:
        found: list[T] = []
        with this_thread_alone():
            for one in () if is_over.is_set() else call():
                found.append(one)
                if is_over.is_set():
                    break
        return found

    pool = ThreadPoolExecutor(n_threads, "prediction")
    pending: deque[Future[list[T]]] = deque()
    try:
        for call in calls:
            try:
                pending.append(pool.submit(copy_context().run, work, call))
            except RuntimeError as error:
                raise NoThreadError(str(error)) from error
            if len(pending) == 2 * n_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        is_over.set()
        pool.shutdown(cancel_futures=True)
