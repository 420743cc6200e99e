"""Which columns the members rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_scalar

from sklearn_fordes.inspection._display import (
    Array,
    Display,
    Style,
    final_step,
    find_position,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(eq=False, repr=False)
class ImportanceDisplay(Display):
    """Importances of features as bars: the mean over members, and the members' range.

    A line reaches from the least to the largest importance that a feature has for a member. Make it
    with `from_estimator` or `from_importances`. To compare two models, pass the `features_` of the
    first to the second, on axes with ``sharex=True``. Further keyword arguments go to matplotlib's
    `barh`.

    Parameters
    ----------
    importances : ndarray of shape (n_members, n_features)
        Importance of each feature for each member.
    feature_names : ndarray of shape (n_features,)
        Names of the features.
    name : str, default=None
        Name of the model, for the title.
    max_features : int, default=20
        Largest number of features drawn, those of the largest mean.
    features : array-like of str or int, default=None
        Names, or else positions, of the features to draw, from the top. None is those of the
        largest mean.

    Attributes
    ----------
    features_ : ndarray
        Names of the features drawn, from the top.
    bars_ : matplotlib BarContainer
        The bars, from the least important at the bottom to the most important.
    ax_, figure_ : matplotlib Axes and Figure
        Where it is drawn.

    See Also
    --------
    DiversityDisplay : How alike the members' input gradients are.

    Examples
    --------
    >>> from sklearn_fordes.inspection import ImportanceDisplay
    >>> members = [[0.7, 0.2, 0.1], [0.5, 0.1, 0.4]]
    >>> display = ImportanceDisplay.from_importances(members, feature_names=["a", "b", "c"])
    >>> [label.get_text() for label in display.ax_.get_yticklabels()]
    ['b', 'c', 'a']
    """

    importances: Array
    feature_names: NDArray[Any]
    _: KW_ONLY
    max_features: int = 20
    features: Sequence[Any] | NDArray[Any] | None = None

    def __post_init__(self) -> None:
        self._order: NDArray[np.int64] | None = None
        if self.features is not None:
            names = self.feature_names.tolist()
            self._order = np.array([find_position(names, feature) for feature in self.features])

    def _draw(self, ax: Axes, name: str | None, style: Style) -> None:
        mean, order = self.importances.mean(axis=0), self._order
        if order is None:
            # Of equal ones the first comes first, at the top.
            order = np.argsort(-mean, kind="stable")[: self.max_features]
        drawn, self.features_ = order[::-1], self.feature_names[order]
        length, places = mean[drawn], np.arange(len(drawn))
        merged: Style = dict(style)
        if len(self.importances) > 1:
            members = self.importances[:, drawn]
            # Rounding may leave the mean of equal numbers outside of their range.
            spread = np.stack([length - members.min(axis=0), members.max(axis=0) - length])
            merged = {"xerr": spread.clip(min=0), "ecolor": "black", "capsize": 2}
            merged |= {"error_kw": {"elinewidth": 1.2}, **style}
        self.bars_: Any = ax.barh(places, length, **merged)
        n_features = len(mean)
        of_all = f" ({len(drawn)} of {n_features})" if len(drawn) < n_features else ""
        ax.set_yticks(places, [str(label) for label in self.feature_names[drawn]])
        notes = ["share"] if np.isclose(mean.sum(), 1) else []
        if self.bars_.errorbar is not None:
            notes.append(f"line: range of {len(self.importances)} members")
        label = f"importance ({'; '.join(notes)})" if notes else "importance"
        ax.set(xlabel=label, ylabel=f"feature{of_all}")
        if name:
            ax.set_title(name)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        max_features: int = 20,
        features: Sequence[Any] | NDArray[Any] | None = None,
        feature_names: ArrayLike | None = None,
        ax: Axes | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the importances of an estimator's features.

        Parameters
        ----------
        estimator : estimator
            A fitted ensemble with `member_importances_`, any fitted estimator with
            `feature_importances_`, or a pipeline that ends in one.
        max_features : int, default=20
            Largest number of features drawn, those of the largest mean.
        features : array-like of str or int, default=None
            The features to draw, by name or else by index, from the top. None is those of the
            largest mean.
        feature_names : array-like of shape (n_features,), default=None
            Names of the features. None is the names that the estimator (the last step of a
            pipeline) was fitted with, or positions if there were none.
        ax, name, **kwargs : optional
            As in `plot`.

        Returns
        -------
        display : ImportanceDisplay
            The display, drawn.
        """
        cls._check_estimator(estimator)
        model, _ = final_step(estimator)
        # Without members (in a forest, say) or importances, the second attribute says so.
        importances = getattr(model, "member_importances_", None)
        if importances is None:
            importances = [model.feature_importances_]
        if feature_names is None:
            feature_names = getattr(model, "feature_names_in_", None)
        return cls.from_importances(
            importances,
            feature_names=feature_names,
            max_features=max_features,
            features=features,
            ax=ax,
            name=name,
            **kwargs,
        )

    @classmethod
    def from_importances(
        cls,
        member_importances: ArrayLike,
        *,
        feature_names: ArrayLike | None = None,
        max_features: int = 20,
        features: Sequence[Any] | NDArray[Any] | None = None,
        ax: Axes | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw importances that are known.

        Parameters
        ----------
        member_importances : array-like of shape (n_members, n_features)
            Importance of each feature for each member.
        feature_names : array-like of shape (n_features,), default=None
            Names of the features. None is their positions.
        max_features : int, default=20
            Largest number of features drawn, those of the largest mean.
        features : array-like of str or int, default=None
            The features to draw, by name or else by index, from the top. None is those of the
            largest mean.
        ax, name, **kwargs : optional
            As in `plot`.

        Returns
        -------
        display : ImportanceDisplay
            The display, drawn.
        """
        check_scalar(max_features, "max_features", Integral, min_val=1)
        importances = np.asarray(member_importances, dtype=np.float64)
        if importances.ndim != 2 or not importances.size:
            raise ValueError(
                f"Got member_importances of shape {importances.shape}, but expected (n_members, "
                "n_features)."
            )
        n_features = importances.shape[1]
        if feature_names is None:
            feature_names = [f"feature {position}" for position in range(n_features)]
        names = np.asarray(feature_names, dtype=object)
        if names.shape != (n_features,):
            raise ValueError(
                f"Got feature_names of shape {names.shape}, but expected a name for each of "
                f"{n_features} features."
            )
        is_list = features is None or (np.ndim(features) == 1 and len(features) > 0)
        if not is_list:
            raise ValueError(f"Got features={features!r}, but expected a list of one or more.")
        return cls(
            importances, names, max_features=int(max_features), features=features, name=name
        ).plot(ax, **kwargs)
