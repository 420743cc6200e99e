"""Train a net for some epochs, and free what only training needs."""

from __future__ import annotations

import torch

from sklearn_fordes.training._data import Rows
from sklearn_fordes.training._net import ParticleNet


def train(net: ParticleNet, rows: Rows, valid: Rows | None = None) -> bool:
    """Train an initialised net for its `max_epochs` more.

    Parameters
    ----------
    net : ParticleNet
        Trained in place. It holds no data afterwards.
    rows : Rows
        Training rows.
    valid : Rows, optional
        Rows on which the validation loss is computed.

    Returns
    -------
    bool
        Whether training came to its end. If not, the user interrupted it, and the net is that of
        the best epoch so far.

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
    keep_freed_memory()
    dataset = rows.dataset(None if valid is None else valid.dataset())
    net.check_module(rows.X)
    net.partial_fit(dataset)
    net.optimizer_.zero_grad()  # Gradients are as large as the model.
    net.module_.eval()
    # skorch ends a run by raising KeyboardInterrupt, and catches the user's own with it: that one
    # leaves an epoch that is not marked as completed.
    interrupted = len(net.history) > net.n_epochs
    if interrupted:
        del net.history[-1]
        if net.n_epochs == done_before:
            raise KeyboardInterrupt
    # The damage of the last step shows in no loss.
    if not all(torch.isfinite(parameter).all() for parameter in net.module_.parameters()):
        raise ValueError(net.divergence_message("weight"))
    return not interrupted


def keep_freed_memory() -> None:
    """Have the C library keep the memory that a step frees for the next step.

    glibc returns memory at the top of its heap to the system once more than twice the size of the
    largest block freed so far lies there. Batches are of that size: it depends on the layout of the
    heap whether each step faults all of its pages in anew, which doubles its time. Freeing one
    block of the largest size that counts (32 MiB, never touched) raises the limit. This is the one
    setting of the process that training changes.
    """
    torch.empty((32 << 20) - (1 << 16), dtype=torch.uint8)
