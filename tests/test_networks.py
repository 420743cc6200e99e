"""Parts of the default network: initial weights, dropout by counters, the choice of an engine."""

import copy
import threading
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from sklearn_fordes.networks import (
    MLP,
    Dropout,
    PeriodicEmbedding,
    stack_members,
    with_homoscedastic_noise,
)
from sklearn_fordes.networks._mlp import common_masks, dropout_mask, has_common_draws
from sklearn_fordes.networks.fast import MLPEnsemble
from sklearn_fordes.particles import Ensemble, Repulsion, accumulate_gradients, seeded_generators

DEFAULT = partial(MLP, 5, 3, hidden_layer_sizes=(7, 4), dropout=0.3, embedded_features=[0, 3])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# ---- initial weights


def test_initial_weights_are_torchs_own_draws_in_the_order_of_the_layers():
    network = DEFAULT(generator=seeded(4))
    torch.manual_seed(4)
    linear = [nn.Linear(5 + 2 * 3, 7), nn.Linear(7, 4), nn.Linear(4, 3)]  # after the embedding's
    torch.manual_seed(4)
    embedding = [2 * np.pi * 0.3 * torch.randn(2, 16), np.pi * (2 * torch.rand(2, 16) - 1)]
    embedding += [(2 * torch.rand(2, 16, 3) - 1) / 4, (2 * torch.rand(2, 3) - 1) / 4]
    for layer in linear:
        layer.reset_parameters()
    expected = [*embedding, *(p for layer in linear for p in layer.parameters())]
    for own, other in zip(network.parameters(), expected, strict=True):
        assert torch.equal(own, other)


@pytest.mark.parametrize("make", [DEFAULT, partial(Dropout, 0.5), partial(PeriodicEmbedding, [1])])
def test_a_generator_leaves_the_global_ones_alone(make):
    before = torch.get_rng_state()
    drawn = make(generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(0)
    for own, other in zip(drawn.state_dict().values(), make().state_dict().values(), strict=True):
        assert torch.equal(own, other)
    torch.set_rng_state(before)


def test_networks_are_in_single_precision_on_the_cpu_whatever_torchs_defaults():
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            mean = partial(MLP, 5, 1, dropout=0.3, embedded_features=[0])
            network = with_homoscedastic_noise(mean)(generator=seeded())
    finally:
        torch.set_default_dtype(dtype)
    for name, tensor in network.state_dict().items():
        assert tensor.device.type == "cpu"
        assert tensor.dtype in (torch.float32, torch.int64), name


def test_a_factory_without_the_argument_draws_the_same_weights():
    factories = DEFAULT, lambda: DEFAULT()
    states = (stack_members(make, 3, seed=5).state_dict().values() for make in factories)
    for own, other in zip(*states, strict=True):
        assert torch.equal(own, other)


@pytest.mark.parametrize("mean", [partial(MLP, 4, 1), partial(nn.Linear, 4, 1)])
def test_noise_passes_the_generator_on(mean):
    noisy = stack_members(with_homoscedastic_noise(mean), 3, seed=5)
    plain = stack_members(mean, 3, seed=5)
    for name, weights in plain.stacked.named_parameters():
        assert torch.equal(noisy.stacked.get_parameter(f"mean.{name}"), weights)


def test_threads_take_turns_with_the_global_generators():
    before, draws = torch.get_rng_state(), {}

    def draw(seed):
        for _ in range(20):
            with seeded_generators(seed), seeded_generators(seed):  # a thread may enter again
                draws.setdefault(seed, set()).add((torch.rand(()).item(), np.random.rand()))

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(found) == 1 for found in draws.values())
    assert torch.equal(torch.get_rng_state(), before)


# ---- dropout


def test_a_mask_depends_on_key_call_and_position_alone():
    draws = torch.tensor([[3, 0], [-8, 0], [3, 5]])
    masks = [dropout_mask(draws, torch.empty(3, 9, 7), 0.5) for _ in range(6)]
    assert draws[:, 1].tolist() == [6, 6, 11]  # each call is counted
    assert torch.equal(masks[5][0], masks[0][2])
    alone = dropout_mask(torch.tensor([-8, 2]), torch.empty(9, 7), 0.5)
    assert torch.equal(alone, masks[2][1])
    longer = dropout_mask(torch.tensor([-8, 2]), torch.empty(20, 7), 0.5)
    assert torch.equal(longer[:9], alone)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_entries_are_dropped_independently_at_the_rate(p):
    """Means of products of neighbours, members, calls and layers are those of coins."""
    draws = torch.stack([torch.arange(8), torch.zeros(8, dtype=torch.int64)], dim=1)
    like = torch.empty(8, 100, 64, dtype=torch.float64)
    kept = torch.stack([dropout_mask(draws, like, p) for _ in range(4)])
    values = torch.tensor([0, 1 / (1 - p)], dtype=torch.float64)
    torch.testing.assert_close(kept.unique(), values, rtol=1e-4, atol=0)
    coins = kept.sign() - (1 - p)
    bound = 5 * p * (1 - p) / coins.numel() ** 0.5
    assert abs(coins.mean()) < 5 * (p * (1 - p) / coins.numel()) ** 0.5
    for axis, lags in [(0, [1, 2]), (1, [1, 3]), (2, [1, 7]), (3, [1, 2, 3, 4, 16])]:
        for lag in lags:
            assert abs((coins * coins.roll(lag, axis)).mean()) < 2 * bound


def test_dropout_is_identity_in_evaluation_and_keeps_the_mean_in_training():
    dropout, X = Dropout(0.25, generator=seeded()), torch.ones(1000, 300)
    assert not torch.equal(dropout(X), dropout(X))
    assert abs(dropout(X).mean() - 1) < 0.01
    assert dropout.eval()(X) is X
    other = Dropout(0.25, generator=seeded(1)).train()
    assert not torch.equal(dropout.train()(X), other(X))
    restored = copy.deepcopy(dropout)
    assert torch.equal(restored(X), dropout(X))  # a copy goes on where it was
    with FakeTensorMode():  # which refuses to read a value on the host
        assert Dropout(0.5)(torch.empty(4, 5)).shape == (4, 5)


@pytest.mark.parametrize("stack", [stack_members, Ensemble])
def test_members_draw_parts_of_one_sequence(stack):
    ensemble = stack(partial(MLP, 4, 2, hidden_layer_sizes=(50,), dropout=0.5), 3)
    draws = ensemble.stacked.get_buffer("2.draws")
    assert has_common_draws(draws)
    assert draws[:, 0].unique().numel() == 3
    ensemble(torch.ones(5, 4))
    assert draws[:, 1].tolist() == [1, 1, 1]
    other = stack(partial(MLP, 4, 2, hidden_layer_sizes=(50,), dropout=0.5), 3, seed=1)
    assert not torch.equal(other.stacked.get_buffer("2.draws")[:, 0], draws[:, 0])


def test_masks_of_one_sequence_are_those_of_each_member():
    draws = torch.tensor([[7, 3], [0, 3], [0, 3]])
    Dropout.share_draws(draws)
    like, before = torch.empty(3, 40, 128), draws.clone()
    masks = common_masks(draws, like, 0.3, sequence=2)
    assert torch.equal(masks, dropout_mask(before, like, 0.3, sequence=2))
    assert torch.equal(draws, before)  # Both have counted the call.
    same = (masks[0] == masks[1]).float().mean()
    assert abs(same - (0.3**2 + 0.7**2)) < 0.02


def test_members_that_are_picked_keep_their_masks():
    ensemble = stack_members(partial(MLP, 4, 2, hidden_layer_sizes=(50,), dropout=0.5), 5)
    assert ensemble.has_common_draws
    X = torch.randn(6, 4)
    parts = {pick: ensemble.select(list(pick)).train() for pick in ((1, 2, 3), (0, 3), (4,))}
    assert [part.has_common_draws for part in parts.values()] == [True, False, True]
    outputs = ensemble.train()(X)
    for pick, part in parts.items():
        torch.testing.assert_close(part(X), outputs[list(pick)])


# ---- engines


class Residual(MLP):
    def forward(self, X):
        first, activation, *rest = self
        h = activation(first(X))
        for layer in rest[:-1]:
            h = h + layer(h)
        return rest[-1](h)


def with_norm():
    first, *rest = MLP(5, 3, hidden_layer_sizes=(7, 4))
    return nn.Sequential(first, nn.LayerNorm(7), *rest)


def changed_in_place():
    network = MLP(5, 3, hidden_layer_sizes=(7, 7))
    network[1] = nn.LayerNorm(7)
    return network


def tied():
    network = MLP(5, 3, hidden_layer_sizes=(7, 7, 7))
    network[4].weight = network[2].weight
    return network


def hooked():
    network = MLP(5, 3, hidden_layer_sizes=(7, 4))
    network.register_forward_hook(lambda module, inputs, outputs: 2 * outputs)
    return network


AUTOGRAD = {
    "subclass": partial(Residual, 5, 3, hidden_layer_sizes=(7, 7)),
    "norm": with_norm,
    "changed": changed_in_place,
    "tied": tied,
    "other activation": lambda: MLP(5, 3, activation="gelu").apply(
        lambda part: setattr(part, "approximate", "tanh") if isinstance(part, nn.GELU) else None
    ),
    "noise": with_homoscedastic_noise(partial(MLP, 5, 1)),
    "hook": hooked,
}


@pytest.mark.parametrize("name", AUTOGRAD)
def test_what_the_written_out_passes_do_not_know_trains_through_autograd(name):
    ensemble = stack_members(AUTOGRAD[name], 3, seed=1).double()
    assert type(ensemble) is Ensemble
    X = torch.randn(6, 5, dtype=torch.float64, generator=seeded())
    members = [ensemble.member(i) for i in range(3)]
    torch.testing.assert_close(ensemble(X), torch.stack([member(X) for member in members]))
    y = torch.zeros(6, dtype=torch.int64)
    accumulate_gradients(ensemble, X, y, repulsion=Repulsion())
    # The input gradient's repulsion reaches all weights but the last bias and the noise level.
    assert all((p.grad != 0).any() for p in ensemble.parameters())


@pytest.mark.parametrize(
    "make",
    [DEFAULT, lambda: DEFAULT(), MLP(5, 3, dropout=0.1), partial(MLP, 5, 3, hidden_layer_sizes=())],
    ids=["factory", "function", "instance", "linear"],
)
def test_an_mlp_is_given_to_the_written_out_passes(make):
    assert type(stack_members(make, 3)) is MLPEnsemble


def trained(n_members, widths, n_features, n_rows):
    extra = {"dropout": 0.1, "embedded_features": range(n_features)}
    member = partial(MLP, n_features, 3, hidden_layer_sizes=widths, **extra)
    ensemble = stack_members(member, n_members, seed=1).train()
    # The fused kernel rounds the last numbers of a tensor in another way than the others.
    groups = [{"params": p, "fused": p[0].numel() % 16 == 0} for p in ensemble.parameters()]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    X = torch.randn(n_rows, n_features, generator=seeded())
    y = torch.randint(3, (n_rows,), generator=seeded())
    for _ in range(5):
        optimizer.zero_grad()
        accumulate_gradients(ensemble, X, y)
        optimizer.step()
    return ensemble.stacked.state_dict()


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize(
    ("widths", "n_features", "n_rows"), [((128, 128), 30, 37), ((33, 50), 7, 104)], ids=str
)
def test_an_unrepelled_member_does_not_depend_on_how_many_there_are(
    n_threads, widths, n_features, n_rows
):
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        ten, five = (trained(n, widths, n_features, n_rows) for n in (10, 5))
    finally:
        torch.set_num_threads(before)
    for name, tensor in five.items():
        assert torch.equal(ten[name][:5], tensor), name


def test_export_is_not_bound_to_a_number_of_rows():
    ensemble = stack_members(DEFAULT, 2).eval()
    exported = torch.export.export(
        ensemble, (torch.zeros(6, 5),), dynamic_shapes={"X": {0: torch.export.Dim("n", min=2)}}
    )
    X = torch.randn(3000, 5)
    torch.testing.assert_close(exported.module()(X), ensemble(X))
