"""How many targets lie in a regressor's central intervals, against how many should."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import column_or_1d

from sklearn_fordes.inspection._display import (
    Array,
    Display,
    Style,
    final_step,
    model_label,
    name_of,
)
from sklearn_fordes.inspection._predictions import compare_shares
from sklearn_fordes.inspection._scores import share_of_trials

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CONFIDENCES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@dataclass(eq=False, repr=False)
class CoverageDisplay(Display):
    """Coverage of a regressor's central intervals against their confidence.

    Below the diagonal intervals are too narrow, above it too wide. Bars show the 95 % interval
    (Wilson) of each coverage, which is wide where rows are few. Make it with `from_estimator` or
    `from_predictions`; draw several models on the same axes to compare them. Further keyword
    arguments go to matplotlib's `errorbar`.

    Parameters
    ----------
    confidence : ndarray of shape (n_levels,)
        Share of targets that should lie in the interval.
    coverage : ndarray of shape (n_levels,)
        Share of targets that do.
    n_rows : int
        Number of rows.
    name : str, default=None
        Name of the model, for the legend.

    Attributes
    ----------
    gap : float
        Distance of coverage and confidence, mean over levels.
    points_ : matplotlib ErrorbarContainer
        The coverages.
    ax_, figure_ : matplotlib Axes and Figure
        Where it is drawn.

    See Also
    --------
    IntervalDisplay : How intervals change as one column leaves its training range.
    ReliabilityDisplay : The same for the probabilities of a classifier.

    Examples
    --------
    >>> from sklearn_fordes.inspection import CoverageDisplay
    >>> intervals = [[[0], [2]], [[1], [3]], [[0], [1]], [[4], [6]]]
    >>> display = CoverageDisplay.from_predictions([1, 2, 3, 5], intervals, [0.9])
    >>> display.coverage
    array([0.75])
    """

    confidence: Array
    coverage: Array
    n_rows: int

    @property
    def gap(self) -> float:
        """Distance of coverage and confidence, mean over levels."""
        return float(np.abs(self.coverage - self.confidence).mean())

    def _draw(self, ax: Axes, name: str | None, style: Style) -> None:
        low, high = share_of_trials(self.coverage, np.full(len(self.coverage), self.n_rows))
        label = model_label(name, f"mean gap = {self.gap:.3f}")
        self.points_ = ax.errorbar(
            self.confidence,
            self.coverage,
            [self.coverage - low, high - self.coverage],
            **{"label": label, "marker": "o", "capsize": 3, **style},
        )
        compare_shares(
            ax, "confidence of the central interval", "coverage (share of targets inside)"
        )
        self._draw_legend(ax, "upper left")

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        confidence: ArrayLike = CONFIDENCES,
        ax: Axes | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the coverage of a regressor's intervals.

        Parameters
        ----------
        estimator : estimator
            A fitted regressor with `predict_interval`, as `FoRDERegressor`, or a pipeline that ends
            in one. It predicts the rows once for each level.
        X : array-like or data frame of shape (n_samples, n_features)
            Rows that it wasn't trained on.
        y : array-like of shape (n_samples,)
            Their targets.
        confidence : array-like of shape (n_levels,), default=0.1 to 0.9 and 0.95
            Share of targets that should lie in the interval, in (0, 1).
        ax, name, **kwargs : optional
            As in `plot`. The name of the model is that of its class by default.

        Returns
        -------
        display : CoverageDisplay
            The display, drawn.
        """
        cls._check_estimator(estimator)
        levels = _checked_confidence(confidence)
        model, rows = final_step(estimator, X)
        intervals = [model.predict_interval(rows, confidence=level) for level in levels]
        return cls.from_predictions(
            y,
            np.stack(intervals, axis=-1),
            levels,
            ax=ax,
            name=name_of(estimator) if name is None else name,
            **kwargs,
        )

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        intervals: ArrayLike,
        confidence: ArrayLike,
        *,
        ax: Axes | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the coverage of predicted intervals.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            Targets.
        intervals : array-like of shape (n_samples, 2, n_levels) or (n_samples, 2)
            Lower and upper ends for each level, as MAPIE returns them, or those of one level, as
            `predict_interval` returns them.
        confidence : array-like of shape (n_levels,)
            Share of targets that should lie in the interval, in (0, 1).
        ax, name, **kwargs : optional
            As in `plot`.

        Returns
        -------
        display : CoverageDisplay
            The display, drawn.
        """
        targets, levels = column_or_1d(y_true), _checked_confidence(confidence)
        ends = np.asarray(intervals, dtype=np.float64)
        if ends.ndim == 2 and len(levels) == 1:
            ends = ends[:, :, None]
        if ends.shape != (len(targets), 2, len(levels)):
            raise ValueError(
                f"Got intervals of shape {ends.shape} for {len(targets)} targets and {len(levels)} "
                f"levels, but expected shape {(len(targets), 2, len(levels))}."
            )
        low, high = ends[:, 0], ends[:, 1]
        inside = (low <= targets[:, None]) & (targets[:, None] <= high)
        return cls(levels, inside.mean(axis=0), len(targets), name=name).plot(ax, **kwargs)


def _checked_confidence(confidence: ArrayLike) -> Array:
    levels: Array = column_or_1d(np.atleast_1d(np.asarray(confidence, dtype=np.float64)))
    if not ((levels > 0) & (levels < 1)).all() or not len(levels):
        raise ValueError(f"Got confidence={confidence!r}, but expected numbers in (0, 1).")
    return levels
