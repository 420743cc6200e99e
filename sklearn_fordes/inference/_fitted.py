"""A fitted ensemble: encoder, members and likelihood, evaluated in chunks of rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from torch import Tensor

from sklearn_fordes._rows import row_parts
from sklearn_fordes.inference._chunks import Chunks, is_out_of_memory
from sklearn_fordes.inference._surroundings import (
    can_be_alone,
    expect_threads_that_work,
    ordinary_state,
    this_thread_alone,
)
from sklearn_fordes.inference._threads import in_threads
from sklearn_fordes.particles import (
    SPACES,
    Ensemble,
    Likelihood,
    expect_memory,
    seeded_generators,
)

# Rows encoded at once, and numbers at most, so that memory does not grow with the table. Rows that
# are sparse before they are encoded may be wide.
_ROWS_ENCODED_AT_ONCE, _NUMBERS_ENCODED_AT_ONCE = 65_536, 1 << 27
# Numbers that are looked at at once, since what says which are finite is larger than they are.
_NUMBERS_CHECKED_AT_ONCE = 1 << 20
# Of so few activations in the widest layer no second thread is worth its start, and on a busy
# machine the first one would wait for it: tens of milliseconds where the work takes one.
_MOST_OF_ONE_THREAD = 1 << 17
# Chunks that a thread encodes and evaluates one after the other: fewer are encoded more slowly.
_CHUNKS_OF_A_PART = 4

T = TypeVar("T")


@dataclass(frozen=True)
class FittedEnsemble:
    """What was learnt, and all that prediction needs.

    Parameters
    ----------
    encoder : transformer
        Turns a table into numbers: by its method ``transform_checked``, if it has one for tables
        that are already checked, else by ``transform``.
    members : Ensemble
        In evaluation mode.
    likelihood : Likelihood
        What the members' outputs mean.
    input_shape : tuple of int
        Shape of an encoded row.
    rows_per_chunk : int
        Number of rows that the members evaluate at once.
    """

    encoder: Any
    members: Ensemble
    likelihood: Likelihood
    input_shape: tuple[int, ...]
    rows_per_chunk: int

    @property
    def device(self) -> torch.device:
        """The members' device."""
        return next(self.members.parameters()).device

    def encode(self, X: Any) -> Tensor:
        """Return the network's inputs for checked rows of a table.

        Parameters
        ----------
        X : data frame, ndarray or sparse array of shape (n_rows, ...)

        Returns
        -------
        Tensor of shape (n_rows, ...)
            On the members' device.

        Raises
        ------
        ValueError
            If the encoder returns rows of another shape than for the training rows, or values
            that are not finite in the network's precision.
        """
        transform = getattr(self.encoder, "transform_checked", self.encoder.transform)
        encoded = transform(X)
        shape = np.shape(encoded)[1:]
        if shape != self.input_shape:
            raise ValueError(
                f"Got X with encoded rows of shape {shape}, but expected {self.input_shape}, as "
                "for the training rows."
            )
        return self.as_inputs(encoded)

    def as_inputs(self, encoded: Any) -> Tensor:
        """Return encoded rows as a tensor on the members' device, all of it finite.

        Parameters
        ----------
        encoded : ndarray, sparse matrix or data frame
            What an encoder returned.

        Raises
        ------
        ValueError
            If a value is no number, missing or too large for the network's precision, or sparse
            rows are too large for this machine as dense ones.
        """
        expect_threads_that_work()
        dtype = self.members.dtype
        if issparse(encoded):
            n_bytes = math.prod(encoded.shape) * encoded.dtype.itemsize
            got = f"sparse rows of shape {encoded.shape} from the encoder, whose dense copies"
            expect_memory(got, n_bytes, torch.device("cpu"))
            encoded = encoded.toarray()
        array = np.asarray(encoded)
        try:
            array = array if array.dtype.kind in "biuf" else array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Got values of type {array.dtype} from the encoder ({error}), but expected "
                "numbers."
            ) from error
        array = np.ascontiguousarray(array)  # Torch takes no flipped ones.
        if hasattr(self.encoder, "transform_checked") and array.flags.writeable:
            # What this encoder returns is new. A frame that is made of it is read-only.
            inputs = torch.from_numpy(array).to(self.device, dtype)
        else:
            # A copy protects the caller's array, and takes read-only ones.
            inputs = torch.tensor(array, dtype=dtype, device=self.device)
        rows_at_once = max(1, _NUMBERS_CHECKED_AT_ONCE // math.prod(inputs.shape[1:]))
        if not all(part.isfinite().all() for part in inputs.split(rows_at_once)):
            raise ValueError(
                f"Got X that contains NaN or infinity, or is too large for {dtype}, after "
                f"encoding{self._place_of(~inputs.isfinite())}, but expected finite numbers of the "
                "scale of the training rows."
            )
        return inputs

    def _place_of(self, is_wrong: Tensor) -> str:
        """Return, for an error, the first column with such values that an encoder has made."""
        if is_wrong.ndim != 2:
            return ""
        column = int(is_wrong.any(0).nonzero()[0])
        try:
            name = str(self.encoder.get_feature_names_out()[column])
        except Exception:  # An encoder of the user's may have no names, or raise anything.
            return f" (in encoded column {column})"
        return f" (in encoded column {name!r})"

    def chunks(self) -> Chunks:
        """Return how many rows the members evaluate at once, for one call."""
        return Chunks(self.rows_per_chunk, self.members.row_multiple)

    def results(
        self, X: Any, compute: Callable[[Tensor], T], chunks: Chunks | None = None
    ) -> Generator[T]:
        """Yield what a function makes of the members' outputs for successive chunks of rows.

        Parts of a large table are encoded and evaluated side by side, each by one thread: so what
        is not a matrix product has all threads as well. A few parts' results are held at a time.

        Parameters
        ----------
        X : data frame, ndarray or sparse array of shape (n_rows, ...)
            Checked.
        compute : callable
            Takes outputs (M, n_rows of the chunk, C), on the CPU.
        chunks : Chunks, optional
            Those of a call that evaluates members elsewhere, too. Default: new ones.

        Raises
        ------
        ValueError
            If an output is not finite.
        """
        expect_threads_that_work()
        chunks, n_done = chunks or self.chunks(), 0

        def computed(part: tuple[slice, Any]) -> list[T] | None:
            try:
                inputs = self.encode(part[1]).split(chunks.n_rows)
                return [compute(self._evaluated(some)) for some in inputs]
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                return None

        n_threads, n_rows = self._threads_and_rows(X.shape[0], chunks.n_rows)
        if n_threads > 1:
            with closing(in_threads(computed, row_parts(X, n_rows), n_threads)) as parts:
                for (part, _), found in parts:
                    if found is None:  # For one chunk at a time the memory may suffice.
                        break
                    yield from found
                    n_done = part.stop
        for _, inputs in self._encoded_parts(X, chunks, n_done):
            yield from map(compute, self._outputs_of(inputs, chunks))

    def _threads_and_rows(self, n_rows: int, n_rows_of_chunk: int) -> tuple[int, int]:
        """Return in how many threads to evaluate parts of a table, and their number of rows."""
        # An encoder of the user's may know one thread only. Without an encoder products are nearly
        # all there is, and each is as fast in several threads, which share what is in the cache.
        is_ours = hasattr(self.encoder, "transform_checked") and type(
            self.encoder
        ).__module__.startswith("sklearn_fordes.")
        # Else results would depend on where the parts begin.
        is_free = self.members.row_multiple > 1
        if not (is_ours and is_free and self.device.type == "cpu" and can_be_alone()):
            return 1, n_rows
        n_chunks = self._n_encoded_at_once // n_rows_of_chunk
        n_threads = min(torch.get_num_threads(), n_chunks)
        if n_threads < 2:
            return 1, n_rows
        # Two parts for each thread at least, or none would be left for one that is quick.
        n_chunks = min(n_chunks // n_threads, n_rows // n_rows_of_chunk // (2 * n_threads))
        if not n_chunks:
            return 1, n_rows
        return n_threads, n_rows_of_chunk * min(n_chunks, _CHUNKS_OF_A_PART)

    def aleatoric_if_known(
        self, X: Any, unknown: NDArray[np.float64], chunks: Chunks | None = None
    ) -> NDArray[np.float64]:
        """Return what the members' own uncertainty would be if some cells were known.

        Parameters
        ----------
        X : data frame or ndarray of shape (n_rows, n_features)
            Checked. The encoder is a `TabularEncoder`, or has its ``column_map_`` and ``samples_``.
        unknown : ndarray of shape (n_rows, n_features)
            In which share of the samples each cell is replaced, in [0, 1].
        chunks : Chunks, optional
            As in `results`.

        Returns
        -------
        ndarray of shape (n_rows,)
            Mean, over the encoder's samples of each column, of the aleatoric uncertainty with these
            in place of the unknown cells.
        """
        chunks = chunks or self.chunks()
        samples = self.as_inputs(self.encoder.samples_)
        levels = (np.arange(len(samples)) + 0.5) / len(samples)
        means = [np.empty(0)]
        for part, inputs in self._encoded_parts(X, chunks):
            total = np.zeros(len(inputs))
            for sample, level in zip(samples, levels, strict=True):
                is_replaced = (unknown[part] > level)[:, self.encoder.column_map_]
                filled = torch.where(torch.tensor(is_replaced, device=self.device), sample, inputs)
                found = map(self.likelihood.decompose, self._outputs_of(filled, chunks))
                total += np.concatenate([parts.aleatoric for parts in found])
            means.append(total / len(samples))
        return np.concatenate(means)

    @property
    def _n_encoded_at_once(self) -> int:
        n_rows = _NUMBERS_ENCODED_AT_ONCE // math.prod(self.input_shape)
        return max(1, min(n_rows, _ROWS_ENCODED_AT_ONCE))

    def _encoded_parts(
        self, X: Any, chunks: Chunks, first: int = 0
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield slices of checked rows, whole chunks of them, and the network's inputs for them."""
        at_once = self._n_encoded_at_once
        n_rows = at_once // chunks.n_rows * chunks.n_rows or at_once
        for part, rows in row_parts(X, n_rows, first):
            yield part, self.encode(rows)

    def _outputs_of(self, inputs: Tensor, chunks: Chunks) -> Iterator[Tensor]:
        """Yield the members' outputs for successive chunks of encoded rows, on the CPU."""
        return chunks.results(
            len(inputs), inputs.device, lambda part: self._evaluated(inputs[part])
        )

    def _evaluated(self, rows: Tensor) -> Tensor:
        """Return the members' outputs for a chunk of encoded rows, on the CPU; all are finite."""
        # A thread may run other code of its own between two chunks.
        with ordinary_state(grad=False):
            whole = _filled_up(rows, self.members.row_multiple)
            is_small = len(whole) * self.members.activations_of_a_row <= _MOST_OF_ONE_THREAD
            with this_thread_alone() if is_small else nullcontext():
                outputs: Tensor = self.members(whole)
            outputs = outputs[:, : len(rows)].cpu()
            if not outputs.sum(dtype=torch.float64).isfinite():
                raise ValueError(
                    "Got X for which the network's output is not finite, but expected the scale "
                    "of the training rows."
                )
            return outputs

    def input_gradients(self, X: Any, y: ArrayLike = ()) -> NDArray[np.float64]:
        """Return the members' gradients of the likelihood's target with respect to the inputs.

        Parameters
        ----------
        X : data frame, ndarray or sparse array of shape (n_rows, ...)
            Checked.
        y : array-like of shape (n_rows,), optional
            Encoded classes. Default: the ensemble's predictions.

        Returns
        -------
        ndarray of shape (M, n_rows, n_inputs)

        Raises
        ------
        ValueError
            If the module's output can't be differentiated twice.
        """
        with ordinary_state(grad=True):
            inputs = self.encode(X)
            # The space guesses the targets of rows that have none.
            known = torch.tensor(np.asarray(y, dtype=np.int64), device=self.device)
        return torch.cat([*self._gradients(inputs, known)], dim=1).double().numpy()

    def column_effects(self, inputs: Tensor) -> NDArray[np.float64]:
        """Return by how much a column's variation moves each member, to first order.

        Parameters
        ----------
        inputs : Tensor of shape (n_rows, ...)
            Encoded rows.

        Returns
        -------
        ndarray of shape (M, n_inputs)
            Root mean square over rows of the gradient of the likelihood's target, of the class
            that the ensemble predicts, times the column's standard deviation over these rows.

        Raises
        ------
        ValueError
            If the module's output can't be differentiated twice.
        """
        # A module may draw when it is evaluated; what it draws here is drawn for nothing else.
        draws = seeded_generators(0, self.device) if self.members.draws_globally else nullcontext()
        known = torch.empty(0, dtype=torch.int64, device=self.device)
        with draws:
            squares = [g.double().square().sum(1) for g in self._gradients(inputs, known)]
        deviation = inputs.flatten(1).cpu().double().std(dim=0, correction=0)
        mean_square = torch.stack(squares).sum(0) / len(inputs)
        return (mean_square.sqrt() * deviation).numpy()

    def _gradients(self, inputs: Tensor, y: Tensor) -> Iterator[Tensor]:
        """Yield input gradients (M, n_rows, n_inputs) of successive chunks, on the CPU."""

        def evaluate(rows: slice) -> Tensor:
            part = inputs[rows]
            try:
                with ordinary_state(grad=True):
                    evaluation: Any = SPACES["input_gradient"].evaluate(
                        self.members, part, y[rows], len(part), self.likelihood
                    )
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                raise ValueError(
                    f"Got a module whose output can't be differentiated twice ({error}), but "
                    "expected one that can."
                ) from error
            found: Tensor = evaluation.representation.cpu()
            return found

        # The derivatives of every layer are kept, where outputs need one layer at a time.
        # Not fewer rows than are evaluated together: of many members each chunk reads all weights.
        multiple = self.members.row_multiple
        chunks = Chunks(max(multiple, self.rows_per_chunk // 4), multiple)
        yield from chunks.results(len(inputs), inputs.device, evaluate)

    def select(self, members: list[int]) -> FittedEnsemble:
        """Return an ensemble of some of the members, with copies of their weights."""
        return replace(self, members=self.members.select(members))


def _filled_up(rows: Tensor, multiple: int) -> Tensor:
    """Repeat the last row until there are a multiple of so many."""
    missing = -len(rows) % multiple
    return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing else rows
