"""A row's prediction depends on that row alone, whatever container, split and order it comes in."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_fordes import FoRDEClassifier

pa = pytest.importorskip("pyarrow")
N_ROWS = 40
_GAP = st.none()
_COLUMNS = {
    "floats": st.floats(-1e6, 1e6, width=32),
    "integers": st.integers(-1000, 1000),
    "truths": st.booleans(),
    "towns": st.sampled_from(["Oslo", "Bergen", "å", "", "1"]),
    "codes": st.sampled_from(["007", "1", "2.5", "x"]),
    "numbers as text": st.integers(-5, 5).map(str),
    "dates": st.dates(datetime.date(1900, 1, 1), datetime.date(2100, 1, 1)),
    "times": st.datetimes(datetime.datetime(1990, 1, 1), datetime.datetime(2030, 1, 1)),
    "dates as text": st.dates().map(str),
    "durations": st.timedeltas(datetime.timedelta(0), datetime.timedelta(days=99)),
    "nothing": st.none(),
}


@st.composite
def tables(draw):
    """Return columns as lists of Python objects, None where missing."""
    kinds = draw(st.lists(st.sampled_from(sorted(_COLUMNS)), min_size=1, max_size=4, unique=True))
    columns = {"row": list(range(N_ROWS))}
    for kind in kinds:
        values = st.one_of(_GAP, _COLUMNS[kind]) if draw(st.booleans()) else _COLUMNS[kind]
        columns[kind] = draw(st.lists(values, min_size=N_ROWS, max_size=N_ROWS))
    return columns


def as_pandas(columns):
    return pd.DataFrame({name: pd.Series(values) for name, values in columns.items()})


def as_array(columns):
    array = np.empty((N_ROWS, len(columns)), dtype=object)
    for position, values in enumerate(columns.values()):
        array[:, position] = values
    return array


CONTAINERS = {
    "pandas": as_pandas,
    "objects": lambda columns: pd.DataFrame(columns, dtype=object),
    "nullable": lambda columns: as_pandas(columns).convert_dtypes(),
    "arrow in pandas": lambda columns: pa.table(columns).to_pandas(types_mapper=pd.ArrowDtype),
    "pyarrow": pa.table,
    "polars": pl.DataFrame,
    "array": as_array,
    "lists": lambda columns: as_array(columns).tolist(),
}


def rows_of(X, rows):
    if isinstance(X, list | np.ndarray):
        return [X[i] for i in rows] if isinstance(X, list) else X[rows]
    if isinstance(X, pd.DataFrame):
        return X.iloc[rows]
    return X.take(rows) if isinstance(X, pa.Table) else X[rows]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Most values", "ignore:Columns .* hold text that is read")
@pytest.mark.filterwarnings("ignore:X (does not have|has) (valid )?feature names")
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    tables(),
    st.sampled_from(sorted(CONTAINERS)),
    st.permutations(range(N_ROWS)),
    st.lists(st.integers(1, N_ROWS - 1), max_size=4),
)
def test_containers_splits_and_orders_give_the_same_probabilities(columns, first, order, cuts):
    y = np.arange(N_ROWS) % 2
    model = FoRDEClassifier(2, hidden_layer_sizes=(8,), max_epochs=1, random_state=0)
    model.fit(CONTAINERS[first](columns), y)
    expected = model.predict_proba(CONTAINERS[first](columns))
    for make in CONTAINERS.values():
        X = make(columns)
        np.testing.assert_array_equal(model.predict_proba(X), expected)
        parts = np.split(np.array(order), sorted(set(cuts)))
        for rows in parts:
            some = model.predict_proba(rows_of(X, rows.tolist()))
            np.testing.assert_allclose(some, expected[rows], atol=1e-6)
