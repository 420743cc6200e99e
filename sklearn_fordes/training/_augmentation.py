"""Versions of a batch's rows with some cells corrupted: what the members are told about drift."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from sklearn_fordes.training._transfer import sent

# A function of the rows of a batch (B, ...) and a generator of random numbers. It returns versions
# of these rows: of their shape, or with an axis of members before it.
Augmentation = Callable[[Tensor, np.random.Generator], Tensor]
# A member must know the code of gaps, which nothing else may teach it.
_LEAST_EXPOSURE_TO_GAPS = 0.2
# Share of the rows that are blank, from which every member learns the distribution of the targets.
_EMPTY_SHARE = 0.02

# Numbers that are made at once.
_NUMBERS_AT_ONCE = 1 << 20


@dataclass(eq=False, repr=False)
class CellCorruption(BaseEstimator):
    """Replace cells of a table by those of other rows, blank them, and add noise to numbers.

    In each row each kind of corruption has a severity of its own, drawn uniformly between 0 and the
    largest. Some members see all of it, the others rows as they are, but for a fifth of the gaps. A
    network cannot tell a corrupted cell from a true one, so that members which train on them give
    clean rows too little confidence; the mean of both kinds is not far from the better one. One row
    in fifty is blank for all members, if cells are blanked at all, so that a row of which nothing
    is known gets the distribution of the targets.

    Numbers should have an indicator of gaps, as with ``TabularEncoder(gap_indicators="all")``: the
    encoder that the estimators make has them. Without one a blank is the median.

    Parameters
    ----------
    swapped : float, default=0.3
        Largest probability with which a cell is that of another training row, in [0, 1].
    blanked : float, default=0.3
        Largest probability with which a cell is missing, in [0, 1].
    noise : float, default=0.5
        Largest standard deviation of the noise, in units of that of the encoded column.
    exposed : float, default=0.5
        Share of the members that see all of it: every second one if it is a half, beginning with
        the second. Of M members that is the share of M, rounded down: none, if it is a half of one.

    Notes
    -----
    Noise of this kind is that of denoising autoencoders (Vincent, Larochelle, Bengio, Manzagol:
    Extracting and composing robust features with denoising autoencoders, ICML 2008); cells of other
    rows are that of Yoon, Zhang, Jordon, van der Schaar: VIME, NeurIPS 2020.

    Examples
    --------
    >>> from sklearn_fordes import CellCorruption, FoRDEClassifier
    >>> model = FoRDEClassifier(augmentation=CellCorruption(noise=0.0))
    >>> model.set_params(augmentation__swapped=0.1).augmentation
    CellCorruption(noise=0.0, swapped=0.1)
    """

    _: KW_ONLY
    swapped: float = 0.3
    blanked: float = 0.3
    noise: float = 0.5
    exposed: float = 0.5

    def build(
        self,
        rows: Tensor,
        *,
        column_of: Any,
        continuous: Any,
        gaps: Any,
        n_members: int,
    ) -> CorruptedVersions:
        """Make the function of a batch for encoded training rows.

        Parameters
        ----------
        rows : Tensor of shape (N, D)
        column_of : array-like of int of shape (D,)
            Index of the column of the table from which each encoded one is computed.
        continuous : array-like of int
            Indices of the encoded columns that get noise.
        gaps : array-like of shape (D,)
            The code of a row without any value.
        n_members : int
            M.

        Returns
        -------
        CorruptedVersions
            It takes the rows of a batch and a generator of random numbers.

        Raises
        ------
        ValueError
            If a parameter is not as expected.
        """
        largest = {"swapped": 1.0, "blanked": 1.0, "exposed": 1.0, "noise": sys.float_info.max}
        for name, limit in largest.items():
            value = getattr(self, name)
            is_number = isinstance(value, Real) and not isinstance(value, bool)
            if not (is_number and 0 <= float(value) <= limit):
                expected = "finite and not negative" if limit > 1 else "in [0, 1]"
                raise ValueError(f"Got {name}={value!r}, but expected a number that is {expected}.")
        columns, index = np.unique(column_of, return_inverse=True)
        deviation = torch.zeros_like(rows[0])
        n_at_once = max(1, _NUMBERS_AT_ONCE // len(rows))
        indices = torch.as_tensor(continuous, dtype=torch.int64, device=rows.device)
        for columns_at_once in indices.split(n_at_once):
            numbers = rows[:, columns_at_once]
            deviation[columns_at_once] = (numbers - numbers.mean(0)).square().mean(0).sqrt()
        # Member i has the exposure that it has among any number of members.
        n_exposed = np.floor(np.arange(n_members + 1) * self.exposed + 1e-9)
        return CorruptedVersions(
            rows,
            torch.tensor(index, device=rows.device),
            len(columns),
            deviation,
            torch.tensor(np.asarray(gaps), dtype=rows.dtype, device=rows.device),
            torch.tensor(np.diff(n_exposed), dtype=rows.dtype, device=rows.device),
            float(self.swapped),
            float(self.blanked),
            float(self.noise),
        )


@dataclass(frozen=True, eq=False)
class CorruptedVersions:
    """A `CellCorruption` for the encoded rows of a table.

    Member i sees a row with a severity of ``exposure[i]`` times the row's. All members share the
    draws, so that what one sees corrupted, those with a larger exposure see corrupted too, and a
    draw depends neither on the process that holds a member nor on the number of members. The
    encoded columns of one column of the table change together.

    Parameters
    ----------
    rows : Tensor of shape (N, D)
        Encoded training rows, from which cells are drawn.
    column_of : Tensor of int of shape (D,)
        Column of the table from which each encoded one is computed, from 0 to R − 1.
    n_columns : int
        R.
    deviation : Tensor of shape (D,)
        Standard deviation of each encoded column that gets noise, 0 for the others.
    gaps : Tensor of shape (D,)
        The code of a row without any value.
    exposure : Tensor of shape (M,)
        In [0, 1].
    swapped, blanked, noise : float
        As in `CellCorruption`.
    """

    rows: Tensor
    column_of: Tensor
    n_columns: int
    deviation: Tensor
    gaps: Tensor
    exposure: Tensor
    swapped: float
    blanked: float
    noise: float

    @property
    def rows_at_once(self) -> int:
        """Rows of several batches, for small operations take as long as their calls."""
        return min(2048, _NUMBERS_AT_ONCE // (len(self.exposure) * len(self.deviation)))

    def __call__(self, X: Tensor, rng: np.random.Generator) -> Tensor:
        """Return a version of the rows for each member.

        Parameters
        ----------
        X : Tensor of shape (B, D)
        rng : numpy.random.Generator

        Returns
        -------
        Tensor of shape (M, B, D)
        """
        n_rows = len(X)
        levels, of_member = self._levels
        exposure = levels.view(-1, 1, 1)

        def uniform(*shape: int) -> Tensor:
            return sent(rng.random(shape, dtype=np.float32), X.device).to(X.dtype)

        def is_hit(probability: float, exposure: Tensor) -> Tensor:
            severity = probability * uniform(n_rows, 1)
            return (uniform(n_rows, self.n_columns) < exposure * severity)[..., self.column_of]

        normal = sent(rng.standard_normal(X.shape, dtype=np.float32), X.device).to(X.dtype)
        scale = self.noise * uniform(n_rows, 1) * self.deviation
        versions = X + exposure * (scale * normal * ~self._are_gaps(X))
        donors = sent(rng.integers(len(self.rows), size=(n_rows, self.n_columns)), X.device)
        others = self.rows.gather(0, donors[:, self.column_of])
        versions = torch.where(is_hit(self.swapped, exposure), others, versions)
        blanked = is_hit(self.blanked, exposure.clamp(min=_LEAST_EXPOSURE_TO_GAPS))
        if self.blanked:
            blanked = blanked | (uniform(n_rows, 1) < _EMPTY_SHARE)
        versions = torch.where(blanked, self.gaps, versions)
        return versions[of_member]

    def _are_gaps(self, X: Tensor) -> Tensor:
        """Return whether the cell of each encoded column is a gap that an indicator tells."""
        is_code = (self.gaps == X).to(X.dtype)
        n_codes = X.new_zeros(len(X), self.n_columns).index_add_(1, self.column_of, is_code)
        is_gap: Tensor = ((n_codes == self._n_inputs) & (self._n_inputs > 1))[:, self.column_of]
        return is_gap

    @cached_property
    def _n_inputs(self) -> Tensor:
        """Number of encoded columns of each column; counting waits for a GPU, so once."""
        return self.column_of.bincount(minlength=self.n_columns)

    @cached_property
    def _levels(self) -> tuple[Tensor, Tensor]:
        """Exposures without repetition, since members with the same see the same, and whose."""
        levels, of_member = self.exposure.unique(return_inverse=True)
        return levels, of_member
