"""Steps that are recorded and replayed, as on a GPU: they are those of a fit without recording."""

import copy
import pickle

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, LRScheduler
from torch.optim.lr_scheduler import CyclicLR, ExponentialLR

from recording import OnCPU
from sklearn_fordes import FoRDEClassifier, FoRDERegressor, Repulsion
from sklearn_fordes.networks import MLP
from sklearn_fordes.networks.fast import _passes
from sklearn_fordes.particles import _kernel
from sklearn_fordes.training import ClipMemberGradients, _graphs, _optimizer, recording_with
from sklearn_fordes.training._host_access import HostAccess


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch):
    """Take the way of a GPU where the one of a CPU reads values on the host."""

    def median(values):
        n = values.shape[-1]
        in_order = values.topk(n // 2 + 1, largest=False).values
        return (in_order[..., (n - 1) // 2] + in_order[..., n // 2]) / 2

    def waves(angle, function, out):
        return out.copy_(getattr(torch, function.__name__)(angle))

    def one_hot(y, n):
        return (y.unsqueeze(-1) == torch.arange(n)).long()

    monkeypatch.setattr(_kernel, "_median", median)
    monkeypatch.setattr(_passes, "_waves", waves)
    monkeypatch.setattr(torch.nn.functional, "one_hot", one_hot)
    monkeypatch.setattr(_optimizer, "_FUSED_AT_A_TIME", 1)  # Fused kernels count on the device.
    monkeypatch.setattr(OnCPU, "n_tried", 0)
    monkeypatch.setattr(OnCPU, "n_recorded", 0)


# Single precision has this rate exactly, and would round those of a schedule.
SETTINGS = {"hidden_layer_sizes": (16,), "max_epochs": 4, "batch_size": 32, "lr": 2**-7}
SETTINGS |= {"lr_schedule": "constant"}


def both(kind, X, y, n_members=3, fit=None, **parameters):
    """Return a fit without recording, and one with it."""
    models = []
    for recorder in (None, OnCPU):
        given = {**SETTINGS, "random_state": 0, **copy.deepcopy(parameters)}
        with recording_with(recorder):
            models.append(kind(n_members, **given).fit(X, y, **(fit or {})))
    return models


def assert_alike(plain, recorded, X):
    np.testing.assert_array_equal(recorded.predict(X), plain.predict(X))
    for one, other in zip(recorded.history_, plain.history_, strict=True):
        assert one["driving_loss"] == other["driving_loss"]
        assert one["repulsion"] == other["repulsion"]
    for p, q in zip(*(m.net_.module_.parameters() for m in (plain, recorded)), strict=True):
        assert torch.equal(p, q)
    state, other = (m.net_.optimizer_.state_dict() for m in (plain, recorded))
    assert state["param_groups"] == other["param_groups"]
    torch.testing.assert_close(state["state"], other["state"], rtol=0, atol=0)


class OwnMLP(MLP):
    """Autograd differentiates it."""

    def forward(self, X):
        return super().forward(X) + 0.1


@pytest.mark.parametrize(
    ("parameters", "n_graphs"),
    [
        ({}, 2),
        ({"n_members": 5}, 2),  # They leave folds out.
        ({"repulsion": "none"}, 1),
        ({"module__dropout": 0.3, "ema_decay": 0.0, "augmentation": None}, 2),
        ({"repulsion": Repulsion(warmup=3)}, 2),
        ({"repulsion": Repulsion(relative=False, period=1)}, 1),
        ({"repulsion": Repulsion.paper(), "lengthscale": "pca"}, 1),
        ({"repulsion": Repulsion("weight", update="svgd")}, 2),
        ({"repulsion": Repulsion(update="lit")}, 2),
        ({"module": OwnMLP, "module__n_features": 6, "module__n_outputs": 2}, 2),
        ({"callbacks": [LRScheduler(ExponentialLR, gamma=0.5)]}, 2),
        ({"optimizer": torch.optim.Adam, "weight_decay": 0.0, "optimizer__fused": True}, 2),
    ],
    ids=str,
)
def test_replayed_steps_are_the_ordinary_ones(binary, parameters, n_graphs):
    plain, recorded = both(FoRDEClassifier, *binary, **parameters)
    assert_alike(plain, recorded, binary[0])
    assert OnCPU.n_recorded == n_graphs
    assert plain.net_.captured.n_replayed == 0
    # The first step of each kind is an ordinary one.
    assert recorded.net_.captured.n_replayed == recorded.net_.n_steps - n_graphs


def test_the_rates_of_a_schedule_reach_replayed_steps(binary):
    plain, recorded = both(FoRDEClassifier, *binary, lr_schedule="one_cycle")
    assert recorded.net_.captured.n_replayed == recorded.net_.n_steps - 2
    for p, q in zip(*(m.net_.module_.parameters() for m in (plain, recorded)), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


class DrawingMLP(MLP):
    """Draws from a generator of its own in each step."""

    def __init__(self, *sizes, generator=None, **parameters):
        super().__init__(*sizes, generator=generator, **parameters)
        self.noise = torch.Generator().manual_seed(0)

    def forward(self, X):
        return super().forward(X) + torch.rand(1, generator=self.noise)


def test_a_step_that_draws_is_ordinary(binary):
    X, y = binary
    settings = {"module": DrawingMLP, "module__n_features": 6, "module__n_outputs": 2}
    with recording_with(OnCPU):
        model = FoRDEClassifier(3, **SETTINGS, **settings, repulsion="none", random_state=0)
        model.fit(X, y)
    assert OnCPU.n_tried == model.net_.captured.n_replayed == 0


@pytest.mark.parametrize("noise", ["heteroscedastic", "homoscedastic"])
def test_replayed_steps_of_a_regressor_have_weights_and_extra_inputs(binary, noise):
    X, y = binary
    fit = {"sample_weight": 1 + np.arange(len(y)) % 3, "X_repulsion": X + 3}
    plain, recorded = both(FoRDERegressor, X, X @ np.arange(6) + y, fit=fit, noise=noise)
    assert_alike(plain, recorded, X)
    assert recorded.net_.captured.n_replayed > 10


@pytest.mark.parametrize(
    "parameters",
    [
        {"callbacks": [ClipMemberGradients(1.0)]},
        {"callbacks": [LRScheduler(CyclicLR, step_every="batch", base_lr=0.01, max_lr=0.02)]},
        {"optimizer": torch.optim.SGD},
        {"optimizer__fused": False},
        {"optimizer__lr": torch.tensor(0.01), "optimizer__fused": True},
        {"module": lambda: MLP(6, 2)},  # It might draw from the global generators.
        {"repulsion": lambda ensemble, X, y: ensemble(X)},
    ],
    ids=str,
)
def test_steps_that_depend_on_more_than_tensors_are_ordinary(binary, parameters):
    plain, recorded = both(FoRDEClassifier, *binary, **parameters)
    assert_alike(plain, recorded, binary[0])
    assert OnCPU.n_recorded == recorded.net_.captured.n_replayed == 0


def test_a_step_that_needs_the_host_is_ordinary(binary):
    """The levels of quantiles come from the host in each step, so that no capture is tried."""
    X, y = binary
    plain, recorded = both(FoRDERegressor, X, X @ np.arange(6) + y, noise="quantile")
    assert_alike(plain, recorded, X)
    assert OnCPU.n_tried == recorded.net_.captured.n_replayed == 0


@pytest.mark.parametrize("error", [RuntimeError, ValueError])
def test_a_step_whose_recording_fails_is_ordinary(binary, monkeypatch, error):
    def fail(recorder, function):
        OnCPU.n_tried += 1
        raise error

    monkeypatch.setattr(OnCPU, "record", fail)
    plain, recorded = both(FoRDEClassifier, *binary)
    assert_alike(plain, recorded, binary[0])
    assert OnCPU.n_tried == 1
    assert recorded.net_.captured.n_replayed == 0


@pytest.mark.parametrize(
    ("operate", "is_needed"),
    [
        (lambda x: x + 1, False),
        (lambda x: x * torch.tensor(2.0), True),  # A number made on the host, in each step.
        (lambda x: x[torch.arange(2)], False),
        (lambda x: x.amax(0).sqrt_() + x.mT, False),
        (lambda x: x[0, 0].item(), True),
        (lambda x: bool(x[0, 0] > 0), True),
        (lambda x: x[x > 0], True),
        (lambda x: x.nonzero(), True),
        (lambda x: x.unique(), True),
        (lambda x: torch.nn.functional.dropout(x), True),
        (lambda x: torch.rand(3, generator=torch.Generator()), True),
        (lambda x: x.to("meta"), True),
        (lambda x: torch.empty(3, 3, device="meta").copy_(x), True),
        (lambda x: torch.empty(3, device="meta") * x[0, 0], False),  # An argument of a kernel.
        (lambda x: torch.func.vmap(lambda row: row * row.sum())(x), False),
    ],
)
def test_operations_that_need_the_host(operate, is_needed):
    x = torch.rand(3, 3)
    with HostAccess() as host:
        operate(x)
    assert host.is_needed == is_needed


class Change(Callback):
    """Changes something of a net at the end of its second epoch."""

    def __init__(self, change):
        self.change = change

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            self.change(net)


def move_weights(net):
    for parameter in net.module_.parameters():
        parameter.data = parameter.data.clone()


def freeze_first(net):
    next(net.module_.parameters()).requires_grad_(False)


def change_betas(net):
    for group in net.optimizer_.param_groups:
        group["betas"] = (0.5, 0.9)


def forget_moments(net):
    net.optimizer_.state.clear()


@pytest.mark.parametrize("change", [move_weights, freeze_first, change_betas, forget_moments])
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_what_changes_between_epochs_is_recorded_anew(binary, change, ema_decay):
    settings = {"callbacks": [Change(change)], "ema_decay": ema_decay, "early_stopping": False}
    plain, recorded = both(FoRDEClassifier, *binary, **settings)
    assert_alike(plain, recorded, binary[0])
    is_swapped = change is move_weights and ema_decay  # The trained weights lie elsewhere then.
    assert OnCPU.n_recorded == (2 if is_swapped else 4)


class Spoil(Callback):
    """Has the third epoch diverge when it is tried first."""

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 3 and net.rate_factor == 1:
            with torch.no_grad():
                next(net.module_.parameters()).fill_(torch.nan)


@pytest.mark.filterwarnings("ignore:Training diverged:sklearn.exceptions.ConvergenceWarning")
def test_training_that_diverged_goes_on_with_other_graphs(binary):
    settings = {"callbacks": [Spoil()], "early_stopping": False}
    plain, recorded = both(FoRDEClassifier, *binary, **settings)
    assert recorded.net_.rate_factor < 1
    for p, q in zip(*(m.net_.module_.parameters() for m in (plain, recorded)), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)  # The lower rate is rounded.
    assert OnCPU.n_recorded == 4


def test_nothing_is_kept_of_what_was_recorded(binary):
    seen = []

    def look(net):
        again = pickle.loads(pickle.dumps(net.captured))
        seen.extend([len(net.captured._recorded), len(again._recorded)])

    settings = {"callbacks": [Change(look)], "early_stopping": False}
    _, recorded = both(FoRDEClassifier, *binary, **settings)
    assert seen == [0, 0, 2, 0]
    assert len(recorded.net_.captured._recorded) == 0


def test_a_run_that_would_need_many_graphs_goes_on_without(binary, monkeypatch):
    monkeypatch.setattr(_graphs, "_MOST_GRAPHS", 1)
    plain, recorded = both(FoRDEClassifier, *binary)
    assert_alike(plain, recorded, binary[0])
    assert OnCPU.n_recorded == 1
    n_replayed, n_steps = recorded.net_.captured.n_replayed, recorded.net_.n_steps
    assert n_steps / 2 < n_replayed < n_steps - 2


def test_nothing_is_recorded_on_a_cpu(binary):
    model = FoRDEClassifier(3, **SETTINGS, random_state=0).fit(*binary)
    assert model.net_.captured.n_replayed == 0
