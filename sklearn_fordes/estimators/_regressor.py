"""The ensemble regressor."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from sklearn_fordes._state import restored_on_error
from sklearn_fordes.estimators._base import BaseFoRDE
from sklearn_fordes.estimators._input import Table
from sklearn_fordes.uncertainty import Uncertainty, variance_decomposition

if TYPE_CHECKING:  # torch is imported when a net is first needed
    from collections.abc import Callable

    from torch import nn

    from sklearn_fordes.particles import Ensemble, Likelihood, MemberFactory
    from sklearn_fordes.training import ParticleNet

# What the network's outputs are made into: a mean and a variance.


class FoRDERegressor(RegressorMixin, BaseFoRDE):
    """Ensemble of neural networks that repel each other in the space of input gradients.

    Each member predicts a normal distribution and descends its own negative log likelihood, pushed
    away from the others where the gradients of their means point the same way. The prediction is
    the equal mixture of the members' distributions.

    Parameters
    ----------
    n_members : int, default=10
        Number of networks, M. A single one is never repelled.
    repulsion : {"input_gradient", "weight", "function", "feature", "none"} or callable, \
            default="input_gradient"
        The space in which members repel each other: the directions of the input gradients of their
        means, their weights, their means at the rows of a batch (as one vector), what enters their
        last layer, or none (a deep ensemble). A function is as in `FoRDEClassifier`.
    repulsion_strength : float, default=0.15
        Factor of the repulsion, in the unit that `relative_strength` says.
    relative_strength : bool, default=True
        Whether the strength is relative to the members' mean loss over rows, and fades as they
        learn: it is multiplied by what they still get wrong, the running mean over steps of their
        squared error divided by the variance of y (at most 1). If not, the strength is divided by
        the rows of a batch; 1 is the paper's choice then.
    update : {"wgd", "svgd", "lit"}, default="wgd"
        How members move, as in `FoRDEClassifier`.
    lengthscale : {"identity", "pca"}, float or array-like, default="identity"
        Metric of the input-gradient space, as in `FoRDEClassifier`.
    lengthscale_mix : {"precision", "variance"}, default="precision"
        What a number as `lengthscale` averages, as in `FoRDEClassifier`.
    bandwidth : {"auto", "reference", "paper"} or float, default="auto"
        Of the kernel, as in `FoRDEClassifier`.
    repulsion_fraction : float, default=0.25
        Share of a batch's rows at which members are compared, in (0, 1].
    repulsion_period : int, default=4
        Members repel each other at every so many steps, and then so many times as strongly.
    repulsion_warmup : int, default=0
        Epochs in which the repulsion rises linearly to its full strength.
    repulsion_perturbation : {"noise", "permute"} or callable, default=None
        Members are compared at as many perturbed copies of a batch's rows too, as in
        `FoRDEClassifier`.
    noise : {"heteroscedastic", "homoscedastic"}, default="heteroscedastic"
        Whether a member's variance is a function of the input, or one number.
    encoder : "auto", transformer or None, default="auto"
        What makes numbers of the columns, as in `FoRDEClassifier`.
    categorical_features : "from_dtype", array-like or None, default="from_dtype"
        Columns of categories, as in `FoRDEClassifier`.
    hidden_layer_sizes : sequence of int or int, default=(128, 128)
        Widths of the hidden layers of the default network; ``()`` makes a linear model.
    module : type, callable or torch.nn.Module, default=None
        The members' architecture, as in `FoRDEClassifier`. It must map ``(n_rows, …)`` to
        ``(n_rows, 2)``, a mean and what softplus turns into a variance, both of a target with mean
        0 and variance 1; with ``noise="homoscedastic"`` to ``(n_rows, 1)``.
    optimizer : type, default=None
        A class of `torch.optim`. None is AdamW.
    max_epochs : int, default=200
        Largest number of passes over the training rows.
    batch_size : int or "auto", default="auto"
        Largest number of rows in a batch, as in `FoRDEClassifier`.
    lr : float, default=0.004
        Learning rate.
    weight_decay : float, default=0.0001
        The optimizer's weight decay, applied to weights and not to biases or normalisation.
    ema_decay : float, default=0.995
        Of the moving average of the weights that is validated and kept, as in `FoRDEClassifier`.
    early_stopping : bool, default=True
        Whether to stop when the mixture's negative log density of validation rows no longer falls,
        and keep the weights of the best epoch. Tables too small to hold a row out are trained for
        `max_epochs`.
    validation_fraction : float or "auto", default="auto"
        Share of the rows held out for early stopping, as in `FoRDEClassifier`. Not used when `fit`
        is given validation rows.
    n_iter_no_change : int, default=16
        Epochs without improvement that early stopping waits for.
    refit : bool, default=False
        Whether rows held out for early stopping are trained on in the end: with the same seeds the
        ensemble is trained anew on all rows, for as many epochs as the best one took, and
        ``history_`` and ``n_iter_`` are of that training, which has no ``valid_loss``. Callbacks
        see both. If the second fails or is interrupted, the first is kept, with a warning. Where no
        row was held out it does nothing.
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
        Determines the initial weights, the held-out rows, the batches and dropout, as in
        `FoRDEClassifier`.
    verbose : int, default=0
        Whether to show a progress bar.
    **kwargs
        Parameters of the net's parts, as in `FoRDEClassifier`.

    Attributes
    ----------
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only if X had column names, all strings.
    target_mean_, target_scale_ : float
        Mean and standard deviation of the training targets, which are standardised inside.
    net_ : ParticleNet
        The trained skorch net.
    encoder_ : transformer
        What the rows go through before the network: as `encoder` says, fitted.
    estimators_ : list of FoRDERegressor
        The members as fitted estimators of their own.
    history_ : list of dict
        An entry per epoch: ``driving_loss`` (mean negative log likelihood of a member, nats per
        row, of the standardised target), ``repulsion``, ``train_loss``, ``valid_loss`` (of the
        mixture), ``dur`` (seconds) and more.
    n_iter_ : int
        Number of epochs run.

    See Also
    --------
    FoRDEClassifier : The same for classes; says more about the common parameters.
    sklearn.gaussian_process.GaussianProcessRegressor : Standard deviations in closed form.

    Notes
    -----
    Row weights scale the rows' log likelihood. Targets have one dimension.

    References
    ----------
    T. Trinh, M. Heinonen, L. Acerbi, S. Kaski. Input-gradient space particle inference for neural
    network ensembles. ICLR 2024.

    B. Lakshminarayanan, A. Pritzel, C. Blundell. Simple and scalable predictive uncertainty
    estimation using deep ensembles. NeurIPS 2017.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn_fordes import FoRDERegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = FoRDERegressor(n_members=3, max_epochs=30, random_state=0).fit(X, y)
    >>> mean, std = model.predict(X[:2], return_std=True)
    >>> mean.shape, std.shape, model.predict_members(X[:2]).shape
    ((2,), (2,), (3, 2))
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseFoRDE._parameter_constraints,
        "noise": [StrOptions({"heteroscedastic", "homoscedastic"})],
    }

    def __init__(
        self,
        n_members: int = 10,
        *,
        repulsion: Any = "input_gradient",
        repulsion_strength: float = 0.15,
        relative_strength: bool = True,
        update: str = "wgd",
        lengthscale: Any = "identity",
        lengthscale_mix: str = "precision",
        bandwidth: Any = "auto",
        repulsion_fraction: float = 0.25,
        repulsion_period: int = 4,
        repulsion_warmup: int = 0,
        repulsion_perturbation: Any = None,
        noise: str = "heteroscedastic",
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
        self.lengthscale = lengthscale
        self.lengthscale_mix = lengthscale_mix
        self.bandwidth = bandwidth
        self.repulsion_fraction = repulsion_fraction
        self.repulsion_period = repulsion_period
        self.repulsion_warmup = repulsion_warmup
        self.repulsion_perturbation = repulsion_perturbation
        self.noise = noise
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
    ) -> FoRDERegressor:
        """Fit the ensemble.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)
            Numbers, booleans, strings and categories, any of which may be missing, in pandas,
            polars or numpy. Without an encoder: numbers, none missing, (n_samples, …).
        y : array-like of shape (n_samples,)
            Finite numbers.
        sample_weight : array-like of shape (n_samples,), optional
            Non-negative. Only their ratios matter. Rows of weight zero are left out.
        X_val, y_val : like X and y, optional
            Rows for early stopping, in place of held-out ones.
        X_repulsion : like X, optional
            Rows without a target, from where the members ought to disagree. Members are compared
            at as many of these as of each batch's rows, drawn at random.

        Returns
        -------
        self : FoRDERegressor
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter or an input is not as expected, or training diverges. The estimator is
            then as it was before the call.
        """
        with restored_on_error(self):
            self._validate_params()
            table = self._make_table(*self._validate_inputs(X, y=y, y_numeric=True, reset=True))
            table = self._weighted(table, sample_weight)
            self._set_target_scale(table)
            valid = self._make_validation_table(X_val, y_val)
            if valid is not None:
                valid = self._standardised(valid)
            X_repulsion = self._validate_unlabelled_rows(X_repulsion)
            table = self._standardised(table.of_mean_weight_one())
            self._fit_net(table, valid, X_repulsion)
        return self

    def partial_fit(
        self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> FoRDERegressor:
        """Train for one epoch on some rows, going on from what was learnt before.

        The first call (on an estimator that is not fitted) draws the members and sets the scale of
        the columns, of the target and, with ``lengthscale="pca"`` or a number, the metric. Later
        calls take other parameters (``lr``, say) as they are then: another `repulsion` or
        `lengthscale` reads the metric off the rows of that call; parameters that change the
        network raise an error. There is no early stopping.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), optional
            Non-negative. Taken as they are: a row of weight 2 counts as two rows. Rows of weight
            zero are left out.

        Returns
        -------
        self : FoRDERegressor
            The fitted estimator.
        """
        with restored_on_error(self):
            self._validate_params()
            first = not hasattr(self, "net_")
            table = self._make_table(*self._validate_inputs(X, y=y, y_numeric=True, reset=first))
            table = self._weighted(table, sample_weight)
            if first:
                self._set_target_scale(table)
            table = self._standardised(table)
            self._fit_net_further(table)
        return self

    @overload
    def predict(self, X: Any, return_std: Literal[False] = False) -> NDArray[np.float64]: ...

    @overload
    def predict(
        self, X: Any, return_std: Literal[True]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...

    def predict(
        self, X: Any, return_std: bool = False
    ) -> NDArray[np.float64] | tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Predict the mean of the target, and its standard deviation if asked for.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)
        return_std : bool, default=False
            Whether to return the standard deviation too.

        Returns
        -------
        mean : ndarray of shape (n_samples,)
            Of the mixture: the mean of the members' means.
        std : ndarray of shape (n_samples,)
            Of the mixture: noise and disagreement of the members together. Only if `return_std`.
        """
        # Reduced chunk by chunk, so that the members' moments of all rows are never held.
        if not return_std:
            return np.concatenate([means.mean(axis=0) for means, _ in self._iter_moments(X)])
        parts = [
            (means.mean(axis=0), variance_decomposition(means, variances).total)
            for means, variances in self._iter_moments(X)
        ]
        mean, variance = map(np.concatenate, zip(*parts, strict=True))
        return mean, np.sqrt(variance)

    def predict_members(self, X: Any) -> NDArray[np.float64]:
        """Predict each member's mean.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_members, n_samples)
            In the unit of the target.
        """
        return np.concatenate([means for means, _ in self._iter_moments(X)], axis=1)

    def predict_uncertainty(self, X: Any) -> Uncertainty:
        """Split the variance of the prediction.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)

        Returns
        -------
        Uncertainty
            Arrays ``total``, ``aleatoric`` and ``epistemic`` of shape (n_samples,), variances in
            the squared unit of the target: of the mixture, the mean of the members' variances, and
            the variance of their means.
        """
        parts = [variance_decomposition(*moments) for moments in self._iter_moments(X)]
        return Uncertainty(*map(np.concatenate, zip(*parts, strict=True)))

    def input_gradients(self, X: Any) -> NDArray[np.float64]:
        """Compute the gradients of the members' (standardised) means with respect to the input.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_members, n_samples, n_features)
            With respect to the rows as the network sees them (see `encoder_`), flattened.
        """
        check_is_fitted(self)
        rows = self._encode(self.net_, self._validate_inputs(X, reset=False))
        return np.concatenate(list(self._iter_input_gradients(rows)), axis=1)

    def _iter_moments(self, X: Any) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Yield means and variances of the members' distributions, (M, rows) each."""
        check_is_fitted(self)
        from sklearn_fordes.particles import gaussian_moments

        for outputs in self._iter_outputs(X):
            mean, variance = (m.T.numpy() for m in gaussian_moments(outputs.double()))
            yield self.target_mean_ + self.target_scale_ * mean, self.target_scale_**2 * variance

    # ---- network

    @property
    def _likelihood(self) -> Likelihood:
        from sklearn_fordes.particles import GAUSSIAN

        return GAUSSIAN

    @property
    def _n_outputs(self) -> int:
        return 2  # a mean and what softplus turns into a variance

    def _net_class(self) -> type[ParticleNet]:
        from sklearn_fordes.training import ParticleRegressorNet

        return ParticleRegressorNet

    def _network(self) -> tuple[Callable[..., Ensemble], MemberFactory | nn.Module]:
        if self.noise == "heteroscedastic":
            return super()._network()
        from torch import nn

        from sklearn_fordes.networks import HomoscedasticNoise, stack_members

        mean = self._member_factory(1)
        if isinstance(mean, nn.Module):
            return stack_members, HomoscedasticNoise(mean)
        return stack_members, partial(HomoscedasticNoise.draw, mean)

    # ---- targets and weights

    def _make_table(self, X: NDArray[Any], y: NDArray[Any]) -> Table:
        return Table(X, y.astype(np.float64), np.ones(len(y)))

    def _make_validation_table(self, X_val: Any, y_val: Any) -> Table | None:
        arrays = self._validate_validation_rows(X_val, y_val, y_numeric=True)
        return None if arrays is None else self._make_table(*arrays)

    @staticmethod
    def _weighted(table: Table, sample_weight: ArrayLike | None) -> Table:
        """Put the weights in, and leave out rows whose weight is zero."""
        weight = _check_sample_weight(
            sample_weight, table.X, dtype=np.float64, ensure_non_negative=True
        )
        kept = weight > 0
        if not kept.any():
            raise ValueError(
                "Got sample_weight that is zero for every row, but expected some rows of positive "
                "weight."
            )
        return table._replace(sample_weight=weight).take(kept)

    def _set_target_scale(self, table: Table) -> None:
        # Relative to the largest, so that no square overflows.
        magnitude = float(np.abs(table.y).max()) or 1.0
        y, weight = table.y / magnitude, table.sample_weight / table.sample_weight.max()
        mean = np.average(y, weights=weight)
        deviation = float(np.average((y - mean) ** 2, weights=weight)) ** 0.5
        is_constant = deviation < 8 * np.finfo(np.float64).eps  # but for rounding
        self.target_mean_ = magnitude * float(mean)
        self.target_scale_ = 1.0 if is_constant else magnitude * deviation
        limits = np.finfo(np.float64)
        if not limits.tiny**0.5 < self.target_scale_ < limits.max**0.5:
            raise ValueError(
                f"Got y of a scale of {self.target_scale_:.3g}, whose square is no normal number, "
                "but expected another unit."
            )

    def _standardised(self, table: Table) -> Table:
        return table._replace(y=(table.y - self.target_mean_) / self.target_scale_)

    def _hold_out(self, table: Table, seed: int) -> tuple[Table, Table | None]:
        """Split rows off for validation; one is kept for training at least."""
        rows = np.random.default_rng(seed).permutation(len(table.y))
        n_valid = min(self._n_held_out(len(rows)), len(rows) - 1)
        if not n_valid:
            return table, None
        return table.take(np.sort(rows[n_valid:])), table.take(rows[:n_valid])
