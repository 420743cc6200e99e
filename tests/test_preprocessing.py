"""The encoder, on tables of every container and column type."""

import datetime
import enum
import tracemalloc
from decimal import Decimal

import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from frames import (
    CATEGORIES,
    KINDS,
    NUMBERS,
    as_array_of_objects,
    as_pandas,
    as_pandas_categories,
    as_polars,
    plain_columns,
)
from sklearn_fordes._rows import row_parts
from sklearn_fordes.preprocessing import TabularEncoder, _columns, as_table


@parametrize_with_checks([TabularEncoder()])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize("make", KINDS)
def test_every_kind_of_frame_is_encoded_alike(make):
    expected = TabularEncoder().fit(as_pandas(plain_columns()))
    encoder = TabularEncoder().fit(make(plain_columns()))
    other = plain_columns(seed=1)
    encoded = encoder.transform(make(other))
    np.testing.assert_array_equal(encoded, expected.transform(as_pandas(other)))
    np.testing.assert_array_equal(encoder.transform_checked(as_table(make(other))), encoded)
    assert encoder.is_categorical_.tolist() == [name in CATEGORIES for name in other]


def columns_of_many_types():
    n_rows = 60
    plain = as_pandas(plain_columns(n_rows))
    dates = pd.Series(pd.date_range("2020-01-01", periods=n_rows, freq="31h"))
    codes = pd.Series(np.arange(n_rows) % 5)
    return plain.assign(
        whole=np.arange(n_rows, dtype=np.uint8),
        half=np.linspace(0, 1, n_rows, dtype=np.float16),
        single=np.where(codes == 0, np.nan, np.linspace(0, 1, n_rows)).astype(np.float32),
        date=dates.where(codes > 0),
        zoned=dates.dt.tz_localize("Europe/Oslo"),
        took=dates - dates[0],
        month=dates.dt.to_period("M"),
        numbered=codes.where(codes > 0).astype("category"),
        ordered=pd.Categorical(list("abc") * 20, ["c", "b", "a", "d"], ordered=True),
        text=pd.Series(list("xyz") * 20).astype("string"),
        objects=plain["city"].astype(object),
        text_of_numbers=codes.astype(str),
        decimals=[Decimal(i) / 8 for i in range(n_rows)],
    )


@pytest.mark.filterwarnings("ignore:Columns .* hold text that is read as numbers")
@pytest.mark.parametrize("without", [[], ["month", "half"]])
def test_columns_of_pandas_are_read_as_those_of_any_frame(without, monkeypatch):
    train = columns_of_many_types().drop(columns=without)
    frames = [train, train[::-1], train[7:8], train.assign(code=3, city="Rome")]
    encoder = TabularEncoder().fit(train)
    found = [encoder.transform(frame) for frame in frames]
    monkeypatch.setattr(_columns, "_is_read_directly", lambda dtype: False)
    through_wrappers = TabularEncoder().fit(train)
    assert encoder.kinds_.tolist() == through_wrappers.kinds_.tolist()
    for frame, encoded in zip(frames, found, strict=True):
        np.testing.assert_array_equal(through_wrappers.transform(frame), encoded)


def test_a_row_of_pandas_is_read_without_wrappers(monkeypatch):
    train = as_pandas_categories(plain_columns()).assign(when=pd.Timestamp("2020-01-01"))
    encoder = TabularEncoder().fit(train)
    expected = encoder.transform(train)[5:6]
    table = as_table(train[5:6])
    monkeypatch.setattr(_columns.nw, "from_native", None)
    np.testing.assert_array_equal(encoder.transform_checked(table), expected)


@pytest.mark.parametrize("n_rows", [3, 4])
def test_a_table_that_fits_is_not_cut(n_rows):
    for table in (np.arange(6).reshape(3, 2), as_pandas(plain_columns(3))):
        ((part, rows),) = row_parts(table, n_rows)
        assert rows is table
        assert part == slice(0, 3)
        parts = list(row_parts(table, 2))
        assert [part for part, _ in parts] == [slice(0, 2), slice(2, 3)]
        assert [len(rows) for _, rows in parts] == [2, 1]


@pytest.mark.parametrize("make", [np.array, pd.DataFrame, pl.DataFrame])
def test_the_first_column_with_an_infinite_number_is_named(make):
    train = np.random.default_rng(0).normal(size=(20, 3))
    encoder = TabularEncoder().fit(make(train))
    train[3, 1] = train[0, 2] = -np.inf
    table = make(train)
    name = table.columns[1] if hasattr(table, "columns") else 1
    with pytest.raises(ValueError, match=f"Got infinity in column {name!r}, but expected finite"):
        encoder.transform(table)


def test_columns_of_one_name_are_refused():
    encoder = TabularEncoder().fit(as_pandas(plain_columns()))
    table = as_pandas(plain_columns()).rename(columns={"again": "size"})
    with pytest.raises(ValueError, match=r"(?i)unique|duplicate"):
        encoder.transform_checked(table)


def test_numbers_by_hand():
    values = [1.0, 2.0, 3.0, 4.0, 23.0, None]
    encoder = TabularEncoder(min_frequency=1, rank_share=0).fit(pd.DataFrame({"a": values}))
    # Median 3, quartiles 2 and 4. The largest is ten spreads away: more would be a long tail.
    z = (np.array([*values[:5], 3.0]) - 3) / 2
    expected = z / np.sqrt(1 + (z / 3) ** 2)
    assert encoder.is_long_tailed_.tolist() == [False]
    encoded = encoder.transform(pd.DataFrame({"a": values}))
    np.testing.assert_allclose(encoded[:, 0], expected, rtol=1e-6)
    assert encoded[:, 1].tolist() == [0, 0, 0, 0, 0, 1]
    assert encoder.get_feature_names_out().tolist() == ["a", "a_missing"]


def bounded(z, bound):
    return z / np.sqrt(1 + (z / bound) ** 2)


@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_with_a_long_tail_by_hand(sign):
    X = sign * np.array([[1.0], [2.0], [3.0], [4.0], [100.0]])  # 48.5 spreads from the median
    encoder = TabularEncoder(clip=2.0).fit(X)
    assert encoder.is_long_tailed_.tolist() == [True]
    assert (encoder.center_[0], encoder.scale_[0]) == (3 * sign, 0.5)
    arsinh = np.log(48.5 + np.sqrt(48.5**2 + 1))
    one = np.log(1 + np.sqrt(2))
    half = np.log(0.5 + np.sqrt(1.25))
    expected = sign * bounded(np.array([-one, -half, 0, half, arsinh]), 6)
    np.testing.assert_allclose(encoder.transform(X)[:, 0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("others", "spread"),
    [
        ([-6.0, -2.0, 1.0, 4.0, 10.0], 6),  # quartiles −2 and 4; the median is 1 from zero
        ([10.0, 12.0, 13.0, 15.0, 17.0], 13),  # quartiles 12 and 15; the median is 13 from zero
        ([5.0, 5.0, 5.0, 5.0, 100.0], 5),  # both quartiles are 5, and half the range is not asked
    ],
    ids=["quartiles", "distance", "equal quartiles"],
)
@pytest.mark.parametrize("common", [0.0, 0.1, -7.0])
def test_numbers_of_which_one_value_is_common_by_hand(others, spread, common):
    values = [common] * 4 + [common + other for other in others] + [np.nan]
    encoder = TabularEncoder(min_frequency=4).fit(np.array(values)[:, None])
    assert encoder.is_long_tailed_.tolist() == [True]
    assert encoder.center_.tolist() == [common]
    np.testing.assert_allclose(encoder.scale_, 1 / spread, rtol=1e-12)
    encoded = encoder.transform(np.array(values)[:, None])[:, 0]
    assert encoded[[0, 1, 2, 3, 9]].tolist() == [0] * 5
    z = np.array(others) / spread
    expected = bounded(np.sign(z) * np.log(np.abs(z) + np.sqrt(z**2 + 1)), 9)
    np.testing.assert_allclose(encoded[4:9], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "min_frequency", "center"),
    [
        ([1.0, 2.0, 3.0], 1, 2.0),  # each value is a third, which says nothing
        ([0.0] * 4 + [3.0, 4.0, 5.0, 6.0, 7.0], 5, 3.0),  # too few rows
        ([0.0] * 4 + [3.0, 4.0, 5.0, 6.0, 7.0], 4, 0.0),
        ([0.0] * 3 + [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 1, 2.5),  # 30 %, not more
        ([0.0] * 4 + [2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 1, 0.0),
        ([0.0] * 4 + [2.0, 3.0, 4.0, 5.0, 6.0, 7.0] + [np.nan] * 9, 1, 0.0),  # gaps don't count
        ([9.0] + [2.0] * 5 + [1.0] * 5, 1, 1.0),  # the smaller of two
        ([9.0] + [2.0] * 5 + [1.0] * 4, 1, 2.0),
        ([0.0] * 6 + [1.0] * 3, 1, 0.0),  # two values have a median
        ([5.0], 1, 5.0),
    ],
    ids=str,
)
def test_a_value_is_common_in_enough_rows(values, min_frequency, center):
    X = np.array(values)[:, None]
    for rows in (X, X[::-1], np.random.default_rng(0).permutation(X)):
        encoder = TabularEncoder(min_frequency=min_frequency).fit(rows)
        assert encoder.center_.tolist() == [center]


def tailed_columns(n_rows=400, seed=0):
    """Columns without and with a common value and long tails."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, 5))
    X[:, 1] = np.exp(3 * X[:, 1])
    X[:, 2] = np.where(rng.random(n_rows) < 0.5, 0.0, X[:, 2] ** 3)
    X[:, 3] = np.where(rng.random(n_rows) < 0.4, 0.3, rng.integers(0, 9, n_rows))
    X[:, 4] = 1 / X[:, 4]
    return X


def test_the_code_of_a_number_grows_with_it():
    X = tailed_columns()
    encoder = TabularEncoder().fit(X)
    assert encoder.is_long_tailed_.tolist() == [False, True, True, True, True]
    encoded = encoder.transform(np.sort(X, axis=0))
    assert (np.diff(encoded, axis=0) >= 0).all()
    is_other = np.diff(np.sort(X, axis=0), axis=0) > 0
    assert (np.diff(encoded, axis=0) > 0)[is_other].mean() > 0.99
    bounds = np.where(encoder.is_long_tailed_, 9, 3)
    assert (np.abs(encoded).max(axis=0) < bounds).all()


def test_values_in_a_long_tail_stay_apart():
    X = np.append(np.random.default_rng(0).normal(size=200), [1e4, 2e4])[:, None]
    z = (X[-2:, 0] - np.median(X)) / np.subtract(*np.quantile(X, [0.75, 0.25]))
    assert np.ptp(bounded(z, 3)) < 1e-3
    assert np.ptp(TabularEncoder().fit_transform(X)[-2:]) > 0.1


def test_noise_around_a_common_value_moves_its_code_little():
    X = tailed_columns()[:, 1:]
    encoder = TabularEncoder().fit(X)
    noise = np.linspace(-1e-6, 1e-6, 11)[:, None]
    encoded = encoder.transform(encoder.center_ + noise)
    np.testing.assert_allclose(encoded, noise * encoder.scale_, rtol=1e-5, atol=1e-12)


def test_codes_depend_neither_on_the_order_nor_on_the_number_of_rows():
    X = tailed_columns()
    X[::7] = np.nan
    encoder = TabularEncoder().fit(X)
    encoded = encoder.transform(X)
    order = np.random.default_rng(1).permutation(len(X))
    again = TabularEncoder().fit(X[order])
    np.testing.assert_array_equal(again.transform(X), encoded)
    for n_rows in (1, 2, 3):
        some = [encoder.transform(X[i : i + n_rows]) for i in range(0, 30, n_rows)]
        np.testing.assert_array_equal(np.concatenate(some), encoded[:30])
    for column in range(X.shape[1]):  # Nor on the columns around them.
        alone = TabularEncoder().fit_transform(X[:, [column]])
        np.testing.assert_array_equal(alone[:, 0], encoded[:, column])


def test_training_values_are_never_clipped():
    X = np.random.default_rng(0).normal(size=(50, 100)) / 3
    assert not TabularEncoder().fit(X).report(X)["clipped"].any()


def test_parts_of_dates_may_have_common_values_and_long_tails():
    days = ["2024-01-01"] * 40 + ["2024-01-02", "2024-01-02", "2024-01-03 07", "2024-01-03 09"] * 15
    at = [*map(pd.Timestamp, days), pd.Timestamp("1990-01-03")]
    encoder = TabularEncoder().fit(pd.DataFrame({"at": at}))
    assert encoder.parts_ == [["year", "weekday", "hour", "elapsed"]]
    # The year has two values. Most times of day are midnight, and 40 of 101 days are one Monday.
    assert encoder.is_long_tailed_.tolist() == [False, True, True, True]
    assert encoder.center_[1:].tolist() == [0, 0, 19723]
    beyond = encoder.transform(pd.DataFrame({"at": ["2100-01-07", "1800-01-06"]}))
    assert np.isfinite(beyond).all()
    assert np.abs(beyond).max() < 9


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0] * 9 + [10.0], [0.0] * 9 + [2.0]),
        ([-1.7e308, 0.0, 0.0, 0.0, 1.7e308], [-1, 0, 0, 0, 1]),
        ([1e-310, 0.0, 2e-310], [0, 0, 0]),  # too small to scale
    ],
    ids=["no spread", "large", "small"],
)
def test_numbers_without_spread_in_the_middle_are_scaled_by_half_their_range(values, expected):
    encoder = TabularEncoder(clip=1e9, rank_share=0)
    encoded = encoder.fit_transform(np.array(values)[:, None])
    np.testing.assert_allclose(encoded[:, 0], expected)


def test_constant_columns_are_encoded_as_zero():
    encoder = TabularEncoder().fit(np.full((5, 2), [[1.0, np.nan]]))
    assert encoder.transform([[1e9, 5.0]]).tolist() == [[0.0]]


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_numbers_of_any_size(scale):
    X = np.random.default_rng(0).normal(size=(50, 2)) * scale
    encoded = TabularEncoder().fit_transform(X)
    np.testing.assert_allclose(encoded, TabularEncoder().fit_transform(X / scale), rtol=1e-5)
    assert np.abs(TabularEncoder().fit(X / scale).transform(X)).max() <= 3


def test_numbers_outside_the_training_range_are_clipped_to_it():
    encoder = TabularEncoder().fit([[1.0], [2.0], [3.0]])
    ends, beyond = encoder.transform([[1.0], [3.0]]), encoder.transform([[-1e300], [4.0]])
    np.testing.assert_array_equal(beyond, ends)


@pytest.mark.parametrize(
    ("labels", "names", "rows", "expected"),
    [
        (
            ["a"] * 5 + ["b"] * 3 + ["x", "y"],
            ["c_a", "c_b", "c_infrequent"],
            ["b", "x", "never seen", None],
            [[0, 1, 0], [0, 0, 1], [0, 0, 1], [0.5, 0.3, 0.2]],
        ),
        (
            ["a"] * 6 + ["b"] * 2 + [None] * 2,
            ["c_a", "c_b", "c_missing"],
            [None, "never seen"],
            [[0, 0, 1], [0.6, 0.2, 0.2]],
        ),
        (
            ["missing"] * 6 + ["infrequent"] * 4 + [None] * 3 + ["q", "r"],
            ["c_infrequent", "c_missing", "c_infrequent_", "c_missing_"],
            ["infrequent", "missing", "q", "new", None],
            np.eye(4)[[0, 1, 2, 2, 3]],
        ),
    ],
    ids=["rare levels", "gaps", "levels named like the other columns"],
)
def test_levels_by_hand(labels, names, rows, expected):
    encoder = TabularEncoder(min_frequency=2).fit(pd.DataFrame({"c": labels}))
    assert encoder.get_feature_names_out().tolist() == names
    encoded = encoder.transform(pd.DataFrame({"c": rows}))
    np.testing.assert_allclose(encoded, expected, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:Most values")
def test_the_most_frequent_levels_are_kept():
    labels = [f"l{i:02}" for i in range(20) for _ in range(i + 1)]
    encoder = TabularEncoder(max_levels=3).fit(pd.DataFrame({"c": labels}))
    names = encoder.get_feature_names_out().tolist()
    assert names == ["c_l17", "c_l18", "c_l19", "c_infrequent"]
    ties = pd.DataFrame({"c": ["c", "b", "a"] * 5})
    assert TabularEncoder(max_levels=2).fit(ties).known_levels_ == [["a", "b"]]
    many = pd.DataFrame({"c": [f"l{i:02}" for i in range(70) for _ in range(5)]})
    encoder = TabularEncoder().fit(many)
    assert encoder.known_levels_ == [[f"l{i:02}" for i in range(64)]]
    assert encoder.other_levels_ == [["infrequent"]]


@pytest.mark.parametrize("given", [["code"], [2], [False, False, True]])
def test_columns_that_are_named_are_categories_besides_those_of_text(given):
    table = pd.DataFrame(
        {"city": ["Oslo", "Turku"] * 20, "age": range(40), "code": [7, 7, 9, 12] * 10}
    )
    encoder = TabularEncoder(categorical_features=given).fit(table)
    assert encoder.is_categorical_.tolist() == [True, False, True]


def test_no_column_is_a_category_if_none_is_given():
    X = as_pandas(plain_columns())
    assert not TabularEncoder(None).fit(X[NUMBERS]).is_categorical_.any()
    with pytest.raises(
        ValueError,
        match="'city' of text or objects with categorical_features=None, but expected numbers",
    ):
        TabularEncoder(None).fit(X)


def test_strings_and_numbers_of_one_level_are_one():
    train = pd.DataFrame({"c": [1, "1", 1.0, "b", "b"]}, dtype=object)
    encoder = TabularEncoder(min_frequency=1).fit(train)
    assert encoder.get_feature_names_out().tolist() == ["c_1", "c_b"]
    np.testing.assert_allclose(encoder.level_shares_, [[0.6, 0.4]])


def test_output_as_a_frame():
    X = as_pandas(plain_columns())
    frame = TabularEncoder().set_output(transform="pandas").fit_transform(X)
    assert list(frame)[:8] == [*NUMBERS, "gaps_missing"]
    assert list(frame)[8:] == [
        *("city_Bergen", "city_Oslo", "city_Turku"),
        *("grade_a", "grade_b", "grade_c", "grade_missing"),
    ]
    encoder = TabularEncoder().set_output(transform="polars")
    polars = encoder.fit_transform(as_polars(plain_columns()))
    np.testing.assert_array_equal(polars.to_numpy(), frame.to_numpy())


def test_frames_that_are_empty_or_lazy_are_refused():
    message = r"Got a data frame of shape .*at least one row and col"
    for frame in (pd.DataFrame({"a": []}), pd.DataFrame(index=[0, 1]), pl.DataFrame({"a": []})):
        with pytest.raises(ValueError, match=message):
            TabularEncoder().fit(frame)
    with pytest.raises(TypeError, match=r"Got a lazy LazyFrame, but expected a frame: call coll"):
        TabularEncoder().fit(pl.LazyFrame({"a": [1, 2]}))


def test_names_of_the_output_are_distinct():
    X = pd.DataFrame({"a": ["b", "b", "c"], "a_b": [1.0, 2, 3]})
    encoder = TabularEncoder(min_frequency=1).set_output(transform="polars").fit(X)
    assert encoder.get_feature_names_out().tolist() == ["a_b", "a_b_", "a_c"]
    assert encoder.transform(X).columns == ["a_b", "a_b_", "a_c"]
    encoder.fit(X.assign(a=["b", "b", "b_"]))
    assert encoder.get_feature_names_out().tolist() == ["a_b", "a_b__", "a_b_"]


@pytest.mark.parametrize("n_rare", [1, 4, 5])
def test_rare_levels_and_gaps_get_no_column(n_rare):
    rare = [None] * n_rare
    X = pd.DataFrame({"a": [0.0] * 20 + rare, "b": ["x"] * 20 + rare})
    names = TabularEncoder().fit(X).get_feature_names_out().tolist()
    traces = ["a", "a_missing", "b_x", "b_missing"] if n_rare == 5 else ["a", "b_x"]
    assert names == traces
    levels = pd.DataFrame({"b": ["x"] * 20 + ["y"] * n_rare})
    assert ("b_y" in TabularEncoder().fit(levels).get_feature_names_out()) == (n_rare == 5)


@pytest.mark.parametrize("make", [as_pandas, as_polars])
def test_columns_of_narwhals_frames_are_identified_by_name(make):
    X = make(plain_columns())
    wrapped = nw.from_native(X)
    encoder = TabularEncoder().fit(wrapped)
    np.testing.assert_array_equal(encoder.transform(wrapped), encoder.transform(X))
    with pytest.raises(ValueError, match="same order"):
        encoder.transform(wrapped.select("city", *[n for n in X.columns if n != "city"]))


def test_a_long_label_takes_memory_once():
    labels = ["a"] * 20_000 + ["b" * 100_000] * 5  # 8 GB if every label took as much
    encoder = TabularEncoder().fit(pd.DataFrame({"c": labels}))
    assert encoder.level_shares_[0].tolist() == [20_000 / 20_005, 5 / 20_005]


DAYS = [datetime.date(2023 + i, 1 + 2 * i, 30 - i) for i in range(5)]
HOURS = [datetime.datetime(2024, 1, 1, 3 * i, 30) for i in range(5)]
OSLO = datetime.timezone(datetime.timedelta(hours=1))


@pytest.mark.parametrize(
    "dates",
    [
        pd.Series(pd.to_datetime(DAYS)),
        pd.Series(DAYS, dtype=object),
        pd.Series([str(day) for day in DAYS]),
        pd.Series([f"{day}T00:00:00Z" for day in DAYS], dtype=object),
        pd.Series(pd.PeriodIndex([str(day) for day in DAYS], freq="D")),
        pl.Series(DAYS),
        pl.Series(DAYS).cast(pl.Datetime("ns")),
        np.array(DAYS, dtype="M8[D]"),
        np.array(DAYS, dtype="M8[ns]"),
        np.array(DAYS),
        np.array([str(day).encode() for day in DAYS]),
    ],
    ids=lambda dates: f"{type(dates).__module__} {dates.dtype}",
)
def test_dates_become_years_months_weekdays_and_days(dates):
    columns = {"when": dates, "size": range(5)}
    if isinstance(dates, np.ndarray):
        train = dates[:, None]
    else:
        train = (pl.DataFrame if isinstance(dates, pl.Series) else pd.DataFrame)(columns)
    encoder = TabularEncoder().fit(train)
    assert encoder.kinds_[0] == "date"
    assert encoder.parts_[0] == ["year", "month", "weekday", "elapsed"]
    days = [datetime.date.fromordinal(719163 + int(n)) for n in encoder.low_[[3]]]
    assert days == [DAYS[0]]
    assert encoder.low_[:3].tolist() == [2023, 1, 0]
    assert encoder.high_[:3].tolist() == [2027, 9, 6]
    # Later rows may come in another container.
    later = pd.DataFrame({"when": DAYS, "size": range(5)})
    table = as_table(later if train.shape[1] == 2 else later[["when"]])
    np.testing.assert_array_equal(encoder.transform_checked(table), encoder.transform(train))


def test_times_are_parts_of_a_day_in_utc():
    encoder = TabularEncoder(min_frequency=1).fit(pd.DataFrame({"at": [*HOURS, None]}))
    names = encoder.get_feature_names_out().tolist()
    assert names == ["at_hour", "at_elapsed", "at_missing"]
    assert (encoder.low_[0], encoder.high_[0]) == (0.5, 12.5)
    in_oslo = [moment.replace(tzinfo=datetime.UTC).astimezone(OSLO) for moment in HOURS]
    expected = encoder.transform(pd.DataFrame({"at": HOURS}))
    for moments in (in_oslo, [f"{moment:%F %T%z}" for moment in in_oslo]):
        np.testing.assert_array_equal(encoder.transform(pd.DataFrame({"at": moments})), expected)
    zoned = pl.DataFrame({"at": pl.Series(HOURS).dt.replace_time_zone("UTC")})
    zoned = zoned.with_columns(pl.col("at").dt.convert_time_zone("Europe/Oslo"))
    np.testing.assert_array_equal(encoder.transform(zoned), expected)
    gap = encoder.transform(pd.DataFrame({"at": [None]}))
    assert gap.tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("unit", ["h", "ms"])
@pytest.mark.parametrize("make", [pd.Series, pl.Series, np.array])
def test_durations_are_numbers_of_seconds(make, unit):
    seconds = np.arange(0, 36000, 3600)
    durations = make((seconds * 1000).astype("m8[ms]").astype(f"m8[{unit}]").tolist())
    is_array = isinstance(durations, np.ndarray)
    X = durations[:, None] if is_array else durations.to_frame()
    encoder = TabularEncoder().fit(X)
    assert encoder.kinds_.tolist() == ["duration"]
    assert encoder.high_.tolist() == [32400]
    np.testing.assert_array_equal(
        encoder.transform(X), TabularEncoder().fit_transform(seconds[:, None])
    )
    clock = [datetime.time(hour) for hour in range(10)]
    at = TabularEncoder().fit(pd.DataFrame({"at": clock}))
    assert (at.kinds_.tolist(), at.high_.tolist()) == (["duration"], [32400])


def test_values_of_another_kind_than_in_training_are_refused_by_column_and_value():
    day, hour = datetime.date(2024, 1, 1), datetime.timedelta(hours=1)
    columns = {"number": [1.0, 2.0], "date": [day, None], "duration": [hour, None]}
    encoder = TabularEncoder().fit(pd.DataFrame(columns))
    plurals = {"number": "finite numbers", "date": "dates", "duration": "durations"}
    for name, plural in plurals.items():
        for value in ("x", 10**6000, 3.5, day, hour, 1j):
            if type(value) is type(columns[name][0]):
                continue
            row = pd.DataFrame(
                {**{other: [None] for other in columns}, name: [value]}, dtype=object
            )
            with pytest.raises(ValueError, match=f"in column '{name}'.* expected .*{plural[:6]}"):
                encoder.transform(row)


@pytest.mark.parametrize("gap", [None, np.nan, pd.NA, pd.NaT], ids=repr)
def test_objects_that_are_numbers(gap):
    X = pd.DataFrame({"a": [Decimal("1.5"), 2, gap, 3.5]}, dtype=object)
    expected = TabularEncoder().fit_transform([[1.5], [2.0], [np.nan], [3.5]])
    np.testing.assert_array_equal(TabularEncoder().fit_transform(X), expected)


def test_objects_that_are_neither_numbers_nor_text():
    for value in (10**400, 10**6000):
        with pytest.raises(ValueError, match=r"Got .* in column 'a', but expected finite numbers"):
            TabularEncoder().fit(pd.DataFrame({"a": [value, 1]}, dtype=object))
    with pytest.raises(ValueError, match=r"Got values in column 'a' that can't be compared"):
        TabularEncoder().fit(pd.DataFrame({"a": [[1], [2]]}))
    for value in (object(), 1j):
        with pytest.raises(ValueError, match=r"in column 'a', but expected numbers, text, dates"):
            TabularEncoder().fit(pd.DataFrame({"a": [value, "b"]}, dtype=object))


GAPS = [None, np.nan, np.float32("nan"), Decimal("nan"), pd.NA, pd.NaT]
GAPS += [np.datetime64("NaT"), np.timedelta64("NaT")]


@pytest.mark.parametrize("gap", GAPS, ids=lambda gap: f"{type(gap).__name__} {gap}")
def test_a_gap_is_missing_in_every_disguise(gap):
    X = pd.DataFrame(
        {
            "number": [1.0, 2.0] * 5,
            "date": pd.date_range("2020", periods=10),
            "duration": pd.to_timedelta(range(10), unit="h"),
            "category": ["a", "b"] * 5,
        }
    )
    encoder = TabularEncoder().fit(X)
    expected = encoder.transform(pd.DataFrame({name: [None] for name in X}))
    assert not expected[0, :-2].any()
    as_objects = pd.DataFrame({name: pd.Series([gap], dtype=object) for name in X})
    np.testing.assert_array_equal(encoder.transform(as_objects), expected)
    array = np.empty((1, 4), dtype=object)
    array[:] = gap
    np.testing.assert_array_equal(encoder.transform_checked(array), expected)


def test_columns_of_gaps_of_any_type_are_missing():
    X = pd.DataFrame({"number": [1.0, 2.0] * 5, "date": pd.date_range("2020", periods=10)})
    encoder = TabularEncoder().fit(X)
    for gaps in (
        pd.DataFrame({name: pd.Series([pd.NaT]) for name in X}),
        pd.DataFrame({name: pd.Series([None], dtype="string") for name in X}),
        pd.DataFrame({name: pd.Series([None], dtype="Int8") for name in X}),
        pl.DataFrame({name: [None] for name in X}),
        pl.DataFrame({name: pl.Series([None], dtype=pl.Datetime) for name in X}),
        np.ma.masked_all((1, 2)),
        np.full((1, 2), np.nan),
    ):
        assert not encoder.transform_checked(as_table(gaps)).any()


def test_masked_arrays_have_gaps():
    values = np.arange(20).reshape(10, 2)
    masked = np.ma.MaskedArray(values, mask=values % 3 == 0)
    expected = TabularEncoder().fit_transform(np.where(values % 3, values, np.nan))
    for dtype in (int, np.float32, object):
        encoded = TabularEncoder().fit_transform(masked.astype(dtype))
        np.testing.assert_array_equal(encoded, expected)


def columns_of_every_kind():
    n = np.arange(40)
    rare, often = n == 3, n % 4 == 0
    days = pd.Series(pd.date_range("2024-01-30", periods=40, freq="17h"))
    hours = pd.Series(pd.to_timedelta(n, unit="h"))
    towns = pd.Series(np.array(["Oslo", "Bergen"])[n % 2], dtype=object)
    numbers = pd.Series(n, dtype=float)
    return pd.DataFrame(
        {
            "number": numbers,
            "number_rare": numbers.mask(rare),
            "number_often": numbers.mask(often),
            "tail": np.exp(numbers.mask(rare)),
            "common": (numbers * (n % 3 > 0)).mask(often),
            "flag": pd.Series(n % 2 == 0, dtype=object).mask(rare),
            "constant": numbers.mask(n != 3, 1.0).mask(rare),
            "date": days,
            "date_rare": days.mask(rare),
            "date_often": days.mask(often),
            "day": pd.Series([pd.Timestamp("2024-01-30")] * 40).mask(often),
            "duration": hours,
            "duration_often": hours.mask(often),
            "town": towns,
            "town_rare": towns.mask(rare),
            "town_often": towns.mask(often),
            "name": pd.Series([f"row {i}" for i in n], dtype=object).mask(rare),
            "empty": pd.Series([None] * 40, dtype=object),
        }
    )


@pytest.mark.filterwarnings("ignore:Most values")
@pytest.mark.parametrize("gap_indicators", ["frequent", "all"])
def test_the_code_of_gaps_is_that_of_a_row_of_gaps(gap_indicators):
    X = columns_of_every_kind()
    encoder = TabularEncoder(gap_indicators=gap_indicators).fit(X)
    gaps = encoder.encode_gaps()
    row = pd.DataFrame({name: [None] for name in X}, dtype=object)
    np.testing.assert_array_equal(gaps, encoder.transform(row)[0], strict=True)
    for name in X:
        alone = TabularEncoder(gap_indicators=gap_indicators).fit(X[[name]])
        code = alone.encode_gaps()
        np.testing.assert_array_equal(code, alone.transform(row[[name]])[0], strict=True)
        # Where a cell is missing, its encoded columns are those of the code.
        is_missing, of_column = X[name].isna(), encoder.column_map_ == list(X).index(name)
        np.testing.assert_array_equal(gaps[of_column], code)
        encoded = encoder.transform(X)[is_missing][:, of_column]
        np.testing.assert_array_equal(encoded, np.tile(code, (len(encoded), 1)))
    with pytest.raises(NotFittedError):
        TabularEncoder().encode_gaps()
    as_frames = TabularEncoder(gap_indicators=gap_indicators).set_output(transform="pandas").fit(X)
    np.testing.assert_array_equal(as_frames.encode_gaps(), gaps, strict=True)


def test_all_columns_of_numbers_dates_and_durations_may_have_an_indicator():
    X = columns_of_every_kind()[["number", "number_often", "day", "duration", "town", "empty"]]
    names = ["number", "number_often", "duration"]
    levels = ["town_Bergen", "town_Oslo"]
    frequent = TabularEncoder().fit(X)
    assert frequent.get_feature_names_out().tolist() == [
        *names, "number_often_missing", "day_missing", *levels
    ]  # fmt: skip
    encoder = TabularEncoder(gap_indicators="all").fit(X)
    assert encoder.has_gaps_.tolist() == [True] * 4
    assert encoder.get_feature_names_out().tolist() == [
        *names, "number_missing", "number_often_missing", "day_missing", "duration_missing", *levels
    ]  # fmt: skip
    assert encoder.column_map_.tolist() == [0, 1, 3, 0, 1, 2, 3, 4, 4]
    assert encoder.report()["encoded_as"].tolist() == [
        *("number, missing", "number, missing", "missing", "duration, missing"),
        *("2 levels", "nothing"),
    ]
    encoded = encoder.transform(X)
    np.testing.assert_array_equal(encoded[:, :3], frequent.transform(X)[:, :3])
    np.testing.assert_array_equal(encoded[:, 3:7], X.isna().to_numpy()[:, :4])


@pytest.mark.parametrize("later", ["web", 7, datetime.date(2020, 1, 1), [1]], ids=repr)
def test_a_column_without_values_in_training_says_nothing_later(later):
    x = np.arange(10.0)
    for empty in (
        pd.Series([None] * 10, dtype=object),
        pd.Series([np.nan] * 10),
        pd.Series([pd.NaT] * 10),
        pd.Series([None] * 10, dtype="category"),
        pd.Series([None] * 10, dtype="boolean"),
        pl.Series([None] * 10),
        pl.Series([None] * 10, dtype=pl.String),
    ):
        frame = pl.DataFrame if isinstance(empty, pl.Series) else pd.DataFrame
        encoder = TabularEncoder().fit(frame({"x": x, "empty": empty}))
        assert encoder.kinds_.tolist() == ["number", "empty"]
        assert encoder.get_feature_names_out().tolist() == ["x"]
        encoded = encoder.transform(pd.DataFrame({"x": [4.5], "empty": [later]}))
        assert encoded.tolist() == [[0]]


def test_a_type_is_found_from_all_values():
    numbers = pd.Series([None] * 200 + [1.0, 2.0] * 50, dtype=object)
    encoder = TabularEncoder().fit(pd.DataFrame({"a": numbers}))
    assert encoder.kinds_.tolist() == ["number"]
    late = pd.Series([1.0, 2.0] * 200 + ["x"] * 5, dtype=object)
    assert TabularEncoder().fit(pd.DataFrame({"a": late})).known_levels_ == [["1", "2", "x"]]


def test_equal_values_are_one_level_whatever_the_rows_around_them():
    values = [True, 1, 1.0, np.True_, np.int8(1), np.float32(1), Decimal(1), "1"]
    rest = [False, 0, -0.0, np.False_, "0", "a"]
    encoder = TabularEncoder(min_frequency=1).fit(
        pd.DataFrame({"c": pd.Series(values + rest, dtype=object)})
    )
    assert encoder.known_levels_ == [["0", "1", "a"]]
    for level, equal in ((0, rest[:-1]), (1, values)):
        for value in equal:
            row = pd.DataFrame({"c": pd.Series([value], dtype=object)})
            assert encoder.transform(row)[0].argmax() == level


@pytest.mark.parametrize(
    "column",
    [
        pd.cut(pd.Series(range(20)), 2),
        pd.Series(pd.arrays.IntervalArray.from_breaks(range(3))).repeat(10),
        pd.Series(pd.Categorical([datetime.date(2024, 1, 1), datetime.date(2024, 1, 2)] * 10)),
        pd.Series(pd.Categorical(pd.to_datetime(["2024-01-01", "2024-01-02"] * 10))),
        pd.Series(pd.Categorical([1, 2] * 10)),
        pd.Series(["x", ("a", 1)] * 10),
        pd.Series([b"x", b"y"] * 10),
    ],
    ids=lambda column: str(column.iloc[0]),
)
def test_categories_are_levels_by_their_text(column):
    encoder = TabularEncoder().fit(column.to_frame("c"))
    assert encoder.kinds_.tolist() == ["category"]
    assert sorted(encoder.transform(column.to_frame("c")).sum(axis=0)) == [10, 10]


def test_dates_that_are_categories_have_one_name_in_every_container():
    days = [datetime.date(2024, 1, 1), datetime.date(2024, 1, 2)] * 5
    encoder = TabularEncoder(["c"]).fit(pd.DataFrame({"c": days}))
    expected = np.eye(2)[[0, 1] * 5]
    for values in (days, pd.to_datetime(days), [str(day) for day in days], np.array(days, "M8[s]")):
        np.testing.assert_array_equal(encoder.transform(pd.DataFrame({"c": values})), expected)
    np.testing.assert_array_equal(encoder.transform(pl.DataFrame({"c": days})), expected)


@pytest.mark.parametrize("kind", ["U", "S", "O", "T"])
def test_text_that_is_numbers_is_read_as_numbers_with_a_warning(kind):
    values = np.array([[1.5, -2e3], [0.0, np.nan], [3.0, 1e-3]])
    text = np.array([["1.5", "-2e3"], ["0", ""], [" 3. ", ".001"]])
    if kind == "T":
        text = text.astype(np.dtypes.StringDType())
    with pytest.warns(UserWarning, match=r"Columns \[0, 1\] hold text that is read as numbers"):
        encoder = TabularEncoder().fit(text.astype(kind))
    expected = TabularEncoder().fit_transform(values)
    np.testing.assert_array_equal(encoder.transform(text.astype(kind)), expected)
    np.testing.assert_array_equal(encoder.transform(values), expected)
    for gap in ("", "NA", "nan", " None ", "NULL", "n/a", "?"):
        np.testing.assert_array_equal(encoder.transform([[gap, gap]]), [[0, 0]])
    with pytest.raises(ValueError, match="Got 'abc' in column 1, but expected finite numbers"):
        encoder.transform([["1", "abc"]])


@pytest.mark.parametrize(
    "values",
    [["0150", "5007"], ["1", "x"], ["", "NA"], ["1e999", "1"], ["1_000", "2_000"], ["٣", "٤"]],
    ids=str,
)
def test_text_that_is_not_all_numbers_is_levels(values):
    encoder = TabularEncoder().fit(pd.DataFrame({"c": values * 5}))
    assert encoder.known_levels_ == [sorted(values)]


@pytest.mark.parametrize("values", [["2024-02-30", "2024-01-01"], ["2024", "x"], ["24-01-01"]])
def test_text_that_is_not_all_dates_is_levels(values):
    encoder = TabularEncoder().fit(pd.DataFrame({"c": values * 5}))
    assert encoder.known_levels_ == [sorted(values)]


def test_columns_whose_values_are_encoded_alike_are_named_in_a_warning():
    n_rows = 60
    X = pd.DataFrame(
        {
            "name": [f"row {i}" for i in range(n_rows)],
            "code": [f"{i:05}" for i in range(n_rows)],
            "town": ["Oslo", "Bergen"] * (n_rows // 2),
            "seldom": ["a"] * 5 + [None] * (n_rows - 5),
        }
    )
    message = r"Most values of the columns \['name', 'code'\] are encoded alike.* skrub"
    with pytest.warns(UserWarning, match=message) as caught:
        TabularEncoder().fit(X)
    assert len(caught) == 1


def test_the_report_says_what_became_of_each_column():
    days = pd.to_datetime(["2020-01-01", "2021-02-02"] * 10)
    X = pd.DataFrame(
        {
            "size": [1.0, 2.0, 3.0, np.nan] * 5,
            "when": days,
            "town": ["Oslo"] * 12 + ["Bergen"] * 5 + ["x", None, None],
            "empty": [None] * 20,
        }
    )
    encoder = TabularEncoder().fit(X)
    report = encoder.report()
    assert report.index.tolist() == list(X)
    assert report.columns.tolist() == ["kind", "encoded_as", "missing", "infrequent", "clipped"]
    assert report["kind"].tolist() == encoder.kinds_.tolist()
    assert report["encoded_as"].tolist() == [
        *("number, missing", "year, month, weekday, elapsed", "2 levels", "nothing")
    ]
    assert report["missing"].tolist() == [0.25, 0, 0.1, 1]
    assert report["infrequent"].tolist() == [0, 0, 0.05, 0]
    assert report["clipped"].tolist() == [0, 0, 0, 0]
    served = pd.DataFrame({"size": [9.0], "when": ["2030-01-01"], "town": ["Rome"], "empty": [1]})
    shares = encoder.report(served)[["missing", "infrequent", "clipped"]].to_numpy()
    np.testing.assert_array_equal(shares, [[0, 0, 1], [0, 0, 1], [0, 1, 0], [np.nan, 0, 0]])
    assert TabularEncoder().fit([[1.0], [2.0]]).report().index.tolist() == ["x0"]


@pytest.mark.parametrize("cell", [1e308, -1.7e308])
def test_a_cell_of_any_size_is_clipped(cell):
    X = np.random.default_rng(0).normal(size=(200, 2)) * 0.1
    X[0, 1] = cell
    X[1, 0] = -1.7e308
    X[2, 0] = 1.7e308
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        encoded = TabularEncoder().fit_transform(X)
    # Scaled numbers end at 1e150. Their tail is long, so that arsinh z = log 2z is bounded by 9.
    largest = np.float32(bounded(np.log(2e150), 9))
    assert encoded[0, 1] == np.sign(cell) * largest
    assert (encoded[1, 0], encoded[2, 0]) == (-largest, largest)
    assert np.abs(encoded[3:]).max() < 3


@pytest.mark.parametrize("kind", ["U", "S", "O"])
def test_arrays_of_strings_and_lists_of_mixed_columns(kind):
    X = np.array([["a"], ["b"], ["a"]]).astype(kind)
    encoder = TabularEncoder(min_frequency=1).fit(X)
    np.testing.assert_array_equal(encoder.transform(X), [[1, 0], [0, 1], [1, 0]])
    encoder.fit([[1.0, "a"], [2.0, "b"], [3.0, "a"]])
    assert encoder.is_categorical_.tolist() == [False, True]
    assert encoder.get_feature_names_out().tolist() == ["x0", "x1_a", "x1_b"]


def test_large_codes_truth_values_and_fractions_are_levels_if_listed():
    for values in ([2**60, 2**60 + 1, 2**60 + 2], [False, True]):
        encoder = TabularEncoder(["a"], min_frequency=1).fit(pd.DataFrame({"a": values}))
        assert encoder.get_feature_names_out().tolist() == [f"a_{int(value)}" for value in values]
    fractions = pd.DataFrame({"a": [0.1, 0.2, 0.3]})
    encoder = TabularEncoder(["a"], min_frequency=1).fit(fractions)
    np.testing.assert_array_equal(encoder.transform(fractions.astype(np.float32)), np.eye(3))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (pd.DataFrame({"a": [1.0, np.inf]}), "Got infinity in column 'a'"),
        (pd.DataFrame({"a": [object(), "b"]}), "Got <object .* in column 'a'"),
        (pd.DataFrame({"a": [1.0, 2.0], 0: [1.0, 2.0]}), "only supported if all"),
        (pd.DataFrame({"a": []}), "at least one row and column"),
        (np.array([[1.0, np.inf]]), "Got infinity in column 1"),
    ],
    ids=["infinity", "objects", "names", "no rows", "array"],
)
def test_a_failed_fit_leaves_the_encoder_as_it_was(wrong, message):
    encoder, X = TabularEncoder(), as_pandas(plain_columns())
    with pytest.raises((ValueError, TypeError), match=message):
        encoder.fit(wrong)
    with pytest.raises(NotFittedError):
        encoder.transform(X)
    expected = encoder.fit(X).transform(X)
    before = vars(encoder).copy()
    with pytest.raises((ValueError, TypeError), match=message):
        encoder.fit(wrong)
    assert vars(encoder).keys() == before.keys()
    assert all(vars(encoder)[name] is value for name, value in before.items())
    np.testing.assert_array_equal(encoder.transform(X), expected)


def test_a_refit_on_an_array_forgets_the_names():
    encoder = TabularEncoder().fit(as_pandas(plain_columns())).fit(np.eye(6)[:, :2])
    assert not hasattr(encoder, "feature_names_in_")
    assert encoder.get_feature_names_out().tolist() == ["x0", "x1"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"min_frequency": 0}, "Got min_frequency=0, but expected an integer >= 1"),
        ({"min_frequency": 1.5}, "Got min_frequency=1.5, but expected an integer >= 1"),
        ({"max_levels": None}, "Got max_levels=None, but expected an integer >= 1"),
        ({"clip": 0}, "Got clip=0, but expected a finite number > 0"),
        ({"clip": np.nan}, "Got clip=nan, but expected a finite number > 0"),
        ({"clip": np.inf}, "Got clip=inf, but expected a finite number > 0"),
        ({"rank_share": 2}, r"Got rank_share=2, but expected a number in \[0, 1\]"),
        ({"clip": "a"}, "Got clip='a', but expected a finite number > 0"),
        ({"gap_indicators": "some"}, r"Got gap_indicators='some', but expected one of \['freq"),
        ({"gap_indicators": None}, "Got gap_indicators=None, but expected one of"),
        ({"gap_indicators": ["all", "all"]}, r"Got gap_indicators=\['all', 'all'\], but expected"),
        ({"gap_indicators": np.array(["all"] * 2)}, r"Got gap_indicators=array\(.*, but expected"),
        ({"categorical_features": "ab"}, "Got categorical_features='ab', but expected 'from_dt"),
        ({"categorical_features": 5}, "Got categorical_features=5, but expected 'from_dtype'"),
        ({"categorical_features": ["c"]}, r"Got categorical_features=\['c'\], but expected"),
        ({"categorical_features": [2]}, r"Got categorical_features=\[2\], but expected"),
        ({"categorical_features": [True]}, r"mask of the columns \['a', 'b'\]"),
        ({"categorical_features": [[0]]}, r"Got categorical_features=\[\[0\]\], but expected"),
    ],
    ids=repr,
)
def test_wrong_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        TabularEncoder(**parameters).fit(pd.DataFrame({"a": [1, 2], "b": [3, 4]}))


@pytest.mark.filterwarnings("ignore:Most values")
def test_columns_that_yield_nothing_are_not_in_the_column_map():
    X = pd.DataFrame({"rare": list("abcd"), "size": [1.0, 2.0, 3.0, 4.0]})
    encoder = TabularEncoder().fit(X)
    assert encoder.column_map_.tolist() == [1]
    assert encoder.get_feature_names_out().tolist() == ["size"]
    alone = TabularEncoder().fit(X[["rare"]])
    assert alone.transform(X[["rare"]]).shape == (4, 0)
    assert alone.column_map_.shape == alone.get_feature_names_out().shape == (0,)
    assert alone.column_map_.dtype.kind == "i"


@pytest.mark.parametrize("seed", range(10))
def test_a_column_changes_the_columns_that_the_map_gives_it_and_no_others(seed):
    rng = np.random.default_rng(seed)
    columns = plain_columns(seed=seed)
    kept = rng.permutation(list(columns))[: rng.integers(1, len(columns) + 1)].tolist()
    X = as_pandas({name: columns[name] for name in kept})
    encoder = TabularEncoder(min_frequency=int(rng.integers(1, 20))).fit(X)
    encoded = encoder.transform(X)
    assert np.isfinite(encoded).all()
    assert np.abs(encoded).max() <= 3
    names = encoder.get_feature_names_out()
    assert len(set(names)) == len(encoder.column_map_) == encoded.shape[1]
    assert all(map(str.startswith, names, np.array(kept)[encoder.column_map_]))
    for position, name in enumerate(kept):
        permuted = X.assign(**{name: rng.permutation(X[name])})
        is_changed = (encoder.transform(permuted) != encoded).any(axis=0)
        is_mapped = encoder.column_map_ == position
        assert not is_changed[~is_mapped].any()
        assert is_changed[is_mapped].all() == (name != "constant")


def test_the_fitted_state_is_arrays_and_lists_of_strings():
    encoder = TabularEncoder().fit(as_pandas(plain_columns()))
    state = {name: value for name, value in vars(encoder).items() if name.endswith("_")}
    names = ("known_levels_", "other_levels_", "parts_", "rare_levels_")
    lists = [state.pop(name) for name in names]
    assert all(type(name) is str for columns in lists for names in columns for name in names)
    assert [type(share) for share in state.pop("level_shares_")] == [np.ndarray] * 2
    assert type(state.pop("n_features_in_")) is type(state.pop("n_samples_seen_")) is int
    assert {type(value) for value in state.values()} == {np.ndarray}


def test_encode_returns_arrays_and_does_not_check_names_again():
    X = as_pandas(plain_columns())
    encoder = TabularEncoder().set_output(transform="pandas").fit(X)
    expected = encoder.transform(X)
    # The method transform would warn.
    encoded = encoder.transform_checked(as_array_of_objects(plain_columns()))
    assert type(encoded) is np.ndarray
    np.testing.assert_array_equal(encoded, expected)


# ---- values and texts of other types


@pytest.mark.parametrize("gap", ["", "?", "NA", " n/a "])
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("number", [1.5, 2.5, 3.5]),
        ("number", [1, Decimal(2), True]),
        ("date", DAYS[:3]),
        ("duration", [datetime.timedelta(hours=i) for i in range(3)]),
    ],
)
@pytest.mark.filterwarnings("ignore:Columns .* hold text that is read as numbers")
def test_text_of_gaps_leaves_a_column_what_its_values_are(kind, values, gap):
    with_text = pd.DataFrame({"a": pd.Series([*values, gap] * 5, dtype=object)})
    encoder = TabularEncoder().fit(with_text)
    assert encoder.kinds_.tolist() == [kind]
    with_none = pd.DataFrame({"a": pd.Series([*values, None] * 5, dtype=object)})
    expected = TabularEncoder().fit_transform(with_none)
    np.testing.assert_array_equal(encoder.transform(with_text), expected)


@pytest.mark.parametrize("text", [["True", "False"], [" true", "FALSE "]])
def test_text_of_truth_values_is_read_as_numbers(text):
    with pytest.warns(UserWarning, match="hold text that is read as numbers"):
        encoder = TabularEncoder().fit(pd.DataFrame({"a": text * 5}))
    np.testing.assert_array_equal(
        encoder.transform(pd.DataFrame({"a": text})),
        encoder.transform(pd.DataFrame({"a": [True, False]})),
    )


def test_whole_numbers_beyond_double_precision_are_rounded_in_every_container():
    pa = pytest.importorskip("pyarrow")
    numbers = [10**17 + i for i in range(60)]
    encoder = TabularEncoder().fit(pd.DataFrame({"a": numbers}))
    expected = encoder.transform(pd.DataFrame({"a": numbers}))
    for frame in (
        pa.table({"a": numbers}),
        pd.DataFrame({"a": pd.array(numbers, dtype=pd.ArrowDtype(pa.int64()))}),
        pl.DataFrame({"a": numbers}),
    ):
        np.testing.assert_array_equal(encoder.transform(frame), expected)
        np.testing.assert_array_equal(TabularEncoder().fit_transform(frame), expected)


BERLIN = datetime.timezone(datetime.timedelta(hours=1))
NOON = datetime.datetime(2024, 1, 1, 12, tzinfo=datetime.UTC)


class Colour(str, enum.Enum):  # noqa: UP042 (its words for str() are others)
    RED = "red"


@pytest.mark.parametrize(
    ("one", "equal"),
    [
        ((1, 2), (1.0, np.int64(2))),
        (pd.Interval(0, 1), pd.Interval(0.0, 1.0)),
        (NOON, NOON.astimezone(BERLIN)),
        (pd.Timedelta("1D"), datetime.timedelta(1)),
        (np.timedelta64(24, "h"), datetime.timedelta(1)),
        (pd.Timestamp("2024-01-02 00:00:00.000000001"), np.datetime64("2024-01-02")),
        (Colour.RED, "red"),
        (frozenset(["a", "b", "c"]), frozenset(["c", "b", "a"])),
        (np.float32(0.1), 0.1),
        (np.float32(1234567.25), 1234567.25),
    ],
    ids=str,
)
def test_equal_values_of_other_types_are_one_level(one, equal):
    def rows(*values):
        column = np.empty((len(values), 1), dtype=object)
        column[:, 0] = values
        return column

    encoder = TabularEncoder([0], min_frequency=1).fit(rows(one, "other"))
    for first, second in ((one, equal), (equal, one)):
        assert encoder.transform(rows(first, second)).argmax(axis=1).std() == 0
        np.testing.assert_array_equal(
            encoder.transform(rows(second)), encoder.transform(rows(one, first))[:1]
        )


def test_unequal_fractions_are_levels_of_their_own():
    values = [12345678.5, 12345679.5, 1234567.25, 1234567.0, 0.12345671, 0.12345674]
    encoder = TabularEncoder(["a"], min_frequency=1).fit(pd.DataFrame({"a": values}))
    np.testing.assert_array_equal(
        encoder.transform(pd.DataFrame({"a": values})).sum(axis=0), np.ones(6)
    )


@pytest.mark.parametrize(
    "column",
    [
        np.array(["19990-01-01", "2020-01-01"], dtype="M8[D]"),
        np.array(["-1", "2020"], dtype="M8[Y]"),
        np.array([10**10, 1], dtype="m8[D]"),
        pytest.param(
            pl.Series([3 * 10**17, 0]).cast(pl.Datetime("us")),
            marks=pytest.mark.skipif(pl.__version__.startswith("1.0."), reason="polars panics"),
        ),
    ],
    ids=lambda column: str(column.dtype),
)
def test_dates_and_durations_that_python_can_not_hold_are_refused_by_column(column):
    for X in (
        (column[:, None], pd.DataFrame({"a": column}))
        if isinstance(column, np.ndarray)
        else (column.to_frame("a"),)
    ):
        with pytest.raises(ValueError, match=r"column ('a'|0)"):
            TabularEncoder().fit(X)


def test_times_finer_than_microseconds_are_cut_alike_in_every_container():
    nanoseconds = np.arange(1, 101) * 1337
    for kind in ("m8[ns]", "M8[ns]"):
        frame = pd.DataFrame({"a": nanoseconds.astype(kind)})
        encoder = TabularEncoder().fit(frame)
        expected = encoder.transform(frame)
        for other in (pl.from_pandas(frame), frame.astype(object)):
            np.testing.assert_array_equal(encoder.transform(other), expected)
        array = as_table(nanoseconds.astype(kind)[:, None])
        np.testing.assert_array_equal(encoder.transform_checked(array), expected)


def test_durations_beside_numbers_in_rows_of_lists():
    rows = [[np.timedelta64(i, "s"), i] for i in range(20)]
    assert TabularEncoder().fit(rows).kinds_.tolist() == ["duration", "number"]


@pytest.mark.parametrize("X", [[[1, 2], [3]], [[1, [2]], [3]]])
def test_rows_of_several_lengths_are_no_table(X):
    with pytest.raises(ValueError, match=r"Got X of type list that is no table"):
        TabularEncoder().fit(X)


def test_the_report_counts_levels_that_are_named_like_other_columns():
    labels = ["missing"] * 10 + ["infrequent"] * 10 + ["a", "b", "c", "d", "e"] + [None] * 5
    report = TabularEncoder().fit(pd.DataFrame({"a": labels})).report()
    assert report["encoded_as"].tolist() == ["2 levels, infrequent, missing"]


def test_a_row_of_many_levels_takes_memory_for_one_row():
    labels = [f"level {i}" for i in range(10_000)]
    encoder = TabularEncoder(min_frequency=1, max_levels=10_000).fit(pd.DataFrame({"a": labels}))
    tracemalloc.start()
    encoded = encoder.transform(pd.DataFrame({"a": labels[:1]}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert encoded.sum() == 1
    assert peak < 20e6  # 400 MB for a square matrix of indicators


def test_warnings_point_at_the_line_of_the_user():
    X = pd.DataFrame({"a": ["1", "2"] * 5, "b": [f"id {i}" for i in range(10)]})
    for call in (TabularEncoder().fit, TabularEncoder().fit_transform):
        with pytest.warns(UserWarning, match="read as numbers|encoded alike") as caught:
            call(X)
        assert [warning.filename for warning in caught] == [__file__] * 2


def test_the_whole_table_decides_what_columns_hold():
    whole = pd.DataFrame({"a": [1.0, 2.0] * 5 + ["x"], "b": [None] * 10 + [1.0]}, dtype=object)
    part = whole[:10]
    encoder = TabularEncoder(min_frequency=1)
    encoded = encoder.fit_transform(whole, rows=np.arange(10))
    assert encoder.kinds_.tolist() == ["category", "number"]
    np.testing.assert_array_equal(encoder.transform(part), encoded)
    assert encoder.transform(whole[10:]).tolist() == [[0, 0, 0.5, 0.5]]
    assert TabularEncoder().fit(part).kinds_.tolist() == ["number", "empty"]
