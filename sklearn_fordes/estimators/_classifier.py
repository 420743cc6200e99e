"""The ensemble classifier."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import _check_partial_fit_first_call, check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
)

from sklearn_fordes._state import restored_on_error
from sklearn_fordes.estimators._base import BaseFoRDE
from sklearn_fordes.estimators._input import Table
from sklearn_fordes.estimators._repulsion import look_up
from sklearn_fordes.uncertainty import Uncertainty, entropy_decomposition

if TYPE_CHECKING:  # torch is imported when a net is first needed
    from sklearn_fordes.particles import Likelihood
    from sklearn_fordes.training import ParticleNet


class FoRDEClassifier(ClassifierMixin, BaseFoRDE):
    """Ensemble of neural networks that repel each other in the space of input gradients.

    M networks of one architecture are trained together. Each descends its own cross-entropy, and
    is pushed away from the others where their input gradients point the same way, so that the
    members rest on different features. Their mean probability is the prediction. With
    ``repulsion="none"`` this is a deep ensemble.

    Parameters
    ----------
    n_members : int, default=10
        Number of networks, M. A single one is never repelled.
    repulsion : {"input_gradient", "weight", "function", "feature", "none"} or callable, \
            default="input_gradient"
        The space in which members repel each other: the directions of their input gradients, their
        weights, their probabilities at the rows of a batch (as one vector), what enters their last
        layer, or none (a deep ensemble, for which no other parameter of the repulsion matters). A
        function maps ``(ensemble, X, y)``, with the rows compared and their classes as tensors (at
        points without one, the ensemble's guess), to a tensor ``(n_members, rows, K)`` that
        autograd can follow; see `sklearn_fordes.particles.space_of`.
    repulsion_strength : float, default=0.3
        Factor of the repulsion, in the unit that `relative_strength` says. Larger values give more
        robust predictions under shifted input until, in the end, they cost accuracy. Best tuned on
        a logarithmic grid.
    relative_strength : bool, default=True
        Whether the strength is relative to the members' mean loss over rows, and fades with it: it
        is multiplied by what they still get wrong, the running mean over steps of their
        cross-entropy divided by log n_classes, its value for equal probabilities (at most 1). If
        not, the strength is divided by the
        rows of a batch; 1 is the paper's choice then.
    update : {"wgd", "svgd", "lit"}, default="wgd"
        How members move: by Wasserstein gradient descent, each its own way and away from where the
        others are dense; by Stein variational gradient descent, which also averages the driving
        force over near members ("weight" and "function" only); or by local independence training,
        which makes directions orthogonal ("input_gradient" and functions only).
    gradient_target : {"log_odds", "logit", "log_prob"}, default="log_odds"
        The output whose input gradient is compared: the true class's log-odds, its raw logit (the
        paper's code) or its log probability (the paper's text).
    lengthscale : {"identity", "pca"}, float or array-like, default="identity"
        Metric of the input-gradient space. "pca" repels more along directions of high variance
        of the training inputs; a number α in [0, 1] lies between "identity" (0) and "pca" (1).
        An array of shape (n_features,) holds lengthscales, one of shape (n_features, n_features) is
        a precision matrix, both for the inputs as the network sees them (see `encoder_`).
    lengthscale_mix : {"precision", "variance"}, default="precision"
        What α averages: ``Σ⁻¹ = (1 − α) I + α Λ``, as on the authors' web page, or
        ``Σ = (1 − α) I + α Λ⁻¹``, as in the paper, where a direction without any variance, such as
        one-hot columns have, is left out as soon as α > 0. Λ has a mean of 1.
    bandwidth : {"auto", "reference", "paper"} or float, default="auto"
        Of the kernel, in units of a squared distance: the median of the distances to each member
        at each row (the paper's code), or of all pairs at each row (the paper's text), both divided
        by log n_members, or a fixed number. "auto" is "reference" for input gradients and "paper"
        elsewhere.
    repulsion_fraction : float, default=0.25
        Share of a batch's rows at which members are compared, in (0, 1]. The extra cost of the
        repulsion is proportional to it.
    repulsion_period : int, default=4
        Members repel each other at every so many steps, and then so many times as strongly.
    repulsion_warmup : int, default=0
        Epochs in which the repulsion rises linearly to its full strength.
    repulsion_perturbation : {"noise", "permute"} or callable, default=None
        Members are compared at as many perturbed copies of a batch's rows too: with normal noise of
        each column's standard deviation, with three cells in ten taken from other rows, or what a
        function makes of a tensor ``(n_rows, …)`` of rows as the network sees them. Their class is
        taken to be the one the ensemble predicts.
    encoder : "auto", transformer or None, default="auto"
        What makes numbers of the columns: for the default network a
        `sklearn_fordes.tabular.TabularEncoder`, for a `module` of your own nothing; or a
        transformer, of which a clone is fitted to the training rows; or nothing.
    categorical_features : "from_dtype", array-like or None, default="from_dtype"
        Columns of categories: those of strings, categories, enumerations and objects that are no
        numbers; or names, indices or a mask (for categories coded as integers, say); or none.
    hidden_layer_sizes : sequence of int or int, default=(128, 128)
        Widths of the hidden layers of the default network; ``()`` makes a linear model. Given to a
        `module` too that takes an argument of this name.
    module : type, callable or torch.nn.Module, default=None
        The members' architecture. A class (or function) is called for each member with the
        ``module__…`` parameters, and with ``n_features`` and ``n_outputs`` if it takes arguments
        of these names. An instance is copied and its layers reset. It must map ``(n_rows, …)`` to
        logits ``(n_rows, n_classes)``. None is a `sklearn_fordes.networks.MLP` with a dropout of
        0.1 and periodic embeddings of the numbers that the default encoder finds: its other
        parameters are ``module__activation``, ``module__dropout``, ``module__embedded_features``…
    optimizer : type, default=None
        A class of `torch.optim`. None is AdamW.
    max_epochs : int, default=200
        Largest number of passes over the training rows.
    batch_size : int or "auto", default="auto"
        Largest number of rows in a batch. "auto" is a tenth of the training rows, rounded down to a
        power of two, from 32 to 128.
    lr : float, default=0.004
        Learning rate.
    weight_decay : float, default=0.0001
        The optimizer's weight decay, applied to weights and not to biases or normalisation.
    ema_decay : float, default=0.995
        Decay, in [0, 1), of the exponential moving average of the weights over steps, which is what
        is validated and kept. It is over the last tenth of the steps at most. 0 keeps the weights
        of the last step.
    early_stopping : bool, default=True
        Whether to stop when the ensemble's validation log loss no longer falls, and keep the
        weights of its best epoch. Tables too small to hold a row out, with one at least of each
        class for training, are trained for `max_epochs`.
    validation_fraction : float or "auto", default="auto"
        Share of the rows held out for early stopping, stratified by class where possible and
        rounded down. "auto" is a tenth; of fewer than 640 rows it is 64 rows, or a fifth of them if
        that is less. Not used when `fit` is given validation rows.
    n_iter_no_change : int, default=16
        Epochs without improvement that early stopping waits for.
    refit : bool, default=False
        Whether rows held out for early stopping are trained on in the end: with the same seeds the
        ensemble is trained anew on all rows, for as many epochs as the best one took, and
        ``history_`` and ``n_iter_`` are of that training, which has no ``valid_loss``. Callbacks
        see both. If the second fails or is interrupted, the first is kept, with a warning. Where no
        row was held out it does nothing.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the loss, multiplied with `sample_weight`.
    predict_batch_size : int or "auto", default="auto"
        Rows that pass the members at a time in prediction, to bound its memory. "auto" is as
        many as keep the widest layer of all members at four million numbers (on CUDA 32 times as
        many), and at most 1024 with a `module` of your own. Input gradients take a quarter.
    device : str or torch.device, default="auto"
        Where to train and predict. "auto" is CUDA where there is, else the CPU.
    compile : bool, default=False
        Whether `torch.compile` makes machine code of the training step, at the first steps. That
        takes a minute or so, and less once torch has it in its cache. For the default network,
        where there is a C++ compiler.
    callbacks : list of skorch.callbacks.Callback, default=None
        Also as pairs (name, callback). Shallow copies are used; see ``net_.callbacks_``.
    random_state : int, RandomState instance or None, default=None
        Determines the initial weights, the held-out rows, the batches and dropout. The initial
        weights of a member depend on its index and not on `n_members`. The global generators of
        torch and numpy are left as they were (None draws one seed from numpy's).
    verbose : int, default=0
        Whether to show a progress bar.
    **kwargs
        Parameters of the net's parts, as in skorch: ``module__…``, ``optimizer__…``,
        ``iterator_train__…``, ``iterator_valid__…``, ``callbacks__…``. They are seen by
        `get_params`, `set_params`, `clone` and grid searches.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only if X had column names, all strings.
    net_ : ParticleNet
        The trained skorch net.
    encoder_ : transformer
        What the rows go through before the network: as `encoder` says, fitted.
    estimators_ : list of FoRDEClassifier
        The members as fitted classifiers of their own, with ``n_members=1``. Made anew at each
        access, with copies of the weights.
    history_ : list of dict
        An entry per epoch: ``driving_loss`` (mean cross-entropy of a member, nats per row),
        ``repulsion`` (mean over members), ``train_loss`` (what is descended: the sum of both over
        members), ``unexplained`` (cross-entropy as a share of log n_classes), ``valid_loss`` (log
        loss of the ensemble), ``dur`` (seconds) and more.
    n_iter_ : int
        Number of epochs run.

    See Also
    --------
    sklearn.neural_network.MLPClassifier : A single network.
    sklearn.ensemble.HistGradientBoostingClassifier : Gradient boosted trees.

    Notes
    -----
    Losses are summed over members and never taken of the mean prediction, so that a member is a
    model in its own right; probabilities, not logits, are averaged.

    Ctrl-C ends training and keeps the model (with a warning), unless no epoch is done yet. If `fit`
    fails, the estimator is as it was before.

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

    # Chosen on the development sets (benchmarks/recipe.py): it pays with many classes.
    _default_dropout: ClassVar[float] = 0.1
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseFoRDE._parameter_constraints,
        "gradient_target": [str],
        "class_weight": [StrOptions({"balanced"}), dict, None],
    }

    def __init__(
        self,
        n_members: int = 10,
        *,
        repulsion: Any = "input_gradient",
        repulsion_strength: float = 0.3,
        relative_strength: bool = True,
        update: str = "wgd",
        gradient_target: str = "log_odds",
        lengthscale: Any = "identity",
        lengthscale_mix: str = "precision",
        bandwidth: Any = "auto",
        repulsion_fraction: float = 0.25,
        repulsion_period: int = 4,
        repulsion_warmup: int = 0,
        repulsion_perturbation: Any = None,
        encoder: Any = "auto",
        categorical_features: Any = "from_dtype",
        hidden_layer_sizes: Any = (128, 128),
        module: Any = None,
        optimizer: Any = None,
        max_epochs: int = 200,
        batch_size: int | str = "auto",
        lr: float = 4e-3,
        weight_decay: float = 1e-4,
        ema_decay: float = 0.995,
        early_stopping: bool = True,
        validation_fraction: float | str = "auto",
        n_iter_no_change: int = 16,
        refit: bool = False,
        class_weight: Any = None,
        predict_batch_size: int | str = "auto",
        device: Any = "auto",
        compile: bool = False,  # noqa: A002 (as in skorch)
        callbacks: Any = None,
        random_state: Any = None,
        verbose: int = 0,
        **kwargs: Any,
    ) -> None:
        self.n_members = n_members
        self.repulsion = repulsion
        self.repulsion_strength = repulsion_strength
        self.relative_strength = relative_strength
        self.update = update
        self.gradient_target = gradient_target
        self.lengthscale = lengthscale
        self.lengthscale_mix = lengthscale_mix
        self.bandwidth = bandwidth
        self.repulsion_fraction = repulsion_fraction
        self.repulsion_period = repulsion_period
        self.repulsion_warmup = repulsion_warmup
        self.repulsion_perturbation = repulsion_perturbation
        self.encoder = encoder
        self.categorical_features = categorical_features
        self.hidden_layer_sizes = hidden_layer_sizes
        self.module = module
        self.optimizer = optimizer
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.ema_decay = ema_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.refit = refit
        self.class_weight = class_weight
        self.predict_batch_size = predict_batch_size
        self.device = device
        self.compile = compile
        self.callbacks = callbacks
        self.random_state = random_state
        self.verbose = verbose
        self._store_pass_through(kwargs)

    def fit(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        X_val: Any = None,
        y_val: ArrayLike | None = None,
        X_repulsion: Any = None,
    ) -> FoRDEClassifier:
        """Fit the ensemble.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)
            Numbers, booleans, strings and categories, any of which may be missing, in pandas,
            polars or numpy. Without an encoder: numbers, none missing, (n_samples, …).
        y : array-like of shape (n_samples,)
            Class labels of any kind, at least two classes.
        sample_weight : array-like of shape (n_samples,), optional
            Non-negative. Only their ratios matter. Rows of weight zero (times `class_weight`) are
            left out.
        X_val, y_val : like X and y, optional
            Rows for early stopping, in place of held-out ones.
        X_repulsion : like X, optional
            Rows without a label, from where the members ought to disagree. Members are compared at
            as many of these as of each batch's rows, drawn at random; their class is taken to be
            the one the ensemble predicts.

        Returns
        -------
        self : FoRDEClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter or an input is not as expected, or training diverges. The estimator is
            then as it was before the call.
        """
        with restored_on_error(self):
            self._validate_params()
            X, y = self._validate_inputs(X, y=y, reset=True)
            check_classification_targets(y)
            self.classes_ = np.unique(y)
            table = self._make_table(X, y, sample_weight)
            class_weight = self._class_weights(table)
            table = self._weighted(table, class_weight)
            self._check_two_classes(self.classes_[np.unique(table.y)])
            valid = self._make_validation_table(X_val, y_val)
            if valid is not None:
                valid = self._weighted(valid, class_weight).of_mean_weight_one()
            X_repulsion = self._validate_unlabelled_rows(X_repulsion)
            self._fit_net(table.of_mean_weight_one(), valid, X_repulsion)
        return self

    def partial_fit(
        self,
        X: Any,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> FoRDEClassifier:
        """Train for one epoch on some rows, going on from what was learnt before.

        The first call (on an estimator that is not fitted) draws the members and sets the scale of
        the columns and, with ``lengthscale="pca"`` or a number, the metric. Later calls take other
        parameters (``lr``, say) as they are then: another `repulsion` or `lengthscale` reads the
        metric off the rows of that call; parameters that change the network raise an error. There
        is no early stopping.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
        classes : array-like of shape (n_classes,), optional
            All class labels that will occur. Needed in the first call.
        sample_weight : array-like of shape (n_samples,), optional
            Non-negative. Taken as they are: a row of weight 2 counts as two rows. Rows of weight
            zero are left out.

        Returns
        -------
        self : FoRDEClassifier
            The fitted estimator.
        """
        with restored_on_error(self):
            self._validate_params()
            if self.class_weight == "balanced":
                raise ValueError(
                    "Got class_weight='balanced' in partial_fit, which does not see all rows, but "
                    "expected a dict or None."
                )
            first = _check_partial_fit_first_call(self, classes)
            X, y = self._validate_inputs(X, y=y, reset=first)
            check_classification_targets(y)
            table = self._make_table(X, y, sample_weight)
            table = self._weighted(table, self._class_weights(table))
            if first:
                self._check_two_classes(self.classes_)
            self._fit_net_further(table)
        return self

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
        return np.ascontiguousarray(np.concatenate(list(self._iter_probabilities(X)), axis=1))

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
        check_is_fitted(self)
        from sklearn_fordes.training import mean_probability

        # Averaged chunk by chunk, so that the members' probabilities of all rows are never held.
        return np.concatenate(
            [mean_probability(logits).numpy() for logits in self._iter_outputs(X)]
        )

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
        probabilities = self.predict_proba(X)
        labels: NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return labels

    def predict_uncertainty(self, X: Any) -> Uncertainty:
        """Split the entropy of the predicted probabilities.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)

        Returns
        -------
        Uncertainty
            Arrays ``total``, ``aleatoric`` and ``epistemic`` of shape (n_samples,), in nats:
            the entropy of the mean probability, the mean of the members' entropies, and the
            difference, which is how much members disagree (their mutual information).
        """
        parts = map(entropy_decomposition, self._iter_probabilities(X))
        return Uncertainty(*map(np.concatenate, zip(*parts, strict=True)))

    def _iter_probabilities(self, X: Any) -> Iterator[NDArray[np.float64]]:
        """Yield the members' probabilities of successive rows of X, (M, rows, n_classes)."""
        check_is_fitted(self)
        from sklearn_fordes.training import member_probabilities

        for logits in self._iter_outputs(X):
            yield member_probabilities(logits).permute(1, 2, 0).numpy()

    def input_gradients(self, X: Any, y: ArrayLike | None = None) -> NDArray[np.float64]:
        """Compute the members' gradients of `gradient_target` with respect to the input.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), optional
            Classes whose log-odds (say) are differentiated. Default: the predicted ones.

        Returns
        -------
        ndarray of shape (n_members, n_samples, n_features)
            With respect to the rows as the network sees them (see `encoder_`), flattened.
        """
        check_is_fitted(self)
        X = self._validate_inputs(X, reset=False)
        if y is None:
            rows = self._encode(self.net_, X)
        else:
            y = column_or_1d(y)
            check_consistent_length(X, y)
            rows = self._encode(self.net_, X, self._make_table(X, y, None).y)
        return np.concatenate(list(self._iter_input_gradients(rows)), axis=1)

    # ---- labels and weights

    @property
    def _likelihood(self) -> Likelihood:
        from sklearn_fordes.particles import CATEGORICAL, GRADIENT_TARGETS

        target = look_up(GRADIENT_TARGETS, "gradient_target", self.gradient_target)
        return replace(CATEGORICAL, gradient_target=target)

    @property
    def _n_outputs(self) -> int:
        return len(self.classes_)

    def _net_class(self) -> type[ParticleNet]:
        from sklearn_fordes.training import ParticleClassifierNet

        return ParticleClassifierNet

    def _make_table(self, X: Any, y: Any, sample_weight: ArrayLike | None) -> Table:
        """Encode labels as indices of `classes_`."""
        unseen = np.setdiff1d(y, self.classes_)
        if len(unseen):
            raise ValueError(
                f"Got labels {unseen.tolist()} in y, but expected some of the classes "
                f"{self.classes_.tolist()}."
            )
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        return Table(X, np.searchsorted(self.classes_, y), weight)

    def _make_validation_table(self, X_val: Any, y_val: Any) -> Table | None:
        arrays = self._validate_validation_rows(X_val, y_val)
        if arrays is None:
            return None
        X_val, y_val = arrays
        return self._make_table(X_val, y_val, None)

    @staticmethod
    def _check_two_classes(classes: NDArray[Any]) -> None:
        if len(classes) < 2:
            raise ValueError(
                f"Got one class only, {classes.tolist()}, but expected at least two classes with "
                "rows of positive weight."
            )

    def _class_weights(self, table: Table) -> NDArray[np.float64]:
        """Return the weight of each class, (n_classes,)."""
        weights = np.ones(len(self.classes_))
        if self.class_weight == "balanced":
            present = np.unique(table.y[table.sample_weight > 0])
            weights[present] = compute_class_weight(
                "balanced",
                classes=self.classes_[present],
                y=self.classes_[table.y],
                sample_weight=table.sample_weight,
            )
        elif self.class_weight is not None:
            for value in self.class_weight.values():
                if not (isinstance(value, Real) and 0 <= float(value) < np.inf):
                    raise ValueError(
                        f"Got class_weight={self.class_weight!r}, but expected finite weights >= 0."
                    )
            weights = compute_class_weight(
                self.class_weight, classes=self.classes_, y=self.classes_
            )
        return weights

    @staticmethod
    def _weighted(table: Table, class_weight: NDArray[np.float64]) -> Table:
        """Multiply class weights in, and leave out rows whose weight is then zero."""
        table = table._replace(sample_weight=table.sample_weight * class_weight[table.y])
        kept = table.sample_weight > 0
        if not kept.any():
            raise ValueError(
                "Got sample_weight and class_weight that are zero for every row together, but "
                "expected some rows of positive weight."
            )
        return table if kept.all() else table.take(kept)

    def _hold_out(self, table: Table, seed: int) -> tuple[Table, Table | None]:
        """Split rows off for validation; each class keeps one for training at least."""
        rows = np.arange(len(table.y))
        classes, first_of_class = np.unique(table.y, return_index=True)
        candidates = np.delete(rows, first_of_class)
        n_valid = min(self._n_held_out(len(rows)), len(candidates))
        if not n_valid:
            return table, None
        y = table.y[candidates]
        stratifiable = np.bincount(y, minlength=classes[-1] + 1)[classes].min() >= 2 and len(
            classes
        ) <= n_valid <= len(y) - len(classes)
        if stratifiable:
            _, held_out = train_test_split(
                candidates, test_size=n_valid, stratify=y, random_state=seed
            )
        else:
            held_out = np.random.default_rng(seed).permutation(candidates)[:n_valid]
        return table.take(np.delete(rows, held_out)), table.take(held_out)
