"""The base of the displays: what they share in drawing, and what they ask of an estimator."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr
from sklearn.pipeline import Pipeline
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_is_fitted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]
Style = dict[str, Any]

MEASURES = ("total", "aleatoric", "epistemic", "support")


@dataclass(eq=False, repr=False)
class Display:
    """Values to draw: `plot` prepares the axes, and a subclass draws on them.

    A subclass declares its values as fields of a dataclass and draws them in `_draw`.

    Parameters
    ----------
    name : str, default=None
        Name of the model, for the legend or the title.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes drawn on.
    figure_ : matplotlib Figure
        Their figure.
    """

    name: str | None = field(default=None, kw_only=True)
    _legend: Any = field(default=True, init=False, repr=False, compare=False)

    def plot(
        self, ax: Any = None, *, name: str | None = None, legend: Any = True, **kwargs: Any
    ) -> Self:
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None is a new figure. A display of several panels also takes an
            array-like of axes, one for each panel.
        name : str, default=None
            Name of the model, for the legend or the title. None is the name given before.
        legend : bool, str or tuple of two float, default=True
            Where the legend is, as `loc` of matplotlib's `legend`. True is the place that suits the
            display. False adds none. Displays without a legend ignore it.
        **kwargs
            Passed to the function of matplotlib that the class names.

        Returns
        -------
        self : Display
            The display itself.
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        self._legend = legend
        self.ax_ = self._prepare_axes(ax)
        self.figure_ = self.ax_.figure
        self._draw(self.ax_, self.name if name is None else name, kwargs)
        return self

    @classmethod
    def _check_estimator(cls, estimator: Any) -> None:
        """Raise an error unless matplotlib is installed and the estimator is fitted."""
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        check_is_fitted(estimator)

    def _prepare_axes(self, ax: Any) -> Axes:
        """Return the axes given, or those of a new figure."""
        from matplotlib import pyplot

        if ax is None:
            _, ax = pyplot.subplots(layout="constrained")
        return self._check_axes(ax)

    def _prepare_panels(
        self, ax: Any, shape: tuple[int, int], *, figsize: tuple[float, float], **grid: Any
    ) -> NDArray[Any]:
        """Return one axes for each panel: those given, those of one axes split, or new ones.

        `grid` is passed to `subplots`, or to the `subgridspec` of an axes that is split. Its spaces
        are left out where a constrained layout finds them.
        """
        from matplotlib import layout_engine, pyplot

        sharing: Style = {"sharey": grid.pop("sharey", False), "squeeze": False}
        ratios: Style = {key: grid[key] for key in grid.keys() & {"height_ratios"}}
        if ax is None:
            _, ax = pyplot.subplots(
                *shape, figsize=figsize, layout="constrained", **(sharing | ratios)
            )
        axes = [*map(self._check_axes, np.asarray(ax, dtype=object).ravel())]
        n_panels = shape[0] * shape[1]
        if len(axes) == 1 < n_panels:
            place = axes[0].get_subplotspec()
            if place is None or not axes[0].axison:
                raise ValueError(
                    "Got axes that are not part of a grid or were split before, but expected fresh "
                    f"ones of plt.subplots, or {n_panels} axes."
                )
            axes[0].set_axis_off()
            engine = axes[0].figure.get_layout_engine()
            if isinstance(engine, layout_engine.ConstrainedLayoutEngine):
                grid = ratios
            axes = list(place.subgridspec(*shape, **grid).subplots(**sharing).ravel())
        if len(axes) != n_panels:
            raise ValueError(f"Got {len(axes)} axes, but expected {n_panels} or one to be split.")
        return np.array(axes)

    def _check_axes(self, ax: Any) -> Axes:
        from matplotlib import axes

        if not isinstance(ax, axes.Axes):
            raise TypeError(f"Got ax of type {type(ax).__name__}, but expected matplotlib axes.")
        return ax

    def _draw(self, ax: Axes, name: str | None, style: Style) -> None:
        """Draw on axes; `style` holds the user's keyword arguments, which override defaults."""

    def _draw_legend(
        self, ax: Axes, loc: str = "best", anchor: tuple[float, float] | None = None, **options: Any
    ) -> None:
        """Draw the legend where the user wants it, and else at `loc`, of the anchor if given."""
        place: Style = {"loc": self._legend}
        if self._legend is True:
            place = {"loc": loc, "bbox_to_anchor": anchor}
        if self._legend is not False:
            ax.legend(**place, **options)


def model_label(name: str | None, summary: str) -> str:
    """Return the text of the legend for the curve of a model."""
    return f"{name} ({summary})" if name else summary


def extension(values: Array, low: float, high: float) -> str:
    """Return the ends of a colour scale that values lie beyond, as matplotlib's `extend`."""
    rounding = 1e-6 * (high - low)
    below, above = (values < low - rounding).any(), (values > high + rounding).any()
    return (("neither", "max"), ("min", "both"))[int(below)][int(above)]


def find_position(names: list[Any], column: Any) -> int:
    """Return the position of a column that is given by its name, or else by its position."""
    # A mask of truth values would be read as the positions 0 and 1.
    if not isinstance(column, bool | np.bool_):
        if column in names:
            return names.index(column)
        if isinstance(column, Integral) and column in range(-len(names), len(names)):
            return int(column) % len(names)
    raise ValueError(
        f"Got column {column!r}, but expected one of {names}, or an index below {len(names)}."
    )


def expect_table(X: Any) -> None:
    """Refuse rows that are read in blocks, such as a dataset of pyarrow.

    Raises
    ------
    ValueError
        If X is no table in memory.
    """
    if not (X is None or hasattr(X, "shape") or hasattr(X, "__len__")):
        raise ValueError(
            f"Got a {type(X).__name__} as X, but expected a table in memory, such as a sample of "
            "its rows: displays read no blocks."
        )


def final_step(estimator: Any, X: Any = None) -> tuple[Any, Any]:
    """Return the estimator at the end of a pipeline or of a search, and rows as it gets them."""
    expect_table(X)
    estimator = getattr(estimator, "best_estimator_", estimator)
    if not isinstance(estimator, Pipeline):
        return estimator, X
    # An empty pipeline, which precedes a single step, can't transform.
    if X is not None and len(estimator) > 1:
        X = estimator[:-1].transform(X)
    return final_step(estimator[-1], X)


def name_of(estimator: Any) -> str:
    """Return the class name that a legend shows."""
    return type(final_step(estimator)[0]).__name__


def uncertainty_of(estimator: Any, X: Any, measure: str) -> Array:
    """Return a measure of `predict_uncertainty`, (n_samples,).

    The total of a classifier that has only probabilities is their entropy, in nats.
    """
    model, rows = final_step(estimator, X)
    if measure == "total" and not hasattr(model, "predict_uncertainty"):
        return np.asarray(entr(model.predict_proba(rows)).sum(axis=-1))
    return np.asarray(getattr(model.predict_uncertainty(rows), measure))


def check_measure(measure: str, expected: tuple[str, ...] = MEASURES) -> None:
    """Raise an error if the measure isn't one of those expected."""
    if measure not in expected:
        raise ValueError(f"Got measure={measure!r}, but expected one of {', '.join(expected)}.")
