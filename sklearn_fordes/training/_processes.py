"""Processes that train one ensemble together: how they find each other."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import traceback
from typing import Any

import torch
from skorch.callbacks import Checkpoint, EpochScoring, GradientNormClipping
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


def expect_callbacks_that_fit(callbacks: list[tuple[str, Any]], communicator: Communicator) -> None:
    """Refuse callbacks that would do something else in one of several processes.

    Raises
    ------
    ValueError
        If one writes files, which would be those of all processes; scales gradients by a norm over
        the members of this process; or scores outputs that only have its members or rows.
    """
    for name, callback in callbacks if communicator.n_processes > 1 else ():
        expected = None
        if isinstance(callback, Checkpoint):
            expected = "checkpoint_dir"
        elif isinstance(callback, GradientNormClipping):
            expected = "sklearn_fordes.training.ClipMemberGradients"
        elif isinstance(callback, EpochScoring) and callback.on_train and callback.use_caching:
            expected = "one with use_caching=False"
        if expected:
            raise ValueError(
                f"Got the callback {name!r} ({type(callback).__name__}) in one of several "
                f"processes that train together, but expected {expected}."
            )


def _join(mode: str, device: torch.device) -> None:
    if not dist.is_available() or not all(name in os.environ for name in _TOLD):
        raise ValueError(
            f"Got distributed={mode!r} outside of a process group, but expected processes that "
            "torchrun or Ray Train has started, or that have called "
            "torch.distributed.init_process_group. sklearn_fordes.distributed.fit starts some."
        )
    if device.type == "cuda":
        n_devices = torch.cuda.device_count()
        if int(os.environ.get("LOCAL_WORLD_SIZE", 1)) > n_devices:
            raise ValueError(
                f"Got {os.environ['LOCAL_WORLD_SIZE']} processes on a machine of {n_devices} CUDA "
                "devices, but expected one for each, or device='cpu'."
            )
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    atexit.register(_leave)


def _leave() -> None:
    """Destroy the group at the end of the program, with its threads.

    The frames of an error that ended the program hold the group. Its threads would then end this
    process by an abort if they still had tensors to free when the interpreter is gone.
    """
    errors: dict[int, BaseException] = {}
    left = [getattr(sys, "last_value", None)]
    while left:
        error = left.pop()
        if error is not None and id(error) not in errors:
            errors[id(error)] = error
            traceback.clear_frames(error.__traceback__)
            left += [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]
    errors.clear()
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()


def _uses_nccl() -> bool:
    return bool(dist.get_backend() == "nccl")
