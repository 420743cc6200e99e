"""Members of a small table's ensemble leave folds out in turn, and validate them."""

import math
import pickle
import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    GroupShuffleSplit,
    KFold,
    PredefinedSplit,
    RepeatedKFold,
    ShuffleSplit,
    TimeSeriesSplit,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback

from sklearn_fordes import FoRDEClassifier, FoRDERegressor, load
from sklearn_fordes.estimators._folds import Folds
from sklearn_fordes.estimators._validation import TrainingData
from sklearn_fordes.networks import MLP
from sklearn_fordes.particles import CategoricalLikelihood
from sklearn_fordes.training import DeviceDataset, MixtureLoss

# On inputs as they are, so that a test can tell rows by them.
PLAIN = {"module": MLP, "hidden_layer_sizes": (8,), "random_state": 0}


class Keep(Callback):
    """Keeps the rows of a fit, and its batches."""

    def on_train_begin(self, net, X, **kwargs):
        self.rows_, self.batches_ = X, []

    def on_batch_begin(self, net, batch, training):
        if training:
            self.batches_.append(batch)


def kept(model):
    return dict(model.net_.callbacks_)["Keep"]


def make_table(n_rows=60, n_classes=3):
    X = np.random.default_rng(0).normal(size=(n_rows, 2)).astype(np.float32)
    return X, np.arange(n_rows) % n_classes


# ---- folds


@pytest.mark.parametrize("counts", [(30, 30), (40, 11, 9), (3, 2, 50), (2, 2, 2)])
def test_dealt_folds_are_equal_and_stratified(counts):
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    folds = Folds.deal(y, 5, seed=0)
    everyone = np.arange(len(y))
    for trained, validated in folds.pairs:
        np.testing.assert_array_equal(np.sort([*trained, *validated]), everyone)
    fold_sizes = [len(validated) for _, validated in folds.pairs]
    assert max(fold_sizes) - min(fold_sizes) <= 1
    shares = np.array([np.bincount(y[v], minlength=len(counts)) for _, v in folds.pairs])
    assert (np.ptp(shares, axis=0) <= 1).all()
    assert shares.sum() == len(y)
    assert all(set(y[trained]) == set(y) for trained, _ in folds.pairs)


def test_the_seed_deals_folds():
    y = np.arange(50) % 2
    one, same, other = (np.concatenate(Folds.deal(y, 5, s).validators(5)[:1]) for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert not np.array_equal(Folds.deal(y / 2, 5, 0).pairs[0][1], np.arange(0, 50, 5))


def test_no_member_leaves_the_only_row_of_a_class_out():
    y = np.array([0] * 10 + [1] * 10 + [2])
    folds = Folds.deal(y, 5, seed=0)
    assert all(20 in trained and 20 not in validated for trained, validated in folds.pairs)
    assert Folds.deal(np.array([0, 0, 0, 0, 1]), 5, seed=0) is None
    assert Folds.deal(np.arange(8), 4, seed=0) is None
    assert Folds.deal(np.arange(8.0), 9, seed=0) is None


@pytest.mark.parametrize("weight", [np.ones(23), np.arange(1.0, 24), 10.0 ** np.arange(-60, 9, 3)])
def test_training_weights_are_zero_on_the_fold_left_out_and_of_mean_one(weight):
    folds = Folds.deal(np.arange(23) % 2, 4, seed=0)
    weights = folds.training_weights(weight, 8)
    assert weights.shape == (23, 8)
    np.testing.assert_allclose(weights.mean(0), 1)
    for member in range(8):
        trained, validated = folds.pairs[folds.pair_of(8)[member]]
        assert not weights[validated, member].any()
        expected = weight[trained] / weight[trained].sum() * 23
        np.testing.assert_allclose(weights[trained, member], expected)


@pytest.mark.parametrize(
    "splitter",
    [KFold(5), ShuffleSplit(5, random_state=0), RepeatedKFold(n_splits=5)],
    ids=lambda splitter: type(splitter).__name__,
)
def test_validators_are_the_members_of_each_pair(splitter):
    X, y = make_table(30)
    n_members = 2 * splitter.get_n_splits()
    folds = Folds.of_splitter(splitter, TrainingData(X, y, np.ones(30)), n_members, 0)
    rows, members = folds.validators(n_members)
    assert members.shape == (len(rows), 2)
    for member in range(n_members):
        expected = folds.pairs[folds.pair_of(n_members)[member]][1]
        np.testing.assert_array_equal(rows[(members == member).any(1)], expected)
    weights = folds.training_weights(np.ones(30), n_members)
    assert not weights[rows[:, None], members].any()
    np.testing.assert_allclose(weights.mean(0), 1)


# ---- which tables


@pytest.mark.parametrize(
    ("n_members", "n_folds"),
    [(1, 0), (2, 0), (3, 0), (4, 4), (5, 5), (6, 6), (7, 7), (8, 4), (10, 5), (12, 4), (30, 5)],
)
def test_the_number_of_folds_divides_the_number_of_members(n_members, n_folds):
    model = FoRDEClassifier(n_members)
    sizes = [model._n_folds(n_rows) for n_rows in (4, 5, 639, 640)]
    assert sizes == [0, n_folds, n_folds, 0]
    assert not FoRDEClassifier(n_members, validation_fraction=0.2)._n_folds(100)


@pytest.mark.parametrize("kind", [FoRDEClassifier, FoRDERegressor])
@pytest.mark.parametrize("n_members", [4, 5, 7, 10, 12])
def test_members_train_on_all_rows_but_those_they_validate(kind, n_members):
    X, y = make_table()
    model = kind(n_members, max_epochs=1, callbacks=[Keep()], **PLAIN).fit(X, y)
    n_validators = n_members // model._n_folds(len(y))
    rows, left_out = kept(model).rows_, np.zeros((len(y), n_members), dtype=bool)
    assert torch.equal(rows.X, torch.from_numpy(X))
    for x, validators in zip(rows.valid.X, rows.valid.validators, strict=True):
        (row,) = np.flatnonzero((x.numpy() == X).all(1))
        assert not left_out[row].any()
        left_out[row, validators] = True
    assert (left_out.sum(1) == n_validators).all()
    np.testing.assert_array_equal(rows.sample_weight == 0, left_out)
    for inputs, _ in kept(model).batches_:
        for x, weight in zip(inputs["X"], inputs["sample_weight"], strict=True):
            (row,) = np.flatnonzero((x.numpy() == X).all(1))
            np.testing.assert_array_equal(weight == 0, left_out[row])


@pytest.mark.parametrize(
    ("settings", "n_rows"),
    [
        ({"early_stopping": False}, 60),
        ({"validation_fraction": 0.1}, 54),
        ({"n_members": 3}, 48),
    ],
    ids=str,
)
def test_other_fits_have_no_folds(settings, n_rows):
    X, y = make_table()
    model = FoRDEClassifier(max_epochs=1, callbacks=[Keep()], **PLAIN).set_params(**settings)
    rows = kept(model.fit(X, y)).rows_
    assert (len(rows), rows.sample_weight) == (n_rows, None)
    assert rows.valid is None or rows.valid.validators is None


def test_given_validation_rows_take_the_place_of_folds():
    X, y = make_table()
    model = FoRDEClassifier(max_epochs=1, callbacks=[Keep()], **PLAIN).fit(
        X[:50], y[:50], X_val=X[50:], y_val=y[50:]
    )
    rows = kept(model).rows_
    assert (len(rows), len(rows.valid), rows.valid.validators) == (50, 10, None)


def test_larger_tables_are_not_dealt(monkeypatch):
    X, y = make_table(640)
    monkeypatch.delattr(Folds, "deal")
    monkeypatch.delattr(Folds, "training_weights")
    model = FoRDEClassifier(max_epochs=1, callbacks=[Keep()], **PLAIN).fit(X, y)
    assert (len(kept(model).rows_), len(kept(model).rows_.valid)) == (576, 64)


@pytest.mark.parametrize("n_members", [7, 10, 29])
@pytest.mark.parametrize("n_rows", [5, 6, 8, 11])
def test_very_small_tables(n_rows, n_members):
    X, y = make_table(n_rows)
    model = FoRDEClassifier(n_members, max_epochs=2, **PLAIN).fit(X, y)
    assert np.isfinite(model.predict_proba(X)).all()
    assert np.isfinite(model.history_[-1]["valid_loss"])


def test_a_class_of_one_row_is_learnt_by_all_members():
    X, y = make_table()
    y[7] = 9
    X[7] = 30.0
    model = FoRDEClassifier(max_epochs=60, lr=0.01, callbacks=[Keep()], **PLAIN).fit(X, y)
    assert model.classes_.tolist() == [0, 1, 2, 9]
    assert 3 not in kept(model).rows_.valid.y
    members = model.predict_proba_members(X[7:8])
    assert (members[:, 0].argmax(1) == 3).all()


# ---- what members learn


@pytest.mark.parametrize("kind", [FoRDEClassifier, FoRDERegressor])
def test_a_member_does_not_see_the_targets_of_its_fold(kind):
    X, y = make_table(n_classes=2)
    fold = np.arange(60) % 5
    changed = np.where(fold == 2, 1 - y, y)
    model = kind(
        repulsion="none",
        max_epochs=5,
        validation_fraction=PredefinedSplit(fold),
        callbacks__early_stopping=None,  # It would choose the epoch by all rows.
        **PLAIN,
    )
    one, other = (clone(model).fit(X, targets).fitted_.members.stacked for targets in (y, changed))
    for name, weights in one.named_parameters():
        others = other.get_parameter(name)
        is_equal = [torch.equal(weights[i], others[i]) for i in range(10)]
        assert is_equal == [i in (4, 5) for i in range(10)], name


@pytest.mark.parametrize("sample_weight", [None, np.arange(1.0, 61)])
@pytest.mark.parametrize("n_members", [5, 10, 15])
def test_validation_loss_is_that_of_the_members_that_left_the_row_out(n_members, sample_weight):
    X, y = make_table()
    model = FoRDEClassifier(n_members, max_epochs=1, callbacks=[Keep()], **PLAIN)
    model.fit(X, y, sample_weight=sample_weight)
    valid = kept(model).rows_.valid
    probabilities = model.predict_proba_members(valid.X.numpy())[:, range(60), valid.y]
    of_validators = np.take_along_axis(probabilities, valid.validators.numpy().T, axis=0)
    weight = np.ones(60) if sample_weight is None else valid.sample_weight.numpy()
    mean, h = of_validators.mean(0), len(of_validators)
    losses = -np.log(mean)
    if h > 1:
        variation = of_validators.var(0, ddof=1) / mean**2
        losses -= variation / 2 * (1 / h - 1 / n_members)
    assert model.history_[0]["valid_loss"] == pytest.approx((losses * weight).mean(), rel=1e-5)


@pytest.mark.parametrize("noise", ["homoscedastic", "heteroscedastic", "quantile"])
def test_regressors_learn_with_folds(noise):
    X, _ = make_table(200)
    settings = {**PLAIN, "augmentation": None, "repulsion_strength": 0.15}
    model = FoRDERegressor(noise=noise, max_epochs=30, lr=0.02, **settings).fit(X, X[:, 0])
    losses = [epoch["valid_loss"] for epoch in model.history_]
    assert min(losses) < losses[0] - 0.1
    assert model.score(X, X[:, 0]) > 0.9


def test_the_net_is_rebuilt_and_goes_on_after_folds():
    X, y = make_table()
    model = FoRDEClassifier(max_epochs=3, **PLAIN).fit(X, y)
    loaded = pickle.loads(pickle.dumps(model))
    assert loaded.net_.n_epochs == model.n_iter_ == 3
    for one in (model, loaded):
        assert "valid_loss" not in one.partial_fit(X, y).history_[3]
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))


def test_a_dataset_has_validators_in_its_batches():
    validators = np.arange(12).reshape(6, 2)
    rows = DeviceDataset(np.ones((6, 1)), np.zeros(6), validators=validators)
    inputs, _ = rows[torch.tensor([4, 1])]
    assert inputs["validators"].tolist() == [[8, 9], [2, 3]]
    assert inputs["validators"].dtype == torch.int64
    assert "validators" not in DeviceDataset(np.ones((6, 1)))[:2][0]


# ---- the loss of more members


def test_losses_of_more_by_hand():
    # Densities of 0.6 and 0.2: a mean of 0.4, and a variance of 0.08.
    outputs = torch.tensor([0.6, 0.2]).logit().view(2, 1, 1) * torch.tensor([-0.5, 0.5])
    estimate = CategoricalLikelihood(2).losses_of_more(outputs, torch.tensor([1]), 10)
    expected = -math.log(0.4) - 0.08 / 0.4**2 / 2 * (1 / 2 - 1 / 10)
    assert estimate.tolist() == pytest.approx([expected])


@pytest.mark.parametrize("n_mixed", [2, 3])
@pytest.mark.parametrize("spread", [0.3, 1.0, 2.0])
def test_losses_of_more_estimate_the_loss_of_all_members(spread, n_mixed):
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(20000, 1, 3, generator=generator)
    outputs = mean + spread * torch.randn(20000, 10, 3, generator=generator)
    y = torch.multinomial(mean.squeeze(1).softmax(-1), 1, generator=generator).squeeze(1)
    loss = MixtureLoss(CategoricalLikelihood(3))
    mixed, expected = loss(outputs[:, :n_mixed], y), loss(outputs, y)
    estimate = loss(outputs[:, :n_mixed], y, n_members=10)
    assert abs(estimate - expected) < 0.7 * abs(mixed - expected)


# ---- splitters


@pytest.mark.parametrize("kind", [FoRDEClassifier, FoRDERegressor])
def test_a_single_split_holds_rows_out(kind):
    X, y = make_table()
    held_out = np.arange(60) % 5 == 3
    model = kind(3, max_epochs=4, **PLAIN)
    if kind is FoRDERegressor:  # Its unit is that of all rows.
        y = np.where(held_out, 0.0, np.where(np.arange(60) % 2, 1.0, -1.0))
    by_splitter = clone(model).set_params(
        validation_fraction=PredefinedSplit(np.where(held_out, 0, -1))
    )
    by_splitter.fit(X, y)
    if kind is FoRDEClassifier:
        model.fit(X[~held_out], y[~held_out], X_val=X[held_out], y_val=y[held_out])
        np.testing.assert_array_equal(by_splitter.predict_proba(X), model.predict_proba(X))
    assert len(by_splitter.history_) == 4
    assert "valid_loss" in by_splitter.history_[0]


def test_a_splitter_says_which_members_leave_which_rows_out():
    X, y = make_table()
    fold = np.arange(60) % 4 - 1  # The first row, and every fourth, is trained on by all members.
    model = FoRDEClassifier(
        6, max_epochs=1, validation_fraction=PredefinedSplit(fold), callbacks=[Keep()], **PLAIN
    ).fit(X, y)
    rows = kept(model).rows_
    assert len(rows.valid) == 45
    # Members 0, 2, 4 are dealt to the pairs, and then 1, 3, 5.
    assert rows.valid.validators.tolist() == [
        [2 * k, 2 * k + 1] for k in range(3) for _ in range(15)
    ]
    trained_on = (rows.sample_weight > 0).T.numpy()
    for i, trains in enumerate(trained_on):
        np.testing.assert_array_equal(trains, fold != i // 2)


def test_a_list_of_pairs_is_a_splitter(tmp_path):
    X, y = make_table()
    parts = KFold(2, shuffle=True, random_state=0)
    pairs = list(parts.split(X))
    models = [
        FoRDEClassifier(4, max_epochs=2, validation_fraction=given, **PLAIN).fit(X, y)
        for given in (parts, pairs)
    ]
    np.testing.assert_array_equal(*(model.predict_proba(X) for model in models))
    models[1].save(tmp_path / "model")
    again = load(tmp_path / "model", module=MLP).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), models[0].predict_proba(X))


@pytest.mark.parametrize("pairs", [[1, 2], [([0], [1], [2])], [], [("a", "b")], [([0], [999])]])
def test_a_list_of_something_else_is_refused_by_name(pairs):
    message = rf"Got validation_fraction={re.escape(repr(pairs))}"
    with pytest.raises((ValueError, TypeError), match=message):
        FoRDEClassifier(4, max_epochs=1, validation_fraction=pairs, **PLAIN).fit(*make_table())


@pytest.mark.parametrize(("n_members", "n_pairs"), [(8, 4), (12, 4), (10, 5), (10, 2), (20, 4)])
def test_each_pair_has_members_of_both_kinds(n_members, n_pairs):
    pair = Folds([(np.arange(1), np.arange(1))] * n_pairs).pair_of(n_members)
    n_exposed = np.bincount(pair[1::2], minlength=n_pairs)
    assert (np.bincount(pair) == n_members // n_pairs).all()
    assert np.ptp(n_exposed) <= 1
    assert n_exposed.min() >= 1


@pytest.mark.parametrize("kind", [FoRDEClassifier, FoRDERegressor])
def test_a_splitter_keeps_groups_together(kind):
    X, y = make_table()
    groups = np.random.default_rng(0).permutation(np.arange(60) % 12)
    model = kind(
        10, max_epochs=1, validation_fraction=GroupKFold(5), callbacks=[Keep()], **PLAIN
    ).fit(X, y, groups=groups)
    rows = kept(model).rows_
    trained_on = (rows.sample_weight > 0).T.numpy()
    assert len(rows.valid) == 60
    for trains in trained_on:
        assert 0 < trains.sum() < 60
        assert not set(groups[trains]) & set(groups[~trains])


class ByParity:
    """A splitter that takes groups by name alone."""

    def split(self, X, y=None, *, groups):
        for k in (0, 1):
            yield np.flatnonzero(groups % 2 == k), np.flatnonzero(groups % 2 != k)

    def get_n_splits(self):
        return 2


def test_a_splitter_of_ones_own_gets_groups_by_name():
    X, y = make_table()
    groups = np.arange(60) % 7
    model = FoRDEClassifier(
        2, max_epochs=1, validation_fraction=ByParity(), callbacks=[Keep()], **PLAIN
    ).fit(X, y, groups=groups)
    trained_on = (kept(model).rows_.sample_weight > 0).T.numpy()
    np.testing.assert_array_equal(trained_on, [groups % 2 == 0, groups % 2 == 1])


def test_a_single_split_of_groups_holds_some_of_them_out():
    X, y = make_table()
    groups = np.arange(60) // 6
    model = FoRDEClassifier(
        3, max_epochs=1, validation_fraction=GroupShuffleSplit(1), callbacks=[Keep()], **PLAIN
    ).fit(X, y, groups=groups)
    rows = kept(model).rows_
    assert (len(rows), len(rows.valid)) == (48, 12)  # Two of ten groups.
    assert not {*map(tuple, rows.X.numpy())} & {*map(tuple, rows.valid.X.numpy())}
    held_out = [i for i in range(60) if (rows.valid.X.numpy() == X[i]).all(axis=1).any()]
    assert len(set(groups[held_out])) == 2


def test_cross_validation_hands_groups_to_the_splitter_inside():
    X, y = make_table()
    groups = np.arange(60) // 3
    model = FoRDEClassifier(4, max_epochs=1, validation_fraction=GroupKFold(2), **PLAIN)
    with config_context(enable_metadata_routing=True):
        model.set_fit_request(groups=True)
        scores = cross_validate(
            make_pipeline(StandardScaler(), model),
            X,
            y,
            cv=GroupKFold(3),
            params={"groups": groups},
            error_score="raise",
        )["test_score"]
    assert scores.shape == (3,)


@pytest.mark.parametrize(
    ("parameters", "arguments"),
    [
        ({}, {}),
        ({"validation_fraction": GroupKFold(5), "early_stopping": False}, {}),
        ({"validation_fraction": GroupKFold(5)}, {"X_val": np.zeros((4, 2)), "y_val": [0, 1] * 2}),
    ],
)
def test_groups_that_nothing_would_use(parameters, arguments):
    X, y = make_table()
    model = FoRDEClassifier(**parameters, **PLAIN)
    with pytest.raises(ValueError, match="Got groups, but expected them only for a splitter"):
        model.fit(X, y, groups=np.arange(60), **arguments)


def test_a_splitter_that_draws_is_seeded_by_the_estimator():
    X, y = make_table()
    splitter = KFold(5, shuffle=True)
    model = FoRDEClassifier(10, max_epochs=1, validation_fraction=splitter, **PLAIN)
    before = np.random.get_state()[1].copy()
    one, other = (clone(model).fit(X, y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(before, np.random.get_state()[1])
    assert splitter.random_state is None


def test_weights_of_a_single_split_have_a_mean_of_one():
    X, y = make_table()
    splitter = PredefinedSplit(np.where(np.arange(60) < 50, -1, 0))
    model = FoRDEClassifier(
        3, max_epochs=1, validation_fraction=splitter, callbacks=[Keep()], **PLAIN
    ).fit(X, y, sample_weight=np.exp(np.arange(60) / 10))
    rows = kept(model).rows_
    for weight in (rows.sample_weight, rows.valid.sample_weight):
        assert float(weight.mean()) == pytest.approx(1.0)


def test_rows_of_weight_zero_do_not_move_the_rows_that_a_splitter_names():
    X, y = make_table()
    model = FoRDEClassifier(10, validation_fraction=KFold(5), **PLAIN)
    with pytest.raises(ValueError, match="and rows of weight zero"):
        model.fit(X, y, sample_weight=np.arange(60) > 3)


class Fixed:
    """A splitter whose pairs are given."""

    def __init__(self, *pairs):
        self.pairs = pairs

    def split(self, X, y):
        return self.pairs

    def get_n_splits(self):
        return len(self.pairs)


EVEN = np.arange(60) % 2 == 0


def test_masks_are_parts_too():
    X, y = make_table()
    model = FoRDEClassifier(2, max_epochs=1, **PLAIN)
    one, other = (
        clone(model).set_params(validation_fraction=Fixed(pair)).fit(X, y).predict_proba(X)
        for pair in ((EVEN, ~EVEN), (np.flatnonzero(EVEN), np.flatnonzero(~EVEN)))
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("splitter", "message"),
    [
        (Fixed((np.arange(60), np.arange(50, 60))), "validates rows on which it trains"),
        (Fixed((np.arange(30.0), np.arange(30, 60))), "parts that are no indices of 60 rows"),
        (KFold(3), "makes 3 pairs .* and n_members=10, but expected .* divides"),
        (PredefinedSplit(np.full(60, -1)), "makes 0 pairs"),
        (PredefinedSplit(np.zeros(60)), "without training or without validation rows"),
        (TimeSeriesSplit(5), "train no member on 10 of 60 rows, .* pass a single split"),
        (PredefinedSplit(np.arange(40) % 5), "train no member on 20 of 60 rows"),
        (PredefinedSplit(np.arange(90) % 5), "parts that are no indices of 60 rows"),
        (GroupKFold(5), "Got validation_fraction=GroupKFold.* 'groups' .* Pass groups=… to fit"),
        (KFold(70), r"n_splits=70 greater than the number of samples: n_samples=60\.$"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_splitters_that_can_not_be_used(splitter, message):
    X, y = make_table()
    with pytest.raises(ValueError, match=message):
        FoRDEClassifier(validation_fraction=splitter, **PLAIN).fit(X, y)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (np.zeros((60, 1)), r"Got groups of shape \(60, 1\), but expected \(60,\)"),
        (np.zeros(59), r"Got groups of shape \(59,\), but expected \(60,\)"),
        ("patient", r"Got groups='patient', but .* shape \(60,\), such as X\['patient'\]"),
        ([None, *["a"] * 59], "Got groups of which 1 are missing"),
        (np.where(np.arange(60) < 3, np.nan, 1), "Got groups of which 3 are missing"),
        (["a"] * 30 + ["b"] * 29 + [np.nan], "Got groups of which 1 are missing"),
        (np.ma.masked_array(np.arange(60), np.arange(60) < 2), "Got groups of which 2 are missing"),
        (np.zeros(60), r"Got validation_fraction=GroupKFold\(n_splits=5[^0-9]*\) that can't be"),
    ],
    ids=["matrix", "short", "name", "none", "nan", "text", "masked", "one group"],
)
def test_groups_that_can_not_be_used(groups, message):
    X, y = make_table()
    model = FoRDEClassifier(10, validation_fraction=GroupKFold(5), **PLAIN)
    with pytest.raises(ValueError, match=message):
        model.fit(X, y, groups=groups)


@pytest.mark.parametrize(
    "dtype",
    ["object", "string", "category", "Int64", "datetime64[ns, UTC]", "period[D]", "polars"],
)
def test_groups_come_in_any_container(dtype):
    X, y = make_table()
    numbers = np.arange(60) // 3
    groups = pd.Series(pd.to_datetime(numbers, unit="D"))
    if dtype == "polars":
        groups = pl.Series([str(day) for day in groups])
    elif dtype == "period[D]":
        groups = groups.dt.to_period("D")
    elif dtype == "datetime64[ns, UTC]":
        groups = groups.dt.tz_localize("UTC")
    else:
        groups = pd.Series(numbers).astype(dtype)
    model = FoRDEClassifier(4, max_epochs=1, validation_fraction=GroupKFold(4), **PLAIN)
    found, expected = (
        model.fit(X, y, groups=given).predict_proba(X)
        for given in (groups, np.asarray(groups, dtype=object))
    )
    np.testing.assert_array_equal(found, expected)
    if dtype in ("category", "Int64", "string"):
        with pytest.raises(ValueError, match="Got groups of which 6 are missing"):
            model.fit(X, y, groups=groups.where(numbers > 1))


def test_groups_of_a_cross_validation_are_not_those_of_the_model_unless_asked_for():
    X, y = make_table()
    groups = np.arange(60) // 5
    model = FoRDEClassifier(2, max_epochs=1, **PLAIN)
    search = GridSearchCV(model, {"lr": [0.01]}, cv=GroupKFold(3), error_score="raise")
    assert search.fit(X, y, groups=groups).best_index_ == 0
    with config_context(enable_metadata_routing=True):
        scores = cross_validate(
            make_pipeline(model),
            X,
            y,
            cv=GroupKFold(3),
            params={"groups": groups},
            error_score="raise",
        )["test_score"]
        CalibratedClassifierCV(model, cv=GroupKFold(3)).fit(X, y, groups=groups)
    assert scores.shape == (3,)
