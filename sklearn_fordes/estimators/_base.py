"""One fit and one partial_fit for both estimators: check, encode, train, and assign at the end."""

from __future__ import annotations

import warnings
from abc import ABC, ABCMeta, abstractmethod
from collections.abc import Callable
from copy import copy
from functools import partial
from numbers import Real
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklearn_fordes import inference, networks, particles, training
from sklearn_fordes.estimators._parameters import Parameters, accepts
from sklearn_fordes.estimators._validation import (
    TrainingData,
    check_rows,
    check_training_data,
    naming_argument,
)
from sklearn_fordes.preprocessing import TabularEncoder
from sklearn_fordes.uncertainty import Uncertainty

# Rows that a validation loss should rest on, if they are at most a fifth of the table.
_ENOUGH_FOR_VALIDATION = 64
# Limits of the automatic batch size, powers of two.
_SMALLEST_BATCH, _LARGEST_BATCH = 32, 128

Result = TypeVar("Result")


class Target(ABC):
    """How an estimator's targets become those of the members.

    Attributes
    ----------
    likelihood : Likelihood
    """

    likelihood: Any

    @abstractmethod
    def attributes(self) -> dict[str, Any]:
        """Return what was learnt of the targets, as fitted attributes."""

    @abstractmethod
    def encode(self, data: TrainingData) -> TrainingData:
        """Return rows of positive weight, with encoded targets and complete weights."""

    @abstractmethod
    def hold_out(
        self, data: TrainingData, n_rows: int, seed: int
    ) -> tuple[TrainingData, TrainingData | None]:
        """Split encoded rows for validation off, or none if they are too few."""


class _Seeds(NamedTuple):
    """Independent seeds of what `random_state` determines."""

    split: int
    members: int
    batches: int


class BaseFoRDE(Parameters, metaclass=ABCMeta):
    """What classifier and regressor share.

    Names of attributes that `fit` sets end with an underscore, those of private ones too.
    """

    _default_dropout = 0.0  # Of the default network.
    # The link in the HTML representation, which scikit-learn makes of these.
    _doc_link_module = "sklearn_fordes"
    _doc_link_template = "https://arxiv.org/abs/2306.02775"

    @abstractmethod
    def _new_target(self, data: TrainingData) -> Target:
        """Learn how to encode targets."""

    @abstractmethod
    def _known_target(self) -> Target:
        """Return the target that an earlier fit learnt."""

    @abstractmethod
    def predict_uncertainty(self, X: Any) -> Uncertainty:
        """Split the uncertainty of the prediction into aleatoric and epistemic."""

    # ---- fit

    def fit(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        X_val: Any = None,
        y_val: ArrayLike | None = None,
        X_repulsion: Any = None,
    ) -> Self:
        """Fit the ensemble.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)
            Numbers, booleans, strings and categories, any of which may be missing, in pandas,
            polars or numpy. Without an encoder: numbers, none missing, (n_samples, …).
        y : array-like of shape (n_samples,)
            Class labels of any kind, at least two classes; for the regressor finite numbers.
        sample_weight : array-like of shape (n_samples,), optional
            Not negative. Only their ratios matter. Rows of weight zero are left out.
        X_val, y_val : like X and y, optional
            Rows for early stopping, in place of held-out ones.
        X_repulsion : like X, optional
            Rows without a target at which the members ought to disagree. Members are compared at
            rows drawn from these too, as many as of each batch. Where a class is needed, it is the
            one that the ensemble predicts.

        Returns
        -------
        self : estimator
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter or an input is not as expected, or training diverges. The estimator is
            then as it was before the call.
        """
        new = self._unfitted()
        new._validate_params()
        data = check_training_data(new, X, y, sample_weight, reset=True)
        target = new._new_target(data)
        rows = target.encode(data).of_mean_weight_one()
        valid = new._validation_rows(target, X_val, y_val)
        if X_repulsion is not None:
            with naming_argument("X_repulsion"):
                X_repulsion = check_rows(new, X_repulsion)
        seeds = new._draw_seeds()
        if valid is None and new.early_stopping:
            rows, valid = target.hold_out(rows, new._n_held_out(len(rows.y)), seeds.split)
        with particles.ordinary_state(grad=True):
            learnt, ended = new._trained(rows, valid, X_repulsion, target, seeds, new.max_epochs)
        if not ended:
            new._warn_of_interrupt(learnt["n_iter_"])
        self._adopt({**new._learnt(), **target.attributes(), **learnt})
        return self

    def _partial_fit(self, X: Any, y: Any, sample_weight: ArrayLike | None, target: Any) -> Self:
        """Train for one epoch, the first one with the new `target` that a function makes."""
        new = self._unfitted()
        new._validate_params()
        if not self.__sklearn_is_fitted__():
            data = check_training_data(new, X, y, sample_weight, reset=True)
            target = target(new, data)
            rows = target.encode(data)
            with particles.ordinary_state(grad=True):
                learnt, _ = new._trained(rows, None, None, target, new._draw_seeds(), 1)
            self._adopt({**new._learnt(), **target.attributes(), **learnt})
            return self
        now = self._as_fitted()
        data = check_training_data(now, X, y, sample_weight)
        rows = now._known_target().encode(data)
        with particles.ordinary_state(grad=True):
            learnt = now._trained_further(rows)
        self._adopt({**now._learnt(), **learnt})
        return self

    def _trained(
        self,
        data: TrainingData,
        valid: TrainingData | None,
        X_repulsion: Any,
        target: Target,
        seeds: _Seeds,
        epochs: int,
    ) -> tuple[dict[str, Any], bool]:
        """Return fitted attributes, and whether training came to its end."""
        encoder = self._new_encoder()
        # Not always what transform gives: a target encoder leaves a row's own target out.
        encoded = inference.as_array(encoder.fit_transform(data.X, data.y))
        n_inputs = int(np.prod(encoded.shape[1:]))
        if not n_inputs:
            raise ValueError(
                f"Got X of shape {data.X.shape}, of which the encoder makes no column, but "
                "expected numbers, or categories of min_frequency rows or more."
            )
        members = self._new_members(encoder, n_inputs, target, seeds.members)
        device = inference.available_device(self.device)
        fitted = inference.FittedEnsemble(
            encoder,
            members.to(device),
            target.likelihood,
            n_inputs=n_inputs,
            rows_per_chunk=self._parts("iterator_valid__").get("iterator_valid__batch_size"),
        )
        inputs = inference.encoded_inputs(encoded, members.dtype, device)
        extra_inputs = None
        if X_repulsion is not None:
            with naming_argument("X_repulsion"):
                extra_inputs = fitted.encode(X_repulsion)
        rows = _device_dataset(inputs, data, extra_inputs)
        valid_rows = None if valid is None else _device_dataset(fitted.encode(valid.X), valid)
        net = self._new_net(
            fitted,
            self._new_repulsion(inputs, self.lengthscale, extra_inputs),
            batch_size=self._batch_size(len(data.y)),
            max_epochs=epochs,
            rng=np.random.default_rng(seeds.batches),
            seed=seeds.members,
        )
        ended = training.train(net, rows, valid_rows)
        return self._attributes(fitted, net), ended

    def _trained_further(self, data: TrainingData) -> dict[str, Any]:
        """Return fitted attributes after one epoch more, with the parameters of now.

        The fitted ensemble is left as it is, so that nothing is lost if training fails.
        """
        before, state = self.fitted_, training.TrainingState.of(self.net_)
        target = self._known_target()
        inputs = before.encode(data.X)
        members = self._new_members(before.encoder, before.n_inputs, target, state.seed)
        fitted = before.with_members(members.to(before.device), target.likelihood)
        net = self._new_net(
            fitted,
            self._new_repulsion(inputs, self._lengthscale_after(state)),
            batch_size=self._batch_size(len(data.y)),
            max_epochs=1,
            rng=np.random.default_rng(),
            seed=state.seed,
        )
        state.load_into(net)
        training.train(net, _device_dataset(inputs, data))
        return self._attributes(fitted, net)

    def _lengthscale_after(self, state: Any) -> Any:
        """Return the lengthscale parameter, or what was made of it from the first rows.

        Later rows don't change a lengthscale that was computed from inputs; parameters do.
        """
        now, before = self.lengthscale, self._parameters_["lengthscale"]
        comparable = all(isinstance(v, str | Real) or callable(v) for v in (now, before))
        is_same = comparable and now == before
        if is_same and self.repulsion == self._parameters_["repulsion"]:
            return state.made_lengthscale() or now
        return now

    def _attributes(self, fitted: Any, net: Any) -> dict[str, Any]:
        history = [
            {name: value for name, value in epoch.items() if name not in ("batches", "completed")}
            for epoch in net.history
        ]
        return {
            "encoder_": fitted.encoder,
            "fitted_": fitted,
            "history_": history,
            "n_iter_": len(history),
            "_net_": net,
            # A Repulsion may be changed in place later.
            "_parameters_": {**self.get_params(deep=False), "repulsion": copy(self.repulsion)},
        }

    def _unfitted(self) -> Self:
        """Return an estimator with the parameters, and all else that users set, of this one."""
        return self._with({k: v for k, v in vars(self).items() if not k.endswith("_")})

    def _with(self, attributes: dict[str, Any]) -> Self:
        """Return an estimator of this class with these attributes, which are not copied."""
        new = object.__new__(type(self))
        new.__dict__ = attributes
        return new

    def _learnt(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name.endswith("_")}

    def _adopt(self, learnt: dict[str, Any]) -> None:
        """Replace all fitted attributes at once: other threads see the old or the new ones."""
        self.__dict__ = {**vars(self._unfitted()), **learnt}

    def _as_fitted(self) -> Self:
        """Return the estimator as it is now, whatever a fit in another thread does to it."""
        now = self._with(self.__dict__)
        check_is_fitted(now)
        return now

    # ---- parts of a fit

    def _uses_encoder(self) -> bool:
        # By default a module of the user's own sees the rows as they come.
        is_default = isinstance(self.encoder, str)
        return self.module is None if is_default else self.encoder is not None

    def _new_encoder(self) -> Any:
        given = self.categorical_features
        if self._uses_encoder() and isinstance(self.encoder, str):
            # Arrays, whatever scikit-learn's configuration says.
            return TabularEncoder(given).set_output(transform="default")
        if given is not None and not isinstance(given, str):
            raise ValueError(
                f"Got categorical_features={given!r} with an encoder or a module of your own, but "
                "expected 'from_dtype' or None. encoder=TabularEncoder(categorical_features) can "
                "come before a module."
            )
        if self._uses_encoder():
            return clone(self.encoder)
        return FunctionTransformer().set_output(transform="default")

    def _new_members(self, encoder: Any, n_inputs: int, target: Target, seed: int) -> Any:
        """Draw the members for encoded rows."""
        offered: dict[str, Any] = {
            "n_features": n_inputs,
            "n_outputs": target.likelihood.n_outputs,
            "hidden_layer_sizes": self._hidden_layer_sizes(),
            "embedded_features": getattr(encoder, "continuous_", np.empty(0)).tolist(),
        }
        make_member = self._member_factory(offered)
        return networks.stack_members(make_member, int(self.n_members), seed)

    def _member_factory(self, offered: dict[str, Any]) -> Any:
        """Return what makes a member, given the arguments that its module may take."""
        arguments = {
            name.removeprefix("module__"): value for name, value in self._parts("module__").items()
        }
        if self.module is None:
            default = {"dropout": self._default_dropout}
            return partial(networks.MLP, **{**offered, **default, **arguments})
        if isinstance(self.module, particles.Module):
            if arguments:
                raise ValueError(
                    f"Got module__{next(iter(arguments))} with an instance as module, but expected "
                    "a class to pass it to."
                )
            return self.module
        taken = {name: value for name, value in offered.items() if accepts(self.module, name)}
        return partial(self.module, **{**taken, **arguments})

    def _new_repulsion(self, inputs: Any, lengthscale: Any, extra_inputs: Any = None) -> Any:
        repulsion = particles.as_repulsion(self.repulsion).build(inputs, lengthscale)
        if repulsion is None or self.n_members == 1:  # Nothing repels a single member.
            return None
        if extra_inputs is not None and not repulsion.space.depends_on_inputs:
            raise ValueError(
                f"Got X_repulsion with repulsion={self.repulsion!r}, in which members are the same "
                "at all rows, but expected another repulsion."
            )
        return repulsion

    def _new_net(
        self, fitted: Any, repulsion: Any, *, batch_size: int, max_epochs: int, rng: Any, seed: int
    ) -> Any:
        """Return an initialised net, whose members are not yet trained."""
        net = training.ParticleNet(
            fitted.members,
            likelihood=fitted.likelihood,
            repulsion=repulsion,
            strength=float(self.repulsion_strength),
            ema_decay=float(self.ema_decay),
            seed=seed,
            max_epochs=max_epochs,
            batch_size=batch_size,
            lr=self.lr,
            callbacks=self._new_callbacks(),
            device=str(fitted.device),
            **{
                **self._optimizer_parameters(),
                "iterator_train__shuffle": True,
                "iterator_train__rng": rng,
                "iterator_valid__batch_size": fitted.rows_per_chunk,
                **self._parts("optimizer__", "iterator_train__", "iterator_valid__", "callbacks__"),
            },
        )
        net.initialize()
        self._check_callback_names([name for name, _ in net.callbacks_])
        return net

    def _new_callbacks(self) -> list[Any]:
        callbacks: list[Any] = []
        if self.early_stopping:
            callbacks.append(("early_stopping", training.BestEpoch(self.n_iter_no_change)))
        if self.verbose:
            callbacks.append(("progress", training.EpochProgress()))
        return [*callbacks, *map(training.copy_callback, self.callbacks or ())]

    def _check_callback_names(self, names: list[str]) -> None:
        for parameter, value in self._parts("callbacks__").items():
            name = parameter.split("__")[1]
            if name not in names and value is not None:  # None removes a callback.
                raise ValueError(
                    f"Got {parameter}, but there is no callback {name!r}; expected one of {names}."
                )

    def _optimizer_parameters(self) -> dict[str, Any]:
        parameters: dict[str, Any] = {"optimizer": self.optimizer}
        if self.optimizer is None:
            parameters["optimizer"] = training.AdamW
            other_kernels = ("optimizer__foreach", "optimizer__differentiable")
            parameters["optimizer__fused"] = not self._parts(*other_kernels)
        # Passed even when zero, which is not every optimizer's default.
        if accepts(parameters["optimizer"], "weight_decay"):
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

    def _validation_rows(self, target: Target, X_val: Any, y_val: Any) -> TrainingData | None:
        if (X_val is None) != (y_val is None):
            given, missing = ("y_val", "X_val") if X_val is None else ("X_val", "y_val")
            raise ValueError(f"Got {given} without {missing}, but expected both or neither.")
        if X_val is None:
            return None
        with naming_argument("X_val and y_val"):
            data = check_training_data(self, X_val, y_val)
        return target.encode(data).of_mean_weight_one()

    def _draw_seeds(self) -> _Seeds:
        root = check_random_state(self.random_state).randint(2**31)
        return _Seeds(*np.random.SeedSequence(root).generate_state(len(_Seeds._fields)).tolist())

    def _warn_of_interrupt(self, n_epochs: int) -> None:
        warnings.warn(
            f"Training was interrupted in epoch {n_epochs + 1} of {self.max_epochs}, and the fit "
            "is kept as it was then (with early stopping: as in the best epoch before).",
            ConvergenceWarning,
            stacklevel=3,  # Where fit was called.
        )

    # ---- prediction

    def ood_score(self, X: Any) -> NDArray[np.float64]:
        """Score how much rows look unlike the training data: the epistemic uncertainty.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
            Larger is more outlying, as in PyOD. (scikit-learn's ``score_samples`` has the other
            sign.)
        """
        return self.predict_uncertainty(X).epistemic

    def _predicted(self, X: Any, function: Callable[[Any, Any], Result]) -> list[Result]:
        """Apply a function of likelihood and outputs (M, rows, C) to chunks of rows."""
        now = self._as_fitted()
        fitted = now.fitted_
        # Chunk by chunk, so that outputs of all rows are never held.
        return [function(fitted.likelihood, z) for z in fitted.outputs(check_rows(now, X))]

    @property
    def net_(self) -> Any:
        """The skorch net of the last fit; made anew after unpickling."""
        if "_net_" not in vars(self._as_fitted()):
            with particles.ordinary_state(grad=True):
                self._net_ = self._rebuilt_net()
        return self._net_

    def _rebuilt_net(self) -> Any:
        """Return a net with the parameters and the training state of the last fit."""
        then = self._with({**vars(self._unfitted()), **self._parameters_})
        state = training.TrainingState.from_dict(
            {**self._training_state_, "members": dict(self.fitted_.members.state_dict())}
        )
        like = next(self.fitted_.members.parameters()).new_zeros(1, self.fitted_.n_inputs)
        lengthscale = state.made_lengthscale() or "identity"
        net = then._new_net(
            self.fitted_,
            then._new_repulsion(like, lengthscale),
            batch_size=state.batch_size,
            max_epochs=then.max_epochs,
            rng=np.random.default_rng(),
            seed=state.seed,
        )
        state.load_into(net)
        return net

    @property
    def estimators_(self) -> list[Self]:
        """The members as fitted estimators, with ``n_members=1``.

        Made anew at each access, with copies of the weights.
        """
        now = self._as_fitted()
        state = training.TrainingState.of(now.net_).of_weights_only().to_dict()
        learnt = {name: value for name, value in now._learnt().items() if name != "_net_"}
        learnt |= {"_parameters_": {**now._parameters_, "n_members": 1}, "_training_state_": state}
        members = []
        for index in range(now.fitted_.members.n_members):
            member = now._unfitted()
            member.n_members = 1
            member._adopt({**learnt, "fitted_": now.fitted_.select([index])})
            members.append(member)
        return members

    # ---- scikit-learn and pickle

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        for kind in ("allow_nan", "string", "categorical"):
            setattr(tags.input_tags, kind, self._uses_encoder())
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return "fitted_" in vars(self)

    def __getstate__(self) -> dict[str, Any]:
        """Replace the net, whose own pickle hides another, by arrays and numbers."""
        state = dict(super().__getstate__())
        net = state.pop("_net_", None)
        if net is not None:
            state["_training_state_"] = training.TrainingState.of(net).without_members().to_dict()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "fitted_" in state:
            self.fitted_.members.to(_device_or_cpu(self.device))


def _device_dataset(inputs: Any, data: TrainingData, extra_inputs: Any = None) -> Any:
    # Weights that change nothing are not worth gathering in every batch.
    weight = None if (data.sample_weight == 1).all() else data.sample_weight
    return training.DeviceDataset(
        inputs, data.y, weight, extra_inputs=extra_inputs, dtype=inputs.dtype
    )


def _device_or_cpu(device: Any) -> Any:
    """Return the device that was asked for, if this machine has it."""
    try:
        return inference.available_device(device)
    except ValueError:
        return "cpu"
