"""A table on the device, and batches of it by slicing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import Dataset

# Inputs by name ("X", and "sample_weight" and "extra_inputs" if there are any), and targets.
Batch = tuple[dict[str, Tensor], Tensor | None]


class EncodedRows(NamedTuple):
    """Encoded rows (N, ...) as a tensor, their targets and weights, and rows without a target."""

    X: Tensor
    y: ArrayLike
    sample_weight: ArrayLike | None = None
    extra_inputs: Tensor | None = None

    def dataset(self, valid: DeviceDataset | None = None) -> DeviceDataset:
        """Return the rows as a dataset on the device of X, with the validation rows if any."""
        weight = self.sample_weight
        if weight is not None and (np.asarray(weight) == 1).all():
            weight = None  # Weights that change nothing are not worth gathering in every batch.
        return DeviceDataset(
            self.X, self.y, weight, self.extra_inputs, valid=valid, dtype=self.X.dtype
        )


class Batches(Protocol):
    """What a net trains on: an iterable of batches of one shape, on one device."""

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of an epoch."""

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""


class DeviceDataset(Dataset[Any]):
    """Rows of a table as tensors on one device.

    Parameters
    ----------
    X : array-like or Tensor of shape (N, ...)
    y : array-like of shape (N,), optional
        Classes, from 0 to C − 1, if integers; else numbers.
    sample_weight : array-like of shape (N,), optional
        Factors of the rows' losses.
    extra_inputs : Tensor of shape (N', ...), optional
        Rows without a target, at which members are compared too.
    valid : DeviceDataset, optional
        Rows on which a net that trains on this dataset computes the validation loss.
    device : str or torch.device, optional
        Default: that of a tensor X, else the CPU.
    dtype : torch.dtype, default=torch.float32
        Type of `X`, of the weights and of numbers in `y`.
    """

    def __init__(
        self,
        X: ArrayLike | Tensor,
        y: ArrayLike | Tensor | None = None,
        sample_weight: ArrayLike | None = None,
        extra_inputs: Tensor | None = None,
        *,
        valid: DeviceDataset | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        # A copy protects the caller's arrays, and takes read-only ones.
        X = X if isinstance(X, Tensor) else torch.tensor(np.asarray(X), device="cpu")
        self.X = X.to(device=device, dtype=dtype)
        self.y = None
        if y is not None:
            y = y if isinstance(y, Tensor) else torch.tensor(np.asarray(y), device="cpu")
            self.y = y.to(self.X.device, dtype if y.is_floating_point() else torch.int64)
        self.sample_weight = None
        if sample_weight is not None:
            weight = np.asarray(sample_weight)
            self.sample_weight = torch.tensor(weight, dtype=dtype, device=self.X.device)
        self.extra_inputs = extra_inputs
        self.valid = valid

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, index: Any) -> Batch:
        inputs = {"X": self.X[index]}
        if self.sample_weight is not None:
            inputs["sample_weight"] = self.sample_weight[index]
        return inputs, None if self.y is None else self.y[index]


class BatchIterator:
    """Iterate over batches of a `DeviceDataset`, each made by one slice or one gather.

    A DataLoader collates row by row, which takes several times as long as the training itself.

    Parameters
    ----------
    dataset : DeviceDataset
    batch_size : int
        Largest number of rows in a batch.
    shuffle : bool, default=False
        Whether to draw the order of the rows anew in each epoch. All batches then have one shape: a
        small last batch would weigh its rows more than others, can't be batch-normalised, and
        needs a captured graph of its own. The last batch is filled up with rows of the first if
        the rows can't be divided equally.
    rng : numpy.random.Generator, optional
        Draws the order of an epoch if `shuffle`, and the extra inputs of each batch.
    """

    def __init__(
        self,
        dataset: DeviceDataset,
        batch_size: int,
        shuffle: bool = False,
        rng: np.random.Generator | None = None,
    ) -> None:
        if not (isinstance(batch_size, int | np.integer) and batch_size >= 1):
            raise ValueError(f"Got batch_size={batch_size!r}, but expected an integer >= 1.")
        self.dataset = dataset
        self.batch_size = int(batch_size)
        self.shuffle = shuffle
        self.rng = np.random.default_rng() if rng is None else rng

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        n_rows, n_batches = len(self.dataset), len(self)
        size = -(-n_rows // n_batches)
        if not self.shuffle:
            for i in range(n_batches):
                yield self._with_extra(self.dataset[i * size : (i + 1) * size])
            return
        order = self._indices(np.resize(self.rng.permutation(n_rows), n_batches * size))
        for index in order.split(size):
            yield self._with_extra(self.dataset[index])

    def _with_extra(self, batch: Batch) -> Batch:
        extra = self.dataset.extra_inputs
        if extra is not None:
            inputs = batch[0]
            drawn = self.rng.integers(len(extra), size=len(inputs["X"]))
            inputs["extra_inputs"] = extra[self._indices(drawn)]
        return batch

    def _indices(self, index: Any) -> Tensor:
        return torch.from_numpy(index).to(self.dataset.X.device)
