"""The callbacks of scikit-learn 1.9, which are told of a fit and of each epoch."""

import gc
import pickle
import weakref

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_fordes import FoRDERegressor
from sklearn_fordes.estimators._validation import CALLBACK_ATTRIBUTES

callback = pytest.importorskip("sklearn.callback", reason="new in scikit-learn 1.9")


class Recorder:
    """Notes each hook; asks to stop after some epochs, or fails in a hook."""

    def __init__(self, stop_after=None, fails_in=None, fits=False):
        self.events, self.given, self.fitted = [], [], []
        self.stop_after, self.fails_in, self.fits = stop_after, fails_in, fits

    def note(self, hook, context):
        self.events.append((hook, context.task_name, context.task_id))
        if hook == self.fails_in:
            raise RuntimeError(f"{hook} failed")

    def setup(self, estimator, context):
        self.note("setup", context)

    def teardown(self, estimator, context):
        self.note("teardown", context)

    def on_fit_task_begin(self, estimator, context, *, X, y, metadata):
        self.note("begin", context)
        self.given.append((X, y, metadata))

    def on_fit_task_end(self, estimator, context, *, X, y, fitted_estimator):
        self.note("end", context)
        self.given.append((X, y, None))
        self.fitted.append(fitted_estimator)
        return context.task_name == "epoch" and context.task_id + 1 == self.stop_after


def epochs(n):
    return [(hook, "epoch", i) for i in range(n) for hook in ("begin", "end")]


def test_a_fit_that_a_checkpoint_knows_keeps_no_rows(small, binary, tmp_path):
    X, y = binary
    small(checkpoint_dir=tmp_path).set_callbacks(Recorder()).fit(X, y)
    recorder, rows = Recorder(), X.copy()
    model = small(checkpoint_dir=tmp_path).set_callbacks(recorder).fit(rows, y)
    assert ("begin", "epoch", 0) not in recorder.events
    reference = weakref.ref(rows)
    recorder.given.clear()
    del rows
    gc.collect()
    assert reference() is None
    assert model.n_iter_ == 6


def test_a_fit_with_callbacks_has_its_own_checkpoint(small, binary, tmp_path):
    for _ in range(2):
        small(checkpoint_dir=tmp_path, max_epochs=2).fit(*binary)
        model = small(checkpoint_dir=tmp_path, max_epochs=2).set_callbacks(Recorder())
        model.fit(*binary)
    assert len([*tmp_path.iterdir()]) == 2


def test_a_fit_has_a_task_for_each_epoch(small, binary):
    X, y = binary
    recorder, weight = Recorder(), np.ones(len(y))
    small(max_epochs=3).set_callbacks(recorder).fit(X, y, sample_weight=weight)
    begin, *inner, end, teardown = recorder.events[1:]
    assert recorder.events[0] == ("setup", "fit", 0)
    assert (begin, end, teardown) == tuple((h, "fit", 0) for h in ("begin", "end", "teardown"))
    assert inner == epochs(3)
    assert all(given[0] is X and given[1] is y for given in recorder.given)
    assert recorder.given[0][2]["sample_weight"] is weight


@pytest.mark.parametrize("early_stopping", [False, True])
def test_callbacks_get_the_estimator_of_each_epoch_and_change_nothing(
    small, multiclass, early_stopping
):
    X, y = multiclass
    parameters = {"max_epochs": 4, "early_stopping": early_stopping, "module__dropout": 0.3}
    alone = small(**parameters).fit(X, y)
    recorder = Recorder()
    model = small(**parameters).set_callbacks(recorder).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), alone.predict_proba(X))
    *of_epochs, whole = recorder.fitted
    np.testing.assert_array_equal(whole.predict_proba(X), alone.predict_proba(X))
    for n, fitted in enumerate(of_epochs, 1):
        assert fitted.n_iter_ == len(fitted.history_) == len(fitted.net_.history) == n
        assert not hasattr(fitted, "feature_importances_")
        if not early_stopping:
            expected = small(**{**parameters, "max_epochs": n}).fit(X, y)
            np.testing.assert_array_equal(fitted.predict_proba(X), expected.predict_proba(X))
        again = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    losses = [log_loss(y, fitted.predict_proba(X)) for fitted in of_epochs]
    assert len(set(losses)) == 4


@pytest.mark.parametrize(("kind", "score"), [("classifier", "accuracy"), ("regressor", "r2")])
def test_scoring_monitor(small, binary, kind, score):
    X, y = binary
    model = small(early_stopping=False, max_epochs=3)
    if kind == "regressor":
        model = FoRDERegressor(2, max_epochs=3, early_stopping=False, random_state=0)
    monitor = callback.ScoringMonitor(scoring=score)
    model.set_callbacks(monitor).fit(X, y)
    whole, *of_epochs = monitor.get_logs().data
    assert [row["task_id"] for row in of_epochs] == [0, 1, 2]
    assert whole[score] == of_epochs[-1][score] == model.score(X, y)


def test_scoring_monitor_of_labels_in_a_pipeline_in_a_search(small, binary):
    X, y = binary[0], np.array(["no", "yes"])[binary[1]]
    monitor = callback.ScoringMonitor(scoring="neg_log_loss")
    model = small(max_epochs=2).set_callbacks(monitor)
    search = GridSearchCV(make_pipeline(StandardScaler(), model), {"fordeclassifier__lr": [0.01]})
    search.set_params(cv=2).fit(X, y)
    data = monitor.get_logs().data
    assert [row["task_name"] for row in data].count("epoch") == 6  # Two folds and the refit.
    assert all(row["neg_log_loss"] < 0 for row in data)


@pytest.mark.parametrize("wrap", ["alone", "pipeline", "search"])
def test_progress_bar(small, binary, capsys, wrap):
    pytest.importorskip("rich")
    model = small(max_epochs=2)
    if wrap != "alone":
        model = make_pipeline(StandardScaler(), model)
    if wrap == "search":
        model = GridSearchCV(model, {"fordeclassifier__n_members": [2, 3]}, cv=2)
    model.set_callbacks(callback.ProgressBar(max_propagation_depth=None)).fit(*binary)
    assert "FoRDEClassifier - fit" in capsys.readouterr().out
    assert model.predict(binary[0]).shape == binary[1].shape


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_hook_can_stop_training(small, binary, early_stopping):
    X, y = binary
    recorder = Recorder(stop_after=2)
    model = small(max_epochs=5, early_stopping=early_stopping).set_callbacks(recorder).fit(X, y)
    assert model.n_iter_ == 2
    assert recorder.events[2:-2] == epochs(2)
    expected = small(max_epochs=2, early_stopping=early_stopping).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), expected.predict_proba(X))


def test_the_last_epoch_of_early_stopping_ends_too(small, binary):
    recorder = Recorder()
    # Without steps no epoch is better than the first.
    model = small(max_epochs=9, n_iter_no_change=1, lr=1e-30).set_callbacks(recorder).fit(*binary)
    assert model.n_iter_ == 2
    assert recorder.events[2:-2] == epochs(2)


@pytest.mark.parametrize("hook", ["setup", "begin", "end", "teardown"])
def test_a_hook_that_fails_leaves_the_estimator_as_it_was(small, binary, hook):
    X, y = binary
    model = small(max_epochs=1).fit(X, y).set_callbacks(Recorder(fails_in=hook))
    before = dict(vars(model))
    with pytest.raises(RuntimeError, match=f"{hook} failed"):
        model.fit(X, y)
    assert vars(model) == before
    recorder = before["_skl_callbacks"][0]
    assert recorder.events[-1][0] == "teardown"


def test_bad_rows_fail_before_any_hook(small, binary):
    recorder = Recorder()
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        small().set_callbacks(recorder).fit(binary[0], binary[1][:-1])
    assert recorder.events == []


@pytest.mark.filterwarnings("ignore:Training diverged")
def test_a_failing_fit_tears_down(small, binary):
    recorder = Recorder()
    model = small(lr=1e30, early_stopping=False).set_callbacks(recorder)
    with pytest.raises(ValueError, match="not finite"):
        model.fit(*binary)
    assert recorder.events[-1][0] == "teardown"
    assert set(vars(model)) == {*vars(small()), "_skl_callbacks"}


def test_clones_pickles_and_fits_keep_callbacks(small, binary):
    recorder = Recorder()
    model = small(max_epochs=1).set_callbacks(recorder)
    assert clone(model)._skl_callbacks == [recorder]
    model.fit(*binary)
    assert model._skl_callbacks == [recorder]
    assert [name for name in vars(model) if name in CALLBACK_ATTRIBUTES] == ["_skl_callbacks"]
    assert not set(CALLBACK_ATTRIBUTES) & set(vars(model._then_))
    again = pickle.loads(pickle.dumps(model))
    assert again._skl_callbacks[0].events[-1][0] == "teardown"
    model.set_callbacks()
    assert "_skl_callbacks" not in vars(model.fit(*binary))
    assert len(recorder.events) == 6  # Those of the first fit.


class Silent:
    """Keeps nothing."""

    def setup(self, estimator, context): ...
    def teardown(self, estimator, context): ...
    def on_fit_task_begin(self, estimator, context): ...
    def on_fit_task_end(self, estimator, context): ...


def test_a_fitted_estimator_does_not_keep_the_rows(small, binary):
    rows = type("Rows", (np.ndarray,), {})(binary[0].shape)
    rows[:] = binary[0]
    there = weakref.ref(rows)
    model = small(max_epochs=1).set_callbacks(Silent()).fit(rows, binary[1])
    del rows
    gc.collect()
    assert there() is None
    assert model.n_iter_ == 1


def test_skorch_callbacks_come_between(small, binary):
    """Early stopping sees the epoch after which a hook stops."""
    recorder = Recorder(stop_after=1)
    model = small(max_epochs=3).set_callbacks(recorder).fit(*binary)
    names = [name for name, _ in model.net_.callbacks_]
    assert names.index("epoch_tasks") < names.index("early_stopping") < len(names) - 1
    assert names[-1] == "stop_when_told"
    assert dict(model.net_.callbacks_)["early_stopping"].best_epoch_ == 1
