"""scikit-learn's own suite, and what it does not cover of the estimator's contract."""

import pickle
import subprocess
import sys
from functools import partial

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from sklearn_fordes import FoRDEClassifier
from sklearn_fordes.preprocessing import TabularEncoder
from sklearn_fordes.networks import MLP


def expected_failures(estimator):
    return {
        "check_sample_weight_equivalence_on_dense_data": (
            "Rows are shuffled into batches and held out at random, so repeating a row is not the "
            "same as weighing it. HistGradientBoostingClassifier shares this one."
        )
    }


@parametrize_with_checks([FoRDEClassifier()], expected_failed_checks=expected_failures)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "names",
    [["no", "yes"], [1, 2], [False, True], [1, 2, 3], ["a", "b", "c"], [-1.0, 1.0]],
    ids=str,
)
@pytest.mark.parametrize("container", [list, np.asarray, pd.Series], ids=lambda c: c.__name__)
def test_labels_of_any_kind(small, binary, multiclass, names, container):
    X, codes = binary if len(names) == 2 else multiclass
    labels = [names[code] for code in codes]
    model = small(max_epochs=15).fit(X, container(labels))
    assert model.classes_.tolist() == sorted(names)
    predicted = model.predict(X)
    assert predicted.dtype == model.classes_.dtype
    assert np.mean(predicted == np.asarray(labels)) > 0.7
    by_code = small(max_epochs=15).fit(X, codes)
    np.testing.assert_array_equal(model.predict_proba(X), by_code.predict_proba(X))


def test_categorical_and_object_labels(small, binary):
    X, y = binary
    words = pd.Series(np.where(y == 1, "yes", "no"))
    for labels in (words.astype("category"), words.astype(object)):
        assert set(small().fit(X, labels).predict(X)) <= {"yes", "no"}


def test_probabilities(small, multiclass):
    X, y = multiclass
    model = small(n_members=4).fit(X, y)
    members = model.predict_proba_members(X)
    mean = model.predict_proba(X)
    assert members.shape == (4, len(X), 3)
    assert members.dtype == mean.dtype == np.float64
    np.testing.assert_allclose(members.sum(-1), 1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(mean.sum(-1), 1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(members.mean(0), mean, rtol=0, atol=1e-15)
    assert (members > 0).all()
    np.testing.assert_array_equal(model.predict(X), model.classes_[mean.argmax(1)])


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_prediction_does_not_depend_on_its_chunks(small, multiclass, rows):
    X, y = multiclass
    params = {"hidden_layer_sizes": (64, 64), "early_stopping": False}
    model = small(**params).fit(X, y)
    in_one = model.predict_proba(X)
    in_calls = [model.predict_proba(X[i : i + rows]) for i in range(0, len(X), rows)]
    np.testing.assert_allclose(np.concatenate(in_calls), in_one, rtol=0, atol=1e-6)
    in_chunks = small(**params, iterator_valid__batch_size=rows).fit(X, y)
    np.testing.assert_allclose(in_chunks.predict_proba(X), in_one, rtol=0, atol=1e-6)
    sizes = []
    model.net_.module_.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    model.set_params(predict_batch_size=rows)
    np.testing.assert_allclose(model.predict_proba(X), in_one, rtol=0, atol=1e-6)
    assert max(sizes) == rows
    np.testing.assert_allclose(model.input_gradients(X).shape, (3, len(X), X.shape[1]))


@pytest.mark.parametrize("rows", ["all", 1.5, 0])
def test_predict_batch_size_set_after_fit_is_checked(small, binary, rows):
    X, y = binary
    model = small(max_epochs=1).fit(X, y).set_params(predict_batch_size=rows)
    for predict in (model.predict_proba, model.input_gradients):
        with pytest.raises(ValueError, match=f"Got predict_batch_size={rows!r}, but expected"):
            predict(X)


def test_rows_at_a_time_shrink_with_the_members(small, binary):
    class Subclass(MLP):
        """Evaluated by the general engine, which does not know how wide its layers are."""

    sizes = [
        small(n_members=m, max_epochs=1, **other).fit(*binary).net_.iterator_valid__batch_size
        for m, other in ((2, {}), (40, {}), (2, {"module": Subclass}), (2, {"encoder": None}))
    ]
    assert sizes[1] == sizes[0] // 20
    assert sizes[2] == 1024
    assert sizes[0] < sizes[3]  # an embedding has more frequencies than a layer has units


def test_skorch_net_predicts_as_the_estimator_does(small, binary):
    X, y = binary
    model = small().fit(X, y)
    encoded = model.encoder_.transform(X).astype(np.float32)
    np.testing.assert_allclose(model.net_.predict_proba(encoded), model.predict_proba(X))
    np.testing.assert_array_equal(model.net_.predict(encoded), model.predict(X))


# ---- reproducibility


def test_same_random_state_gives_bitwise_the_same_fit(small, binary):
    X, y = binary
    params = {"module__dropout": 0.2, "n_members": 4, "lengthscale": "pca"}
    np.random.seed(1)
    torch.manual_seed(1)
    one = small(**params).fit(X, y)
    np.random.seed(2)
    torch.manual_seed(2)
    torch.rand(5)
    numpy_state, torch_state = np.random.get_state(), torch.get_rng_state()
    other = small(**params).fit(X, y)
    for name, weights in one.net_.module_.state_dict().items():
        assert torch.equal(weights, other.net_.module_.state_dict()[name])
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])
    assert np.random.get_state()[2] == numpy_state[2]
    different = small(**params, random_state=5).fit(X, y)
    assert not np.array_equal(one.predict_proba(X), different.predict_proba(X))


def test_refitting_starts_anew(small, binary):
    X, y = binary
    model = small().fit(X, y)
    first = model.predict_proba(X)
    np.testing.assert_array_equal(model.fit(X, y).predict_proba(X), first)


def test_random_state_none_follows_numpys_seed_and_instances_advance(small, binary):
    X, y = binary
    fits = []
    for seed in (0, 0, 1):
        np.random.seed(seed)
        fits.append(small(random_state=None).fit(X, y).predict_proba(X))
    np.testing.assert_array_equal(fits[0], fits[1])
    assert not np.array_equal(fits[0], fits[2])
    model = small(random_state=np.random.RandomState(0))
    assert not np.array_equal(model.fit(X, y).predict_proba(X), model.fit(X, y).predict_proba(X))


def test_initial_weights_do_not_depend_on_the_number_of_members(small, binary):
    X, y = binary
    # A learning rate too small to change a weight shows where training starts.
    five, ten = (
        small(n_members=n, lr=1e-30, weight_decay=0.0, max_epochs=1).fit(X, y).net_.module_
        for n in (5, 10)
    )
    for name, weights in five.stacked.named_parameters():
        assert torch.equal(weights, ten.stacked.get_parameter(name)[:5])


# ---- parameters


def test_parameters_of_the_nets_parts_are_parameters(small):
    model = small(module__dropout=0.1, optimizer__betas=(0.9, 0.9))
    assert model.get_params()["module__dropout"] == 0.1
    copy = clone(model.set_params(module__activation="relu", callbacks__early_stopping__patience=3))
    assert copy.get_params() == model.get_params()
    assert copy.get_params()["optimizer__betas"] == (0.9, 0.9)
    assert "module__activation='relu'" in repr(copy)
    assert "module__activation" in model._repr_html_()


def test_fit_leaves_parameters_alone(small, binary):
    model = small(module=MLP, module__dropout=0.1, hidden_layer_sizes=[8], class_weight={0: 2.0})
    before = model.get_params()
    model.fit(*binary)
    assert model.get_params() == before


def test_user_module_is_offered_sizes_only_where_it_takes_them(small, binary):
    X, y = binary

    def takes_one(n_outputs, width=4):
        return MLP(6, n_outputs, hidden_layer_sizes=(width,))

    model = small(module=takes_one, module__width=5).fit(X, y)
    assert model.net_.module_.stacked.get_parameter("0.weight").shape == (3, 5, 6)


def test_own_module_sees_the_rows_as_they_come(small, binary):
    X, y = binary
    seen = []

    class Spy(MLP):
        def forward(self, X):
            seen.append(X.clone())
            return super().forward(X)

    small(module=Spy, repulsion="none", early_stopping=False).fit(X, y)
    rows = {tuple(row) for row in X.astype(np.float32).tolist()}
    assert len(seen) > 6
    assert all(tuple(row) in rows for batch in seen for row in batch.tolist())
    assert isinstance(small().fit(X, y).encoder_, TabularEncoder)


# ---- weights


def test_rows_of_weight_zero_are_as_if_left_out(small, binary):
    X, y = binary
    weight = np.ones(len(y))
    weight[::5] = 0
    kept = weight > 0
    weighted = small().fit(X, y, sample_weight=weight)
    reduced = small().fit(X[kept], y[kept])
    np.testing.assert_array_equal(weighted.predict_proba(X), reduced.predict_proba(X))


def test_only_ratios_of_weights_matter(small, binary):
    X, y = binary
    weight = 1.0 + y
    one = small().fit(X, y, sample_weight=weight)
    scaled = small().fit(X, y, sample_weight=1000 * weight)
    np.testing.assert_allclose(one.predict_proba(X), scaled.predict_proba(X), atol=1e-6)


def test_class_weight_equals_the_sample_weights_it_stands_for(small, multiclass):
    X, y = multiclass
    by_class = small(class_weight={0: 1.0, 1: 3.0, 2: 0.5}).fit(X, y)
    by_row = small().fit(X, y, sample_weight=np.array([1.0, 3.0, 0.5])[y])
    np.testing.assert_array_equal(by_class.predict_proba(X), by_row.predict_proba(X))
    plain = small().fit(X, y).predict_proba(X).mean(0)
    assert by_class.predict_proba(X).mean(0)[1] > plain[1]


def test_class_weight_may_name_classes_that_some_rows_lack(small, multiclass):
    X, y = multiclass
    weights = {0: 2.0, 2: 1.0}
    small(class_weight=weights).fit(X, y, sample_weight=y != 2)
    model = small(class_weight=weights).partial_fit(X[y == 1], y[y == 1], classes=[0, 1, 2])
    assert model.predict_proba(X).shape == (len(X), 3)


def test_weights_keep_their_size_between_calls_of_partial_fit(small, binary):
    X, y = binary

    def mean_probability(**params):
        model = small(**params)
        for label in (0, 1) * 3:
            model.partial_fit(X[y == label], y[y == label], classes=[0, 1])
        return model.predict_proba(X)[:, 1].mean()

    # AdamW divides a constant factor out, SGD does not.
    sgd = {"optimizer": torch.optim.SGD, "lr": 0.05}
    assert mean_probability(class_weight={1: 20.0}, **sgd) > mean_probability(**sgd) + 0.02


def test_huge_weights_do_not_overflow(small, binary):
    X, y = binary
    huge = small().fit(X, y, sample_weight=np.full(len(y), 1e307)).predict_proba(X)
    np.testing.assert_array_equal(huge, small().fit(X, y).predict_proba(X))


def test_balanced_class_weight_raises_the_rare_class(small, binary):
    X, y = binary
    rare = (y == 0) | (np.arange(len(y)) % 5 == 0)
    X, y = X[rare], y[rare]
    plain, balanced = (small(class_weight=w).fit(X, y).predict_proba(X) for w in (None, "balanced"))
    assert balanced[:, 1].mean() > plain[:, 1].mean() + 0.05


# ---- frames


def test_data_frames(small, binary):
    X, y = binary
    names = [f"column {i}" for i in range(X.shape[1])]
    expected = small().fit(X, y).predict_proba(X)
    for frame in (pd.DataFrame(X, columns=names), pl.DataFrame(X, schema=names)):
        model = small().fit(frame, y)
        assert model.feature_names_in_.tolist() == names
        np.testing.assert_array_equal(model.predict_proba(frame), expected)


def test_global_output_configuration_does_not_reach_inside(small, binary):
    X, y = binary
    images = X.reshape(-1, 1, 2, 3)
    flat = partial(nn.Sequential, nn.Flatten(), nn.Linear(6, 2))
    with sklearn.config_context(transform_output="pandas"):
        assert small(module=flat()).fit(images, y).predict_proba(images).shape == (200, 2)
        assert small().fit(X, y).predict_proba(X).shape == (200, 2)


def test_large_offsets_keep_their_precision(small, binary):
    X, y = binary
    plain = small().fit(X, y).predict_proba(X)
    shifted = small().fit(X + 1.7e9, y).predict_proba(X + 1.7e9)  # seconds since 1970, say
    np.testing.assert_allclose(shifted, plain, atol=1e-3)


# ---- pickling and import


def test_pickle_predicts_in_a_process_of_its_own(small, binary, tmp_path):
    X, y = binary
    model = small(n_members=4).fit(X, y)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    np.save(tmp_path / "X.npy", X)
    code = (
        "import pickle, numpy as np; model = pickle.load(open('model.pkl', 'rb'));"
        "np.save('p.npy', model.predict_proba(np.load('X.npy')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), model.predict_proba(X), atol=1e-6)


def test_importing_the_estimator_does_not_import_torch():
    code = (
        "import sys; from sklearn_fordes import FoRDEClassifier; FoRDEClassifier().get_params();"
        "assert not {'torch', 'skorch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unfitted_estimator_says_so(small, binary):
    with pytest.raises(sklearn.exceptions.NotFittedError):
        small().predict_proba_members(binary[0])


@pytest.mark.parametrize("target", ["log_odds", "log_prob"])
def test_input_gradients_by_finite_differences(small, multiclass, target):
    X, y = multiclass
    model = small(module=MLP, gradient_target=target).fit(X, y)
    rows, other = X[:10], (y[:10] + 1) % 3
    value = {
        "log_prob": np.log,
        "log_odds": lambda p: np.log(p) - np.log1p(-p),
    }[target]
    predicted = model.predict(rows)
    for labels, gradients in (
        (other, model.input_gradients(rows, other)),
        (predicted, model.input_gradients(rows)),
    ):
        assert gradients.shape == (3, 10, 6)
        for column in range(6):
            moved = 1e-2 * np.eye(6)[column]
            values = [
                value(model.predict_proba_members(rows + sign * moved)[:, range(10), labels])
                for sign in (1, -1)
            ]
            slope = (values[0] - values[1]) / 2e-2
            np.testing.assert_allclose(gradients[..., column], slope, atol=5e-3)


def test_integer_weights_are_repeated_rows(small, multiclass):
    """Exactly so where batches don't matter: in full batches, without repulsion."""
    X, y = multiclass
    weight = np.random.default_rng(0).integers(0, 4, len(y))
    # A scale of its own, for quantiles know no weights.
    settings = {"repulsion": "none", "batch_size": 10_000, "early_stopping": False, "encoder": None}
    weighted = small(max_epochs=40, **settings).fit(X, y, sample_weight=weight)
    repeated = small(max_epochs=40, **settings).fit(X.repeat(weight, 0), y.repeat(weight))
    plain = small(max_epochs=40, **settings).fit(X, y)
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=1e-5)
    assert np.abs(weighted.predict_proba(X) - plain.predict_proba(X)).max() > 0.01
