"""Axes, colours and styles that the displays share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils._optional_dependencies import check_matplotlib_support

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which any kind of colour vision tells apart.
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
COLORS = (BLUE, VERMILLION, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#7F7F7F"


def get_axes(display: Any, ax: Axes | None) -> Axes:
    """Return the axes to draw a display on: the given ones, or those of a new figure."""
    check_matplotlib_support(f"{type(display).__name__}.plot")
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes as MatplotlibAxes

    if ax is None:
        _, ax = plt.subplots(layout="constrained")
    if not isinstance(ax, MatplotlibAxes):
        raise TypeError(f"Got ax of type {type(ax).__name__}, but expected matplotlib axes.")
    return ax


def next_color(ax: Axes) -> str:
    """Return the first colour that no line on the axes has yet, so that curves can be compared."""
    from matplotlib.colors import same_color

    lines = [line.get_color() for line in ax.lines]
    unused = [c for c in COLORS if not any(same_color(c, line) for line in lines)]
    return unused[0] if unused else COLORS[len(lines) % len(COLORS)]


def line_style(given: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    """Put what the user gave, short names like `lw` included, over the defaults of a line."""
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.lines import Line2D

    return {**defaults, **normalize_kwargs(given, Line2D)}


def class_colors(n_classes: int) -> list[Any]:
    """Return a colour for each class."""
    import matplotlib as mpl

    if n_classes <= len(COLORS):
        return list(COLORS[:n_classes])
    return list(mpl.colormaps["viridis"](np.linspace(0, 1, n_classes)))


def hide_frame(ax: Axes) -> None:
    """Hide the two sides of the frame that carry no ticks."""
    ax.spines[["top", "right"]].set_visible(False)
