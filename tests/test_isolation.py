"""What other code does in the process does not change a fit, and a fit changes nothing of it."""

import os
import pickle
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from torch import nn

from contracts import EstimatorContract, ForClassifier, ForRegressor
from sklearn_fordes import FoRDEClassifier
from sklearn_fordes.inference import _fitted, _surroundings
from sklearn_fordes.networks.fast import MLPEnsemble


def module_with_dropout(n_features, n_outputs):
    """Make a module that draws from torch's global generator in each training step."""
    layers = nn.Linear(n_features, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, n_outputs)
    return nn.Sequential(*layers)


class Noisy(nn.Linear):
    """Draws from torch's global generator in evaluation too."""

    def __init__(self, n_features, n_outputs):
        super().__init__(n_features, n_outputs)

    def forward(self, X):
        return super().forward(X + 0.1 * torch.randn_like(X))


@contextmanager
def default_dtype_bfloat16():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


MODES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default dtype": default_dtype_bfloat16,
    "default device": lambda: torch.device("meta"),
}


class CallEachEpoch(Callback):
    function = None  # Not an attribute of the instance, which is pickled.

    def on_epoch_end(self, net, **kwargs):
        self.function()


class Contract(EstimatorContract):
    @pytest.mark.parametrize("module", [None, module_with_dropout])
    def test_fits_in_threads_equal_fits_alone(self, make, data, module):
        def fit(seed):
            return self.predict(make(module=module, random_state=seed).fit(*data), data[0])

        alone = [fit(seed) for seed in range(4)]
        np.random.seed(3)
        torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(fit, range(4)))
        np.testing.assert_array_equal(together, alone)
        assert torch.equal(torch.get_rng_state(), torch_state)
        np.testing.assert_equal(np.random.get_state(), numpy_state)

    def test_validation_draws_of_a_module_are_those_of_the_fit(self, make, data):
        before = torch.get_rng_state()
        losses = [make(module=Noisy).fit(*data).history_[-1]["valid_loss"] for _ in range(2)]
        assert losses[0] == losses[1]
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize(
        ("mode", "module"),
        # A module of the user's may well depend on the default type.
        [*((mode, None) for mode in MODES), ("inference_mode", module_with_dropout)],
    )
    def test_modes_of_torch_do_not_change_a_fit(self, make, data, mode, module):
        X, y = data
        outside = make(module=module).fit(X, y)
        expected = self.predict(outside, X), outside.input_gradients(X)
        with MODES[mode]():
            inside = make(module=module).fit(X, y)
            fits = [inside, outside, pickle.loads(pickle.dumps(outside))]
            assert fits[2].net_.n_steps > 0  # It is rebuilt now.
            in_mode = [(self.predict(model, X), model.input_gradients(X)) for model in fits]
            member = fits[2].estimators_[0]
            self.begin(make(module=module), X, y).partial_fit(X, y)
        for actual in (*in_mode, (self.predict(inside, X), inside.input_gradients(X))):
            np.testing.assert_array_equal(actual[0], expected[0])
            np.testing.assert_array_equal(actual[1], expected[1])
        further = self.predict(outside.partial_fit(X, y), X)
        for model in (fits[2], inside):
            np.testing.assert_array_equal(self.predict(model.partial_fit(X, y), X), further)
        assert member.partial_fit(X, y).n_iter_ == 4

    @pytest.mark.parametrize("module", [None, module_with_dropout])
    def test_predictions_in_threads_equal_those_alone(self, make, data, module):
        model = make(module=module, iterator_valid__batch_size=40).fit(*data)
        filters = list(warnings.filters)

        def use(_):
            return self.predict(model, data[0]), model.input_gradients(data[0])

        alone = use(0)
        with ThreadPoolExecutor(8) as pool:
            for prediction, gradients in pool.map(use, range(8)):
                np.testing.assert_array_equal(prediction, alone[0])
                np.testing.assert_array_equal(gradients, alone[1])
        assert warnings.filters == filters

    @pytest.mark.parametrize("fails", [False, True])
    def test_the_old_model_is_whole_during_a_fit(self, make, data, monkeypatch, fails):
        X, y = data
        model = make().fit(X, y)
        before, seen = self.predict(model, X), []

        def look():
            seen.append(self.predict(model, X))
            seen.append(self.predict(pickle.loads(pickle.dumps(model)), X))
            if fails and len(seen) == 4:
                raise RuntimeError("No more.")

        monkeypatch.setattr(CallEachEpoch, "function", staticmethod(look))
        model.set_params(callbacks=[CallEachEpoch()], n_members=2, random_state=1)
        with pytest.raises(RuntimeError, match="No more") if fails else nullcontext():
            model.fit(X, y)
        assert len(seen) == (4 if fails else 6)
        for prediction in seen:
            np.testing.assert_array_equal(prediction, before)
        assert np.array_equal(self.predict(model, X), before) == fails

    def test_few_rows_are_predicted_in_the_calling_thread_alone(self, make, data, monkeypatch):
        X, y = data
        model = make().fit(X, y)
        of_a_row = model.fitted_.members.activations_of_a_row
        expected = {n: self.predict(model, X[:n]) for n in (1, 20, 32, 33)}
        monkeypatch.setattr(_fitted, "_MOST_OF_ONE_THREAD", 32 * of_a_row)
        seen, forward = [], MLPEnsemble.forward

        def noted(self, rows, **settings):
            with ThreadPoolExecutor(1) as pool:  # Others keep theirs, new ones among them.
                elsewhere = pool.submit(torch.get_num_threads).result()
            seen.append((len(rows), torch.get_num_threads(), elsewhere))
            if len(rows) > 48:
                raise RuntimeError("Too many.")
            return forward(self, rows, **settings)

        monkeypatch.setattr(MLPEnsemble, "forward", noted)
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            for n_rows, alone in expected.items():
                found = self.predict(model, X[:n_rows])
                np.testing.assert_allclose(found, alone, rtol=1e-6)
                assert torch.get_num_threads() == 2
            monkeypatch.setattr(_fitted, "_MOST_OF_ONE_THREAD", 64 * of_a_row)
            with pytest.raises(RuntimeError, match="Too many"):
                model.predict(X[:60])
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)
        assert seen == [(16, 1, 2), (32, 1, 2), (32, 1, 2), (48, 2, 2), (64, 1, 2)]

    def test_without_a_library_of_threads_to_tell_predictions_are_the_same(
        self, make, data, monkeypatch
    ):
        model = make().fit(*data)
        expected = self.predict(model, data[0][:5])
        monkeypatch.setattr(_surroundings, "_setters_of_threads", lambda: (None, None))
        np.testing.assert_array_equal(self.predict(model, data[0][:5]), expected)


class TestClassifier(ForClassifier, Contract): ...


class TestRegressor(ForRegressor, Contract): ...


def test_the_first_fit_imports_no_compiler_and_writes_nothing():
    code = """
import sys
import numpy as np
from sklearn_fordes import FoRDEClassifier

X = np.random.default_rng(0).normal(size=(60, 3))
FoRDEClassifier(2, max_epochs=2, random_state=0).fit(X, X[:, 0] > 0).predict(X)
assert "torch._dynamo" not in sys.modules
"""
    nowhere = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": "/proc/none", "TMPDIR": "/proc/none"}
    subprocess.run([sys.executable, "-c", code], check=True, env=nowhere)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="This system does not fork.")
def test_a_forked_process_raises_an_error_instead_of_waiting_for_threads():
    code = """
import os
import numpy as np
import torch
from sklearn_fordes import FoRDEClassifier

torch.set_num_threads(2)
X = np.random.default_rng(0).normal(size=(2000, 20))
model = FoRDEClassifier(5, max_epochs=1, device="cpu", random_state=0).fit(X, X[:, 0] > 0)
expected = model.predict_proba(X)
child = os.fork()
if not child:
    code = 1
    try:
        model.predict_proba(X)
    except RuntimeError as error:
        torch.set_num_threads(1)
        is_equal = np.allclose(model.predict_proba(X), expected, atol=1e-6)
        code = 0 if "forked" in str(error) and is_equal else 2
    finally:
        os._exit(code)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="This system does not fork.")
@pytest.mark.parametrize("name", ["file", "pickle"])
def test_a_process_that_only_loaded_can_be_forked(tmp_path, name):
    """A server loads the model once, and forks its workers."""
    X = np.random.default_rng(0).normal(size=(2000, 20))
    model = FoRDEClassifier(
        5, hidden_layer_sizes=(256, 256), max_epochs=1, device="cpu", random_state=0
    ).fit(X, X[:, 0] > 0)
    model.save(tmp_path / "file")
    (tmp_path / "pickle").write_bytes(pickle.dumps(model))
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "expected.npy", model.predict_proba(X))
    code = """
import os, pickle, signal, sys
import numpy as np
import torch
import sklearn_fordes

folder, name = sys.argv[1:]
torch.set_num_threads(2)
X, expected = (np.load(f"{folder}/{one}.npy") for one in ("X", "expected"))
if name == "file":
    model = sklearn_fordes.load(f"{folder}/file")
else:
    model = pickle.load(open(f"{folder}/pickle", "rb"))
assert torch.get_num_threads() == 2
for _ in range(2):
    child = os.fork()
    if not child:
        code = 1
        signal.alarm(60)  # It ends a child that waits.
        try:
            code = 0 if np.allclose(model.predict_proba(X), expected, atol=1e-6) else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
assert np.allclose(model.predict_proba(X), expected, atol=1e-6)
"""
    subprocess.run([sys.executable, "-c", code, tmp_path, name], check=True, timeout=300)
