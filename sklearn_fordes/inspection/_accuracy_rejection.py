"""Accuracy of the rows kept when the uncertain ones are rejected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, check_consistent_length, column_or_1d

from sklearn_fordes.inspection._display import (
    Array,
    Display,
    Style,
    check_measure,
    draw_line,
    model_label,
    name_of,
    uncertainty_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(eq=False, repr=False)
class AccuracyRejectionDisplay(Display):
    """Accuracy of the rows kept against the share of rows rejected.

    Rows are rejected in order of decreasing uncertainty. If uncertainty finds the wrong
    predictions, the curve rises to 1; if it is blind to them, the curve stays level. Make it with
    `from_estimator` or `from_predictions`; draw several models on the same axes to compare them.
    Further keyword arguments go to matplotlib's `plot`.

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
    ax_, figure_ : matplotlib Axes and Figure
        Where it is drawn.

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

    rejected: Array
    accuracy: Array

    @property
    def area(self) -> float:
        """Mean of the accuracy over all numbers of rows kept."""
        return float(self.accuracy.mean())

    def _draw(self, ax: Axes, name: str | None, style: Style) -> None:
        label = model_label(name, f"area = {self.area:.3f}")
        self.line_ = draw_line(ax, self.rejected, self.accuracy, style, label=label)
        ax.set(xlabel="share of rows rejected, most uncertain first", xlim=(0, 1))
        ax.set_ylabel("accuracy of the rows kept")
        ax.legend(loc="lower right")

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
            A fitted classifier with `predict_uncertainty`, or a pipeline that ends in one. The
            total of other classifiers is the entropy of `predict_proba`.
        X : array-like or data frame of shape (n_samples, n_features)
            Rows that it wasn't trained on.
        y : array-like of shape (n_samples,)
            Their labels.
        measure : {"total", "aleatoric", "epistemic"}, default="total"
            The uncertainty to reject by.
        ax, name, **kwargs : optional
            As in `plot`. The name of the model is that of its class by default.

        Returns
        -------
        display : AccuracyRejectionDisplay
            The display, drawn.
        """
        cls._check_estimator(estimator)
        check_measure(measure)
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
        ax, name, **kwargs : optional
            As in `plot`.

        Returns
        -------
        display : AccuracyRejectionDisplay
            The display, drawn.
        """
        labels, predicted, values = map(column_or_1d, (y_true, y_pred, uncertainty))
        check_consistent_length(labels, predicted, values)
        check_classification_targets(predicted)
        assert_all_finite(values, input_name="uncertainty")
        return cls(*rejection_curve(labels == predicted, values), name=name).plot(ax, **kwargs)


def rejection_curve(correct: NDArray[np.bool_], uncertainty: Array) -> tuple[Array, Array]:
    """Return share rejected and expected accuracy on the rows kept, from all kept to one kept."""
    # In random order, each row of a tie group is correct with the group's accuracy.
    _, group = np.unique(uncertainty, return_inverse=True)
    group_accuracy = np.bincount(group, correct) / np.bincount(group)
    kept = np.arange(1, len(correct) + 1)
    accuracy = np.cumsum(group_accuracy[np.sort(group)]) / kept
    return 1 - kept[::-1] / len(correct), accuracy[::-1]
