"""A fit and its epochs as tasks, of which scikit-learn's callbacks are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import ArrayLike

from sklearn_fordes import training
from sklearn_fordes.estimators._validation import CALLBACK_ATTRIBUTES


class FitTasks:
    """Tell an estimator's callbacks of its fit, and of each epoch as a task below it.

    Parameters
    ----------
    estimator : BaseFoRDE
        It has callbacks, and `fit` has begun.
    X, y, sample_weight : as given to `fit`
        Rows that are held out of training are among them.
    max_epochs : int
        How many epochs there are at most.
    """

    def __init__(
        self, estimator: Any, X: Any, y: Any, sample_weight: ArrayLike | None, max_epochs: int
    ) -> None:
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        self._task = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
        self._fit = estimator._init_callback_context(max_subtasks=max_epochs)
        self._fit.call_on_fit_task_begin(**self._task)

    def begin_epoch(self, attributes: Callable[[], Mapping[str, Any]]) -> None:
        """Tell that an epoch begins; a callback may ask for the fitted attributes of now."""
        self._epoch = self._fit.subcontext(task_name="epoch")
        self._epoch.call_on_fit_task_begin(**self._task, reconstruction_attributes=attributes)

    def end_epoch(self, attributes: Callable[[], Mapping[str, Any]]) -> bool:
        """Tell that an epoch has ended, and return whether a callback asks to stop."""
        return bool(
            self._epoch.call_on_fit_task_end(**self._task, reconstruction_attributes=attributes)
        )

    def end(self) -> None:
        """Tell that the fit has ended; the estimator has its fitted attributes."""
        self._fit.call_on_fit_task_end(**self._task, reconstruction_attributes={})


def tasks_of(
    estimator: Any, X: Any, y: Any, sample_weight: ArrayLike | None, max_epochs: int
) -> FitTasks | None:
    """Begin the tasks of a fit, or return None if the estimator has no callbacks."""
    has_callbacks = CALLBACK_ATTRIBUTES[0] in vars(estimator)
    return FitTasks(estimator, X, y, sample_weight, max_epochs) if has_callbacks else None


def epoch_callbacks(
    tasks: FitTasks | None, snapshot: Callable[[Any], Mapping[str, Any]], rows: Any
) -> tuple[list[Any], list[Any]]:
    """Return callbacks of a net that come before all others, and after them.

    Parameters
    ----------
    tasks : FitTasks or None
    snapshot : callable
        Returns the fitted attributes of an estimator whose net stops now.
    rows : DeviceDataset
        Those of a source have a callback of their own.
    """
    is_stream = isinstance(rows, training.StreamDataset)
    first: list[Any] = [("stream_position", training.StreamPosition())] if is_stream else []
    if tasks is None:
        return first, []
    told = training.EpochTasks(tasks, snapshot)
    # The others see the epoch too before training stops: early stopping may keep its weights.
    return [*first, ("epoch_tasks", told)], [("stop_when_told", training.StopWhenTold(told))]
