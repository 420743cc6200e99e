"""Bad input gets an error that names the parameter, what was got and what was expected."""

import io
import re
from functools import wraps
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, PolynomialFeatures, StandardScaler
from sklearn.utils.estimator_checks import check_estimators_nan_inf
from torch import nn

from sklearn_fordes import FoRDEClassifier, FoRDERegressor, Repulsion, load
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
    "lr_schedule": ["cosine", 3, None],
    "weight_decay": [-1e-3, "little", None],
    "ema_decay": [-0.1, 1.0, None, "much"],
    "early_stopping": ["yes", None, 3],
    "validation_fraction": [0.0, 1.0, 2, -0.1, None, "some"],
    "n_iter_no_change": [0, 1.5, None],
    "augmentation": ["swap", 3, True],
    "class_weight": ["equal", 3, {0: -1.0}, {0: np.nan}, {0: np.inf}, {0: "a"}],
    "device": ["gpu", "tpu:0", 3.5, None, "meta"],
    "callbacks": ["early", 3, [3], ["early"], [("early", 3)]],
    "warm_start": ["yes", None, 3],
    "max_time": [0.0, -1.0, "long", np.nan],
    "checkpoint_dir": [3, True, ["folder"]],
    "distributed": ["both", True, 2],
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


@pytest.mark.parametrize("value", [0, -1, 2.5, None, "all"])
def test_a_wrong_number_of_rows_at_a_time_is_refused_in_fit(small, binary, value):
    with pytest.raises(ValueError, match="'iterator_valid__batch_size' parameter"):
        small(iterator_valid__batch_size=value).fit(*binary)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("n_memebers", "n_members"),
        ("n_estimators", "n_members"),
        ("learning_rate", "lr"),
        ("quite_different", None),
        ("eval_set", None),
    ],
)
def test_an_unknown_parameter_raises_an_error_with_the_near_one(small, name, near):
    message = f"unexpected parameter {name!r}, but expected one of n_members, .*callbacks__"
    message += rf"\. Did you mean {near}\?$" if near else r"\.$"
    with pytest.raises(TypeError, match=message):
        small(**{name: 3})
    with pytest.raises(ValueError, match=message):
        small().set_params(**{name: 3})


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("eval_set", "X_val"),
        ("sample_weights", "sample_weight"),
        ("weights", "sample_weight"),
        ("n_member", None),
        ("module__dropout", None),
    ],
)
def test_an_unknown_argument_of_fit_raises_an_error_with_the_near_one(small, binary, name, near):
    message = f"unexpected argument of fit {name!r}, but expected one of X, y, sample_weight, X_val"
    with pytest.raises(TypeError, match=message) as error:
        small().fit(*binary, **{name: 3})
    assert str(error.value).endswith(f"Did you mean {near}?" if near else "groups.")


class DropsRows(StandardScaler):
    def fit_transform(self, X, y=None):
        return super().fit_transform(X)[1:]


def test_errors_of_the_users_encoder_name_it(small, binary):
    X, y = binary
    with pytest.raises(
        ValueError, match=r"Got encoder=DropsRows\(\) that can't .*: it made 179 rows"
    ):
        small(encoder=DropsRows()).fit(X, y)
    with pytest.raises(ValueError, match=r"Got encoder=PCA.* that can't be used: n_components=50"):
        small(encoder=PCA(50)).fit(X, y)


class ReturnsTuple(MLP):
    def forward(self, X):
        return super().forward(X), X


class Rounds(MLP):
    """It does not depend on its input smoothly."""

    def forward(self, X):
        return super().forward(X.round().detach())


class BlindInEvaluation(MLP):
    def forward(self, X):
        return super().forward(X) * (1 if self.training else np.nan)


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


NETWORK = MLP(6, 2)
ABSENT = f"cuda:{torch.cuda.device_count()}"
NOT_EVALUATED = r"Got a module that can't be evaluated on rows of shape \(6,\)"
WRONG_PARTS = [
    ({"module__depth": 3}, "depth"),
    ({"optimizer__speed": 3}, "speed"),
    ({"optimizer": torch.optim.LBFGS}, r"weight_decay=0\.0001 with an optimizer that takes none"),
    ({"module__activation": "sine"}, r"Got activation='sine', but expected one of \['gelu'"),
    ({"module__dropout": 1.0}, r"Got dropout=1.0, but expected a number in \[0, 1\)"),
    ({"module__dropout": "a"}, r"Got dropout='a', but expected a number in \[0, 1\)"),
    ({"iterator_train__batch_size": 0}, r"Got batch_size=0, but expected an integer >= 1"),
    ({"callbacks__erly_stopping__patience": 3}, "no callback 'erly_stopping'; expected one of"),
    ({"device": ABSENT}, f"Got device='{ABSENT}', which this machine does not"),
    ({"module": nn.Linear(6, 5)}, r"Got output of shape \(2, 5\).* expected \(2, 2\)"),
    ({"module": ReturnsTuple}, "Got a tuple as output of the module, but expected a tensor"),
    ({"module": lambda: NETWORK}, "initial weights are the same for each member"),
    ({"module": str}, r"Got a str from the module factory, but expected a torch"),
    ({"module": NETWORK, "module__width": 3}, "Got module__width with an instance as module"),
    ({"module": Rounds}, r"can't be trained \(.*differentiated twice"),
    ({"module": normalises_with_all_batches}, r"can't be trained \(vmap.*one that torch.func.vmap"),
    ({"module": BlindInEvaluation}, "validation loss that is not finite .* in epoch 1"),
    ({"module": Recurrent}, NOT_EVALUATED),
    ({"module": MLP, "module__n_features": 3}, NOT_EVALUATED),
    ({"module__n_features": 7, "encoder": None}, NOT_EVALUATED),
    (
        {"repulsion": "feature", "hidden_layer_sizes": (), "encoder": None},
        "Got a module without hidden features",
    ),
    (
        {"class_weight": {0: 0.0}},
        r"one class only, \[1\], but expected at least two classes with rows of positive weight",
    ),
]


@pytest.mark.parametrize(("parameters", "message"), WRONG_PARTS)
@pytest.mark.filterwarnings("ignore:Training diverged")
def test_a_wrong_part_of_the_net_raises_an_error(small, binary, parameters, message):
    model = small(**parameters)
    with pytest.raises((ValueError, TypeError), match=message):
        model.fit(*binary)
    assert not hasattr(model, "net_")


# Arguments of fit for 200 rows of six columns, and two classes.
WRONG_DATA = {
    "at least one non-zero number|positive weight": lambda X, y: (X, y, np.zeros(200)),
    "Negative values in data passed to `sample_weight`": lambda X, y: (X, y, -np.ones(200)),
    r"sample_weight.shape == \(3,\), expected \(200,\)": lambda X, y: (X, y, np.ones(3)),
    "sample_weight contains NaN": lambda X, y: (X, y, np.full(200, np.nan)),
    "Got sample_weight that can't be used: could not convert": lambda X, y: (X, y, ["w"] * 200),
    r"Got X of shape \(200, 3, 2\), .*: X.reshape\(len\(X\), -1\)": (
        lambda X, y: (X.reshape(200, 3, 2), y)
    ),
    r"one class only, \[0\].*positive weight": lambda X, y: (X, y, y == 0),
    r"one class only, \['yes'\], but expected at least": lambda X, y: (X, ["yes"] * 200),
    r"one class only, \[1\], but expected at least": lambda X, y: (X[:1], [1]),
    r"Got a data frame of shape \(0, 1\)": lambda X, y: (pd.DataFrame({"a": []}), []),
    "0 sample": lambda X, y: (np.empty((0, 1)), []),
    "continuous": lambda X, y: (X, y + 0.5 * X[:, 0]),
    "inconsistent numbers of samples": lambda X, y: (X, y[:-1]),
    "Got X_val alone, but expected X_val and y_val": lambda X, y: (X, y, None, X),
    "Got y_val alone, but expected X_val and y_val": lambda X, y: (
        X,
        y,
        None,
        None,
        y,
    ),
    r"Got X_val and y_val that can't be used: .*labels \[2\] in y, but expected .*\[0, 1\]": (
        lambda X, y: (X, y, None, X, y + 1)
    ),
    "Got X_val and y_val that can't be used: X has 5 features": (
        lambda X, y: (X, y, None, X[:, :5], y)
    ),
    "the encoder makes no column": (
        lambda X, y: (pd.DataFrame({"when": pd.to_datetime(["2020-01-01"] * 200)}), y)
    ),
    "Got y with masked values, but expected one for every row": (
        lambda X, y: (X, np.ma.MaskedArray(y, mask=np.arange(len(y)) % 2 == 0))
    ),
    "Got sample_weight with masked values": (
        lambda X, y: (X, y, np.ma.MaskedArray(np.ones(len(y)), mask=np.arange(len(y)) == 0))
    ),
    "Got y with 2 missing labels, the first in row 1,": (
        lambda X, y: (X[:4], np.array(["a", None, "b", np.nan], dtype=object))
    ),
    r"Got y with labels that can't be sorted, of the types \['int', 'str'\]": (
        lambda X, y: (X[:4], np.array(["a", 1, "b", 2], dtype=object))
    ),
}


def test_an_encoder_that_returns_words_raises_an_error(small, binary):
    X = pd.DataFrame(binary[0], columns=list("abcdef")).assign(word="a")
    with pytest.raises(ValueError, match=r"Got values of type .* from the encoder"):
        small(encoder=FunctionTransformer()).fit(X, binary[1])
    numbers = small(encoder=FunctionTransformer()).fit(X.assign(word=1).astype(object), binary[1])
    assert numbers.fitted_.input_shape == (7,)


@pytest.mark.parametrize(("message", "arguments"), WRONG_DATA.items())
def test_wrong_rows_targets_or_weights_raise_an_error(small, binary, message, arguments):
    with pytest.raises(ValueError, match=message):
        small().fit(*arguments(*binary))


def test_words_as_targets_of_a_regressor_name_the_classifier(binary):
    with pytest.raises(ValueError, match="expected numbers: FoRDEClassifier takes labels"):
        FoRDERegressor().fit(binary[0], ["yes"] * 200)


@pytest.mark.parametrize("confidence", [0, 1, 90, "0.9", None])
def test_a_confidence_that_is_no_share_is_refused(binary, confidence):
    model = FoRDERegressor(2, max_epochs=1, random_state=0).fit(*binary)
    with pytest.raises(ValueError, match=f"Got confidence={confidence!r}, but expected a number"):
        model.predict_interval(binary[0], confidence)


def test_class_weights_that_leave_nothing_raise_an_error(small, binary):
    X, y = binary
    with pytest.raises(ValueError, match="make every row's weight zero"):
        small(class_weight={0: 0.0}).fit(X, y, sample_weight=y == 0)
    with pytest.raises(ValueError, match="make every row's weight zero"):
        small(class_weight={0: 0.0, 1: 1.0, 2: 1.0}).fit(
            np.r_[X, X + 3], np.r_[y, y + 1], X_val=X[y == 0], y_val=y[y == 0]
        )


NOT_ENCODED = (
    r"Got {} in row 3, column 2 of X, which no encoder encodes \(encoder=None\), but expected fin"
)


@pytest.mark.parametrize(
    ("encoder", "value", "message"),
    [
        (None, np.nan, NOT_ENCODED.format("nan")),
        (None, np.inf, NOT_ENCODED.format("inf")),
        (None, "many", NOT_ENCODED.format("'many'")),
        ("auto", np.inf, "Got inf in column 2, but expected finite"),
    ],
)
def test_a_cell_that_can_not_be_read_raises_an_error(small, binary, encoder, value, message):
    X, y = binary[0].astype(object), binary[1]
    model = small(encoder=encoder).fit(X, y)
    X[3, 2] = value
    for use in (model.predict, lambda X: small(encoder=encoder).fit(X, y)):
        with pytest.raises(ValueError, match=message):
            use(X)


@pytest.mark.parametrize("value", ["many", np.nan, None, pd.NA, pd.Timestamp(0), np.inf], ids=repr)
@pytest.mark.parametrize("dtype", [object, float])
def test_a_module_without_an_encoder_names_the_column_and_what_helps(small, binary, value, dtype):
    frame = pd.DataFrame(binary[0], columns=list("abcdef")).astype(dtype)
    model = small(module=MLP).fit(frame, binary[1])
    other = frame.assign(d=[value if row == 3 else row for row in range(len(frame))])
    shown = re.escape(repr(other["d"].to_numpy().item(3)))
    message = rf"Got {shown} in row 3, column 'd' of X, .* \(module=MLP\), but .*TabularEncoder\(\)"
    uses = model.predict, model.ood_score, lambda X: small(module=MLP).fit(X, binary[1])
    for use in uses:
        with pytest.raises(ValueError, match=message):
            use(other)


def test_images_without_an_encoder_are_named_by_row(small, binary):
    images = np.zeros((200, 1, 2, 3), dtype=np.float32)
    images[7, 0, 1, 1] = np.nan
    with pytest.raises(ValueError, match=r"Got nan in row 7 of X, .*\(module=Sequential\)"):
        small(module=nn.Sequential(nn.Flatten(), nn.Linear(6, 2))).fit(images, binary[1])


@pytest.mark.parametrize("parameters", [{"module": MLP}, {"encoder": None}, {}], ids=str)
def test_columns_in_another_order_are_refused(small, binary, parameters, tmp_path):
    frame = pd.DataFrame(binary[0], columns=list("abcdef"))
    model = small(**parameters).fit(frame, binary[1])
    model.save(tmp_path / "model")
    for fitted in (model, load(tmp_path / "model", module=parameters.get("module"))):
        assert fitted.feature_names_in_.tolist() == list("abcdef")
        np.testing.assert_array_equal(fitted.predict_proba(frame), model.predict_proba(frame))
        with pytest.raises(ValueError, match="must be in the same order"):
            fitted.predict(frame[list("fedcba")])


@pytest.mark.parametrize(
    ("parameters", "name", "expected"),
    [
        ({"repulsion": "function"}, "repulsion__fraction", "Repulsion('function', fraction=0.5)"),
        ({"encoder": "auto"}, "encoder__max_levels", "TabularEncoder(max_levels=0.5)"),
        ({"augmentation": None}, "augmentation__exposed", "CellCorruption(exposed=0.5)"),
    ],
    ids=str,
)
def test_a_parameter_of_a_parameter_needs_an_object(small, parameters, name, expected):
    part, value = next(iter(parameters.items()))
    message = re.escape(f"Got {name} with {part}={value!r}, but expected {part}={expected}.")
    with pytest.raises(TypeError, match=message):
        small(**parameters, **{name: 0.5})
    with pytest.raises(ValueError, match=message):
        small(**parameters).set_params(**{name: 0.5})


@pytest.mark.parametrize("repulsion", ["function", Repulsion()], ids=str)
def test_an_unknown_parameter_of_a_parameter_raises_an_error(small, repulsion):
    with pytest.raises((TypeError, ValueError), match=r"repulsion__frac\b|'frac'"):
        small(repulsion=repulsion, repulsion__frac=0.5)
    with pytest.raises(ValueError, match=r"repulsion__frac\b|'frac'"):
        small(repulsion=repulsion).set_params(repulsion__frac=0.5)


def test_parameters_of_an_encoder_of_the_users_are_not_those_of_ours(small):
    with pytest.raises(TypeError, match="unexpected parameter 'encoder__with_mean'"):
        small(encoder=StandardScaler(), encoder__with_mean=False)
    model = small(encoder=StandardScaler()).set_params(encoder__with_mean=False)
    assert model.encoder.with_mean is False


@pytest.mark.parametrize(
    "column",
    [
        np.array(["2020-01-01", "NaT"] * 100, dtype="M8[ns]"),
        np.array([1, "NaT"] * 100, dtype="m8[s]"),
        np.array(["1", "2"] * 100),
    ],
    ids=lambda column: str(column.dtype),
)
def test_dates_and_text_are_no_numbers_without_an_encoder(small, binary, column):
    X = np.stack([column, column], axis=1)
    for rows in (X, pd.DataFrame(X)):
        if rows is X or column.dtype.kind != "U":
            with pytest.raises(ValueError, match=r"Got .* in row 0, column 0 of X, which no enc"):
                small(encoder=None).fit(rows, binary[1])


def test_a_long_text_is_cut_in_an_error(small, binary):
    X = binary[0].astype(object)
    X[5, 1] = "text " * 10**5
    with pytest.raises(ValueError, match=r"Got 'text te.* in row 5, column 1 of X") as caught:
        small(encoder=None).fit(X, binary[1])
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("names", [list("aabcde"), ["a", *range(5)], [*range(6)]], ids=str)
@pytest.mark.filterwarnings("error")
def test_names_that_name_no_column_are_left_out_without_an_encoder(small, binary, names):
    frame = pd.DataFrame(binary[0], columns=names)
    model = small(encoder=None).fit(frame, binary[1])
    assert not hasattr(model, "feature_names_in_")
    np.testing.assert_array_equal(model.predict_proba(frame), model.predict_proba(binary[0]))


@pytest.mark.parametrize("parameters", [{"encoder": None}, {"module": MLP}], ids=str)
@pytest.mark.parametrize("kind", [FoRDEClassifier, FoRDERegressor])
def test_scikit_learns_check_of_gaps_passes_without_an_encoder(kind, parameters):
    model = kind(n_members=2, max_epochs=2, **parameters)
    check_estimators_nan_inf(kind.__name__, model)


@pytest.mark.parametrize("space", ["none", "weight"])
def test_lengthscales_of_no_feature_are_left_to_the_space(small, space):
    frame, y = pd.DataFrame({"a": list("xyz") * 40, "b": range(120)}), [0, 1] * 60
    model = small(repulsion=space, lengthscale=np.ones(7))
    if space == "none":
        model.fit(frame, y)
    else:
        with pytest.raises(ValueError, match="but expected 'identity'"):
            model.fit(frame, y)


def test_a_model_without_names_reads_frames_as_arrays(small, binary):
    """Files of version 0.2.0a1 hold no names of columns where there is no encoder."""
    frame = pd.DataFrame(binary[0], columns=list("abcdef"))
    model = small(encoder=None).fit(*binary)
    np.testing.assert_array_equal(model.predict_proba(frame), model.predict_proba(binary[0]))


@pytest.mark.parametrize("X", [{"a": [1, 2]}, "data.csv", None, 0.3], ids=str)
def test_what_is_no_table_is_named_by_its_type(small, binary, X):
    message = f"Got X of type {type(X).__name__} that is no table, but expected a data frame"
    for use in (small().fit(*binary).predict, lambda X: small().fit(X, binary[1])):
        with pytest.raises(ValueError, match=message):
            use(X)


class Unnamed(nn.Module):
    def __init__(self, width, n_outputs):
        super().__init__()
        self.layer = nn.Linear(width, n_outputs)

    def forward(self, X):
        return self.layer(X)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"module": Unnamed},
            r"Got module=Unnamed, with the arguments \(width, n_outputs\) .*width",
        ),
        ({"module": Unnamed, "module__depth": 2}, r"Got module=Unnamed, .* others as module__"),
        (
            {"repulsion": lambda ensemble, X: X},
            r"as repulsion, .* a function of \(ensemble, X, y\)",
        ),
        ({"augmentation": lambda X: X}, r"as augmentation, .* a function of \(X, rng\)"),
        ({"lengthscale": lambda: 1.0}, r"as lengthscale, .* a function of \(X\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_functions_of_other_arguments_are_named(small, binary, given, message):
    with pytest.raises(TypeError, match=message):
        small(**given).fit(*binary)


def test_what_a_decorator_gives_is_no_argument(small, binary):
    def doubled(function):
        @wraps(function)
        def wrapped(X):
            return function(X, 2.0)

        return wrapped

    @doubled
    def lengths(X, scale):
        return scale * torch.ones(X.shape[1])

    def factory(n_features, n_outputs, generator, given=1):
        assert isinstance(generator, torch.Generator)
        return nn.Linear(n_features, n_outputs)

    model = small(lengthscale=lengths, module=factory, module__given=3).fit(*binary)
    assert model.predict_proba(binary[0]).shape == (len(binary[0]), 2)


def test_an_error_of_the_function_itself_is_not_explained(small, binary):
    def space(ensemble, X, y):
        return ensemble(X) + None

    with pytest.raises(TypeError, match="unsupported operand"):
        small(repulsion=space).fit(*binary)


def test_arguments_of_a_module_may_be_given(small, binary):
    model = small(module=Unnamed, module__width=6).fit(*binary)
    assert model.predict_proba(binary[0]).shape == (len(binary[0]), 2)


class Scanner:
    def to_table(self):
        return None


class ParquetFile:
    def iter_batches(self):
        return iter(())


@pytest.mark.parametrize(
    ("X", "advice"),
    [
        ("data.csv", r"pandas.read_csv .* pyarrow.dataset.dataset\(path\)"),
        (Path("data.parquet"), r"pandas.read_parquet, or pass pyarrow.dataset.dataset\(path\)"),
        (io.BytesIO(b"a,b"), "Read a file by pandas.read_csv"),
        (ParquetFile(), r"Pass its read\(\), or pyarrow.dataset.dataset\(path\)"),
        (Scanner(), r"Pass its to_table\(\), or the dataset that it scans"),
        ({"a": [1, 2]}, r"Pass pandas.DataFrame\(X\)"),
        (lambda: iter(()), r"pairs \(X_block, y_block\), without y"),
        (iter([[1.0]]), r"a function that returns a new iterator over pairs"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("y", ["kind", [0, 1]], ids=str)
def test_the_error_about_what_is_no_table_says_what_to_pass(small, X, y, advice):
    with pytest.raises(ValueError, match=f"Got X of type {type(X).__name__}.*{advice}"):
        small().fit(X, y)


@pytest.mark.parametrize(
    ("X", "advice"),
    [
        ([{"a": 1.0, "b": 2.0}], r"pandas.DataFrame\(X\) makes a row of each dict"),
        (pd.Series([1.0, 2.0]), r"X.to_frame\(\) if it is one feature, X.to_frame\(\).T if it is"),
        (np.zeros(2), r"X.reshape\(-1, 1\) if it is one feature, X.reshape\(1, -1\) if it is one"),
        (np.zeros((2, 2, 2)), r"X.reshape\(len\(X\), -1\)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_error_about_other_axes_says_how_to_make_a_table(small, binary, X, advice):
    with pytest.raises(ValueError, match=rf"Got X of shape .* Reshape your data: {advice}"):
        small().fit(*binary).predict(X)


def test_an_array_with_the_name_of_a_column_gets_no_advice_on_files(small, binary):
    with pytest.raises(ValueError, match=r"a source that is read in blocks\.$"):
        small().fit(binary[0], "kind")


@pytest.mark.parametrize(
    ("kind", "method", "given", "match"),
    [
        (FoRDERegressor, "predict_interval", {"alpha": 0.1}, "X, confidence. .*which is 1 - alpha"),
        (FoRDERegressor, "predict_interval", {"coverage": 0.9}, "Did you mean confidence?"),
        (FoRDERegressor, "predict", {"quantile": [0.5]}, "Did you mean quantiles?"),
        (FoRDEClassifier, "predict_proba", {"chunks": 3}, "X."),
    ],
)
def test_an_unknown_argument_of_a_prediction_names_the_known_ones(
    binary, kind, method, given, match
):
    model = kind(2, max_epochs=1, random_state=0)
    message = f"unexpected argument of {method} '{next(iter(given))}', but expected one of .*"
    with pytest.raises(TypeError, match=message + match.replace("?", r"\?")):
        getattr(model, method)(binary[0], **given)


def test_errors_about_long_parameters_are_short(small, binary):
    for name, value in [("n_members", np.arange(9999)), ("validation_fraction", np.zeros(9999))]:
        with pytest.raises(ValueError, match=f"'{name}' parameter") as caught:
            small(**{name: value}).fit(*binary)
        assert len(str(caught.value)) < 700
        assert str(caught.value).endswith("instead.")


def test_validation_rows_that_a_pipeline_did_not_transform_are_explained(small, binary):
    X, y = binary
    wider = PolynomialFeatures(2)
    with pytest.raises(
        ValueError, match=r'6 features.* If .* pipeline.*transform_input=\["X_val"\]'
    ):
        make_pipeline(wider, small()).fit(
            X,
            y,
            **{
                f"{type(small()).__name__.lower()}__{name}": value
                for name, value in {"X_val": X[:20], "y_val": y[:20]}.items()
            },
        )
    with pytest.raises(ValueError, match="but expected some of the classes") as caught:
        small().fit(X, y, X_val=X, y_val=y + 7)
    assert "pipeline" not in str(caught.value)


@pytest.mark.parametrize("names", [True, False])
def test_gaps_after_an_encoder_are_named_by_their_column(small, binary, names):
    # Older versions of pandas write through to the array.
    X, y = pd.DataFrame(binary[0].copy(), columns=list("abcdef")), binary[1]
    own = make_column_transformer((StandardScaler(), list("abc")), ("passthrough", list("def")))
    encoder = own if names else FunctionTransformer(np.asarray)
    model = small(encoder=encoder).fit(X, y)
    X.loc[7, "e"] = np.nan
    name = "'passthrough__e'" if names else "4"
    message = rf"NaN or infinity, .* after encoding \(in encoded column {name}\), but expected"
    with pytest.raises(ValueError, match=message):
        model.predict(X)
    with pytest.raises(ValueError, match=message):
        small(encoder=encoder, early_stopping=False).fit(X, y)


def test_text_in_a_column_of_numbers_raises_an_error(small, binary):
    X, y = binary[0].astype(object), binary[1]
    model = small().fit(X, y)
    X[3, 2] = "many"
    with pytest.raises(ValueError, match="Got 'many' in column 2, but expected finite numbers"):
        model.predict(X)


def test_cells_too_large_for_single_precision(small, binary):
    X, y = binary
    too_large = r"too large for torch\.float32, after encoding"
    with pytest.raises(ValueError, match=too_large):
        small(module=MLP).fit(X * 1e300, y)
    with pytest.raises(ValueError, match=too_large):
        small(encoder=StandardScaler()).fit(X, y).predict(X * 1e300)
    assert np.isfinite(small().fit(X, y).predict_proba(X * 1e300)).all()  # which is clipped


def test_outputs_that_are_not_finite_raise_an_error(small, binary):
    X, y = binary
    model = small(hidden_layer_sizes=(), encoder=None).fit(X, y)
    model.fitted_.members.stacked.get_parameter("0.weight").data *= 1e20
    with pytest.raises(ValueError, match="the network's output is not finite"):
        model.predict_proba(X * 1e25)


def test_partial_fit_needs_classes_first_and_refuses_balancing(small, binary):
    X, y = binary
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        small().partial_fit(X, y)
    with pytest.raises(ValueError, match="class_weight='balanced' in partial_fit"):
        small(class_weight="balanced").partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match=r"Got labels \[7\] in y"):
        small().partial_fit(X, np.where(y == 1, 7, 0), classes=[0, 1])


def test_the_default_network_takes_no_images(small, binary):
    X, y = binary
    with pytest.raises(ValueError, match=r"can't be evaluated on rows of shape \(2, 3\)"):
        small(encoder=None).fit(X.reshape(-1, 2, 3), y)


def test_an_encoder_that_makes_other_columns_later_raises_an_error(small, binary):
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
        with pytest.raises(ValueError, match=r"encoded rows of shape \(5,\), but expected \(6,\)"):
            use(X)


def test_a_module_without_input_gradients_can_be_trained_without_them(small, binary):
    model = small(module=Rounds, repulsion="none").fit(*binary)
    assert model.n_iter_ == 6
    with pytest.raises(ValueError, match="Got a module whose output can't be differentiated twice"):
        model.input_gradients(binary[0])
