"""Where and how members are evaluated: the device, the threads, and the state of torch."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from threadpoolctl import threadpool_limits

# The process in which torch has computed with several threads, if any has.
_process_of_threads: int | None = None


@contextmanager
def ordinary_state(*, grad: bool) -> Iterator[None]:
    """Compute as if the caller had not changed how torch computes in this thread.

    Inside the block inference mode and autocast are off, and gradients are as asked for.

    Parameters
    ----------
    grad : bool
        Whether autograd follows.
    """
    expect_threads_that_work()
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


def can_be_alone() -> bool:
    """Return whether `this_thread_alone` has an effect."""
    return _setters_of_threads()[0] is not None


@contextmanager
def this_thread_alone() -> Iterator[None]:
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

    Other threads of the process keep theirs.
    """
    if can_be_alone():
        with this_thread_alone():
            yield
        return
    torch.get_num_threads()  # Torch sets the number at its first use, which would end the limit.
    with threadpool_limits(1, user_api="openmp"):  # It looks through all libraries of the process.
        yield


def expect_threads_that_work() -> None:
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
