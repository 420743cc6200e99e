"""Sparse tables, and what the tags promise: all that the encoder in use takes, and no more."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    StandardScaler,
)
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_fordes import FoRDEClassifier, FoRDERegressor
from sklearn_fordes.networks import MLP
from sklearn_fordes.particles import _memory
from sklearn_fordes.preprocessing import TabularEncoder
from test_contract import SHORT, expected_failures

FORMATS = ["csr_array", "csc_array", "coo_array", "lil_array", "csr_matrix"]
SETTINGS = {"n_members": 2, "hidden_layer_sizes": (8,), "max_epochs": 3, "random_state": 0}
SVD = TruncatedSVD(3, random_state=0)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 12)) * (rng.random((90, 12)) < 0.3)
    return X, (X[:, 0] > X[:, 1]).astype(int)


@pytest.mark.parametrize("kind", [FoRDEClassifier, FoRDERegressor])
@pytest.mark.parametrize("encoder", [MaxAbsScaler(), make_pipeline(SVD, MinMaxScaler())])
def test_sparse_rows_are_fitted_as_the_dense_ones_are(kind, encoder, data, monkeypatch):
    X, y = data
    weight = np.linspace(0.5, 1.5, len(y))
    predicted = []
    for convert in (np.asarray, scipy.sparse.csr_array):
        rows = convert(X)
        model = kind(encoder=encoder, **SETTINGS)
        model.fit(rows, y, weight, X_val=rows[:20], y_val=y[:20], X_repulsion=rows[:30])
        model.partial_fit(rows, y, sample_weight=weight)
        at_once = model.predict_uncertainty(rows).total
        with monkeypatch.context() as patch:
            patch.setattr("sklearn_fordes.inference._fitted._ROWS_ENCODED_AT_ONCE", 40)
            np.testing.assert_allclose(model.predict_uncertainty(rows).total, at_once, rtol=1e-4)
        predicted.append([model.predict(rows), at_once, model.input_gradients(rows)])
    for dense, sparse in zip(*predicted, strict=True):
        np.testing.assert_allclose(sparse, dense, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", FORMATS)
def test_every_sparse_format_is_taken(name, data):
    X, y = data
    model = FoRDEClassifier(encoder=MaxAbsScaler(), **SETTINGS).fit(
        getattr(scipy.sparse, name)(X), y
    )
    expected = FoRDEClassifier(encoder=MaxAbsScaler(), **SETTINGS).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), expected.predict_proba(X), atol=1e-6)
    assert model.n_features_in_ == 12


def test_wide_rows_are_made_dense_some_at_a_time(data, monkeypatch):
    rows, y = scipy.sparse.csr_array(data[0]), data[1]
    model = FoRDEClassifier(encoder=MaxAbsScaler(), **SETTINGS).fit(rows, y)
    expected, sizes = model.predict_proba(rows), []
    monkeypatch.setattr("sklearn_fordes.inference._fitted._NUMBERS_ENCODED_AT_ONCE", 12 * 25)

    def transform(self, X):
        sizes.append(X.shape)
        return MaxAbsScaler.transform(self, X)

    monkeypatch.setattr(model.encoder_, "transform", transform.__get__(model.encoder_))
    np.testing.assert_allclose(model.predict_proba(rows), expected, rtol=1e-5)
    assert sizes == [(25, 12), (25, 12), (25, 12), (15, 12)]


def test_sparse_rows_that_no_machine_holds_as_dense_ones_are_refused(data, monkeypatch):
    model = FoRDEClassifier(encoder=MaxAbsScaler(), **SETTINGS, early_stopping=False)
    n_bytes = 90 * 12 * 8
    monkeypatch.setattr(_memory, "memory_of", lambda device: n_bytes)
    model.fit(scipy.sparse.csr_array(data[0]), data[1])
    monkeypatch.setattr(_memory, "memory_of", lambda device: n_bytes - 1)
    expected = r"Got sparse rows of shape \(90, 12\) from the encoder, whose dense copies take 0 MB"
    with pytest.raises(ValueError, match=expected):
        model.fit(scipy.sparse.csr_array(data[0]), data[1])


def test_sparse_rows_after_a_frame(data):
    X, y = data
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(12)])
    model = FoRDEClassifier(encoder=MaxAbsScaler(), **SETTINGS).fit(frame, y)
    with pytest.warns(UserWarning, match="but FoRDEClassifier was fitted with feature names"):
        sparse = model.predict_proba(scipy.sparse.csr_array(X))
    np.testing.assert_allclose(sparse, model.predict_proba(frame), atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"encoder": TabularEncoder()},
        {"module": MLP},
        {"encoder": None},
        {"encoder": MinMaxScaler()},
    ],
)
def test_sparse_rows_are_refused_where_the_encoder_takes_none(settings, data):
    X, y = data
    model = FoRDEClassifier(**SETTINGS, **settings)
    assert not get_tags(model).input_tags.sparse
    for use in (model.fit, model.partial_fit):
        with pytest.raises(TypeError, match=r"Got a sparse X, but expected a dense array: call to"):
            use(scipy.sparse.csr_array(X), y, **({"classes": [0, 1]} if use != model.fit else {}))
    model.fit(X, y)
    with pytest.raises(TypeError, match="Got a sparse X"):
        model.predict(scipy.sparse.csr_array(X))


def test_what_is_taken_is_decided_in_fit(data):
    X, y = data
    sparse = scipy.sparse.csr_array(X)
    model = FoRDEClassifier(encoder=MaxAbsScaler(), **SETTINGS).fit(sparse, y)
    expected = model.predict_proba(sparse)
    np.testing.assert_array_equal(model.set_params(encoder="auto").predict_proba(sparse), expected)
    with pytest.raises(ValueError, match=r"Got X of shape \(90,\), but expected"):
        model.predict(scipy.sparse.coo_array(X[:, 0]))
    with pytest.raises(ValueError, match="0 sample"):
        model.predict(sparse[:0])
    with pytest.raises(ValueError, match="Complex data not supported"):
        model.predict(sparse.astype(complex))
    with pytest.raises(ValueError, match=r"has 11 features, but .* is expecting 12"):
        model.predict(sparse[:, :11])


def test_counts_of_words_in_a_pipeline():
    texts = np.array(["red green", "red", "blue green", "blue"] * 20)
    y = np.array(["warm", "warm", "cold", "cold"] * 20)
    settings = {**SETTINGS, "max_epochs": 40, "lr": 0.02}
    model = make_pipeline(CountVectorizer(), FoRDEClassifier(encoder=MaxAbsScaler(), **settings))
    assert (cross_val_predict(model, texts, y, cv=2) == y).all()


# ---- tags


class WithoutTags:
    """Has what scikit-learn's clone needs, and no more."""

    def fit_transform(self, X, y=None):
        return np.asarray(X)

    transform = fit_transform

    def get_params(self, deep=True):
        return {}


class Naming(TransformerMixin, BaseEstimator):
    """Takes text, and says so."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        return tags


ALL_BUT_SPARSE = {"allow_nan", "string", "categorical"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ALL_BUT_SPARSE),
        ({"encoder": TabularEncoder()}, ALL_BUT_SPARSE),
        ({"encoder": make_pipeline(TabularEncoder(), StandardScaler())}, ALL_BUT_SPARSE),
        ({"encoder": make_pipeline("passthrough", TabularEncoder())}, ALL_BUT_SPARSE),
        ({"module": MLP}, set()),
        ({"encoder": None}, set()),
        ({"encoder": MinMaxScaler()}, set()),
        ({"encoder": SimpleImputer()}, {"sparse"}),
        ({"encoder": MaxAbsScaler(), "module": MLP}, {"sparse"}),
        ({"encoder": make_pipeline(SVD, MaxAbsScaler())}, {"sparse"}),
        ({"encoder": make_pipeline("passthrough", make_pipeline(SVD))}, {"sparse"}),
        ({"encoder": make_pipeline(SVD, MinMaxScaler())}, set()),  # It works all the same.
        ({"encoder": make_pipeline(Naming(), StandardScaler())}, {"string"}),
        ({"encoder": WithoutTags()}, set()),
        ({"encoder": 5}, set()),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [FoRDEClassifier, FoRDERegressor])
def test_tags_say_what_the_encoder_takes(kind, settings, expected):
    tags = get_tags(kind(**settings)).input_tags
    assert {name for name in (*ALL_BUT_SPARSE, "sparse") if getattr(tags, name)} == expected


def test_an_encoder_without_tags_is_fitted(data):
    X, y = data
    assert FoRDEClassifier(encoder=WithoutTags(), **SETTINGS).fit(X, y).predict(X).shape == (90,)


@parametrize_with_checks(
    [
        kind(encoder=encoder, **SHORT)
        for kind in (FoRDEClassifier, FoRDERegressor)
        for encoder in (MaxAbsScaler(), make_pipeline(MaxAbsScaler(), StandardScaler()))
    ],
    expected_failed_checks=expected_failures,
)
def test_scikit_learns_checks_pass_with_an_encoder_of_ones_own(estimator, check):
    check(estimator)
