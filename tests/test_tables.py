"""The estimators on tables of every container and column type."""

import pickle
from unittest.mock import create_autospec

import narwhals as nw
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler, TargetEncoder

from frames import (
    CODE_LISTED,
    KINDS,
    N_ROWS,
    as_array_of_objects,
    as_lists,
    as_pandas,
    as_pandas_nullable,
    as_polars,
    plain_columns,
    without_strings,
)
from sklearn_fordes import FoRDEClassifier, FoRDERegressor
from sklearn_fordes.networks import MLP, PeriodicEmbedding
from sklearn_fordes.preprocessing import TabularEncoder


@pytest.fixture(scope="module")
def target():
    X = as_pandas(plain_columns())
    return np.where((X["city"] == "Oslo") ^ (X["size"] > 0), "y", "n")


def make_model(**parameters):
    defaults = {"n_members": 2, "hidden_layer_sizes": (8,), "max_epochs": 3, "random_state": 0}
    return FoRDEClassifier(**{**defaults, **parameters})


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


@pytest.mark.parametrize("given", CODE_LISTED, ids=repr)
def test_listed_columns_are_categories(given, target):
    X = without_strings(as_pandas(plain_columns()))
    encoder = make_model(categorical_features=given).fit(X, target).encoder_
    assert encoder.is_categorical_.tolist() == [False] * 8 + [True]
    assert encoder.get_feature_names_out()[-4:].tolist() == ["code_0", "code_1", "code_2", "code_3"]
    as_floats = X.astype({"code": float})
    np.testing.assert_array_equal(encoder.transform(as_floats)[:, -4:].argmax(1), X["code"])


@pytest.mark.parametrize("wrap", [lambda X: X, nw.from_native], ids=["native", "narwhals"])
@pytest.mark.parametrize("make", [as_pandas, as_polars])
def test_a_regressor_and_rows_without_a_target(make, wrap):
    columns = plain_columns()
    X, y = wrap(make(columns)), np.array(columns["size"]) * 3
    model = FoRDERegressor(2, hidden_layer_sizes=8, max_epochs=3, random_state=0)
    model.fit(X, y, X_val=X, y_val=y, X_repulsion=wrap(make(plain_columns(seed=1))))
    assert model.predict(X, return_std=True)[1].shape == (N_ROWS,)


def test_numbers_of_two_values_are_not_embedded(target):
    X = as_pandas(plain_columns())
    model = make_model().fit(X, target)
    assert model.encoder_.continuous_.tolist() == [0, 1, 2, 5, 6]  # neither flag nor constant
    embedding = model.fitted_.members.member(0)[0]
    assert embedding.features.tolist() == [0, 1, 2, 5, 6]
    plain = make_model(module__embedded_features=()).fit(X, target)
    assert not isinstance(plain.fitted_.members.member(0)[0], PeriodicEmbedding)


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


def test_an_encoder_of_the_user(target):
    X = as_pandas(plain_columns())
    own = make_column_transformer(
        (StandardScaler(), ["size", "count"]), (OneHotEncoder(), ["city", "grade"])
    )
    inside = make_model(encoder=own).fit(X, target, X_val=X, y_val=target)
    Z = own.fit_transform(X)
    expected = make_model(encoder=None).fit(Z, target, X_val=Z, y_val=target)
    np.testing.assert_allclose(inside.predict_proba(X), expected.predict_proba(Z))
    assert inside.encoder_ is not own


def test_a_module_of_the_user_gets_encoded_frames(target):
    X = as_polars(plain_columns())
    own = TabularEncoder(gap_indicators="all")  # as the default one of a classifier
    model = make_model(module=MLP, encoder=own).fit(X, target)
    of_class = {"module__n_frequencies": 16, "module__frequency_scale": 0.3}
    plain = make_model(module__dropout=0.0, **of_class).fit(X, target)
    np.testing.assert_allclose(model.predict_proba(X), plain.predict_proba(X), atol=1e-5)
    with pytest.raises(ValueError, match="with an encoder or a module of your own"):
        make_model(module=MLP, categorical_features=[0]).fit(np.ones((N_ROWS, 2)), target)


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
    encode = create_autospec(
        TabularEncoder.transform_checked, side_effect=TabularEncoder.transform_checked
    )
    monkeypatch.setattr("sklearn_fordes.inference._fitted._ROWS_ENCODED_AT_ONCE", 50)
    monkeypatch.setattr(TabularEncoder, "transform_checked", encode)
    np.testing.assert_allclose(model.predict_proba(X), at_once, atol=1e-6)
    assert [len(call.args[1]) for call in encode.call_args_list] == [50, 50, 20]


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


@pytest.mark.filterwarnings("ignore:.*TargetEncoder.*:FutureWarning")
def test_target_encoders_are_cross_fitted_on_the_training_rows(target):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"id": rng.integers(0, 60, N_ROWS).astype(str), "x": rng.normal(size=N_ROWS)})
    own = make_column_transformer((TargetEncoder(random_state=0), ["id"]), remainder="passthrough")
    settings = {"early_stopping": False, "module__dropout": 0.0}
    inside = make_model(encoder=own, module__embedded_features=(), **settings).fit(X, target)
    before = make_pipeline(clone(own), make_model(encoder=None, **settings)).fit(X, target)
    np.testing.assert_allclose(inside.predict_proba(X), before.predict_proba(X), atol=1e-6)


def test_an_encoder_with_steps_that_return_frames(target):
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


def test_an_encoder_that_keeps_missing_values(target):
    X = as_pandas(plain_columns())
    with pytest.raises(ValueError, match="Got X that contains NaN or infinity, or is too large"):
        make_model(encoder=make_column_transformer(("passthrough", ["gaps"]))).fit(X, target)


class OwnTabularEncoder(TabularEncoder):
    def fit_transform(self, X, y=None):
        return super().fit_transform(X, y)


def test_an_encoder_that_takes_no_whole_table_is_fitted_on_the_training_rows(target):
    X = as_pandas(plain_columns())
    own = make_model(encoder=OwnTabularEncoder(gap_indicators="all")).fit(X, target)
    expected = make_model().fit(X, target)
    np.testing.assert_array_equal(own.predict_proba(X), expected.predict_proba(X))


@pytest.mark.parametrize("seed", range(5))
def test_a_value_in_a_held_out_row_decides_with_the_others_what_a_column_holds(target, seed):
    X = pd.DataFrame({"a": pd.Series([1.0, 2.0] * (N_ROWS // 2), dtype=object)})
    X["b"] = np.arange(N_ROWS)
    held_out_sometimes = X.copy()
    held_out_sometimes.loc[60, "a"] = "x"
    model = make_model(random_state=seed).fit(held_out_sometimes, target)
    assert model.encoder_.kinds_.tolist() == ["category", "number"]
    assert np.isfinite(model.predict_proba(held_out_sometimes)).all()
