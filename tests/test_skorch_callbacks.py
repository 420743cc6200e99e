"""skorch's own callbacks, on the net of a fit."""

import numpy as np
import pytest
import torch
from skorch import callbacks
from torch.optim import lr_scheduler

from sklearn_fordes import FoRDEClassifier


def silent(message):
    """Print nothing."""


CALLBACKS = {
    "timer": lambda: callbacks.EpochTimer(),
    "log": lambda: callbacks.PrintLog(sink=silent),
    "progress": lambda: callbacks.ProgressBar(),
    "score": lambda: callbacks.EpochScoring("accuracy", lower_is_better=False),
    "score on training rows": lambda: callbacks.EpochScoring(
        "neg_log_loss", on_train=True, lower_is_better=False
    ),
    "score without cache": lambda: callbacks.EpochScoring(
        "accuracy", use_caching=False, lower_is_better=False
    ),
    "batch score": lambda: callbacks.BatchScoring("accuracy", lower_is_better=False),
    "batch score on training rows": lambda: callbacks.BatchScoring(
        "accuracy", on_train=True, lower_is_better=False
    ),
    "passed on": lambda: callbacks.PassthroughScoring("train_batch_size", on_train=True),
    "early stopping": lambda: callbacks.EarlyStopping(patience=2, sink=silent),
    "clipping": lambda: callbacks.GradientNormClipping(1.0),
    "checkpoint": lambda: callbacks.Checkpoint(dirname="best"),
    "last checkpoint": lambda: callbacks.TrainEndCheckpoint(dirname="last"),
    "freezer": lambda: callbacks.Freezer("*embedding*"),
    "initializer": lambda: callbacks.Initializer("*bias", fn=torch.nn.init.zeros_),
    "steps": lambda: callbacks.LRScheduler(lr_scheduler.StepLR, step_size=2),
    "cosine": lambda: callbacks.LRScheduler(lr_scheduler.CosineAnnealingLR, T_max=5),
    "plateau": lambda: callbacks.LRScheduler(lr_scheduler.ReduceLROnPlateau),
    "exponential": lambda: callbacks.LRScheduler(lr_scheduler.ExponentialLR, gamma=0.9),
    "one cycle": lambda: callbacks.LRScheduler(
        lr_scheduler.OneCycleLR, step_every="batch", max_lr=0.01, total_steps=100
    ),
    "restarts": lambda: callbacks.LRScheduler("WarmRestartLR"),
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_callback_of_skorch_runs_in_a_fit(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 4))
    own = (("own", CALLBACKS[name]()),)
    model = FoRDEClassifier(2, max_epochs=4, random_state=0, callbacks=own).fit(X, X[:, 0] > 0)
    assert "own" in dict(model.net_.callbacks_)
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)
    if name == "checkpoint":
        assert torch.load(tmp_path / "best" / "params.pt", weights_only=True)
    elif name == "last checkpoint":
        assert (tmp_path / "last" / "train_end_params.pt").exists()
    elif "score" in name:
        epoch = model.net_.history[-1]
        noted = {*epoch, *(note for batch in epoch["batches"] for note in batch)}
        assert {"accuracy", "neg_log_loss"} & noted
