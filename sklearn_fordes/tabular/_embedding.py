"""Numbers as several features each, so that a network can be sharp in them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from sklearn_fordes.tabular._workspace import Lease


class PeriodicEmbedding(nn.Module):
    """Append to a row K learnt periodic components of each of some columns.

    A number x becomes ``W cos(2π (f x + φ)) + c`` with F frequencies f and phases φ of its own
    (Gorishniy, Rubachev, Babenko: On embeddings for numerical features in tabular deep learning,
    NeurIPS 2022; with phases and few components as in RealMLP, Holzmüller et al. 2024).

    Parameters
    ----------
    features : sequence of int
        Which columns are embedded, D of them.
    n_frequencies : int, default=16
        F.
    n_components : int, default=3
        K.
    frequency_scale : float, default=0.3
        Standard deviation of the frequencies at first, in periods per unit of the input.

    Examples
    --------
    >>> embedding = PeriodicEmbedding([0, 2], n_components=3)
    >>> embedding(torch.ones(5, 4)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        features: Sequence[int],
        *,
        n_frequencies: int = 16,
        n_components: int = 3,
        frequency_scale: float = 0.3,
    ) -> None:
        super().__init__()
        n_features = len(features)
        shape = (n_features, n_frequencies)
        self.frequency = nn.Parameter(2 * math.pi * frequency_scale * torch.randn(shape))
        self.phase = nn.Parameter(math.pi * (2 * torch.rand(shape) - 1))
        bound = n_frequencies**-0.5  # as in nn.Linear
        self.weight = nn.Parameter(bound * (2 * torch.rand(*shape, n_components) - 1))
        self.bias = nn.Parameter(bound * (2 * torch.rand(n_features, n_components) - 1))
        self.register_buffer("features", torch.as_tensor(features, dtype=torch.int64))

    @property
    def n_added(self) -> int:
        """How many columns are appended."""
        return self.bias.numel()

    def forward(self, X: Tensor) -> Tensor:
        """Return (B, n_features + D · K)."""
        numbers = X[:, cast("Tensor", self.features)]
        return torch.cat([X, components(numbers, self.parameters())], dim=1)


def components(numbers: Tensor, parameters: Iterable[Tensor]) -> Tensor:
    """Embed numbers.

    Parameters
    ----------
    numbers : Tensor of shape (..., B, D)
    parameters : iterable of Tensor
        Of a `PeriodicEmbedding`: frequency and phase (..., D, F), in radians, weight
        (..., D, F, K) and bias (..., D, K).

    Returns
    -------
    Tensor of shape (..., B, D · K)
    """
    frequency, phase, weight, bias = parameters
    # Rows last: one matrix product for each column, whose short side comes first.
    # (…, D, F, B)
    angle = torch.addcmul(phase.unsqueeze(-1), frequency.unsqueeze(-1), numbers.mT.unsqueeze(-2))
    cos = angle.cos() if torch.is_grad_enabled() else angle.cos_()
    value = weight.mT @ cos + bias.unsqueeze(-1)  # (…, D, K, B)
    return value.flatten(-3, -2).mT


class EmbeddingPass:
    """A pass of a batch through M stacked embeddings and back, with slopes at the first rows.

    Angles are ``α = ω x + φ``, values ``e = Wᵀ cos α + c`` and slopes ``e' = −Wᵀ (ω ∘ sin α)``, and
    their cotangents ē and ē' go back as::

        W̄ = cos α ēᵀ − (ω ∘ sin α) ē'ᵀ,   c̄ = Σ_b ē
        ᾱ = −sin α ∘ (W ē) − ω ∘ cos α ∘ (W ē'),   φ̄ = Σ_b ᾱ
        ω̄ = Σ_b (x ᾱ − sin α ∘ (W ē'))

    Parameters
    ----------
    numbers : Tensor of shape (B, D)
    parameters : sequence of Tensor
        Of M embeddings, stacked.
    n_rows : int
        How many rows slopes are taken at.
    memory : Lease

    Attributes
    ----------
    value : Tensor of shape (M, B, D · K)
    slope : Tensor of shape (M, n_rows, D · K)
    """

    def __init__(
        self, numbers: Tensor, parameters: Sequence[Tensor], n_rows: int, memory: Lease
    ) -> None:
        self._memory = memory
        self._n_rows = n_rows
        self._numbers = numbers.T.unsqueeze(1).contiguous()  # (D, 1, B)
        frequency, phase, weight, bias = parameters
        self._weight = weight.flatten(0, 1)  # (M · D, F, K)
        self._frequency = frequency.unsqueeze(-1)  # (M, D, F, 1)
        angle = memory.empty(*frequency.shape, len(numbers))
        torch.addcmul(phase.unsqueeze(-1), self._frequency, self._numbers, out=angle)
        self._sin = torch.sin(angle, out=memory.empty_like(angle))
        self._cos = angle.cos_()
        self._sloped = -self._frequency * self._sin[..., :n_rows]  # −ω sin α
        value = torch.baddbmm(
            bias.flatten(0, 1).unsqueeze(-1), self._weight.mT, self._cos.flatten(0, 1)
        )
        self.value = self._rows_first(value)
        self.slope = self._rows_first(self._weight.mT @ self._sloped.flatten(0, 1))

    def gradients(
        self, value_cotangent: Tensor, slope_cotangent: Tensor | None
    ) -> list[Tensor | None]:
        """Pull cotangents of value and slope, of their shapes, back to the parameters.

        May be called once.
        """
        e_bar = self._rows_last(value_cotangent)  # (M · D, K, B)
        weight_bar = e_bar @ self._cos.flatten(0, 1).mT
        at_angles = self._memory.empty_like(self._sin)
        torch.bmm(self._weight, e_bar, out=at_angles.flatten(0, 1))
        at_angles.mul_(self._sin)  # −ᾱ
        at_slopes = None
        if slope_cotangent is not None:
            first = slice(self._n_rows)
            slope_bar = self._rows_last(slope_cotangent)
            weight_bar.baddbmm_(slope_bar, self._sloped.flatten(0, 1).mT)
            at_slopes = (self._weight @ slope_bar).view_as(self._sloped)
            at_angles[..., first] += self._frequency * self._cos[..., first] * at_slopes
            at_slopes.mul_(self._sin[..., first])
        phase_bar = at_angles.sum(-1).neg_()
        frequency_bar = at_angles.mul_(self._numbers).sum(-1).neg_()
        if at_slopes is not None:
            frequency_bar -= at_slopes.sum(-1)
        by_column = self._sin.shape[:2]
        return [
            frequency_bar,
            phase_bar,
            weight_bar.mT.unflatten(0, by_column),
            e_bar.sum(-1).unflatten(0, by_column),
        ]

    def _rows_first(self, values: Tensor) -> Tensor:
        """(M · D, K, rows) → (M, rows, D · K)."""
        by_column: Tensor = values.unflatten(0, self._sin.shape[:2])
        return by_column.flatten(1, 2).mT

    def _rows_last(self, values: Tensor) -> Tensor:
        """(M, rows, D · K) → (M · D, K, rows)."""
        n_members, n_columns = self._sin.shape[:2]
        by_column: Tensor = values.mT.unflatten(1, (n_columns, -1))
        return by_column.reshape(n_members * n_columns, -1, values.shape[1])
