"""How much members differ, in what they predict and in what they look at."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist
from sklearn.preprocessing import normalize

from sklearn_fordes.inspection._display import Array, Display, Style, extension, final_step

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage


@dataclass(eq=False, repr=False)
class DiversityDisplay(Display):
    """Two heat maps over pairs of members: their predictions, and their input gradients.

    The first is the share of rows on which two members predict different classes (of a regressor:
    the mean absolute difference of their predictions), the second the mean cosine of their input
    gradients, 1 where two members rest on the same features in the same proportion. Make it with
    `from_estimator` or `from_predictions`. `ax` is one axes for each heat map, or a single one that
    is replaced by two. To compare two ensembles, pass the display of the first as `share`. Further
    keyword arguments go to matplotlib's `imshow` for both; beyond a `vmin` or `vmax` of yours the
    colour bar ends in a triangle.

    Parameters
    ----------
    disagreement : ndarray of shape (n_members, n_members)
        Share of rows with different classes, or mean absolute difference of predictions.
    cosine : ndarray of shape (n_members, n_members), default=None
        Mean cosine of input gradients. None leaves the second heat map out.
    name : str, default=None
        Name of the model, for the titles.
    regression : bool, default=False
        Whether `disagreement` is a difference in units of the target.

    Attributes
    ----------
    images_ : list of matplotlib AxesImage
        The heat maps.
    axes_ : ndarray of matplotlib Axes, of shape (n_panels,)
        The axes drawn on.
    ax_, figure_ : matplotlib Axes and Figure
        The first of the axes, and their figure.

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

    disagreement: Array
    cosine: Array | None = None
    _: KW_ONLY
    regression: bool = False

    def plot(
        self,
        ax: Any = None,
        *,
        share: DiversityDisplay | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of them, default=None
            Where to draw. None is a new figure. One axes is split.
        share : DiversityDisplay, default=None
            A display that is drawn already. Each heat map of both gets one colour scale, which is
            wide enough for both scales. Limits or a norm of yours have precedence.
        name : str, default=None
            Name of the model, for the titles. None is the name given before.
        **kwargs
            Passed to matplotlib's `imshow`.

        Returns
        -------
        self : DiversityDisplay
            The display itself.
        """
        if not (share is None or hasattr(share, "images_")):
            raise ValueError(f"Got share={share!r}, but expected a DiversityDisplay that is drawn.")
        if share is not None and self._labels() != share._labels():
            raise ValueError(
                f"Got a display of {', '.join(share._labels())} to share, but expected one of "
                f"{', '.join(self._labels())}."
            )
        self._share = share
        return super().plot(ax, name=name, **kwargs)

    def _labels(self) -> dict[str, str]:
        """Return what the heat maps show, with the labels of their colour bars."""
        labels = {"disagreement": "share of rows"}
        if self.regression:
            labels = {"difference": "units of the target"}
        return labels if self.cosine is None else labels | {"input gradients": "mean cosine"}

    def _prepare_axes(self, ax: Any) -> Axes:
        """Return the first of the axes for the heat maps, with `axes_` set to all of them."""
        n_panels = len(self._labels())
        self.axes_ = self._prepare_panels(ax, (1, n_panels), figsize=(5 * n_panels, 4), wspace=0.6)
        first: Axes = self.axes_[0]
        return first

    def _draw(self, ax: Axes, name: str | None, style: Style) -> None:
        from matplotlib.ticker import MaxNLocator

        maps: list[tuple[Array, Style]] = [(self.disagreement, {})]
        if self.cosine is not None:
            # As in the other heat map, dark is alike.
            scale: Style = {"vmin": np.nanmin(self.cosine, initial=0.0), "vmax": 1.0}
            maps.append((self.cosine, {"cmap": "viridis_r"} | ({} if "norm" in style else scale)))
        shared: list[AxesImage] = [] if self._share is None else self._share.images_
        self.images_: list[AxesImage] = []
        parts = zip(self.axes_, maps, self._labels().items(), strict=True)
        for position, (axes, (matrix, defaults), (title, label)) in enumerate(parts):
            image = axes.imshow(matrix, **{**defaults, **style})
            if shared and not {"norm", "vmin", "vmax"} & style.keys():
                share_scale(image, shared[position])
            self.images_.append(image)
            # Short lines, which don't reach to the next panel.
            pairs = matrix[np.triu_indices_from(matrix, 1)]
            lines = [*wrap(str(name or ""), 14), title]
            lines += [f"mean {pairs.mean():.2g}"] if len(pairs) else []
            axes.set_title("\n".join(lines), fontsize="medium")
            extend = extension(matrix, image.norm.vmin, image.norm.vmax)
            size: Style = {"fraction": 0.046, "pad": 0.04, "extend": extend}
            axes.figure.colorbar(image, ax=axes, label=label, **size)
            axes.set(xlabel="member", ylabel="member")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(5, integer=True))
            axes.grid(visible=False)

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
        ax, name, **kwargs : optional
            As in `plot`.

        Returns
        -------
        display : DiversityDisplay
            The display, drawn.
        """
        cls._check_estimator(estimator)
        ensemble, rows = final_step(estimator, X)
        is_regressor = hasattr(ensemble, "predict_members")
        predict = ensemble.predict_members if is_regressor else ensemble.predict_proba_members
        gradients = None
        if hasattr(ensemble, "input_gradients"):
            labels = () if y is None or is_regressor else (y,)
            gradients = ensemble.input_gradients(rows, *labels)
        return cls.from_predictions(predict(rows), gradients, ax=ax, name=name, **kwargs)

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
        ax, name, **kwargs : optional
            As in `plot`.

        Returns
        -------
        display : DiversityDisplay
            The display, drawn.
        """
        members = np.asarray(y_proba_members)
        gradients = None if input_gradients is None else np.asarray(input_gradients)
        if members.ndim not in (2, 3) or len(members) < 2:
            raise ValueError(
                f"Got predictions of shape {members.shape}, but expected (n_members, n_samples, "
                "n_classes) or (n_members, n_samples) with at least two members."
            )
        if gradients is not None and gradients.shape[:2] != members.shape[:2]:
            raise ValueError(
                f"Got input_gradients of shape {gradients.shape}, but expected (n_members, "
                f"n_samples, n_features) with n_members, n_samples = {members.shape[:2]}."
            )
        if members.ndim == 3:
            classes = members.argmax(axis=-1)
            disagreement = cdist(classes, classes, "hamming")
        else:
            disagreement = cdist(members, members, "cityblock") / members.shape[1]
        cosine = None if gradients is None else mean_cosine(gradients)
        display = cls(disagreement, cosine, regression=members.ndim == 2, name=name)
        return display.plot(ax, **kwargs)


def mean_cosine(gradients: Array) -> Array:
    """Return the mean over rows of two members' cosine, (M, M), from (M, N, …).

    Rows at which one of the two has no gradient, and so no direction, are left out of their mean;
    NaN if no row remains.
    """
    flat = np.concatenate(gradients)
    unit: Array = normalize(flat.reshape(len(flat), -1).astype(np.float64))
    rows = unit.any(axis=1).reshape(len(gradients), -1).astype(np.float64)
    unit = unit.reshape(len(gradients), -1)
    with np.errstate(invalid="ignore"):
        return unit @ unit.T / (rows @ rows.T)


def share_scale(image: AxesImage, other: AxesImage) -> None:
    """Give two images one colour scale, which is wide enough for both."""
    lows, highs = zip(image.get_clim(), other.get_clim(), strict=True)
    other.set_clim(min(lows), max(highs))
    image.set_norm(other.norm)
