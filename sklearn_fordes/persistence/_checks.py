"""Limits of what a file may ask for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Of a tensor that a small file may ask for too.
_ALWAYS_ALLOWED = 1 << 20
# They fill what they make. What others make is looked at after, before it is filled.
_FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}
_FACTORIES |= {torch.arange, torch.randperm, torch.linspace}


class _LimitedSize(TorchFunctionMode):
    """Refuses to make tensors of more numbers than a limit."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _FACTORIES:
            given = args[0] if args and isinstance(args[0], tuple | list) else args
            sizes = [n for n in (*given, *(kwargs or {}).get("size", ())) if type(n) is int]
            self._check(max(math.prod(sizes), *sizes, 0))
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self._check(made.numel())
        return made

    def _check(self, n_numbers: int) -> None:
        if n_numbers > self.limit:
            raise ValueError(
                f"its settings make a tensor of {n_numbers} numbers, more than in the file"
            )


@contextmanager
def limited_size(n_numbers: int) -> Iterator[None]:
    """Refuse, inside the block, tensors of more numbers than a file holds, or than a million.

    Settings of a few bytes could otherwise ask for a network that fills the memory.

    Parameters
    ----------
    n_numbers : int
    """
    with _LimitedSize(max(n_numbers, _ALWAYS_ALLOWED)):
        yield


def check_training_state(state: dict[str, Any], names: set[str], parameters: Any) -> None:
    """Refuse what is no description of a `TrainingState`.

    Parameters
    ----------
    state : dict
        That of `TrainingState.to_dict`, with or without an optimizer.
    names : set of str
        Names of the fields.
    parameters : dict of ndarray
        The members' weights by name.

    Raises
    ------
    Exception
        If a part is of another type or shape.
    """
    if state.keys() != names or state["members"]:
        raise ValueError(f"its training state has the entries {sorted(state)}")
    np.random.PCG64().state = state["batches"]
    numbers = state["n_steps"] >= 0 and state["batch_size"] >= 1 and 0 <= state["seed"] < 1 << 63
    is_whole = {type(state[name]) for name in ("n_steps", "batch_size", "seed")} == {int}
    if not (numbers and is_whole and math.isfinite(state["relative_loss"])):
        raise ValueError("its training state has counters of another kind")
    if not all(isinstance(epoch, dict) for epoch in state["history"]):
        raise ValueError("its training state has no history of epochs")
    for part in state["lengthscale"] or ():
        if part is not None and len({*np.shape(part)}) != 1:
            raise ValueError(f"its lengthscale is of shape {np.shape(part)}")
    for name, (settings, moments) in state["optimizer"].get("parameters", {}).items():
        shapes = {np.shape(moment) for moment in moments.values()} - {()}
        weight = parameters[name.removeprefix("stacked.")]
        if not (isinstance(settings, dict) and shapes <= {weight.shape}):
            raise ValueError(f"its optimizer has moments of {name!r} of another shape")
