"""Folds of a table: on which rows which members train, and on which they are validated."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sklearn_fordes.estimators._validation import TrainingData


class Folds(NamedTuple):
    """K pairs of rows to train on and rows to validate on, as in cross-validation.

    Member i has pair ``i mod K``. K divides the number of members M, so that M / K members validate
    each row of a pair.

    Parameters
    ----------
    pairs : list of (ndarray of int, ndarray of int)
        Indices of training and validation rows.
    """

    pairs: list[tuple[NDArray[np.int64], NDArray[np.int64]]]

    @classmethod
    def deal(cls, y: NDArray[Any], n_folds: int, seed: int) -> Folds | None:
        """Deal rows to folds of equal size, each of which is left out and validated once.

        Parameters
        ----------
        y : ndarray of shape (N,)
            Classes if integers, which are stratified: the numbers of a class's rows in two folds
            differ by one at most. A class's only row is trained on by all members, and validated by
            none: a member that leaves it out would not know the class.
        n_folds : int
        seed : int

        Returns
        -------
        Folds or None
            None if there is not a row for each fold.
        """
        order = np.random.default_rng(seed).permutation(len(y))
        if y.dtype.kind == "i":
            order = order[np.argsort(y[order], kind="stable")]
            order = order[np.bincount(y)[y[order]] > 1]
        if len(order) < n_folds:
            return None
        rows, folds = np.arange(len(y)), [np.sort(order[k::n_folds]) for k in range(n_folds)]
        return cls([(np.delete(rows, fold), fold) for fold in folds])

    @classmethod
    def of_splitter(cls, splitter: Any, data: TrainingData, n_members: int) -> Folds:
        """Return the pairs that a cross-validation splitter makes of a table.

        Raises
        ------
        ValueError
            If members can't have them in equal numbers, or a part of a pair is empty.
        """
        pairs = [(np.asarray(t), np.asarray(v)) for t, v in splitter.split(data.X, data.y)]
        if not pairs or n_members % len(pairs):
            raise ValueError(
                f"Got validation_fraction={splitter!r}, which makes {len(pairs)} pairs of training "
                f"and validation rows, and n_members={n_members}, but expected a number of pairs "
                "that divides the number of members."
            )
        if not all(len(part) for pair in pairs for part in pair):
            raise ValueError(
                f"Got validation_fraction={splitter!r}, which makes a pair without training or "
                "without validation rows, but expected some of both."
            )
        return cls(pairs)

    def training_weights(self, weight: NDArray[np.float64], n_members: int) -> NDArray[np.float64]:
        """Return the weights with which members train on rows, zero for those they leave out.

        Parameters
        ----------
        weight : ndarray of shape (N,)
            Positive weights of the rows.
        n_members : int

        Returns
        -------
        ndarray of shape (N, n_members)
            Of mean one for each member, so that its step size is that of a fit on its rows alone.
        """
        columns = np.zeros((len(weight), len(self.pairs)))
        for column, (trained, _) in zip(columns.T, self.pairs, strict=True):
            column[trained] = weight[trained] / weight[trained].max()
        return np.tile(columns / columns.mean(0), n_members // len(self.pairs))

    def validators(self, n_members: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the validation rows of all pairs, and the members that validate them.

        Parameters
        ----------
        n_members : int

        Returns
        -------
        rows : ndarray of shape (V,)
            A row that several pairs validate is there as often.
        members : ndarray of shape (V, n_members / K)
        """
        rows = np.concatenate([validated for _, validated in self.pairs])
        pair = np.repeat(
            np.arange(len(self.pairs)), [len(validated) for _, validated in self.pairs]
        )
        first_members = np.arange(0, n_members, len(self.pairs))
        return rows, pair[:, None] + first_members
