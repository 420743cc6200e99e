"""The budget of a fit: how many epochs there are, and how the learning rate changes in them."""

from functools import partial

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, LRScheduler

from sklearn_fordes import FoRDEClassifier, FoRDERegressor, load
from sklearn_fordes.networks import MLP, stack_members
from sklearn_fordes.training._schedule import one_cycle

SMALL = {"n_members": 2, "hidden_layer_sizes": (4,), "batch_size": 40, "lr": 0.1, "random_state": 0}


class Rates(Callback):
    """Keeps the learning rate of each step."""

    def __init__(self):
        self.rates_ = []

    def on_grad_computed(self, net, **kwargs):
        self.rates_.append(net.optimizer_.param_groups[0]["lr"])


def rates_of(model):
    return dict(model.net_.callbacks_)["Rates"].rates_


def fitted(X, y, *callbacks, **parameters):
    settings = {"max_epochs": 4, "early_stopping": False, "callbacks": [Rates(), *callbacks]}
    return FoRDEClassifier(**{**SMALL, **settings, **parameters}).fit(X, y)


def test_rate_rises_in_a_twentieth_of_the_steps_and_falls_to_zero(binary):
    rates = rates_of(fitted(*binary))  # Five batches of forty rows.
    middles = (np.arange(20) + 0.5) / 20
    np.testing.assert_allclose(rates, [0.1 * one_cycle(done, 4) for done in middles])
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == rates[1]
    assert rates[-1] == pytest.approx(0.1 * 0.025 / 0.95)
    assert [one_cycle(done, 4) for done in (0.0, 0.05, 1.0)] == [0, 1, 0]
    # Of a thousand epochs it rises in three, for something may end them early.
    assert one_cycle(0.003, 1000) == 1


def test_rate_is_constant_where_it_is_asked_for_and_where_a_callback_sets_it(binary):
    assert set(rates_of(fitted(*binary, lr_schedule="constant"))) == {0.1}
    halved = LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.5)
    for scheduler in (halved, ("mine", halved)):
        rates = rates_of(fitted(*binary, scheduler))
        assert rates == pytest.approx([0.1] * 10 + [0.05] * 10)
    both = rates_of(fitted(*binary, halved, lr_schedule="one_cycle"))
    assert both[-1] == pytest.approx(0.05 * 0.025 / 0.95)


def test_rate_is_the_given_one_after_a_fit_and_in_partial_fit(binary):
    model = fitted(*binary)
    assert {group["lr"] for group in model.net_.optimizer_.param_groups} == {0.1}
    model.set_params(callbacks=[Rates()]).partial_fit(*binary)
    assert rates_of(model) == [0.1] * 5


def test_a_later_fit_has_a_cycle_of_its_own(binary):
    once = rates_of(fitted(*binary))
    model = fitted(*binary, warm_start=True)
    model.set_params(callbacks=[Rates()]).fit(*binary)
    assert model.n_iter_ == 8
    assert rates_of(model) == once


def test_a_resumed_fit_goes_on_in_its_cycle(binary, tmp_path):
    expected = fitted(*binary, checkpoint_dir=tmp_path / "whole")

    class Stop(Callback):
        def on_epoch_begin(self, net, **kwargs):
            if len(net.history) == 3:
                raise RuntimeError("stopped")

    settings = {**SMALL, "max_epochs": 4, "early_stopping": False, "checkpoint_dir": tmp_path}
    with pytest.raises(RuntimeError, match="stopped"):
        FoRDEClassifier(**settings, callbacks=[Stop()]).fit(*binary)
    # A callback of another name is another fit, so that the rate must come from the file.
    resumed = FoRDEClassifier(**settings, callbacks=[Stop()])
    with pytest.raises(RuntimeError, match="stopped"):
        resumed.fit(*binary)
    whole = FoRDEClassifier(**settings).fit(*binary)
    np.testing.assert_array_equal(whole.predict_proba(binary[0]), expected.predict_proba(binary[0]))


@pytest.mark.parametrize(
    ("n_rows", "n_epochs"), [(100, 151), (1000, 60), (10_000, 24), (100_000, 9), (10**6, 4)]
)
def test_epochs_follow_the_rows(n_rows, n_epochs):
    for kind in (FoRDEClassifier, FoRDERegressor):
        assert kind()._n_epochs(n_rows) == n_epochs
        assert kind(max_epochs=7)._n_epochs(n_rows) == 7


def test_epochs_of_a_source_are_parts_of_it():
    model = FoRDEClassifier(iterator_train__rows_per_epoch=10_000)
    assert model._n_epochs(10**6, n_shares=1) == round(950 * 10**3.6 / 10_000)
    default = FoRDEClassifier()
    assert default._n_epochs(10**8, n_shares=1) == round(950 * 10**4.8 / 10**6)
    assert default._n_epochs(10**8, n_shares=4) == round(950 * 10**4.8 / (4 * 10**6))
    # A pass of so few rows more is two epochs.
    assert default._n_epochs(1_100_000, n_shares=1) == round(2 * 950 / 1_100_000**0.4)


def test_the_net_says_how_many_epochs_there_could_have_been(binary, tmp_path):
    model = FoRDEClassifier(**SMALL, n_iter_no_change=1).fit(*binary)
    # Two members have no folds, so that forty rows are held out.
    assert model.net_.max_epochs == model._n_epochs(160) >= model.n_iter_
    model.save(tmp_path / "model")
    assert load(tmp_path / "model").net_.max_epochs == model.n_iter_


@pytest.mark.parametrize("parameters", [{"lr_schedule": "cosine"}, {"max_epochs": "many"}])
def test_other_words_are_refused(binary, parameters):
    (name,) = parameters
    with pytest.raises(ValueError, match=name):
        FoRDEClassifier(**parameters).fit(*binary)


@pytest.mark.parametrize(
    ("batch_size", "rates"),
    [(64, (0.0075, 0.015)), (128, (0.015, 0.03 / 2**0.5)), (160, (0.01875, 0.03 * 0.625**0.5))],
)
def test_rate_grows_with_the_batch(binary, batch_size, rates):
    settings = {"lr": "auto", "batch_size": batch_size, "max_epochs": 1}
    for kind, rate in zip((FoRDEClassifier, FoRDERegressor), rates, strict=True):
        model = kind(**{**SMALL, **settings}).fit(*binary)
        found = {group["lr"] for group in model.net_.optimizer_.param_groups}
        assert [*found] == [pytest.approx(rate)]
        model.set_params(batch_size=1000).fit(*binary)  # A batch has all 160 training rows.
        largest = model.net_.optimizer_.param_groups[0]["lr"]
        assert largest == pytest.approx(0.03 * 0.625**kind._growth_of_rate)
        model = kind(**{**SMALL, **settings, "lr_schedule": "constant"}).fit(*binary)
        assert {group["lr"] for group in model.net_.optimizer_.param_groups} == {0.004}


def test_keys_of_another_file_are_kept():
    ensemble, other = (
        stack_members(partial(MLP, 4, 2, hidden_layer_sizes=(8,), dropout=0.5), 3) for _ in range(2)
    )
    other.stacked.get_buffer("2.draws")[:, 0] = torch.tensor([3, -8, 5])
    ensemble.load_state_dict(other.state_dict())
    assert not ensemble.has_common_draws
    X = torch.randn(6, 4)
    members = [ensemble.member(i) for i in range(3)]
    outputs = ensemble.train()(X)
    for output, member in zip(outputs, members, strict=True):
        torch.testing.assert_close(output, member.train()(X))
