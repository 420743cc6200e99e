"""One training step against reference values and against autograd through the whole objective."""

import pytest
import torch
from torch import nn

from by_hand import case_of, gradients_of, make_batch, make_ensemble, representation_by_hand
from sklearn_fordes import particles
from sklearn_fordes.networks import stack_members
from sklearn_fordes.particles import LENGTHSCALES, SPACES, Kernel, Repulsion, accumulate_gradients
from sklearn_fordes.particles.likelihoods import GRADIENT_TARGETS, CategoricalLikelihood

each_kind = pytest.mark.parametrize("kind", [particles.Ensemble, stack_members])


@each_kind
@pytest.mark.parametrize("case", ["step-relu-identity", "step-silu-pca"])
def test_matches_reference_values(reference, case, kind):
    value = case_of(reference, case)
    X, y = torch.tensor(value["X"]), torch.tensor(value["y"])
    n_members, n_classes, width = value["weight2"].shape
    mlp = {"activation": str(value["activation"]), "hidden_layer_sizes": (width, width)}
    ensemble = make_ensemble(kind, n_members, X.shape[1], n_classes, **mlp)
    layers = [ensemble.stacked.get_submodule(str(2 * i)) for i in range(3)]
    with torch.no_grad():
        for i, layer in enumerate(layers):
            layer.weight.copy_(torch.tensor(value[f"weight{i}"]))
            layer.bias.copy_(torch.tensor(value[f"bias{i}"]))
    likelihood, repulsion = CategoricalLikelihood(target="logit"), Repulsion.paper()
    settings = {"repulsion": repulsion}  # whose target makes the likelihood
    if "eigenvectors" in value:
        axes = particles.Lengthscale(
            *(torch.tensor(value[f"eigen{s}"]) for s in ("vectors", "values"))
        )
        settings = {"repulsion": repulsion.build(X, axes), "likelihood": likelihood}
    step = accumulate_gradients(ensemble, X, y, strength=1 / len(X), **settings)
    evaluation = SPACES["input_gradient"].evaluate(ensemble, X, y, len(X), likelihood)

    def assert_matches(actual, name):
        torch.testing.assert_close(actual.detach(), torch.tensor(value[name]), atol=1e-10, rtol=0)

    assert_matches(evaluation.representation, "input_gradients")
    assert_matches(step.driving_loss, "cross_entropy")
    assert_matches(step.repulsion.sum(), "potential")
    for i, layer in enumerate(layers):
        assert_matches(layer.weight.grad, f"grad_weight{i}")
        assert_matches(layer.bias.grad, f"grad_bias{i}")


@pytest.mark.parametrize("given", ["input_gradient", SPACES["function"]])
def test_a_repulsion_is_given_as_to_an_estimator(given):
    X, y = make_batch()
    steps = [
        accumulate_gradients(make_ensemble(), X, y, repulsion=repulsion)
        for repulsion in (given, Repulsion(given))
    ]
    assert steps[0].repulsion.abs().min() > 0
    torch.testing.assert_close(*(step.repulsion for step in steps), atol=0, rtol=0)


@each_kind
@pytest.mark.parametrize(
    ("space", "target", "lengthscale"),
    [
        *(("input_gradient", t, scale) for t in GRADIENT_TARGETS for scale in LENGTHSCALES),
        *((space, "log_odds", "identity") for space in ("weight", "function", "feature")),
    ],
)
@pytest.mark.parametrize("fraction", [0.4, 1.0])
def test_joint_backward_equals_autograd_through_the_objective(
    kind, space, target, lengthscale, fraction
):
    ensemble, (X, y) = make_ensemble(kind), make_batch()
    weight = torch.linspace(0.5, 1.5, len(X), dtype=torch.float64)
    kernel = Kernel(LENGTHSCALES[lengthscale](X), "paper", SPACES[space].unit_sphere)
    repulsion = particles.BuiltRepulsion(SPACES[space], kernel, fraction=fraction)
    settings = {"repulsion": repulsion, "likelihood": CategoricalLikelihood(target=target)}
    step = accumulate_gradients(ensemble, X, y, weight, strength=0.9, **settings)
    actual = gradients_of(ensemble)

    ensemble.zero_grad()
    n_rows = round(fraction * len(X))
    compared = representation_by_hand(ensemble, space, X[:n_rows], y[:n_rows], target)
    log_density, force, _ = particles.wasserstein_update(compared, kernel)
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


@each_kind
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


def test_parameters_whose_gradients_are_one_tensor_each_have_their_own():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3, bias=False)
            self.a, self.b = (nn.Parameter(torch.randn(3)) for _ in range(2))

        def forward(self, X):
            return self.linear(X) + (self.a + self.b)

    ensemble, X, y = particles.Ensemble(Sum, 3), torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
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
    assert all(torch.isfinite(value).all() for value in (step.objective, *gradients_of(ensemble)))
    assert bool(step.repulsion.any()) == (n_members > 1)
