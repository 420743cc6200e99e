"""Tables that install with pip, raw: which are for choosing defaults, and which for reporting.

All lists were fixed before the first run on their tables. No value was chosen on those for
reporting (docs/benchmark.md tells what the results of the first eleven led to). A rule deals the
tables of the second round, `deal`: nobody's taste decides which of them is reported.

`python -m benchmarks.datasets` describes every table, and fails if a kind is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from sklearn import datasets
from sklearn.model_selection import train_test_split

from benchmarks import regression_tables
from benchmarks.recipes_of_tables import (
    LOAN_LEAKS,
    NEW_TABLES,
    Dataset,
    Sets,
    Split,
    Table,
    deal,
    flights,
    is_mostly_one_value,
    kind_of,
    numbers_of,
    read,
)


def split(data: Dataset, seed: int, *, max_train: int, max_test: int) -> Split:
    """Draw 60 % for training and 40 % for testing, stratified by class, and cut both.

    Classes are integers from 0, those of the training rows; test rows of others are left out.
    """
    y = np.unique(data.y, return_inverse=True)[1]
    is_shifted = np.zeros(len(y), bool) if data.is_shifted is None else data.is_shifted
    train, test = train_test_split(
        np.flatnonzero(~is_shifted), test_size=0.4, random_state=seed, stratify=y[~is_shifted]
    )
    if len(train) > max_train:
        train, _ = train_test_split(
            train, train_size=max_train, random_state=seed, stratify=y[train]
        )
    classes = np.unique(y[train])
    shifted = np.flatnonzero(is_shifted & np.isin(y, classes))
    shifted = np.random.default_rng(seed).permutation(shifted)[:max_test]
    test = test[np.isin(y[test], classes)][:max_test]
    parts = [
        (data.X.iloc[rows], np.searchsorted(classes, y[rows])) for rows in (train, test, shifted)
    ]
    return Split(*(column for part in parts for column in part))


def _cells() -> Dataset:
    data = read("modeldata", "cells", "class")
    return Dataset(data.X.drop(columns="case"), data.y, (data.X["case"] == "Test").to_numpy())


def _nass_cds() -> Dataset:
    data = read("DAAG", "nassCDS", "dead", "weight", "injSeverity", "caseid")
    later = (data.X["yearacc"] >= 2000).to_numpy()
    return Dataset(data.X.drop(columns="yearacc"), data.y, later)


def _loan_grade() -> Dataset:
    leaks = ["interest_rate", *LOAN_LEAKS]
    data = read("openintro", "loans_full_schema", "grade", *leaks)
    return Dataset(data.X, data.y.replace({"G": "F"}))


def _mpls_stops() -> Dataset:
    data = read("carData", "MplsStops", "problem", "idNum", "neighborhood")
    X = data.X.replace("Unknown", None)
    date = pd.to_datetime(X["date"])
    X = X.assign(month=date.dt.month, weekday=date.dt.day_of_week, hour=date.dt.hour)
    far = (X["policePrecinct"] >= 4).to_numpy()
    return Dataset(X.drop(columns=["date", "policePrecinct"]), data.y, far)


def _portal_species() -> Dataset:
    data = read("ratdat", "complete", "species_id", "record_id", "day", "genus", "species", "taxa")
    common = data.y.map(data.y.value_counts()) >= 100
    X, y = data.X[common].reset_index(drop=True), data.y[common].reset_index(drop=True)
    return Dataset(X.drop(columns="year"), y, (X["year"] >= 1990).to_numpy())


def _flights_delay() -> Dataset:
    data = flights()
    return data._replace(y=data.y >= 15)


def _from_sklearn(load: Callable[..., datasets.Bunch]) -> Dataset:
    bunch = load(as_frame=True)
    return Dataset(bunch.data, bunch.target)


FIRST_DEVELOPMENT_SETS: Sets = {
    "credit_data": lambda: read("modeldata", "credit_data", "Status"),
    "attrition": lambda: read("modeldata", "attrition", "Attrition"),
    "cells": _cells,
    "leaf_flavia": lambda: read("modeldata", "leaf_id_flavia", "species"),
    "diamonds_cut": lambda: read("ggplot2", "diamonds", "cut"),
    "hpc_data": lambda: read("modeldata", "hpc_data", "class"),
    "mlc_churn": lambda: read("modeldata", "mlc_churn", "churn"),
    "taxi": lambda: read("modeldata", "taxi", "tip"),
}
FIRST_REPORTING_SETS: Sets = {
    "telco_churn": lambda: read("modeldata", "wa_churn", "churn"),
    "lending_club": lambda: read("modeldata", "lending_club", "Class"),
    "caravan": lambda: read("ISLR", "Caravan", "Purchase"),
    "loan_grade": _loan_grade,
    "nass_cds": _nass_cds,
    "mpls_stops": _mpls_stops,
    "portal_species": _portal_species,
    "flights_delay": _flights_delay,
    "digits": lambda: _from_sklearn(datasets.load_digits),
    "breast_cancer": lambda: _from_sklearn(datasets.load_breast_cancer),
    "wine": lambda: _from_sklearn(datasets.load_wine),
}
REPORTING_SETS, _new_development_sets = deal(NEW_TABLES)
DEVELOPMENT_SETS: Sets = FIRST_DEVELOPMENT_SETS | _new_development_sets
# Those of at most 500 rows, as names. All development sets that small are new.
SMALL_REPORTING_SETS = [name for name in REPORTING_SETS if NEW_TABLES[name].kind == "small"]
SMALL_DEVELOPMENT_SETS = [
    name for name in _new_development_sets if NEW_TABLES[name].kind == "small"
]


def describe(name: str, data: Dataset) -> dict[str, object]:
    """Return what one line of `benchmarks/results/datasets.txt` tells of a table."""
    numbers = numbers_of(data.X)
    mostly_one = [is_mostly_one_value(column) for _, column in numbers.items()]
    return {
        "name": name,
        "kind": kind_of(data),
        "rows": len(data.X),
        "numbers": numbers.shape[1],
        "categories": data.X.shape[1] - numbers.shape[1],
        "classes": data.y.nunique(),
        "smallest class": data.y.value_counts(normalize=True).min(),
        "missing cells": data.X.isna().to_numpy().mean(),
        "mostly one value": np.mean(mostly_one) if mostly_one else 0.0,
        "shifted rows": 0 if data.is_shifted is None else int(data.is_shifted.sum()),
    }


def print_lists(
    lists: dict[str, Sets],
    tables: Mapping[str, Table],
    describe: Callable[[str, Dataset], dict[str, object]],
) -> None:
    """Print one line for each table, and check that the new ones are of the kind they tell."""
    rows = [
        {"list": which, **describe(name, load())}
        for which, sets in lists.items()
        for name, load in sets.items()
    ]
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format))
    for row in rows:
        name = str(row["name"])
        if name in tables and row["kind"] != tables[name].kind:
            raise ValueError(
                f"Got kind {tables[name].kind!r} for {name}, but expected {row['kind']!r}."
            )


def main() -> None:
    """Print the tables of classes, and those of numbers."""
    lists = {
        "development": DEVELOPMENT_SETS,
        "reporting": REPORTING_SETS,
        "first reporting": FIRST_REPORTING_SETS,
    }
    print_lists(lists, NEW_TABLES, describe)
    print("\nA number to predict")
    lists = {
        "development": regression_tables.REGRESSION_DEVELOPMENT_SETS,
        "reporting": regression_tables.REGRESSION_REPORTING_SETS,
    }
    print_lists(lists, regression_tables.NEW_TABLES, regression_tables.describe)


if __name__ == "__main__":
    main()
