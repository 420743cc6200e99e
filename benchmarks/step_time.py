"""Time of a training step: the repulsion against deep ensembles, other formulations and JAX.

A step is gradients and optimizer, on a batch that lies ready. Each call makes some steps, calls
take turns, and ratios are medians over turns, with the upper end of their 95 % interval. All is in
single precision where nothing else is said, JAX and the general path among it. Run ``python -m
benchmarks.step_time``; JAX comes with the extra ``bench``.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks._harness import (
    fixed,
    interleaved_medians,
    interleaved_seconds,
    make_parser,
    save_report,
)
from benchmarks._steps import A_QUARTER, EVERY_ROW, PERIOD, Shape, make_step, use_threads
from sklearn_fordes.networks import stack_members
from sklearn_fordes.particles import BuiltRepulsion, Ensemble, Kernel, wasserstein_update

FAST, GENERAL = stack_members, Ensemble
N_STEPS = 8  # of a call, a multiple of the default period
N_RESAMPLES = 2000

REPELLED = {
    "FoRDE, every row": (EVERY_ROW, 1),
    "FoRDE, a quarter of the rows": (A_QUARTER, 1),
    "FoRDE, default": (A_QUARTER, PERIOD),
}
Stack = Callable[..., Ensemble]
Steps = Callable[[int], None]


def batch_of(shape: Shape) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(shape.batch_size, shape.n_features, generator=generator)
    return X, torch.randint(shape.n_outputs, (shape.batch_size,), generator=generator)


def describe(shape: Shape) -> str:
    sizes = " × ".join(map(str, shape.hidden_layer_sizes))
    kind = "default net, " if shape.is_default else ""
    return f"{kind}{sizes}, M {shape.n_members}, B {shape.batch_size}, D {shape.n_features}"


def optimizer_of(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3, fused=True)


def particle_steps(
    shape: Shape, stack: Stack, repulsion: BuiltRepulsion | None, *, period: int = 1
) -> Steps:
    ensemble = stack(shape.member, shape.n_members).train()
    optimizer = optimizer_of(ensemble.parameters())
    X, y = batch_of(shape)

    def run(n_steps: int) -> None:
        for step in range(n_steps):
            make_step(ensemble, optimizer, X, y, repulsion if step % period == 0 else None)

    return run


def autograd_steps(shape: Shape, modules: list[nn.Module]) -> Steps:
    """Make steps of modules one by one: members, or all of them as one of stacked layers."""
    optimizers = [optimizer_of(module.train().parameters()) for module in modules]
    X, y = batch_of(shape)
    labels = y.repeat(shape.n_members // len(modules))

    def run(n_steps: int) -> None:
        for _ in range(n_steps):
            for module, optimizer in zip(modules, optimizers, strict=True):
                optimizer.zero_grad()
                logits = module(X).flatten(0, -2)
                loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
                (loss / len(y)).backward()
                optimizer.step()

    return run


def loop_steps(shape: Shape) -> Steps:
    return autograd_steps(shape, [shape.member() for _ in range(shape.n_members)])


def jax_steps(shape: Shape) -> dict[str, Steps]:
    try:
        from benchmarks.jax_step import make_steps
    except ImportError:
        return {}
    X, y = (tensor.numpy() for tensor in batch_of(shape))
    sizes = [shape.n_features, *shape.hidden_layer_sizes, shape.n_outputs]
    steps = {}
    for repels, name in ((False, "deep ensemble"), (True, "FoRDE, every row")):
        for loops, how in ((False, "vmap"), (True, "loop")):
            run = make_steps(sizes, shape.n_members, X, y, repels=repels, loops=loops)
            steps[f"JAX, {name}, {how}"] = run
    return steps


def our_steps(shape: Shape, stack: Stack = FAST) -> dict[str, Steps]:
    make = partial(particle_steps, shape, stack)
    steps = {"deep ensemble": make(None)}
    return steps | {name: make(force, period=n) for name, (force, n) in REPELLED.items()}


def measure(steps: dict[str, Steps], repeats: int, n_steps: int = N_STEPS) -> pd.Series:
    """Return milliseconds a step."""
    calls = {name: partial(run, n_steps) for name, run in steps.items()}
    return 1e3 / n_steps * pd.Series(interleaved_medians(calls, repeats))


def compare(shape: Shape, repeats: int) -> pd.DataFrame:
    steps = our_steps(shape)
    steps |= {f"general path, {name}": run for name, run in our_steps(shape, GENERAL).items()}
    steps["members one by one"] = loop_steps(shape)
    steps["deep ensemble, autograd"] = autograd_steps(shape, [FAST(shape.member, shape.n_members)])
    if not shape.is_default:
        steps |= jax_steps(shape)
    plain = [name for name in steps if name.startswith("deep ensemble")]
    mixed = our_steps(shape._replace(mixed_precision=True))
    steps |= {f"mixed precision, {name}": run for name, run in mixed.items()}
    calls = {name: partial(run, N_STEPS) for name, run in steps.items()}
    seconds = pd.DataFrame(interleaved_seconds(calls, repeats))
    fastest = seconds[plain].median().idxmin()
    own = "mixed precision, deep ensemble"
    table = {"ms": 1e3 / N_STEPS * seconds.median()}
    table |= ratio_to(seconds, fastest, "fastest plain")
    # What mixed precision is compared with in mixed precision, and the general path with ours.
    pairs = {name: own for name in seconds if name.startswith("mixed")}
    pairs |= {f"general path, {name}": name for name in ("deep ensemble", *REPELLED)}
    table |= ratio_to(seconds, pairs, "its own")
    return pd.DataFrame(table).reindex(list(steps))


def ratio_to(
    seconds: pd.DataFrame, reference: str | dict[str, str], name: str
) -> dict[str, pd.Series]:
    """Return the median ratio of seconds over turns, and the upper end of its 95 % interval.

    The reference is one column, or one for each column that is compared.
    """
    if isinstance(reference, str):
        reference = dict.fromkeys(seconds, reference)
    ratios = pd.DataFrame({own: seconds[own] / seconds[to] for own, to in reference.items()})
    draws = np.random.default_rng(0).integers(len(ratios), size=(N_RESAMPLES, len(ratios)))
    medians = np.median(ratios.to_numpy()[draws], axis=1)
    upper = pd.Series(np.quantile(medians, 0.975, axis=0), index=ratios.columns)
    return {f"/ {name}": ratios.median(), f"at most, / {name}": upper}


def kernel_steps(gradients: Tensor, n_steps: int) -> None:
    kernel = Kernel()
    for _ in range(n_steps):
        wasserstein_update(gradients, kernel)


def kernel_share(shape: Shape, repeats: int) -> dict[str, float]:
    """Return the share of kernel and force in a step, with every row and with a quarter."""
    gradients = torch.randn(shape.n_members, shape.batch_size, shape.n_features)
    steps, repulsions = {}, {"every row": EVERY_ROW, "a quarter": A_QUARTER}
    for name, repulsion in repulsions.items():
        n_rows = round(repulsion.fraction * shape.batch_size)
        rows = gradients[:, :n_rows].contiguous()
        steps[name] = particle_steps(shape, FAST, repulsion)
        steps[f"{name}, kernel"] = partial(kernel_steps, rows)
    ms = measure(steps, repeats)
    return {name: ms[f"{name}, kernel"] / ms[name] for name in repulsions}


def thousand_members(repeats: int) -> str:
    """Time a thousand members, and say what memory the process has taken at most by then.

    It holds an ensemble, with its gradients and the optimizer's moments, for each row of the table.
    """
    shape = Shape((128, 128), n_members=1000, batch_size=64)
    ms = measure(our_steps(shape), repeats, n_steps=PERIOD)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return (
        f"{describe(shape)}: at most {peak:.0f} MB resident\n{ms.rename('ms').round(0).to_string()}"
    )


def scaling(shapes: list[Shape], repeats: int) -> pd.DataFrame:
    rows = {}
    for shape in shapes:
        ms = measure(our_steps(shape), repeats)
        loop = measure({"loop": loop_steps(shape)}, repeats)["loop"]
        ratios = (ms / ms["deep ensemble"]).drop("deep ensemble")
        rows[describe(shape)] = {
            "deep ensemble, ms": ms["deep ensemble"],
            "members one by one": loop / ms["deep ensemble"],
            **ratios,
        }
    return pd.DataFrame(rows).T


def main() -> None:
    arguments = make_parser(__doc__, "step_time", repeats=30, threads=2).parse_args()
    use_threads(arguments.threads)
    repeats, fewer = arguments.repeats, max(3, arguments.repeats // 6)
    parts = ["", thousand_members(fewer)]
    plain = [Shape((256, 256, 256)), Shape((128, 128))]
    default = Shape((128, 128), is_default=True)
    for shape in (*plain, default):
        parts += ["", describe(shape), fixed(compare(shape, repeats), 3)]
    sharing = (*plain, *(shape._replace(n_members=100) for shape in plain))
    shares = pd.DataFrame({describe(shape): kernel_share(shape, fewer) for shape in sharing})
    parts += ["", "Share of kernel and force", fixed(shares.T, 3)]
    one = Shape((128, 128))
    shapes = [
        *(one._replace(n_members=n) for n in (3, 30, 100)),
        *(one._replace(batch_size=n) for n in (32, 128, 1024)),
        *(one._replace(n_features=n) for n in (5, 200)),
        *(one._replace(hidden_layer_sizes=(n, n)) for n in (32, 512)),
    ]
    parts += ["", "Relative to the deep ensemble", fixed(scaling(shapes, fewer), 2)]
    title = f"Medians of {repeats} interleaved calls of {N_STEPS} steps, seed 0"
    save_report(arguments.output, *parts, title=title)


if __name__ == "__main__":
    main()
