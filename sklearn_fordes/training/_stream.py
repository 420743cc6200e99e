"""Epochs of rows that do not fit into memory: a bounded buffer of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from skorch.callbacks import Callback
from torch import Tensor

from sklearn_fordes.training._data import Batch, BatchIterator, DeviceDataset
from sklearn_fordes.training._transfer import sent


class EncodedRows(NamedTuple):
    """Rows on the device: inputs (N, ...), targets (N,), and weights (N,) if not all are 1."""

    X: Tensor
    y: Tensor
    sample_weight: Tensor | None = None

    @classmethod
    def of(cls, X: Tensor, y: ArrayLike, sample_weight: ArrayLike | None) -> EncodedRows:
        """Return rows with targets and weights of the types that a dataset gives them."""
        rows = DeviceDataset(X, y, dtype=X.dtype)
        weight = None if sample_weight is None else torch.as_tensor(np.asarray(sample_weight))
        return cls(rows.X, cast(Tensor, rows.y), None if weight is None else weight.to(X))

    def at(self, rows: slice | Tensor) -> EncodedRows:
        """Return the rows at some indices, or in a slice."""
        weight = None if self.sample_weight is None else self.sample_weight[rows]
        return EncodedRows(self.X[rows], self.y[rows], weight)

    @classmethod
    def join(cls, parts: list[EncodedRows]) -> EncodedRows:
        """Return the rows of all parts, of which all have weights or none."""
        if len(parts) == 1:
            return parts[0]
        X, y, weights = zip(*parts, strict=True)
        return cls(torch.cat(X), torch.cat(y), None if weights[0] is None else torch.cat(weights))

    def batch(self) -> Batch:
        """Return the rows as a net takes them."""
        inputs = {"X": self.X}
        if self.sample_weight is not None:
            inputs["sample_weight"] = self.sample_weight
        return inputs, self.y


# Called with the number of a pass and a number of rows, it yields the rows of this pass, in its
# order, without so many of the first.
Reader = Callable[[int, int], Iterator[EncodedRows]]


class StreamDataset(DeviceDataset):
    """A sample of rows as tensors, and all rows of a source in epochs.

    Where a net looks at its rows as a whole, it sees the sample; its batches are of all rows. A
    pass, in which each row comes once, has epochs of equal length, as few as it takes for none to
    be longer than ``rows_per_epoch``. The rows of an epoch's batches depend on its number and the
    seed alone.

    Parameters
    ----------
    sample : DeviceDataset
        With rows to validate on, augmentation and extra inputs.
    read : callable
        A `Reader`.
    n_rows : int
        Number of rows of a pass.
    seed : int
        Draws the order of rows in the buffer.
    parts : array-like of int of shape (n_parts, 3)
        Index, number of rows and checksum of each part, which tell this source from others.
    most_rows : int, optional
        The largest number of rows of a pass among the processes that train together, so that all
        have as many batches, of one shape. Default: `n_rows`.
    least_rows : int, optional
        The smallest one, of which each epoch has a row at least. Default: `n_rows`.
    share : int, optional
        Which share of the source these rows are, if other processes read others.

    Attributes
    ----------
    epoch : int
        Number of the next epoch, from 0.
    """

    def __init__(
        self,
        sample: DeviceDataset,
        read: Reader,
        n_rows: int,
        seed: int,
        parts: ArrayLike = (),
        most_rows: int | None = None,
        least_rows: int | None = None,
        share: int | None = None,
    ) -> None:
        self.__dict__ = {**vars(sample)}
        self.read = read
        self.n_rows = n_rows
        self.seed = seed
        self.parts = torch.tensor(np.asarray(parts, dtype=np.int64))
        self.most_rows = n_rows if most_rows is None else most_rows
        self.least_rows = n_rows if least_rows is None else least_rows
        self.share = share
        self.epoch = 0
        self._open: tuple[int, _RowsInOrder] | None = None

    def batches(self, iterator: BatchIterator, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield batches of the next epoch; those of the sample if the rows are not shuffled.

        Parameters
        ----------
        iterator : BatchIterator
        rng : numpy.random.Generator
            For a sample. The order of an epoch does not depend on what was drawn before.
        """
        if not iterator.shuffle:
            yield from super().batches(iterator, rng)
            return
        epoch = self.epoch
        n_epochs, most = self._epochs_of_pass(iterator)
        number_of_pass, place = divmod(epoch, n_epochs)
        start, stop = (k * self.n_rows // n_epochs for k in (place, place + 1))
        n_batches = self.n_batches(iterator)
        size = -(-most // n_batches)
        rows = self._rows_from(epoch, number_of_pass, start)
        n_extra = n_batches * size - (stop - start)
        rest: list[EncodedRows] = []
        for window in self._windows(rows, stop - start, n_extra, iterator.buffer_rows, epoch):
            whole = EncodedRows.join([*rest, window])
            n_whole = len(whole.y) // size * size
            for begin in range(0, n_whole, size):
                yield whole.at(slice(begin, begin + size)).batch()
            rest = [whole.at(slice(n_whole, None))]
        # The next epoch of the same pass goes on where this one stops, without reading anew.
        self.epoch, self._open = epoch + 1, (epoch + 1, rows) if place + 1 < n_epochs else None

    def _windows(
        self, rows: _RowsInOrder, n_rows: int, n_extra: int, buffer_rows: int, epoch: int
    ) -> Iterator[EncodedRows]:
        """Yield the next rows, permuted in the buffer, and then some of the first ones again."""
        rng, first = np.random.default_rng([self.seed, epoch]), None
        for begin in range(0, n_rows, buffer_rows):
            window = rows.take(min(buffer_rows, n_rows - begin))
            window = window.at(sent(rng.permutation(len(window.y)), self.X.device))
            yield window
            # A copy, since a slice would keep the whole window.
            n_first = min(n_extra, len(window.y))
            first = first or window.at(torch.arange(n_first, device=self.X.device))
        while first and n_extra > 0:
            yield first.at(slice(0, n_extra))
            n_extra -= len(first.y)

    def _epochs_of_pass(self, iterator: BatchIterator) -> tuple[int, int]:
        """Return the number of epochs of a pass, and the largest number of rows of one."""
        n_epochs = min(-(-self.most_rows // iterator.rows_per_epoch), self.least_rows)
        return n_epochs, -(-self.most_rows // n_epochs)

    def n_batches(self, iterator: BatchIterator) -> int:
        """Return the number of batches of an epoch."""
        if not iterator.shuffle:
            return super().n_batches(iterator)
        return -(-self._epochs_of_pass(iterator)[1] // iterator.batch_size)

    def begin(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self.epoch = epoch

    def close(self) -> None:
        """Let go of what is open of the source."""
        self._open = None

    def tensors(self) -> dict[str, Any]:
        """Return all that it holds by name, and what tells its source from others."""
        return {**super().tensors(), "seed": self.seed}

    def _rows_from(self, epoch: int, number_of_pass: int, start: int) -> _RowsInOrder:
        opened, self._open = self._open, None
        if opened is not None and opened[0] == epoch:
            return opened[1]
        return _RowsInOrder(self.read(number_of_pass, start))


class StreamPosition(Callback):
    """Tell a `StreamDataset` which epoch begins, before a net reads from it."""

    def on_epoch_begin(self, net: Any, dataset_train: Any = None, **kwargs: Any) -> None:
        if isinstance(dataset_train, StreamDataset):
            dataset_train.begin(net.n_epochs)

    def on_train_end(self, net: Any, X: Any = None, **kwargs: Any) -> None:
        if isinstance(X, StreamDataset):
            X.close()


class _RowsInOrder:
    """Rows of successive parts, as many at a time as one asks for."""

    def __init__(self, parts: Iterator[EncodedRows]) -> None:
        self._parts = parts
        self._rest: list[EncodedRows] = []

    def take(self, n_rows: int) -> EncodedRows:
        """Return the next rows.

        Raises
        ------
        ValueError
            If there are not so many.
        """
        held, n_held = self._rest, sum(len(part.y) for part in self._rest)
        while n_held < n_rows:
            found = next(self._parts, None)
            if found is None:
                raise ValueError(
                    "Got a source that ends earlier than in the first pass, but expected the same "
                    "rows each time that it is read."
                )
            held.append(found)
            n_held += len(found.y)
        whole = EncodedRows.join(held)
        self._rest = [whole.at(slice(n_rows, None))] if n_held > n_rows else []
        return whole.at(slice(0, n_rows))
