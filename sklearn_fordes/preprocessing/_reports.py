"""What an encoder tells of columns and cells, as frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import OneToOneFeatureMixin
from sklearn.utils.validation import check_is_fitted

from sklearn_fordes.preprocessing._columns import CATEGORY, EMPTY, read_columns
from sklearn_fordes.preprocessing._layout import (
    are_clipped,
    are_numeric,
    read_kinds,
    shares_of_rows,
)
from sklearn_fordes.preprocessing._levels import MISSING, Levels
from sklearn_fordes.preprocessing._support import REASONS, CellSupport

_SHARES = ("missing", "infrequent", "clipped")


class Reports:
    """`report` and `unsupported` of the encoder."""

    kinds_: NDArray[np.str_]
    parts_: list[list[str]]
    low_: NDArray[np.float64]
    high_: NDArray[np.float64]
    has_gaps_: NDArray[np.bool_]
    training_shares_: NDArray[np.float64]

    @property
    def levels_(self) -> list[Levels]:
        """The encoded columns of each categorical column."""
        raise NotImplementedError

    def _checked(self, X: Any) -> Any:
        """Return a checked table."""
        raise NotImplementedError

    def support_parts(self, table: Any) -> Iterator[tuple[slice, Any, CellSupport]]:
        """Yield slices of checked rows, these rows, and why their cells are unknown."""
        raise NotImplementedError

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
            shares = shares_of_rows(self.kinds_, raw, self.levels_, categories)
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
