"""One table in every container, with columns of every type."""

from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl

N_ROWS = 120


def plain_columns(n_rows=N_ROWS, seed=0):
    """Columns as lists of Python objects, None where missing."""
    rng = np.random.default_rng(seed)
    size = rng.normal(size=n_rows)
    city = rng.choice(["Oslo", "Bergen", "Turku"], n_rows, p=[0.6, 0.3, 0.1])
    return {
        "size": size.tolist(),
        "count": rng.poisson(2, n_rows).tolist(),
        "gaps": [None if i % 7 == 0 else float(v) for i, v in enumerate(rng.normal(size=n_rows))],
        "flag": (rng.random(n_rows) < 0.5).tolist(),
        "city": city.tolist(),
        "grade": [None if i % 9 == 0 else "abc"[i % 3] for i in range(n_rows)],
        "constant": [1.0] * n_rows,
        "again": size.tolist(),
        "code": rng.integers(0, 4, n_rows).tolist(),
    }


def with_dates(columns):
    """The columns and two more: dates with a gap, and nothing at all."""
    n_rows = len(columns["size"])
    dates = [datetime(2020, 1, 1) + timedelta(hours=31 * i) for i in range(n_rows)]
    dates[3] = None
    return {**columns, "when": dates, "empty": [None] * n_rows}


NUMBERS = ["size", "count", "gaps", "flag", "constant", "again", "code"]
CATEGORIES = ["city", "grade"]


# The ways to name the column "code".
CODE_LISTED = [
    ["code"],
    [8],
    [False] * 8 + [True],
    np.array(["code"]),
    np.arange(9) == 8,
    pd.Index(["code"]),
    pd.Series([8]),
    pl.Series([False] * 8 + [True]),
]


def as_pandas(columns):
    return pd.DataFrame({name: pd.Series(values, dtype=None) for name, values in columns.items()})


def as_pandas_categories(columns):
    return as_pandas(columns).astype(dict.fromkeys(CATEGORIES, "category"))


def as_pandas_objects(columns):
    return as_pandas(columns).astype(object)


def as_pandas_nullable(columns):
    return as_pandas(columns).convert_dtypes()


def as_polars(columns):
    return pl.DataFrame(columns)


def as_polars_categories(columns):
    return pl.DataFrame(columns).with_columns(
        pl.col("city").cast(pl.Categorical), pl.col("grade").cast(pl.Enum(["a", "b", "c", "d"]))
    )


def as_array_of_objects(columns):
    return np.array(list(columns.values()), dtype=object).T


def as_lists(columns):
    return as_array_of_objects(columns).tolist()


def without_strings(X):
    return X.assign(city=X["city"].str.len(), grade=0)


KINDS = [
    as_pandas,
    as_pandas_categories,
    as_pandas_objects,
    as_pandas_nullable,
    as_polars,
    as_polars_categories,
    as_array_of_objects,
    as_lists,
]
