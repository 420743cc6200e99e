"""Bad input gets an error that names the parameter, what was got and what was expected."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import DataConversionWarning
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch import nn

from sklearn_fordes import FoRDEClassifier, FoRDERegressor, Repulsion
from sklearn_fordes.networks import MLP

WRONG = {
    "n_members": [0, -1, 2.5, "ten", None],
    "repulsion": ["weights", None, 1],
    "repulsion_strength": [-1.0, "strong", None, np.nan],
    "lengthscale": ["median", None, -0.5, 1.5, np.nan, [], [[]], ["a"] * 6],
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
    "validation_fraction": [0.0, 1.0, 2, -0.1, None, "some"],
    "n_iter_no_change": [0, 1.5, None],
    "class_weight": ["equal", 3, {0: -1.0}, {0: np.nan}, {0: np.inf}, {0: "a"}],
    "device": ["gpu", "tpu:0", 3.5, None, "meta"],
    "callbacks": ["early", 3, [3], ["early"], [("early", 3)]],
    "random_state": ["seed", -1, 2.5],
    "verbose": ["loud", -1],
}
WRONG_OF_A_REPULSION = {
    "space": ["weights", None, 1],
    "update": ["sgd", None, 1],
    "target": ["odds", None],
    "bandwidth": ["median", None, 0.0, -1.0],
    "fraction": [0.0, -0.1, 1.5, "all", np.nan],
    "period": [0, 1.5, None, True],
    "warmup": [-1, 1.5, None],
    "relative": ["yes", None, 2],
}


def test_every_parameter_is_covered():
    assert set(WRONG) == {*FoRDEClassifier().get_params(), *FoRDERegressor().get_params()}
    assert set(WRONG_OF_A_REPULSION) == set(Repulsion().get_params())


@pytest.mark.parametrize("kind", [FoRDEClassifier, FoRDERegressor])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_parameter_raises_an_error_that_names_it(binary, kind, name):
    for value in WRONG[name]:
        if name not in kind().get_params():
            with pytest.raises(TypeError, match=f"unexpected parameter {name!r}"):
                kind(**{name: value})
            continue
        model = kind(3, max_epochs=2).set_params(**{name: value})
        with pytest.raises((ValueError, TypeError)) as error:
            model.fit(*binary)
        message = str(error.value)
        assert name in message
        shown = value[0] if name == "callbacks" and isinstance(value, list) else value
        assert str(shown) in message or f"shape {np.shape(value)}" in message
        assert "expected" in message or "must be" in message
        assert not hasattr(model, "net_")


@pytest.mark.parametrize("kind", [FoRDEClassifier, FoRDERegressor])
@pytest.mark.parametrize("name", WRONG_OF_A_REPULSION)
def test_a_wrong_parameter_of_a_repulsion_raises_an_error(binary, kind, name):
    shown = "repulsion" if name == "space" else name
    for value in WRONG_OF_A_REPULSION[name]:
        model = kind(3, repulsion=Repulsion().set_params(**{name: value}))
        with pytest.raises(ValueError) as error:  # noqa: PT011
            model.fit(*binary)
        assert str(error.value).startswith(f"Got {shown}={value!r}, but expected")
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


def test_a_module_factory_that_makes_no_module(small, binary):
    with pytest.raises(TypeError, match=r"Got a str from the module factory, but expected a torch"):
        small(module=str).fit(*binary)


def test_parameters_with_a_module_instance(small, binary):
    with pytest.raises(ValueError, match="Got module__width with an instance as module"):
        small(module=MLP(6, 2), module__width=3).fit(*binary)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "Got X that contains NaN or infinity, but expected finite"),
        (np.inf, "Got X that contains NaN or infinity, but expected finite"),
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
    with pytest.raises(ValueError, match="make every row's weight zero"):
        small(class_weight={0: 0.0}).fit(X, y, sample_weight=y == 0)
    with pytest.raises(ValueError, match=r"one class only, \[1\]"):
        small(class_weight={0: 0.0}).fit(X, y)
    with pytest.raises(ValueError, match="make every row's weight zero"):
        small(class_weight={0: 0.0, 1: 1.0, 2: 1.0}).fit(
            np.r_[X, X + 3], np.r_[y, y + 1], X_val=X[y == 0], y_val=y[y == 0]
        )


def test_outputs_that_are_not_finite(small, binary):
    X, y = binary
    model = small(hidden_layer_sizes=(), encoder=None).fit(X, y)
    model.fitted_.members.stacked.get_parameter("0.weight").data *= 1e20
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


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"module": normalises_with_all_batches},
            r"can't be trained \(vmap.*one that torch.func.vmap",
        ),
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
