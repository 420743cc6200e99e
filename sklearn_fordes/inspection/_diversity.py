"""How much members differ, in what they predict and in what they look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_is_fitted

from sklearn_fordes.inspection._drawing import get_axes
from sklearn_fordes.inspection._responses import final_step, name_of, respond

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.image import AxesImage


class DiversityDisplay:
    """Two heat maps over pairs of members: their predictions, and their input gradients.

    The first is the share of rows on which two members predict different classes (of a regressor:
    the mean absolute difference of their predictions), the second the mean cosine of their input
    gradients, 1 where two members rest on the same features in the same proportion. Make it with
    `from_estimator` or `from_predictions`.

    Parameters
    ----------
    disagreement : ndarray of shape (n_members, n_members)
        Share of rows with different classes, or mean absolute difference of predictions.
    cosine : ndarray of shape (n_members, n_members), default=None
        Mean cosine of input gradients. None leaves the second heat map out.
    regression : bool, default=False
        Whether `disagreement` is a difference in units of the target.
    name : str, default=None
        Name of the model, for the titles.

    Attributes
    ----------
    images_ : list of matplotlib AxesImage
        The heat maps.
    axes_ : ndarray of matplotlib Axes, of shape (n_panels,)
        The axes drawn on.
    ax_ : matplotlib Axes
        The first of them.
    figure_ : matplotlib Figure
        Their figure.

    See Also
    --------
    UncertaintyDisplay : Where in the input the members differ.

    Examples
    --------
    >>> from sklearn_fordes.inspection import DiversityDisplay
    >>> members = [[[0.9, 0.1], [0.8, 0.2]], [[0.6, 0.4], [0.3, 0.7]]]
    >>> DiversityDisplay.from_predictions(members).disagreement
    array([[0. , 0.5],
           [0.5, 0. ]])
    """

    ax_: Axes
    axes_: NDArray[Any]
    figure_: Figure | SubFigure
    images_: list[AxesImage]

    def __init__(
        self,
        disagreement: NDArray[np.float64],
        cosine: NDArray[np.float64] | None = None,
        *,
        regression: bool = False,
        name: str | None = None,
    ) -> None:
        self.disagreement = disagreement
        self.cosine = cosine
        self.regression = regression
        self.name = name

    def plot(self, ax: Any = None, *, name: str | None = None, **kwargs: Any) -> Self:
        """Draw the heat maps.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of Axes, default=None
            Where to draw: axes for each heat map, or one in whose place they are put side by side.
            None is a new figure.
        name : str, default=None
            Name of the model, for the titles. None is the one given before.
        **kwargs
            Passed to matplotlib's `imshow` for both heat maps.

        Returns
        -------
        self : DiversityDisplay
            The display itself.
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        n_panels = 1 if self.cosine is None else 2
        self.axes_ = panels(self, ax, n_panels)
        self.ax_, self.figure_ = self.axes_[0], self.axes_[0].figure
        name = self.name if name is None else name
        self.images_ = [self._draw_disagreement(self.axes_[0], name, kwargs)]
        if self.cosine is not None:
            self.images_.append(self._draw_cosine(self.axes_[1], self.cosine, name, kwargs))
        return self

    def _draw_disagreement(self, ax: Axes, name: str | None, style: dict[str, Any]) -> AxesImage:
        title, label = "disagreement", "share of rows that differ"
        if self.regression:
            title, label = "difference", "mean |difference| (units of the target)"
        top = self.disagreement.max() or 1.0
        style = {"cmap": "viridis", "vmin": 0.0, "vmax": top, **style}
        return heat_map(ax, self.disagreement, titled(name, title), label, style)

    @staticmethod
    def _draw_cosine(
        ax: Axes, cosine: NDArray[np.float64], name: str | None, style: dict[str, Any]
    ) -> AxesImage:
        # As in the other heat map, dark is alike. The range is fixed, so that two models compare.
        bottom = -1.0 if (cosine < 0).any() else 0.0
        style = {"cmap": "viridis_r", "vmin": bottom, "vmax": 1.0, **style}
        return heat_map(ax, cosine, titled(name, "input gradients"), "mean cosine", style)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike | None = None,
        *,
        ax: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the diversity of an ensemble.

        Parameters
        ----------
        estimator : estimator
            A fitted ensemble with `predict_proba_members` or `predict_members`, or a pipeline that
            ends in one. Without `input_gradients` the second heat map is left out.
        X : array-like or data frame of shape (n_samples, n_features)
            Rows to compare members at.
        y : array-like of shape (n_samples,), default=None
            The classes whose input gradients are compared. None is the predicted ones; not used
            for a regressor.
        ax : matplotlib Axes or array-like of Axes, default=None
            Where to draw: axes for each heat map, or one in whose place they are put side by side.
            None is a new figure.
        name : str, default=None
            Name of the model, for the titles.
        **kwargs
            Passed to matplotlib's `imshow` for both heat maps.

        Returns
        -------
        display : DiversityDisplay
            The display, drawn.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        check_is_fitted(estimator)
        ensemble = final_step(estimator)
        methods = [m for m in ("predict_proba_members", "predict_members") if hasattr(ensemble, m)]
        if not methods:
            raise TypeError(
                f"Got {name_of(estimator)}, but expected an estimator with the method "
                "predict_proba_members or predict_members, or a pipeline that ends in one."
            )
        members = respond(estimator, methods[0], X)
        gradients = None
        if hasattr(ensemble, "input_gradients"):
            labels = () if y is None or methods[0] == "predict_members" else (y,)
            gradients = respond(estimator, "input_gradients", X, *labels)
        return cls.from_predictions(members, gradients, ax=ax, name=name, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        y_proba_members: ArrayLike,
        input_gradients: ArrayLike | None = None,
        *,
        ax: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the diversity of members' predictions.

        Parameters
        ----------
        y_proba_members : array-like of shape (n_members, n_samples, n_classes)
            Each member's probabilities; or (n_members, n_samples), a regressor's predictions.
        input_gradients : array-like of shape (n_members, n_samples, n_features), default=None
            Each member's input gradients. None leaves the second heat map out.
        ax : matplotlib Axes or array-like of Axes, default=None
            Where to draw: axes for each heat map, or one in whose place they are put side by side.
            None is a new figure.
        name : str, default=None
            Name of the model, for the titles.
        **kwargs
            Passed to matplotlib's `imshow` for both heat maps.

        Returns
        -------
        display : DiversityDisplay
            The display, drawn.
        """
        members = np.asarray(y_proba_members)
        gradients = None if input_gradients is None else np.asarray(input_gradients)
        check_members(members, gradients)
        regression = members.ndim == 2
        pairwise = mean_difference(members) if regression else disagreement(members.argmax(axis=-1))
        cosine = None if gradients is None else mean_cosine(gradients)
        return cls(pairwise, cosine, regression=regression, name=name).plot(ax, **kwargs)


def check_members(members: NDArray[Any], gradients: NDArray[Any] | None) -> None:
    """Raise an error unless the shapes are those of the same members and rows."""
    if members.ndim not in (2, 3) or members.shape[0] < 2:
        raise ValueError(
            f"Got predictions of shape {members.shape}, but expected (n_members, n_samples, "
            "n_classes) or (n_members, n_samples) with at least two members."
        )
    if gradients is not None and gradients.shape[:2] != members.shape[:2]:
        raise ValueError(
            f"Got input_gradients of shape {gradients.shape}, but expected (n_members, n_samples, "
            f"n_features) with n_members, n_samples = {members.shape[:2]}."
        )


def disagreement(classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of rows on which two members differ, (M, M), from (M, N)."""
    return np.stack([(classes != of_member).mean(axis=1) for of_member in classes])


def mean_difference(predictions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean absolute difference of two members, (M, M), from (M, N)."""
    return np.stack([np.abs(predictions - of_member).mean(axis=1) for of_member in predictions])


def mean_cosine(gradients: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over rows of two members' cosine, (M, M), from (M, N, …).

    Rows at which one of the two has no gradient, and so no direction, are left out of their mean;
    NaN if no row remains.
    """
    flat = gradients.reshape(*gradients.shape[:2], -1).astype(np.float64)
    norm = np.linalg.norm(flat, axis=-1, keepdims=True)
    unit = np.divide(flat, norm, out=np.zeros_like(flat), where=norm > 0)
    rows = (norm[..., 0] > 0).astype(np.float64)
    total = np.einsum("ind,jnd->ij", unit, unit, optimize=True)
    count = rows @ rows.T
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def panels(display: Any, ax: Any, n_panels: int) -> NDArray[Any]:
    """Return axes for each heat map: those given, or axes made in the place of the one given."""
    import matplotlib.pyplot as plt

    if ax is None:
        size = (5.0 * n_panels, 4.0)
        _, ax = plt.subplots(1, n_panels, figsize=size, layout="constrained", squeeze=False)
    axes = np.asarray(ax, dtype=object).ravel()
    for one in axes:
        get_axes(display, one)
    if axes.size == 1 and n_panels == 2:
        axes = split(axes[0])
    if axes.size != n_panels:
        raise ValueError(f"Got {axes.size} axes, but expected {n_panels} or one to be split.")
    return axes


def split(ax: Axes) -> NDArray[Any]:
    """Put two axes into the place of one, which is switched off."""
    spec = ax.get_subplotspec()
    if spec is None or not ax.axison:
        raise ValueError(
            "Got axes that are not part of a grid or were split before, but expected fresh ones of "
            "plt.subplots, or two axes."
        )
    ax.set_axis_off()
    places = spec.subgridspec(1, 2, wspace=0.6)
    return np.array([ax.figure.add_subplot(places[0, i]) for i in range(2)], dtype=object)


def heat_map(
    ax: Axes, matrix: NDArray[np.float64], title: str, label: str, style: dict[str, Any]
) -> AxesImage:
    """Draw a matrix over pairs of members, with its mean over different members in the title."""
    from matplotlib.ticker import MaxNLocator

    image = ax.imshow(matrix, **style)
    others = matrix[~np.eye(len(matrix), dtype=bool)]
    ax.set(title=f"{title}, mean {others.mean():.2g}", xlabel="member", ylabel="member")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    ax.figure.colorbar(image, ax=ax, label=label, fraction=0.046, pad=0.04)
    return image


def titled(name: str | None, title: str) -> str:
    """Put the name of the model, if there is one, before a title."""
    return f"{name}: {title}" if name else title
