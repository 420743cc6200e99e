"""How many rows are evaluated at once: fewer where memory has run out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from sklearn_fordes._warnings import warn

# What torch and its libraries say if there is no memory left, where the error has no type of its
# own.
_NO_MEMORY = re.compile("out of memory|ALLOC_FAILED|bad_alloc|DefaultCPUAllocator", re.IGNORECASE)

T = TypeVar("T")


class Chunks:
    """How many rows are evaluated at once in one call: fewer once memory has run out.

    Parameters
    ----------
    n_rows : int
        At most, to begin with.
    least : int
        Chunks that memory makes smaller are multiples of it, as an ensemble with such a
        `row_multiple` asks for.
    """

    def __init__(self, n_rows: int, least: int) -> None:
        self.n_rows = n_rows
        self._least = least
        self._is_told = False

    def results(self, n_rows: int, device: torch.device, call: Callable[[slice], T]) -> Iterator[T]:
        """Yield what a function returns for successive slices of rows.

        Parameters
        ----------
        n_rows : int
            Of all slices.
        device : torch.device
            Where memory may run out.
        call : callable

        Raises
        ------
        MemoryError or RuntimeError
            If memory runs out for a chunk that can't be smaller.

        Warns
        -----
        UserWarning
            The first time that chunks are smaller.
        """
        start = tried = 0
        while start < n_rows:
            stop = min(start + self.n_rows, n_rows)
            try:
                result = call(slice(start, stop))
            except (MemoryError, RuntimeError) as error:
                n_tried = stop - start
                if n_tried <= self._least or not is_out_of_memory(error):
                    raise
                tried = tried or n_tried
                self.n_rows = max(1, n_tried // (2 * self._least)) * self._least
            else:
                if tried and not self._is_told:
                    self._is_told = True
                    warn(
                        f"Memory ran out on the device {device} for {tried} rows at once, and the "
                        f"rest of this call takes {self.n_rows} at once. The parameter "
                        "iterator_valid__batch_size says how many rows prediction takes at most."
                    )
                yield result
                start = stop
                continue
            # The error is forgotten here, and with it the tensors that its frames held.
            _release_memory(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a device or the machine has no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))


def _release_memory(device: torch.device) -> None:
    """Give back what torch keeps of a device's memory for later, in blocks of other sizes."""
    empty_cache = getattr(getattr(torch, device.type, None), "empty_cache", None)
    if empty_cache is not None:  # The CPU has none.
        empty_cache()
