"""Whether a step needs the host while it runs: for values, or for the state of a generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_aten = torch.ops.aten
_INDEXING = {_aten.index, _aten.index_put, _aten.index_put_}
_COPYING = {_aten.copy_, _aten._to_copy}
# The host waits for a value, or for how many there are; or it makes a tensor of its own numbers.
_ON_HOST = {
    _aten._local_scalar_dense,
    _aten.is_nonzero,
    _aten.equal,
    _aten.nonzero,
    _aten.masked_select,
    _aten._unique2,
    _aten.unique_dim,
    _aten.unique_consecutive,
    _aten.bincount,
    _aten.lift_fresh,
}


def needs_host(operation: Any, arguments: Sequence[Any], *others: Any) -> bool:
    """Return whether an operation reads values on the host, moves some between devices, or draws.

    What draws changes the state of a generator, which is on the host.

    Parameters
    ----------
    operation : torch.OpOverload
    arguments : sequence
        Its arguments without a name.
    *others
        Its other arguments, and its results.

    Returns
    -------
    bool
    """
    name = operation.overloadpacket
    if name in _ON_HOST or torch.Tag.nondeterministic_seeded in operation.tags:
        return True
    if name in _INDEXING and any(
        index is not None and index.dtype in (torch.bool, torch.uint8) for index in arguments[1]
    ):
        return True
    tensors = [part for part in tree_leaves((arguments, others)) if isinstance(part, Tensor)]
    # A single number of the host's may be an argument of a kernel.
    devices = {part.device.type for part in tensors if part.ndim or name in _COPYING}
    return len(devices) > 1


class HostAccess(TorchDispatchMode):
    """Note whether operations inside the block need the host (see `needs_host`).

    Attributes
    ----------
    is_needed : bool
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_needed = False

    def __torch_dispatch__(
        self, operation: Any, types: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        named = named or {}
        results = operation(*arguments, **named)
        self.is_needed = self.is_needed or needs_host(operation, arguments, named, results)
        return results
