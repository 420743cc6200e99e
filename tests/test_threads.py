"""Threads that predict, save and fit at once get what they would get alone."""

import copy
import io
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from contracts import SIZES
from sklearn_fordes import FoRDEClassifier, FoRDERegressor, load
from sklearn_fordes.networks.fast import MLPEnsemble
from sklearn_fordes.preprocessing import TabularEncoder

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 4))
Y = {FoRDEClassifier: X[:, 0] > 0, FoRDERegressor: 50 + 10 * X[:, 0]}
KINDS = [FoRDEClassifier, FoRDERegressor]


def outputs(model, rows):
    if isinstance(model, FoRDEClassifier):
        return model.predict_proba(rows)
    return np.stack(model.predict(rows, return_std=True), axis=1)


def fitted(kind, seed):
    return kind(**SIZES, random_state=seed).fit(X, Y[kind])


def again_and_again(function, until):
    """Call a function in a thread until an event is set, and return the future."""

    def run():
        n_calls = 0
        while not until.is_set() or n_calls == 0:
            function(n_calls)
            n_calls += 1
        return n_calls

    pool = ThreadPoolExecutor(1)
    future = pool.submit(run)
    pool.shutdown(wait=False)
    return future


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_calls", [25, pytest.param(1000, marks=pytest.mark.slow)])
def test_eight_threads_predict_while_others_fit_as_one_alone(kind, n_calls):
    model, refitted = fitted(kind, 0), fitted(kind, 1)
    parts = [X[start : start + 4] for start in range(0, 64, 8)]
    alone = [outputs(model, rows) for rows in parts]
    models = [outputs(fitted(kind, seed), X) for seed in range(3)]
    over = threading.Event()

    def fit_another(index):
        np.testing.assert_array_equal(outputs(fitted(kind, index % 3), X), models[index % 3])

    def refit(index):
        refitted.set_params(random_state=index % 3).fit(X, Y[kind])
        np.testing.assert_array_equal(outputs(refitted, X), models[index % 3])

    def predict(part):
        return [outputs(model, parts[part]) for _ in range(n_calls)]

    others = [again_and_again(fit_another, over), again_and_again(refit, over)]
    try:
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(predict, range(8)))
    finally:
        over.set()
    assert all(other.result(timeout=60) >= 1 for other in others)
    for found, expected in zip(together, alone, strict=True):
        np.testing.assert_array_equal(found, np.broadcast_to(expected, (n_calls, *expected.shape)))


def through_joblib(model, path):
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    return joblib.load(file)


def through_a_file(model, path):
    model.save(path)
    return load(path)


WAYS = {
    "pickle": lambda model, path: pickle.loads(pickle.dumps(model)),
    "deepcopy": lambda model, path: copy.deepcopy(model),
    "joblib": through_joblib,
    "save": through_a_file,
}


@pytest.mark.parametrize("change", ["fit", "partial_fit"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_kept_during_a_fit_is_the_old_or_the_new_model(kind, way, change, tmp_path):
    model = fitted(kind, 0)
    first = copy.deepcopy(model)
    known, over, kept = [outputs(model, X)], threading.Event(), []

    def train(index):
        if change == "fit":
            model.set_params(random_state=index % 3).fit(X, Y[kind])
        else:
            model.partial_fit(X, Y[kind])

    training = again_and_again(train, over)
    try:
        kept = [WAYS[way](model, tmp_path / "model") for _ in range(30)]
    finally:
        over.set()
    n_calls = training.result(timeout=60)
    for index in range(n_calls):  # What the other thread did, one after another.
        if change == "fit":
            known = known if index >= 3 else [*known, outputs(fitted(kind, index), X)]
        else:
            known.append(outputs(first.partial_fit(X, Y[kind]), X))
    known = {values.tobytes() for values in known}
    assert {outputs(one, X).tobytes() for one in kept} <= known
    assert all(len(one.history_) == one.n_iter_ for one in kept)


# ---- parts of a table, each in a thread


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def threads_of_parts(monkeypatch):
    """Note in how many threads, and in which, chunks are evaluated."""
    seen, forward = [], MLPEnsemble.forward

    def noted(self, rows, **settings):
        seen.append((len(rows), threading.current_thread().name, torch.get_num_threads()))
        return forward(self, rows, **settings)

    monkeypatch.setattr(MLPEnsemble, "forward", noted)
    return seen


WIDE = {**SIZES, "hidden_layer_sizes": (128, 128), "iterator_valid__batch_size": 48}
# Chunks of 48 rows, 22 whole ones and a rest.
MANY = np.random.default_rng(1).normal(size=(1060, 4))
TABLES = {
    "array": MANY,
    "frame": pd.DataFrame(MANY, columns=[*"abcd"]).assign(
        a=lambda table: pd.Categorical(table["a"].round().astype(int).astype(str))
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_parts_in_threads_are_as_in_one(kind, table, two_threads, threads_of_parts):
    model = kind(**WIDE, random_state=0).fit(table, np.resize(Y[kind], len(table)))
    uses = [model.predict, partial(outputs, model)]
    threads_of_parts.clear()
    in_threads = [use(table) for use in uses]
    assert {n_rows for n_rows, *_ in threads_of_parts} == {48, 16}
    assert {n_threads for *_, n_threads in threads_of_parts} == {1}
    assert "MainThread" not in {name for _, name, _ in threads_of_parts}
    torch.set_num_threads(1)
    threads_of_parts.clear()
    for use, found in zip(uses, in_threads, strict=True):
        np.testing.assert_array_equal(use(table), found)
    assert {name for _, name, _ in threads_of_parts} == {"MainThread"}


@pytest.mark.parametrize(
    ("settings", "n_rows"),
    [({}, 4 * 48 - 1), ({"encoder": StandardScaler()}, 1060)],
)
def test_few_rows_and_encoders_of_the_user_start_no_threads(
    settings, n_rows, two_threads, threads_of_parts
):
    model = FoRDEClassifier(**WIDE, **settings, random_state=0).fit(X, Y[FoRDEClassifier])
    threads_of_parts.clear()
    model.predict(MANY[:n_rows])
    assert {name for _, name, _ in threads_of_parts} == {"MainThread"}


def test_memory_that_runs_out_in_a_thread_may_suffice_for_one_part(two_threads, monkeypatch):
    model = FoRDEClassifier(**WIDE, random_state=0).fit(X, Y[FoRDEClassifier])
    expected = model.predict_proba(MANY)
    forward = MLPEnsemble.forward

    def scarce(self, rows, **settings):
        if threading.current_thread() is not threading.main_thread() or len(rows) > 40:
            raise MemoryError
        return forward(self, rows, **settings)

    monkeypatch.setattr(MLPEnsemble, "forward", scarce)
    with pytest.warns(UserWarning, match="for 48 rows at once, .* takes 16 at once") as caught:
        np.testing.assert_array_equal(model.predict_proba(MANY), expected)
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_an_error_in_a_thread_is_that_of_the_first_part_and_ends_the_others(
    two_threads, monkeypatch
):
    model = FoRDEClassifier(**WIDE, random_state=0).fit(X, Y[FoRDEClassifier])
    n_threads = threading.active_count()
    calls, forward = [], MLPEnsemble.forward

    def failing(self, rows, **settings):
        calls.append(rows)
        if len(calls) == 3:
            raise RuntimeError("The third one.")
        return forward(self, rows, **settings)

    monkeypatch.setattr(MLPEnsemble, "forward", failing)
    with pytest.raises(RuntimeError, match="The third one"):
        model.predict(MANY)
    assert len(calls) < 23
    assert threading.active_count() == n_threads
    assert torch.get_num_threads() == 2


def test_tables_are_predicted_when_the_interpreter_ends():
    """Pools start no threads then."""
    code = """
import atexit
import threading
import time

import numpy as np
import torch
from sklearn_fordes import FoRDEClassifier

torch.set_num_threads(2)
X = np.random.default_rng(0).normal(size=(20_000, 4))
model = FoRDEClassifier(2, max_epochs=1, random_state=0).fit(X[:200], X[:200, 0] > 0)
expected = model.predict_proba(X)

def predict():
    time.sleep(0.5)
    assert (model.predict_proba(X) == expected).all()
    print("equal")

threading.Thread(target=predict).start()
atexit.register(predict)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["equal", "equal"]


class OwnEncoder(TabularEncoder):
    def transform_checked(self, table):
        assert threading.current_thread() is threading.main_thread()
        return super().transform_checked(table)


def test_a_subclass_of_the_encoder_stays_in_its_thread(two_threads):
    model = FoRDEClassifier(**WIDE, encoder=OwnEncoder(), random_state=0)
    model.fit(X, Y[FoRDEClassifier]).predict(MANY)


@pytest.mark.parametrize(
    ("n_threads", "n_rows", "n_rows_of_chunk", "expected"),
    [
        (1, 10**6, 100, (1, 10**6)),
        (2, 10**6, 100, (2, 400)),
        (2, 400, 100, (2, 100)),
        (2, 399, 100, (1, 399)),
        (4, 10**6, 20_000, (3, 20_000)),  # 65,536 rows are encoded at once.
        (4, 10**6, 40_000, (1, 10**6)),
    ],
)
def test_parts_of_a_table(n_threads, n_rows, n_rows_of_chunk, expected, monkeypatch):
    fitted = FoRDEClassifier(**WIDE, random_state=0).fit(X, Y[FoRDEClassifier]).fitted_
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    assert fitted._threads_and_rows(n_rows, n_rows_of_chunk) == expected


def test_few_results_are_held(two_threads, monkeypatch):
    model = FoRDEClassifier(**WIDE, random_state=0).fit(X, Y[FoRDEClassifier])
    many = np.tile(MANY, (20, 1))
    n_evaluated, forward = [0], MLPEnsemble.forward

    def counted(self, rows, **settings):
        n_evaluated[0] += len(rows)
        return forward(self, rows, **settings)

    monkeypatch.setattr(MLPEnsemble, "forward", counted)
    results = model.fitted_.results(many, len)
    next(results)
    time.sleep(0.5)
    # Of each of the two threads, one part that waits, and the one of which this is the first chunk.
    assert n_evaluated[0] <= 4 * 4 * 48
    results.close()
