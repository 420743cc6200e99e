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

from sklearn_fordes.particles import Ensemble

# Numbers that a small file may ask for too, 64 MB of them.
_ALWAYS_ALLOWED = 1 << 24
# Numbers that may be made for each of the file's: initial weights take a few intermediate results.
_MADE_FOR_EACH = 32
# A tensor counts as so many numbers at least: it and its module take memory however small it is.
_LEAST_COUNTED = 1 << 10
# They fill what they make. What others make is looked at after, before it is filled.
_FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}
_FACTORIES |= {torch.arange, torch.randperm, torch.linspace}

# Of numpy, which may draw the batches.
_GENERATORS = {"MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"}


class _LimitedSize(TorchFunctionMode):
    """Refuses to make tensors of more numbers in all than a limit."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit, self.n_made = limit, 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _FACTORIES:
            given = args[0] if args and isinstance(args[0], tuple | list) else args
            sizes = [n for n in (*given, *(kwargs or {}).get("size", ())) if type(n) is int]
            self._expect(max(math.prod(sizes), *sizes, 0))
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and _is_new(made, [*args, *(kwargs or {}).values()]):
            n_numbers = max(made.numel(), _LEAST_COUNTED)
            self._expect(n_numbers)
            self.n_made += n_numbers
        return made

    def _expect(self, n_numbers: int) -> None:
        if self.n_made + n_numbers > self.limit:
            raise ValueError(
                f"its settings make a tensor of {n_numbers} numbers after {self.n_made} others, "
                "more than in the file"
            )


def _is_new(made: Tensor, arguments: list[Any]) -> bool:
    """Return whether a function made a tensor that takes memory of its own."""
    is_argument = any(made is one for one in arguments)  # It was changed in place.
    return not (is_argument or made.is_meta or made._base is not None)


@contextmanager
def limited_size(n_numbers: int) -> Iterator[None]:
    """Refuse, inside the block, tensors that are much larger, all together, than a file.

    Settings of a few bytes could otherwise ask for a network that fills the memory, by one wide
    layer or by many.

    Parameters
    ----------
    n_numbers : int
        Those of the file. 32 times as many are allowed, and 16 million in any file.
    """
    with _LimitedSize(max(_MADE_FOR_EACH * n_numbers, _ALWAYS_ALLOWED)):
        yield


def check_training_state(state: dict[str, Any], ensemble: Ensemble) -> None:
    """Refuse what is no training state of an ensemble.

    Parameters
    ----------
    state : dict
        The fields of a `TrainingState`, with or without an optimizer.
    ensemble : Ensemble

    Raises
    ------
    Exception
        If a part is of another type or shape.
    """
    name = state["batches"]["bit_generator"]
    if name not in _GENERATORS:
        raise ValueError(f"no generator of batches is a {name!r}")
    getattr(np.random, name)().state = state["batches"]
    counters = [state[name] for name in ("n_steps", "batch_size", "seed")]
    is_right = {
        "members": not state["members"],
        "n_steps": {*map(type, counters)} == {int} and min(counters) >= 0,
        "batch_size": state["batch_size"] >= 1,
        "seed": state["seed"] < 1 << 63,
        "relative_loss": math.isfinite(state["relative_loss"]),
        "history": all(isinstance(epoch, dict) for epoch in state["history"]),
        "lengthscale": all(
            part is None or len(set(part.shape)) == 1 for part in state["lengthscale"] or ()
        ),
    }
    is_right["optimizer"] = not state["optimizer"] or _is_optimizer(state["optimizer"], ensemble)
    wrong = [name for name, is_valid in is_right.items() if not is_valid]
    if wrong:
        raise ValueError(f"the {wrong} of its training state are of another type, size or shape")


def _is_optimizer(state: dict[str, Any], ensemble: Ensemble) -> bool:
    """Return whether there are settings and moments of all weights that are trained."""
    parameters, given = dict(ensemble.named_parameters()), state["parameters"]
    trained = {name for name, parameter in parameters.items() if parameter.requires_grad}
    is_right = {*state} == {"type", "parameters"} and trained <= {*given} <= {*parameters}
    if not all(isinstance(part, dict) for parts in given.values() for part in parts):
        return False
    if state["type"] != "AdamW":  # Others may have moments of any name and shape.
        return is_right
    # Of weights without a gradient there are none.
    names = {frozenset(moments) for _, moments in given.values() if moments}
    return (
        is_right
        and len(names) <= 1
        and all(
            {np.shape(moment) for moment in moments.values()} <= {parameters[name].shape, ()}
            for name, (_, moments) in given.items()
        )
    )
