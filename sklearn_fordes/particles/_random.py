"""Randomness that leaves the global generators as they were found."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch

Made = TypeVar("Made")

# Two threads that save and restore a global state in turn would leave it changed.
GLOBAL_STATE = threading.RLock()


def derived_seed(*entropy: int) -> int:
    """Return a seed that depends on every number given and on nothing else.

    Parameters
    ----------
    *entropy : int
        Non-negative.

    Returns
    -------
    int
        Below 2**63.
    """
    state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def call_seeded(make: Callable[..., Made], generator: torch.Generator) -> Made:
    """Call a function whose random draws are to depend on a generator alone.

    Parameters
    ----------
    make : callable
        Called with ``generator=generator`` if it has an argument of that name: nothing global is
        touched then. It is called without arguments otherwise, and draws from the global
        generators, seeded with the generator's initial seed.
    generator : torch.Generator

    Returns
    -------
    object
        What the function returns.
    """
    if accepts_generator(make):
        return make(generator=generator)
    with seeded_generators(generator.initial_seed()):
        return make()


def accepts_generator(make: Callable[..., object]) -> bool:
    """Return whether a function has an argument ``generator`` for its random draws.

    Parameters
    ----------
    make : callable

    Returns
    -------
    bool
        False for a callable without a signature, too.
    """
    try:
        parameter = inspect.signature(make).parameters.get("generator")
    except (TypeError, ValueError):  # An instance of a module, or a callable written in C.
        return False
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return parameter is not None and parameter.kind in named


@contextmanager
def seeded_generators(seed: int, device: str | torch.device = "cpu") -> Iterator[None]:
    """Seed the global generators of torch and numpy inside the block, and restore them after.

    Layers of torch draw initial weights and dropout from the global generators and cannot use
    another one. The block holds a re-entrant lock: a second thread waits for its end.

    Parameters
    ----------
    seed : int
        Non-negative, below 2**63.
    device : str or torch.device, default="cpu"
        The device whose generator is seeded with the CPU's.
    """
    device = torch.device(device)
    cuda_devices = [device] if device.type == "cuda" else []
    with GLOBAL_STATE, torch.random.fork_rng(devices=cuda_devices):
        numpy_state = np.random.get_state()
        # torch.manual_seed would seed every device, and those not forked would stay changed.
        torch.default_generator.manual_seed(seed)
        for cuda_device in cuda_devices:
            with torch.cuda.device(cuda_device):
                torch.cuda.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)


@contextmanager
def ordinary_state(*, grad: bool) -> Iterator[None]:
    """Compute as if the caller had not changed how torch computes in this thread.

    Inside the block inference mode and autocast are off, and gradients are as asked for.

    Parameters
    ----------
    grad : bool
        Whether autograd follows.
    """
    with (
        torch.inference_mode(False),
        torch.set_grad_enabled(grad),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
    ):
        yield
