"""Frames of every kind, with columns of every kind, through the encoder and the estimators."""

import datetime
import pickle
from decimal import Decimal

import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler, TargetEncoder
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_fordes import FoRDEClassifier, FoRDERegressor
from sklearn_fordes.networks import MLP
from sklearn_fordes.tabular import TabularEncoder

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


NUMBERS = ["size", "count", "gaps", "flag", "constant", "again", "code"]
CATEGORIES = ["city", "grade"]


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


@pytest.fixture(scope="module")
def target():
    columns = plain_columns()
    return np.where(
        (np.array(columns["city"]) == "Oslo") ^ (np.array(columns["size"]) > 0), "y", "n"
    )


def make_model(**parameters):
    defaults = {"n_members": 2, "hidden_layer_sizes": (8,), "max_epochs": 3, "random_state": 0}
    return FoRDEClassifier(**{**defaults, **parameters})


@parametrize_with_checks([TabularEncoder()])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize("make", KINDS)
def test_every_kind_of_frame_is_encoded_alike(make):
    expected = TabularEncoder().fit(as_pandas(plain_columns()))
    encoder = TabularEncoder().fit(make(plain_columns()))
    other = plain_columns(seed=1)
    np.testing.assert_array_equal(
        encoder.transform(make(other)), expected.transform(as_pandas(other))
    )
    assert encoder.is_categorical_.tolist() == [name in CATEGORIES for name in other]


@pytest.mark.parametrize("make", KINDS)
def test_every_kind_of_frame_is_fitted_and_searched(make, target):
    X = make(plain_columns())
    model = make_model().fit(X, target)
    probabilities = model.predict_proba(X)
    assert model.n_features_in_ == 9
    np.testing.assert_array_equal(clone(model).fit(X, target).predict_proba(X), probabilities)
    restored = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(restored.predict_proba(X), probabilities)
    search = GridSearchCV(make_model(), {"n_members": [2, 3]}, cv=2, error_score="raise")
    if make is not as_lists:  # scikit-learn makes strings of such lists
        assert search.fit(X, target).predict(X).shape == (N_ROWS,)
    assert model.predict_uncertainty(X).total.shape == (N_ROWS,)
    assert model.input_gradients(X).shape[2] == len(model.encoder_.get_feature_names_out())


@pytest.mark.parametrize("make", [as_pandas, as_polars])
def test_a_regressor_and_rows_without_a_target(make):
    columns = plain_columns()
    X, y = make(columns), np.array(columns["size"]) * 3
    model = FoRDERegressor(2, hidden_layer_sizes=8, max_epochs=3, random_state=0)
    model.fit(X, y, X_val=X, y_val=y, X_repulsion=make(plain_columns(seed=1)))
    assert model.predict(X, return_std=True)[1].shape == (N_ROWS,)


def test_numbers_by_hand():
    values = [1.0, 2.0, 3.0, 4.0, 100.0, None]
    encoder = TabularEncoder(min_frequency=1).fit(pd.DataFrame({"a": values}))
    z = (np.array([*values[:5], 3.0]) - 3) / 2  # median 3, quartiles 2 and 4
    expected = z / np.sqrt(1 + (z / 3) ** 2)
    encoded = encoder.transform(pd.DataFrame({"a": values}))
    np.testing.assert_allclose(encoded[:, 0], expected, rtol=1e-6)
    assert encoded[:, 1].tolist() == [0, 0, 0, 0, 0, 1]
    assert encoder.get_feature_names_out().tolist() == ["a", "a_missing"]


def test_numbers_without_spread_in_the_middle_are_scaled_by_half_their_range():
    X = np.array([[0.0]] * 9 + [[10.0]])
    encoded = TabularEncoder(clip=1e9).fit_transform(X)
    np.testing.assert_allclose(encoded[:, 0], [0.0] * 9 + [2.0])


def test_constant_columns_say_nothing():
    encoder = TabularEncoder().fit(np.full((5, 2), [[1.0, np.nan]]))
    assert encoder.transform([[1e9, 5.0]]).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_numbers_of_any_size(scale):
    X = np.random.default_rng(0).normal(size=(50, 2)) * scale
    encoded = TabularEncoder().fit_transform(X)
    np.testing.assert_allclose(encoded, TabularEncoder().fit_transform(X / scale), rtol=1e-5)
    assert np.abs(TabularEncoder().fit(X / scale).transform(X)).max() <= 3


def test_numbers_beyond_the_training_range_are_taken_for_its_ends():
    encoder = TabularEncoder().fit([[1.0], [2.0], [3.0]])
    ends, beyond = encoder.transform([[1.0], [3.0]]), encoder.transform([[-1e300], [4.0]])
    np.testing.assert_array_equal(beyond, ends)


def test_numbers_of_two_values_are_not_embedded(target):
    X = as_pandas(plain_columns())
    model = make_model().fit(X, target)
    assert model.encoder_.continuous_.tolist() == [0, 1, 2, 5, 6]  # neither flag nor constant
    embedding = model.net_.module_.member(0).embedding
    assert embedding.features.tolist() == [0, 1, 2, 5, 6]
    plain = make_model(module__embedded_features=()).fit(X, target)
    assert plain.net_.module_.member(0).embedding is None


def test_levels_by_hand():
    train = pd.DataFrame({"c": ["a"] * 5 + ["b"] * 3 + ["x", "y"]})
    encoder = TabularEncoder(min_frequency=2).fit(train)
    assert encoder.get_feature_names_out().tolist() == ["c_a", "c_b", "c_infrequent"]
    rows = pd.DataFrame({"c": ["b", "x", "never seen", None]})
    expected = [[0, 1, 0], [0, 0, 1], [0, 0, 1], [0.5, 0.3, 0.2]]
    np.testing.assert_allclose(encoder.transform(rows), expected, rtol=1e-6)


def test_gaps_and_unseen_levels():
    train = pd.DataFrame({"c": ["a"] * 6 + ["b"] * 2 + [None] * 2})
    encoder = TabularEncoder(min_frequency=1).fit(train)
    assert encoder.get_feature_names_out().tolist() == ["c_a", "c_b", "c_missing"]
    encoded = encoder.transform(pd.DataFrame({"c": [None, "never seen"]}))
    np.testing.assert_allclose(encoded, [[0, 0, 1], [0.6, 0.2, 0.2]], rtol=1e-6)


def test_the_most_frequent_levels_are_kept():
    labels = [f"l{i:02}" for i in range(20) for _ in range(i + 1)]
    encoder = TabularEncoder(max_levels=3).fit(pd.DataFrame({"c": labels}))
    names = encoder.get_feature_names_out().tolist()
    assert names == ["c_l17", "c_l18", "c_l19", "c_infrequent"]


@pytest.mark.parametrize(
    "given",
    [
        ["code"],
        [8],
        [False] * 8 + [True],
        np.array(["code"]),
        np.arange(9) == 8,
        pd.Index(["code"]),
        pd.Series([8]),
        pl.Series([False] * 8 + [True]),
    ],
    ids=repr,
)
def test_codes_are_categories_if_said_so(given, target):
    X = as_pandas(plain_columns())
    encoder = TabularEncoder(given).fit(_without_strings(X))
    assert encoder.is_categorical_.tolist() == [False] * 8 + [True]
    assert encoder.get_feature_names_out()[-4:].tolist() == ["code_0", "code_1", "code_2", "code_3"]
    as_floats = _without_strings(X).astype({"code": float})
    np.testing.assert_array_equal(encoder.transform(as_floats)[:, -4:].argmax(1), X["code"])
    model = make_model(categorical_features=given).fit(_without_strings(X), target)
    assert model.encoder_.is_categorical_[8]


def _without_strings(X):
    return X.assign(city=X["city"].str.len(), grade=0)


def test_no_column_is_a_category_if_none_is_wanted(target):
    X = as_pandas(plain_columns())
    assert not TabularEncoder(None).fit(X[NUMBERS]).is_categorical_.any()
    with pytest.raises(ValueError, match="Got column 'city' of type String, but expected numbers"):
        TabularEncoder(None).fit(X)


def test_strings_and_numbers_of_one_level_are_one():
    train = pd.DataFrame({"c": pd.Series([1, "1", 1.0, "b", "b"], dtype=object)})
    encoder = TabularEncoder(min_frequency=1).fit(train)
    assert encoder.get_feature_names_out().tolist() == ["c_1", "c_b"]


@pytest.mark.parametrize(
    ("make", "gap"), [(as_pandas, None), (as_pandas, np.nan), (as_pandas_nullable, pd.NA)]
)
def test_columns_without_gaps_in_training_may_have_some_later(make, gap, target):
    model = make_model().fit(make(plain_columns()), target)
    X = make(plain_columns()).astype(object)
    X.iloc[::3, :] = gap
    assert np.isfinite(model.predict_proba(X)).all()
    at_center = model.encoder_.transform(X)[0, : len(model.encoder_.center_)]
    np.testing.assert_array_equal(at_center, 0)


def test_columns_are_told_by_name(target):
    X = as_pandas(plain_columns())
    model = make_model().fit(X, target)
    assert model.feature_names_in_.tolist() == list(X)
    with pytest.raises(ValueError, match="same order"):
        model.predict(X[list(X)[::-1]])
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(X.rename(columns={"city": "town"}))


def test_output_as_a_frame():
    X = as_pandas(plain_columns())
    frame = TabularEncoder().set_output(transform="pandas").fit_transform(X)
    assert list(frame)[:8] == [*NUMBERS, "gaps_missing"]
    assert list(frame)[8:] == [
        *("city_Bergen", "city_Oslo", "city_Turku"),
        *("grade_a", "grade_b", "grade_c", "grade_missing"),
    ]
    polars = (
        TabularEncoder().set_output(transform="polars").fit_transform(as_polars(plain_columns()))
    )
    np.testing.assert_array_equal(polars.to_numpy(), frame.to_numpy())


def test_preprocessing_of_ones_own(target):
    X = as_pandas(plain_columns())
    own = make_column_transformer(
        (StandardScaler(), ["size", "count"]), (OneHotEncoder(), ["city", "grade"])
    )
    before = make_pipeline(own, make_model(encoder=None)).fit(X, target)
    inside = make_model(encoder=own).fit(X, target, X_val=X, y_val=target)
    Z = own.fit_transform(X)
    expected = make_model(encoder=None).fit(Z, target, X_val=Z, y_val=target)
    np.testing.assert_allclose(inside.predict_proba(X), expected.predict_proba(Z))
    assert before.predict_proba(X).shape == (N_ROWS, 2)
    assert not hasattr(own, "transformers_") or inside.encoder_ is not own


def test_a_module_of_ones_own_takes_encoded_frames(target):
    X = as_polars(plain_columns())
    model = make_model(module=MLP, encoder=TabularEncoder()).fit(X, target)
    plain = make_model(module__dropout=0.0).fit(X, target)
    np.testing.assert_allclose(model.predict_proba(X), plain.predict_proba(X), atol=1e-5)
    with pytest.raises(ValueError, match="beside an encoder or a module of your own"):
        make_model(module=MLP, categorical_features=[0]).fit(np.ones((N_ROWS, 2)), target)


def test_weights_of_zero_leave_rows_of_a_frame_out(target):
    X = as_polars(plain_columns())
    weight = np.arange(N_ROWS) % 2
    left_out = make_model().fit(X, target, sample_weight=weight)
    alone = make_model().fit(X.filter(weight == 1), target[weight == 1])
    np.testing.assert_array_equal(left_out.predict_proba(X), alone.predict_proba(X))


def test_partial_fit_takes_frames_and_keeps_the_first_encoding(target):
    X = as_pandas(plain_columns())
    model = make_model().partial_fit(X[:80], target[:80], classes=["n", "y"])
    center = model.encoder_.center_
    model.partial_fit(X[80:].assign(city="Narvik"), target[80:])
    assert model.encoder_.center_ is center
    assert np.isfinite(model.predict_proba(X)).all()


@pytest.mark.parametrize("make", [as_pandas, as_polars, as_array_of_objects])
def test_predictions_encode_some_rows_at_a_time(make, target, monkeypatch):
    X = make(plain_columns())
    model = make_model().fit(X, target)
    at_once = model.predict_proba(X)
    sizes = []
    transform = TabularEncoder.transform
    monkeypatch.setattr("sklearn_fordes.estimators._prediction._ENCODED_AT_A_TIME", 50)
    monkeypatch.setattr(
        TabularEncoder, "transform", lambda self, X: sizes.append(len(X)) or transform(self, X)
    )
    np.testing.assert_allclose(model.predict_proba(X), at_once, atol=1e-6)
    assert sizes == [50, 50, 20]


def test_frames_without_rows_or_columns():
    for frame in (pd.DataFrame({"a": []}), pd.DataFrame(index=[0, 1]), pl.DataFrame({"a": []})):
        with pytest.raises(
            ValueError, match=r"Got a data frame of shape .*at least one row and col"
        ):
            TabularEncoder().fit(frame)


def test_validation_rows_go_through_a_pipeline(target):
    X = as_pandas(plain_columns())
    train, valid = slice(0, 80), slice(80, None)
    with sklearn.config_context(enable_metadata_routing=True):
        own = make_column_transformer(
            (StandardScaler().set_fit_request(sample_weight=False), ["size", "count"]),
            (OneHotEncoder(), ["city", "grade"]),
        )
        model = make_model().set_fit_request(X_val=True, y_val=True, sample_weight=True)
        pipeline = make_pipeline(own, model, transform_input=["X_val"])
        weight = np.linspace(0.5, 1.5, 80)
        validation = {"X_val": X[valid], "y_val": target[valid]}
        pipeline.fit(X[train], target[train], sample_weight=weight, **validation)
    Z = own.fit(X[train]).transform
    expected = make_model().fit(Z(X[train]), target[train], weight, Z(X[valid]), target[valid])
    np.testing.assert_array_equal(pipeline.predict_proba(X), expected.predict_proba(Z(X)))
    assert "valid_loss" in pipeline[-1].history_[0]


def test_levels_called_like_the_other_columns():
    train = pd.DataFrame({"c": ["missing"] * 6 + ["infrequent"] * 4 + [None] * 3 + ["q", "r"]})
    encoder = TabularEncoder(min_frequency=2).fit(train)
    names = ["c_infrequent", "c_missing", "c_infrequent_", "c_missing_"]
    assert encoder.get_feature_names_out().tolist() == names
    rows = pd.DataFrame({"c": ["infrequent", "missing", "q", "new", None]})
    expected = np.eye(4)[[0, 1, 2, 2, 3]]
    np.testing.assert_array_equal(encoder.transform(rows), expected)


def test_names_of_the_output_are_distinct():
    X = pd.DataFrame({"a": ["b", "b", "c"], "a_b": [1.0, 2, 3]})
    encoder = TabularEncoder(min_frequency=1).set_output(transform="polars").fit(X)
    assert encoder.get_feature_names_out().tolist() == ["a_b", "a_b_", "a_c"]
    assert encoder.transform(X).columns == ["a_b", "a_b_", "a_c"]


@pytest.mark.parametrize("n_rare", [1, 4, 5])
def test_what_few_rows_say_leaves_no_trace(n_rare):
    rare = [None] * n_rare
    X = pd.DataFrame({"a": [0.0] * 20 + rare, "b": ["x"] * 20 + rare})
    names = TabularEncoder().fit(X).get_feature_names_out().tolist()
    traces = ["a", "a_missing", "b_x", "b_missing"] if n_rare == 5 else ["a", "b_x"]
    assert names == traces
    levels = pd.DataFrame({"b": ["x"] * 20 + ["y"] * n_rare})
    assert ("b_y" in TabularEncoder().fit(levels).get_feature_names_out()) == (n_rare == 5)


def test_defaults():
    labels = [f"l{i:02}" for i in range(70) for _ in range(5)]
    columns = TabularEncoder().fit(pd.DataFrame({"c": labels})).levels_[0].columns
    assert columns == [*(f"l{i:02}" for i in range(64)), "infrequent"]


@pytest.mark.parametrize("make", [as_pandas, as_polars])
def test_narwhals_frames_are_told_by_name(make, target):
    X = make(plain_columns())
    wrapped = nw.from_native(X)
    encoder = TabularEncoder().fit(wrapped)
    np.testing.assert_array_equal(encoder.transform(wrapped), encoder.transform(X))
    with pytest.raises(ValueError, match="same order"):
        encoder.transform(wrapped.select("city", *[n for n in X.columns if n != "city"]))
    assert make_model().fit(wrapped, target).predict(wrapped).shape == (N_ROWS,)


def test_lazy_frames_are_to_be_collected():
    with pytest.raises(
        TypeError, match=r"Got a lazy LazyFrame, but expected a frame: call collect"
    ):
        TabularEncoder().fit(pl.LazyFrame({"a": [1, 2]}))


def test_a_long_label_costs_what_it_is_long():
    labels = ["a"] * 20_000 + ["b" * 100_000] * 5  # 8 GB if every label took as much
    encoder = TabularEncoder().fit(pd.DataFrame({"c": labels}))
    assert encoder.levels_[0].share.tolist() == [20_000 / 20_005, 5 / 20_005]


DATES = [datetime.date(2020, 1, 1 + i) for i in range(9)]


@pytest.mark.parametrize("given", ["from_dtype", None, ["when"]])
@pytest.mark.parametrize(
    "dates",
    [
        pd.Series(pd.to_datetime(DATES)),
        pd.Series(pd.to_timedelta(range(9))),
        pd.Series(DATES, dtype=object),
        pl.Series(DATES),
    ],
    ids=["timestamps", "durations", "objects", "polars"],
)
def test_dates_are_neither_numbers_nor_categories(dates, given):
    frame = pl.DataFrame if isinstance(dates, pl.Series) else pd.DataFrame
    with pytest.raises(ValueError, match=r"Got (a date in )?column 'when'|Got a date in column"):
        TabularEncoder(given).fit(frame({"when": dates}))


def test_dates_in_place_of_numbers():
    encoder = TabularEncoder().fit(pl.DataFrame({"a": range(9)}))
    for wrong in (DATES, ["x"] * 9, np.arange(9).astype("M8[D]")):
        with pytest.raises(ValueError, match=r"Got column 'a' of type"):
            encoder.transform(pl.DataFrame({"a": wrong}))
    with pytest.raises(ValueError, match=r"Got column 0 of type datetime64"):
        TabularEncoder().fit(np.arange(9).astype("M8[D]")[:, None])


def test_objects_that_are_numbers():
    X = pd.DataFrame({"a": [Decimal("1.5"), 2, None, 3.5]}, dtype=object)
    np.testing.assert_array_equal(
        TabularEncoder().fit_transform(X), TabularEncoder().fit_transform(X.astype(float))
    )
    with pytest.raises(ValueError, match=r"Got 1000.* in column 'a', but expected numbers"):
        TabularEncoder().fit(pd.DataFrame({"a": [10**400, 1]}, dtype=object))
    with pytest.raises(ValueError, match=r"Got values in column 'a' that can't be compared"):
        TabularEncoder().fit(pd.DataFrame({"a": [[1], [2]]}))


def test_lists_of_mixed_columns():
    rows = [[1.0, "a"], [2.0, "b"], [3.0, "a"]]
    encoder = TabularEncoder(min_frequency=1).fit(rows)
    assert encoder.is_categorical_.tolist() == [False, True]
    assert encoder.get_feature_names_out().tolist() == ["x0", "x1_a", "x1_b"]


def test_large_codes_and_fractions_are_levels():
    codes = [2**60, 2**60 + 1, 2**60 + 2]
    encoder = TabularEncoder(["a"], min_frequency=1).fit(pd.DataFrame({"a": codes}))
    assert encoder.get_feature_names_out().tolist() == [f"a_{code}" for code in codes]
    fractions = pd.DataFrame({"a": [0.1, 0.2, 0.3]})
    encoder = TabularEncoder(["a"], min_frequency=1).fit(fractions)
    np.testing.assert_array_equal(encoder.transform(fractions.astype(np.float32)), np.eye(3))


def test_numbers_too_small_to_scale_are_constant():
    X = np.array([[1e-310], [0.0], [2e-310]])
    np.testing.assert_array_equal(TabularEncoder().fit_transform(X), 0)


def test_a_failed_fit_leaves_the_encoder_as_it_was():
    X, wrong = as_pandas(plain_columns()), pd.DataFrame({"a": [1.0, np.inf]})
    encoder = TabularEncoder()
    with pytest.raises(ValueError, match="Got infinity in column 'a'"):
        encoder.fit(wrong)
    with pytest.raises(NotFittedError):
        encoder.transform(wrong)
    expected = encoder.fit(X).transform(X)
    with pytest.raises(ValueError, match="Got infinity in column 'a'"):
        encoder.fit(wrong)
    np.testing.assert_array_equal(encoder.transform(X), expected)


@pytest.mark.filterwarnings("ignore:.*TargetEncoder.*:FutureWarning")
def test_target_encoders_are_cross_fitted_on_the_training_rows(target):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"id": rng.integers(0, 60, N_ROWS).astype(str), "x": rng.normal(size=N_ROWS)})
    own = make_column_transformer((TargetEncoder(random_state=0), ["id"]), remainder="passthrough")
    settings = {"early_stopping": False, "module__dropout": 0.0}
    inside = make_model(encoder=own, module__embedded_features=(), **settings).fit(X, target)
    before = make_pipeline(clone(own), make_model(encoder=None, **settings)).fit(X, target)
    np.testing.assert_allclose(inside.predict_proba(X), before.predict_proba(X), atol=1e-6)


def test_an_encoder_whose_steps_hand_frames_on(target):
    X = as_pandas(plain_columns())
    first = ColumnTransformer(
        [("fill", SimpleImputer(), ["size", "gaps"]), ("rest", "passthrough", ["city"])],
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    second = make_column_transformer(
        (StandardScaler(), ["size", "gaps"]), (OneHotEncoder(), ["city"]), sparse_threshold=1.0
    )
    model = make_model(encoder=make_pipeline(first, second)).fit(X, target)
    with sklearn.config_context(transform_output="pandas"):
        again = make_model(encoder=TabularEncoder()).fit(X, target)
    assert np.isfinite(model.predict_proba(X)).all()
    assert np.isfinite(again.predict_proba(X)).all()


def test_an_encoder_that_returns_a_sparse_matrix(target):
    X = as_pandas(plain_columns())
    encoder = make_column_transformer((OneHotEncoder(), ["city", "grade"]), sparse_threshold=1.0)
    assert issparse(encoder.fit_transform(X))
    assert np.isfinite(make_model(encoder=encoder).fit(X, target).predict_proba(X)).all()


def test_an_encoder_that_leaves_gaps(target):
    X = as_pandas(plain_columns())
    with pytest.raises(ValueError, match="Got X with values that are missing, or too large"):
        make_model(encoder=make_column_transformer(("passthrough", ["gaps"]))).fit(X, target)


def test_names_that_are_missing_later_are_said_once(target):
    X = as_pandas(plain_columns())[["size", "gaps"]]
    model = make_model().fit(X, target)
    with pytest.warns(UserWarning, match="X does not have valid feature names") as record:
        model.predict(X.to_numpy())
    assert len(record) == 1


def test_rows_and_targets_of_unequal_number(target):
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        make_model().fit(as_pandas(plain_columns()), target[:-1])
