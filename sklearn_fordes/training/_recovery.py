"""Training that can't go on: which members diverge, who stopped it, and what to tell."""

from __future__ import annotations

from opcode import opmap
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from sklearn_fordes._warnings import warn

# The learning rates of the second try, as a share of what they would be.
_LOWERED = 0.1
# Members that a message names; of more it says how many they are.
_MOST_NAMED = 5
CAN_T_BE_TRAINED = (
    "Got a module that can't be trained ({}), but expected one that torch.func.vmap can batch over "
    "members, and whose output can be differentiated twice, by its input and its weights. "
    "repulsion='none', 'weight' or 'function' need the weights only."
)


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

    def __init__(self, net: Any) -> None:
        self._weights = {name: value.clone() for name, value in net.module_.state_dict().items()}
        self._relative_loss = net.relative_loss
        self._first_try = ""

    def keep(self, net: Any) -> None:
        """Keep the weights of a net after a good epoch, in the memory of those before."""
        for name, value in net.module_.state_dict().items():
            self._weights[name].copy_(value)
        self._relative_loss = net.relative_loss

    def go_back(self, net: Any, error: DivergenceError) -> None:
        """Give a net the weights of the last good epoch and a lower learning rate, with a warning.

        Raises
        ------
        DivergenceError
            If it is not the first of this run; it names the rates of both tries.
        """
        if net.rate_factor < 1:
            raise DivergenceError(f"{error}{self._first_try}") from error
        rate = float(net.optimizer_.param_groups[0]["lr"])
        self._first_try = f" The first try, with lr={rate:g}, diverged in epoch {len(net.history)}."
        net.rate_factor = _LOWERED
        del net.history[-1]  # It is not whole.
        net.module_.load_state_dict(self._weights)
        net.average, net.relative_loss = None, self._relative_loss
        net.optimizer_.zero_grad()
        net.optimizer_.state.clear()
        warn(
            f"Training diverged and goes on from the weights after {net.n_epochs} epochs, with a "
            f"tenth of the learning rate. ({error})",
            ConvergenceWarning,
        )


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


def divergence(net: Any, what: str, is_named: Tensor) -> DivergenceError:
    """Return an error about what is not finite of some members, with what to do.

    Parameters
    ----------
    net : ParticleNet
    what : str
    is_named : Tensor of bool of shape (M,)
    """
    rate = net.rate_factor * float(net.optimizer_.param_groups[0]["lr"])
    lower = f"Lower lr (now {rate:g})"
    lower += " or repulsion_strength" if net.repulsion and net.strength else ""
    looks = ", or look at what your repulsion returns" if net.space_is_users else ""
    return DivergenceError(
        f"Got a {what} that is not finite (NaN or infinite) in epoch {len(net.history)}, of "
        f"{names_of_members(is_named)}, but expected finite numbers. {lower}, or scale the input "
        f"to unit variance{looks}."
    )


def names_of_members(is_named: Tensor) -> str:
    """Return some members as words, such as "members 1 and 4 of 10"."""
    index, n_members = is_named.nonzero().ravel().tolist(), len(is_named)
    if len(index) == n_members:
        return "all members" if n_members > 1 else "the only member"
    if len(index) > _MOST_NAMED:
        return f"{len(index)} of {n_members} members, member {index[0]} among them"
    names = " and ".join(filter(None, [", ".join(map(str, index[:-1])), str(index[-1])]))
    return f"member{'s' if len(index) > 1 else ''} {names} of {n_members}, counted from 0"


def is_raised_by_statement(error: BaseException) -> bool:
    """Return whether a `raise` statement has raised an exception, and not a signal in between."""
    traceback = error.__traceback__
    while traceback and traceback.tb_next:
        traceback = traceback.tb_next
    if traceback is None:
        return False
    code, at = traceback.tb_frame.f_code.co_code, traceback.tb_lasti
    return code[at : at + 1] == bytes([opmap["RAISE_VARARGS"]])
