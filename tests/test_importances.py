"""Importances of the columns of a table."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectFromModel
from sklearn.preprocessing import FunctionTransformer, PolynomialFeatures

from sklearn_fordes import FoRDEClassifier, FoRDERegressor
from sklearn_fordes.inference import FittedEnsemble

RNG = np.random.default_rng(0)
CITY = RNG.choice(["Oslo", "Turku", "Bergen"], 300)
TABLE = pd.DataFrame(
    {"noise": RNG.normal(size=300), "city": CITY, "age": RNG.normal(size=300), "one": 1.0}
)
TABLE.loc[::7, "age"] = np.nan  # Of which the encoder makes a column of its own.
TARGET = TABLE["age"].fillna(0) + 2.0 * (CITY == "Oslo")
SIZES = {"hidden_layer_sizes": (16,), "max_epochs": 20, "lr": 1e-2, "random_state": 0}


@pytest.fixture(scope="module")
def fitted():
    return FoRDERegressor(3, early_stopping=False, **SIZES).fit(TABLE, TARGET)


def test_importances_are_shares_of_the_columns(fitted):
    members, mean = fitted.member_importances_, fitted.feature_importances_
    assert members.shape == (3, 4)
    np.testing.assert_allclose(members.sum(1), 1)
    np.testing.assert_allclose(mean, members.mean(0))
    assert mean[3] == 0  # A constant column moves nothing.
    assert (members >= 0).all()
    assert 2 * mean[0] < min(mean[1], mean[2])
    assert not np.array_equal(members[0], members[1])


@pytest.mark.parametrize("kind", [FoRDEClassifier, FoRDERegressor])
def test_importances_agree_with_gradients_by_hand(kind):
    y = TARGET > 1 if kind is FoRDEClassifier else TARGET
    model = kind(2, early_stopping=False, **SIZES).fit(TABLE, y)
    rows = TABLE.iloc[np.arange(256) * 300 // 256]
    encoded = model.encoder_.transform(rows).astype(np.float64)
    effects = model.input_gradients(rows) * encoded.std(axis=0)
    squares = np.zeros((2, 4))
    for column, effect in zip(model.encoder_.column_map_, effects.transpose(2, 0, 1), strict=True):
        squares[:, column] += (effect**2).mean(1)
    expected = np.sqrt(squares) / np.sqrt(squares).sum(1, keepdims=True)
    np.testing.assert_allclose(model.member_importances_, expected, rtol=1e-5)


def test_members_and_pickles_keep_their_importances(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.member_importances_, fitted.member_importances_)
    for index, member in enumerate(again.estimators_):
        assert member.member_importances_.shape == (1, 4)
        np.testing.assert_array_equal(
            member.feature_importances_, fitted.member_importances_[index]
        )


def test_nobody_changes_the_importances(fitted):
    before = fitted.feature_importances_
    fitted.member_importances_[:] = 0
    np.testing.assert_array_equal(fitted.feature_importances_, before)


@pytest.mark.parametrize("first", ["fit", "partial_fit"])
def test_importances_are_of_the_first_rows(first):
    model = getattr(FoRDERegressor(2, **SIZES), first)(TABLE, TARGET)
    before, predicted = model.member_importances_, model.predict(TABLE)
    for _ in range(2):
        model.partial_fit(TABLE[:1], TARGET[:1])
    np.testing.assert_array_equal(model.member_importances_, before)
    assert not np.array_equal(model.predict(TABLE), predicted)
    again = pickle.loads(pickle.dumps(model)).partial_fit(TABLE[:1], TARGET[:1])
    np.testing.assert_array_equal(again.member_importances_, before)


def test_a_refit_measures_its_own_rows(fitted):
    model = clone(fitted).fit(TABLE.assign(age=0.0), TARGET)
    assert model.feature_importances_[2] == 0
    model.fit(TABLE, TARGET)
    np.testing.assert_array_equal(model.member_importances_, fitted.member_importances_)


class FirstAndLast(TransformerMixin, BaseEstimator):
    """The last column twice, then the first."""

    def fit(self, X, y=None):
        if hasattr(self, "mapped"):
            self.column_map_ = self.mapped
        return self

    def transform(self, X):
        return X[:, [-1, -1, 0]]


def test_an_encoder_may_map_its_columns(binary):
    X, y = binary
    mapped = type("Mapped", (FirstAndLast,), {"mapped": [5, 5, 0]})()
    model = FoRDEClassifier(2, encoder=mapped, **SIZES).fit(X, y)
    assert (model.feature_importances_ > 0).tolist() == [True, False, False, False, False, True]


@pytest.mark.parametrize("encoder", [None, FunctionTransformer()])
def test_columns_that_agree_in_number_are_the_columns(binary, encoder):
    X, y = binary
    model = FoRDEClassifier(2, encoder=encoder, **SIZES).fit(X, y)
    assert model.feature_importances_.shape == (6,)
    selected = SelectFromModel(model, prefit=True, max_features=2, threshold=-np.inf).transform(X)
    best = np.sort(model.feature_importances_.argsort()[-2:])
    np.testing.assert_array_equal(selected, X[:, best])


class Rounded(torch.nn.Module):
    """A network whose output does not follow its input."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.linear = torch.nn.Linear(n_features, n_outputs)

    def forward(self, X):
        return self.linear(X.detach().round())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"encoder": FirstAndLast()}, r"the 3 encoded columns .* by the 6 columns of X"),
        ({"encoder": PolynomialFeatures()}, r"FoRDEClassifier has no .* the 28 encoded columns"),
        ({"module": Rounded, "repulsion": "none"}, r"there are no input gradients"),
    ],
)
def test_the_attributes_are_missing_where_columns_have_no_importances(binary, params, message):
    model = FoRDEClassifier(2, **SIZES, **params).fit(*binary)
    for name in ("feature_importances_", "member_importances_"):
        assert not hasattr(model, name)
        with pytest.raises(AttributeError, match=message):
            getattr(model, name)
    assert not hasattr(model.estimators_[0], "feature_importances_")


def test_a_module_that_raises_in_its_gradient_does_not_fail_the_fit(binary, monkeypatch):
    def fail(*arguments):
        raise TypeError("no such gradient")

    monkeypatch.setattr(FittedEnsemble, "column_effects", fail)
    model = FoRDEClassifier(2, **SIZES).fit(*binary)
    with pytest.raises(AttributeError, match=r"no input gradients: no such gradient"):
        model.feature_importances_  # noqa: B018


def test_columns_that_move_nothing_have_equal_shares():
    X = np.ones((60, 4))
    model = FoRDEClassifier(2, **SIZES).fit(X, [0, 1] * 30)
    np.testing.assert_array_equal(model.feature_importances_, np.full(4, 0.25))


def test_importances_need_a_fit():
    with pytest.raises(NotFittedError):
        FoRDEClassifier().feature_importances_  # noqa: B018
    assert not hasattr(FoRDEClassifier(), "feature_importances_")


def test_a_module_that_draws_when_it_is_evaluated_leaves_the_generators_alone(binary):
    class Noisy(torch.nn.Linear):
        def forward(self, X):
            return super().forward(X) + 0.1 * torch.randn(X.shape[0], 1)

    def make(n_features, n_outputs):
        return Noisy(n_features, n_outputs)

    before = torch.get_rng_state()
    models = [FoRDEClassifier(2, module=make, **SIZES).fit(*binary) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(*(model.member_importances_ for model in models))
