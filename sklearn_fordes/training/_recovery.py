"""Training that diverges: which members did, and one more try from the last good epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from sklearn_fordes._warnings import warn

if TYPE_CHECKING:
    from sklearn_fordes.training._net import ParticleNet

# The learning rate of the second try, as a share of that of the first.
_LOWERED = 0.1
# Names of rates in the optimizer's groups, and in torch's and skorch's schedulers.
_RATES = {"lr", "initial_lr", "max_lr", "min_lr", "swa_lr"}
_RATES_OF_SCHEDULERS = {"base_lrs", "max_lrs", "min_lrs", "max_lr", "min_lr", "eta_min"}
# Members that a message names; of more it says how many they are.
_MOST_NAMED = 5


class DivergenceError(ValueError):
    """A loss or a weight of training is not finite."""


class Recovery:
    """Go back, once in a run, to the weights of the last epoch whose losses were finite.

    Of the weights one copy is kept. The optimizer's moments and the average of the weights begin
    anew: a step that diverges has often spoilt them some steps before the loss shows it.

    Parameters
    ----------
    net : ParticleNet
        As it is now, before an epoch.
    """

    def __init__(self, net: ParticleNet) -> None:
        self.keep(net)

    def keep(self, net: ParticleNet) -> None:
        """Keep the weights of a net after a good epoch."""
        self._weights = {name: value.clone() for name, value in net.module_.state_dict().items()}
        self._relative_loss = net.relative_loss

    def go_back(self, net: ParticleNet, error: DivergenceError) -> None:
        """Give a net the weights of the last good epoch and a lower learning rate, with a warning.

        Raises
        ------
        DivergenceError
            The error, if it is not the first of this run.
        """
        if net.has_gone_back:
            raise error
        net.has_gone_back = True
        del net.history[-1]  # It is not whole.
        net.module_.load_state_dict(self._weights)
        net.average, net.relative_loss = None, self._relative_loss
        net.optimizer_.zero_grad()
        net.optimizer_.state.clear()
        for group in net.optimizer_.param_groups:
            # Not in place: a tensor may be that of several groups, and the user's own.
            group.update({name: _lowered(group[name]) for name in _RATES & group.keys()})
        for _, callback in net.callbacks_:  # A scheduler may set the rate by what it was at first.
            _lower_rates(getattr(callback, "lr_scheduler_", None))
        warn(
            f"Training diverged and goes on from the weights after {net.n_epochs} epochs, with a "
            f"tenth of the learning rate, {float(net.optimizer_.param_groups[0]['lr']):g}. "
            f"({error})",
            ConvergenceWarning,
        )


def _lower_rates(scheduler: Any) -> None:
    """Lower the rates that a scheduler, and those that it is made of, computes others from."""
    for name in _RATES_OF_SCHEDULERS & getattr(scheduler, "__dict__", {}).keys():
        setattr(scheduler, name, _lowered(getattr(scheduler, name)))
    for part in getattr(scheduler, "_schedulers", ()):
        _lower_rates(part)


def _lowered(rates: Any) -> Any:
    if isinstance(rates, list | tuple):
        return [_lowered(rate) for rate in rates]
    return None if rates is None else rates * _LOWERED


def finite_members(tensors: list[Tensor]) -> Tensor:
    """Return for each member whether all of its numbers are finite.

    Parameters
    ----------
    tensors : list of Tensor of shape (M, ...)

    Returns
    -------
    Tensor of bool of shape (M,)
    """
    return torch.stack([t.isfinite().reshape(len(t), -1).all(1) for t in tensors]).all(0)


def names_of_members(is_named: Tensor) -> str:
    """Return some members as words, such as "members 1 and 4 of 10"."""
    index, n_members = is_named.nonzero().ravel().tolist(), len(is_named)
    if len(index) == n_members:
        return "all members" if n_members > 1 else "the only member"
    if len(index) > _MOST_NAMED:
        return f"{len(index)} of {n_members} members, member {index[0]} among them"
    names = " and ".join(filter(None, [", ".join(map(str, index[:-1])), str(index[-1])]))
    return f"member{'s' if len(index) > 1 else ''} {names} of {n_members}, counted from 0"
