"""Parameters with a double underscore, which belong to the parts of the net."""

from __future__ import annotations

import inspect
from typing import Any

from sklearn.base import BaseEstimator

PREFIXES = ("module__", "optimizer__", "iterator_train__", "iterator_valid__", "callbacks__")


class PassThroughParameters(BaseEstimator):
    """Keeps ``module__…``, ``optimizer__…`` and the like as parameters of the estimator.

    They are attributes like any other, so that `get_params`, `clone` and a grid search see them.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # scikit-learn takes each name in a class's signature for a parameter, "kwargs" too.
        _, *named = inspect.signature(cls.__init__).parameters.values()
        named = [parameter for parameter in named if parameter.kind != parameter.VAR_KEYWORD]
        cls.__signature__ = inspect.Signature(named)

    def _store_pass_through(self, parameters: dict[str, Any]) -> None:
        for name, value in parameters.items():
            if not name.startswith(PREFIXES):
                raise TypeError(
                    f"{type(self).__name__} got an unexpected parameter {name!r}, but expected one "
                    f"of its signature, or one that begins with {', '.join(PREFIXES)}."
                )
            setattr(self, name, value)

    def _pass_through(self, *prefixes: str) -> dict[str, Any]:
        """Return those that begin with one of `prefixes`."""
        return {name: value for name, value in vars(self).items() if name.startswith(prefixes)}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters, those of the net's parts included.

        Parameters
        ----------
        deep : bool, default=True
            Whether to add the parameters of parameters that are estimators.

        Returns
        -------
        dict
            Values by name.
        """
        params: dict[str, Any] = super().get_params(deep=deep)
        return {**params, **self._pass_through(*PREFIXES)}

    def set_params(self, **params: Any) -> PassThroughParameters:
        """Set parameters, those of the net's parts included.

        Parameters
        ----------
        **params

        Returns
        -------
        self
            The estimator itself.
        """
        passed = {name: value for name, value in params.items() if name.startswith(PREFIXES)}
        super().set_params(**{k: v for k, v in params.items() if k not in passed})
        self._store_pass_through(passed)
        return self
