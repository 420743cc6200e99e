"""What an encoder tells of columns and cells."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import OneToOneFeatureMixin
from sklearn.utils.validation import check_is_fitted

from sklearn_fordes._rows import row_parts
from sklearn_fordes.preprocessing._columns import CATEGORY, EMPTY, read_columns
from sklearn_fordes.preprocessing._layout import (
    are_clipped,
    are_numeric,
    read_kinds,
    shares_of_rows,
)
from sklearn_fordes.preprocessing._levels import MISSING, Levels
from sklearn_fordes.preprocessing._numbers import with_parts
from sklearn_fordes.preprocessing._support import (
    REASONS,
    CellSupport,
    of_columns,
    overshoot,
    support_of,
    surprise_of_rows,
)

# Cells whose support is found at once: half a gigabyte of arrays.
_CELLS_AT_ONCE = 1 << 23
_SHARES = ("missing", "infrequent", "clipped")


class Reports:
    """`report`, `unsupported` and what they are made of."""

    kinds_: NDArray[np.str_]
    parts_: list[list[str]]
    low_: NDArray[np.float64]
    high_: NDArray[np.float64]
    has_gaps_: NDArray[np.bool_]
    training_shares_: NDArray[np.float64]
    center_: NDArray[np.float64]
    scale_: NDArray[np.float64]
    is_long_tailed_: NDArray[np.bool_]
    n_samples_seen_: int
    known_levels_: list[list[str]]
    other_levels_: list[list[str]]
    level_shares_: list[NDArray[np.float64]]
    rare_levels_: list[list[str]]
    unseen_shares_: NDArray[np.float64]
    ordinary_surprise_: NDArray[np.float64]
    column_map_: NDArray[np.int64]

    @property
    def levels_(self) -> list[Levels]:
        """The encoded columns of each categorical column."""
        stored = zip(self.known_levels_, self.other_levels_, self.level_shares_, strict=True)
        return [Levels(*column) for column in stored]

    @abstractmethod
    def _checked(self, X: Any) -> Any:
        """Return a checked table."""

    def unsupported(self, X: Any) -> pd.DataFrame:
        """List the cells that the training rows say nothing of.

        Parameters
        ----------
        X : data frame or array-like of shape (n_samples, n_features)

        Returns
        -------
        DataFrame
            A line for each cell that is missing, of a level never seen, or beyond the training
            range, row by row: ``row`` (its position), ``column`` (its name), ``reason``
            ("missing", "unseen", "below" or "above"), ``degree`` (how far it is unknown, in [0, 1]:
            1, or ``d² / (d² + 9)`` for a number d spreads beyond the range) and ``surprise`` (in
            nats: the degree times −log of the share of such cells in training). Of an empty column,
            and by an encoder of a file of an older version, no cell is listed; of a date that never
            changes in training, gaps alone. In a column of more than a thousand infrequent levels
            each of these counts as unseen.
        """
        return self.unsupported_checked(self._checked(X))

    def unsupported_checked(self, table: Any) -> pd.DataFrame:
        """List the cells as `unsupported`, of rows whose columns were checked already.

        Parameters
        ----------
        table : data frame or ndarray of shape (n_samples, n_features)
            As `as_table` returns it, with the columns of the training rows in their order.

        Returns
        -------
        DataFrame
            As from `unsupported`.
        """
        found = []
        for part, _, support in self.support_parts(table):
            cells = np.nonzero(support.reason)
            values = (array[cells] for array in support)
            found.append((cells[0] + part.start, cells[1], *values))
        rows, columns, reason, degree, surprise = map(np.concatenate, zip(*found, strict=True))
        names = np.asarray(OneToOneFeatureMixin.get_feature_names_out(self), dtype=object)
        return pd.DataFrame(
            {
                "row": rows,
                "column": names[columns],
                "reason": np.array(REASONS, dtype=object)[reason],
                "degree": degree,
                "surprise": surprise,
            }
        )

    def report(self, X: Any = None) -> pd.DataFrame:
        """Say what became of each column, in the training rows or in others.

        Parameters
        ----------
        X : data frame or array-like of shape (n_samples, n_features), optional
            By default the training rows.

        Returns
        -------
        DataFrame
            A row for each input column, named by the index: its kind, the encoded columns that it
            became, and the shares of the rows that are missing, infrequent (in training, or never
            seen there) and clipped to the training range. Values of an empty column are not read,
            so that nothing is known of them.
        """
        check_is_fitted(self)
        shares = self.training_shares_
        if X is not None:
            raw, categories = read_kinds(read_columns(self._checked(X)), self.kinds_)
            shares = shares_of_rows(
                self.kinds_, np.isnan(raw).mean(axis=0), self.levels_, categories
            )
            is_clipped = are_clipped(raw, self.parts_, self.low_, self.high_)
            shares[2, are_numeric(self.kinds_)] = is_clipped.mean(axis=0)
        return pd.DataFrame(
            {
                "kind": self.kinds_,
                "encoded_as": self._became(),
                **dict(zip(_SHARES, shares, strict=True)),
            },
            index=pd.Index(OneToOneFeatureMixin.get_feature_names_out(self), name="column"),
        )

    def _became(self) -> list[str]:
        """Describe the encoded columns of each input column."""
        levels, numbers = iter(self.levels_), zip(self.parts_, self.has_gaps_, strict=True)
        became = []
        for kind in self.kinds_:
            if kind == CATEGORY:
                known, other, _ = next(levels)
                names = [f"{len(known)} levels", *other]
            else:
                parts, has_gaps = ([], False) if kind == EMPTY else next(numbers)
                names = [part or kind for part in parts] + [MISSING] * bool(has_gaps)
            became.append(", ".join(names) or "nothing")
        return became

    def support_checked(self, table: Any) -> CellSupport:
        """Return why, and how far, each cell of checked rows is unknown.

        Parameters
        ----------
        table : data frame or ndarray of shape (n_samples, n_features)
            As `as_table` returns it, with the columns of the training rows in their order.

        Returns
        -------
        CellSupport
            Arrays of shape (n_samples, n_features).
        """
        raw, categories = read_kinds(read_columns(table), self.kinds_)
        if not self.n_samples_seen_:
            return CellSupport.of_known_cells(len(raw), len(self.kinds_))
        return support_of(
            self.kinds_,
            np.isnan(raw),
            self._distance(with_parts(raw, self.parts_)),
            [column.labels for column in categories],
            [[*a, *b] for a, b in zip(self.known_levels_, self.rare_levels_, strict=True)],
            missing_share=self.training_shares_[0],
            unseen_share=self.unseen_shares_,
            n_rows=self.n_samples_seen_,
        )

    def support_parts(self, table: Any) -> Iterator[tuple[slice, Any, CellSupport]]:
        """Yield slices of checked rows, these rows, and why their cells are unknown.

        Parameters
        ----------
        table : data frame or ndarray of shape (n_samples, n_features)
            As for `support_checked`. Memory does not grow with the number of its rows.
        """
        for part, rows in row_parts(table, max(1, _CELLS_AT_ONCE // len(self.kinds_))):
            yield part, rows, self.support_checked(rows)

    def surprise_of_rows(self, support: CellSupport) -> NDArray[np.float64]:
        """Return how surprising rows are, in nats, beyond what is ordinary in training rows.

        Parameters
        ----------
        support : CellSupport
            From `support_checked`.

        Returns
        -------
        ndarray of shape (n_samples,)
            Sum of the surprise of cells, at gaps and unseen levels and at numbers beyond the range
            as far as each exceeds `ordinary_surprise_`.
        """
        return surprise_of_rows(support, self.ordinary_surprise_)

    @property
    def is_informative_(self) -> NDArray[np.bool_]:
        """Mask of the columns that are encoded, and not with one code for whatever they hold.

        A column of names has one, in which no name is frequent.
        """
        is_informative = np.isin(np.arange(len(self.kinds_)), self.column_map_)
        largest_shares = np.array([column.share.max(initial=0) for column in self.levels_])
        is_informative[np.equal(self.kinds_, CATEGORY)] &= largest_shares < 1
        return is_informative

    def _distance(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return by how many spreads numeric columns lie beyond their training range."""
        learnt = (self.low_, self.high_, self.center_, self.scale_, self.is_long_tailed_)
        return of_columns(overshoot(numbers, *learnt), self.parts_)
