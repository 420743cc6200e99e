"""What the estimators share: from parameters and rows to a trained net."""

from __future__ import annotations

import copy
import inspect
import warnings
from abc import ABCMeta, abstractmethod
from functools import partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from sklearn_fordes.estimators._input import Table, as_array, errors_about
from sklearn_fordes.estimators._pass_through import PassThroughParameters
from sklearn_fordes.estimators._prediction import EnsemblePrediction, rows_at_a_time
from sklearn_fordes.estimators._repulsion import RepulsionSettings, look_up

if TYPE_CHECKING:  # torch is imported when a net is first needed
    from collections.abc import Callable

    from torch import nn

    from sklearn_fordes.particles import Ensemble, MemberFactory
    from sklearn_fordes.training import ParticleNet, Rows

# Rows that a validation loss should rest on, where a fifth of the table has them.
_ENOUGH_FOR_VALIDATION = 64
# Limits of the automatic batch size, powers of two.
_SMALLEST_BATCH, _LARGEST_BATCH = 32, 128


class Seeds(NamedTuple):
    """Independent seeds of what `random_state` determines."""

    split: int
    members: int
    batches: int


class BaseFoRDE(EnsemblePrediction, PassThroughParameters, metaclass=ABCMeta):
    """Parameters, input checks, net and training common to classifier and regressor."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_members": [Interval(Integral, 1, None, closed="left")],
        # What strings may name is looked up in the registries of `particles` and `training`.
        "repulsion": [str, callable],
        "repulsion_strength": [Interval(Real, 0, None, closed="left")],
        "relative_strength": ["boolean"],
        "update": [str],
        "lengthscale": [str, Interval(Real, 0, 1, closed="both"), "array-like"],
        "lengthscale_mix": [str],
        "bandwidth": [str, Interval(Real, 0, None, closed="neither")],
        "repulsion_fraction": [Interval(Real, 0, 1, closed="right")],
        "repulsion_period": [Interval(Integral, 1, None, closed="left")],
        "repulsion_warmup": [Interval(Integral, 0, None, closed="left")],
        "repulsion_perturbation": [str, callable, None],
        "encoder": [StrOptions({"auto"}), HasMethods(["fit_transform", "transform"]), None],
        "categorical_features": [StrOptions({"from_dtype"}), "array-like", None],
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "module": [callable, None],
        "optimizer": [callable, None],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "predict_batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "ema_decay": [Interval(Real, 0, 1, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "refit": ["boolean"],
        "compile": ["boolean"],
        "callbacks": [list, tuple, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    _default_dropout: ClassVar[float] = 0.0  # of the default network

    # ---- net

    def _hidden_layer_sizes(self) -> tuple[int, ...]:
        sizes = np.atleast_1d(np.asarray(self.hidden_layer_sizes, dtype=object))
        if sizes.ndim > 1 or not all(_is_count(size) for size in sizes):
            raise ValueError(
                f"Got hidden_layer_sizes={self.hidden_layer_sizes!r}, but expected integers >= 1."
            )
        return tuple(int(size) for size in sizes)

    @property
    @abstractmethod
    def _n_outputs(self) -> int:
        """How many outputs a row has."""

    @abstractmethod
    def _net_class(self) -> type[ParticleNet]:
        """Return the class of skorch net that trains it."""

    def _network(self) -> tuple[Callable[..., Ensemble], MemberFactory | nn.Module]:
        """Return what stacks members, and what makes one of them."""
        from sklearn_fordes.networks import stack_members

        return stack_members, self._member_factory(self._n_outputs)

    def _member_factory(self, n_outputs: int) -> MemberFactory:
        from torch import nn

        from sklearn_fordes.networks import MLP

        arguments = {
            name.removeprefix("module__"): value
            for name, value in self._pass_through("module__").items()
        }
        if isinstance(self.module, nn.Module):
            if arguments:
                raise ValueError(
                    f"Got module__{next(iter(arguments))} beside an instance as module, but "
                    "expected a class to pass it to."
                )
            return self.module
        offered: dict[str, Any] = {
            "n_features": self._n_inputs,
            "n_outputs": n_outputs,
            "hidden_layer_sizes": self._hidden_layer_sizes(),
            "embedded_features": getattr(self.encoder_, "continuous_", np.empty(0)).tolist(),
        }
        if self.module is None:
            offered["dropout"] = self._default_dropout
        module = MLP if self.module is None else self.module
        offered = {name: value for name, value in offered.items() if _accepts(module, name)}
        return partial(module, **{**offered, **arguments})

    def _batch_size(self, n_rows: int) -> int:
        if not isinstance(self.batch_size, str):
            return int(self.batch_size)
        power_of_two = 1 << max(1, n_rows // 10).bit_length() - 1
        return min(max(power_of_two, _SMALLEST_BATCH), _LARGEST_BATCH)

    def _make_net(self, rng: np.random.Generator, member_seed: int, batch_size: int) -> ParticleNet:
        """Return an initialised net, whose members are not yet trained."""
        from sklearn_fordes.training import (
            BestEpoch,
            EpochProgress,
            Schedule,
            copied_callback,
            resolve_device,
        )

        callbacks: list[Any] = []
        if self.early_stopping:
            callbacks.append(("early_stopping", BestEpoch(self.n_iter_no_change)))
        if self.verbose:
            callbacks.append(("progress", EpochProgress()))
        kind, make_member = self._network()
        net = self._net_class()(
            kind,
            likelihood=self._likelihood,
            schedule=Schedule(
                int(self.repulsion_period), int(self.repulsion_warmup), bool(self.relative_strength)
            ),
            ema_decay=float(self.ema_decay),
            compiles_step=bool(self.compile),
            module__make_member=make_member,
            module__n_members=int(self.n_members),
            module__seed=member_seed,
            max_epochs=self.max_epochs,
            batch_size=batch_size,
            lr=self.lr,
            callbacks=[*callbacks, *map(copied_callback, self.callbacks or ())],
            device=str(resolve_device(self.device)),
            **{
                **self._optimizer_parameters(),
                "iterator_train__shuffle": True,
                "iterator_train__rng": rng,
                **self._pass_through(
                    "optimizer__", "iterator_train__", "iterator_valid__", "callbacks__"
                ),
            },
        )
        net.initialize()
        if not self._pass_through("iterator_valid__batch_size"):
            net.iterator_valid__batch_size = rows_at_a_time(net)
        self._check_callback_names([name for name, _ in net.callbacks_])
        return net

    def _check_callback_names(self, names: list[str]) -> None:
        for parameter, value in self._pass_through("callbacks__").items():
            name = parameter.split("__")[1]
            if name not in names and value is not None:  # None takes a callback out
                raise ValueError(
                    f"Got {parameter}, but there is no callback {name!r}; expected one of {names}."
                )

    def _optimizer_parameters(self) -> dict[str, Any]:
        from torch.optim import AdamW

        parameters: dict[str, Any] = {"optimizer": self.optimizer}
        if self.optimizer is None:
            parameters["optimizer"] = AdamW
            other_kernels = ("optimizer__foreach", "optimizer__differentiable")
            parameters["optimizer__fused"] = not self._pass_through(*other_kernels)
        # Passed even when zero, which is not every optimizer's default.
        if _accepts(parameters["optimizer"], "weight_decay"):
            parameters["optimizer__weight_decay"] = self.weight_decay
        elif self.weight_decay:
            raise ValueError(
                f"Got weight_decay={self.weight_decay!r} with an optimizer that takes none "
                f"({self.optimizer!r}), but expected 0."
            )
        return parameters

    # ---- training

    def _fit_net(self, table: Table, valid: Table | None, X_repulsion: NDArray[Any] | None) -> None:
        """Set the fitted attributes from training rows, and from other rows if given."""
        seeds = self._draw_seeds()
        trained_on = table
        if valid is None and self.early_stopping:
            trained_on, valid = self._hold_out(table, seeds.split)
        fit = partial(
            self._fit_new_net,
            seeds=seeds,
            batch_size=self._batch_size(len(trained_on.y)),
            X_repulsion=X_repulsion,
        )
        ended = fit(trained_on, valid, epochs=self.max_epochs)
        if not ended:
            _warn_of_interrupt(
                f"in epoch {self.n_iter_ + 1} of {self.max_epochs}",
                "then (with early stopping: as in the best epoch before)",
            )
        if not (ended and self.refit and len(trained_on.y) < len(table.y)):
            return
        # Of the callback that stopped, whatever it monitors, if there is one.
        stopping = dict(self.net_.callbacks_).get("early_stopping")
        n_best = getattr(stopping, "best_epoch_", 0) or self.n_iter_
        of_fewer_rows = vars(self).copy()
        reason = ""
        try:
            ended = fit(table, None, epochs=n_best)
        except KeyboardInterrupt:
            ended = False
        except Exception as error:
            ended, reason = False, f" ({error})"
        if not ended:
            self.__dict__.update(of_fewer_rows)
            _warn_of_interrupt(
                f"while training on all rows{reason}", "before, without those held out"
            )

    def _fit_new_net(
        self,
        table: Table,
        valid: Table | None,
        *,
        seeds: Seeds,
        batch_size: int,
        epochs: int,
        X_repulsion: NDArray[Any] | None,
    ) -> bool:
        """Set the fitted attributes from so many epochs; return whether they came to an end."""
        net, rows = self._start_net(table, seeds, batch_size)
        valid_rows = None if valid is None else self._to_rows(valid, net)
        return self._train(net, rows, valid_rows, epochs=epochs, X_repulsion=X_repulsion)

    def _fit_net_further(self, table: Table) -> None:
        """Set the fitted attributes from one epoch more on training rows, the first maybe."""
        if hasattr(self, "net_"):
            net, rows = self._continue_net(table)
        else:
            net, rows = self._start_net(table, self._draw_seeds(), self._batch_size(len(table.y)))
        self._train(net, rows, None, epochs=1)

    @abstractmethod
    def _hold_out(self, table: Table, seed: int) -> tuple[Table, Table | None]:
        """Split rows off for validation, or none if they are too few."""

    def _n_held_out(self, n_rows: int) -> int:
        """How many of so many rows validation takes."""
        if not isinstance(self.validation_fraction, str):
            return int(self.validation_fraction * n_rows)
        return max(n_rows // 10, min(n_rows // 5, _ENOUGH_FOR_VALIDATION))

    def _draw_seeds(self) -> Seeds:
        root = check_random_state(self.random_state).randint(2**31)
        return Seeds(*np.random.SeedSequence(root).generate_state(len(Seeds._fields)).tolist())

    def _start_net(self, table: Table, seeds: Seeds, batch_size: int) -> tuple[ParticleNet, Rows]:
        """Return an untrained net and the rows it will be trained on, encoded."""
        self.encoder_ = self._make_encoder()
        # Not always what transform gives: a target encoder leaves a row's own target out.
        encoded = as_array(self.encoder_.fit_transform(table.X, table.y))
        self._n_inputs = int(np.prod(encoded.shape[1:]))
        rng = np.random.default_rng(seeds.batches)
        net = self._make_net(rng, seeds.members, batch_size)
        rows = self._to_rows(table, net, encoded)
        self._repulsion_settings = RepulsionSettings.of(self)
        net.repulsion = self._repulsion_settings.make(rows.X)
        return net, rows

    def _continue_net(self, table: Table) -> tuple[ParticleNet, Rows]:
        """Return a net with the parameters of now and the training so far, and encoded rows.

        The fitted net is left as it is, so that nothing is lost if training fails.
        """
        from sklearn_fordes.training import take_over

        fitted = self.net_
        rng = copy.deepcopy(fitted.iterator_train__rng)
        net = self._make_net(rng, fitted.module__seed, self._batch_size(len(table.y)))
        take_over(net, fitted)
        rows = self._to_rows(table, net)
        settings = RepulsionSettings.of(self)
        # Later rows don't change a metric, but other parameters do.
        metric = None
        if fitted.repulsion is not None and settings.has_metric_of(self._repulsion_settings):
            metric = fitted.repulsion.kernel.metric
        net.repulsion = settings.make(rows.X, metric)
        self._repulsion_settings = settings
        return net, rows

    def _train(
        self,
        net: ParticleNet,
        rows: Rows,
        valid: Rows | None,
        *,
        epochs: int,
        X_repulsion: NDArray[Any] | None = None,
    ) -> bool:
        """Set the fitted attributes from the net as it is after some epochs more.

        Returns whether training came to its end.
        """
        from sklearn_fordes.training import can_compile, train, try_step

        if self.compile and not can_compile(net):
            raise ValueError(
                "Got compile=True with a module, a kind of noise or a repulsion that needs "
                "autograd, but expected the default network and repulsion='input_gradient', "
                "'weight' or 'none'."
            )
        points = self._make_points(net, X_repulsion)
        try_step(net, rows, self._n_outputs, points)
        ended = train(net, rows, valid, epochs=epochs, points=points)
        self.net_ = net
        self.history_ = [
            {name: value for name, value in epoch.items() if name not in ("batches", "completed")}
            for epoch in net.history
        ]
        self.n_iter_ = len(self.history_)
        return ended

    def _make_points(self, net: ParticleNet, X_repulsion: NDArray[Any] | None) -> Any:
        """Return what gives points to compare members at beside a batch's rows, or None."""
        from sklearn_fordes.training import PERTURBATIONS, drawn_from, perturbed_by

        perturbation = self.repulsion_perturbation
        if isinstance(perturbation, str):
            perturbation = look_up(PERTURBATIONS, "repulsion_perturbation", perturbation)
        if X_repulsion is None and perturbation is None:
            return None
        given = "X_repulsion"
        if perturbation is not None:
            given = f"repulsion_perturbation={self.repulsion_perturbation!r}"
            if X_repulsion is not None:
                raise ValueError(f"Got X_repulsion beside {given}, but expected one of them.")
        if net.repulsion is not None and not net.repulsion.space.at_rows:
            raise ValueError(
                f"Got {given} with repulsion={self.repulsion!r}, which compares members by what is "
                "the same at all rows, but expected another repulsion."
            )
        if X_repulsion is None:
            return perturbed_by(perturbation)
        with errors_about("X_repulsion"):
            return drawn_from(self._encode(net, X_repulsion).X)

    # ---- scikit-learn

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        for kind in ("allow_nan", "string", "categorical"):
            setattr(tags.input_tags, kind, self._is_encoded)
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "net_")

    # ---- pickling

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        net = state.get("net_")
        if net is not None and net.device != "cpu":
            state["net_"] = _moved_copy(net, "cpu")
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "net_" in state:
            _return_to_device(self.net_, self.device)


def _accepts(function: Any, name: str) -> bool:
    """Whether a class or function says that it takes an argument of that name."""
    try:
        return name in inspect.signature(function).parameters
    except ValueError:  # some builtins say nothing
        return False


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def _warn_of_interrupt(when: str, kept: str) -> None:
    warnings.warn(
        f"Training was interrupted {when}, and the fit is kept as it was {kept}.",
        ConvergenceWarning,
        stacklevel=4,  # where fit was called
    )


def _moved_copy(net: ParticleNet, device: str) -> ParticleNet:
    from sklearn_fordes.training import move_net, resolve_device

    moved: ParticleNet = move_net(copy.deepcopy(net), resolve_device(device))
    return moved


def _return_to_device(net: ParticleNet, device: Any) -> None:
    """Move a net that was pickled on the CPU to the device asked for, if this machine has it."""
    from sklearn_fordes.training import move_net, resolve_device

    try:
        available = resolve_device(device)
    except ValueError:
        return
    if str(available) != net.device:
        move_net(net, available)
