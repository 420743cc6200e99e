"""Wall times of alternatives, measured side by side."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np


def interleaved_medians(
    alternatives: dict[str, Callable[[], object]], repeats: int
) -> dict[str, float]:
    """Return the median seconds of each alternative.

    They take turns, so that what else the machine does falls on all of them; a first round warms
    up and is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in alternatives}
    for repeat in range(repeats + 1):
        for name, run in alternatives.items():
            start = time.perf_counter()
            run()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in seconds.items()}
