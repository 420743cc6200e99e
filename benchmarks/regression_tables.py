"""Raw tables with a number to predict: which are for choosing defaults, and which for reporting.

Both lists were fixed before any model was fitted on a table of `NEW_TABLES`; the tables were chosen
by what they contain. The rule of `benchmarks.recipes_of_tables.deal` deals them to the lists. What
had been used for choosing before is for choosing only. Recipes drop what those of classes drop.
Every target stays in its own unit, prices and incomes too.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

from benchmarks.recipes_of_tables import (
    LOAN_LEAKS,
    NHEFS_END,
    Dataset,
    Sets,
    Split,
    Table,
    as_codes,
    deal,
    flights,
    is_long_tailed,
    later,
    nhefs_codes,
    numbers_of,
    only,
    read,
    that_vary,
)

# In this order: the first that applies is the kind of a table.
KINDS = ("shift", "small", "gaps", "categorical", "long tail", "large", "plain")


def kind_of(data: Dataset) -> str:
    """Return the first of `KINDS` that applies to a table.

    "shift" has rows of another domain, "small" is at most 700 rows, "gaps" is at least one cell
    missing of twenty, "categorical" is at least half of the columns, and "large" is at least 10,000
    rows. The target has a "long tail" if one row in a hundred lies farther above the median than
    four interquartile ranges, farther than in an exponential distribution.
    """
    applies = {
        "shift": data.is_shifted is not None,
        "small": len(data.X) <= 700,
        "gaps": data.X.isna().to_numpy().mean() >= 0.05,
        "categorical": numbers_of(data.X).shape[1] <= data.X.shape[1] / 2,
        "long tail": is_long_tailed(data.y, 4),
        "large": len(data.X) >= 10_000,
        "plain": True,
    }
    return next(kind for kind in KINDS if applies[kind])


def split(data: Dataset, seed: int, *, max_train: int, max_test: int) -> Split:
    """Draw 60 % for training and 40 % for testing, and cut both, and the rows of the other domain.

    Every part is in random order.
    """
    is_shifted = np.zeros(len(data.y), bool) if data.is_shifted is None else data.is_shifted
    train, test = train_test_split(
        np.flatnonzero(~is_shifted), test_size=0.4, random_state=seed, shuffle=True
    )
    shifted = np.random.default_rng(seed).permutation(np.flatnonzero(is_shifted))
    parts = train[:max_train], test[:max_test], shifted[:max_test]
    y = data.y.to_numpy(float)
    return Split(*(column for rows in parts for column in (data.X.iloc[rows], y[rows])))


def numeric(package: str, item: str, target: str, *drop: str) -> Dataset:
    """Read a table of a number to predict."""
    return read(package, item, target, *drop, dtype=float)


def _with_calendar(data: Dataset, column: str) -> Dataset:
    """Add month and weekday of a date."""
    date = pd.to_datetime(data.X[column])
    return data._replace(X=data.X.assign(month=date.dt.month, weekday=date.dt.day_of_week))


# ---- used for choosing before


def _hotel_rates() -> Dataset:
    data = numeric("modeldata", "hotel_rates", "avg_price_per_room", "arrival_date_num")
    return later(_with_calendar(data, "arrival_date"), "arrival_date", "2017-05-01")


def _diabetes() -> Dataset:
    bunch = load_diabetes(as_frame=True)
    return Dataset(bunch.data, bunch.target.astype(float))


USED_SETS: Sets = {
    "concrete": lambda: numeric("modeldata", "concrete", "compressive_strength"),
    "diamond_price": lambda: numeric("ggplot2", "diamonds", "price"),
    "wage": lambda: that_vary(numeric("ISLR", "Wage", "wage", "logwage")),
    "boston": lambda: numeric("MASS", "Boston", "medv"),
    "car_price": lambda: numeric("modeldata", "car_prices", "Price"),
    "college_tuition": lambda: numeric("ISLR", "College", "Outstate"),
    "diabetes": _diabetes,
    "hotel_rates": _hotel_rates,
    "ames": lambda: numeric("modeldata", "ames", "Sale_Price"),
}

# ---- new ones


def _ridership() -> Dataset:
    # Other stations' numbers are those of two weeks before.
    data = numeric("modeldata", "Chicago", "ridership")
    return later(_with_calendar(data, "date"), "date", "2012-01-01")


def _grinnell_houses() -> Dataset:
    asked = ["OrigPrice", "ListPrice", "CostPerSqFt", "SPLPPct"]
    names = ["Date", "DaySold", "Address"]
    return later(
        numeric("Stat2Data", "GrinnellHouses", "SalePrice", *asked, *names), "YearSold", 2012
    )


def _rodent_weight() -> Dataset:
    again = ["genus", "species", "taxa"]
    return later(numeric("ratdat", "complete", "weight", "record_id", "day", *again), "year", 1990)


def _poll() -> Dataset:
    others = ["rawpoll_trump", "rawpoll_johnson", "rawpoll_mcmullin"]
    adjusted = [f"adjpoll_{name}" for name in ("clinton", "trump", "johnson", "mcmullin")]
    data = numeric("dslabs", "polls_us_election_2016", "rawpoll_clinton", *others, *adjusted)
    start, end = (pd.to_datetime(data.X[column]) for column in ("startdate", "enddate"))
    X = data.X.drop(columns="startdate").assign(days=(end - start).dt.days)
    return later(data._replace(X=X), "enddate", "2016-10-15")


def _injury() -> Dataset:
    # Weeks on benefit. What treatment cost is known later; the other domain is Michigan.
    transformed = ["ldurat", "lprewage", "lage", "highlpre", "afhigh", "manuf", "construc", "ky"]
    transformed += ["head", "neck", "upextr", "trunk", "lowback", "lowextr", "occdis"]
    data = numeric("wooldridge", "injury", "durat", "totmed", "ltotmed", *transformed)
    return later(as_codes(data, "indust", "injtype", "injdes"), "mi", 1)


def _citations() -> Dataset:
    parts = ["selfcites", "othercites", "theocites", "nontheocites"]
    return numeric("AER", "EquationCitations", "cites", "authors", "startpage", *parts)


def _third_grade() -> Dataset:
    # Schools and their districts are numbers without an order.
    names = [f"{what}{grade}" for what in ("schoolid", "system") for grade in "k123"]
    return numeric("AER", "STAR", "math3", "read3", *names)


def _hawks() -> Dataset:
    return numeric("Stat2Data", "Hawks", "Weight", "BandNumber", "CaptureTime", "ReleaseTime")


def _weight_gain() -> Dataset:
    return nhefs_codes(numeric("causaldata", "nhefs", "wt82_71", *NHEFS_END))


def _student_weight() -> Dataset:
    # The grades are text of numbers, and "other" in a few rows.
    data = numeric("openintro", "yrbss", "weight")
    return data._replace(X=data.X.assign(grade=data.X["grade"].astype("category")))


def _doctor_visits() -> Dataset:
    # The first year alone, so that each person has one row.
    spent = [f"{what}dol" for what in ("outp", "drug", "supp", "ment", "inp", "med", "lnmed")]
    counted = ["totadm", "inpmis", "mentvis", "notmdvis", "binexp", "zper", "time"]
    transformed = ["linc", "lnum", "lfam", "lpi", "logc", "fmde", "xghindx"]
    data = numeric("sampleSelection", "RandHIE", "mdvis", *spent, *counted, *transformed)
    return that_vary(as_codes(only(data, data.X["year"] == 1), "plan", "site"))


def _loan_rate() -> Dataset:
    leaks = ["grade", *LOAN_LEAKS]
    return that_vary(numeric("openintro", "loans_full_schema", "interest_rate", *leaks))


def _language_test() -> Dataset:
    other_test, names = "aritPOST", ["schoolNR", "pupilNR", "classNR"]
    centred = ["IQ.ver.cen", "avg.IQ.ver.cen", "grpSiz.cen"]
    return as_codes(numeric("mlmRev", "bdf", "langPOST", other_test, *names, *centred), "denomina")


NEW_TABLES: dict[str, Table] = {
    # Rows of another domain.
    "ridership": Table("shift", _ridership),
    "computer_price": Table(
        "shift", lambda: later(numeric("Ecdat", "Computers", "price"), "trend", 24)
    ),
    "arrival_delay": Table("shift", flights),
    "grinnell_houses": Table("shift", _grinnell_houses),
    "rodent_weight": Table("shift", _rodent_weight),
    "income_survey": Table(
        # The occupation's own code has hundreds of values.
        "shift",
        lambda: later(numeric("stevedata", "gss_wages", "realrinc", "occ10"), "year", 2006),
    ),
    "poll": Table("shift", _poll),
    "injury": Table("shift", _injury),
    # At most 700 rows.
    "auto_mpg": Table("small", lambda: as_codes(numeric("ISLR", "Auto", "mpg", "name"), "origin")),
    "professor_salary": Table("small", lambda: numeric("carData", "Salaries", "salary")),
    "windsor_houses": Table("small", lambda: numeric("Ecdat", "Housing", "price")),
    "citations": Table("small", _citations),
    # At least one cell missing of twenty.
    "third_grade": Table("gaps", _third_grade),
    "census_income": Table("gaps", lambda: numeric("openintro", "acs12", "income")),
    "hawks": Table("gaps", _hawks),
    "loan_rate": Table("gaps", _loan_rate),
    # At least half of the columns are categories.
    "weight_gain": Table("categorical", _weight_gain),
    "student_weight": Table("categorical", _student_weight),
    "weekly_wage": Table("categorical", lambda: numeric("AER", "CPS1988", "wage")),
    # A target with a long tail.
    "doctor_visits": Table("long tail", _doctor_visits),
    "wealth": Table(
        "long tail", lambda: numeric("wooldridge", "k401ksubs", "nettfa", "incsq", "agesq")
    ),
    "check_time": Table(
        "long tail", lambda: numeric("modeldata", "check_times", "check_time", "package", "status")
    ),
    "rain": Table("long tail", lambda: numeric("crch", "RainIbk", "rain")),
    # 10,000 rows or more.
    "delivery_time": Table("large", lambda: numeric("modeldata", "deliveries", "time_to_delivery")),
    # None of these.
    "saratoga_houses": Table("plain", lambda: numeric("mosaicData", "SaratogaHouses", "price")),
    "language_test": Table("plain", _language_test),
}
REGRESSION_REPORTING_SETS, _new_development_sets = deal(NEW_TABLES, KINDS)
REGRESSION_DEVELOPMENT_SETS: Sets = USED_SETS | _new_development_sets


def describe(name: str, data: Dataset) -> dict[str, object]:
    """Return what one line of `benchmarks/results/datasets.txt` tells of a table."""
    n_numbers = numbers_of(data.X).shape[1]
    return {
        "name": name,
        "kind": kind_of(data),
        "rows": len(data.X),
        "numbers": n_numbers,
        "categories": data.X.shape[1] - n_numbers,
        "target's median": data.y.median(),
        "deviation": data.y.std(),
        "skewness": data.y.skew(),
        "missing cells": data.X.isna().to_numpy().mean(),
        "shifted rows": 0 if data.is_shifted is None else int(data.is_shifted.sum()),
    }
