"""Randomness that leaves the global generators as they were found."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

# Two threads that save and restore a global state in turn would leave it changed.
GLOBAL_STATE = threading.RLock()


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
