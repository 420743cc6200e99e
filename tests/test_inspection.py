"""The displays: what they compute, and that they draw where they are told to."""

import inspect
import subprocess
import sys
from itertools import permutations
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pytest
from matplotlib.colors import same_color
from scipy.special import expit
from scipy.stats import entropy
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes, make_regression
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from sklearn_fordes import FoRDERegressor
from sklearn_fordes.inspection import (
    AccuracyRejectionDisplay,
    DiversityDisplay,
    LengthscaleTradeoffDisplay,
    ReliabilityDisplay,
    TrainingHistoryDisplay,
    UncertaintyDisplay,
)

mpl.use("agg")

N_FEATURES = 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, N_FEATURES)) * [1, 2, 5]
COEF = RNG.normal(size=(4, N_FEATURES))  # one row per member
Y = np.where(X @ COEF.mean(0) + RNG.normal(size=40) > 0, "yes", "no")
XX0, XX1 = np.meshgrid(np.linspace(0, 1, 4), np.linspace(2, 5, 3))
HISTORY = [
    {"epoch": 1, "driving_loss": 0.7, "repulsion": 0.3, "valid_loss": 0.6},
    {"epoch": 2, "driving_loss": 0.5, "repulsion": 0.4, "valid_loss": 0.4},
    {"epoch": 3, "driving_loss": 0.4, "repulsion": 0.2, "valid_loss": 0.5},
]


class FakeEnsemble(BaseEstimator):
    """Four linear models with given coefficients."""

    def __init__(self, lengthscale="identity"):
        self.lengthscale = lengthscale

    def fit(self, X, y):
        self.history_ = HISTORY
        return self

    def members(self, X):
        # Names and types of columns are the test's to check, as an estimator would.
        return np.einsum("nd,md->mn", np.asarray(X, dtype=float)[:, :N_FEATURES], COEF)

    def input_gradients(self, X, y=None):
        sign = np.where(np.asarray(y) == "no", -1.0, 1.0) if y is not None else np.ones(len(X))
        return sign[:, None] * COEF[:, None]


class FakeClassifier(ClassifierMixin, FakeEnsemble):
    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return super().fit(X, y)

    def predict_proba_members(self, X):
        scale = 1 if isinstance(self.lengthscale, str) else 1 / (1 + self.lengthscale)
        p = expit(scale * self.members(X))
        return np.stack([1 - p, p], axis=-1)

    def predict_proba(self, X):
        return self.predict_proba_members(X).mean(0)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(1)]

    def predict_uncertainty(self, X):
        members = self.predict_proba_members(X)
        total, aleatoric = entropy(members.mean(0), axis=-1), entropy(members, axis=-1).mean(0)
        return SimpleNamespace(total=total, aleatoric=aleatoric, epistemic=total - aleatoric)


class FakeRegressor(RegressorMixin, FakeEnsemble):
    def predict_members(self, X):
        return self.members(X)

    def predict(self, X):
        return self.members(X).mean(0)

    def predict_uncertainty(self, X):
        epistemic = self.members(X).var(0)
        noise = np.ones_like(epistemic)
        return SimpleNamespace(total=epistemic + noise, aleatoric=noise, epistemic=epistemic)

    def input_gradients(self, X):
        return super().input_gradients(X)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def classifier():
    return FakeClassifier().fit(X, Y)


@pytest.fixture
def scaled(classifier):
    """A pipeline, and the rows as its last step sees them."""
    pipeline = make_pipeline(StandardScaler(), FakeClassifier()).fit(X, Y)
    return pipeline, pipeline[:-1].transform(X)


# ---- what all displays share

DRAW = {
    "reliability": lambda **ax: ReliabilityDisplay.from_predictions(
        [0, 1, 1], [[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]], **ax
    ),
    "diversity": lambda **ax: DiversityDisplay.from_predictions(
        RNG.dirichlet(np.ones(3), size=(4, 10)), **ax
    ),
    "diversity with gradients": lambda **ax: DiversityDisplay.from_predictions(
        RNG.normal(size=(4, 10)), RNG.normal(size=(4, 10, 3)), **ax
    ),
    "history": lambda **ax: TrainingHistoryDisplay.from_history(HISTORY, unit="nats", **ax),
    "uncertainty": lambda **ax: UncertaintyDisplay.from_predictions(XX0, XX1, XX0 * XX1, **ax),
    "decision": lambda **ax: UncertaintyDisplay.from_predictions(
        XX0, XX1, XX0 > 0.5, measure="decision", classes=["no", "yes"], **ax
    ),
    "rejection": lambda **ax: AccuracyRejectionDisplay.from_predictions(
        [0, 1, 1], [0, 1, 0], [0.1, 0.3, 0.2], **ax
    ),
    "tradeoff": lambda **ax: LengthscaleTradeoffDisplay.from_predictions(
        [0, 0.5, 1], RNG.normal(size=(3, 4)), RNG.normal(size=3), **ax
    ),
}
each_display = pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW.keys())


@each_display
def test_draws_on_the_given_axes_and_no_other_figure(draw):
    figure, axes = plt.subplots(1, 2)
    display = draw(ax=axes[0])
    assert display.figure_ is figure
    assert display.ax_ is axes[0] or display.ax_ in figure.axes
    assert plt.get_fignums() == [figure.number]
    assert not axes[1].has_data()
    figure.canvas.draw()


@each_display
def test_plot_again_on_other_axes_returns_the_display(draw):
    display = draw()
    first, ax_first = display.figure_, display.ax_
    second, ax = plt.subplots()
    assert display.plot(ax, name="again") is display
    assert display.figure_ is second
    assert display.ax_ is not ax_first
    text = [t.get_text() for t in second.findobj(mpl.text.Text)]
    assert any("again" in t for t in text)
    for figure in (first, second):
        figure.canvas.draw()


@each_display
def test_axes_are_labelled(draw):
    display = draw()
    assert display.ax_.get_xlabel()
    assert display.ax_.get_ylabel()


@each_display
def test_init_stores_what_it_is_given(draw):
    display = draw()
    parameters = list(inspect.signature(type(display)).parameters)
    twin = type(display)(**{name: getattr(display, name) for name in parameters})
    assert all(getattr(twin, name) is getattr(display, name) for name in parameters)
    assert not hasattr(twin, "ax_")
    assert twin.plot().ax_ is not display.ax_


@each_display
def test_axes_of_another_kind_are_refused(draw):
    with pytest.raises(TypeError, match=r"Got ax of type str, but expected matplotlib axes"):
        draw(ax="axes")


def test_importing_needs_neither_matplotlib_nor_torch():
    code = """
import sys, sklearn_fordes.inspection as inspection
assert len(inspection.__all__) == 6 and all(hasattr(inspection, n) for n in inspection.__all__)
print({"matplotlib", "torch"} & set(sys.modules))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@each_display
def test_says_that_matplotlib_is_missing(draw, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"Display\.plot requires matplotlib"):
        draw()


@pytest.mark.parametrize("name", ["reliability", "rejection"])
def test_models_on_the_same_axes_differ_in_colour(name):
    one = DRAW[name]()
    two = DRAW[name](ax=one.ax_, name="two")
    three = DRAW[name](ax=one.ax_, color="gold", lw=3)
    colors = [display.line_.get_color() for display in (one, two, three)]
    assert not same_color(colors[0], colors[1])
    assert same_color(colors[2], "gold")
    assert three.line_.get_linewidth() == 3
    labels = [text.get_text() for text in one.ax_.get_legend().get_texts()]
    assert len(labels) == len(set(labels)) + 1  # one and three have no name
    assert labels.count("perfectly calibrated") == (name == "reliability")


# ---- reliability


def test_reliability_bins_of_a_small_case():
    y_proba = np.array([0.55, 0.65, 0.85, 0.95, 1.0, 0.3])  # of class 1
    y_true = [1, 0, 1, 1, 1, 1]
    display = ReliabilityDisplay.from_predictions(y_true, np.c_[1 - y_proba, y_proba], n_bins=5)
    nan = np.nan
    # Confidences .55 | .65, .7 (class 0) | .85, .95, 1 in bins [.4, .6), [.6, .8), [.8, 1].
    np.testing.assert_allclose(display.confidence, [nan, nan, 0.55, 0.675, 2.8 / 3])
    np.testing.assert_allclose(display.accuracy, [nan, nan, 1, 0, 1])
    np.testing.assert_allclose(display.share, [0, 0, 1 / 6, 2 / 6, 3 / 6])
    assert display.ece == pytest.approx((0.45 + 2 * 0.675 + 3 * (1 - 2.8 / 3)) / 6)
    heights = [bar.get_height() for bar in display.bars_]
    np.testing.assert_allclose(heights, [1 / 6, 2 / 6, 3 / 6])
    np.testing.assert_allclose([bar.get_x() for bar in display.bars_], [0.4, 0.6, 0.8])
    np.testing.assert_allclose(display.line_.get_ydata(), [1, 0, 1])
    assert f"ECE = {display.ece:.3f}" in display.line_.get_label()


def test_reliability_against_a_loop_over_bins():
    y_proba = RNG.dirichlet(np.ones(3), size=200)
    y_true = RNG.integers(3, size=200)
    display = ReliabilityDisplay.from_predictions(y_true, y_proba)
    ece = 0
    for b in range(15):
        rows = [i for i in range(200) if b / 15 <= y_proba[i].max() < (b + 1) / 15]
        if rows:
            confidence = np.mean([y_proba[i].max() for i in rows])
            accuracy = np.mean([y_proba[i].argmax() == y_true[i] for i in rows])
            ece += len(rows) / 200 * abs(confidence - accuracy)
            np.testing.assert_allclose(display.accuracy[b], accuracy)
    assert display.ece == pytest.approx(ece)


def test_reliability_of_columns_in_another_order():
    y_proba = np.array([[0.9, 0.1], [0.2, 0.8]])
    names = {"classes": ["yes", "no"]}
    display = ReliabilityDisplay.from_predictions(["yes", "no"], y_proba, **names)
    assert np.nanmin(display.accuracy) == 1
    one_label = ReliabilityDisplay.from_predictions(["no", "no"], y_proba, **names)
    assert np.nanmean(one_label.accuracy) == 0.5


@pytest.mark.parametrize("frame", [np.asarray, pd.DataFrame, pl.DataFrame])
def test_reliability_of_an_estimator_and_a_pipeline(classifier, scaled, frame):
    display = ReliabilityDisplay.from_estimator(classifier, frame(X), pd.Series(Y), n_bins=4)
    expected = ReliabilityDisplay.from_predictions(Y, classifier.predict_proba(X), n_bins=4)
    np.testing.assert_array_equal(display.accuracy, expected.accuracy)
    assert display.line_.get_label().startswith("FakeClassifier (")
    pipeline, _ = scaled
    named = ReliabilityDisplay.from_estimator(pipeline, X, Y, name="mine")
    assert named.ece == ReliabilityDisplay.from_predictions(Y, pipeline.predict_proba(X)).ece
    assert named.line_.get_label().startswith("mine (")


# ---- diversity


def test_disagreement_and_cosine_against_loops():
    y_proba = RNG.dirichlet(np.ones(3), size=(4, 20))
    gradients = RNG.normal(size=(4, 20, 5))
    gradients[0, :3] = 0  # has no direction there
    display = DiversityDisplay.from_predictions(y_proba, gradients)
    for i in range(4):
        for j in range(4):
            differ = [y_proba[i, n].argmax() != y_proba[j, n].argmax() for n in range(20)]
            cosines = [
                gradients[i, n]
                @ gradients[j, n]
                / np.linalg.norm(gradients[i, n])
                / np.linalg.norm(gradients[j, n])
                for n in range(3 if 0 in (i, j) else 0, 20)
            ]
            np.testing.assert_allclose(display.disagreement[i, j], np.mean(differ))
            np.testing.assert_allclose(display.cosine[i, j], np.mean(cosines))
    np.testing.assert_array_equal(display.images_[0].get_array(), display.disagreement)
    np.testing.assert_array_equal(display.images_[1].get_array(), display.cosine)


def test_a_member_without_gradients_has_no_cosine():
    display = DiversityDisplay.from_predictions(
        np.ones((2, 3)), [np.zeros((3, 2)), np.ones((3, 2))]
    )
    np.testing.assert_allclose(display.cosine, [[np.nan, np.nan], [np.nan, 1]])
    assert not display.disagreement.any()  # and equal members make no empty colour scale
    display.figure_.canvas.draw()


def test_difference_of_a_regressors_members():
    display = DiversityDisplay.from_predictions([[0.0, 2.0], [1.0, 5.0], [0.0, 2.0]])
    np.testing.assert_allclose(display.disagreement, [[0, 2, 0], [2, 0, 2], [0, 2, 0]])
    assert display.cosine is None
    assert len(display.axes_) == 1
    labels = [axes.get_ylabel() for axes in display.figure_.axes]
    assert "mean |difference| (units of the target)" in labels


def test_diversity_of_a_classifier(scaled):
    pipeline, rows = scaled
    display = DiversityDisplay.from_estimator(pipeline, X)
    expected = DiversityDisplay.from_predictions(pipeline[-1].predict_proba_members(rows))
    np.testing.assert_array_equal(display.disagreement, expected.disagreement)
    unit = COEF / np.linalg.norm(COEF, axis=1, keepdims=True)
    np.testing.assert_allclose(display.cosine, unit @ unit.T)


def test_diversity_hands_labels_on_to_input_gradients(classifier, monkeypatch):
    seen = []
    monkeypatch.setattr(
        FakeClassifier,
        "input_gradients",
        lambda self, X, y=None: seen.append(y) or FakeEnsemble.input_gradients(self, X),
    )
    DiversityDisplay.from_estimator(classifier, X)
    DiversityDisplay.from_estimator(classifier, X, Y)
    assert seen[0] is None
    assert seen[1] is Y


def test_diversity_of_a_regressor_and_of_one_without_gradients(classifier, monkeypatch):
    display = DiversityDisplay.from_estimator(FakeRegressor().fit(X, X[:, 0]), X, X[:, 0])
    assert display.regression
    assert len(display.axes_) == 2
    monkeypatch.delattr(FakeEnsemble, "input_gradients")
    display = DiversityDisplay.from_estimator(classifier, X)
    assert display.cosine is None


def test_diversity_on_two_axes_or_in_the_place_of_one():
    _, (left, right) = plt.subplots(1, 2)
    draw = DRAW["diversity with gradients"]
    assert draw(ax=[left, right]).axes_.tolist() == [left, right]
    _, ax = plt.subplots()
    bounds = ax.get_position()
    display = draw(ax=ax)
    assert not ax.axison
    for axes in display.axes_:
        place = axes.get_position(original=True)
        assert bounds.x0 - 1e-9 <= place.x0 < place.x1 <= bounds.x1 + 1e-9
    with pytest.raises(ValueError, match=r"split before, but expected fresh ones"):
        draw(ax=ax)
    with pytest.raises(ValueError, match=r"Got 3 axes, but expected 2"):
        draw(ax=plt.subplots(1, 3)[1])
    with pytest.raises(ValueError, match=r"Got axes that are not part of a grid"):
        draw(ax=plt.figure().add_axes((0, 0, 1, 1)))


# ---- training history


def test_history_lines_and_the_best_epoch(classifier):
    display = TrainingHistoryDisplay.from_estimator(make_pipeline(StandardScaler(), classifier))
    assert display.best_epoch == 2
    for key, line in display.lines_.items():
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
        np.testing.assert_array_equal(line.get_ydata(), [entry[key] for entry in HISTORY])
    assert set(display.lines_) == {"driving_loss", "valid_loss", "repulsion"}
    assert display.lines_["repulsion"].axes is display.repulsion_ax_ is not display.ax_
    legend = display.repulsion_ax_.get_legend()
    assert "lowest at epoch 2" in [text.get_text() for text in legend.get_texts()]
    assert display.ax_.get_ylabel() == "loss per row (nats)"


def test_history_of_a_plain_ensemble_without_validation():
    history = [{"driving_loss": 0.5, "repulsion": 0.0}]
    display = TrainingHistoryDisplay.from_history(history)
    assert list(display.lines_) == ["driving_loss"]
    assert display.repulsion_ax_ is display.best_epoch is display.valid_loss is None
    assert display.lines_["driving_loss"].get_marker() == "o"
    assert display.epoch.tolist() == [1]


def test_history_with_validation_in_some_epochs():
    history = [*HISTORY, {"epoch": 4, "driving_loss": 0.3, "valid_loss": None}]
    display = TrainingHistoryDisplay.from_history(history)
    assert display.best_epoch == 2
    np.testing.assert_array_equal(display.valid_loss, [0.6, 0.4, 0.5, np.nan])


# ---- uncertainty


@pytest.mark.parametrize("measure", ["total", "aleatoric", "epistemic"])
def test_uncertainty_at_the_grid_points(scaled, measure):
    pipeline, _ = scaled
    display = UncertaintyDisplay.from_estimator(
        pipeline, X, features=(2, 0), measure=measure, grid_resolution=7, eps=0.5
    )
    grid = np.tile(np.median(X, axis=0), (49, 1))
    grid[:, 2], grid[:, 0] = display.xx0.ravel(), display.xx1.ravel()
    rows = pipeline[:-1].transform(grid)
    expected = getattr(pipeline[-1].predict_uncertainty(rows), measure)
    np.testing.assert_allclose(display.response, expected.reshape(7, 7))
    np.testing.assert_allclose(display.xx0[:, 0], X[:, 2].min() - 0.5 * X[:, 2].std())
    np.testing.assert_allclose(display.xx1[-1], X[:, 0].max() + 0.5 * X[:, 0].std())
    assert display.ax_.get_xlabel() == "feature 2"
    assert display.colorbar_.ax.get_ylabel() == f"{measure} uncertainty (nats)"
    assert not display.scatter_


@pytest.mark.parametrize("measure", ["epistemic", "decision"])
def test_rows_are_drawn_in_the_colours_of_their_classes(classifier, measure):
    display = UncertaintyDisplay.from_estimator(classifier, X, measure=measure, y=Y)
    no, yes = display.scatter_
    np.testing.assert_allclose(no.get_offsets(), X[Y == "no", :2])
    np.testing.assert_allclose(yes.get_offsets(), X[Y == "yes", :2])
    assert not same_color(no.get_facecolor(), yes.get_facecolor())
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts == ["no", "yes"]


def test_decision_of_a_classifier_and_of_a_regressor(classifier):
    options = {"measure": "decision", "grid_resolution": 5}
    display = UncertaintyDisplay.from_estimator(classifier, X, **options)
    point = [display.xx0[1, 3], display.xx1[1, 3], np.median(X[:, 2])]
    assert classifier.classes_[int(display.response[1, 3])] == classifier.predict([point])[0]
    assert display.colorbar_ is None
    regressor = FakeRegressor().fit(X, X[:, 0])
    display = UncertaintyDisplay.from_estimator(regressor, X, y=X[:, 0], **options)
    assert display.response[1, 3] == pytest.approx(regressor.predict([point])[0])
    assert display.scatter_[0].norm is display.surface_.norm


def test_decision_of_many_classes():
    response = np.arange(12).reshape(3, 4)
    display = UncertaintyDisplay.from_predictions(
        XX0, XX1, response, measure="decision", classes=list("abcdefghijkl")
    )
    colors = [patch.get_facecolor() for patch in display.ax_.get_legend().get_patches()]
    assert len(set(colors)) == 12
    np.testing.assert_array_equal(display.surface_.get_array().ravel(), response.ravel())


def test_uncertainty_of_a_regressor_is_a_variance():
    regressor = make_pipeline(StandardScaler(), FakeRegressor()).fit(X, X[:, 0])
    display = UncertaintyDisplay.from_estimator(regressor, X, y=X[:, 0], grid_resolution=3)
    label = display.colorbar_.ax.get_ylabel()
    assert label == "epistemic variance (squared units of the target)"
    np.testing.assert_array_equal(display.scatter_[0].get_array(), X[:, 0])


@pytest.mark.parametrize("value", [0.0, -1e-17, 2.0])
def test_the_same_uncertainty_everywhere_can_be_drawn(value):
    display = UncertaintyDisplay.from_predictions(XX0, XX1, np.full(XX0.shape, value))
    display.figure_.canvas.draw()


def mixed_table():
    return {
        "age": [20, 30, 40, 51],
        "size": [1.0, np.nan, 3.0, 5.0],
        "home": ["rent", "own", "own", "other"],
        "paid": [True, False, True, True],
    }


def categorical_pandas(table):
    return pd.DataFrame(table).astype({"home": "category", "age": "Int64"})


def categorical_polars(table):
    return pl.DataFrame(table).with_columns(pl.col("home").cast(pl.Categorical))


def array_of_objects(table):
    return np.array(list(table.values()), dtype=object).T


class Recorder(FakeClassifier):
    """Keeps the table it is asked about."""

    def members(self, X):
        self.seen_ = X
        return np.zeros((2, len(X)))


@pytest.mark.parametrize(
    "make", [pd.DataFrame, categorical_pandas, pl.DataFrame, categorical_polars, array_of_objects]
)
def test_other_features_are_held(make):
    table = make(mixed_table())
    model = Recorder().fit(None, Y)
    names = table.columns if hasattr(table, "columns") else range(4)
    display = UncertaintyDisplay.from_estimator(
        model, table, features=(names[1], names[0]), grid_resolution=3, eps=0
    )
    seen = model.seen_
    assert type(seen) is type(table)
    size, age, home, paid = ([row[j] for row in np.asarray(seen).tolist()] for j in (1, 0, 2, 3))
    np.testing.assert_allclose(np.unique(np.array(size, dtype=float)), [1, 3, 5])
    np.testing.assert_allclose(np.unique(np.array(age, dtype=float)), [20, 35.5, 51])
    assert set(home) == {"own"}
    assert set(paid) == {True}
    if hasattr(table, "columns"):
        assert list(seen.columns) == list(table.columns)
        assert seen["home"].dtype == table["home"].dtype
        assert seen["paid"].dtype == table["paid"].dtype
        assert display.ax_.get_xlabel() == "size"
    UncertaintyDisplay.from_estimator(model, table, features=(0, 1), grid_resolution=2)
    UncertaintyDisplay.from_estimator(model, table, features=(-3, 0), grid_resolution=2)
    assert display.ax_.get_ylabel() == ("age" if hasattr(table, "columns") else "feature 0")


def test_numeric_features_are_held_at_the_median_without_missing_cells():
    frame = pd.DataFrame({"a": [1, 2, 3], "b": [4.0, 5.0, 6.0], "c": [1.0, np.nan, 8.0]})
    model = Recorder().fit(None, Y)
    for table in (frame, pl.from_pandas(frame), frame.astype({"c": "Float64"}), frame.to_numpy()):
        UncertaintyDisplay.from_estimator(model, table, grid_resolution=2)
        np.testing.assert_array_equal(np.asarray(model.seen_, dtype=float)[:, 2], 4.5)


def test_pipeline_that_encodes_a_frame():
    frame = pd.DataFrame(X, columns=["a", "b", "c"]).assign(kind=np.where(X[:, 0] > 0, "p", "q"))
    columns = make_column_transformer(
        ("passthrough", ["a", "b", "c"]), (OneHotEncoder(sparse_output=False), ["kind"])
    )
    pipeline = make_pipeline(columns, FakeClassifier()).fit(frame, Y)
    display = UncertaintyDisplay.from_estimator(
        pipeline, frame, features=("a", "c"), y=pd.Series(Y), grid_resolution=4
    )
    assert display.ax_.get_ylabel() == "c"
    assert len(display.scatter_) == 2


# ---- accuracy against rejection


def mean_over_orders(correct, uncertainty):
    """Accuracy of the rows kept, averaged over every order that rejects uncertain rows first."""
    n = len(correct)
    curves = [
        [correct[list(order[k:])].mean() for k in range(n)]
        for order in permutations(range(n))
        if all(np.diff(uncertainty[list(order)]) <= 0)
    ]
    return np.mean(curves, axis=0)


@pytest.mark.parametrize("uncertainty", [[1, 2, 2, 3, 2, 1], [0] * 6, [6, 5, 4, 3, 2, 1]])
def test_rejection_with_ties_is_the_mean_over_orders(uncertainty):
    correct = np.array([True, False, True, False, True, True])
    display = AccuracyRejectionDisplay.from_predictions(np.ones(6), correct, uncertainty)
    np.testing.assert_allclose(display.accuracy, mean_over_orders(correct, np.array(uncertainty)))
    np.testing.assert_allclose(display.rejected, np.arange(6) / 6)
    assert display.area == pytest.approx(np.mean(display.accuracy))


def test_rejection_with_perfect_and_with_worst_uncertainty():
    y_true, y_pred = np.zeros(5), np.array([0, 0, 0, 1, 1])
    wrong = (y_pred != y_true).astype(float)
    best = AccuracyRejectionDisplay.from_predictions(y_true, y_pred, wrong)
    np.testing.assert_allclose(best.accuracy, [3 / 5, 3 / 4, 1, 1, 1])
    worst = AccuracyRejectionDisplay.from_predictions(y_true, y_pred, -wrong)
    np.testing.assert_allclose(worst.accuracy, [3 / 5, 2 / 4, 1 / 3, 0, 0])
    blind = AccuracyRejectionDisplay.from_predictions(y_true, y_pred, np.ones(5))
    np.testing.assert_allclose(blind.accuracy, 3 / 5)
    assert blind.area == pytest.approx(3 / 5)
    assert worst.area < blind.area < best.area


@pytest.mark.parametrize("measure", ["total", "aleatoric", "epistemic"])
def test_rejection_of_a_pipeline(scaled, measure):
    pipeline, rows = scaled
    display = AccuracyRejectionDisplay.from_estimator(pipeline, X, Y, measure=measure)
    uncertainty = getattr(pipeline[-1].predict_uncertainty(rows), measure)
    expected = AccuracyRejectionDisplay.from_predictions(Y, pipeline.predict(X), uncertainty)
    np.testing.assert_array_equal(display.accuracy, expected.accuracy)
    assert f"FakeClassifier (area = {display.area:.3f})" == display.line_.get_label()


def test_rejection_of_other_classifiers_by_entropy():
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    display = AccuracyRejectionDisplay.from_estimator(model, X, Y)
    uncertainty = entropy(model.predict_proba(X), axis=1)
    expected = AccuracyRejectionDisplay.from_predictions(Y, model.predict(X), uncertainty)
    np.testing.assert_array_equal(display.accuracy, expected.accuracy)
    search = GridSearchCV(LogisticRegression(), {"C": [1]}, cv=2).fit(X, Y)
    assert AccuracyRejectionDisplay.from_estimator(search, X, Y).area > 0.5


# ---- lengthscale


def test_tradeoff_of_a_regressor_is_scored_as_one():
    X, y = load_diabetes(return_X_y=True)
    model = FoRDERegressor(2, hidden_layer_sizes=4, max_epochs=1, random_state=0)
    display = LengthscaleTradeoffDisplay.from_estimator(
        model, X[:99], y[:99], X[99:], y[99:], X[99:], alphas=[0, 1]
    )
    expected = clone(model).set_params(lengthscale=1.0).fit(X[:99], y[:99]).score(X[99:], y[99:])
    assert display.clean[1] == pytest.approx(expected)


def test_displays_take_a_search_for_its_best_estimator(small, binary):
    X, y = binary
    search = GridSearchCV(small(), {"n_members": [2]}, cv=2).fit(X, y)
    DiversityDisplay.from_estimator(search, X)
    TrainingHistoryDisplay.from_estimator(search)
    display = AccuracyRejectionDisplay.from_estimator(search, X, y, measure="epistemic")
    best = search.best_estimator_
    expected = AccuracyRejectionDisplay.from_estimator(best, X, y, measure="epistemic")
    np.testing.assert_array_equal(display.accuracy, expected.accuracy)


@pytest.mark.parametrize("n_bins", [0, 2.5, None])
def test_bins_are_counted(n_bins):
    with pytest.raises(ValueError, match=f"Got n_bins={n_bins}, but expected an integer"):
        ReliabilityDisplay.from_predictions([0, 1], [[0.5, 0.5], [0.5, 0.5]], n_bins=n_bins)


@pytest.mark.parametrize("scoring", ["neg_log_loss", "accuracy"])
@pytest.mark.parametrize("in_pipeline", [False, True])
def test_tradeoff_fits_a_clone_for_each_lengthscale(scoring, in_pipeline):
    estimator = FakeClassifier()
    if in_pipeline:
        estimator = make_pipeline(FunctionTransformer(), make_pipeline(FakeClassifier()))
    before = str(estimator.get_params())
    copies = [X + 1, -X]
    display = LengthscaleTradeoffDisplay.from_estimator(
        estimator, X, Y, X, Y, copies, alphas=(0, 1), scoring=scoring
    )
    for position, alpha in enumerate((0, 1)):
        model = FakeClassifier(lengthscale=alpha).fit(X, Y)

        def score(rows, model=model):
            if scoring == "accuracy":
                return accuracy_score(Y, model.predict(rows))
            return -log_loss(Y, model.predict_proba(rows))

        np.testing.assert_allclose(display.clean[position], score(X))
        np.testing.assert_allclose(display.corrupted[position], np.mean([*map(score, copies)]))
    assert str(estimator.get_params()) == before
    one_copy = LengthscaleTradeoffDisplay.from_estimator(
        estimator, X, Y, pd.DataFrame(X), Y, pd.DataFrame(-X), alphas=[0.5]
    )
    assert one_copy.corrupted.shape == (1,)
    label = display.ax_.get_ylabel()
    assert label == ("accuracy" if scoring == "accuracy" else "negative log loss (nats)")


def test_tradeoff_over_seeds_shows_mean_and_one_standard_deviation():
    clean = np.array([[0.8, 0.9], [0.7, 0.9]])
    display = LengthscaleTradeoffDisplay.from_predictions(
        [0, 1], clean, [0.5, 0.6], score_name="accuracy"
    )
    np.testing.assert_allclose(display.lines_["clean"].get_ydata(), [0.85, 0.8])
    np.testing.assert_allclose(display.lines_["corrupted"].get_ydata(), [0.5, 0.6])
    assert set(display.bands_) == {"clean"}
    corners = display.bands_["clean"].get_paths()[0].vertices
    std = clean.std(axis=1, ddof=1)
    at_zero = np.unique(corners[corners[:, 0] == 0, 1].round(9))
    np.testing.assert_allclose(at_zero[[0, -1]], [0.85 - std[0], 0.85 + std[0]])


# ---- bad input

FITTED = LogisticRegression().fit(X, Y)
LINE = LinearRegression().fit(X, X[:, 0])
TWO = [[0.5, 0.5], [0.5, 0.5]]
BAD = {
    "1-D probabilities": (
        lambda: ReliabilityDisplay.from_predictions([0, 1], [0.5, 0.5]),
        (ValueError, r"Got y_proba of shape \(2,\), but expected \(n_samples, n_classes\)"),
    ),
    "unknown classes": (
        lambda: ReliabilityDisplay.from_predictions([0, 0], TWO),
        (ValueError, r"Got y_proba with 2 columns for the classes \[0\], but expected"),
    ),
    "label that is no class": (
        lambda: ReliabilityDisplay.from_predictions([0, 7], TWO, classes=[0, 1]),
        (ValueError, r"Got labels \[7\], but expected some of the classes \[0, 1\]"),
    ),
    "logits": (
        lambda: ReliabilityDisplay.from_predictions([0, 1], [[2.0, -1.0], [0.0, 1.0]]),
        (ValueError, r"Got y_proba whose rows don't, but expected rows of prob"),
    ),
    "lengths": (
        lambda: ReliabilityDisplay.from_predictions([0, 1, 1], TWO),
        (ValueError, r"inconsistent numbers of samples"),
    ),
    "no bins": (
        lambda: ReliabilityDisplay.from_predictions([0, 1], TWO, n_bins=0),
        (ValueError, r"Got n_bins=0, but expected an integer >= 1"),
    ),
    "reliability of a regressor": (
        lambda: ReliabilityDisplay.from_estimator(LINE, X, Y),
        (ValueError, r"Got LinearRegression, which has no classes_, but expected a fitted class"),
    ),
    "not fitted": (
        lambda: ReliabilityDisplay.from_estimator(LogisticRegression(), X, Y),
        (NotFittedError, r"not fitted"),
    ),
    "one member": (
        lambda: DiversityDisplay.from_predictions(np.ones((1, 5, 2))),
        (ValueError, r"Got predictions of shape \(1, 5, 2\), but expected .* at least two members"),
    ),
    "gradients of other rows": (
        lambda: DiversityDisplay.from_predictions(np.ones((2, 5)), np.ones((2, 4, 3))),
        (ValueError, r"Got input_gradients of shape \(2, 4, 3\), but expected .* = \(2, 5\)"),
    ),
    "no members": (
        lambda: DiversityDisplay.from_estimator(make_pipeline(FITTED), X),
        (
            TypeError,
            r"Got LogisticRegression, but expected .* predict_proba_members or predict_mem",
        ),
    ),
    "no history": (
        lambda: TrainingHistoryDisplay.from_estimator(FITTED),
        (TypeError, r"Got LogisticRegression, but expected .* attribute history_"),
    ),
    "empty history": (
        lambda: TrainingHistoryDisplay.from_history([]),
        (ValueError, r"Got a history of 0 epochs without driving_loss, but expected"),
    ),
    "measure": (
        lambda: UncertaintyDisplay.from_estimator(FITTED, X, measure="entropy"),
        (ValueError, r"Got measure='entropy', but expected one of total, .*, decision"),
    ),
    "measure of rejection": (
        lambda: AccuracyRejectionDisplay.from_estimator(FITTED, X, Y, measure="decision"),
        (ValueError, r"Got measure='decision', but expected one of total, aleatoric, epistemic\."),
    ),
    "no such column": (
        lambda: UncertaintyDisplay.from_estimator(
            FITTED, pd.DataFrame(X, columns=list("abc")), features=("a", "z")
        ),
        (ValueError, r"Got feature 'z', but expected an index below 3 or one of .*'b'"),
    ),
    "no such index": (
        lambda: UncertaintyDisplay.from_estimator(FITTED, X, features=(0, 3)),
        (ValueError, r"Got feature 3, but expected an index below 3"),
    ),
    "text feature": (
        lambda: UncertaintyDisplay.from_estimator(FITTED, np.c_[X, Y], features=(3, 0)),
        (ValueError, r"Got feature 3, which isn't numeric, but expected"),
    ),
    "one feature": (
        lambda: UncertaintyDisplay.from_estimator(FITTED, X, features=(0,)),
        (ValueError, r"Got features=\(0,\), but expected two"),
    ),
    "a feature twice": (
        lambda: UncertaintyDisplay.from_estimator(FITTED, X, features=(1, -2)),
        (ValueError, r"Got features=\(1, -2\), which are one, but expected two"),
    ),
    "resolution": (
        lambda: UncertaintyDisplay.from_estimator(FITTED, X, grid_resolution=1),
        (ValueError, r"Got grid_resolution=1, but expected an integer >= 2"),
    ),
    "eps": (
        lambda: UncertaintyDisplay.from_estimator(FITTED, X, eps=-1),
        (ValueError, r"Got eps=-1, but expected a number >= 0"),
    ),
    "X of images": (
        lambda: UncertaintyDisplay.from_estimator(FITTED, np.ones((2, 3, 3))),
        (ValueError, r"Got X of shape \(2, 3, 3\), but expected \(n_samples, n_features\)"),
    ),
    "shapes of the grid": (
        lambda: UncertaintyDisplay.from_predictions(XX0, XX1, XX0[:2]),
        (ValueError, r"Got xx0, xx1 and response of shapes .*\(2, 4\), but expected one shape"),
    ),
    "points without y": (
        lambda: UncertaintyDisplay.from_predictions(XX0, XX1, XX0, points=X[:, :2]),
        (ValueError, r"Got one of points and y, but expected both or neither"),
    ),
    "uncertainty of a classifier without members": (
        lambda: UncertaintyDisplay.from_estimator(FITTED, X),
        (TypeError, r"Got measure='epistemic' and LogisticRegression, .* but expected .*'total'"),
    ),
    "uncertainty of a regressor without members": (
        lambda: UncertaintyDisplay.from_estimator(
            make_pipeline(StandardScaler(), LINE).fit(X, X), X
        ),
        (TypeError, r"Got LinearRegression, but expected .* the method predict_uncertainty"),
    ),
    "rejection of a regressor": (
        lambda: AccuracyRejectionDisplay.from_estimator(LINE, X, X[:, 0]),
        (ValueError, r"Got LinearRegression, which has no classes_, but expected a fitted class"),
    ),
    "NaN as uncertainty": (
        lambda: AccuracyRejectionDisplay.from_predictions([0, 1], [0, 1], [0.1, np.nan]),
        (ValueError, r"Got uncertainty with NaN or infinity, but expected finite numbers"),
    ),
    "no lengthscale": (
        lambda: LengthscaleTradeoffDisplay.from_estimator(make_pipeline(FITTED), X, Y, X, Y, X),
        (TypeError, r"Got LogisticRegression, but expected .* with the parameter lengthscale"),
    ),
    "alphas": (
        lambda: LengthscaleTradeoffDisplay.from_predictions([0, 2], [1, 2], [1, 2]),
        (ValueError, r"Got alphas=\[0.0, 2.0\], but expected numbers between 0 and 1"),
    ),
    "scores of other alphas": (
        lambda: LengthscaleTradeoffDisplay.from_predictions([0, 1], [1, 2, 3], [1, 2]),
        (ValueError, r"Got clean of shape \(3,\) for 2 alphas, but expected \(n_alphas,\) or"),
    ),
}


@pytest.mark.parametrize(("call", "error"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_told_before_a_figure_is_made(call, error):
    kind, message = error
    with pytest.raises(kind, match=message):
        call()
    assert not plt.get_fignums()


# ---- the real estimators


@pytest.fixture(scope="module")
def frame_of_binary(binary):
    X, y = binary
    return pd.DataFrame(X, columns=list("abcdef")), np.array(["no", "yes"])[y]


def test_every_display_of_a_real_classifier_in_a_pipeline(small, frame_of_binary):
    X, y = frame_of_binary
    scaler = StandardScaler().set_output(transform="pandas")
    model = make_pipeline(scaler, small()).fit(X, y)
    rows = model[:-1].transform(X)
    assert ReliabilityDisplay.from_estimator(model, X, y).ece < 0.5
    history = TrainingHistoryDisplay.from_estimator(model)
    assert history.epoch.tolist() == list(range(1, 7))
    assert history.repulsion_ax_ is not None
    rejection = AccuracyRejectionDisplay.from_estimator(model, X, y, measure="epistemic")
    assert rejection.accuracy[0] == model.score(X, y)
    display = UncertaintyDisplay.from_estimator(
        model, X, features=("b", "d"), y=y, grid_resolution=5
    )
    held = (
        X.median().to_frame().T.loc[[0] * 25].assign(b=display.xx0.ravel(), d=display.xx1.ravel())
    )
    expected = model[-1].predict_uncertainty(model[:-1].transform(held)).epistemic
    np.testing.assert_allclose(display.response.ravel(), expected, atol=1e-6)
    diversity = DiversityDisplay.from_estimator(model, X, y)
    gradients = model[-1].input_gradients(rows, y)
    unit = gradients / np.linalg.norm(gradients, axis=-1, keepdims=True)
    np.testing.assert_allclose(
        diversity.cosine[0, 1], np.einsum("nd,nd->n", unit[0], unit[1]).mean(), atol=1e-6
    )


def test_tradeoff_of_a_real_classifier(small, frame_of_binary):
    X, y = frame_of_binary
    model = make_pipeline(StandardScaler(), small(max_epochs=2))
    display = LengthscaleTradeoffDisplay.from_estimator(
        model, X, y, X, y, [X + 1, X * 2], alphas=(0, 1)
    )
    assert display.clean.shape == display.corrupted.shape == (2,)
    assert np.isfinite(display.clean).all()
    assert display.clean[0] != display.clean[1]


def test_every_display_of_a_real_regressor():
    X, y = make_regression(80, 4, random_state=0)
    model = FoRDERegressor(3, hidden_layer_sizes=(16,), max_epochs=3, random_state=0).fit(X, y)
    display = UncertaintyDisplay.from_estimator(model, X, y=y, measure="total", grid_resolution=4)
    assert (display.response > 0).all()
    members = model.predict_members(X)
    diversity = DiversityDisplay.from_estimator(model, X, y)
    np.testing.assert_allclose(diversity.disagreement[0, 1], np.abs(members[0] - members[1]).mean())
    assert diversity.cosine.shape == (3, 3)
    assert "driving_loss" in TrainingHistoryDisplay.from_estimator(model).lines_
