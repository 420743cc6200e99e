"""Accuracy of the rows kept when the uncertain ones are rejected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from sklearn_fordes.inspection._drawing import get_axes, hide_frame, line_style, next_color
from sklearn_fordes.inspection._responses import (
    check_classifier,
    check_measure,
    name_of,
    uncertainty_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D


class AccuracyRejectionDisplay:
    """Accuracy of the rows kept against the share of rows rejected.

    Rows are rejected in order of decreasing uncertainty. If uncertainty finds the wrong
    predictions, the curve rises to 1; if it is blind to them, the curve stays level. Make it with
    `from_estimator` or `from_predictions`; draw several models on the same axes to compare them.

    Parameters
    ----------
    rejected : ndarray of shape (n_samples,)
        Share of rows rejected: 0, 1 / n_samples, ….
    accuracy : ndarray of shape (n_samples,)
        Accuracy on the rows kept.
    name : str, default=None
        Name of the model, for the legend.

    Attributes
    ----------
    area : float
        Area under the curve, between 0 and 1: mean of the accuracy over all numbers of rows kept.
    line_ : matplotlib Line2D
        The curve.
    ax_ : matplotlib Axes
        The axes drawn on.
    figure_ : matplotlib Figure
        Their figure.

    See Also
    --------
    ReliabilityDisplay : Whether probabilities are as high as the accuracy.

    Notes
    -----
    Rows of equal uncertainty are rejected in random order, and the curve is the expectation over
    that order: no order of the rows in the table can flatter it.

    Examples
    --------
    >>> from sklearn_fordes.inspection import AccuracyRejectionDisplay
    >>> display = AccuracyRejectionDisplay.from_predictions(
    ...     [0, 1, 1, 0], [0, 1, 0, 0], uncertainty=[0.1, 0.2, 0.6, 0.3]
    ... )
    >>> display.accuracy
    array([0.75, 1.  , 1.  , 1.  ])
    """

    ax_: Axes
    figure_: Figure | SubFigure
    line_: Line2D

    def __init__(
        self,
        rejected: NDArray[np.float64],
        accuracy: NDArray[np.float64],
        *,
        name: str | None = None,
    ) -> None:
        self.rejected = rejected
        self.accuracy = accuracy
        self.name = name

    @property
    def area(self) -> float:
        """Mean of the accuracy over all numbers of rows kept."""
        return float(self.accuracy.mean())

    def plot(self, ax: Axes | None = None, *, name: str | None = None, **kwargs: Any) -> Self:
        """Draw the curve.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None is a new figure.
        name : str, default=None
            Name of the model, for the legend. None is the one given before.
        **kwargs
            Passed to matplotlib's `plot`.

        Returns
        -------
        self : AccuracyRejectionDisplay
            The display itself.
        """
        ax = get_axes(self, ax)
        name = self.name if name is None else name
        area = f"area = {self.area:.3f}"
        label = f"{name} ({area})" if name else area
        style = line_style(kwargs, color=next_color(ax), linewidth=1.5, label=label)
        (self.line_,) = ax.plot(self.rejected, self.accuracy, **style)
        ax.set(xlim=(0, 1), xlabel="share of rows rejected, most uncertain first")
        ax.set_ylabel("accuracy of the rows kept")
        ax.legend(loc="lower right", frameon=False)
        hide_frame(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        measure: str = "total",
        ax: Axes | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the curve of a classifier.

        Parameters
        ----------
        estimator : estimator
            A fitted classifier with `predict_uncertainty`, or a pipeline that ends in one. Of other
            classifiers the entropy of `predict_proba` is taken as the total.
        X : array-like or data frame of shape (n_samples, n_features)
            Rows that it wasn't trained on.
        y : array-like of shape (n_samples,)
            Their labels.
        measure : {"total", "aleatoric", "epistemic"}, default="total"
            The uncertainty to reject by.
        ax : matplotlib Axes, default=None
            Where to draw. None is a new figure.
        name : str, default=None
            Name of the model, for the legend. None is its class name.
        **kwargs
            Passed to matplotlib's `plot`.

        Returns
        -------
        display : AccuracyRejectionDisplay
            The display, drawn.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        check_measure(measure)
        check_is_fitted(estimator)
        check_classifier(estimator)
        uncertainty = uncertainty_of(estimator, X, measure)
        name = name_of(estimator) if name is None else name
        return cls.from_predictions(
            y, estimator.predict(X), uncertainty, ax=ax, name=name, **kwargs
        )

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_pred: ArrayLike,
        uncertainty: ArrayLike,
        *,
        ax: Axes | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the curve of predicted labels and their uncertainty.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            Labels.
        y_pred : array-like of shape (n_samples,)
            Predicted labels.
        uncertainty : array-like of shape (n_samples,)
            Any number that is larger where a prediction is less certain.
        ax : matplotlib Axes, default=None
            Where to draw. None is a new figure.
        name : str, default=None
            Name of the model, for the legend.
        **kwargs
            Passed to matplotlib's `plot`.

        Returns
        -------
        display : AccuracyRejectionDisplay
            The display, drawn.
        """
        labels, predicted = column_or_1d(y_true), column_or_1d(y_pred)
        values = column_or_1d(uncertainty)
        check_consistent_length(labels, predicted, values)
        if not np.isfinite(values).all():
            raise ValueError("Got uncertainty with NaN or infinity, but expected finite numbers.")
        return cls(*rejection_curve(labels == predicted, values), name=name).plot(ax, **kwargs)


def rejection_curve(
    correct: NDArray[np.bool_], uncertainty: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return share rejected and expected accuracy on the rows kept, from all kept to one kept."""
    # In random order, each row of a tie group is correct with the group's accuracy.
    _, group = np.unique(uncertainty, return_inverse=True)
    group_accuracy = np.bincount(group, correct) / np.bincount(group)
    kept = np.arange(1, len(correct) + 1)
    accuracy = np.cumsum(group_accuracy[np.sort(group)]) / kept
    return 1 - kept[::-1] / len(correct), accuracy[::-1]
