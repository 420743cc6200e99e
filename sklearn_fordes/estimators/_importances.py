"""How much each column of the table moves each member's output."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

# Rows at which gradients are taken. They lie at equal distances in the table, so none is drawn.
_N_ROWS = 256


def member_importances(fitted: Any, inputs: Any, n_features: int) -> NDArray[np.float64] | str:
    """Return the importance of each column for each member, from input gradients.

    Parameters
    ----------
    fitted : FittedEnsemble
    inputs : Tensor of shape (n_rows, ...)
        Encoded training rows.
    n_features : int
        Number of columns of the table.

    Returns
    -------
    ndarray of shape (n_members, n_features) or str
        Not negative, each row of sum 1; or why there are none.
    """
    n_inputs = int(np.prod(fitted.input_shape))
    column_of = getattr(fitted.encoder, "column_map_", range(n_features))
    if len(column_of) != n_inputs:
        return (
            f"the {n_inputs} encoded columns can't be told apart by the {n_features} columns of X. "
            "An encoder with an attribute column_map_ (the column of each encoded one) would do"
        )
    n_rows = min(_N_ROWS, len(inputs))
    rows = inputs[np.arange(n_rows) * len(inputs) // n_rows]
    try:
        effects = fitted.column_effects(rows)
    except Exception as error:  # Whatever a user's module raises, its training has ended well.
        return f"there are no input gradients: {error}"
    if not np.isfinite(effects).all():
        return "some input gradients are not finite"
    squares = np.zeros((n_features, len(effects)))
    np.add.at(squares, np.asarray(column_of), effects.T**2)
    importances = np.sqrt(squares.T)
    # Of a member that no column moves, all columns are alike.
    importances[~importances.any(axis=1)] = 1.0
    return np.asarray(importances / importances.sum(axis=1, keepdims=True))


def of_member(importances: Any, index: int) -> Any:
    """Return the importances of one member, or why there are none."""
    return importances[[index]] if isinstance(importances, np.ndarray) else importances


class Importances:
    """The attributes of a fitted estimator that say how important each column is."""

    @abstractmethod
    def _as_fitted(self) -> Self:
        """Return the estimator as it is now, if it is fitted."""

    @property
    def member_importances_(self) -> NDArray[np.float64]:
        """The importance of each column of X for each member, (n_members, `n_features_in_`).

        Raises
        ------
        AttributeError
            If there are none, because encoded columns can't be told apart by columns of X, or the
            module has no input gradients.
        """
        importances = vars(self._as_fitted()).get("_importances_")
        if not isinstance(importances, np.ndarray):
            reason = importances or "its training has not ended"
            raise AttributeError(
                f"This {type(self).__name__} has no importances of columns, because {reason}."
            )
        return importances.copy()

    @property
    def feature_importances_(self) -> NDArray[np.float64]:
        """The mean over members of `member_importances_`, of shape (`n_features_in_`,)."""
        mean: NDArray[np.float64] = self.member_importances_.mean(axis=0)
        return mean
