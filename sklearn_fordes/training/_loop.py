"""Train a net for some epochs, and free what only training needs."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import torch
from torch import Tensor

from sklearn_fordes.training._data import DeviceDataset
from sklearn_fordes.training._net import ParticleNet
from sklearn_fordes.training._recovery import finite_members

# Numbers of the options in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def train(
    net: ParticleNet, rows: DeviceDataset, *, deadline: float = math.inf, checkpoint: Any = None
) -> str | None:
    """Train an initialised net for its `max_epochs` more, or for what a checkpoint leaves of them.

    Parameters
    ----------
    net : ParticleNet
        Trained in place. It holds no data afterwards.
    rows : DeviceDataset
        Training rows, with rows for the validation loss if there are any.
    deadline : float, default=inf
        When training ends at the latest, after one step at least, in seconds of `time.monotonic`.
    checkpoint : Checkpoint, optional
        Keeps the state of this run between epochs, and its end.

    Returns
    -------
    str or None
        Why training did not come to its end: "interrupted", by the user, or for the time "late", or
        "cut" within an epoch. The net is then that of the best epoch so far.

    Raises
    ------
    KeyboardInterrupt
        If the user interrupts before an epoch is done.
    ValueError
        If the module does not fit the rows, or the loss or a weight stops being finite.
    """
    repulsion = net.repulsion
    if repulsion and rows.extra_inputs is not None and not repulsion.space.depends_on_inputs:
        raise ValueError(
            "Got X_repulsion with a repulsion in which members are the same at all rows, but "
            "expected another repulsion."
        )
    done_before = net.n_epochs
    is_known = checkpoint is not None and checkpoint.is_finished
    keep_freed_memory()
    outputs = _check_module(net, rows.X)
    if rows.y is not None:
        _check_likelihood(net, outputs, rows.y)
    net.run(rows, deadline, checkpoint)
    together = net.communicator.n_processes > 1
    net.optimizer_.zero_grad()  # Gradients are as large as the model.
    _call_c_library("malloc_trim", 0)  # Return the memory that was kept for the next step.
    if len(net.history) > net.n_epochs:
        del net.history[-1]  # It is not whole.
    # skorch catches the user's interrupt as it catches that by which a callback stops.
    is_whole = is_known or net.is_stopped or net.n_epochs >= done_before + net.max_epochs
    reason = None if is_whole else "late" if net.is_out_of_time else "interrupted"
    if net.is_cut:  # Whatever a callback made of the epoch.
        reason = "cut"
    if reason and (net.n_epochs == done_before or (together and reason == "interrupted")):
        # Processes that are interrupted one by one can't agree on a result.
        raise KeyboardInterrupt
    are_finite = _are_outputs_finite(net, rows.X)
    net.expect_finite(net.communicator.gather(are_finite), "output for training rows")
    if checkpoint is not None and not (is_known or reason):
        try:
            checkpoint.finish(net)
        except KeyboardInterrupt:
            reason = "interrupted"  # What was learnt is worth more than the last file.
    return reason


@torch.no_grad()
def _check_module(net: ParticleNet, X: Tensor) -> Tensor:
    """Return outputs at two rows, so that a module of another shape fails before training.

    Raises
    ------
    ValueError
        If the module can't be evaluated, or its outputs have another shape.
    """
    rows, n_outputs = X[:2], net.likelihood.n_outputs
    net.module_.eval()
    try:
        outputs = net.outputs_of_own(rows)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ValueError(
            f"Got a module that can't be evaluated on rows of shape {tuple(X.shape[1:])} "
            f"({error}), but expected one that maps them to outputs, and that torch.func.vmap can "
            "batch over members."
        ) from error
    shape, expected = tuple(outputs.shape[1:]), (len(rows), n_outputs)
    if shape != expected:
        raise ValueError(
            f"Got output of shape {shape} from the module for {len(rows)} rows, but expected "
            f"{expected}: (n_rows, n_outputs), {net.likelihood.outputs_are}."
        )
    return outputs


def _check_likelihood(net: ParticleNet, outputs: Tensor, y: Tensor) -> None:
    """Call the methods of a likelihood of the user's that training needs, and check the shapes.

    Raises
    ------
    ValueError
        If one returns something else.
    """
    likelihood, (n_members, n_rows, n_outputs) = net.likelihood, outputs.shape
    if type(likelihood).__module__.startswith("sklearn_fordes."):
        return
    losses, of_mixture = f"({n_members}, {n_rows})", f"({n_rows},)"
    gradient = f"({n_members}, {n_rows}, {n_outputs})"
    for name, arguments, expected in (
        ("row_losses", (outputs, y[:n_rows]), f"({losses}, {gradient}): losses and gradient"),
        ("mixture_losses", (outputs, y[:n_rows]), f"{of_mixture}: a loss for each row"),
        ("constant_outputs", (y, None), f"({n_outputs},): an output of each kind"),
    ):
        found = _described(getattr(likelihood, name)(*arguments))
        if found != expected.partition(":")[0]:
            raise ValueError(
                f"Got {found} from {name} of {type(likelihood).__name__}, but expected a tensor, "
                f"or a tuple of them, of shape {expected}."
            )


def _described(value: Any) -> str:
    """Return the shape of a tensor, those of a tuple of tensors, or the type of what is none."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_described, value))})"
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"


@torch.no_grad()
def _are_outputs_finite(net: ParticleNet, X: Tensor) -> Tensor:
    """Return for each member of this process whether its outputs at all rows are finite."""
    are_finite = torch.ones(net.module_.n_members, dtype=torch.bool, device=X.device)
    for rows in X.split(net.module_.rows_at_a_time()):
        are_finite &= finite_members([net.outputs_of_own(rows)])
    return are_finite


def keep_freed_memory() -> None:
    """Have the C library keep the memory that a step frees for the next step.

    By default glibc returns memory at the top of its heap to the system, and takes large blocks
    from the system one by one; each step then faults its pages in anew, which doubles its time.
    This raises both limits for the process: the one setting of the process that training changes.
    Another C library keeps its defaults.
    """
    _call_c_library("mallopt", _M_MMAP_THRESHOLD, 32 << 20)  # The largest value that glibc takes.
    _call_c_library("mallopt", _M_TRIM_THRESHOLD, 1 << 30)


def _call_c_library(function: str, *arguments: int) -> None:
    """Call a function of glibc, if this process has it."""
    process = ctypes.pythonapi  # It finds the C library's functions where they can be called.
    if hasattr(process, function):
        getattr(process, function)(*arguments)
