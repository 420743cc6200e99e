"""The moving average of the weights: its value, and when the module holds it."""

import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import Callback, Initializer

from sklearn_fordes.training import DeviceDataset, WeightAverage


class Trace(Callback):
    """Keeps the weights after each step, and at the end of each epoch."""

    def __init__(self):
        self.steps, self.epochs = [], []

    def on_batch_end(self, net, training, **kwargs):
        if training:
            self.steps.append(weights(net))

    def on_epoch_end(self, net, **kwargs):
        self.epochs.append(weights(net))


class InterruptAt(Callback):
    """Interrupts training at the beginning of a step."""

    def __init__(self, step):
        self.step = step

    def on_batch_begin(self, net, training, **kwargs):
        if training and net.n_steps == self.step:
            raise KeyboardInterrupt


def weights(net):
    return np.concatenate([p.detach().numpy().ravel() for p in net.module_.parameters()])


def average_of(steps, decay):
    """Exponential moving average, by its definition."""
    mean = steps[0]
    for n, step in enumerate(steps[1:], start=1):
        d = min(decay, n / (n + 10))
        mean = d * mean + (1 - d) * step
    return mean


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.995])
def test_the_average_is_validated_and_kept_and_does_not_change_the_path(small, binary, decay):
    settings = {"early_stopping": False, "max_epochs": 3}
    plain, averaged = Trace(), Trace()
    small(callbacks=[plain], ema_decay=0.0, **settings).fit(*binary)
    model = small(callbacks=[averaged], ema_decay=decay, **settings).fit(*binary)
    np.testing.assert_array_equal(averaged.steps, plain.steps)
    n_batches = len(plain.steps) // 3
    for epoch in range(3):
        expected = average_of(plain.steps[: (epoch + 1) * n_batches], decay)
        np.testing.assert_allclose(averaged.epochs[epoch], expected, atol=1e-6)
    np.testing.assert_array_equal(weights(model.net_), averaged.epochs[-1])
    assert np.abs(averaged.epochs[-1] - plain.epochs[-1]).max() > 1e-3


def test_weights_that_a_callback_sets_are_trained_and_averaged(small, binary):
    settings = {"early_stopping": False, "max_epochs": 2, "ema_decay": 0.9}
    settings |= {"optimizer": torch.optim.SGD, "lr": 1e-3}
    zeros, plain = Trace(), Trace()
    start = Initializer("*", fn=torch.nn.init.zeros_)
    model = small(callbacks=[start, zeros], **settings).fit(*binary)
    small(callbacks=[plain], **settings).fit(*binary)
    assert np.abs(zeros.steps[0]).max() < 0.01 < np.abs(plain.steps[0]).max()
    np.testing.assert_allclose(weights(model.net_), average_of(zeros.steps, 0.9), atol=1e-6)


class AtEndOfEpoch(Callback):
    """Calls a function on the net at the end of the first epoch."""

    def __init__(self, function):
        self.function = function

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 1:
            self.function(net)


@torch.no_grad()
def shrink(net):
    for parameter in net.module_.parameters():
        parameter.mul_(1e-3)


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_weights_that_a_callback_changes_between_epochs_are_trained(small, binary, decay):
    trace = Trace()
    callbacks = [AtEndOfEpoch(shrink), trace]
    settings = {"early_stopping": False, "max_epochs": 2, "ema_decay": decay}
    settings |= {"optimizer": torch.optim.SGD, "lr": 1e-4}
    small(callbacks=callbacks, **settings).fit(*binary)
    n_batches = len(trace.steps) // 2
    before, after = (np.abs(trace.steps[n_batches + i]).max() for i in (-1, 0))
    assert after < 0.01 * before


def test_a_copy_of_the_net_in_training_swaps_nothing(small, binary):
    copies = []
    keep = AtEndOfEpoch(lambda net: copies.append(copy.deepcopy(net)))
    trace = Trace()
    small(callbacks=[keep, trace], ema_decay=0.9, max_epochs=2).fit(*binary)
    assert copies[0].average is None
    np.testing.assert_array_equal(weights(copies[0]), trace.epochs[0])


def test_the_net_alone_can_be_trained_by_its_loop(small, binary):
    X, y = binary
    net = small(ema_decay=0.9, augmentation=None).fit(X, y).net_
    fresh = clone(net).initialize()
    rows = DeviceDataset(X.astype(np.float32), y)
    fresh.fit_loop(rows, epochs=2)
    assert fresh.n_epochs == 2
    assert fresh.average is not None


def test_an_interrupted_epoch_leaves_the_average(small, binary):
    trace = Trace()
    model = small(callbacks=[trace, InterruptAt(9)], ema_decay=0.9, early_stopping=False)
    with pytest.warns(UserWarning, match="interrupted"):
        model.fit(*binary)
    np.testing.assert_allclose(weights(model.net_), average_of(trace.steps, 0.9), atol=1e-6)
    assert np.abs(weights(model.net_) - trace.steps[-1]).max() > 1e-4


def test_single_steps_of_partial_fit_are_not_held_back(small, binary):
    X, y = binary
    models = [small(ema_decay=decay, batch_size=len(X)) for decay in (0.0, 0.99)]
    for _ in range(5):
        plain, averaged = (model.partial_fit(X, y, classes=[0, 1]) for model in models)
    np.testing.assert_array_equal(averaged.predict_proba(X), plain.predict_proba(X))


def test_frozen_parameters_stay_as_they_are():
    parameter = torch.nn.Parameter(torch.ones(3), requires_grad=False)
    average = WeightAverage([parameter], 0.9)
    with average.training():
        average.update()
    np.testing.assert_array_equal(parameter, np.ones(3, dtype=np.float32))


def test_trained_values_keep_their_place_in_memory():
    parameter = torch.nn.Parameter(torch.ones(3))
    before = parameter.data_ptr()
    average = WeightAverage([parameter], 0.9)
    for value in (2.0, 3.0):
        with average.training():
            assert parameter.data_ptr() == before
            parameter.data.fill_(value)
            average.update()
        assert parameter.data_ptr() != before
    # The first step is taken as it is; the second counts for ten elevenths.
    np.testing.assert_allclose(parameter.detach(), (2 + 10 * 3) / 11, rtol=1e-6)
