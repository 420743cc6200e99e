"""Files without code: what comes back, what is refused, and that old files go on loading."""

import json
import os
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors
import safetensors.numpy
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, from_dtype
from sklearn.base import clone
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import EpochTimer

import sklearn_fordes
from contracts import SIZES, EstimatorContract, ForClassifier, ForRegressor
from frames import KINDS, as_pandas, plain_columns, with_dates
from sklearn_fordes import FoRDEClassifier, FoRDERegressor, Repulsion, load
from sklearn_fordes.networks import MLP
from sklearn_fordes.particles import Lengthscale, tuned_lengthscale
from sklearn_fordes.persistence import pack, unpack
from sklearn_fordes.preprocessing import TabularEncoder, encoder_from, encoder_state

DATA = Path(__file__).parent / "data"
SETTINGS = {
    "default": {},
    "weight": {"repulsion": "weight"},
    "function": {"repulsion": "function"},
    "feature": {"repulsion": Repulsion("feature", fraction=0.5, period=2)},
    "none": {"repulsion": "none"},
    "svgd": {"repulsion": Repulsion("weight", update="svgd", bandwidth=2.0)},
    "one member": {"n_members": 1},
    "pca": {"lengthscale": "pca", "early_stopping": False},
    "array": {"lengthscale": np.array([1.0, 2.0, np.inf, 4.0]), "encoder": None},
    "linear": {"hidden_layer_sizes": (), "module__activation": "tanh"},
    "sgd": {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9, "lr": 1e-3},
    "adafactor": {"optimizer": torch.optim.Adafactor, "early_stopping": False},
    "encoder": {"encoder": TabularEncoder(clip=2.0).set_output(transform="pandas")},
    "batches": {"iterator_valid__batch_size": 7, "random_state": np.random.RandomState(3)},
}


class Own(MLP):
    """A module of the user's own."""


def own_bfloat16(n_features, n_outputs):
    return torch.nn.Linear(n_features, n_outputs, dtype=torch.bfloat16)


def own_frozen(n_features, n_outputs):
    """Its first layer stays as it was drawn."""
    first = torch.nn.Linear(n_features, 6).requires_grad_(False)
    return torch.nn.Sequential(first, torch.nn.BatchNorm1d(6), torch.nn.Linear(6, n_outputs))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def shown(value):
    """A representation without addresses in memory."""
    return re.sub(" (at|object at) 0x[0-9a-fA-F]+", "", repr(value))


def assert_same(loaded, model, X, y=None):
    """All that two estimators tell of rows and of themselves is the same."""
    assert type(loaded) is type(model)
    assert shown(loaded.get_params()) == shown(model.get_params())
    assert shown(clone(loaded).get_params()) == shown(clone(model).get_params())
    methods = ["predict", "predict_uncertainty", "ood_score", "input_gradients"]
    is_classifier = isinstance(model, FoRDEClassifier)
    methods += ["predict_proba_members"] if is_classifier else ["predict_members"]
    for name in methods:
        found, expected = (np.asarray(getattr(m, name)(X)) for m in (loaded, model))
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    assert repr(loaded.history_) == repr(model.history_)
    assert (loaded.n_iter_, loaded.n_features_in_) == (model.n_iter_, model.n_features_in_)
    names = [getattr(m, "feature_names_in_", np.array([])) for m in (loaded, model)]
    np.testing.assert_array_equal(*names, strict=True)
    assert loaded.encoder_ is loaded.fitted_.encoder
    if isinstance(model.encoder_, TabularEncoder):
        pd.testing.assert_frame_equal(loaded.encoder_.report(), model.encoder_.report())
        assert loaded.encoder_.get_feature_names_out().tolist() == (
            model.encoder_.get_feature_names_out().tolist()
        )
    assert type(loaded.fitted_.members) is type(model.fitted_.members)
    for alone, expected in zip(loaded.estimators_, model.estimators_, strict=True):
        np.testing.assert_array_equal(alone.predict(X), expected.predict(X))


class Contract(EstimatorContract):
    @pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
    def test_all_comes_back(self, data, path, settings):
        X, y = data
        model = self.kind(**{**SIZES, "random_state": 0, **settings}).fit(X, y)
        model.save(path, include_training_state=True)
        assert_same(load(path), model, X)
        # With the training state, training goes on alike.
        loaded = self.kind.load(path)
        for _ in range(2):
            expected = self.predict(model.partial_fit(X, y), X)
            np.testing.assert_array_equal(self.predict(loaded.partial_fit(X, y), X), expected)

    def test_without_the_training_state_the_optimizer_starts_anew(self, make, data, path):
        X, y = data
        model = make().fit(X, y)
        model.save(path)
        small = path.stat().st_size
        loaded = load(path)
        assert not loaded.net_.optimizer_.state
        assert loaded.partial_fit(X, y).n_iter_ == model.n_iter_ + 1
        assert not np.array_equal(self.predict(loaded, X), self.predict(model, X))
        model.save(path, include_training_state=True)
        assert path.stat().st_size > small

    def test_a_loaded_estimator_is_saved_pickled_and_refitted_as_any_other(self, make, data, path):
        X, y = data
        model = make().fit(X, y)
        model.save(path)
        again = pickle.loads(pickle.dumps(load(path)))
        again.save(path)
        assert_same(load(path), model, X)
        refitted = load(path).fit(X, y)
        np.testing.assert_array_equal(self.predict(refitted, X), self.predict(model, X))
        member = model.estimators_[1]
        member.save(path)
        np.testing.assert_array_equal(self.predict(load(path), X), self.predict(member, X))

    @pytest.mark.parametrize("module", [Own, own_bfloat16, own_frozen])
    def test_a_module_comes_from_the_caller(self, make, data, path, module):
        X, y = data
        model = make(module=module).fit(X, y)
        model.save(path, include_training_state=True)
        loaded = load(path, module=module)
        assert_same(loaded, model, X)
        expected = self.predict(model.partial_fit(X, y), X)
        np.testing.assert_array_equal(self.predict(loaded.partial_fit(X, y), X), expected)
        with pytest.raises(ValueError, match=rf"of an estimator with module={module.__name__}"):
            load(path)
        with pytest.raises(ValueError, match="not of the shape and type of the module's"):
            load(path, module=own_bfloat16 if module is Own else Own)
        make().fit(X, y).save(path)
        with pytest.raises(ValueError, match="with module=None, and module=<class"):
            load(path, module=Own)

    def test_loading_does_not_depend_on_how_torch_computes(self, make, data, path):
        X, y = data
        model = make().fit(X, y)
        model.save(path, include_training_state=True)
        with torch.inference_mode(), torch.device("meta"):
            loaded = load(path)
        state = torch.get_rng_state()
        expected = self.predict(model.partial_fit(X, y), X)
        np.testing.assert_array_equal(self.predict(loaded.partial_fit(X, y), X), expected)
        assert torch.equal(torch.get_rng_state(), state)

    def test_settings_of_the_fit_count_and_those_of_now_come_back(self, make, data, path):
        X, y = data
        model = make(hidden_layer_sizes=(5,)).fit(X, y)
        model.set_params(hidden_layer_sizes=[7], n_members=9, module__activation="relu")
        model.set_params(lr=np.float64(np.nan), optimizer__betas=(0.5, np.float32(0.25)))
        model.save(path)
        loaded = load(path)
        assert_same(loaded, model, X)
        assert (loaded.hidden_layer_sizes, loaded.n_members) == ([7], 9)
        assert isinstance(loaded.lr, np.float64)
        assert type(loaded.optimizer__betas) is tuple
        with pytest.raises(ValueError, match="that make another network"):
            loaded.set_params(lr=0.1, optimizer__betas=(0.5, 0.5)).partial_fit(X, y)

    def test_a_class_of_the_users_own_loads_its_files(self, make, data, path):
        class Subclass(self.kind):
            pass

        model = Subclass(**SIZES, random_state=0).fit(*data)
        model.save(path)
        assert_same(Subclass.load(path), model, data[0])
        for refused in (load, FoRDEClassifier.load, FoRDERegressor.load):
            with pytest.raises(ValueError, match="of a 'Subclass', but expected one of"):
                refused(path)

    def test_a_failing_save_leaves_the_older_file(self, make, data, path, monkeypatch):
        model = make().fit(*data)
        model.save(path)
        older = path.read_bytes()
        model.set_params(callbacks=[EpochTimer()])
        with pytest.raises(ValueError, match=r"callbacks\[0\]"):
            model.save(path)
        model.set_params(callbacks=None)
        for function in ("fsync", "replace"):
            with monkeypatch.context() as patch:
                patch.setattr(os, function, _no_space)
                with pytest.raises(OSError, match="No space left"):
                    model.save(path)
            assert path.read_bytes() == older
            assert os.listdir(path.parent) == [path.name]

    @pytest.mark.parametrize(
        ("settings", "remedy", "message"),
        [
            ({"callbacks": [EpochTimer()]}, {"callbacks": None}, r"callbacks\[0\]=<skorch.*None"),
            ({"lengthscale": tuned_lengthscale(0.5)}, {"lengthscale": "pca"}, "lengthscale=func"),
            (
                {"optimizer": type("Adam", (torch.optim.Adam,), {})},
                {"optimizer": None},
                "optimizer=",
            ),
            (
                {"repulsion": lambda ensemble, X, y: ensemble(X)},
                {"repulsion": "weight"},
                r"repulsion=<function.*set_params\(repulsion",
            ),
            (
                {"augmentation": lambda X, rng: X},
                {"augmentation": None},
                r"augmentation=<function.*set_params\(augmentation",
            ),
        ],
        ids=["callback", "lengthscale", "optimizer", "repulsion", "augmentation"],
    )
    def test_code_is_refused_and_need_not_be_saved(self, data, path, settings, remedy, message):
        model = self.kind(**SIZES, random_state=0, **settings).fit(*data)
        with pytest.raises(ValueError, match=rf"Got parameters\.{message}"):
            model.save(path)
        assert not path.exists()
        model.set_params(**remedy).save(path)
        assert_same(load(path), model, data[0])

    def test_an_encoder_of_another_kind_is_refused(self, make, data, path):
        model = make(encoder=StandardScaler()).fit(*data)
        with pytest.raises(ValueError, match=r"encoder=StandardScaler\(\), which .* in a pipeline"):
            model.save(path)
        with pytest.raises(ValueError, match=r"Got fitted.encoder=StandardScaler\(\)"):
            model.set_params(encoder="auto").save(path)

    def test_an_unfitted_estimator_is_not_saved(self, make, path):
        with pytest.raises(NotFittedError):
            make().save(path)

    def test_a_pickle_of_another_version_warns(self, make, data, monkeypatch):
        model = make().fit(*data)
        dumped = pickle.dumps(model)
        assert b"_sklearn_fordes_version" in dumped
        assert "_sklearn_fordes_version" not in vars(pickle.loads(dumped))
        monkeypatch.setattr(sklearn_fordes, "__version__", "9.9")
        with pytest.warns(InconsistentVersionWarning, match=r"from version .* of sklearn_fordes"):
            loaded = pickle.loads(dumped)
        np.testing.assert_array_equal(self.predict(loaded, data[0]), self.predict(model, data[0]))


class TestClassifier(ForClassifier, Contract): ...


class TestRegressor(ForRegressor, Contract): ...


def _no_space(*args):
    raise OSError("No space left on device")


@pytest.mark.parametrize("as_container", KINDS)
@pytest.mark.parametrize("noise", [None, "heteroscedastic", "homoscedastic", "quantile"])
def test_tables_of_any_container(as_container, noise, path):
    X = as_container(with_dates(plain_columns()))
    size = np.array(plain_columns()["size"])
    if noise is None:
        model, y = FoRDEClassifier(**SIZES, random_state=0), np.where(size > 0, "up", "down")
    else:
        model, y = FoRDERegressor(**SIZES, random_state=0, noise=noise), 100 * size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of columns of which little is encoded.
        model.fit(X, y).save(path)
    assert_same(load(path), model, X)


@pytest.mark.parametrize(
    "labels",
    [
        [3, -1],
        [1.0, 1e15],
        [True, False],
        ["a", "bcd"],
        np.array(["ü", "\U0001f600\ud800"], dtype="U9"),
        np.array(["b", "a"], dtype=object),
        np.array([1, 2], dtype=">i2"),
        np.array([7, 2**63], dtype=np.uint64),
        pd.Series(["x", "y"]),
        pd.Series(["x", "y"], dtype="category"),
    ],
)
def test_labels(labels, path):
    X = np.random.default_rng(0).normal(size=(60, 2))
    y = np.asarray(labels)[(X[:, 0] > 0).astype(int)]
    model = FoRDEClassifier(**SIZES, class_weight=dict.fromkeys(y.tolist(), 2.5)).fit(X, y)
    model.save(path)
    loaded = load(path)
    assert_same(loaded, model, X)
    np.testing.assert_array_equal(loaded.classes_, model.classes_, strict=True)


def test_labels_of_another_kind_are_refused(path):
    X = np.random.default_rng(0).normal(size=(60, 2))
    y = np.array(["2020-01-01", "2021-01-01"], dtype="M8[D]")[(X[:, 0] > 0).astype(int)]
    model = FoRDEClassifier(**SIZES).fit(X, y)
    with pytest.raises(ValueError, match=r"Got learnt.classes_=array.*whole numbers, floats"):
        model.save(path)


# ---- values


def scalars():
    kinds = ["?", "i1", ">u2", "i8", "u8", "f2", "f4", "f8", "U3"]
    return st.sampled_from(kinds).map(np.dtype).flatmap(from_dtype)


def values():
    leaves = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | scalars()
        | st.sampled_from(["f4", ">f8", "i4", "?", "U5"]).flatmap(
            lambda kind: arrays(kind, array_shapes(min_dims=0, max_side=3, min_side=0))
        )
    )  # fmt: skip
    return st.recursive(
        leaves,
        lambda children: (
            st.lists(children)
            | st.lists(children).map(tuple)
            | st.dictionaries(st.text() | st.integers() | st.booleans(), children)
            | arrays(object, 2, elements=children)
        ),
        max_leaves=8,
    )


def there_and_back(value):
    put_aside = {}
    text = json.dumps(pack(value, "value", put_aside), allow_nan=False)
    put_aside = safetensors.numpy.load(safetensors.numpy.save({**put_aside, "x": np.ones(1)}))
    del put_aside["x"]
    made = unpack(json.loads(text), put_aside)
    assert not put_aside
    return made


@given(values())
def test_values_come_back_as_they_were(value):
    assert_alike(there_and_back(value), value)


def assert_alike(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, np.ndarray | np.generic):
        assert found.dtype == expected.dtype or isinstance(expected, np.generic)
        assert found.shape == expected.shape
        if expected.dtype != object:
            np.testing.assert_array_equal(found, expected)
            return
        found, expected = list(found), list(expected)
    if isinstance(expected, dict):
        assert [*map(type, found)] == [*map(type, expected)]
        found, expected = [*found, *found.values()], [*expected, *expected.values()]
    if isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for pair in zip(found, expected, strict=True):
            assert_alike(*pair)
    else:
        assert repr(found) == repr(expected)


def test_objects_come_back():
    rng = np.random.RandomState(5)
    rng.normal(size=3)
    again = there_and_back(rng)
    assert again.normal() == rng.normal()
    assert there_and_back(torch.device("cuda:1")) == torch.device("cuda:1")
    assert there_and_back(torch.optim.NAdam) is torch.optim.NAdam
    assert there_and_back(Repulsion("weight", period=2)) == Repulsion("weight", period=2)
    made = there_and_back(Lengthscale(None, torch.arange(3.0)))
    assert made.rotation is None
    assert torch.equal(made.precision, torch.arange(3.0))
    bits = torch.tensor([1.0, torch.nan, -0.0], dtype=torch.bfloat16)
    assert torch.equal(there_and_back(bits).view(torch.int16), bits.view(torch.int16))
    index = pd.Index(["a", "b"], name="columns")
    pd.testing.assert_index_equal(there_and_back(index), index)


def test_the_order_in_memory_comes_back():
    array = np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)
    assert there_and_back(array).strides == array.strides


@pytest.mark.parametrize(
    "value",
    [
        b"x",
        {1},
        1j,
        range(3),
        print,
        np.array([1j]),
        np.zeros(2, "M8[s]"),
        np.longdouble(1),
        object(),
    ],
    ids=str,
)
def test_other_values_are_refused(value):
    with pytest.raises(ValueError, match=r"Got there\.here\[1\]=.* a file without code can't hold"):
        pack({"here": [0, value]}, "there", {})


# ---- devices


def test_a_device_that_is_not_there(small, binary, path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = small(max_epochs=1).fit(*binary)
    model.set_params(device="cuda:77").save(path)
    loaded = load(path)
    assert (loaded.device, loaded.fitted_.device.type) == ("cuda:77", "cpu")
    assert load(path, device="cpu").device == "cpu"
    with pytest.raises(ValueError, match="Got device='cuda:77', which this machine does not"):
        load(path, device="cuda:77")


@pytest.mark.parametrize("device", ["hpu", "privateuseone", "mtia"])
def test_a_device_that_this_build_of_torch_lacks(small, binary, path, device):
    model = small(max_epochs=1).fit(*binary).set_params(device=device)
    expected = model.predict_proba(binary[0])
    model.save(path)
    for loaded in (load(path), pickle.loads(pickle.dumps(model))):
        assert (loaded.device, loaded.fitted_.device.type) == (device, "cpu")
        np.testing.assert_array_equal(loaded.predict_proba(binary[0]), expected)
    message = f"Got device='{device}', which this machine does not offer to torch"
    for refused in (lambda: load(path, device=device), lambda: model.fit(*binary)):
        with pytest.raises(ValueError, match=message):
            refused()
    np.testing.assert_array_equal(model.predict_proba(binary[0]), expected)


# ---- files of older versions

# What the estimators predicted when they were saved.
OLD_PROBABILITIES = [
    [0.574304, 0.425696],
    [0.651251, 0.348749],
    [0.561829, 0.438171],
    [0.600366, 0.399634],
    [0.650482, 0.349518],
    [0.621368, 0.378632],
]
OLD_QUANTILES = [
    [-6.888534, 19.721419],
    [-27.668164, 12.352386],
    [-8.821099, 14.184463],
    [-12.334974, 12.391887],
    [-11.833720, 12.549853],
    [-10.872132, 12.959853],
]


def old_rows():
    columns = with_dates(plain_columns(6, seed=3))
    return as_pandas({name: columns[name] for name in ("size", "gaps", "flag", "city", "when")})


def test_files_of_format_1_load():
    """Made by sklearn_fordes 0.2.0a1; a file once written loads in each later version."""
    X = old_rows()
    classifier = FoRDEClassifier.load(DATA / "classifier_1.safetensors")
    assert classifier.classes_.tolist() == ["down", "up"]
    assert classifier.get_params()["hidden_layer_sizes"] == (3,)
    assert classifier.encoder_.kinds_.tolist() == ["number", "number", "number", "category", "date"]
    np.testing.assert_allclose(classifier.predict_proba(X), OLD_PROBABILITIES, atol=1e-5)
    # What these files do not name did not act: neither versions of rows nor logarithms.
    assert classifier.augmentation is None
    assert classifier._then_.augmentation is None
    assert classifier.encoder_.gap_indicators == "frequent"
    assert classifier.encoder_.is_long_tailed_.tolist() == [False] * len(classifier.encoder_.low_)
    assert classifier.partial_fit(X, ["up", "down"] * 3).n_iter_ == 3
    regressor = FoRDERegressor.load(DATA / "regressor_1.safetensors", device="cpu")
    found = regressor.predict_quantiles(X.to_numpy()[:, :1].astype(float), [0.1, 0.9])
    np.testing.assert_allclose(found, OLD_QUANTILES, atol=1e-3)
    assert regressor.repulsion == Repulsion("function", fraction=0.5)
    assert np.isnan(regressor.lr)


def test_a_file_of_format_1_that_is_saved_again_predicts_the_same(path):
    classifier = FoRDEClassifier.load(DATA / "classifier_1.safetensors")
    classifier.save(path, include_training_state=True)
    assert_same(load(path), classifier, old_rows())


SUPPORT = {
    "n_samples_seen_",
    "rare_levels_",
    "unseen_shares_",
    "ordinary_surprise_",
    "samples_",
}
RANKS = SUPPORT | {"rank_share", "rank_numbers_", "rank_scores_"}


@pytest.mark.parametrize("names", [SUPPORT, RANKS, RANKS | {"gap_indicators", "is_long_tailed_"}])
def test_an_encoder_of_an_older_version_is_completed_and_an_incomplete_one_refused(names):
    X = as_pandas(with_dates(plain_columns()))
    fitted = TabularEncoder(rank_share=0.0).fit(X)
    for encoder in (TabularEncoder(clip=2.0, rank_share=0.0), fitted):
        state = encoder_state(encoder)
        newer = state.keys() & names
        older = encoder_from({name: state[name] for name in state.keys() - newer})
        assert older.get_params() == encoder.get_params()
        assert vars(older).keys() == vars(encoder).keys()
    assert older.unsupported(X.assign(**{X.columns[0]: None})).empty  # It can't know.
    if names != RANKS | {"gap_indicators", "is_long_tailed_"}:
        np.testing.assert_array_equal(older.transform(X), fitted.transform(X))
    for missing in newer:
        with pytest.raises(ValueError, match="an encoder with the attributes"):
            encoder_from({name: state[name] for name in state.keys() - {missing}})


def test_an_encoder_of_no_version_is_refused():
    state = encoder_state(TabularEncoder().fit(np.random.default_rng(0).normal(size=(50, 3))))
    for name in ("gap_indicators", "is_long_tailed_"):  # Ranks came later.
        del state[name]
    with pytest.raises(ValueError, match="an encoder with the attributes"):
        encoder_from(state)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("rank_numbers_", np.full((3, 18), np.nan)),
        ("rank_numbers_", np.tile(-np.arange(18.0), (3, 1))),
        ("rank_scores_", np.full((3, 18), np.inf)),
        ("rank_scores_", np.zeros((3, 17))),
        ("rank_numbers_", np.zeros((2, 18))),
    ],
)
def test_knots_of_ranks_that_do_not_fit_are_refused(name, wrong):
    encoder = TabularEncoder().fit(np.random.default_rng(0).normal(size=(50, 3)))
    with pytest.raises(ValueError, match=f"an encoder whose .*{name}"):
        encoder_from({**encoder_state(encoder), name: wrong})


def test_text_of_json_is_one_value(path):
    X = pd.DataFrame({"document": ['{"a": [1, 2, {"b": ' + ",[{" * 2000 + '"}]}'] * 3 + ["x"] * 57})
    X["document"] += np.array([str(i % 4) for i in range(60)])
    model = FoRDEClassifier(**SIZES, random_state=0).fit(X, np.arange(60) % 2)
    model.save(path)
    assert_same(load(path), model, X)


@pytest.mark.skipif(os.name == "nt", reason="This system has no such modes.")
def test_a_new_file_is_read_by_those_who_read_the_old_one(path):
    model = FoRDEClassifier(**SIZES).fit(np.arange(60)[:, None], np.arange(60) % 2)
    model.save(path)
    path.chmod(0o600)
    model.save(os.fsencode(path))
    assert path.stat().st_mode & 0o777 == 0o600
    load(os.fsencode(path))
