"""What the columns of a table hold, and what is lost of them."""

from __future__ import annotations

from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_fordes._warnings import warn
from sklearn_fordes.preprocessing._columns import CATEGORY, EMPTY, Column
from sklearn_fordes.preprocessing._values import NUMBER

# A column of categories with a smaller share of its values in levels of their own is named.
_LEAST_KEPT_SHARE = 0.5


def find_kinds(columns: list[Column], categorical_features: Any) -> NDArray[np.str_]:
    """Return what each column holds, as its values or the user say.

    Parameters
    ----------
    columns : list of Column
    categorical_features : "from_dtype", array-like or None
        As in `TabularEncoder`.

    Raises
    ------
    ValueError
        If there is a column of text and categories are ruled out, or a listed column isn't there.
    """
    kinds = np.array([column.find_kind() for column in columns])
    given = categorical_features
    if isinstance(given, str) and given == "from_dtype":
        return kinds
    if given is None:
        for column in compress(columns, kinds == CATEGORY):
            raise ValueError(
                f"Got column {column.name!r} of text or objects with categorical_features=None, "
                "but expected numbers, dates or durations."
            )
        return kinds
    return np.where(_mask(given, columns) & (kinds != EMPTY), CATEGORY, kinds)


def _mask(given: Any, columns: list[Column]) -> NDArray[np.bool_]:
    """Return the mask of the columns that the user lists."""
    chosen = np.asarray(given if np.isscalar(given) else list(given))
    if chosen.dtype == bool and chosen.shape == (len(columns),):
        return chosen
    names = [column.name for column in columns]
    known = np.array(names if chosen.dtype.kind in "OUT" else range(len(names)))
    if chosen.dtype == bool or chosen.ndim != 1 or not np.isin(chosen, known).all():
        raise ValueError(
            f"Got categorical_features={given!r}, but expected 'from_dtype', None, or names, "
            f"indices or a mask of the columns {names}."
        )
    return np.isin(known, chosen)


def warn_of_losses(
    columns: list[Column],
    kinds: NDArray[np.str_],
    shares: NDArray[np.float64],
    min_frequency: int,
    max_levels: int,
) -> None:
    """Warn of text that is read as numbers, and of columns most values of which are encoded alike.

    Parameters
    ----------
    columns : list of Column
    kinds : ndarray of str of shape (n_columns,)
    shares : ndarray of shape (3, n_columns)
        Shares of the rows that are missing, infrequent and clipped.
    min_frequency, max_levels : int
        As in `TabularEncoder`.
    """
    texts = [column.name for column in compress(columns, kinds == NUMBER) if column.has_text()]
    if texts:
        warn(
            f"Columns {texts} hold text that is read as numbers. If they are names, list them "
            "in categorical_features; if they are numbers, convert them.",
        )
    missing, infrequent, _ = shares
    is_lost = infrequent > (1 - _LEAST_KEPT_SHARE) * (1 - missing)
    lost = [column.name for column in compress(columns, is_lost)]
    if lost:
        warn(
            f"Most values of the columns {lost} are encoded alike: they occur in fewer than "
            f"min_frequency={min_frequency} training rows each, or there are more than "
            f"max_levels={max_levels} levels. Leave identifiers out, convert dates by "
            "pandas.to_datetime, and encode free text before, in a pipeline, with skrub's "
            "StringEncoder or TextEncoder for example.",
        )
