"""Tables of any container as columns to change, and the way back to the container."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import issparse

from sklearn_fordes.inspection._display import Array

Mask = NDArray[np.bool_]


class Table:
    """The columns of a pandas frame, and what corruptions do to them; nothing is changed in place.

    Parameters
    ----------
    frame : data frame
    """

    # What an error calls it.
    container = "pandas frame"

    def __init__(self, frame: Any) -> None:
        if 0 in frame.shape:
            raise ValueError(
                f"Got X of shape {frame.shape}, but expected at least one row and one column."
            )
        self.frame = frame
        self.names: list[Any] = list(frame.columns)
        self.columns: list[Any] = self._columns()

    def __len__(self) -> int:
        return len(self.frame)

    def aligned(self, train: Table) -> Table:
        """Return training rows with the columns of this table, in their order."""
        if train.container != self.container:
            raise TypeError(
                f"Got X_train as {train.container}, but expected {self.container}, as X is."
            )
        if train.names == self.names:
            return train
        # A name that is there twice does not say which column is meant.
        if any(train.names.count(name) != 1 for name in self.names):
            raise ValueError(
                f"Got X_train with columns {train.names}, but expected those of X, {self.names}."
            )
        return type(self)(train.frame[self.names])

    def with_changes(self, changes: Mapping[int, Any]) -> Any:
        """Return the table in its container, with some columns replaced, by position."""
        columns = [changes.get(place, column) for place, column in enumerate(self.columns)]
        return self._rebuilt(columns)

    def is_numeric(self, column: Any) -> bool:
        """Return whether a column holds numbers; truth values and categories don't count."""
        types = pd.api.types
        return bool(types.is_numeric_dtype(column) and not types.is_bool_dtype(column))

    def std(self, column: Any) -> float:
        """Return the standard deviation of a column; 0 if it has none."""
        std = column.std()
        return 0.0 if pd.isna(std) else float(std)

    def plus(self, column: Any, values: Array) -> Any:
        """Return the sum of a column and of floats."""
        total = column + values
        # Single precision stays single.
        return total.astype(column.dtype) if pd.api.types.is_float_dtype(column) else total

    def take(self, column: Any, rows: NDArray[np.int64]) -> Any:
        """Return the values at some rows."""
        return column.iloc[rows]

    def where(self, column: Any, keep: Mask, others: Any) -> Any:
        """Return a column with the values of another one where it isn't kept."""
        if isinstance(column.dtype, pd.CategoricalDtype) and column.dtype != others.dtype:
            values = pd.Series(others.astype(object).to_numpy())
            new = pd.Index(values.dropna().unique()).difference(column.cat.categories, sort=False)
            column = column.cat.add_categories(new)
            others = values.astype(column.dtype)
        return column.where(keep, others.set_axis(column.index))

    def blank(self, column: Any, is_blank: Mask) -> Any:
        """Return a column with gaps."""
        return column.mask(is_blank)

    def _columns(self) -> list[Any]:
        return [self.frame.iloc[:, place] for place in range(self.frame.shape[1])]

    def _rebuilt(self, columns: list[Any]) -> Any:
        # By position, because names may be there twice.
        frame = pd.DataFrame(dict(enumerate(columns)), index=self.frame.index)
        frame.columns = self.frame.columns
        return frame


class OtherFrame(Table):
    """The same for frames of other libraries, by narwhals."""

    def __init__(self, frame: Any) -> None:
        # Frames of two libraries don't mix.
        self.container = f"{type(frame).__module__.partition('.')[0]} frame"
        super().__init__(nw.from_native(frame, eager_only=True))

    def _columns(self) -> list[Any]:
        return list(self.frame.iter_columns())

    def is_numeric(self, column: Any) -> bool:
        return bool(column.dtype.is_numeric())

    def std(self, column: Any) -> float:
        # In floats, NaN is a gap as null is.
        return super().std(pd.Series(column.to_numpy()).astype(np.float64))

    def plus(self, column: Any, values: Array) -> Any:
        total = column + self._like(column, values)
        return total.cast(column.dtype) if column.dtype.is_float() else total

    def take(self, column: Any, rows: NDArray[np.int64]) -> Any:
        return column[rows.tolist()]

    def where(self, column: Any, keep: Mask, others: Any) -> Any:
        # A condition finds a type for both, as whole numbers and floats need.
        return self._chosen(column, keep, others=others)

    def blank(self, column: Any, is_blank: Mask) -> Any:
        return self._chosen(column, ~is_blank)

    def _chosen(self, column: Any, keep: Mask, **others: Any) -> Any:
        parts = {"keep": self._like(column, keep), **others}
        frame = column.alias("column").to_frame()
        frame = frame.with_columns(*(part.alias(name) for name, part in parts.items()))
        kept = nw.when(nw.col("keep")).then(nw.col("column"))
        chosen = kept.otherwise(nw.col("others")) if others else kept
        return frame.select(chosen.alias("column"))["column"].alias(column.name)

    def _like(self, column: Any, values: NDArray[Any]) -> Any:
        return nw.new_series(column.name, values, backend=column.implementation)

    def _rebuilt(self, columns: list[Any]) -> Any:
        return self.frame.with_columns(*columns).to_native()


class Rows(Table):
    """The same for arrays and lists of rows: each column has the type of its own values.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
    """

    container = "array"

    def __init__(self, X: Any) -> None:
        if issparse(X):
            raise TypeError("Got a sparse X, but expected a dense one: call toarray().")
        self.dtype = None
        if isinstance(X, list | tuple):
            rows = [np.asarray(row, dtype=object) for row in X]
            shapes = {row.shape for row in rows}
            shape = (len(rows), *(shapes.pop() if len(shapes) == 1 else ()))
        else:
            rows = X = np.asanyarray(X)
            shape, self.dtype = X.shape, X.dtype
        if len(shape) != 2:
            raise ValueError(f"Got X of shape {shape}, but expected (n_samples, n_features).")
        super().__init__(pd.DataFrame(rows).infer_objects())

    def aligned(self, train: Table) -> Table:
        if isinstance(train, Rows) and len(train.names) != len(self.names):
            raise ValueError(
                f"Got X_train with {len(train.names)} columns, but expected {len(self.names)}, as "
                "X has."
            )
        return super().aligned(train)

    def _rebuilt(self, columns: list[Any]) -> Any:
        if self.dtype is None:
            return [list(row) for row in zip(*(c.tolist() for c in columns), strict=True)]
        if self.dtype.kind in "biufmM":
            # A truth value with gaps is an object in pandas.
            arrays = [c.to_numpy(np.float64 if c.dtype == object else None) for c in columns]
            array = np.column_stack(arrays)
            return array.astype(self.dtype, copy=False) if self.dtype.kind == "f" else array
        frame = super()._rebuilt(columns)
        has_gaps = self.dtype.kind in "US" and frame.isna().to_numpy().any()
        return frame.to_numpy(object).astype(object if has_gaps else self.dtype, copy=False)


def read_table(X: Any) -> Table:
    """Return the columns of a table in any container."""
    X = nw.to_native(X, pass_through=True)
    if isinstance(X, pd.DataFrame):
        return Table(X)
    return OtherFrame(X) if nw.dependencies.is_into_dataframe(X) else Rows(X)
