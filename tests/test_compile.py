"""The compiled step against the eager one."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from sklearn_fordes import FoRDEClassifier, FoRDERegressor
from sklearn_fordes.particles import Repulsion, accumulate_gradients, compile_step
from sklearn_fordes.tabular import MLP, MLPEnsemble

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler"),
    pytest.mark.filterwarnings("ignore::FutureWarning:torch", "ignore::DeprecationWarning:torch"),
]


CHANGING = [(9.0, 12), (4.0, 12), (0.0, 12), (7.0, 11), (3.0, 12)]  # strength, rows


@pytest.mark.parametrize(
    ("backend", "steps"), [("inductor", CHANGING[:2]), ("aot_eager", CHANGING)], ids=str
)
def test_compiled_step_equals_the_eager_one_in_one_graph(backend, steps):
    """Values and gradients, also where strength and rows change from step to step."""
    counters.clear()
    ensemble = MLPEnsemble(
        lambda: MLP(5, 3, hidden_layer_sizes=(7, 4), embedded_features=[0, 2]), 4, seed=3
    ).double()
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(12, 5, dtype=torch.float64, generator=generator)
    y = torch.randint(3, (12,), generator=generator)
    compiled = compile_step(backend=backend)
    for strength, n_rows in steps:
        weight = torch.linspace(0.2, 1.8, n_rows, dtype=torch.float64)
        repulsion = Repulsion(strength=strength, fraction=0.5)
        results = []
        for function in (None, compiled):
            ensemble.zero_grad()
            step = accumulate_gradients(
                ensemble, X[:n_rows], y[:n_rows], weight, repulsion, compiled=function
            )
            results.append((*step, *(p.grad.clone() for p in ensemble.parameters())))
        torch.testing.assert_close(results[1], results[0], atol=1e-12, rtol=1e-9)
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] <= 4


@pytest.fixture
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_two_threads")
def test_compiled_step_of_many_embedded_columns():
    """Torch 2.13 compiles additions at indices, by several threads, to writes beyond a tensor."""
    ensemble = MLPEnsemble(
        lambda: MLP(30, 3, hidden_layer_sizes=(16,), embedded_features=range(30)), 3
    )
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(64, 30, generator=generator)
    y = torch.randint(3, (64,), generator=generator)
    results = []
    for function in (None, compile_step()):
        ensemble.zero_grad()
        accumulate_gradients(ensemble, X, y, repulsion=Repulsion(), compiled=function)
        results.append([p.grad.clone() for p in ensemble.parameters()])
    torch.testing.assert_close(results[1], results[0], atol=1e-5, rtol=1e-3)


def test_estimator_fits_alike_and_is_pickled(binary):
    X, y = binary
    settings = {"n_members": 2, "hidden_layer_sizes": (8,), "max_epochs": 2, "random_state": 0}
    settings["repulsion_period"] = 1  # or there were two graphs
    eager, compiled = (
        FoRDEClassifier(**settings, compile=compiles, module__dropout=0.0).fit(X, y)
        for compiles in (False, True)
    )
    np.testing.assert_allclose(compiled.predict_proba(X), eager.predict_proba(X), atol=1e-4)
    copied = pickle.loads(pickle.dumps(compiled))
    np.testing.assert_array_equal(copied.predict_proba(X), compiled.predict_proba(X))


def test_dropout_in_compiled_code_keeps_the_mean():
    ensemble = MLPEnsemble(lambda: MLP(4, 2, hidden_layer_sizes=(2000,), dropout=0.3), 1).train()
    X, y = torch.randn(8, 4), torch.zeros(8, dtype=torch.int64)
    compiled, outputs = compile_step(), []
    for _ in range(50):
        outputs.append(accumulate_gradients(ensemble, X, y, compiled=compiled).outputs)
    spread = torch.stack(outputs).std(0) / 50**0.5
    difference = torch.stack(outputs).mean(0) - ensemble.eval()(X).detach()
    assert (spread > 0).all()
    assert (difference.abs() < 5 * spread).all()


@pytest.mark.parametrize(
    "model",
    [
        FoRDEClassifier(compile=True, module=MLP),
        FoRDEClassifier(compile=True, repulsion="function"),
        FoRDERegressor(compile=True, noise="homoscedastic"),
    ],
    ids=["module", "space", "noise"],
)
def test_what_needs_autograd_is_refused(binary, model):
    with pytest.raises(ValueError, match=r"Got compile=True with .* but expected the default"):
        model.fit(*binary)
    assert not hasattr(model, "net_")
