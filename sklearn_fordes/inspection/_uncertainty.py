"""Uncertainty, or the decision, over two features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_consistent_length, column_or_1d

from sklearn_fordes.inspection._display import COLORS, Array, Display, Style
from sklearn_fordes.inspection._evaluation import (
    MEASURES,
    check_measure,
    class_indices,
    columns_of,
    find_feature,
    grid_axis,
    grid_table,
    numbers,
    uncertainty_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import PathCollection
    from matplotlib.colorbar import Colorbar

SURFACES = (*MEASURES, "decision")


@dataclass(eq=False, repr=False)
class UncertaintyDisplay(Display):
    """Uncertainty of an ensemble, or its decision, over two features.

    Make it with `from_estimator` or `from_predictions`. Further keyword arguments go to
    matplotlib's `contourf`, or to `pcolormesh` for a classifier's decision.

    Parameters
    ----------
    xx0, xx1 : ndarray of shape (n_rows, n_columns)
        The two features on a grid, as of `numpy.meshgrid`.
    response : ndarray of shape (n_rows, n_columns)
        The uncertainty there; for ``measure="decision"`` the index of the predicted class, or the
        mean a regressor predicts.
    name : str, default=None
        Name of the model, for the title.
    measure : {"total", "aleatoric", "epistemic", "decision"}, default="epistemic"
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
        The rows drawn, one entry per class.
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
        self.surface_: ScalarMappable
        self.scatter_: list[PathCollection] = []
        self.colorbar_: Colorbar | None = None
        if self.measure == "decision" and self.classes is not None:
            self._draw_areas(ax, self.classes, style)
        else:
            self._draw_contours(ax, style)
        if self.points is not None and self.y is not None:
            self._draw_points(ax, self.points, self.y)
        ax.set(xlabel=self.xlabel, ylabel=self.ylabel)
        if name:
            ax.set_title(name)

    def _draw_contours(self, ax: Axes, style: Style) -> None:
        # Light where the model is sure, so that rows drawn on top are seen.
        cmap = "viridis" if self.measure == "decision" else "Greys"
        merged: Style = {"levels": 10, "cmap": cmap, **style}
        self.surface_ = ax.contourf(self.xx0, self.xx1, self.response, **merged)
        label = f"{self.measure} uncertainty (nats)"
        if self.measure == "decision":
            label = "predicted mean (units of the target)"
        elif self.classes is None:
            label = f"{self.measure} variance (squared units of the target)"
        self.colorbar_ = ax.figure.colorbar(self.surface_, ax=ax, label=label)

    def _draw_areas(self, ax: Axes, classes: NDArray[Any], style: Style) -> None:
        """Draw a patch for each grid point: contours between 0 and 2 would pass through 1."""
        from matplotlib.colors import ListedColormap
        from matplotlib.patches import Patch

        colors = class_colors(len(classes))
        if self.y is None:
            pairs = zip(colors, classes, strict=True)
            patches = [Patch(color=c, alpha=0.4, label=str(label)) for c, label in pairs]
            ax.legend(handles=patches, title="predicted class", loc="upper right")
        merged: Style = {
            "cmap": ListedColormap(colors),
            "vmin": -0.5,
            "vmax": len(classes) - 0.5,
            "alpha": 0.4,
            "shading": "nearest",
            "rasterized": True,
            **style,
        }
        self.surface_ = ax.pcolormesh(self.xx0, self.xx1, self.response, **merged)

    def _draw_points(self, ax: Axes, points: Array, y: NDArray[Any]) -> None:
        style: Style = {"s": 18, "edgecolors": "white", "linewidths": 0.6}
        if self.classes is None:
            # A row in the colour of the surface around it is predicted well.
            norm: Any = self.surface_.norm if self.measure == "decision" else None
            style |= {"c": y, "cmap": "viridis", "norm": norm}
            scatter = ax.scatter(points[:, 0], points[:, 1], **style)
            self.scatter_ = [scatter]
            if norm is None:
                ax.figure.colorbar(scatter, ax=ax, label="y")
            return
        indices = class_indices(y, self.classes)
        for index, color in enumerate(class_colors(len(self.classes))):
            rows, label = points[indices == index], str(self.classes[index])
            self.scatter_.append(ax.scatter(*rows.T, color=color, label=label, **style))
        ax.legend(title="class", loc="upper right")

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
        measure : {"total", "aleatoric", "epistemic", "decision"}, default="epistemic"
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
        columns = columns_of(X)
        keys = [find_feature(columns, feature) for feature in features]
        if isinstance(features, str) or len(keys) != 2 or keys[0] == keys[1]:
            raise ValueError(
                f"Got features={features!r}, but expected two features, by index or column name."
            )
        xx0, xx1 = np.meshgrid(*(grid_axis(columns[key], grid_resolution, eps) for key in keys))
        table = grid_table(X, columns, {keys[0]: xx0.ravel(), keys[1]: xx1.ravel()})
        response = response_of(estimator, table, measure).reshape(xx0.shape)
        return cls.from_predictions(
            xx0,
            xx1,
            response,
            measure=measure,
            classes=getattr(estimator, "classes_", None),
            points=None if y is None else np.stack([numbers(columns[k]) for k in keys], axis=1),
            y=y,
            feature_names=[k if isinstance(k, str) else f"feature {k}" for k in keys],
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
        measure : {"total", "aleatoric", "epistemic", "decision"}, default="epistemic"
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
                f"Got xx0, xx1 and response of shapes {', '.join(map(str, shapes))}, but expected "
                "one shape (n_rows, n_columns)."
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


def response_of(estimator: Any, X: Any, measure: str) -> Array:
    """Return an uncertainty, the index of the predicted class or the mean, (n_samples,)."""
    if measure != "decision":
        return uncertainty_of(estimator, X, measure)
    predicted = estimator.predict(X)
    if hasattr(estimator, "classes_"):
        predicted = class_indices(predicted, estimator.classes_)
    return np.asarray(predicted, dtype=np.float64)


def class_colors(n_classes: int) -> list[Any]:
    """Return a colour for each class."""
    from matplotlib import colormaps

    if n_classes <= len(COLORS):
        return list(COLORS[:n_classes])
    return list(colormaps["viridis"](np.linspace(0, 1, n_classes)))
