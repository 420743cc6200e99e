"""A picture of how an estimator's scores change as the cells of a table go wrong."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from difflib import get_close_matches
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils import check_scalar

from sklearn_fordes.inspection._display import Display, Style, name_of
from sklearn_fordes.inspection._drift_scores import CLEAN, drift_scores, errors_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNITS = {
    "noise": "noise\n(standard deviations)",
    "swapped": "cells swapped\n(share)",
    "missing": "cells missing\n(share)",
}
# Labels of scores. Those of which more is better are marked.
LABELS = {
    "nll": "log loss (nats per row)",
    "accuracy": "accuracy (share of rows)",
    "ece": "calibration error",
    "brier": "Brier score",
    "crps": "CRPS (units of the target)",
    "rmse": "RMSE (units of the target)",
    "mae": "MAE (units of the target)",
    "r2": "R²",
    "coverage": "coverage of 90 % intervals",
    "width": "width of 90 % intervals (units of the target)",
    "interval_score": "interval score (units of the target)",
}
MORE_IS_BETTER = {"accuracy", "r2", "coverage"}
# The first that there is gets drawn.
DRAWN = ("nll", "crps", "rmse", "accuracy")
MARKERS = "os^Dv"


@dataclass(eq=False, repr=False)
class DriftReport(Display):
    """Scores against the severity of noise, swapped and missing cells, and by column.

    A panel for each kind of corruption shows a score of the whole table from clean rows on. With
    scores by column, bars below show how much the score changes if that column alone goes wrong,
    at the largest severity. Make it with `from_estimator`, or from a frame of `drift_scores`. To
    compare models, draw the others on the `axes_` of the first: lines are compared, and bars are of
    one model. `ax` is one axes for each panel, or for each kind alone, without bars, or a single
    one that is split. Further keyword arguments go to matplotlib's `plot` for the lines.

    Parameters
    ----------
    frame : pandas DataFrame
        As `drift_scores` returns it.
    name : str, default=None
        Name of the model, for the legend.
    max_columns : int, default=15
        Largest number of columns with a bar, those that the model suffers most from.

    Attributes
    ----------
    errors : dict of str to str
        What the estimator raised, by corruption.
    axes_ : ndarray of matplotlib Axes, of shape (n_kinds,)
        The panels of the lines.
    column_axes_ : ndarray of matplotlib Axes, of shape (n_kinds,) or (0,)
        The panels of the bars.
    lines_ : dict of str to matplotlib Line2D
        The line of each kind.
    bars_ : dict of str to matplotlib BarContainer
        The bars of each kind, from the column that matters least at the bottom.
    bands_ : dict of str to matplotlib PolyCollection
        One standard deviation over repeats around each line; empty with one repeat.
    ax_, figure_ : matplotlib Axes and Figure
        The first of the axes, and their figure.

    See Also
    --------
    drift_scores : The numbers alone, without matplotlib.
    ReliabilityDisplay : Calibration in more detail.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_fordes.inspection import DriftReport
    >>> X, y = load_iris(return_X_y=True)
    >>> model = LogisticRegression(max_iter=500).fit(X[::2], y[::2])
    >>> kinds = {"noise": [0.3, 1], "swapped": [0.1, 0.3]}
    >>> report = DriftReport.from_estimator(model, X[1::2], y[1::2], corruptions=kinds)
    >>> sorted(report.lines_)
    ['noise', 'swapped']
    """

    frame: pd.DataFrame
    _: KW_ONLY
    max_columns: int = 15

    @property
    def errors(self) -> dict[str, str]:
        """What the estimator raised, by corruption."""
        return errors_of(self.frame)

    def plot(
        self,
        ax: Any = None,
        *,
        score: str | None = None,
        name: str | None = None,
        legend: Any = True,
        **kwargs: Any,
    ) -> Self:
        """Draw the report.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of them, default=None
            Where to draw. None is a new figure. One axes is split. On the `axes_` of another report
            only lines are drawn, and no bars.
        score : str, default=None
            A score of the frame. None is the log loss, CRPS, RMSE or accuracy, the first there is.
        name : str, default=None
            Name of the model, for the legend. None is the name given before.
        legend : bool, str or tuple of two float, default=True
            Where the legend of the first panel is, as `loc` of matplotlib's `legend`. True is above
            the panel. False adds none, so that `figure_` can have one for all panels.
        **kwargs
            Passed to matplotlib's `plot` for the lines.

        Returns
        -------
        self : DriftReport
            The report itself.
        """
        if not self._kinds:
            raise ValueError(
                "Got scores of the clean rows alone, but expected some of a corruption."
            )
        known = [column for column in self.frame.columns if column in LABELS]
        self._score = next(x for x in DRAWN if x in known) if score is None else score
        if self._score not in known:
            raise ValueError(f"Got score={score!r}, but expected one of {', '.join(known)}.")
        return super().plot(ax, name=name, legend=legend, **kwargs)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        X_train: Any = None,
        corruptions: Mapping[str, ArrayLike] | None = None,
        columns: str | Sequence[Any] | None = None,
        n_repeats: int = 1,
        random_state: Any = 0,
        sample_weight: ArrayLike | None = None,
        error_score: float | str = np.nan,
        score: str | None = None,
        max_columns: int = 15,
        ax: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Score an estimator on a table, clean and corrupted, and draw the report.

        Parameters
        ----------
        estimator : estimator
            Any fitted classifier or regressor, or a pipeline or search that ends in one.
        X : data frame, array or list of lists of shape (n_samples, n_features)
            Raw rows that it wasn't trained on.
        y : array-like of shape (n_samples,)
            Their labels or targets.
        X_train, corruptions, columns, n_repeats, random_state : optional
            As in `drift_scores`.
        sample_weight, error_score : optional
            As in `drift_scores`.
        score : str, default=None
            The score to draw, as in `plot`.
        max_columns : int, default=15
            Largest number of columns with a bar.
        ax, name, **kwargs : optional
            As in `plot`. The name of the model is that of its class by default.

        Returns
        -------
        report : DriftReport
            The report, drawn.

        Raises
        ------
        TypeError
            If an argument is neither one of these nor a property of matplotlib's lines.
        ValueError
            If there is no such score.
        """
        cls._check_estimator(estimator)
        check_scalar(max_columns, "max_columns", Integral, min_val=1)
        cls._check_drawing(score, kwargs)
        frame = drift_scores(
            estimator,
            X,
            y,
            X_train=X_train,
            corruptions=corruptions,
            columns=columns,
            n_repeats=n_repeats,
            random_state=random_state,
            sample_weight=sample_weight,
            error_score=error_score,
        )
        name = name_of(estimator) if name is None else name
        return cls(frame, name=name, max_columns=max_columns).plot(ax, score=score, **kwargs)

    # ---- drawing

    @classmethod
    def _check_drawing(cls, score: str | None, style: Style) -> None:
        """Raise the errors of drawing before the models are scored, which may take long."""
        from matplotlib.lines import Line2D

        if score is not None and score not in LABELS:
            raise ValueError(f"Got score={score!r}, but expected one of {', '.join(LABELS)}.")
        own = {*inspect.signature(cls.from_estimator).parameters, "legend", "scalex", "scaley"}
        properties = {name[4:] for name in dir(Line2D) if name.startswith("set_")}
        for name in style.keys() - own - properties:
            similar = get_close_matches(name, sorted(own | properties), n=1)
            hint = f" Did you mean {similar[0]}?" if similar else ""
            raise TypeError(
                f"Got {name}, but expected an argument of {cls.__name__}.from_estimator or a "
                f"property of matplotlib's lines.{hint}"
            )

    @property
    def _kinds(self) -> list[str]:
        return [kind for kind in self.frame["corruption"].unique() if kind != CLEAN]

    def _prepare_axes(self, ax: Any) -> Axes:
        n_kinds, drawn = len(self._kinds), self._changes_by_column()
        lines_only = ax is not None and np.size(np.asarray(ax, dtype=object)) == n_kinds > 1
        n_rows = 1 if lines_only or drawn.empty else 2
        heights = [3.5, 1.0 + 0.23 * len(drawn)][:n_rows]
        panels = self._prepare_panels(
            ax,
            (n_rows, n_kinds),
            figsize=(3.3 * n_kinds, sum(heights)),
            height_ratios=heights,
            sharey="row",
            hspace=0.5,
        )
        self.axes_, self.column_axes_ = panels[:n_kinds], panels[n_kinds:]
        first: Axes = panels[0]
        return first

    def _draw(self, ax: Axes, name: str | None, style: Style) -> None:
        self.lines_: dict[str, Any] = {}
        self.bars_: dict[str, Any] = {}
        self.bands_: dict[str, Any] = {}
        for axes, kind in zip(self.axes_, self._kinds, strict=True):
            self._draw_line(axes, kind, name, {"label": name, **style})
            axes.set_xlabel(UNITS[kind])
        ax.set_ylabel(LABELS[self._score])
        if name:
            # Lines go anywhere in the panel, and above it none.
            self._draw_legend(ax, "lower left", (0, 1))
        if len(self.column_axes_):
            self._draw_bars(name)

    def _draw_line(self, ax: Axes, kind: str, name: str | None, style: Style) -> None:
        rows = self.frame[self.frame["column"].isna()]
        rows = rows[rows["corruption"].isin([CLEAN, kind])]
        groups = rows.groupby("severity")[self._score]
        mean, std = groups.mean(), groups.std()
        # A marker of its own tells models apart without their colours.
        marker = MARKERS[len(ax.lines) % len(MARKERS)]
        (line,) = ax.plot(mean.index, mean, **{"marker": marker, **style})
        self.lines_[kind] = line
        if std.notna().any():
            spread, color = std.fillna(0.0), line.get_color()
            band = ax.fill_between(mean.index, mean - spread, mean + spread, color=color, alpha=0.2)
            self.bands_[kind] = band
        severities = mean.index
        ax.set_xticks(severities, [CLEAN, *map("{:g}".format, severities[1:])])
        if refused := severities[mean.isna()].tolist():
            text = f"{name}\n" if name else ""
            text += f"refused at {', '.join(map('{:g}'.format, refused))}"
            # Outside, since lines of other models go anywhere; above what earlier models refused.
            place: Style = {"xycoords": "axes fraction", "textcoords": "offset points"}
            ax.annotate(text, (0, 1), (0, 4 + 30 * len(ax.texts)), va="bottom", **place)

    def _changes_by_column(self) -> pd.DataFrame:
        """Return how much the score changes, by column and kind, with the worst column last."""
        rows = self.frame[self.frame["column"].notna()]
        mean = rows.pivot_table(
            self._score, index="column", columns="corruption", dropna=False, sort=False
        )
        change = mean - self.frame[self._score].iloc[0]
        sign = 1 if self._score in MORE_IS_BETTER else -1
        # Of equal ones the first comes first, at the top.
        order = (sign * change.mean(axis=1)).argsort(kind="stable")
        return change.iloc[order[: self.max_columns][::-1]]

    def _draw_bars(self, name: str | None) -> None:
        change, n_columns = self._changes_by_column(), self.frame["column"].nunique()
        of_all = f" ({len(change)} of {n_columns})" if len(change) < n_columns else ""
        places = np.arange(len(change))
        low, high = np.nanmin([0, *change.min()]), np.nanmax([0, *change.max()])
        margin = 0.05 * (high - low) or 1.0
        prefix = f"{name}: " if name else ""
        label, _, unit = LABELS[self._score].partition(" (")
        for axes, kind in zip(self.column_axes_, self._kinds, strict=True):
            color, severity = self.lines_[kind].get_color(), self.lines_[kind].get_xdata()[-1]
            self.bars_[kind] = axes.barh(places, change[kind], color=color)
            axes.axvline(0, color="black", linewidth=0.8)
            axes.set_yticks(places, [str(column) for column in change.index])
            # One scale, since the changes have one unit.
            axes.set(
                xlim=(low - margin, high + margin),
                xlabel=f"change of {label}" + (f"\n({unit}" if unit else ""),
            )
            axes.set_title(f"one column:\n{kind} {severity:g}", fontsize="medium")
            # More labels would overlap in panels of this width.
            axes.locator_params(axis="x", nbins=3)
            if change[kind].isna().all():
                axes.text(0.5, 0.5, "refused", ha="center", transform=axes.transAxes)
        self.column_axes_[0].set_ylabel(f"{prefix}column{of_all}")
