"""Randomness that leaves the global generators as they were found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


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


@contextmanager
def seeded_generators(seed: int, device: str | torch.device = "cpu") -> Iterator[None]:
    """Seed the global generators of torch and numpy inside the block, and restore them after.

    Weight initialisation and dropout draw from the global generators and can't be told to use
    another one.

    Parameters
    ----------
    seed : int
        Non-negative, below 2**63.
    device : str or torch.device, default="cpu"
        The device whose generator is seeded beside the CPU's.
    """
    device = torch.device(device)
    cuda_devices = [device] if device.type == "cuda" else []
    numpy_state = np.random.get_state()
    with torch.random.fork_rng(devices=cuda_devices):
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
