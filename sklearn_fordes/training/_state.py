"""Training state: the one way in which it leaves a net and enters another."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from skorch.history import History
from torch import Tensor

from sklearn_fordes._warnings import warn
from sklearn_fordes.particles import Lengthscale, to_arrays, to_tensors
from sklearn_fordes.training._averaging import WeightAverage
from sklearn_fordes.training._net import ParticleNet

# Attributes of skorch's callbacks that are empty when an epoch begins. They hold rows.
_WITHIN_AN_EPOCH = {"y_trues_", "y_preds_"}


class TrainingState(NamedTuple):
    """All that goes on when training goes on.

    Parameters
    ----------
    members : dict
        Weights and buffers by name, stacked over members.
    optimizer : dict
        Name of the optimizer's class, and settings and moments of each parameter by its name.
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
    run : dict, optional
        What goes on within a run of training only, between two epochs: the average of the weights,
        the factor of its learning rates, names of weights that are not trained, and attributes of
        callbacks.
    """

    members: dict[str, Any]
    optimizer: dict[str, Any]
    n_steps: int
    relative_loss: float
    seed: int
    batches: dict[str, Any]
    history: list[dict[str, Any]]
    batch_size: int
    lengthscale: tuple[Any, ...] | None
    run: dict[str, Any] | None = None

    @classmethod
    def of(cls, net: ParticleNet, *, within_run: bool = False) -> Self:
        """Read the state of a net, which goes on sharing its tensors.

        Parameters
        ----------
        net : ParticleNet
        within_run : bool, default=False
            Whether the same run goes on from it, and not a later one.
        """
        return cls(
            members=dict(net.module_.state_dict()),
            optimizer=_optimizer_state(net, within_run),
            n_steps=net.n_steps,
            relative_loss=float(net.relative_loss),
            seed=net.seed,
            batches=net.iterator_train__rng.bit_generator.state,
            # What was noted of each batch grows with every call of partial_fit.
            history=[{**epoch, "batches": []} for epoch in net.history],
            batch_size=net.batch_size,
            lengthscale=tuple(net.repulsion.kernel.lengthscale) if net.repulsion else None,
            run=_run_state(net) if within_run else None,
        )

    def over_members(self, function: Callable[..., Tensor], *others: Self) -> Self:
        """Apply a function to each array whose first axis is that of the members.

        Parameters
        ----------
        function : callable
            Maps such an array of this state, and the same one of each of the others, to another:
            picks some members, say, or joins those of several processes.
        *others : TrainingState
        """
        everyone = (self, *others)

        def mapped(*parts: dict[str, Any]) -> dict[str, Any]:
            return {
                name: function(*(part[name] for part in parts)) if _has_axes(value) else value
                for name, value in parts[0].items()
            }

        optimizer, run = dict(self.optimizer), self.run
        if optimizer:
            optimizer["parameters"] = {
                name: (settings, mapped(*(s.optimizer["parameters"][name][1] for s in everyone)))
                for name, (settings, _) in self.optimizer["parameters"].items()
            }
        if run is not None:
            runs = [state.run for state in everyone if state.run is not None]
            run = {**run, "callbacks": dict(run["callbacks"])}
            if run["average"] is not None:
                values = zip(*(other["average"][0] for other in runs), strict=True)
                run["average"] = [function(*tensors) for tensors in values], run["average"][1]
            for callback, learnt in run["callbacks"].items():
                run["callbacks"][callback] = {
                    # Weights that a callback has kept.
                    key: mapped(*(other["callbacks"][callback][key] for other in runs))
                    if isinstance(value, dict) and value.keys() == self.members.keys()
                    else value
                    for key, value in learnt.items()
                }
        members = mapped(*(state.members for state in everyone))
        return self._replace(members=members, optimizer=optimizer, run=run)

    def to_dict(self) -> dict[str, Any]:
        """Return the state as nested dicts and lists of arrays, numbers and strings."""
        state = self._asdict()
        if self.run is None:  # As in files of versions without it.
            del state["run"]
        return dict(to_arrays(state))

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """Return the state that `to_dict` described."""
        # The words of a generator are those of numpy.
        others = {name: value for name, value in state.items() if name != "batches"}
        return cls(batches=state["batches"], **to_tensors(others))

    def known_lengthscale(self, default: Any) -> Any:
        """Return the lengthscale that the first training inputs gave, or a default."""
        return default if self.lengthscale is None else Lengthscale(*self.lengthscale)

    def load_into(self, net: ParticleNet) -> None:
        """Give an initialised net, which may have other settings, this state.

        The optimizer's moments are taken over if the optimizers are of one class. A learning rate
        that a scheduler has changed goes on from where it was, unless the net's is another. A state
        within a run goes on with all settings as they were; the net's callbacks have begun.

        Raises
        ------
        ValueError
            If the networks differ.
        """
        try:
            net.module_.load_state_dict(self.members)
        except RuntimeError as error:
            raise ValueError(
                "Got n_members, module, module__…, hidden_layer_sizes or noise that make another "
                "network than the one that was fitted, but expected the same. Call fit without "
                "warm_start to begin anew."
            ) from error
        net.n_steps, net.relative_loss, net.seed = self.n_steps, self.relative_loss, self.seed
        net.iterator_train__rng.bit_generator.state = self.batches
        net.history_, net.n_epochs = History(self.history), len(self.history)
        if type(net.optimizer_).__qualname__ == self.optimizer.get("type"):
            self._load_optimizer(net)
        if self.run is not None:
            _load_run(net, self.run)

    def _load_optimizer(self, net: ParticleNet) -> None:
        # By name, since groups depend on the device and on the optimizer's settings. New settings
        # replace the old ones, but for what a scheduler has left there.
        optimizer, names = net.optimizer_, _names(net)
        for group in optimizer.param_groups:
            for p in group["params"]:
                old, optimizer.state[p] = self.optimizer["parameters"][names[p]]
            if self.run is not None:
                group.update(old)
                continue
            rate = group["lr"]
            group.update({**old, **group})
            if old.get("initial_lr") == rate:
                group["lr"] = old["lr"]
            elif "initial_lr" in old:
                group["initial_lr"] = rate
        # The copies of the moments go to the device of the weights.
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def _optimizer_state(net: ParticleNet, within_run: bool) -> dict[str, Any]:
    """Return the optimizer's class and state, for a later run with the rates of the last epoch.

    skorch makes a scheduler anew for each run, and a new scheduler repeats the step that the one
    before it made at the end of that epoch.
    """
    optimizer, names = net.optimizer_, _names(net)
    parameters = {}
    for group in optimizer.param_groups:
        settings = dict(group)
        del settings["params"]
        if not within_run:
            settings["lr"] = settings.pop("lr_of_epoch", settings["lr"])
        for p in group["params"]:
            parameters[names[p]] = settings, optimizer.state.get(p, {})
    return {"type": type(optimizer).__qualname__, "parameters": parameters}


def _run_state(net: ParticleNet) -> dict[str, Any]:
    """Return what goes on within a run: attributes of callbacks whose names end as learnt ones do.

    Of an attribute that has a state of its own, such as a scheduler, that is returned.
    """
    callbacks = {
        name: {
            key: _state_of(value)
            for key, value in vars(callback).items()
            if _is_learnt(key) and key not in _WITHIN_AN_EPOCH
        }
        for name, callback in net.callbacks_
    }
    return {
        "average": net.average and net.average.state,
        "rate_factor": net.rate_factor,
        "frozen": [n for n, p in net.module_.named_parameters() if not p.requires_grad],
        "callbacks": callbacks,
    }


def _has_axes(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


def _is_learnt(key: Any) -> bool:
    # A file must not set what a callback does, or where it writes.
    return isinstance(key, str) and key.endswith("_") and not key.startswith("__")


def _state_of(value: Any) -> Any:
    if hasattr(value, "state_dict") and not isinstance(value, type):
        return {"state_dict": _plain(value.state_dict())}
    return _plain(value)


def _plain(value: Any) -> Any:
    """Return a value whose dicts are no counters or other subclasses, which a file can't hold."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if type(value) is list else value


def _of_types(value: Any, current: Any) -> Any:
    """Return a value whose dicts are of the types of those that another value has there."""
    if not (isinstance(value, dict) and isinstance(current, dict)):
        return value
    made = copy.copy(current)  # A default dict keeps its factory.
    made.clear()
    made.update({key: _of_types(part, current.get(key)) for key, part in value.items()})
    return made


def _load_run(net: ParticleNet, run: dict[str, Any]) -> None:
    """Let a run, whose callbacks have begun, go on from the state of another."""
    net.rate_factor = run["rate_factor"]
    for name, parameter in net.module_.named_parameters():
        parameter.requires_grad_(name not in run["frozen"])
    if run["average"] is not None:
        net.average = WeightAverage(net.module_.parameters(), net.ema_decay)
        net.average.set_state(*run["average"])
    for name, callback in net.callbacks_:
        for key, value in run["callbacks"].get(name, {}).items():
            if not _is_learnt(key):
                raise ValueError(f"{key!r} of callback {name!r} is not what a callback learns")
            current = getattr(callback, key, None)
            if not (isinstance(value, dict) and value.keys() == {"state_dict"}):
                setattr(callback, key, _of_types(value, current))
            elif current is not None:
                state = value["state_dict"]
                current.load_state_dict(_of_types(state, current.state_dict()))
            else:
                warn(
                    f"Got a callback {name!r} that does not have {key!r} when training begins, but "
                    "expected it: its state is in the checkpoint, and begins anew."
                )


def _names(net: ParticleNet) -> dict[Any, str]:
    return {parameter: name for name, parameter in net.module_.named_parameters()}
