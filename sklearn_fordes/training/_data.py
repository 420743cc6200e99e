"""A table on the device, and batches of it by slicing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import Dataset

Batch = tuple[dict[str, Tensor], Tensor | None]


class Rows(Dataset[Any]):
    """Rows of a table as tensors on one device.

    Parameters
    ----------
    X : array-like of shape (N, ...)
    y : array-like of shape (N,), optional
        Classes, from 0 to C − 1, if integers; else numbers.
    sample_weight : array-like of shape (N,), optional
        Factors of the rows' losses.
    device : str or torch.device, default="cpu"
    dtype : torch.dtype, default=torch.float32
        Of `X`, the weights and numbers in `y`.
    """

    def __init__(
        self,
        X: ArrayLike | Tensor,
        y: ArrayLike | Tensor | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.X = _copied_tensor(X, dtype, device)
        self.y = None
        if y is not None:
            y = y if isinstance(y, Tensor) else torch.tensor(np.asarray(y))
            self.y = _copied_tensor(y, dtype if y.is_floating_point() else torch.int64, device)
        self.sample_weight = None
        if sample_weight is not None:
            self.sample_weight = _copied_tensor(sample_weight, dtype, device)

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, index: Any) -> Batch:
        inputs = {"X": self.X[index]}
        if self.sample_weight is not None:
            inputs["sample_weight"] = self.sample_weight[index]
        return inputs, None if self.y is None else self.y[index]


class Batches:
    """Iterate over batches of `Rows`, each made by one slice or one gather.

    A DataLoader collates row by row, which takes several times as long as the training itself.

    Parameters
    ----------
    rows : Rows
    batch_size : int
        Largest number of rows in a batch. Batches differ by one row at most: a small last batch
        would weigh its rows more than others, and can't be batch-normalised.
    shuffle : bool, default=False
    rng : numpy.random.Generator, optional
        Draws the order of an epoch if `shuffle`.
    """

    def __init__(
        self,
        rows: Rows,
        batch_size: int,
        shuffle: bool = False,
        rng: np.random.Generator | None = None,
    ) -> None:
        if not (isinstance(batch_size, int | np.integer) and batch_size >= 1):
            raise ValueError(f"Got batch_size={batch_size!r}, but expected an integer >= 1.")
        self.rows = rows
        self.batch_size = int(batch_size)
        self.shuffle = shuffle
        self.rng = np.random.default_rng() if rng is None else rng

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        n_rows, n_batches = len(self.rows), len(self)
        bounds = [n_rows * i // n_batches for i in range(n_batches + 1)]
        if not self.shuffle:
            for start, stop in pairwise(bounds):
                yield self.rows[start:stop]
            return
        order = torch.from_numpy(self.rng.permutation(n_rows)).to(self.rows.X.device)
        for start, stop in pairwise(bounds):
            yield self.rows[order[start:stop]]


def _copied_tensor(
    values: ArrayLike | Tensor, dtype: torch.dtype, device: str | torch.device
) -> Tensor:
    # Copying protects the caller's array and takes read-only ones, which torch.from_numpy warns of.
    if isinstance(values, Tensor):
        return values.detach().to(device=device, dtype=dtype, copy=True)
    return torch.tensor(np.asarray(values), dtype=dtype, device=device)
