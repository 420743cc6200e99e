"""One training step against reference values and against autograd through the whole objective."""

import math

import pytest
import torch
from torch import nn

from by_hand import (
    gradients_of,
    input_gradients_by_autograd,
    make_batch,
    make_ensemble,
    random_tensor,
)
from sklearn_fordes.networks import stack_members
from sklearn_fordes.particles import (
    GRADIENT_TARGETS,
    LENGTHSCALES,
    SPACES,
    BuiltRepulsion,
    CategoricalLikelihood,
    Ensemble,
    Kernel,
    Lengthscale,
    Repulsion,
    accumulate_gradients,
    stein_update,
    wasserstein_update,
)


def input_gradients(ensemble, X, y, likelihood):
    evaluation = SPACES["input_gradient"].evaluate(ensemble, X, y, len(X), likelihood)
    return evaluation.representation


@pytest.mark.parametrize("kind", [Ensemble, stack_members])
@pytest.mark.parametrize("case", ["step-relu-identity", "step-silu-pca"])
def test_matches_reference_values(reference, case, kind):
    value = {
        name.removeprefix(f"{case}/"): array
        for name, array in reference.items()
        if name.startswith(case)
    }
    X, y = torch.tensor(value["X"]), torch.tensor(value["y"])
    n_members, n_classes, width = value["weight2"].shape
    mlp = {"activation": str(value["activation"]), "hidden_layer_sizes": (width, width)}
    ensemble = make_ensemble(kind, n_members, X.shape[1], n_classes, **mlp)
    layers = [ensemble.stacked.get_submodule(str(2 * i)) for i in range(3)]
    with torch.no_grad():
        for i, layer in enumerate(layers):
            layer.weight.copy_(torch.tensor(value[f"weight{i}"]))
            layer.bias.copy_(torch.tensor(value[f"bias{i}"]))
    lengthscale = Lengthscale()
    if "eigenvectors" in value:
        lengthscale = Lengthscale(
            *(torch.tensor(value[f"eigen{p}"]) for p in ("vectors", "values"))
        )
    settings = {
        "repulsion": BuiltRepulsion(kernel=Kernel(lengthscale)),
        "likelihood": CategoricalLikelihood(target="logit"),
    }
    step = accumulate_gradients(ensemble, X, y, strength=1 / len(X), **settings)
    gradients = input_gradients(ensemble, X, y, settings["likelihood"])

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
    kernel = Kernel(LENGTHSCALES[lengthscale](X))
    repulsion = BuiltRepulsion(kernel=kernel, fraction=fraction)
    settings = {"repulsion": repulsion, "likelihood": CategoricalLikelihood(target=target)}
    step = accumulate_gradients(ensemble, X, y, weight, strength=0.9, **settings)
    actual = gradients_of(ensemble)

    ensemble.zero_grad()
    n_rows = round(fraction * len(X))
    value = GRADIENT_TARGETS[target].value
    compared = input_gradients_by_autograd(ensemble, X[:n_rows], lambda z: value(z, y[:n_rows]))
    log_density, force, _ = wasserstein_update(compared, kernel)
    # A linear stand-in with the right value and slope: the kernel itself is tested elsewhere.
    inner = (compared * force).sum((1, 2))
    repelled = 0.9 * (log_density + inner - inner.detach())
    logits = ensemble(X)
    losses = nn.functional.cross_entropy(logits.mT, y.expand(4, -1), reduction="none")
    ((losses * weight).mean(1) + repelled).sum().backward()
    torch.testing.assert_close(actual, gradients_of(ensemble), atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(step.driving_loss, (losses * weight).mean(1).detach())
    torch.testing.assert_close(step.repulsion, repelled.detach())
    torch.testing.assert_close(step.outputs, logits.detach())


def test_linear_softmax_models_have_the_force_written_by_hand():
    # z = W x + b: the gradient of z_y with respect to x is the row w_y itself, so with two members
    # (κ = 1/4 off the diagonal, h = d²/(2 log 2)) and one row the force on W has one row, too:
    # ∂/∂u_1 = −2 (1/4)/(1 + 1/4) (u_1 − u_2)/h with u = w_y/|w_y|, then tangential over |w_y|.
    ensemble = Ensemble(lambda: nn.Linear(3, 2), 2, seed=1).double()
    X, y = random_tensor(1, 3), torch.tensor([1])
    plain = accumulate_gradients(ensemble, X, y)
    driving = gradients_of(ensemble)
    ensemble.zero_grad()
    settings = {"repulsion": Repulsion.paper(), "strength": 2.0}
    step = accumulate_gradients(ensemble, X, y, **settings)
    weight, bias = (g - d for g, d in zip(gradients_of(ensemble), driving, strict=True))
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


@pytest.mark.parametrize("kind", [Ensemble, stack_members])
@pytest.mark.parametrize("space", SPACES)
def test_a_strength_in_a_tensor_equals_a_number(kind, space):
    (X, y), results = make_batch(), []
    for strength in (0.7, torch.tensor(0.7, dtype=torch.float64)):
        ensemble = make_ensemble(kind)
        settings = {"repulsion": Repulsion(space), "strength": strength}
        step = accumulate_gradients(ensemble, X, y, **settings)
        results.append((step.repulsion, gradients_of(ensemble)))
    torch.testing.assert_close(*results, rtol=0, atol=0)
    assert step.repulsion.all()


def test_a_repulsion_is_built_for_the_batch_with_its_target():
    (X, y), results = make_batch(), []
    built = Repulsion.paper().build(X)
    likelihood = CategoricalLikelihood(3, target="logit")
    for settings in ({"repulsion": Repulsion.paper()}, {"repulsion": built}):
        ensemble = make_ensemble()
        given = likelihood if settings["repulsion"] is built else None
        accumulate_gradients(ensemble, X, y, likelihood=given, **settings)
        results.append(gradients_of(ensemble))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize(
    ("space", "update"),
    [
        *((space, wasserstein_update) for space in SPACES),
        ("weight", stein_update),
        ("function", stein_update),
    ],
)
def test_gradients_are_added_to_those_there_before(space, update):
    ensemble, (X, y) = make_ensemble(), make_batch()
    kernel = Kernel(bandwidth="paper", unit_sphere=SPACES[space].unit_sphere)
    repulsion = BuiltRepulsion(SPACES[space], kernel, update)
    accumulate_gradients(ensemble, X, y, repulsion=repulsion)
    once = gradients_of(ensemble)
    accumulate_gradients(ensemble, X, y, repulsion=repulsion)
    torch.testing.assert_close(gradients_of(ensemble), [2 * gradient for gradient in once])


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
    ensemble, (X, y) = make_ensemble(n_members=n_members), make_batch(n_rows)
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
    accumulate_gradients(ensemble, X, y)
    driving = gradients_of(ensemble)
    ensemble.zero_grad()
    accumulate_gradients(ensemble, X, y, repulsion=Repulsion(), strength=100.0)
    torch.testing.assert_close(gradients_of(ensemble), driving)


def test_repulsion_turns_input_gradients_apart():
    ensemble, (X, y) = make_ensemble(n_members=6), make_batch(32)

    def mean_cosine():
        gradients = input_gradients(ensemble, X, y, CategoricalLikelihood())
        unit = nn.functional.normalize(gradients, dim=-1)
        cosine = torch.einsum("ibk,jbk->ijb", unit, unit).mean(-1)
        return (cosine.sum() - cosine.trace()).item()

    before = mean_cosine()
    optimizer = torch.optim.SGD(ensemble.parameters(), lr=0.05)
    for _ in range(50):
        optimizer.zero_grad()
        step = accumulate_gradients(ensemble, X, y, repulsion=Repulsion(), strength=0.6)
        optimizer.step()
    assert torch.isfinite(step.objective)
    assert mean_cosine() < before
