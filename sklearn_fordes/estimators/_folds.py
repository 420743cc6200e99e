"""Folds of a table: on which rows which members train, and on which they are validated."""

from __future__ import annotations

from copy import copy
from functools import partial
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import check_cv

from sklearn_fordes._warnings import warn
from sklearn_fordes.estimators._validation import TrainingData, naming_argument


class Folds(NamedTuple):
    """K pairs of rows to train on and rows to validate on, as in cross-validation.

    K divides the number of members M, so that M / K members validate each row of a pair. Members
    with an even index are dealt to the pairs first, and then the others: so each pair has members
    of both kinds, where every second one sees corrupted rows.

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
    def of_splitter(
        cls, splitter: Any, data: TrainingData, n_members: int, seed: int, groups: Any = None
    ) -> Folds:
        """Return the pairs that a cross-validation splitter makes of a table.

        Parameters
        ----------
        splitter : object with a method ``split``, or list of pairs
        data : TrainingData
        n_members : int
        seed : int
            Random state of a splitter that draws and has none of its own.
        groups : array-like of shape (N,), optional

        Raises
        ------
        ValueError
            If there is not a group for each row, the splitter refuses the rows, the pairs are not
            those of this table, members can't have them in equal numbers, or no member trains on
            some row.
        """
        name, n_rows = f"validation_fraction={splitter!r:.100}", len(data.y)
        given = f"Got {name}, which makes"
        if groups is not None:
            groups = _checked_groups(groups, n_rows)
        if isinstance(splitter, list | tuple):
            splitter = check_cv(splitter)
        if getattr(splitter, "random_state", seed) is None:
            splitter = copy(splitter)
            splitter.random_state = seed
        with naming_argument(name, partial(_advice_on_groups, splitter, groups)):
            given_groups = {} if groups is None else {"groups": groups}
            made = splitter.split(data.X, data.y, **given_groups)
            parts = [(trained, validated) for trained, validated in made]
        pairs = [
            (_indices(trained, n_rows, given), _indices(validated, n_rows, given))
            for trained, validated in parts
        ]
        if not pairs or n_members % len(pairs):
            raise ValueError(
                f"{given} {len(pairs)} pairs of training and validation rows, and "
                f"n_members={n_members}, but expected a number of pairs that divides the number of "
                "members."
            )
        if not all(len(part) for pair in pairs for part in pair):
            raise ValueError(
                f"{given} a pair without training or without validation rows, but expected some of "
                "both."
            )
        if any(len(np.intersect1d(*pair)) for pair in pairs):
            raise ValueError(
                f"{given} a pair that validates rows on which it trains, but expected others."
            )
        n_left_out = n_rows - len(np.unique(np.concatenate([trained for trained, _ in pairs])))
        if n_left_out and len(pairs) > 1:
            raise ValueError(
                f"{given} pairs that train no member on {n_left_out} of {n_rows} rows, but "
                "expected each row among the training rows of some pair. To validate on later "
                "rows, pass a single split, such as PredefinedSplit with 0 for the last rows and "
                "-1 for others."
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
        weights: NDArray[np.float64] = (columns / columns.mean(0))[:, self.pair_of(n_members)]
        return weights

    def pair_of(self, n_members: int) -> NDArray[np.int64]:
        """Return the pair of each member."""
        pair = np.empty(n_members, dtype=np.int64)
        pair[np.r_[0:n_members:2, 1:n_members:2]] = np.arange(n_members) % len(self.pairs)
        return pair

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
        members = np.argsort(self.pair_of(n_members), kind="stable").reshape(len(self.pairs), -1)
        return rows, members[pair]


def divided(
    rows: TrainingData, estimator: Any, n_given: int, seed: int, given: Any, groups: Any
) -> tuple[TrainingData, TrainingData | Folds | None]:
    """Return the rows to train on, and what validates: other rows, folds, or nothing.

    Parameters
    ----------
    rows : TrainingData
    estimator : BaseFoRDE
        Its parameters say how.
    n_given : int
        Number of rows that the user gave, those of weight zero among them.
    seed : int
    given : pair or None
        Table and targets to validate on.
    groups : array-like of shape (n_given,) or None
        For a splitter, which splits rows only if all of them were kept.

    Raises
    ------
    ValueError
        If the validation rows or the groups can't be used, or a splitter does not fit the rows or
        the number of members.
    """
    fraction, n_rows = estimator.validation_fraction, len(rows.y)
    is_split = estimator.early_stopping and given is None
    # A share of the rows or a word is no splitter.
    is_splitter = not isinstance(fraction, str | Real)
    if groups is not None and not (is_split and is_splitter):
        raise ValueError(
            "Got groups, but expected them only for a splitter as validation_fraction, with "
            "early_stopping and without X_val."
        )
    if given is not None:
        X_val, y_val = given
        if X_val is None or y_val is None:
            name = "y_val" if X_val is None else "X_val"
            raise ValueError(f"Got {name} alone, but expected X_val and y_val, or neither.")
        with naming_argument("X_val and y_val", partial(_advice_on_columns, X_val, estimator)):
            valid = estimator._rows(X_val, y_val).of_mean_weight_one()
        _warn_of_units(rows.y, valid.y)
        return rows, valid
    if not is_split:
        return rows, None
    held_out: TrainingData | None
    if not is_splitter:
        n_folds = estimator._n_folds(n_rows)
        dealt = Folds.deal(rows.y, n_folds, seed) if n_folds else None
        if dealt is not None:
            return rows, dealt
        rows, held_out = rows.hold_out(estimator._n_held_out(n_rows), seed)
    else:
        if n_rows < n_given:
            raise ValueError(
                f"Got validation_fraction={fraction!r:.100} and rows of weight zero, which are "
                "left out, but expected weights that keep the rows that it splits."
            )
        folds = Folds.of_splitter(fraction, rows, int(estimator.n_members), seed, groups)
        if len(folds.pairs) > 1:
            return rows, folds
        rows, held_out = map(rows.part, folds.pairs[0])
    return rows.of_mean_weight_one(), held_out and held_out.of_mean_weight_one()


def _advice_on_groups(splitter: Any, groups: Any) -> str:
    routing = getattr(splitter, "get_metadata_routing", None)
    if groups is not None or not (routing and routing().split.requests.get("groups") is True):
        return ""
    return (
        " Pass groups=… to fit; in a cross-validation enable metadata routing, and call "
        "set_fit_request(groups=True)."
    )


def _advice_on_columns(X_val: Any, estimator: Any) -> str:
    shape = getattr(X_val, "shape", None)
    if not isinstance(shape, tuple) or shape[1:2] in ((), (estimator.n_features_in_,)):
        return ""
    return (
        " If this is the last step of a pipeline: the steps before do not transform X_val. "
        'Pipeline(…, transform_input=["X_val"]) does, after '
        "sklearn.set_config(enable_metadata_routing=True) and set_fit_request(X_val=True, "
        "y_val=True), if X_val and y_val are given to the pipeline's fit."
    )


def _warn_of_units(y: NDArray[Any], y_val: NDArray[Any]) -> None:
    """Warn if most targets that validate lie beyond all targets to train on."""
    is_outside = (y_val < y.min()) | (y_val > y.max())
    if y.dtype.kind == "f" and is_outside.mean() > 0.5:
        warn(
            f"Most of y_val ({is_outside.mean():.0%}) lies beyond the range of y, so that its loss "
            "may say little. Are both of one unit? TransformedTargetRegressor transforms y alone."
        )


def _checked_groups(groups: Any, n_rows: int) -> NDArray[Any]:
    """Return the groups of the rows as an array of shape (n_rows,).

    Raises
    ------
    ValueError
        If there are not as many as rows, or some are missing.
    """
    if isinstance(groups, str):
        raise ValueError(
            f"Got groups={groups!r}, but expected an array of shape ({n_rows},), such as "
            f"X[{groups!r}]."
        )
    values = np.asarray(groups)
    if values.shape != (n_rows,):
        raise ValueError(f"Got groups of shape {values.shape}, but expected ({n_rows},).")
    # An array of text would hold NaN as a word.
    is_missing = pd.isna(np.asarray(groups, dtype=object))
    if isinstance(groups, np.ma.MaskedArray):
        is_missing = is_missing | np.ma.getmaskarray(groups)
    n_missing = int(np.count_nonzero(is_missing))
    if n_missing:
        raise ValueError(
            f"Got groups of which {n_missing} are missing, but expected one for every row."
        )
    return values


def _indices(part: Any, n_rows: int, given: str) -> NDArray[np.int64]:
    """Return a part of a pair as indices of rows."""
    rows = np.asarray(part)
    if rows.dtype == bool and rows.shape == (n_rows,):
        rows = np.flatnonzero(rows)
    is_whole = rows.ndim == 1 and (rows.dtype.kind in "iu" or not len(rows))
    if not is_whole or (len(rows) and not 0 <= rows.min() <= rows.max() < n_rows):
        raise ValueError(
            f"{given} parts that are no indices of {n_rows} rows, but expected integers from 0 to "
            f"{n_rows - 1}, or a mask: was it made for another table?"
        )
    return rows.astype(np.int64)
