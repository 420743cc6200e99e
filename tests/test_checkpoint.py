"""Fits that are broken off and go on: in the end they are, bit by bit, those that never were."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from datetime import date
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback, Checkpoint, EpochScoring, Freezer, LRScheduler
from torch import nn
from torch.optim.swa_utils import AveragedModel

import sklearn_fordes
from contracts import EstimatorContract, ForClassifier, ForRegressor
from sklearn_fordes import FoRDEClassifier, Repulsion
from sklearn_fordes.persistence import _checkpoint
from sklearn_fordes.preprocessing import TabularEncoder
from sklearn_fordes.training import ClipMemberGradients


class Fault(Exception):
    """What breaks a fit off."""


class BreakOff(Callback):
    """Raises in a batch or at the end of an epoch, once it is set to."""

    at = None  # Not an attribute of the instance: it is no parameter of the fit.

    def on_batch_begin(self, net, **kwargs):
        if self.at == ("batch", len(net.history)):
            raise Fault

    def on_epoch_end(self, net, **kwargs):
        if self.at == ("epoch", len(net.history)):
            raise Fault


class Counts(Callback):
    """Its own state changes what it does."""

    def initialize(self):
        self.n_batches_ = 0
        return self

    def on_batch_end(self, net, training=False, **kwargs):
        self.n_batches_ += training
        if training and self.n_batches_ % 5 == 0:
            with torch.no_grad():
                for parameter in net.module_.parameters():
                    parameter *= 0.99


class CountsInDicts(Callback):
    """Its dicts have values that were never set."""

    def initialize(self):
        self.counts_, self.nested_ = Counter(), {"epochs": defaultdict(int)}
        return self

    def on_epoch_end(self, net, **kwargs):
        self.counts_["epochs"] += 1
        self.nested_["epochs"][len(net.history)] += 1
        net.history.record("counts", (self.counts_["epochs"], len(self.nested_["epochs"])))


class AveragesModule(Callback):
    """Holds a module, whose state is an ordered dict."""

    def on_train_begin(self, net, **kwargs):
        self.average_ = AveragedModel(nn.Linear(1, 1))

    def on_epoch_end(self, net, **kwargs):
        self.average_.update_parameters(nn.Linear(1, 1))
        net.history.record("n_averaged", self.average_.n_averaged.item())


def with_dropout_and_norm(n_features, n_outputs):
    return nn.Sequential(
        nn.Linear(n_features, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(8, n_outputs),
    )


def own_augmentation(X, rng):
    return X + 0.1 * torch.from_numpy(rng.standard_normal(X.shape)).to(X)


def space(ensemble, X, y):
    return ensemble(X + 0.01 * torch.randn_like(X))


SETTINGS = {
    "default": {},
    "held out": {"validation_fraction": 0.2, "n_iter_no_change": 2},
    "no early stopping": {"early_stopping": False},
    "no average": {"ema_decay": 0.0},
    "none": {"repulsion": "none"},
    "period": {"repulsion": Repulsion(period=3, warmup=4), "lengthscale": 0.5},
    "weight": {"repulsion": Repulsion("weight", update="svgd")},
    "own space": {"repulsion": space},
    "own module": {"module": with_dropout_and_norm},
    "own augmentation": {"augmentation": own_augmentation},
    "sgd": {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9},
    "foreach": {"optimizer__foreach": True, "optimizer__amsgrad": True},
    "step": {"callbacks": [LRScheduler("StepLR", step_size=2)]},
    "one cycle": {
        "callbacks": [
            LRScheduler(
                torch.optim.lr_scheduler.OneCycleLR, max_lr=0.02, total_steps=99, step_every="batch"
            )
        ]
    },
    "milestones": {"callbacks": [LRScheduler("MultiStepLR", milestones=[2, 4, 6], gamma=0.5)]},
    "freezer": {"callbacks": [Freezer("*weight*", at=3)]},
    "dicts": {"callbacks": [CountsInDicts(), AveragesModule()]},
    "plateau": {"callbacks": [LRScheduler("ReduceLROnPlateau", patience=0)]},
    "callbacks": {"callbacks": [Counts(), ClipMemberGradients(1.0)]},
    "generator": {"random_state": np.random.RandomState(3)},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _written_after_each_epoch(monkeypatch):
    monkeypatch.setattr(_checkpoint, "_SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(_checkpoint, "_LARGEST_SHARE", np.inf)


def broken_off(model, at, data, monkeypatch, **more):
    """Fit until a fault, as another process did."""
    with monkeypatch.context() as patch:
        patch.setattr(BreakOff, "at", at)
        with pytest.raises(Fault):
            clone(model).fit(*data, **more)


def state_of(model):
    """All that a fit leaves, but for how long it took."""
    weights = {name: w.numpy().copy() for name, w in model.fitted_.members.state_dict().items()}
    history = [{k: v for k, v in epoch.items() if k != "dur"} for epoch in model.history_]
    return weights, repr(history), model.n_iter_


def assert_same_fit(found, expected):
    np.testing.assert_equal(found[0], expected[0])
    assert found[1:] == expected[1:]


class Contract(EstimatorContract):
    @pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
    def test_a_fit_ends_where_the_uninterrupted_one_does(
        self, data, tmp_path, monkeypatch, settings
    ):
        X, y = data
        settings = {"max_epochs": 8, "random_state": 0, **settings}
        settings["callbacks"] = [*settings.get("callbacks", []), BreakOff()]
        model = self.kind(3, hidden_layer_sizes=(8,), batch_size=32, lr=1e-2, **settings)
        whole = clone(model).fit(X, y)
        expected = state_of(whole)
        model.set_params(checkpoint_dir=tmp_path)
        for at in [("batch", 1), ("epoch", 1), ("batch", 4), ("epoch", 5)]:
            if at[1] <= whole.n_iter_:
                broken_off(model, at, data, monkeypatch)
        (path,) = tmp_path.iterdir()
        resumed = clone(model).fit(X, y)
        assert_same_fit(state_of(resumed), expected)
        # What has ended is not done again, and partial_fit goes on alike.
        monkeypatch.setattr(BreakOff, "at", ("batch", 1))
        again = clone(model).fit(X, y)
        monkeypatch.setattr(BreakOff, "at", None)
        assert_same_fit(state_of(again), expected)
        for fit in (whole, resumed, again):
            fit.set_params(callbacks=None).partial_fit(X, y)
        assert_same_fit(state_of(resumed), state_of(whole))
        assert_same_fit(state_of(again), state_of(whole))
        assert [*tmp_path.iterdir()] == [path]

    def test_all_arguments_of_fit_go_on(self, make, data, tmp_path, monkeypatch):
        X, y = data
        model = make(max_epochs=5, callbacks=[BreakOff()])
        more = {
            "sample_weight": np.linspace(0, 2, len(y)),
            "X_val": X[:30],
            "y_val": y[:30],
            "X_repulsion": X[::-1] * 2,
        }
        expected = state_of(clone(model).fit(X, y, **more))
        model.set_params(checkpoint_dir=tmp_path)
        broken_off(model, ("batch", 4), data, monkeypatch, **more)
        assert_same_fit(state_of(model.fit(X, y, **more)), expected)

    def test_another_fit_has_its_own_checkpoint(self, make, data, tmp_path):
        X, y = data
        model = make(checkpoint_dir=tmp_path)
        expected = make(lr=2e-2).fit(X, y)
        model.fit(X, y)
        np.testing.assert_array_equal(
            self.predict(clone(model).set_params(lr=2e-2).fit(X, y), X), self.predict(expected, X)
        )
        changes = [
            lambda: model.fit(X[:-1], y[:-1]),
            lambda: model.fit(np.r_[X[:1] + 0.01, X[1:]], y),
            lambda: model.fit(X, y, sample_weight=np.linspace(1, 2, len(y))),
            lambda: model.set_params(callbacks=[ClipMemberGradients(1.0)]).fit(X, y),
            lambda: model.set_params(callbacks=[ClipMemberGradients(2.0)]).fit(X, y),
            lambda: model.set_params(max_epochs=4).fit(X, y),
            lambda: model.set_params(random_state=1).fit(X, y),
            lambda: model.set_params(n_members=2).fit(X, y),
        ]
        for i, change in enumerate(changes, start=3):
            change()
            assert len([*tmp_path.iterdir()]) == i
        # What changes nothing of a fit finds the old one.
        model.set_params(verbose=1, max_time=99.0, device="cpu").fit(X, y)
        assert len([*tmp_path.iterdir()]) == i

    def test_without_a_random_state_the_folder_has_one(self, make, data, tmp_path, monkeypatch):
        X, y = data
        model = make(random_state=None, checkpoint_dir=tmp_path, callbacks=[BreakOff()])
        broken_off(model, ("batch", 3), data, monkeypatch)
        names = sorted(path.name for path in tmp_path.iterdir())
        resumed = clone(model).fit(X, y)
        assert sorted(path.name for path in tmp_path.iterdir()) == names
        seed = int((tmp_path / "seed").read_text())
        expected = make(random_state=seed, callbacks=[BreakOff()]).fit(X, y)
        assert_same_fit(state_of(resumed), state_of(expected))

    def test_a_rollback_is_part_of_the_state(self, make, data, tmp_path, monkeypatch):
        X, y = data

        class SpoilSecond(Callback):
            def on_batch_begin(self, net, training=False, **kwargs):
                if training and len(net.history) == 2 and net.rate_factor == 1:
                    with torch.no_grad():
                        next(net.module_.parameters())[0] = np.nan

        model = make(max_epochs=6, callbacks=[SpoilSecond(), BreakOff()])
        with pytest.warns(ConvergenceWarning, match="Training diverged"):
            expected = state_of(clone(model).fit(X, y))
        model.set_params(checkpoint_dir=tmp_path)
        with pytest.warns(ConvergenceWarning, match="Training diverged"):
            broken_off(model, ("batch", 5), data, monkeypatch)
        assert_same_fit(state_of(model.fit(X, y)), expected)  # Without a warning.

    def test_a_checkpoint_holds_no_rows(self, make, data, tmp_path):
        X, y = data
        scoring = EpochScoring("neg_mean_squared_error", name="score")
        make(checkpoint_dir=tmp_path, callbacks=[scoring]).fit(X, y)
        kind, state = sklearn_fordes.persistence.read(next(tmp_path.iterdir()))
        assert kind == "Checkpoint"
        text = repr(state)
        assert "y_trues_" not in text
        assert "X_indexing_" not in text

    def test_a_checkpoint_is_no_model(self, make, data, tmp_path):
        make(checkpoint_dir=tmp_path).fit(*data)
        with pytest.raises(ValueError, match="of a 'Checkpoint', but expected one of"):
            sklearn_fordes.load(next(tmp_path.iterdir()))

    def test_a_damaged_checkpoint_is_refused(self, make, data, tmp_path):
        model = make(checkpoint_dir=tmp_path).fit(*data)
        before = self.predict(model, data[0])
        (path,) = tmp_path.iterdir()
        whole = path.read_bytes()
        for damaged in (whole[:-9], b"", whole.replace(b'"is_finished', b'"is_Finished')):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match="which can't be loaded"):
                model.fit(*data)
        make().fit(*data).save(path)
        with pytest.raises(ValueError, match=r"of a .*, but expected a checkpoint"):
            model.fit(*data)
        np.testing.assert_array_equal(self.predict(model, data[0]), before)

    def test_the_folder_is_not_in_a_saved_model(self, make, data, tmp_path):
        model = make(checkpoint_dir=tmp_path / "states").fit(*data)
        model.save(tmp_path / "model")
        assert b"states" not in (tmp_path / "model").read_bytes()
        assert sklearn_fordes.load(tmp_path / "model").checkpoint_dir is None


class TestClassifier(ForClassifier, Contract): ...


class TestRegressor(ForRegressor, Contract): ...


def noise(X, rng, scale=0.1):
    return X + scale * torch.from_numpy(rng.standard_normal(X.shape)).to(X)


def noise_of(scale):
    return lambda X, rng: noise(X, rng, scale)


class Noise:
    __slots__ = ("scale",)

    def __init__(self, scale):
        self.scale = scale

    def add(self, X, rng):
        return noise(X, rng, self.scale)


class Holds(Callback):
    def __init__(self, value):
        self.value = value


def with_dropout(n_features, n_outputs, p=0.1):
    return nn.Sequential(nn.Linear(n_features, 4), nn.Dropout(p), nn.Linear(4, n_outputs))


def deep_module(p):
    layer = nn.Dropout(p)
    for _ in range(5):
        layer = nn.Sequential(layer)
    return nn.Sequential(nn.Linear(6, 2), layer)


OTHER_SETTINGS = {
    "partial": lambda x: {"augmentation": partial(noise, scale=x)},
    "closure": lambda x: {"augmentation": noise_of(x)},
    "method": lambda x: {"augmentation": Noise(x).add},
    "factory": lambda x: {"module": partial(with_dropout, p=x)},
    "code": lambda x: {"module": eval(f"lambda n_features, n_outputs: with_dropout(6, 2, {x})")},
    "deep module": lambda x: {"module": deep_module(x)},
    "set": lambda x: {"callbacks": [Holds({x, "a", "b"})]},
    "bytes": lambda x: {"callbacks": [Holds(str(x).encode())]},
    "dtype": lambda x: {"callbacks": [Holds(torch.float32 if x < 0.2 else torch.float64)]},
    "frame": lambda x: {"callbacks": [Holds(pd.DataFrame({"x": [x]}))]},
    "weights": lambda x: {"callbacks": [Holds(nn.Parameter(torch.tensor(x)))]},
    "generator": lambda x: {"iterator_train__rng": np.random.default_rng(int(100 * x))},
    "scheduler": lambda x: {"callbacks": [LRScheduler("StepLR", step_size=1 + (x > 0.2))]},
    "function of a scheduler": lambda x: {
        "callbacks": [LRScheduler("LambdaLR", lr_lambda=lambda epoch: x / (1 + epoch))]
    },
    "name of a callback": lambda x: {"callbacks": [(f"name {x}", Holds(1))]},
    "number of callbacks": lambda x: {"callbacks": [Holds(1)] * int(10 * x)},
}


@pytest.mark.parametrize("settings", OTHER_SETTINGS.values(), ids=OTHER_SETTINGS)
def test_settings_that_differ_in_a_part_are_of_other_fits(small, binary, tmp_path, settings):
    for x in (0.1, 0.3):
        small(checkpoint_dir=tmp_path, max_epochs=1, **settings(x)).fit(*binary)
    assert len([*tmp_path.iterdir()]) == 2


class Wrapped(TransformerMixin, BaseEstimator):
    """Encodes as a TabularEncoder, but does not say of which columns the encoded ones are."""

    def fit(self, X, y=None):
        self.encoder_ = TabularEncoder().fit(X, y)
        return self

    def transform(self, X):
        return self.encoder_.transform(X)


def test_an_encoder_whose_columns_are_corrupted_is_another(small, binary, tmp_path):
    model = small(module=with_dropout, max_epochs=2)
    for encoder in (TabularEncoder(), Wrapped()):
        expected = state_of(clone(model).set_params(encoder=encoder).fit(*binary))
        model.set_params(encoder=encoder, checkpoint_dir=tmp_path).fit(*binary)
        assert_same_fit(state_of(model), expected)
        model.set_params(checkpoint_dir=None)
    assert len([*tmp_path.iterdir()]) == 2


class Logs(Callback):
    def __init__(self):
        self.logger, self.stream, self.lock = logging.getLogger("logs"), sys.stdout, Lock()

    def on_epoch_end(self, net, **kwargs):
        self.logger.info("This fills a cache of the logger.")


def itself():
    callback = Holds([])
    callback.value += [callback, callback.value]
    return callback


EQUAL_SETTINGS = {
    "numbers": [{"lr": 0.01}, {"lr": np.float64(0.01)}],
    "order": [
        {"optimizer__eps": 1e-7, "optimizer__amsgrad": True},
        {"optimizer__amsgrad": True, "optimizer__eps": 1e-7},
    ],
    "logger": [{"callbacks": [Logs()]}, {"callbacks": [Logs()]}],
    "closures": [{"augmentation": noise_of(0.1)}, {"augmentation": noise_of(0.1)}],
    "cycles": [{"callbacks": [itself()]}, {"callbacks": [itself()]}],
    "weights that are drawn anew": [{"module": deep_module(0.1)}, {"module": deep_module(0.1)}],
}


@pytest.mark.parametrize("settings", EQUAL_SETTINGS.values(), ids=EQUAL_SETTINGS)
def test_equal_settings_are_of_one_fit(small, binary, tmp_path, settings):
    for some in settings:
        small(checkpoint_dir=tmp_path, max_epochs=1, **some).fit(*binary)
        logging.getLogger("logs.later")
    assert len([*tmp_path.iterdir()]) == 1


def test_a_warm_fit_is_found_however_long_the_first_one_took(small, binary, tmp_path):
    for _ in range(2):
        model = small(warm_start=True, max_epochs=1).fit(*binary)
        model.set_params(checkpoint_dir=tmp_path).fit(*binary)
    assert len([*tmp_path.iterdir()]) == 1


def test_another_process_with_other_hashes_finds_its_checkpoint(tmp_path):
    code = """
import sys
import numpy as np
from skorch.callbacks import Callback
from sklearn_fordes import FoRDERegressor

class Holds(Callback):
    def __init__(self):
        self.names, self.test = {"a", "b", "c"}, lambda name: name in {"u", "v", "w"}

X = np.random.default_rng(0).normal(size=(60, 2))
FoRDERegressor(
    2, max_epochs=1, random_state=0, checkpoint_dir=sys.argv[1], callbacks=[Holds()]
).fit(X, X[:, 0])
"""
    for seed in "012":
        run(code, tmp_path, env={**os.environ, "PYTHONHASHSEED": seed})
    assert len([*tmp_path.iterdir()]) == 1


class WithNotes(Callback):
    """Its notes are no parameter."""

    def __init__(self, factor=1.0):
        self.factor = factor
        self.notes = []

    def on_epoch_end(self, net, **kwargs):
        self.notes.append(net.history[-1, "train_loss"])


def test_notes_of_a_callback_do_not_change_a_fit(small, binary, tmp_path):
    model = small(checkpoint_dir=tmp_path, callbacks=[WithNotes()])
    for _ in range(2):
        model.fit(*binary)
    assert len([*tmp_path.iterdir()]) == 1


def test_callbacks_are_told_of_a_run_that_had_ended(small, binary, tmp_path, capfd):
    told = []

    class Tell(Callback):
        def on_train_begin(self, net, **kwargs):
            told.append("begin")

        def on_epoch_begin(self, net, **kwargs):
            told.append("epoch")

        def on_train_end(self, net, **kwargs):
            told.append("end")

    model = small(checkpoint_dir=tmp_path, lr=0.3, callbacks=[Tell()]).fit(*binary)
    best = dict(model.net_.callbacks_)["early_stopping"].best_epoch_
    assert told == ["begin", *["epoch"] * 6, "end"]
    again = clone(model).set_params(verbose=1).fit(*binary)
    assert told[8:] == ["begin", "end"]
    assert dict(again.net_.callbacks_)["early_stopping"].best_epoch_ == best
    assert capfd.readouterr().err.startswith(
        "training: done: 6 epochs, 6 of them in an earlier run"
    )


def test_the_folder_is_that_of_the_beginning(small, binary, tmp_path, monkeypatch):
    class ChangeFolder(Callback):
        def on_epoch_end(self, net, **kwargs):
            monkeypatch.chdir("/")

    monkeypatch.chdir(tmp_path)
    small(checkpoint_dir="states", callbacks=[ChangeFolder()]).fit(*binary)
    assert len([*(tmp_path / "states").iterdir()]) == 1


def mixed_table():
    rng = np.random.default_rng(0)
    size = rng.normal(size=90)
    size[::7] = np.nan
    X = pd.DataFrame(
        {"size": size, "city": np.array(["Oslo", "Turku", "Bergen"])[np.arange(90) % 3]}
    )
    return X, np.where(np.nan_to_num(size) > 0, "large", "small")


@pytest.mark.parametrize("name", ["dirname", "__dict__", "on_epoch_end"])
def test_a_file_sets_only_what_callbacks_learn(small, binary, tmp_path, monkeypatch, name):
    saved = ("saved", Checkpoint(monitor=None, dirname=str(tmp_path / "saved")))
    model = small(checkpoint_dir=tmp_path / "states", callbacks=[saved, BreakOff()])
    broken_off(model, ("batch", 3), binary, monkeypatch)
    (path,) = (tmp_path / "states").iterdir()
    kind, state = sklearn_fordes.persistence.read(path)
    state["training"]["run"]["callbacks"]["saved"][name] = str(tmp_path / "elsewhere")
    sklearn_fordes.persistence.write(path, kind, state, "0")
    with pytest.raises(ValueError, match=f"'{name}' of callback 'saved' is not what a callback"):
        model.fit(*binary)
    assert not (tmp_path / "elsewhere").exists()


def test_what_a_callback_makes_late_begins_anew_with_a_warning(
    small, binary, tmp_path, monkeypatch
):
    class MakesLate(Callback):
        def on_epoch_end(self, net, **kwargs):
            self.average_ = AveragedModel(nn.Linear(1, 1))

    model = small(checkpoint_dir=tmp_path, callbacks=[("late", MakesLate()), BreakOff()])
    broken_off(model, ("batch", 3), binary, monkeypatch)
    with pytest.warns(UserWarning, match="'late' that does not have 'average_'"):
        model.fit(*binary)


def test_a_scheduler_that_no_file_can_hold_is_named(small, binary, tmp_path):
    class Factor:
        def __init__(self):
            self.seen = {0}

        def __call__(self, epoch):
            return 0.9 ** len(self.seen)

    scheduler = ("scheduler", LRScheduler("LambdaLR", lr_lambda=Factor()))
    model = small(checkpoint_dir=tmp_path, callbacks=[scheduler])
    with pytest.warns(UserWarning, match=r"state of scheduler.lr_scheduler_ that no") as caught:
        model.fit(*binary)
    assert len(caught) == 1


def test_folds_of_a_small_table_go_on(tmp_path, monkeypatch):
    X, y = mixed_table()
    model = FoRDEClassifier(
        8, hidden_layer_sizes=(8,), max_epochs=5, random_state=0, callbacks=[BreakOff()]
    )
    expected = state_of(clone(model).fit(X, y))
    model.set_params(checkpoint_dir=tmp_path, class_weight="balanced")
    broken_off(model, ("batch", 4), (X, y), monkeypatch)
    weighted = state_of(model.fit(X, y))
    assert not np.array_equal(*(next(iter(s[0].values())) for s in (weighted, expected)))
    model.set_params(class_weight=None)
    broken_off(model, ("epoch", 3), (X, y), monkeypatch)
    assert_same_fit(state_of(model.fit(X, y)), expected)


def test_a_search_goes_on_with_what_is_left(small, binary, tmp_path, monkeypatch):
    n_epochs = []

    class Count(BreakOff):
        def on_epoch_end(self, net, **kwargs):
            n_epochs.append(1)
            if self.at and len(n_epochs) == 30:
                raise Fault

    model = small(checkpoint_dir=tmp_path, early_stopping=False, callbacks=[Count()])
    search = GridSearchCV(model, {"lr": [1e-2, 2e-2]}, cv=3, error_score="raise")
    with monkeypatch.context() as patch:
        patch.setattr(BreakOff, "at", "some epoch")
        with pytest.raises(Fault):
            search.fit(*binary)
    search.fit(*binary)
    # Six fits, and one of the best, of six epochs each; of one epoch the fault came first.
    assert len(n_epochs) == 7 * 6 + 1
    reference = GridSearchCV(small(early_stopping=False), {"lr": [1e-2, 2e-2]}, cv=3).fit(*binary)
    found = search.cv_results_["mean_test_score"]
    np.testing.assert_array_equal(found, reference.cv_results_["mean_test_score"])


def test_the_log_counts_what_an_earlier_run_did(small, binary, tmp_path, monkeypatch, capfd):
    model = small(checkpoint_dir=tmp_path, early_stopping=False, callbacks=[BreakOff()])
    broken_off(model, ("batch", 5), binary, monkeypatch)
    model.set_params(verbose=1).fit(*binary)
    assert capfd.readouterr().err.startswith(
        "training: done: 6 epochs, 4 of them in an earlier run, "
    )


def test_an_interrupted_fit_is_kept_and_goes_on(small, binary, tmp_path):
    class CtrlC(Callback):
        is_pressed = True

        def on_batch_begin(self, net, **kwargs):
            if len(net.history) == 4 and self.is_pressed:
                raise KeyboardInterrupt

    expected = small(callbacks=[CtrlC()], early_stopping=False)
    model = clone(expected).set_params(checkpoint_dir=tmp_path)
    with pytest.warns(ConvergenceWarning, match="interrupted after 3 of 6 epochs"):
        model.fit(*binary)
    CtrlC.is_pressed = False
    assert_same_fit(state_of(model.fit(*binary)), state_of(expected.fit(*binary)))


@pytest.mark.parametrize("early_stopping", [False, True])
def test_an_interrupt_in_the_first_write_is_one(
    small, binary, tmp_path, monkeypatch, early_stopping
):
    def press(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", press)
    with pytest.raises(KeyboardInterrupt):
        small(checkpoint_dir=tmp_path, early_stopping=early_stopping).fit(*binary)
    assert [*tmp_path.iterdir()] == []


# ---- writing


def test_a_checkpoint_is_written_every_few_seconds(small, binary, tmp_path, monkeypatch):
    now, seconds_of_a_write, n_written = [0.0], [0.0], []
    write = _checkpoint.write
    monkeypatch.setattr(_checkpoint, "_SECONDS_BETWEEN", 5.0)
    monkeypatch.setattr(_checkpoint, "_LARGEST_SHARE", 0.05)
    monkeypatch.setattr(_checkpoint.time, "monotonic", lambda: now[0])

    def count(*arguments):
        n_written.append(now[0])
        now[0] += seconds_of_a_write[0]
        write(*arguments)

    class Clock(Callback):
        def on_epoch_end(self, net, **kwargs):
            now[0] += 2.0

    monkeypatch.setattr(_checkpoint, "write", count)
    settings = {"max_epochs": 20, "early_stopping": False, "callbacks": [Clock()]}
    for seconds, gap, n in ((0.0, 6.0, 8), (0.5, 10.5, 6)):
        now[0], seconds_of_a_write[0], n_written[:] = 0.0, seconds, []
        small(checkpoint_dir=tmp_path / str(n), **settings).fit(*binary)
        assert len(n_written) == n  # The first and the last one too.
        np.testing.assert_allclose(np.diff(n_written)[:-1], gap)


def no_space(*arguments):
    raise OSError(28, "No space left on device")


def test_a_folder_that_cannot_be_written_is_an_error_at_once(small, binary, tmp_path, monkeypatch):
    model = small(checkpoint_dir=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", no_space)
        with pytest.raises(OSError, match=r"No space left on device.*checkpoint_dir"):
            model.fit(*binary)
    assert not hasattr(model, "fitted_")
    assert [*tmp_path.iterdir()] == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="checkpoint_dir"):
        model.set_params(checkpoint_dir=tmp_path / "file").fit(*binary)


def test_a_write_that_fails_later_keeps_the_one_before(small, binary, tmp_path, monkeypatch):
    kept = []

    class FillDisk(Callback):
        is_full = True

        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 3 and self.is_full:
                kept.append(next(tmp_path.iterdir()).read_bytes())
                monkeypatch.setattr(os, "replace", no_space)

    model = small(checkpoint_dir=tmp_path, early_stopping=False, callbacks=[FillDisk()])
    expected = state_of(clone(model).set_params(checkpoint_dir=None, callbacks=None).fit(*binary))
    with pytest.warns(UserWarning, match="No space left on device.*one before is kept") as caught:
        model.fit(*binary)
    assert len(caught) == 1
    assert_same_fit(state_of(model), expected)
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() == kept[0]
    monkeypatch.undo()
    FillDisk.is_full = False
    assert_same_fit(state_of(clone(model).fit(*binary)), expected)


def test_what_a_file_cannot_hold_does_not_end_a_fit(small, binary, tmp_path):
    class Notes(Callback):
        def on_epoch_end(self, net, **kwargs):
            net.history.record("on", date(2020, 1, 2))

    model = small(checkpoint_dir=tmp_path, callbacks=[Notes()])
    with pytest.warns(UserWarning, match=r"checkpoint after 1 epochs .*the one before is kept"):
        model.fit(*binary)
    assert model.n_iter_ == 6


@pytest.mark.parametrize("text", [b"", b"abc", b"-5", b"99999999999", b"\xff"])
def test_a_seed_that_is_none_is_refused(small, binary, tmp_path, text):
    (tmp_path / "seed").write_bytes(text)
    with pytest.raises(ValueError, match=r"in '.*seed', but expected the seed"):
        small(checkpoint_dir=tmp_path, random_state=None).fit(*binary)


@pytest.mark.parametrize("kind", ["MT19937", "PCG64DXSM", "Philox", "SFC64"])
def test_batches_of_another_generator_go_on(small, binary, tmp_path, monkeypatch, kind):
    def new(**settings):
        rng = np.random.Generator(getattr(np.random, kind)(0))
        return small(iterator_train__rng=rng, callbacks=[BreakOff()], **settings)

    expected = state_of(new().fit(*binary))
    broken_off(new(checkpoint_dir=tmp_path), ("batch", 3), binary, monkeypatch)
    assert_same_fit(state_of(new(checkpoint_dir=tmp_path).fit(*binary)), expected)


def test_parts_of_a_killed_process_are_removed_when_they_are_old(small, binary, tmp_path):
    model = small(checkpoint_dir=tmp_path).fit(*binary)
    (path,) = tmp_path.iterdir()
    old, new, other = (
        tmp_path / f".{name}.tmp" for name in (f"{path.name}.1", f"{path.name}.2", "a")
    )
    for part in (old, new, other):
        part.write_bytes(b"part")
    os.utime(old, (time.time() - 100,) * 2)
    model.fit(*binary)
    assert {*tmp_path.iterdir()} == {path, new, other}


SCRIPT = """
import sys
import numpy as np
import torch
torch.set_num_threads(1)
from sklearn_fordes import FoRDEClassifier
from sklearn_fordes.persistence import _checkpoint
from sklearn_fordes.preprocessing import TabularEncoder

_checkpoint._SECONDS_BETWEEN, _checkpoint._LARGEST_SHARE = 0.0, float("inf")
rng = np.random.default_rng(0)
X = rng.normal(size=(400, 6))
y = X[:, 0] * X[:, 1] > 0

def fit(folder):
    model = FoRDEClassifier(
        4, hidden_layer_sizes=(64, 64), max_epochs=15, early_stopping=False, random_state=0,
        checkpoint_dir=folder,
    )
    return model.fit(X, y)

def weights(model):
    return np.concatenate([w.numpy().ravel() for w in model.fitted_.members.state_dict().values()])
"""

KILLS = (
    SCRIPT
    + """
import os, random, signal, time

folder, n_kills, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
began = time.monotonic()
expected = weights(fit(None))
seconds = time.monotonic() - began
draw = random.Random(0)

def die_at(function, nth):
    original, count = getattr(os, function), [0]
    def call(*arguments):
        count[0] += 1
        if count[0] == nth:
            if function == "fsync":
                os.truncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)
    setattr(os, function, call)

n_killed = n_in_a_write = 0
for i in range(n_kills):
    own = f"{folder}/{i if mode == 'apart' else 0}"
    child = os.fork()
    if not child:
        try:
            if i % 4 == 3:  # In the middle of a write, before it counts.
                die_at(draw.choice(["fsync", "replace"]) if i else "fsync", 1 + i % 3)
            fit(own)
        finally:
            os._exit(0)
    draw.random()
    if i % 4 != 3:
        time.sleep(draw.random() * seconds * (1 if mode == "apart" else 0.3))
        os.kill(child, signal.SIGKILL)
    n_killed += os.waitpid(child, 0)[1] == signal.SIGKILL
    # A checkpoint is readable after each kill.
    for name in os.listdir(own) if os.path.isdir(own) else ():
        if name.endswith(".safetensors"):
            _checkpoint.Checkpoint(f"{own}/{name}", "test")
        n_in_a_write += name.endswith(".tmp")
    if mode == "apart":
        assert np.array_equal(weights(fit(own)), expected), i
assert np.array_equal(weights(fit(f"{folder}/0")), expected)
print(n_killed, n_in_a_write)
"""
)


def run(code, *arguments, **settings):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=600, **settings
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="This system does not fork.")
@pytest.mark.parametrize(
    ("n_kills", "mode"),
    [
        (5, "in a row"),
        pytest.param(20, "apart", marks=pytest.mark.slow),
        pytest.param(20, "in a row", marks=pytest.mark.slow),
    ],
)
def test_a_killed_process_goes_on_from_the_epoch_before(tmp_path, n_kills, mode):
    n_killed, n_in_a_write = map(int, run(KILLS, tmp_path, n_kills, mode).stdout.split())
    assert n_killed >= n_kills / 4  # Others may have come to their end before.
    assert n_in_a_write >= 1


@pytest.mark.skipif(sys.platform == "win32", reason="This system has no such limit.")
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    code = (
        SCRIPT
        + """
import os, resource, warnings

model = fit(None)
size = sum(w.nbytes for w in model.fitted_.members.state_dict().values())
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))
try:
    fit(sys.argv[1])
except OSError as error:
    assert "File too large" in str(error) and "checkpoint_dir" in str(error), error
else:
    raise AssertionError
assert os.listdir(sys.argv[1]) == []
# The moments of the optimizer make the second one larger than the first.
resource.setrlimit(resource.RLIMIT_FSIZE, (3 * size, limits[1]))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert np.array_equal(weights(fit(sys.argv[1])), weights(model))
assert len(caught) == 1 and "File too large" in str(caught[0].message), caught
(name,) = os.listdir(sys.argv[1])
before = open(f"{sys.argv[1]}/{name}", "rb").read()
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
assert _checkpoint.Checkpoint(f"{sys.argv[1]}/{name}", "test")._state["training"]["history"] == []
assert np.array_equal(weights(fit(sys.argv[1])), weights(model))
"""
    )
    run(code, tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="This system has no SIGTERM.")
@pytest.mark.parametrize("is_handled", [False, True])
def test_a_process_that_is_told_to_end_leaves_its_checkpoint(tmp_path, is_handled):
    handler = "lambda *_: sys.exit(7)" if is_handled else "signal.SIG_DFL"
    code = (
        SCRIPT
        + f"""
import os, signal, threading, time

def wait_and_end():
    while not os.path.isdir(sys.argv[1]) or not os.listdir(sys.argv[1]):
        time.sleep(0.001)
    time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)

signal.signal(signal.SIGTERM, {handler})
threading.Thread(target=wait_and_end, daemon=True).start()
while True:
    fit(sys.argv[1])
    for name in os.listdir(sys.argv[1]):
        os.unlink(f"{{sys.argv[1]}}/{{name}}")
"""
    )
    folder = tmp_path / "states"
    with pytest.raises(subprocess.CalledProcessError) as error:
        run(code, folder)
    assert error.value.returncode == (7 if is_handled else -signal.SIGTERM)
    names = [path.name for path in Path(folder).iterdir()]
    if is_handled:
        assert not [name for name in names if name.endswith(".tmp")]
    check = SCRIPT + "assert (weights(fit(sys.argv[1])) == weights(fit(None))).all()"
    run(check, folder)
