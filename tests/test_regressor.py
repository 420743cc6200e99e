"""What only the regressor has: a noise model, quantiles, and units of the target."""

import re
from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import norm
from sklearn.compose import TransformedTargetRegressor
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklearn_fordes import FoRDERegressor
from sklearn_fordes.networks import MLP
from sklearn_fordes.particles import GaussianLikelihood
from sklearn_fordes.training import MixtureLoss

NOISES = ["heteroscedastic", "homoscedastic", "quantile"]
LEVELS = [0.005, 0.05, 0.3, 0.5, 0.7, 0.95, 0.995]


@pytest.fixture(scope="module")
def waves():
    rng = np.random.default_rng(0)
    X = rng.uniform(-3, 3, size=(500, 2))
    return X, 50 + 10 * np.sin(X[:, 0]) + (1 + 2 * (X[:, 1] > 0)) * rng.normal(size=500)


@pytest.fixture(scope="module", params=NOISES)
def fitted(waves, request):
    # Few rows validate, and when to stop is not what is tested here.
    model = make_model(noise=request.param, module__dropout=0.0, early_stopping=False)
    return model.fit(*waves)


def make_model(**parameters):
    # Rows as they are, whose noise is that of the distribution to be found in a few fast epochs.
    defaults = {"n_members": 4, "hidden_layer_sizes": (64, 64), "max_epochs": 40}
    defaults |= {"lr": 1e-2, "batch_size": 64, "augmentation": None, "random_state": 0}
    defaults |= {"repulsion_strength": 0.15, "lr_schedule": "constant"}
    return FoRDERegressor(**{**defaults, **parameters})


def test_mean_and_noise_are_found(fitted, waves):
    X, _ = waves
    mean, std = fitted.predict(X, return_std=True)
    np.testing.assert_allclose(mean, 50 + 10 * np.sin(X[:, 0]), atol=3.5)
    uncertainty = fitted.predict_uncertainty(X)
    np.testing.assert_allclose(std**2, uncertainty.aleatoric + uncertainty.epistemic)
    noise = np.sqrt(uncertainty.aleatoric)
    if fitted.noise == "homoscedastic":
        assert noise.max() == pytest.approx(noise.min(), rel=1e-6)
        assert noise[0] == pytest.approx(np.sqrt((1 + 9) / 2), rel=0.25)
        raw = [p for n, p in fitted.fitted_.members.named_parameters() if "raw_variance" in n]
        assert raw[0].shape == (4, 1)  # Each member has its own.
    else:
        assert np.median(noise[X[:, 1] < 0]) == pytest.approx(1, rel=0.4)
        assert np.median(noise[X[:, 1] > 0]) == pytest.approx(3, rel=0.4)


# ---- quantiles


def test_quantiles_never_cross_and_cover_as_they_ought_to(fitted, waves):
    X, y = waves
    quantiles = fitted.predict(X, quantiles=LEVELS)
    assert quantiles.shape == (500, len(LEVELS))
    assert (np.diff(quantiles, axis=1) > 0).all()
    coverage = (y[:, None] <= quantiles).mean(0)
    np.testing.assert_allclose(coverage, LEVELS, atol=0.1)
    shuffled = np.random.default_rng(0).permutation(len(LEVELS))
    again = fitted.predict_quantiles(X, np.array(LEVELS)[shuffled])
    np.testing.assert_allclose(again, quantiles[:, shuffled], rtol=1e-6)
    np.testing.assert_array_equal(fitted.predict_quantiles(X, 0.5)[:, 0], quantiles[:, 3])


def test_an_interval_lies_between_two_quantiles(fitted, waves):
    X, y = waves
    interval = fitted.predict_interval(X)
    np.testing.assert_allclose(interval, fitted.predict_quantiles(X, [0.05, 0.95]), rtol=1e-9)
    assert ((interval[:, 0] <= y) & (y <= interval[:, 1])).mean() == pytest.approx(0.9, abs=0.07)
    narrow = fitted.predict_interval(X, confidence=0.2)
    assert (interval[:, 0] < narrow[:, 0]).all()
    assert (narrow[:, 1] < interval[:, 1]).all()


def test_intervals_of_several_confidences_come_at_once(fitted, waves):
    levels = np.array([0.5, 0.9, 0.8])
    ends = fitted.predict_interval(waves[0], levels)
    assert ends.shape == (len(waves[0]), 2, 3)
    for level, one in zip(levels, np.moveaxis(ends, -1, 0), strict=True):
        np.testing.assert_allclose(one, fitted.predict_interval(waves[0], level), rtol=1e-9)
    assert fitted.predict_interval(waves[0], [0.9]).shape == (len(waves[0]), 2, 1)


def test_validation_targets_of_another_unit_are_named(waves):
    X, y = waves
    wrapped = TransformedTargetRegressor(make_model(max_epochs=1), func=np.log, inverse_func=np.exp)
    with pytest.warns(UserWarning, match=r"Most of y_val \(100%\) lies beyond the range of y"):
        wrapped.fit(X[:400], y[:400], X_val=X[400:], y_val=y[400:])
    make_model(max_epochs=1).fit(X[:400], y[:400], X_val=X[400:], y_val=y[400:])  # No warning.


def test_quantiles_invert_the_distribution_of_the_mixture(waves):
    X, y = waves
    model = make_model(max_epochs=5).fit(X, y)
    moments = [member.predict(X[:5], return_std=True) for member in model.estimators_]

    def excess(value, row, level):
        return np.mean([norm.cdf(value, mean[row], std[row]) for mean, std in moments]) - level

    quantiles = model.predict_quantiles(X[:5], LEVELS)
    for row, column in np.ndindex(quantiles.shape):
        expected = brentq(excess, -1e3, 1e3, args=(row, LEVELS[column]))
        assert quantiles[row, column] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("noise", NOISES)
def test_a_constant_target_has_constant_predictions(waves, noise):
    X = waves[0][:100]
    for constant in (0.0, 0.1, -1e6, 1e-6, 1e-100):
        model = make_model(noise=noise, max_epochs=10).fit(X, np.full(len(X), constant))
        unit = abs(constant) or 1.0
        mean, std = model.predict(X, return_std=True)
        np.testing.assert_allclose(mean, constant, atol=1e-14 * unit)
        assert (std > 0).all()
        assert std.max() < 1e-14 * unit
        quantiles = model.predict(X, quantiles=[0.1, 0.5, 0.9])
        np.testing.assert_allclose(quantiles, constant, atol=1e-14 * unit)


def test_wrong_arguments_of_predictions_raise_errors(fitted, waves):
    with pytest.raises(ValueError, match=r"Got return_std=True and quantiles=.*expected one of"):
        fitted.predict(waves[0], return_std=True, quantiles=[0.5])
    for levels in ([0.0], [0.5, 1.0], [[0.5]], [np.nan], [-1]):
        with pytest.raises(ValueError, match=r"Got quantiles=.* but expected levels in \(0, 1\)"):
            fitted.predict(waves[0], quantiles=levels)
    for confidence in (0.0, 1.0, 1.5, np.nan, [], [0.5, 1.0], [[0.5]], True):
        with pytest.raises(ValueError, match=rf"Got confidence={re.escape(repr(confidence))}, but"):
            fitted.predict_interval(waves[0], confidence)


# ---- losses


def test_validation_loss_is_the_negative_log_density_of_the_mixture(waves):
    X, y = waves
    model = make_model(max_epochs=1).fit(X, y, X_val=X[:50], y_val=y[:50])
    moments = [member.predict(X[:50], return_std=True) for member in model.estimators_]
    density = np.mean([norm(mean, std).pdf(y[:50]) for mean, std in moments], axis=0)
    expected = -np.log(density * model.target_scale_).mean()
    assert model.history_[0]["valid_loss"] == pytest.approx(expected, rel=1e-4)


def test_validation_loss_weighs_rows():
    outputs, y = torch.randn(6, 3, 2), torch.randn(6)
    weight = torch.tensor([1.0, 0, 0, 2, 0, 3])
    loss = MixtureLoss(GaussianLikelihood())
    rows = torch.stack([loss(outputs[i : i + 1], y[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(loss(outputs, y, weight), (weight * rows).mean())


def test_input_gradients_by_finite_differences(waves):
    X, y = waves
    model = make_model(max_epochs=5, hidden_layer_sizes=(16,), encoder=StandardScaler()).fit(X, y)
    gradients = model.input_gradients(X[:20])
    assert gradients.shape == (4, 20, 2)
    step = 1e-2 * model.encoder_.scale_  # A hundredth of an encoded unit.
    for column in range(2):
        moved = np.eye(2)[column] * step
        means = [model.predict_members(X[:20] + sign * moved) for sign in (1, -1)]
        expected = (means[0] - means[1]) / (2 * 1e-2) / model.target_scale_
        np.testing.assert_allclose(gradients[..., column], expected, atol=2e-3)


# ---- modules


@pytest.mark.parametrize("noise", NOISES)
def test_modules_of_the_user(waves, noise):
    n_outputs = {"heteroscedastic": 2, "homoscedastic": 1, "quantile": 23}[noise]
    instance = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, n_outputs)).double()
    for module in (MLP, instance, partial(nn.Linear, 2, n_outputs)):
        model = make_model(module=module, noise=noise, max_epochs=2).fit(*waves)
        mean, std = model.predict(waves[0], return_std=True)
        assert np.isfinite(mean).all()
        assert (std > 0).all()
        double = model.fitted_.members.dtype == torch.float64
        assert double == (module is instance)


@pytest.mark.parametrize(
    ("noise", "expected"),
    [
        ("heteroscedastic", r"\(2, 2\).*a mean and what softplus turns"),
        ("homoscedastic", r"\(2, 1\)"),
        ("quantile", r"\(2, 23\).*a median and 22 raw distances"),
    ],
)
def test_a_module_with_another_number_of_outputs_raises_an_error(waves, noise, expected):
    with pytest.raises(ValueError, match=rf"Got output of shape \(2, 3\).*expected {expected}"):
        make_model(module=nn.Linear(2, 3), noise=noise).fit(*waves)


# ---- the target


@pytest.mark.parametrize("unit", [1e-150, 1e-6, 1e6, 1e150])
def test_units_of_the_target_do_not_matter(waves, unit):
    X, y = waves
    expected = make_model(max_epochs=2).fit(X, y).predict(X, return_std=True)
    actual = make_model(max_epochs=2).fit(X, unit * y).predict(X, return_std=True)
    np.testing.assert_allclose(np.array(actual) / unit, expected, rtol=1e-3)


@pytest.mark.parametrize("unit", [1e-200, 1e200])
def test_a_target_whose_square_is_no_number_raises_an_error(waves, unit):
    with pytest.raises(ValueError, match=r"Got y of a scale of .* expected another unit"):
        make_model().fit(waves[0], unit * waves[1])


def test_a_small_spread_of_large_targets_is_found(waves):
    X, _ = waves
    seconds = 1.7e9 + 0.003 * X[:, 0]  # of a clock
    model = make_model().fit(X, seconds)
    assert model.target_scale_ == pytest.approx(seconds.std(), rel=1e-3)
    assert model.score(X, seconds) > 0.9


@pytest.mark.parametrize("unit", [1e-200, 1, 1e200])
def test_mean_and_scale_of_the_target_are_weighted(waves, unit):
    X, y = waves
    weight = np.linspace(0.1, 3, len(X))
    model = make_model(max_epochs=1).fit(X, np.round(y).astype(int), sample_weight=unit * weight)
    mean = np.average(np.round(y), weights=weight)
    variance = np.average((np.round(y) - mean) ** 2, weights=weight)
    assert model.target_mean_ == pytest.approx(mean)
    assert model.target_scale_**2 == pytest.approx(variance)
    assert model.predict(X).dtype == np.float64
    with pytest.raises(ValueError, match=r"at least one non-zero|every row's weight zero"):
        make_model().fit(X, y, sample_weight=np.zeros(len(X)))


def test_partial_fit_keeps_the_scale_of_the_first_rows(waves):
    X, y = waves
    model = make_model()
    for _ in range(30):
        model.partial_fit(X, y)
    assert model.score(X, y) > 0.8
    scale = model.target_mean_, model.target_scale_
    model.partial_fit(X[:50], y[:50] + 100)
    assert (model.target_mean_, model.target_scale_) == scale
    with pytest.raises(ValueError, match=r"or noise that make another network"):
        model.set_params(noise="homoscedastic").partial_fit(X, y)


def test_targets_that_are_words_raise_an_error(waves):
    with pytest.raises(ValueError, match="Got y of type <U1, but expected numbers"):
        FoRDERegressor().fit(waves[0], np.full(len(waves[0]), "a"))


@pytest.mark.parametrize("dtype", [np.int8, np.float16])
def test_targets_of_any_numeric_type_are_those_in_double_precision(dtype):
    X = np.random.default_rng(0).normal(size=(40, 2))
    y = np.where(X[:, 0] > 0, -128, 3).astype(dtype)  # The magnitude of −128 is no int8.
    model, expected = (make_model(max_epochs=1).fit(X, v) for v in (y, y.astype(np.float64)))
    assert model.target_scale_ == expected.target_scale_
    np.testing.assert_array_equal(model.predict(X), expected.predict(X))
