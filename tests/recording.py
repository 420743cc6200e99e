"""Recording of a function's operations on a CPU, as a CUDA graph records them on a GPU.

What happens to numbers outside of torch's operations is not recorded, so that a replay has what the
host computed in the recording, as that of a graph has. Each operation writes to the same memory in
every replay. What a capture refuses is refused: a value that the host reads, and one that it sends.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from sklearn_fordes.training._host_access import needs_host


class Recording(TorchDispatchMode):
    """Notes operations with their tensors, and what the tensors were that it changes."""

    def __init__(self):
        super().__init__()
        self.operations, self.before, self._own = [], {}, set()

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        named = named or {}
        if needs_host(operation, arguments, named):
            raise RuntimeError(f"Got {operation} in a recording, but expected no values on a host.")
        for written in self._written(operation, arguments, named):
            address = written.untyped_storage().data_ptr()
            if address not in self._own:
                self.before.setdefault(address, (written.detach(), whole(written).clone()))
        results = operation(*arguments, **named)
        known = {t.untyped_storage().data_ptr() for t in tensors_of((arguments, named))}
        self._own |= {t.untyped_storage().data_ptr() for t in tensors_of(results)} - known
        # Results of views of autograd's would keep its graph.
        kept = tree_map_only(torch.Tensor, torch.Tensor.detach, (arguments, named, results))
        self.operations.append((operation, *kept))
        return results

    def _written(self, operation, arguments, named):
        for i, argument in enumerate(operation._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                yield from tensors_of(arguments[i] if i < len(arguments) else named[argument.name])

    def undo(self):
        for tensor, values in self.before.values():
            whole(tensor).copy_(values)

    @torch.no_grad()
    def replay(self):
        for operation, arguments, named, recorded in self.operations:
            results = operation(*arguments, **named)
            for new, old in zip(tensors_of(results), tensors_of(recorded), strict=True):
                if new.untyped_storage().data_ptr() != old.untyped_storage().data_ptr():
                    old.copy_(new)


class OnCPU:
    """A recorder of the steps of a net on a CPU."""

    n_tried = n_recorded = 0

    def __init__(self, device):
        assert device.type == "cpu"

    def record(self, function):
        OnCPU.n_tried += 1
        recording = Recording()
        try:
            with recording:
                step = function()
        finally:
            recording.undo()
        OnCPU.n_recorded += 1
        return recording.replay, step


def tensors_of(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def whole(tensor):
    """Return all of a tensor's memory, as a vector."""
    n_values = tensor.untyped_storage().nbytes() // tensor.element_size()
    return tensor.detach().as_strided((n_values,), (1,), 0)
