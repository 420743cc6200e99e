"""Threads that share out the rows of a prediction: what one thread gets, and none is left."""

import threading
from contextvars import ContextVar
from functools import partial
from itertools import count
from typing import ClassVar

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from contracts import SIZES
from sklearn_fordes import FoRDEClassifier, FoRDERegressor
from sklearn_fordes.inference import _fitted
from sklearn_fordes.inference._parallel import NoThreadError, in_order
from sklearn_fordes.networks import MLP
from sklearn_fordes.networks.fast import MLPEnsemble
from sklearn_fordes.particles import Ensemble, seeded_generators
from sklearn_fordes.preprocessing import TabularEncoder

RNG = np.random.default_rng(0)
X = RNG.normal(size=(500, 4))
X[::5, 1] = np.nan
Y = {FoRDEClassifier: X[:, 0] > 0, FoRDERegressor: 50 + 10 * X[:, 0]}
# Products of narrower layers depend on the number of rows.
WIDE = {**SIZES, "hidden_layer_sizes": (128, 128), "iterator_valid__batch_size": 32}


@pytest.fixture
def three_threads(monkeypatch):
    """Let three threads share rows out, however few there are, and look that none is left."""
    monkeypatch.setattr(_fitted, "_MOST_OF_ONE_THREAD", 1)
    monkeypatch.setattr(_fitted, "_ROWS_OF_A_THREAD", 64)
    threads, n_threads = set(threading.enumerate()), torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    assert torch.get_num_threads() == 3
    torch.set_num_threads(n_threads)
    assert set(threading.enumerate()) <= threads


@pytest.fixture
def seen(monkeypatch):
    """Note the thread of each evaluation, its rows, and with how many threads torch computes."""
    noted = []
    for kind in (Ensemble, MLPEnsemble):
        forward = kind.forward

        def note(self, rows, *, forward=forward, **settings):
            thread = threading.current_thread()
            noted.append((thread, len(rows), torch.get_num_threads()))
            return forward(self, rows, **settings)

        monkeypatch.setattr(kind, "forward", note)
    return noted


def fitted(kind, rows=X, **settings):
    return kind(**{**WIDE, **settings}, random_state=0).fit(rows, Y[kind])


def predictions(model, rows):
    found = [*model.predict_uncertainty(rows), model.ood_score(rows)]
    if isinstance(model, FoRDEClassifier):
        return [*found, model.predict_proba(rows), model.predict_log_proba(rows)]
    return [
        *found,
        *model.predict(rows, return_std=True),
        model.predict_quantiles(rows, [0.1, 0.9]),
    ]


def alone(model, rows):
    """Predict with one thread."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return predictions(model, rows)
    finally:
        torch.set_num_threads(n_threads)


def threads_of(seen):
    return {thread for thread, *_ in seen}


@pytest.mark.parametrize("kind", [FoRDEClassifier, FoRDERegressor])
@pytest.mark.parametrize("make", [np.asarray, pd.DataFrame, pl.DataFrame])
@pytest.mark.usefixtures("three_threads")
def test_predictions_have_the_bits_of_one_thread(kind, make, seen):
    model = fitted(kind, make(X))
    seen.clear()
    expected = alone(model, make(X))
    assert threads_of(seen) == {threading.current_thread()}
    seen.clear()
    found = predictions(model, make(X))
    assert len(threads_of(seen)) >= 2
    assert threading.current_thread() not in threads_of(seen)
    assert {n for *_, n in seen} == {1}
    for actual, one in zip(found, expected, strict=True):
        np.testing.assert_array_equal(actual, one)


@pytest.mark.usefixtures("three_threads")
def test_rows_of_one_chunk_start_no_thread(seen):
    model = fitted(FoRDEClassifier)
    seen.clear()
    predictions(model, X[:32])
    assert threads_of(seen) == {threading.current_thread()}


class Scaler(StandardScaler):
    threads: ClassVar = set()

    def transform(self, X):
        self.threads.add(threading.current_thread())
        return np.nan_to_num(super().transform(X))


@pytest.mark.usefixtures("three_threads")
def test_an_encoder_of_the_user_encodes_in_the_calling_thread(seen, monkeypatch):
    monkeypatch.setattr(_fitted, "_ROWS_ENCODED_AT_ONCE", 150)
    model = fitted(FoRDEClassifier, encoder=make_pipeline(Scaler()))
    expected = alone(model, X)
    seen.clear()
    found = predictions(model, X)
    assert Scaler.threads == {threading.current_thread()}
    assert threading.current_thread() not in threads_of(seen)
    for actual, one in zip(found, expected, strict=True):
        np.testing.assert_array_equal(actual, one)


class Own(MLP): ...


@pytest.mark.usefixtures("three_threads")
def test_a_module_of_the_user_is_evaluated_in_the_calling_thread(seen):
    model = fitted(FoRDEClassifier, module=Own, encoder=TabularEncoder())
    seen.clear()
    predictions(model, X)
    assert threads_of(seen) == {threading.current_thread()}


@pytest.mark.usefixtures("three_threads")
def test_an_error_of_a_part_is_raised(seen):
    model = fitted(FoRDEClassifier)
    rows = np.tile(X, (20, 1))
    rows[200, 0] = np.inf
    seen.clear()
    with pytest.raises(ValueError, match="infinity in column 0"):
        model.predict(rows)
    assert sum(n for _, n, _ in seen) < len(rows) / 4


@pytest.mark.usefixtures("three_threads")
def test_outputs_that_are_not_all_asked_for_leave_no_thread(seen):
    model = fitted(FoRDEClassifier)
    outputs = model.fitted_.outputs(np.tile(X, (20, 1)))
    assert next(outputs).shape[1] == 32
    outputs.close()
    assert not any(thread.is_alive() for thread in threads_of(seen) - {threading.current_thread()})
    assert sum(n for _, n, _ in seen) < 20 * len(X) / 2


@pytest.mark.parametrize("n_rows", [400, 16])
@pytest.mark.usefixtures("three_threads")
def test_where_memory_runs_out_one_thread_goes_on(n_rows, seen, monkeypatch, recwarn):
    model = fitted(FoRDEClassifier)
    expected, forward, main = alone(model, X)[-2], MLPEnsemble.forward, threading.current_thread()
    n_evaluated = count()

    def scarce(self, rows, **settings):
        is_alone = threading.current_thread() is main
        if (next(n_evaluated) > 5 and not is_alone) or len(rows) > n_rows:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return forward(self, rows, **settings)

    monkeypatch.setattr(MLPEnsemble, "forward", scarce)
    seen.clear()
    # Several threads may sum in another order.
    np.testing.assert_allclose(model.predict_proba(X), expected, rtol=1e-5, atol=1e-7)
    assert main in threads_of(seen)
    # A warning tells of smaller chunks, if chunks were smaller.
    said = [str(one.message) for one in recwarn if "Memory ran out" in str(one.message)]
    assert len(said) == (n_rows < 32)


@pytest.mark.usefixtures("three_threads")
def test_where_no_thread_starts_one_goes_on(seen, monkeypatch):
    model = fitted(FoRDEClassifier)
    expected = alone(model, X)

    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    seen.clear()
    for actual, one in zip(predictions(model, X), expected, strict=True):
        np.testing.assert_allclose(actual, one, rtol=1e-5, atol=1e-7)
    assert threads_of(seen) == {threading.current_thread()}
    with pytest.raises(NoThreadError, match="new thread"):
        next(in_order([tuple], 2))


# ---- work in order


def test_results_are_in_order_and_few_wait():
    asked, made = [], []

    def calls():
        for i in range(50):
            made.append(i)
            yield partial(range, i)

    for found in in_order(calls(), 3):
        asked.append(found)
        assert len(made) - len(asked) <= 5
    assert asked == [[*range(i)] for i in range(50)]


def test_an_error_comes_after_the_results_before_it_and_ends_endless_calls():
    def fails():
        yield 1
        raise ZeroDivisionError

    results = in_order([partial(range, 2), fails, count, count], 3)
    assert next(results) == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_an_interrupt_of_the_calling_thread_ends_endless_calls():
    def calls():
        yield count
        yield count
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(in_order(calls(), 2))
    assert not any("prediction" in thread.name for thread in threading.enumerate())


def test_threads_have_the_context_of_the_call():
    setting = ContextVar("setting", default=0)
    setting.set(7)
    with np.errstate(invalid="raise"):
        (found,) = in_order([lambda: [setting.get(), np.geterr()["invalid"]]], 2)
    assert found == [7, "raise"]


def test_members_that_may_draw_stay_in_the_calling_thread():
    # Their templates are drawn from the global generators, for which other threads would wait.
    X, y = make_classification(3000, 4, random_state=0)
    settings = {"encoder": None, "max_epochs": 1, "early_stopping": False, "random_state": 0}
    instance = MLP(4, 2, hidden_layer_sizes=(8,))
    model = FoRDEClassifier(2, module=instance, iterator_valid__batch_size=256, **settings)
    model.fit(X.astype(np.float32), y)
    assert type(model.fitted_.members) is MLPEnsemble
    with seeded_generators(0):
        found = model.predict_proba(X.astype(np.float32))
    assert not any("prediction" in thread.name for thread in threading.enumerate())
    np.testing.assert_array_equal(found, model.predict_proba(X.astype(np.float32)))
