"""scikit-learn's own suite, and what both estimators promise beyond it, in both recipes."""

import copy
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from contracts import PAPER, EstimatorContract, ForClassifier, ForRegressor
from sklearn_fordes import FoRDEClassifier, FoRDERegressor, Repulsion
from sklearn_fordes.networks import MLP
from sklearn_fordes.preprocessing import TabularEncoder


def expected_failures(estimator):
    reason = (
        "Rows are shuffled into batches and held out at random, so repeating a row is not the same "
        "as weighing it. HistGradientBoostingClassifier shares this one."
    )
    check = "check_sample_weight_equivalence_on_{}_data"
    return {check.format(kind): reason for kind in ("dense", "sparse")}


SHORT = {"n_members": 3, "hidden_layer_sizes": (32,), "max_epochs": 60}


@parametrize_with_checks(
    [
        kind(**SHORT, **recipe)
        for kind in (FoRDEClassifier, FoRDERegressor)
        for recipe in ({}, PAPER)
    ],
    expected_failed_checks=expected_failures,
)
def test_scikit_learns_checks_pass(estimator, check):
    check(estimator)


class Contract(EstimatorContract):
    # ---- reproducibility

    def test_same_random_state_gives_bitwise_the_same_fit(self, make, data):
        X, y = data
        np.random.seed(1)
        torch.manual_seed(1)
        one = make(lengthscale="pca").fit(X, y)
        torch.rand(5)
        numpy_state, torch_state = np.random.get_state(), torch.get_rng_state()
        other = make(lengthscale="pca").fit(X, y)
        weights = other.fitted_.members.state_dict()
        for name, expected in one.fitted_.members.state_dict().items():
            assert torch.equal(weights[name], expected)
        np.testing.assert_array_equal(self.predict(one, X), self.predict(other, X))
        assert torch.equal(torch.get_rng_state(), torch_state)
        np.testing.assert_equal(np.random.get_state(), numpy_state)
        different = make(lengthscale="pca", random_state=5).fit(X, y)
        assert not np.array_equal(self.predict(one, X), self.predict(different, X))

    def test_fitting_again_starts_anew(self, make, data):
        model = make().fit(*data)
        first = self.predict(model, data[0])
        np.testing.assert_array_equal(self.predict(model.fit(*data), data[0]), first)

    def test_random_state_none_follows_numpys_seed_and_an_instance_advances(self, make, data):
        fits = []
        for seed in (0, 0, 1):
            np.random.seed(seed)
            fits.append(self.predict(make(random_state=None).fit(*data), data[0]))
        np.testing.assert_array_equal(fits[0], fits[1])
        assert not np.array_equal(fits[0], fits[2])
        model = make(random_state=np.random.RandomState(0))
        first = self.predict(model.fit(*data), data[0])
        assert not np.array_equal(self.predict(model.fit(*data), data[0]), first)

    def test_initial_weights_do_not_depend_on_the_number_of_members(self, make, data):
        # A learning rate too small to change a weight keeps the initial ones.
        still = {"lr": 1e-30, "weight_decay": 0.0, "max_epochs": 1}
        five, ten = (make(n_members=n, **still).fit(*data).fitted_.members for n in (5, 10))
        for name, weights in five.stacked.named_parameters():
            assert torch.equal(weights, ten.stacked.get_parameter(name)[:5])

    def test_unrepelled_members_do_not_depend_on_the_number_of_members(self, make, data):
        settings = {"repulsion": "none", "early_stopping": False, "module__dropout": 0.2}
        five, ten = (make(n_members=n, **settings).fit(*data).fitted_.members for n in (5, 10))
        for name, weights in five.stacked.named_parameters():
            assert torch.equal(weights, ten.stacked.get_parameter(name)[:5]), name

    # ---- parameters

    def test_clones_and_copies_have_the_same_parameters(self, make, data):
        model = make(
            module__dropout=0.1, optimizer__betas=(0.9, 0.9), repulsion=Repulsion.paper(period=2)
        )
        model.set_params(module__activation="relu", callbacks__early_stopping__patience=3)
        for copied in (clone(model), copy.deepcopy(model)):
            assert copied.get_params(deep=False) == model.get_params(deep=False)
            assert copied.repulsion is not model.repulsion
            assert copied.get_params()["repulsion__period"] == 2
        assert "module__activation='relu'" in repr(clone(model))
        fitted = make().fit(*data)
        np.testing.assert_array_equal(
            self.predict(copy.deepcopy(fitted), data[0]), self.predict(fitted, data[0])
        )

    def test_parameters_of_a_repulsion_are_parameters_of_the_estimator(self, make):
        model = make(repulsion=Repulsion("weight")).set_params(repulsion__fraction=0.5)
        assert model.repulsion == Repulsion("weight", fraction=0.5)
        both = model.set_params(repulsion=Repulsion(), repulsion__period=7)
        assert both.get_params()["repulsion__period"] == 7
        with pytest.raises(ValueError, match=r"Got repulsion__period with repulsion='weight', but"):
            make(repulsion="weight").set_params(repulsion__period=2)
        with pytest.raises(ValueError, match="Got parameter 'speed' of Repulsion, but expected"):
            model.set_params(repulsion__speed=1)

    def test_fit_changes_neither_parameters_nor_the_callers_arrays(self, make, data):
        X, y = (values.copy() for values in data)
        weight, extra = np.linspace(0.5, 2, len(y)), X[:9].copy()
        sizes, callbacks = [8], []
        model = make(hidden_layer_sizes=sizes, callbacks=callbacks, lengthscale=np.ones(4))
        model.set_params(encoder=None)
        before = model.get_params(deep=False)
        for array in (X, y, weight, extra):
            array.flags.writeable = False
        model.fit(X, y, weight, X_val=X[:20], y_val=y[:20], X_repulsion=extra)
        model.partial_fit(X, y, sample_weight=weight)
        self.predict(model, X)
        model.input_gradients(X)
        assert all(value is before[name] for name, value in model.get_params(deep=False).items())
        assert (sizes, callbacks) == ([8], [])
        np.testing.assert_array_equal(X, data[0])
        np.testing.assert_array_equal(y, data[1])

    def test_set_params_after_fit_changes_no_prediction(self, make, data):
        X, y = data
        model = make().fit(X, y)
        before = self.predict(model, X), model.input_gradients(X), self.predict_members(model, X)
        model.set_params(
            n_members=7, hidden_layer_sizes=(4,), encoder=None, module=MLP, lengthscale="pca",
            repulsion=Repulsion(target="log_prob"), device="cuda:99", module__dropout=0.5,
        )  # fmt: skip
        after = self.predict(model, X), model.input_gradients(X), self.predict_members(model, X)
        for expected, actual in zip(before, after, strict=True):
            np.testing.assert_array_equal(actual, expected)

    def test_the_html_representation_has_a_link_and_the_parameters(self, make, data):
        for model in (make(module__activation="relu"), make(module__activation="relu").fit(*data)):
            html = model._repr_html_()
            assert 'href="https://github.com/sklearn-fordes/sklearn-fordes/tree/main/docs' in html
            assert "module__activation" in html

    def test_an_unfitted_estimator_raises_that_it_is_not_fitted(self, make, data):
        for use in (self.predict_members, lambda model, X: model.net_, self.predict):
            with pytest.raises(sklearn.exceptions.NotFittedError):
                use(make(), data[0])

    # ---- predictions

    @pytest.mark.parametrize("rows", [1, 50])
    def test_predictions_do_not_depend_on_their_chunks(self, make, data, rows):
        X, y = data
        model = make(early_stopping=False).fit(X, y)
        in_chunks = make(early_stopping=False, iterator_valid__batch_size=rows).fit(X, y)
        likelihood = in_chunks.fitted_.likelihood
        sizes = [len(part) for part in in_chunks.fitted_.results(X, likelihood.predict)]
        assert max(sizes) == rows
        for use in (self.predict, self.predict_members, lambda m, X: m.predict_uncertainty(X)):
            expected = use(model, X)
            np.testing.assert_allclose(use(in_chunks, X), expected, rtol=1e-5, atol=1e-6)
            in_calls = [self.predict(model, X[i : i + rows]) for i in range(0, len(X), rows)]
        np.testing.assert_allclose(
            np.concatenate(in_calls), self.predict(model, X), rtol=1e-5, atol=1e-6
        )
        gradients = [m.input_gradients(X) for m in (in_chunks, model)]
        np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-5)

    def test_the_skorch_net_predicts_what_the_members_do(self, make, data):
        X, y = data
        model = make().fit(X, y)
        encoded = model.encoder_.transform(X).astype(np.float32)
        likelihood = model.fitted_.likelihood
        expected = np.concatenate([*model.fitted_.results(X, likelihood.predict)])
        np.testing.assert_allclose(model.net_.predict_proba(encoded), expected)

    def test_single_members_predict_as_they_do_in_the_ensemble_and_train_on(self, make, data):
        X, y = data
        model = make().fit(X, y)
        before = self.predict_members(model, X)
        members = model.estimators_
        for member, expected in zip(members, before, strict=True):
            np.testing.assert_allclose(self.predict_members(member, X)[0], expected, rtol=1e-5)
        assert members[2].get_params(deep=False) == {
            **model.get_params(deep=False),
            "n_members": 1,
        }
        members[2].partial_fit(X, y)
        assert np.abs(self.predict_members(members[2], X)[0] - before[2]).max() > 1e-4
        np.testing.assert_array_equal(self.predict_members(model, X), before)

    def test_large_offsets_keep_their_precision(self, make, data):
        X, y = data
        plain = self.predict(make().fit(X, y), X)
        shifted = self.predict(make().fit(X + 1.7e9, y), X + 1.7e9)  # seconds since 1970, say
        np.testing.assert_allclose(shifted, plain, rtol=1e-3, atol=1e-3)

    def test_a_module_of_the_user_is_evaluated_at_the_rows_as_they_are(self, make, data):
        X, y = data
        seen = []

        class Spy(MLP):
            def forward(self, X):
                with suppress(RuntimeError):  # Values can't be read where gradients are taken.
                    seen.append(X.tolist())
                return super().forward(X)

        make(module=Spy, repulsion="none", early_stopping=False).fit(X, y)
        rows = {tuple(row) for row in X.astype(np.float32).tolist()}
        assert len(seen) > 6
        assert all(tuple(row) in rows for batch in seen for row in batch)
        assert isinstance(make().fit(X, y).encoder_, TabularEncoder)

    # ---- weights

    def test_rows_of_weight_zero_are_as_if_left_out(self, make, data):
        X, y = data
        weight = (np.arange(len(y)) % 5 > 0).astype(float)
        weighted = make().fit(X, y, sample_weight=weight)
        reduced = make().fit(X[weight > 0], y[weight > 0])
        np.testing.assert_array_equal(self.predict(weighted, X), self.predict(reduced, X))

    def test_only_ratios_of_weights_matter(self, make, data):
        X, y = data
        weight = 1.0 + (X[:, 0] > 0)
        expected = self.predict(make().fit(X, y, sample_weight=weight), X)
        for factor in (1e-200, 1e300):
            scaled = make().fit(X, y, sample_weight=factor * weight)
            np.testing.assert_allclose(self.predict(scaled, X), expected, rtol=1e-5, atol=1e-6)
        plain = self.predict(make().fit(X, y), X)
        assert np.abs(expected - plain).max() > 1e-3

    def test_integer_weights_equal_repeated_rows(self, make, data):
        """Exactly so where batches don't matter: in full batches, without repulsion."""
        X, y = data
        weight = np.random.default_rng(0).integers(0, 4, len(y))
        # No encoder, for its quantiles know no weights.
        settings = {"repulsion": "none", "batch_size": 10_000, "early_stopping": False}
        settings |= {"encoder": None, "max_epochs": 10, "module__dropout": 0.0}
        weighted = make(**settings).fit(X, y, sample_weight=weight)
        repeated = make(**settings).fit(X.repeat(weight, 0), y.repeat(weight))
        expected = self.predict(repeated, X)
        np.testing.assert_allclose(self.predict(weighted, X), expected, rtol=1e-4, atol=1e-4)
        assert np.abs(expected - self.predict(make(**settings).fit(X, y), X)).max() > 1e-3

    # ---- tables

    def test_flipped_arrays(self, make, data):
        X, y = data
        model = make(encoder=None).fit(X[::-1], y[::-1])
        expected = make(encoder=None).fit(X[::-1].copy(), y[::-1].copy())
        np.testing.assert_array_equal(self.predict(model, X), self.predict(expected, X))

    # ---- subclasses

    def test_a_subclass_may_have_parameters_of_its_own(self, make, data):
        class Shifted(self.kind):
            def __init__(self, n_members=2, *, shift=0.0, lengthscale=1.0):
                super().__init__(n_members, lengthscale=lengthscale, max_epochs=1)
                self.shift = shift

        model = Shifted(shift=2.0).fit(*data)
        assert clone(model).get_params() == {"n_members": 2, "shift": 2.0, "lengthscale": 1.0}
        assert model.partial_fit(*data).n_iter_ == 2

    def test_a_subclass_may_learn_more(self, make, data):
        class Centred(self.kind):
            def fit(self, X, y):
                self.centre_ = X.mean(axis=0)
                return super().fit(X - self.centre_, y)

        model = Centred(2, max_epochs=1).fit(*data)
        np.testing.assert_array_equal(model.centre_, data[0].mean(axis=0))


class TestClassifier(ForClassifier, Contract): ...


class TestRegressor(ForRegressor, Contract): ...


def test_a_module_gets_sizes_only_where_it_takes_them(small, binary):
    def takes_one(n_outputs, width=4):
        return MLP(6, n_outputs, hidden_layer_sizes=(width,))

    model = small(module=takes_one, module__width=5).fit(*binary)
    assert model.fitted_.members.stacked.get_parameter("0.weight").shape == (3, 5, 6)


def test_importing_the_estimators_does_not_import_torch():
    code = (
        "import sys; from sklearn_fordes import FoRDEClassifier; FoRDEClassifier().get_params();"
        "assert not {'torch', 'skorch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
