"""The memory of a device, asked for before it is taken."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

import torch

# Where Linux says how much a container may take: control groups of version 2, and of version 1.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def expect_memory(got: str, n_bytes: int, device: torch.device) -> None:
    """Raise an error if a device can never hold what is about to be made.

    Systems promise memory that they don't have, and end the process later.

    Parameters
    ----------
    got : str
        What takes the memory, after the word "Got": it ends with a plural.
    n_bytes : int
    device : torch.device

    Raises
    ------
    ValueError
        If the bytes are more than the device has, those in use among them.
    """
    limit = memory_of(device)
    if n_bytes > limit:
        owner = "this machine" if device.type == "cpu" else f"the device {device}"
        raise ValueError(
            f"Got {got} take {n_bytes // 10**6:,} MB, but expected at most the "
            f"{limit // 10**6:,.0f} MB of memory of {owner}."
        )


def memory_of(device: torch.device) -> float:
    """Return the bytes of memory of a device; infinity if nothing tells them.

    Parameters
    ----------
    device : torch.device

    Returns
    -------
    float
        Of a machine those that this process may take at most, without swap.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    limits = []
    with suppress(AttributeError, ValueError, OSError):  # Not every system knows these names.
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in _LIMITS:
        with suppress(OSError, ValueError):  # No limit is the word "max".
            limits.append(int(Path(path).read_text()))
    return min(limits, default=math.inf)
