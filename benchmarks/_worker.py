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

from sklearn_fordes import FoRDEClassifier, particles, training

try:
    from sklearn_fordes.networks import MLP, stack_members
except ImportError:
    from sklearn_fordes.tabular import MLP, MLPEnsemble

    stack_members = MLPEnsemble

Repulsion = getattr(particles, "BuiltRepulsion", particles.Repulsion)
N_FEATURES, N_STEPS = 30, 20
DEFAULT_PARTS = {"embedded_features": range(N_FEATURES), "dropout": 0.1}
NETWORKS: dict[str, tuple[int, dict[str, Any]]] = {  # the batch size and the arguments
    "2 × 128": (256, {"hidden_layer_sizes": (128, 128)}),
    "3 × 256": (256, {"hidden_layer_sizes": (256, 256, 256)}),
    "default net": (128, {"hidden_layer_sizes": (128, 128), **DEFAULT_PARTS}),
}
STEPS = {"deep ensemble": [None], "every row": [Repulsion()]}
STEPS["default repulsion"] = [Repulsion(fraction=0.25), None, None, None]


@cache
def make_steps(network: str, name: str) -> Callable[[], None]:
    batch_size, arguments = NETWORKS[network]
    ensemble = stack_members(partial(MLP, N_FEATURES, 2, **arguments), 10).train()
    optimizer = torch.optim.AdamW(ensemble.parameters(), lr=1e-3, fused=True)
    torch.manual_seed(0)
    X, y = torch.randn(batch_size, N_FEATURES), torch.randint(2, (batch_size,))
    # Before, the strength was the repulsion's, and divided by the number of rows inside.
    strength = {} if hasattr(Repulsion, "strength") else {"strength": 1 / batch_size}

    def run() -> None:
        for step in range(N_STEPS):
            optimizer.zero_grad()
            repulsion = STEPS[name][step % len(STEPS[name])]
            particles.accumulate_gradients(ensemble, X, y, repulsion=repulsion, **strength)
            optimizer.step()

    return run


@cache
def make_fit() -> Callable[[], Any]:
    X, y = make_classification(2000, 20, n_informative=10, flip_y=0.1, random_state=0)
    settings = {"max_epochs": 10, "early_stopping": False, "random_state": 0}
    return partial(FoRDEClassifier(**settings).fit, X, y)


def measure(name: str) -> float:
    """Return milliseconds of a step or a fit, or the megabytes that were resident at most."""
    if name == "peak":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    call = make_fit() if name == "fit" else make_steps(*name.split(", "))
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start) / (1 if name == "fit" else N_STEPS)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    training.keep_freed_memory()
    for line in sys.stdin:
        print(measure(line.strip()), flush=True)
