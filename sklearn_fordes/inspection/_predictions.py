"""What predictions are worth: accuracy against confidence, and against the share rejected."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_scalar
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, check_consistent_length, column_or_1d

from sklearn_fordes.inspection._display import (
    Array,
    Display,
    Style,
    check_measure,
    model_label,
    name_of,
    uncertainty_of,
)
from sklearn_fordes.inspection._scores import (
    N_BINS,
    mean_distance,
    reliability_bins,
    share_of_trials,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REFERENCE = "perfectly calibrated"


def compare_shares(ax: Axes, expected: str, found: str) -> None:
    """Draw the diagonal, once, and give axes of shares their labels and limits."""
    if REFERENCE not in ax.get_legend_handles_labels()[1]:
        ax.axline((0, 0), slope=1, color="grey", linestyle=":", label=REFERENCE)
    # The margin shows whole markers at 0 and 1.
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=expected, ylabel=found)


@dataclass(eq=False, repr=False)
class ReliabilityDisplay(Display):
    """Accuracy against confidence, the probability of the predicted class.

    Rows are put into bins of equal width by their confidence. Points show accuracy against mean
    confidence of each bin, with its 95 % interval (Wilson) if the number of rows is known, and bars
    the share of rows in it. Points below the diagonal are overconfident. Make it with
    `from_estimator` or `from_predictions`; draw several models on the same axes to compare them.
    Further keyword arguments go to matplotlib's `plot` for the points.

    Parameters
    ----------
    confidence : ndarray of shape (n_bins,)
        Mean probability of the predicted class. NaN in bins without rows.
    accuracy : ndarray of shape (n_bins,)
        Share of the rows whose predicted class is the true one. NaN in bins without rows.
    share : ndarray of shape (n_bins,)
        Share of all rows that are in the bin.
    n_rows : int, default=None
        Number of all rows. Without it there are no intervals.
    name : str, default=None
        Name of the model, for the legend.

    Attributes
    ----------
    ece : float
        Expected calibration error: distance of accuracy and confidence, mean over rows.
    line_ : matplotlib Line2D
        The points.
    intervals_ : matplotlib LineCollection or None
        The intervals of the accuracy.
    bars_ : matplotlib BarContainer
        The histogram of confidence, of the bins with rows.
    ax_, figure_ : matplotlib Axes and Figure
        Where it is drawn.

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

    confidence: Array
    accuracy: Array
    share: Array
    n_rows: int | None = None

    @property
    def ece(self) -> float:
        """Distance of accuracy and confidence, mean over rows."""
        return mean_distance(self.confidence, self.accuracy, self.share)

    def _draw(self, ax: Axes, name: str | None, style: Style) -> None:
        filled = self.share > 0
        x, y = self.confidence[filled], self.accuracy[filled]
        label = model_label(name, f"ECE = {self.ece:.3f}")
        (self.line_,) = ax.plot(x, y, **{"label": label, "marker": "o", **style})
        n_bins, color = len(filled), self.line_.get_color()
        self.intervals_ = None
        if self.n_rows is not None:
            ends = share_of_trials(y, self.share[filled] * self.n_rows)
            self.intervals_ = ax.vlines(x, *ends, color=color, linewidth=1.2)
        # The share of rows, on the same scale as the accuracy: both run from 0 to 1.
        self.bars_ = ax.bar(
            np.flatnonzero(filled) / n_bins,
            self.share[filled],
            1 / n_bins,
            align="edge",
            color=color,
            # Faint, so that several models are seen one behind the other.
            alpha=0.2,
        )
        compare_shares(
            ax,
            "confidence (probability of the predicted class)",
            "accuracy (points), share of rows (bars)",
        )
        self._draw_legend(ax, "upper left")

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        n_bins: int = N_BINS,
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
        ax, name, **kwargs : optional
            As in `plot`. The name of the model is that of its class by default.

        Returns
        -------
        display : ReliabilityDisplay
            The display, drawn.
        """
        cls._check_estimator(estimator)
        return cls.from_predictions(
            y,
            estimator.predict_proba(X),
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
        n_bins: int = N_BINS,
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
        ax, name, **kwargs : optional
            As in `plot`.

        Returns
        -------
        display : ReliabilityDisplay
            The display, drawn.
        """
        labels, probabilities = column_or_1d(y_true), np.asarray(y_proba, dtype=np.float64)
        known = np.unique(labels) if classes is None else np.asarray(classes)
        if probabilities.shape != (len(labels), len(known)):
            raise ValueError(
                f"Got y_proba of shape {probabilities.shape} for {len(labels)} labels and the "
                f"classes {known.tolist()}, but expected a row for each label and a column for "
                "each class; name the classes with classes=…."
            )
        # The tolerance admits single precision and rounded tables.
        if not (
            (probabilities >= 0).all() and np.allclose(probabilities.sum(axis=1), 1, atol=1e-2)
        ):
            raise ValueError(
                "Got y_proba whose rows don't, but expected rows of probabilities that sum to 1."
            )
        unseen = np.setdiff1d(labels, known)
        if unseen.size:
            raise ValueError(
                f"Got labels {unseen.tolist()}, but expected some of the classes {known.tolist()}."
            )
        check_scalar(n_bins, "n_bins", Integral, min_val=1)
        correct = known[probabilities.argmax(axis=1)] == labels
        bins = reliability_bins(probabilities.max(axis=1), correct, n_bins)
        return cls(*bins, n_rows=len(labels), name=name).plot(ax, **kwargs)


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
        (self.line_,) = ax.plot(self.rejected, self.accuracy, **{"label": label, **style})
        ax.set(
            xlim=(0, 1),
            xlabel="share of rows rejected, most uncertain first",
            ylabel="accuracy of the rows kept",
        )
        self._draw_legend(ax, "lower right")

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
        measure : {"total", "aleatoric", "epistemic", "support"}, default="total"
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
        # In random order, each row of a tie group is correct with the group's accuracy.
        _, group = np.unique(values, return_inverse=True)
        group_accuracy = np.bincount(group, labels == predicted) / np.bincount(group)
        kept = np.arange(1, len(labels) + 1)
        accuracy = np.cumsum(group_accuracy[np.sort(group)]) / kept
        display = cls(1 - kept[::-1] / len(labels), accuracy[::-1], name=name)
        return display.plot(ax, **kwargs)
