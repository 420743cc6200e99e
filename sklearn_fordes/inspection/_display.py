"""The base of the displays, and the colours and lines that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_is_fitted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

Array = NDArray[np.float64]
Style = dict[str, Any]

# Okabe and Ito's colours, which any kind of colour vision tells apart.
BLUE, VERMILLION, GREEN = "#0072b2", "#d55e00", "#009e73"
COLORS = (BLUE, VERMILLION, GREEN, "#cc79a7", "#e69f00", "#56b4e9", "#000000")
GREY = "#7f7f7f"


@dataclass(eq=False, repr=False)
class Display(ABC):
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

    def plot(self, ax: Any = None, *, name: str | None = None, **kwargs: Any) -> Self:
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None is a new figure. A display of several panels also takes an
            array-like of axes, one for each panel.
        name : str, default=None
            Name of the model, for the legend or the title. None is the name given before.
        **kwargs
            Passed to the function of matplotlib that the class names.

        Returns
        -------
        self : Display
            The display itself.
        """
        self._require_matplotlib("plot")
        self.ax_ = self._prepare_axes(ax)
        self.figure_ = self.ax_.figure
        self._draw(self.ax_, self.name if name is None else name, kwargs)
        return self

    @classmethod
    def _require_matplotlib(cls, method: str) -> None:
        """Raise an error that names the method if matplotlib is not installed."""
        check_matplotlib_support(f"{cls.__name__}.{method}")

    @classmethod
    def _check_estimator(cls, estimator: Any) -> None:
        """Raise an error unless matplotlib is installed and the estimator is fitted."""
        cls._require_matplotlib("from_estimator")
        check_is_fitted(estimator)

    def _prepare_axes(self, ax: Any) -> Axes:
        """Return the axes given, or those of a new figure."""
        from matplotlib import axes, pyplot

        if ax is None:
            _, ax = pyplot.subplots(layout="constrained")
        if not isinstance(ax, axes.Axes):
            raise TypeError(f"Got ax of type {type(ax).__name__}, but expected matplotlib axes.")
        return ax

    @abstractmethod
    def _draw(self, ax: Axes, name: str | None, style: Style) -> None:
        """Draw on axes; `style` holds the user's keyword arguments, which override defaults."""


def draw_line(ax: Axes, x: NDArray[Any], y: Array, style: Style, **defaults: Any) -> Line2D:
    """Draw a line; the user's style, short names like `lw` included, overrides the defaults.

    The default colour is the next one that the axes lack.
    """
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.lines import Line2D

    defaults = {"linewidth": 1.5, "color": next_color(ax), **defaults}
    merged = {**defaults, **normalize_kwargs(style, Line2D)}
    (line,) = ax.plot(x, y, **merged)
    return line


def model_label(name: str | None, summary: str) -> str:
    """Return the text of the legend for the curve of a model."""
    return f"{name} ({summary})" if name else summary


def next_color(ax: Axes) -> str:
    """Return the first colour that no line on the axes has yet, so that curves can be compared."""
    from matplotlib.colors import to_hex

    used = [to_hex(line.get_color()) for line in ax.lines]
    unused = [color for color in COLORS if color not in used]
    return unused[0] if unused else COLORS[len(used) % len(COLORS)]


def hide_frame(ax: Axes) -> None:
    """Hide the two sides of the frame that carry no ticks."""
    ax.spines[["top", "right"]].set_visible(False)
