"""Training and prediction on a CUDA device; deselected where there is none."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, LRScheduler
from torch.optim.lr_scheduler import ExponentialLR

from sklearn_fordes import FoRDEClassifier, FoRDERegressor, Repulsion, distributed
from sklearn_fordes.persistence import _checkpoint
from sklearn_fordes.training import CorruptedVersions, ParticleNet, cuda_graphs, recording_with

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def make(**parameters):
    settings = {"hidden_layer_sizes": (16,), "max_epochs": 6, "batch_size": 32, "lr": 1e-2}
    return FoRDEClassifier(3, **{**settings, "random_state": 0, **parameters})


def device_of(model):
    assert model.fitted_.device == next(model.net_.module_.parameters()).device
    return model.fitted_.device.type


@pytest.mark.parametrize(
    "system",
    [
        {"lengthscale": "pca"},
        {"repulsion": "none"},
        {
            "repulsion": Repulsion.paper(),
            "repulsion_strength": 1.0,
            "ema_decay": 0.0,
            "augmentation": None,
        },
        {"repulsion": "weight"},
        {"repulsion": Repulsion("weight", update="svgd")},
        {"repulsion": Repulsion("function", update="svgd")},
        {"repulsion": "feature"},
        {"repulsion": Repulsion(update="lit")},
        {"lengthscale": 0.5},
        {"lengthscale": np.linspace(1, 2, 6)},
    ],
    ids=str,
)
def test_every_system_agrees_with_the_cpu(binary, system):
    # Rounding differs between devices and grows with each step.
    X, y = binary
    models = [make(device=device, **system).fit(X, y) for device in ("cpu", "cuda")]
    np.testing.assert_allclose(*(model.predict_proba(X) for model in models), atol=2e-3)
    np.testing.assert_allclose(*(model.input_gradients(X) for model in models), atol=5e-2)


@pytest.mark.parametrize("noise", ["heteroscedastic", "homoscedastic", "quantile"])
def test_regressors_agree_and_take_extra_inputs(binary, noise):
    X, y = binary
    settings = {"max_epochs": 5, "noise": noise, "random_state": 0}
    models = [FoRDERegressor(3, device=d, **settings).fit(X, y) for d in ("cpu", "cuda")]
    np.testing.assert_allclose(*(model.predict(X) for model in models), atol=2e-3)
    np.testing.assert_allclose(*(m.predict_interval(X) for m in models), atol=5e-3)
    away = models[1].fit(X, y, X_repulsion=X + 5)
    assert np.isfinite(away.predict(X, return_std=True)).all()
    assert device_of(away.estimators_[0]) == "cuda"


CAPTURED = [
    ({}, 2),
    ({"repulsion": "none"}, 1),
    ({"module__dropout": 0.3, "ema_decay": 0.0, "augmentation": None}, 2),
    ({"repulsion": Repulsion(relative=False, period=1, warmup=3)}, 1),
    ({"repulsion": Repulsion("weight", update="svgd")}, 2),
    ({"callbacks": [LRScheduler(ExponentialLR, gamma=0.5)]}, 2),
]


@pytest.mark.parametrize(("parameters", "n_graphs"), CAPTURED, ids=str)
def test_captured_steps_agree_with_ordinary_ones(binary, parameters, n_graphs):
    X, y = binary
    with recording_with(cuda_graphs):
        captured = make(device="cuda", **parameters).fit(X, y)
    plain = make(device="cuda", **parameters).fit(X, y)
    assert plain.net_.captured.n_replayed == 0
    assert captured.net_.captured.n_replayed == captured.net_.n_steps - n_graphs
    np.testing.assert_allclose(captured.predict_proba(X), plain.predict_proba(X), atol=2e-3)
    for one, other in zip(captured.history_, plain.history_, strict=True):
        for name in ("driving_loss", "repulsion"):
            assert one[name] == pytest.approx(other[name], rel=1e-3, abs=1e-4)


def test_a_step_that_cannot_be_captured_is_an_ordinary_one(binary):
    """The levels of quantiles come from the host in each step."""
    X, y = binary
    settings = {"noise": "quantile", "max_epochs": 3, "random_state": 0}
    with recording_with(cuda_graphs):
        model = FoRDERegressor(3, device="cuda", **settings).fit(X, y)
        stream = torch.cuda.current_stream()
        # Nothing has failed on the device: the next fit captures.
        after = make(device="cuda").fit(X, y)
    assert model.net_.captured.n_replayed == 0
    assert stream == torch.cuda.default_stream()
    assert after.net_.captured.n_replayed > 10


def refuse_to_wait(monkeypatch, owner, name, n_free):
    """Raise an error where a method waits for the device, but for its first calls."""
    function, calls = getattr(owner, name), []

    def watched(*arguments, **named):
        calls.append(None)
        torch.cuda.set_sync_debug_mode("error" if len(calls) > n_free else "default")
        try:
            return function(*arguments, **named)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(owner, name, watched)
    return calls


@pytest.mark.parametrize("is_captured", [True, False])
def test_nothing_waits_for_the_device_within_an_epoch(binary, monkeypatch, is_captured):
    # The first steps capture, and the first versions count members and columns.
    steps = refuse_to_wait(monkeypatch, ParticleNet, "train_step", 8)
    versions = refuse_to_wait(monkeypatch, CorruptedVersions, "__call__", 1)
    with recording_with(cuda_graphs if is_captured else None):
        model = make(device="cuda").fit(*binary)
    assert (model.net_.captured.n_replayed > 0) == is_captured
    assert len(steps) == len(versions) == model.net_.n_steps > 20


def test_generators_of_the_gpu_are_left_as_they_were(binary):
    before = torch.cuda.get_rng_state()
    make(device="cuda", module__dropout=0.3).fit(*binary)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_fitted_on_gpu_predicts_without_one(binary, tmp_path):
    X, y = binary
    model = make(device="auto", lengthscale="pca").fit(X, y)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    np.save(tmp_path / "X.npy", X)
    code = (
        "import pickle, torch, numpy as np; assert not torch.cuda.is_available();"
        "model = pickle.load(open('model.pkl', 'rb'));"
        "np.save('p.npy', model.predict_proba(np.load('X.npy')))"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    settings = {"env": {**os.environ, "CUDA_VISIBLE_DEVICES": ""}, "cwd": tmp_path}
    run = subprocess.run(command, check=True, capture_output=True, **settings)
    assert run.stderr == b""
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), model.predict_proba(X), atol=1e-4)
    assert device_of(model) == "cuda"
    assert device_of(pickle.loads(pickle.dumps(model))) == "cuda"
    assert model.partial_fit(X, y).n_iter_ > 6


class BreakOff(Callback):
    """Raises at the end of the third epoch, once."""

    is_done = False

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 3 and not BreakOff.is_done:
            BreakOff.is_done = True
            raise RuntimeError("broken off")


def test_a_fit_that_was_broken_off_goes_on(binary, tmp_path, monkeypatch):
    X, y = binary
    monkeypatch.setattr(BreakOff, "is_done", False)
    monkeypatch.setattr(_checkpoint, "_SECONDS_BETWEEN", 0.0)
    settings = {"device": "cuda", "early_stopping": False, "callbacks": [BreakOff()]}
    model = make(**settings, checkpoint_dir=tmp_path)
    with pytest.raises(RuntimeError, match="broken off"):
        model.fit(X, y)
    resumed, whole = model.fit(X, y), make(**settings).fit(X, y)
    assert resumed.n_iter_ == whole.n_iter_ == 6
    assert device_of(resumed) == "cuda"
    np.testing.assert_allclose(resumed.predict_proba(X), whole.predict_proba(X), atol=2e-3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs a device for each process")
@pytest.mark.parametrize("mode", ["members", "rows"])
def test_processes_with_a_device_each_agree_with_one(binary, mode):
    X, y = binary
    settings = {"device": "cuda", "module__dropout": 0.0}
    together = distributed.fit(make(**settings), X, y, n_workers=2, mode=mode)
    alone = make(**settings).fit(X, y)
    assert device_of(together) == "cuda"
    np.testing.assert_allclose(together.predict_proba(X), alone.predict_proba(X), atol=2e-3)
