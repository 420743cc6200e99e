"""Time of a training step: the repulsion against deep ensembles, other formulations and JAX.

A step is gradients and optimizer, on a batch that lies ready. Each call makes twenty steps, calls
take turns, and ratios are of their medians. Run ``python -m benchmarks.step_time``; JAX comes with
the extra ``bench``.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.environment import describe_environment
from benchmarks.timing import interleaved_medians
from sklearn_fordes import FoRDEClassifier
from sklearn_fordes.networks import MLP, stack_members
from sklearn_fordes.particles import (
    Ensemble,
    Kernel,
    Repulsion,
    accumulate_gradients,
    compile_step,
    wasserstein,
)
from sklearn_fordes.training import keep_freed_memory

RESULTS = Path("benchmarks/results")
N_STEPS = 20  # of a call, a multiple of the default period
DEFAULTS = FoRDEClassifier().get_params()
EVERY_ROW = Repulsion()
A_QUARTER = Repulsion(fraction=DEFAULTS["repulsion_fraction"])

Steps = Callable[[int], None]


class Shape(NamedTuple):
    """What a step's cost depends on."""

    hidden_layer_sizes: tuple[int, ...]
    n_members: int = 10
    batch_size: int = 256
    n_features: int = 30
    n_outputs: int = 2
    is_default: bool = False  # with embedded columns and dropout

    def member(self) -> MLP:
        extra: dict[str, Any] = {}
        if self.is_default:
            extra = {"embedded_features": range(self.n_features), "dropout": 0.1}
        return MLP(
            self.n_features, self.n_outputs, hidden_layer_sizes=self.hidden_layer_sizes, **extra
        )

    def batch(self) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        X = torch.randn(self.batch_size, self.n_features, generator=generator)
        return X, torch.randint(self.n_outputs, (self.batch_size,), generator=generator)

    def __str__(self) -> str:
        sizes = " × ".join(map(str, self.hidden_layer_sizes))
        kind = "default net, " if self.is_default else ""
        return f"{kind}{sizes}, M {self.n_members}, B {self.batch_size}, D {self.n_features}"


def optimizer_of(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3, fused=True)


def particle_steps(
    shape: Shape,
    kind: Callable[..., Ensemble],
    repulsion: Repulsion | None,
    *,
    period: int = 1,
    compiles: bool = False,
) -> Steps:
    ensemble = kind(shape.member, shape.n_members).train()
    optimizer = optimizer_of(ensemble.parameters())
    X, y = shape.batch()
    compiled = compile_step() if compiles else None

    def run(n_steps: int) -> None:
        for step in range(n_steps):
            optimizer.zero_grad()
            now = repulsion if step % period == 0 else None
            accumulate_gradients(ensemble, X, y, repulsion=now, compiled=compiled)
            optimizer.step()

    return run


def autograd_steps(shape: Shape, *, compiles: bool) -> Steps:
    """Make steps of a deep ensemble as stacked layers that autograd differentiates."""
    ensemble = stack_members(shape.member, shape.n_members).train()
    optimizer = optimizer_of(ensemble.parameters())
    X, y = shape.batch()
    labels = y.repeat(shape.n_members)

    def loss() -> Tensor:
        logits = ensemble(X).flatten(0, 1)
        return shape.n_members * nn.functional.cross_entropy(logits, labels)

    evaluate = torch.compile(loss) if compiles else loss

    def run(n_steps: int) -> None:
        for _ in range(n_steps):
            optimizer.zero_grad()
            evaluate().backward()
            optimizer.step()

    return run


def loop_steps(shape: Shape) -> Steps:
    """Make steps of members one by one."""
    members = [shape.member().train() for _ in range(shape.n_members)]
    optimizers = [optimizer_of(member.parameters()) for member in members]
    X, y = shape.batch()

    def run(n_steps: int) -> None:
        for _ in range(n_steps):
            for member, optimizer in zip(members, optimizers, strict=True):
                optimizer.zero_grad()
                nn.functional.cross_entropy(member(X), y).backward()
                optimizer.step()

    return run


def jax_steps(shape: Shape) -> dict[str, Steps]:
    try:
        from benchmarks.jax_step import make_steps
    except ImportError:
        return {}
    X, y = (tensor.numpy() for tensor in shape.batch())
    sizes = [shape.n_features, *shape.hidden_layer_sizes, shape.n_outputs]
    steps = {}
    for repels, name in ((False, "deep ensemble"), (True, "FoRDE, every row")):
        for loops, how in ((False, "vmap"), (True, "loop")):
            run = make_steps(sizes, shape.n_members, X, y, repels=repels, loops=loops)
            steps[f"JAX, {name}, {how}"] = run
    return steps


def our_steps(shape: Shape, kind: Callable[..., Ensemble] = stack_members) -> dict[str, Steps]:
    make = partial(particle_steps, shape, kind)
    return {
        "deep ensemble": make(None),
        "FoRDE, every row": make(EVERY_ROW),
        "FoRDE, a quarter of the rows": make(A_QUARTER),
        "FoRDE, default": make(A_QUARTER, period=DEFAULTS["repulsion_period"]),
    }


def measure(steps: dict[str, Steps], repeats: int, n_steps: int = N_STEPS) -> pd.Series:
    """Return milliseconds a step."""
    calls = {name: partial(run, n_steps) for name, run in steps.items()}
    return 1e3 / n_steps * pd.Series(interleaved_medians(calls, repeats))


def compare(shape: Shape, repeats: int) -> pd.DataFrame:
    steps = our_steps(shape)
    steps |= {f"general path, {name}": run for name, run in our_steps(shape, Ensemble).items()}
    compiled = partial(particle_steps, shape, stack_members, compiles=True)
    steps["deep ensemble, compiled"] = compiled(None)
    steps["FoRDE, every row, compiled"] = compiled(EVERY_ROW)
    steps["FoRDE, default, compiled"] = compiled(A_QUARTER, period=DEFAULTS["repulsion_period"])
    steps["members one by one"] = loop_steps(shape)
    steps["deep ensemble, autograd"] = autograd_steps(shape, compiles=False)
    if not shape.is_default:
        steps["deep ensemble, autograd, compiled"] = autograd_steps(shape, compiles=True)
        steps |= jax_steps(shape)
    milliseconds = measure(steps, repeats)
    ours = [name for name in steps if name.startswith("deep ensemble")]
    fastest = milliseconds[ours].min()
    return pd.DataFrame({"ms": milliseconds, "/ fastest deep ensemble": milliseconds / fastest})


def kernel_share(shape: Shape, repeats: int) -> dict[str, float]:
    """Return the share of kernel and force in a step, with every row and with a quarter."""
    n_rows = A_QUARTER.n_rows(shape.batch_size)
    gradients = torch.randn(shape.n_members, shape.batch_size, shape.n_features)
    some, kernel = gradients[:, :n_rows].contiguous(), Kernel()
    make = partial(particle_steps, shape, stack_members)

    def kernel_alone(rows: Tensor, n_steps: int) -> None:
        for _ in range(n_steps):
            wasserstein(rows, kernel)

    ms = measure(
        {
            "all": make(EVERY_ROW),
            "all, kernel": partial(kernel_alone, gradients),
            "some": make(A_QUARTER),
            "some, kernel": partial(kernel_alone, some),
        },
        repeats,
    )
    return {
        "every row": ms["all, kernel"] / ms["all"],
        "a quarter": ms["some, kernel"] / ms["some"],
    }


def thousand_members(repeats: int) -> str:
    """Time a thousand members, and say what memory the process has taken at most by then.

    It holds an ensemble, with its gradients and the optimizer's moments, for each row of the table.
    """
    shape = Shape((128, 128), n_members=1000, batch_size=64)
    ms = measure(our_steps(shape), repeats, n_steps=DEFAULTS["repulsion_period"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return f"{shape}: at most {peak:.0f} MB resident\n{ms.rename('ms').round(0).to_string()}"


def scaling(shapes: list[Shape], repeats: int) -> pd.DataFrame:
    rows = {}
    for shape in shapes:
        ms = measure(our_steps(shape), repeats)
        loop = measure({"loop": loop_steps(shape)}, repeats)["loop"]
        ratios = (ms / ms["deep ensemble"]).drop("deep ensemble")
        rows[str(shape)] = {
            "deep ensemble, ms": ms["deep ensemble"],
            "members one by one": loop / ms["deep ensemble"],
            **ratios,
        }
    return pd.DataFrame(rows).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULTS / "step_time.txt")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    repeats = arguments.repeats

    plain = [Shape((256, 256, 256)), Shape((128, 128))]
    default = Shape((128, 128), batch_size=128, is_default=True)
    parts = [
        f"Medians of {repeats} interleaved calls of {N_STEPS} steps, seed 0",
        describe_environment(),
        "",
        thousand_members(max(3, repeats // 3)),
    ]
    for shape in (*plain, default):
        table = compare(shape, repeats)
        parts += ["", str(shape), table.to_string(float_format="{:.3f}".format)]
    shares = {
        str(shape): kernel_share(shape, max(3, repeats // 3))
        for shape in (*plain, *(shape._replace(n_members=100) for shape in plain))
    }
    parts += [
        "",
        "Share of kernel and force",
        pd.DataFrame(shares).T.to_string(float_format="{:.3f}".format),
    ]
    one = Shape((128, 128))
    shapes = [
        *(one._replace(n_members=n) for n in (3, 30, 100)),
        *(one._replace(batch_size=n) for n in (32, 128, 1024)),
        *(one._replace(n_features=n) for n in (5, 200)),
        *(one._replace(hidden_layer_sizes=(n, n)) for n in (32, 512)),
    ]
    table = scaling(shapes, max(3, repeats // 3))
    parts += ["", "Relative to the deep ensemble", table.to_string(float_format="{:.2f}".format)]
    report = "\n".join(parts)
    print(report)
    arguments.output.write_text(report + "\n")


if __name__ == "__main__":
    main()
