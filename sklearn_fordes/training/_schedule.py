"""When and how strongly the repulsion acts, and at which points beside the rows of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Points = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Schedule:
    """When the repulsion acts, and how strongly.

    Parameters
    ----------
    period : int, default=1
        It acts at every so many steps, and then so many times as strongly, so that its mean over
        steps does not depend on the period.
    warmup : int, default=0
        Epochs in which it rises linearly to its full strength.
    relative : bool, default=False
        Whether its strength is relative to the driving loss, a mean over rows: not divided by the
        rows of a batch, and fading with what the members still get wrong.
    """

    period: int = 1
    warmup: int = 0
    relative: bool = False

    def factor(self, epoch: int, step: int, n_rows: int, unexplained: float) -> float:
        """Return the factor of the strength in a step.

        Parameters
        ----------
        epoch, step : int
            Counted from zero.
        n_rows : int
            Of the batch.
        unexplained : float
            What the members still get wrong, as a share of what a guess does (see `Likelihood`).
        """
        if step % self.period:
            return 0.0
        risen = min(1.0, (epoch + 1) / (self.warmup + 1))
        # A repulsion divides its strength by the rows.
        return self.period * risen * (unexplained * n_rows if self.relative else 1.0)


def drawn_from(rows: Tensor) -> Points:
    """Points drawn with replacement from rows without a target, (N, ...)."""

    def points(_: Tensor, n_points: int) -> Tensor:
        index = torch.randint(len(rows), (n_points,), device=rows.device)
        return rows[index]

    return points


def perturbed_by(perturbation: Callable[[Tensor], Tensor]) -> Points:
    """Perturbed copies of the first rows of the batch."""

    def points(X: Tensor, n_points: int) -> Tensor:
        perturbed = perturbation(X.clone())  # which may work in place
        if not isinstance(perturbed, Tensor):
            raise TypeError(
                f"Got a {type(perturbed).__name__} from repulsion_perturbation, but expected a "
                "tensor."
            )
        if perturbed.shape != X.shape or perturbed.dtype != X.dtype:
            raise ValueError(
                f"Got {perturbed.dtype} of shape {tuple(perturbed.shape)} from "
                f"repulsion_perturbation, but expected {X.dtype} of shape {tuple(X.shape)}."
            )
        if not perturbed.isfinite().all():
            raise ValueError(
                "Got NaN or infinity from repulsion_perturbation, but expected finite numbers."
            )
        return perturbed[:n_points].detach()

    return points


def noise(X: Tensor) -> Tensor:
    """Add normal noise of each feature's standard deviation in the batch."""
    return X + X.std(0, correction=0) * torch.randn_like(X)


def permute(X: Tensor) -> Tensor:
    """Replace each cell, with probability 0.3, by that of another row of the batch."""
    n_rows = len(X)
    source = torch.randint(n_rows, X.shape, device=X.device)
    replaced = torch.rand(X.shape, device=X.device) < 0.3
    return torch.where(replaced, X.gather(0, source), X)


PERTURBATIONS: dict[str, Callable[[Tensor], Tensor]] = {"noise": noise, "permute": permute}
