"""Which device to train on, and moving a whole net there."""

from __future__ import annotations

import torch
from skorch import NeuralNet


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
        torch.zeros(1, device=resolved).item()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"Got device={device!r}, which this machine does not offer to torch, but {expected}."
        ) from error
    return resolved


def move_net(net: NeuralNet, device: torch.device) -> NeuralNet:
    """Move an initialised net to `device` in place: weights, optimizer state and metric."""
    net.device = str(device)
    net.module_.to(device)
    net.criterion_.to(device)
    # Loading moves the moments to where their parameters are.
    net.optimizer_.load_state_dict(net.optimizer_.state_dict())
    if net.repulsion is not None:
        net.repulsion = net.repulsion.to(next(net.module_.parameters()))
    return net
