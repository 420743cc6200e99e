"""Parameters of the estimators, and what is made of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from numbers import Integral
from typing import Any, ClassVar, Literal, Union

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone
from sklearn.preprocessing import FunctionTransformer

from sklearn_fordes import inference, networks, particles, training
from sklearn_fordes._signatures import accepts, explaining_arguments
from sklearn_fordes.estimators._validation import PARAMETER_CONSTRAINTS
from sklearn_fordes.preprocessing import TabularEncoder

RepulsionLike = Union[
    Literal["input_gradient", "weight", "function", "feature", "none"],
    Callable[..., Any],
    "particles.Repulsion",
]
LengthscaleLike = Literal["identity", "pca"] | float | ArrayLike | Callable[..., Any]
# Of libraries that users come from, with what is meant by them here.
_NAMES_ELSEWHERE = {
    "alpha": "weight_decay",
    "confidence_level": "confidence",
    "coverage": "confidence",
    "epochs": "max_epochs",
    "eval_set": "X_val",
    "learning_rate": "lr",
    "learning_rate_init": "lr",
    "max_iter": "max_epochs",
    "n_epochs": "max_epochs",
    "n_estimators": "n_members",
    "n_jobs": "n_workers",
    "n_models": "n_members",
    "patience": "n_iter_no_change",
    "seed": "random_state",
    "weights": "sample_weight",
}
# Objects that have parameters, in place of a name. Two of them need torch.
_OBJECTS: dict[str, Callable[[], type]] = {
    "augmentation": lambda: training.CellCorruption,
    "encoder": lambda: TabularEncoder,
    "repulsion": lambda: particles.Repulsion,
}
# Wider tables are not embedded: it takes most of the time there, and lowers the loss on some of
# them and raises it on others (docs/tables.md has figures).
MOST_EMBEDDED = 128
# Of smaller tables, if they have so many rows, members leave folds out in turn.
_FEWEST_TO_DEAL = 5
_FEWEST_TO_HOLD_OUT = 640
# Rows that training sees in all epochs together: so many times a power of the number of rows.
# Chosen on the development sets (docs/defaults.md).
_ROWS_SEEN, _GROWTH_OF_ROWS_SEEN = 950, 0.6
# The largest rate of one cycle with the largest batch, and a rate that does not fall.
_LARGEST_RATE, _CONSTANT_RATE, _LARGEST_BATCH = 0.03, 0.004, 256
_LONGEST_ERROR = 600
PREFIXES = ("module__", "optimizer__", "iterator_train__", "iterator_valid__", "callbacks__")


class Parameters(BaseEstimator):
    """Keep ``module__…``, ``optimizer__…`` and the like as parameters of the estimator.

    They are attributes like any other, so that `get_params`, `clone` and a grid search see them.
    """

    # Of the default network, chosen on the development sets (docs/defaults.md).
    _recipe: ClassVar[dict[str, Any]] = {
        "dropout": 0.1,
        "n_frequencies": 8,
        "frequency_scale": 0.45,
    }
    # By which power of the batch the largest rate grows.
    _growth_of_rate = 1.0
    _parameter_constraints = PARAMETER_CONSTRAINTS

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # scikit-learn takes each name in a class's signature for a parameter, "kwargs" too.
        _, *parameters = inspect.signature(cls.__init__).parameters.values()
        cls.__signature__ = inspect.Signature([p for p in parameters if p.kind != p.VAR_KEYWORD])

    def _store(self, kwargs: dict[str, Any], **arguments: Any) -> None:
        """Set the arguments of `__init__`, those of the net's parts among its ``kwargs``."""
        # Not the names of `__signature__`, which is a subclass's where that has its own parameters.
        for name in kwargs:
            if not name.startswith(PREFIXES):
                error = _error_about_nested(name, kwargs[name], arguments)
                raise TypeError(error or self._unexpected(name, "parameter"))
        self.__dict__.update(arguments, **kwargs)

    def _unexpected(self, name: str, what: str, *functions: Any) -> str:
        """Return an error about a name that some functions, or the constructor, do not take."""
        signatures = map(inspect.signature, functions or (type(self),))
        parameters = [p for signature in signatures for p in signature.parameters.values()]
        names = dict.fromkeys(p.name for p in parameters if p.kind != p.VAR_KEYWORD)
        known = [known for known in names if known != "self"]
        elsewhere = _NAMES_ELSEWHERE.get(name)
        near = [elsewhere] if elsewhere in known else get_close_matches(name, known)
        if name == "alpha" and "confidence" in known:
            near = ["confidence, which is 1 - alpha"]
        expected = [f"one of {', '.join(known)}"]
        if not functions:
            expected.append(f"a name that begins with {', '.join(PREFIXES)}")
        hint = f" Did you mean {near[0]}?" if near else ""
        return (
            f"{type(self).__name__} got an unexpected {what} {name!r}, but expected "
            f"{', or '.join(expected)}.{hint}"
        )

    def _validate_params(self) -> None:
        """Check the parameters, with errors that leave out most of a long value."""
        try:
            super()._validate_params()
        except ValueError as error:
            text = str(error)
            if len(text) <= _LONGEST_ERROR:
                raise
            raise type(error)(f"{text[: _LONGEST_ERROR - 100]} … {text[-60:]}") from None

    def _parts(self, *prefixes: str) -> dict[str, Any]:
        """Return the parameters of the net's parts that begin with one of `prefixes`."""
        return {name: value for name, value in vars(self).items() if name.startswith(prefixes)}

    def _get_param_names(self) -> list[str]:
        return [*super()._get_param_names(), *self._parts(*PREFIXES)]

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
        parts = {name: params.pop(name) for name in list(params) if name.startswith(PREFIXES)}
        given = {**super().get_params(deep=False), **params}
        for name, value in params.items():
            if error := _error_about_nested(name, value, given):
                raise ValueError(error)
        known = self._get_param_names()
        for name in params:
            if name.partition("__")[0] not in known:
                raise ValueError(self._unexpected(name, "parameter"))
        super().set_params(**params)
        self.__dict__.update(parts)
        return self

    # ---- from parameters to parts

    def _communicator(self) -> particles.Communicator:
        """Return what reaches the processes that `distributed` asks for.

        Other parameters are not checked before: an error of one process concerns all.
        """
        if self.distributed is None:
            return particles.ALONE
        is_known = self.distributed in ("members", "rows") and isinstance(self.n_members, Integral)
        if not is_known:
            self._validate_params()  # It raises.
        device = inference.available_device(self.device)
        return training.communicator_for(self.distributed, int(self.n_members), device)

    def _uses_encoder(self) -> bool:
        # By default a module of the user's own sees the rows as they come.
        return self.module is None if isinstance(self.encoder, str) else self.encoder is not None

    def _new_encoder(self) -> Any:
        """Return an encoder of tables, or one that changes nothing."""
        given = self.categorical_features
        is_default = isinstance(self.encoder, str) and self.module is None
        if not (is_default or isinstance(given, str | None)):
            raise ValueError(
                f"Got categorical_features={given!r} with an encoder or a module of your own, but "
                "expected 'from_dtype' or None. encoder=TabularEncoder(categorical_features) can "
                "come before a module."
            )
        if not isinstance(self.encoder, str | None):
            given_one = clone(self.encoder)
            # A step of another one may need frames of the step before.
            is_ours = isinstance(given_one, TabularEncoder)
            return given_one.set_output(transform="default") if is_ours else given_one
        encoder: Any = FunctionTransformer()
        if is_default:
            # A network that is trained with gaps ought to see that they are gaps.
            corruption = self._corruption()
            has_gaps_drawn = corruption is not None and corruption.blanked
            encoder = TabularEncoder(given, gap_indicators="all" if has_gaps_drawn else "frequent")
        # Arrays, whatever scikit-learn's configuration says.
        return encoder.set_output(transform="default")

    def _member_factory(self, encoder: Any, shape: Any, n_outputs: int, device: Any) -> Any:
        """Return what makes a member for rows of an encoder, if a device can hold them all."""
        arguments = {
            name.removeprefix("module__"): value for name, value in self._parts("module__").items()
        }
        if isinstance(self.module, particles.Module):
            if arguments:
                raise ValueError(
                    f"Got module__{next(iter(arguments))} with an instance as module, but expected "
                    "a class to pass it to."
                )
            self._expect_memory(self.module, device)
            return self.module
        given = self.hidden_layer_sizes
        sizes = [given] if isinstance(given, Integral) or not np.iterable(given) else given
        is_count = [
            isinstance(n, Integral) and not isinstance(n, bool) and int(n) > 0 for n in sizes
        ]
        if not all(is_count):
            raise ValueError(f"Got hidden_layer_sizes={given!r:.100}, but expected integers >= 1.")
        continuous = list(getattr(encoder, "continuous_", ()))
        offered = {
            "n_features": int(np.prod(shape)),
            "n_outputs": n_outputs,
            "hidden_layer_sizes": tuple(map(int, sizes)),
            "embedded_features": continuous if len(continuous) <= MOST_EMBEDDED else [],
        }
        module = self.module or partial(networks.MLP, **self._recipe)
        taken = {name: value for name, value in offered.items() if accepts(module, name)}
        name = getattr(module, "__name__", type(module).__name__)
        expected = (
            f"some of {', '.join(offered)} and generator, which the estimator gives, and others as "
            "module__…"
        )
        make_member = partial(module, **(taken | arguments))
        given = {
            **taken,
            **arguments,
            **({"generator": None} if accepts(module, "generator") else {}),
        }
        with explaining_arguments(module, f"module={name}", expected, named=given):
            self._expect_memory(make_member, device)
        return make_member

    def _expect_memory(self, make_member: Any, device: Any) -> None:
        """Raise an error if a device can never hold the members and what training keeps of each."""
        keeps, n_copies = ", gradients and two moments", 4
        if self.optimizer is not None:  # Nothing says what it keeps.
            keeps, n_copies = " and gradients", 2
        sizes = getattr(make_member, "keywords", {}).get("hidden_layer_sizes")
        given = {"n_members": self.n_members, "module": self.module, "hidden_layer_sizes": sizes}
        names = " and ".join(
            f"{name}={value!r}" for name, value in given.items() if value is not None
        )
        n_bytes = n_copies * _bytes_of(make_member, names)
        particles.expect_memory(
            f"{names}, whose weights{keeps}", int(self.n_members) * n_bytes, device
        )

    def _automatic_corruption(self) -> training.CellCorruption | None:
        """Return what ``augmentation="auto"`` is."""
        return training.CellCorruption()

    def _corruption(self) -> Any:
        """Return the corruption of cells that `augmentation` asks for, if it does."""
        if isinstance(self.augmentation, str):
            return self._automatic_corruption()
        if isinstance(self.augmentation, training.CellCorruption):
            return self.augmentation
        if self.augmentation is not None and (
            isinstance(self.augmentation, type) or not callable(self.augmentation)
        ):
            raise ValueError(
                f"Got augmentation={self.augmentation!r}, but expected 'auto', a CellCorruption "
                "object, a function or None."
            )
        return None

    def _new_augmentation(self, fitted: Any, inputs: Any) -> Any:
        """Return what makes versions of the rows of a batch, or None.

        Encoded columns that can't be told apart by columns of the table are not corrupted: those
        that no TabularEncoder encodes.
        """
        corruption, encoder = self._corruption(), fitted.encoder
        if corruption is None:
            return None if isinstance(self.augmentation, str) else self.augmentation
        if not isinstance(encoder, TabularEncoder):
            if isinstance(self.augmentation, str):
                return None
            raise ValueError(
                f"Got augmentation={self.augmentation!r} with rows that no TabularEncoder encodes, "
                "but expected None, or a function of encoded rows."
            )
        return corruption.build(
            inputs,
            column_of=encoder.column_map_,
            continuous=encoder.continuous_,
            gaps=encoder.encode_gaps(),
            n_members=int(self.n_members),
        )

    def _new_net(
        self,
        fitted: Any,
        inputs: Any,
        lengthscale: Any,
        *,
        max_epochs: int,
        seeds: Any,
        around: Any = ((), ()),
        communicator: particles.Communicator | None = None,
        n_rows: int | None = None,
        is_a_fit: bool = True,
    ) -> Any:
        """Return an initialised net for training rows, whose members are untrained.

        Callbacks come between those in the two parts of `around`. In one of several processes the
        net has the members of this process. There are `n_rows` training rows if the inputs are a
        sample of them. The learning rate is constant outside of fits, which know their length.
        """
        described = particles.as_repulsion(self.repulsion)
        # Other spaces have no features, and refuse lengthscales themselves.
        has_features = described.space == "input_gradient"
        lengthscale = _of_encoded_columns(lengthscale, fitted.encoder, has_features)
        repulsion = described.build(inputs, lengthscale)
        optimizer = self.optimizer or training.AdamW
        settings = {
            "iterator_train__shuffle": True,
            "iterator_train__rng": np.random.default_rng(seeds[1]),
            "iterator_valid__batch_size": fitted.rows_per_chunk,
        }
        if self.optimizer is None:
            settings["optimizer__fused"] = not self._parts(
                "optimizer__foreach", "optimizer__differentiable"
            )
        # Passed even when zero, which is not every optimizer's default.
        if accepts(optimizer, "weight_decay"):
            settings["optimizer__weight_decay"] = self.weight_decay
        elif self.weight_decay:
            raise ValueError(
                f"Got weight_decay={self.weight_decay!r} with an optimizer that takes none "
                f"({optimizer!r}), but expected 0."
            )
        name = self.lr_schedule if is_a_fit else "constant"
        schedule = training.schedule_of(name, self.callbacks or ())
        n_rows = n_rows or len(inputs)
        batch_size = self._batch_size(n_rows)
        net = training.ParticleNet(
            fitted.members,
            likelihood=fitted.likelihood,
            # Nothing repels a single one.
            repulsion=None if int(self.n_members) == 1 else repulsion,
            strength=float(self.repulsion_strength),
            ema_decay=float(self.ema_decay),
            seed=seeds[0],
            schedule=schedule,
            communicator=communicator or particles.ALONE,
            max_epochs=max_epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            lr=self._rate(min(batch_size, n_rows), is_constant=schedule is training.constant),
            callbacks=[*around[0], *self._new_callbacks(communicator), *around[1]],
            device=str(fitted.device),
            **(settings | self._parts(*PREFIXES[1:])),
        )
        return net.initialize()

    def _new_callbacks(self, communicator: particles.Communicator | None) -> list[Any]:
        """Return the callbacks that the parameters describe, the user's last."""
        callbacks: list[Any] = []
        if self.early_stopping:
            stop = training.BestEpoch(
                patience=self.n_iter_no_change, threshold=0.0, load_best=True, sink=_discard
            )
            callbacks.append(("early_stopping", stop))
        if self.verbose and (communicator is None or communicator.is_first):
            callbacks.append(("progress", training.EpochProgress()))
        return [*callbacks, *map(training.copy_callback, self.callbacks or ())]

    def _batch_size(self, n_rows: int) -> int:
        if not isinstance(self.batch_size, str):
            return int(self.batch_size)
        # A tenth of the rows, rounded down to a power of two.
        return max(32, min(_LARGEST_BATCH, 1 << max(n_rows // 10, 1).bit_length() - 1))

    def _rate(self, batch_size: int, *, is_constant: bool) -> float:
        if not isinstance(self.lr, str):
            return float(self.lr)
        if is_constant:
            return _CONSTANT_RATE
        share: float = min(batch_size / _LARGEST_BATCH, 1)
        return float(_LARGEST_RATE * share**self._growth_of_rate)

    def _n_epochs(self, n_rows: int, n_shares: int = 0) -> int:
        """Return the number of epochs of a fit at most.

        Those of a source, which so many processes share out, are parts of a pass.
        """
        if not isinstance(self.max_epochs, str):
            return int(self.max_epochs)
        n_parts = 1
        if n_shares:
            most = training.BatchIterator.rows_per_epoch
            most = int(getattr(self, "iterator_train__rows_per_epoch", most))
            n_parts = -(-n_rows // (most * n_shares))
        n_passes = _ROWS_SEEN * n_rows ** (_GROWTH_OF_ROWS_SEEN - 1)
        return int(max(1, round(n_passes * n_parts)))

    def _n_folds(self, n_rows: int) -> int:
        """Return into how many folds a small table is dealt; 0 for others, which hold rows out.

        Of fewer than four folds, members would leave out more rows than a fifth held out costs.
        """
        is_small = _FEWEST_TO_DEAL <= n_rows < _FEWEST_TO_HOLD_OUT
        if not (is_small and isinstance(self.validation_fraction, str)):
            return 0
        n_members = int(self.n_members)
        return next((n for n in range(4, n_members + 1) if n_members % n == 0), 0)

    def _n_held_out(self, n_rows: int) -> int:
        """Return the number of rows that validation takes."""
        if not isinstance(self.validation_fraction, str):
            return int(self.validation_fraction * n_rows)
        # A validation loss should rest on 64 rows, if they are at most a fifth of the table.
        return max(n_rows // 10, min(n_rows // 5, 64))


def _error_about_nested(name: str, value: Any, given: dict[str, Any]) -> str | None:
    """Return an error about a parameter of what is no object, such as repulsion__fraction.

    `given` has the parameters, from which an object in place of a name is suggested.
    """
    part, is_nested, nested = name.partition("__")
    if not is_nested or part not in _OBJECTS.keys() & given or hasattr(given[part], "set_params"):
        return None
    kind = _OBJECTS[part]()
    known = [one for one in inspect.signature(kind).parameters if one != "space"]
    if nested not in known:
        return f"Got {name}, but expected one of {', '.join(f'{part}__{one}' for one in known)}."
    is_name = part == "repulsion" and isinstance(given[part], str)
    made = f"{kind.__name__}({repr(given[part]) + ', ' if is_name else ''}{nested}={value!r})"
    return f"Got {name} with {part}={given[part]!r}, but expected {part}={made}."


def _of_encoded_columns(lengthscale: Any, encoder: Any, has_features: bool) -> Any:
    """Return lengthscales of the columns of the table as those of their encoded columns."""
    column_of = getattr(encoder, "column_map_", None)
    is_no_array = isinstance(lengthscale, str | particles.Lengthscale) or callable(lengthscale)
    if column_of is None or is_no_array:
        return lengthscale
    try:
        array = np.asarray(lengthscale)
    except ValueError:  # What is no array gets its error where a lengthscale is made.
        return lengthscale
    n_columns, n_inputs = encoder.n_features_in_, len(column_of)
    if array.dtype.kind not in "biuf" or array.ndim != 1:
        return lengthscale
    if len(array) == n_columns:
        return array[column_of]
    if not has_features or len(array) in (0, n_inputs) or n_columns == n_inputs:
        return lengthscale
    raise ValueError(
        f"Got a lengthscale of {len(array)} features, but expected {n_columns}, one for each "
        f"column of X, or {n_inputs}, one for each encoded column."
    )


def _bytes_of(make_member: Any, names: str) -> int:
    """Return the bytes of a member's weights; one of the user's own is made to be counted."""
    module = getattr(make_member, "func", None)
    if getattr(module, "__init__", None) is networks.MLP.__init__:  # Of subclasses too.
        return 4 * networks.MLP.count_weights(**make_member.keywords)
    try:
        return sum(weight.nbytes for weight in particles.Ensemble(make_member, 1).trainable)
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, MemoryError) or re.search("memory|overflow", str(error))):
            raise
        raise ValueError(
            f"Got {names}, a single one of which takes more memory than there is ({error}), but "
            "expected smaller ones."
        ) from error


def _discard(message: str) -> None:
    """Print nothing of skorch's messages."""
