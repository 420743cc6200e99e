"""Numbers that the host draws, on their way to the device."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def sent(values: NDArray[Any], device: torch.device) -> Tensor:
    """Return an array as a tensor on a device; the host does not wait for a GPU to receive it.

    Parameters
    ----------
    values : ndarray
        On a CPU the tensor shares its memory.
    device : torch.device

    Returns
    -------
    Tensor
    """
    tensor = torch.from_numpy(values)
    if device.type != "cuda":
        return tensor.to(device)
    # From other memory a copy begins only when all work before it is done. Torch does not use
    # pinned memory again before the copy has ended.
    return tensor.pin_memory().to(device, non_blocking=True)
