"""Wide tables, networks that no machine can hold, and memory that runs out in prediction."""

import gc
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from skorch.callbacks import Callback
from torch import nn

from sklearn_fordes import FoRDEClassifier, FoRDERegressor
from sklearn_fordes.estimators import _parameters
from sklearn_fordes.estimators._validation import TrainingData
from sklearn_fordes.inference import Chunks
from sklearn_fordes.networks import MLP, PeriodicEmbedding
from sklearn_fordes.networks.fast import MLPEnsemble
from sklearn_fordes.particles import (
    ACTIVATIONS_AT_ONCE,
    CategoricalLikelihood,
    Ensemble,
    _memory,
)
from sklearn_fordes.particles.likelihoods import _base
from sklearn_fordes.preprocessing import TabularEncoder, _learning

SETTINGS = {"n_members": 2, "hidden_layer_sizes": (8,), "max_epochs": 1, "random_state": 0}
X = np.random.default_rng(0).normal(size=(40, 4))
y = (X[:, 0] > 0).astype(int)


@pytest.fixture
def memory(monkeypatch):
    """Set the memory of the machine, in bytes."""
    return lambda size: monkeypatch.setattr(_memory, "memory_of", lambda device: size)


class OwnMLP(MLP):
    """Autograd differentiates it."""


class Own(nn.Linear):
    """It is built to be counted."""

    def __init__(self, n_features, n_outputs):
        super().__init__(n_features, n_outputs)


# ---- embedding


@pytest.mark.parametrize("kind", [FoRDEClassifier, FoRDERegressor])
def test_wide_tables_are_not_embedded(kind):
    widest = _parameters.MOST_EMBEDDED
    wide = np.random.default_rng(0).normal(size=(40, widest + 1))
    wide[:, -3:] = wide[:, -3:] > 0  # Numbers of two values don't count.
    for n_columns, is_embedded in [(widest + 1, True), (widest + 4, False)]:
        table = np.concatenate([wide, X], axis=1)[:, -n_columns:]
        model = kind(**SETTINGS).fit(table, y)
        first = model.fitted_.members.member(0)[0]
        assert isinstance(first, PeriodicEmbedding) == is_embedded
    n_inputs = len(model.encoder_.column_map_)  # With indicators of gaps.
    assert first.weight.shape == (8, n_inputs)
    assert n_inputs == n_columns * 2
    chosen = kind(**SETTINGS, module__embedded_features=range(n_columns)).fit(table, y)
    assert len(chosen.fitted_.members.member(0)[0].features) == n_columns


# ---- refused before it is tried


@pytest.mark.parametrize("kind", [FoRDEClassifier, FoRDERegressor])
@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"n_members": 10**12}, r"n_members=10{12} and hidden_layer_sizes=\(8,\), whose"),
        ({"hidden_layer_sizes": (10**9, 10**9)}, r"n_members=2 and hidden_layer_sizes=\(10{9}, "),
        ({"hidden_layer_sizes": 10**18}, r"n_members=2 and hidden_layer_sizes=\(10{18},\), whose"),
        ({"module__n_frequencies": 10**12}, "n_members=2 and"),
        ({"module": OwnMLP, "hidden_layer_sizes": (10**9,) * 2}, "n_members=2 and module=.*OwnMLP"),
        ({"module": Own, "n_members": 10**12}, "n_members=10{12} and module=.*Own"),
        ({"module": nn.Linear(4, 2), "n_members": 10**12}, "n_members=10{12} and module=Linear"),
    ],
)
def test_networks_that_no_machine_holds_are_refused_by_name(kind, settings, names):
    model = kind(**{**SETTINGS, **settings})
    expected = f"Got {names}.* weights, gradients and two moments take [0-9,]+ MB, but expected "
    with pytest.raises(ValueError, match=expected + "at most the [0-9,]+ MB of memory of this mac"):
        model.fit(X, y)
    assert not hasattr(model, "fitted_")


def test_a_failed_fit_leaves_the_estimator_as_it_was():
    model = FoRDEClassifier(**SETTINGS).fit(X, y)
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match=r"Got n_members=10{12} and"):
        model.set_params(n_members=10**12).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), before)


@pytest.mark.parametrize("settings", [{}, {"module": Own}, {"module": nn.Linear(4, 2)}])
def test_the_limit_is_four_times_the_weights(settings, memory):
    settings = {**SETTINGS, **settings, "encoder": None}
    model = FoRDEClassifier(**settings).fit(X, y)
    n_bytes = sum(weight.nbytes for weight in model.fitted_.members.parameters())
    memory(4 * n_bytes)
    model.fit(X, y)
    memory(4 * n_bytes - 1)
    with pytest.raises(ValueError, match="gradients and two moments take"):
        model.fit(X, y)
    plain = FoRDEClassifier(**settings, optimizer=torch.optim.SGD)
    memory(2 * n_bytes)  # Another optimizer may keep nothing.
    plain.fit(X, y)
    memory(2 * n_bytes - 1)
    with pytest.raises(ValueError, match="whose weights and gradients take"):
        plain.fit(X, y)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"hidden_layer_sizes": ()},
        {"hidden_layer_sizes": (7, 5), "dropout": 0.1},
        {
            "embedded_features": [0, 2, 3],
            "n_frequencies": 6,
            "n_components": 2,
            "activation": "relu",
        },
    ],
)
def test_weights_are_counted_without_a_network(arguments):
    network = MLP(4, 3, **arguments)
    expected = sum(parameter.numel() for parameter in network.parameters())
    assert MLP.count_weights(4, 3, **arguments) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), ValueError),
        (RuntimeError("Storage size calculation overflowed"), ValueError),
        (MemoryError(), ValueError),
        (RuntimeError("something else"), RuntimeError),
    ],
)
def test_a_module_of_the_user_that_takes_too_much_is_named(error, expected):
    class Large(nn.Module):
        def __init__(self):
            raise error

    named = "Got n_members=2 and module=.*Large.*, a single one of"
    match = named if expected is ValueError else "something else"
    with pytest.raises(expected, match=match):
        FoRDEClassifier(**SETTINGS, module=Large).fit(X, y)


def test_a_lengthscale_that_no_machine_holds_is_refused(memory):
    settings = {**SETTINGS, "hidden_layer_sizes": (), "augmentation": None}
    model = FoRDEClassifier(**settings, lengthscale="pca")
    wide = np.random.default_rng(0).normal(size=(20, 300))
    memory(2 * 8 * 300**2 - 1)
    with pytest.raises(ValueError, match=r"Got a lengthscale of the variance of 300 inputs, whose"):
        model.fit(wide, y[:20])
    memory(2 * 8 * 300**2)
    model.fit(wide, y[:20])
    model.set_params(lengthscale="identity")
    memory(10**5)
    model.fit(wide, y[:20])


def test_the_memory_of_a_machine(monkeypatch, tmp_path):
    cpu, limit = torch.device("cpu"), tmp_path / "limit"
    monkeypatch.setattr(_memory, "_LIMITS", (str(limit), str(tmp_path / "missing")))
    whole = _memory.memory_of(cpu)
    assert whole > 1e8
    limit.write_text("max\n")
    assert _memory.memory_of(cpu) == whole
    limit.write_text("1000000\n")
    assert _memory.memory_of(cpu) == 1_000_000
    monkeypatch.delattr(_memory.os, "sysconf", raising=False)
    assert _memory.memory_of(cpu) == 1_000_000
    limit.unlink()
    assert _memory.memory_of(cpu) == float("inf")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5, 7))
    assert _memory.memory_of(torch.device("cuda:1")) == 7
    with pytest.raises(
        ValueError, match=r"Got two take 8 MB, .* 0 MB of memory of the device cuda:1"
    ):
        _memory.expect_memory("two", 8_000_000, torch.device("cuda:1"))


# ---- memory that runs out in prediction

ROWS = np.tile(X, (7, 1))[:256]
ROWS[::4, 1] = np.nan  # These have a part of their uncertainty from a gap.
# Products of narrower layers depend on the number of rows.
WIDE = {**SETTINGS, "hidden_layer_sizes": (128, 128)}
OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"),
    MemoryError(),
]


@pytest.fixture
def holds(monkeypatch):
    """Let members evaluate so many rows at once and no more, and note how many they do."""

    def limit(n_rows, error, engine=MLPEnsemble):
        seen = []
        # One evaluates alone, the other one for input gradients.
        for name in ("forward", "evaluate"):
            method = getattr(engine, name)

            def scarce(self, X, *arguments, method=method, **named):
                if len(X) > n_rows:
                    raise error
                seen.append(len(X))
                return method(self, X, *arguments, **named)

            monkeypatch.setattr(engine, name, scarce)
        return seen

    return limit


def test_many_members_evaluate_no_fewer_rows_than_they_fill_up(monkeypatch, holds):
    monkeypatch.setitem(ACTIVATIONS_AT_ONCE, "cpu", 1)
    table = np.tile(X, (4, 1))[:150]
    fitted = FoRDEClassifier(**SETTINGS).fit(table, np.arange(150) % 2).fitted_
    seen = holds(1000, MemoryError())
    outputs = [*fitted.results(table, torch.detach)]
    assert seen == [64, 64, 32]
    assert [part.shape[1] for part in outputs] == [64, 64, 22]
    seen.clear()
    fitted.column_effects(fitted.encode(table))
    assert seen == [16] * 9 + [6]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("kind", [FoRDEClassifier, FoRDERegressor])
def test_chunks_are_halved_when_memory_runs_out(kind, error, holds):
    model = kind(**WIDE).fit(X, y)
    uses = [model.predict, lambda rows: np.stack(model.predict_uncertainty(rows)), model.ood_score]
    expected = [use(ROWS) for use in uses]
    seen = holds(50, error)
    for use, whole in zip(uses, expected, strict=True):
        seen.clear()
        with pytest.warns(UserWarning, match="on the device cpu for 256 rows at once") as caught:
            found = use(ROWS)
        (warning,) = caught
        # 256, 128 and 64 are too many.
        assert "takes 32 at once. The parameter iterator_valid__batch_size" in str(warning.message)
        assert warning.filename == __file__
        assert set(seen) <= {16, 32}
        assert len(seen) >= 8
        np.testing.assert_array_equal(found, whole)
    assert model.fitted_.rows_per_chunk > 256


def test_chunks_of_gradients_are_halved_too(holds):
    model = FoRDEClassifier(**WIDE, iterator_valid__batch_size=400).fit(X, y)
    expected = model.input_gradients(ROWS)
    seen = holds(50, OUT_OF_MEMORY[0])
    with pytest.warns(UserWarning, match="for 100 rows at once, .* takes 48 at once") as caught:
        found = model.input_gradients(ROWS)
    assert len(caught) == 1
    assert seen == [48] * 5 + [16]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("n_at_once", [16, 400])
def test_the_smallest_chunk_raises_the_error(n_at_once, holds):
    model = FoRDEClassifier(**WIDE, iterator_valid__batch_size=n_at_once).fit(X, y)
    seen = holds(15, OUT_OF_MEMORY[0])
    for use in (model.predict, model.predict_uncertainty, model.ood_score):
        with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
            use(ROWS)
    assert not seen


def test_other_errors_are_raised_at_once(holds):
    model = FoRDEClassifier(**WIDE).fit(X, y)
    holds(50, RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        model.predict(ROWS)
    with pytest.raises(ValueError, match=r"can't be differentiated twice \(something else\)"):
        model.input_gradients(ROWS)


def test_modules_of_the_user_are_evaluated_in_halves_too(holds):
    model = FoRDERegressor(**SETTINGS, module=Own).fit(X, y)
    rows = np.nan_to_num(ROWS)
    expected = model.predict(rows)
    seen = holds(1, MemoryError(), Ensemble)
    with pytest.warns(UserWarning, match="for 256 rows at once, .* takes 1 at once"):
        np.testing.assert_allclose(model.predict(rows), expected, rtol=1e-6)
    assert seen == [1] * 256


def test_calls_in_threads_have_chunks_of_their_own(holds):
    model = FoRDEClassifier(**WIDE).fit(X, y)
    expected = model.predict_proba(ROWS)
    holds(50, OUT_OF_MEMORY[0])
    with pytest.warns(UserWarning, match="takes 32 at once"), ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda _: model.predict_proba(ROWS), range(8)))
    for found in together:
        np.testing.assert_array_equal(found, expected)


def test_kept_memory_of_the_device_that_ran_out_is_released(monkeypatch):
    released = []
    for name in ("cuda", "xpu", "mps"):
        monkeypatch.setattr(
            getattr(torch, name), "empty_cache", lambda name=name: released.append(name)
        )
    for name in ("cuda:0", "mps", "cpu", "meta"):
        chunks, tried = Chunks(8, 1), []

        def call(part, tried=tried):
            tried.append(part.stop - part.start)
            if tried[-1] > 3:
                raise OUT_OF_MEMORY[0]
            return part

        with pytest.warns(UserWarning, match=f"on the device {name} for 8 rows"):
            parts = list(chunks.results(9, torch.device(name), call))
        assert tried == [8, 4, 2, 2, 2, 2, 1]
        assert [part.start for part in parts] == [0, 2, 4, 6, 8]
    assert released == ["cuda", "cuda", "mps", "mps"]


# ---- copies of a large table


N_LARGE = 150_000


def peak_of(call):
    """Return the bytes that numpy has at most during a call, beyond those before."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def large():
    return np.random.default_rng(0).normal(size=(N_LARGE, 20))


def test_an_encoder_needs_little_more_memory_than_its_codes(large, monkeypatch):
    monkeypatch.setattr(_learning, "_LEARNT_AT_ONCE", 1 << 16)
    monkeypatch.setattr(_learning, "_ENCODED_AT_ONCE", 1 << 16)
    encoder, rows = TabularEncoder(gap_indicators="all"), np.arange(1000, N_LARGE)
    codes = 40 * 4 * N_LARGE  # As much as the table: twice the columns, in single precision.
    assert peak_of(lambda: encoder.fit_transform(large, rows=rows)) < codes + large.nbytes / 2
    assert peak_of(lambda: encoder.transform(large)) < codes + large.nbytes / 2


@pytest.mark.parametrize("as_frame", [False, True])
def test_rows_of_a_table_are_encoded_as_a_table_of_them(as_frame, monkeypatch):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(300, 6))
    table[rng.random(table.shape) < 0.1] = np.nan
    table[:, 5] = rng.integers(3, size=300)
    if as_frame:
        table = pd.DataFrame(table).rename(columns=str)
        table["text"] = rng.choice(list("abc"), size=300)
        table["text"] = table["text"].where(table["text"] != "c")
        table["day"] = pd.Timestamp("2024-01-31") + pd.to_timedelta(rng.integers(99, size=300), "D")
    rows = np.sort(rng.permutation(300)[:211])
    part = table.iloc[rows] if as_frame else table[rows]
    expected = TabularEncoder(gap_indicators="all")
    codes = expected.fit_transform(part)
    for at_once in (1 << 20, 700, 1):  # All columns and rows, some of them, one by one.
        monkeypatch.setattr(_learning, "_LEARNT_AT_ONCE", at_once)
        monkeypatch.setattr(_learning, "_ENCODED_AT_ONCE", at_once)
        encoder = TabularEncoder(gap_indicators="all")
        np.testing.assert_array_equal(encoder.fit_transform(table, rows=rows), codes)
        for name, value in vars(expected).items():
            found = getattr(encoder, name)
            if name == "ordinary_surprise_":  # A sum over columns, in another order.
                np.testing.assert_allclose(found, value, rtol=1e-12)
            else:
                np.testing.assert_equal(found, value)


def test_rows_to_train_on_are_no_copy():
    data = TrainingData(X, y, np.ones(len(y)))
    for part in data.hold_out(8, 0):
        assert part.X is X
        np.testing.assert_array_equal(part.table[:, 0] > 0, part.y)
    again = part.part(np.array([3, 1]))
    np.testing.assert_array_equal(again.table, part.table[[3, 1]])


def test_the_callers_array_is_not_trained_on():
    given = X.astype(np.float32)
    fitted = FoRDEClassifier(**SETTINGS, encoder=None).fit(given, y).fitted_
    inputs = fitted.as_inputs(given)
    inputs.zero_()
    np.testing.assert_array_equal(given, X.astype(np.float32))


def test_the_loss_of_a_constant_needs_no_row_of_each_class_at_once(monkeypatch):
    classes = torch.arange(50) % 7
    likelihood = CategoricalLikelihood(7)
    expected = likelihood.constant_loss(classes, None, classes, None)
    sizes, losses_of = [], CategoricalLikelihood.mixture_losses

    def noted(self, outputs, y):
        sizes.append(outputs.numel())
        return losses_of(self, outputs, y)

    monkeypatch.setattr(CategoricalLikelihood, "mixture_losses", noted)
    monkeypatch.setattr(_base, "_OUTPUTS_AT_ONCE", 30)
    assert likelihood.constant_loss(classes, None, classes, None) == pytest.approx(expected)
    assert max(sizes) == 28


@pytest.mark.parametrize("repulsion", ["input_gradient", "none"])
def test_steps_leave_no_tensor_behind(repulsion):
    """A small one splits the memory of its step: a fit of 300,000 rows took up to four times it."""
    n_tensors = []

    class CountTensors(Callback):
        def on_batch_end(self, net, batch, training, **kwargs):
            if training:
                n_tensors.append(sum(type(held) is torch.Tensor for held in gc.get_objects()))

    many = np.random.default_rng(0).normal(size=(600, 4))
    model = FoRDEClassifier(
        repulsion=repulsion, callbacks=[CountTensors()], batch_size=10, **SETTINGS
    )
    model.fit(many, many[:, 0] > 0)
    assert len(n_tensors) > 40
    # Figures are exchanged, and several batches are augmented, every few steps.
    assert max(n_tensors[-20:]) <= max(n_tensors[1:20])


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of this process")
def test_predictions_of_many_rows_keep_no_memory_between_their_chunks():
    """In a process of its own, whose C library keeps what a fit has told it to keep."""
    script = """
import numpy as np
import torch
from pathlib import Path
from sklearn_fordes import FoRDEClassifier

torch.set_num_threads(2)  # Each keeps some memory.

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

X = np.random.default_rng(0).normal(size=(200_000, 30)).astype(np.float32)
model = FoRDEClassifier(max_epochs=1, random_state=0).fit(X[:500], X[:500, 0] > 0)
model.predict_proba(X[:20_000])
before = resident()
model.predict_proba(X)
print(resident() - before)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    # The codes of the rows that are encoded at once take 16 MB, the probabilities 3 MB.
    assert float(run.stdout) < 100
