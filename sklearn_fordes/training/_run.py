"""One run of training: nothing global is touched and nothing superfluous is kept."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping
from skorch.helper import predefined_split
from tqdm import tqdm  # tqdm.auto warns in notebooks that lack ipywidgets

from sklearn_fordes.particles import derived_seed, seeded_generators
from sklearn_fordes.training._data import Rows
from sklearn_fordes.training._net import ParticleNet
from sklearn_fordes.training._schedule import Points


class EpochProgress(Callback):
    """A progress bar of epochs on standard error, with the epoch's losses."""

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        self.bar_ = tqdm(total=net.max_epochs, desc="training", unit="epoch", leave=True)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        epoch = net.history[-1]
        names = ("driving_loss", "repulsion", "valid_loss")
        self.bar_.set_postfix({name: f"{epoch[name]:.4f}" for name in names if name in epoch})
        self.bar_.update()

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        self.bar_.close()
        del self.bar_  # holds a stream, which can't be pickled


def copied_callback(entry: Any) -> Any:
    """Copy a callback, or a pair of name and callback, which a net sets up in place.

    The copy is shallow: what a callback was made with (a log, a stream) is its user's.
    """
    name, callback = entry if isinstance(entry, tuple) and len(entry) == 2 else (None, entry)
    is_class = isinstance(callback, type) and issubclass(callback, Callback)
    if not (is_class or isinstance(callback, Callback)) or not isinstance(name, str | None):
        raise TypeError(
            f"Got {entry!r} among callbacks, but expected a skorch callback or a pair of a name "
            "and one."
        )
    copied = callback if is_class else copy.copy(callback)
    return copied if name is None else (name, copied)


def _discard(message: str) -> None:
    """Take skorch's messages in place of print."""


class BestEpoch(EarlyStopping):
    """Stops on the validation loss and keeps the best epoch's weights; idle without validation."""

    def __init__(
        self,
        patience: int = 16,
        *,
        threshold: float = 0.0,
        load_best: bool = True,
        sink: Any = _discard,
        **kwargs: Any,  # all that skorch's has, so that a net with one can be cloned
    ) -> None:
        super().__init__(
            patience=patience, threshold=threshold, load_best=load_best, sink=sink, **kwargs
        )

    def on_epoch_end(self, net: NeuralNet, dataset_valid: Any = None, **kwargs: Any) -> None:
        if dataset_valid is not None:
            super().on_epoch_end(net, **kwargs)

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        super().on_train_end(net, **kwargs)
        self.best_model_weights_ = None  # the copy is as large as the model


def train(
    net: ParticleNet,
    rows: Rows,
    valid: Rows | None = None,
    *,
    epochs: int,
    points: Points | None = None,
) -> bool:
    """Train an initialised net for some epochs more.

    Parameters
    ----------
    net : ParticleNet
        Trained in place. It holds no data afterwards.
    rows, valid : Rows
        Training rows, and those the validation loss is computed on.
    epochs : int
        At most so many; callbacks may stop earlier.
    points : callable, optional
        Gives points at which members are compared beside the rows, see `ParticleNet`.

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
        If the loss or a weight stops being finite.
    """
    done_before = net.n_epochs
    # Dropout and the like draw from the global generators; a later run must not repeat the draws.
    seed = derived_seed(net.module__seed, done_before)
    keep_freed_memory()
    net.max_epochs = epochs
    net.train_split = None if valid is None else predefined_split(valid)
    net.points = points
    try:
        with seeded_generators(seed, net.device):
            net.partial_fit(rows)
    finally:
        net.train_split = net.points = None
    net.optimizer_.zero_grad()  # gradients are as large as the model
    # skorch ends a run by raising KeyboardInterrupt, and catches the user's own with it: that one
    # leaves an epoch undone.
    interrupted = len(net.history) > net.n_epochs
    if interrupted:
        del net.history[-1]
        if net.n_epochs == done_before:
            raise KeyboardInterrupt
    # The last step's damage shows in no loss.
    if not all(torch.isfinite(parameter).all() for parameter in net.module_.parameters()):
        raise ValueError(net.divergence_message("weight"))
    return not interrupted


def keep_freed_memory() -> None:
    """Have the C library keep what a step frees for the next step.

    glibc hands memory at the top of its heap back to the system once more than twice the size of
    the largest block freed so far lies there. Batches are of that size: it depends on the heap's
    layout whether each step faults all of its pages in anew, which doubles its time. Freeing one
    block of the largest size that counts (32 MiB, never touched) raises the limit.
    """
    torch.empty((32 << 20) - (1 << 16), dtype=torch.uint8)


def take_over(net: ParticleNet, trained: ParticleNet) -> None:
    """Give `net`, made with other settings, what `trained` has learnt.

    Parameters
    ----------
    net : ParticleNet
        Initialised; gets weights, buffers, history and, if the optimizers are of one class, the
        optimizer's moments. Its settings are its own.
    trained : ParticleNet
        Left as it is.

    Raises
    ------
    ValueError
        If the networks differ.
    """
    learnt = trained.module_.state_dict()
    if _shapes(net.module_.state_dict()) != _shapes(learnt):
        raise ValueError(
            "Got n_members, module, module__…, hidden_layer_sizes or noise that make another "
            "network than the one that was fitted, but expected the same. Call fit to begin anew."
        )
    net.module_.load_state_dict(learnt)
    net.n_steps, net.unexplained = trained.n_steps, trained.unexplained
    # Without what was noted of each batch, which grows with every call of partial_fit.
    net.history_ = type(trained.history)({**epoch, "batches": []} for epoch in trained.history)
    if type(net.optimizer_) is type(trained.optimizer_):
        settings = net.optimizer_.state_dict()["param_groups"]
        moments = copy.deepcopy(trained.optimizer_.state_dict()["state"])
        net.optimizer_.load_state_dict({"state": moments, "param_groups": settings})


def select_members(net: ParticleNet, members: Sequence[int]) -> ParticleNet:
    """Return a net of some of the trained members, for prediction or further training.

    Parameters
    ----------
    net : ParticleNet
        Left as it is.
    members : sequence of int
        Their indices.

    Returns
    -------
    ParticleNet
        With copies of their weights, and an optimizer without moments.
    """
    selected: ParticleNet = object.__new__(type(net))  # skorch's copy goes through a pickle
    selected.__dict__ = {
        **vars(net),
        "module_": net.module_.select(members),
        "module__n_members": len(members),
    }
    return selected.initialize_optimizer()


def _shapes(state: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}
