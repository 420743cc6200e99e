"""The encoded columns of a categorical column."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

INFREQUENT, MISSING = "infrequent", "missing"


class Levels(NamedTuple):
    """The encoded columns of one categorical column.

    Parameters
    ----------
    known : list of str
        Levels with an encoded column each, sorted.
    other : list of str
        The encoded columns after these: "infrequent", "missing", both or neither.
    share : ndarray of shape (n_columns,)
        Share of the training rows in each encoded column. It encodes values for which there is
        no column.
    """

    known: list[str]
    other: list[str]
    share: NDArray[np.float64]

    @property
    def columns(self) -> list[str]:
        """Names of the encoded columns."""
        return [*self.known, *self.other]

    @classmethod
    def learn(
        cls,
        labels: list[str | None],
        codes: NDArray[np.int64],
        min_frequency: int,
        max_levels: int,
    ) -> Levels:
        """Choose the levels of training rows, given as labels and the index of each row's label."""
        count = Counter[str]()
        n_missing = 0
        for label, n in zip(labels, np.bincount(codes).tolist(), strict=True):
            if label is None:
                n_missing += n
            else:
                count[label] += n
        most_frequent = sorted(count, key=lambda label: (-count[label], label))[:max_levels]
        known = sorted(label for label in most_frequent if count[label] >= min_frequency)
        counts = [count[label] for label in known]
        rest = {INFREQUENT: count.total() - sum(counts), MISSING: n_missing}
        other = {name: n for name, n in rest.items() if n >= min_frequency}
        return cls(known, list(other), np.array([*counts, *other.values()]) / len(codes))

    def encode(self, labels: list[str | None], codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows of shape (n_samples, n_columns): indicators, or the shares."""
        column_of = {label: column for column, label in enumerate(self.known)}
        other = {name: column for column, name in enumerate(self.other, len(self.known))}
        unknown, missing = other.get(INFREQUENT, -1), other.get(MISSING, -1)
        of_labels = [
            missing if label is None else column_of.get(label, unknown) for label in labels
        ]
        columns = np.take(of_labels, codes)
        rows = np.zeros((len(codes), len(self.share)), dtype=np.float32)
        has_column = columns >= 0
        if has_column.all():
            rows[np.arange(len(rows)), columns] = 1
            return rows
        rows[has_column, columns[has_column]] = 1
        rows[~has_column] = self.share
        return rows

    def shares_of(self, labels: list[str | None], codes: NDArray[np.int64]) -> tuple[float, float]:
        """Return the shares of rows that are missing, and that have no level of their own."""
        known = {None, *self.known}
        is_missing = np.array([label is None for label in labels])
        is_infrequent = np.array([label not in known for label in labels])
        return is_missing[codes].mean(), is_infrequent[codes].mean()
