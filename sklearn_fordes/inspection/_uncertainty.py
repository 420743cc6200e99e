"""Uncertainty, or the decision, over two features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from numbers import Integral, Real
from statistics import mode
from typing import TYPE_CHECKING, Any, Self

import narwhals as nw
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_scalar
from sklearn.utils.validation import check_consistent_length, column_or_1d

from sklearn_fordes.inspection._display import (
    MEASURES,
    Array,
    Display,
    Style,
    check_measure,
    expect_table,
    extension,
    find_position,
    uncertainty_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SURFACES = (*MEASURES, "decision")
POINTS: Style = {"s": 18, "edgecolors": "black", "linewidths": 0.6}


@dataclass(eq=False, repr=False)
class UncertaintyDisplay(Display):
    """Uncertainty of an ensemble, or its decision, over two features.

    Make it with `from_estimator` or `from_predictions`. Further keyword arguments go to
    matplotlib's `contourf`, or to `pcolormesh` for a classifier's decision. The same `levels` give
    two displays the same scale; the colour bar ends in a triangle where values lie beyond it.

    Parameters
    ----------
    xx0, xx1 : ndarray of shape (n_rows, n_columns)
        The two features on a grid, as of `numpy.meshgrid`.
    response : ndarray of shape (n_rows, n_columns)
        The uncertainty there; for ``measure="decision"`` the index of the predicted class, or the
        mean a regressor predicts.
    name : str, default=None
        Name of the model, for the title.
    measure : {"total", "aleatoric", "epistemic", "support", "decision"}, default="epistemic"
        What the response is.
    classes : ndarray of shape (n_classes,), default=None
        Class labels. None is a regressor: uncertainties are variances, and targets are continuous.
    points : ndarray of shape (n_samples, 2), default=None
        Rows to draw, by their two features.
    y : ndarray of shape (n_samples,), default=None
        Labels or targets to colour them by.
    xlabel, ylabel : str, default=None
        Names of the features.

    Attributes
    ----------
    surface_ : matplotlib QuadContourSet or QuadMesh
        The filled contours, or the areas of a classifier's decision.
    scatter_ : list of matplotlib PathCollection
        The rows drawn, one entry per class. Without rows, those of a decision are empty.
    colorbar_ : matplotlib Colorbar or None
        The scale of the surface. None for a classifier's decision, which has a legend.
    ax_, figure_ : matplotlib Axes and Figure
        Where it is drawn.

    See Also
    --------
    sklearn.inspection.DecisionBoundaryDisplay : Probabilities of any classifier.
    DiversityDisplay : Which members differ.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_fordes.inspection import UncertaintyDisplay
    >>> xx0, xx1 = np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 4))
    >>> display = UncertaintyDisplay.from_predictions(xx0, xx1, xx0**2, classes=["no", "yes"])
    >>> display.ax_.get_xlabel()
    'feature 0'
    """

    xx0: Array
    xx1: Array
    response: Array
    _: KW_ONLY
    measure: str = "epistemic"
    classes: NDArray[Any] | None = None
    points: Array | None = None
    y: NDArray[Any] | None = None
    xlabel: str | None = None
    ylabel: str | None = None

    def _draw(self, ax: Axes, name: str | None, style: Style) -> None:
        self.scatter_: list[Any] = []
        self.colorbar_: Any = None
        if self.classes is None or self.measure != "decision":
            self._draw_contours(ax, style)
        if self.classes is not None:
            self._draw_classes(ax, self.classes, style)
        elif self.points is not None:
            self._draw_targets(ax, self.points)
        ax.set(xlabel=self.xlabel, ylabel=self.ylabel)
        if name:
            ax.set_title(name)

    def _draw_contours(self, ax: Axes, style: Style) -> None:
        # Light where the model is sure, so that rows drawn on top are seen.
        cmap, label = "Greys", f"{self.measure} uncertainty (nats)"
        if self.measure == "decision":
            cmap, label = "viridis", "predicted mean (units of the target)"
        elif self.classes is None:
            label = f"{self.measure} variance (squared units of the target)"
        levels = style.get("levels", 10)
        # Targets have the colours of a decision.
        targets: Any = [] if self.y is None or self.measure != "decision" else self.y
        values = np.append(self.response, targets)
        # The levels that matplotlib chooses reach to the ends of the response.
        ends = np.asarray(levels) if np.ndim(levels) else self.response
        extend = extension(values, np.nanmin(ends), np.nanmax(ends))
        merged: Style = {"levels": levels, "cmap": cmap, "extend": extend, **style}
        self.surface_: Any = ax.contourf(self.xx0, self.xx1, self.response, **merged)
        self.colorbar_ = ax.figure.colorbar(self.surface_, ax=ax, label=label)

    def _draw_classes(self, ax: Axes, classes: NDArray[Any], style: Style) -> None:
        from matplotlib import colormaps

        colors, points = colormaps["viridis"].resampled(len(classes)), self.points
        if self.measure == "decision":
            # Each grid point has a patch: contours between 0 and 2 would pass through 1.
            limits = {"vmin": 0, "vmax": len(classes) - 1}
            merged: Style = {"cmap": colors, "alpha": 0.4, **limits, **style}
            self.surface_ = ax.pcolormesh(self.xx0, self.xx1, self.response, **merged)
            ax.grid(visible=False)
        elif points is None:
            return
        for index, label in enumerate(classes):
            # Without rows, the classes are in the legend alone.
            rows = ([], []) if points is None else points[self.y == label].T
            scatter = ax.scatter(*rows, color=colors(index), label=str(label), **POINTS)
            self.scatter_.append(scatter)
        # The surface may be dark, and rows lie anywhere.
        self._draw_legend(ax, "upper right", title="class", frameon=True)

    def _draw_targets(self, ax: Axes, points: Array) -> None:
        # A row in the colour of the surface around it is predicted well.
        norm = self.surface_.norm if self.measure == "decision" else None
        style: Style = {"c": self.y, "cmap": "viridis", "norm": norm, **POINTS}
        self.scatter_ = [ax.scatter(points[:, 0], points[:, 1], **style)]
        if norm is None:
            ax.figure.colorbar(self.scatter_[0], ax=ax, label="y (units of the target)")

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        features: Sequence[Any] = (0, 1),
        measure: str = "epistemic",
        grid_resolution: int = 100,
        eps: float = 1.0,
        y: ArrayLike | None = None,
        ax: Axes | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the uncertainty of an ensemble on a grid over two features.

        The other features are held at their median, or at their most frequent value if they are not
        numeric.

        Parameters
        ----------
        estimator : estimator
            A fitted classifier or regressor with `predict_uncertainty`, or a pipeline that ends in
            one. For the decision, and the total of a classifier, any estimator.
        X : array-like or data frame of shape (n_samples, n_features)
            Rows that set the range of the grid and the values held.
        features : sequence of two int or str, default=(0, 1)
            Two numeric features, by index or column name.
        measure : {"total", "aleatoric", "epistemic", "support", "decision"}, default="epistemic"
            An uncertainty, or the predicted class (mean).
        grid_resolution : int, default=100
            Number of grid points along each feature.
        eps : float, default=1.0
            How far the grid reaches beyond the rows, in standard deviations of each feature.
        y : array-like of shape (n_samples,), default=None
            Labels or targets. If given, the rows of X are drawn in their colours.
        ax, name, **kwargs : optional
            As in `plot`.

        Returns
        -------
        display : UncertaintyDisplay
            The display, drawn.
        """
        cls._check_estimator(estimator)
        check_measure(measure, SURFACES)
        frame = as_frame(X)
        keys = [find_feature(frame, feature) for feature in features]
        if isinstance(features, str) or len(keys) != 2 or keys[0] == keys[1]:
            raise ValueError(
                f"Got features={features!r}, but expected two features, by index or column name."
            )
        xx0, xx1 = np.meshgrid(*(grid_axis(frame[key], grid_resolution, eps) for key in keys))
        rows = typical_rows(X, {keys[0]: xx0.ravel(), keys[1]: xx1.ravel()})
        classes = getattr(estimator, "classes_", None)
        if measure == "decision":
            response = estimator.predict(rows)
            if classes is not None:
                response = np.searchsorted(classes, response)
        else:
            response = uncertainty_of(estimator, rows, measure)
        return cls.from_predictions(
            xx0,
            xx1,
            response.reshape(xx0.shape),
            measure=measure,
            classes=classes,
            points=None if y is None else np.column_stack([frame[key] for key in keys]),
            y=y,
            feature_names=[key if isinstance(key, str) else f"feature {key}" for key in keys],
            ax=ax,
            name=name,
            **kwargs,
        )

    @classmethod
    def from_predictions(
        cls,
        xx0: ArrayLike,
        xx1: ArrayLike,
        response: ArrayLike,
        *,
        measure: str = "epistemic",
        classes: ArrayLike | None = None,
        points: ArrayLike | None = None,
        y: ArrayLike | None = None,
        feature_names: Sequence[str] = ("feature 0", "feature 1"),
        ax: Axes | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw an uncertainty that is known on a grid.

        Parameters
        ----------
        xx0, xx1 : array-like of shape (n_rows, n_columns)
            The two features on a grid, as of `numpy.meshgrid`.
        response : array-like of shape (n_rows, n_columns)
            The uncertainty there; for ``measure="decision"`` the index of the predicted class, or
            the mean a regressor predicts.
        measure : {"total", "aleatoric", "epistemic", "support", "decision"}, default="epistemic"
            What the response is.
        classes : array-like of shape (n_classes,), default=None
            Class labels. None is a regressor: uncertainties are variances.
        points : array-like of shape (n_samples, 2), default=None
            Rows to draw, by their two features.
        y : array-like of shape (n_samples,), default=None
            Labels or targets to colour them by.
        feature_names : sequence of two str, default=("feature 0", "feature 1")
            Names of the features, for the labels.
        ax, name, **kwargs : optional
            As in `plot`.

        Returns
        -------
        display : UncertaintyDisplay
            The display, drawn.
        """
        check_measure(measure, SURFACES)
        grid = [np.asarray(xx) for xx in (xx0, xx1, response)]
        shapes = [xx.shape for xx in grid]
        if len(set(shapes)) > 1 or grid[0].ndim != 2:
            raise ValueError(
                f"Got xx0, xx1 and response of shapes {shapes}, but expected one shape "
                "(n_rows, n_columns)."
            )
        if (points is None) != (y is None):
            raise ValueError("Got one of points and y, but expected both or neither.")
        check_consistent_length(points, y)
        return cls(
            *grid,
            measure=measure,
            classes=None if classes is None else np.asarray(classes),
            points=None if points is None else np.asarray(points),
            y=None if y is None else column_or_1d(y),
            xlabel=feature_names[0],
            ylabel=feature_names[1],
            name=name,
        ).plot(ax, **kwargs)


def as_frame(X: Any) -> Any:
    """Return a data frame of pandas or polars unchanged, and anything else as one of pandas.

    The columns of an array are named by position.
    """
    import pandas as pd

    expect_table(X)
    if nw.dependencies.is_pyarrow_table(X):
        return X.to_pandas()
    if hasattr(X, "columns"):
        return X
    if np.ndim(X) != 2:
        raise ValueError(f"Got X of shape {np.shape(X)}, but expected (n_samples, n_features).")
    # Each column of an array of objects gets the type of its own values.
    return pd.DataFrame(X).infer_objects()


def find_feature(frame: Any, feature: Any) -> Any:
    """Return the name of a numeric column, given by its position or its name."""
    names = list(frame.columns)
    name = names[find_position(names, feature)]
    if not is_numeric(frame[name]):
        numeric = [known for known in names if is_numeric(frame[known])]
        raise ValueError(
            f"Got feature {feature!r}, which isn't numeric, but expected a column of numbers: one "
            f"of {numeric}."
        )
    return name


def is_numeric(column: Any) -> bool:
    """Return whether a column holds numbers; truth values and categories don't count."""
    return bool(nw.from_native(column, series_only=True).dtype.is_numeric())


def grid_axis(column: Any, n_points: int, eps: float) -> Array:
    """Return the grid along a feature, `eps` standard deviations wider than its values."""
    check_scalar(n_points, "grid_resolution", Integral, min_val=2)
    check_scalar(eps, "eps", Real, min_val=0)
    values = np.asarray(column, dtype=np.float64)
    known = values[~np.isnan(values)]
    if not known.size:
        raise ValueError("Got a feature without any value, but expected numbers.")
    with np.errstate(over="ignore", invalid="ignore"):
        low, high, margin = known.min(), known.max(), eps * known.std()
        grid = np.linspace(low - margin, high + margin, n_points)
    if not np.isfinite(grid).all():
        raise ValueError(
            f"Got a feature from {low:.3g} to {high:.3g}, but expected finite numbers, of which "
            "the squares are finite too."
        )
    return grid


def typical_rows(X: Any, values: dict[Any, Array]) -> Any:
    """Return rows with these values in some columns and typical ones in the others, typed as X."""
    frame = as_frame(X)
    n_rows = len(next(iter(values.values())))
    columns = {key: typical(frame[key], n_rows) for key in frame.columns}
    table = type(frame)(columns | values)
    if nw.dependencies.is_pyarrow_table(X):
        return type(X).from_pandas(table, preserve_index=False)
    return table if frame is X else table.to_numpy()


def typical(column: Any, n_rows: int) -> Any:
    """Return the median of a column, its most frequent value if it isn't numeric, n_rows times."""
    if is_numeric(column):
        return np.full(n_rows, np.nanmedian(np.asarray(column, dtype=np.float64)))
    return type(column)([mode(column)] * n_rows, dtype=column.dtype)
