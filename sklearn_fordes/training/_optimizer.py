"""The default optimizer, and what is done to any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import Parameter, signature, unwrap
from typing import Any

import torch
from torch import Tensor

# Numbers of single precision that a CPU's fused optimizer updates at a time.
_FUSED_AT_A_TIME = 16


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


def can_be_captured(optimizer: Any) -> bool:
    """Return whether a step of an optimizer can be captured as a graph.

    Adam and AdamW can, if the number of their steps is on the device, as that of fused kernels is,
    and the rates, which change from step to step, are on the host.
    """
    return (
        type(optimizer) in (AdamW, torch.optim.AdamW, torch.optim.Adam)
        and not (optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)
        and all(
            (group["fused"] or group["capturable"])
            and not group["differentiable"]
            and not any(isinstance(group[name], Tensor) for name in optimizer.defaults)
            for group in optimizer.param_groups
        )
    )


@contextmanager
def rates_on_device(optimizer: torch.optim.Optimizer, rates: Sequence[Tensor]) -> Iterator[None]:
    """Have steps inside the block read the rate of each group from a tensor, as a graph needs it.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        One for which `can_be_captured` is true.
    rates : sequence of Tensor of shape ()
    """
    before = [(group["lr"], group["capturable"]) for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group.update(lr=rate, capturable=True)
    try:
        yield
    finally:
        for group, (rate, is_capturable) in zip(optimizer.param_groups, before, strict=True):
            group.update(lr=rate, capturable=is_capturable)


def group_parameters(optimizer: Any) -> None:
    """Divide the parameters of an optimizer into groups that it treats alike.

    Weights decay, biases and norms do not. The fused kernels of a CPU round the last numbers of a
    tensor in another way than the others; parameters of a size for which this would depend on the
    number of members take other kernels.
    """
    groups = optimizer.param_groups
    parts: dict[Any, Any] = {}
    for group in groups:
        for parameter in group["params"]:
            changed: dict[str, float] = {}
            # A member's vector is a matrix in the stack.
            if "weight_decay" in group and parameter.ndim <= 2:
                changed["weight_decay"] = 0.0
            on_cpu = parameter.device.type == "cpu"
            if group.get("fused") and on_cpu and parameter[0].numel() % _FUSED_AT_A_TIME:
                changed["fused"] = False
            part = {**group, **changed, "params": []}
            parts.setdefault((id(group), *changed), part)["params"].append(parameter)
    groups.clear()
    for part in parts.values():
        optimizer.add_param_group(part)


def expect_one_evaluation(optimizer: Any) -> None:
    """Raise an error if an optimizer evaluates the objective as often as it likes in a step.

    Processes that train together would wait for each other.

    Raises
    ------
    ValueError
        If its step needs a function for it, as that of L-BFGS does.
    """
    closure = signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is Parameter.empty:
        raise ValueError(
            f"Got optimizer={type(optimizer).__name__}, which evaluates the objective several "
            "times in a step, in one of several processes that train together, but expected one "
            "that needs a gradient only."
        )
