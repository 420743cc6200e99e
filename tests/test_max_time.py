"""A fit with a budget of time, on a clock that the tests turn."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback

from contracts import EstimatorContract, ForClassifier, ForRegressor
from sklearn_fordes.training import _net


class Clock(Callback):
    """Lets a batch of training take a second."""

    now = 0.0
    n_batches = 0

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            Clock.now += 1.0
            Clock.n_batches += 1


@pytest.fixture(autouse=True)
def _clock(monkeypatch):
    Clock.now, Clock.n_batches = 0.0, 0
    monkeypatch.setattr(_net.time, "monotonic", lambda: Clock.now)


class Contract(EstimatorContract):
    # 96 rows for training, in batches of 32: three seconds an epoch.
    @pytest.mark.parametrize(
        ("max_time", "n_epochs", "n_batches"),
        [
            (np.inf, 3, 9),  # All epochs.
            (9, 3, 9),
            (3, 1, 3),
            (8.9, 2, 6),  # The third one would end too late.
            (6, 2, 6),
            (5, 1, 3),
            (1.5, 1, 2),  # The first one is cut short.
            (1e-9, 1, 1),
        ],
    )
    def test_a_fit_ends_in_time(self, make, data, max_time, n_epochs, n_batches):
        model = make(max_time=max_time, callbacks=[Clock()])
        if n_epochs == 3:
            model.fit(*data)
        else:
            when = f"within epoch {n_epochs} of 3"
            if not n_batches % 3:
                when = f"after {n_epochs} of 3 epochs"
            pattern = f"ended by max_time {when}, and"
            if n_batches < 3:
                pattern += r".*\. The first epoch alone takes longer"
            with pytest.warns(ConvergenceWarning, match=pattern) as caught:
                model.fit(*data)
            assert caught[0].filename == __file__
        assert (model.n_iter_, Clock.n_batches) == (n_epochs, n_batches)
        assert len(model.history_) == n_epochs
        assert np.isfinite(self.predict(model, data[0])).all()

    def test_whole_epochs_are_those_of_a_shorter_fit(self, make, data):
        model = make(max_time=8, callbacks=[Clock()])
        with pytest.warns(ConvergenceWarning, match="max_time"):
            model.fit(*data)
        expected = make(max_epochs=2).fit(*data)
        np.testing.assert_array_equal(self.predict(model, data[0]), self.predict(expected, data[0]))

    def test_partial_fit_has_no_budget(self, make, data):
        model = make().fit(*data)
        model.set_params(max_time=1e-9).partial_fit(*data)
        assert model.n_iter_ == 4

    @pytest.mark.filterwarnings("ignore:Training was ended by max_time")
    def test_with_a_checkpoint_the_same_call_goes_on(self, make, data, tmp_path):
        model = make(max_epochs=7, callbacks=[Clock()], early_stopping=False)
        expected = clone(model).fit(*data)
        model.set_params(checkpoint_dir=tmp_path, max_time=10)
        for n_epochs in (2, 4, 6, 7, 7):
            model.fit(*data)
            assert model.n_iter_ == n_epochs
        np.testing.assert_array_equal(self.predict(model, data[0]), self.predict(expected, data[0]))

    @pytest.mark.filterwarnings("ignore:Training was ended by max_time")
    def test_an_epoch_that_is_late_and_whole_is_kept(self, make, data, tmp_path):
        model = make(callbacks=[Clock()], batch_size=999, early_stopping=False)
        expected = clone(model).fit(*data)
        model.set_params(checkpoint_dir=tmp_path, max_time=0.5)
        for n_epochs in (1, 2, 3):
            model.fit(*data)
            assert model.n_iter_ == n_epochs
        np.testing.assert_array_equal(self.predict(model, data[0]), self.predict(expected, data[0]))

    @pytest.mark.filterwarnings("ignore:Training was ended by max_time")
    def test_a_cut_epoch_that_a_callback_ends_is_no_end(self, make, data, tmp_path):
        class Stop(Callback):
            def on_epoch_end(self, net, **kwargs):
                if net.is_cut:
                    raise KeyboardInterrupt

        model = make(max_epochs=4, callbacks=[Clock(), Stop()], early_stopping=False)
        expected = clone(model).fit(*data)
        model.set_params(checkpoint_dir=tmp_path, max_time=2.5).fit(*data)
        assert model.n_iter_ == 1
        model.set_params(max_time=None).fit(*data)
        np.testing.assert_array_equal(self.predict(model, data[0]), self.predict(expected, data[0]))


class TestClassifier(ForClassifier, Contract): ...


class TestRegressor(ForRegressor, Contract): ...


@pytest.mark.filterwarnings("ignore:Training was ended by max_time")
def test_the_best_epoch_is_kept(small, binary):
    settings = {"lr": 1.0, "max_epochs": 30, "n_iter_no_change": 30, "ema_decay": 0.0}
    model = small(max_time=60, callbacks=[Clock()], **settings).fit(*binary)
    losses = [epoch["valid_loss"] for epoch in model.history_]
    best = int(np.argmin(losses)) + 1
    assert best < len(losses) == model.n_iter_ < 30
    expected = small(**{**settings, "max_epochs": best}).fit(*binary)
    np.testing.assert_array_equal(model.predict_proba(binary[0]), expected.predict_proba(binary[0]))


@pytest.mark.filterwarnings("ignore:Training was ended by max_time")
def test_each_fit_of_a_search_has_the_budget(small, binary):
    model = small(max_time=7, callbacks=[Clock()], early_stopping=False)
    search = GridSearchCV(model, {"lr": [1e-2, 2e-2]}, cv=2).fit(*binary)
    assert Clock.n_batches == 4 * 4 + 7
    assert search.best_estimator_.n_iter_ == 1
