"""The split of uncertainty: identities for the functions and for fitted estimators."""

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.datasets import load_diabetes

from sklearn_fordes import FoRDEClassifier, FoRDERegressor
from sklearn_fordes.uncertainty import entropy_decomposition, variance_decomposition


def random_probabilities(n_members=7, n_samples=40, n_classes=5, concentration=0.3):
    rng = np.random.default_rng(0)
    shape = (n_members, n_samples)
    return rng.dirichlet(np.full(n_classes, concentration), size=shape)


def assert_identities(uncertainty, total):
    np.testing.assert_allclose(uncertainty.total, total, rtol=0, atol=1e-12)
    parts = uncertainty.aleatoric + uncertainty.epistemic
    np.testing.assert_allclose(uncertainty.total, parts, rtol=0, atol=1e-12)
    assert all((part >= 0).all() for part in uncertainty)


@pytest.mark.parametrize("concentration", [1e-3, 0.3, 10.0])
def test_entropies(concentration):
    p = random_probabilities(concentration=concentration)
    uncertainty = entropy_decomposition(p)
    assert_identities(uncertainty, entropy(p.mean(0), axis=-1))
    np.testing.assert_allclose(uncertainty.aleatoric, entropy(p, axis=-1).mean(0), atol=1e-12)
    assert (uncertainty.total <= np.log(5) + 1e-12).all()
    assert (entropy_decomposition(p.astype(np.float16)).epistemic >= 0).all()  # rounded


def test_entropies_of_certain_and_impossible_classes_are_finite():
    p = np.eye(3)[[[0, 1], [0, 2]]]  # two members, two rows: agreement, then none
    uncertainty = entropy_decomposition(p)
    np.testing.assert_allclose(uncertainty.epistemic, [0, np.log(2)], atol=1e-15)
    np.testing.assert_array_equal(uncertainty.aleatoric, [0, 0])


def test_variances():
    rng = np.random.default_rng(0)
    means, variances = rng.normal(size=(6, 30)), rng.exponential(size=(6, 30))
    uncertainty = variance_decomposition(means, variances)
    second_moment = (variances + means**2).mean(0)
    assert_identities(uncertainty, second_moment - means.mean(0) ** 2)


@pytest.mark.parametrize("n_members", [1, 3, 10])
def test_identical_members_have_no_epistemic_uncertainty(n_members):
    one = random_probabilities(1)
    same = np.repeat(one, n_members, axis=0)
    assert not entropy_decomposition(same).epistemic.any()
    means = np.repeat(np.random.default_rng(0).normal(1e6, 1, size=(1, 30)), n_members, axis=0)
    assert not variance_decomposition(means, np.ones_like(means)).epistemic.any()


def test_wrong_shapes_are_told():
    with pytest.raises(ValueError, match=r"shape \(3, 2\), but expected \(n_members, n_samples, n"):
        entropy_decomposition(np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"shape \(3,\), but expected \(n_members, n_samples\)"):
        variance_decomposition(np.ones(3), np.ones(3))


@pytest.mark.parametrize("wrong", [[0.5, 0.6], [-0.1, 1.1], [5.0, -3.0], [0.0, 0.0]])
def test_what_is_no_probability(wrong):
    with pytest.raises(ValueError, match=r"Got probabilities from .* expected non-negative ones"):
        entropy_decomposition([[[0.5, 0.5], wrong]])


def test_what_is_no_variance():
    with pytest.raises(ValueError, match=r"Got variances of shape \(1, 2\), .*shape \(2, 2\)"):
        variance_decomposition(np.ones((2, 2)), np.ones((1, 2)))
    with pytest.raises(ValueError, match=r"Got variances .* from -1"):
        variance_decomposition(np.ones((2, 2)), -np.ones((2, 2)))
    for wrong in (np.nan, np.inf):
        with pytest.raises(ValueError, match="Got NaN or infinity"):
            variance_decomposition(np.full((2, 2), wrong), np.ones((2, 2)))
        with pytest.raises(ValueError, match="Got NaN or infinity"):
            entropy_decomposition(np.full((1, 2, 2), wrong))


def test_classifier(multiclass):
    X, y = multiclass
    model = FoRDEClassifier(5, max_epochs=3, random_state=0).fit(X, y)
    uncertainty = model.predict_uncertainty(X)
    assert_identities(uncertainty, entropy(model.predict_proba(X), axis=-1))
    np.testing.assert_array_equal(model.ood_score(X), uncertainty.epistemic)
    assert (uncertainty.epistemic > 0).any()
    rows = np.concatenate([model.ood_score(X[:100]), model.ood_score(X[100:])])
    np.testing.assert_allclose(rows, uncertainty.epistemic, atol=1e-6)


@pytest.mark.parametrize("noise", ["heteroscedastic", "homoscedastic", "quantile"])
def test_regressor(noise):
    X, y = load_diabetes(return_X_y=True)
    model = FoRDERegressor(4, max_epochs=5, noise=noise, random_state=0).fit(X, y)
    uncertainty = model.predict_uncertainty(X)
    mean, std = model.predict(X, return_std=True)
    np.testing.assert_allclose(std**2, uncertainty.total, rtol=1e-12)
    np.testing.assert_allclose(model.predict_members(X).var(0), uncertainty.epistemic, rtol=1e-9)
    np.testing.assert_array_equal(model.predict(X), mean)
    assert (np.ptp(uncertainty.aleatoric) < 1e-9 * y.var()) == (noise == "homoscedastic")


def test_a_probability_whose_mean_rounds_to_zero_diverges_by_nothing():
    smallest = np.nextafter(0.0, 1.0)
    found = entropy_decomposition([[[1.0, smallest]], [[1.0, 0.0]], [[1.0, 0.0]]])
    np.testing.assert_allclose(found, 0, atol=1e-300)
