"""What training does: losses over epochs, and scores over lengthscales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone, is_classifier
from sklearn.metrics import check_scoring
from sklearn.utils._optional_dependencies import check_matplotlib_support

from sklearn_fordes.inspection._display import (
    Array,
    Display,
    Style,
    final_step,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


NATS = "loss per row (nats)"


@dataclass(eq=False, repr=False)
class TrainingHistoryDisplay(Display):
    """Driving loss, validation loss and repulsion over epochs.

    The repulsion has its own axis on the right; it is left out if it is zero throughout. The epoch
    of the lowest validation loss is marked. Make it with `from_estimator` or `from_history`.
    Further keyword arguments go to matplotlib's `plot` for each line.

    Parameters
    ----------
    epoch : ndarray of shape (n_epochs,)
        Number of the epoch, from 1.
    driving_loss : ndarray of shape (n_epochs,)
        Loss per row, mean over members.
    name : str, default=None
        Name of the model, for the title.
    repulsion : ndarray of shape (n_epochs,), default=None
        Repulsion, mean over members.
    valid_loss : ndarray of shape (n_epochs,), default=None
        Loss of the ensemble on validation rows. NaN where an epoch has none.
    ylabel : str, default="loss per row (nats)"
        What the losses are. Those of classifiers and most regressors are negative log likelihoods.

    Attributes
    ----------
    best_epoch : int or None
        The epoch of the lowest validation loss.
    lines_ : dict of str to matplotlib Line2D
        The lines drawn, out of "driving_loss", "valid_loss" and "repulsion".
    repulsion_ax_ : matplotlib Axes or None
        The axes of the repulsion.
    ax_, figure_ : matplotlib Axes and Figure
        The axes of the losses, and their figure.

    See Also
    --------
    DiversityDisplay : What the repulsion has done.

    Examples
    --------
    >>> from sklearn_fordes.inspection import TrainingHistoryDisplay
    >>> history = [
    ...     {"epoch": 1, "driving_loss": 0.7, "repulsion": 0.3, "valid_loss": 0.6},
    ...     {"epoch": 2, "driving_loss": 0.5, "repulsion": 0.2, "valid_loss": 0.4},
    ... ]
    >>> TrainingHistoryDisplay.from_history(history).best_epoch
    2
    """

    epoch: NDArray[np.int64]
    driving_loss: Array
    _: KW_ONLY
    repulsion: Array | None = None
    valid_loss: Array | None = None
    ylabel: str = NATS

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the lowest validation loss."""
        if self.valid_loss is None:
            return None
        return int(self.epoch[np.nanargmin(self.valid_loss)])

    def _draw(self, ax: Axes, name: str | None, style: Style) -> None:
        ax.set(xlabel="epoch", ylabel=self.ylabel)
        ax.locator_params(axis="x", integer=True)
        if name:
            ax.set_title(name)
        # A line through one epoch is invisible.
        style = {"marker": "o", **style} if len(self.epoch) == 1 else style
        defaults: Style = {"label": "driving loss"}
        (line,) = ax.plot(self.epoch, self.driving_loss, **{**defaults, **style})
        self.lines_ = {"driving_loss": line}
        if self.valid_loss is not None:
            best = np.nanargmin(self.valid_loss)
            label = f"validation loss,\nlowest at epoch {self.epoch[best]}"
            defaults = {"label": label, "linestyle": "--", "marker": "o", "markevery": [best]}
            (line,) = ax.plot(self.epoch, self.valid_loss, **{**defaults, **style})
            self.lines_["valid_loss"] = line
        upper, self.repulsion_ax_ = ax, None
        if self.repulsion is not None and self.repulsion.any():
            # On a second axis, because loss and repulsion differ in unit and origin.
            upper = self.repulsion_ax_ = ax.twinx()
            upper.set_ylabel("repulsion")
            # Its grid would lie between the lines of the other one.
            upper.grid(visible=False)
            defaults = {"label": "repulsion", "linestyle": ":", "color": "C2"}
            (line,) = upper.plot(self.epoch, self.repulsion, **{**defaults, **style})
            self.lines_["repulsion"] = line
        # One legend for both axes, on the upper one, where no line crosses it.
        self._draw_legend(upper, "upper right", handles=list(self.lines_.values()))

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, ax: Axes | None = None, name: str | None = None, **kwargs: Any
    ) -> Self:
        """Draw the training of an ensemble.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator with `history_`, or a pipeline that ends in one.
        ax, name, **kwargs : optional
            As in `plot`.

        Returns
        -------
        display : TrainingHistoryDisplay
            The display, drawn.
        """
        cls._check_estimator(estimator)
        model: Any = final_step(estimator)[0]
        of_quantiles = getattr(model, "noise", None) == "quantile"
        ylabel = "twice the pinball loss per row" if of_quantiles else NATS
        return cls.from_history(model.history_, ylabel=ylabel, ax=ax, name=name, **kwargs)

    @classmethod
    def from_history(
        cls,
        history: Sequence[Mapping[str, Any]],
        *,
        ylabel: str = NATS,
        ax: Axes | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw a history.

        Parameters
        ----------
        history : sequence of dict
            An entry per epoch: ``driving_loss`` and, where there are, ``epoch``, ``repulsion`` and
            ``valid_loss``.
        ylabel : str, default="loss per row (nats)"
            What the losses are.
        ax, name, **kwargs : optional
            As in `plot`.

        Returns
        -------
        display : TrainingHistoryDisplay
            The display, drawn.
        """
        columns = {}
        for key in ("driving_loss", "repulsion", "valid_loss"):
            values = np.array([entry.get(key, np.nan) for entry in history], dtype=np.float64)
            if not np.isnan(values).all():
                columns[key] = values
        if "driving_loss" not in columns:
            raise ValueError(
                f"Got a history of {len(history)} epochs without driving_loss, but expected a dict "
                "with driving_loss for each epoch, one at least."
            )
        epochs = [entry.get("epoch", number) for number, entry in enumerate(history, start=1)]
        return cls(np.array(epochs), **columns, ylabel=ylabel, name=name).plot(ax, **kwargs)


@dataclass(eq=False, repr=False)
class LengthscaleTradeoffDisplay(Display):
    """Clean and corrupted score against the lengthscale α.

    A float `lengthscale` α between 0 (the identity) and 1 (PCA) repels members more and more along
    the directions in which the training inputs vary. It tends to trade clean score for robustness;
    the picture shows at what rate. Make it with `from_estimator` or `from_predictions`. Further
    keyword arguments go to matplotlib's `plot` for both lines.

    Parameters
    ----------
    alphas : ndarray of shape (n_alphas,)
        Lengthscales, between 0 and 1.
    clean : ndarray of shape (n_alphas,) or (n_alphas, n_seeds)
        Score on clean rows.
    corrupted : ndarray of shape (n_alphas,) or (n_alphas, n_seeds)
        Score on corrupted rows.
    name : str, default=None
        Name of the model, for the title.
    score_name : str, default=None
        Name of the score, for the label.

    Attributes
    ----------
    lines_ : dict of str to matplotlib Line2D
        The lines "clean" and "corrupted".
    bands_ : dict of str to matplotlib PolyCollection
        One standard deviation over seeds around each; empty with one seed.
    ax_, figure_ : matplotlib Axes and Figure
        Where it is drawn.

    See Also
    --------
    sklearn.model_selection.ValidationCurveDisplay : Scores against any parameter.

    Examples
    --------
    >>> from sklearn_fordes.inspection import LengthscaleTradeoffDisplay
    >>> display = LengthscaleTradeoffDisplay.from_predictions(
    ...     [0, 0.5, 1], clean=[0.82, 0.82, 0.81], corrupted=[0.54, 0.55, 0.56]
    ... )
    >>> sorted(display.lines_)
    ['clean', 'corrupted']
    """

    alphas: Array
    clean: Array
    corrupted: Array
    _: KW_ONLY
    score_name: str | None = None

    def _draw(self, ax: Axes, name: str | None, style: Style) -> None:
        self.lines_, self.bands_ = {}, {}
        for key, linestyle in {"clean": "-", "corrupted": "--"}.items():
            scores = getattr(self, key).reshape(len(self.alphas), -1)
            mean = scores.mean(axis=1)
            defaults: Style = {"label": key, "marker": "o", "linestyle": linestyle}
            (line,) = ax.plot(self.alphas, mean, **{**defaults, **style})
            self.lines_[key] = line
            if scores.shape[1] > 1:
                std = scores.std(axis=1, ddof=1)
                low, high, color = mean - std, mean + std, line.get_color()
                self.bands_[key] = ax.fill_between(self.alphas, low, high, color=color, alpha=0.2)
        ax.set(xlabel="lengthscale α (0: identity, 1: pca)", ylabel=self.score_name or "score")
        self._draw_legend(ax)
        if name:
            ax.set_title(name)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        X_test: Any,
        y_test: ArrayLike,
        X_corrupted: Any,
        *,
        alphas: Sequence[float] = (0, 0.1, 0.2, 0.4, 0.8, 1),
        scoring: Any = None,
        ax: Axes | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Fit a clone for each lengthscale, and draw its scores.

        Parameters
        ----------
        estimator : estimator
            An ensemble with the parameter `lengthscale`, or a pipeline that ends in one. It is left
            as it is.
        X : array-like or data frame of shape (n_samples, n_features)
            Training rows.
        y : array-like of shape (n_samples,)
            Their targets.
        X_test : array-like or data frame of shape (n_test, n_features)
            Clean rows to score on.
        y_test : array-like of shape (n_test,)
            Their targets, and those of the corrupted rows.
        X_corrupted : array or data frame like X_test, or list of them
            The rows of `X_test` corrupted. Of several copies the mean score is taken.
        alphas : sequence of float, default=(0, 0.1, 0.2, 0.4, 0.8, 1)
            Lengthscales between 0 and 1.
        scoring : str or callable, default=None
            As in `sklearn.model_selection.cross_validate`. None is "neg_log_loss" for a
            classifier and "r2" for a regressor.
        ax, name, **kwargs : optional
            As in `plot`.

        Returns
        -------
        display : LengthscaleTradeoffDisplay
            The display, drawn.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        if scoring is None:
            scoring = "neg_log_loss" if is_classifier(estimator) else "r2"
        scorer = check_scoring(estimator, scoring)
        copies = X_corrupted if isinstance(X_corrupted, list | tuple) else [X_corrupted]
        clean, corrupted = [], []
        for alpha in alphas:
            model = clone(estimator)
            final_step(model)[0].set_params(lengthscale=float(alpha))
            model.fit(X, y)
            clean.append(scorer(model, X_test, y_test))
            corrupted.append(np.mean([scorer(model, rows, y_test) for rows in copies]))
        score_name = str(getattr(scoring, "__name__", scoring)).replace("_", " ")
        if scoring == "neg_log_loss":
            score_name = "negative log loss (nats)"
        return cls.from_predictions(
            alphas, clean, corrupted, score_name=score_name, ax=ax, name=name, **kwargs
        )

    @classmethod
    def from_predictions(
        cls,
        alphas: ArrayLike,
        clean: ArrayLike,
        corrupted: ArrayLike,
        *,
        score_name: str | None = None,
        ax: Axes | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw scores known for some lengthscales.

        Parameters
        ----------
        alphas : array-like of shape (n_alphas,)
            Lengthscales between 0 and 1.
        clean : array-like of shape (n_alphas,) or (n_alphas, n_seeds)
            Score on clean rows. Of several seeds, mean and one standard deviation are drawn.
        corrupted : array-like of shape (n_alphas,) or (n_alphas, n_seeds)
            Score on corrupted rows.
        score_name : str, default=None
            Name of the score, for the label.
        ax, name, **kwargs : optional
            As in `plot`.

        Returns
        -------
        display : LengthscaleTradeoffDisplay
            The display, drawn.
        """
        grid = np.asarray(alphas, dtype=np.float64)
        if grid.ndim != 1 or not grid.size or not ((grid >= 0) & (grid <= 1)).all():
            raise ValueError(f"Got alphas={grid.tolist()}, but expected numbers between 0 and 1.")
        scores = {"clean": np.asarray(clean), "corrupted": np.asarray(corrupted)}
        for key, values in scores.items():
            if values.ndim not in (1, 2) or len(values) != len(grid):
                raise ValueError(
                    f"Got {key} of shape {values.shape} for {len(grid)} alphas, but expected "
                    "(n_alphas,) or (n_alphas, n_seeds)."
                )
        return cls(grid, **scores, score_name=score_name, name=name).plot(ax, **kwargs)
