"""Pickles: what is in them, and where and how they are read again."""

import pickle
import pickletools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from contracts import EstimatorContract, ForClassifier, ForRegressor
from sklearn_fordes import FoRDEClassifier, FoRDERegressor
from sklearn_fordes.networks import MLP

IN_ITS_OWN_PROCESS = """
import pickle, sys, numpy as np
folder = sys.argv[1]
X = np.load(folder + "/X.npy")
models = pickle.load(open(folder + "/models.pkl", "rb"))
np.save(folder + "/predicted.npy", [model.predict_uncertainty(X) for model in models])
"""

IN_A_LOKY_WORKER = """
import numpy as np
from joblib.externals.loky import get_reusable_executor
from torch import nn
from sklearn_fordes import FoRDEClassifier

class Linear(nn.Module):
    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.layer = nn.Linear(n_features, n_outputs)

    def forward(self, X):
        return self.layer(X)

if __name__ == "__main__":
    X = np.random.default_rng(0).normal(size=(60, 2))
    model = FoRDEClassifier(2, module=Linear, max_epochs=2, random_state=0)
    here = model.fit(X, X[:, 0] > 0).predict_proba(X)
    there = get_reusable_executor(1).submit(model.fit, X, X[:, 0] > 0).result()
    assert np.array_equal(there.predict_proba(X), here)
    assert there.partial_fit(X, X[:, 0] > 0).n_iter_ == 3
"""


class Remembering(MLP):
    """Keeps a tensor of its last forward pass, which vmap can't let go."""

    def forward(self, X):
        self.last = super().forward(X)
        return self.last


class Contract(EstimatorContract):
    @pytest.mark.parametrize("module", [None, Remembering])
    def test_a_pickle_holds_no_other_pickle_and_nothing_of_skorch(self, make, data, module):
        model = make(module=module).fit(*data)
        model.partial_fit(*data)
        arrays = []
        dumped = pickle.dumps(model, protocol=5, buffer_callback=arrays.append)
        values = [value for _, value, _ in pickletools.genops(dumped)]
        assert len(arrays) >= 8
        assert all(len(value) <= 100 for value in values if isinstance(value, bytes | bytearray))
        assert not [v for v in values if isinstance(v, str) and v.startswith("skorch")]
        loaded = pickle.loads(dumped, buffers=arrays)
        np.testing.assert_array_equal(self.predict(loaded, data[0]), self.predict(model, data[0]))

    @pytest.mark.parametrize("settings", [{}, {"repulsion": "weight"}, {"lengthscale": 0.5}])
    def test_partial_fit_goes_on_alike_after_a_pickle(self, make, data, settings):
        X, y = data
        model = make(**settings).fit(X, y)
        twice = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(model))))
        assert twice.history_ == model.history_
        for _ in range(2):
            expected = self.predict(model.partial_fit(X, y), X)
            np.testing.assert_array_equal(self.predict(twice.partial_fit(X, y), X), expected)

    def test_members_are_unpickled_in_another_thread(self, make, data):
        X, y = data
        model = make(module=Remembering).fit(X, y)
        expected, dumped = self.predict(model, X), pickle.dumps(model)
        with ThreadPoolExecutor(1) as pool:
            loaded = pool.submit(pickle.loads, dumped).result()
            np.testing.assert_array_equal(self.predict(loaded, X), expected)
            there = pool.submit(self.predict, pickle.loads(dumped), X).result()
            np.testing.assert_array_equal(there, expected)
            assert pool.submit(loaded.partial_fit, X, y).result().n_iter_ == 4


class TestClassifier(ForClassifier, Contract): ...


class TestRegressor(ForRegressor, Contract): ...


def test_a_pickle_predicts_alike_in_a_process_of_its_own(tmp_path):
    X, y = ForClassifier.X, ForClassifier.y
    models = [kind(2, max_epochs=2).fit(X, y) for kind in (FoRDEClassifier, FoRDERegressor)]
    (tmp_path / "models.pkl").write_bytes(pickle.dumps(models))
    np.save(tmp_path / "X.npy", X)
    subprocess.run([sys.executable, "-c", IN_ITS_OWN_PROCESS, str(tmp_path)], check=True)
    expected = [model.predict_uncertainty(X) for model in models]
    np.testing.assert_allclose(np.load(tmp_path / "predicted.npy"), expected, rtol=1e-5, atol=1e-6)


def test_a_model_whose_module_is_in_main_comes_back_from_another_process(tmp_path):
    (tmp_path / "script.py").write_text(IN_A_LOKY_WORKER)
    subprocess.run([sys.executable, str(tmp_path / "script.py")], check=True)


def test_a_fitted_model_holds_neither_data_nor_spare_weights():
    rng = np.random.default_rng(0)
    sizes = []
    for n_rows in (200, 4000):
        X = rng.normal(size=(n_rows, 20))
        model = FoRDEClassifier(3, max_epochs=2).fit(X, X[:, 0] > 0)
        sizes.append(len(pickle.dumps(model)))
    weights = sum(p.numel() * 4 for p in model.net_.module_.parameters())
    assert model.net_.average is None
    assert sizes[1] - sizes[0] < 5_000
    # Members and two moments of Adam.
    assert sizes[1] < weights * 3 + 30_000
