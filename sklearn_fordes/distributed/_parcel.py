"""What workers get: objects as one pickle, and their arrays apart, which they can share."""

from __future__ import annotations

import mmap
import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from sklearn_fordes.distributed._pickling import dumps

# Arrays begin at multiples of a cache line, as numpy's own do at least in part.
_ALIGNMENT = 64


@dataclass(frozen=True)
class Parcel:
    """Objects as a pickle, by cloudpickle: lambdas and classes of a script or notebook too.

    Attributes
    ----------
    pickled : bytes
        All but the arrays.
    buffers : list of ndarray of uint8
        The memory of the arrays, without copies of it.
    """

    pickled: bytes
    buffers: list[NDArray[np.uint8]]

    @classmethod
    def of(cls, value: Any) -> Self:
        """Pack an object."""
        buffers: list[pickle.PickleBuffer] = []
        pickled = dumps(value, protocol=5, buffer_callback=buffers.append)
        return cls(pickled, [np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers])

    def open(self) -> Any:
        """Return the object, whose arrays are views of the buffers."""
        return pickle.loads(self.pickled, buffers=[_aligned(one) for one in self.buffers])

    def write(self, path: Path) -> FileOfParcel:
        """Write the arrays to a file, and return how to find them there."""
        places = []
        with path.open("wb") as file:
            for buffer in self.buffers:
                file.write(b"\0" * (-file.tell() % _ALIGNMENT))
                places.append((file.tell(), buffer.size))
                file.write(buffer.data)
        return FileOfParcel(self.pickled, path, places)


def _aligned(buffer: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a buffer that begins where numbers may: numpy sums others in another order."""
    return buffer.copy() if buffer.ctypes.data % 16 else buffer


class FileOfParcel(NamedTuple):
    """A parcel whose arrays are in a file.

    Attributes
    ----------
    pickled : bytes
    path : Path
    places : list of (int, int)
        Where the bytes of each array begin in the file, and how many there are.
    """

    pickled: bytes
    path: Path
    places: list[tuple[int, int]]

    def open(self) -> Any:
        """Return the object.

        Processes share its arrays as long as they only read them. What one writes is its own.
        """
        return pickle.loads(self.pickled, buffers=self._buffers())

    def _buffers(self) -> Iterable[memoryview]:
        if not any(size for _, size in self.places):  # An empty file can't be mapped.
            return [memoryview(bytearray()) for _ in self.places]
        with self.path.open("rb") as file:
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        return [mapped[start : start + size] for start, size in self.places]
