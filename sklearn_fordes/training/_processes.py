"""Processes that train one ensemble together: how they find each other."""

from __future__ import annotations

import atexit
import os
from typing import Any

import torch
from torch import distributed as dist

from sklearn_fordes.particles import ALONE, Communicator, ProcessGroups

# What a launcher such as torchrun tells each process that it starts.
_TOLD = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def communicator_for(mode: str | None, n_members: int, device: torch.device) -> Communicator:
    """Return what reaches the processes of the default group of `torch.distributed`.

    A launcher's processes join into a group here, if they have not done so yet.

    Parameters
    ----------
    mode : {"members", "rows"} or None
        What the processes share out. None, or a group of one process, reaches nobody.
    n_members : int
        Number of all members.
    device : torch.device
        Where training happens.

    Returns
    -------
    Communicator

    Raises
    ------
    ValueError
        If there is no group and no launcher, or there are more processes than members to share out.
    """
    if mode is None:
        return ALONE
    if not (dist.is_available() and dist.is_initialized()):
        _join(mode, device)
    if dist.get_world_size() == 1:
        return ALONE
    groups: dict[str, Any] = {mode: dist.group.WORLD}
    return ProcessGroups(n_members, **groups, device=device if _uses_nccl() else "cpu")


def _join(mode: str, device: torch.device) -> None:
    if not dist.is_available() or not all(name in os.environ for name in _TOLD):
        raise ValueError(
            f"Got distributed={mode!r} outside of a process group, but expected processes that "
            "torchrun or Ray Train has started, or that have called "
            "torch.distributed.init_process_group. sklearn_fordes.distributed.fit starts some."
        )
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    atexit.register(_leave)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _uses_nccl() -> bool:
    return bool(dist.get_backend() == "nccl")
