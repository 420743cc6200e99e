"""One fit and one partial_fit for both estimators: check, encode, train, and assign at the end."""

from __future__ import annotations

import warnings
from abc import ABC, ABCMeta, abstractmethod
from collections.abc import Sequence
from copy import copy
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from sklearn_fordes import inference, networks, particles, training
from sklearn_fordes.estimators._parameters import Parameters
from sklearn_fordes.estimators._validation import (
    TrainingData,
    finite_floats,
    named_as_before,
    naming_argument,
    training_data,
)
from sklearn_fordes.preprocessing import as_table
from sklearn_fordes.uncertainty import Uncertainty

# What `fit` sets. All other attributes, those of a subclass among them, are the user's.
_LEARNT = (
    *("n_features_in_", "feature_names_in_", "_row_shape_", "classes_", "target_mean_"),
    *("target_scale_", "encoder_", "fitted_", "history_", "n_iter_", "_net_", "_parameters_"),
    "_training_state_",
)


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
    def encode(self, data: TrainingData, *, is_whole: bool = False) -> TrainingData:
        """Return rows of positive weight, with encoded targets and complete weights.

        Parameters
        ----------
        data : TrainingData
        is_whole : bool, default=False
            Whether these are all training rows, which must hold two classes.
        """

    @abstractmethod
    def hold_out(
        self, data: TrainingData, n_rows: int, seed: int
    ) -> tuple[TrainingData, TrainingData | None]:
        """Split encoded rows for validation off, or none if they are too few."""


class BaseFoRDE(Parameters, metaclass=ABCMeta):
    """What classifier and regressor share.

    Names of attributes that `fit` sets end with an underscore, those of private ones too.
    """

    # The link in the HTML representation, which scikit-learn makes of these.
    _doc_link_module = "sklearn_fordes"
    _doc_link_template = "https://arxiv.org/abs/2306.02775"

    @abstractmethod
    def _new_target(self, data: TrainingData, classes: Any = None) -> Target:
        """Learn how to encode targets, of known classes if they have any."""

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
        split, *seeds = _seeds(new.random_state)
        data = training_data(new, new._checked(X, reset=True), y, sample_weight)
        target = new._new_target(data)
        rows, valid = target.encode(data, is_whole=True).of_mean_weight_one(), None
        if X_val is not None or y_val is not None:
            valid = new._validation_rows(target, X_val, y_val)
        if X_repulsion is not None:
            with naming_argument("X_repulsion"):
                X_repulsion = new._checked(X_repulsion)
        if valid is None and new.early_stopping:
            rows, valid = target.hold_out(rows, new._n_held_out(len(rows.y)), split)
        learnt, ended = new._trained(rows, valid, X_repulsion, target, seeds, epochs=new.max_epochs)
        if not ended:
            warnings.warn(
                f"Training was interrupted in epoch {learnt['n_iter_'] + 1} of {new.max_epochs}, "
                "and the fit is kept as it was then (with early stopping: as in the best epoch "
                "before).",
                ConvergenceWarning,
                stacklevel=2,
            )
        self._adopt({**new._learnt(), **learnt})
        return self

    def _partial_fit(
        self, X: Any, y: Any, sample_weight: ArrayLike | None, classes: Any = None
    ) -> Self:
        """Train for one epoch more, or for the first one with a new target."""
        new = self._unfitted()
        new._validate_params()
        if not self.__sklearn_is_fitted__():
            data = training_data(new, new._checked(X, reset=True), y, sample_weight)
            target = new._new_target(data, classes)
            _, *seeds = _seeds(new.random_state)
            rows = target.encode(data)
            learnt, _ = new._trained(rows, None, None, target, seeds, epochs=1)
            self._adopt({**new._learnt(), **learnt})
            return self
        now = self._as_fitted()
        data = now._known_target().encode(training_data(now, now._checked(X), y, sample_weight))
        learnt = {**now._learnt(), **now._trained_further(data)}
        learnt.pop("_training_state_", None)  # That of the net before.
        self._adopt(learnt)
        return self

    def _trained(
        self,
        data: TrainingData,
        valid: TrainingData | None,
        X_repulsion: Any,
        target: Target,
        seeds: Sequence[int],
        *,
        epochs: int,
    ) -> tuple[dict[str, Any], bool]:
        """Return fitted attributes, and whether training came to its end."""
        encoder = self._new_encoder(of_tables=self._row_shape_ is None)
        # Not always what transform gives: a target encoder leaves a row's own target out.
        encoded = inference.as_array(encoder.fit_transform(data.X, data.y))
        device = inference.available_device(self.device)
        n_inputs = int(np.prod(encoded.shape[1:]))
        if not n_inputs:
            raise ValueError(
                f"Got X of shape {data.X.shape}, of which the encoder makes no column, but "
                "expected numbers, or categories of min_frequency rows or more."
            )
        with inference.ordinary_state(grad=True):
            make_member = self._member_factory(encoder, n_inputs, target.likelihood.n_outputs)
            members = networks.stack_members(make_member, int(self.n_members), seeds[0]).to(device)
            chosen = vars(self).get("iterator_valid__batch_size")
            rows_per_chunk = members.rows_at_a_time() if chosen is None else int(chosen)
            fitted = inference.FittedEnsemble(
                encoder,
                members,
                target.likelihood,
                n_inputs=n_inputs,
                rows_per_chunk=rows_per_chunk,
            )
            inputs = fitted.as_inputs(encoded)
            if X_repulsion is not None:
                with naming_argument("X_repulsion"):
                    X_repulsion = fitted.encode(X_repulsion)
            valid_rows = None
            if valid is not None:
                encoded_valid = fitted.encode(valid.X)
                valid_rows = training.DeviceDataset(
                    encoded_valid, valid.y, valid.sample_weight, dtype=inputs.dtype
                )
            rows = training.DeviceDataset(
                inputs,
                data.y,
                data.sample_weight,
                X_repulsion,
                valid=valid_rows,
                dtype=inputs.dtype,
            )
            repulsion = particles.as_repulsion(self.repulsion).build(inputs, self.lengthscale)
            net = self._new_net(
                fitted, repulsion, n_rows=len(data.y), max_epochs=epochs, seeds=seeds
            )
            ended = training.train(net, rows)
        return {**target.attributes(), **self._attributes(fitted, net)}, ended

    def _trained_further(self, data: TrainingData) -> dict[str, Any]:
        """Return fitted attributes after one epoch more, with the parameters of now.

        The fitted ensemble is left as it is, so that nothing is lost if training fails.
        """
        before, state = self.fitted_, training.TrainingState.of(self.net_)
        with inference.ordinary_state(grad=True):
            likelihood, inputs = self._known_target().likelihood, before.encode(data.X)
            make_member = self._member_factory(
                before.encoder, before.n_inputs, likelihood.n_outputs
            )
            members = networks.stack_members(make_member, int(self.n_members), state.seed)
            fitted = before.with_members(members.to(inputs.device), likelihood)
            lengthscale = self._lengthscale_after(state)
            repulsion = particles.as_repulsion(self.repulsion).build(inputs, lengthscale)
            net = self._new_net(
                fitted, repulsion, n_rows=len(data.y), max_epochs=1, seeds=(state.seed, 0)
            )
            state.load_into(net)
            rows = training.DeviceDataset(inputs, data.y, data.sample_weight, dtype=inputs.dtype)
            training.train(net, rows)
        return self._attributes(fitted, net)

    def _checked(self, X: Any, *, reset: bool = False) -> Any:
        """Return a checked table: a frame or an array, finite floats without an encoder."""
        if reset:
            self._row_shape_ = None  # Of tables, whose rows are features.
        is_table = self._uses_encoder() if reset else self._row_shape_ is None
        X = as_table(X) if is_table else finite_floats(self, X, reset=reset)
        validate_data(self, X, reset=reset, skip_check_array=True)
        if not is_table or isinstance(self.encoder, str):
            return X
        return named_as_before(X, getattr(self, "feature_names_in_", None))

    def _validation_rows(self, target: Target, X_val: Any, y_val: Any) -> TrainingData:
        if (X_val is None) != (y_val is None):
            given, missing = ("y_val", "X_val") if X_val is None else ("X_val", "y_val")
            raise ValueError(f"Got {given} without {missing}, but expected both or neither.")
        with naming_argument("X_val and y_val"):
            data = training_data(self, self._checked(X_val), y_val)
            return target.encode(data).of_mean_weight_one()

    def _lengthscale_after(self, state: Any) -> Any:
        """Return the lengthscale parameter, or what was made of it from the first rows.

        Later rows don't change a lengthscale that was computed from inputs; parameters do.
        """
        now, before = self.lengthscale, self._parameters_["lengthscale"]
        comparable = all(isinstance(v, str | Real) or callable(v) for v in (now, before))
        is_same = comparable and now == before
        is_same = is_same and self.repulsion == self._parameters_["repulsion"]
        return state.known_lengthscale(now) if is_same else now

    def _attributes(self, fitted: Any, net: Any) -> dict[str, Any]:
        history = [{k: v for k, v in epoch.items() if k != "batches"} for epoch in net.history]
        return {
            "encoder_": fitted.encoder,
            "fitted_": fitted,
            "history_": history,
            "n_iter_": len(history),
            "_net_": net,
            # A Repulsion may be changed in place later.
            "_parameters_": {**vars(self._unfitted()), "repulsion": copy(self.repulsion)},
        }

    # ---- fitted attributes

    def _unfitted(self) -> Self:
        """Return an estimator with the parameters, and all else that users set, of this one."""
        return self._with({k: v for k, v in vars(self).items() if k not in _LEARNT})

    def _with(self, attributes: dict[str, Any]) -> Self:
        """Return an estimator of this class with these attributes, which are not copied."""
        new = object.__new__(type(self))
        new.__dict__ = attributes
        return new

    def _learnt(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name in _LEARNT}

    def _adopt(self, learnt: dict[str, Any]) -> None:
        """Replace all fitted attributes at once: other threads see the old or the new ones."""
        self.__dict__ = {**vars(self._unfitted()), **learnt}

    def _as_fitted(self) -> Self:
        """Return the estimator as it is now, whatever a fit in another thread does to it."""
        now = self._with(self.__dict__)
        check_is_fitted(now)
        return now

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

    def _predicted(self, X: Any, method: str, *arguments: Any) -> list[Any]:
        """Return what a method of the likelihood makes of outputs, for chunks of rows."""
        now = self._as_fitted()
        compute = getattr(now.fitted_.likelihood, method)
        # Chunk by chunk, so that outputs of all rows are never held.
        return [compute(z, *arguments) for z in now.fitted_.outputs(now._checked(X))]

    @property
    def net_(self) -> Any:
        """The skorch net of the last fit; made anew after unpickling."""
        now = self._as_fitted()
        if "_net_" not in vars(now):
            with inference.ordinary_state(grad=True):
                # These attributes are the estimator's own, unless a fit has replaced them since.
                now._net_ = now._rebuilt_net()
        return now._net_

    def _rebuilt_net(self) -> Any:
        """Return a net with the parameters and the training state of the last fit."""
        then = self._with(dict(self._parameters_))
        weights = dict(self.fitted_.members.state_dict())
        state = training.TrainingState.from_dict({**self._training_state_, "members": weights})
        row = next(self.fitted_.members.parameters()).new_zeros(1, self.fitted_.n_inputs)
        lengthscale = state.known_lengthscale("identity")
        repulsion = particles.as_repulsion(then.repulsion).build(row, lengthscale)
        then.batch_size = state.batch_size
        net = then._new_net(
            self.fitted_, repulsion, n_rows=1, max_epochs=then.max_epochs, seeds=(state.seed, 0)
        )
        state.load_into(net)
        return net

    @property
    def estimators_(self) -> list[Self]:
        """The members as fitted estimators, with ``n_members=1``.

        Made anew at each access, with copies of the weights.
        """
        now = self._as_fitted()
        # Not the moments, which belong to all members.
        state = training.TrainingState.of(now.net_)._replace(members={}, optimizer={}).to_dict()
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
        tags, uses_encoder = super().__sklearn_tags__(), self._uses_encoder()
        for kind in ("allow_nan", "string", "categorical"):
            setattr(tags.input_tags, kind, uses_encoder)
        return tags

    def _uses_encoder(self) -> bool:
        # By default a module of the user's own sees the rows as they come.
        is_default = isinstance(self.encoder, str)
        return self.module is None if is_default else self.encoder is not None

    def __sklearn_is_fitted__(self) -> bool:
        return "fitted_" in vars(self)

    def __getstate__(self) -> dict[str, Any]:
        """Replace the net, whose own pickle hides another, by arrays and numbers."""
        state = dict(super().__getstate__())
        net = state.pop("_net_", None)
        if net is not None:
            state["_training_state_"] = (
                training.TrainingState.of(net)._replace(members={}).to_dict()
            )
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "fitted_" in state:
            self.fitted_.members.to(_device_or_cpu(self.device))


def _seeds(random_state: Any) -> list[int]:
    """Return independent seeds: of the held-out rows, the members and the batches."""
    root = check_random_state(random_state).randint(2**31)
    seeds: list[int] = np.random.SeedSequence(root).generate_state(3).tolist()
    return seeds


def _device_or_cpu(device: Any) -> Any:
    """Return the device that was asked for, if this machine has it."""
    try:
        return inference.available_device(device)
    except ValueError:
        return "cpu"
