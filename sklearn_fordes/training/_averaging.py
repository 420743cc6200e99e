"""Weights averaged over the steps of training, in place of those of the last step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

# The average of the first n steps is over about the last tenth of them, so that it leaves the
# initial weights behind.
_STEPS_OF_WARMUP = 10


class WeightAverage:
    """Exponential moving average of parameters, which hold it while they are not trained.

    Parameters
    ----------
    parameters : iterable of torch.nn.Parameter
        Kept, not copied.
    decay : float
        In [0, 1): the weight of the average so far when a step is taken in, once there were enough
        steps. The average is over about ``1 / (1 − decay)`` of them.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        self._parameters = list(parameters)
        self._other: list[Tensor] = [p.detach().clone() for p in self._parameters]
        self._decay = decay
        self._n_steps = 0
        self._versions: list[int] = []
        self._swap()

    @contextmanager
    def training(self) -> Iterator[None]:
        """Give the parameters the values that are trained, and the average afterwards.

        What was written into the parameters in between (by a callback that sets weights) is trained
        on.
        """
        for i, parameter in enumerate(self._parameters):
            if parameter._version != self._versions[i]:
                self._other[i].copy_(parameter.detach())
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def update(self) -> None:
        """Take in the values that a step has left, while training."""
        decay = min(self._decay, self._n_steps / (self._n_steps + _STEPS_OF_WARMUP))
        trained = [parameter.detach() for parameter in self._parameters]
        get_ema_multi_avg_fn(decay)(self._other, trained, self._n_steps)
        self._n_steps += 1

    def _swap(self) -> None:
        # Pointers, not values: what is trained stays where it lies.
        for i, parameter in enumerate(self._parameters):
            parameter.data, self._other[i] = self._other[i], parameter.data
        self._versions = [parameter._version for parameter in self._parameters]
