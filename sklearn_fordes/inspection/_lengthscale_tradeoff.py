"""Clean against corrupted score as the lengthscale moves from the identity to PCA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone, is_classifier
from sklearn.metrics import check_scoring
from sklearn.pipeline import Pipeline
from sklearn.utils._optional_dependencies import check_matplotlib_support

from sklearn_fordes.inspection._drawing import BLUE, VERMILLION, get_axes, hide_frame, line_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D

SCORE_NAMES = {"neg_log_loss": "negative log loss (nats)"}


class LengthscaleTradeoffDisplay:
    """Clean and corrupted score against the lengthscale α.

    A float `lengthscale` α between 0 (the identity) and 1 (PCA) repels members more and more along
    the directions in which the training inputs vary. It tends to trade clean score for robustness;
    the picture shows at what rate. Make it with `from_estimator` or `from_predictions`.

    Parameters
    ----------
    alphas : ndarray of shape (n_alphas,)
        Lengthscales, between 0 and 1.
    clean : ndarray of shape (n_alphas,) or (n_alphas, n_seeds)
        Score on clean rows.
    corrupted : ndarray of shape (n_alphas,) or (n_alphas, n_seeds)
        Score on corrupted rows.
    score_name : str, default=None
        Name of the score, for the label.
    name : str, default=None
        Name of the model, for the title.

    Attributes
    ----------
    lines_ : dict of str to matplotlib Line2D
        The lines "clean" and "corrupted".
    bands_ : dict of str to matplotlib PolyCollection
        One standard deviation over seeds around each; empty with one seed.
    ax_ : matplotlib Axes
        The axes drawn on.
    figure_ : matplotlib Figure
        Their figure.

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

    ax_: Axes
    figure_: Figure | SubFigure
    lines_: dict[str, Line2D]
    bands_: dict[str, PolyCollection]

    def __init__(
        self,
        alphas: NDArray[np.float64],
        clean: NDArray[np.float64],
        corrupted: NDArray[np.float64],
        *,
        score_name: str | None = None,
        name: str | None = None,
    ) -> None:
        self.alphas = alphas
        self.clean = clean
        self.corrupted = corrupted
        self.score_name = score_name
        self.name = name

    def plot(self, ax: Axes | None = None, *, name: str | None = None, **kwargs: Any) -> Self:
        """Draw the two lines.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None is a new figure.
        name : str, default=None
            Name of the model, for the title. None is the one given before.
        **kwargs
            Passed to matplotlib's `plot` for both lines.

        Returns
        -------
        self : LengthscaleTradeoffDisplay
            The display itself.
        """
        ax = get_axes(self, ax)
        self.ax_, self.figure_, self.lines_, self.bands_ = ax, ax.figure, {}, {}
        self._draw(ax, "clean", {"color": BLUE, "linestyle": "-", "marker": "o"}, kwargs)
        self._draw(ax, "corrupted", {"color": VERMILLION, "linestyle": "--", "marker": "s"}, kwargs)
        ax.set(xlabel="lengthscale α (0: identity, 1: pca)", ylabel=self.score_name or "score")
        ax.legend(frameon=False)
        hide_frame(ax)
        name = self.name if name is None else name
        if name:
            ax.set_title(name)
        return self

    def _draw(self, ax: Axes, key: str, style: dict[str, Any], given: dict[str, Any]) -> None:
        scores = getattr(self, key).reshape(len(self.alphas), -1)
        mean = scores.mean(axis=1)
        style = line_style(given, label=key, markersize=5, linewidth=1.5, **style)
        (line,) = ax.plot(self.alphas, mean, **style)
        self.lines_[key] = line
        if scores.shape[1] > 1:
            std = scores.std(axis=1, ddof=1)
            self.bands_[key] = ax.fill_between(
                self.alphas, mean - std, mean + std, color=line.get_color(), alpha=0.2, linewidth=0
            )

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
        ax : matplotlib Axes, default=None
            Where to draw. None is a new figure.
        name : str, default=None
            Name of the model, for the title.
        **kwargs
            Passed to matplotlib's `plot` for both lines.

        Returns
        -------
        display : LengthscaleTradeoffDisplay
            The display, drawn.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        check_alphas(np.asarray(alphas))
        parameter = parameter_name(estimator, "lengthscale")
        if scoring is None:
            scoring = "neg_log_loss" if is_classifier(estimator) else "r2"
        scorer = check_scoring(estimator, scoring)
        copies = X_corrupted if isinstance(X_corrupted, list | tuple) else [X_corrupted]
        scores = []
        for alpha in alphas:
            model = clone(estimator).set_params(**{parameter: float(alpha)}).fit(X, y)
            corrupted = np.mean([scorer(model, copy, y_test) for copy in copies])
            scores.append((scorer(model, X_test, y_test), corrupted))
        clean, corrupted = np.array(scores).T
        return cls.from_predictions(
            alphas, clean, corrupted, score_name=score_name_of(scoring), ax=ax, name=name, **kwargs
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
        ax : matplotlib Axes, default=None
            Where to draw. None is a new figure.
        name : str, default=None
            Name of the model, for the title.
        **kwargs
            Passed to matplotlib's `plot` for both lines.

        Returns
        -------
        display : LengthscaleTradeoffDisplay
            The display, drawn.
        """
        grid = np.asarray(alphas, dtype=np.float64)
        check_alphas(grid)
        scores = {"clean": np.asarray(clean), "corrupted": np.asarray(corrupted)}
        for key, values in scores.items():
            if values.ndim not in (1, 2) or len(values) != len(grid):
                raise ValueError(
                    f"Got {key} of shape {values.shape} for {len(grid)} alphas, but expected "
                    "(n_alphas,) or (n_alphas, n_seeds)."
                )
        return cls(grid, **scores, score_name=score_name, name=name).plot(ax, **kwargs)


def check_alphas(alphas: NDArray[Any]) -> None:
    """Raise an error unless there are lengthscales between 0 and 1."""
    if alphas.ndim != 1 or not alphas.size or not ((alphas >= 0) & (alphas <= 1)).all():
        raise ValueError(f"Got alphas={alphas.tolist()}, but expected numbers between 0 and 1.")


def parameter_name(estimator: Any, name: str) -> str:
    """Return how a parameter of the last step is named from outside the pipeline."""
    if isinstance(estimator, Pipeline):
        step, last = estimator.steps[-1]
        return f"{step}__{parameter_name(last, name)}"
    if not hasattr(estimator, "get_params") or name not in estimator.get_params():
        raise TypeError(
            f"Got {type(estimator).__name__}, but expected an estimator with the parameter "
            f"{name}, or a pipeline that ends in one."
        )
    return name


def score_name_of(scoring: Any) -> str:
    """Return a readable name of a score."""
    name = scoring if isinstance(scoring, str) else getattr(scoring, "__name__", "score")
    return SCORE_NAMES.get(name, name.replace("_", " "))
