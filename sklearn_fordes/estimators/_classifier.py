"""The ensemble classifier."""

from __future__ import annotations

import os
from collections.abc import Iterable
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets

from sklearn_fordes import particles, streaming
from sklearn_fordes.estimators._base import BaseFoRDE
from sklearn_fordes.estimators._parameters import LengthscaleLike, RepulsionLike
from sklearn_fordes.estimators._streams import block_by_block
from sklearn_fordes.estimators._validation import (
    TrainingData,
    check_partial_fit_first_call,
    training_data,
)


class FoRDEClassifier(ClassifierMixin, BaseFoRDE):
    """Ensemble of neural networks that repel each other in the space of input gradients.

    M networks of one architecture are trained together. Each descends its own cross-entropy, and
    the repulsion pushes it away from the others where their input gradients point the same way, so
    that the members rely on different features. The prediction is their mean probability. With
    ``repulsion="none"`` this is a deep ensemble.

    Parameters
    ----------
    n_members : int, default=10
        Number of networks, M. Nothing repels a single one. Networks whose weights, gradients and
        moments no machine of this memory can hold are refused before memory is taken.
    repulsion : {"input_gradient", "weight", "function", "feature", "none"}, callable or \
            Repulsion, default="input_gradient"
        How members repel each other. A name or a function is the space in which they do: the
        directions of their input gradients, their weights, their probabilities at the rows of a
        batch, the inputs of their last layer, none (a deep ensemble), or what a function of
        ``(ensemble, X, y)`` returns. A `Repulsion` has further parameters, reached as
        ``repulsion__…``; a name means a `Repulsion` of that space with its defaults.
    repulsion_strength : float, default=0.3
        Factor of the repulsion. By default it is relative to the members' mean loss, so that it
        does not depend on the batch size, and is multiplied by their relative loss (cross-entropy /
        log n_classes, at most 1), so that it fades as they learn; see `Repulsion`. Larger values
        give more robust predictions under shifted input until, in the end, they cost accuracy. Best
        tuned on a logarithmic grid.
    lengthscale : {"identity", "pca"}, float, array-like or callable, default="identity"
        Lengthscale of the input-gradient space. "pca" repels more along directions of high variance
        of the training inputs; a number α in [0, 1] lies between "identity" (0) and "pca" (1): the
        precisions are ``(1 − α) + α Λ`` with Λ the variances divided by their mean. An array of
        shape (`n_features_in_`,) holds lengthscales of the columns of X. For the encoded inputs
        (see `encoder_`) one of shape (n_inputs,) holds lengthscales, and one of shape (n_inputs,
        n_inputs) is a precision matrix. A function of the encoded training inputs, a tensor,
        returns such an array or a `sklearn_fordes.particles.Lengthscale`, as
        ``sklearn_fordes.particles.tuned_lengthscale(α, mix="variance")`` does.
    encoder : "auto", transformer or None, default="auto"
        Turns the columns into numbers: for the default network a
        `sklearn_fordes.preprocessing.TabularEncoder`, for a `module` of your own nothing; or a
        transformer, of which a clone is fitted to the training rows; or nothing. X may be sparse
        if a transformer of your own takes it, such as scikit-learn's ``MaxAbsScaler`` or
        ``TruncatedSVD``, alone or as the first step of a pipeline.
    categorical_features : "from_dtype", array-like or None, default="from_dtype"
        Columns of categories: those of strings, categories, enumerations and objects that are no
        numbers. Names, indices or a mask add columns to these, such as codes that are integers.
        None if there are none.
    hidden_layer_sizes : sequence of int or int, default=(128, 128)
        Widths of the hidden layers of the default network; ``()`` makes a linear model. Given to a
        `module` too that takes an argument of this name. The first layer has an input for each
        encoded column, and three more for each embedded number: those of tables with at most 128
        numbers of more than two values (see ``docs/tables.md``).
    module : type, callable or torch.nn.Module, default=None
        The members' architecture. A class (or function) is called for each member with the
        ``module__…`` parameters, and with ``n_features`` and ``n_outputs`` if it takes arguments
        of these names. An instance is copied and its layers reset. It must map ``(n_rows, …)`` to
        logits ``(n_rows, n_classes)``. None is a `sklearn_fordes.networks.MLP` with a dropout of
        0.1 and periodic embeddings of the numbers that the default encoder finds, unless they are
        more than 128: its other parameters are ``module__activation``, ``module__dropout``,
        ``module__embedded_features``, ``module__mixed_precision`` (products in bfloat16, where the
        CPU has them)…
    optimizer : type, default=None
        A class of `torch.optim`. None is AdamW.
    max_epochs : int or "auto", default="auto"
        Largest number of passes over the training rows, in which the learning rate falls to zero,
        unless early stopping ends them before. "auto" follows the number of rows n: ``950 / n **
        0.4``, which is 60 for 1,000 rows, 24 for 10,000 and 9 for 100,000. More lower the loss of
        tables on which it still falls at the end, and cost time (see ``docs/performance.md``).
        Epochs of a source that is read in blocks may be parts of a pass, and are as many more.
    batch_size : int or "auto", default="auto"
        Largest number of rows in a batch. "auto" is a tenth of the training rows, rounded down to a
        power of two, from 32 to 256.
    lr : float or "auto", default="auto"
        The largest learning rate. "auto" is ``0.03 * b / 256`` for batches of b rows, at most 0.03,
        and 0.004 where the rate is constant.
    lr_schedule : {"auto", "one_cycle", "constant"}, default="auto"
        How the learning rate changes in `fit`. "one_cycle" rises to `lr` in the first twentieth of
        `max_epochs`, in three epochs at most, and falls to zero, both linearly. "auto" is one
        cycle, unless `callbacks` has a ``skorch.callbacks.LRScheduler``. In `partial_fit` it is
        constant.
    weight_decay : float, default=0.0001
        The optimizer's weight decay, applied to weights and to the embedding, and not to biases or
        normalisation.
    ema_decay : float, default=0.995
        Decay, in [0, 1), of the exponential moving average of the weights over steps. The average
        is validated and kept. It covers the last tenth of the steps at most. 0 keeps the weights of
        the last step.
    early_stopping : bool, default=True
        Whether to stop when the ensemble's validation log loss no longer falls, and keep the
        weights of its best epoch. Tables too small to hold a row out, with one at least of each
        class for training, are trained for `max_epochs`.
    validation_fraction : float, "auto", splitter or list of pairs, default="auto"
        The rows that validate, for early stopping. Not used when `fit` is given validation rows.

        - A share of the rows is held out, stratified by class where possible and rounded down.
        - "auto" deals 5 to 639 rows to folds, stratified by class, as many as the smallest divisor
          of `n_members` from 4 on (5 for 10 members). Each member leaves one fold out, and the
          ensemble trains on all rows. A row's validation loss is that of the members that leave it
          out, extrapolated to all members if these train on the same rows. Larger tables,
          and those of ensembles without such a divisor, hold a tenth out; of fewer than 640 rows
          64, or a fifth if that is less.
        - A splitter, such as scikit-learn's ``KFold`` or ``PredefinedSplit``, or a list of pairs of
          training and validation rows, as indices of the rows that `fit` gets (a search fits
          parts of a table, and wants a splitter). The number of pairs K divides `n_members`.
          Members are dealt to the pairs; each row is trained on by some, unless a single pair holds
          it out. `fit` takes the groups that a splitter needs.

        With folds or several splits the encoder is fitted to all rows, and the repulsion compares
        members at rows that they leave out as well. Callbacks that score validation rows score the
        whole ensemble, some of whose members trained on them; ``valid_loss`` does not.
    n_iter_no_change : int, default=8
        Epochs without improvement that early stopping waits for.
    augmentation : "auto", CellCorruption, callable or None, default="auto"
        What the members are told about drift: versions of a batch's rows on which they train. A
        `CellCorruption` swaps cells with those of other rows, blanks them, and adds noise, for
        every second member by default; its parameters are reached as ``augmentation__…``. "auto" is
        one with its defaults for tables that a `TabularEncoder` reads, and nothing for other rows.
        Rows at which members are compared are the same for all in that step. A function takes the
        encoded rows of a batch, a tensor (n_rows, …), and a `numpy.random.Generator`, and returns
        versions of them, (n_rows, …), or (n_members, n_rows, …) with versions of each member's own.
        None changes no rows.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the loss, multiplied with `sample_weight`.
    device : str or torch.device, default="auto"
        Where to train and predict. "auto" is the first of CUDA, XPU and MPS that torch finds, else
        the CPU.
    callbacks : list of skorch.callbacks.Callback, default=None
        Also as pairs (name, callback). Shallow copies are used; see ``net_.callbacks_``.
    warm_start : bool, default=False
        Whether `fit` goes on from the members of the last fit, for up to `max_epochs` more, with an
        optimizer that starts anew. The encoder, with its parameters, and the device stay those of
        the last fit; parameters that change the network raise an error. The best epoch is one of
        the new ones. A `random_state` lets the same rows validate.
    max_time : float, default=None
        Seconds after which `fit` ends, with a warning, and keeps the best epoch so far. It does not
        begin an epoch that would end later, and cuts one short that does; one step is made in any
        case. With a `checkpoint_dir` the same call goes on from the last whole epoch.
    checkpoint_dir : str or path-like, default=None
        Folder in which `fit` keeps its state between epochs, and at its end: the same call, on the
        same rows, goes on where it stopped, and ends with the same weights. See
        ``docs/long_fits.md``.
    distributed : {"members", "rows"} or None, default=None
        What `fit` shares out among the processes of the default group of `torch.distributed`, in
        each of which it is called with the same parameters and rows: "members" (bitwise the fit of
        one process), or the "rows" of each batch (the same up to rounding; dropout draws masks of
        its own in each process). Each process then has the whole fitted estimator. Processes that
        torchrun started join a group by themselves. None takes no notice of a group, so that each
        process has its own fit. See `sklearn_fordes.distributed.fit`, which starts processes, and
        ``docs/scaling.md``.
    random_state : int, RandomState instance or None, default=None
        Determines the initial weights, the held-out rows or folds, the batches, the corrupted cells
        and dropout. The initial weights of a member depend on its index and not on `n_members`. The
        global generators of torch and numpy are left as they were (None draws one seed from
        numpy's).
    verbose : int, default=0
        Whether to show the progress of epochs, and of predictions that take more than five seconds,
        on standard error: a bar in a terminal, lines in a log. The last line says how many epochs
        there were, and the best one.
    **kwargs
        Parameters of the net's parts, as in skorch: ``module__…``, ``optimizer__…``,
        ``iterator_train__…``, ``iterator_valid__…``, ``callbacks__…``. They are seen by
        `get_params`, `set_params`, `clone` and grid searches.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Only if X had column names, all strings.
    net_ : ParticleNet
        The skorch net of the last fit. Prediction does not pass through it.
    fitted_ : FittedEnsemble
        Encoder, members and likelihood: all that prediction needs.
    encoder_ : transformer
        The fitted encoder.
    estimators_ : list of FoRDEClassifier
        The members as fitted classifiers, with ``n_members=1``. Made anew at each access, with
        copies of the weights.
    feature_importances_ : ndarray of shape (`n_features_in_`,)
        The mean over members of `member_importances_`.
    member_importances_ : ndarray of shape (n_members, `n_features_in_`)
        The importance of each column of X for each member: not negative, of sum 1. It is the root
        mean square, over 256 training rows at most, of the member's input gradient times the
        standard deviation of the encoded column; squares are summed over the encoded columns of a
        column. Computed at the end of `fit`, or of the first `partial_fit`; a later `partial_fit`
        leaves them as they are. Missing if an encoder or a module of your own makes other columns,
        unless the encoder has an attribute ``column_map_``, the column of each encoded one.
    history_ : list of dict
        An entry per epoch: ``driving_loss`` (mean cross-entropy of a member, nats per row),
        ``repulsion`` (mean over members), ``train_loss`` (the objective: the sum of both over
        members), ``relative_loss`` (cross-entropy as a share of log n_classes), ``valid_loss``
        (log loss of the ensemble), ``dur`` (seconds) and more.
    n_iter_ : int
        Number of epochs run.

    See Also
    --------
    sklearn.neural_network.MLPClassifier : A single network.
    sklearn.ensemble.HistGradientBoostingClassifier : Gradient boosted trees.

    Notes
    -----
    Training descends the sum of the members' losses and never the loss of their mean prediction, so
    that each member is a model by itself; probabilities, not logits, are averaged.

    Parameters that are changed after `fit` count in the next `fit` or `partial_fit`, not in
    prediction.

    Ctrl-C ends training and keeps the model (with a warning), unless no epoch is done yet. If `fit`
    fails, the estimator is as it was before.

    `set_callbacks` takes callbacks of scikit-learn's, from its version 1.9 on. `fit` tells them of
    each epoch, a task below its own. X and y are those given to `fit`, whose held-out rows are
    among them.

    References
    ----------
    T. Trinh, M. Heinonen, L. Acerbi, S. Kaski. Input-gradient space particle inference for neural
    network ensembles. ICLR 2024.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_fordes import FoRDEClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = FoRDEClassifier(n_members=3, max_epochs=30, random_state=0).fit(X, y)
    >>> model.predict_proba(X[:2]).shape
    (2, 3)
    >>> model.predict_proba_members(X[:2]).shape
    (3, 2, 3)
    """

    def __init__(
        self,
        n_members: int = 10,
        *,
        repulsion: RepulsionLike = "input_gradient",
        repulsion_strength: float = 0.3,
        lengthscale: LengthscaleLike = "identity",
        encoder: Any = "auto",
        categorical_features: Literal["from_dtype"] | ArrayLike | None = "from_dtype",
        hidden_layer_sizes: Iterable[int] | int = (128, 128),
        module: Any = None,
        optimizer: Any = None,
        max_epochs: Literal["auto"] | int = "auto",
        batch_size: Literal["auto"] | int = "auto",
        lr: Literal["auto"] | float = "auto",
        lr_schedule: Literal["auto", "one_cycle", "constant"] = "auto",
        weight_decay: float = 1e-4,
        ema_decay: float = 0.995,
        early_stopping: bool = True,
        validation_fraction: Literal["auto"] | float | Any = "auto",
        n_iter_no_change: int = 8,
        augmentation: Any = "auto",
        class_weight: Literal["balanced"] | dict[Any, float] | None = None,
        device: Any = "auto",
        callbacks: Any = None,
        warm_start: bool = False,
        max_time: float | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        distributed: Literal["members", "rows"] | None = None,
        random_state: Any = None,
        verbose: int = 0,
        **kwargs: Any,
    ) -> None:
        BaseFoRDE._store(**locals())

    def partial_fit(
        self,
        X: Any,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> FoRDEClassifier:
        """Train for one epoch on some rows, going on from what was learnt before.

        The first call (on an estimator that is not fitted) draws the members and sets the scale of
        the columns and, with ``lengthscale="pca"`` or a number, the lengthscale. Later calls take
        other parameters (``lr``, say) as they are then: another `repulsion` or `lengthscale` is
        computed from the rows of that call; parameters that change the network raise an error.
        There is no early stopping.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
        classes : array-like of shape (n_classes,), optional
            All class labels that will occur. Needed in the first call.
        sample_weight : array-like of shape (n_samples,), optional
            Not negative. A row of weight 2 counts as two rows. Rows of weight zero are left out.

        Returns
        -------
        self : FoRDEClassifier
            The fitted estimator.
        """
        if isinstance(self.class_weight, str):
            raise ValueError(
                f"Got class_weight={self.class_weight!r} in partial_fit, which does not see all "
                "rows, but expected a dict or None."
            )
        new = self._copied()
        check_partial_fit_first_call(new, classes)  # It sets the classes in the first call.
        return self._partial_fit(new, X, y, sample_weight)

    @block_by_block
    def predict_proba_members(self, X: Any) -> NDArray[np.float64]:
        """Predict each member's class probabilities.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_members, n_samples, n_classes)
            In the order of `classes_`.
        """
        return np.ascontiguousarray(self._predicted(X, "member_probabilities", axis=1))

    @block_by_block
    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Predict class probabilities: the mean of the members' probabilities.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In the order of `classes_`.
        """
        return self._predicted(X, "predict")

    @block_by_block
    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Predict the logarithm of class probabilities.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In the order of `classes_`; finite, as it is computed from the logits.
        """
        return self._predicted(X, "predict_log")

    @block_by_block
    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Score the classes by the logarithm of the mean probability.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            Of two classes the log-odds of the second one, ``log(p / (1 - p))``, in nats. Of more
            classes what `predict_log_proba` returns.
        """
        scores = self.predict_log_proba(X)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    @block_by_block
    def predict(self, X: Any) -> NDArray[Any]:
        """Predict the most probable class.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels out of `classes_`.
        """
        now = self._as_fitted()
        labels: NDArray[Any] = now.classes_[now.predict_proba(X).argmax(axis=1)]
        return labels

    def input_gradients(self, X: Any, y: ArrayLike | None = None) -> NDArray[np.float64]:
        """Compute the members' gradients of log-odds with respect to the input.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), optional
            Classes whose log-odds (or other ``target`` of the `Repulsion`) are differentiated.
            Default: the predicted ones.

        Returns
        -------
        ndarray of shape (n_members, n_samples, n_inputs)
            With respect to the encoded rows (see `encoder_`), flattened.
        """
        now = self._as_fitted()
        X = now._checked(X)
        codes = () if y is None else now._codes(training_data(now, X, y).y)
        return now.fitted_.input_gradients(X, codes)

    def _likelihood(self) -> Any:
        repulsion = particles.as_repulsion(self.repulsion)
        return particles.CategoricalLikelihood(len(self.classes_), repulsion.target)

    def _encode(self, data: TrainingData) -> TrainingData:
        """Return rows with codes and with class weights multiplied in; none of weight zero."""
        is_whole = "classes_" not in vars(self)  # partial_fit is given the classes.
        if is_whole:
            self.classes_ = np.unique(data.y)
        rows = data._replace(y=self._codes(data.y)).of_positive_weight("sample_weight")
        totals = np.bincount(rows.y, rows.sample_weight, minlength=len(self.classes_))
        weights = self._class_weights(totals)
        weight = weights[rows.y] * rows.sample_weight
        rows = rows._replace(sample_weight=weight).of_positive_weight("class_weight")
        self._expect_two_classes(self.classes_[np.unique(rows.y)] if is_whole else self.classes_)
        return rows

    def _learn_targets(self, summary: streaming.Summary) -> NDArray[np.float64]:
        """Learn the classes of a source, and return their weights."""
        if "classes_" not in vars(self):
            self.classes_ = summary.classes()
        found = summary.classes()
        totals = np.zeros(len(self.classes_))
        totals[self._codes(found)] = [float(summary.targets[k].weight) for k in found.tolist()]
        weights = self._class_weights(totals)
        self._expect_two_classes(self.classes_[weights * totals > 0])
        return weights

    def _class_weights(self, totals: NDArray[Any]) -> NDArray[np.float64]:
        """Return the weights of the classes, whose rows have weights of these sums."""
        given, weights = self.class_weight, np.ones(len(self.classes_))
        if given == "balanced":
            known = totals > 0
            weights[known] = totals.sum() / (known.sum() * totals[known])
        elif given is not None:
            if not all(isinstance(w, Real) and 0 <= float(w) < np.inf for w in given.values()):
                raise ValueError(f"Got class_weight={given!r}, but expected finite weights >= 0.")
            weights = compute_class_weight(given, classes=self.classes_, y=self.classes_)
        return weights

    def _expect_two_classes(self, present: NDArray[Any]) -> None:
        if len(present) < 2:
            raise ValueError(
                f"Got one class only, {present.tolist()}, but expected at least two classes with "
                "rows of positive weight."
            )

    def _codes(self, y: NDArray[Any]) -> NDArray[np.int64]:
        """Return labels as indices of the classes.

        Raises
        ------
        ValueError
            If a label is none of them.
        """
        check_classification_targets(y)
        unseen = np.setdiff1d(y, self.classes_)
        if len(unseen):
            raise ValueError(
                f"Got labels {unseen.tolist()} in y, but expected some of the classes "
                f"{self.classes_.tolist()}."
            )
        return np.searchsorted(self.classes_, y)
