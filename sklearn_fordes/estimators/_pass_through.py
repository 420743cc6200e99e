"""Parameters with a double underscore, which belong to the parts of the net."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator

PREFIXES = ("module__", "optimizer__", "iterator_train__", "iterator_valid__", "callbacks__")


class PassThroughParameters(BaseEstimator):
    """Keeps ``module__…``, ``optimizer__…`` and the like as parameters of the estimator.

    They are attributes like any other, so that `get_params`, `clone` and a grid search see them.
    """

    def _store_pass_through(self, parameters: dict[str, Any]) -> None:
        # scikit-learn's constructors accept anything: what is not expected is told in fit.
        unexpected = [name for name in parameters if not name.startswith(PREFIXES)]
        if unexpected:
            self._unexpected = unexpected
        for name, value in parameters.items():
            setattr(self, name, value)

    def _pass_through(self, *prefixes: str, strip: bool = False) -> dict[str, Any]:
        """Return those that begin with one of `prefixes`, without it if `strip`."""
        return {
            name.split("__", 1)[1] if strip else name: value
            for name, value in vars(self).items()
            if name.startswith(prefixes)
        }

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters, those of the net's parts included.

        Parameters
        ----------
        deep : bool, default=True
            Whether to add the parameters of parameters that are estimators.

        Returns
        -------
        dict
        """
        params: dict[str, Any] = super().get_params(deep=deep)
        unexpected = {name: getattr(self, name) for name in getattr(self, "_unexpected", ())}
        return {**params, **self._pass_through(*PREFIXES), **unexpected}

    def set_params(self, **params: Any) -> PassThroughParameters:
        """Set parameters, those of the net's parts included.

        Parameters
        ----------
        **params

        Returns
        -------
        self
        """
        passed = {name: value for name, value in params.items() if name.startswith(PREFIXES)}
        super().set_params(**{k: v for k, v in params.items() if k not in passed})
        self._store_pass_through(passed)
        return self

    def _validate_params(self) -> None:
        super()._validate_params()
        if hasattr(self, "_unexpected"):
            raise TypeError(
                f"Got the parameter {self._unexpected[0]!r}, but expected one that "
                f"{type(self).__name__} lists in its signature, or that begins with one of "
                f"{', '.join(PREFIXES)}."
            )
