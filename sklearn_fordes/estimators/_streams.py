"""Fits and predictions of data that are read in blocks, and tables whose columns are named."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import reduce, wraps
from numbers import Integral, Real
from typing import Any, TypeVar, cast

import narwhals as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import is_regressor
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from sklearn_fordes import inference, particles, streaming, training
from sklearn_fordes._progress import Progress
from sklearn_fordes._warnings import warn
from sklearn_fordes.estimators._folds import Folds, divided
from sklearn_fordes.estimators._validation import (
    TrainingData,
    naming_argument,
    training_data,
)
from sklearn_fordes.preprocessing import as_table, native_table, row_hashes

_Method = TypeVar("_Method", bound=Callable[..., Any])
# The share of the rows that validate by default.
_HELD_OUT = 0.1
# The default of `BatchIterator`.
_BUFFER_ROWS = 65_536


def rows_of(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: Any,
    given: Any,
    groups: Any,
    seeds: list[int],
    communicator: particles.Communicator,
) -> tuple[TrainingData, TrainingData | Folds | None, Stream | None]:
    """Return the rows to train on, what validates, and what reads a source.

    Parameters
    ----------
    estimator : BaseFoRDE
        A copy, of which this sets what the rows say of columns and targets.
    X, y, sample_weight, groups : as given to `fit`
    given : pair
        ``X_val`` and ``y_val``.
    seeds : list of two int
        Of the rows that validate, and of the order of a source's rows.
    communicator : Communicator
        Reaches processes that train together. Those that share rows read a share of a source.

    Returns
    -------
    rows : TrainingData
        Those of a source are a sample.
    valid : TrainingData, Folds or None
    stream : Stream or None
        What reads all rows of a source.
    """
    given = None if given[0] is None and given[1] is None else given
    with communicator.together():
        if given is not None and streaming.is_stream(given[0]):
            raise ValueError(
                f"Got a {type(given[0]).__name__} as X_val, which is read in blocks, but expected "
                "a table of the rows that validate."
            )
        if given is not None and isinstance(given[1], str):
            with naming_argument("X_val and y_val"):
                given = separated(*given)[:2]
        blocks = streaming.opened(X, y, sample_weight)
        if blocks is None:
            X, y, sample_weight = separated(X, y, sample_weight)
            rows = estimator._rows(X, y, sample_weight).of_mean_weight_one()
            return (
                *divided(rows, estimator, len(np.asarray(y)), seeds[0], given, groups),
                None,
            )
        _expect_settings(estimator, blocks, groups)
    return _sampled(estimator, blocks, seeds, given, communicator)


def separated(X: Any, y: Any, sample_weight: Any = None) -> tuple[Any, Any, Any]:
    """Return a table, its targets and weights, if `y` and `sample_weight` name its columns.

    Parameters
    ----------
    X : data frame, if y is text
    y, sample_weight : str, or as for a table without them

    Raises
    ------
    ValueError
        If there is no such column, or X is no frame.
    """
    names = [name for name in (y, sample_weight) if isinstance(name, str)]
    if not names:
        return X, y, sample_weight
    table = native_table(X)
    if not nw.dependencies.is_into_dataframe(table):
        as_table(table, accept_sparse=True)  # It says what to pass in place of what is no table.
        raise ValueError(
            f"Got {names[0]!r} as the name of a column of a {type(X).__name__}, but expected names "
            f"with a frame, or with a source that is read in blocks."
        )
    table, columns = streaming.without_columns(table, names)
    left = iter(columns)
    y, sample_weight = (next(left) if isinstance(n, str) else n for n in (y, sample_weight))
    return table, y, sample_weight


def expect_table(X: Any, method: str) -> None:
    """Refuse a source that is read in blocks.

    Raises
    ------
    ValueError
        If X is one.
    """
    if streaming.is_stream(X):
        raise ValueError(
            f"Got a {type(X).__name__} in {method}, but expected a table: fit reads sources in "
            f"blocks, and {method} takes one block after the other."
        )


class Stream:
    """The training rows of a source, checked and encoded as they are read.

    Parameters
    ----------
    estimator : BaseFoRDE
        It knows columns and targets once a summary was learnt.
    blocks : Blocks
        All, or the share of one process: then passes of all processes have to be merged before the
        summary is learnt, and each has as many batches.
    split : int
        Seed of the rows that validate and of the sample.
    seed : int
        Seed of the order of the rows.
    """

    def __init__(self, estimator: Any, blocks: streaming.Blocks, split: int, seed: int) -> None:
        self.estimator = estimator
        self.blocks = blocks
        self.split = split
        self.seed = seed
        self.n_rows = 0
        self.n_rows_of: dict[int, int] = {}
        self._summary: streaming.Summary | None = None
        self._class_weight: NDArray[np.float64] | None = None
        self._mean_weight: float | None = None

    def summarize(self, share: float) -> streaming.Summary:
        """Read all rows once, and return what they say, with a share of them held out.

        Raises
        ------
        ValueError
            If there are no rows, or rows can't be used.
        """
        est, blocks = self.estimator, self.blocks
        summary, progress = None, None
        if est.verbose:
            n_parts = len(blocks.parts) if blocks.parts is not None else 0
            progress = Progress("first pass", n_parts, "part", only_if_slow=not n_parts)
        last = None
        for block in blocks.read():
            if summary is None:
                n_columns = int(np.prod(block.X.shape[1:]))
                n_kept = est._parts("iterator_train__").get("iterator_train__sample_rows")
                n_kept = int(n_kept or streaming.rows_kept(n_columns))
                summary = streaming.Summary(
                    self.split,
                    streaming.LowestHashes(n_kept),
                    streaming.LowestHashes(max(1, n_kept // 2), int(share * 2**64)),
                )
            summary.add(*self._rows(block))
            if progress and block.part != last:
                progress.advance(1)
            last = block.part
        if summary is None or not summary.n_rows:
            raise ValueError(
                f"Got {blocks.source.name} without a row of positive weight, but expected some."
            )
        if progress:
            progress.close(f"{summary.n_rows} rows")
        return summary

    def learn(self, summary: streaming.Summary, held_out: streaming.Kept | None) -> None:
        """Learn targets and weights, and which rows are in training."""
        self._summary = summary
        weights = self.estimator._learn_targets(summary)
        if weights is not None and (weights != 1).any():
            self._class_weight = weights
        n_rows_of = {part: n for part, (n, _) in summary.parts.items()}
        if held_out is not None:
            for part, n in zip(*np.unique(held_out.parts, return_counts=True), strict=True):
                n_rows_of[int(part)] -= int(n)
        self.n_rows_of, self.n_rows = n_rows_of, sum(n_rows_of.values())
        if not self.n_rows:
            raise ValueError(
                f"Got {self.blocks.source.name} of which all {summary.n_rows} rows validate, but "
                "expected some to train on."
            )
        self._mean_weight = self._mean(summary, held_out)

    def _mean(self, summary: streaming.Summary, held_out: streaming.Kept | None) -> float | None:
        """Return the mean weight of the training rows; None if all weights are one."""
        if self._class_weight is None and self.blocks.weight is None:
            return None
        factors = dict.fromkeys(summary.targets, 1.0)
        if self._class_weight is not None:
            labels = summary.classes()
            of_labels = self._class_weight[self.estimator._codes(labels)]
            factors = dict(zip(labels.tolist(), of_labels.tolist(), strict=True))
        sums = {label: found.weight for label, found in summary.targets.items()}
        total = sum((Fraction(factors[label]) * sums[label] for label in sums), Fraction(0))
        if held_out is not None:
            of_rows = [None] * len(held_out.y) if None in sums else held_out.y.tolist()
            for label, weight in zip(of_rows, held_out.sample_weight.tolist(), strict=True):
                total -= Fraction(factors[label]) * Fraction(weight)
        return float(total / self.n_rows)

    def encode_targets(self, kept: Any) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Return encoded targets, and weights of mean one over the training rows."""
        est, weight = self.estimator, kept.sample_weight
        if is_regressor(est):
            y = (kept.y.astype(np.float64) - est.target_mean_) / est.target_scale_
        else:
            codes, labels = _factorized(kept.y)
            y = est._codes(labels)[codes]
            if self._class_weight is not None:
                weight = weight * self._class_weight[y]
        return y, weight if self._mean_weight is None else weight / self._mean_weight

    def table(self, X: Any) -> Any:
        """Return a block as a checked table, in a container that every encoder reads."""
        return self.estimator._checked(_readable(self.estimator, X))

    def dataset(
        self, fitted: inference.FittedEnsemble, sample: training.DeviceDataset
    ) -> training.StreamDataset:
        """Return all training rows for a net, with what their sample holds beside rows."""

        def read(number_of_pass: int, n_skipped: int) -> Iterator[training.EncodedRows]:
            left = [n_skipped]
            for block in self._of_pass(number_of_pass, left):
                rows = self._encoded(fitted, block, left)
                if rows is not None:
                    yield rows

        known = self._summary.parts.items() if self._summary else ()
        parts = [
            (part, n, int(np.uint64(checksum).astype(np.int64)))
            for part, (n, checksum) in sorted(known)
        ]
        n_rows = self.blocks.rows_of_shards(self.n_rows_of)
        own, is_whole = self.blocks.index, self.blocks.n_shards == 1
        return training.StreamDataset(
            sample,
            read,
            n_rows[own],
            self.seed,
            parts,
            most_rows=max(n_rows),
            least_rows=min(n_rows),
            share=None if is_whole else own,
        )

    def _of_pass(self, number: int, left: list[int]) -> Iterator[streaming.Block]:
        """Yield the blocks of a pass, without parts that lie in the rows that are left to skip.

        With random access these are not even read. Parts come in a drawn order, some of them in
        turns: so a sorted source is mixed too.
        """
        if self.blocks.parts is not None:
            drawn = np.random.default_rng([self.seed, 1, number]).permutation(self.blocks.parts)
            n_at_once = self.blocks.source.parts_at_once
            settings = self.estimator._parts("iterator_train__")
            # As many as the buffer holds come from all of these parts.
            n_buffered = settings.get("iterator_train__buffer_rows", _BUFFER_ROWS)
            for begin in range(0, len(drawn), n_at_once):
                parts = drawn[begin : begin + n_at_once].tolist()
                n_rows = sum(self.n_rows_of.get(part, 0) for part in parts)
                if left[0] >= n_rows:
                    left[0] -= n_rows
                else:
                    yield from self.blocks.read_in_turns(parts, int(n_buffered))
            return
        part, is_skipped = None, False
        for block in self.blocks.read():
            if block.part != part:
                part, n_rows = block.part, self.n_rows_of.get(block.part, 0)
                is_skipped = left[0] >= n_rows
                left[0] -= n_rows if is_skipped else 0
            if not is_skipped:
                yield block

    def _encoded(
        self, fitted: inference.FittedEnsemble, given: streaming.Block, left: list[int]
    ) -> training.EncodedRows | None:
        """Return the training rows of a block, without those left to skip; None if there are none.

        `left` is lowered by the number of rows that are skipped.
        """
        block, _, _ = self._rows(given)
        kept = np.flatnonzero(self._is_trained_on(block)) if len(block.y) else np.arange(0)
        n_skipped = min(left[0], len(kept))
        left[0] -= n_skipped
        kept = kept[n_skipped:]
        if not len(kept):
            return None
        if len(kept) < len(block.y):
            X = streaming.taken(block.X, kept)
            block = block._replace(X=X, y=block.y[kept], sample_weight=block.sample_weight[kept])
        inputs = fitted.encode(self.table(block.X))
        y, weight = self.encode_targets(block)
        return training.EncodedRows.of(inputs, y, None if self._mean_weight is None else weight)

    def _is_trained_on(self, block: Any) -> NDArray[np.bool_]:
        summary = cast(streaming.Summary, self._summary)
        if not summary.is_split:
            return np.ones(len(block.y), dtype=bool)
        hashes = summary.validation_hashes(row_hashes(block.X, block.y))
        return np.asarray(hashes >= np.uint64(summary.held_out.threshold))

    def _rows(self, block: streaming.Block) -> tuple[Any, NDArray[Any] | None, NDArray[Any]]:
        """Return checked rows of positive weight, their labels' codes, and all labels."""
        est = self.estimator
        with naming_argument(f"block {block.part} of {self.blocks.source.name}"):
            y: NDArray[Any] = column_or_1d(np.asarray(block.y))
            codes, labels = None, np.empty(0)
            if not is_regressor(est):
                codes, labels = _factorized(y)
                training_data(est, labels[:, None], labels)
                check_classification_targets(labels)
            X, weight = block.X, block.sample_weight
            if weight is not None and pd.isna(weight).any():
                raise ValueError("it has rows without a weight.")
            # The weights of a block may all be zero.
            is_weighed = weight is not None and np.any(np.asarray(weight))
            given = weight if is_weighed else None
            checked = training_data(est, X, y if codes is None else codes, given)
        y, ones = checked.y if codes is None else y, checked.sample_weight
        weight = ones if weight is None or is_weighed else np.zeros_like(ones)
        class_weight = None if codes is None else est.class_weight
        if codes is not None and isinstance(class_weight, dict):
            is_blank = [class_weight.get(label, 1) == 0 for label in labels.tolist()]
            weight = np.where(np.array(is_blank)[codes], 0.0, weight)
        if not (weight > 0).all():
            kept = np.flatnonzero(weight > 0)
            X, y, weight = streaming.taken(X, kept), y[kept], weight[kept]
            codes = None if codes is None else codes[kept]
        return block._replace(X=X, y=y, sample_weight=weight), codes, labels


def _sampled(
    estimator: Any,
    blocks: streaming.Blocks,
    seeds: list[int],
    given: Any,
    communicator: particles.Communicator,
) -> tuple[TrainingData, TrainingData | Folds | None, Stream]:
    """Return a sample that stands for the training rows, what validates, and all rows."""
    n_shares = communicator.n_row_shares
    if blocks.is_share and communicator.n_processes > n_shares:
        raise ValueError(
            f"Got a Share of {blocks.source.name} in one of several processes that share out the "
            "members, but expected the whole source in each, or distributed='rows'."
        )
    if n_shares > 1:
        parts = blocks.parts
        if parts is not None and len(parts) < n_shares and not blocks.is_share:
            raise ValueError(
                f"Got {blocks.source.name} of {len(parts)} parts for {n_shares} processes that "
                "share its rows, but expected a part for each."
            )
        blocks = blocks.shard(communicator.row_share, n_shares)
    stream = Stream(estimator, blocks, *seeds)
    share = 0.0
    if estimator.early_stopping and given is None:
        fraction = estimator.validation_fraction
        share = _HELD_OUT if isinstance(fraction, str) else float(fraction)
    with communicator.together():
        summary = stream.summarize(share)
    if n_shares > 1:
        # So that what is sent is no more than what is kept of all together.
        limits = communicator.all_gather_object(summary.thresholds)
        summary.limit(*map(min, zip(*limits, strict=True)))
        summary = reduce(streaming.Summary.merge, communicator.all_gather_object(summary))
    held_out, sample = summary.held_out.rows() if share else None, summary.sample.rows()
    stream.learn(summary, held_out)
    if sample is not None and share:
        # The threshold is known only now.
        sample = sample.take(sample.others >= np.uint64(summary.held_out.threshold))
    if sample is None or not len(sample.y):
        raise ValueError(
            f"Got iterator_train__sample_rows that keeps none of {summary.n_rows} rows, but "
            "expected a larger number."
        )
    if share and held_out is None:
        warn(
            f"Got {summary.n_rows} rows of which none is held out, since equal rows are on one "
            "side: early stopping needs X_val and y_val, or more rows that differ."
        )
    n_rows = len(sample.y)
    tables = [sample.X] if held_out is None else [sample.X, held_out.X]
    whole = stream.table(streaming.joined(tables))
    index = None if held_out is None else np.arange(n_rows)
    rows = TrainingData(whole, *stream.encode_targets(sample), index)
    valid: TrainingData | Folds | None = None
    if held_out is not None:
        index = np.arange(n_rows, n_rows + len(held_out.y))
        valid = TrainingData(whole, *stream.encode_targets(held_out), index).of_mean_weight_one()
    elif given is not None:
        _, valid = divided(rows, estimator, n_rows, seeds[0], given, None)
    return rows, valid, stream


def _expect_settings(estimator: Any, blocks: streaming.Blocks, groups: Any) -> None:
    """Refuse what has no meaning for rows that are read in blocks."""
    name = blocks.source.name
    if groups is not None:
        raise ValueError(f"Got groups with {name}, but expected none: pass X_val and y_val.")
    fraction = estimator.validation_fraction
    if not isinstance(fraction, str | Real):
        raise ValueError(
            f"Got validation_fraction={fraction!r:.100} with {name}, which no splitter sees as a "
            "whole, but expected a number, 'auto', or X_val and y_val."
        )
    settings = estimator._parts("iterator_train__")
    for key in ("rows_per_epoch", "buffer_rows", "sample_rows"):
        value = settings.get(f"iterator_train__{key}", 1)
        is_count = isinstance(value, Integral) and not isinstance(value, bool)
        if not (is_count and int(value) >= 1):
            raise ValueError(f"Got iterator_train__{key}={value!r}, but expected an integer >= 1.")
    if not settings.get("iterator_train__shuffle", True):
        raise ValueError(
            f"Got iterator_train__shuffle=False with {name}, but expected True: rows of a source "
            "come in a drawn order."
        )


def _factorized(y: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return the index of each row's label, and the distinct labels.

    Raises
    ------
    ValueError
        If a label is missing.
    """
    codes, labels = pd.factorize(y)
    is_missing = codes < 0
    if is_missing.any():
        raise ValueError(
            f"it has {is_missing.sum()} missing labels, the first in row "
            f"{np.flatnonzero(is_missing)[0]}: leave rows without one out."
        )
    return codes.astype(np.int64), np.asarray(labels)


def _readable(estimator: Any, X: Any) -> Any:
    """Return an Arrow table as a frame of pandas, unless this package's encoder reads it."""
    is_ours = isinstance(estimator.encoder, str) and estimator.module is None
    return X if is_ours or not nw.dependencies.is_pyarrow_table(X) else X.to_pandas()


def block_by_block(method: _Method) -> _Method:
    """Let a method that predicts take a source too, and yield what it returns for each block.

    The error about an argument that it does not take names the one that may be meant.
    """
    known = inspect.signature(method).parameters

    @wraps(method)
    def predict(self: Any, X: Any, *arguments: Any, **named: Any) -> Any:
        for name in named:
            if name not in known:
                raise TypeError(self._unexpected(name, f"argument of {method.__name__}", method))
        if not streaming.is_stream(X):
            return method(self, X, *arguments, **named)
        now = self._as_fitted()
        names = getattr(now, "feature_names_in_", None)
        blocks = streaming.blocks_to_predict(X, None if names is None else names.tolist())
        return (method(now, _readable(now, block), *arguments, **named) for block in blocks)

    return cast(_Method, predict)
