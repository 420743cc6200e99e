"""Losses and repulsion over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from sklearn_fordes.inspection._display import (
    BLUE,
    GREEN,
    VERMILLION,
    Array,
    Display,
    Style,
    draw_line,
    hide_frame,
)
from sklearn_fordes.inspection._evaluation import final_step, lacks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D


LINES = {
    "driving_loss": {"color": BLUE, "linestyle": "-", "label": "driving loss (mean of members)"},
    "valid_loss": {"color": VERMILLION, "linestyle": "--", "label": "validation loss (ensemble)"},
    "repulsion": {"color": GREEN, "linestyle": ":", "label": "repulsion (mean of members)"},
}


@dataclass(eq=False, repr=False)
class TrainingHistoryDisplay(Display):
    """Driving loss, validation loss and repulsion over epochs.

    The repulsion has its own axis on the right; it is left out if it is zero throughout. The epoch
    of the lowest validation loss is marked. Make it with `from_estimator` or `from_history`.
    Further keyword arguments go to matplotlib's `plot` for each line.

    Parameters
    ----------
    epoch : ndarray of shape (n_epochs,)
        Number of the epoch, from 1.
    driving_loss : ndarray of shape (n_epochs,)
        Loss per row, mean over members.
    name : str, default=None
        Name of the model, for the title.
    repulsion : ndarray of shape (n_epochs,), default=None
        Repulsion, mean over members.
    valid_loss : ndarray of shape (n_epochs,), default=None
        Loss of the ensemble on validation rows. NaN where an epoch has none.
    unit : str, default=None
        Unit of the losses, for the label.

    Attributes
    ----------
    best_epoch : int or None
        The epoch of the lowest validation loss.
    lines_ : dict of str to matplotlib Line2D
        The lines drawn, out of "driving_loss", "valid_loss" and "repulsion".
    repulsion_ax_ : matplotlib Axes or None
        The axes of the repulsion.
    ax_, figure_ : matplotlib Axes and Figure
        The axes of the losses, and their figure.

    See Also
    --------
    DiversityDisplay : What the repulsion has done.

    Examples
    --------
    >>> from sklearn_fordes.inspection import TrainingHistoryDisplay
    >>> history = [
    ...     {"epoch": 1, "driving_loss": 0.7, "repulsion": 0.3, "valid_loss": 0.6},
    ...     {"epoch": 2, "driving_loss": 0.5, "repulsion": 0.2, "valid_loss": 0.4},
    ... ]
    >>> TrainingHistoryDisplay.from_history(history, unit="nats").best_epoch
    2
    """

    epoch: NDArray[np.int64]
    driving_loss: Array
    _: KW_ONLY
    repulsion: Array | None = None
    valid_loss: Array | None = None
    unit: str | None = None

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the lowest validation loss."""
        if self.valid_loss is None:
            return None
        return int(self.epoch[np.nanargmin(self.valid_loss)])

    def _draw(self, ax: Axes, name: str | None, style: Style) -> None:
        from matplotlib.ticker import MaxNLocator

        self.lines_: dict[str, Line2D] = {}
        self.repulsion_ax_: Axes | None = None
        self._draw_line(ax, "driving_loss", style)
        if self.valid_loss is not None:
            self._draw_line(ax, "valid_loss", style)
            best = np.nanargmin(self.valid_loss)
            epoch, loss = self.epoch[best], self.valid_loss[best]
            ax.plot(epoch, loss, "o", color=VERMILLION, label=f"lowest at epoch {epoch}")
        unit = f" ({self.unit})" if self.unit else ""
        ax.set(xlabel="epoch", ylabel=f"loss per row{unit}")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        hide_frame(ax)
        upper, handles = ax, ax.get_legend_handles_labels()[0]
        if self.repulsion is not None and self.repulsion.any():
            upper = self.repulsion_ax_ = self._draw_repulsion(ax, style)
            handles.append(self.lines_["repulsion"])
        # One legend for both axes, on the upper one, where no line crosses it.
        upper.legend(handles=handles, edgecolor="none", loc="upper right")
        if name:
            ax.set_title(name)

    def _draw_repulsion(self, ax: Axes, style: Style) -> Axes:
        """Draw on a second axis, because loss and repulsion differ in unit and origin."""
        twin = ax.twinx()
        self._draw_line(twin, "repulsion", style)
        twin.set_ylabel("repulsion")
        twin.spines["top"].set_visible(False)
        return twin

    def _draw_line(self, ax: Axes, key: str, style: Style) -> None:
        # A line through one epoch is invisible.
        marker = "o" if len(self.epoch) == 1 else ""
        values = getattr(self, key)
        self.lines_[key] = draw_line(ax, self.epoch, values, style, marker=marker, **LINES[key])

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, ax: Axes | None = None, name: str | None = None, **kwargs: Any
    ) -> Self:
        """Draw the training of an ensemble.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator with `history_`, or a pipeline that ends in one.
        ax, name, **kwargs : optional
            As in `plot`.

        Returns
        -------
        display : TrainingHistoryDisplay
            The display, drawn.
        """
        cls._check_estimator(estimator)
        model, _ = final_step(estimator)
        if not hasattr(model, "history_"):
            raise lacks(estimator, "the attribute history_")
        # The losses of classifiers and of regressors are negative log likelihoods.
        return cls.from_history(model.history_, unit="nats", ax=ax, name=name, **kwargs)

    @classmethod
    def from_history(
        cls,
        history: Sequence[Mapping[str, Any]],
        *,
        unit: str | None = None,
        ax: Axes | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw a history.

        Parameters
        ----------
        history : sequence of dict
            An entry per epoch: ``driving_loss`` and, where there are, ``epoch``, ``repulsion`` and
            ``valid_loss``.
        unit : str, default=None
            Unit of the losses, for the label.
        ax, name, **kwargs : optional
            As in `plot`.

        Returns
        -------
        display : TrainingHistoryDisplay
            The display, drawn.
        """
        driving_loss = column(history, "driving_loss")
        if driving_loss is None:
            raise ValueError(
                f"Got a history of {len(history)} epochs without driving_loss, but expected a dict "
                "with driving_loss for each epoch, one at least."
            )
        epochs = [entry.get("epoch", number) for number, entry in enumerate(history, start=1)]
        return cls(
            np.array(epochs),
            driving_loss,
            repulsion=column(history, "repulsion"),
            valid_loss=column(history, "valid_loss"),
            unit=unit,
            name=name,
        ).plot(ax, **kwargs)


def column(history: Sequence[Mapping[str, Any]], key: str) -> Array | None:
    """Return a value over epochs, NaN where one has none; None if no epoch has one."""
    values = np.array([entry.get(key, np.nan) for entry in history], dtype=np.float64)
    return None if np.isnan(values).all() else values
