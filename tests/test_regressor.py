"""The regressor's own contract; what it shares with the classifier is tested there."""

import pickle
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from sklearn_fordes import FoRDERegressor
from sklearn_fordes.estimators._base import Table
from sklearn_fordes.networks import MLP
from sklearn_fordes.training._outputs import EnsembleGaussianLoss


def expected_failures(estimator):
    return {
        "check_sample_weight_equivalence_on_dense_data": (
            "Rows are shuffled into batches and held out at random, so repeating a row is not the "
            "same as weighing it."
        )
    }


@parametrize_with_checks([FoRDERegressor()], expected_failed_checks=expected_failures)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def waves():
    rng = np.random.default_rng(0)
    X = rng.uniform(-3, 3, size=(500, 2))
    return X, 50 + 10 * np.sin(X[:, 0]) + (1 + 2 * (X[:, 1] > 0)) * rng.normal(size=500)


def make_model(**parameters):
    defaults = {"n_members": 4, "max_epochs": 60, "lr": 5e-3, "batch_size": 64}
    return FoRDERegressor(**{**defaults, "random_state": 0, **parameters})


def test_mean_and_noise_are_found(waves):
    X, y = waves
    model = make_model().fit(X, y)
    mean, _ = model.predict(X, return_std=True)
    assert model.score(X, y) > 0.9
    np.testing.assert_allclose(mean, 50 + 10 * np.sin(X[:, 0]), atol=3)
    noise = np.sqrt(model.predict_uncertainty(X).aleatoric)
    assert np.median(noise[X[:, 1] < 0]) == pytest.approx(1, rel=0.4)
    assert np.median(noise[X[:, 1] > 0]) == pytest.approx(3, rel=0.4)


def test_one_noise_level(waves):
    X, y = waves
    model = make_model(noise="homoscedastic", max_epochs=200).fit(X, y)
    noise = np.sqrt(model.predict_uncertainty(X).aleatoric)
    assert noise.max() == pytest.approx(noise.min(), rel=1e-6)
    assert noise[0] == pytest.approx(np.sqrt((1 + 9) / 2), rel=0.25)
    raw = [p for name, p in model.net_.module_.named_parameters() if "raw_variance" in name]
    assert raw[0].shape == (4, 1)  # each member's own


def test_members_and_their_mean(waves):
    X, y = waves
    model = make_model(max_epochs=2).fit(X, y)
    members = model.predict_members(X)
    assert members.shape == (4, len(X))
    np.testing.assert_allclose(members.mean(0), model.predict(X))
    singles = np.array([member.predict(X) for member in model.estimators_])
    np.testing.assert_allclose(singles, members, rtol=1e-6)
    np.testing.assert_allclose(model.net_.predict(X.astype("float32")).shape, (len(X),))


@pytest.mark.parametrize("n_rows", [2, 4, 5, 101])
def test_held_out_rows_are_not_trained_on(n_rows):
    table = Table(np.arange(n_rows)[:, None], np.arange(n_rows), np.ones(n_rows))
    trained_on, held_out = make_model()._hold_out(table, seed=0)
    n_valid = n_rows // 5
    assert (0 if held_out is None else len(held_out.y)) == n_valid
    rows = [*trained_on.y, *([] if held_out is None else held_out.y)]
    assert sorted(rows) == list(range(n_rows))


def test_members_can_be_trained_further(waves):
    X, y = waves
    model = make_model(max_epochs=3).fit(X, y)
    member = model.estimators_[2]
    assert member.get_params() == {**model.get_params(), "n_members": 1}
    before = model.predict_members(X)
    np.testing.assert_allclose(member.predict(X), before[2], rtol=1e-6)
    member.partial_fit(X, y)
    assert np.abs(member.predict(X) - before[2]).max() > 1e-3
    np.testing.assert_array_equal(model.predict_members(X), before)


def test_a_failed_partial_fit_does_not_move_the_generator(waves):
    X, y = waves
    one, other = (make_model().partial_fit(X, y) for _ in range(2))
    with pytest.raises(ValueError, match="not finite"):
        one.set_params(lr=1e30).partial_fit(X, y)
    one.set_params(lr=5e-3)
    predictions = [model.partial_fit(X, y).predict(X) for model in (one, other)]
    np.testing.assert_array_equal(*predictions)


def test_validation_loss_is_the_mixtures_density(waves):
    X, y = waves
    model = make_model(max_epochs=1).fit(X, y, X_val=X[:50], y_val=y[:50])
    uncertainty = [m.predict(X[:50], return_std=True) for m in model.estimators_]
    density = np.mean([norm(mean, std).pdf(y[:50]) for mean, std in uncertainty], axis=0)
    expected = -np.log(density * model.target_scale_).mean()
    assert model.history_[0]["valid_loss"] == pytest.approx(expected, rel=1e-4)


def test_validation_loss_weighs_rows():
    outputs, y = torch.randn(6, 3, 2), torch.randn(6)
    weight = torch.tensor([1.0, 0, 0, 2, 0, 3])
    loss = EnsembleGaussianLoss()
    rows = torch.stack([loss(outputs[i : i + 1], y[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(loss(outputs, y, weight), (weight * rows).mean())


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_of_the_target_do_not_matter(waves, scale):
    X, y = waves
    one, other = (make_model(max_epochs=3).fit(X, factor * y) for factor in (1, scale))
    np.testing.assert_allclose(other.predict(X), scale * one.predict(X), rtol=1e-3)
    std = [model.predict(X, return_std=True)[1] for model in (one, other)]
    np.testing.assert_allclose(std[1], scale * std[0], rtol=1e-3)


def test_constant_and_integer_targets(waves):
    X, _ = waves
    constant = make_model(max_epochs=3).fit(X, np.full(len(X), 7.0))
    np.testing.assert_allclose(constant.predict(X), 7, atol=1)
    assert make_model(max_epochs=1).fit(X, np.arange(len(X))).predict(X).dtype == np.float64


@pytest.mark.parametrize("module", [MLP, "instance", "function"])
@pytest.mark.parametrize("noise", ["heteroscedastic", "homoscedastic"])
def test_modules_of_ones_own(waves, module, noise):
    X, y = waves
    n_outputs = 2 if noise == "heteroscedastic" else 1
    if module == "instance":
        module = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, n_outputs))
    elif module == "function":
        module = partial(nn.Linear, 2, n_outputs)
    model = make_model(module=module, noise=noise, max_epochs=3).fit(X, y)
    mean, std = model.predict(X, return_std=True)
    assert np.isfinite(mean).all()
    assert (std > 0).all()
    restored = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(restored.predict(X), mean)


def test_a_module_with_another_number_of_outputs(waves):
    with pytest.raises(ValueError, match=r"expected \(2, 2\).*with a mean and what softplus"):
        make_model(module=nn.Linear(2, 3)).fit(*waves)
    with pytest.raises(ValueError, match=r"Got output of shape \(2, 3\).* expected \(2, 1\)"):
        make_model(module=nn.Linear(2, 3), noise="homoscedastic").fit(*waves)


def test_weights(waves):
    X, y = waves
    weight = (X[:, 0] > 0).astype(float)
    left_out = make_model(max_epochs=2).fit(X, y, sample_weight=weight)
    alone = make_model(max_epochs=2).fit(X[weight > 0], y[weight > 0])
    np.testing.assert_array_equal(left_out.predict(X), alone.predict(X))
    scaled = make_model(max_epochs=2).fit(X, y, sample_weight=np.full(len(X), 1e6))
    unweighted = make_model(max_epochs=2).fit(X, y)
    np.testing.assert_allclose(scaled.predict(X), unweighted.predict(X), rtol=1e-5)
    weight = np.linspace(0.1, 3, len(X))
    model = make_model(max_epochs=1).fit(X, y, sample_weight=weight)
    mean = np.average(y, weights=weight)
    assert model.target_mean_ == pytest.approx(mean)
    assert model.target_scale_**2 == pytest.approx(np.average((y - mean) ** 2, weights=weight))
    with pytest.raises(ValueError, match=r"at least one non-zero|zero for every row"):
        make_model().fit(X, y, sample_weight=np.zeros(len(X)))


def test_partial_fit_goes_on_from_what_was_learnt(waves):
    X, y = waves
    model = make_model()
    for _ in range(40):
        model.partial_fit(X, y)
    assert len(model.history_) == 40
    assert model.score(X, y) > 0.8
    scale = model.target_mean_, model.target_scale_
    model.partial_fit(X[:50], y[:50] + 100)
    assert (model.target_mean_, model.target_scale_) == scale
    for change in ({"n_members": 2}, {"noise": "homoscedastic"}):
        with pytest.raises(ValueError, match=r"noise that make another network"):
            make_model().partial_fit(X, y).set_params(**change).partial_fit(X, y)


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e6])
def test_a_constant_target(waves, constant):
    X, _ = waves
    model = make_model().fit(X, np.full(len(X), constant))
    assert model.target_scale_ == 1.0
    np.testing.assert_allclose(model.predict(X), constant, atol=0.2)


def test_a_small_spread_of_large_targets_is_no_constant(waves):
    X, _ = waves
    seconds = 1.7e9 + 0.003 * X[:, 0]  # as of a clock
    model = make_model().fit(X, seconds)
    assert model.target_scale_ == pytest.approx(seconds.std(), rel=1e-3)
    assert model.score(X, seconds) > 0.9


@pytest.mark.parametrize("weight", [1e-200, 1e14, 1e200])
def test_the_unit_of_weights_does_not_matter(waves, weight):
    X, y = waves
    model = make_model(max_epochs=1).fit(X, y + 1000, sample_weight=np.full(len(X), weight))
    assert model.target_mean_ == pytest.approx(y.mean() + 1000)
    assert model.target_scale_ == pytest.approx(y.std())


def test_targets_of_any_unit(waves):
    X, y = waves
    expected = make_model(max_epochs=2).fit(X, y).predict(X, return_std=True)
    for unit in (1e-150, 1e150):
        actual = make_model(max_epochs=2).fit(X, unit * y).predict(X, return_std=True)
        np.testing.assert_allclose(np.array(actual) / unit, expected, rtol=1e-4)
    for unit in (1e-200, 1e200):
        with pytest.raises(ValueError, match=r"Got y of a scale of .* expected another unit"):
            make_model().fit(X, unit * y)


def test_predictions_hold_one_chunk_of_the_members(waves, monkeypatch):
    X, y = waves
    model = make_model(max_epochs=2).fit(X, y)
    whole = model.predict_members(X)
    moments = [model.predict(X, return_std=True), model.predict_uncertainty(X)]
    assert len(list(model._iter_moments(X))) == 1
    model.net_.iterator_valid__batch_size = 100
    assert len(list(model._iter_moments(X))) == 5
    np.testing.assert_allclose(model.predict_members(X), whole, rtol=1e-5, atol=1e-5)
    for before, now in zip(
        moments, [model.predict(X, return_std=True), model.predict_uncertainty(X)], strict=True
    ):
        np.testing.assert_allclose(now, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_targets_that_are_not_finite(waves, bad):
    X, y = waves
    with pytest.raises(ValueError, match=r"Input y contains|contains NaN|contains inf"):
        make_model().fit(X, np.where(np.arange(len(y)) == 3, bad, y))


def test_a_failed_fit_leaves_the_regressor_as_it_was(waves):
    X, y = waves
    model = make_model(max_epochs=2).fit(X, y)
    before = model.predict(X)
    with pytest.raises(ValueError, match=r"(training loss|weight) that is not finite"):
        model.set_params(lr=1e30).fit(X[:, :1], y)
    np.testing.assert_array_equal(model.predict(X), before)


def test_same_random_state_gives_bitwise_the_same_fit(waves):
    X, y = waves
    state = torch.get_rng_state()
    for parameters in ({}, {"repulsion_perturbation": "noise"}, {"module__dropout": 0.2}):
        one, other = (make_model(max_epochs=2, **parameters).fit(X, y) for _ in range(2))
        np.testing.assert_array_equal(one.predict(X), other.predict(X))
    assert torch.equal(torch.get_rng_state(), state)


def test_pipelines_searches_and_transformed_targets():
    X, y = load_diabetes(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), make_model(max_epochs=15))
    grid = {f"{pipeline.steps[-1][0]}__lengthscale": [0.0, 1.0]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
    assert search.best_score_ > 0.2
    logarithm = TransformedTargetRegressor(
        make_model(max_epochs=15), func=np.log, inverse_func=np.exp
    )
    assert cross_val_score(logarithm, X, y, cv=2).mean() > 0.2
    assert clone(pipeline).get_params() is not None


def test_input_gradients_by_finite_differences(waves):
    X, y = waves
    model = make_model(max_epochs=5, hidden_layer_sizes=(16,), encoder=StandardScaler()).fit(X, y)
    gradients = model.input_gradients(X[:20])
    assert gradients.shape == (4, 20, 2)
    step = 1e-2 * model.encoder_.scale_  # a hundredth of an encoded unit
    for column in range(2):
        moved = np.eye(2)[column] * step
        means = [model.predict_members(X[:20] + sign * moved) for sign in (1, -1)]
        expected = (means[0] - means[1]) / (2 * 1e-2) / model.target_scale_
        np.testing.assert_allclose(gradients[..., column], expected, atol=2e-3)


def test_one_noise_level_beside_a_module_in_double_precision(waves):
    X, y = waves
    module = nn.Linear(2, 1).double()
    model = make_model(module=module, noise="homoscedastic", max_epochs=2).fit(X, y)
    assert model.net_.module_.dtype == torch.float64
