"""Which columns of rows hold cells that the training rows say nothing of."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_scalar
from sklearn.utils.validation import _num_samples

from sklearn_fordes.inspection._display import Array, Display, Style, check_measure, final_step

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What is drawn, by measure.
LABELS = {"share": "share of rows", "surprise": "mean surprise (nats per row)"}
# Colours of Okabe and Ito, which the colour-blind tell apart.
REASONS = {
    "missing": ("missing", "#999999"),
    "unseen": ("of an unseen level", "#e69f00"),
    "below": ("below the range", "#56b4e9"),
    "above": ("above the range", "#0072b2"),
}
REPORT = ("row", "column", "reason", "surprise")


@dataclass(eq=False, repr=False)
class SupportDisplay(Display):
    """Cells that the training rows say nothing of, by column and by reason, as stacked bars.

    A bar is as long as the share of rows whose cell is missing, of an unseen level, or below or
    above the training range; or as the mean surprise at these cells. Make it with `from_estimator`
    or `from_report`. Further keyword arguments go to matplotlib's `barh`.

    Parameters
    ----------
    lengths : ndarray of shape (n_columns, 4)
        What is drawn, for the reasons "missing", "unseen", "below" and "above".
    columns : ndarray of shape (n_columns,)
        Names of the columns.
    name : str, default=None
        Name of the rows or of the model, for the title.
    measure : {"share", "surprise"}, default="share"
        What the lengths are.
    max_columns : int, default=15
        Largest number of columns drawn, those of the longest bars.

    Attributes
    ----------
    bars_ : dict of str to matplotlib BarContainer
        The bars of each reason that occurs, from the shortest at the bottom to the longest.
    ax_, figure_ : matplotlib Axes and Figure
        Where it is drawn.

    See Also
    --------
    IntervalDisplay : How a regressor's interval changes as one column leaves its range.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_fordes.inspection import SupportDisplay
    >>> report = pd.DataFrame(
    ...     {
    ...         "row": [0, 0, 3],
    ...         "column": ["age", "city", "city"],
    ...         "reason": ["above", "missing", "unseen"],
    ...         "surprise": [2.5, 1.0, 3.0],
    ...     }
    ... )
    >>> display = SupportDisplay.from_report(report, n_rows=4)
    >>> display.columns, display.lengths.sum(axis=1)
    (array(['age', 'city'], dtype=object), array([0.25, 0.5 ]))
    """

    lengths: Array
    columns: NDArray[Any]
    _: KW_ONLY
    measure: str = "share"
    max_columns: int = 15

    def _draw(self, ax: Axes, name: str | None, style: Style) -> None:
        # Of equal ones the first comes first, at the top.
        order = np.argsort(-self.lengths.sum(axis=1), kind="stable")
        drawn = order[: self.max_columns][::-1]
        places, left = np.arange(len(drawn)), np.zeros(len(drawn))
        self.bars_: dict[str, Any] = {}
        for (reason, (label, color)), values in zip(REASONS.items(), self.lengths.T, strict=True):
            if values[drawn].any():
                merged: Style = {"color": color, "label": label, **style}
                self.bars_[reason] = ax.barh(places, values[drawn], left=left, **merged)
                for bar in self.bars_[reason]:
                    # The end of the longest bar isn't the end of the axis.
                    bar.sticky_edges.x[:] = [0]
                left = left + values[drawn]
        n_columns = len(self.columns)
        of_all = f" ({len(drawn)} of {n_columns})" if len(drawn) < n_columns else ""
        ax.set_yticks(places, [str(column) for column in self.columns[drawn]])
        ax.set(xlabel=LABELS[self.measure], ylabel=f"column{of_all}")
        if self.bars_:
            self._draw_legend(ax, "lower right", title="cell is")
        else:
            ax.text(0.5, 0.5, "every cell is known", transform=ax.transAxes, ha="center")
        if name:
            ax.set_title(name)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        measure: str = "share",
        max_columns: int = 15,
        ax: Axes | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw which cells of rows an estimator's training rows say nothing of.

        Parameters
        ----------
        estimator : estimator
            A fitted classifier or regressor with `ood_report`, or a pipeline that ends in one, of
            which the columns are those that reach its last step.
        X : array-like or data frame of shape (n_samples, n_features)
            Rows to look at.
        measure : {"share", "surprise"}, default="share"
            The share of rows with such a cell, or the surprise at these cells, in nats, as a mean
            over all rows.
        max_columns : int, default=15
            Largest number of columns drawn, those of the longest bars.
        ax, name, **kwargs : optional
            As in `plot`.

        Returns
        -------
        display : SupportDisplay
            The display, drawn.
        """
        cls._check_estimator(estimator)
        model, rows = final_step(estimator, X)
        return cls.from_report(
            model.ood_report(rows),
            _num_samples(rows),
            measure=measure,
            max_columns=max_columns,
            ax=ax,
            name=name,
            **kwargs,
        )

    @classmethod
    def from_report(
        cls,
        report: Any,
        n_rows: int,
        *,
        measure: str = "share",
        max_columns: int = 15,
        ax: Axes | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw a report of cells.

        Parameters
        ----------
        report : data frame
            A line for each cell, as of `ood_report`: its row (the position), column, reason and
            surprise.
        n_rows : int
            Number of rows that were reported on, those without such a cell among them.
        measure : {"share", "surprise"}, default="share"
            The share of rows with such a cell, or the surprise at these cells, in nats, as a mean
            over all rows.
        max_columns : int, default=15
            Largest number of columns drawn, those of the longest bars.
        ax, name, **kwargs : optional
            As in `plot`.

        Returns
        -------
        display : SupportDisplay
            The display, drawn.
        """
        check_measure(measure, tuple(LABELS))
        check_scalar(max_columns, "max_columns", Integral, min_val=1)
        check_scalar(n_rows, "n_rows", Integral, min_val=1)
        lacking = [key for key in REPORT if key not in report.columns]
        if lacking:
            raise ValueError(
                f"Got a report without {', '.join(lacking)}, but expected the columns "
                f"{', '.join(REPORT)}."
            )
        rows, names, reasons, surprise = (np.asarray(report[key]) for key in REPORT)
        unknown = sorted(set(reasons) - REASONS.keys())
        if unknown:
            raise ValueError(
                f"Got the reasons {unknown}, but expected some of {', '.join(REASONS)}."
            )
        if len(rows) and not 0 <= rows.min() <= rows.max() < n_rows:
            raise ValueError(
                f"Got cells of the rows {rows.min()} to {rows.max()}, but expected positions below "
                f"n_rows={n_rows}."
            )
        columns, column = np.unique(names.astype(object), return_inverse=True)
        lengths = np.zeros((len(columns), len(REASONS)))
        reason = np.array([*map(list(REASONS).index, reasons)], dtype=np.int64)
        cells = np.ones(len(rows)) if measure == "share" else surprise.astype(np.float64)
        np.add.at(lengths, (column, reason), cells / n_rows)
        return cls(lengths, columns, measure=measure, max_columns=int(max_columns), name=name).plot(
            ax, **kwargs
        )
