"""Training steps that a GPU replays as graphs: the host launches one thing instead of hundreds.

A step of small networks is short kernels, and launching them from Python takes longer than running
them. A graph has all kernels of a step, and launching it takes about as long as one of them. It
reads and writes fixed memory, so that what changes from step to step must be in tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from threading import Lock
from typing import Any, NamedTuple, Protocol

import torch
from skorch.callbacks import Callback, LRScheduler
from torch import Tensor

from sklearn_fordes.training._data import Batch
from sklearn_fordes.training._host_access import HostAccess
from sklearn_fordes.training._optimizer import can_be_captured, rates_on_device

# A run that needs more graphs than these changes too often to gain from them.
_MOST_GRAPHS = 8
_OF_A_BATCH = ("on_batch_begin", "on_grad_computed", "on_batch_end")
# Torch captures one graph at a time in a process.
_ONE_AT_A_TIME = Lock()

Step = dict[str, Any]
# Makes a step of a batch with a `strength` of the repulsion.
MakeStep = Callable[..., Step]


class Recorder(Protocol):
    """What records the work of functions on a device, to do it again."""

    def record(self, function: Callable[[], Step]) -> tuple[Callable[[], object], Step]:
        """Record what a function does, without doing it.

        Parameters
        ----------
        function : callable
            It depends on nothing but the values of tensors, and reads none of them on the host.

        Returns
        -------
        replay : callable
            Does the work, with the tensors' values of then.
        step : dict
            What the function returned; each replay writes its tensors anew.

        Raises
        ------
        RuntimeError
            If the function does something that can't be recorded.
        """


class CudaGraphs:
    """Record CUDA graphs, which share the memory that their steps need only inside.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def record(self, function: Callable[[], Step]) -> tuple[Callable[[], object], Step]:
        """Capture a function on a stream of its own (see `Recorder`)."""
        graph = torch.cuda.CUDAGraph()
        with (
            _ONE_AT_A_TIME,
            torch.cuda.device(self._device),
            # A capture that fails would leave its own stream as the current one.
            torch.cuda.stream(torch.cuda.current_stream(self._device)),
            # Other threads may go on with what a capture forbids.
            torch.cuda.graph(
                graph,
                pool=self._pool,
                stream=_stream(self._device),
                capture_error_mode="thread_local",
            ),
        ):
            step = function()
        self._pool = graph.pool()
        return graph.replay, step


@cache
def _stream(device: torch.device) -> Any:
    """Return the stream of a device that all captures use: cuBLAS keeps memory for each stream."""
    return torch.cuda.Stream(device)


def cuda_graphs(device: torch.device) -> Recorder | None:
    """Return what records graphs on a CUDA device, and None on others, for `recording_with`."""
    return CudaGraphs(device) if device.type == "cuda" else None


def _no_recorder(device: torch.device) -> None:
    """Return what records nothing."""


_recorders: ContextVar[Callable[[torch.device], Recorder | None]] = ContextVar(
    "recorders", default=_no_recorder
)


@contextmanager
def recording_with(make: Callable[[torch.device], Recorder | None] | None) -> Iterator[None]:
    """Choose what records training steps in this thread, inside the block.

    Parameters
    ----------
    make : callable or None
        Returns a `Recorder` for a device, or None. None records nothing, which is the default.

    Examples
    --------
    >>> from sklearn_fordes.training import cuda_graphs, recording_with
    >>> with recording_with(cuda_graphs):  # A fit here captures graphs if it has a CUDA device.
    ...     pass
    """
    token = _recorders.set(make or _no_recorder)
    try:
        yield
    finally:
        _recorders.reset(token)


class _Recorded(NamedTuple):
    """A step that was recorded, with the memory that it reads."""

    batch: Batch
    replay: Callable[[], object]
    step: Step
    relies_on: Hashable


class CapturedSteps:
    """Record each kind of training step once, and replay it from then on.

    Kinds are steps with and without repulsion, and batches of different shapes. The first step of a
    kind is an ordinary one, which makes what later ones find: the optimizer's moments, and what
    torch's libraries allocate once. A step that can't be recorded stays an ordinary one.

    Attributes
    ----------
    n_replayed : int
        Number of steps so far that were replayed.
    """

    def __init__(self) -> None:
        self.n_replayed = 0
        self._has_failed = False
        self.clear()

    def clear(self) -> None:
        """Forget what was recorded, which holds memory of the device."""
        self._recorder: Recorder | None = None
        self._recorded: dict[Hashable, _Recorded] = {}
        self._is_known: set[Hashable] = set()
        self._is_checked = False
        self._values: Tensor | None = None  # The strength, and the rate of each group.
        self._rates: list[float] = []

    def begin_epoch(self) -> None:
        """Look at the net anew before its next step: between epochs anything may change."""
        self._is_checked = False

    def __call__(self, net: Any, make: MakeStep, batch: Batch, strength: float | Tensor) -> Step:
        """Make a step of a net, by a replay if that computes the same.

        Parameters
        ----------
        net : ParticleNet
        make : callable
            Makes an ordinary step of a batch.
        batch : tuple of dict and Tensor
        strength : float or Tensor
            Of the repulsion, which does not act if it is a zero that is no tensor.

        Returns
        -------
        dict
            What the ordinary step returns. The next step may overwrite its tensors.
        """
        if not self._is_checked:
            self._check(net)
        if self._recorder is None:
            return make(batch, strength=strength)
        kind = _kind_of(batch, strength)
        if kind not in self._is_known:
            return self._first_of(kind, make, batch, strength)
        if not self._is_recorded(kind, net, make, batch, strength):
            return make(batch, strength=strength)
        recorded = self._recorded[kind]
        _write(batch, recorded.batch)
        self._write_values(net, strength)
        recorded.replay()
        self.n_replayed += 1
        return recorded.step

    def _first_of(
        self, kind: Hashable, make: MakeStep, batch: Batch, strength: float | Tensor
    ) -> Step:
        """Make the first step of a kind, and see whether those that follow can be recorded.

        A capture that fails leaves torch's allocator in the state of a capture, for as long as the
        process lives: so one that would fail is not begun.
        """
        self._is_known.add(kind)
        with HostAccess() as host:
            step = make(batch, strength=strength)
        if host.is_needed:
            self._recorder, self._has_failed = None, True
        return step

    def _check(self, net: Any) -> None:
        """Choose a recorder, if the net's steps can be recorded, and forget what is outdated."""
        outdated = {recorded.relies_on for recorded in self._recorded.values()}
        if outdated and outdated != {_relies_on(net)}:
            self.clear()
        self._is_checked = True
        if self._has_failed or not _can_be_recorded(net):
            self._recorder = None
        elif self._recorder is None:
            self._recorder = _recorders.get()(_device_of(net))

    def _is_recorded(
        self, kind: Hashable, net: Any, make: MakeStep, batch: Batch, strength: float | Tensor
    ) -> bool:
        """Return whether steps of a kind are recorded, after doing so if they are not."""
        if kind in self._recorded:
            return True
        if self._recorder is None or len(self._recorded) >= _MOST_GRAPHS:
            return False
        if self._values is None:
            n_values = 1 + len(net.optimizer_.param_groups)
            # Kernels of the optimizer read rates in single precision.
            self._values = torch.zeros(n_values, dtype=torch.float32, device=_device_of(net))
        own = _copied(batch)
        of_strength, *rates = self._values.unbind()
        is_acting = _is_acting(strength)

        def work() -> Step:
            with rates_on_device(net.optimizer_, rates):
                step = make(own, strength=of_strength if is_acting else 0.0)
            net.optimizer_.zero_grad()  # The memory of gradients serves other graphs too.
            return step

        try:
            replay, step = self._recorder.record(work)
        except (RuntimeError, ValueError):
            # What is wrong with the step itself, the ordinary one says.
            net.optimizer_.zero_grad()
            self._recorder, self._has_failed = None, True
            return False
        self._recorded[kind] = _Recorded(own, replay, step, _relies_on(net))
        return True

    def _write_values(self, net: Any, strength: float | Tensor) -> None:
        """Write the numbers of this step to where recorded steps read them."""
        assert self._values is not None  # There is a recorded step.
        rates = [group["lr"] for group in net.optimizer_.param_groups]
        if rates != self._rates:
            for value, rate in zip(self._values[1:], rates, strict=True):
                value.fill_(rate)  # A kernel's argument, so that nothing waits.
            self._rates = rates
        if isinstance(strength, Tensor):
            self._values[0].copy_(strength)
        elif strength:
            self._values[0].fill_(strength)

    def __getstate__(self) -> dict[str, Any]:
        # Graphs belong to the memory of this process.
        return {"n_replayed": self.n_replayed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        self.n_replayed = state["n_replayed"]


def _can_be_recorded(net: Any) -> bool:
    """Return whether the steps of a net depend on its tensors and nothing else."""
    return (
        net.communicator.n_processes == 1
        and not (net.module_.draws_globally or net.space_is_users)
        and can_be_captured(net.optimizer_)
        and not any(_acts_on_batches(callback) for _, callback in net.callbacks_)
    )


def _acts_on_batches(callback: Any) -> bool:
    """Return whether a callback is called in every step, and does something then."""
    if type(callback) is LRScheduler and callback.step_every == "epoch":
        return False
    methods = (getattr(callback, name) for name in _OF_A_BATCH)
    return any(
        getattr(method, "__func__", method) is not getattr(Callback, name)
        for name, method in zip(_OF_A_BATCH, methods, strict=True)
    )


def _device_of(net: Any) -> torch.device:
    device: torch.device = next(net.module_.parameters()).device
    return device


def _is_acting(strength: float | Tensor) -> bool:
    return isinstance(strength, Tensor) or bool(strength)


def _kind_of(batch: Batch, strength: float | Tensor) -> Hashable:
    inputs, y = batch
    parts = {**inputs, "y": y}
    shapes = [
        (name, (value.shape, value.dtype) if isinstance(value, Tensor) else value)
        for name, value in parts.items()
    ]
    return _is_acting(strength), *shapes


def _relies_on(net: Any) -> Hashable:
    """Return where the tensors of a step lie, and the numbers in it that are no tensors."""
    optimizer, module = net.optimizer_, net.module_
    tensors = [*module.parameters(), *module.buffers()]
    groups = optimizer.param_groups
    for parameter in (parameter for group in groups for parameter in group["params"]):
        state = optimizer.state.get(parameter, {}).values()
        tensors += [value for value in state if isinstance(value, Tensor)]
    settings = [group[name] for group in groups for name in optimizer.defaults if name != "lr"]
    return (
        tuple(tensor.data_ptr() for tensor in tensors),
        tuple(parameter.requires_grad for parameter in module.parameters()),
        repr(settings),
    )


def _copied(batch: Batch) -> Batch:
    inputs, y = batch
    copies = {n: v.clone() if isinstance(v, Tensor) else v for n, v in inputs.items()}
    return copies, None if y is None else y.clone()


def _write(batch: Batch, own: Batch) -> None:
    """Write a batch into the tensors of another one of its kind."""
    for name, value in {**batch[0], "y": batch[1]}.items():
        if isinstance(value, Tensor):
            {**own[0], "y": own[1]}[name].copy_(value)
