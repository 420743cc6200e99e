"""The repulsion force against reference values, autograd, and its own properties."""

import math

import numpy as np
import pytest
import torch

from by_hand import case_of, random_tensor
from sklearn_fordes.particles import (
    UPDATES,
    Kernel,
    Lengthscale,
    repulsion_force,
    wasserstein_update,
)


def random_lengthscale(width):
    rng = np.random.default_rng(1)
    rotation = np.linalg.qr(rng.normal(size=(width, width)))[0]
    return torch.tensor(rotation), torch.tensor(rng.exponential(size=width))


def by_loops(points, kernel):
    """log Σ_j k(i, j) and Σ_j ∇k(i, j) / Σ_j k(i, j), one kernel at a time, by autograd."""
    n_members, n_rows, width = points.shape
    rotation, precision = kernel.lengthscale
    rotation = torch.eye(width).double() if rotation is None else rotation
    precision = torch.ones(width).double() if precision is None else precision

    def placed(vectors):
        axes = vectors @ rotation
        norm = torch.sqrt((axes**2).sum(-1, keepdim=True) + 1e-24) if kernel.unit_sphere else 1
        return axes / norm * torch.sqrt(precision)

    fixed = placed(points)
    sq_dist = (fixed[:, None] - fixed[None, :]).square().sum(-1).numpy()  # (M, M, B)

    def bandwidth(j, b):
        distances = {"reference": sq_dist[:, j, b], "paper": sq_dist[:, :, b]}
        if kernel.bandwidth not in distances:
            return kernel.bandwidth
        return np.median(distances[kernel.bandwidth]) / math.log(n_members) + 1e-12

    moving = points.clone().requires_grad_()
    kernels = torch.zeros(n_members, dtype=torch.float64)
    for i, j, b in np.ndindex(n_members, n_members, n_rows):
        kernels[i] += torch.exp(
            -((placed(moving[i, b]) - fixed[j, b]) ** 2).sum() / bandwidth(j, b)
        )
    log_density = (kernels / n_rows).log()
    return log_density.detach(), torch.autograd.grad(log_density.sum(), moving)[0]


@pytest.mark.parametrize("shape", [(2, 1, 3), (2, 5, 1), (3, 4, 2), (5, 1, 7), (6, 3, 4)])
@pytest.mark.parametrize("bandwidth", ["reference", "paper", 0.7])
@pytest.mark.parametrize("unit_sphere", [True, False])
@pytest.mark.parametrize("of_width", [lambda width: (), random_lengthscale])
def test_matches_loops_over_members_and_rows(shape, bandwidth, unit_sphere, of_width):
    # Where the bandwidth is a median, a common factor of the precision cancels.
    kernel = Kernel(Lengthscale(*of_width(shape[-1])), bandwidth, unit_sphere)
    points = random_tensor(*shape)
    log_density, force, _ = wasserstein_update(points, kernel)
    expected = by_loops(points, kernel)
    torch.testing.assert_close((log_density, force), expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("case", ["kernel-identity", "kernel-pca"])
def test_matches_reference_values(reference, case):
    value = {name: torch.tensor(array) for name, array in case_of(reference, case).items()}
    lengthscale = {"rotation": value.get("eigenvectors"), "precision": value.get("eigenvalues")}
    gradients, eps = value["input_gradients"], float(value["eps"])
    log_density, force = repulsion_force(gradients, **lengthscale, eps=eps)
    n_rows = force.shape[1]
    torch.testing.assert_close(log_density, value["log_density"], atol=1e-10, rtol=0)
    torch.testing.assert_close(log_density.sum() / n_rows, value["potential"], atol=1e-10, rtol=0)
    torch.testing.assert_close(force / n_rows, value["gradient"], atol=1e-10, rtol=0)


@pytest.mark.parametrize("bandwidth", ["reference", "paper", 0.5])
@pytest.mark.parametrize("unit_sphere", [True, False])
def test_single_member_is_not_repelled(bandwidth, unit_sphere):
    kernel = Kernel(bandwidth=bandwidth, unit_sphere=unit_sphere)
    log_density, force, _ = wasserstein_update(random_tensor(1, 4, 3), kernel)
    assert log_density.tolist() == [0.0]
    assert not force.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_vanishing_gradient_feels_no_force_and_the_others_a_finite_one(dtype):
    some = random_tensor(4, 3, 2).to(dtype)
    some[1], some[2, 1], some[0, 0] = 0, 1e-13, 0
    log_density, force = repulsion_force(some)
    assert torch.isfinite(log_density).all()
    assert torch.isfinite(force).all()
    is_gone = some.norm(dim=-1) < 1e-12
    assert torch.equal(force.norm(dim=-1) == 0, is_gone)


@pytest.mark.parametrize(("distance", "far"), [(1.0, None), (1e-4, None), (1e-4, 0), (1e-4, 3)])
@pytest.mark.parametrize("n_members", [6, 40])
def test_single_precision_resolves_members_that_are_close(n_members, distance, far):
    gradients = random_tensor(1, 20, 5) + distance * random_tensor(n_members, 20, 5, seed=2)
    if far is not None:  # a cluster away from one member
        gradients[far] = random_tensor(20, 5, seed=3)
    _, expected = repulsion_force(gradients)
    _, force = repulsion_force(gradients.float())
    assert (force.double() - expected).norm() < 1e-2 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_members_feel_no_force(dtype):
    for one in (random_tensor(1, 5, 4).to(dtype), torch.zeros(1, 5, 4, dtype=dtype)):
        log_density, force = repulsion_force(one.repeat(6, 1, 1))
        torch.testing.assert_close(log_density, torch.full((6,), math.log(6), dtype=dtype))
        assert not force.any()


@pytest.mark.parametrize("bandwidth", ["reference", "paper"])
def test_members_of_half_precision_are_compared(bandwidth):
    some = random_tensor(3, 4, 5).bfloat16()
    _, actual, _ = wasserstein_update(some, Kernel(bandwidth=bandwidth))
    _, expected, _ = wasserstein_update(some.float(), Kernel(bandwidth=bandwidth))
    torch.testing.assert_close(actual.float(), expected, rtol=0.1, atol=0.05)


def test_rounding_noise_is_not_amplified_in_single_precision():
    # One feature leaves only two directions: members differ by rounding alone.
    gradients = random_tensor(6, 50, 1).abs().float()
    _, force = repulsion_force(gradients)
    assert (force * gradients).abs().max() < 1e-3  # where members differ, it is of the order of 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("factor", [7.0, 1e-10])
def test_common_factor_of_the_precision_cancels(dtype, factor):
    rotation, precision = (part.to(dtype) for part in random_lengthscale(3))
    gradients = random_tensor(5, 4, 3).to(dtype)
    one = repulsion_force(gradients, rotation=rotation, precision=precision)
    other = repulsion_force(gradients, rotation=rotation, precision=factor * precision)
    torch.testing.assert_close(one, other)


def test_input_is_neither_changed_nor_differentiated():
    gradients = random_tensor(3, 2, 2).requires_grad_()
    before = gradients.detach().clone()
    log_density, force = repulsion_force(gradients)
    assert not log_density.requires_grad
    assert not force.requires_grad
    assert torch.equal(gradients.detach(), before)


class LaplaceKernel(Kernel):
    """exp(−d/√h): a kernel of a user's own."""

    def base_kernel(self, sq_dist, bandwidth):
        scaled = (sq_dist / bandwidth).sqrt()
        value = torch.exp(-scaled)
        # At distance zero the kernel has a kink, and the difference that it multiplies is zero.
        return value, torch.where(scaled > 0, value / (2 * scaled * bandwidth), 0.0)


@pytest.mark.parametrize("kind", [Kernel, LaplaceKernel])
@pytest.mark.parametrize("unit_sphere", [True, False])
def test_gradient_of_any_base_kernel_by_finite_differences(kind, unit_sphere):
    kernel = kind(Lengthscale(*random_lengthscale(2)), 0.5, unit_sphere)
    fixed = random_tensor(4, 3, 2)

    def density(moved):  # Σ_jb κ between members that move and copies that do not
        return 3 * kernel.compare(torch.cat([moved, fixed])).kernel[:4, 4:].sum()

    gradient = kernel.compare(fixed).gradient
    for index in np.ndindex(4, 3, 2):
        step = torch.zeros_like(fixed)
        step[index] = 1e-6
        # The kink lies where a member meets its own copy: both sides together leave it out.
        slope = (density(fixed + step) - density(fixed - step)) / 2e-6
        assert gradient[index].item() == pytest.approx(slope.item(), abs=1e-6)


@pytest.mark.parametrize("bandwidth", ["reference", "paper", 0.5])
def test_rows_are_compared_in_chunks(monkeypatch, bandwidth):
    points, kernel = random_tensor(4, 7, 3), Kernel(bandwidth=bandwidth)
    at_once = kernel.compare(points)
    monkeypatch.setattr("sklearn_fordes.particles._kernel._PAIRS_AT_A_TIME", 2 * 4**2)
    torch.testing.assert_close(kernel.compare(points), at_once, atol=1e-14, rtol=1e-12)


@pytest.mark.parametrize("update", UPDATES)
def test_autocast_changes_no_force(update):
    points, kernel = random_tensor(4, 7, 3).float(), Kernel(bandwidth=0.5)
    expected = UPDATES[update](points, kernel).force
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(UPDATES[update](points, kernel).force, expected)


@pytest.mark.parametrize("bandwidth", ["median", 0.0, -1.0, None])
def test_a_wrong_bandwidth_raises_an_error(bandwidth):
    with pytest.raises(ValueError, match="Got bandwidth="):
        Kernel(bandwidth=bandwidth).compare(random_tensor(3, 2, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(3, 2),), r"representation of shape \(3, 2\), but expected \(n_members"),
        ((torch.ones(3, 0, 2),), r"representation of shape \(3, 0, 2\)"),
        ((torch.ones(3, 2, 4), torch.eye(3)), r"rotation has shape \(3, 3\), but expected \(4"),
        ((torch.ones(3, 2, 4), None, torch.ones(3)), r"precision has shape \(3,\), but expected"),
    ],
)
def test_wrong_shapes_are_told(arguments, message):
    representation, rotation, precision = (*arguments, None, None)[:3]
    with pytest.raises(ValueError, match=message):
        repulsion_force(representation, rotation=rotation, precision=precision)
