"""The seam for members and rows that are spread over processes."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

Number = TypeVar("Number", int, Tensor)


class Communicator:
    """What an update needs from other processes; this one reaches none.

    Attributes
    ----------
    first_member : int
        Index, among all members, of the first one that this process holds.
    """

    first_member = 0

    def gather(self, representation: Tensor) -> Tensor:
        """Return the representation of all members: (m, B, K) → (M, B, K), detached."""
        return representation

    def sum(self, values: Number) -> Number:
        """Sum over the processes that hold the same members at other rows."""
        return values


# All members and rows are in this process.
ALONE = Communicator()
