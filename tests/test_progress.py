"""Progress on standard error, whatever that is."""

import io
import pickle
import subprocess
import sys

import numpy as np
import pytest
from skorch.callbacks import Callback


def test_progress_in_a_log_says_where_it_stands_and_how_it_ended(small, binary, capfd, monkeypatch):
    small().fit(*binary)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr("sklearn_fordes._progress._SECONDS_BETWEEN_LINES", 0.0)
    model = small(verbose=1, n_iter_no_change=1, max_epochs=50).fit(*binary)
    out, err = capfd.readouterr()
    assert out == ""
    assert "\r" not in err
    *lines, last = err.splitlines()
    losses = [epoch["valid_loss"] for epoch in model.history_]
    assert len(lines) in (len(losses), len(losses) - 1)
    assert lines[1].startswith("training: epoch 2 of at most 50, driving_loss ")
    assert f"valid_loss {losses[1]:.4f}, best {min(losses[:2]):.4f} in epoch" in lines[1]
    stopped = "stopped after" if len(losses) < 50 else "done:"
    best = 1 + int(np.argmin(losses))
    assert last.startswith(f"training: {stopped} {len(losses)} epochs, best {best}, ")
    pickle.dumps(model)


def test_progress_says_how_long_patience_lasts(small, binary, capfd, monkeypatch):
    monkeypatch.setattr("sklearn_fordes._progress._SECONDS_BETWEEN_LINES", 0.0)
    model = small(verbose=1, n_iter_no_change=3, max_epochs=30, lr=0.1).fit(*binary)
    losses = [epoch["valid_loss"] for epoch in model.history_]
    left = [3 - (i - int(np.argmin(losses[: i + 1]))) for i in range(len(losses))]
    assert set(left) >= {1, 3}
    lines = capfd.readouterr().err.splitlines()[:-1]
    said = [f"stops after {n} more without a better one" for n in left if n]
    assert [text in line for text, line in zip(said, lines, strict=True)] == [True] * len(lines)


def test_predictions_of_many_rows_show_their_progress(small, binary, capfd, monkeypatch):
    model = small(iterator_valid__batch_size=50).fit(*binary)
    expected = model.predict_proba(binary[0])
    monkeypatch.setattr("sklearn_fordes._progress._SECONDS_BETWEEN_LINES", 0.0)
    capfd.readouterr()
    np.testing.assert_array_equal(model.set_params(verbose=1).predict_proba(binary[0]), expected)
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].startswith("prediction: row 50 of at most 200, ")
    assert lines[-1].startswith("prediction: 200 rows, ")


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_quick_prediction_says_nothing(small, binary, monkeypatch, is_terminal):
    model = small().fit(*binary)
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal
    monkeypatch.setattr("sys.stderr", stream)
    model.set_params(verbose=1).predict(binary[0])
    assert stream.getvalue() == ""


def test_progress_in_a_terminal_is_a_bar(small, binary, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    small(verbose=1, early_stopping=False).fit(*binary)
    assert "6/6" in terminal.getvalue()
    assert terminal.getvalue().splitlines()[-1].startswith("training: done: 6 epochs, ")


class CallAtEpoch(Callback):
    """Calls a function at the end of an epoch."""

    def __init__(self, epoch, function):
        self.epoch, self.function = epoch, function

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == self.epoch:
            self.function()


class OnlyWrite:
    """The least that a program puts in place of a stream."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text


def test_a_stream_need_only_write(small, binary, monkeypatch):
    stream = OnlyWrite()
    monkeypatch.setattr("sys.stderr", stream)
    small(verbose=1, early_stopping=False).fit(*binary)
    assert stream.text.startswith("training: done: 6 epochs, ")


class BrokenPipe(io.StringIO):
    """A terminal, or a log, that takes nothing."""

    def __init__(self, is_terminal):
        super().__init__()
        self.isatty = lambda: is_terminal

    def write(self, text):
        raise BrokenPipeError


def closed_stream():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize(
    "stream",
    [None, closed_stream(), object(), BrokenPipe(False), BrokenPipe(True)],
    ids=["none", "closed", "object", "broken pipe", "broken terminal"],
)
def test_a_fit_ends_without_a_place_for_its_progress(small, binary, monkeypatch, capfd, stream):
    monkeypatch.setattr("sklearn_fordes._progress._SECONDS_BETWEEN_LINES", 0.0)
    expected = small().fit(*binary).predict_proba(binary[0])
    monkeypatch.setattr("sys.stderr", stream)
    model = small(verbose=1).fit(*binary)
    np.testing.assert_array_equal(model.predict_proba(binary[0]), expected)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_stream_may_be_closed_during_a_fit(small, binary, monkeypatch, is_terminal):
    monkeypatch.setattr("sklearn_fordes._progress._SECONDS_BETWEEN_LINES", 0.0)
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal
    monkeypatch.setattr("sys.stderr", stream)
    closing = CallAtEpoch(3, stream.close)
    model = small(verbose=1, early_stopping=False, callbacks=[closing]).fit(*binary)
    assert stream.closed
    assert model.n_iter_ == 6


def test_a_process_ends_whose_terminal_is_broken():
    code = """
import sys
import numpy as np
from sklearn_fordes import FoRDEClassifier

class Broken:
    def isatty(self):
        return True
    def write(self, text):
        raise BrokenPipeError
    def flush(self):
        raise BrokenPipeError

X = np.random.default_rng(0).normal(size=(60, 3))
stream, sys.stderr = sys.stderr, Broken()
FoRDEClassifier(2, max_epochs=2, verbose=1, random_state=0).fit(X, X[:, 0] > 0)
sys.stderr = stream
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
