"""Figures of the members in the steps of an epoch, and the running mean of their relative loss."""

from __future__ import annotations

import torch
from torch import Tensor

from sklearn_fordes.particles import Communicator, StepResult

FIGURES = ("driving_loss", "repulsion", "relative_loss")
# Decay of the running mean over steps of the members' relative loss.
_RELATIVE_LOSS_DECAY = 0.95


class Block:
    """Tensors of one shape, copied one after the other into a block of memory that doubles.

    A small tensor that outlives its step splits the memory that the step has freed: the next step
    does not fit there and takes more, several times what a fit needs after thousands of steps.
    """

    def __init__(self) -> None:
        self._block: Tensor | None = None
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def extend(self, values: Tensor) -> None:
        """Add the elements of the first axis."""
        end = self._length + len(values)
        if self._block is None or end > len(self._block):
            larger = values.new_empty(max(2 * end, 64), *values.shape[1:])
            if self._block is not None:
                larger[: self._length] = self.values
            self._block = larger
        self._block[self._length : end] = values
        self._length = end

    @property
    def values(self) -> Tensor:
        """What was added, one after the other; a view."""
        assert self._block is not None
        return self._block[: self._length]


class Figures:
    """Keep what the members of this process had in each step, until those of all are needed.

    They stay on the device: reading them waits for it.

    Parameters
    ----------
    communicator : Communicator

    Attributes
    ----------
    relative_loss : Tensor or float
        Running mean over steps of the mean over members, at most 1; of several processes, as it was
        when they last learnt of each other.
    """

    def __init__(self, communicator: Communicator) -> None:
        self._communicator = communicator
        self.relative_loss: Tensor | float = 1.0  # As far as it is known.
        self._noted = Block()  # (3, m), or (4, m), of each step since the last exchange.
        self._known = Block()  # (3, M) of the steps of this epoch before.
        self._n_rows = 1

    def begin_epoch(self) -> None:
        """Forget the steps of an epoch before."""
        self._known, self._noted = Block(), Block()

    def of_step(
        self, step: StepResult, relative_loss: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Return what to note of a step, each (m,).

        That is `FIGURES` and, if other processes have other rows, the mean weight of those here.
        """
        figures = step.driving_loss, step.repulsion, relative_loss
        if self._communicator.n_row_shares == 1:
            return figures
        one = torch.ones_like(relative_loss)
        return *figures, one if weight is None else one * weight.mean(-1)

    def note(self, figures: Tensor, n_rows: int) -> None:
        """Note a step: what `of_step` returns, stacked, at so many rows."""
        self._noted.extend(figures.unsqueeze(0))
        self._n_rows = n_rows  # The batches of an epoch are of one size.

    def of_epoch(self) -> Tensor:
        """Return the figures of all members in each step of this epoch, (n, 3, M)."""
        self.exchange()
        return self._known.values

    def exchange(self) -> None:
        """Learn from all processes, which do this together, what was noted since the last time."""
        if not self._noted:
            return
        steps, self._noted = self._noted.values, Block()
        is_shared = self._communicator.n_row_shares > 1
        if is_shared:  # The relative loss is a mean by weights.
            steps[:, 2] *= steps[:, 3]
        of_rows, _ = self._communicator.mean(steps, self._n_rows)
        if is_shared:
            of_rows[:, 2] /= of_rows[:, 3].clamp(min=torch.finfo(of_rows.dtype).tiny)
            of_rows = of_rows[:, : len(FIGURES)]
        everyone = self._communicator.gather(of_rows.movedim(2, 0)).movedim(0, 2).contiguous()
        self._known.extend(everyone)
        latest = everyone.mean(2)[:, 2]
        latest = latest if latest.device.type == "mps" else latest.double()
        for value in latest:
            decay = _RELATIVE_LOSS_DECAY
            mean = decay * self.relative_loss + (1 - decay) * value
            self.relative_loss = mean.clamp(max=1.0)
