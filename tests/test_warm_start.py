"""Fits that begin with the members of the fit before."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from contracts import EstimatorContract, ForClassifier, ForRegressor
from sklearn_fordes import FoRDEClassifier


class Contract(EstimatorContract):
    def test_a_fit_goes_on_from_the_one_before(self, make, data):
        X, y = data
        model = make(warm_start=True, max_epochs=2).fit(X, y)
        first = self.predict(model, X)
        np.testing.assert_array_equal(first, self.predict(make(max_epochs=2).fit(X, y), X))
        encoder, weights = model.encoder_, model.fitted_.members.state_dict()
        before = {name: value.clone() for name, value in weights.items()}
        model.set_params(max_epochs=3, lr=1e-9, weight_decay=0, ema_decay=0).fit(X, y)
        assert (model.n_iter_, len(model.history_)) == (5, 5)
        assert model.encoder_ is encoder
        for name, value in model.fitted_.members.named_parameters():
            np.testing.assert_allclose(value.detach(), before[name], atol=1e-6)
        again = clone(model).fit(X, y)
        assert again.n_iter_ == 3

    def test_without_it_a_fit_begins_anew(self, make, data):
        X, y = data
        model = make().fit(X, y)
        expected = self.predict(model, X)
        np.testing.assert_array_equal(self.predict(model.fit(X, y), X), expected)
        assert model.n_iter_ == 3

    def test_other_rows_and_another_network_are_refused(self, make, data):
        X, y = data
        model = make(warm_start=True).fit(X, y)
        before = self.predict(model, X)
        with pytest.raises(ValueError, match=r"X has 3 features, but .* is expecting 4"):
            model.fit(X[:, :3], y)
        with pytest.raises(ValueError, match="that make another network"):
            model.set_params(hidden_layer_sizes=(5,)).fit(X, y)
        np.testing.assert_array_equal(self.predict(model, X), before)

    def test_each_warm_fit_has_its_own_checkpoint(self, make, data, tmp_path):
        X, y = data
        warm = make(warm_start=True)
        expected = self.predict(warm.fit(X, y).fit(X, y), X)
        model = make(warm_start=True, checkpoint_dir=tmp_path)
        for _ in range(2):
            twice = clone(model).fit(X, y).fit(X, y)
            np.testing.assert_array_equal(self.predict(twice, X), expected)
            assert len([*tmp_path.iterdir()]) == 2

    def test_a_fit_with_early_stopping_follows_epochs_without(self, make, data):
        model = make(warm_start=True, max_epochs=2).fit(*data).partial_fit(*data).fit(*data)
        assert model.n_iter_ == 5
        assert ["valid_loss" in epoch for epoch in model.history_] == [1, 1, 0, 1, 1]

    def test_importances_are_those_of_the_last_rows(self, make, data):
        X, y = data
        model = make(warm_start=True).fit(X, y)
        before = model.feature_importances_
        model.fit(X * [1, 1, 1, 0], y)
        assert model.feature_importances_[3] < 0.1 * before[3] + 1e-3

    @pytest.mark.parametrize("begins", ["partial_fit", "no early stopping"])
    def test_a_fit_before_need_not_have_validated(self, make, data, begins):
        X, y = data
        model = make(warm_start=True)
        if begins == "partial_fit":
            self.begin(model, X, y)
        else:
            model.set_params(early_stopping=False).fit(X, y).set_params(early_stopping=True)
        n_before = model.n_iter_
        model.fit(X, y)
        assert model.n_iter_ == n_before + 3
        assert ["valid_loss" in epoch for epoch in model.history_][n_before:] == [True] * 3


class TestClassifier(ForClassifier, Contract): ...


class TestRegressor(ForRegressor, Contract): ...


def test_labels_of_the_first_fit_are_those_of_all(small, multiclass):
    X, y = multiclass
    model = small(warm_start=True).fit(X, y)
    two = y < 2
    assert model.fit(X[two], y[two]).classes_.tolist() == [0, 1, 2]
    with pytest.raises(
        ValueError, match=r"Got labels \[9\] in y, but expected some of the classes"
    ):
        model.fit(X, np.where(y == 2, 9, y))


def test_a_frame_keeps_its_columns(small):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"size": rng.normal(size=80), "city": ["Oslo", "Turku"] * 40})
    y = X["size"] > 0
    model = FoRDEClassifier(3, max_epochs=2, warm_start=True, random_state=0).fit(X, y)
    model.fit(X.assign(city="Bergen"), y)
    assert model.feature_names_in_.tolist() == ["size", "city"]
    with pytest.raises(ValueError, match="feature names"):
        model.fit(X.rename(columns={"city": "town"}), y)
