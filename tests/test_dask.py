"""Predictions by partitions are those of the model, whatever the scheduler."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline

from sklearn_fordes import FoRDEClassifier, FoRDERegressor

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
dd = pytest.importorskip("dask.dataframe")
distributed = pytest.importorskip("distributed")

from sklearn_fordes.dask import predict, predict_interval, predict_proba  # noqa: E402

RNG = np.random.default_rng(0)
N_ROWS = 240
FRAME = pd.DataFrame(
    {
        "number": RNG.normal(size=N_ROWS),
        "text": RNG.choice(["red", "green", None], size=N_ROWS),
        "count": RNG.integers(0, 5, size=N_ROWS),
    },
    index=pd.RangeIndex(1000, 1000 + N_ROWS, name="id"),
)
FRAME.loc[FRAME["number"] > 1.5, "number"] = np.nan
SHIFT = FRAME["number"].fillna(0).to_numpy() + (FRAME["text"] == "red")
Y = np.where(SHIFT > 0.3, "yes", np.where(SHIFT < -0.8, "no", "perhaps"))
SIZES = {"n_members": 3, "hidden_layer_sizes": (16,), "max_epochs": 5, "random_state": 0}


class Counted(FoRDEClassifier):
    """Notes in a file in which process it is unpickled."""

    def __setstate__(self, state):
        super().__setstate__(state)
        if log := os.environ.get("LOG_OF_COUNTED"):
            with open(log, "a") as file:
                file.write(f"{os.getpid()} {'_then_' in vars(self)}\n")


@pytest.fixture(scope="module")
def classifier():
    return FoRDEClassifier(**SIZES).fit(FRAME, Y)


@pytest.fixture(scope="module")
def of_array():
    return FoRDEClassifier(**SIZES).fit(FRAME[["number", "count"]].to_numpy(), Y)


@pytest.fixture(scope="module")
def regressor():
    return FoRDERegressor(**SIZES).fit(FRAME, SHIFT)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("counted") / "log"
    path.touch()
    return path


@pytest.fixture(scope="module")
def client(log):
    workers = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", env={"LOG_OF_COUNTED": str(log)}
    )
    with workers, distributed.Client(workers, set_as_default=False) as client:
        yield client


@pytest.fixture(params=["threads", "synchronous", "cluster"])
def computed(request):
    """Compute a collection by a scheduler."""
    if request.param == "cluster":
        client = request.getfixturevalue("client")
        return lambda lazy: client.compute(lazy).result()
    return lambda lazy: lazy.compute(scheduler=request.param)


def test_a_frame_gets_a_frame(classifier, computed):
    frame = dd.from_pandas(FRAME, npartitions=7)
    lazy = predict_proba(classifier, frame)
    assert lazy.divisions == frame.divisions
    assert lazy.columns.tolist() == ["no", "perhaps", "yes"]
    found = computed(lazy)
    pd.testing.assert_index_equal(found.index, FRAME.index)
    parts = dask.compute(*frame.to_delayed(), scheduler="synchronous")
    assert len(parts) == 7
    assert_array_equal(found, np.concatenate([classifier.predict_proba(part) for part in parts]))
    # The mean over members of rows at another place of a chunk may round differently.
    np.testing.assert_allclose(found, classifier.predict_proba(FRAME), rtol=0, atol=1e-15)
    labels = predict(classifier, frame)
    assert labels.name == "prediction"
    assert_array_equal(computed(labels), classifier.predict(FRAME))
    assert_array_equal(computed(frame.assign(guess=labels))["guess"], classifier.predict(FRAME))


def test_an_array_gets_an_array(of_array, computed):
    X = FRAME[["number", "count"]].to_numpy()
    array = da.from_array(X, chunks=(50, 1))
    lazy = predict_proba(of_array, array)
    assert lazy.chunks == ((50, 50, 50, 50, 40), (3,))
    assert lazy.dtype == np.float64
    expected = [of_array.predict_proba(X[i : i + 50]) for i in range(0, N_ROWS, 50)]
    assert_array_equal(computed(lazy), np.concatenate(expected))
    labels = predict(of_array, array)
    assert (labels.chunks, labels.dtype) == (((50, 50, 50, 50, 40),), of_array.classes_.dtype)
    assert_array_equal(computed(labels), of_array.predict(X))


def test_a_regressor_predicts_means_and_intervals(regressor, computed):
    frame = dd.from_pandas(FRAME, npartitions=3)
    parts = dask.compute(*frame.to_delayed(), scheduler="synchronous")
    means = [regressor.predict(part) for part in parts]
    assert_array_equal(computed(predict(regressor, frame)), np.concatenate(means))
    intervals = computed(predict_interval(regressor, frame, confidence=0.8))
    assert intervals.columns.tolist() == ["lower", "upper"]
    expected = [regressor.predict_interval(part, confidence=0.8) for part in parts]
    assert_array_equal(intervals, np.concatenate(expected))


@pytest.mark.parametrize("method", [predict, predict_proba])
def test_the_types_told_are_those_found(method, classifier, of_array):
    lazy = method(classifier, dd.from_pandas(FRAME, npartitions=3))
    for part in dask.compute(*lazy.to_delayed()):
        dask.dataframe.utils.assert_eq(part[:0], lazy._meta)
    array = method(of_array, da.zeros((9, 2), chunks=(4, 2)))
    da.utils.assert_eq(array, array.compute())


@pytest.mark.parametrize("labels", [[False, True], [3, 7], [0.0, 1.0], ["a", "b"]])
def test_labels_of_any_type(labels):
    model = FoRDEClassifier(**SIZES).fit(FRAME, np.where(SHIFT > 0, *labels))
    frame = dd.from_pandas(FRAME, npartitions=2)
    assert predict_proba(model, frame).compute().columns.tolist() == labels
    found = predict(model, frame)
    assert found.compute().dtype == found.dtype == pd.Series(labels).dtype
    assert_array_equal(found.compute(), model.predict(FRAME))


def test_empty_partitions_and_unknown_divisions(classifier, of_array, computed):
    frame = dd.from_pandas(FRAME, npartitions=6).clear_divisions()
    some = frame[frame["count"] == 3]
    some = dd.concat([some, frame[frame["count"] > 99]])
    lazy = predict_proba(classifier, some)
    assert not lazy.known_divisions
    rows = FRAME[FRAME["count"] == 3]
    np.testing.assert_allclose(computed(lazy), classifier.predict_proba(rows), rtol=0, atol=1e-15)
    assert_array_equal(computed(predict(classifier, some)), classifier.predict(rows))
    none = computed(predict_proba(classifier, frame[frame["count"] > 99]))
    assert none.shape == (0, 3)
    assert none.dtypes.tolist() == [np.float64] * 3

    X = FRAME[["number", "count"]].to_numpy()
    array = da.from_array(X, chunks=(40, 2))
    lazy = predict_proba(of_array, array[array[:, 1] == 3])
    assert np.isnan(lazy.shape[0])
    expected = of_array.predict_proba(X[X[:, 1] == 3])
    np.testing.assert_allclose(computed(lazy), expected, rtol=0, atol=1e-15)
    assert computed(predict(of_array, array[array[:, 1] > 99])).shape == (0,)


def test_rows_of_more_axes():
    from torch import nn

    def make_network(n_outputs):
        return nn.Sequential(nn.Flatten(), nn.Linear(12, n_outputs))

    X = RNG.normal(size=(40, 3, 4)).astype(np.float32)
    model = FoRDEClassifier(3, module=make_network, max_epochs=3, random_state=0)
    model.fit(X, X[:, 0, 0] > 0)
    lazy = predict_proba(model, da.from_array(X, chunks=(15, 2, 2)))
    assert lazy.chunks == ((15, 15, 10), (2,))
    parts = [model.predict_proba(X[i : i + 15]) for i in range(0, 40, 15)]
    assert_array_equal(lazy.compute(scheduler="synchronous"), np.concatenate(parts))


def test_a_pipeline_predicts():
    X = FRAME[["number", "count"]]
    model = make_pipeline(SimpleImputer(), FoRDEClassifier(**SIZES)).fit(X, Y)
    found = predict_proba(model, dd.from_pandas(X, npartitions=3)).compute()
    np.testing.assert_allclose(found, model.predict_proba(X), rtol=0, atol=1e-15)


def test_each_worker_gets_the_model_once(client, log):
    """And not once for each partition."""
    model = Counted(**SIZES).fit(FRAME, Y)
    array = Counted(**SIZES).fit(FRAME[["count"]].to_numpy(), Y)
    lazy = (
        predict_proba(model, dd.from_pandas(FRAME, npartitions=24)),
        predict_proba(array, da.from_array(FRAME[["count"]].to_numpy(), chunks=(10, 1))),
    )
    for one in lazy:
        log.write_text("")
        assert client.compute(one).result().shape == (N_ROWS, 3)
        # What the model was at its last fit is a part of it.
        whole = [line.split()[0] for line in log.read_text().splitlines() if line.endswith("True")]
        assert 1 <= len(whole) <= 2
        assert len(set(whole)) == len(whole)


def test_nothing_is_computed_and_a_later_fit_changes_nothing(classifier):
    def forbidden(_):
        raise AssertionError("A partition was computed.")

    lazy = dd.from_pandas(FRAME, npartitions=2).map_partitions(forbidden, meta=FRAME[:0])
    assert predict_proba(classifier, lazy).npartitions == 2
    model = clone(classifier).fit(FRAME, Y)
    found = predict(model, dd.from_pandas(FRAME, npartitions=2))
    model.fit(FRAME, SHIFT > 0)
    assert_array_equal(found.compute(), classifier.predict(FRAME))


def test_what_is_refused(classifier, regressor, of_array):
    frame = dd.from_pandas(FRAME, npartitions=2)
    with pytest.raises(
        TypeError, match=r"a FoRDERegressor, which has no predict_proba, .* a classifier"
    ):
        predict_proba(regressor, frame)
    with pytest.raises(TypeError, match=r"no predict_interval, but expected a FoRDERegressor"):
        predict_interval(classifier, frame)
    with pytest.raises(ValueError, match=r"confidence=90, but expected a number in \(0, 1\)"):
        predict_interval(regressor, frame, confidence=90)
    with pytest.raises(TypeError, match="expected a Dask DataFrame or a Dask Array"):
        predict(classifier, FRAME)
    with pytest.raises(NotFittedError):
        predict(clone(classifier), frame)
    with pytest.raises(ValueError, match="missing"):
        predict(classifier, frame[["number", "count"]])
    with pytest.raises(ValueError, match="2 features"):
        predict(of_array, da.zeros((9, 3)))


def test_without_dask_the_error_says_what_to_install():
    code = """
import sys

sys.modules["dask"] = None
try:
    import sklearn_fordes.dask
except ImportError as error:
    assert "expected it to be installed: pip install 'dask[dataframe]'" in str(error), error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True)
