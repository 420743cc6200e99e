"""One training step against reference values and against autograd through the whole objective."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from sklearn_fordes.networks import MLP, stack_members
from sklearn_fordes.particles import (
    CATEGORICAL,
    GRADIENT_TARGETS,
    LENGTHSCALES,
    Ensemble,
    Kernel,
    Metric,
    Repulsion,
    accumulate_gradients,
    input_gradients,
    tuned,
    wasserstein,
)


def make_ensemble(n_members=4, n_features=5, n_classes=3, *, kind=Ensemble, **mlp):
    member = partial(MLP, n_features, n_classes, **{"hidden_layer_sizes": (6, 6), **mlp})
    return kind(member, n_members, seed=3).double()


def make_batch(n_rows=8, n_features=5, n_classes=3):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(n_rows, n_features, dtype=torch.float64, generator=generator)
    return X, torch.randint(n_classes, (n_rows,), generator=generator)


def gradients_of(ensemble):
    return [parameter.grad.clone() for parameter in ensemble.parameters()]


@pytest.mark.parametrize("kind", [Ensemble, stack_members])
@pytest.mark.parametrize("case", ["step-relu-identity", "step-silu-pca"])
def test_matches_reference_values(reference, case, kind):
    value = {
        name.removeprefix(f"{case}/"): array
        for name, array in reference.items()
        if name.startswith(case)
    }
    X, y = torch.tensor(value["X"]), torch.tensor(value["y"])
    n_members, n_classes, _ = value["weight2"].shape
    activation = str(value["activation"])
    ensemble = make_ensemble(n_members, X.shape[1], n_classes, kind=kind, activation=activation)
    layers = [ensemble.stacked.get_submodule(str(2 * i)) for i in range(3)]
    with torch.no_grad():
        for i, layer in enumerate(layers):
            layer.weight.copy_(torch.tensor(value[f"weight{i}"]))
            layer.bias.copy_(torch.tensor(value[f"bias{i}"]))
    metric = Metric()
    if "eigenvectors" in value:
        metric = Metric(torch.tensor(value["eigenvectors"]), torch.tensor(value["eigenvalues"]))
    likelihood = replace(CATEGORICAL, gradient_target=GRADIENT_TARGETS["logit"])
    repulsion = Repulsion(kernel=Kernel(metric))
    step = accumulate_gradients(ensemble, X, y, repulsion=repulsion, likelihood=likelihood)
    gradients = input_gradients(ensemble, X, y, len(X), likelihood).representation

    def assert_matches(actual, name):
        torch.testing.assert_close(actual.detach(), torch.tensor(value[name]), atol=1e-10, rtol=0)

    assert_matches(gradients, "input_gradients")
    assert_matches(step.driving_loss, "cross_entropy")
    assert_matches(step.repulsion.sum(), "potential")
    for i, layer in enumerate(layers):
        assert_matches(layer.weight.grad, f"grad_weight{i}")
        assert_matches(layer.bias.grad, f"grad_bias{i}")


@pytest.mark.parametrize("target", GRADIENT_TARGETS)
@pytest.mark.parametrize("lengthscale", LENGTHSCALES)
@pytest.mark.parametrize("fraction", [0.4, 1.0])
def test_joint_backward_equals_autograd_through_the_objective(target, lengthscale, fraction):
    ensemble, (X, y) = make_ensemble(), make_batch()
    weight = torch.linspace(0.5, 1.5, len(X), dtype=torch.float64)
    metric = LENGTHSCALES[lengthscale](X)
    likelihood = replace(CATEGORICAL, gradient_target=GRADIENT_TARGETS[target])
    repulsion = Repulsion(kernel=Kernel(metric), strength=7.0, fraction=fraction)
    step = accumulate_gradients(ensemble, X, y, weight, repulsion, likelihood=likelihood)
    actual = gradients_of(ensemble)

    ensemble.zero_grad()
    n_rows = round(fraction * len(X))
    points = X.expand(ensemble.n_members, *X.shape).clone().requires_grad_()
    logits = ensemble(points, shared=False)
    targets = GRADIENT_TARGETS[target](logits, y)
    (gradients,) = torch.autograd.grad(targets.sum(), points, create_graph=True)
    log_density, force = wasserstein(gradients[:, :n_rows], Kernel(metric))[:2]
    # A linear stand-in with the right value and slope: the kernel itself is tested elsewhere.
    inner = (gradients[:, :n_rows] * force).sum((1, 2))
    repelled = 7.0 / len(X) * (log_density + inner - inner.detach())
    losses = nn.functional.cross_entropy(logits.mT, y.expand(4, -1), reduction="none")
    ((losses * weight).mean(1) + repelled).sum().backward()
    torch.testing.assert_close(actual, gradients_of(ensemble), atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(step.driving_loss, (losses * weight).mean(1).detach())
    torch.testing.assert_close(step.repulsion, repelled.detach())
    torch.testing.assert_close(step.outputs, logits.detach())


@pytest.mark.parametrize("wrong", [{"strength": -1.0}, {"fraction": 0.0}, {"fraction": 1.5}])
def test_wrong_repulsion_is_told(wrong):
    with pytest.raises(ValueError, match=f"Got {next(iter(wrong))}="):
        Repulsion(**wrong)


def test_log_prob_keeps_its_direction_when_training_has_converged():
    logits = torch.tensor([[[20.0, 1.0, 0.0]]], requires_grad=True)
    value = GRADIENT_TARGETS["log_prob"](logits, torch.tensor([0]))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    exact = logits.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(exact.log_softmax(-1)[0, 0, 0], exact)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=0)


def test_gradient_targets_by_hand():
    logits = torch.tensor([[[1.0, 2.0, 4.0]], [[0.0, 0.0, 0.0]]])
    y = torch.tensor([1])
    p = logits.softmax(-1)[..., 1]
    torch.testing.assert_close(GRADIENT_TARGETS["logit"](logits, y), logits[..., 1])
    torch.testing.assert_close(GRADIENT_TARGETS["log_prob"](logits, y), p.log())
    torch.testing.assert_close(GRADIENT_TARGETS["log_odds"](logits, y), (p / (1 - p)).log())
    shift = torch.tensor([[[5.0]], [[-2.0]]])
    torch.testing.assert_close(
        GRADIENT_TARGETS["log_odds"](logits + shift, y), GRADIENT_TARGETS["log_odds"](logits, y)
    )


def test_batch_normalised_members_are_repelled_through_one_forward_pass():
    # Statistics must come from the whole batch although only some of its rows are compared.
    def member():
        return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.SiLU(), nn.Linear(6, 3))

    ensemble, (X, y) = Ensemble(member, 3).double(), make_batch()
    plain = Ensemble(member, 3).double()
    step = accumulate_gradients(ensemble, X, y, repulsion=Repulsion(fraction=0.25))
    torch.testing.assert_close(step.outputs, plain(X).detach())
    statistics = [e.stacked.get_submodule("1").running_mean for e in (ensemble, plain)]
    torch.testing.assert_close(*statistics)
    assert ensemble.stacked.get_submodule("1").num_batches_tracked.tolist() == [1, 1, 1]


def test_parameters_whose_gradients_are_one_tensor_each_have_their_own():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3, bias=False)
            self.a, self.b = (nn.Parameter(torch.randn(3)) for _ in range(2))

        def forward(self, X):
            return self.linear(X) + (self.a + self.b)

    ensemble = Ensemble(Sum, 3)
    X, y = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    accumulate_gradients(ensemble, X, y)
    once = ensemble.stacked.a.grad.clone()
    accumulate_gradients(ensemble, X, y)
    torch.testing.assert_close(ensemble.stacked.a.grad, 2 * once)
    torch.testing.assert_close(ensemble.stacked.b.grad, 2 * once)


@pytest.mark.parametrize("n_members", [1, 2])
@pytest.mark.parametrize("n_rows", [1, 3])
def test_smallest_ensembles_and_batches_are_finite(n_members, n_rows):
    ensemble, (X, y) = make_ensemble(n_members), make_batch(n_rows)
    step = accumulate_gradients(ensemble, X, y, repulsion=Repulsion())
    assert torch.isfinite(step.objective)
    assert all(torch.isfinite(gradient).all() for gradient in gradients_of(ensemble))
    if n_members == 1:
        assert not step.repulsion.any()


def test_members_that_start_alike_stay_finite():
    ensemble, (X, y) = make_ensemble(), make_batch()
    with torch.no_grad():
        for parameter in ensemble.parameters():
            parameter.copy_(parameter[:1].expand_as(parameter))
    accumulate_gradients(ensemble, X, y, repulsion=Repulsion(strength=100.0))
    alone, _ = make_ensemble(), None
    for parameter, source in zip(alone.parameters(), ensemble.parameters(), strict=True):
        parameter.data.copy_(source.data)
    accumulate_gradients(alone, X, y)
    torch.testing.assert_close(gradients_of(ensemble), gradients_of(alone))


def test_repulsion_turns_input_gradients_apart():
    ensemble, (X, y) = make_ensemble(6), make_batch(32)

    def mean_cosine():
        gradients = input_gradients(ensemble, X, y, len(X)).representation
        unit = nn.functional.normalize(gradients, dim=-1)
        cosine = torch.einsum("ibk,jbk->ijb", unit, unit).mean(-1)
        return (cosine.sum() - cosine.trace()).item()

    before = mean_cosine()
    optimizer = torch.optim.SGD(ensemble.parameters(), lr=0.05)
    for _ in range(50):
        optimizer.zero_grad()
        step = accumulate_gradients(ensemble, X, y, repulsion=Repulsion(strength=20.0))
        optimizer.step()
    assert torch.isfinite(step.objective)
    assert mean_cosine() < before


def test_pca_weighs_directions_by_their_variance():
    X, _ = make_batch(200, 3)
    X = X * torch.tensor([1.0, 3.0, 0.1]) + 5
    rotation, precision = LENGTHSCALES["pca"](X.float())
    covariance = torch.cov(X.float().double().T)
    covariance = covariance / covariance.diag().mean()  # of a mean of 1, like tuned lengthscales
    assert rotation.dtype == precision.dtype == torch.float64
    torch.testing.assert_close(rotation @ precision.diag() @ rotation.T, covariance)
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(3).double())


@pytest.mark.parametrize("alpha", [0.2, 0.7])
@pytest.mark.parametrize("units", [1.0, 100.0])
def test_tuned_lengthscales_by_hand(alpha, units):
    X, _ = make_batch(200, 3)
    X = units * X * torch.tensor([1.0, 3.0, 0.1])
    variances, axes = torch.linalg.eigh(torch.cov(X.T))
    variances = variances / variances.mean()
    averaged = {
        "precision": (1 - alpha) + alpha * variances,
        "variance": 1 / ((1 - alpha) + alpha / variances),
    }
    for mix, expected in averaged.items():
        rotation, precision = tuned(X, alpha=alpha, mix=mix)
        torch.testing.assert_close(precision, expected)
        torch.testing.assert_close(
            rotation @ precision.diag() @ rotation.T, axes @ expected.diag() @ axes.T
        )


def test_tuned_lengthscales_where_the_data_does_not_vary():
    X = torch.tensor([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]], dtype=torch.float64)
    lowest = [tuned(X, alpha=0.1, mix=mix).precision.min() for mix in ("precision", "variance")]
    torch.testing.assert_close(torch.stack(lowest), torch.tensor([0.9, 0.0]).double())


@pytest.mark.parametrize("X", [torch.ones(1, 3), torch.ones(5, 3), torch.ones(5, 1)])
def test_pca_of_constant_inputs_is_finite(X):
    metric = LENGTHSCALES["pca"](X).to(X.double())
    representation = torch.randn(4, 2, X.shape[1], dtype=torch.float64)
    log_density, force = wasserstein(representation, Kernel(metric))[:2]
    assert torch.isfinite(log_density).all()
    assert torch.isfinite(force).all()
