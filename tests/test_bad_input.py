"""Bad input gets an error that names the parameter, what was got and what was expected."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import DataConversionWarning
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch import nn

from sklearn_fordes import FoRDEClassifier, FoRDERegressor
from sklearn_fordes.estimators._base import Table
from sklearn_fordes.networks import MLP

WRONG = {
    "n_members": [0, -1, 2.5, "ten", None],
    "repulsion": ["weights", None, 1],
    "update": ["sgd", None, 1],
    "repulsion_strength": [-1.0, "strong", None, np.nan],
    "relative_strength": ["yes", None, 2],
    "gradient_target": ["odds", None],
    "lengthscale": ["median", None, -0.5, 1.5, np.nan, [], [[]], ["a"] * 6],
    "lengthscale_mix": ["both", None],
    "bandwidth": ["median", None, 0.0, -1.0],
    "repulsion_fraction": [0.0, -0.1, 1.5, "all", np.nan],
    "repulsion_period": [0, 1.5, None],
    "repulsion_warmup": [-1, 1.5, None],
    "repulsion_perturbation": ["rotate", 0.3],
    "noise": ["white", None],
    "encoder": ["robust", 3, MLP(6, 2)],
    "categorical_features": ["all", 3, [9], ["nope"], [0.5], [[1]], [True, False]],
    "hidden_layer_sizes": [0, (8, 0), (8, 2.5), (8, "wide"), None, -3, (True,), [[8, 8], [4, 4]]],
    "module": [3, "mlp"],
    "optimizer": ["adam", 3],
    "max_epochs": [0, 1.5, "many", None],
    "batch_size": [0, -1, 2.5, None, "all"],
    "lr": [0.0, -1.0, "fast", None],
    "weight_decay": [-1e-3, "little", None],
    "ema_decay": [-0.1, 1.0, None, "much"],
    "early_stopping": ["yes", None, 3],
    "refit": ["yes", None, 3],
    "compile": ["yes", None, 3],
    "predict_batch_size": [0, 1.5, "all", None],
    "validation_fraction": [0.0, 1.0, 2, -0.1, None, "some"],
    "n_iter_no_change": [0, 1.5, None],
    "class_weight": ["equal", 3, {0: -1.0}, {0: np.nan}, {0: np.inf}, {0: "a"}],
    "device": ["gpu", "tpu:0", 3.5, None, "meta"],
    "callbacks": ["early", 3, [3], ["early"], [("early", 3)]],
    "random_state": ["seed", -1, 2.5],
    "verbose": ["loud", -1],
}


def test_every_parameter_is_covered():
    assert set(WRONG) == {*FoRDEClassifier().get_params(), *FoRDERegressor().get_params()}


@pytest.mark.parametrize("kind", [FoRDEClassifier, FoRDERegressor])
@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in WRONG.items() for v in vs])
def test_wrong_parameter(binary, kind, name, value):
    if name not in kind().get_params():
        with pytest.raises(TypeError, match=f"unexpected parameter {name!r}"):
            kind(**{name: value})
        return
    model = kind(3, max_epochs=2).set_params(**{name: value})
    with pytest.raises((ValueError, TypeError)) as error:
        model.fit(*binary)
    message = str(error.value)
    assert name in message
    shown = value[0] if name == "callbacks" and isinstance(value, list) else value
    assert str(shown) in message or f"shape {np.shape(value)}" in message
    assert "expected" in message or "must be" in message
    assert not hasattr(model, "net_")


def test_unknown_parameter(small):
    with pytest.raises(TypeError, match="unexpected parameter 'n_memebers', but expected one"):
        small(n_memebers=3)
    with pytest.raises(ValueError, match="Invalid parameter 'n_memebers'"):
        small().set_params(n_memebers=3)


def test_unknown_parameter_of_a_part(small, binary):
    with pytest.raises(TypeError, match="depth"):
        small(module__depth=3).fit(*binary)
    with pytest.raises(TypeError, match="speed"):
        small(optimizer__speed=3).fit(*binary)


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ({"module__activation": "sine"}, r"Got activation='sine', but expected one of \['gelu'"),
        ({"module__dropout": 1.0}, r"Got dropout=1.0, but expected a number in \[0, 1\)"),
        ({"module__dropout": "a"}, r"Got dropout='a', but expected a number in \[0, 1\)"),
        ({"iterator_train__batch_size": 0}, r"Got batch_size=0, but expected an integer >= 1"),
        (
            {"callbacks__erly_stopping__patience": 3},
            r"no callback 'erly_stopping'; expected one of",
        ),
    ],
)
def test_wrong_parameter_of_a_part(small, binary, parameter, message):
    with pytest.raises(ValueError, match=message):
        small(**parameter).fit(*binary)


def test_device_that_this_machine_lacks(small, binary):
    absent = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ValueError, match=f"Got device='{absent}', which this machine does not"):
        small(device=absent).fit(*binary)


def test_module_with_another_number_of_outputs(small, binary):
    with pytest.raises(ValueError, match=r"Got output of shape \(2, 5\).* expected \(2, 2\)"):
        small(module=nn.Linear(6, 5)).fit(*binary)


class ReturnsTuple(MLP):
    def forward(self, X):
        return super().forward(X), X


class Rounds(MLP):
    def forward(self, X):
        return super().forward(X.round().detach())


def test_module_that_returns_no_tensor(small, binary):
    with pytest.raises(TypeError, match="Got a tuple as output of the module, but expected a tens"):
        small(module=ReturnsTuple).fit(*binary)


def test_module_that_does_not_depend_on_its_input_smoothly(small, binary):
    with pytest.raises(ValueError, match=r"can't be trained \(.*differentiated twice"):
        small(module=Rounds).fit(*binary)
    assert small(module=Rounds, repulsion="none").fit(*binary).n_iter_ == 6


def test_module_whose_members_start_alike(small, binary):
    network = MLP(6, 2)
    with pytest.raises(ValueError, match="initial weights are the same for each member"):
        small(module=lambda: network).fit(*binary)


def test_module_that_is_none(small, binary):
    with pytest.raises(TypeError, match=r"Got a str from the module factory, but expected a torch"):
        small(module=str).fit(*binary)


def test_parameters_beside_a_module_instance(small, binary):
    with pytest.raises(ValueError, match="Got module__width beside an instance as module"):
        small(module=MLP(6, 2), module__width=3).fit(*binary)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "Input X contains NaN"),
        (np.inf, "Input X contains infinity"),
        ("many", "could not convert string to float: 'many'"),
    ],
)
def test_missing_infinite_and_textual_cells(small, binary, value, message):
    X, y = binary[0].astype(object), binary[1]
    X[3, 2] = value
    with pytest.raises(ValueError, match=message):
        small(encoder=None).fit(X, y)
    model = small(encoder=None).fit(*binary)
    with pytest.raises(ValueError, match=message):
        model.predict(X)


def test_cells_that_the_encoder_can_not_read(small, binary):
    X, y = binary[0].astype(object), binary[1]
    model = small().fit(X, y)
    X[3, 2] = np.inf
    with pytest.raises(ValueError, match="Got infinity in column 2, but expected"):
        small().fit(X, y)
    with pytest.raises(ValueError, match="Got infinity in column 2, but expected"):
        model.predict(X)
    X[3, 2] = "many"
    with pytest.raises(ValueError, match="Got 'many' in column 2, but expected numbers"):
        model.predict(X)
    frame = pd.DataFrame({"when": pd.to_datetime(["2020-01-01"] * 200)})
    with pytest.raises(
        ValueError, match=r"Got column 'when' of type Datetime.*, but expected numb"
    ):
        small().fit(frame, y)


def test_cells_too_large_for_single_precision(small, binary):
    X, y = binary
    too_large = r"too large for torch\.float32, after encoding"
    with pytest.raises(ValueError, match=too_large):
        small(module=MLP).fit(X * 1e300, y)
    with pytest.raises(ValueError, match=too_large):
        small(encoder=StandardScaler()).fit(X, y).predict(X * 1e300)
    assert np.isfinite(small().fit(X, y).predict_proba(X * 1e300)).all()  # which is clipped


def test_empty_and_single_rows(small, binary):
    X, y = binary
    with pytest.raises(ValueError, match=r"Got a data frame of shape \(0, 1\), but expected at l"):
        small().fit(pd.DataFrame({"a": []}), [])
    with pytest.raises(ValueError, match="0 sample"):
        small().fit(np.empty((0, 1)), [])
    with pytest.raises(ValueError, match=r"one class only, \[1\], but expected at least two"):
        small().fit(X[y == 1][:1], [1])


def test_one_class(small, binary):
    X, y = binary
    with pytest.raises(ValueError, match=r"one class only, \['yes'\], but expected at least two"):
        small().fit(X, ["yes"] * len(y))
    with pytest.raises(ValueError, match=r"one class only, \[0\].*positive weight"):
        small().fit(X, y, sample_weight=(y == 0).astype(float))


def test_other_columns_at_predict(small, binary):
    X, y = binary
    frame = pd.DataFrame(X, columns=list("abcdef"))
    model = small().fit(frame, y)
    with pytest.raises(ValueError, match="X has 5 features, but FoRDEClassifier is expecting 6"):
        small().fit(X, y).predict(X[:, :5])
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame.rename(columns={"a": "z"}))
    with pytest.raises(ValueError, match=r"feature names should match|same order"):
        model.predict(frame[list("fedcba")])


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.zeros(200), "at least one non-zero number|positive weight"),
        (-np.ones(200), "Negative values in data passed to `sample_weight`"),
        (np.ones(3), r"sample_weight.shape == \(3,\), expected \(200,\)"),
        (np.full(200, np.nan), "sample_weight contains NaN"),
    ],
)
def test_wrong_weights(small, binary, weight, message):
    with pytest.raises(ValueError, match=message):
        small().fit(*binary, sample_weight=weight)


def test_weights_that_leave_nothing(small, binary):
    X, y = binary
    with pytest.raises(ValueError, match="zero for every row together"):
        small(class_weight={0: 0.0}).fit(X, y, sample_weight=y == 0)
    with pytest.raises(ValueError, match=r"one class only, \[1\]"):
        small(class_weight={0: 0.0}).fit(X, y)
    with pytest.raises(ValueError, match="zero for every row together"):
        small(class_weight={0: 0.0, 1: 1.0, 2: 1.0}).fit(
            np.r_[X, X + 3], np.r_[y, y + 1], X_val=X[y == 0], y_val=y[y == 0]
        )


def test_outputs_that_are_not_finite(small, binary):
    X, y = binary
    model = small(hidden_layer_sizes=(), encoder=None).fit(X, y)
    model.net_.module_.stacked.get_parameter("0.weight").data *= 1e20
    with pytest.raises(ValueError, match="the network's output is not finite"):
        model.predict_proba(X * 1e25)

    class BlindInEvaluation(MLP):
        def forward(self, X):
            return super().forward(X) * (1 if self.training else np.nan)

    with pytest.raises(ValueError, match=r"validation loss that is not finite .* in epoch 1"):
        small(module=BlindInEvaluation).fit(X, y)


def test_validation_rows(small, binary):
    X, y = binary
    with pytest.raises(ValueError, match="Got X_val without y_val"):
        small().fit(X, y, X_val=X)
    with pytest.raises(ValueError, match="Got y_val without X_val"):
        small().fit(X, y, y_val=y)
    with pytest.raises(ValueError, match=r"Got labels \[2\] in y, but expected some of .*\[0, 1\]"):
        small().fit(X, y, X_val=X, y_val=y + 1)
    with pytest.raises(ValueError, match="X has 5 features"):
        small().fit(X, y, X_val=X[:, :5], y_val=y)


def test_continuous_and_two_dimensional_targets(small, binary):
    X, y = binary
    with pytest.raises(ValueError, match="continuous"):
        small().fit(X, y + 0.5 * X[:, 0])
    with pytest.warns(DataConversionWarning):
        small().fit(X, y[:, None])


def test_partial_fit_needs_classes_first_and_refuses_balancing(small, binary):
    X, y = binary
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        small().partial_fit(X, y)
    with pytest.raises(ValueError, match="class_weight='balanced' in partial_fit"):
        small(class_weight="balanced").partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match=r"Got labels \[7\] in y"):
        small().partial_fit(X, np.where(y == 1, 7, 0), classes=[0, 1])


@pytest.mark.parametrize("n_rows", [2, 3, 4, 5, 12])
def test_tables_too_small_to_hold_rows_out_are_trained_on_whole(small, n_rows):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(n_rows, 2)), np.arange(n_rows) % 2
    model = small(validation_fraction="auto").fit(X, y)
    assert ("valid_loss" in model.history_[0]) == (n_rows >= 5)
    assert model.predict_proba(X).shape == (n_rows, 2)


@pytest.mark.parametrize("validation_fraction", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("counts", [(98, 2), (20, *[1] * 10), (5, 5), (50, 3, 47), (30, 30, 30)])
def test_every_class_keeps_a_training_row(small, counts, validation_fraction):
    y = np.repeat(np.arange(len(counts)), counts)
    X = np.c_[np.arange(len(y)), y].astype(float)
    model = small(validation_fraction=validation_fraction)
    for seed in range(20):
        table, valid = model._hold_out(Table(X, y, np.ones(len(y))), seed)
        assert set(table.y) == set(y)
        assert len(valid.y) == min(int(validation_fraction * len(y)), len(y) - len(counts))
        assert sorted([*table.X[:, 0], *valid.X[:, 0]]) == list(range(len(y)))


def test_held_out_rows_are_stratified(small):
    y = np.repeat([0, 1], [900, 100])
    _, valid = small()._hold_out(Table(y[:, None], y, np.ones(1000)), 0)
    assert np.bincount(valid.y).tolist() == [90, 10]


@pytest.mark.parametrize(
    ("n_rows", "n_valid"), [(20, 4), (150, 30), (320, 64), (500, 64), (640, 64), (1000, 100)]
)
def test_small_tables_hold_out_more(n_rows, n_valid):
    y = np.arange(n_rows) % 2
    table = Table(y[:, None], y, np.ones(n_rows))
    for model in (FoRDEClassifier(), FoRDERegressor()):
        assert len(model._hold_out(table, 0)[1].y) == n_valid


class Recurrent(nn.Module):
    """Its layer can't be batched over members."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.layer = nn.GRU(n_features, n_outputs, batch_first=True)

    def forward(self, X):
        return self.layer(X[:, None])[0][:, 0]


def normalises_with_all_batches():
    layers = nn.Linear(6, 4), nn.BatchNorm1d(4, momentum=None), nn.Linear(4, 2)
    return nn.Sequential(*layers)


def test_the_trial_step_leaves_no_trace(small, binary):
    def member():
        return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))

    X, y = binary
    model = small(module=member, max_epochs=1, batch_size=200, early_stopping=False).fit(X, y)
    assert model.net_.module_.get_buffer("stacked.1.num_batches_tracked").tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"module": normalises_with_all_batches}, "Got a module that can't be evaluated"),
        ({"module": Recurrent}, r"Got a module that can't be evaluated on rows of shape \(6,\)"),
        ({"module": MLP, "module__n_features": 3}, r"can't be evaluated on rows of shape \(6,\)"),
        ({"module__n_features": 7, "encoder": None}, r"can't be evaluated on rows of shape \(6,\)"),
        (
            {"repulsion": "feature", "hidden_layer_sizes": (), "encoder": None},
            "Got a module without hidden features",
        ),
    ],
)
def test_a_module_that_does_not_fit(small, binary, parameters, message):
    model = small(**parameters)
    with pytest.raises(ValueError, match=message):
        model.fit(*binary)
    assert not hasattr(model, "net_")


def test_the_default_network_takes_no_images(small, binary):
    X, y = binary
    with pytest.raises(ValueError, match=r"can't be evaluated on rows of shape \(2, 3\)"):
        small(encoder=None).fit(X.reshape(-1, 2, 3), y)


def test_an_encoder_that_makes_other_columns_later(small, binary):
    X, y = binary
    model = small(encoder=FunctionTransformer(lambda X: X[:, (X != 9).all(axis=0)]))
    model.fit(X, y)
    X = X.copy()
    X[0, 0] = 9
    for use in (
        model.predict_proba,
        model.input_gradients,
        lambda X: model.fit(*binary, X_val=X, y_val=y),
    ):
        with pytest.raises(ValueError, match="Got 5 columns from the encoder, but expected 6"):
            use(X)


def test_input_gradients_of_what_has_none(small, binary):
    X, y = binary
    model = small(module=Rounds, repulsion="none").fit(X, y)
    with pytest.raises(ValueError, match="Got a module whose output can't be differentiated twice"):
        model.input_gradients(X)
