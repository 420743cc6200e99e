"""The benchmark of the regressor: scores, models and summaries."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.metrics import mean_pinball_loss

from benchmarks.peers import Categories
from benchmarks.recipes_of_tables import Dataset
from benchmarks.regression_peers import METHODS, Fordes
from benchmarks.regression_scores import (
    LEVELS,
    SCORES,
    Forecast,
    measure,
    normal_forecast,
    score,
)
from benchmarks.regression_summaries import (
    CONDITIONS,
    against,
    conditions_of,
    means_by_rows,
    report,
)
from benchmarks.regression_tables import split


def test_levels_are_midpoints():
    np.testing.assert_allclose(LEVELS, [0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95])


def test_scores_of_two_rows_by_hand():
    y = np.array([1.0, 10.0])
    quantiles = np.stack([np.linspace(0, 9, 10), np.linspace(0, 9, 10)])
    # The first lies inside of [0, 9]; the second is 1 above it, which costs 2 / 0.1.
    found = score(y, Forecast(np.array([4.0, 6.0]), quantiles), scale=2.0)
    assert list(found) == SCORES
    assert found["rmse"] == pytest.approx(((9 + 16) / 2) ** 0.5 / 2)
    columns = zip(quantiles.T, LEVELS, strict=True)
    expected = np.mean([mean_pinball_loss(y, q, alpha=level) for q, level in columns])
    assert found["crps"] == pytest.approx(2 * expected / 2)
    assert (found["coverage"], found["width"]) == (0.5, 4.5)
    assert found["interval"] == pytest.approx((9 + 29) / 2 / 2)
    assert np.isnan(found["nll"])


def test_the_crps_is_that_of_ten_equally_likely_values():
    rng = np.random.default_rng(0)
    y, values = rng.normal(size=5), np.sort(rng.normal(size=(5, 10)), axis=1)
    to_y = np.abs(values - y[:, None]).mean(axis=1)
    between = np.abs(values[:, :, None] - values[:, None]).mean(axis=(1, 2))
    found = score(y, Forecast(y, values), scale=1.0)["crps"]
    assert found == pytest.approx((to_y - between / 2).mean())


def test_the_density_of_normals_is_of_the_target_in_its_own_deviations():
    y, mean, deviation = np.array([1.0, 3.0]), np.array([0.0, 2.0]), np.array([2.0, 1.0])
    forecast = normal_forecast(mean, deviation)
    np.testing.assert_allclose(forecast.quantiles[:, 0], norm.ppf(0.05, mean, deviation))
    found = score(y, forecast, scale=4.0)["nll"]
    assert found == pytest.approx(-norm.logpdf(y / 4, mean / 4, deviation / 4).mean())
    # A mixture of a density with itself is that density; with a far one it has half of it.
    twice = forecast._replace(normals=(np.stack([mean, mean]), np.stack([deviation] * 2)))
    assert score(y, twice, scale=4.0)["nll"] == pytest.approx(found)
    far = forecast._replace(normals=(np.stack([mean, mean + 1e3]), np.stack([deviation] * 2)))
    assert score(y, far, scale=4.0)["nll"] == pytest.approx(found + np.log(2))


def test_what_a_method_does_not_say_has_no_score():
    y, nothing = np.zeros(3), np.full((3, 10), np.nan)
    found = score(y, Forecast(np.ones(3), nothing), scale=1.0)
    assert [name for name in SCORES if np.isnan(found[name])] == SCORES[1:]
    interval = nothing.copy()
    interval[:, [0, -1]] = [-1, 2]
    found = score(y, Forecast(np.full(3, np.nan), interval), scale=1.0)
    assert [name for name in SCORES if np.isnan(found[name])] == ["rmse", "crps", "nll"]
    assert (found["coverage"], found["width"], found["interval"]) == (1, 3, 3)


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.normal(size=160), "b": rng.choice(["x", "y"], 160)})
    X.loc[::9, "a"] = np.nan
    y = pd.Series(50 + 5 * X["a"].fillna(0) + 9 * (X["b"] == "x") + rng.normal(size=160))
    return split(Dataset(X, y, np.arange(160) >= 130), 0, max_train=60, max_test=20)


@pytest.mark.parametrize("noise", ["heteroscedastic", "quantile"])
def test_our_models_have_every_score_on_every_kind_of_rows(small, noise):
    model = Fordes(0, n_members=2, max_epochs=3, noise=noise)
    table = pd.DataFrame(measure(model, small, 0))
    assert set(table["rows"]) == {kind for kinds in CONDITIONS.values() for kind in kinds}
    np.testing.assert_allclose(table["deviation"], np.std(small.y_train))
    assert table[SCORES].notna().all().to_dict() == {
        name: name != "nll" or noise != "quantile" for name in SCORES
    }
    forecast = model.forecast(small.X_test)
    np.testing.assert_allclose(forecast.mean, model.model.predict(small.X_test))
    if forecast.normals:
        np.testing.assert_allclose(forecast.mean, forecast.normals[0].mean(axis=0), rtol=1e-5)


def test_boosted_quantiles_are_in_order_and_of_the_scale_of_the_target(small):
    model = METHODS["HGB quantiles"](0)
    model.fit(small.X_train, small.y_train)
    forecast = model.forecast(small.X_shifted)
    assert forecast.quantiles.shape == (20, 10)
    assert (np.diff(forecast.quantiles, axis=1) >= 0).all()
    assert np.corrcoef(forecast.mean, small.y_shifted)[0, 1] > 0.5
    assert forecast.normals is None


def test_only_the_most_common_levels_are_categories():
    X = pd.DataFrame({"a": ["x"] * 3 + ["y"] * 2 + ["z"]})
    found = Categories(max_levels=2).fit(X).transform(X)["a"]
    assert found.isna().tolist() == [False] * 5 + [True]
    assert Categories().fit(X).transform(X)["a"].notna().all()


def results(**scores):
    """Results of two sets, and one seed, with the same scores for all kinds of rows."""
    rows = ["clean", "noise 0.3", "permute 0.1", "missing 0.1"]
    return pd.DataFrame(
        [
            {"set": name, "seed": 0, "method": method, "rows": kind}
            | dict.fromkeys(SCORES, value)
            | {"crps": value * (2 if kind == "noise 0.3" else 1)}
            for method, values in scores.items()
            for name, value in zip("st", values, strict=True)
            for kind in rows
        ]
    )


def test_a_method_is_compared_by_ratios_and_the_nll_by_differences():
    table = results(FoRDE=(1.0, 1.0), other=(2.0, 0.25), point=(0.5, 0.5))
    table.loc[table["method"] == "point", ["crps", "interval", "nll"]] = np.nan
    parts = conditions_of(table)
    assert list(parts) == ["clean", "mild corruption"]
    np.testing.assert_allclose(
        parts["mild corruption"]["crps"].xs("other", level="method"), [8 / 3, 1 / 3]
    )
    found = against(parts["clean"])
    error = np.std(np.log([2, 0.25]), ddof=1) / 2**0.5
    assert found.loc["other", "crps ratio"] == f"{2**0.5:.3f} ± {error:.3f}"
    assert found.loc["other", "crps ahead"] == "1/2"
    assert found.loc["other", "nll difference"] == f"{-0.125:.3f} ± {0.875:.3f}"
    assert found.loc["point", "rmse ratio"] == "2.000 ± 0.000"
    assert found.loc["point", "crps ratio"] == ""
    alone = parts["clean"].drop(index="other", level="method")
    assert list(against(alone)) == ["rmse ratio", "rmse ahead"]


def test_coverage_is_averaged_over_sets_and_peers_alone_have_a_report():
    table = results(other=(0.8, 0.9))
    means = means_by_rows(table, "coverage")
    assert list(means) == ["clean", "noise 0.3", "permute 0.1", "missing 0.1"]
    assert means.loc["other", "clean"] == pytest.approx(0.85)
    text = report(table)
    assert "Coverage" in text
    assert "FoRDE relative" not in text
