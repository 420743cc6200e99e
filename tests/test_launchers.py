"""Launchers of others: torchrun and Ray Train start the processes, and `fit` finds the group."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris

from sklearn_fordes import FoRDEClassifier, load

SETTINGS = {"n_members": 4, "hidden_layer_sizes": (16,), "max_epochs": 3, "random_state": 0}

SCRIPT = """
import os, sys
import torch
from sklearn.datasets import load_iris
from sklearn_fordes import FoRDEClassifier

torch.set_num_threads(1)
X, y = load_iris(return_X_y=True)
settings = dict({settings})
model = FoRDEClassifier(**settings, distributed=sys.argv[1]).fit(X, y)
again = FoRDEClassifier(**settings, distributed=sys.argv[1]).fit(X, y)
assert (model.predict_proba(X) == again.predict_proba(X)).all()
sys.stdout.write(os.environ["RANK"] + " " + str(model.n_iter_) + "\\n")
if os.environ["RANK"] == "1":
    model.save(sys.argv[2])
"""


def one_process():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return FoRDEClassifier(**SETTINGS).fit(*load_iris(return_X_y=True))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("mode", ["members", "rows"])
def test_torchrun_starts_the_processes_of_a_fit(mode, tmp_path):
    script, saved = tmp_path / "train.py", tmp_path / "model.safetensors"
    script.write_text(SCRIPT.format(settings=SETTINGS))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", script, mode, saved],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["0", "1", "3", "3"]
    X, _ = load_iris(return_X_y=True)
    found, expected = load(saved).predict_proba(X), one_process().predict_proba(X)
    if mode == "members":
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, atol=0.05)


FAILING = """
import os, signal, sys
import torch
from sklearn.datasets import load_iris
from skorch.callbacks import Callback
from sklearn_fordes import FoRDEClassifier

class Die(Callback):
    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 2 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)

settings = dict({settings})
FoRDEClassifier(**settings, distributed="members", callbacks=[Die()]).fit(
    *load_iris(return_X_y=True)
)
"""


def test_a_process_that_torchrun_loses_ends_the_others_with_a_clear_error(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(FAILING.format(settings=SETTINGS))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", script],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=60,
    )
    assert done.returncode
    assert "Signal 9 (SIGKILL) received" in done.stderr


HOLDING = """
import atexit, weakref
from sklearn.datasets import load_iris
from torch import distributed
from sklearn_fordes import FoRDEClassifier

# Called after what the fit registers.
atexit.register(lambda: print("held" if group_of_fit() else "gone"))

def inner():
    group = distributed.group.WORLD
    raise KeyError("first")

FoRDEClassifier(2, max_epochs=1, distributed="members").fit(*load_iris(return_X_y=True))
group_of_fit = weakref.ref(distributed.group.WORLD)
try:
    inner()
except KeyError as error:
    raise ExceptionGroup("all", [ValueError("second")]) from RuntimeError("other")
"""


def test_a_group_that_an_error_holds_ends_before_the_interpreter():
    """Its threads would abort the process if they freed a tensor later."""
    alone = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-c", HOLDING],
        capture_output=True,
        text=True,
        env={**os.environ, **alone, "OMP_NUM_THREADS": "1"},
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "gone\n"), done.stderr
    assert "second" in done.stderr


ON_RAY = """
import os, shutil, sys
import ray
import ray.data
import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from sklearn.datasets import load_iris
from sklearn_fordes import FoRDEClassifier
from sklearn_fordes.streaming import Share

def train(config):
    # Ray has made the process group.
    torch.set_num_threads(1)
    model = FoRDEClassifier(**config["settings"], distributed=config["mode"])
    if config["is_share"]:
        shard = ray.train.get_dataset_shard("train")

        def blocks():
            for frame in shard.iter_batches(batch_size=20, batch_format="pandas"):
                yield frame.drop(columns="target"), frame["target"]

        model.fit(Share(blocks))
    else:
        model.fit(*load_iris(return_X_y=True))
    checkpoint = None
    if ray.train.get_context().get_world_rank() == 0:
        model.save(config["folder"] + "/model.safetensors")
        checkpoint = ray.train.Checkpoint.from_directory(config["folder"])
    ray.train.report({{"n_iter": model.n_iter_}}, checkpoint=checkpoint)

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
frame = load_iris(as_frame=True).frame.sample(frac=1, random_state=0)
for name in ("members", "rows", "share"):
    mode = "rows" if name == "share" else name
    folder = f"{{sys.argv[1]}}/{{name}}"
    os.makedirs(folder)
    result = TorchTrainer(
        train,
        train_loop_config={{
            "mode": mode, "folder": folder, "settings": {settings}, "is_share": name == "share"
        }},
        datasets={{"train": ray.data.from_pandas(frame)}},
        scaling_config=ScalingConfig(num_workers=2, use_gpu=False),
        run_config=RunConfig(storage_path=sys.argv[1]),
    ).fit()
    assert result.metrics["n_iter"] == 3, result
    kept = result.checkpoint.to_directory() + "/model.safetensors"
    shutil.copy(kept, f"{{sys.argv[1]}}/{{name}}.safetensors")
"""


@pytest.mark.slow
def test_ray_train_starts_the_processes_of_a_fit(tmp_path):
    pytest.importorskip("ray")
    script = tmp_path / "train.py"
    script.write_text(ON_RAY.format(settings=SETTINGS))
    # Ray keeps a token in the home directory, and changes settings of the process.
    own = {"HOME": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0", "RAY_TRAIN_V2_ENABLED": "1"}
    done = subprocess.run(
        [sys.executable, script, tmp_path],
        capture_output=True,
        text=True,
        env={**os.environ, **own},
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    X, _ = load_iris(return_X_y=True)
    expected = one_process().predict_proba(X)
    found = {name: load(tmp_path / f"{name}.safetensors") for name in ("members", "rows", "share")}
    np.testing.assert_array_equal(found["members"].predict_proba(X), expected)
    np.testing.assert_allclose(found["rows"].predict_proba(X), expected, atol=0.05)
    frame = load_iris(as_frame=True).data
    assert found["share"].feature_names_in_.tolist() == [*frame]
    assert found["share"].predict_proba(frame).shape == (150, 3)
