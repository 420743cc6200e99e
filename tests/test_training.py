"""The net, its batches and callbacks, and what a fit trains on."""

import pickle
import threading
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback, EpochScoring, GradientNormClipping, LRScheduler
from torch import nn

from sklearn_fordes import FoRDEClassifier, FoRDERegressor, Repulsion
from sklearn_fordes.estimators._validation import TrainingData
from sklearn_fordes.networks import MLP
from sklearn_fordes.particles import Ensemble, tuned_lengthscale
from sklearn_fordes.training import (
    BatchIterator,
    ClipMemberGradients,
    DeviceDataset,
    TrainingState,
)

# The steps of plain gradient descent, which a test can repeat.
PLAIN = {"early_stopping": False, "ema_decay": 0.0, "weight_decay": 0.0}


@pytest.mark.parametrize(("n_rows", "batch_size"), [(23, 5), (24, 6), (3, 10), (101, 50)])
def test_batches_have_one_shape_and_hold_every_row(n_rows, batch_size):
    rows = DeviceDataset(np.arange(n_rows)[:, None], np.arange(n_rows), np.ones(n_rows))
    rng = np.random.default_rng(0)
    batches = list(BatchIterator(rows, batch_size, shuffle=True, rng=rng))
    size = -(-n_rows // len(batches))
    assert size <= batch_size
    assert [len(y) for _, y in batches] == [size] * len(batches)
    seen = torch.cat([y for _, y in batches]).tolist()
    assert sorted(seen[:n_rows]) == list(range(n_rows))
    assert seen[:n_rows] != list(range(n_rows))
    assert seen[n_rows:] == seen[: len(seen) - n_rows]
    assert all(torch.equal(inputs["X"][:, 0], y.float()) for inputs, y in batches)


def test_batches_without_shuffling_are_slices_in_order():
    rows = DeviceDataset(np.arange(7.0)[:, None])
    batches = [inputs["X"][:, 0].tolist() for inputs, y in BatchIterator(rows, 3)]
    assert batches == [[0, 1, 2], [3, 4, 5], [6]]
    assert len(BatchIterator(rows, 3)) == 3


def test_a_dataset_copies_the_callers_array():
    X = np.ones((3, 2), dtype=np.float32)
    DeviceDataset(X).X.zero_()
    assert X.all()


# ---- rows held out


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("counts", [(98, 2), (20, *[1] * 10), (5, 5), (50, 3, 47), (30, 30, 30)])
def test_every_class_keeps_a_training_row(counts, fraction):
    y = np.repeat(np.arange(len(counts)), counts)
    data = TrainingData(np.arange(len(y)), y, np.ones(len(y)))
    for seed in range(50):
        train, valid = data.hold_out(int(fraction * len(y)), seed)
        assert set(train.y) == set(y)
        assert len(valid.y) == min(int(fraction * len(y)), len(y) - len(counts))
        assert sorted([*train.table, *valid.table]) == list(range(len(y)))


def test_held_out_rows_are_stratified():
    y = np.repeat([0, 1], [900, 100])
    data = TrainingData(y[:, None], y, np.ones(1000))
    _, valid = data.hold_out(100, seed=0)
    assert np.bincount(valid.y).tolist() == [90, 10]


@pytest.mark.parametrize("kind", [FoRDEClassifier, FoRDERegressor])
@pytest.mark.parametrize(
    ("n_rows", "n_valid"),
    [(2, 0), (4, 0), (5, 1), (12, 2), (150, 30), (320, 64), (640, 64), (1000, 100)],
)
def test_small_tables_hold_out_a_larger_share(kind, n_rows, n_valid):
    X = np.random.default_rng(0).normal(size=(n_rows, 2))
    model = kind(2, max_epochs=1, hidden_layer_sizes=(), batch_size=2000, callbacks=[Recorder()])
    model.fit(X, np.arange(n_rows) % 2)
    ((_, y),) = callback(model, "Recorder").batches_
    assert len(y) == n_rows - n_valid
    assert ("valid_loss" in model.history_[0]) == (n_valid > 0)


# ---- what a fit is made of


class Recorder(Callback):
    """Keeps the batches that the net was trained on."""

    def initialize(self):
        self.batches_ = []
        return self

    def on_batch_begin(self, net, batch, training):
        if training:
            self.batches_.append(batch)


def callback(model, name):
    return dict(model.net_.callbacks_)[name]


def log_loss(model, X, y):
    return -np.log(model.predict_proba(X)[np.arange(len(y)), y]).mean()


def make_double_net(n_features, n_outputs):
    return MLP(n_features, n_outputs, hidden_layer_sizes=(16,)).double()


@pytest.mark.parametrize(
    ("module", "optimizer", "tolerance"),
    [
        (make_double_net, torch.optim.SGD, 1e-9),
        (make_double_net, torch.optim.AdamW, 1e-9),
        (None, torch.optim.SGD, 1e-5),
    ],
)
def test_unrepelled_members_equal_separately_trained_nets(
    small, binary, module, optimizer, tolerance
):
    model = small(
        module=module,
        repulsion="none",
        optimizer=optimizer,
        augmentation=None,
        callbacks=[Recorder()],
        **({"module__dropout": 0.0} if module is None else {}),
        **PLAIN,
    ).fit(*binary)
    initial = Ensemble(model.fitted_.members._make_member, 3, model.net_.seed)
    batches = callback(model, "Recorder").batches_
    assert len(batches) == 6 * 7
    for i in range(3):
        member = initial.member(i)
        descent = optimizer(member.parameters(), lr=1e-2, weight_decay=0.0)
        for inputs, labels in batches:
            descent.zero_grad()
            nn.functional.cross_entropy(member(inputs["X"]), labels).backward()
            descent.step()
        for name, weights in member.named_parameters():
            trained = model.fitted_.members.stacked.get_parameter(name)[i]
            torch.testing.assert_close(trained, weights, atol=tolerance, rtol=tolerance)


def test_weights_decay_and_biases_do_not(small, binary):
    groups = small(weight_decay=0.3).fit(*binary).net_.optimizer_.param_groups
    decays = {p.ndim: group["weight_decay"] for group in groups for p in group["params"]}
    assert decays == {2: 0.0, 3: 0.3, 4: 0.3}  # Vectors; weights of layers, of the embedding.


def test_best_epoch_by_ensemble_log_loss_is_kept(small, binary):
    X, y = binary
    model = small(lr=0.1, max_epochs=40, n_iter_no_change=5)
    model.fit(X[:150], y[:150], X_val=X[150:], y_val=y[150:])
    losses = [epoch["valid_loss"] for epoch in model.history_]
    assert model.n_iter_ == len(losses) == np.argmin(losses) + 1 + 5
    assert log_loss(model, X[150:], y[150:]) == pytest.approx(min(losses), abs=1e-5)


def test_history_separates_driving_loss_and_repulsion(small, binary):
    X, y = binary
    model = small(n_members=4).fit(X, y)
    last = model.history_[-1]
    per_member = last["driving_loss"] + last["repulsion"]
    assert last["train_loss"] == pytest.approx(4 * per_member, rel=1e-5)
    assert last["repulsion"] > 0
    assert "batches" not in last
    assert small(repulsion="none").fit(X, y).history_[-1]["repulsion"] == 0


def test_without_early_stopping_all_rows_are_trained_on(small, binary):
    model = small(early_stopping=False, callbacks=[Recorder()]).fit(*binary)
    assert model.n_iter_ == 6
    assert "valid_loss" not in model.history_[0]
    # Seven batches of 29 rows, three of them twice.
    assert sum(len(y) for _, y in callback(model, "Recorder").batches_) == 6 * 203


@pytest.mark.parametrize("removed", ["epoch_timer", "train_loss", "driving_loss"])
def test_any_default_callback_may_be_taken_out(small, binary, removed):
    assert small(**{f"callbacks__{removed}": None}).fit(*binary).n_iter_ == 6


def test_callbacks_that_cannot_be_deep_copied(small, binary):
    class Locked(Callback):
        def __init__(self, lock):
            self.lock = lock

    model = small(callbacks=[Locked(threading.Lock())]).fit(*binary)
    assert model.partial_fit(*binary).n_iter_ == 7


def test_callbacks_of_skorch_work_and_are_not_changed(small, binary):
    X, y = binary
    schedule = LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.1)
    score = EpochScoring("neg_log_loss", lower_is_better=False, name="score")
    callbacks = [("schedule", schedule), ("score", score), GradientNormClipping(1.0)]
    model = small(callbacks=callbacks, callbacks__schedule__gamma=0.5).fit(X, y)
    assert model.net_.optimizer_.param_groups[0]["lr"] == pytest.approx(1e-2 * 0.5**3)
    for epoch in model.history_:
        assert epoch["score"] == pytest.approx(-epoch["valid_loss"], abs=1e-5)
    assert not hasattr(schedule, "lr_scheduler_")
    assert schedule.gamma == 0.1


def halved(epoch):
    return 0.5**epoch


@pytest.mark.parametrize(
    "schedule",
    [("StepLR", {"step_size": 1, "gamma": 0.5}), ("LambdaLR", {"lr_lambda": halved})],
    ids=lambda schedule: schedule[0],
)
def test_a_learning_rate_schedule_goes_on_over_calls_of_partial_fit(small, binary, schedule):
    X, y = binary
    model = small(callbacks=[LRScheduler(schedule[0], **schedule[1])], lr=0.08)
    rates = [
        model.partial_fit(X, y, classes=[0, 1]).net_.optimizer_.param_groups[0]["lr"]
        for _ in range(4)
    ]
    np.testing.assert_allclose(rates, [0.04, 0.02, 0.01, 0.005])
    loaded = pickle.loads(pickle.dumps(model)).partial_fit(X, y)
    assert loaded.net_.optimizer_.param_groups[0]["lr"] == pytest.approx(0.0025)
    model.set_params(lr=1.0).partial_fit(X, y)  # The schedule is that of the new rate.
    assert model.net_.optimizer_.param_groups[0]["lr"] > 0.01


class GradientNorms(Callback):
    """Keeps the norms of the members' gradients, (steps, M)."""

    def initialize(self):
        self.norms_ = []
        return self

    def on_grad_computed(self, net, named_parameters, **kwargs):
        gradients = [p.grad.flatten(1) for _, p in named_parameters]
        self.norms_.append(torch.cat(gradients, dim=1).norm(dim=1).numpy())


class Tempered(nn.Linear):
    """Its temperature is a parameter without axes."""

    def __init__(self, n_features, n_outputs):
        super().__init__(n_features, n_outputs)
        self.temperature = nn.Parameter(torch.ones(()))

    def forward(self, X):
        return super().forward(X) / self.temperature


@pytest.mark.parametrize("repulsion", ["input_gradient", "weight"])
def test_parameters_may_be_single_numbers(small, binary, repulsion):
    settings = {"repulsion": repulsion, "callbacks": [ClipMemberGradients(1e-3)]}
    model = small(module=Tempered, **settings).fit(*binary)
    temperature = model.fitted_.members.stacked.temperature
    assert temperature.shape == (3,)
    assert not torch.equal(temperature, torch.ones(3))


@pytest.mark.parametrize("kind", [FoRDEClassifier, FoRDERegressor])
def test_weights_that_round_to_zero_in_whole_batches(kind, binary):
    X, y = binary
    weight = np.ones(len(y))
    weight[0] = 1e60
    model = kind(2, hidden_layer_sizes=(8,), max_epochs=2, batch_size=16, random_state=0)
    history = model.fit(X, y, sample_weight=weight).history_
    assert all(0 <= epoch["relative_loss"] < 10 for epoch in history)


def test_gradients_are_clipped_to_a_norm_for_each_member(small, binary):
    settings = {"optimizer": torch.optim.SGD, "batch_size": 200, "max_epochs": 1, **PLAIN}
    free = small(callbacks=[GradientNorms()], **settings).fit(*binary)
    (norms,) = callback(free, "GradientNorms").norms_
    limit = float(np.sort(norms)[1])  # One of the three is smaller.
    clipped = small(callbacks=[ClipMemberGradients(limit), GradientNorms()], **settings)
    (after,) = callback(clipped.fit(*binary), "GradientNorms").norms_
    np.testing.assert_allclose(after, np.minimum(norms, limit), rtol=1e-5)
    smallest, largest = norms.argmin(), norms.argmax()
    for name, weights in free.fitted_.members.stacked.named_parameters():
        others = clipped.fitted_.members.stacked.get_parameter(name)
        assert torch.equal(weights[smallest], others[smallest])
    assert not torch.equal(weights[largest], others[largest])


@pytest.mark.parametrize(
    "other",
    [
        {"optimizer__foreach": True},
        {"optimizer__param_groups": [("*bias", {"lr": 1e-3})]},
    ],
    ids=lambda other: next(iter(other)),
)
def test_moments_go_on_where_an_optimizer_groups_parameters_otherwise(small, binary, other):
    def moments(net):
        state = net.optimizer_.state
        return {name: state[p]["exp_avg"] for name, p in net.module_.named_parameters()}

    settings = {"hidden_layer_sizes": (16, 5), "max_epochs": 1}
    net = small(**settings).fit(*binary).net_
    into = small(**settings, **other, random_state=1).fit(*binary).net_
    assert len(into.optimizer_.param_groups) != len(net.optimizer_.param_groups)
    TrainingState.of(net).load_into(into)
    for name, expected in moments(net).items():
        assert torch.equal(moments(into)[name], expected)


def test_a_net_that_its_user_trains_evaluates_without_dropout_afterwards(small, binary):
    X, y = binary
    model = small(module__dropout=0.5, max_epochs=1).fit(X, y)
    encoded = torch.tensor(model.encoder_.transform(X), dtype=torch.float32)
    model.net_.partial_fit(DeviceDataset(encoded, y))
    np.testing.assert_array_equal(model.predict_proba(X), model.predict_proba(X))
    assert not model.net_.module_.training


def test_optimizer_and_iterator_parameters_arrive(small, binary):
    settings = {"iterator_train__shuffle": False, "augmentation": None}
    model = small(optimizer__betas=(0.8, 0.9), callbacks=[Recorder()], **settings).fit(*binary)
    assert model.net_.optimizer_.param_groups[0]["betas"] == (0.8, 0.9)
    batches = callback(model, "Recorder").batches_
    assert torch.equal(batches[0][0]["X"], batches[len(batches) // 6][0]["X"])


@pytest.mark.parametrize(
    ("n_rows", "batch_size"), [(2, 32), (639, 32), (640, 64), (1279, 64), (1280, 128), (9999, 256)]
)
def test_automatic_batch_size_grows_with_the_table(n_rows, batch_size):
    X, y = np.arange(n_rows)[:, None], np.arange(n_rows) % 2
    settings = {"hidden_layer_sizes": (), "early_stopping": False, "repulsion": "none"}
    for kind in (FoRDEClassifier, FoRDERegressor):
        assert kind(1, max_epochs=1, **settings).fit(X, y).net_.batch_size == batch_size


def test_optimizer_with_a_closure_works(small, binary):
    X, y = binary
    settings = {"weight_decay": 0.0, "lr": 0.1, "batch_size": 200, "augmentation": None}
    model = small(optimizer=torch.optim.LBFGS, **settings)
    assert model.fit(X, y).score(X, y) >= 0.8


@pytest.mark.filterwarnings("ignore:Training diverged")
def test_divergence_raises_and_leaves_the_estimator_as_it_was(small, binary):
    X, y = binary
    model = small()
    with pytest.raises(ValueError, match=r"loss that is not finite .* in epoch \d+.*Lower lr"):
        model.set_params(lr=1e30).fit(X, y)
    assert not [name for name in vars(model) if name.endswith("_")]

    before = model.set_params(lr=1e-2).fit(X, y).predict_proba(X)
    with pytest.raises(ValueError, match="Lower lr"):
        model.set_params(lr=1e30).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), before)


@pytest.mark.filterwarnings("ignore:Training diverged")
def test_damage_by_the_last_step_raises(small, binary):
    model = small(max_epochs=1, batch_size=200, early_stopping=False, lr=1e38, repulsion="none")
    model.set_params(optimizer=torch.optim.SGD, weight_decay=100.0)
    with pytest.raises(ValueError, match="weight that is not finite"):
        model.fit(*binary)


@pytest.mark.filterwarnings("ignore:Training diverged")
def test_failing_partial_fit_leaves_the_estimator_as_it_was(small, binary):
    X, y = binary
    model = small().fit(X, y)
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match="Lower lr"):
        model.set_params(lr=1e30).partial_fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), before)
    assert model.n_iter_ == len(model.net_.history) == 6
    # The next call draws the batches that it would have drawn.
    model.set_params(lr=1e-2).partial_fit(X, y)
    expected = small().fit(X, y).partial_fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(model.predict_proba(X), expected)


def test_partial_fit_goes_on_from_where_it_was(small, binary):
    X, y = binary
    stepwise = small(early_stopping=False, ema_decay=0.0)
    for _ in range(3):
        stepwise.partial_fit(X, y, classes=[0, 1])
    assert stepwise.n_iter_ == 3
    assert stepwise.history_[-1]["driving_loss"] < stepwise.history_[0]["driving_loss"]
    at_once = small(early_stopping=False, ema_decay=0.0, max_epochs=3).fit(X, y)
    np.testing.assert_array_equal(stepwise.predict_proba(X), at_once.predict_proba(X))
    assert at_once.partial_fit(X, y).n_iter_ == 4


def test_moments_go_with_their_parameters_when_the_optimizers_groups_change(small, binary):
    X, y = binary
    model = small(hidden_layer_sizes=(10,), optimizer__betas=(0.9, 0.99)).fit(X, y)

    def moments(net):
        state = net.optimizer_.state
        return {name: state[p]["exp_avg_sq"].mean() for name, p in net.module_.named_parameters()}

    before, groups = moments(model.net_), len(model.net_.optimizer_.param_groups)
    state = TrainingState.of(model.net_)
    other = small(hidden_layer_sizes=(10,), optimizer__foreach=True).fit(X, y).net_
    assert len(other.optimizer_.param_groups) < groups
    state.load_into(other)
    assert moments(other) == before
    assert model.set_params(optimizer__foreach=True).partial_fit(X, y).n_iter_ == 7


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 0.1},
        {"weight_decay": 0.9},
        {"batch_size": 7},
        {"repulsion_strength": 1e3},
        {"repulsion": "none"},
        {"optimizer__betas": (0.1, 0.1)},
    ],
    ids=str,
)
def test_partial_fit_takes_parameters_as_they_are_then(small, binary, change):
    X, y = binary
    one, other = small().fit(X, y), small().fit(X, y)
    unchanged = one.partial_fit(X, y).predict_proba(X)
    assert not np.allclose(other.set_params(**change).partial_fit(X, y).predict_proba(X), unchanged)


@pytest.mark.parametrize("change", [{"n_members": 4}, {"hidden_layer_sizes": (8,)}], ids=str)
def test_partial_fit_refuses_another_network(small, binary, change):
    X, y = binary
    model = small().fit(X, y)
    with pytest.raises(ValueError, match="make another network than the one that was fitted"):
        model.set_params(**change).partial_fit(X, y)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"lengthscale": "pca"}, {"repulsion": "weight", "lengthscale": "identity"}),
        ({"repulsion": Repulsion()}, {"repulsion__space": "weight"}),
        ({"lengthscale": "pca"}, {"lengthscale": np.arange(1.0, 7.0)}),
        ({"lengthscale": "pca"}, {"lengthscale": 0.5}),
        ({"lengthscale": 0.5}, {"lengthscale": tuned_lengthscale(0.5, mix="variance")}),
        ({"lengthscale": "identity"}, {"lengthscale": np.arange(1.0, 7.0)}),
        ({"lengthscale": np.ones(6)}, {"lengthscale": np.arange(1.0, 7.0)}),
        ({"repulsion": "none"}, {"repulsion": "input_gradient", "lengthscale": "pca"}),
    ],
    ids=lambda parameters: "-".join(map(str, parameters)),
)
def test_partial_fit_with_another_repulsion_makes_its_lengthscale(small, binary, before, after):
    X, y = binary
    model = small(**before).partial_fit(X, y, classes=[0, 1])
    model.set_params(**after).partial_fit(X, y)
    expected = small(**before).set_params(**after).partial_fit(X, y, classes=[0, 1])
    lengthscales = [m.net_.repulsion.kernel.lengthscale for m in (model, expected)]
    for part, expected_part in zip(*lengthscales, strict=True):
        assert (part is None) == (expected_part is None)
        assert part is None or torch.equal(part, expected_part)


def test_partial_fit_keeps_a_lengthscale_until_its_parameters_change(small, binary):
    X, y = binary
    model = small(lengthscale="pca")

    def precision(X, y, **parameters):
        model.set_params(**parameters).partial_fit(X, y, classes=[0, 1])
        return model.net_.repulsion.kernel.lengthscale.precision

    wide = X[:50] * [9, 1, 1, 1, 1, 1]
    first = precision(X, y)
    assert torch.equal(precision(wide, y[:50], repulsion_strength=0.0), first)
    assert torch.equal(precision(wide, y[:50], repulsion_strength=1.0), first)
    between = precision(X, y, lengthscale=0.5)
    assert not torch.equal(between, first)
    assert torch.equal(precision(wide, y[:50]), between)
    given = precision(X, y, lengthscale=np.arange(1.0, 7.0))
    # Those of six columns are those of their numbers, and of their indicators of gaps.
    torch.testing.assert_close(given, torch.arange(1.0, 7.0).repeat(2) ** -2)
    again = precision(wide, y[:50], lengthscale="pca")
    assert not torch.equal(again, first)
    assert not torch.equal(again, given)
    with pytest.raises(ValueError, match="Got lengthscale='pca' with repulsion='weight'"):
        precision(X, y, repulsion="weight")


def test_partial_fit_checks_that_a_changed_repulsion_works(small, binary):
    X, y = binary
    linear = {"hidden_layer_sizes": (), "module__embedded_features": ()}
    model = small(**linear).partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match="Got a module without hidden features"):
        model.set_params(repulsion="feature").partial_fit(X, y)
    assert model.n_iter_ == 1


def test_partial_fit_does_not_pile_up_its_batches(small, binary):
    X, y = binary
    model = small(batch_size=8)
    for _ in range(4):
        model.partial_fit(X, y, classes=[0, 1])
    assert [len(epoch["batches"]) for epoch in model.net_.history] == [0, 0, 0, 25]
    assert len(model.history_) == 4


def test_a_fit_that_learns_nothing_warns(small):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 3)), rng.integers(0, 2, 300)
    for module, end in (
        (None, r", and look at encoder_\.report\(\)\.$"),
        (MLP, r"or more rows\.$"),
    ):
        match = r"The best validation loss, .* nothing was learnt.*" + end
        with pytest.warns(ConvergenceWarning, match=match):
            small(module=module, lr=1e-6, max_epochs=2, ema_decay=0).fit(10 * X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = small(max_epochs=20).fit(X, X[:, 0] > 0)
    frequencies = np.bincount(X[:, 0] > 0) / 300
    assert min(e["valid_loss"] for e in model.history_) < -np.log(frequencies).max()


def test_a_fit_that_can_not_predict_is_refused(small):
    X = np.arange(4.0)[:, None]
    model = small(lr=1e30, max_epochs=1, early_stopping=False)
    with pytest.raises(ValueError, match=r"Got a .* that is not finite .* Lower lr"):
        model.fit(X, [0, 1, 0, 1])
    assert not hasattr(model, "fitted_")


@pytest.mark.parametrize("as_instance", [False, True])
def test_convolutional_members_with_batch_norm_learn_images(as_instance):
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images[:600, None].astype(np.float32) / 16

    def make_net(n_outputs=10):
        return nn.Sequential(
            nn.Conv2d(1, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(288, n_outputs),
        )

    model = FoRDEClassifier(
        3, module=make_net() if as_instance else make_net, max_epochs=15, lr=1e-2, random_state=0
    ).fit(images[:500], digits.target[:500])
    assert model.score(images[500:], digits.target[500:600]) > 0.85
    with pytest.raises(ValueError, match=r"rows of shape \(1, 8, 7\), but .* \(1, 8, 8\)"):
        model.predict(images[:, :, :, :7])
