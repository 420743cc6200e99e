"""Weights averaged over the steps of training, in place of those of the last step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

# The average of the first n steps covers about the last tenth of them, so that it leaves the
# initial weights behind.
_STEPS_OF_WARMUP = 10


class WeightAverage:
    """Keep an exponential moving average, and swap it into the parameters outside of training.

    `torch.optim.swa_utils.AveragedModel` keeps the average in a copy of the module, where neither
    validation nor skorch's callbacks (which read and set the net's own weights) would see it.

    Parameters
    ----------
    parameters : iterable of torch.nn.Parameter
        Kept, not copied.
    decay : float
        In [0, 1): the weight of the average so far in each update, once there were enough steps.
        The average covers about ``1 / (1 − decay)`` of them.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        self._parameters = list(parameters)
        self._other = [p.detach().clone() for p in self._parameters]
        self._decay = decay
        self._n_steps = 0
        self._swap()

    @contextmanager
    def training(self) -> Iterator[None]:
        """Give the parameters the values that are trained, and the average afterwards.

        Values that a callback wrote into the parameters in between are trained on.
        """
        for i, parameter in enumerate(self._parameters):
            # A write in place raises a tensor's version; nothing public says that one happened.
            if parameter._version != self._versions[i]:
                self._other[i].copy_(parameter.detach())
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def update(self) -> None:
        """Add the weights that a training step has left to the average."""
        decay = min(self._decay, self._n_steps / (self._n_steps + _STEPS_OF_WARMUP))
        get_ema_multi_avg_fn(decay)(self._other, self._parameters, self._n_steps)
        self._n_steps += 1

    @property
    def state(self) -> tuple[list[Tensor], int]:
        """The values that are trained, outside of training, and the number of steps so far."""
        return self._other, self._n_steps

    def set_state(self, values: Sequence[Tensor], n_steps: int) -> None:
        """Go on from the state of another average, whose values the parameters have already.

        Raises
        ------
        ValueError
            If the values are of other shapes.
        """
        if [v.shape for v in values] != [p.shape for p in self._parameters]:
            raise ValueError("Got weights of other shapes, but expected those of the parameters.")
        for mine, given in zip(self._other, values, strict=True):
            mine.copy_(given)
        self._n_steps = n_steps

    def _swap(self) -> None:
        # Swapping the storage instead of the values leaves the trained weights where they lie,
        # which optimizers and captured graphs rely on.
        for i, parameter in enumerate(self._parameters):
            parameter.data, self._other[i] = self._other[i], parameter.data
        self._versions = [parameter._version for parameter in self._parameters]
