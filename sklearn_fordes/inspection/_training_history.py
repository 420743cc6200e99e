"""Losses and repulsion over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from sklearn_fordes.inspection._display import (
    COLORS,
    Array,
    Display,
    Style,
    draw_line,
    final_step,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES = {
    "driving_loss": {"linestyle": "-", "label": "driving loss (mean of members)"},
    "valid_loss": {"linestyle": "--", "label": "validation loss (ensemble)"},
    "repulsion": {"linestyle": ":", "label": "repulsion (mean of members)", "color": COLORS[2]},
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
    >>> TrainingHistoryDisplay.from_history(history).best_epoch
    2
    """

    epoch: NDArray[np.int64]
    driving_loss: Array
    _: KW_ONLY
    repulsion: Array | None = None
    valid_loss: Array | None = None

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the lowest validation loss."""
        if self.valid_loss is None:
            return None
        return int(self.epoch[np.nanargmin(self.valid_loss)])

    def _draw(self, ax: Axes, name: str | None, style: Style) -> None:
        from matplotlib.ticker import MaxNLocator

        # The losses of classifiers and of regressors are negative log likelihoods.
        ax.set(xlabel="epoch", ylabel="loss per row (nats)")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if name:
            ax.set_title(name)
        axes = {"driving_loss": ax}
        if self.valid_loss is not None:
            axes["valid_loss"] = ax
        self.repulsion_ax_: Axes | None = None
        if self.repulsion is not None and self.repulsion.any():
            # On a second axis, because loss and repulsion differ in unit and origin.
            axes["repulsion"] = self.repulsion_ax_ = ax.twinx()
            self.repulsion_ax_.set_ylabel("repulsion")
        # A line through one epoch is invisible.
        marker = "o" if len(self.epoch) == 1 else ""
        self.lines_ = {
            key: draw_line(on, self.epoch, getattr(self, key), style, marker=marker, **LINES[key])
            for key, on in axes.items()
        }
        handles = list(self.lines_.values())
        if self.valid_loss is not None:
            best, loss = self.epoch[np.nanargmin(self.valid_loss)], np.nanmin(self.valid_loss)
            handles += ax.plot(best, loss, "o", color=COLORS[1], label=f"lowest at epoch {best}")
        # One legend for both axes, on the upper one, where no line crosses it.
        (self.repulsion_ax_ or ax).legend(handles=handles, loc="upper right")

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
        history = final_step(estimator)[0].history_
        return cls.from_history(history, ax=ax, name=name, **kwargs)

    @classmethod
    def from_history(
        cls,
        history: Sequence[Mapping[str, Any]],
        *,
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
            name=name,
        ).plot(ax, **kwargs)


def column(history: Sequence[Mapping[str, Any]], key: str) -> Array | None:
    """Return a value over epochs, NaN where one has none; None if no epoch has one."""
    values = np.array([entry.get(key, np.nan) for entry in history], dtype=np.float64)
    return None if np.isnan(values).all() else values
