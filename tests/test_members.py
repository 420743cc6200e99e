"""Stacked members against the same members one by one."""

import pickle
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_fordes.networks import MLP, Dropout
from sklearn_fordes.particles import Ensemble


def conv():
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(4 * 3 * 3, 3))


def tied():
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Tanh(), nn.Linear(4, 4, bias=False))
    net[2].weight = net[0].weight
    return net


MEMBERS = {
    "mlp": (partial(MLP, 6, 3), (10, 6)),
    "linear": (partial(MLP, 6, 3, hidden_layer_sizes=()), (10, 6)),
    "conv": (conv, (10, 1, 8, 8)),
    "dropout": (partial(MLP, 6, 3, dropout=0.5), (10, 6)),
    "tied": (tied, (10, 4)),
}


def make(name, n_members=4, **kwargs):
    member, shape = MEMBERS[name]
    X = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return Ensemble(member, n_members, **kwargs), X


@pytest.mark.parametrize("name", MEMBERS)
def test_batched_call_equals_loop_over_members(name):
    ensemble, X = make(name)
    ensemble.eval()
    members = [ensemble.member(i).eval() for i in range(4)]
    expected = torch.stack([member(X) for member in members])
    torch.testing.assert_close(ensemble(X), expected, atol=1e-5, rtol=1e-5)
    own_rows = torch.stack([X + i for i in range(4)])
    expected = torch.stack([member(rows) for member, rows in zip(members, own_rows, strict=True)])
    torch.testing.assert_close(ensemble(own_rows, shared=False), expected, atol=1e-5, rtol=1e-5)


def test_batch_norm_has_statistics_of_each_members_own():
    ensemble, X = make("conv")
    members = [ensemble.member(i) for i in range(4)]
    for _ in range(2):
        outputs = ensemble(X)
        expected = torch.stack([member(X) for member in members])
    torch.testing.assert_close(outputs, expected, atol=1e-5, rtol=1e-5)
    for name, stacked in ensemble.stacked.named_buffers():
        own = torch.stack([dict(member.named_buffers())[name] for member in members])
        torch.testing.assert_close(stacked, own)
    means = ensemble.stacked.get_submodule("1").running_mean
    assert not torch.equal(means[0], means[1])
    torch.testing.assert_close(ensemble.eval()(X)[2], members[2].eval()(X), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layer", [nn.Dropout, Dropout])
def test_dropout_masks_differ_between_members(layer):
    ensemble = Ensemble(lambda: nn.Sequential(nn.Linear(4, 50), layer(0.5)), 3)
    dropped = ensemble(torch.ones(4, 4)) == 0
    assert 0.3 < dropped.float().mean() < 0.7
    assert not torch.equal(dropped[0], dropped[1])
    assert not (ensemble.eval()(torch.ones(4, 4)) == 0).any()


def test_initial_weights_depend_on_seed_and_index_alone():
    five, ten, other = make("mlp", 5, seed=1)[0], make("mlp", 10, seed=1)[0], make("mlp", 5)[0]
    for name, weights in five.stacked.named_parameters():
        assert torch.equal(weights, ten.stacked.get_parameter(name)[:5])
        assert not torch.equal(weights[0], weights[1])
        assert not torch.equal(weights, other.stacked.get_parameter(name))


def test_global_generators_are_left_as_they_were():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1]

    def member():
        np.random.normal()
        return nn.Linear(2, 2)

    Ensemble(member, 3)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_instance_serves_as_architecture():
    instance = nn.Sequential(nn.Linear(3, 4), nn.PReLU(), nn.LayerNorm(4), nn.Linear(4, 2))
    before = {name: tensor.clone() for name, tensor in instance.state_dict().items()}
    ensemble = Ensemble(instance, 3)
    first_layer = ensemble.stacked.get_parameter("0.weight")
    assert len({tuple(weights.flatten().tolist()) for weights in first_layer}) == 3
    assert all(torch.equal(before[name], t) for name, t in instance.state_dict().items())


def test_instance_that_cannot_be_reset_is_refused():
    class Raw(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 2))

        def forward(self, X):
            return X @ self.weight

    with pytest.raises(ValueError, match=r"'1' \(Raw\) holds weights but has no reset_parameters"):
        Ensemble(nn.Sequential(nn.Linear(3, 3), Raw()), 2)
    assert Ensemble(Raw, 2)(torch.ones(1, 3)).shape == (2, 1, 2)


def test_rows_may_be_coupled_by_a_declaration():
    class Centred(nn.Linear):
        couples_rows = True

        def forward(self, X):
            return super().forward(X - X.mean(0))

    ensemble = Ensemble(lambda: Centred(3, 2), 2)
    X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    logits = ensemble.evaluate(X, 2, lambda logits: logits[..., 0]).outputs
    torch.testing.assert_close(logits, ensemble(X).detach())


def test_attention_can_be_differentiated_twice():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.head = nn.Linear(12, 2)

        def forward(self, X):
            tokens = X.unflatten(1, (3, 4))
            attended, _ = self.attention(tokens, tokens, tokens, need_weights=False)
            return self.head(attended.flatten(1))

    ensemble = Ensemble(Attention, 3)
    evaluation = ensemble.evaluate(torch.randn(5, 12), 5, lambda logits: logits[..., 0])
    found = evaluation.pullback(torch.ones_like(evaluation.outputs), evaluation.representation)
    assert all(torch.isfinite(gradient).all() for gradient in found)


def test_survives_pickle_and_state_dict():
    ensemble, X = make("conv")
    ensemble(X)
    ensemble.eval()
    copy = pickle.loads(pickle.dumps(ensemble))
    assert torch.equal(copy(X), ensemble(X))
    other = make("conv", seed=9)[0].eval()
    other.load_state_dict(ensemble.state_dict())
    assert torch.equal(other(X), ensemble(X))


def test_an_instance_that_is_changed_later_changes_no_ensemble():
    instance, X = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), torch.ones(5, 3)
    ensemble = Ensemble(instance, 2)
    expected = ensemble(X)
    instance[1] = nn.ReLU()
    assert torch.equal(pickle.loads(pickle.dumps(ensemble))(X), expected)


def test_selected_members_are_as_they_were():
    ensemble, X = make("conv")
    ensemble(X)  # running statistics of each member's own
    selected = ensemble.eval().select([2, 0])
    torch.testing.assert_close(selected(X), ensemble(X)[[2, 0]])
    with torch.no_grad():
        next(selected.parameters()).zero_()
    assert next(ensemble.parameters()).any()  # copies


@pytest.mark.parametrize(
    ("factory", "n_members", "message"),
    [
        (lambda: nn.Linear(2, 2), 0, "Got n_members=0"),
        (lambda: 3, 2, "Got a int from the module factory"),
        (nn.ReLU, 2, "Got a module without parameters"),
        (lambda: nn.Linear(2, 2).requires_grad_(False), 2, "Got a module without parameters"),
    ],
)
def test_factories_that_are_refused(factory, n_members, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Ensemble(factory, n_members)
