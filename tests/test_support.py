"""What a row has that training rows had not: in reports, codes, uncertainties and scores."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import entropy
from sklearn.preprocessing import StandardScaler

from sklearn_fordes import CellCorruption, FoRDEClassifier, FoRDERegressor, load
from sklearn_fordes.networks import MLP
from sklearn_fordes.preprocessing import TabularEncoder
from sklearn_fordes.preprocessing._state import encoder_state
from sklearn_fordes.preprocessing._support import N_SAMPLES, degree_of
from sklearn_fordes.uncertainty import Uncertainty

DATA = Path(__file__).parent / "data"
N_ROWS = 200
PARTS = ("aleatoric", "epistemic", "support")
LARGEST = np.finfo(float).max


def make_table(n_rows=N_ROWS, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "size": rng.normal(size=n_rows),
            "tail": np.exp(3 * rng.normal(size=n_rows)),
            "flag": rng.random(n_rows) < 0.5,
            "city": rng.choice(["Oslo", "Bergen", "Turku"], n_rows),
            "when": pd.date_range("2020-01-01", "2020-03-31", periods=n_rows),
        }
    )


def signal(X):
    return X["size"] + X["city"].eq("Oslo") + np.random.default_rng(1).normal(size=len(X)) / 4


KINDS = ["classifier", "heteroscedastic", "homoscedastic", "quantile"]


def make_model(kind, **changed):
    settings = {"hidden_layer_sizes": (16,), "max_epochs": 5, "lr": 1e-2, "lr_schedule": "constant"}
    # No rows for validation, which the encoder would not know.
    settings |= {"n_members": 3, "early_stopping": False, "random_state": 0, **changed}
    if kind == "classifier":
        return FoRDEClassifier(**settings)
    return FoRDERegressor(noise=kind, **settings)


def fitted(kind, X=None, **changed):
    X = make_table() if X is None else X
    y = signal(X)
    return make_model(kind, **changed).fit(X, y > 0.3 if kind == "classifier" else 20 * y)


@pytest.fixture(scope="module")
def models():
    return {kind: fitted(kind) for kind in KINDS}


def odd_rows():
    """Known rows, then one for each reason, several at once, and nothing but gaps."""
    X = make_table(12, seed=2).iloc[:10].reset_index(drop=True).astype(object)
    X["size"] = X["size"].clip(-1, 1)
    X["tail"] = X["tail"].clip(0.1, 10.0)
    X["when"] = pd.Timestamp("2020-02-11 12:00")
    X.loc[2, "size"] = None
    X.loc[3, "city"] = "Paris"
    X.loc[4, "when"] = pd.Timestamp("2019-12-01")
    X.loc[5, "size"] = 1e300
    X.loc[6, "tail"] = -LARGEST
    X.loc[7, ["size", "tail"]] = [4.0, None]
    X.loc[8, ["size", "city", "flag"]] = [-1e9, None, None]
    X.loc[9] = None
    return X.astype({"size": float, "tail": float, "when": "datetime64[us]"})


N_KNOWN = 2  # of the odd rows


# ---- parts of the uncertainty


@pytest.mark.parametrize("kind", KINDS)
def test_parts_sum_to_the_total_and_none_is_negative(kind, models):
    model, rows = models[kind], odd_rows()
    for X in (rows, make_table()):
        found = model.predict_uncertainty(X)
        total = sum(getattr(found, part) for part in PARTS)
        np.testing.assert_allclose(found.total, total, rtol=1e-12, atol=0)
        assert all((part >= 0).all() for part in found)
    assert not model.predict_uncertainty(rows).support[:N_KNOWN].any()
    assert not found.support.any()  # The training rows have no such cells.
    # One variance for all rows leaves nothing that a cell would tell of it.
    support = model.predict_uncertainty(rows).support
    assert (support > 1e-12 * total.max()).any() == (kind != "homoscedastic")


POSITIVE = st.floats(0, 1e300)


@given(POSITIVE, POSITIVE, POSITIVE, st.floats(0, 1))
def test_parts_of_any_size(aleatoric, epistemic, if_known, degree):
    found = [np.array([value]) for value in (aleatoric + epistemic, aleatoric, epistemic, 0.0)]
    total, *parts = Uncertainty(*found).with_support(np.array([if_known]), np.array([degree]))
    np.testing.assert_allclose(total, sum(parts), rtol=1e-12, atol=1e-320)
    assert all((part >= 0).all() for part in parts)
    assert parts[2] <= max(aleatoric - if_known, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_total_is_that_of_the_prediction(kind, models):
    model, X = models[kind], odd_rows()
    if kind == "classifier":
        total = entropy(model.predict_proba(X), axis=1)
    else:
        total = model.predict(X, return_std=True)[1] ** 2
    np.testing.assert_allclose(model.predict_uncertainty(X).total, total, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_split_is_that_of_the_members_with_samples_in_place_of_cells(kind, models):
    """The definition, one row and one sample at a time."""
    model, X = models[kind], odd_rows()
    encoder, found = model.encoder_, model.predict_uncertainty(X)
    degree = encoder.support_checked(X).degree
    codes = encoder.transform(X)
    for row in range(N_KNOWN, len(X)):
        # A cell that is known in part is replaced by as many of the samples.
        share = degree[row, encoder.column_map_] / degree[row].max()
        is_unknown = share > (np.arange(N_SAMPLES)[:, None] + 0.5) / N_SAMPLES
        filled = np.where(is_unknown, encoder.samples_, codes[row])
        inputs = torch.from_numpy(filled)
        with torch.no_grad():
            outputs = model.fitted_.members(inputs)
        unit = getattr(model, "target_scale_", 1.0) ** 2
        known = unit * model.fitted_.likelihood.decompose(outputs).aleatoric.mean()
        own = found.aleatoric[row] + found.support[row]
        expected = degree[row].max() * np.clip(own - known, 0, own)
        np.testing.assert_allclose(found.support[row], expected, rtol=1e-4, atol=1e-6 * own)


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_hardly_beyond_its_range_adds_nothing_to_a_gap(kind, models):
    model, highest = models[kind], make_table()["size"].max()
    spread = make_table()["size"].quantile([0.25, 0.75]).diff().iloc[-1]
    X = odd_rows()[:1].assign(city=None)
    at_end, beyond = (X.assign(size=highest + d * spread) for d in (0, 1e-3))
    found, expected = model.predict_uncertainty(beyond), model.predict_uncertainty(at_end)
    assert [*model.ood_report(beyond)["column"]] == ["size", "city"]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * expected.total[0])


@pytest.mark.parametrize("kind", KINDS)
def test_identical_members_do_not_disagree(kind):
    model, X = fitted(kind, max_epochs=1), odd_rows()
    assert model.predict_uncertainty(X).epistemic.any()
    with torch.no_grad():
        for parameter in model.fitted_.members.parameters():
            parameter.copy_(parameter[:1].expand_as(parameter).clone())
    found = model.predict_uncertainty(X)
    # The routine that multiplies matrices may round each member's on its own.
    atol = 1e-12 * found.total.max()
    np.testing.assert_allclose(found.epistemic, 0, atol=atol)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_one_by_one_are_rows_at_once(kind, models):
    model, X = models[kind], odd_rows()
    parts, score = np.array(model.predict_uncertainty(X)), model.ood_score(X)
    for row in range(len(X)):
        one = X.iloc[[row]]
        alone = np.array(model.predict_uncertainty(one))[:, 0]
        np.testing.assert_allclose(alone, parts[:, row], rtol=1e-4, atol=1e-6 * parts[0, row])
        np.testing.assert_allclose(model.ood_score(one), score[[row]], rtol=1e-5)
    report = model.ood_report(X)
    order = np.arange(len(X))[::-1]
    back = model.ood_report(X.iloc[order])
    back["row"] = order[back["row"]]
    back = back.sort_values("row", kind="stable").reset_index(drop=True)
    pd.testing.assert_frame_equal(back, report)


def test_chunks_of_rows_change_nothing(models, monkeypatch):
    model, X = models["classifier"], pd.concat([odd_rows()] * 3, ignore_index=True)
    parts = model.predict_uncertainty(X)
    monkeypatch.setattr("sklearn_fordes.inference._fitted._ROWS_ENCODED_AT_ONCE", 7)
    np.testing.assert_allclose(model.predict_uncertainty(X), parts, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", ["classifier", "heteroscedastic"])
@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pd.DataFrame.to_numpy])
def test_support_is_found_in_some_rows_at_a_time(kind, make, monkeypatch):
    X = make_table().astype({"flag": int})[["size", "tail", "flag"]]
    model = make_model(kind).fit(make(X), X["size"] > 0.3)
    X[::3] = np.nan
    X.loc[1::7, "tail"] *= 1000
    found = model.predict_uncertainty(make(X)), model.ood_score(make(X)), model.ood_report(make(X))
    support, n_rows = TabularEncoder.support_checked, []
    monkeypatch.setattr("sklearn_fordes.preprocessing._reports._CELLS_AT_ONCE", 3 * 64 + 1)
    monkeypatch.setattr(
        TabularEncoder,
        "support_checked",
        lambda *args: [n_rows.append(len(args[1])), support(*args)][1],
    )
    parts = model.predict_uncertainty(make(X))
    np.testing.assert_allclose(parts, found[0], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(model.ood_score(make(X)), found[1], rtol=1e-12)
    pd.testing.assert_frame_equal(model.ood_report(make(X)), found[2])
    assert n_rows == 3 * [64, 64, 64, 8]


@pytest.mark.parametrize("kind", KINDS)
def test_new_identifiers_take_no_part_in_the_uncertainty(kind, monkeypatch):
    X = make_table().assign(name=[f"no {i}" for i in range(N_ROWS)], rare=["a", "b"] + [None] * 198)
    with pytest.warns(UserWarning, match="encoded alike"):
        model = fitted(kind, X, encoder=TabularEncoder(min_frequency=3, gap_indicators="all"))
    assert dict(zip(X, model.encoder_.is_informative_, strict=True)) == {
        **dict.fromkeys(make_table(), True),
        "name": False,
        "rare": True,
    }
    # Just beyond the range, so that the number counts by a small part.
    beyond = X.iloc[20:30].assign(size=X["size"].max() + 0.1)
    new = beyond.assign(name="new")
    parts = model.predict_uncertainty(beyond)
    np.testing.assert_array_equal(model.predict_uncertainty(new), parts)
    assert model.ood_report(new).query("reason == 'unseen'")["column"].tolist() == ["name"] * 10
    known = X.iloc[20:30].assign(name="new", rare="a")
    with monkeypatch.context() as patch:
        patch.setattr(type(model.fitted_), "aleatoric_if_known", None)
        assert not model.predict_uncertainty(known).support.any()


@pytest.mark.parametrize("method", ["predict_uncertainty", "ood_score", "ood_report"])
def test_a_table_is_checked_once(method, models, monkeypatch):
    model, X = models["classifier"], odd_rows()
    with pytest.warns(UserWarning, match="does not have valid feature names") as caught:
        getattr(model, method)(X.to_numpy())
    assert len(caught) == 1


@pytest.mark.parametrize("kind", ["classifier", "quantile"])
def test_rows_of_an_encoder_or_module_of_ones_own_have_no_support(kind):
    X = make_table()[["size", "tail"]].to_numpy(dtype=np.float32)
    y = X[:, 0] > 0.3 if kind == "classifier" else X[:, 0]
    owns = {
        "encoded by StandardScaler": {"encoder": StandardScaler()},
        "without an encoder": {"module": MLP},
    }
    for by, own in owns.items():
        model = make_model(kind, **own).fit(X, y)
        found = model.predict_uncertainty(100 * X)
        assert not found.support.any()
        np.testing.assert_array_equal(model.ood_score(100 * X), found.epistemic)
        with pytest.raises(ValueError, match=f"Got rows {by}, but expected a TabularEnc"):
            model.ood_report(X)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_pickled_models_and_single_members_know_the_same(kind, models, tmp_path):
    model, X = models[kind], odd_rows()
    model.save(tmp_path / "model.safetensors")
    for again in (load(tmp_path / "model.safetensors"), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(again.predict_uncertainty(X), model.predict_uncertainty(X))
        np.testing.assert_array_equal(again.ood_score(X), model.ood_score(X))
        pd.testing.assert_frame_equal(again.ood_report(X), model.ood_report(X))
    unit = getattr(model, "target_scale_", 1.0) ** 2
    surprise = model.encoder_.surprise_of_rows(model.encoder_.support_checked(X))
    for member in model.estimators_:
        found = member.predict_uncertainty(X)
        assert not found.epistemic.any()
        np.testing.assert_allclose(sum(found[1:]), found.total, rtol=1e-12)
        np.testing.assert_array_equal(member.ood_score(X), unit * surprise)
        pd.testing.assert_frame_equal(member.ood_report(X), model.ood_report(X))


def test_a_file_of_an_older_version_has_no_support():
    model = FoRDEClassifier.load(DATA / "classifier_1.safetensors")
    X = pd.DataFrame(
        {"size": [0.0, 1e9], "gaps": None, "flag": True, "city": "nowhere", "when": pd.NaT}
    )
    found = model.predict_uncertainty(X)
    assert not found.support.any()
    np.testing.assert_array_equal(model.ood_score(X), found.epistemic)
    assert model.ood_report(X).empty
    # Its codes are those of before: at the end of the range, not a gap.
    X["size"] = [model.encoder_.high_[0], 1e9]
    assert np.ptp(model.predict_proba(X), axis=0).max() < 1e-6


@pytest.mark.parametrize("kind", ["classifier", "heteroscedastic"])
def test_every_container_tells_the_same(kind):
    names = ["size", "tail", "city"]
    X, rows = make_table()[names], odd_rows()[names]
    objects = rows.astype(object).where(rows.notna(), None)
    expected = fitted(kind, X)
    y = expected.predict(X)
    expected.fit(X, y)
    parts, score = expected.predict_uncertainty(rows), expected.ood_score(rows)
    report = expected.ood_report(rows)
    as_polars = pl.DataFrame({name: objects[name].tolist() for name in names}, strict=False)
    for train, test in (
        (X.astype({"city": "category"}), rows.astype({"city": "category"})),
        (X, objects),
        (pl.DataFrame({name: X[name].tolist() for name in names}), as_polars),
        (X.to_numpy(dtype=object), objects.to_numpy(dtype=object)),
        (X.to_numpy(dtype=object).tolist(), objects.to_numpy(dtype=object).tolist()),
    ):
        model = make_model(kind).fit(train, y)
        np.testing.assert_array_equal(model.predict_uncertainty(test), parts)
        np.testing.assert_array_equal(model.ood_score(test), score)
        found = model.ood_report(test)
        numbers = ["row", "reason", "degree", "surprise"]
        pd.testing.assert_frame_equal(found[numbers], report[numbers])


def test_threads_that_predict_while_another_fits():
    model, X = fitted("classifier"), odd_rows()
    expected = np.array(model.predict_uncertainty(X))
    y = signal(make_table()) > 0.3
    with ThreadPoolExecutor(3) as pool:
        found = [pool.submit(model.predict_uncertainty, X) for _ in range(12)]
        model.fit(make_table(), y)
    for one in found:
        np.testing.assert_array_equal(one.result(), expected)


# ---- cells without support


def cells(X, encoder):
    """Lines of the report as (row, column): (reason, degree, surprise)."""
    report = encoder.unsupported(X)
    assert [*report] == ["row", "column", "reason", "degree", "surprise"]
    lines = report.itertuples(index=False, name=None)
    return {(row, column): rest for row, column, *rest in lines}


def test_the_report_names_rows_columns_and_reasons():
    encoder = TabularEncoder().fit(make_table())
    found = {cell: reason for cell, (reason, *_) in cells(odd_rows(), encoder).items()}
    assert found == {
        (2, "size"): "missing",
        (3, "city"): "unseen",
        (4, "when"): "below",
        (5, "size"): "above",
        (6, "tail"): "below",
        (7, "size"): "above",
        (7, "tail"): "missing",
        (8, "size"): "below",
        (8, "flag"): "missing",
        (8, "city"): "missing",
        **{(9, name): "missing" for name in make_table()},
    }
    assert encoder.unsupported(make_table()).empty
    assert [*encoder.unsupported(make_table())] == ["row", "column", "reason", "degree", "surprise"]


def test_the_degree_of_numbers():
    X = np.arange(101.0)[:, None]  # The spread is 50.
    found = TabularEncoder().fit(X).unsupported([[0.0], [100.0], [100 + 150.0], [-50.0], [np.nan]])
    assert found["row"].tolist() == [2, 3, 4]
    assert found["column"].tolist() == ["x0"] * 3
    assert found["reason"].tolist() == ["above", "below", "missing"]
    np.testing.assert_allclose(found["degree"], [9 / 18, 1 / 10, 1])
    np.testing.assert_allclose(found["surprise"], np.log(102) * found["degree"])


@given(st.floats(-LARGEST, LARGEST))
def test_the_formula_of_the_degree(d):
    found = degree_of(np.array([d]))[0]
    expected = 1.0 if abs(d) > 1e150 else d**2 / (d**2 + 9)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-320)
    assert 0 <= found <= 1


def test_long_tails_are_left_by_factors():
    X = np.exp(3 * np.random.default_rng(0).normal(size=(300, 1)))
    encoder = TabularEncoder().fit(X)
    assert encoder.is_long_tailed_.all()
    center, scale = encoder.center_, encoder.scale_
    d = np.arcsinh((1000 * X.max() - center) * scale) - np.arcsinh((X.max() - center) * scale)
    assert d[0] == pytest.approx(np.log(1000), rel=1e-3)
    (found,) = cells([[1000 * X.max()]], encoder).values()
    assert found[:2] == ["above", pytest.approx(d[0] ** 2 / (d[0] ** 2 + 9))]


def test_another_value_than_a_constant_is_unknown():
    encoder = TabularEncoder().fit(pd.DataFrame({"a": [2.5] * 30, "b": False}))
    found = encoder.unsupported(pd.DataFrame({"a": [2.5, 2.6, -LARGEST], "b": [False, True, None]}))
    assert found["reason"].tolist() == ["above", "above", "below", "missing"]
    assert (found["degree"] == 1).all()
    np.testing.assert_allclose(found["surprise"], np.log(31))


def test_dates_before_and_after():
    X = pd.DataFrame({"when": pd.date_range("2020-01-01", "2020-03-31", periods=100)})
    encoder = TabularEncoder().fit(X)
    # December is a later month than March, and the year tells nothing in training.
    dates = ["2019-12-20", "2020-02-01", "1950-02-01", "2020-12-01", "9999-12-31", None]
    found = encoder.unsupported(pd.DataFrame({"when": pd.Series(dates, dtype="M8[us]")}))
    assert found["row"].tolist() == [0, 2, 3, 4, 5]
    assert found["reason"].tolist() == ["below", "below", "above", "above", "missing"]
    far = found.set_index("row")["degree"]
    assert far[0] < far[2]
    assert far[3] < far[4]


def test_a_day_of_the_week_that_training_rows_lack():
    weekdays = pd.bdate_range("2020-01-01", periods=200)
    encoder = TabularEncoder().fit(pd.DataFrame({"when": weekdays}))
    saturday = pd.DataFrame({"when": [pd.Timestamp("2020-05-09")]})
    assert [*cells(saturday, encoder)] == [(0, "when")]


def test_levels():
    X = pd.DataFrame({"a": ["x"] * 50 + ["y"] * 40 + ["rare"] * 2 + [f"once {i}" for i in "abc"]})
    encoder = TabularEncoder().fit(X)
    assert encoder.rare_levels_ == [["once a", "once b", "once c", "rare"]]
    rows = pd.DataFrame({"a": ["x", "rare", "once b", "new", None]})
    found = cells(rows, encoder)
    # Three levels of one row each among 95 rows: about 4 / 96 of the rows to come have a new one.
    assert found == {
        (3, "a"): ["unseen", 1.0, pytest.approx(np.log(96 / 4))],
        (4, "a"): ["missing", 1.0, pytest.approx(np.log(96))],
    }


def test_equal_labels_of_several_types_are_one_level():
    X = pd.DataFrame({"a": np.array([1, "1", 1.0, True, "b"] * 10, dtype=object)})
    encoder = TabularEncoder().fit(X)
    rows = pd.DataFrame({"a": np.array([1, "1", np.float32(1), b"1", 2, "2"], dtype=object)})
    assert [*cells(rows, encoder)] == [(4, "a"), (5, "a")]
    np.testing.assert_array_equal(encoder.samples_.sum(axis=0), [13, 3])  # of 40 and 10 rows


def test_a_category_of_the_type_that_no_training_row_has_is_unseen():
    levels = ["x", "y", "unused"]
    X = pd.DataFrame({"a": pd.Categorical(["x", "y"] * 20, categories=levels)})
    encoder = TabularEncoder().fit(X)
    rows = pd.DataFrame({"a": pd.Categorical(["x", "unused", None], categories=levels)})
    assert {cell: line[0] for cell, line in cells(rows, encoder).items()} == {
        (1, "a"): "unseen",
        (2, "a"): "missing",
    }
    assert (encoder.samples_.sum(axis=0) == 8).all()


@pytest.mark.parametrize("n_names", [1000, 1001])
@pytest.mark.filterwarnings("ignore:Most values")
def test_a_new_name_tells_nothing(n_names):
    X = pd.DataFrame({"a": ["x"] * 9 + [f"n{i}" for i in range(n_names)]})
    encoder = TabularEncoder().fit(X)
    assert len(encoder.rare_levels_[0]) == (n_names if n_names <= 1000 else 0)
    support = encoder.support_checked(pd.DataFrame({"a": ["new"]}))
    assert 0 < support.surprise[0, 0] < 0.01
    assert encoder.surprise_of_rows(support) == 0.0
    is_seen_unknown = not encoder.unsupported(pd.DataFrame({"a": ["n5"]})).empty
    assert is_seen_unknown == (n_names > 1000)


@pytest.mark.filterwarnings("ignore:Most values")
def test_a_surprise_of_zero_has_no_sign():
    X = pd.DataFrame({"a": [f"n{i}" for i in range(50)]})
    ((_, _, surprise),) = cells(pd.DataFrame({"a": ["new"]}), TabularEncoder().fit(X)).values()
    assert surprise == 0
    assert not np.signbit(surprise)


def test_empty_columns_tell_nothing():
    X = pd.DataFrame({"a": np.arange(20.0), "b": None, "c": np.full(20, np.nan)})
    encoder = TabularEncoder().fit(X)
    assert encoder.kinds_.tolist() == ["number", "empty", "empty"]
    assert encoder.samples_.shape == (N_SAMPLES, 1)
    assert encoder.unsupported(
        pd.DataFrame({"a": [1.0, 2], "b": ["x", None], "c": [1, None]})
    ).empty


@pytest.mark.parametrize("kind", ["number", "category"])
def test_columns_of_which_only_other_rows_have_a_value(kind):
    whole = pd.DataFrame({"a": np.arange(40.0), "b": 20 * [None] + 20 * [5.0]})
    if kind == "category":
        whole["b"] = 20 * [None] + 20 * ["x"]
    encoder = TabularEncoder(gap_indicators="all")
    assert np.isfinite(encoder.fit_transform(whole, rows=np.arange(20))).all()
    found = cells(whole.iloc[[0, 30]], encoder)
    assert found[0, "b"] == ["missing", 1.0, 0.0]
    assert found[1, "b"][1:] == [1.0, pytest.approx(np.log(21))]
    assert np.isfinite(encoder.samples_).all()


def test_gaps_are_as_surprising_as_they_are_rare():
    X = make_table(100)[["size", "tail"]]
    X.loc[:48, "size"] = None
    encoder = TabularEncoder().fit(X)
    found = cells(pd.DataFrame({"size": [None], "tail": [None]}, dtype=float), encoder)
    assert found[0, "size"][2] == pytest.approx(np.log(101 / 50))
    assert found[0, "tail"][2] == pytest.approx(np.log(101))
    # One row in two has such a gap: it is ordinary.
    np.testing.assert_allclose(encoder.ordinary_surprise_, [np.log(101 / 50), 0])
    rows = pd.DataFrame({"size": [None, 0.0, None], "tail": [1.0, None, None]}, dtype=float)
    found = encoder.surprise_of_rows(encoder.support_checked(rows))
    np.testing.assert_allclose(found, [0, np.log(101) - np.log(101 / 50), np.log(101)])


@given(st.permutations(range(60)))
def test_the_order_of_the_training_rows_changes_nothing(order):
    X = make_table(60)
    X["rare"] = np.array(([1, "1", None, "b", float("nan")] + [f"n{i}" for i in range(7)]) * 5)
    X.loc[::7, "size"] = None
    state = encoder_state(TabularEncoder(gap_indicators="all").fit(X))
    again = encoder_state(TabularEncoder(gap_indicators="all").fit(X.iloc[order]))
    assert state.keys() == again.keys()
    for name, value in state.items():
        np.testing.assert_equal(again[name], value, err_msg=name)


@pytest.mark.parametrize("n_rows", [1, 2, 3])
@pytest.mark.filterwarnings("ignore:Most values")
def test_very_few_training_rows(n_rows):
    encoder = TabularEncoder(gap_indicators="all").fit(make_table(n_rows))
    support = encoder.support_checked(odd_rows())
    assert all(np.isfinite(part).all() for part in support)
    assert ((support.degree >= 0) & (support.degree <= 1)).all()
    assert (support.surprise >= 0).all()
    np.testing.assert_array_equal(support.degree > 0, support.reason > 0)
    assert np.isfinite(encoder.transform(odd_rows())).all()
    assert encoder.unsupported(make_table(n_rows)).empty


# ---- the score


@pytest.mark.parametrize("kind", KINDS)
def test_the_score_of_known_rows_is_the_epistemic_part(kind, models):
    for X in (make_table(), odd_rows()[:N_KNOWN]):
        found = models[kind].predict_uncertainty(X)
        np.testing.assert_array_equal(models[kind].ood_score(X), found.epistemic)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", ["gap", "far"])
def test_the_surprise_grows_with_each_unknown_cell(kind, value, models):
    model = models[kind]
    X = odd_rows()[:1]
    unit = getattr(model, "target_scale_", 1.0) ** 2
    far = {"size": 1e9, "tail": 1e300, "flag": 1e6, "city": "x", "when": pd.Timestamp("2100-01-01")}
    before = 0.0
    for name, other in far.items():
        X = X.assign(**{name: [None if value == "gap" else other]})
        surprise = model.ood_score(X)[0] - model.predict_uncertainty(X).epistemic[0]
        assert surprise > before + 5 * unit  # log(201) each
        before = surprise


def test_rows_of_no_weight_are_no_training_rows():
    X = make_table()
    X["size"] = X["size"].where(np.arange(N_ROWS) % 2 == 0, 1e6)
    weight = (np.arange(N_ROWS) % 2 == 0).astype(float)
    y = signal(X) > 0.3
    model = make_model("classifier").fit(X, y, sample_weight=weight)
    assert model.encoder_.n_samples_seen_ <= N_ROWS // 2
    assert set(model.ood_report(X).query("reason == 'above'")["row"]) >= {*range(1, N_ROWS, 2)}
    other = make_model("classifier").fit(X, y, sample_weight=3 * weight)
    np.testing.assert_array_equal(other.ood_score(X), model.ood_score(X))


def test_more_rows_by_partial_fit_leave_the_encoder_as_it_is():
    X, y = make_table(), signal(make_table()) > 0.3
    model = make_model("classifier").partial_fit(X[:100], y[:100], classes=[False, True])
    report = model.ood_report(odd_rows())
    model.partial_fit(X[100:].assign(size=1e6), y[100:])
    pd.testing.assert_frame_equal(model.ood_report(odd_rows()), report)
    found = model.predict_uncertainty(odd_rows())
    np.testing.assert_allclose(sum(found[1:]), found.total, rtol=1e-12)


def test_wide_tables():
    X = np.random.default_rng(0).normal(size=(60, 1500))
    model = make_model("classifier", max_epochs=1).fit(X, X[:, 0] > 0)
    rows = X[:3].copy()
    rows[1, ::2] = np.nan
    rows[2] = 1e300
    found, score = model.predict_uncertainty(rows), model.ood_score(rows)
    np.testing.assert_allclose(sum(found[1:]), found.total, rtol=1e-12)
    nats = np.log(model.encoder_.n_samples_seen_ + 1)
    of_gaps, ordinary = model.encoder_.ordinary_surprise_
    # Of 1,500 columns some have their largest value in nearly every row.
    assert of_gaps == 0 < ordinary < 10
    expected = [0, 750 * nats, 1500 * nats - ordinary]
    np.testing.assert_allclose(score - found.epistemic, expected, rtol=1e-6)
    assert len(model.ood_report(rows)) == 750 + 1500


# ---- numbers that fade into gaps

FINITE = st.floats(-LARGEST, LARGEST)
COLUMNS = arrays(np.float64, st.integers(1, 30), elements=FINITE | st.integers(-3, 3).map(float))


@given(COLUMNS, st.lists(FINITE, min_size=1, max_size=10))
def test_codes_of_any_numbers_are_between_those_of_the_end_and_of_a_gap(column, values):
    encoder = TabularEncoder(gap_indicators="all").fit(column[:, None])
    X = np.array([*values, LARGEST, -LARGEST, 1e308, -1e308])[:, None]
    code, support = encoder.transform(X), encoder.support_checked(X)
    degree = support.degree[:, 0]
    ends = encoder.transform(X.clip(encoder.low_, encoder.high_))
    np.testing.assert_allclose(code[:, 0], (1 - degree) * ends[:, 0], rtol=1e-6, atol=1e-40)
    np.testing.assert_allclose(code[:, 1], degree, rtol=1e-6, atol=1e-40)
    np.testing.assert_array_equal(code[degree == 0], ends[degree == 0])
    assert np.isfinite(code).all()
    np.testing.assert_array_equal(degree > 0, support.reason[:, 0] > 0)
    order = X[:, 0].argsort()
    above, below = (order[support.reason[order, 0] == reason] for reason in (4, 3))
    assert (np.diff(degree[above]) >= 0).all()
    assert (np.diff(degree[below]) <= 0).all()


@pytest.mark.parametrize("unit", [1.0, 8e306, 1e-300, 5e-324])
def test_numbers_fade_by_the_formula(unit):
    X = unit * np.arange(13.0)[:, None]
    encoder = TabularEncoder(gap_indicators="all", rank_share=0.3).fit(X)
    assert not encoder.is_long_tailed_.any()
    d = np.array([0.0, 0.5, 1.0, 1.5])  # The spread is 6 units.
    code = encoder.transform((unit * 12 + unit * 6 * d)[:, None].clip(-LARGEST, LARGEST))
    if unit < 1e-307:  # Such a column is a constant.
        d = np.array([0, 1e9, 1e9, 1e9])
    degree = d**2 / (d**2 + 9)
    np.testing.assert_allclose(code, np.stack([code[0, 0] * (1 - degree), degree], 1), rtol=1e-6)
    np.testing.assert_array_equal(code[0], encoder.transform(X)[-1])
    np.testing.assert_array_equal(encoder.transform([[np.nan]])[0], encoder.encode_gaps())


def test_only_encoders_with_all_indicators_fade():
    X = make_table()
    encoder = TabularEncoder().fit(X)
    ends = X.iloc[:1].assign(size=encoder.high_[0])
    np.testing.assert_array_equal(encoder.transform(ends.assign(size=1e9)), encoder.transform(ends))


def test_all_parts_of_a_date_fade_together():
    encoder = TabularEncoder(gap_indicators="all").fit(make_table()[["when"]])
    far = encoder.transform(pd.DataFrame({"when": [pd.Timestamp("9999-02-11")]}))[0]
    np.testing.assert_allclose(far, encoder.encode_gaps(), atol=1e-4)


# ---- what the members learn of gaps


@pytest.mark.parametrize("kind", ["classifier", "heteroscedastic", "quantile"])
def test_a_row_of_nothing_but_gaps_has_the_distribution_of_the_targets(kind):
    X = make_table(400)
    model = fitted(kind, X, max_epochs=20, augmentation=CellCorruption())
    gaps, y = odd_rows().iloc[[-1]], signal(X)
    if kind == "classifier":
        share = np.array([(y <= 0.3).mean(), (y > 0.3).mean()])
        assert entropy(share, model.predict_proba(gaps)[0]) < 0.03
    else:
        low, high = np.quantile(20 * y, [0.05, 0.95])
        found = model.predict_quantiles(gaps, [0.05, 0.95])[0]
        assert np.ptp(found) == pytest.approx(high - low, rel=0.25)
        np.testing.assert_allclose(found, [low, high], atol=0.2 * (high - low))
    assert model.predict_uncertainty(gaps).support[0] > 0


def test_a_training_row_is_judged_by_the_others():
    # Values 0 to 18 and a far one: without it the range ends at 18, and with three columns like
    # this, more than 5 % of the rows have a far value.
    column = np.r_[np.arange(19.0), 1000.0]
    X = np.stack([np.roll(column, shift) for shift in (0, 5, 10)], axis=1)
    encoder = TabularEncoder(rank_share=0.0).fit(X)
    assert encoder.is_long_tailed_.all()
    z = np.arcsinh((np.array([18.0, 1000.0]) - encoder.center_[0]) * encoder.scale_[0])
    distance = z[1] - z[0]
    surprise = distance**2 / (distance**2 + 9) * np.log(21)
    np.testing.assert_allclose(encoder.ordinary_surprise_, [0, surprise], rtol=1e-9)
    known = encoder.support_checked(X)
    assert encoder.surprise_of_rows(known).tolist() == [0] * 20


def test_extreme_values_of_several_rows_are_no_surprise():
    X = np.repeat(np.arange(5.0), 4)[:, None]
    assert TabularEncoder().fit(X).ordinary_surprise_.tolist() == [0, 0]
