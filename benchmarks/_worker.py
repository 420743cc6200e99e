"""What `benchmarks.against` measures, in a process that imports the package of one checkout.

For each line that it reads, the name of a measurement, it prints a number. It knows the package's
names of before and after the version in which the settings of a repulsion became an object.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from sklearn.datasets import make_classification

from sklearn_fordes import FoRDEClassifier
from sklearn_fordes.particles import accumulate_gradients
from sklearn_fordes.training import keep_freed_memory

try:
    from sklearn_fordes.networks import MLP, stack_members
    from sklearn_fordes.particles import BuiltRepulsion as Repulsion
except ImportError:
    from sklearn_fordes.tabular import MLP, MLPEnsemble

    from sklearn_fordes.particles import Repulsion

    stack_members = MLPEnsemble

N_FEATURES, N_STEPS, PEAK = 30, 20, "peak"
DEFAULT_PARTS = {"embedded_features": range(N_FEATURES), "dropout": 0.1}
NETWORKS: dict[str, tuple[int, dict[str, Any]]] = {  # the batch size and the arguments
    "2 × 128": (256, {"hidden_layer_sizes": (128, 128)}),
    "3 × 256": (256, {"hidden_layer_sizes": (256, 256, 256)}),
    "default net": (128, {"hidden_layer_sizes": (128, 128), **DEFAULT_PARTS}),
}
REPULSIONS: dict[str, tuple[Any, int]] = {  # with the period
    "deep ensemble": (None, 1),
    "default repulsion": (Repulsion(fraction=0.25), 4),
    "every row": (Repulsion(), 1),
}
FITS = {"deep ensemble": "none", "default repulsion": "input_gradient"}


def make_steps(network: str, name: str) -> Callable[[], None]:
    batch_size, arguments = NETWORKS[network]
    repulsion, period = REPULSIONS[name]
    ensemble = stack_members(partial(MLP, N_FEATURES, 2, **arguments), 10).train()
    optimizer = torch.optim.AdamW(ensemble.parameters(), lr=1e-3, fused=True)
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(batch_size, N_FEATURES, generator=generator)
    y = torch.randint(2, (batch_size,), generator=generator)
    # Before, the strength was the repulsion's, and divided by the number of rows inside.
    strength = {} if hasattr(Repulsion, "strength") else {"strength": 1 / batch_size}

    def run() -> None:
        for step in range(N_STEPS):
            optimizer.zero_grad()
            now = None if step % period else repulsion
            accumulate_gradients(ensemble, X, y, repulsion=now, **strength)
            optimizer.step()

    return run


def make_fit(repulsion: str) -> Callable[[], Any]:
    X, y = make_classification(2000, 20, n_informative=10, flip_y=0.1, random_state=0)
    settings = {"max_epochs": 10, "early_stopping": False, "random_state": 0}
    return partial(FoRDEClassifier(repulsion=repulsion, **settings).fit, X, y)


@cache
def make_call(name: str) -> Callable[[], Any]:
    what, kind = name.split(", ")
    return make_fit(FITS[kind]) if what == "fit" else make_steps(what, kind)


def measure(name: str) -> float:
    """Return milliseconds of a step or a fit, or the megabytes that were resident at most."""
    if name == PEAK:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    call = make_call(name)
    start = time.perf_counter()
    call()
    n_calls = 1 if name.startswith("fit") else N_STEPS
    return 1e3 * (time.perf_counter() - start) / n_calls


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    keep_freed_memory()
    for line in sys.stdin:
        print(measure(line.strip()), flush=True)
