"""A fitted ensemble: encoder, members and likelihood, evaluated in chunks of rows."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from threadpoolctl import threadpool_limits
from torch import Tensor

from sklearn_fordes._rows import row_parts
from sklearn_fordes._warnings import warn
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
# Of so few activations in the widest layer no second thread is worth its start, and on a busy
# machine the first one would wait for it: tens of milliseconds where the work takes one.
_MOST_OF_ONE_THREAD = 1 << 17
# What torch says if a machine has no memory left; it has a type of its own for devices alone.
_NO_MEMORY = "DefaultCPUAllocator"
# The process in which torch has computed with several threads, if any has.
_process_of_threads: int | None = None

T = TypeVar("T")


class Chunks:
    """How many rows are evaluated at once in one call: fewer once memory has run out.

    Parameters
    ----------
    n_rows : int
        At most, to begin with.
    least : int
        Chunks that memory makes smaller are multiples of it, so that the outputs of an ensemble
        with such a `row_multiple` do not change.
    """

    def __init__(self, n_rows: int, least: int) -> None:
        self.n_rows = n_rows
        self._least = least
        self._is_told = False

    def results(self, n_rows: int, device: torch.device, call: Callable[[slice], T]) -> Iterator[T]:
        """Yield what a function returns for successive slices of rows.

        Parameters
        ----------
        n_rows : int
            Of all slices.
        device : torch.device
            Where memory may run out.
        call : callable

        Raises
        ------
        MemoryError or RuntimeError
            If memory runs out for a chunk that can't be smaller.

        Warns
        -----
        UserWarning
            The first time that chunks are smaller.
        """
        start = tried = 0
        while start < n_rows:
            stop = min(start + self.n_rows, n_rows)
            try:
                result = call(slice(start, stop))
            except (MemoryError, RuntimeError) as error:
                n_tried = stop - start
                if n_tried <= self._least or not _is_out_of_memory(error):
                    raise
                tried = tried or n_tried
                self.n_rows = max(1, n_tried // (2 * self._least)) * self._least
            else:
                if tried and not self._is_told:
                    self._is_told = True
                    warn(
                        f"Memory ran out on the device {device} for {tried} rows at once, and the "
                        f"rest of this call takes {self.n_rows} at once. The parameter "
                        "iterator_valid__batch_size says how many rows prediction takes at most."
                    )
                yield result
                start = stop
                continue
            # The error is forgotten here, and with it the tensors that its frames held.
            _release_memory(device)


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
        _expect_threads_that_work()
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
        # A copy protects the caller's array, and takes read-only ones; torch takes no flipped ones.
        inputs = torch.tensor(np.ascontiguousarray(array), dtype=dtype, device=self.device)
        if not inputs.isfinite().all():
            raise ValueError(
                f"Got X that contains NaN or infinity, or is too large for {dtype}, after "
                "encoding, but expected finite numbers of the scale of the training rows."
            )
        return inputs

    def chunks(self) -> Chunks:
        """Return how many rows the members evaluate at once, for one call."""
        return Chunks(self.rows_per_chunk, self.members.row_multiple)

    def outputs(self, X: Any, chunks: Chunks | None = None) -> Iterator[Tensor]:
        """Yield the members' outputs for successive chunks of rows.

        Parameters
        ----------
        X : data frame, ndarray or sparse array of shape (n_rows, ...)
            Checked.
        chunks : Chunks, optional
            Those of a call that evaluates members elsewhere, too. Default: new ones.

        Yields
        ------
        Tensor of shape (M, n_rows of the chunk, C)
            On the CPU.

        Raises
        ------
        ValueError
            If an output is not finite.
        """
        chunks = chunks or self.chunks()
        for _, inputs in self._encoded_parts(X):
            yield from self._outputs_of(inputs, chunks)

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
            As in `outputs`.

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
        for part, inputs in self._encoded_parts(X):
            total = np.zeros(len(inputs))
            for sample, level in zip(samples, levels, strict=True):
                is_replaced = (unknown[part] > level)[:, self.encoder.column_map_]
                filled = torch.where(torch.tensor(is_replaced, device=self.device), sample, inputs)
                found = map(self.likelihood.decompose, self._outputs_of(filled, chunks))
                total += np.concatenate([parts.aleatoric for parts in found])
            means.append(total / len(samples))
        return np.concatenate(means)

    def _encoded_parts(self, X: Any) -> Iterator[tuple[slice, Tensor]]:
        """Yield slices of checked rows, and the network's inputs for them."""
        at_most = max(1, _NUMBERS_ENCODED_AT_ONCE // math.prod(self.input_shape))
        for part, rows in row_parts(X, min(_ROWS_ENCODED_AT_ONCE, at_most)):
            yield part, self.encode(rows)

    def _outputs_of(self, inputs: Tensor, chunks: Chunks) -> Iterator[Tensor]:
        """Yield the members' outputs for successive chunks of encoded rows, on the CPU."""

        def evaluate(part: slice) -> Tensor:
            rows = inputs[part]
            # A thread may run other code of its own between two chunks.
            with ordinary_state(grad=False):
                whole = _filled_up(rows, self.members.row_multiple)
                is_small = len(whole) * self.members.activations_of_a_row <= _MOST_OF_ONE_THREAD
                with _this_thread_alone() if is_small else nullcontext():
                    outputs: Tensor = self.members(whole)
                return outputs[:, : len(rows)].cpu()

        for outputs in chunks.results(len(inputs), inputs.device, evaluate):
            if not outputs.sum(dtype=torch.float64).isfinite():
                raise ValueError(
                    "Got X for which the network's output is not finite, but expected the "
                    "scale of the training rows."
                )
            yield outputs

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
                if _is_out_of_memory(error):
                    raise
                raise ValueError(
                    f"Got a module whose output can't be differentiated twice ({error}), but "
                    "expected one that can."
                ) from error
            found: Tensor = evaluation.representation.cpu()
            return found

        # The derivatives of every layer are kept, where outputs need one layer at a time.
        chunks = Chunks(max(1, self.rows_per_chunk // 4), self.members.row_multiple)
        yield from chunks.results(len(inputs), inputs.device, evaluate)

    def select(self, members: list[int]) -> FittedEnsemble:
        """Return an ensemble of some of the members, with copies of their weights."""
        return replace(self, members=self.members.select(members))


def _filled_up(rows: Tensor, multiple: int) -> Tensor:
    """Repeat the last row until there are a multiple of so many."""
    missing = -len(rows) % multiple
    return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing else rows


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a device or the machine has no memory left."""
    is_of_type = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return is_of_type or (isinstance(error, RuntimeError) and _NO_MEMORY in str(error))


def _release_memory(device: torch.device) -> None:
    """Give back what torch keeps of a device's memory for later, in blocks of other sizes."""
    empty_cache = getattr(getattr(torch, device.type, None), "empty_cache", None)
    if empty_cache is not None:  # The CPU has none.
        empty_cache()


@contextmanager
def ordinary_state(*, grad: bool) -> Iterator[None]:
    """Compute as if the caller had not changed how torch computes in this thread.

    Inside the block inference mode and autocast are off, and gradients are as asked for.

    Parameters
    ----------
    grad : bool
        Whether autograd follows.
    """
    _expect_threads_that_work()
    with (
        torch.inference_mode(False),
        torch.set_grad_enabled(grad),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
    ):
        yield


@cache
def _setters_of_threads() -> tuple[Any, Any]:
    """Return what sets the number of threads of the calling thread: of OpenMP's, and of MKL's.

    `torch.set_num_threads` sets that of threads to come, too. Each is None where torch is built
    without it, or where a library does not show the functions of those that it needs.
    """
    library = ctypes.PyDLL(torch._C.__file__)
    names = ("omp_set_num_threads", "MKL_Set_Num_Threads_Local")
    openmp, mkl = (getattr(library, name, None) for name in names)
    return openmp, mkl


@contextmanager
def _this_thread_alone() -> Iterator[None]:
    """Compute without other threads inside the block, where the libraries of torch's can be told.

    Other threads of the process keep theirs.
    """
    n_threads = torch.get_num_threads()  # Torch sets the number at its first use.
    set_openmp, set_mkl = _setters_of_threads()
    if n_threads == 1 or set_openmp is None:
        yield
        return
    of_mkl = set_mkl(1) if set_mkl is not None else 0
    try:
        set_openmp(1)
        yield
    finally:
        set_openmp(n_threads)
        if set_mkl is not None:
            set_mkl(of_mkl)


@contextmanager
def one_thread() -> Iterator[None]:
    """Start no threads of torch inside the block, so that forks of this process can use threads.

    Other threads of the process keep theirs. Products of matrices are not limited: a user may
    have given their library a number of threads of its own.
    """
    torch.get_num_threads()  # Torch sets the number at its first use, which would end the limit.
    with threadpool_limits(1, user_api="openmp"):
        yield


def _expect_threads_that_work() -> None:
    """Refuse to wait for threads that a fork did not copy.

    Raises
    ------
    RuntimeError
        If this process was forked from one whose threads have computed. Their pool is gone, and
        OpenMP would wait for it for ever.
    """
    global _process_of_threads
    if torch.get_num_threads() == 1:
        return
    if _process_of_threads not in (None, os.getpid()):
        raise RuntimeError(
            "Got a process forked after its parent had computed with several threads, in which "
            "torch would hang. Start processes by 'spawn' or 'forkserver', or call "
            "torch.set_num_threads(1) in the child first."
        )
    _process_of_threads = os.getpid()


def available_device(device: str | torch.device) -> torch.device:
    """Return the device named, or for "auto" CUDA, XPU or MPS if there is one, else the CPU.

    Raises
    ------
    ValueError
        If torch knows no such device, or this machine has none.
    """
    if device == "auto":
        offered = {"cuda": torch.cuda, "xpu": torch.xpu, "mps": torch.backends.mps}
        found = (name for name, backend in offered.items() if backend.is_available())
        device = next(found, "cpu")
    try:
        known = torch.device(device)
        torch.zeros(1, device=known).item()
    # Torch imports the modules of some devices when they are first used, and may lack them.
    except (RuntimeError, TypeError, AssertionError, ImportError) as error:
        raise ValueError(
            f"Got device={device!r}, which this machine does not offer to torch, but expected "
            "'auto', 'cpu', 'cuda', 'cuda:<index>' or another device of torch."
        ) from error
    return known
