"""How training stops before its last epoch: by Ctrl-C, which warns, or by a callback."""

import signal

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback, EarlyStopping


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard():
    """Let SIGINT raise KeyboardInterrupt, also where the process that runs the tests ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class CtrlC(Callback):
    """Presses Ctrl-C in a given epoch, in its first batch or when it ends."""

    def __init__(self, epoch, at_end=False):
        self.epoch, self.at_end = epoch, at_end

    def on_batch_begin(self, net, **kwargs):
        if len(net.history) == self.epoch and not self.at_end:
            signal.raise_signal(signal.SIGINT)

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == self.epoch and self.at_end:
            signal.raise_signal(signal.SIGINT)


class StopAfter(Callback):
    """Stops training after some epochs, as skorch's callbacks do."""

    def __init__(self, n_epochs):
        self.n_epochs = n_epochs

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == self.n_epochs:
            raise KeyboardInterrupt


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("at_end", [False, True])
def test_an_interrupt_keeps_the_epochs_done(small, binary, at_end, early_stopping):
    X, y = binary
    model = small(callbacks=[CtrlC(3 if at_end else 4, at_end)], early_stopping=early_stopping)
    with pytest.warns(ConvergenceWarning, match="interrupted after 3 of 6 epochs"):
        model.fit(X, y)
    assert model.n_iter_ == len(model.net_.history) == 3
    whole = small(max_epochs=3, early_stopping=early_stopping).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), whole.predict_proba(X))


@pytest.mark.parametrize(
    ("callback", "n_epochs"),
    [
        (StopAfter(4), 4),
        (EarlyStopping("train_loss", patience=2, threshold=1e9, threshold_mode="abs"), 3),
        (CtrlC(6, at_end=True), 6),  # All epochs are done.
    ],
    ids=["own", "early stopping", "last epoch"],
)
def test_a_callback_that_stops_ends_the_fit_without_a_warning(small, binary, callback, n_epochs):
    assert small(callbacks=[callback]).fit(*binary).n_iter_ == n_epochs


def test_early_stopping_ends_the_fit_without_a_warning(small, binary):
    model = small(lr=0.1, max_epochs=100, n_iter_no_change=1).fit(*binary)
    losses = [epoch["valid_loss"] for epoch in model.history_]
    assert len(losses) == np.argmin(losses) + 2 < 100


def test_an_interrupt_is_seen_after_a_run_that_was_stopped(small, binary):
    model = small(callbacks=[StopAfter(2)]).fit(*binary)
    model.set_params(callbacks=[CtrlC(3)])
    with pytest.raises(KeyboardInterrupt):
        model.partial_fit(*binary)
    assert model.n_iter_ == 2


def test_the_log_counts_whole_epochs(small, binary, capfd):
    with pytest.warns(ConvergenceWarning, match="interrupted after 4 of 6 epochs"):
        small(callbacks=[CtrlC(5)], early_stopping=False, verbose=1).fit(*binary)
    assert capfd.readouterr().err.startswith("training: stopped after 4 epochs, ")
    model = small(early_stopping=False).fit(*binary)
    model.set_params(verbose=1).partial_fit(*binary)
    assert capfd.readouterr().err.startswith("training: done: 1 epochs, ")


def test_an_interrupt_in_the_first_epoch_is_raised(small, binary):
    model = small(callbacks=[CtrlC(1)])
    with pytest.raises(KeyboardInterrupt):
        model.fit(*binary)
    assert not hasattr(model, "net_")
