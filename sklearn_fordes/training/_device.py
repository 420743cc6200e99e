"""Which device to train on, and moving a whole net there."""

from __future__ import annotations

import torch
from skorch import NeuralNet
from skorch.utils import to_device


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the device named, or for "auto" the CUDA device if there is one, else the CPU.

    Raises
    ------
    ValueError
        If torch knows no such device, or this machine has none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    expected = "expected 'auto', 'cpu', 'cuda', 'cuda:<index>' or another device of torch"
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"Got device={device!r}, but {expected}.") from error
    try:
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"Got device={device!r}, which this machine does not offer to torch, but {expected}."
        ) from error
    return resolved


def move_net(net: NeuralNet, device: torch.device) -> NeuralNet:
    """Move an initialised net to `device` in place: weights, optimizer state and metric."""
    net.device = str(device)
    net.module_.to(device)
    net.criterion_.to(device)
    for state in net.optimizer_.state.values():
        for key, value in state.items():
            # Adam's step counter lives on the CPU unless its update is fused or captured.
            on_device = key != "step" or net.optimizer_.defaults.get("fused")
            if isinstance(value, torch.Tensor) and on_device:
                state[key] = to_device(value, device)
    if net.repulsion is not None:
        net.repulsion = net.repulsion.to(next(net.module_.parameters()))
    return net
