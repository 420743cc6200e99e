"""Parameters of the estimators, those of the net's parts included."""

from __future__ import annotations

import inspect
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator

from sklearn_fordes.estimators._validation import HasMethods, Interval, StrOptions

PREFIXES = ("module__", "optimizer__", "iterator_train__", "iterator_valid__", "callbacks__")


class Parameters(BaseEstimator):
    """Keep ``module__…``, ``optimizer__…`` and the like as parameters of the estimator.

    They are attributes like any other, so that `get_params`, `clone` and a grid search see them.
    """

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
    }

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # scikit-learn takes each name in a class's signature for a parameter, "kwargs" too.
        _, *named = inspect.signature(cls.__init__).parameters.values()
        named = [parameter for parameter in named if parameter.kind != parameter.VAR_KEYWORD]
        cls.__signature__ = inspect.Signature(named)

    def _store(self, arguments: dict[str, Any]) -> None:
        """Set the arguments of `__init__`, those of the net's parts among its ``kwargs``."""
        for name in type(self).__signature__.parameters:
            setattr(self, name, arguments[name])
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

    def _hidden_layer_sizes(self) -> tuple[int, ...]:
        sizes = np.atleast_1d(np.asarray(self.hidden_layer_sizes, dtype=object))
        if sizes.ndim > 1 or not all(_is_count(size) for size in sizes):
            raise ValueError(
                f"Got hidden_layer_sizes={self.hidden_layer_sizes!r}, but expected integers >= 1."
            )
        return tuple(int(size) for size in sizes)


def accepts(function: Any, name: str) -> bool:
    """Return whether the signature of a class or function has an argument of that name."""
    try:
        return name in inspect.signature(function).parameters
    except ValueError:  # Some builtins have no signature.
        return False


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1
