"""The updates: known posteriors, definitions by hand, members and rows spread over processes."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from torch import nn

from by_hand import kernel_by_hand, random_tensor
from sklearn_fordes import particles
from sklearn_fordes.particles import Kernel, accumulate_gradients, wasserstein_update

MEAN = torch.tensor([1.0, -2.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 2.0]], dtype=torch.float64)


class Particle(nn.Module):
    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.randn(2))

    def forward(self, X):
        return self.theta.expand(len(X), 2)


class GaussianEnergy(particles.CategoricalLikelihood):
    """The loss is the negative log density of a Gaussian at the outputs."""

    def row_losses(self, outputs, y):
        gradient = (outputs - MEAN) @ torch.linalg.inv(COVARIANCE)
        return 0.5 * ((outputs - MEAN) * gradient).sum(-1), gradient

    def prediction(self, outputs):
        return outputs


def settle(update, bandwidth, *, space="weight", strength=1.0, n_steps=600, lr=0.1):
    ensemble = particles.Ensemble(Particle, 100, seed=0).double()
    kernel = Kernel(bandwidth=bandwidth, unit_sphere=False)
    repulsion = particles.BuiltRepulsion(particles.SPACES[space], kernel, update)
    optimizer = torch.optim.SGD(ensemble.parameters(), lr=lr)
    X, y = torch.zeros(1, 1).double(), torch.zeros(1).long()
    settings = {"repulsion": repulsion, "strength": strength, "likelihood": GaussianEnergy()}
    for _ in range(n_steps):
        optimizer.zero_grad()
        accumulate_gradients(ensemble, X, y, **settings)
        optimizer.step()
    theta = ensemble.stacked.get_parameter("theta").detach()
    return theta.mean(0), torch.cov(theta.T, correction=0)


@pytest.mark.slow
@pytest.mark.parametrize(("space", "bandwidth"), [("weight", "paper"), ("function", 1.0)])
def test_stein_particles_settle_at_a_gaussian_target(space, bandwidth):
    mean, covariance = settle(particles.stein_update, bandwidth, space=space, lr=1.0)
    torch.testing.assert_close(mean, MEAN, atol=0.01, rtol=0)
    torch.testing.assert_close(covariance, COVARIANCE, atol=0, rtol=0.1)  # 8 % with 100 particles


@pytest.mark.slow
def test_wasserstein_particles_settle_at_a_gaussian_target():
    # Their density is estimated with the kernel, N(0, h/2): it is this smoothed density that
    # settles at the target, and the particles themselves are narrower by h/2.
    bandwidth = 0.5
    mean, covariance = settle(wasserstein_update, bandwidth)
    torch.testing.assert_close(mean, MEAN, atol=0.01, rtol=0)
    smoothed = covariance + bandwidth / 2 * torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(smoothed, COVARIANCE, atol=0, rtol=0.12)
    torch.testing.assert_close(covariance, COVARIANCE, atol=0, rtol=0.35)


def test_the_documented_force_is_that_of_the_default_update():
    gradients, precision = random_tensor(5, 3, 4), torch.tensor([1.0, 2.0, 0.5, 0.0]).double()
    rotation, _ = torch.linalg.qr(random_tensor(4, 4, seed=1))
    kernel = Kernel(particles.Lengthscale(rotation, precision), eps=1e-3)
    expected = wasserstein_update(gradients, kernel)
    actual = particles.repulsion_force(gradients, rotation=rotation, precision=precision, eps=1e-3)
    torch.testing.assert_close(actual, expected[:2], rtol=0, atol=0)
    assert expected.mixing is None


def test_steins_potential_is_the_mean_kernel_and_its_force_the_gradient():
    points = random_tensor(5, 3, 2).requires_grad_()
    between = kernel_by_hand(points, 0.7)
    (gradient,) = torch.autograd.grad(between.sum() / 5, points)
    kernel = Kernel(bandwidth=0.7, unit_sphere=False)
    potential, force, mixing = particles.stein_update(points.detach(), kernel)
    torch.testing.assert_close(potential, between.detach().mean(1))
    torch.testing.assert_close(mixing, between.detach() / 5)
    torch.testing.assert_close(force, gradient)
    with pytest.raises(ValueError, match="Got bandwidth='reference' with update='svgd'"):
        particles.stein_update(points)  # which is not symmetric


def test_independence_equals_autograd_through_squared_cosines():
    gradients = random_tensor(5, 6, 3).requires_grad_()
    unit = nn.functional.normalize(gradients, dim=-1)
    cosine = torch.einsum("ibk,jbk->ijb", unit, unit)
    penalty = sum(cosine[i, j].square().mean() for i in range(5) for j in range(i))
    (expected,) = torch.autograd.grad(penalty, gradients)
    potential, force, mixing = particles.independence_update(gradients)
    torch.testing.assert_close(potential.sum(), penalty.detach())
    torch.testing.assert_close(force, expected)
    assert mixing is None
    vanishing = gradients.detach().clone()
    vanishing[1, 2] = 1e-13
    force = particles.independence_update(vanishing).force
    assert torch.equal(force.norm(dim=-1) == 0, vanishing.norm(dim=-1) < 1e-12)


LENGTHSCALE = particles.Lengthscale(None, torch.tensor([1.0, 3.0, 0.2]).double())
KERNELS = {h: Kernel(LENGTHSCALE, h) for h in ("reference", "paper", 0.5)}


class HoldsSomeRows:
    """A process with some of the rows, in a thread that waits for those with the others."""

    def __init__(self, rank, board, barrier):
        self.rank, self.board, self.barrier = rank, board, barrier

    def mean(self, values, n_rows):
        self.board[self.rank] = values * n_rows, n_rows
        self.barrier.wait(timeout=10)
        total, n_in_all = map(sum, zip(*self.board, strict=True))
        self.barrier.wait(timeout=10)
        return total / n_in_all, n_in_all


@pytest.mark.parametrize("bandwidth", KERNELS)
def test_rows_on_two_processes_add_to_one_density(bandwidth):
    representation, kernel = random_tensor(5, 6, 3), KERNELS[bandwidth]
    whole = wasserstein_update(representation, kernel)
    board, barrier = [None, None], Barrier(2)

    def compute(rank):
        rows = representation[:, 4 * rank : 4 * (rank + 1)]  # Four, and two.
        return wasserstein_update(rows, kernel, HoldsSomeRows(rank, board, barrier))

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(compute, range(2))
    for part in (one, other):
        torch.testing.assert_close(part.potential, whole.potential, atol=1e-12, rtol=0)
    force = torch.cat([one.force, other.force], dim=1)
    torch.testing.assert_close(force, whole.force, atol=1e-12, rtol=0)
