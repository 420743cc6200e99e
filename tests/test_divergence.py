"""Losses and weights that stop being finite: one more try, and then an error that says where."""

import re

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback, LRScheduler
from torch import nn
from torch.optim import lr_scheduler

from contracts import EstimatorContract, ForClassifier, ForRegressor
from sklearn_fordes.networks import MLP
from sklearn_fordes.training import ParticleNet


class Spoil(Callback):
    """Writes NaN into a member's weights, before the first batch of an epoch, some times."""

    def __init__(self, epoch, member, times=1):
        self.epoch, self.member, self.times = epoch, member, times

    def on_batch_begin(self, net, training=False, **kwargs):
        if training and len(net.history) == self.epoch and self.times:
            self.times -= 1
            with torch.no_grad():
                next(net.module_.parameters())[self.member] = np.nan


class Record(Callback):
    """Keeps the weights with which each epoch begins, and the learning rate of its first step."""

    def __init__(self):
        self.weights, self.rates = [], []

    def on_epoch_begin(self, net, **kwargs):
        weights = [p.detach().clone().ravel() for p in net.module_.parameters()]
        self.weights.append(torch.cat(weights).numpy())

    def on_grad_computed(self, net, **kwargs):
        if len(self.rates) < len(self.weights):
            self.rates.append(net.optimizer_.param_groups[0]["lr"])


class WithoutFirstColumn(MLP):
    """Divides by zero in one column of the encoded rows."""

    def forward(self, X):
        return super().forward(X) + 0 / X[..., :1].abs().sum()


class Contract(EstimatorContract):
    def test_one_bad_batch_does_not_end_a_fit(self, make, data):
        record = Record()
        model = make(callbacks=[Spoil(3, 1), record], max_epochs=5, lr=1e-2, early_stopping=False)
        pattern = (
            r"diverged and goes on from the weights after 2 epochs, .* rate. \(Got a training "
            r"loss that is not finite .* in epoch 3, of member 1 of 3, counted from 0,"
        )
        with pytest.warns(ConvergenceWarning, match=pattern) as caught:
            model.fit(*data)
        assert [warning.filename for warning in caught] == [__file__]
        assert model.n_iter_ == len(model.history_) == 5
        assert len(record.weights) == 6
        np.testing.assert_array_equal(record.weights[2], record.weights[3])
        assert record.rates == pytest.approx([1e-2] * 3 + [1e-3] * 3)
        assert np.isfinite(self.predict(model, data[0])).all()

    @pytest.mark.filterwarnings("ignore:Training diverged")
    @pytest.mark.parametrize("repulsion", ["input_gradient", "none"])
    def test_the_second_time_an_error_names_the_members(self, make, data, repulsion):
        model = make().fit(*data)
        before = self.predict(model, data[0])
        spoil = Spoil(2, slice(0, 2), times=9)
        model.set_params(callbacks=[spoil], repulsion=repulsion)
        message = (
            r"in epoch 2, of members 0 and 1 of 3, .*Lower lr \(now 0\.001\).* first try, with "
            r"lr=0\.01, diverged in epoch 2\."
        )
        with pytest.raises(ValueError, match=message):
            model.set_params(lr=1e-2).fit(*data)
        assert spoil.times == 9  # The estimator works with a copy.
        np.testing.assert_array_equal(self.predict(model, data[0]), before)

    @pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
    @pytest.mark.parametrize("lr", [1e3, 1e30])
    def test_a_rate_far_too_high_ends_soon_or_makes_a_model(self, make, data, lr):
        model = make(lr=lr, max_epochs=2)
        try:
            model.fit(*data)
        except ValueError as error:
            message = str(error)
        else:
            message = ""
        if hasattr(model, "fitted_"):
            assert lr == 1e3
            assert np.isfinite(self.predict(model, data[0])).all()
        else:
            assert re.search("not finite .* Lower lr", message)

    @pytest.mark.filterwarnings("ignore:Training diverged")
    def test_a_column_that_no_network_can_use_is_an_error_of_all_members(self, make, data):
        X, y = data
        model = make(module=WithoutFirstColumn)
        with pytest.raises(ValueError, match=r"not finite .* in epoch 1, of all members"):
            model.fit(np.c_[np.zeros(len(X)), X], y)

    def test_partial_fit_is_tried_again_too(self, make, data):
        model = make().fit(*data)
        model.set_params(callbacks=[Spoil(4, 0)])
        with pytest.warns(ConvergenceWarning, match="after 3 epochs"):
            model.partial_fit(*data)
        assert model.n_iter_ == 4
        assert np.isfinite(self.predict(model, data[0])).all()


class TestClassifier(ForClassifier, Contract): ...


class TestRegressor(ForRegressor, Contract): ...


def sequence(optimizer, last_epoch=-1):
    parts = [lr_scheduler.StepLR(optimizer, 2), lr_scheduler.LambdaLR(optimizer, lambda _: 0.5)]
    return lr_scheduler.SequentialLR(optimizer, parts, milestones=[3])


def chain(optimizer, last_epoch=-1):
    return lr_scheduler.ChainedScheduler([lr_scheduler.StepLR(optimizer, 2)])


SCHEDULERS = {
    sequence: {},
    chain: {},
    "StepLR": {"step_size": 2},
    "LambdaLR": {"lr_lambda": lambda epoch: 1 / (1 + epoch)},
    "ReduceLROnPlateau": {"patience": 0},
    "CyclicLR": {"base_lr": 1e-3, "max_lr": 1e-2, "step_size_up": 2},
    "OneCycleLR": {"max_lr": 0.02, "total_steps": 40},
    "WarmRestartLR": {},
}


@pytest.mark.parametrize("policy", SCHEDULERS)
def test_a_tenth_of_the_rate_is_one_under_any_scheduler(small, binary, policy):
    def rates(*callbacks):
        known = getattr(lr_scheduler, str(policy), policy)
        scheduler = LRScheduler(known, **SCHEDULERS[policy])
        record = Record()
        small(callbacks=[scheduler, record, *callbacks], early_stopping=False).fit(*binary)
        return record.rates

    expected = rates()
    with pytest.warns(ConvergenceWarning, match="Training diverged"):
        found = rates(Spoil(2, 0))
    assert found[:2] == expected[:2]
    if policy != "ReduceLROnPlateau":  # It depends on the losses.
        np.testing.assert_allclose(found[2:], 0.1 * np.array(expected[1:]))
    assert max(found[2:]) <= 0.1 * max(expected) + 1e-12


def test_a_rate_that_is_a_tensor_is_lowered_once_and_stays_the_users(small, binary):
    record, rate = Record(), torch.tensor(1e-2)
    with pytest.warns(ConvergenceWarning, match="Training diverged"):
        small(callbacks=[Spoil(2, 0), record], optimizer__lr=rate).fit(*binary)
    assert [float(r) for r in record.rates] == pytest.approx([1e-2] * 2 + [1e-3] * 5)
    assert float(rate) == pytest.approx(1e-2)


def test_the_loss_of_validation_rows_is_seen(small, binary):
    X, y = binary
    huge = np.full((4, 6), 1e38)

    class Squares(nn.Linear):
        def __init__(self, n_features, n_outputs):
            super().__init__(n_features, n_outputs)

        def forward(self, X):
            return super().forward(X * X)

    model = small(module=Squares)
    with (
        pytest.warns(ConvergenceWarning, match="validation loss that is not finite"),
        pytest.raises(ValueError, match=r"validation loss .* in epoch 1, of all members"),
    ):
        model.fit(X, y, X_val=huge, y_val=[0, 1, 0, 1])


@pytest.mark.parametrize(
    "hook",
    [
        "on_train_begin",
        "on_epoch_begin",
        "on_batch_begin",
        "on_grad_computed",
        "on_batch_end",
        "on_epoch_end",
        "on_train_end",
    ],
)
def test_an_exception_in_a_hook_leaves_the_estimator_as_it_was(small, binary, tmp_path, hook):
    def fail(*args, **kwargs):
        raise RuntimeError("a fault of the user's")

    X, y = binary
    model = small(checkpoint_dir=tmp_path).fit(X, y)
    before, n_files = model.predict_proba(X), len([*tmp_path.iterdir()])
    faulty = type("Faulty", (Callback,), {hook: fail})
    with pytest.raises(RuntimeError, match="a fault of the user's"):
        model.set_params(callbacks=[faulty()], lr=1e-3).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), before)
    assert model.set_params(callbacks=None).fit(X, y).n_iter_ == 6
    assert n_files == 1


def test_a_long_list_of_members_is_cut(binary):
    from sklearn_fordes.training._recovery import names_of_members

    assert names_of_members(torch.ones(1, dtype=bool)) == "the only member"
    assert names_of_members(torch.arange(9) > 6) == "members 7 and 8 of 9, counted from 0"
    assert names_of_members(torch.arange(9) > 1) == "7 of 9 members, member 2 among them"


def test_a_net_goes_back_once_in_each_run(small, binary):
    model = small(callbacks=[Spoil(2, 0)])
    with pytest.warns(ConvergenceWarning, match="Training diverged"):
        model.fit(*binary)
    assert isinstance(model.net_, ParticleNet)
    assert model.net_.rate_factor < 1
    assert model.set_params(callbacks=None).partial_fit(*binary).net_.rate_factor == 1


@pytest.mark.filterwarnings("ignore:Training diverged")
def test_a_repulsion_of_the_users_may_be_the_reason(small, binary):
    model = small(repulsion=lambda ensemble, X, y: ensemble(X) * np.nan)
    with pytest.raises(ValueError, match="or look at what your repulsion returns"):
        model.fit(*binary)
