"""Parts of a table computed side by side, and handed on in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from sklearn_fordes.inference._surroundings import this_thread_alone

A = TypeVar("A")
T = TypeVar("T")


def in_threads(
    call: Callable[[A], T], items: Iterable[A], n_threads: int
) -> Generator[tuple[A, T]]:
    """Yield items in their order, and what a function makes of each in one of several threads.

    It ends before the last item where no thread can start: at the end of the interpreter.

    Parameters
    ----------
    call : callable
        Computes without further threads. Settings of the caller's thread, such as numpy's for
        errors, don't reach it.
    items : iterable
        Taken in the thread of the caller, one more than there are threads before the first result.
    n_threads : int

    Raises
    ------
    Exception
        What the call raises for the next item. Calls that have begun end first.
    """

    def alone(item: A) -> T:
        with this_thread_alone():
            return call(item)

    waiting: deque[tuple[A, Future[T]]] = deque()
    with ThreadPoolExecutor(n_threads, thread_name_prefix="prediction") as pool:
        try:
            for item in items:
                try:
                    waiting.append((item, pool.submit(alone, item)))
                except RuntimeError:
                    break
                if len(waiting) > n_threads:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
