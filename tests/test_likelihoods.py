"""Likelihoods: losses, their derivatives, and the mixture's distribution, against other ways."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from by_hand import random_tensor
from sklearn_fordes import FoRDERegressor, particles
from sklearn_fordes.particles import GRADIENT_TARGETS, CategoricalLikelihood, GaussianLikelihood
from sklearn_fordes.particles.likelihoods._quantile import LEVELS

GAUSSIAN, QUANTILE = GaussianLikelihood(), particles.QuantileLikelihood()
REAL = [GAUSSIAN, QUANTILE]
CATEGORICAL = [CategoricalLikelihood(c, target) for c in (2, 4) for target in GRADIENT_TARGETS]
M, B = 3, 6


def make_case(likelihood, n_rows=B):
    outputs = random_tensor(M, n_rows, likelihood.n_outputs)
    if likelihood.kind == "regressor":
        return outputs, random_tensor(n_rows, seed=1)
    return outputs, torch.arange(n_rows) % likelihood.n_outputs


def pinball(quantiles, y):
    """Twice the mean pinball loss, level by level."""
    losses = [
        torch.where(y >= quantile, level * (y - quantile), (1 - level) * (quantile - y))
        for level, quantile in zip(LEVELS, quantiles.unbind(-1), strict=True)
    ]
    return 2 * sum(losses) / len(losses)


def losses_by_hand(likelihood, outputs, y):
    """Each member's loss of each row (M, B), which autograd can follow."""
    if isinstance(likelihood, CategoricalLikelihood):
        targets = y.expand(len(outputs), -1)
        return nn.functional.cross_entropy(outputs.mT, targets, reduction="none")
    if likelihood is GAUSSIAN:
        variance = nn.functional.softplus(outputs[..., 1]) + 1e-6
        return -torch.distributions.Normal(outputs[..., 0], variance.sqrt()).log_prob(y)
    return pinball(likelihood.knots(outputs), y)


@pytest.mark.parametrize("likelihood", [CategoricalLikelihood(4), *REAL], ids=repr)
@pytest.mark.parametrize("weight", [None, torch.linspace(0.5, 1.5, B).double()])
def test_losses_and_their_gradients(likelihood, weight):
    outputs, y = make_case(likelihood)
    followed = outputs.clone().requires_grad_()
    rows = losses_by_hand(likelihood, followed, y)
    means = (rows if weight is None else rows * weight).mean(1)
    for found, expected in (
        (likelihood.row_losses(outputs, y), rows),
        (particles.mean_loss(likelihood, outputs, y, weight), means),
    ):
        torch.testing.assert_close(found[0], expected.detach())
        gradient = torch.autograd.grad(expected.sum(), followed, retain_graph=True)[0]
        torch.testing.assert_close(found[1], gradient)


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_a_power_of_the_variance_weights_the_gradient_and_not_the_loss(beta):
    outputs, y = make_case(GAUSSIAN)
    losses, gradient = GAUSSIAN.row_losses(outputs, y)
    mean, variance = GAUSSIAN.moments(outputs)
    found = GaussianLikelihood(beta).row_losses(outputs, y)
    torch.testing.assert_close(found[0], losses)
    torch.testing.assert_close(found[1], gradient * variance[..., None] ** beta)
    if beta == 1:  # The mean is learnt as by half the squared error.
        torch.testing.assert_close(found[1][..., 0], mean - y)


@pytest.mark.parametrize("likelihood", [*CATEGORICAL, *REAL], ids=repr)
def test_derivatives_of_the_target_equal_those_by_autograd(likelihood):
    outputs, y = make_case(likelihood)
    vector = random_tensor(*outputs.shape, seed=2)
    found = likelihood.gradient_target_derivatives(outputs, y)
    expected = particles.autograd_derivatives(lambda z: likelihood.gradient_target(z, y), outputs)
    torch.testing.assert_close(found[0], expected[0])
    products = [
        torch.zeros_like(outputs) if hessian is None else hessian(vector)
        for _, hessian in (found, expected)
    ]
    torch.testing.assert_close(*products)


@pytest.mark.parametrize("likelihood", [CategoricalLikelihood(4), GAUSSIAN], ids=repr)
def test_losses_of_the_mixture_of_densities(likelihood):
    outputs, y = make_case(likelihood)
    density = (-losses_by_hand(likelihood, outputs, y)).exp().mean(0)
    torch.testing.assert_close(likelihood.mixture_losses(outputs, y), -density.log())


def test_loss_of_the_mixture_of_quantiles():
    outputs, y = make_case(QUANTILE)
    quantiles = QUANTILE.quantiles(outputs, LEVELS)
    torch.testing.assert_close(QUANTILE.mixture_losses(outputs, y), pinball(quantiles, y))
    # A single member is its own mixture.
    alone = QUANTILE.mixture_losses(outputs[:1], y)
    torch.testing.assert_close(alone, QUANTILE.row_losses(outputs[:1], y)[0][0])


def test_prediction_of_classes_is_the_mean_probability():
    likelihood = CategoricalLikelihood(4)
    outputs, _ = make_case(likelihood)
    mean = outputs.softmax(-1).mean(0)
    torch.testing.assert_close(likelihood.predict(outputs), mean)
    torch.testing.assert_close(likelihood.predict_log(outputs), mean.log())
    torch.testing.assert_close(likelihood.guess(outputs), mean.argmax(-1))


@pytest.mark.parametrize("likelihood", REAL, ids=repr)
def test_prediction_and_uncertainty_are_moments_of_the_mixture(likelihood):
    outputs, _ = make_case(likelihood)
    mean, variance = likelihood.moments(outputs)
    torch.testing.assert_close(likelihood.predict(outputs.float()), mean.mean(0), atol=1e-6, rtol=0)
    total = (variance + mean.square()).mean(0) - mean.mean(0).square()
    np.testing.assert_allclose(likelihood.decompose(outputs).total, total, rtol=1e-10)
    torch.testing.assert_close(likelihood.prediction(outputs), outputs[..., :1])
    torch.testing.assert_close(likelihood.guess(outputs), outputs[..., 0].mean(0))


def quantile_by_grid(likelihood, outputs, level):
    """Invert the mixture's distribution function on a fine grid of values, for one row."""
    values = torch.linspace(-30, 30, 60_001).double().view(1, -1)
    cdf = likelihood.member_cdf(outputs, values).mean(0)[0]
    return values[0, (cdf < level).sum()]


@pytest.mark.parametrize("likelihood", REAL, ids=repr)
@pytest.mark.parametrize("spread", [0.1, 1.0, 8.0])  # far members leave gaps between them
def test_quantiles_of_the_mixture_equal_a_brute_force_inverse(likelihood, spread):
    outputs, _ = make_case(likelihood, n_rows=1)
    outputs[..., 0] *= spread
    levels = [0.03, 0.25, 0.45, 0.5, 0.8, 0.99]
    expected = [quantile_by_grid(likelihood, outputs, level) for level in levels]
    actual = likelihood.quantiles(outputs, levels)
    torch.testing.assert_close(actual[0], torch.stack(expected), atol=2e-3, rtol=0)


@pytest.mark.parametrize("likelihood", REAL, ids=repr)
def test_levels_may_be_extreme_and_in_any_order(likelihood):
    outputs, _ = make_case(likelihood)
    levels = [1e-12, 1e-6, 0.3, 0.3, 0.5, 1 - 1e-6, 1 - 1e-12]
    quantiles = likelihood.quantiles(outputs, levels)
    assert (quantiles.diff(dim=-1) >= 0).all()
    order = [4, 6, 0, 2, 5, 1, 3]
    shuffled = likelihood.quantiles(outputs, [levels[i] for i in order])
    torch.testing.assert_close(shuffled, quantiles[:, order], rtol=0, atol=0)
    cdf = likelihood.member_cdf(outputs, quantiles).mean(0)
    expected = torch.tensor(levels, dtype=torch.float64).expand_as(cdf)
    torch.testing.assert_close(cdf, expected, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("likelihood", REAL, ids=repr)
def test_a_members_distribution_belongs_to_its_quantile_function(likelihood):
    outputs, n = make_case(likelihood)[0], 20_000
    levels = (torch.arange(n).double() + 0.5) / n
    quantiles = likelihood.member_quantiles(outputs, levels)
    cdfs = [likelihood.member_cdf(outputs[i : i + 1], q)[0] for i, q in enumerate(quantiles)]
    torch.testing.assert_close(torch.stack(cdfs), levels.expand_as(quantiles))
    mean, variance = likelihood.moments(outputs)
    torch.testing.assert_close(mean, quantiles.mean(-1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(variance, quantiles.var(-1), atol=1e-5, rtol=2e-3)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_knots_increase_and_quantiles_never_cross(scale):
    outputs = scale * random_tensor(M, 20, QUANTILE.n_outputs)
    gaps = QUANTILE.knots(outputs).diff(dim=-1)
    # Beside gaps of hundreds a small one is less than rounding.
    assert (gaps > 0).all() if scale == 1 else (gaps >= 0).all()
    levels = torch.linspace(0, 1, 1001)[1:-1]
    assert (QUANTILE.quantiles(outputs, levels).diff(dim=-1) >= 0).all()


def test_outputs_of_zero_have_the_quantiles_of_a_standard_normal():
    knots = QUANTILE.knots(torch.zeros(QUANTILE.n_outputs).double())
    expected = torch.special.ndtri(torch.tensor(LEVELS, dtype=torch.float64))
    torch.testing.assert_close(knots, expected)
    mean, variance = QUANTILE.moments(torch.zeros(1, 1, QUANTILE.n_outputs).double())
    assert mean.abs().item() < 1e-12
    assert variance.item() == pytest.approx(1, abs=0.1)  # straight tails


def test_log_prob_keeps_its_direction_when_training_has_converged():
    logits = torch.tensor([[[20.0, 1.0, 0.0]]])
    gradient, _ = GRADIENT_TARGETS["log_prob"].derivatives(logits, torch.tensor([0]))
    exact = logits.double().requires_grad_()
    (expected,) = torch.autograd.grad(exact.log_softmax(-1)[0, 0, 0], exact)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=0)


def test_gradient_targets_by_hand():
    value = {name: target.value for name, target in GRADIENT_TARGETS.items()}
    logits, y = torch.tensor([[[1.0, 2.0, 4.0]], [[0.0, 0.0, 0.0]]]), torch.tensor([1])
    p = logits.softmax(-1)[..., 1]
    torch.testing.assert_close(value["logit"](logits, y), logits[..., 1])
    torch.testing.assert_close(value["log_prob"](logits, y), p.log())
    torch.testing.assert_close(value["log_odds"](logits, y), (p / (1 - p)).log())
    shift = torch.tensor([[[5.0]], [[-2.0]]])
    torch.testing.assert_close(value["log_odds"](logits + shift, y), value["log_odds"](logits, y))


@pytest.mark.parametrize("n_classes", [2, 3, 7])
@pytest.mark.parametrize("scale", [0.01, 1, 100])
def test_equal_probabilities_have_a_relative_loss_of_one_whatever_the_weights(n_classes, scale):
    likelihood, y = CategoricalLikelihood(n_classes), torch.arange(8) % n_classes
    logits = torch.zeros(3, 8, n_classes)
    for weight in (None, scale * torch.linspace(0, 1, 8)):
        loss, _ = particles.mean_loss(likelihood, logits, y, weight)
        relative = likelihood.relative_loss(loss, logits, y, weight)
        torch.testing.assert_close(relative, torch.ones(3))


class Counted(GaussianLikelihood):
    """One method of it returns something of another shape."""

    wrong: ClassVar[dict[str, object]] = {}

    def __getattribute__(self, name):
        return type(self).wrong.get(name) or super().__getattribute__(name)


@pytest.mark.parametrize(
    ("name", "method", "found"),
    [
        ("row_losses", lambda outputs, y: outputs[..., 0], r"\(2, 2\)"),
        (
            "row_losses",
            lambda outputs, y: (outputs[..., 0], outputs[..., 0]),
            r"\(\(2, 2\), \(2, 2",
        ),
        ("mixture_losses", lambda outputs, y: outputs[..., 0], r"\(2, 2\)"),
        ("constant_outputs", lambda y, weight: [0.0, 1.0], "a list"),
        ("constant_outputs", lambda y, weight: y.sum(), r"\(\)"),
    ],
)
def test_a_likelihood_of_the_users_of_another_shape_is_refused(monkeypatch, name, method, found):
    monkeypatch.setattr(Counted, "wrong", {name: method})

    class Model(FoRDERegressor):
        def _likelihood(self):
            return Counted()

    X = np.random.default_rng(0).normal(size=(60, 3))
    with pytest.raises(ValueError, match=f"Got {found}.* from {name} of Counted, but expected"):
        Model(2, max_epochs=1, random_state=0).fit(X, X.sum(1))


@pytest.mark.parametrize("likelihood", [CategoricalLikelihood(3), *REAL], ids=repr)
def test_weights_count_as_repetitions_in_the_relative_loss(likelihood):
    outputs, y = make_case(likelihood)
    times = torch.arange(1, B + 1)
    loss, _ = particles.mean_loss(likelihood, outputs, y, times.double())
    weighted = likelihood.relative_loss(loss, outputs, y, times.double())
    repeated = outputs.repeat_interleave(times, 1), y.repeat_interleave(times)
    loss, _ = particles.mean_loss(likelihood, *repeated)
    torch.testing.assert_close(weighted, likelihood.relative_loss(loss, *repeated, None))
