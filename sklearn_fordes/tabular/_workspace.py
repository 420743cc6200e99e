"""Memory for what a training step computes on its way."""

from __future__ import annotations

import math
import threading
import weakref

import torch
from torch import Tensor

# Of the start of each tensor, in elements, so that no two share a cache line.
_ALIGNMENT = 32


class Workspace(threading.local):
    """One block of memory that each step fills from its beginning, and the next step fills again.

    Fresh memory costs as much as the arithmetic: the system hands it out page by page, and a step
    of ten members takes a hundred megabytes and gives them back. Each thread has a block.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Give the memory back."""
        self._block = torch.empty(0)
        self._lease: weakref.ref[Lease] | None = None
        self._gradients: dict[Tensor, Tensor] = {}
        self.n_wanted = 0

    def lease(self, like: Tensor) -> Lease:
        """Lend the block, for tensors of the type and on the device of `like`.

        While one lease lives there is nothing to lend to another, which takes fresh memory;
        compiled code plans its own.
        """
        if torch.compiler.is_compiling():
            return Lease(like.new_empty(0), None)
        if self._lease is not None and self._lease() is not None:
            return Lease(like.new_empty(0), self)
        block = self._block
        if block.dtype != like.dtype or block.device != like.device or len(block) < self.n_wanted:
            self._block = block = like.new_empty(self.n_wanted)
        lease = Lease(block, self)
        self._lease = weakref.ref(lease)
        return lease

    def gradient(self, parameter: Tensor) -> Tensor:
        """Return memory for a parameter's gradient, the same each time."""
        if torch.compiler.is_compiling():
            return torch.empty_like(parameter)
        found = self._gradients.get(parameter)
        if found is None or found.dtype != parameter.dtype or found.device != parameter.device:
            found = self._gradients[parameter] = torch.empty_like(parameter, requires_grad=False)
        return found


class Lease:
    """The block of a workspace, filled from its beginning."""

    def __init__(self, block: Tensor, workspace: Workspace | None) -> None:
        self._block = block
        self._workspace = workspace
        self._n_used = 0

    def empty(self, *shape: int) -> Tensor:
        """Return a tensor of that shape whose values are left over."""
        if self._workspace is None:
            return self._block.new_empty(shape)
        size = math.prod(shape)
        start = self._n_used
        self._n_used += -(-size // _ALIGNMENT) * _ALIGNMENT
        if self._n_used > len(self._block):  # there will be room for it in the next step
            self._workspace.n_wanted = max(self._workspace.n_wanted, self._n_used)
            return self._block.new_empty(shape)
        return self._block[start : start + size].view(shape)

    def empty_like(self, tensor: Tensor) -> Tensor:
        """Return a contiguous tensor of that tensor's shape whose values are left over."""
        return self.empty(*tensor.shape)

    def scratch_like(self, tensor: Tensor) -> Tensor:
        """Return such a tensor, to be used before another one is asked for."""
        if self._workspace is None:
            return self._block.new_empty(tensor.shape)
        start = self._n_used
        scratch = self.empty_like(tensor)
        self._n_used = start
        return scratch
