"""Parameters of the estimators, those of the net's parts included, and what is made of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from numbers import Integral
from typing import Any, Literal, Union

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone
from sklearn.preprocessing import FunctionTransformer

from sklearn_fordes import networks, particles, training
from sklearn_fordes.estimators._validation import PARAMETER_CONSTRAINTS
from sklearn_fordes.preprocessing import TabularEncoder

# Rows that a validation loss should rest on, if they are at most a fifth of the table.
_ENOUGH_FOR_VALIDATION = 64
# Limits of the automatic batch size, powers of two.
_SMALLEST_BATCH, _LARGEST_BATCH = 32, 128
RepulsionLike = Union[
    Literal["input_gradient", "weight", "function", "feature", "none"],
    Callable[..., Any],
    "particles.Repulsion",
]
LengthscaleLike = Literal["identity", "pca"] | float | ArrayLike | Callable[..., Any]
PREFIXES = ("module__", "optimizer__", "iterator_train__", "iterator_valid__", "callbacks__")


class Parameters(BaseEstimator):
    """Keep ``module__…``, ``optimizer__…`` and the like as parameters of the estimator.

    They are attributes like any other, so that `get_params`, `clone` and a grid search see them.
    """

    _dropout = 0.0  # Of the default network.
    _parameter_constraints = PARAMETER_CONSTRAINTS

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # scikit-learn takes each name in a class's signature for a parameter, "kwargs" too.
        _, *named = inspect.signature(cls.__init__).parameters.values()
        named = [parameter for parameter in named if parameter.kind != parameter.VAR_KEYWORD]
        cls.__signature__ = inspect.Signature(named)

    def _store(self, arguments: dict[str, Any]) -> None:
        """Set the arguments of `__init__`, those of the net's parts among its ``kwargs``."""
        # Not the names of `__signature__`, which is a subclass's where that has its own parameters.
        parts = arguments.pop("kwargs")
        del arguments["self"]
        self.__dict__.update(arguments)
        self._store_parts(parts)

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

    def _uses_encoder(self) -> bool:
        # By default a module of the user's own sees the rows as they come.
        is_default = isinstance(self.encoder, str)
        return self.module is None if is_default else self.encoder is not None

    def _new_encoder(self) -> Any:
        """Return an encoder of tables, or one that changes nothing."""
        given, uses_encoder = self.categorical_features, self._uses_encoder()
        if uses_encoder and isinstance(self.encoder, str):
            # Arrays, whatever scikit-learn's configuration says.
            return TabularEncoder(given).set_output(transform="default")
        if given is not None and not isinstance(given, str):
            raise ValueError(
                f"Got categorical_features={given!r} with an encoder or a module of your own, but "
                "expected 'from_dtype' or None. encoder=TabularEncoder(categorical_features) can "
                "come before a module."
            )
        if uses_encoder:
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
        is_whole = [isinstance(size, Integral) and not isinstance(size, bool) for size in sizes]
        if sizes.ndim > 1 or not all(is_whole) or min(sizes, default=1) < 1:
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
        self, fitted: Any, inputs: Any, lengthscale: Any, *, max_epochs: int, seeds: Any
    ) -> Any:
        """Return an initialised net for training rows, whose members are untrained."""
        repulsion = particles.as_repulsion(self.repulsion).build(inputs, lengthscale)
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
            batch_size=self._batch_size(len(inputs)),
            lr=self.lr,
            callbacks=[*callbacks, *map(training.copy_callback, self.callbacks or ())],
            device=str(fitted.device),
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
        parameters: dict[str, Any] = {"optimizer": self.optimizer or training.AdamW}
        if self.optimizer is None:
            other_kernels = ("optimizer__foreach", "optimizer__differentiable")
            parameters["optimizer__fused"] = not self._parts(*other_kernels)
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


def _accepts(function: Any, name: str) -> bool:
    """Return whether the signature of a class or function has an argument of that name."""
    try:
        return name in inspect.signature(function).parameters
    except ValueError:  # Some builtins have no signature.
        return False


def _discard(message: str) -> None:
    """Print nothing of skorch's messages."""
