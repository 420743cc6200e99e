"""One fit and one partial_fit for both estimators: check, encode, train, and assign at the end."""

from __future__ import annotations

import math
import warnings
from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from copy import copy
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from sklearn_fordes import inference, networks, training
from sklearn_fordes.estimators._parameters import Parameters
from sklearn_fordes.estimators._validation import (
    TrainingData,
    named_as_before,
    naming_argument,
    training_data,
)
from sklearn_fordes.preprocessing import as_rows, as_table
from sklearn_fordes.uncertainty import Uncertainty

# What `fit` sets. All other attributes, those of a subclass among them, are the user's.
_LEARNT = (
    "n_features_in_",
    "feature_names_in_",
    "_row_shape_",
    "classes_",
    "target_mean_",
    "target_scale_",
    "encoder_",
    "fitted_",
    "history_",
    "n_iter_",
    "_net_",
    "_parameters_",
    "_training_state_",
)


class BaseFoRDE(Parameters, metaclass=ABCMeta):
    """What classifier and regressor share.

    Names of attributes that `fit` sets end with an underscore, those of private ones too.
    """

    # The link in the HTML representation, which scikit-learn makes of these.
    _doc_link_module = "sklearn_fordes"
    _doc_link_template = "https://arxiv.org/abs/2306.02775"

    fitted_: inference.FittedEnsemble
    _row_shape_: tuple[int, ...] | None

    @abstractmethod
    def _learn_target(self, data: TrainingData) -> None:
        """Set the fitted attributes that say how targets are encoded."""

    @abstractmethod
    def _encode(self, data: TrainingData, *, is_whole: bool = False) -> TrainingData:
        """Return rows of positive weight, with encoded targets and complete weights.

        Parameters
        ----------
        data : TrainingData
        is_whole : bool, default=False
            Whether these are all training rows, which must hold two classes.
        """

    @abstractmethod
    def _likelihood(self) -> Any:
        """Return what the members' outputs mean."""

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
        data = training_data(new, new._checked(X, y, reset=True), y, sample_weight)
        new._learn_target(data)
        rows, valid = new._encode(data, is_whole=True).of_mean_weight_one(), None
        if (X_val is None) != (y_val is None):
            given, missing = ("y_val", "X_val") if X_val is None else ("X_val", "y_val")
            raise ValueError(f"Got {given} without {missing}, but expected both or neither.")
        if X_val is not None:
            with naming_argument("X_val and y_val"):
                data = training_data(new, new._checked(X_val), y_val)
                valid = new._encode(data).of_mean_weight_one()
        elif new.early_stopping:
            rows, valid = rows.hold_out(new._n_held_out(len(rows.y)), split)
        if X_repulsion is not None:
            with naming_argument("X_repulsion"):
                X_repulsion = new._checked(X_repulsion)
        if not new._train(rows, valid, X_repulsion, max_epochs=new.max_epochs, seeds=seeds):
            warnings.warn(
                f"Training was interrupted in epoch {new.n_iter_ + 1} of {new.max_epochs}, "
                "and the fit is kept as it was then (with early stopping: as in the best epoch "
                "before).",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self._adopt(new)

    def _train_once(self, X: Any, y: Any, sample_weight: ArrayLike | None) -> None:
        """Train this copy of an estimator for one epoch more, or for the first one."""
        self._validate_params()
        is_first = not self.__sklearn_is_fitted__()
        data = training_data(self, self._checked(X, y, reset=is_first), y, sample_weight)
        if is_first:
            self._learn_target(data)
        seeds = _seeds(self.random_state)[1:] if is_first else (0, 0)
        self._train(self._encode(data), max_epochs=1, seeds=seeds)

    def _train(
        self,
        data: TrainingData,
        valid: TrainingData | None = None,
        X_repulsion: Any = None,
        *,
        max_epochs: int,
        seeds: Sequence[int],
    ) -> bool:
        """Set the fitted attributes of this copy, and return whether training came to its end.

        What was fitted before goes on, with the parameters of now, in a new ensemble: nothing is
        lost if training fails.
        """
        is_first = not self.__sklearn_is_fitted__()
        lengthscale = self.lengthscale
        if is_first:
            encoder, device = self._new_encoder(), inference.available_device(self.device)
            # Not always what transform gives: a target encoder leaves a row's own target out.
            encoded = inference.as_array(encoder.fit_transform(data.X, data.y))
            n_inputs = math.prod(encoded.shape[1:])
            if not n_inputs:
                raise ValueError(
                    f"Got X of shape {data.X.shape}, of which the encoder makes no column, but "
                    "expected numbers, or categories of min_frequency rows or more."
                )
        else:
            encoder, device = self.fitted_.encoder, self.fitted_.device
            n_inputs, state = self.fitted_.n_inputs, training.TrainingState.of(self.net_)
            if self._repels_as_before():
                lengthscale = state.known_lengthscale(lengthscale)
        with inference.ordinary_state(grad=True):
            likelihood = self._likelihood()
            make_member = self._member_factory(encoder, n_inputs, likelihood.n_outputs)
            members = networks.stack_members(make_member, int(self.n_members), seeds[0]).to(device)
            chosen = getattr(self, "iterator_valid__batch_size", None)
            fitted = inference.FittedEnsemble(
                encoder, members, likelihood, n_inputs, int(chosen or members.rows_at_a_time())
            )
            inputs = fitted.as_inputs(encoded) if is_first else fitted.encode(data.X)
            rows = training.EncodedRows(inputs, data.y, data.sample_weight)
            if X_repulsion is not None:
                with naming_argument("X_repulsion"):
                    rows = rows._replace(extra_inputs=fitted.encode(X_repulsion))
            valid_rows = None
            if valid is not None:
                with naming_argument("validation rows"):
                    valid_rows = training.EncodedRows(fitted.encode(valid.X), *valid[1:])
            net = self._new_net(fitted, inputs, lengthscale, max_epochs=max_epochs, seeds=seeds)
            if not is_first:
                state.load_into(net)
            ended = training.train(net, rows, valid_rows)
        self._set_learnt(fitted, net)
        return ended

    def _set_learnt(self, fitted: inference.FittedEnsemble, net: Any) -> None:
        notes = ("batches", "completed")
        self.encoder_, self.fitted_, self._net_ = fitted.encoder, fitted, net
        self.history_ = [
            {k: v for k, v in epoch.items() if k not in notes} for epoch in net.history
        ]
        self.n_iter_ = len(self.history_)
        self.__dict__.pop("_training_state_", None)  # That of the net before.
        # What may be changed in place later is copied.
        changeable = {"repulsion": copy(self.repulsion), "lengthscale": copy(self.lengthscale)}
        self._parameters_ = {**vars(self._unfitted()), **changeable}

    def _repels_as_before(self) -> bool:
        """Return whether the parameters that make the lengthscale are those of the last fit.

        Then later rows don't change a lengthscale that was computed from inputs.
        """
        then = self._parameters_
        is_same_lengthscale = np.array_equal(self.lengthscale, then["lengthscale"])
        return is_same_lengthscale and bool(self.repulsion == then["repulsion"])

    def _checked(self, X: Any, y: Any = "no_validation", *, reset: bool = False) -> Any:
        """Return a checked table, a frame or an array, or an array of rows without an encoder."""
        is_table = self._uses_encoder() if reset else self._row_shape_ is None
        X = as_table(X) if is_table else as_rows(X, n_axes=None)
        shape = None if is_table else X.shape[1:]  # Of tables, the features are the rows' shape.
        if reset:
            self._row_shape_ = shape
        if shape != self._row_shape_:  # scikit-learn compares the second axis only.
            raise ValueError(
                f"Got X with rows of shape {shape}, but {type(self).__name__} was fitted with "
                f"rows of shape {self._row_shape_}."
            )
        validate_data(self, X, y, reset=reset, skip_check_array=True)
        if not is_table or isinstance(self.encoder, str):
            return X
        return named_as_before(X, getattr(self, "feature_names_in_", None))

    # ---- fitted attributes

    def _unfitted(self) -> Self:
        """Return an estimator with the parameters, and all else that users set, of this one."""
        return self._with({k: v for k, v in vars(self).items() if k not in _LEARNT})

    def _with(self, attributes: dict[str, Any]) -> Self:
        """Return an estimator of this class with these attributes, which are not copied."""
        new = object.__new__(type(self))
        new.__dict__ = attributes
        return new

    def _adopt(self, new: Self) -> Self:
        """Take what a copy learnt, all at once: other threads see the old or the new attributes."""
        learnt = {name: value for name, value in vars(new).items() if name in _LEARNT}
        self.__dict__ = {**vars(self._unfitted()), **learnt}
        return self

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

    def _predicted(self, X: Any, method: str, *arguments: Any, axis: int = 0) -> NDArray[Any]:
        """Return what a method of the likelihood makes of outputs, with rows along an axis."""
        now = self._as_fitted()
        compute = getattr(now.fitted_.likelihood, method)
        # Chunk by chunk, so that outputs of all rows are never held.
        chunks = [compute(z, *arguments) for z in now.fitted_.outputs(now._checked(X))]
        return np.concatenate(chunks, axis=axis)

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
        members = dict(self.fitted_.members.state_dict())
        state = training.TrainingState.from_dict({**self._training_state_, "members": members})
        then.batch_size = state.batch_size
        row, lengthscale = np.zeros((1, self.fitted_.n_inputs)), state.known_lengthscale("identity")
        net = then._new_net(
            self.fitted_,
            self.fitted_.as_inputs(row),
            lengthscale,
            max_epochs=then.max_epochs,
            seeds=(0, 0),
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
        shared = {**vars(now), "n_members": 1, "_training_state_": state}
        shared["_parameters_"] = {**now._parameters_, "n_members": 1}
        del shared["_net_"]
        fitted = now.fitted_
        return [
            now._with({**shared, "fitted_": fitted.select([index])})
            for index in range(fitted.members.n_members)
        ]

    # ---- scikit-learn and pickle

    def __sklearn_tags__(self) -> Any:
        tags, uses_encoder = super().__sklearn_tags__(), self._uses_encoder()
        for kind in ("allow_nan", "string", "categorical"):
            setattr(tags.input_tags, kind, uses_encoder)
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


def _seeds(random_state: Any) -> list[int]:
    """Return independent seeds: of the held-out rows, the members and the batches."""
    root = check_random_state(random_state).randint(2**31)
    return list(map(int, np.random.SeedSequence(root).generate_state(3)))


def _device_or_cpu(device: Any) -> Any:
    """Return the device that was asked for, if this machine has it."""
    try:
        return inference.available_device(device)
    except ValueError:
        return "cpu"
