"""Callbacks of skorch's that the estimators use, or offer."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping

from sklearn_fordes._progress import Progress
from sklearn_fordes.training._net import ParticleNet


class EpochProgress(Callback):
    """Show the progress of epochs on standard error, with losses and how long patience lasts."""

    def on_train_begin(self, net: ParticleNet, **kwargs: Any) -> None:
        self.begin_ = net.n_epochs
        self.progress_ = Progress("training", net.max_epochs, "epoch")

    def on_epoch_end(self, net: ParticleNet, **kwargs: Any) -> None:
        epoch = net.history[-1]
        names = ("driving_loss", "repulsion", "valid_loss")
        notes = [f"{name} {epoch[name]:.4f}" for name in names if name in epoch]
        if stopping := _early_stopping(net):
            best, left = stopping.best_epoch_, stopping.patience - stopping.misses_
            notes.append(
                f"best {net.history[best - 1, stopping.monitor]:.4f} in epoch {best}, "
                f"stops after {left} more without a better one"
            )
        # A checkpoint may have known more than one.
        n_new = net.n_epochs - self.begin_ - self.progress_.n_done
        self.progress_.advance(n_new, ", ".join(notes))

    def on_train_end(self, net: ParticleNet, **kwargs: Any) -> None:
        n_epochs = net.n_epochs - self.begin_  # Without an interrupted one.
        verb = "stopped after" if n_epochs < net.max_epochs else "done:"
        stopping = _early_stopping(net)
        best = f", best {stopping.best_epoch_}" if stopping else ""
        resumed = f", {net.n_resumed} of them in an earlier run" if net.n_resumed else ""
        self.progress_.close(f"{verb} {n_epochs} epochs{resumed}{best}")
        del self.progress_  # It holds a stream, which can't be pickled.


def _early_stopping(net: NeuralNet) -> EarlyStopping | None:
    """Return the net's early stopping, once an epoch was judged by it."""
    for _, callback in net.callbacks_:
        if isinstance(callback, EarlyStopping) and vars(callback).get("best_epoch_"):
            return callback
    return None


class BestEpoch(EarlyStopping):
    """Stop on the validation loss and keep the best epoch's weights; idle without validation."""

    def on_epoch_end(self, net: NeuralNet, dataset_valid: Any = None, **kwargs: Any) -> None:
        if dataset_valid is not None:
            super().on_epoch_end(net, **kwargs)

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        if net.history:  # Training may be interrupted before its first epoch.
            super().on_train_end(net, **kwargs)
        self.best_model_weights_ = None  # The copy is as large as the model.


class EpochTasks(Callback):
    """Tell of each epoch's begin and end, with what an estimator that stops there would be.

    Parameters
    ----------
    tasks : object
        Its `begin_epoch` and `end_epoch` take a function that returns fitted attributes; the second
        returns whether to stop.
    snapshot : callable
        Makes these attributes from the net.
    """

    def __init__(self, tasks: Any, snapshot: Any) -> None:
        self.tasks = tasks
        self.snapshot = snapshot
        self.is_stopped = self.is_within = False

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        if not self.is_within:  # An epoch that diverged is begun again.
            self.tasks.begin_epoch(partial(self.snapshot, net))
        self.is_within = True

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        self.is_within = False
        self.is_stopped = self.tasks.end_epoch(partial(self.snapshot, net))

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        self.tasks = self.snapshot = None  # They hold the rows.


class StopWhenTold(Callback):
    """Stop after an epoch at whose end `EpochTasks` was told to."""

    def __init__(self, told: EpochTasks) -> None:
        self.told = told

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        if self.told.is_stopped:
            raise KeyboardInterrupt  # As skorch's early stopping does.


class ClipMemberGradients(Callback):
    """Scale each member's gradient to a norm of at most `max_norm`.

    A norm over all members, as in `torch.nn.utils.clip_grad_norm_`, would couple them.

    Parameters
    ----------
    max_norm : float

    Examples
    --------
    >>> from sklearn_fordes import FoRDEClassifier
    >>> model = FoRDEClassifier(callbacks=[ClipMemberGradients(1.0)])
    """

    def __init__(self, max_norm: float) -> None:
        self.max_norm = max_norm

    def on_grad_computed(self, net: NeuralNet, named_parameters: Any, **kwargs: Any) -> None:
        grads = [p.grad for _, p in named_parameters if p.grad is not None]  # (M, …) each
        norm = torch.stack([grad.reshape(len(grad), -1).norm(dim=1) for grad in grads]).norm(
            dim=0
        )  # (M,)
        factor = (self.max_norm / (norm + 1e-12)).clamp(max=1)
        for grad in grads:
            grad.mul_(factor.view(-1, *[1] * (grad.ndim - 1)))


def copy_callback(entry: Any) -> Any:
    """Copy a callback, or a pair of name and callback, which a net sets up in place.

    The copy is shallow: what a callback was made with (a log, a stream) is its user's.
    """
    name, callback = entry if isinstance(entry, tuple) and len(entry) == 2 else (None, entry)
    kind = callback if isinstance(callback, type) else type(callback)
    if not issubclass(kind, Callback):
        raise TypeError(
            f"Got {entry!r} among callbacks, but expected a skorch callback or a pair of a name "
            "and one."
        )
    copied = copy.copy(callback)  # A class is its own copy.
    return copied if name is None else (name, copied)
