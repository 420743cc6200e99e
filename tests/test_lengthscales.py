"""Lengthscales: by hand, from every form of the parameter, and where the data does not vary."""

import numpy as np
import pytest
import torch

from by_hand import random_tensor
from sklearn_fordes import particles
from sklearn_fordes.particles import LENGTHSCALES, Kernel, Lengthscale, tuned_lengthscale


def made(value, X):
    """Return what a repulsion makes of a parameter's value."""
    return particles.Repulsion().build(X, value).kernel.lengthscale


def matrix_of(lengthscale):
    return lengthscale.rotation @ lengthscale.precision.diag() @ lengthscale.rotation.T


@pytest.mark.parametrize("alpha", [0.2, 0.7, 1.0])
@pytest.mark.parametrize("units", [1.0, 100.0])
def test_tuned_lengthscales_by_hand(alpha, units):
    X = units * (random_tensor(200, 3) * torch.tensor([1.0, 3.0, 0.1]) + 5)
    variances, axes = torch.linalg.eigh(torch.cov(X.T))
    variances = variances / variances.mean()
    averaged = {
        "precision": (1 - alpha) + alpha * variances,
        "variance": 1 / ((1 - alpha) + alpha / variances),
    }
    for mix, expected in averaged.items():
        lengthscale = tuned_lengthscale(alpha, mix)(X)
        torch.testing.assert_close(lengthscale.precision, expected)
        torch.testing.assert_close(matrix_of(lengthscale), axes @ expected.diag() @ axes.T)


def test_tuned_lengthscales_where_the_data_does_not_vary():
    X = torch.tensor([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]], dtype=torch.float64)
    lowest = [tuned_lengthscale(0.1, mix)(X).precision.min() for mix in ("precision", "variance")]
    torch.testing.assert_close(torch.stack(lowest), torch.tensor([0.9, 0.0]).double())


@pytest.mark.parametrize("X", [torch.ones(1, 3), torch.ones(5, 3), torch.ones(5, 1)])
def test_pca_of_constant_inputs_is_finite(X):
    lengthscale = LENGTHSCALES["pca"](X).to(X.double())
    potential, force, _ = particles.wasserstein_update(
        random_tensor(4, 2, X.shape[1]), Kernel(lengthscale)
    )
    assert torch.isfinite(potential).all()
    assert torch.isfinite(force).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [*(((a,), "Got alpha=") for a in (-0.1, 1.1, "pca", None)), ((0.5, "median"), "Got mix='med")],
)
def test_no_tuned_lengthscale(arguments, message):
    with pytest.raises(ValueError, match=message):
        tuned_lengthscale(*arguments)


SCALES = [1.0, 0.5, np.inf]
LENGTHSCALE = Lengthscale(None, torch.tensor([1.0, 4.0, 0.0]))


@pytest.mark.parametrize(
    ("value", "same"),
    [
        (0, "identity"),
        (1.0, "pca"),
        (0.4, tuned_lengthscale(0.4)),
        (tuned_lengthscale(1.0, "variance"), "pca"),
        (SCALES, LENGTHSCALE),
        (np.array(SCALES), LENGTHSCALE),
        (lambda X: LENGTHSCALE, LENGTHSCALE),
        (lambda X: np.array(SCALES), LENGTHSCALE),
        (lambda X: X.std(0), LENGTHSCALES["identity"]),
        (np.diag([1.0, 4.0, 0.0]), LENGTHSCALE),
    ],
    ids=str,
)
def test_values_that_mean_the_same(value, same):
    X = random_tensor(50, 3)
    X = X / X.std(0)
    kernels = [
        Kernel(made(v, X), "paper").compare(random_tensor(4, 2, 3, seed=5)) for v in (value, same)
    ]
    torch.testing.assert_close(*kernels)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("typo", "Got lengthscale='typo', but expected one of"),
        (np.ones(7), "Got a lengthscale of 7 features, but expected 3"),
        (np.ones((2, 3)), r"Got a lengthscale of shape \(2, 3\), but expected \(K,\)"),
        (np.zeros(3), "not usable: Got lengthscales .* expected positive"),
        (-np.eye(3), "not usable: Got a precision matrix .* negative eigenval"),
        (np.tri(3), "not usable: Got a precision matrix that is zero, not symme"),
        (np.full(3, np.inf), "not usable: Got lengthscales .* one of them finit"),
        (np.full(3, np.nan), "Got a lengthscale"),
        (np.full((3, 3), np.nan), "Got a lengthscale that is not usable"),
        (np.full(3, 1e30), "whose inverse square is zero, infinite or negative in torch.float32"),
        (np.full(3, 1e-30), "whose inverse square is zero, infinite or negative in torch.float32"),
        (Lengthscale(None, torch.tensor([1.0, 1.0, -1.0])), "zero, infinite or negative"),
        (["a", "b", "c"], "but expected an array of numbers"),
        (lambda X: X[0, 0], r"Got a lengthscale of shape \(\)"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_values_that_describe_no_lengthscale(value, message):
    with pytest.raises(ValueError, match=message):
        made(value, random_tensor(50, 3).float())
