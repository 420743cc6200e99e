"""The default optimizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import unwrap

import torch


class AdamW(torch.optim.AdamW):
    """AdamW that does not need torch's compiler.

    torch wraps these methods so that the first call imports its compiler, which takes a second and
    makes a folder for its cache. Nothing is compiled here, and there may be no place for a folder.
    """

    add_param_group = unwrap(torch.optim.AdamW.add_param_group)
    load_state_dict = unwrap(torch.optim.AdamW.load_state_dict)
    state_dict = unwrap(torch.optim.AdamW.state_dict)
    zero_grad = unwrap(torch.optim.AdamW.zero_grad)
    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))


@contextmanager
def scaled_rates(optimizer: torch.optim.Optimizer, factor: float) -> Iterator[None]:
    """Scale the learning rates inside the block, whatever a scheduler sets them to outside.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
    factor : float
    """
    if factor == 1:
        yield
        return
    rates = [group["lr"] for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = factor * rate
    try:
        yield
    finally:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
