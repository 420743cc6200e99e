"""The forces against what they ought to be: known posteriors, closed forms by hand, autograd."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import register_parametrization

from sklearn_fordes.networks import MLP, stack_members
from sklearn_fordes.particles import (
    CATEGORICAL,
    GAUSSIAN,
    SPACES,
    Ensemble,
    Kernel,
    Metric,
    Repulsion,
    accumulate_gradients,
    gaussian_nll,
    independence,
    input_gradients,
    space_of,
    stein,
    wasserstein,
)

MEAN = torch.tensor([1.0, -2.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 2.0]], dtype=torch.float64)


def random_tensor(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ---- a Gaussian posterior


class Particle(nn.Module):
    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.randn(2))

    def forward(self, X):
        return self.theta.expand(len(X), 2)


def gaussian_energy(theta, y, weight=None):
    """Negative log density of the target, (M, 1, 2) → (M,), and its gradient."""
    gradient = (theta - MEAN) @ torch.linalg.inv(COVARIANCE)
    return 0.5 * ((theta - MEAN) * gradient).sum(-1).mean(1), gradient


def settle(update, bandwidth, *, space="weight", strength=1.0, n_steps=600, lr=0.1):
    particles = Ensemble(Particle, 100, seed=0).double()
    target = replace(CATEGORICAL, loss=gaussian_energy, prediction=lambda theta: theta)
    kernel = Kernel(bandwidth=bandwidth, unit_sphere=False)
    repulsion = Repulsion(SPACES[space], kernel, update, strength)
    optimizer = torch.optim.SGD(particles.parameters(), lr=lr)
    X, y = torch.zeros(1, 1).double(), torch.zeros(1).long()
    for _ in range(n_steps):
        optimizer.zero_grad()
        accumulate_gradients(particles, X, y, repulsion=repulsion, likelihood=target)
        optimizer.step()
    theta = particles.stacked.get_parameter("theta").detach()
    return theta.mean(0), torch.cov(theta.T, correction=0)


@pytest.mark.parametrize("space", ["weight", "function"])
@pytest.mark.parametrize("bandwidth", ["paper", 1.0])
def test_stein_particles_settle_at_a_gaussian_target(space, bandwidth):
    mean, covariance = settle(stein, bandwidth, space=space, lr=1.0)
    torch.testing.assert_close(mean, MEAN, atol=0.01, rtol=0)
    torch.testing.assert_close(covariance, COVARIANCE, atol=0, rtol=0.1)  # 8 % with 100 particles


def test_wasserstein_particles_settle_at_a_gaussian_target():
    # Their density is estimated with the kernel, N(0, h/2): it is this smoothed density that
    # settles at the target, and the particles themselves are narrower by h/2.
    bandwidth = 0.5
    mean, covariance = settle(wasserstein, bandwidth)
    torch.testing.assert_close(mean, MEAN, atol=0.01, rtol=0)
    smoothed = covariance + bandwidth / 2 * torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(smoothed, COVARIANCE, atol=0, rtol=0.12)
    torch.testing.assert_close(covariance, COVARIANCE, atol=0, rtol=0.35)


@pytest.mark.parametrize("space", ["weight", "function"])
def test_without_repulsion_particles_collapse(space):
    mean, covariance = settle(wasserstein, 1.0, space=space, strength=0.0)
    torch.testing.assert_close(mean, MEAN, atol=1e-6, rtol=0)
    assert covariance.abs().max() < 1e-6


# ---- whole steps against autograd


def make_ensemble(kind=Ensemble):
    members = kind(lambda: MLP(5, 3, hidden_layer_sizes=(6, 4)), 4, seed=3)
    return members.double(), random_tensor(8, 5), torch.tensor([0, 1, 2, 2, 1, 0, 1, 2])


def flat_parameters(ensemble):
    return torch.cat([p.flatten(1) for p in ensemble.parameters()], dim=1).unsqueeze(1)


def representation_by_hand(ensemble, name, X, y):
    if name == "weight":
        return flat_parameters(ensemble)
    if name == "function":
        return ensemble(X).softmax(-1).flatten(1).unsqueeze(1)
    assert name == "feature"
    h = X.expand(4, *X.shape)
    parameters = list(ensemble.parameters())
    for weight, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
        h = nn.functional.silu(h @ weight.mT + bias.unsqueeze(1))
    return h


def kernel_by_hand(points, fixed, bandwidths):
    """k(i, j) = mean_b exp(−d²/h) with the second argument and h held constant, (M, M)."""
    sq_dist = (points.unsqueeze(1) - fixed.detach().unsqueeze(0)).square().sum(-1)  # (M, M, B)
    return torch.exp(-sq_dist / bandwidths).mean(-1)


def paper_bandwidths(points):
    sq_dist = (points.unsqueeze(1) - points.unsqueeze(0)).square().sum(-1).detach().numpy()
    medians = np.median(sq_dist.reshape(-1, sq_dist.shape[-1]), axis=0)
    return torch.tensor(medians / math.log(len(points)) + 1e-12)


@pytest.mark.parametrize("kind", [Ensemble, stack_members])
@pytest.mark.parametrize("space", ["weight", "function", "feature"])
@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_wasserstein_step_equals_autograd(kind, space, fraction):
    ensemble, X, y = make_ensemble(kind)
    kernel = Kernel(bandwidth="paper", unit_sphere=False)
    repulsion = Repulsion(SPACES[space], kernel, strength=7.0, fraction=fraction)
    step = accumulate_gradients(ensemble, X, y, repulsion=repulsion)
    actual = [p.grad.clone() for p in ensemble.parameters()]

    ensemble.zero_grad()
    compared = representation_by_hand(ensemble, space, X[: round(fraction * len(X))], y)
    kernels = kernel_by_hand(compared, compared, paper_bandwidths(compared))
    repelled = 7.0 / len(X) * kernels.sum(1).log()
    logits = ensemble(X)
    losses = nn.functional.cross_entropy(logits.mT, y.expand(4, -1), reduction="none").mean(1)
    (losses.sum() + repelled.sum()).backward()
    expected = [p.grad for p in ensemble.parameters()]
    torch.testing.assert_close(actual, expected, atol=1e-12, rtol=1e-8)
    torch.testing.assert_close(step.repulsion, repelled.detach())
    torch.testing.assert_close(step.driving_loss, losses.detach())


@pytest.mark.parametrize("kind", [Ensemble, stack_members])
def test_stein_step_in_weight_space_equals_its_definition(kind):
    ensemble, X, y = make_ensemble(kind)
    kernel = Kernel(bandwidth=0.8, unit_sphere=False)
    repulsion = Repulsion(SPACES["weight"], kernel, stein, strength=3.0)
    accumulate_gradients(ensemble, X, y, repulsion=repulsion)
    actual = torch.cat([p.grad.flatten(1) for p in ensemble.parameters()], dim=1)

    ensemble.zero_grad()
    logits = ensemble(X)
    nn.functional.cross_entropy(logits.flatten(0, 1), y.repeat(4)).mul(4).backward()
    driving = torch.cat([p.grad.flatten(1) for p in ensemble.parameters()], dim=1)
    theta = flat_parameters(ensemble).detach().requires_grad_()
    for i in range(4):
        kernels = kernel_by_hand(theta, theta, torch.tensor([0.8]))[i]
        (gradient,) = torch.autograd.grad(kernels.sum(), theta)
        expected = (kernels.detach() @ driving + 3.0 / len(X) * gradient[i, 0]) / 4
        torch.testing.assert_close(actual[i], expected, atol=1e-12, rtol=1e-9)


def test_stein_step_in_function_space_mixes_the_losses_gradients_at_the_outputs():
    ensemble, X, y = make_ensemble()
    kernel = Kernel(bandwidth=0.8, unit_sphere=False)
    repulsion = Repulsion(SPACES["function"], kernel, stein, strength=0.0)
    accumulate_gradients(ensemble, X, y, repulsion=repulsion)
    actual = [p.grad.clone() for p in ensemble.parameters()]

    ensemble.zero_grad()
    logits = ensemble(X)
    compared = logits.detach().softmax(-1).flatten(1).unsqueeze(1)
    mixing = kernel_by_hand(compared, compared, torch.tensor([0.8])) / 4
    one_hot = nn.functional.one_hot(y, 3)
    driving = (logits.detach().softmax(-1) - one_hot) / len(X)
    (logits * torch.einsum("ij,jbc->ibc", mixing, driving)).sum().backward()
    torch.testing.assert_close(actual, [p.grad for p in ensemble.parameters()])


def test_independence_equals_autograd_through_squared_cosines():
    gradients = random_tensor(5, 6, 3).requires_grad_()
    unit = nn.functional.normalize(gradients, dim=-1)
    cosine = torch.einsum("ibk,jbk->ijb", unit, unit)
    penalty = sum(cosine[i, j].square().mean() for i in range(5) for j in range(i))
    (expected,) = torch.autograd.grad(penalty, gradients)
    potential, force, mixing = independence(gradients)
    torch.testing.assert_close(potential.sum(), penalty.detach())
    torch.testing.assert_close(force, expected)
    assert mixing is None


def test_independence_leaves_vanishing_gradients_alone():
    gradients = random_tensor(4, 3, 2)
    gradients[1, 2] = 1e-13
    potential, force, _ = independence(gradients)
    assert not force[1, 2].any()
    assert force[1, 1].any()
    assert torch.isfinite(potential).all()


def test_steins_potential_is_the_mean_kernel():
    points = random_tensor(5, 3, 2)
    kernel = Kernel(bandwidth=0.7, unit_sphere=False)
    between = kernel_by_hand(points, points, torch.tensor([0.7]))
    potential, _, mixing = stein(points, kernel)
    torch.testing.assert_close(potential, between.mean(1))
    torch.testing.assert_close(mixing, between / 5)


def test_linear_softmax_models_have_the_force_written_by_hand():
    # z = W x + b: the gradient of z_y with respect to x is the row w_y itself, so with two members
    # (κ = 1/4 off the diagonal, h = d²/(2 log 2)) and one row the force on W has one row, too:
    # ∂/∂u_1 = −2 (1/4)/(1 + 1/4) (u_1 − u_2)/h with u = w_y/|w_y|, then tangential over |w_y|.
    ensemble = Ensemble(lambda: nn.Linear(3, 2), 2, seed=1).double()
    X, y = random_tensor(1, 3), torch.tensor([1])
    likelihood = replace(CATEGORICAL, gradient_target=lambda logits, y: logits[..., 1])
    plain = accumulate_gradients(ensemble, X, y)
    driving = [p.grad.clone() for p in ensemble.parameters()]
    ensemble.zero_grad()
    step = accumulate_gradients(
        ensemble, X, y, repulsion=Repulsion(strength=2.0), likelihood=likelihood
    )
    weight, bias = (
        p.grad - before for p, before in zip(ensemble.parameters(), driving, strict=True)
    )
    w = ensemble.stacked.get_parameter("weight").detach()[:, 1]
    norm = w.norm(dim=-1, keepdim=True)
    u = w / norm
    between = u - u.flip(0)
    h = between[0].square().sum() / (2 * math.log(2))
    along = -2 * 0.25 / 1.25 * between / h
    expected = 2.0 * (along - u * (u * along).sum(-1, keepdim=True)) / norm
    torch.testing.assert_close(weight[:, 1], expected)
    assert weight[:, 0].abs().max() < 1e-15
    assert bias.abs().max() < 1e-15
    torch.testing.assert_close(step.repulsion, torch.full((2,), 2.0 * math.log(1.25)).double())
    torch.testing.assert_close(step.driving_loss, plain.driving_loss)


def test_a_space_of_ones_own_equals_the_built_in_one():
    def probabilities(ensemble, X, y):
        return ensemble(X).softmax(-1).flatten(1).unsqueeze(1)

    gradients = []
    for space in (SPACES["function"], space_of(probabilities)):
        ensemble, X, y = make_ensemble()
        kernel = Kernel(bandwidth="paper", unit_sphere=False)
        repulsion = Repulsion(space, kernel, strength=5.0, fraction=0.5)
        accumulate_gradients(ensemble, X, y, repulsion=repulsion)
        gradients.append([p.grad for p in ensemble.parameters()])
    torch.testing.assert_close(*gradients)


# ---- points, accumulation, other modules


@pytest.mark.parametrize("kind", [Ensemble, stack_members])
@pytest.mark.parametrize("space", ["input_gradient", "function", "feature"])
def test_points_are_compared_and_not_learnt_from(kind, space):
    ensemble, X, y = make_ensemble(kind)
    points = random_tensor(3, 5, seed=7)
    plain = accumulate_gradients(ensemble, X, y)
    driving = [p.grad.clone() for p in ensemble.parameters()]
    ensemble.zero_grad()
    kernel = Kernel(bandwidth="paper", unit_sphere=SPACES[space].directions)
    repulsion = Repulsion(SPACES[space], kernel, strength=0.0, fraction=0.5)
    learnt = accumulate_gradients(ensemble, X, y, repulsion=repulsion, points=points)
    torch.testing.assert_close([p.grad for p in ensemble.parameters()], driving)
    torch.testing.assert_close(learnt.driving_loss, plain.driving_loss)
    torch.testing.assert_close(learnt.outputs, plain.outputs)

    # As if the points were rows of the batch, whose class is the predicted one.
    guess = ensemble(points).detach().softmax(-1).mean(0).argmax(-1)
    repulsion = replace(repulsion, strength=4.0)
    step = accumulate_gradients(ensemble, X, y, repulsion=repulsion, points=points)
    rows, targets = torch.cat([points, X]), torch.cat([guess, y])
    evaluation = SPACES[space].evaluate(ensemble, rows, targets, 3 + 4, CATEGORICAL)
    expected = wasserstein(evaluation.representation, kernel).potential
    torch.testing.assert_close(step.repulsion, 4.0 / len(X) * expected)
    together = [p.grad.clone() for p in ensemble.parameters()]
    ensemble.zero_grad()
    evaluation = SPACES[space].evaluate(ensemble, rows, targets, 3 + 4, CATEGORICAL)
    force = wasserstein(evaluation.representation, kernel).force
    repelled = evaluation.pullback(torch.zeros_like(evaluation.outputs), 4.0 / len(X) * force)
    expected = [2 * d + r for d, r in zip(driving, repelled, strict=True)]  # added to before
    torch.testing.assert_close(together, expected)


@pytest.mark.parametrize(
    ("space", "update"),
    [*((space, wasserstein) for space in SPACES), ("weight", stein), ("function", stein)],
)
def test_gradients_are_added_to_those_there_before(space, update):
    ensemble, X, y = make_ensemble()
    kernel = Kernel(bandwidth="paper", unit_sphere=SPACES[space].directions)
    repulsion = Repulsion(SPACES[space], kernel, update)
    accumulate_gradients(ensemble, X, y, repulsion=repulsion)
    once = [p.grad.clone() for p in ensemble.parameters()]
    accumulate_gradients(ensemble, X, y, repulsion=repulsion)
    twice = [p.grad for p in ensemble.parameters()]
    torch.testing.assert_close(twice, [2 * gradient for gradient in once])


def test_features_of_a_convolutional_network_are_what_enters_its_last_layer():
    def member():
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))

    ensemble, X = Ensemble(member, 3), torch.randn(5, 1, 4, 4)
    outputs, features = ensemble.outputs_and_features(X)
    torch.testing.assert_close(outputs, ensemble(X))
    for i in range(3):
        torch.testing.assert_close(features[i], ensemble.member(i)[:3](X))


def parametrized(layer):
    return register_parametrization(layer, "weight", nn.Tanh())


class CalledByName(nn.Module):
    """Calls its last layer by keyword, and looks something up after it."""

    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(4, 3)
        self.head = nn.Linear(3, 2)
        self.shift = nn.Embedding(1, 2)

    def forward(self, X):
        index = torch.zeros(len(X), dtype=torch.int64)
        return self.head(input=self.hidden(X).tanh()) + self.shift(index)


@pytest.mark.parametrize(
    ("member", "until_last"),
    [
        (CalledByName, lambda module, X: module.hidden(X).tanh()),
        (
            lambda: nn.Sequential(nn.Linear(4, 3), parametrized(nn.Linear(3, 2))),
            lambda module, X: module[0](X),
        ),
    ],
)
@pytest.mark.parametrize("n_rows", [1, 2, 5])  # two rows look like the two of the weight
def test_features_of_unusual_modules(member, until_last, n_rows):
    ensemble, X = Ensemble(member, 3), torch.randn(n_rows, 4)
    outputs, features = ensemble.outputs_and_features(X)
    torch.testing.assert_close(outputs, ensemble(X))
    for i in range(3):
        torch.testing.assert_close(features[i], until_last(ensemble.member(i), X))


def test_features_that_are_not_row_by_row():
    """A head shared by parts of a row is compared at the parts."""

    class PerCell(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(2, 5), nn.Linear(5, 2)

        def forward(self, X):
            cells = torch.tanh(self.body(X.reshape(-1, 2)))
            return self.head(cells).reshape(len(X), 3, 2).mean(1)

    ensemble, X = Ensemble(PerCell, 3), torch.randn(4, 6)
    _, features = ensemble.outputs_and_features(X)
    for i in range(3):
        expected = torch.tanh(ensemble.member(i).body(X.reshape(-1, 2)))
        torch.testing.assert_close(features[i], expected)


def test_each_member_draws_its_own_dropout_mask_in_feature_space():
    def member():
        return nn.Sequential(nn.Linear(4, 50), nn.Dropout(0.5), nn.Linear(50, 2))

    _, features = Ensemble(member, 3).outputs_and_features(torch.ones(1, 4))
    dropped = features[:, 0] == 0
    assert not torch.equal(dropped[0], dropped[1])
    assert not torch.equal(dropped[1], dropped[2])


def test_frozen_parameters_are_no_part_of_weight_space():
    def member():
        module = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        module[0].requires_grad_(False)
        return module

    ensemble = Ensemble(member, 3)
    X, y = torch.randn(5, 4), torch.tensor([0, 1, 0, 1, 0])
    evaluation = SPACES["weight"].evaluate(ensemble, X, y, 5)
    assert evaluation.representation.shape == (3, 1, 3 * 2 + 2)
    accumulate_gradients(ensemble, X, y, repulsion=Repulsion(SPACES["weight"], Kernel(bandwidth=1)))
    has_gradient = {name: p.grad is not None for name, p in ensemble.stacked.named_parameters()}
    assert has_gradient == {"0.weight": False, "0.bias": False, "1.weight": True, "1.bias": True}


@pytest.mark.parametrize("space", [*SPACES.values(), space_of(lambda e, X, y: e(X).softmax(-1))])
def test_batch_normalisation_in_every_space(space):
    """Outputs are those of the whole batch, however few rows are compared."""

    def member():
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.SiLU(), nn.Linear(6, 2))

    ensemble = Ensemble(member, 3).double()
    X, y = torch.randn(8, 4).double(), torch.arange(8) % 2
    expected = ensemble(X)
    kernel = Kernel(bandwidth="paper", unit_sphere=space.directions)
    step = accumulate_gradients(
        ensemble, X, y, repulsion=Repulsion(space, kernel, fraction=0.1)
    )  # one row compared
    torch.testing.assert_close(step.outputs, expected)
    assert step.objective.isfinite()


def test_a_module_without_layers_has_no_features():
    with pytest.raises(ValueError, match="calls no layer with a weight matrix"):
        Ensemble(Particle, 2).outputs_and_features(torch.zeros(3, 1))


# ---- kernel and likelihood


@pytest.mark.parametrize("bandwidth", ["reference", "paper", 0.7])
def test_bandwidth_rules_by_loops(bandwidth):
    points = random_tensor(5, 3, 4)
    kernel = Kernel(bandwidth=bandwidth, unit_sphere=False)
    for b in range(3):
        actual = kernel.compare(points[:, b : b + 1]).kernel
        sq_dist = ((points[:, None, b] - points[None, :, b]) ** 2).sum(-1)
        for j in range(5):
            expected = {
                "reference": np.median(sq_dist[:, j]) / math.log(5) + 1e-12,
                "paper": np.median(sq_dist) / math.log(5) + 1e-12,
            }.get(bandwidth, bandwidth)
            for i in range(5):
                value = math.exp(-sq_dist[i, j] / expected)
                assert actual[i, j].item() == pytest.approx(value, rel=1e-9)


def test_kernel_is_one_on_the_diagonal_symmetric_and_grows_with_the_bandwidth():
    points = random_tensor(6, 4, 3)
    narrow, wide = (Kernel(bandwidth=h).compare(points).kernel for h in (0.1, 1.0))
    torch.testing.assert_close(narrow.diagonal(), torch.ones(6).double())
    torch.testing.assert_close(narrow, narrow.mT)
    assert (wide >= narrow).all()


def test_a_fixed_bandwidth_takes_the_precision_as_it_is():
    points, precision = random_tensor(4, 3, 2), torch.tensor([9.0, 4.0]).double()
    kernel = Kernel(Metric(precision=precision), bandwidth=2.0, unit_sphere=False)
    sq_dist = (precision * (points[:, None] - points[None, :]) ** 2).sum(-1)
    expected = torch.exp(-sq_dist / 2.0).mean(-1)
    torch.testing.assert_close(kernel.compare(points).kernel, expected)


@pytest.mark.parametrize("bandwidth", ["median", 0.0, -1.0, None])
def test_wrong_bandwidth_is_told(bandwidth):
    with pytest.raises(ValueError, match="Got bandwidth="):
        Kernel(bandwidth=bandwidth)


def test_stein_needs_a_symmetric_kernel():
    with pytest.raises(ValueError, match="Got bandwidth='reference' with update='svgd'"):
        stein(random_tensor(3, 2, 2))


def test_gaussian_likelihood_and_its_gradient():
    outputs, y = random_tensor(3, 6, 2).requires_grad_(), random_tensor(6, seed=1)
    weight = torch.linspace(0.5, 1.5, 6, dtype=torch.float64)
    loss, cotangent = gaussian_nll(outputs.detach(), y, weight)
    variance = nn.functional.softplus(outputs[..., 1]) + 1e-6
    by_torch = -torch.distributions.Normal(outputs[..., 0], variance.sqrt()).log_prob(y)
    expected = (by_torch * weight).mean(1)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(cotangent, torch.autograd.grad(expected.sum(), outputs)[0])


@pytest.mark.parametrize("kind", [Ensemble, stack_members])
def test_a_regressors_input_gradients_are_those_of_its_mean(kind):
    ensemble = kind(lambda: MLP(5, 2, hidden_layer_sizes=(6,)), 3, seed=0).double()
    X = random_tensor(4, 5)
    actual = input_gradients(ensemble, X, torch.zeros(4).double(), 4, GAUSSIAN).representation
    points = X.expand(3, 4, 5).clone().requires_grad_()
    means = ensemble(points, shared=False)[..., 0]
    torch.testing.assert_close(actual, torch.autograd.grad(means.sum(), points)[0])
