"""What the benchmarks share: runs that go on where they stopped, and scores."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import log_loss

from benchmarks._harness import RESULTS, read_results, run_missing
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
