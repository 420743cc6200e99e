"""The interface of a likelihood, and what all likelihoods of a number share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sklearn_fordes.particles._communication import ALONE, Communicator
from sklearn_fordes.particles._evaluation import Hessian, autograd_derivatives
from sklearn_fordes.uncertainty import Uncertainty, variance_decomposition

# Halvings of an interval after which its ends are equal in double precision.
_BISECTIONS = 60
# Outputs of which a constant's losses are computed at once, of however many classes.
_OUTPUTS_AT_ONCE = 1 << 22


def positive(total: Tensor) -> Tensor:
    """Return a sum of weights, to divide by: those of a batch may all round to zero."""
    return total.clamp(min=torch.finfo(total.dtype).tiny)


class Likelihood(ABC):
    """What outputs (M, B, C) of M members mean for targets y (B,): a task has one class.

    Attributes
    ----------
    n_outputs : int
        C, the number of outputs of a row.
    outputs_are : str
        The outputs in words, for the error about a wrong shape.
    kind : {"classifier", "regressor"}
        The task in scikit-learn's words.
    communicator : Communicator, default=ALONE
        Reaches processes that have other members.
    """

    n_outputs: int
    outputs_are: str
    kind: str
    communicator: Communicator = ALONE

    @abstractmethod
    def row_losses(self, outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return each member's loss of each row, and its gradient.

        Parameters
        ----------
        outputs : Tensor of shape (M, B, C)
        y : Tensor of shape (B,)

        Returns
        -------
        losses : Tensor of shape (M, B)
            In nats, where it is a negative log likelihood.
        gradient : Tensor of shape (M, B, C)
            Gradient of each loss with respect to the outputs, by which members learn. A likelihood
            may weight it by row and member, as `GaussianLikelihood` does with `beta`.
        """

    @abstractmethod
    def gradient_target(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the scalars (M, B) whose input gradients are compared."""

    @abstractmethod
    def prediction(self, outputs: Tensor) -> Tensor:
        """Return what function space compares, (M, B, K)."""

    @abstractmethod
    def guess(self, outputs: Tensor) -> Tensor:
        """Return the ensemble's own prediction of y (B,), for rows without a target."""

    @abstractmethod
    def relative_loss(
        self, loss: Tensor, outputs: Tensor, y: Tensor, weight: Tensor | None
    ) -> Tensor:
        """Return the members' losses as a share of a constant prediction's loss, (M,)."""

    @abstractmethod
    def constant_outputs(self, y: Tensor, weight: Tensor | None) -> Tensor:
        """Return the outputs (C,) that predict the distribution of targets (B,) at every row."""

    @abstractmethod
    def mixture_losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the loss of the members' equal mixture in each row, (B,)."""

    @abstractmethod
    def predict(self, outputs: Tensor) -> Tensor:
        """Return the prediction of the members' equal mixture in float64, (B, ...)."""

    @abstractmethod
    def decompose(self, outputs: Tensor) -> Uncertainty:
        """Split the uncertainty of the mixture; arrays of shape (B,)."""

    def losses_of_more(self, outputs: Tensor, y: Tensor, n_members: int) -> Tensor:
        """Estimate the loss of a mixture of many members from the outputs of a few of them.

        With densities p_i of mean p̄ and variance s², the expected loss of a mixture of h members is
        ``−log p̄ + s² / (2 h p̄²)`` to second order. The mixture of few is judged as that of many by
        taking off the difference: its own loss would rise while that of all still falls, since
        members that grow certain in different ways hurt it more.

        Parameters
        ----------
        outputs : Tensor of shape (h, B, C)
            Of at least two members.
        y : Tensor of shape (B,)
        n_members : int
            Number of members of the mixture whose loss is estimated.

        Returns
        -------
        Tensor of shape (B,)
        """
        losses, n_mixed = self.row_losses(outputs, y)[0], len(outputs)
        density = (losses.amin(0) - losses).exp()  # In units of the largest.
        squared_variation = density.var(0) / density.mean(0).square()
        excess = squared_variation / 2 * (1 / n_mixed - 1 / n_members)
        return self.mixture_losses(outputs, y) - excess

    def constant_loss(
        self, y: Tensor, weight: Tensor | None, at: Tensor, weight_at: Tensor | None
    ) -> float:
        """Return the loss, as validation computes it, of predicting the distribution of `y`.

        Parameters
        ----------
        y : Tensor of shape (B,)
        weight : Tensor of shape (B,) or None
        at : Tensor of shape (N,)
            Targets to predict.
        weight_at : Tensor of shape (N,) or None
        """
        outputs = self.constant_outputs(y, weight)
        n_at_once = max(1, _OUTPUTS_AT_ONCE // len(outputs))
        losses = torch.cat(
            [
                self.mixture_losses(outputs.expand(1, len(part), -1), part)
                for part in at.split(n_at_once)
            ]
        )
        return float((losses if weight_at is None else losses * weight_at).mean())

    def gradient_target_derivatives(
        self, outputs: Tensor, y: Tensor
    ) -> tuple[Tensor, Hessian | None]:
        """Differentiate `gradient_target` twice (see `autograd_derivatives`)."""
        return autograd_derivatives(lambda z: self.gradient_target(z, y), outputs)

    def completed(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return targets of all rows: guesses for the first ones, which have no target.

        Parameters
        ----------
        outputs : Tensor of shape (M, n_extra + B, C)
        y : Tensor of shape (B,)

        Returns
        -------
        Tensor of shape (n_extra + B,)
        """
        n_extra = outputs.shape[1] - len(y)
        if not n_extra:
            return y
        # All members guess together, wherever they are.
        everyone = self.communicator.gather(outputs[:, :n_extra].detach())
        return torch.cat([self.guess(everyone), y])

    def spread_over(self, communicator: Communicator) -> Self:
        """Return a likelihood of outputs of some members, where other processes have the others."""
        spread = copy(self)
        vars(spread)["communicator"] = communicator  # A likelihood may be frozen.
        return spread


class RealLikelihood(Likelihood):
    """A distribution of a number with mean 0 and variance 1 over the training rows.

    The first output is the location, whose input gradient is compared. A subclass gives the loss,
    and the members' moments, quantiles and distribution functions.
    """

    kind = "regressor"

    @abstractmethod
    def moments(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of each member's distribution, (..., B) of (..., B, C)."""

    @abstractmethod
    def member_quantiles(self, outputs: Tensor, levels: Tensor) -> Tensor:
        """Return each member's quantiles at levels (L,), of shape (M, B, L)."""

    @abstractmethod
    def member_cdf(self, outputs: Tensor, values: Tensor) -> Tensor:
        """Return each member's distribution function at values (B, L), of shape (M, B, L)."""

    def gradient_target(self, outputs: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the members' locations (M, B)."""
        return outputs[..., 0]

    def gradient_target_derivatives(self, outputs: Tensor, y: Tensor) -> tuple[Tensor, None]:
        """Return ones for the location, and zeros; there is no second derivative."""
        gradient = torch.zeros_like(outputs)
        gradient[..., 0].fill_(1)
        return gradient, None

    def prediction(self, outputs: Tensor) -> Tensor:
        """Return the members' locations, (M, B, 1)."""
        return outputs[..., :1]

    def guess(self, outputs: Tensor) -> Tensor:
        """Return the mean of the members' locations, (B,)."""
        return outputs[..., 0].mean(0)

    def relative_loss(
        self, loss: Tensor, outputs: Tensor, y: Tensor, weight: Tensor | None
    ) -> Tensor:
        """Return the squared error of the members' locations, for a variance of one, (M,)."""
        sq_error = (outputs[..., 0] - y).square()
        if weight is None:
            return sq_error.mean(1)
        return (sq_error * weight).sum(1) / positive(weight.sum(-1))

    def member_means(self, outputs: Tensor) -> Tensor:
        """Return the means of the members' distributions in float64, (M, B)."""
        return self.moments(outputs.double())[0]

    def predict(self, outputs: Tensor) -> Tensor:
        """Return the mean of the mixture, (B,)."""
        return self.member_means(outputs).mean(0)

    def mixture_moments(self, outputs: Tensor) -> tuple[Tensor, NDArray[np.float64]]:
        """Return mean and variance of the mixture, (B,) each."""
        return self.predict(outputs), self.decompose(outputs).total

    def decompose(self, outputs: Tensor) -> Uncertainty:
        """Split the variance of the mixture."""
        return variance_decomposition(*self.moments(outputs.double()))

    def quantiles(self, outputs: Tensor, levels: Any) -> Tensor:
        """Return quantiles of the members' equal mixture.

        A quantile of the mixture lies between the smallest and the largest of the members', where
        bisection finds it to double precision.

        Parameters
        ----------
        outputs : Tensor of shape (M, B, C)
        levels : array-like of shape (L,)
            In (0, 1).

        Returns
        -------
        Tensor of shape (B, L)
            In float64, not decreasing along increasing levels.
        """
        outputs = outputs.double()
        levels, order = torch.as_tensor(levels, dtype=outputs.dtype, device=outputs.device).sort()
        of_members = self.member_quantiles(outputs, levels)
        low, high = of_members.amin(0), of_members.amax(0)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            is_below = self.member_cdf(outputs, middle).mean(0) < levels
            low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
        # Rounding must not let two quantiles cross.
        return high.cummax(-1).values[:, order.argsort()]
