"""Parts of a table computed side by side, and handed on in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from sklearn_fordes.inference._surroundings import this_thread_alone

A = TypeVar("A")
T = TypeVar("T")


def in_threads(call: Callable[[A], T], items: Iterable[A], n_threads: int) -> Iterator[tuple[A, T]]:
    """Yield items in their order, and what a function makes of each in one of several threads.

    Parameters
    ----------
    call : callable
        Computes without further threads.
    items : iterable
        Taken in the thread of the caller, a few before they are yielded.
    n_threads : int

    Raises
    ------
    Exception
        What the call raises for the next item; nothing more is computed then.
    """

    def alone(item: A) -> T:
        with this_thread_alone():
            return call(item)

    waiting: deque[tuple[A, Future[T]]] = deque()
    with ThreadPoolExecutor(n_threads) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(alone, item)))
                if len(waiting) > 2 * n_threads:  # Each has its next one while the caller works.
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
