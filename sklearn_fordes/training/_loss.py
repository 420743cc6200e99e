"""The loss that validation reports."""

from __future__ import annotations

import torch
from torch import Tensor

from sklearn_fordes.particles import Likelihood


class MixtureLoss(torch.nn.Module):
    """Loss of the members' equal mixture: training never descends it, validation reports it.

    Parameters
    ----------
    likelihood : Likelihood
    """

    def __init__(self, likelihood: Likelihood) -> None:
        super().__init__()
        self.likelihood = likelihood

    def forward(
        self,
        outputs: Tensor,
        y: Tensor,
        sample_weight: Tensor | None = None,
        n_members: int | None = None,
    ) -> Tensor:
        """Return the (weighted) mean over rows; outputs (B, M, C), as skorch has them.

        With `n_members`, these are outputs of some of so many members, whose loss is estimated.
        """
        outputs = outputs.transpose(0, 1)
        if n_members is None or not 1 < len(outputs) < n_members:
            losses = self.likelihood.mixture_losses(outputs, y)
        else:
            losses = self.likelihood.losses_of_more(outputs, y, n_members)
        return (losses if sample_weight is None else losses * sample_weight).mean()
