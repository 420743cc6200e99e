"""Pickles: what is in them, and where and how they are read again."""

import pickle
import pickletools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from contracts import EstimatorContract, ForClassifier, ForRegressor
from sklearn_fordes import FoRDEClassifier
from sklearn_fordes.networks import MLP

SCRIPT = """
import numpy as np
from joblib.externals.loky import get_reusable_executor
from sklearn_fordes import FoRDEClassifier, FoRDERegressor
from sklearn_fordes.networks import MLP

class Subclass(MLP):
    pass

if __name__ == "__main__":
    X = np.random.default_rng(0).normal(size=(60, 2))
    y = X[:, 0] > 0
    for kind in (FoRDEClassifier, FoRDERegressor):
        for module in (None, Subclass):
            model = kind(2, module=module, max_epochs=2, random_state=0).fit(X, y)
            submit = get_reusable_executor(1).submit
            there = submit(model.predict_uncertainty, X).result()
            assert np.allclose(there.total, model.predict_uncertainty(X).total, atol=1e-6)
            back = submit(model.fit, X, y).result()
            assert np.allclose(back.input_gradients(X), model.input_gradients(X), atol=1e-5)
            assert back.partial_fit(X, y).n_iter_ == 3
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

    def test_a_net_rebuilt_during_a_fit_belongs_to_the_old_model(self, make, data, monkeypatch):
        model, rebuild = pickle.loads(pickle.dumps(make().fit(*data))), self.kind._rebuilt_net

        def rebuild_slowly(now):
            net = rebuild(now)
            model.fit(*data)  # What another thread may do meanwhile.
            return net

        monkeypatch.setattr(self.kind, "_rebuilt_net", rebuild_slowly)
        old = model.fitted_.members
        assert model.net_.module_ is old
        assert model.net_.module_ is model.fitted_.members is not old

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


def test_models_go_to_another_process_and_come_back(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
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
