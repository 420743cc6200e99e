"""Corruptions of raw tables: noise, swapped and missing cells, drawn alike for every container."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from sklearn_fordes.inspection._display import Array
from sklearn_fordes.inspection._tables import Table, read_table

# Read-only, because it is the default of functions.
CORRUPTIONS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {"noise": (0.3, 1.0), "swapped": (0.1, 0.3), "missing": (0.1, 0.3)}
)


def corrupted_copies(
    X: Any,
    *,
    X_train: Any = None,
    corruptions: Mapping[str, ArrayLike] | None = None,
    random_state: Any = 0,
) -> dict[tuple[str, float], Any]:
    """Return a table under each kind and severity of corruption.

    - ``"noise"`` adds normal noise to numbers, in standard deviations of their column. A cell of
      any other column is swapped with probability severity / 4.
    - ``"swapped"`` replaces cells, each with the probability, by a random value of their column.
    - ``"missing"`` blanks cells, each with the probability.

    Draws depend on the shape of the table and on which columns are numeric, not on the container.
    `drift_scores` scores the same copies.

    Parameters
    ----------
    X : data frame, array or list of lists of shape (n_samples, n_features)
        Raw rows. Truth values, text, categories and dates don't count as numbers.
    X_train : like X, of shape (n_train, n_features), default=None
        Rows that give the standard deviations and the values that are swapped in. None is X.
    corruptions : dict of str to float or sequence of float, default=None
        Severities of each kind. None is `CORRUPTIONS`: noise of 0.3 and 1 standard deviations, and
        cells swapped and missing with probability 0.1 and 0.3.
    random_state : int, RandomState instance or None, default=0
        Seed of the draws.

    Returns
    -------
    copies : dict of (str, float) to table
        The copy for each kind and severity, in the container of X. Loop over ``copies.items()``.
        Columns keep their type where it can hold the cells: whole numbers become floats by noise,
        and by gaps if they have none.

    See Also
    --------
    drift_scores : An estimator's scores on such copies.
    LengthscaleTradeoffDisplay : Takes such copies as `X_corrupted`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_fordes.inspection import corrupted_copies
    >>> X = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    >>> corrupted_copies(X, corruptions={"missing": 0.5})["missing", 0.5]
    array([[ 1., nan],
           [nan, nan],
           [ 3., 30.]])
    >>> for (kind, severity), copy in corrupted_copies(X).items():
    ...     print(f"{kind:8} {severity:.1f}", copy.shape)
    noise    0.3 (3, 2)
    noise    1.0 (3, 2)
    swapped  0.1 (3, 2)
    swapped  0.3 (3, 2)
    missing  0.1 (3, 2)
    missing  0.3 (3, 2)
    """
    table, train = read_tables(X, X_train)
    seed = seed_of(random_state)
    return {
        (kind, severity): table.with_changes(
            changes_of(table, train, kind, severity, generator_of(seed, index))
        )
        for index, (kind, severity) in enumerate(severities_of(corruptions))
    }


class Noise(NamedTuple):
    """Normal noise of `sigma` training standard deviations, from standard normal draws."""

    sigma: float
    normal: Array

    def apply(self, table: Table, column: Any, train: Any) -> Any:
        return table.plus(column, self.sigma * table.std(train) * self.normal)


class Swap(NamedTuple):
    """Cells replaced by those of donors among the training rows, of which there is one for each."""

    donors: NDArray[np.int64]
    is_swapped: NDArray[np.bool_]

    def apply(self, table: Table, column: Any, train: Any) -> Any:
        return table.where(column, ~self.is_swapped, table.take(train, self.donors))


class Blank(NamedTuple):
    """Cells without a value."""

    is_blank: NDArray[np.bool_]

    def apply(self, table: Table, column: Any, train: Any) -> Any:
        return table.blank(column, self.is_blank)


def changes_of(
    table: Table, train: Table, kind: str, severity: float, rng: np.random.Generator
) -> dict[int, Any]:
    """Return the changed columns by their position; a column is changed when it is asked for."""
    n_rows, n_features = len(table), len(table.columns)
    if kind == "missing":
        is_blank = rng.random((n_rows, n_features)) < severity
        changes: list[Noise | Swap | Blank] = [Blank(column) for column in is_blank.T]
    else:
        changes = []
        for column in table.columns:
            if kind == "noise" and table.is_numeric(column):
                changes.append(Noise(severity, rng.normal(size=n_rows)))
                continue
            donors = rng.choice(len(train), size=n_rows)
            probability = severity / 4 if kind == "noise" else severity
            changes.append(Swap(donors, rng.random(n_rows) < probability))
    return {
        place: change.apply(table, column, donor)
        for place, (change, column, donor) in enumerate(
            zip(changes, table.columns, train.columns, strict=True)
        )
    }


# ---- what the user asks for


def read_tables(X: Any, X_train: Any) -> tuple[Table, Table]:
    """Return the table to corrupt, and the one of the training rows with the same columns."""
    table = read_table(X)
    return table, table if X_train is None else table.aligned(read_table(X_train))


def seed_of(random_state: Any) -> int:
    """Return the seed itself, or one drawn from a generator."""
    generator = check_random_state(random_state)
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(generator.randint(2**31 - 1))


def generator_of(seed: int, index: int, repeat: int = 0) -> np.random.Generator:
    """Return the generator of a copy: the index counts kinds and severities."""
    return np.random.default_rng([seed, index, repeat] if repeat else [seed, index])


def severities_of(corruptions: Mapping[str, ArrayLike] | None) -> list[tuple[str, float]]:
    """Return kind and severity of each copy."""
    asked = checked_corruptions(CORRUPTIONS if corruptions is None else corruptions)
    return [(kind, severity) for kind, severities in asked.items() for severity in severities]


def checked_corruptions(corruptions: Mapping[str, ArrayLike]) -> dict[str, list[float]]:
    """Return the severities of each kind as ascending floats."""
    if not isinstance(corruptions, Mapping) or not corruptions.keys() <= CORRUPTIONS.keys():
        raise ValueError(
            f"Got corruptions={corruptions!r}, but expected a dict of severities with some of the "
            f"keys {', '.join(CORRUPTIONS)}."
        )
    checked = {}
    for kind, severities in corruptions.items():
        values = np.unique(np.asarray(severities, dtype=np.float64))
        largest = np.inf if kind == "noise" else 1.0
        if not (
            values.size and np.isfinite(values).all() and 0 < values[0] <= values[-1] <= largest
        ):
            unit = "standard deviations above 0" if kind == "noise" else "probabilities in (0, 1]"
            raise ValueError(f"Got severities {severities!r} of {kind}, but expected {unit}.")
        checked[kind] = values.tolist()
    return checked
