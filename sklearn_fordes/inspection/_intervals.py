"""How a prediction and its interval change as one column leaves its training range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from sklearn_fordes.inspection._display import Array, Display, Style, final_step
from sklearn_fordes.inspection._uncertainty import as_frame, find_feature, grid_axis, typical_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RANGE = "training range"
# Where the missing cell is drawn, right of the curve, in widths of the axis: border, bar and end.
BORDER, PLACE, END = 0.02, 0.1, 0.18


@dataclass(eq=False, repr=False)
class IntervalDisplay(Display):
    """Prediction and central intervals of a regressor as one column leaves its training range.

    A line shows the prediction, a band each interval. A strip at the right edge shows what they are
    where the cell of the column is missing. Make it with `from_estimator` or `from_predictions`.
    Further keyword arguments go to matplotlib's `plot` for the prediction.

    Parameters
    ----------
    x : ndarray of shape (n_points,)
        Values of the column, in increasing order; last NaN if the cell is missing there.
    prediction : ndarray of shape (n_points,)
        The prediction there.
    intervals : ndarray of shape (n_points, 2, n_confidences)
        Lower and upper ends of the intervals there.
    confidence : ndarray of shape (n_confidences,)
        Probabilities of the intervals.
    name : str, default=None
        Name of the model, for the title.
    training_range : tuple of two float, default=None
        Smallest and largest value of the column in the training rows.
    xlabel : str, default=None
        Name of the column.

    Attributes
    ----------
    line_ : matplotlib Line2D
        The prediction.
    bands_ : list of matplotlib PolyCollection
        The intervals.
    missing_ : list of matplotlib Line2D
        What is drawn for the missing cell: the prediction, and a line for each interval. Empty if
        there is none.
    range_ : matplotlib Patch or None
        The training range.
    ax_, figure_ : matplotlib Axes and Figure
        Where it is drawn.

    See Also
    --------
    SupportDisplay : Which columns of new rows hold such cells.
    UncertaintyDisplay : Uncertainty over two columns.

    Examples
    --------
    >>> from sklearn_fordes.inspection import IntervalDisplay
    >>> ends = [[1.0, 3.0], [2.0, 4.0], [0.0, 6.0]]
    >>> display = IntervalDisplay.from_predictions(
    ...     [10, 20, float("nan")], [2.0, 3.0, 3.5], ends, feature_name="age (days)"
    ... )
    >>> display.ax_.get_xlabel(), len(display.missing_)
    ('age (days)', 2)
    """

    x: Array
    prediction: Array
    intervals: Array
    confidence: Array
    _: KW_ONLY
    training_range: tuple[float, float] | None = None
    xlabel: str | None = None

    def _draw(self, ax: Axes, name: str | None, style: Style) -> None:
        is_known = ~np.isnan(self.x)
        x = self.x[is_known]
        label = {"label": "prediction"}
        (self.line_,) = ax.plot(x, self.prediction[is_known], **{**label, **style})
        self.bands_: list[Any] = []
        for position, share in enumerate(self.confidence):
            # Darker from one to the next, so that the legend tells them apart.
            band: Style = {"alpha": 1 - 0.8 * 0.75**position, "linewidth": 0}
            band |= {"label": f"{100 * share:.4g} % interval", "color": self.line_.get_color()}
            ends = self.intervals[is_known, :, position].T
            self.bands_.append(ax.fill_between(x, *ends, **band))
        self.range_: Any = None
        ends_of_range = [] if self.training_range is None else [*self.training_range]
        if ends_of_range:
            grey: Style = {"color": "grey", "alpha": 0.15, "linewidth": 0, "zorder": 0}
            self.range_ = ax.axvspan(*ends_of_range, label=RANGE, **grey)
        self.missing_: list[Any] = []
        # The axis reaches as far as the curve and the range, and as those of shared axes.
        ax.margins(x=0)
        if not is_known.all():
            self._draw_missing(ax, min([x[0], *ends_of_range]), max([x[-1], *ends_of_range]))
        ax.set(xlabel=self.xlabel, ylabel="prediction (units of the target)")
        if name:
            ax.set_title(name)
        self._draw_legend(ax)
        if self.missing_ and self._legend is True and (legend := ax.get_legend()):
            # It must not cover the missing cell, and so has the best place left of it.
            legend.set_bbox_to_anchor((0, 0, (1 + BORDER) / (1 + END), 1), ax.transAxes)

    def _draw_missing(self, ax: Axes, low: float, high: float) -> None:
        """Draw the prediction and intervals of the missing cell, right of the others."""
        # Numbers along the axis don't reach below it.
        ax.set_xticks([tick for tick in ax.get_xticks() if low <= tick <= high])
        border, place, end = high + np.array([BORDER, PLACE, END]) * (high - low)
        ax.axvline(border, color="black", linewidth=0.8)
        color = self.line_.get_color()
        self.missing_ = ax.plot(place, self.prediction[-1], "o", color=color)
        for position, ends in enumerate(self.intervals[-1].T):
            # Wide intervals have thin lines, on which those of narrower ones are seen.
            bar: Style = {"linewidth": 1.5 + 2 * position, "marker": "_", "markersize": 9}
            self.missing_ += ax.plot([place, place], ends, color=color, **bar)
        # The word is wider than the strip in a narrow panel, and so outside, along the edge.
        beyond: Style = {"xytext": (4, 0), "textcoords": "offset points", "rotation": 90}
        beyond |= {"xycoords": "axes fraction", "ha": "left", "va": "center"}
        ax.annotate("missing cell", (1, 0.5), **beyond)
        ax.update_datalim([(end, self.prediction[-1])])
        ax.autoscale_view()

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        feature: Any = 0,
        confidence: float | Sequence[float] = 0.9,
        grid_resolution: int = 200,
        eps: float = 5.0,
        missing: bool = True,
        ax: Axes | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw what a regressor predicts as one column moves and the others stay.

        The other columns are held at their median, or at their most frequent value if they are not
        numeric.

        Parameters
        ----------
        estimator : estimator
            A fitted regressor with `predict_interval`, or a pipeline that ends in one.
        X : array-like or data frame of shape (n_samples, n_features)
            The training rows, which set how far the column moves and the values held. The range
            shown is that of its values in X. If the estimator's own `TabularEncoder` reads the
            column as a number, it is the range that this encoder knows: rows that `fit` held out
            for validation are then left out.
        feature : int or str, default=0
            The numeric column that moves, by index or column name.
        confidence : float or sequence of float, default=0.9
            Probability of the interval, or of each of several.
        grid_resolution : int, default=200
            Number of values of the column.
        eps : float, default=5.0
            How far these values reach beyond the rows, in standard deviations of the column.
        missing : bool, default=True
            Whether to predict for a missing cell too, which not every regressor can.
        ax, name, **kwargs : optional
            As in `plot`.

        Returns
        -------
        display : IntervalDisplay
            The display, drawn.
        """
        cls._check_estimator(estimator)
        frame = as_frame(X)
        key = find_feature(frame, feature)
        x = grid_axis(frame[key], grid_resolution, eps)
        if missing:
            x = np.append(x, np.nan)
        typical = typical_rows(X, {key: x})
        model, rows = final_step(estimator, typical)
        # Steps of a pipeline before the model may change what its columns are.
        known = _known_range(model, list(frame.columns).index(key)) if rows is typical else None
        values = np.asarray(frame[key], dtype=np.float64)
        shares = np.atleast_1d(confidence)
        return cls.from_predictions(
            x,
            model.predict(rows),
            np.stack([model.predict_interval(rows, float(share)) for share in shares], axis=-1),
            confidence=shares,
            training_range=known or (float(np.nanmin(values)), float(np.nanmax(values))),
            feature_name=key if isinstance(key, str) else f"feature {key}",
            ax=ax,
            name=name,
            **kwargs,
        )

    @classmethod
    def from_predictions(
        cls,
        x: ArrayLike,
        y_pred: ArrayLike,
        y_interval: ArrayLike,
        *,
        confidence: ArrayLike = 0.9,
        training_range: tuple[float, float] | None = None,
        feature_name: str = "feature",
        ax: Axes | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw predictions and intervals that are known.

        Parameters
        ----------
        x : array-like of shape (n_points,)
            Values of the column, in any order. One may be NaN, where the cell is missing.
        y_pred : array-like of shape (n_points,)
            The prediction there.
        y_interval : array-like of shape (n_points, 2) or (n_points, 2, n_confidences)
            Lower and upper ends of the interval there, or of several, as `predict_interval` returns
            them.
        confidence : float or array-like of shape (n_confidences,), default=0.9
            Probability of each interval.
        training_range : tuple of two float, default=None
            Smallest and largest value of the column in the training rows. None draws no range.
        feature_name : str, default="feature"
            Name of the column, for the label.
        ax, name, **kwargs : optional
            As in `plot`.

        Returns
        -------
        display : IntervalDisplay
            The display, drawn.
        """
        values, prediction, ends, shares = (
            np.asarray(array, dtype=np.float64) for array in (x, y_pred, y_interval, confidence)
        )
        shares, ends = np.atleast_1d(shares), ends[:, :, None] if ends.ndim == 2 else ends
        n_known, n_missing = np.isfinite(values).sum(), np.isnan(values).sum()
        is_right = n_known > 1 and n_missing < 2 and n_known + n_missing == values.size
        if values.ndim != 1 or not is_right:
            raise ValueError(
                f"Got x of shape {values.shape} with {n_known} numbers, but expected at least two "
                "finite numbers, and NaN at most once."
            )
        if shares.ndim != 1 or not (shares.size and ((shares > 0) & (shares < 1)).all()):
            raise ValueError(f"Got confidence={confidence!r}, but expected numbers in (0, 1).")
        n_points = len(values)
        if prediction.shape != (n_points,) or ends.shape != (n_points, 2, len(shares)):
            raise ValueError(
                f"Got y_pred of shape {prediction.shape} and intervals of shape {ends.shape}, but "
                f"expected {(n_points,)} and {(n_points, 2, len(shares))}: {len(shares)} "
                f"intervals at {n_points} values."
            )
        known = training_range
        if known is not None and not (np.shape(known) == (2,) and _are_finite(known)):
            raise ValueError(f"Got training_range={known!r}, but expected two finite numbers.")
        # NaN comes last. Narrow intervals are drawn on wide ones.
        points, widest_first = np.argsort(values), np.argsort(-shares)
        return cls(
            values[points],
            prediction[points],
            ends[points][..., widest_first],
            shares[widest_first],
            training_range=training_range,
            xlabel=feature_name,
            name=name,
        ).plot(ax, **kwargs)


def _are_finite(values: Any) -> bool:
    try:
        return bool(np.isfinite(np.asarray(values, dtype=np.float64)).all())
    except (TypeError, ValueError):
        return False


def _known_range(model: Any, position: int) -> tuple[float, float] | None:
    """Return the training range that the encoder of a model knows of a column of numbers."""
    encoder: Any = getattr(model, "encoder_", None)
    if not all(hasattr(encoder, name) for name in ("column_map_", "low_", "high_")):
        return None
    of_column = np.flatnonzero(encoder.column_map_[: len(encoder.low_)] == position)
    ends = [(float(encoder.low_[i]), float(encoder.high_[i])) for i in of_column]
    return ends[0] if ends else None
