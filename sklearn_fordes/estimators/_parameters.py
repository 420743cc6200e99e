"""Parameters of the estimators, those of the net's parts included, and what is made of them."""

from __future__ import annotations

import inspect
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.preprocessing import FunctionTransformer

from sklearn_fordes import networks, particles, training
from sklearn_fordes.estimators._validation import HasMethods, Interval, StrOptions
from sklearn_fordes.preprocessing import TabularEncoder

# Rows that a validation loss should rest on, if they are at most a fifth of the table.
_ENOUGH_FOR_VALIDATION = 64
# Limits of the automatic batch size, powers of two.
_SMALLEST_BATCH, _LARGEST_BATCH = 32, 128
PREFIXES = ("module__", "optimizer__", "iterator_train__", "iterator_valid__", "callbacks__")


class Parameters(BaseEstimator):
    """Keep ``module__…``, ``optimizer__…`` and the like as parameters of the estimator.

    They are attributes like any other, so that `get_params`, `clone` and a grid search see them.
    """

    _dropout = 0.0  # Of the default network.
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_members": [Interval(Integral, 1, None, closed="left")],
        # The parts of the repulsion are checked where it is built.
        "repulsion": [str, callable, HasMethods(["get_params", "build"])],
        "repulsion_strength": [Interval(Real, 0, None, closed="left")],
        "lengthscale": [str, Interval(Real, 0, 1, closed="both"), "array-like", callable],
        "encoder": [StrOptions({"auto"}), HasMethods(["fit_transform", "transform"]), None],
        "categorical_features": [StrOptions({"from_dtype"}), "array-like", None],
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "module": [callable, None],
        "optimizer": [callable, None],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "ema_decay": [Interval(Real, 0, 1, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "callbacks": [list, tuple, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "iterator_valid__batch_size": [Interval(Integral, 1, None, closed="left")],
    }

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # scikit-learn takes each name in a class's signature for a parameter, "kwargs" too.
        _, *named = inspect.signature(cls.__init__).parameters.values()
        named = [parameter for parameter in named if parameter.kind != parameter.VAR_KEYWORD]
        cls.__signature__ = inspect.Signature(named)

    def _store(self, arguments: dict[str, Any]) -> None:
        """Set the arguments of `__init__`, those of the net's parts among its ``kwargs``."""
        # Not the names of `__signature__`, which is a subclass's where that has its own parameters.
        for name, value in arguments.items():
            if name not in ("self", "kwargs"):
                setattr(self, name, value)
        self._store_parts(arguments["kwargs"])

    def _store_parts(self, parameters: dict[str, Any]) -> None:
        for name, value in parameters.items():
            if not name.startswith(PREFIXES):
                raise TypeError(
                    f"{type(self).__name__} got an unexpected parameter {name!r}, but expected one "
                    f"of its signature, or one that begins with {', '.join(PREFIXES)}."
                )
            setattr(self, name, value)

    def _parts(self, *prefixes: str) -> dict[str, Any]:
        """Return the parameters of the net's parts that begin with one of `prefixes`."""
        return {name: value for name, value in vars(self).items() if name.startswith(prefixes)}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters, those of the net's parts included.

        Parameters
        ----------
        deep : bool, default=True
            Whether to add the parameters of parameters that have some.

        Returns
        -------
        dict
            Values by name.
        """
        params: dict[str, Any] = super().get_params(deep=deep)
        return {**params, **self._parts(*PREFIXES)}

    def set_params(self, **params: Any) -> Parameters:
        """Set parameters, those of the net's parts included.

        Parameters
        ----------
        **params

        Returns
        -------
        self
            The estimator itself.

        Raises
        ------
        ValueError
            If there is no such parameter.
        """
        repulsion = params.get("repulsion", self.repulsion)
        of_repulsion = [name for name in params if name.startswith("repulsion__")]
        if of_repulsion and not hasattr(repulsion, "set_params"):
            raise ValueError(
                f"Got {of_repulsion[0]} with repulsion={repulsion!r}, but expected a Repulsion "
                f"object to set it of: repulsion=Repulsion({repulsion!r})."
            )
        parts = {name: value for name, value in params.items() if name.startswith(PREFIXES)}
        super().set_params(**{k: v for k, v in params.items() if k not in parts})
        self._store_parts(parts)
        return self

    # ---- from parameters to parts

    def _new_encoder(self, *, of_tables: bool) -> Any:
        """Return an encoder of tables, or one that changes nothing."""
        given = self.categorical_features
        if of_tables and isinstance(self.encoder, str):
            # Arrays, whatever scikit-learn's configuration says.
            return TabularEncoder(given).set_output(transform="default")
        if given is not None and not isinstance(given, str):
            raise ValueError(
                f"Got categorical_features={given!r} with an encoder or a module of your own, but "
                "expected 'from_dtype' or None. encoder=TabularEncoder(categorical_features) can "
                "come before a module."
            )
        if of_tables:
            return clone(self.encoder)
        return FunctionTransformer().set_output(transform="default")

    def _member_factory(self, encoder: Any, n_inputs: int, n_outputs: int) -> Any:
        """Return what makes a member for rows of an encoder."""
        arguments = {
            name.removeprefix("module__"): value for name, value in self._parts("module__").items()
        }
        if isinstance(self.module, particles.Module):
            if arguments:
                raise ValueError(
                    f"Got module__{next(iter(arguments))} with an instance as module, but expected "
                    "a class to pass it to."
                )
            return self.module
        sizes = np.atleast_1d(np.asarray(self.hidden_layer_sizes, dtype=object))
        if sizes.ndim > 1 or not all(_is_count(size) for size in sizes):
            raise ValueError(
                f"Got hidden_layer_sizes={self.hidden_layer_sizes!r}, but expected integers >= 1."
            )
        offered: dict[str, Any] = {
            "n_features": n_inputs,
            "n_outputs": n_outputs,
            "hidden_layer_sizes": tuple(map(int, sizes)),
            "embedded_features": getattr(encoder, "continuous_", np.empty(0)).tolist(),
        }
        module = self.module
        if module is None:
            module, offered["dropout"] = networks.MLP, self._dropout
        taken = {name: value for name, value in offered.items() if _accepts(module, name)}
        return partial(module, **{**taken, **arguments})

    def _new_net(
        self, fitted: Any, repulsion: Any, *, n_rows: int, max_epochs: int, seeds: Any
    ) -> Any:
        """Return an initialised net that trains on `n_rows` rows, whose members are untrained."""
        callbacks: list[Any] = []
        if self.early_stopping:
            stop = training.BestEpoch(
                patience=self.n_iter_no_change, threshold=0.0, load_best=True, sink=_discard
            )
            callbacks.append(("early_stopping", stop))
        if self.verbose:
            callbacks.append(("progress", training.EpochProgress()))
        net = training.ParticleNet(
            fitted.members,
            likelihood=fitted.likelihood,
            repulsion=None if self.n_members == 1 else repulsion,  # Nothing repels a single one.
            strength=float(self.repulsion_strength),
            ema_decay=float(self.ema_decay),
            seed=seeds[0],
            max_epochs=max_epochs,
            batch_size=self._batch_size(n_rows),
            lr=self.lr,
            callbacks=[*callbacks, *map(training.copy_callback, self.callbacks or ())],
            device=str(next(fitted.members.parameters()).device),
            **{
                **self._optimizer_parameters(),
                "iterator_train__shuffle": True,
                "iterator_train__rng": np.random.default_rng(seeds[1]),
                "iterator_valid__batch_size": fitted.rows_per_chunk,
                **self._parts("optimizer__", "iterator_train__", "iterator_valid__", "callbacks__"),
            },
        )
        return net.initialize()

    def _optimizer_parameters(self) -> dict[str, Any]:
        parameters: dict[str, Any] = {"optimizer": self.optimizer}
        if self.optimizer is None:
            other_kernels = ("optimizer__foreach", "optimizer__differentiable")
            fused = not self._parts(*other_kernels)
            parameters = {"optimizer": training.AdamW, "optimizer__fused": fused}
        # Passed even when zero, which is not every optimizer's default.
        if _accepts(parameters["optimizer"], "weight_decay"):
            parameters["optimizer__weight_decay"] = self.weight_decay
        elif self.weight_decay:
            raise ValueError(
                f"Got weight_decay={self.weight_decay!r} with an optimizer that takes none "
                f"({self.optimizer!r}), but expected 0."
            )
        return parameters

    def _batch_size(self, n_rows: int) -> int:
        if not isinstance(self.batch_size, str):
            return int(self.batch_size)
        power_of_two = 1 << max(1, n_rows // 10).bit_length() - 1
        return min(max(power_of_two, _SMALLEST_BATCH), _LARGEST_BATCH)

    def _n_held_out(self, n_rows: int) -> int:
        """Return the number of rows that validation takes."""
        if not isinstance(self.validation_fraction, str):
            return int(self.validation_fraction * n_rows)
        return max(n_rows // 10, min(n_rows // 5, _ENOUGH_FOR_VALIDATION))


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def _accepts(function: Any, name: str) -> bool:
    """Return whether the signature of a class or function has an argument of that name."""
    try:
        return name in inspect.signature(function).parameters
    except ValueError:  # Some builtins have no signature.
        return False


def _discard(message: str) -> None:
    """Print nothing of skorch's messages."""
