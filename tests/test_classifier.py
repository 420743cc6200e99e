"""What only the classifier has: labels, probabilities, class weights."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import logit
from sklearn.base import clone

from sklearn_fordes import FoRDEClassifier, Repulsion
from sklearn_fordes.networks import MLP


@pytest.mark.parametrize(
    "names",
    [["no", "yes"], [1, 2], [False, True], [1, 2, 3], ["a", "b", "c"], [-1.0, 1.0]],
    ids=str,
)
@pytest.mark.parametrize("container", [list, np.asarray, pd.Series], ids=lambda c: c.__name__)
def test_labels_may_be_of_any_kind(small, binary, multiclass, names, container):
    X, codes = binary if len(names) == 2 else multiclass
    labels = [names[code] for code in codes]
    model = small().fit(X, container(labels))
    assert model.classes_.tolist() == sorted(names)
    predicted = model.predict(X)
    assert predicted.dtype == model.classes_.dtype
    np.testing.assert_array_equal(predicted, model.classes_[model.predict_proba(X).argmax(1)])
    by_code = small().fit(X, codes)
    np.testing.assert_array_equal(model.predict_proba(X), by_code.predict_proba(X))


def test_labels_may_be_categories_or_objects(small, binary):
    X, y = binary
    words = pd.Series(np.where(y == 1, "yes", "no"))
    for labels in (words.astype("category"), words.astype(object)):
        assert set(small(max_epochs=1).fit(X, labels).predict(X)) <= {"yes", "no"}


def test_probabilities_are_the_mean_of_the_members(small, multiclass):
    X, y = multiclass
    model = small(n_members=4, max_epochs=15).fit(X, y)
    members, mean = model.predict_proba_members(X), model.predict_proba(X)
    assert members.shape == (4, len(X), 3)
    assert members.dtype == mean.dtype == np.float64
    np.testing.assert_allclose(members.sum(-1), 1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(members.mean(0), mean, rtol=0, atol=1e-15)
    assert (members > 0).all()
    assert model.score(X, y) > 0.7


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_log_probabilities_are_finite_and_the_logarithms_of_probabilities(small, binary, scale):
    X, y = binary
    model = small(encoder=None, hidden_layer_sizes=(), max_epochs=2).fit(X, y)
    logarithms = model.predict_log_proba(scale * X)
    assert logarithms.dtype == np.float64
    assert np.isfinite(logarithms).all()
    np.testing.assert_allclose(np.exp(logarithms), model.predict_proba(scale * X), atol=1e-12)
    assert (logarithms.min() < -1000) == (scale > 1)


def test_decisions_are_log_odds_of_two_classes_and_log_probabilities_of_more(
    small, binary, multiclass
):
    X, y = binary
    model = small().fit(X, y)
    p = model.predict_proba(X)[:, 1]
    np.testing.assert_allclose(model.decision_function(X), logit(p), rtol=1e-9)
    np.testing.assert_array_equal(model.decision_function(X) > 0, model.predict(X))
    linear = small(encoder=None, hidden_layer_sizes=()).fit(X, y)
    far = linear.decision_function(1e4 * X)
    assert np.isfinite(far).all()
    assert np.abs(far).max() > 1000  # One probability rounds to zero.
    X, y = multiclass
    model = small().fit(X, y)
    np.testing.assert_array_equal(model.decision_function(X), model.predict_log_proba(X))


@pytest.mark.parametrize("n_rows", [1, 3, 50])
def test_a_prediction_does_not_depend_on_the_other_rows(small, multiclass, n_rows):
    X, y = multiclass
    model = small(hidden_layer_sizes=(32,)).fit(X, y)
    parts = [model.decision_function(X[i : i + n_rows]) for i in range(0, 150, n_rows)]
    expected = model.decision_function(X)[:150]
    np.testing.assert_allclose(np.concatenate(parts), expected, rtol=1e-12)


@pytest.mark.parametrize("target", ["log_odds", "log_prob"])
def test_input_gradients_by_finite_differences(small, multiclass, target):
    X, y = multiclass
    model = small(module=MLP, repulsion=Repulsion(target=target)).fit(X, y)
    rows, other = X[:10], (y[:10] + 1) % 3
    value = {"log_prob": np.log, "log_odds": lambda p: np.log(p) - np.log1p(-p)}[target]
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


def test_a_class_weight_multiplies_the_weights_of_its_rows(small, multiclass):
    X, y = multiclass
    by_class = small(class_weight={0: 1.0, 1: 3.0, 2: 0.5}).fit(X, y)
    by_row = small().fit(X, y, sample_weight=np.array([1.0, 3.0, 0.5])[y])
    np.testing.assert_array_equal(by_class.predict_proba(X), by_row.predict_proba(X))
    plain = small().fit(X, y).predict_proba(X).mean(0)
    assert by_class.predict_proba(X).mean(0)[1] > plain[1]


def test_balanced_weights_ignore_a_class_without_weight(small, multiclass):
    X, y = multiclass
    model = small(class_weight="balanced").fit(X, y, sample_weight=y != 2)
    weight = np.where(y == 2, 0.0, 1 / np.maximum(np.bincount(y)[y], 1))
    expected = small().fit(X, y, sample_weight=weight).predict_proba(X)
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-5)


class Renamed(FoRDEClassifier):
    def __init__(self, size=4, random_state=None):
        super().__init__(size, hidden_layer_sizes=(8,), random_state=random_state, max_epochs=2)
        self.size = size


def test_a_subclass_may_have_parameters_of_its_own(binary):
    model = clone(Renamed(3, random_state=0)).fit(*binary)
    assert model.get_params() == {"size": 3, "random_state": 0}
    assert len(model.estimators_) == 3


def test_class_weights_may_name_classes_that_some_rows_lack(small, multiclass):
    X, y = multiclass
    weights = {0: 2.0, 2: 1.0}
    small(class_weight=weights).fit(X, y, sample_weight=y != 2)
    model = small(class_weight=weights).partial_fit(X[y == 1], y[y == 1], classes=[0, 1, 2])
    assert model.predict_proba(X).shape == (len(X), 3)


def test_weights_keep_their_size_between_calls_of_partial_fit(small, binary):
    X, y = binary

    def mean_probability(**params):
        # AdamW divides a constant factor out, SGD does not.
        model = small(optimizer=torch.optim.SGD, lr=0.05, ema_decay=0.0, **params)
        for label in (0, 1) * 3:
            model.partial_fit(X[y == label], y[y == label], classes=[0, 1])
        return model.predict_proba(X)[:, 1].mean()

    assert mean_probability(class_weight={1: 20.0}) > mean_probability() + 0.02
