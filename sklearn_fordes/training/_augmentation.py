"""Versions of a batch's rows with some cells corrupted: what the ensemble is told about drift."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

# A function of the rows of a batch (B, ...) and a generator of random numbers. It returns versions
# of these rows: of their shape, or with an axis of members before it.
Augmentation = Callable[[Tensor, np.random.Generator], Tensor]


@dataclass(frozen=True, eq=False)
class CellCorruption:
    """Replace cells of a table by those of other rows, add noise to numbers, and leave gaps.

    In each row each kind of corruption has a severity of its own, drawn from U(0, 1). Member i
    sees the row with a severity of ``exposure[i]`` times that: a member with an exposure of 0 sees
    rows as they are. All members share the draws, so that what one sees corrupted, those with a
    larger exposure see corrupted too, and a draw depends neither on the process that holds a member
    nor on the number of members.

    The encoded columns of one column of the table change together.

    Parameters
    ----------
    rows : Tensor of shape (N, D)
        Encoded training rows, from which cells are drawn.
    column_of : Tensor of int of shape (D,)
        Column of the table from which each encoded one is computed, from 0 to R − 1.
    deviation : Tensor of shape (D,)
        Standard deviation of each encoded column that gets noise, 0 for the others.
    gaps : Tensor of shape (D,)
        The code of a row without any value.
    exposure : Tensor of shape (M,)
        In [0, 1].
    n_columns : int
        R.
    swapped : float, default=0.3
        Largest probability with which a cell comes from another row.
    blanked : float, default=0.3
        Largest probability with which a cell becomes a gap.
    noise : float, default=0.5
        Largest standard deviation of the noise, in units of the column's.
    least_blanked : float, default=0.2
        Least exposure to gaps. A member must know their code, which nothing else may teach it.
    shared : bool, default=False
        Whether all members see the same versions: each row as a member that is drawn for it would.
    """

    rows: Tensor
    column_of: Tensor
    deviation: Tensor
    gaps: Tensor
    exposure: Tensor
    n_columns: int
    swapped: float = 0.3
    blanked: float = 0.3
    noise: float = 0.5
    least_blanked: float = 0.2
    shared: bool = False

    @classmethod
    def of(
        cls,
        rows: Tensor,
        *,
        column_of: Any,
        continuous: Any,
        gaps: Any,
        n_members: int,
        **settings: Any,
    ) -> Self:
        """Make one for encoded rows, of which the first half of the members sees the least.

        Parameters
        ----------
        rows : Tensor of shape (N, D)
        column_of : array-like of int of shape (D,)
            Index of a column of the table for each encoded one.
        continuous : array-like of int
            Encoded columns that get noise.
        gaps : array-like of shape (D,)
            The code of a row without any value.
        n_members : int
            M.
        **settings : float or bool
            As in the class.

        Returns
        -------
        CellCorruption
            With an exposure of 0 for the first half of the members, the larger one, and of 1 for
            the others.
        """
        columns, column_of = np.unique(column_of, return_inverse=True)
        deviation = torch.zeros_like(rows[0])
        deviation[continuous] = rows[:, continuous].std(dim=0, correction=0)
        exposure = rows.new_ones(n_members)
        exposure[: n_members - n_members // 2] = 0.0
        return cls(
            rows,
            torch.as_tensor(column_of, device=rows.device),
            deviation,
            torch.as_tensor(gaps).to(rows),
            exposure,
            len(columns),
            **settings,
        )

    def __call__(self, X: Tensor, rng: np.random.Generator) -> Tensor:
        """Return versions (M, B, D) of rows (B, D), or (B, D) if they are shared.

        Parameters
        ----------
        X : Tensor of shape (B, D)
        rng : numpy.random.Generator

        Returns
        -------
        Tensor of shape (M, B, D) or (B, D)
        """
        n_rows = len(X)
        levels, of_member = self._levels
        exposure = levels.view(-1, 1, 1)
        if self.shared:
            drawn = rng.integers(len(of_member), size=n_rows)
            exposure = levels[of_member[torch.from_numpy(drawn).to(X.device)]].unsqueeze(1)

        def uniform(*shape: int) -> Tensor:
            return torch.from_numpy(rng.random(shape, dtype=np.float32)).to(X)

        def is_hit(probability: float, exposure: Tensor) -> Tensor:
            severity = probability * uniform(n_rows, 1)
            return (uniform(n_rows, self.n_columns) < exposure * severity)[..., self.column_of]

        normal = torch.from_numpy(rng.standard_normal(X.shape, dtype=np.float32)).to(X)
        scale = self.noise * uniform(n_rows, 1) * self.deviation
        versions = X + exposure * (scale * normal)
        donors = torch.from_numpy(rng.integers(len(self.rows), size=(n_rows, self.n_columns)))
        others = self.rows.gather(0, donors.to(X.device)[:, self.column_of])
        versions = torch.where(is_hit(self.swapped, exposure), others, versions)
        blanked = is_hit(self.blanked, exposure.clamp(min=self.least_blanked))
        versions = torch.where(blanked, self.gaps, versions)
        return versions if self.shared else versions[of_member]

    @cached_property
    def _levels(self) -> tuple[Tensor, Tensor]:
        """Exposures without repetition, since members with the same see the same, and whose."""
        levels, of_member = self.exposure.unique(return_inverse=True)
        return levels, of_member
