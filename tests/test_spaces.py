"""What members are compared by, in each space, and where: values, gradients, unusual modules."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import register_parametrization

import by_hand
from by_hand import gradients_of, kernel_by_hand, make_batch, make_ensemble, random_tensor
from sklearn_fordes import particles
from sklearn_fordes.networks import stack_members
from sklearn_fordes.particles import SPACES, BuiltRepulsion, Ensemble, Kernel, accumulate_gradients
from sklearn_fordes.particles.likelihoods import CategoricalLikelihood

FREE_KERNEL = Kernel(bandwidth="paper", unit_sphere=False)


def kernel_of(space):
    return Kernel(bandwidth="paper", unit_sphere=space.unit_sphere)


@pytest.mark.parametrize("kind", [Ensemble, stack_members])
@pytest.mark.parametrize("space", ["weight", "function"])
def test_stein_step_equals_its_definition(kind, space):
    ensemble, (X, y) = make_ensemble(kind), make_batch()
    kernel = Kernel(bandwidth=0.8, unit_sphere=False)
    repulsion = BuiltRepulsion(SPACES[space], kernel, particles.stein_update)
    accumulate_gradients(ensemble, X, y, repulsion=repulsion, strength=0.4)
    actual = gradients_of(ensemble)

    ensemble.zero_grad()
    kernels = kernel_by_hand(by_hand.representation_by_hand(ensemble, space, X), 0.8)
    mixing, logits = kernels.detach() / 4, ensemble(X)
    driving = (logits.detach().softmax(-1) - nn.functional.one_hot(y, 3)) / len(X)
    parameters = list(ensemble.parameters())
    if space == "weight":
        of_loss = torch.autograd.grad(logits, parameters, driving)
        expected = [torch.tensordot(mixing, gradient, 1) for gradient in of_loss]
    else:  # the losses' gradients are mixed at the outputs
        expected = torch.autograd.grad(logits, parameters, torch.tensordot(mixing, driving, 1))
    repelled = torch.autograd.grad(0.4 * kernels.sum() / 4, parameters)
    expected = [d + r for d, r in zip(expected, repelled, strict=True)]
    torch.testing.assert_close(actual, expected, atol=1e-12, rtol=1e-9)


def probabilities(ensemble, X, y):
    return ensemble(X).softmax(-1).flatten(1).unsqueeze(1)


def slope(ensemble, X, y):
    return by_hand.input_gradients_by_autograd(
        ensemble, X, lambda z: CategoricalLikelihood().gradient_target(z, y)
    )


def test_one_input_compares_gradients_themselves():
    """A direction in one dimension is only a sign: the repulsion is that by gradients."""
    (X, y), gradients, steps = make_batch(n_features=1), [], []
    for repulsion in (particles.Repulsion(), particles.Repulsion(slope)):
        ensemble = make_ensemble(n_features=1)
        steps.append(accumulate_gradients(ensemble, X, y, repulsion=repulsion, strength=3.0))
        gradients.append(gradients_of(ensemble))
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(steps[0].repulsion, steps[1].repulsion)
    assert steps[0].repulsion.unique().numel() == 4  # signs would be alike or opposite


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda e, X, y: 3, TypeError, "Got a int from the space, but expected a tensor"),
        (lambda e, X, y: e(X)[0], ValueError, r"shape \(8, 3\) from .* shape \(4, rows, K\)"),
        (lambda e, X, y: e(X)[:2], ValueError, r"shape \(2, 8, 3\) from the space, but expected"),
        (lambda e, X, y: e(X).detach(), ValueError, "that autograd did not follow"),
    ],
)
def test_a_function_that_returns_something_else(function, error, message):
    ensemble, (X, y) = make_ensemble(), make_batch()
    repulsion = BuiltRepulsion(particles.FunctionOfEnsemble(function), FREE_KERNEL)
    with pytest.raises(error, match=message):
        accumulate_gradients(ensemble, X, y, repulsion=repulsion)


@pytest.mark.parametrize("kind", [Ensemble, stack_members])
@pytest.mark.parametrize("space", ["input_gradient", "function", "feature"])
def test_extra_inputs_are_compared_and_not_learnt_from(kind, space):
    space, (X, y), extra = SPACES[space], make_batch(), random_tensor(3, 5, seed=7)
    ensemble = make_ensemble(kind)
    plain = accumulate_gradients(ensemble, X, y)
    driving = gradients_of(ensemble)
    ensemble.zero_grad()
    repulsion = BuiltRepulsion(space, kernel_of(space), fraction=0.5)
    settings = {"repulsion": repulsion, "extra_inputs": extra}
    learnt = accumulate_gradients(ensemble, X, y, strength=0.0, **settings)
    torch.testing.assert_close(gradients_of(ensemble), driving)
    torch.testing.assert_close(learnt.driving_loss, plain.driving_loss)
    torch.testing.assert_close(learnt.outputs, plain.outputs)

    # As if they were rows of the batch, whose class is the predicted one.
    step = accumulate_gradients(ensemble, X, y, strength=0.5, **settings)
    guess = ensemble(extra).detach().softmax(-1).mean(0).argmax(-1)
    rows, targets = torch.cat([extra, X]), torch.cat([guess, y])
    evaluation = space.evaluate(ensemble, rows, targets, 3 + 4, CategoricalLikelihood())
    expected = particles.wasserstein_update(evaluation.representation, kernel_of(space))
    torch.testing.assert_close(step.repulsion, 0.5 * expected.potential)
    together = gradients_of(ensemble)
    repelled = evaluation.pullback(torch.zeros_like(evaluation.outputs), 0.5 * expected.force)
    expected = [2 * d + r for d, r in zip(driving, repelled, strict=True)]  # added to before
    torch.testing.assert_close(together, expected)


class CalledByName(nn.Module):
    """Calls its last layer by keyword, and looks something up after it."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head, self.shift = nn.Linear(4, 3), nn.Linear(3, 2), nn.Embedding(1, 2)

    def forward(self, X):
        index = torch.zeros(len(X), dtype=torch.int64)
        return self.head(input=self.hidden(X).tanh()) + self.shift(index)


class PerCell(nn.Module):
    """A head shared by parts of a row, which is compared at the parts."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(2, 5), nn.Linear(5, 2)

    def forward(self, X):
        return self.head(torch.tanh(self.body(X.reshape(-1, 2)))).reshape(len(X), 2, 2).mean(1)


def convolutional():
    head = register_parametrization(nn.Linear(2, 2), "weight", nn.Tanh())
    return nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 2), nn.Flatten(), head)


@pytest.mark.parametrize(
    ("member", "until_last"),
    [
        (CalledByName, lambda module, X: module.hidden(X).tanh()),
        (PerCell, lambda module, X: torch.tanh(module.body(X.reshape(-1, 2)))),
        (convolutional, lambda module, X: module[:3](X)),
    ],
)
@pytest.mark.parametrize("n_rows", [1, 2, 5])  # two rows look like the two of the weight
def test_features_are_what_enters_the_last_layer(member, until_last, n_rows):
    ensemble, X = Ensemble(member, 3), torch.randn(n_rows, 4)
    outputs, features = ensemble.outputs_and_features(X)
    torch.testing.assert_close(outputs, ensemble(X))
    for i in range(3):
        torch.testing.assert_close(features[i], until_last(ensemble.member(i), X))


class Constant(nn.Module):
    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.randn(2))

    def forward(self, X):
        return self.value.expand(len(X), 2)


@pytest.mark.parametrize(
    ("member", "message"),
    [(Constant, "no layer with a weight"), (lambda: nn.Linear(4, 2), "without hidden features")],
)
def test_modules_without_features(member, message):
    X, y = torch.zeros(3, 4), torch.zeros(3).long()
    with pytest.raises(ValueError, match=message):
        SPACES["feature"].evaluate(Ensemble(member, 2), X, y, 3, CategoricalLikelihood())


def test_frozen_parameters_are_no_part_of_weight_space():
    def member():
        module = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        module[0].requires_grad_(False)
        return module

    ensemble = Ensemble(member, 3)
    X, y = torch.randn(5, 4), torch.tensor([0, 1, 0, 1, 0])
    evaluation = SPACES["weight"].evaluate(ensemble, X, y, 5, CategoricalLikelihood())
    assert evaluation.representation.shape == (3, 1, 3 * 2 + 2)
    repulsion = BuiltRepulsion(SPACES["weight"], FREE_KERNEL)
    accumulate_gradients(ensemble, X, y, repulsion=repulsion)
    has_gradient = {name: p.grad is not None for name, p in ensemble.stacked.named_parameters()}
    assert has_gradient == {"0.weight": False, "0.bias": False, "1.weight": True, "1.bias": True}


@pytest.mark.parametrize("space", [*SPACES.values(), particles.FunctionOfEnsemble(probabilities)])
def test_batch_normalisation_in_every_space(space):
    """Outputs are those of the whole batch, however few rows are compared."""

    def member():
        return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.SiLU(), nn.Linear(6, 3))

    ensemble, plain = (Ensemble(member, 3).double() for _ in range(2))
    X, y = make_batch()
    repulsion = BuiltRepulsion(space, kernel_of(space), fraction=0.1)  # one row compared
    step = accumulate_gradients(ensemble, X, y, repulsion=repulsion)
    torch.testing.assert_close(step.outputs, plain(X).detach())
    assert step.objective.isfinite()
    if space in SPACES.values():  # A function may call the members again.
        one, other = (e.stacked.get_submodule("1") for e in (ensemble, plain))
        torch.testing.assert_close(one.running_mean, other.running_mean)
        assert one.num_batches_tracked.tolist() == [1, 1, 1]
