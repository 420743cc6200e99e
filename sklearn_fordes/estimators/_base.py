"""One fit and one partial_fit for both estimators: check, encode, train, and assign at the end."""

from __future__ import annotations

import math
import time
from abc import ABCMeta, abstractmethod
from contextlib import closing
from copy import copy
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import InputTags
from sklearn.utils.validation import check_is_fitted, validate_data

from sklearn_fordes import inference, networks, particles, training
from sklearn_fordes._progress import Progress
from sklearn_fordes.estimators._checkpoints import checkpoint_of, random_state_of
from sklearn_fordes.estimators._datasets import dataset_of, first_encoded
from sklearn_fordes.estimators._folds import Folds
from sklearn_fordes.estimators._importances import Importances, member_importances, of_member
from sklearn_fordes.estimators._processes import (
    expect_all_members,
    expect_same_settings,
    expect_workers,
    own_part,
)
from sklearn_fordes.estimators._saving import LEARNT_VALUES, Saving
from sklearn_fordes.estimators._streams import expect_table, rows_of, separated
from sklearn_fordes.estimators._tasks import FitTasks, epoch_callbacks, tasks_of
from sklearn_fordes.estimators._uncertainty import UncertaintyMixin
from sklearn_fordes.estimators._validation import (
    CALLBACK_ATTRIBUTES,
    CallbackSupportMixin,
    TrainingData,
    finite_rows,
    has_known_columns,
    has_names,
    input_tags_of,
    named_as_before,
    promises_sparse,
    seeds_of,
    training_data,
    with_callbacks,
)
from sklearn_fordes.estimators._warnings import warn_if_nothing_was_learnt, warn_of_end
from sklearn_fordes.preprocessing import TabularEncoder, as_rows, as_table, native_table

# What `fit` sets. All other attributes, those of a subclass among them, are the user's.
_LEARNT = (*LEARNT_VALUES, "encoder_", "fitted_", "_net_", "_then_")


class BaseFoRDE(CallbackSupportMixin, Importances, UncertaintyMixin, Saving, metaclass=ABCMeta):
    """What classifier and regressor share.

    Names of attributes that `fit` sets end with an underscore, those of private ones too.
    """

    # The link in the HTML representation, which scikit-learn makes of these.
    _doc_link_module = "sklearn_fordes"
    _doc_link_template = "https://github.com/sklearn-fordes/sklearn-fordes/tree/main/docs"

    # A cross-validation whose own splitter takes groups does not hand them on unless asked to.
    __metadata_request__fit: ClassVar[dict[str, bool]] = {"groups": False}

    fitted_: inference.FittedEnsemble

    # Asked by `sklearn_fordes.distributed.fit` before it starts processes.
    _expect_workers = expect_workers

    @abstractmethod
    def _encode(self, data: TrainingData) -> TrainingData:
        """Return rows of positive weight, with encoded targets and complete weights.

        The first rows say how targets are encoded, and this copy keeps it in fitted attributes.
        """

    @abstractmethod
    def _likelihood(self) -> Any:
        """Return what the members' outputs mean."""

    def fit(
        self,
        X: Any,
        y: ArrayLike | str | int | None = None,
        sample_weight: ArrayLike | str | None = None,
        X_val: Any = None,
        y_val: ArrayLike | None = None,
        X_repulsion: Any = None,
        groups: ArrayLike | None = None,
        **unknown: Any,
    ) -> Self:
        """Fit the ensemble.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)
            Numbers, booleans, strings and categories, any of which may be missing, in pandas,
            polars or numpy. Without an encoder: numbers, none missing, (n_samples, …). With an
            `encoder` of your own what it takes, such as a sparse array. Or a source that is read in
            blocks, such as a dataset of pyarrow: see ``docs/streaming.md``.
        y : array-like of shape (n_samples,), str or int
            Class labels of any kind, at least two classes; for the regressor finite numbers. Or the
            name of a column of a frame or source; of an array as a source the index of a column.
        sample_weight : array-like of shape (n_samples,) or str, optional
            Not negative. Only their ratios matter. Rows of weight zero are left out. Or the name of
            a column of a frame or source, which is then no feature.
        X_val, y_val : like X and y, optional
            Rows for early stopping, in place of held-out ones.
        X_repulsion : like X, optional
            Rows without a target at which the members ought to disagree. Members are compared at
            rows drawn from these too, as many as of each batch. Where a class is needed, it is the
            one that the ensemble predicts.
        groups : array-like of shape (n_samples,), optional
            For a splitter as `validation_fraction` that keeps the rows of a group together, such as
            scikit-learn's ``GroupKFold``; an error if nothing is split. Where metadata is routed
            ``set_fit_request(groups=True)`` asks for them.
        **unknown
            Nothing: the error about another argument names the one that may be meant.

        Returns
        -------
        self : estimator
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter or an input is not as expected, or training diverges twice. The estimator
            is then as it was before the call.
        TypeError
            If there is an argument of another name.
        OSError
            If the first checkpoint can't be written.

        Warns
        -----
        ConvergenceWarning
            If training is interrupted or ended by `max_time`, goes back once since a loss was not
            finite, or learns nothing that helps on the validation rows.
        UserWarning
            If a checkpoint can't be written, after the first one.
        """
        for name in unknown:
            raise TypeError(self._unexpected(name, "argument of fit", self.fit))
        began = time.monotonic()
        goes_on = self.warm_start and "fitted_" in vars(self)
        new = self._copied("_importances_") if goes_on else self._copied(*_LEARNT)
        new._fit(X, y, sample_weight, X_val, y_val, X_repulsion, groups, began)
        return self._adopt(new)

    @with_callbacks  # type: ignore[untyped-decorator]
    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        X_val: Any,
        y_val: Any,
        X_repulsion: Any,
        groups: Any,
        began: float,
    ) -> None:
        """Fit this copy, and warn if training did not come to its end."""
        n_before = vars(self).get("n_iter_", 0)
        communicator = self._communicator()
        with communicator.together():
            self._validate_params()
        expect_same_settings(self, communicator)
        split, *seeds = communicator.broadcast(seeds_of(random_state_of(self)))
        rows, valid, stream = rows_of(
            self, X, y, sample_weight, (X_val, y_val), groups, [split, seeds[1]], communicator
        )
        n_rows = len(rows.y) if stream is None else stream.n_rows
        n_shares = 0 if stream is None else communicator.n_row_shares
        max_epochs = self._n_epochs(n_rows, n_shares)
        tasks = tasks_of(self, X, y, sample_weight, max_epochs)
        ended_by = self._train(
            rows,
            valid,
            X_repulsion,
            stream,
            max_epochs=max_epochs,
            seeds=seeds,
            tasks=tasks,
            communicator=communicator,
            deadline=math.inf if self.max_time is None else began + float(self.max_time),
            is_a_fit=True,
        )
        if tasks is not None:
            tasks.end()
        if ended_by is not None:
            warn_of_end(ended_by, self.n_iter_ - n_before, max_epochs)

    def _partial_fit(self, new: Self, X: Any, y: Any, sample_weight: ArrayLike | None) -> Self:
        """Train a copy of this estimator for one epoch more, or for the first one, and adopt it."""
        expect_table(X, "partial_fit")
        rows = new._rows(*separated(X, y, sample_weight))
        if self.distributed is not None:
            raise ValueError(
                f"Got distributed={self.distributed!r} in partial_fit, but expected None: it "
                "trains in one process."
            )
        seeds = (0, 0) if "fitted_" in vars(new) else seeds_of(new.random_state)[1:]
        new._train(rows, max_epochs=1, seeds=seeds)
        return self._adopt(new)

    def _rows(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> TrainingData:
        """Check parameters and rows, and encode targets."""
        self._validate_params()
        return self._encode(training_data(self, self._checked(X, y), y, sample_weight))

    def _train(
        self,
        data: TrainingData,
        valid: TrainingData | Folds | None = None,
        X_repulsion: Any = None,
        stream: Any = None,
        *,
        max_epochs: int,
        seeds: Any,
        tasks: FitTasks | None = None,
        communicator: particles.Communicator | None = None,
        deadline: float = math.inf,
        is_a_fit: bool = False,
    ) -> str | None:
        """Set the fitted attributes of this copy, and return why training did not end, if it did.

        What was fitted before goes on, with the parameters of now, in a new ensemble: nothing is
        lost if training fails. In a fit that goes on the optimizer starts anew.
        """
        communicator = communicator or particles.ALONE
        with inference.ordinary_state(grad=True):
            with communicator.together():
                fitted, inputs, rows, state, lengthscale = self._prepared(
                    data, valid, X_repulsion, stream, seeds, is_a_fit=is_a_fit
                )
            n_before, checkpoint = len(state.history) if state else 0, None
            if is_a_fit:
                checkpoint = checkpoint_of(self, fitted, rows, seeds, state, communicator)
            part = own_part(fitted, rows, communicator)
            with communicator.together():
                net = self._new_net(
                    part,
                    inputs,
                    lengthscale,
                    max_epochs=max_epochs,
                    seeds=seeds,
                    around=epoch_callbacks(tasks, partial(self._snapshot, fitted), rows),
                    communicator=communicator,
                    n_rows=None if stream is None else stream.n_rows,
                    is_a_fit=is_a_fit,
                )
                if state:
                    members = communicator.members
                    state.over_members(lambda values: values[members]).load_into(net)
            ended_by = training.train(net, rows, deadline=deadline, checkpoint=checkpoint)
            self._set_learnt(fitted, net)
            if communicator.n_processes > 1:
                state = training.TrainingState.of(net).over_members(communicator.gather)
                fitted.members.eval().load_state_dict(state.members)
                self._keep_state(state)
        if rows.valid is not None:
            best = min(epoch["valid_loss"] for epoch in self.history_[n_before:])
            warn_if_nothing_was_learnt(fitted, rows, best)
        # A later batch, which may be one row, says less of the columns than the first rows.
        if "_importances_" not in vars(self):
            self._importances_ = member_importances(fitted, inputs, self.n_features_in_)
        return ended_by

    def _prepared(
        self,
        data: TrainingData,
        valid: TrainingData | Folds | None,
        X_repulsion: Any,
        stream: Any,
        seeds: Any,
        *,
        is_a_fit: bool,
    ) -> tuple[inference.FittedEnsemble, Any, Any, training.TrainingState | None, Any]:
        """Return members before training, encoded inputs, the rows of a net, and what goes on.

        That is the state that an earlier call has left, or None, and the lengthscale.
        """
        state, lengthscale = None, self.lengthscale
        if "fitted_" in vars(self):
            encoder, device = self.fitted_.encoder, self.fitted_.device
            shape, state = self.fitted_.input_shape, training.TrainingState.of(self.net_)
            state = state._replace(optimizer={}) if is_a_fit else state
            then = self._then_
            if np.array_equal(lengthscale, then.lengthscale) and self.repulsion == then.repulsion:
                # Later rows don't change a lengthscale that was computed from inputs.
                lengthscale = state.known_lengthscale(lengthscale)
        else:
            encoder, device = self._new_encoder(), inference.available_device(self.device)
            # Not always what transform gives: a target encoder leaves a row's own target out.
            encoded = first_encoded(self, encoder, data)
            shape = np.shape(encoded)[1:]
            if 0 in shape:
                raise ValueError(
                    f"Got X of shape {data.table.shape}, of which the encoder makes no column, but "
                    "expected numbers, or categories of min_frequency rows or more."
                )
        likelihood = self._likelihood()
        make_member = self._member_factory(encoder, shape, likelihood.n_outputs, device)
        members = networks.stack_members(make_member, int(self.n_members), seeds[0]).to(device)
        rows_per_chunk = getattr(self, "iterator_valid__batch_size", members.rows_at_a_time())
        fitted = inference.FittedEnsemble(encoder, members, likelihood, shape, int(rows_per_chunk))
        inputs = fitted.encode(data.table) if state else fitted.as_inputs(encoded)
        rows = dataset_of(self, fitted, inputs, data, valid, X_repulsion)
        if stream is not None:
            rows = stream.dataset(fitted, rows)
        return fitted, inputs, rows, state, lengthscale

    def _set_learnt(self, fitted: inference.FittedEnsemble, net: Any) -> None:
        self.encoder_, self.fitted_, self._net_ = fitted.encoder, fitted, net
        self.history_ = [
            {name: value for name, value in epoch.items() if name != "batches"}
            for epoch in list(net.history)[: net.n_epochs]
        ]
        self.n_iter_ = len(self.history_)
        self.__dict__.pop("_training_state_", None)  # That of the net before.
        # What may be changed in place later is copied.
        self._then_ = self._copied(
            *_LEARNT,
            *CALLBACK_ATTRIBUTES,
            repulsion=copy(self.repulsion),
            lengthscale=copy(self.lengthscale),
        )

    def _keep_state(self, state: training.TrainingState) -> None:
        """Keep a training state, from which a net is made if it is asked for, and not the net."""
        del self._net_
        state = state._replace(members={}, history=state.history[: self.n_iter_])
        self._training_state_ = state.to_dict()

    def _snapshot(self, fitted: inference.FittedEnsemble, net: Any) -> dict[str, Any]:
        """Return what this copy would have learnt if training stopped between two epochs.

        Its net has no moments: this one is being trained.
        """
        expect_all_members(net)
        then, members = self._copied(), [*range(fitted.members.n_members)]
        then._set_learnt(fitted.select(members), net)
        then.fitted_.members.eval()
        then._keep_state(training.TrainingState.of(net)._replace(optimizer={}))
        return {name: value for name, value in vars(then).items() if name in _LEARNT}

    def _checked(self, X: Any, y: Any = "no_validation") -> Any:
        """Return a checked table, a frame or an array, or an array of numbers without an encoder.

        The first rows say how many features there are, and this copy keeps it.
        """
        is_first = "_is_table_" not in vars(self)
        if is_first:
            self._is_table_ = self._uses_encoder()
            self._is_sparse_taken_ = self._input_tags().sparse
        given = native_table(X)
        if self._is_table_:
            named = X = as_table(given, accept_sparse=self._is_sparse_taken_)
        else:
            X = as_rows(given, n_axes=None)
            # Rows are an array, but a frame's names count, unless the training rows had none.
            is_named = is_first or hasattr(self, "feature_names_in_")
            named = given if is_named and has_names(given) else X
        if is_first or y is None or not has_known_columns(self, named):
            # It says what is wrong, or what is new.
            validate_data(self, named, y, reset=is_first, skip_check_array=True)
        if not self._is_table_:
            return finite_rows(self, X)
        if isinstance(self.encoder, str):
            return X
        return named_as_before(X, getattr(self, "feature_names_in_", None))

    # ---- fitted attributes

    def _copied(self, *without: str, **changed: Any) -> Self:
        """Return a shallow copy, without some attributes and with others."""
        kept = {name: value for name, value in vars(self).items() if name not in without}
        new = object.__new__(type(self))
        new.__dict__ = {**kept, **changed}
        return new

    def _adopt(self, new: Self) -> Self:
        """Take what a copy learnt, all at once: other threads see the old or the new attributes."""
        self.__dict__ = {**vars(new), **vars(self._copied(*_LEARNT))}
        return self

    def _as_fitted(self) -> Self:
        """Return the estimator as it is now, whatever a fit in another thread does to it."""
        now = object.__new__(type(self))
        now.__dict__ = self.__dict__
        if "fitted_" not in vars(now):
            check_is_fitted(now, "fitted_")
        return now

    def _predicted(self, X: Any, method: str, *arguments: Any, axis: int = 0) -> NDArray[Any]:
        """Return what a method of the likelihood makes of outputs, with rows along an axis."""
        now = self._as_fitted()
        return now._computed(now._checked(X), method, *arguments, axis=axis)

    def _computed(
        self,
        X: Any,
        method: str,
        *arguments: Any,
        axis: int = 0,
        chunks: inference.Chunks | None = None,
    ) -> NDArray[Any]:
        """Return what a method of the likelihood makes of outputs for checked rows."""
        compute = getattr(self.fitted_.likelihood, method)
        n_rows = X.shape[0]
        verbose = self.verbose
        progress = Progress("prediction", n_rows, "row", only_if_slow=True) if verbose else None
        found, n_done = np.empty(0), 0
        # Chunk by chunk, so that outputs of all rows are never held. Results that lie between the
        # memory of two chunks would keep the C library from using that again, so they are copied.
        results = self.fitted_.results(
            X, lambda outputs: np.asarray(compute(outputs, *arguments)), chunks
        )
        with closing(results):  # An error here ends its threads, too.
            for part in results:
                if not n_done:
                    found = np.empty(
                        [*part.shape[:axis], n_rows, *part.shape[axis + 1 :]], part.dtype
                    )
                rows = slice(n_done, n_done + part.shape[axis])
                found[(*[slice(None)] * axis, rows)] = part
                n_done = rows.stop
                if progress:
                    progress.advance(part.shape[axis])
        if progress:
            progress.close(f"{n_rows} rows")
        return found

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
        members = self.fitted_.members.state_dict()
        state = training.TrainingState.from_dict({**self._training_state_, "members": members})
        then = self._then_._copied(batch_size=state.batch_size)
        net = then._new_net(
            self.fitted_,
            self.fitted_.as_inputs(np.zeros((1, *self.fitted_.input_shape))),
            state.known_lengthscale("identity"),
            max_epochs=self.n_iter_ if isinstance(then.max_epochs, str) else then.max_epochs,
            n_rows=state.batch_size,
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
        # Not the moments, which belong to all members.
        state = training.TrainingState.of(now.net_)._replace(members={}, optimizer={}).to_dict()
        alone = now._copied("_net_", n_members=1, _training_state_=state)
        return [
            alone._copied(
                fitted_=now.fitted_.select([index]),
                _importances_=of_member(vars(now).get("_importances_"), index),
            )
            for index in range(now.fitted_.members.n_members)
        ]

    # ---- scikit-learn

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        of_encoder = self._input_tags()
        for name in ("allow_nan", "string", "categorical"):
            setattr(tags.input_tags, name, getattr(of_encoder, name))
        tags.input_tags.sparse = of_encoder.sparse and promises_sparse(self.encoder)
        return tags

    def _input_tags(self) -> Any:
        """Return what the encoder in use takes; without one, arrays of numbers."""
        if not self._uses_encoder():
            return InputTags()
        return input_tags_of(TabularEncoder() if isinstance(self.encoder, str) else self.encoder)
