"""Each way to keep a fitted estimator and to get it back, here and in a new process, bit by bit."""

import copy
import json
import os
import pickle
import subprocess
import sys
import zipfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from contracts import SIZES
from frames import as_pandas_categories, plain_columns, with_dates
from sklearn_fordes import FoRDEClassifier, FoRDERegressor, Repulsion, load
from sklearn_fordes.networks import MLP
from sklearn_fordes.preprocessing import TabularEncoder

cloudpickle = pytest.importorskip("cloudpickle")
SETTINGS = {**SIZES, "random_state": 0, "max_epochs": 2}


class Own(MLP):
    """A module of the user's own."""


def own_normalised(n_features, n_outputs):
    """Make a module with buffers."""
    layers = nn.Linear(n_features, 6), nn.BatchNorm1d(6), nn.SiLU(), nn.Linear(6, n_outputs)
    return nn.Sequential(*layers)


def local_module():
    class Local(MLP):
        pass

    return Local


MODELS = {
    "classifier": lambda: FoRDEClassifier(**SETTINGS),
    "heteroscedastic": lambda: FoRDERegressor(**SETTINGS),
    "homoscedastic": lambda: FoRDERegressor(**SETTINGS, noise="homoscedastic"),
    "quantile": lambda: FoRDERegressor(**SETTINGS, noise="quantile"),
    "objects as settings": lambda: FoRDEClassifier(
        **SETTINGS, lengthscale="pca", repulsion=Repulsion(fraction=0.5)
    ),
    "own class": lambda: FoRDEClassifier(**SETTINGS, module=Own, encoder=TabularEncoder()),
    "own function": lambda: FoRDERegressor(
        **SETTINGS, module=own_normalised, encoder=TabularEncoder()
    ),
}
ELSEWHERE = {
    "local class": lambda: FoRDEClassifier(
        **SETTINGS, module=local_module(), encoder=TabularEncoder()
    ),
    "lambda": lambda: FoRDERegressor(
        **SETTINGS,
        module=lambda n_features, n_outputs: nn.Linear(n_features, n_outputs),
        encoder=TabularEncoder(),
    ),
    "pipeline": lambda: make_pipeline(StandardScaler(), FoRDEClassifier(**SETTINGS)),
    "calibrated": lambda: CalibratedClassifierCV(FoRDEClassifier(**SETTINGS), cv=2),
}


def table():
    return as_pandas_categories(with_dates(plain_columns())).drop(columns=["constant", "empty"])


def rows_of(model):
    """The table, or its numbers for what takes nothing else."""
    return table() if getattr(model, "feature_names_in_", [""])[-1] == "when" else numbers()


def numbers():
    return table()[["size", "count", "again", "code"]]


def outputs(model):
    """All that a model predicts."""
    X = rows_of(model)
    names = ["predict", "predict_proba", "predict_members", "predict_proba_members"]
    names += ["input_gradients", "ood_score"]
    found = {name: getattr(model, name)(X) for name in names if hasattr(model, name)}
    if hasattr(model, "predict_quantiles"):
        found["quantiles"] = model.predict_quantiles(X, [0.1, 0.5, 0.9])
    return found


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, strict=True)


def module_of(model):
    return model.get_params().get("module")


def read_file(path, module):
    return load(path, module=module)


def read_pickle(path, module=None):
    return pickle.loads(path.read_bytes())


def read_mapped(path, module=None):
    return joblib.load(path, mmap_mode="r")


def read_joblib(path, module=None):
    return joblib.load(path)


def read_skops(path, module=None):
    import skops.io

    return skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))


def write_skops(model, path):
    import skops.io

    skops.io.dump(model, path)


WRITERS = {
    "save": lambda model, path: model.save(path),
    "pickle": lambda model, path: path.write_bytes(pickle.dumps(model)),
    "joblib": joblib.dump,
    "mapped": joblib.dump,
    "cloudpickle": lambda model, path: path.write_bytes(cloudpickle.dumps(model)),
    "skops": write_skops,
}
READERS = {
    "save": read_file,
    "pickle": read_pickle,
    "joblib": read_joblib,
    "mapped": read_mapped,
    "cloudpickle": read_pickle,
    "skops": read_skops,
}


def outputs_of_files(files):
    """What each of some files predicts: the name of the reader, the path, and the module."""
    return [outputs(READERS[reader](path, module)) for reader, path, module in files]


@pytest.fixture(scope="module")
def models():
    """Fitted estimators by name, each with all that it predicts."""
    X, size = table(), np.array(plain_columns()["size"])
    fitted = {}
    for name, make in {**MODELS, **ELSEWHERE}.items():
        model = make()
        is_regressor = isinstance(model, FoRDERegressor)
        y = 100 * size if is_regressor else np.where(size > 0, "up", "down")
        model.fit(numbers() if name in ("pipeline", "calibrated") else X, y)
        fitted[name] = model, outputs(model)
    return fitted


def skops_or_skip(way):
    if way == "skops":
        pytest.importorskip("skops")


@pytest.mark.parametrize("way", WRITERS)
@pytest.mark.parametrize("name", MODELS)
def test_predictions_come_back_bit_by_bit(models, tmp_path, name, way):
    skops_or_skip(way)
    model, expected = models[name]
    path = tmp_path / "model"
    WRITERS[way](model, path)
    loaded = READERS[way](path, module_of(model))
    assert type(loaded) is type(model)
    assert_equal(outputs(loaded), expected)
    assert_equal(outputs(copy.deepcopy(loaded)), expected)


@pytest.mark.parametrize("way", ["pickle", "joblib", "mapped", "cloudpickle", "skops"])
@pytest.mark.parametrize("name", ["pipeline", "calibrated"])
def test_estimators_that_hold_one_come_back(models, tmp_path, name, way):
    skops_or_skip(way)
    model, expected = models[name]
    WRITERS[way](model, tmp_path / "model")
    assert_equal(outputs(READERS[way](tmp_path / "model")), expected)


@pytest.mark.parametrize("name", [*MODELS, *ELSEWHERE])
def test_copies_predict_bit_by_bit(models, name):
    model, expected = models[name]
    copied = copy.deepcopy(model)
    assert_equal(outputs(copied), expected)
    if name in MODELS:  # The copy shares nothing that training changes.
        X, y = table(), np.array(plain_columns()["size"]) > 0
        copied.partial_fit(X, 1.0 * y if isinstance(copied, FoRDERegressor) else copied.predict(X))
        assert_equal(outputs(model), expected)


def test_a_new_process_predicts_bit_by_bit(models, tmp_path):
    pytest.importorskip("skops")
    files, expected = [], []
    for name in (*MODELS, "pipeline", "calibrated"):
        model, values = models[name]
        ways = WRITERS.keys() - ({"save"} if name in ("pipeline", "calibrated") else set())
        for way in sorted(ways):
            path = tmp_path / f"{name} {way}"
            WRITERS[way](model, path)
            files.append((way, path, module_of(model)))
            expected.append(values)
    with ProcessPoolExecutor(1, get_context("spawn"), one_thread) as pool:
        found_there = pool.submit(outputs_of_files, files).result()
        for found, values in zip(found_there, expected, strict=True):
            assert_equal(found, values)


def one_thread():
    import torch

    torch.set_num_threads(1)


def test_modules_without_a_name_travel_by_cloudpickle(models, tmp_path):
    """The other process can import neither this module nor what it defines inside functions."""
    code = """
import pickle, sys, warnings
import torch
torch.set_num_threads(1)
X, dumped = pickle.load(open("models", "rb"))
found = [getattr(pickle.loads(one), name)(X) for name, one in dumped]
pickle.dump(found, open("found", "wb"))
"""
    own = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(own)  # As if this were __main__.
    try:
        names = {"local class": "predict_proba", "lambda": "predict_members"}
        names |= {"own class": "predict_proba", "own function": "predict_members"}
        dumped = [(method, cloudpickle.dumps(models[name][0])) for name, method in names.items()]
    finally:
        cloudpickle.unregister_pickle_by_value(own)
    (tmp_path / "models").write_bytes(pickle.dumps((table(), dumped)))
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    found = pickle.loads((tmp_path / "found").read_bytes())
    for (name, method), values in zip(names.items(), found, strict=True):
        np.testing.assert_array_equal(values, models[name][1][method])


# ---- joblib's memory maps


def maps_of(path):
    """The ranges of addresses at which this process has mapped a file."""
    listed = Path("/proc/self/maps")
    if not listed.exists():
        pytest.skip("This system does not tell what is mapped.")
    lines = (line.split(maxsplit=5) for line in listed.read_text().splitlines())
    ranges = [line[0].split("-") for line in lines if line[-1] == str(path.resolve())]
    return [(int(start, 16), int(end, 16)) for start, end in ranges]


def are_mapped(model, path):
    ranges = maps_of(path)
    members = model.fitted_.members
    return [
        any(start <= tensor.data_ptr() < end for start, end in ranges)
        for tensor in [*members.parameters(), *members.buffers()]
    ]


@pytest.mark.parametrize("name", MODELS)
def test_weights_stay_in_a_file_that_joblib_maps(models, tmp_path, name):
    model, expected = models[name]
    path = tmp_path / "model"
    joblib.dump(model, path)
    assert not any(are_mapped(joblib.load(path), path))
    loaded = joblib.load(path, mmap_mode="r")
    assert all(are_mapped(loaded, path))
    assert_equal(outputs(loaded), expected)  # Warnings are errors here.
    assert all(are_mapped(loaded, path))


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
@pytest.mark.parametrize("name", ["classifier", "homoscedastic", "own function"])
def test_a_mapped_estimator_trains_on_copies_and_is_saved(models, tmp_path, name, mode):
    model, expected = models[name]
    path, file = tmp_path / "model", tmp_path / "file"
    joblib.dump(model, path)
    before = path.read_bytes()
    loaded = joblib.load(path, mmap_mode=mode)
    loaded.save(file, include_training_state=True)
    assert_equal(outputs(load(file, module=module_of(model))), expected)
    assert_equal(outputs(pickle.loads(pickle.dumps(loaded))), expected)
    X, y = table(), np.array(plain_columns()["size"])
    y = 100 * y if isinstance(model, FoRDERegressor) else np.where(y > 0, "up", "down")
    further = copy.deepcopy(model).partial_fit(X, y)
    assert_equal(outputs(loaded.partial_fit(X, y)), outputs(further))
    assert_equal(outputs(joblib.load(path, mmap_mode=mode).fit(X, y)), expected)
    for alone, member in zip(further.estimators_, loaded.estimators_, strict=True):
        np.testing.assert_array_equal(alone.predict(X), member.predict(X))
    assert path.read_bytes() == before


def test_compressed_files_are_read_and_not_mapped(models, tmp_path):
    model, expected = models["classifier"]
    joblib.dump(model, tmp_path / "model", compress=3)
    assert_equal(outputs(joblib.load(tmp_path / "model")), expected)


# ---- what skops shows

COMMON = {
    "functools.partial",
    "sklearn_fordes.inference._fitted.FittedEnsemble",
    "sklearn_fordes.networks._mlp.MLP",
    "sklearn_fordes.preprocessing._encoder.TabularEncoder",
}
BY_HAND = {"sklearn_fordes.networks.fast._engine.MLPEnsemble"}
GAUSSIAN = {"sklearn_fordes.particles.likelihoods._gaussian.GaussianLikelihood"}
CLASSIFIER = {
    "sklearn_fordes.estimators._classifier.FoRDEClassifier",
    "sklearn_fordes.particles.likelihoods._categorical.CategoricalLikelihood",
}
REGRESSOR = {"sklearn_fordes.estimators._regressor.FoRDERegressor"}
TRUSTED = {
    "classifier": COMMON | BY_HAND | CLASSIFIER,
    "heteroscedastic": COMMON | BY_HAND | REGRESSOR | GAUSSIAN,
    "homoscedastic": COMMON
    | REGRESSOR
    | GAUSSIAN
    | {"sklearn_fordes.networks._noise._drawn", "sklearn_fordes.particles._members.Ensemble"},
    "quantile": COMMON
    | BY_HAND
    | REGRESSOR
    | {"sklearn_fordes.particles.likelihoods._quantile.QuantileLikelihood"},
    "objects as settings": COMMON
    | BY_HAND
    | CLASSIFIER
    | {"sklearn_fordes.particles._repulsion.Repulsion"},
    "own class": (COMMON - {"sklearn_fordes.networks._mlp.MLP"})
    | CLASSIFIER
    | {"sklearn_fordes.particles._members.Ensemble", "test_round_trips.Own"},
    "pipeline": COMMON | BY_HAND | CLASSIFIER,
}


@pytest.mark.parametrize("name", TRUSTED)
def test_skops_shows_all_that_it_would_make(models, tmp_path, name):
    skops_io = pytest.importorskip("skops.io")
    path = tmp_path / "model.skops"
    skops_io.dump(models[name][0], path)
    assert set(skops_io.get_untrusted_types(file=path)) == TRUSTED[name]
    with pytest.raises(skops_io.exceptions.UntrustedTypesFoundException):
        skops_io.load(path)
    # Arrays of numbers and strings, and a tree of names: there is no other pickle to hide in.
    with zipfile.ZipFile(path) as archive:
        for entry in archive.namelist():
            with archive.open(entry) as file:
                if entry == "schema.json":
                    assert json.load(file)["protocol"] >= 0
                else:
                    assert entry.endswith(".npy")
                    np.load(file, allow_pickle=False)


# ---- files of `save`


def test_a_file_is_hardly_larger_than_weights_and_levels(tmp_path):
    """Of a default network; what is counted besides is settings, losses of epochs and names."""
    X = as_pandas_categories(with_dates(plain_columns())).drop(columns=["constant", "empty"])
    X["level"] = pd.Series([f"a level named {i % 40}" for i in range(len(X))])
    model = FoRDEClassifier(max_epochs=10, random_state=0, encoder=TabularEncoder(min_frequency=2))
    model.fit(X, X["size"] > 0).save(tmp_path / "model")
    members, encoder = pytest.importorskip("benchmarks.saving").needed_bytes(model)
    size = (tmp_path / "model").stat().st_size
    assert members + encoder < size < 1.1 * (members + encoder)


def test_a_process_that_is_killed_while_it_saves_leaves_a_whole_file(models, tmp_path):
    if not hasattr(os, "fork"):
        pytest.skip("This system does not fork.")
    model, expected = models["classifier"]
    model.save(tmp_path / "model")
    (tmp_path / "X").write_bytes(pickle.dumps((table(), expected["predict_proba"])))
    code = """
import os, pickle, random, signal, time
import torch
from sklearn_fordes import load

torch.set_num_threads(1)
X, expected = pickle.load(open("X", "rb"))
models = load("model"), load("model").set_params(n_members=1)
rng, seen = random.Random(0), set()
for _ in range(30):
    child = os.fork()
    while not child:
        for model in models:
            model.save("model")
    time.sleep(rng.uniform(0.005, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    model = load("model")
    seen.add(model.n_members)
    assert (model.predict_proba(X) == expected).all()
assert seen == {1, 3}, seen
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=tmp_path)
