"""Training state: the one way in which it leaves a net and enters another."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from skorch.history import History

from sklearn_fordes.particles import Lengthscale, to_arrays, to_tensors
from sklearn_fordes.training._net import ParticleNet


@dataclass(frozen=True)
class TrainingState:
    """All that goes on when training goes on.

    Parameters
    ----------
    members : dict
        Weights and buffers by name, stacked over members.
    optimizer : dict
        Name of the optimizer's class, its state (moments) and its parameter groups, with names in
        place of torch's numbers: another device or kernel makes other groups.
    n_steps : int
        Number of training steps.
    relative_loss : float
        Running mean of the members' relative loss.
    seed : int
        Seed of the draws of the user's code.
    batches : dict
        State of the generator that draws batches.
    history : list of dict
        An entry per epoch, without those of its batches.
    batch_size : int
        Largest number of rows in a batch.
    lengthscale : tuple or None
        Rotation and precision of the lengthscale, if there is a repulsion.
    """

    members: dict[str, Any]
    optimizer: dict[str, Any]
    n_steps: int
    relative_loss: float
    seed: int
    batches: dict[str, Any] | None
    history: list[dict[str, Any]]
    batch_size: int
    lengthscale: tuple[Any, ...] | None

    @classmethod
    def of(cls, net: ParticleNet) -> Self:
        """Read the state of a net, which goes on sharing its tensors."""
        rng = getattr(net, "iterator_train__rng", None)
        kernel = None if net.repulsion is None else net.repulsion.kernel
        return cls(
            members=dict(net.module_.state_dict()),
            optimizer=_optimizer_state(net),
            n_steps=net.n_steps,
            relative_loss=float(net.relative_loss),
            seed=net.seed,
            batches=None if rng is None else copy.deepcopy(rng.bit_generator.state),
            # What was noted of each batch grows with every call of partial_fit.
            history=[{**epoch, "batches": []} for epoch in net.history],
            batch_size=net.batch_size,
            lengthscale=None if kernel is None else tuple(kernel.lengthscale),
        )

    def without_members(self) -> Self:
        """Return the state without weights and buffers."""
        return replace(self, members={})

    def of_weights_only(self) -> Self:
        """Return the state without members, and without moments, which belong to all of them."""
        optimizer = {"type": "", "state": {}, "param_groups": []}
        return replace(self, members={}, optimizer=optimizer)

    def to_dict(self) -> dict[str, Any]:
        """Return the state as nested dicts and lists of arrays, numbers and strings."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        arrays: dict[str, Any] = to_arrays(fields)
        return arrays

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """Return the state that `to_dict` described."""
        return cls(**to_tensors(state))

    def known_lengthscale(self, default: Any) -> Any:
        """Return the lengthscale that the first training inputs gave, or a default."""
        return default if self.lengthscale is None else Lengthscale(*self.lengthscale)

    def load_into(self, net: ParticleNet) -> None:
        """Give an initialised net, which may have other settings, this state.

        The optimizer's moments are taken over if the optimizers are of one class. A learning rate
        that a scheduler has changed goes on from where it was, unless the net's is another.

        Raises
        ------
        ValueError
            If the networks differ.
        """
        if _shapes(net.module_.state_dict()) != _shapes(self.members):
            raise ValueError(
                "Got n_members, module, module__…, hidden_layer_sizes or noise that make another "
                "network than the one that was fitted, but expected the same. Call fit to begin "
                "anew."
            )
        net.module_.load_state_dict(self.members)
        net.n_steps, net.relative_loss, net.seed = self.n_steps, self.relative_loss, self.seed
        if self.batches is not None:
            net.iterator_train__rng.bit_generator.state = self.batches
        net.history_ = History(copy.deepcopy(self.history))
        if type(net.optimizer_).__qualname__ == self.optimizer["type"]:
            names = _names(net)
            before = {name: g for g in self.optimizer["param_groups"] for name in g["params"]}
            groups = [
                _going_on(group, before[names[group["params"][0]]])
                for group in net.optimizer_.state_dict()["param_groups"]
            ]
            moments = self.optimizer["state"]
            moments = {i: copy.deepcopy(moments[n]) for i, n in names.items() if n in moments}
            net.optimizer_.load_state_dict({"state": moments, "param_groups": groups})
            net.learning_rates = [group["lr"] for group in groups]


def _optimizer_state(net: ParticleNet) -> dict[str, Any]:
    """Return the optimizer's class and state, with the learning rates of the last epoch.

    skorch makes a scheduler anew for each run, and a new scheduler repeats the step that the one
    before it made at the end of that epoch.
    """
    state, names = net.optimizer_.state_dict(), _names(net)
    for group, rate in zip(state["param_groups"], net.learning_rates, strict=False):
        group |= {"lr": rate, "params": [names[i] for i in group["params"]]}
    return {
        "type": type(net.optimizer_).__qualname__,
        "state": {names[i]: moments for i, moments in state["state"].items()},
        "param_groups": state["param_groups"],
    }


def _names(net: ParticleNet) -> dict[int, str]:
    """Return the names of parameters by the numbers that the optimizer's state gives them."""
    names = {parameter: name for name, parameter in net.module_.named_parameters()}
    groups = net.optimizer_.param_groups
    return dict(enumerate(names[parameter] for group in groups for parameter in group["params"]))


def _going_on(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """Return a parameter group with new settings, and what a scheduler left in the old one."""
    group = {**old, **new}
    if old.get("initial_lr") == new["lr"]:
        group["lr"] = old["lr"]
    elif "initial_lr" in old:
        group["initial_lr"] = new["lr"]
    return group


def _shapes(state: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}
