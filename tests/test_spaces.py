"""What members are compared by, in each space, and where: values, gradients, unusual modules."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import register_parametrization

from by_hand import (
    flat_parameters,
    gradients_of,
    input_gradients_by_autograd,
    kernel_by_hand,
    make_batch,
    make_ensemble,
    paper_bandwidths,
    random_tensor,
)
from sklearn_fordes.networks import stack_members
from sklearn_fordes.particles import (
    SPACES,
    BuiltRepulsion,
    CategoricalLikelihood,
    Ensemble,
    FunctionOfEnsemble,
    GaussianLikelihood,
    Kernel,
    QuantileLikelihood,
    Repulsion,
    accumulate_gradients,
    stein_update,
    wasserstein_update,
)

FREE_KERNEL = Kernel(bandwidth="paper", unit_sphere=False)


def kernel_of(space):
    return Kernel(bandwidth="paper", unit_sphere=space.unit_sphere)


def representation_by_hand(ensemble, name, X):
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


@pytest.mark.parametrize("kind", [Ensemble, stack_members])
@pytest.mark.parametrize("space", ["weight", "function", "feature"])
@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_wasserstein_step_equals_autograd(kind, space, fraction):
    ensemble, (X, y) = make_ensemble(kind), make_batch()
    repulsion = BuiltRepulsion(SPACES[space], FREE_KERNEL, fraction=fraction)
    step = accumulate_gradients(ensemble, X, y, repulsion=repulsion, strength=0.9)
    actual = gradients_of(ensemble)

    ensemble.zero_grad()
    compared = representation_by_hand(ensemble, space, X[: round(fraction * len(X))])
    repelled = 0.9 * kernel_by_hand(compared, compared, paper_bandwidths(compared)).sum(1).log()
    logits = ensemble(X)
    losses = nn.functional.cross_entropy(logits.mT, y.expand(4, -1), reduction="none").mean(1)
    (losses.sum() + repelled.sum()).backward()
    torch.testing.assert_close(actual, gradients_of(ensemble), atol=1e-12, rtol=1e-8)
    torch.testing.assert_close(step.repulsion, repelled.detach())
    torch.testing.assert_close(step.driving_loss, losses.detach())


@pytest.mark.parametrize("kind", [Ensemble, stack_members])
def test_stein_step_in_weight_space_equals_its_definition(kind):
    ensemble, (X, y) = make_ensemble(kind), make_batch()
    kernel = Kernel(bandwidth=0.8, unit_sphere=False)
    repulsion = BuiltRepulsion(SPACES["weight"], kernel, stein_update)
    accumulate_gradients(ensemble, X, y, repulsion=repulsion, strength=0.4)
    actual = torch.cat([g.flatten(1) for g in gradients_of(ensemble)], dim=1)

    ensemble.zero_grad()
    nn.functional.cross_entropy(ensemble(X).flatten(0, 1), y.repeat(4)).mul(4).backward()
    driving = torch.cat([g.flatten(1) for g in gradients_of(ensemble)], dim=1)
    theta = flat_parameters(ensemble).detach().requires_grad_()
    for i in range(4):
        kernels = kernel_by_hand(theta, theta, torch.tensor([0.8]))[i]
        (gradient,) = torch.autograd.grad(kernels.sum(), theta)
        expected = (kernels.detach() @ driving + 0.4 * gradient[i, 0]) / 4
        torch.testing.assert_close(actual[i], expected, atol=1e-12, rtol=1e-9)


def test_stein_step_in_function_space_mixes_the_losses_gradients_at_the_outputs():
    ensemble, (X, y) = make_ensemble(), make_batch()
    kernel = Kernel(bandwidth=0.8, unit_sphere=False)
    repulsion = BuiltRepulsion(SPACES["function"], kernel, stein_update)
    accumulate_gradients(ensemble, X, y, repulsion=repulsion, strength=0.0)
    actual = gradients_of(ensemble)

    ensemble.zero_grad()
    logits = ensemble(X)
    compared = logits.detach().softmax(-1).flatten(1).unsqueeze(1)
    mixing = kernel_by_hand(compared, compared, torch.tensor([0.8])) / 4
    driving = (logits.detach().softmax(-1) - nn.functional.one_hot(y, 3)) / len(X)
    (logits * torch.einsum("ij,jbc->ibc", mixing, driving)).sum().backward()
    torch.testing.assert_close(actual, gradients_of(ensemble))


@pytest.mark.parametrize("likelihood", [GaussianLikelihood(), QuantileLikelihood()])
@pytest.mark.parametrize("kind", [Ensemble, stack_members])
def test_a_regressors_input_gradients_are_those_of_its_location(kind, likelihood):
    ensemble = make_ensemble(kind, n_outputs=likelihood.n_outputs)
    X, y = random_tensor(4, 5), random_tensor(4, seed=1)
    evaluation = SPACES["input_gradient"].evaluate(ensemble, X, y, 4, likelihood)
    expected = input_gradients_by_autograd(ensemble, X, lambda outputs: outputs[..., 0])
    torch.testing.assert_close(evaluation.representation, expected.detach())


# ---- functions of a user's own


def probabilities(ensemble, X, y):
    return ensemble(X).softmax(-1).flatten(1).unsqueeze(1)


def test_a_function_of_the_ensemble_equals_the_built_in_space():
    gradients = []
    for space in (SPACES["function"], FunctionOfEnsemble(probabilities)):
        ensemble, (X, y) = make_ensemble(), make_batch()
        repulsion = BuiltRepulsion(space, FREE_KERNEL, fraction=0.5)
        accumulate_gradients(ensemble, X, y, repulsion=repulsion)
        gradients.append(gradients_of(ensemble))
    torch.testing.assert_close(*gradients)


def slope(ensemble, X, y):
    return input_gradients_by_autograd(
        ensemble, X, lambda z: CategoricalLikelihood().gradient_target(z, y)
    )


def test_one_input_compares_gradients_themselves():
    """A direction in one dimension is only a sign: the repulsion is that by gradients."""
    (X, y), gradients, steps = make_batch(n_features=1), [], []
    for repulsion in (Repulsion(), Repulsion(slope)):
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
    repulsion = BuiltRepulsion(FunctionOfEnsemble(function), FREE_KERNEL)
    with pytest.raises(error, match=message):
        accumulate_gradients(ensemble, X, y, repulsion=repulsion)


# ---- rows without a target


@pytest.mark.parametrize("kind", [Ensemble, stack_members])
@pytest.mark.parametrize("space", ["input_gradient", "function", "feature"])
def test_extra_inputs_are_compared_and_not_learnt_from(kind, space):
    space, (X, y), extra = SPACES[space], make_batch(), random_tensor(3, 5, seed=7)
    ensemble = make_ensemble(kind)
    plain = accumulate_gradients(ensemble, X, y)
    driving = gradients_of(ensemble)
    ensemble.zero_grad()
    settings = {
        "repulsion": BuiltRepulsion(space, kernel_of(space), fraction=0.5),
        "extra_inputs": extra,
    }
    learnt = accumulate_gradients(ensemble, X, y, strength=0.0, **settings)
    torch.testing.assert_close(gradients_of(ensemble), driving)
    torch.testing.assert_close(learnt.driving_loss, plain.driving_loss)
    torch.testing.assert_close(learnt.outputs, plain.outputs)

    # As if they were rows of the batch, whose class is the predicted one.
    step = accumulate_gradients(ensemble, X, y, strength=0.5, **settings)
    guess = ensemble(extra).detach().softmax(-1).mean(0).argmax(-1)
    rows, targets = torch.cat([extra, X]), torch.cat([guess, y])
    evaluation = space.evaluate(ensemble, rows, targets, 3 + 4, CategoricalLikelihood())
    expected = wasserstein_update(evaluation.representation, kernel_of(space))
    torch.testing.assert_close(step.repulsion, 0.5 * expected.potential)
    together = gradients_of(ensemble)
    repelled = evaluation.pullback(torch.zeros_like(evaluation.outputs), 0.5 * expected.force)
    expected = [2 * d + r for d, r in zip(driving, repelled, strict=True)]  # added to before
    torch.testing.assert_close(together, expected)


@pytest.mark.parametrize("likelihood", [CategoricalLikelihood(3), GaussianLikelihood()])
def test_a_function_is_given_guesses_where_there_is_no_target(likelihood):
    ensemble, (X, y) = make_ensemble(n_outputs=likelihood.n_outputs), make_batch()
    y = y if likelihood.kind == "classifier" else random_tensor(8, seed=1)
    extra, seen = random_tensor(3, 5, seed=7), []

    def outputs(ensemble, X, y):
        values = ensemble(X)
        seen.append((X, values.detach(), y))
        return values

    repulsion = BuiltRepulsion(FunctionOfEnsemble(outputs), FREE_KERNEL, fraction=0.5)
    settings = {"repulsion": repulsion, "likelihood": likelihood, "extra_inputs": extra}
    accumulate_gradients(ensemble, X, y, **settings)
    rows, values, targets = seen[-1]
    of_extra = values[:, :3]
    is_classifier = likelihood.kind == "classifier"
    guess = of_extra.softmax(-1).mean(0).argmax(-1) if is_classifier else of_extra[..., 0].mean(0)
    torch.testing.assert_close(rows, torch.cat([extra, X[:4]]))
    torch.testing.assert_close(targets, torch.cat([guess, y[:4]]))


# ---- features of unusual modules


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


def test_a_module_without_layers_or_hidden_features_has_nothing_to_compare():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.value = nn.Parameter(torch.randn(2))

        def forward(self, X):
            return self.value.expand(len(X), 2)

    X, y = torch.zeros(3, 4), torch.zeros(3).long()
    for member, message in [
        (Constant, "calls no layer with a weight matrix"),
        (lambda: nn.Linear(4, 2), "without hidden features"),
    ]:
        ensemble = Ensemble(member, 2)
        with pytest.raises(ValueError, match=message):
            SPACES["feature"].evaluate(ensemble, X, y, 3, CategoricalLikelihood())


# ---- parts of a module


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


@pytest.mark.parametrize("space", [*SPACES.values(), FunctionOfEnsemble(probabilities)])
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
    if not isinstance(space, FunctionOfEnsemble):  # A function may call the members again.
        one, other = (e.stacked.get_submodule("1") for e in (ensemble, plain))
        torch.testing.assert_close(one.running_mean, other.running_mean)
        assert one.num_batches_tracked.tolist() == [1, 1, 1]
