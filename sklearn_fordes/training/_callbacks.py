"""Callbacks of skorch's that the estimators use, or offer."""

from __future__ import annotations

import copy
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping
from tqdm import tqdm  # tqdm.auto warns in notebooks that lack ipywidgets.


class EpochProgress(Callback):
    """Show a progress bar of epochs on standard error, with the epoch's losses."""

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        self.bar_ = tqdm(total=net.max_epochs, desc="training", unit="epoch")

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        epoch = net.history[-1]
        names = ("driving_loss", "repulsion", "valid_loss")
        self.bar_.set_postfix({name: epoch[name] for name in names if name in epoch})
        self.bar_.update()

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        self.bar_.close()
        del self.bar_  # It holds a stream, which can't be pickled.


class BestEpoch(EarlyStopping):
    """Stop on the validation loss and keep the best epoch's weights; idle without validation."""

    def on_epoch_end(self, net: NeuralNet, dataset_valid: Any = None, **kwargs: Any) -> None:
        if dataset_valid is not None:
            super().on_epoch_end(net, **kwargs)

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        super().on_train_end(net, **kwargs)
        self.best_model_weights_ = None  # The copy is as large as the model.


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
