"""What a measurement depends on: versions and the machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

PACKAGES = ("sklearn-fordes", "torch", "skorch", "scikit-learn", "numpy", "pandas")


def describe_environment() -> str:
    """Return one line with versions, processor and threads."""
    import torch

    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"Python {platform.python_version()}, {versions}; {platform.machine()}, "
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {device}"
    )
