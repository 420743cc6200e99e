"""A table on the device, and batches of it by slicing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from skorch.dataset import Dataset
from torch import Tensor

from sklearn_fordes._signatures import explaining_arguments
from sklearn_fordes.training._augmentation import Augmentation
from sklearn_fordes.training._transfer import sent

# Inputs by name, and targets. "X" is (B, ...), or (M, B, ...) if the members see versions of their
# own; "rows" are then the rows as they are. "sample_weight", "validators" and "extra_inputs" are
# there if there are any. A batch "is_share" of a larger one if each process reads other rows.
Batch = tuple[dict[str, Any], Tensor | None]
# What a net trains on: the batches of an epoch, of one shape and on one device.
Batches = Iterable[Batch]


class DeviceDataset(Dataset):
    """Rows of a table as tensors on one device.

    Parameters
    ----------
    X : array-like or Tensor of shape (N, ...)
        A tensor keeps its device; the other parts go there too.
    y : array-like or Tensor of shape (N,), optional
        Classes, from 0 to C − 1, if integers; else numbers.
    sample_weight : array-like of shape (N,) or (N, M), optional
        Factors of the rows' losses, those of each member if there are M. None is kept of them if
        all are 1.
    extra_inputs : Tensor of shape (N', ...), optional
        Rows without a target, at which members are compared too.
    augmentation : callable, optional
        Makes versions of the rows of each batch, on which a net then trains.
    validators : array-like of int of shape (N, V), optional
        The members that validate each row, if not all do.
    valid : DeviceDataset, optional
        Rows on which a net that trains on this dataset computes the validation loss.
    dtype : torch.dtype, default=torch.float32
        Type of `X`, of the weights and of numbers in `y`.

    Attributes
    ----------
    share : int or None
        Which share of all rows its batches are, where each process has a dataset of its own.
    """

    share: int | None = None

    def __init__(
        self,
        X: ArrayLike | Tensor,
        y: ArrayLike | Tensor | None = None,
        sample_weight: ArrayLike | None = None,
        extra_inputs: Tensor | None = None,
        *,
        augmentation: Augmentation | None = None,
        validators: ArrayLike | None = None,
        valid: DeviceDataset | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.X = _as_tensor(X).to(dtype)
        self.y = self.sample_weight = None
        if y is not None:
            y = _as_tensor(y)
            self.y = y.to(self.X.device, dtype if y.is_floating_point() else torch.int64)
        if sample_weight is not None:
            weight = _as_tensor(sample_weight)
            if (weight != 1).any():  # Others are not worth gathering in every batch.
                self.sample_weight = weight.to(self.X.device, dtype)
        self.validators = None
        if validators is not None:
            self.validators = _as_tensor(validators).to(self.X.device, torch.int64)
        self.extra_inputs = extra_inputs
        self.augmentation = augmentation
        self.valid = valid

    def split(self, y: Any = None) -> tuple[DeviceDataset, DeviceDataset | None]:
        """Return the rows to train on, and those to validate on, as a net's `train_split`."""
        return self, self.valid

    def tensors(self) -> dict[str, Any]:
        """Return all that it holds by name, with the rows to validate on as a dict of theirs."""
        held = {name: part for name, part in vars(self).items() if isinstance(part, Tensor)}
        return {**held, "valid": None if self.valid is None else self.valid.tensors()}

    def batches(self, iterator: BatchIterator, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield the rows in batches, in an order that is drawn if the iterator shuffles them."""
        n_rows, n_batches = len(self), self.n_batches(iterator)
        size = -(-n_rows // n_batches)
        parts: Iterable[Any] = [slice(i, i + size) for i in range(0, n_rows, size)]
        if iterator.shuffle:
            order = np.resize(rng.permutation(n_rows), n_batches * size)
            parts = sent(order, self.X.device).split(size)
        for part in parts:
            yield self[part]

    def n_batches(self, iterator: BatchIterator) -> int:
        """Return the number of batches of an epoch."""
        return -(-len(self) // iterator.batch_size)

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, index: Any) -> Batch:
        inputs = {"X": self.X[index]}
        if self.sample_weight is not None:
            inputs["sample_weight"] = self.sample_weight[index]
        if self.validators is not None:
            inputs["validators"] = self.validators[index]
        return inputs, None if self.y is None else self.y[index]


@dataclass
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
    rows_per_epoch : int, default=1_000_000
        Largest number of rows of an epoch of a `StreamDataset`; of others one is all rows.
    buffer_rows : int, default=65_536
        Rows of a `StreamDataset` that are in memory, and in a drawn order, at a time.
    sample_rows : int, optional
        Rows of a source that stand for all of them; see ``docs/streaming.md``.
    """

    dataset: DeviceDataset
    batch_size: int
    shuffle: bool = False
    rng: np.random.Generator | None = None
    rows_per_epoch: int = 1_000_000
    buffer_rows: int = 65_536
    sample_rows: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "rows_per_epoch", "buffer_rows"):
            value = getattr(self, name)
            if not (isinstance(value, int | np.integer) and value >= 1):
                raise ValueError(f"Got {name}={value!r}, but expected an integer >= 1.")

    def __len__(self) -> int:
        return self.dataset.n_batches(self)

    def __iter__(self) -> Iterator[Batch]:
        rng = np.random.default_rng(self.rng)  # It is the given one, if there is one.
        extra, share = self.dataset.extra_inputs, self.dataset.share
        if share is not None:  # All processes have the same generator, for other rows.
            rng = np.random.default_rng([int(rng.integers(1 << 62)), share])
        batches = self.dataset.batches(self, rng)
        if self.dataset.augmentation is not None:
            batches = _with_versions(batches, self.dataset.augmentation, rng)
        for inputs, y in batches:
            if share is not None:
                inputs["is_share"] = True
            if extra is not None:
                n_rows = len(inputs["rows" if "rows" in inputs else "X"])
                drawn = rng.integers(len(extra), size=n_rows)
                inputs["extra_inputs"] = extra[sent(drawn, extra.device)]
            yield inputs, y


def _with_versions(
    batches: Iterator[Batch], augmentation: Augmentation, rng: np.random.Generator
) -> Iterator[Batch]:
    """Yield batches of versions of the rows, made of several batches at once where that may be."""
    most = getattr(augmentation, "rows_at_once", 1)
    for first in batches:
        some = [first, *islice(batches, max(0, most // len(first[0]["X"]) - 1))]
        # A copy, which a function may change in place: a slice is a view.
        rows = torch.cat([inputs["X"] for inputs, _ in some])
        made = _versions(augmentation, rows, rng)
        start = 0
        for inputs, y in some:
            stop = start + len(inputs["X"])
            shared = made["shared"]
            own = made["X"][start:stop] if shared else made["X"][:, start:stop]
            original = {} if shared else {"rows": inputs["X"]}
            yield {**inputs, "X": own, "shared": shared, **original}, y
            start = stop


def _versions(augmentation: Augmentation, X: Tensor, rng: np.random.Generator) -> dict[str, Any]:
    """Return versions of rows as inputs, and whether all members share them."""
    expected = "a function of (X, rng): encoded rows and a generator"
    places = ("X", "rng")
    with explaining_arguments(augmentation, "a function as augmentation", expected, places):
        versions = augmentation(X, rng)
    shape = tuple(getattr(versions, "shape", ()))
    is_dense = isinstance(versions, Tensor) and versions.layout == torch.strided
    if not is_dense or X.shape not in (shape, shape[1:]):
        raise ValueError(
            f"Got a {type(versions).__name__} of shape {shape} from augmentation, but expected a "
            f"dense tensor of shape {tuple(X.shape)}, or with an axis of members before these."
        )
    is_ours = type(augmentation).__module__.startswith("sklearn_fordes.")
    if not is_ours and not versions.isfinite().all():  # A GPU is waited for.
        raise ValueError(
            "Got NaN or infinity in what augmentation returns, but expected finite numbers."
        )
    return {"X": versions.detach().to(X), "shared": versions.ndim == X.ndim}


def _as_tensor(values: ArrayLike | Tensor) -> Tensor:
    # A copy protects the caller's arrays, and takes read-only ones.
    return values if isinstance(values, Tensor) else torch.tensor(np.asarray(values), device="cpu")
