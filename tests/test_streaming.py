"""Data that are read in blocks: as exact as it says, whatever their container and order are."""

import itertools
import math
import pickle
import warnings
from collections import deque
from types import GeneratorType

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import is_regressor
from skorch.callbacks import Callback

from sklearn_fordes import FoRDEClassifier, FoRDERegressor, load, streaming, training
from sklearn_fordes.estimators import _streams
from sklearn_fordes.estimators._validation import seeds_of
from sklearn_fordes.persistence import _checkpoint
from sklearn_fordes.preprocessing import TabularEncoder, row_hashes
from sklearn_fordes.streaming import _blocks

pa = pytest.importorskip("pyarrow")
ds = pytest.importorskip("pyarrow.dataset")
pq = pytest.importorskip("pyarrow.parquet")

SMALL = {"n_members": 2, "hidden_layer_sizes": (8,), "max_epochs": 2, "random_state": 0}
each_estimator = pytest.mark.parametrize("make", [FoRDEClassifier, FoRDERegressor])


def make_frame(n_rows=600, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "size": rng.normal(size=n_rows),
            "city": rng.choice(["Oslo", "Bergen", "Bodø"], n_rows),
            "age": np.where(rng.random(n_rows) < 0.1, np.nan, rng.integers(1, 90, n_rows)),
        }
    )
    frame["amount"] = 3 * frame["size"] + rng.normal(size=n_rows)
    frame["kind"] = np.where(frame["amount"] + (frame["city"] == "Oslo") > 0, "yes", "no")
    return frame


def make_numbers(n_rows=600, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, 3))
    return np.column_stack([X, X[:, 0] + rng.normal(size=n_rows) > 0])


def target_of(make):
    return "amount" if make is FoRDERegressor else "kind"


def table_for(make, frame):
    return frame.drop(columns="kind" if make is FoRDERegressor else "amount")


def written(frame, folder, rows_of_a_group=None, n_files=1):
    for number, part in enumerate(np.array_split(np.arange(len(frame)), n_files)):
        table = pa.Table.from_pandas(frame.iloc[part], preserve_index=False)
        pq.write_table(
            table, folder / f"{number}.parquet", row_group_size=rows_of_a_group or len(table)
        )
    return ds.dataset(folder)


def pairs_of(frame, target, rows):
    X, y = frame.drop(columns=target), frame[target]
    return [
        (X.iloc[i : i + rows].reset_index(drop=True), y.iloc[i : i + rows].to_numpy())
        for i in range(0, len(frame), rows)
    ]


def weights_of(model):
    return {name: value.numpy() for name, value in model.fitted_.members.state_dict().items()}


def expect_same(model, other):
    first, second = weights_of(model), weights_of(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])


def expect_all_same(models):
    first, *others = models
    for other in others:
        expect_same(first, other)


def summary_of(source, y=None, make=FoRDEClassifier, share=0.1, seed=3, **parameters):
    model = make(**parameters)
    stream = _streams.Stream(model, streaming.opened(source, y), seed, 0)
    return stream.summarize(share)


@pytest.fixture
def _short_blocks(monkeypatch):
    monkeypatch.setattr(_blocks, "_ROWS_OF_A_BLOCK", 100)


# ---- sources


@each_estimator
def test_all_sources_of_one_part_give_one_model(make, tmp_path):
    frame, target = table_for(make, make_frame()), target_of(make)
    pairs = pairs_of(frame, target, len(frame))
    sources = [
        (written(frame, tmp_path), target),
        (ds.dataset(pa.Table.from_pandas(frame, preserve_index=False)), target),
        (written(frame, tmp_path).filter(ds.field("size") < 1e9), target),
        (pairs, None),
        (lambda: iter(pairs), None),
    ]
    pl = pytest.importorskip("polars")
    if hasattr(pl.LazyFrame, "collect_batches"):
        sources.append((pl.scan_parquet(tmp_path / "0.parquet"), target))
    models = [make(**SMALL).fit(source, y) for source, y in sources]
    expect_all_same(models)
    assert [*models[0].feature_names_in_] == ["size", "city", "age"]


@pytest.mark.usefixtures("_short_blocks")
def test_queries_are_read_in_blocks_of_one_length():
    duckdb = pytest.importorskip("duckdb")
    frame = make_frame(750).drop(columns="amount")
    connection = duckdb.connect()
    query = connection.sql("select * from frame")
    pairs = pairs_of(frame, "kind", 100)
    sources = [(query, "kind"), (lambda: iter(pairs), None)]
    sources.append((ds.dataset(pa.table(frame)).filter(ds.field("size") < 1e9), "kind"))
    pl = pytest.importorskip("polars")
    if hasattr(pl.LazyFrame, "collect_batches"):
        sources.append((pl.from_pandas(frame).lazy(), "kind"))
    settings = {**SMALL, "iterator_train__rows_per_epoch": 300}
    models = [FoRDEClassifier(**settings).fit(source, y) for source, y in sources]
    expect_all_same(models)
    # A connection has one open result only, which a fit leaves to others.
    assert connection.sql("select count(*) from frame").fetchall() == [(750,)]


@pytest.mark.parametrize("kind", ["feather", "csv", "partitions", "union"])
def test_files_of_all_formats_are_read(tmp_path, kind):
    frame = table_for(FoRDEClassifier, make_frame(300))
    table, folder = pa.Table.from_pandas(frame, preserve_index=False), tmp_path / "files"
    if kind == "partitions":
        city = ds.partitioning(pa.schema([("city", pa.string())]), flavor="hive")
        ds.write_dataset(table, folder, format="parquet", partitioning=city)
        source = ds.dataset(folder, partitioning="hive")
    else:
        written_as = "feather" if kind == "union" else kind
        ds.write_dataset(table, folder, format=written_as)
        source = ds.dataset(folder, format=written_as)
        source = ds.dataset([source, source]) if kind == "union" else source
    model = FoRDEClassifier(**SMALL, early_stopping=False).fit(source, "kind")
    assert model.encoder_.n_samples_seen_ == (600 if kind == "union" else 300)
    kinds = dict(zip(model.feature_names_in_, model.encoder_.kinds_, strict=True))
    assert kinds == {"size": "number", "city": "category", "age": "number"}


def test_blocks_have_categories_and_types_of_their_own():
    frame = table_for(FoRDEClassifier, make_frame(300)).assign(level=np.arange(300) % 7)
    pairs = [
        (X.assign(level=X["level"].astype("category").cat.remove_categories([i])), y)
        for i, (X, y) in enumerate(pairs_of(frame, "kind", 100))
    ]
    assert FoRDEClassifier(**SMALL).fit(pairs).encoder_.kinds_.tolist()[-1] == "category"
    pl = pytest.importorskip("polars")
    polars = [(pl.from_pandas(X), y) for X, y in pairs_of(frame, "kind", 100)]
    expect_same(
        FoRDEClassifier(**SMALL).fit(polars),
        FoRDEClassifier(**SMALL).fit(pairs_of(frame, "kind", 100)),
    )


def test_a_value_that_can_not_be_read_is_an_error_that_names_its_column():
    X, y = pd.DataFrame({"a": np.arange(500.0)}), np.arange(500) % 2
    bad = pd.DataFrame({"a": [*map(float, range(499)), "oops"]}, dtype=object)
    model = FoRDEClassifier(**SMALL, iterator_train__sample_rows=20, early_stopping=False)
    with pytest.raises(ValueError, match="Got 'oops' in column 'a', but expected finite numbers"):
        model.fit([(X, y), (bad, y)])


@pytest.mark.usefixtures("_short_blocks")
def test_sources_with_random_access_give_one_model(tmp_path):
    numbers = make_numbers(750)
    mapped = np.memmap(tmp_path / "numbers", dtype=float, mode="w+", shape=numbers.shape)
    mapped[:] = numbers
    frame = pd.DataFrame(numbers, columns=["a", "b", "c", "y"])
    folder = tmp_path / "parquet"
    folder.mkdir()
    pairs = [(X.to_numpy(), y) for X, y in pairs_of(frame, "y", 100)]
    settings = {**SMALL, "iterator_train__rows_per_epoch": 300}
    models = [
        FoRDEClassifier(**settings).fit(source, y)
        for source, y in [(mapped, -1), (written(frame, folder, 100), "y"), (pairs, None)]
    ]
    expect_all_same(models)


@pytest.mark.usefixtures("_short_blocks")
def test_no_order_of_blocks_changes_what_a_pass_learns():
    frame = table_for(FoRDEClassifier, make_frame(950))
    numbers = table_for(FoRDERegressor, make_frame(950))
    for make, table in ((FoRDEClassifier, frame), (FoRDERegressor, numbers)):
        pairs = pairs_of(table, target_of(make), 100)
        order = np.random.default_rng(0).permutation(len(pairs))
        settings = {"make": make, "iterator_train__sample_rows": 200}
        first = summary_of(pairs, **settings)
        second = summary_of([pairs[i] for i in order], **settings)
        assert (first.n_rows, first.counts) == (second.n_rows, second.counts) != (0, {})
        assert first.targets == second.targets
        for kept in ("sample", "held_out"):
            one, other = getattr(first, kept), getattr(second, kept)
            assert one.threshold == other.threshold
            tables = (kept.rows().X.reset_index(drop=True) for kept in (one, other))
            pd.testing.assert_frame_equal(*tables)
            np.testing.assert_array_equal(one.rows().y, other.rows().y)


@pytest.mark.usefixtures("_short_blocks")
@pytest.mark.parametrize("is_random", [True, False])
def test_shards_are_disjoint_and_merge_to_the_whole(tmp_path, is_random):
    frame = table_for(FoRDEClassifier, make_frame(950))
    source, y = written(frame, tmp_path, 100, n_files=2), "kind"
    if not is_random:
        pairs = pairs_of(frame, "kind", 100)
        source, y = (lambda: iter(pairs)), None
    blocks = streaming.opened(source, y)
    whole, *parts = (
        _streams.Stream(FoRDEClassifier(iterator_train__sample_rows=200), part, 3, 0).summarize(0.1)
        for part in [blocks, *(blocks.shard(i, 3) for i in range(3))]
    )
    assert sum(part.n_rows for part in parts) == whole.n_rows == 950
    merged = parts[2].merge(parts[0]).merge(parts[1])
    assert merged.parts == whole.parts
    assert merged.targets == whole.targets
    for kept in ("sample", "held_out"):
        one, other = getattr(whole, kept), getattr(merged, kept)
        assert one.threshold == other.threshold
        np.testing.assert_array_equal(one.rows().hashes, other.rows().hashes)
    shard = blocks.shard(1, 2).shard(0, 2)
    assert {block.part for block in shard.read()} == {1, 5, 9}
    assert (shard.parts is None) != is_random
    with pytest.raises(ValueError, match="of the same parts, but expected"):
        whole.merge(parts[0])
    with pytest.raises(ValueError, match="Got shard 3 of 3, but expected"):
        blocks.shard(3, 3)


@pytest.mark.usefixtures("_short_blocks")
def test_shards_train_on_all_rows_in_as_many_batches(tmp_path):
    frame = table_for(FoRDEClassifier, make_frame(1150)).drop(columns=["city", "age"])
    source = written(frame, tmp_path, 100)
    blocks = streaming.opened(source, "kind")
    model = FoRDEClassifier(**SMALL, augmentation=None).fit(source, "kind")
    streams = [_streams.Stream(model, blocks.shard(i, 2), 3, 0) for i in range(2)]
    first, second = (stream.summarize(0.1) for stream in streams)
    summary, seen, shapes = first.merge(second), [], []
    held_out = summary.held_out.rows()
    for stream in streams:
        stream.learn(summary, held_out)
        sample = training.DeviceDataset(np.zeros((2, 1)), [0, 1])
        dataset = stream.dataset(model.fitted_, sample)
        batches = [*training.BatchIterator(dataset, 32, shuffle=True, rows_per_epoch=10**6)]
        shapes.append([tuple(inputs["X"].shape) for inputs, _ in batches])
        seen += torch.cat([inputs["X"] for inputs, _ in batches])[:, 0].tolist()
    assert shapes[0] == shapes[1]
    expected = model.encoder_.transform(frame[["size"]])[:, 0].tolist()
    left_out = model.encoder_.transform(held_out.X)[:, 0].tolist()
    assert set(seen) == set(expected) - set(left_out)
    assert len(left_out) > 50


def test_a_hash_knows_equal_rows_in_every_container():
    frame = make_frame(50).drop(columns=["amount", "kind"])
    expected = row_hashes(frame)
    pl = pytest.importorskip("polars")
    for table in (pa.Table.from_pandas(frame), pl.from_pandas(frame), frame.astype(object)[:0]):
        if len(table):
            np.testing.assert_array_equal(row_hashes(table), expected)
    assert len(np.unique(expected)) == 50
    numbers = np.array([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0]])
    first, second, third = row_hashes(numbers)
    assert first == second != third
    np.testing.assert_array_equal(row_hashes(numbers.astype(np.int8)), row_hashes(numbers))
    assert (row_hashes(numbers, np.arange(3)) != row_hashes(numbers)).all()


# ---- what is exact, and what is a sample


@each_estimator
@pytest.mark.parametrize("augmentation", ["auto", None])
def test_a_streamed_fit_is_the_fit_in_memory_given_the_order_of_rows(
    make, augmentation, tmp_path, monkeypatch
):
    frame, target = table_for(make, make_frame(900)), target_of(make)
    source = written(frame, tmp_path, 300)
    settings = {**SMALL, "early_stopping": False, "augmentation": augmentation}
    settings |= {"max_epochs": 3, "lengthscale": 0.5}
    epochs, batches_of = [], training.StreamDataset.batches

    def noting(self, iterator, rng):
        epochs.append(batches := [*batches_of(self, iterator, rng)])
        yield from ((dict(inputs), y) for inputs, y in batches)

    monkeypatch.setattr(training.StreamDataset, "batches", noting)
    streamed = make(**settings).fit(source, target)
    sample = summary_of(source, target, make, 0.0, seeds_of(0)[0]).sample.rows()
    X = sample.X.to_pandas()
    codes = {row.tobytes(): i for i, row in enumerate(streamed.encoder_.transform(X))}
    assert len(codes) == len(frame)

    def in_this_order(self, iterator, rng):
        for inputs, _ in epochs.pop(0):
            yield self[torch.tensor([codes[row.numpy().tobytes()] for row in inputs["X"]])]

    noted = len(epochs)
    monkeypatch.setattr(training.DeviceDataset, "batches", in_this_order)
    model = make(**settings)
    if make is FoRDERegressor:  # Means of two orders differ in the last digit.
        learn = FoRDERegressor._encode

        def encode(self, data):
            self.target_mean_, self.target_scale_ = streamed.target_mean_, streamed.target_scale_
            return learn(self, data)

        monkeypatch.setattr(FoRDERegressor, "_encode", encode)
    model.fit(X, sample.y)
    assert not epochs
    assert noted == 3
    expect_same(model, streamed)
    assert [e["train_loss"] for e in model.history_] == [e["train_loss"] for e in streamed.history_]


def test_statistics_of_a_sample_lie_within_the_stated_error(tmp_path):
    n_rows, n_kept, level = 20_000, 1000, 1e-3
    rng = np.random.default_rng(0)
    columns = [rng.normal(size=n_rows), rng.exponential(size=n_rows) ** 3]
    columns += [np.repeat(np.arange(200.0), 100), np.sort(rng.random(n_rows))]
    frame = pd.DataFrame(dict(zip("abcd", columns, strict=True)))
    frame["y"] = rng.normal(5.0, 2.0, n_rows)
    source = written(frame, tmp_path, 1500)
    bound = math.sqrt(math.log(2 / level) / (2 * 0.85 * n_kept))
    for seed in range(3):
        rows = summary_of(
            source, "y", FoRDERegressor, seed=seed, iterator_train__sample_rows=n_kept
        )
        sample = rows.sample.rows().X.to_pandas()
        assert 0.9 * n_kept < len(sample) <= n_kept
        for name in "abcd":
            points = np.unique(sample[name])
            shares = [
                np.searchsorted(np.sort(values), points, side="right") / len(values)
                for values in (sample[name].to_numpy(), frame[name].to_numpy())
            ]
            assert np.abs(shares[0] - shares[1]).max() < bound
    model = FoRDERegressor(**SMALL, iterator_train__sample_rows=n_kept).fit(source, "y")
    rank = (frame["a"] <= model.encoder_.center_[0]).mean()
    assert abs(rank - 0.5) < bound
    assert model.target_mean_ == pytest.approx(math.fsum(frame["y"]) / n_rows, rel=1e-14)
    assert model.target_scale_ == pytest.approx(frame["y"].std(ddof=0), rel=1e-12)
    assert model.encoder_.n_samples_seen_ < n_kept


def test_rows_that_are_all_equal_are_sampled_one_by_one():
    # A hash of the row alone would keep all copies of a row or none.
    X = np.repeat(np.arange(10.0), 2000)[:, None]
    y = np.tile([0, 1], 10_000)
    order = np.random.default_rng(0).permutation(20_000)
    pairs = [(X[part], y[part]) for part in np.array_split(order, 7)]
    summary = summary_of(pairs, iterator_train__sample_rows=1000)
    found = np.bincount(summary.sample.rows().X[:, 0].astype(int), minlength=10)
    assert (abs(found - 100) < 40).all()


def test_held_out_rows_are_few_and_equal_rows_are_on_one_side():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 40, size=(4000, 2)).astype(float)
    y = (X[:, 0] > 20).astype(int)
    pairs = [(X[i::4], y[i::4]) for i in range(4)]
    summary = summary_of(pairs, iterator_train__sample_rows=100)
    held_out = summary.held_out.rows()
    assert 30 < len(held_out.y) <= 50
    rows = {tuple(row) for row in held_out.X}
    assert len(held_out.y) == sum(tuple(row) in rows for row in X)
    model = FoRDEClassifier(**SMALL, iterator_train__sample_rows=100)
    seen = []

    class Sees(Callback):
        def on_batch_begin(self, net, batch=None, training=False, **kwargs):
            if training:
                seen.append(batch[0].get("rows", batch[0]["X"]))

    model.set_params(callbacks=[Sees()], augmentation=None).fit(pairs)
    summary = summary_of(pairs, seed=seeds_of(0)[0], iterator_train__sample_rows=100)
    held_out = model.encoder_.transform(summary.held_out.rows().X)
    trained = {row.tobytes() for row in torch.cat(seen).numpy()}
    assert trained.isdisjoint(row.tobytes() for row in held_out)


def test_each_row_comes_once_in_a_pass(tmp_path):
    frame = pd.DataFrame({"x": np.arange(1000.0), "y": np.arange(1000) % 2})
    source = written(frame, tmp_path, 60)
    settings = {"augmentation": None, "early_stopping": False, "batch_size": 16, "max_epochs": 6}
    settings |= {"iterator_train__rows_per_epoch": 350, "iterator_train__buffer_rows": 48}
    seen = []

    class Sees(Callback):
        def on_batch_begin(self, net, batch=None, **kwargs):
            seen.append((len(net.history), batch[0]["X"][:, 0].tolist()))

    model = FoRDEClassifier(**{**SMALL, **settings}, callbacks=[Sees()]).fit(source, "y")
    assert {len(rows) for _, rows in seen} == {16}
    codes = model.encoder_.transform(frame[["x"]])[:, 0].tolist()
    epochs = [
        [row for number, rows in seen if number == epoch for row in rows] for epoch in range(1, 7)
    ]
    # Three epochs of a pass have 333 or 334 rows, and two or three of them twice.
    for number in (0, 3):
        of_pass = [rows[: 333 + (k == 2)] for k, rows in enumerate(epochs[number : number + 3])]
        assert sorted(itertools.chain(*of_pass)) == sorted(codes)
    assert epochs[0] != epochs[3]
    # Even 48 rows of a sorted table come from several parts.
    places = np.searchsorted(codes, epochs[0][:48])
    assert len(np.unique(places // 60)) >= 6


# ---- what goes on as in memory


class Fault(Exception):
    """What breaks a fit off."""


class BreakOff(Callback):
    at = None

    def on_batch_begin(self, net, **kwargs):
        if self.at == len(net.history):
            raise Fault


@pytest.mark.usefixtures("_short_blocks")
@pytest.mark.parametrize("is_random", [True, False])
def test_a_fit_that_is_broken_off_goes_on(tmp_path, monkeypatch, is_random):
    monkeypatch.setattr(_checkpoint, "_SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(_checkpoint, "_LARGEST_SHARE", math.inf)
    frame = table_for(FoRDEClassifier, make_frame(950))
    folder = tmp_path / "parquet"
    folder.mkdir()
    source, y = written(frame, folder, 100), "kind"
    if not is_random:
        pairs = pairs_of(frame, "kind", 100)
        source, y = (lambda: iter(pairs)), None
    settings = {**SMALL, "max_epochs": 7, "iterator_train__rows_per_epoch": 200}
    settings |= {"callbacks": [BreakOff()]}
    expected = FoRDEClassifier(**settings).fit(source, y)
    settings["checkpoint_dir"] = tmp_path / "checkpoints"
    for epoch in (3, 6):
        monkeypatch.setattr(BreakOff, "at", epoch)
        with pytest.raises(Fault):
            FoRDEClassifier(**settings).fit(source, y)
    monkeypatch.setattr(BreakOff, "at", None)
    model = FoRDEClassifier(**settings).fit(source, y)
    expect_same(model, expected)
    known = [*settings["checkpoint_dir"].iterdir()]
    # Rows of another source have a checkpoint of their own.
    other = pairs_of(frame.iloc[::-1].reset_index(drop=True), "kind", 100)
    FoRDEClassifier(**settings).fit(other)
    assert len([*settings["checkpoint_dir"].iterdir()]) == len(known) + 1


def test_weights_of_rows_and_classes(tmp_path):
    frame = make_frame(900).drop(columns="amount")
    frame["weight"] = np.random.default_rng(1).integers(0, 4, len(frame)) / 2
    source = written(frame, tmp_path, 200)
    seen = []

    class Sees(Callback):
        def on_batch_begin(self, net, batch=None, training=False, **kwargs):
            if training:
                seen.append((batch[1], batch[0]["sample_weight"]))

    settings = {**SMALL, "max_epochs": 1, "batch_size": 32, "early_stopping": False}
    settings |= {"callbacks": [Sees()], "class_weight": "balanced"}
    model = FoRDEClassifier(**settings).fit(source, "kind", sample_weight="weight")
    y, weight = (torch.cat(parts).numpy() for parts in zip(*seen, strict=True))
    n_rows = int((frame["weight"] > 0).sum())
    assert model.encoder_.n_samples_seen_ == n_rows
    y, weight = y[:n_rows], weight[:n_rows]
    assert weight.mean() == pytest.approx(1.0, rel=1e-6)
    assert weight[y == 0].sum() == pytest.approx(weight[y == 1].sum(), rel=1e-5)
    left_out = FoRDEClassifier(**SMALL, class_weight={"no": 0.0, "yes": 1.0})
    with pytest.raises(ValueError, match=r"Got one class only, \['yes'\]"):
        left_out.fit(source, "kind", sample_weight="weight")


def test_weighted_moments_are_exact(tmp_path):
    frame = make_frame(900).drop(columns="kind")
    frame["weight"] = np.random.default_rng(1).random(len(frame))
    model = FoRDERegressor(**SMALL).fit(written(frame, tmp_path, 200), "amount", "weight")
    mean = np.average(frame["amount"], weights=frame["weight"])
    variance = np.average((frame["amount"] - mean) ** 2, weights=frame["weight"])
    assert model.target_mean_ == pytest.approx(mean, rel=1e-12)
    assert model.target_scale_ == pytest.approx(variance**0.5, rel=1e-12)


def test_warm_starts_deadlines_and_files(tmp_path, capsys):
    frame = table_for(FoRDEClassifier, make_frame(900))
    source = written(frame, tmp_path, 100)
    settings = {**SMALL, "warm_start": True, "verbose": 1, "early_stopping": False}
    settings["iterator_train__rows_per_epoch"] = 300
    model = FoRDEClassifier(**settings).fit(source, "kind").fit(source, "kind")
    assert len(model.history_) == 4
    assert "first pass: 900 rows" in capsys.readouterr().err
    for other in (pickle.loads(pickle.dumps(model)), _saved(model, tmp_path / "model")):
        X = frame.drop(columns="kind")
        np.testing.assert_array_equal(other.predict_proba(X), model.predict_proba(X))
    assert model.partial_fit(X, frame["kind"]).n_iter_ == 5
    late = FoRDEClassifier(**{**SMALL, "max_epochs": 500, "max_time": 0.01})
    with pytest.warns(UserWarning, match="ended by max_time"):
        late.fit(source, "kind")


def _saved(model, path):
    model.save(path)
    return load(path)


def test_rows_to_validate_on_and_rows_of_modules_and_encoders(tmp_path):
    frame = make_frame(400).drop(columns=["city", "age"])
    source = written(frame.drop(columns="amount"), tmp_path, 100)
    rest = make_frame(100, seed=1)[["size", "kind"]]
    given = FoRDEClassifier(**SMALL).fit(source, "kind", X_val=rest, y_val="kind")
    assert given.encoder_.n_samples_seen_ == 400
    assert "valid_loss" in given.history_[0]

    def module(n_features, n_outputs):
        return torch.nn.Linear(n_features, n_outputs)

    own = FoRDEClassifier(**{**SMALL, "module": module}).fit(source, "kind")
    assert own.feature_names_in_.tolist() == ["size"]
    found = np.concatenate([*own.predict_proba(source)])
    assert found.shape == (400, 2)
    batches = own.predict_proba(source.to_batches(columns=["size"]))
    np.testing.assert_array_equal(np.concatenate([*batches]), found)
    encoder = FoRDEClassifier(**SMALL, encoder=TabularEncoder()).fit(source, "kind")
    assert np.concatenate([*encoder.predict(source)]).shape == (400,)
    images = np.random.default_rng(0).normal(size=(60, 2, 3))
    flat = lambda n_outputs: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, n_outputs))  # noqa: E731
    pairs = [(images[:30], np.arange(30) % 2), (images[30:], np.arange(30) % 2)]
    assert FoRDEClassifier(**{**SMALL, "module": flat}).fit(pairs).n_iter_ == 2


# ---- predictions


@pytest.mark.usefixtures("_short_blocks")
@each_estimator
def test_predictions_of_a_source_are_those_of_its_blocks(make, tmp_path):
    frame, target = table_for(make, make_frame(450)), target_of(make)
    source = written(frame, tmp_path)
    model = make(**SMALL).fit(source, target)
    X = frame.drop(columns=target)
    methods = ["predict", "predict_uncertainty", "ood_score"]
    if is_regressor(model):
        methods += ["predict_members", "predict_interval"]
    else:
        methods += ["predict_proba", "predict_log_proba", "predict_proba_members"]
        methods += ["decision_function"]
    for name in methods:
        method = getattr(model, name)
        found = method(source)
        assert isinstance(found, GeneratorType)
        for start, block in zip(range(0, 450, 100), found, strict=True):
            expected = method(X.iloc[start : start + 100])
            np.testing.assert_array_equal(np.asarray(block), np.asarray(expected))
    if is_regressor(model):
        mean, std = next(model.predict(source, return_std=True))
        assert mean.shape == std.shape == (100,)
    pairs = pairs_of(frame, target, 100)
    reader = pa.RecordBatchReader.from_batches(source.schema, source.to_batches())
    for other in (pairs, iter(pairs), iter([X]), lambda: iter([X]), reader):
        found = np.concatenate([*model.predict(other)])
        np.testing.assert_array_equal(found, model.predict(X))
    assert isinstance(model.predict(X), np.ndarray)


@pytest.mark.parametrize("settings", [{}, {"encoder": None}], ids=str)
def test_the_index_of_a_frame_is_no_feature(tmp_path, settings):
    names = ["size", "amount"]
    frame = make_frame(300)[[*names, "kind"]].sample(frac=1, random_state=0)
    table = pa.Table.from_pandas(frame)
    assert "__index_level_0__" in table.column_names
    pq.write_table(table, tmp_path / "a.parquet")
    for rows in (table, ds.dataset(tmp_path / "a.parquet")):
        model = FoRDEClassifier(**SMALL, **settings).fit(rows, "kind")
        assert model.feature_names_in_.tolist() == names
        found = np.concatenate([*model.predict(ds.dataset(tmp_path / "a.parquet"))])
        np.testing.assert_array_equal(found, model.predict(frame[names]))


def test_tables_in_memory_stay_so(tmp_path):
    pl = pytest.importorskip("polars")
    frame = make_frame(300).drop(columns="amount")
    X, y = frame.drop(columns="kind"), frame["kind"]
    expected = FoRDEClassifier(**SMALL).fit(X, y)
    named = [frame, pl.from_pandas(frame), pa.Table.from_pandas(frame)]
    named.append(pa.RecordBatch.from_pandas(frame))
    expect_all_same([expected, *(FoRDEClassifier(**SMALL).fit(table, "kind") for table in named)])
    for table in (pl.from_pandas(X), pa.Table.from_pandas(X), pa.RecordBatch.from_pandas(X)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # No container loses the names of columns.
            found = expected.predict_proba(table)
        np.testing.assert_array_equal(found, expected.predict_proba(X))
    weighted = frame.assign(weight=np.arange(len(frame)) % 3)
    expect_same(
        FoRDEClassifier(**SMALL).fit(weighted, "kind", "weight"),
        FoRDEClassifier(**SMALL).fit(X, y, weighted["weight"].to_numpy()),
    )
    numbers = make_numbers(300)
    mapped = np.memmap(tmp_path / "numbers", dtype=float, mode="w+", shape=numbers.shape)
    mapped[:] = numbers
    ordinary = FoRDEClassifier(**SMALL).fit(mapped[:, :-1], mapped[:, -1])
    expect_same(ordinary, FoRDEClassifier(**SMALL).fit(numbers[:, :-1], numbers[:, -1]))
    assert isinstance(ordinary.predict(mapped[:, :-1]), np.ndarray)


# ---- what is refused


def _classes(*labels):
    return [(np.zeros((len(labels), 1)), np.array(labels, dtype=object))]


FRAME = make_frame(100).drop(columns="amount")
TABLE = pa.Table.from_pandas(FRAME, preserve_index=False)
DATA = ds.dataset(TABLE)
PAIR = (np.eye(4), np.array([0, 1, 0, 1]))
BAD = {
    "no such column": ((DATA, "kinds"), "Got 'kinds' as the name of a column, but expected one of"),
    "no name": ((DATA,), "Got y=None with the dataset, but expected the name of a column"),
    "an array": ((DATA, np.zeros(100)), "Got y=a ndarray with the dataset, but expected the name"),
    "an index": ((DATA, 3), "Got y=3 with the dataset, but expected the name of a column"),
    "no such index": ((np.eye(3), 3), r"Got 3 as a column of an array of shape \(3, 3\)"),
    "one axis": ((np.zeros(3), 0), r"Got X of shape \(3,\) with the index of a column as y"),
    "a name of an array": ((np.eye(3), "kind"), "Got 'kind' as the name of a column of a ndarray"),
    "no such name": ((FRAME, "kinds"), "Got 'kinds' as the name of a column, but expected one of"),
    "weights": ((DATA, "kind", np.ones(100)), "Got sample_weight=a ndarray with the dataset"),
    "no such weight": ((DATA, "kind", "w"), "Got 'w' as the name of a column, but expected"),
    "text as weight": ((DATA, "kind", "city"), "block 0 of the dataset that can't be used"),
    "one column": ((ds.dataset(TABLE.select(["kind"])), "kind"), "but expected some beside them"),
    "no row": ((ds.dataset(TABLE[:0]), "kind"), "Got the dataset without a row of positive weight"),
    "no block": ((lambda: iter([]),), "Got the function without a row of positive weight"),
    "one class": ((_classes("a", "a"),), r"Got one class only, \['a'\], but expected"),
    "a missing label": ((_classes("a", None),), "block 0 of the list .* 1 missing labels, the fir"),
    "mixed labels": ((_classes("a", 1, "a"),), "labels that can't be sorted"),
    "numbers as classes": (([(np.eye(3), np.array([0.5, 0.1, 3.2]))],), "block 0 .* continuous"),
    "targets of another length": (([PAIR, (np.eye(4), np.zeros(3))],), "Got block 1 of the li"),
    "other columns": (
        ([PAIR, (np.eye(4)[:, :3], PAIR[1])],),
        r"Got block 1 of the list with rows of shape \(3,\), but expected rows of shape \(4,\)",
    ),
    "no table": ((lambda: iter([(3, [0])]),), "Got block 0 of the function that is no table"),
    "no pairs": ((lambda: iter([np.eye(3)]),), r"but expected pairs \(X_block, y_block\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_by_name(name):
    arguments, message = BAD[name]
    model = FoRDEClassifier(**SMALL)
    with pytest.raises(ValueError, match=message):
        model.fit(*arguments)
    assert not hasattr(model, "classes_")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_targets_that_are_no_numbers_are_refused(value):
    y = np.array([0.0, 1.0, value, 2.0])
    with pytest.raises(ValueError, match="block 0 of the list that can't be used: Input y"):
        FoRDERegressor(**SMALL).fit([(np.eye(4), y)])


def test_settings_without_meaning_are_refused():
    from sklearn.model_selection import KFold

    cases = [
        ({"validation_fraction": KFold(2)}, {}, "which no splitter sees as a whole"),
        ({}, {"groups": np.zeros(100)}, "Got groups with the dataset, but expected none"),
        ({"iterator_train__rows_per_epoch": 0}, {}, "rows_per_epoch=0, but expected an integer"),
        ({"iterator_train__buffer_rows": 1.5}, {}, "buffer_rows=1.5, but expected an integer"),
        ({"iterator_train__shuffle": False}, {}, "Got iterator_train__shuffle=False with the data"),
    ]
    for parameters, arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            FoRDEClassifier(**SMALL, **parameters).fit(DATA, "kind", **arguments)


@pytest.mark.parametrize("source", [DATA, [PAIR]], ids=["dataset", "pairs"])
def test_partial_fit_takes_tables_alone(source):
    with pytest.raises(ValueError, match="in partial_fit, but expected a table: fit reads sources"):
        FoRDEClassifier(**SMALL).partial_fit(source, "kind", classes=["a", "b"])


def test_what_can_be_read_only_once_is_refused():
    reader = pa.RecordBatchReader.from_batches(TABLE.schema, TABLE.to_batches())
    with pytest.raises(TypeError, match="Got a generator, which can be read only once, but expec"):
        FoRDEClassifier(**SMALL).fit(pair for pair in [PAIR])
    with pytest.raises(TypeError, match="Got a RecordBatchReader, which can be read only once"):
        FoRDEClassifier(**SMALL).fit(reader, "kind")
    once = iter([(np.eye(4), np.array([0, 1, 0, 1]))])
    with pytest.raises(ValueError, match="Got a source that ends earlier than in the first pass"):
        FoRDEClassifier(**SMALL, early_stopping=False).fit(lambda: once)


def test_a_table_of_equal_rows_has_none_to_validate_on():
    X, y = np.zeros((400, 1)), np.arange(400) % 2
    with pytest.warns(UserWarning, match="Got 400 rows of which none is held out"):
        FoRDEClassifier(**SMALL, iterator_train__sample_rows=300, validation_fraction=1e-9).fit(
            [(X, y)]
        )


@pytest.mark.parametrize("X", [range(4), {1, 2}, len, deque([[0.0, 1.0]]), "text", b"bytes"])
def test_what_is_no_source_is_no_stream(X):
    assert not streaming.is_stream(X)
    assert streaming.opened(X, "y") is None


def test_sources_where_tables_belong_are_named(tmp_path):
    frame = make_frame(200)
    source = written(frame, tmp_path, 100)
    target = target_of(FoRDEClassifier)
    for name in ("X_val", "X_repulsion"):
        given = {name: source} | ({"y_val": target} if name == "X_val" else {})
        with pytest.raises(ValueError, match=f"as {name}, which is read in blocks, but expected"):
            FoRDEClassifier(**SMALL).fit(source, target, **given)
    with pytest.raises(ValueError, match="as y and as sample_weight, but expected two columns"):
        FoRDEClassifier(**SMALL).fit(source, target, target)


def test_text_with_gaps_comes_in_several_chunks(tmp_path):
    frame = make_frame(300)
    text = pd.Series(["a", "b", None] * 100)
    table = pa.table({"text": text, "x": frame["size"]})
    y = np.arange(300) % 2
    chunked = pa.concat_tables([table.slice(0, 100), table.slice(100)])
    one = FoRDEClassifier(**SMALL).fit(table, y)
    other = FoRDEClassifier(**SMALL).fit(chunked, y)
    np.testing.assert_array_equal(one.predict_proba(chunked), other.predict_proba(table))


def test_a_block_whose_weights_are_all_zero_is_left_out(tmp_path):
    frame = make_frame(400)
    target = target_of(FoRDEClassifier)
    weight = (np.arange(400) >= 100) * 1.0
    source = written(frame.assign(weight=weight), tmp_path, 100)
    model = FoRDEClassifier(**SMALL).fit(source, target, "weight")
    assert model.predict_proba(frame.drop(columns=target)).shape[0] == 400


def test_an_epoch_of_a_source_has_as_many_batches_as_the_iterator_says(tmp_path):
    frame = make_frame(900)
    source = written(frame, tmp_path, 300)
    lengths = []

    class Note(Callback):
        def on_train_begin(self, net, X=None, **kwargs):
            lengths.append(len(net.get_iterator(X, training=True)))

    settings = {**SMALL, "iterator_train__sample_rows": 200, "batch_size": "auto"}
    model = FoRDEClassifier(**settings, callbacks=[Note()]).fit(source, target_of(FoRDEClassifier))
    batches = model.net_.history[:, "train_batch_count"]
    assert set(batches) == set(lengths)
    assert model.net_.batch_size == 64  # Of 900 rows, not of 200.
