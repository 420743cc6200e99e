"""Losses and repulsion over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_is_fitted

from sklearn_fordes.inspection._drawing import (
    BLUE,
    GREEN,
    VERMILLION,
    get_axes,
    hide_frame,
    line_style,
)
from sklearn_fordes.inspection._responses import final_step, name_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D


class TrainingHistoryDisplay:
    """Driving loss, validation loss and repulsion over epochs.

    The repulsion has an axis of its own on the right; it is left out if it is zero throughout. The
    epoch of the lowest validation loss is marked. Make it with `from_estimator` or `from_history`.

    Parameters
    ----------
    epoch : ndarray of shape (n_epochs,)
        Number of the epoch, from 1.
    driving_loss : ndarray of shape (n_epochs,)
        Loss per row, mean over members.
    repulsion : ndarray of shape (n_epochs,), default=None
        Repulsion, mean over members.
    valid_loss : ndarray of shape (n_epochs,), default=None
        Loss of the ensemble on validation rows. NaN where an epoch has none.
    unit : str, default=None
        Unit of the losses, for the label.
    name : str, default=None
        Name of the model, for the title.

    Attributes
    ----------
    best_epoch : int or None
        The epoch of the lowest validation loss.
    lines_ : dict of str to matplotlib Line2D
        The lines drawn, out of "driving_loss", "valid_loss" and "repulsion".
    repulsion_ax_ : matplotlib Axes or None
        The axes of the repulsion.
    ax_ : matplotlib Axes
        The axes of the losses.
    figure_ : matplotlib Figure
        Their figure.

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

    ax_: Axes
    repulsion_ax_: Axes | None
    figure_: Figure | SubFigure
    lines_: dict[str, Line2D]

    def __init__(
        self,
        epoch: NDArray[np.int64],
        driving_loss: NDArray[np.float64],
        *,
        repulsion: NDArray[np.float64] | None = None,
        valid_loss: NDArray[np.float64] | None = None,
        unit: str | None = None,
        name: str | None = None,
    ) -> None:
        self.epoch = epoch
        self.driving_loss = driving_loss
        self.repulsion = repulsion
        self.valid_loss = valid_loss
        self.unit = unit
        self.name = name

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the lowest validation loss."""
        if self.valid_loss is None:
            return None
        return int(self.epoch[np.nanargmin(self.valid_loss)])

    def plot(self, ax: Axes | None = None, *, name: str | None = None, **kwargs: Any) -> Self:
        """Draw the lines.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None is a new figure.
        name : str, default=None
            Name of the model, for the title. None is the one given before.
        **kwargs
            Passed to matplotlib's `plot` for each line.

        Returns
        -------
        self : TrainingHistoryDisplay
            The display itself.
        """
        ax = get_axes(self, ax)
        from matplotlib.ticker import MaxNLocator  # after the check that matplotlib is there

        self.ax_, self.figure_, self.repulsion_ax_, self.lines_ = ax, ax.figure, None, {}
        self._draw(ax, "driving_loss", "driving loss (mean of members)", BLUE, "-", kwargs)
        if self.valid_loss is not None:
            label = "validation loss (ensemble)"
            self._draw(ax, "valid_loss", label, VERMILLION, "--", kwargs)
            self._mark_best_epoch(ax, self.valid_loss)
        ax.set(
            xlabel="epoch", ylabel=f"loss per row ({self.unit})" if self.unit else "loss per row"
        )
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        hide_frame(ax)
        if self.repulsion is not None and np.any(self.repulsion):
            self._draw_repulsion(ax, kwargs)
        self._draw_legend(ax)
        name = self.name if name is None else name
        if name:
            ax.set_title(name)
        return self

    def _draw(
        self, ax: Axes, key: str, label: str, color: str, linestyle: str, given: dict[str, Any]
    ) -> None:
        # A line through one epoch is invisible.
        marker = "o" if len(self.epoch) == 1 else ""
        default = {"color": color, "linestyle": linestyle, "marker": marker, "label": label}
        style = line_style(given, linewidth=1.5, **default)
        (self.lines_[key],) = ax.plot(self.epoch, getattr(self, key), **style)

    def _mark_best_epoch(self, ax: Axes, valid_loss: NDArray[np.float64]) -> None:
        label = f"lowest at epoch {self.best_epoch}"
        best = np.nanargmin(valid_loss)
        ax.plot(self.epoch[best], valid_loss[best], "o", color=VERMILLION, label=label)

    def _draw_repulsion(self, ax: Axes, given: dict[str, Any]) -> None:
        """Draw on a second axis: loss and repulsion weigh differently and start elsewhere."""
        twin = ax.twinx()
        self._draw(twin, "repulsion", "repulsion (mean of members)", GREEN, ":", given)
        twin.set_ylabel("repulsion")
        twin.spines["top"].set_visible(False)
        self.repulsion_ax_ = twin

    def _draw_legend(self, ax: Axes) -> None:
        """Draw one legend for both axes, on the upper one, where no line crosses it."""
        drawn = [ax] if self.repulsion_ax_ is None else [ax, self.repulsion_ax_]
        handles = [handle for axes in drawn for handle in axes.get_legend_handles_labels()[0]]
        drawn[-1].legend(handles=handles, edgecolor="none", loc="upper right")

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        ax: Axes | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the training of an ensemble.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator with `history_`, or a pipeline that ends in one.
        ax : matplotlib Axes, default=None
            Where to draw. None is a new figure.
        name : str, default=None
            Name of the model, for the title.
        **kwargs
            Passed to matplotlib's `plot` for each line.

        Returns
        -------
        display : TrainingHistoryDisplay
            The display, drawn.
        """
        check_matplotlib_support(f"{cls.__name__}.from_estimator")
        check_is_fitted(estimator)
        model = final_step(estimator)
        if not hasattr(model, "history_"):
            raise TypeError(
                f"Got {name_of(estimator)}, but expected an estimator with the attribute history_, "
                "or a pipeline that ends in one."
            )
        # A classifier's loss and a regressor's are negative log likelihoods.
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
        ax : matplotlib Axes, default=None
            Where to draw. None is a new figure.
        name : str, default=None
            Name of the model, for the title.
        **kwargs
            Passed to matplotlib's `plot` for each line.

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


def column(history: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64] | None:
    """Return a value over epochs, NaN where one has none; None if no epoch has one."""
    values = np.array([entry.get(key, np.nan) for entry in history], dtype=np.float64)
    return None if np.isnan(values).all() else values
