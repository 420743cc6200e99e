"""Searches on several processes give what one process gives."""

import json
import os
import signal
import subprocess
import sys
import time

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_classification
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from sklearn_fordes import FoRDEClassifier, FoRDERegressor, search_space

X, Y = make_classification(200, 6, n_informative=4, random_state=0)
FRAME = pd.DataFrame(X, columns=[f"x{i}" for i in range(6)]).assign(
    sign=np.where(X[:, 0] > 0, "+", "-")
)
FRAME.iloc[::7, 1] = np.nan
SIZES = {"n_members": 3, "hidden_layer_sizes": (16,), "max_epochs": 4, "random_state": 0}
N_FITS = 2 * 2 + 1
SCORES = ("loss", "threads")
HERE = os.path.dirname(__file__)


def new_search(**settings):
    model = FoRDEClassifier(**{**SIZES, **settings})
    scoring = {"loss": "neg_log_loss", "threads": n_threads_of}
    return GridSearchCV(model, {"lr": [1e-3, 1e-2]}, scoring=scoring, refit="loss", cv=2, n_jobs=2)


def n_threads_of(model, X, y):
    import torch

    return torch.get_num_threads()


def of_search(search):
    """Best parameters, scores, predictions of a search, and how many threads its workers had."""
    scores = {name: search.cv_results_[f"mean_test_{name}"].tolist() for name in SCORES}
    return [search.best_params_, scores, search.predict_proba(X[:3]).tolist()]


def of_cross_validations():
    """Scores of a frame and of a pipeline."""
    model, regressor = FoRDEClassifier(**SIZES), FoRDERegressor(**SIZES)
    pipeline = make_pipeline(SimpleImputer(), model)
    return [
        cross_val_score(model, FRAME, Y, cv=2, scoring="neg_log_loss", n_jobs=2).tolist(),
        cross_val_score(regressor, FRAME, X[:, 0], cv=2, n_jobs=2).tolist(),
        cross_val_score(pipeline, X, Y, cv=2, scoring="neg_log_loss", n_jobs=2).tolist(),
    ]


@pytest.fixture(scope="module")
def expected():
    """What this process finds, with one thread."""
    with joblib.parallel_config(backend="sequential"):
        found = of_search(new_search().fit(X, Y))
        assert found[1]["threads"] == [1, 1]
        return found, of_cross_validations()


@pytest.fixture
def _no_limit(monkeypatch):
    """As where the user has not limited threads by hand."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_no_limit")
def test_loky(expected):
    with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
        assert (of_search(new_search().fit(X, Y)), of_cross_validations()) == expected


@pytest.mark.usefixtures("_no_limit")
def test_dask(expected):
    distributed = pytest.importorskip("distributed")
    workers = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
    on_dask = {"backend": "dask", "scatter": [X, Y, FRAME]}
    with workers, distributed.Client(workers), joblib.parallel_config(**on_dask):
        assert (of_search(new_search().fit(X, Y)), of_cross_validations()) == expected


# Ray changes joblib's pool for the whole process, and keeps a token in the home folder.
ON_RAY = """
import json, sys

import joblib, ray, torch
from ray.util.joblib import register_ray

torch.set_num_threads(1)  # Of this process, which fits the best model.
sys.path.insert(0, sys.argv[1])
from test_many_fits import X, Y, new_search, of_search

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
register_ray()
with joblib.parallel_config(backend="ray"):
    found = of_search(new_search().fit(X, Y))
ray.shutdown()
print(json.dumps(found))
"""


@pytest.mark.usefixtures("_no_limit")
def test_ray(expected, tmp_path):
    pytest.importorskip("ray")
    paths = os.pathsep.join([os.getcwd(), HERE, os.environ.get("PYTHONPATH", "")])
    settings = {"RAY_USAGE_STATS_ENABLED": "0", "HOME": str(tmp_path), "PYTHONPATH": paths}
    found = run(ON_RAY, HERE, env={**os.environ, **settings})
    assert json.loads(found.splitlines()[-1]) == expected[0]


def run(code, *arguments, **settings):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, **settings
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_is_imported_or_started_before_a_fit():
    """A worker that imports the package has no CUDA context of it, and no cluster's library."""
    code = """
import pickle, sys

from sklearn_fordes import FoRDEClassifier, FoRDERegressor, load, search_space

model = pickle.loads(pickle.dumps(FoRDEClassifier(device="cuda")))
assert not {"torch", "skorch", "dask", "distributed", "ray", "optuna"} & set(sys.modules)
import sklearn_fordes.dask, sklearn_fordes.inference, torch

sklearn_fordes.inference.FittedEnsemble
model.set_params(device="cpu", n_members=2, max_epochs=1).fit([[0.0], [1.0]] * 9, [0, 1] * 9)
pickle.loads(pickle.dumps(model)).predict([[0.5]])
assert not torch.cuda.is_initialized()
"""
    pytest.importorskip("dask.dataframe")
    run(code)


WORKER = """
import sys

import optuna
from sklearn.metrics import log_loss
from sklearn_fordes import FoRDEClassifier, search_space

sys.path.insert(0, sys.argv[1])
from test_many_fits import SIZES, X, Y, storage

optuna.logging.set_verbosity(optuna.logging.WARNING)
for kind in ("journal", "sqlite"):
    study = optuna.load_study(study_name="a", storage=storage(kind, sys.argv[2]))
    for _ in range(3):
        trial = study.ask(search_space(family="optuna"))
        trial.set_user_attr("worker", sys.argv[3])
        model = FoRDEClassifier(**{**SIZES, **trial.params}).fit(X[:100], Y[:100])
        study.tell(trial, log_loss(Y[100:], model.predict_proba(X[100:])))
"""


def storage(kind, folder):
    if kind == "sqlite":
        from optuna.storages import RDBStorage
        from sqlalchemy.pool import NullPool

        # A pool would leave connections open.
        return RDBStorage(f"sqlite:///{folder}/study.db", {"poolclass": NullPool})
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(f"{folder}/study.log"))


def test_workers_of_optuna_share_a_study(tmp_path):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    studies = [
        optuna.create_study(study_name="a", storage=storage(kind, tmp_path))
        for kind in ("journal", "sqlite")
    ]
    default = search_space(family="default")
    # SQLite cannot lock a row, so that two workers may take the same trial out of its queue.
    studies[0].enqueue_trial(default)
    finish(*(start(WORKER, HERE, str(tmp_path), name) for name in "ab"))
    for study in studies:
        trials = study.get_trials()
        assert [trial.number for trial in trials] == [*range(6)]
        assert all(trial.state.is_finished() and np.isfinite(trial.value) for trial in trials)
        assert sorted(trial.user_attrs["worker"] for trial in trials) == [*"aaabbb"]
    assert studies[0].get_trials()[0].params == default


def start(code, *arguments, **settings):
    command = [sys.executable, "-c", code, *arguments]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=one_thread, **settings)


def finish(*workers):
    for worker in workers:
        _, errors = worker.communicate(timeout=300)
        assert worker.returncode == 0, errors


SEARCH = """
import sys

sys.path.insert(0, sys.argv[1])
from test_many_fits import X, Y, new_search

search = new_search(max_epochs=int(sys.argv[4]), checkpoint_dir=sys.argv[2])
search.set_params(n_jobs=int(sys.argv[3])).fit(X, Y)
"""


def test_searches_at_once_share_checkpoints(expected, tmp_path):
    finish(*(start(SEARCH, HERE, str(tmp_path), "1", "4") for _ in range(2)))
    names = os.listdir(tmp_path)
    assert len(names) == N_FITS
    assert all(name.endswith(".safetensors") for name in names)
    search = new_search(checkpoint_dir=tmp_path).set_params(n_jobs=1).fit(X, Y)
    assert of_search(search) == expected[0]
    assert sorted(os.listdir(tmp_path)) == sorted(names)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="This system has no groups of processes.")
def test_a_killed_search_goes_on(tmp_path):
    n_epochs, folder = 60, tmp_path / "states"
    with start(SEARCH, HERE, str(folder), "2", str(n_epochs), start_new_session=True) as worker:
        while len(files := list(folder.glob("*.safetensors"))) < 3:
            assert worker.poll() is None, worker.stderr.read()
            time.sleep(0.01)
        os.killpg(worker.pid, signal.SIGKILL)  # With the workers of its own.
    before = {path: path.stat().st_mtime_ns for path in files}

    def search(**settings):
        return new_search(max_epochs=n_epochs, **settings).set_params(n_jobs=1).fit(X, Y)

    found = search(checkpoint_dir=folder)
    assert len(list(folder.glob("*.safetensors"))) == N_FITS
    # Of two workers, one has begun the third fit since its first one had ended.
    assert any(path.stat().st_mtime_ns == then for path, then in before.items())
    assert of_search(found) == of_search(search())
