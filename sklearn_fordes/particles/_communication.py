"""Members and rows that are spread over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

_EVERYTHING = slice(None)
# A part of the path that gloo names when a connection is lost.
_TRANSPORT = "gloo/transport"


_DistError: Any = getattr(dist, "DistError", RuntimeError)  # Torch may be built without it.


class LostProcessError(_DistError):
    """Another process, which trains with this one, has failed or does not answer."""


class Communicator:
    """What training needs from other processes; this one reaches none.

    Attributes
    ----------
    members : slice
        Of all members those that this process holds.
    rows : slice
        Of the rows of a batch those that this process computes. Every n-th one, so that each of n
        processes has a fair share of the first rows, at which members are compared.
    n_members : int or None
        Number of all members; None where one process holds them.
    n_processes : int
    n_row_shares : int
        Number of processes that hold the same members and share the rows of a batch.
    row_share : int
        Which of them this is.
    is_first : bool
        Whether this process speaks for all of them.
    """

    members = rows = _EVERYTHING
    n_members: int | None = None
    n_processes = n_row_shares = 1
    row_share = 0
    is_first = True

    def gather(self, values: Tensor) -> Tensor:
        """Return the values of all members: (m, ...) → (M, ...), detached."""
        return values

    def gather_rows(self, outputs: Tensor, n_rows: int) -> Tensor:
        """Return outputs at all rows of a batch, (M, n_rows, ...), of those at ``rows`` of it."""
        return outputs

    def mean(self, values: Tensor, n_rows: int) -> tuple[Tensor, int | Tensor]:
        """Return the mean over all rows, of means over rows of this process, and their number."""
        return values, n_rows

    def all_reduce(self, gradients: Sequence[Tensor | None]) -> None:
        """Sum gradients, in place, over the processes that share the rows."""

    def joined(self, representation: Tensor) -> tuple[Tensor, slice]:
        """Join vectors whose parts lie with the processes that share the rows.

        Parameters
        ----------
        representation : Tensor of shape (M, 1, k)

        Returns
        -------
        representation : Tensor of shape (M, 1, K)
        own : slice
            The part of this process in the last axis.
        """
        return representation, _EVERYTHING

    def broadcast(self, value: Any) -> Any:
        """Return what the first process has, in all of them: a tensor or another object."""
        return value

    def any(self, flag: bool) -> bool:
        """Return whether a flag is set in some process."""
        return flag

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise, at the end of a block in which nothing is exchanged, an error of one in all.

        Raises
        ------
        LostProcessError
            In the others.
        """
        yield

    def all_gather_object(self, value: Any) -> list[Any]:
        """Return what each of the processes has, in their order."""
        return [value]

    def n_own_rows(self, n_rows: int) -> int:
        """Return how many of the first rows of a batch this process computes."""
        return len(range(n_rows)[self.rows])


# All members and rows are in this process.
ALONE = Communicator()


class ProcessGroups(Communicator):
    """Processes of `torch.distributed` that share out the members, the rows of batches, or both.

    Parameters
    ----------
    n_members : int
        Number of all members.
    members : ProcessGroup, optional
        The processes that hold other members and compute the same rows: each holds a run of them,
        in the order of ranks, and the numbers of two differ by one at most. None if this process
        holds all.
    rows : ProcessGroup, optional
        The processes that hold the same members and compute other rows. None if this process
        computes all.
    device : torch.device or str, default="cpu"
        Where messages lie that are no tensors.

    Raises
    ------
    ValueError
        If there are more processes than members.

    Notes
    -----
    With the two dimensions of a `torch.distributed.device_mesh.DeviceMesh` as groups both kinds of
    work go together.
    """

    def __init__(
        self, n_members: int, members: Any = None, rows: Any = None, device: Any = "cpu"
    ) -> None:
        self._of_members, self._of_rows, self._device = members, rows, device
        n_parts, part = _size_and_rank(members)
        if n_parts > n_members:
            raise ValueError(
                f"Got {n_parts} processes for {n_members} members, but expected at most a process "
                "for each."
            )
        ends = [n_members * i // n_parts for i in range(n_parts + 1)]
        self._parts = [slice(*ends[i : i + 2]) for i in range(n_parts)]
        self.n_members = n_members
        if n_parts > 1:
            self.members = self._parts[part]
        self.n_row_shares, self.row_share = _size_and_rank(rows)
        if self.n_row_shares > 1:
            self.rows = slice(self.row_share, None, self.n_row_shares)
        self.n_processes = n_parts * self.n_row_shares
        self.is_first = part == self.row_share == 0

    def __reduce__(self) -> Any:
        # Groups belong to the processes of now: a copy, here or elsewhere, reaches nobody.
        return Communicator, ()

    def gather(self, values: Tensor) -> Tensor:
        """Return the values of all members: (m, ...) → (M, ...), detached."""
        if self._of_members is None:
            return values
        lengths = [part.stop - part.start for part in self._parts]
        return torch.cat(_gathered(values.detach(), lengths, self._of_members))

    def gather_rows(self, outputs: Tensor, n_rows: int) -> Tensor:
        """Return outputs at all rows of a batch, (M, n_rows, ...), of those at ``rows`` of it."""
        if self._of_rows is None:
            return outputs
        n, whole = self.n_row_shares, outputs.new_empty(len(outputs), n_rows, *outputs.shape[2:])
        lengths = [len(range(i, n_rows, n)) for i in range(n)]
        for i, part in enumerate(_gathered(outputs.transpose(0, 1), lengths, self._of_rows)):
            whole[:, i::n] = part.transpose(0, 1)
        return whole

    def mean(self, values: Tensor, n_rows: int) -> tuple[Tensor, int | Tensor]:
        """Return the mean over all rows, of means over rows of this process, and their number."""
        if self._of_rows is None:
            return values, n_rows
        message = torch.cat([values.detach().flatten() * n_rows, values.new_tensor([n_rows])])
        _call(dist.all_reduce, message, group=self._of_rows)
        return (message[:-1] / message[-1]).view_as(values), message[-1]

    def all_reduce(self, gradients: Sequence[Tensor | None]) -> None:
        """Sum gradients, in place, over the processes that share the rows."""
        present = [gradient for gradient in gradients if gradient is not None]
        if self._of_rows is None or not present:
            return
        message = torch.cat([gradient.flatten() for gradient in present])
        _call(dist.all_reduce, message, group=self._of_rows)
        parts = message.split([gradient.numel() for gradient in present])
        for gradient, part in zip(present, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def joined(self, representation: Tensor) -> tuple[Tensor, slice]:
        """Join vectors whose parts lie with the processes that share the rows."""
        if self._of_rows is None:
            return representation, _EVERYTHING
        widths = self._every(representation.shape[-1], self._of_rows)
        # The axis to join comes first.
        parts = _gathered(representation.detach().movedim(-1, 0), widths, self._of_rows)
        first = sum(widths[: self.row_share])
        own = slice(first, first + widths[self.row_share])
        return torch.cat(parts).movedim(0, -1), own

    def broadcast(self, value: Any) -> Any:
        """Return what the first process has, in all of them: a tensor or another object."""
        held: Any = value.detach().clone() if isinstance(value, Tensor) else [value]
        for group in self._groups:
            if isinstance(value, Tensor):
                _call(dist.broadcast, held, group=group, group_src=0)
            else:
                _call(dist.broadcast_object_list, held, group=group, group_src=0)
        return held if isinstance(value, Tensor) else held[0]

    def any(self, flag: bool) -> bool:
        """Return whether a flag is set in some process."""
        message = torch.tensor(int(flag), device=self._device)
        for group in self._groups:
            _call(dist.all_reduce, message, dist.ReduceOp.MAX, group=group)
        return bool(message)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise, at the end of a block in which nothing is exchanged, an error of one in all."""
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            error = raised
        found = self.all_gather_object(error and f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        for rank, text in enumerate(found):
            if text is not None:
                raise LostProcessError(
                    f"Got an error in process {rank}, which trains with this one, but expected "
                    f"none: {text}"
                )

    def all_gather_object(self, value: Any) -> list[Any]:
        """Return what each of the processes has, in their order."""
        values = [value]
        for group in reversed(self._groups):  # Those that share rows are neighbours in the order.
            values = [v for part in self._every(values, group) for v in part]
        return values

    @property
    def _groups(self) -> list[Any]:
        return [group for group in (self._of_members, self._of_rows) if group is not None]

    def _every(self, value: Any, group: Any) -> list[Any]:
        values: list[Any] = [None] * dist.get_world_size(group)
        _call(dist.all_gather_object, values, value, group=group)
        return values


def _call(collective: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    try:
        collective(*arguments, **named)
    except RuntimeError as error:
        # Gloo's errors have no type of their own.
        if not (isinstance(error, dist.DistError) or _TRANSPORT in str(error)):
            raise
        raise LostProcessError(
            f"Got no answer from a process that trains with this one ({error}), but expected all "
            "of them to go on: it has failed, or was ended, and its own error says why; or a "
            "callback has called net.infer or net.predict in some processes only."
        ) from error


def _size_and_rank(group: Any) -> tuple[int, int]:
    return (1, 0) if group is None else (dist.get_world_size(group), dist.get_rank(group))


def _gathered(values: Tensor, lengths: Sequence[int], group: Any) -> list[Tensor]:
    """Return the tensors of all processes of a group, of which the first axes differ in length."""
    padded = values.new_zeros(max(lengths), *values.shape[1:])
    padded[: len(values)] = values
    # As bytes, which each back end carries whatever they mean.
    sent = padded.view(-1).view(torch.uint8)
    received = sent.new_empty(len(lengths), len(sent))
    _call(dist.all_gather, list(received), sent, group=group)
    parts = received.view(values.dtype).view(len(lengths), *padded.shape)
    return [part[:length] for part, length in zip(parts, lengths, strict=True)]
