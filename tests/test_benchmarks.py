"""What the benchmarks share: runs that go on where they stopped, and scores."""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import log_loss

from benchmarks import front, gpu, one_row, regression_tables, step_time, support
from benchmarks._harness import RESULTS, read_results, run_missing
from benchmarks.datasets import (
    DEVELOPMENT_SETS,
    FIRST_REPORTING_SETS,
    REPORTING_SETS,
    SMALL_DEVELOPMENT_SETS,
    SMALL_REPORTING_SETS,
    deal,
    describe,
)
from benchmarks.recipes_of_tables import KINDS, NEW_TABLES, Dataset, Table, kind_of
from benchmarks.regression_tables import REGRESSION_DEVELOPMENT_SETS, REGRESSION_REPORTING_SETS
from benchmarks.scores import accuracy, brier, expected_calibration_error, nll
from benchmarks.step_time import Shape, kernel_share
from benchmarks.systems import BLOCKS, PCA, STEIN
from sklearn_fordes import FoRDEClassifier, Repulsion
from sklearn_fordes.particles import as_repulsion

KEY = ["set", "seed"]


def rows_of(name, seed):
    return [{"score": seed + 1 / 3, "rows": kind} for kind in ("clean", "noise, 1")]


def test_a_run_goes_on_where_it_stopped(tmp_path):
    path, asked = tmp_path / "new" / "results.csv", []

    def stop_at_third(name, seed):
        asked.append((name, seed))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return rows_of(name, seed)

    units = [("a", 0), ("b", 0), ("a", 1)]
    with pytest.raises(KeyboardInterrupt):
        run_missing(path, KEY, units, stop_at_third)
    assert len(pd.read_csv(path)) == 4
    results = run_missing(path, KEY, units, stop_at_third)
    assert asked == [*units, ("a", 1)]
    assert list(results) == [*KEY, "score", "rows"]
    assert list(results[KEY].itertuples(index=False, name=None)) == [u for u in units for _ in "xy"]
    assert results["score"].max() == 1 + 1 / 3  # every digit
    text = path.read_text()
    run_missing(path, KEY, units, stop_at_third)
    assert path.read_text() == text


def test_rows_have_the_columns_of_the_file_in_their_order(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("rows,set,score,seed\nclean,a,1,0\n")
    results = run_missing(path, KEY, [("a", 0), ("b", 0)], rows_of, float_format="%.3g")
    assert path.read_text().splitlines()[2] == "clean,b,0.333,0"
    assert len(results) == 3
    path.write_text("")  # is a new file
    assert len(run_missing(path, KEY, [("a", 0)], rows_of)) == 2
    path.write_text("set,seed,loss\n")
    with pytest.raises(ValueError, match=r"Got columns .*'score'.*, but expected .*'loss'"):
        run_missing(path, KEY, [("a", 0)], rows_of)
    assert path.read_text() == "set,seed,loss\n"


def test_scores_of_two_classes():
    y = np.array([0, 1, 1, 0])
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [0.7, 0.3], [1, 0]])
    assert accuracy(y, probabilities) == 0.75
    assert nll(y, probabilities) == pytest.approx(log_loss(y, probabilities))
    assert brier(y, probabilities) == pytest.approx(2 * (0.01 + 0.01 + 0.49) / 4)
    assert expected_calibration_error(y, probabilities) == pytest.approx((0.2 + 0.7) / 4)
    # A true class without any probability costs 15 decimal places.
    assert nll(1 - y[3:], probabilities[3:]) == pytest.approx(15 * np.log(10))


def test_the_kernel_is_timed_at_the_rows_of_each_repulsion():
    shares = kernel_share(Shape((4,), n_members=3, batch_size=8, n_features=2), repeats=1)
    assert shares.keys() == {"every row", "a quarter"}
    assert all(0 < share < 5 for share in shares.values())


def test_one_row_is_timed_of_an_array_and_of_a_mixed_frame():
    table = one_row.measure(200, repeats=3, max_epochs=1)
    assert {"FoRDEClassifier", "FoRDERegressor", "HistGradientBoosting", "random forest"} <= set(
        table.index
    )
    assert [*table.columns] == [
        (k, n) for k in ("array", "mixed frame") for n in ("median", "95 %")
    ]
    timed = table.drop(index="HistGradientBoosting, no text").to_numpy()
    assert ((timed > 0) & (timed < 1e5)).all()
    assert table.loc["HistGradientBoosting, no text"].isna().tolist() == [True, True, False, False]


def test_the_frame_of_one_row_has_columns_of_every_kind():
    X = np.random.default_rng(0).normal(size=(100, one_row.N_COLUMNS))
    frame = one_row.mixed_frame(X, 0)
    assert frame.shape == X.shape
    assert sorted(frame.dtypes.map(lambda dtype: dtype.kind).value_counts()) == [1, 1, 6, 12]
    assert (frame.isna().sum() > 0).sum() == 6
    assert (one_row.with_categories(frame).dtypes == "category").sum() == 6
    seen = []
    predict = one_row.each_row_in_turn(seen.append, frame, 2)
    for _ in range(3):
        predict()
    assert [[*rows.index] for rows in seen] == [[0], [1], [0]]


SYSTEMS = {name: system for systems in BLOCKS.values() for name, system in systems.items()}


@pytest.mark.parametrize("system", SYSTEMS)
def test_systems_are_parameters_of_the_classifier(system):
    model = FoRDEClassifier(**SYSTEMS[system])
    inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    built = as_repulsion(model.repulsion).build(inputs, model.lengthscale)
    assert (built is None) == (model.repulsion == "none")


def test_the_repulsion_of_the_stored_results():
    stored = {"fraction": 0.25, "period": 1, "relative": False}
    assert SYSTEMS[PCA] == {"repulsion": Repulsion(**stored), "lengthscale": "pca"}
    assert SYSTEMS[STEIN] == {"repulsion": Repulsion("weight", update="svgd", **stored)}
    assert Repulsion(**stored) != Repulsion.paper()


def test_stored_results_are_of_the_systems_that_exist():
    stored = read_results(Path(__file__).parents[1] / RESULTS / "lengthscale_tradeoff.csv")
    known = {(strength, name) for strength, systems in BLOCKS.items() for name in systems}
    assert set(zip(stored["strength"], stored["system"], strict=True)) == known


# ---- tables


def test_tables_of_a_kind_are_dealt_by_the_hash_of_their_name():
    def load():
        raise AssertionError("a table is read only when it is asked for")

    tables = {
        name: Table(kind, load)
        for kind in ("plain", "small")
        for name in (f"{kind} {i}" for i in range(5))
    }
    reporting, development = deal(tables)
    assert reporting.keys() | development.keys() == tables.keys()
    assert reporting.keys().isdisjoint(development)
    assert [tables[name].kind for name in reporting] == ["small"] * 3 + ["plain"] * 3
    assert deal(dict(reversed(tables.items()))) == (reporting, development)


def test_no_table_is_in_two_lists_and_every_kind_is_in_both():
    new = [*REPORTING_SETS, *(DEVELOPMENT_SETS.keys() & NEW_TABLES.keys())]
    assert sorted(new) == sorted(NEW_TABLES)
    assert len({*DEVELOPMENT_SETS, *REPORTING_SETS, *FIRST_REPORTING_SETS}) == (
        len(DEVELOPMENT_SETS) + len(REPORTING_SETS) + len(FIRST_REPORTING_SETS)
    )
    for sets in (REPORTING_SETS, DEVELOPMENT_SETS):
        kinds = [NEW_TABLES[name].kind for name in sets if name in NEW_TABLES]
        assert min(kinds.count(kind) for kind in KINDS) >= 2


@pytest.mark.parametrize("name", NEW_TABLES)
def test_tables_are_of_the_kind_they_tell(name):
    data = NEW_TABLES[name].read()
    assert kind_of(data) == NEW_TABLES[name].kind
    assert (len(data.X) <= 500) == (name in SMALL_REPORTING_SETS or name in SMALL_DEVELOPMENT_SETS)
    assert data.y.notna().all()
    assert list(data.X.index) == list(data.y.index) == list(range(len(data.y)))
    assert data.X.nunique().min() > 1


def test_the_first_kind_that_applies_counts():
    rows = 600
    zeros = pd.DataFrame(dict.fromkeys("abc", [0.0] * (rows - 1) + [1.0]))
    y = pd.Series(["x", "y"] * (rows // 2))
    late = y.index.to_numpy() > 300
    assert kind_of(Dataset(zeros, y, late)) == "zeros"
    assert kind_of(Dataset(zeros[:500], y[:500])) == "small"
    assert kind_of(Dataset(zeros[["a", "b"]], y)) == "plain"
    assert kind_of(Dataset(zeros[["a", "b"]], y, late)) == "shift"
    line = describe("some", Dataset(zeros.assign(d=y), y, late))
    assert (line["numbers"], line["categories"]) == (3, 1)
    assert line["mostly one value"] == 1
    assert line["shifted rows"] == 299


# ---- tables with a number to predict


def test_regression_tables_are_dealt_alternately_within_a_kind():
    tables = regression_tables.NEW_TABLES
    new = [*REGRESSION_REPORTING_SETS, *(REGRESSION_DEVELOPMENT_SETS.keys() & tables.keys())]
    assert sorted(new) == sorted(tables)
    assert set(regression_tables.USED_SETS) <= set(REGRESSION_DEVELOPMENT_SETS)
    assert REGRESSION_REPORTING_SETS.keys().isdisjoint(REGRESSION_DEVELOPMENT_SETS)
    for kind in regression_tables.KINDS:
        names = [name for name, table in tables.items() if table.kind == kind]
        n_reported = len(REGRESSION_REPORTING_SETS.keys() & set(names))
        assert n_reported == (len(names) + 1) // 2 > 0


@pytest.mark.parametrize(
    "name", [*regression_tables.USED_SETS, *regression_tables.NEW_TABLES], ids=str
)
def test_regression_tables_are_of_the_kind_they_tell(name):
    data = (REGRESSION_REPORTING_SETS | REGRESSION_DEVELOPMENT_SETS)[name]()
    if name in regression_tables.NEW_TABLES:
        assert regression_tables.kind_of(data) == regression_tables.NEW_TABLES[name].kind
    assert data.y.dtype == float
    assert np.isfinite(data.y).all()
    assert list(data.X.index) == list(data.y.index) == list(range(len(data.y)))
    assert data.X.nunique().min() > 1
    assert len(data.y) >= 300


def test_the_first_kind_of_a_regression_table_that_applies_counts():
    rows = 1000
    X = pd.DataFrame({"a": np.arange(rows), "b": np.arange(rows) % 7})
    flat, tail = pd.Series(np.arange(rows) / 1), pd.Series(np.r_[np.arange(980), [1e6] * 20])
    kind_of = regression_tables.kind_of
    assert kind_of(Dataset(X, flat)) == "plain"
    assert kind_of(Dataset(X, tail)) == "long tail"
    assert kind_of(Dataset(X.assign(b=X["b"].astype(str)), tail)) == "categorical"
    assert kind_of(Dataset(X.assign(b=X["b"].where(X["b"] > 0)), tail)) == "gaps"
    assert kind_of(Dataset(X[:700], tail[:700])) == "small"
    assert kind_of(Dataset(X[:700], tail[:700], X["a"][:700].to_numpy() > 300)) == "shift"


def test_numbers_are_split_without_classes():
    X = pd.DataFrame({"a": np.arange(100)})
    data = Dataset(X, X["a"] * 2.0, X["a"].to_numpy() >= 70)
    parts = regression_tables.split(data, 3, max_train=20, max_test=25)
    assert [len(part) for part in parts] == [20, 20, 25, 25, 25, 25]
    for rows, y in zip(parts[::2], parts[1::2], strict=True):
        np.testing.assert_array_equal(y, rows["a"] * 2.0)
    train, test, shifted = (set(part["a"]) for part in parts[::2])
    assert train.isdisjoint(test)
    assert max(train | test) < 70 <= min(shifted)
    whole = regression_tables.split(data._replace(is_shifted=None), 3, max_train=99, max_test=99)
    assert [len(y) for y in whole[1::2]] == [60, 40, 0]


def test_rows_that_training_rows_say_nothing_of():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": [0.0, 1, 2], "b": [np.nan, 3, 4], "c": [5, 6, 0], "d": list("xyz")})
    enlarged = support.enlarge(X, ["a", "b", "c"], rng)
    ratio = (enlarged[["a", "b", "c"]] / X[["a", "b", "c"]]).to_numpy()
    assert (ratio == support.FACTOR).sum(axis=1).tolist() == [1, 2, 2]  # without zeros and gaps
    pd.testing.assert_frame_equal(enlarged[["d"]], X[["d"]])
    assert enlarged["b"].isna().tolist() == [True, False, False]
    renamed = support.rename(X.assign(e="p", f="q"), ["d", "e", "f"], rng)
    assert (renamed == support.UNSEEN_LEVEL).sum(axis=1).tolist() == [2, 2, 2]
    pd.testing.assert_frame_equal(renamed[["a", "b", "c"]], X[["a", "b", "c"]])


@pytest.mark.parametrize(("n_classes", "rarest"), [(4, {"a"}), (6, {"a", "b"})])
def test_the_rarest_classes_are_held_out(n_classes, rarest):
    names = list("abcdef")[:n_classes]
    y = pd.Series([name for n, name in enumerate(names, 5) for _ in range(n)])
    X = pd.DataFrame({"class": y})
    shifted = Dataset(pd.concat([X, X]), pd.concat([y, y]), np.arange(2 * len(y)) >= len(y))
    for data in (Dataset(X, y), shifted):
        inside, outside = support.without_classes(data)
        assert set(outside["class"]) == rarest
        assert set(inside.y) == set(names) - rarest
        assert len(inside.y) + len(outside) == len(y)
        assert (inside.X["class"] == inside.y).all()


def test_the_sets_with_rows_of_which_training_says_nothing():
    assert [*support.SETS][:11] == [*FIRST_REPORTING_SETS]
    assert {*[*support.SETS][11:]} <= {*REPORTING_SETS}
    assert len(support.SETS) == 21


def test_the_benchmark_of_saving_reports_times_and_sizes(tmp_path, monkeypatch):
    pytest.importorskip("skops")
    from benchmarks import saving

    monkeypatch.setattr("sys.argv", ["saving", "--repeats", "1", "--threads", "1", "--tables", "1"])
    monkeypatch.setattr("sys.argv", [*sys.argv, "--output", str(tmp_path / "saving.txt")])
    saving.main()
    lines = (tmp_path / "saving.txt").read_text().splitlines()
    assert lines[0] == "default classifiers, medians of 1 interleaved calls"
    (sizes,) = (line.split() for line in lines if line.startswith("small "))
    assert 1 < float(sizes[4]) < 1.1
    assert 2.9 < float(sizes[5]) < 3.1
    for name in ("save, load", "pickle", "joblib", "joblib, mapped", "skops", "1 threads"):
        (line,) = (line for line in lines if line.startswith(f"{name}  "))
        assert all(float(number) > 0 for number in line.removeprefix(name).split())


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_parts_of_the_gpu_benchmark_take_ten_minutes_at_most(device):
    parts = gpu.parts_of(device)
    assert sum(part.seconds for part in parts.values()) <= gpu.SECONDS < 600
    assert {"tests", "products", "M 10", "M 1000", f"FoRDE, {device}"} <= parts.keys()


def test_the_report_of_a_gpu_has_what_was_measured_and_why_the_rest_is_missing():
    products = {"FP32": 50.0, "TF32": 400.0}
    step = {"captured": {"ms": 1.0, "TFLOP/s": 5.0}}
    fits = {name: {"seconds": s, "log loss": 0.5} for name, s in (("FoRDE, cuda", 4.0), ("b", 6.0))}
    found = {"products": products, "M 10": step, "M 100": {"failed": "too slow"}, **fits}
    text = "\n".join(gpu.report(found, "cuda"))
    (steps,) = (line.split() for line in text.splitlines() if line.startswith("M 10 "))
    assert steps[2:] == ["captured", "1.000", "5.000", "10.000", "1.250"]
    assert "M 100: too slow" in text
    assert text.index("1.500") > text.index("relative to FoRDE, cuda")
    # A run that finds nothing at all says why, too.
    assert "products: broken" in gpu.report({"products": {"failed": "broken"}}, "cuda")


def test_a_part_of_the_gpu_benchmark_is_ended_with_all_that_it_has_started(tmp_path, monkeypatch):
    started, late = subprocess.Popen, tmp_path / "late"

    def begin(command, **named):
        return started(["sh", "-c", f"(sleep 2; touch {late}) & wait"], **named)

    monkeypatch.setattr(subprocess, "Popen", begin)
    options = argparse.Namespace(device="cpu", quick=True)
    found = gpu.run_part("tests", gpu.Part(gpu.run_tests, 1), options, 0.5)
    assert found == {"failed": "took more than 0 s"}
    time.sleep(2.5)
    assert not late.exists()


@pytest.mark.slow
def test_the_gpu_benchmark_runs_without_a_gpu(tmp_path, monkeypatch):
    output = tmp_path / "gpu.txt"
    options = ["--device", "cpu", "--quick", "--output", str(output)]
    monkeypatch.setattr("sys.argv", ["gpu", *options])
    monkeypatch.chdir(Path(__file__).parents[1])
    gpu.main()
    text = output.read_text()
    assert " skipped in " in text or " passed" in text
    (step,) = (line.split() for line in text.splitlines() if line.startswith("M 10 "))
    assert all(float(number) > 0 for number in (step[4], *step[6:]))
    assert "\nFoRDE, cpu " in text


def test_front_of_loss_and_time():
    names = ["as quick, worse", "quick", "slow", "good", "as good, slower"]
    seconds = pd.Series([1.0, 1.0, 9.0, 3.0, 4.0], index=names)
    losses = pd.Series([0.7, 0.5, 0.6, 0.3, 0.3], index=names)
    found = front.on_front(seconds, losses)
    assert found.to_dict() == dict(zip(names, [False, True, False, True, False], strict=True))
    table = front.loss_table(seconds.to_frame("t"), losses.to_frame("t"))
    assert table["t"].to_dict() == {
        name: f"{losses[name]:.3f} {'*' if found[name] else ' '}" for name in names
    }


def test_ratio_of_turns_to_one_column_or_to_the_own():
    turns = pd.DataFrame({"a": [2.0, 4.0, 6.0], "b": [1.0, 2.0, 2.0], "c": [3.0, 3.0, 3.0]})
    found = step_time.ratio_to(turns, "b", "b")
    assert found["/ b"].to_dict() == {"a": 2.0, "b": 1.0, "c": 1.5}
    assert found["at most, / b"].to_dict() == {"a": 3.0, "b": 1.0, "c": 3.0}
    assert step_time.ratio_to(turns, {"c": "a"}, "own")["/ own"].to_dict() == {"c": 0.75}
