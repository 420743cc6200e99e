"""Accuracy against confidence."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from sklearn_fordes.inspection._drawing import GREY, get_axes, hide_frame, line_style, next_color
from sklearn_fordes.inspection._responses import (
    check_classifier,
    class_indices,
    name_of,
    respond,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D

REFERENCE = "perfectly calibrated"


class ReliabilityDisplay:
    """Accuracy against confidence, the probability of the predicted class.

    Rows are put into bins of equal width by their confidence. Points show accuracy against mean
    confidence of each bin, bars the share of rows in it. Points below the diagonal are
    overconfident. Make it with `from_estimator` or `from_predictions`; draw several models on the
    same axes to compare them.

    Parameters
    ----------
    confidence : ndarray of shape (n_bins,)
        Mean probability of the predicted class. NaN in bins without rows.
    accuracy : ndarray of shape (n_bins,)
        Share of the rows whose predicted class is the true one. NaN in bins without rows.
    share : ndarray of shape (n_bins,)
        Share of all rows that are in the bin.
    name : str, default=None
        Name of the model, for the legend.

    Attributes
    ----------
    ece : float
        Expected calibration error: distance of accuracy and confidence, mean over rows.
    line_ : matplotlib Line2D
        The points.
    bars_ : matplotlib BarContainer
        The histogram of confidence, of the bins with rows.
    ax_ : matplotlib Axes
        The axes drawn on.
    figure_ : matplotlib Figure
        Their figure.

    See Also
    --------
    sklearn.calibration.CalibrationDisplay : The same for the probability of one class.
    AccuracyRejectionDisplay : Whether uncertain rows are the wrong ones.

    Examples
    --------
    >>> from sklearn_fordes.inspection import ReliabilityDisplay
    >>> y_proba = [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]]
    >>> display = ReliabilityDisplay.from_predictions([0, 0, 1, 1], y_proba, n_bins=2)
    >>> display.accuracy, display.confidence
    (array([ nan, 0.75]), array([ nan, 0.75]))
    """

    ax_: Axes
    figure_: Figure | SubFigure
    line_: Line2D
    bars_: BarContainer

    def __init__(
        self,
        confidence: NDArray[np.float64],
        accuracy: NDArray[np.float64],
        share: NDArray[np.float64],
        *,
        name: str | None = None,
    ) -> None:
        self.confidence = confidence
        self.accuracy = accuracy
        self.share = share
        self.name = name

    @property
    def ece(self) -> float:
        """Distance of accuracy and confidence, mean over rows."""
        return float(np.nansum(self.share * np.abs(self.confidence - self.accuracy)))

    def plot(self, ax: Axes | None = None, *, name: str | None = None, **kwargs: Any) -> Self:
        """Draw points and histogram.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None is a new figure.
        name : str, default=None
            Name of the model, for the legend. None is the one given before.
        **kwargs
            Passed to matplotlib's `plot` for the points.

        Returns
        -------
        self : ReliabilityDisplay
            The display itself.
        """
        ax = get_axes(self, ax)
        name = self.name if name is None else name
        ece = f"ECE = {self.ece:.3f}"
        style: dict[str, Any] = {"color": next_color(ax), "marker": "o", "markersize": 4}
        style |= {"linewidth": 1.5, "label": f"{name} ({ece})" if name else ece, "clip_on": False}
        if REFERENCE not in ax.get_legend_handles_labels()[1]:
            ax.axline((0, 0), slope=1, color=GREY, linewidth=1, linestyle=":", label=REFERENCE)
        filled = self.share > 0
        (self.line_,) = ax.plot(
            self.confidence[filled], self.accuracy[filled], **line_style(kwargs, **style)
        )
        self._draw_histogram(ax, filled)
        ax.set(
            xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence (probability of the predicted class)"
        )
        ax.set_ylabel("accuracy (points), share of rows (bars)")
        ax.legend(loc="upper left", frameon=False)
        hide_frame(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw_histogram(self, ax: Axes, filled: NDArray[np.bool_]) -> None:
        """Draw the share of rows on the same scale as the accuracy: both run from 0 to 1."""
        from matplotlib.colors import to_rgba

        n_bins, color = len(self.share), self.line_.get_color()
        left = np.arange(n_bins)[filled] / n_bins
        # Faint within, so that the outlines of several models are seen one behind the other.
        style: dict[str, Any] = {"facecolor": to_rgba(color, 0.12), "edgecolor": color}
        self.bars_ = ax.bar(
            left, self.share[filled], 1 / n_bins, align="edge", linewidth=0.8, zorder=0, **style
        )

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        n_bins: int = 15,
        ax: Axes | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the reliability of a classifier.

        Parameters
        ----------
        estimator : estimator
            A fitted classifier with `predict_proba`, or a pipeline that ends in one.
        X : array-like or data frame of shape (n_samples, n_features)
            Rows that it wasn't trained on.
        y : array-like of shape (n_samples,)
            Their labels.
        n_bins : int, default=15
            Number of bins of equal width between 0 and 1.
        ax : matplotlib Axes, default=None
            Where to draw. None is a new figure.
        name : str, default=None
            Name of the model, for the legend. None is its class name.
        **kwargs
            Passed to matplotlib's `plot` for the points.

        Returns
        -------
        display : ReliabilityDisplay
            The display, drawn.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        check_is_fitted(estimator)
        check_classifier(estimator)
        return cls.from_predictions(
            y,
            respond(estimator, "predict_proba", X),
            classes=estimator.classes_,
            n_bins=n_bins,
            ax=ax,
            name=name_of(estimator) if name is None else name,
            **kwargs,
        )

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_proba: ArrayLike,
        *,
        classes: ArrayLike | None = None,
        n_bins: int = 15,
        ax: Axes | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the reliability of predicted probabilities.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            Labels.
        y_proba : array-like of shape (n_samples, n_classes)
            Predicted probabilities.
        classes : array-like of shape (n_classes,), default=None
            The label of each column. None is the sorted labels in `y_true`.
        n_bins : int, default=15
            Number of bins of equal width between 0 and 1.
        ax : matplotlib Axes, default=None
            Where to draw. None is a new figure.
        name : str, default=None
            Name of the model, for the legend.
        **kwargs
            Passed to matplotlib's `plot` for the points.

        Returns
        -------
        display : ReliabilityDisplay
            The display, drawn.
        """
        labels, probabilities = column_or_1d(y_true), np.asarray(y_proba, dtype=np.float64)
        known = np.unique(labels) if classes is None else np.asarray(classes)
        check_probabilities(labels, probabilities, known)
        if not (isinstance(n_bins, Integral) and n_bins >= 1):
            raise ValueError(f"Got n_bins={n_bins!r}, but expected an integer >= 1.")
        correct = probabilities.argmax(axis=1) == class_indices(labels, known)
        bins = reliability_bins(probabilities.max(axis=1), correct, n_bins)
        return cls(*bins, name=name).plot(ax, **kwargs)


def check_probabilities(
    labels: NDArray[Any], y_proba: NDArray[np.float64], classes: NDArray[Any]
) -> None:
    """Raise an error unless there is a distribution over the classes for each label."""
    if y_proba.ndim != 2:
        raise ValueError(
            f"Got y_proba of shape {y_proba.shape}, but expected (n_samples, n_classes)."
        )
    check_consistent_length(labels, y_proba)
    if y_proba.shape[1] != len(classes):
        raise ValueError(
            f"Got y_proba with {y_proba.shape[1]} columns for the classes {classes.tolist()}, but "
            "expected a column for each; name them with classes=…."
        )
    # Single precision and rounded tables are welcome.
    if not ((y_proba >= 0).all() and np.allclose(y_proba.sum(axis=1), 1, atol=1e-2)):
        raise ValueError(
            "Got y_proba whose rows don't, but expected rows of probabilities that sum to 1."
        )


def reliability_bins(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], n_bins: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return mean confidence, accuracy and share of rows of bins [b / n_bins, (b+1) / n_bins)."""
    # A confidence of 1 belongs to the last bin.
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    count = np.bincount(bins, minlength=n_bins)
    sums = np.stack([np.bincount(bins, values, n_bins) for values in (confidence, correct)])
    means = np.divide(sums, count, out=np.full(sums.shape, np.nan), where=count > 0)
    return means[0], means[1], count / len(confidence)
