"""The displays: the numbers they compute, and what they draw on which axes."""

import inspect
import subprocess
import sys
from functools import partial
from itertools import combinations, permutations
from types import SimpleNamespace
from unittest.mock import Mock, call

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from matplotlib.colors import same_color
from numpy.testing import assert_allclose, assert_array_equal
from pyarrow.dataset import dataset
from scipy.special import expit
from scipy.stats import entropy
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.datasets import make_regression
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklearn_fordes import FoRDERegressor
from sklearn_fordes.inspection import (
    AccuracyRejectionDisplay,
    CoverageDisplay,
    DiversityDisplay,
    DriftReport,
    ImportanceDisplay,
    IntervalDisplay,
    LengthscaleTradeoffDisplay,
    ReliabilityDisplay,
    SupportDisplay,
    TrainingHistoryDisplay,
    UncertaintyDisplay,
)

mpl.use("agg")

N_FEATURES = 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, N_FEATURES)) * [1, 2, 5]
COEF = RNG.normal(size=(4, N_FEATURES))  # one row per member
IMPORTANCES = np.abs(COEF) / np.abs(COEF).sum(1, keepdims=True)
Y = np.where(X @ COEF.mean(0) + RNG.normal(size=40) > 0, "yes", "no")
FRAME = pd.DataFrame(X, columns=list("abc"))
XX0, XX1 = np.meshgrid(np.linspace(0, 1, 4), np.linspace(2, 5, 3))
HISTORY = [
    {"epoch": 1, "driving_loss": 0.7, "repulsion": 0.3, "valid_loss": 0.6},
    {"epoch": 2, "driving_loss": 0.5, "repulsion": 0.4, "valid_loss": 0.4},
    {"epoch": 3, "driving_loss": 0.4, "repulsion": 0.2, "valid_loss": 0.5},
]
MEASURES = ["total", "aleatoric", "epistemic", "support"]


class FakeEnsemble(BaseEstimator):
    """Four linear models with given coefficients."""

    def __init__(self, lengthscale="identity"):
        self.lengthscale = lengthscale

    def fit(self, X, y):
        self.history_ = HISTORY
        self.member_importances_ = IMPORTANCES
        return self

    def members(self, X):
        # Names and types of columns are the test's to check, as an estimator would.
        numbers = np.nan_to_num(np.asarray(X, dtype=float)[:, :N_FEATURES])
        return np.einsum("nd,md->mn", numbers, COEF)

    def ood_report(self, X):
        z = np.asarray(X, dtype=float)
        rows, columns = np.nonzero(np.isnan(z) | (np.abs(z) > 1))
        cells = z[rows, columns]
        reasons = np.select([np.isnan(cells), cells < -1], ["missing", "below"], "above")
        names = np.asarray(getattr(X, "columns", np.arange(z.shape[1])))[columns]
        surprise = np.where(np.isnan(cells), 3.0, np.abs(cells))
        return pd.DataFrame(
            {"row": rows, "column": names, "reason": reasons, "degree": 1.0, "surprise": surprise}
        )

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
        total, own = entropy(members.mean(0), axis=-1), entropy(members, axis=-1).mean(0)
        support = own * np.linspace(0, 1, len(own))
        return SimpleNamespace(
            total=total, aleatoric=own - support, epistemic=total - own, support=support
        )


class FakeRegressor(RegressorMixin, FakeEnsemble):
    def predict_members(self, X):
        return self.members(X)

    def predict(self, X):
        return self.members(X).mean(0)

    def predict_interval(self, X, confidence=0.9):
        tail = (1 - confidence) / 2
        return np.quantile(self.members(X), [tail, 1 - tail], axis=0).T

    def predict_uncertainty(self, X):
        epistemic = self.members(X).var(0)
        noise = np.ones_like(epistemic)
        return SimpleNamespace(total=epistemic + noise, aleatoric=noise, epistemic=epistemic)

    def input_gradients(self, X):
        return super().input_gradients(X)


CLASSIFIER = FakeClassifier().fit(X, Y)
REGRESSOR = FakeRegressor().fit(X, X[:, 0])
LOGISTIC = LogisticRegression().fit(X, Y)
HISTOGRAM = HistGradientBoostingRegressor(max_iter=1).fit(X, X[:, 0])  # takes gaps
LINEAR = LinearRegression().fit(X, X[:, 0])
PIPELINE = make_pipeline(StandardScaler(), FakeClassifier()).fit(X, Y)
REGRESSION = make_pipeline(StandardScaler(), FakeRegressor()).fit(X, X[:, 0])
SCALED = PIPELINE[:-1].transform(X)  # rows as the last step of the pipeline gets them


def texts(legend):
    return [text.get_text() for text in legend.get_texts()]


# ---- the contract of every display

THREE = [[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]]
reliability = ReliabilityDisplay.from_predictions
diversity = DiversityDisplay.from_predictions
importances = ImportanceDisplay.from_importances
history = TrainingHistoryDisplay.from_history
uncertainty = partial(UncertaintyDisplay.from_predictions, XX0, XX1)
intervals = IntervalDisplay.from_predictions
coverage = CoverageDisplay.from_predictions
support = SupportDisplay.from_report
rejection = AccuracyRejectionDisplay.from_predictions
tradeoff = LengthscaleTradeoffDisplay.from_predictions
ENDS = [[1.0, 3.0], [2.0, 6.0], [0.0, 9.0]]
NAN = float("nan")
REPORT = pd.DataFrame(
    [
        (0, "city", "unseen", 1.0, 4.0),
        (1, "age", "missing", 1.0, 0.5),
        (1, "city", "missing", 1.0, 2.0),
        (2, "age", "above", 0.5, 1.5),
        (3, "city", "unseen", 1.0, 4.0),
        (3, "debt", "below", 0.1, 9.0),
    ],
    columns=["row", "column", "reason", "degree", "surprise"],
)
DRIFT = pd.DataFrame(
    {
        "corruption": ["clean", "noise", "noise", "missing", "noise", "missing"],
        "severity": [0, 0.3, 1, 0.1, 1, 0.1],
        "column": [None, None, None, None, "a", "a"],
        "nll": [0.4, 0.5, 0.7, 0.6, 0.6, 0.5],
    }
)


def drift(**kwargs):
    parameters = {"name": kwargs.pop("name", None)}
    return DriftReport(DRIFT, **parameters).plot(**kwargs)


DRAW = {
    "reliability": partial(reliability, [0, 1, 1], THREE),
    "diversity": partial(diversity, RNG.dirichlet(np.ones(3), size=(4, 10))),
    "two heat maps": partial(diversity, RNG.normal(size=(4, 10)), RNG.normal(size=(4, 10, 3))),
    "importances": partial(importances, IMPORTANCES),
    "history": partial(history, HISTORY),
    "uncertainty": partial(uncertainty, XX0 * XX1),
    "decision": partial(uncertainty, XX0 > 0.5, measure="decision", classes=["no", "yes"]),
    "rejection": partial(rejection, [0, 1, 1], [0, 1, 0], [0.1, 0.3, 0.2]),
    "intervals": partial(intervals, [1, 2, NAN], [2, 3, 3], ENDS, training_range=(1, 2)),
    "coverage": partial(coverage, [1, 2, 3], np.array(ENDS)[:, :, None], 0.9),
    "support": partial(support, REPORT, 5),
    "drift": drift,
    "tradeoff": partial(tradeoff, [0, 0.5, 1], RNG.normal(size=(3, 4)), RNG.normal(size=3)),
}
FROM_ESTIMATOR = {
    ReliabilityDisplay: (X, Y),
    DiversityDisplay: (X,),
    ImportanceDisplay: (),
    TrainingHistoryDisplay: (),
    UncertaintyDisplay: (X,),
    AccuracyRejectionDisplay: (X, Y),
    IntervalDisplay: (X,),
    CoverageDisplay: (X, X[:, 0]),
    SupportDisplay: (X,),
    LengthscaleTradeoffDisplay: (X, Y, X, Y, X),
    DriftReport: (X, Y),
}


@pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW.keys())
class TestDisplay:
    def test_draws_on_the_given_axes_alone_and_labels_them(self, draw):
        figure, axes = plt.subplots(1, 2)
        display = draw(ax=axes[0])
        assert display.figure_ is figure
        assert display.ax_ is axes[0] or display.ax_ in figure.axes
        assert plt.get_fignums() == [figure.number]
        assert not axes[1].has_data()
        assert display.ax_.get_xlabel()
        assert display.ax_.get_ylabel()

    def test_plot_draws_again_on_other_axes_under_another_name(self, draw):
        display = draw(name="first")
        figures, ax_first = [display.figure_], display.ax_
        figures.append(display.plot().figure_)  # under its own name
        third, ax = plt.subplots()
        assert display.plot(ax, name="again") is display
        assert display.figure_ is third
        assert display.ax_ is not ax_first
        for figure, name in zip([*figures, third], ["first", "first", "again"], strict=True):
            assert any(name in t.get_text() for t in figure.findobj(mpl.text.Text))
            figure.canvas.draw()
        assert display.name == "first"

    def test_constructor_stores_its_parameters_and_draws_nothing(self, draw):
        display = draw()
        parameters = list(inspect.signature(type(display)).parameters)
        twin = type(display)(**{name: getattr(display, name) for name in parameters})
        assert all(getattr(twin, name) is getattr(display, name) for name in parameters)
        assert not hasattr(twin, "ax_")
        assert twin.plot().ax_ is not display.ax_

    def test_axes_that_are_not_matplotlib_raise(self, draw):
        with pytest.raises(TypeError, match=r"Got ax of type str, but expected matplotlib axes"):
            draw(ax="axes")

    def test_missing_matplotlib_is_named_in_the_error(self, draw, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(ImportError, match=r"(Display|Report)\.plot requires matplotlib"):
            draw()


@pytest.mark.filterwarnings("ignore:The estimator refuses")
@pytest.mark.parametrize(("display", "data"), FROM_ESTIMATOR.items())
class TestFromEstimator:
    def test_missing_matplotlib_raises_before_anything_is_computed(
        self, display, data, monkeypatch
    ):
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(
            ImportError, match=r"(Display|Report)\.from_estimator requires matplotlib"
        ):
            display.from_estimator(None, *data)

    def test_an_estimator_that_is_not_fitted_raises(self, display, data):
        if display is not LengthscaleTradeoffDisplay:  # it fits clones
            with pytest.raises(NotFittedError, match="not fitted"):
                display.from_estimator(FakeClassifier(), *data)
            assert not plt.get_fignums()

    def test_axes_and_name_are_its_last_parameters(self, display, data):
        parameters = list(inspect.signature(display.from_estimator).parameters)
        assert parameters[-3:] == ["ax", "name", "kwargs"]
        _, ax = plt.subplots()
        is_of_numbers = display in (CoverageDisplay, IntervalDisplay)
        model = REGRESSION if is_of_numbers else PIPELINE
        drawn = display.from_estimator(model, *data, ax=ax, name="mine")
        assert drawn.figure_ is ax.figure
        assert drawn.name == "mine"


def test_importing_displays_and_encoder_loads_neither_matplotlib_nor_torch():
    code = """
import sys, sklearn_fordes.inspection as inspection, sklearn_fordes.preprocessing
assert len(inspection.__all__) == 14 and all(hasattr(inspection, n) for n in inspection.__all__)
print({"matplotlib", "torch"} & set(sys.modules))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize("name", ["reliability", "rejection"])
def test_models_on_the_same_axes_differ_in_colour(name):
    one = DRAW[name]()
    two = DRAW[name](ax=one.ax_, name="two")
    three = DRAW[name](ax=one.ax_, color="gold", lw=3)
    colors = [display.line_.get_color() for display in (one, two, three)]
    assert not same_color(colors[0], colors[1])
    assert same_color(colors[2], "gold")
    assert three.line_.get_linewidth() == 3
    labels = texts(one.ax_.get_legend())
    assert len(labels) == len(set(labels)) + 1  # one and three have no name
    assert labels.count("perfectly calibrated") == (name == "reliability")


WITHOUT_LEGEND = {"diversity", "two heat maps", "importances", "uncertainty"}


@pytest.mark.parametrize("name", DRAW.keys() - WITHOUT_LEGEND)
def test_the_legend_is_where_the_user_wants_it_or_absent(name):
    # The second axes of a history has the legend.
    def legends(legend):
        axes = DRAW[name](legend=legend, name="model").figure_.axes
        return [found for ax in axes if (found := ax.get_legend())]

    assert legends(False) == []
    (legend,) = legends("center right")
    assert legend._loc == mpl.legend.Legend.codes["center right"]
    (legend,) = legends((0.25, 0.5))
    legend.figure.canvas.draw()
    corner = legend.axes.transAxes.inverted().transform(legend.get_window_extent().p0)
    assert_allclose(corner, [0.25, 0.5], atol=0.05)


def overlap(boxes):
    return [(a, b) for a, b in combinations(boxes, 2) if mpl.transforms.Bbox.intersection(a, b)]


def test_displays_use_the_best_estimator_of_a_search(small, binary):
    X, y = binary
    search = GridSearchCV(small(), {"n_members": [2]}, cv=2).fit(X, y)
    assert DiversityDisplay.from_estimator(search, X).disagreement.shape == (2, 2)
    assert TrainingHistoryDisplay.from_estimator(search).epoch[0] == 1
    assert ImportanceDisplay.from_estimator(search).importances.shape == (2, 6)
    display = AccuracyRejectionDisplay.from_estimator(search, X, y, measure="epistemic")
    best = search.best_estimator_
    expected = AccuracyRejectionDisplay.from_estimator(best, X, y, measure="epistemic")
    assert_array_equal(display.accuracy, expected.accuracy)


# ---- reliability


def test_reliability_bins_of_a_small_case():
    y_proba = np.array([0.55, 0.65, 0.85, 0.95, 1.0, 0.3])  # of class 1
    y_true = [1, 0, 1, 1, 1, 1]
    display = reliability(y_true, np.c_[1 - y_proba, y_proba], n_bins=5)
    nan = np.nan
    # Confidences .55 | .65, .7 (class 0) | .85, .95, 1 in bins [.4, .6), [.6, .8), [.8, 1].
    assert_allclose(display.confidence, [nan, nan, 0.55, 0.675, 2.8 / 3])
    assert_allclose(display.accuracy, [nan, nan, 1, 0, 1])
    assert_allclose(display.share, [0, 0, 1 / 6, 2 / 6, 3 / 6])
    assert display.ece == pytest.approx((0.45 + 2 * 0.675 + 3 * (1 - 2.8 / 3)) / 6)
    assert_allclose([bar.get_height() for bar in display.bars_], [1 / 6, 2 / 6, 3 / 6])
    assert_allclose([bar.get_x() for bar in display.bars_], [0.4, 0.6, 0.8])
    assert_allclose(display.line_.get_ydata(), [1, 0, 1])
    assert display.ax_.get_ylim()[0] < 0  # A marker at zero is whole.
    assert f"ECE = {display.ece:.3f}" in display.line_.get_label()


def test_classes_name_the_columns_in_any_order():
    y_proba = np.array([[0.9, 0.1], [0.2, 0.8]])
    names = {"classes": ["yes", "no"]}
    display = reliability(["yes", "no"], y_proba, **names)
    assert np.nanmin(display.accuracy) == 1
    one_label = reliability(["no", "no"], y_proba, **names)
    assert np.nanmean(one_label.accuracy) == 0.5


@pytest.mark.parametrize("frame", [np.asarray, pd.DataFrame, pl.DataFrame])
def test_reliability_of_an_estimator_is_that_of_its_predictions(frame):
    display = ReliabilityDisplay.from_estimator(CLASSIFIER, frame(X), pd.Series(Y), n_bins=4)
    expected = reliability(Y, CLASSIFIER.predict_proba(X), n_bins=4)
    assert_array_equal(display.accuracy, expected.accuracy)
    assert display.line_.get_label().startswith("FakeClassifier (")
    display = ReliabilityDisplay.from_estimator(PIPELINE, X, Y)
    assert len(display.share) == 15
    assert display.ece == reliability(Y, PIPELINE.predict_proba(X)).ece
    assert display.line_.get_label().startswith("FakeClassifier (")


def wilson(k, n, z=1.959964):
    """The closed form of the 95 % interval (Wilson 1927)."""
    center, half = k + z**2 / 2, z * np.sqrt(k * (n - k) / n + z**2 / 4)
    return (center - half) / (n + z**2), (center + half) / (n + z**2)


def test_reliability_has_the_intervals_of_its_bins():
    scores = np.linspace(0.5, 1, 50)
    y_proba = np.stack([scores, 1 - scores], axis=1)
    labels = np.where(np.arange(50) % 3, 0, 1)
    display = reliability(labels, y_proba, n_bins=4)
    filled = display.share > 0
    n_right = (display.accuracy * display.share * 50)[filled].round().astype(int)
    n_rows = (display.share * 50)[filled].round().astype(int)
    expected = [wilson(k, n) for k, n in zip(n_right, n_rows, strict=True)]
    ends = [segment[:, 1] for segment in display.intervals_.get_segments()]
    assert_allclose(ends, expected, atol=1e-6)
    twin = ReliabilityDisplay(display.confidence, display.accuracy, display.share).plot()
    assert twin.intervals_ is None


# ---- coverage


def test_coverage_is_the_share_of_targets_inside():
    levels = np.array([0.5, 0.9])
    display = CoverageDisplay.from_estimator(REGRESSION, X, X[:, 0], confidence=levels)
    rows = REGRESSION[:-1].transform(X)
    for level, found in zip(levels, display.coverage, strict=True):
        low, high = REGRESSION[-1].predict_interval(rows, level).T
        assert found == ((low <= X[:, 0]) & (X[:, 0] <= high)).mean()
    one = CoverageDisplay.from_predictions(
        X[:, 0], REGRESSION[-1].predict_interval(rows, 0.9), confidence=0.9
    )
    assert one.coverage.tolist() == [display.coverage[1]]
    assert display.n_rows == 40
    assert display.gap == pytest.approx(abs(display.coverage - levels).mean())
    assert display.points_.get_label().startswith("FakeRegressor (mean gap")
    segments = display.points_.lines[2][0].get_segments()
    expected = [wilson(share * 40, 40) for share in display.coverage]
    assert_allclose([segment[:, 1] for segment in segments], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("ends", "confidence", "message"),
    [
        (np.zeros((3, 2)), [0.5, 0.9], r"intervals of shape \(3, 2\) for 3 targets and 2 levels"),
        (np.zeros((3, 2, 2)), [0.9], r"expected shape \(3, 2, 1\)"),
        (np.zeros((3, 2, 1)), [1.0], r"Got confidence=\[1.0\], but expected numbers in \(0, 1\)"),
        (np.zeros((3, 2, 0)), [], r"Got confidence=\[\], but expected"),
    ],
)
def test_coverage_of_other_shapes_raises(ends, confidence, message):
    with pytest.raises(ValueError, match=message):
        coverage([1, 2, 3], ends, confidence)


# ---- diversity


def test_disagreement_and_cosine_agree_with_loops():
    y_proba = RNG.dirichlet(np.ones(3), size=(4, 20))
    gradients = RNG.normal(size=(4, 20, 5))
    gradients[0, :3] = 0  # has no direction there
    display = diversity(y_proba, gradients)
    unit = gradients / np.linalg.norm(gradients, axis=-1, keepdims=True).clip(1e-300)
    for i in range(4):
        for j in range(4):
            differ = [y_proba[i, n].argmax() != y_proba[j, n].argmax() for n in range(20)]
            assert_allclose(display.disagreement[i, j], np.mean(differ))
            rows = range(3 if 0 in (i, j) else 0, 20)
            assert_allclose(display.cosine[i, j], np.mean([unit[i, n] @ unit[j, n] for n in rows]))
    assert_array_equal(display.images_[0].get_array(), display.disagreement)
    assert_array_equal(display.images_[1].get_array(), display.cosine)


def test_heat_maps_that_share_have_one_scale_for_both():
    few, many = np.eye(2)[[[0, 0, 0, 0], [0, 0, 0, 1]]], np.eye(2)[[[0, 0, 0, 0], [1, 1, 1, 0]]]
    along, against = np.ones((2, 4, 2)), np.stack([np.ones((4, 2)), -np.ones((4, 2))])
    first = diversity(few, along)
    assert [image.get_clim() for image in first.images_] == [(0, 0.25), (0, 1)]
    second = diversity(many, against, share=first)
    third = diversity(few, along, share=second)
    for display in (first, second, third):
        bars = [image.colorbar for image in display.images_]
        assert_allclose([image.get_clim() for image in display.images_], [(0, 0.75), (-1, 1)])
        assert_allclose([(bar.vmin, bar.vmax) for bar in bars], [(0, 0.75), (-1, 1)])
        assert [bar.extend for bar in bars] == ["neither", "neither"]
        # Lines of a grid would cut the cells.
        assert not any(line.get_visible() for line in display.ax_.get_xgridlines())
    first.plot(share=first)
    assert_allclose([image.get_clim() for image in first.images_], [(0, 0.75), (-1, 1)])
    own = diversity(few, along, share=first, vmin=0, vmax=2)
    assert [image.get_clim() for image in own.images_] == [(0, 2), (0, 2)]
    with pytest.raises(ValueError, match="but expected a DiversityDisplay that is drawn"):
        diversity(few, along, share=first.ax_)
    for other in (diversity(few), diversity([[0.0, 2.0], [1.0, 5.0]], along[:, :2])):
        with pytest.raises(ValueError, match=r"Got a display of .* to share, but expected"):
            diversity(few, along, share=other)


def test_a_training_range_may_be_an_array():
    display = intervals([1, 2, 3], [1, 2, 3], ENDS, training_range=np.array([0, 9]))
    assert display.ax_.get_xlim() == (0, 9)


@pytest.mark.parametrize(
    ("limits", "extend"),
    [
        ({"vmax": 0.5}, ["max", "max"]),
        ({"vmin": 0.2, "vmax": 1}, ["min", "min"]),
        ({"norm": mpl.colors.Normalize(0.2, 0.5)}, ["both", "both"]),
    ],
)
def test_colour_bars_show_where_values_are_clipped(limits, extend):
    classes = np.eye(2)[[[0, 0, 0, 0], [1, 1, 1, 0]]]
    gradients = np.array([[[1.0, 0]] * 4, [[0.1, 1]] * 4])
    display = diversity(classes, gradients, **limits)
    assert [image.colorbar.extend for image in display.images_] == extend


def test_titles_of_heat_maps_fit_into_narrow_panels():
    with plt.style.context("sklearn_fordes.inspection.fordes"):
        figure, axes = plt.subplots(1, 2, figsize=(7.5, 4))
        display = None
        for ax, name in zip(axes, ["a deep ensemble without repulsion", "FoRDE"], strict=True):
            display = DRAW["two heat maps"](ax=ax, name=name, share=display)
        figure.canvas.draw()
    drawn = [ax for ax in figure.axes if ax.axison]
    words = [word for ax in drawn for word in (ax._left_title, ax.xaxis.label, ax.yaxis.label)]
    boxes = [word.get_window_extent() for word in words if word.get_text()]
    assert len(boxes) == 4 * 3 + 4
    assert not overlap([*boxes, *(ax.get_window_extent() for ax in drawn)])
    assert min(box.x0 for box in boxes) >= 0
    assert max(box.x1 for box in boxes) <= figure.bbox.x1


def test_a_member_without_gradients_has_no_cosine():
    display = diversity(np.ones((2, 3)), [np.zeros((3, 2)), np.ones((3, 2))])
    assert_allclose(display.cosine, [[np.nan, np.nan], [np.nan, 1]])
    assert not display.disagreement.any()  # and equal members make no empty colour scale
    display.figure_.canvas.draw()


def test_members_of_a_regressor_differ_in_units_of_the_target():
    display = diversity([[0.0, 2.0], [1.0, 5.0], [0.0, 2.0]])
    assert_allclose(display.disagreement, [[0, 2, 0], [2, 0, 2], [0, 2, 0]])
    assert display.cosine is None
    assert len(display.axes_) == 1
    labels = [axes.get_ylabel() for axes in display.figure_.axes]
    assert "units of the target" in labels
    assert display.ax_.get_title() == "difference\nmean 1.3"


def test_diversity_of_a_pipeline_is_that_of_its_last_step():
    display = DiversityDisplay.from_estimator(PIPELINE, X)
    expected = diversity(PIPELINE[-1].predict_proba_members(SCALED))
    assert_array_equal(display.disagreement, expected.disagreement)
    unit = COEF / np.linalg.norm(COEF, axis=1, keepdims=True)
    assert_allclose(display.cosine, unit @ unit.T)


def test_input_gradients_are_those_of_the_given_labels_if_there_are_any(monkeypatch):
    gradients = Mock(return_value=np.ones((4, 40, 3)))
    monkeypatch.setattr(FakeClassifier, "input_gradients", gradients)
    DiversityDisplay.from_estimator(CLASSIFIER, X)
    DiversityDisplay.from_estimator(CLASSIFIER, X, Y)
    assert gradients.call_args_list == [call(X), call(X, Y)]
    assert len(DiversityDisplay.from_estimator(REGRESSOR, X, X[:, 0]).axes_) == 2
    for kind in (FakeClassifier, FakeEnsemble):
        monkeypatch.delattr(kind, "input_gradients")
    assert len(DiversityDisplay.from_estimator(CLASSIFIER, X).axes_) == 1


def test_diversity_takes_two_axes_or_splits_one():
    _, (left, right) = plt.subplots(1, 2)
    draw = DRAW["two heat maps"]
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


# ---- importances


def ticks(display):
    return [label.get_text() for label in display.ax_.get_yticklabels()]


def test_importances_are_drawn_in_order_with_the_range_of_members():
    members = np.array([[0.1, 0.6, 0.3], [0.2, 0.4, 0.4], [0.0, 0.8, 0.2]])
    display = importances(members, feature_names=["a", "b", "c"])
    assert ticks(display) == ["a", "c", "b"]  # From bottom to top.
    assert_allclose([bar.get_width() for bar in display.bars_], [0.1, 0.3, 0.6])
    (lines,) = display.bars_.errorbar.lines[2]
    ranges = np.array(lines.get_segments())[:, :, 0]
    assert_allclose(ranges, [[0, 0.2], [0.2, 0.4], [0.4, 0.8]], atol=1e-15)
    two = importances(members, feature_names=["a", "b", "c"], max_features=2)
    assert ticks(two) == ["c", "b"]
    assert two.ax_.get_ylabel() == "feature (2 of 3)"
    assert ticks(importances(members, xerr=None)) == ["feature 0", "feature 2", "feature 1"]


def test_importances_of_two_models_are_drawn_in_one_order():
    members = np.array([[0.1, 0.6, 0.3], [0.2, 0.4, 0.4]])
    first = importances(members, feature_names=["a", "b", "c"], max_features=2)
    assert first.features_.tolist() == ["b", "c"]
    options = {"feature_names": ["c", "d", "b"], "features": first.features_}
    second = importances([[0.3, 0.5, 0.2]], **options)
    assert ticks(second) == ticks(first) == ["c", "b"]
    assert [bar.get_width() for bar in second.bars_] == [0.3, 0.2]
    assert second.ax_.get_ylabel() == "feature (2 of 3)"
    by_index = ImportanceDisplay.from_estimator(PIPELINE, features=[-1, "feature 0"])
    assert by_index.features_.tolist() == ["feature 2", "feature 0"]
    # Names that are numbers are names, and no positions.
    numbered = importances(members, feature_names=[3, 1, 0])
    again = importances(members, feature_names=[3, 1, 0], features=numbered.features_)
    assert ticks(again) == ticks(numbered) == ["3", "0", "1"]


def test_a_single_member_has_no_range():
    assert importances([[0.3, 0.7]]).bars_.errorbar is None


@pytest.mark.parametrize(
    ("members", "style", "expected"),
    [
        ([[0.3, 0.7], [0.5, 0.5]], {}, "importance (share; line: range of 2 members)"),
        ([[0.3, 0.7], [0.5, 0.5]], {"xerr": None}, "importance (share)"),
        ([[0.3, 0.7]], {}, "importance (share)"),
        ([[3.0, 0.7], [5.0, 0.5], [1.0, 1.0]], {}, "importance (line: range of 3 members)"),
        ([[3.0, 0.7]], {}, "importance"),
    ],
)
def test_the_label_of_importances_explains_bars_and_lines(members, style, expected):
    assert importances(members, **style).ax_.get_xlabel() == expected


def test_importances_of_a_forest_and_of_a_pipeline():
    forest = RandomForestRegressor(5, random_state=0).fit(FRAME, X[:, 0])
    display = ImportanceDisplay.from_estimator(forest, color="gold")
    assert_array_equal(display.importances, [forest.feature_importances_])
    assert ticks(display)[-1] == "a"
    assert same_color(display.bars_[0].get_facecolor(), "gold")
    display = ImportanceDisplay.from_estimator(PIPELINE, feature_names=["x", "y", "z"])
    assert display.importances is IMPORTANCES
    assert set(ticks(display)) == {"x", "y", "z"}


# ---- training history


def test_history_draws_each_loss_and_marks_the_best_epoch():
    display = TrainingHistoryDisplay.from_estimator(PIPELINE)
    assert display.best_epoch == 2
    for key, line in display.lines_.items():
        assert_array_equal(line.get_xdata(), [1, 2, 3])
        assert_array_equal(line.get_ydata(), [entry[key] for entry in HISTORY])
    assert set(display.lines_) == {"driving_loss", "valid_loss", "repulsion"}
    assert display.lines_["repulsion"].axes is display.repulsion_ax_ is not display.ax_
    assert texts(display.repulsion_ax_.get_legend())[1].endswith("lowest at epoch 2")
    assert display.ax_.get_ylabel() == "loss per row (nats)"


def test_one_grid_of_a_history_is_drawn():
    with plt.style.context("sklearn_fordes.inspection.fordes"):
        display = history(HISTORY)
    axes = [display.ax_, display.repulsion_ax_]
    assert [ax.get_ygridlines()[0].get_visible() for ax in axes] == [True, False]


def test_history_without_validation_in_any_or_in_some_epochs():
    display = history([{"driving_loss": 0.5, "repulsion": 0.0}])
    assert list(display.lines_) == ["driving_loss"]
    assert display.repulsion_ax_ is display.best_epoch is display.valid_loss is None
    assert display.lines_["driving_loss"].get_marker() == "o"
    assert display.epoch.tolist() == [1]
    display = history([*HISTORY, {"epoch": 4, "driving_loss": 0.3, "valid_loss": None}])
    assert display.best_epoch == 2
    assert_array_equal(display.valid_loss, [0.6, 0.4, 0.5, np.nan])


# ---- uncertainty


@pytest.mark.parametrize("measure", MEASURES)
def test_uncertainty_is_computed_at_the_grid_points(measure):
    display = UncertaintyDisplay.from_estimator(
        PIPELINE, X, features=(2, 0), measure=measure, grid_resolution=7, eps=0.5
    )
    grid = np.tile(np.median(X, axis=0), (49, 1))
    grid[:, 2], grid[:, 0] = display.xx0.ravel(), display.xx1.ravel()
    rows = PIPELINE[:-1].transform(grid)
    expected = getattr(PIPELINE[-1].predict_uncertainty(rows), measure)
    assert_allclose(display.response, expected.reshape(7, 7))
    assert_allclose(display.xx0[:, 0], X[:, 2].min() - 0.5 * X[:, 2].std())
    assert_allclose(display.xx1[-1], X[:, 0].max() + 0.5 * X[:, 0].std())
    assert display.ax_.get_xlabel() == "feature 2"
    assert display.colorbar_.ax.get_ylabel() == f"{measure} uncertainty (nats)"
    assert not display.scatter_


@pytest.mark.parametrize("measure", ["epistemic", "decision"])
def test_rows_are_drawn_in_the_colours_of_their_classes(measure):
    display = UncertaintyDisplay.from_estimator(CLASSIFIER, X, measure=measure, y=Y)
    no, yes = display.scatter_
    assert_allclose(no.get_offsets(), X[Y == "no", :2])
    assert_allclose(yes.get_offsets(), X[Y == "yes", :2])
    assert not same_color(no.get_facecolor(), yes.get_facecolor())
    assert texts(display.ax_.get_legend()) == ["no", "yes"]


def test_decision_is_the_class_or_the_mean_that_is_predicted():
    options = {"measure": "decision", "grid_resolution": 5}
    display = UncertaintyDisplay.from_estimator(CLASSIFIER, X, **options)
    point = [display.xx0[1, 3], display.xx1[1, 3], np.median(X[:, 2])]
    assert CLASSIFIER.classes_[int(display.response[1, 3])] == CLASSIFIER.predict([point])[0]
    assert display.colorbar_ is None
    display = UncertaintyDisplay.from_estimator(REGRESSOR, X, y=X[:, 0], **options)
    assert display.response[1, 3] == pytest.approx(REGRESSOR.predict([point])[0])
    assert display.scatter_[0].norm is display.surface_.norm


def test_each_of_many_classes_has_its_colour():
    response = np.arange(12).reshape(3, 4)
    display = uncertainty(response, measure="decision", classes=list("abcdefghijkl"))
    colors = [handle.get_facecolor() for handle in display.ax_.get_legend().legend_handles]
    assert len(np.unique(colors, axis=0)) == 12
    assert_array_equal(display.surface_.get_array().ravel(), response.ravel())


def test_uncertainty_of_a_regressor_is_a_variance():
    pipeline = make_pipeline(StandardScaler(), FakeRegressor()).fit(X, X[:, 0])
    display = UncertaintyDisplay.from_estimator(pipeline, X, y=X[:, 0], grid_resolution=3)
    label = display.colorbar_.ax.get_ylabel()
    assert label == "epistemic variance (squared units of the target)"
    assert_array_equal(display.scatter_[0].get_array(), X[:, 0])


@pytest.mark.parametrize(
    ("levels", "extend"),
    [
        (10, "neither"),
        ([0, 1, 5], "neither"),
        ([0, 1, 2], "max"),
        ([1, 5], "min"),
        ([1, 2], "both"),
    ],
)
def test_colour_bars_show_where_uncertainties_lie_beyond_the_levels(levels, extend):
    display = uncertainty(XX0 * XX1, levels=levels)
    assert display.colorbar_.extend == display.surface_.extend == extend


@pytest.mark.parametrize(("y", "extend"), [([1, 2], "neither"), ([1, 6], "max"), ([-1, 2], "min")])
def test_colour_bars_show_where_targets_lie_beyond_the_decision(y, extend):
    options = {"points": [[0, 2], [1, 3]], "y": y}
    display = uncertainty(XX0 * XX1, measure="decision", **options)
    assert display.colorbar_.extend == extend
    assert uncertainty(XX0 * XX1, classes=[0, 1], **options).colorbar_.extend == "neither"


@pytest.mark.parametrize("value", [0.0, -1e-17, 2.0])
def test_constant_uncertainty_can_be_drawn(value):
    display = uncertainty(np.full(XX0.shape, value))
    display.figure_.canvas.draw()
    assert display.colorbar_.ax.get_ylabel()


MIXED = {
    "age": [20, 30, 40, 51],
    "size": [1.0, np.nan, 3.0, 5.0],
    "home": ["rent", "own", "own", "other"],
    "paid": [True, False, True, True],
    "debt": [1.0, None, 8.0, 4.5],
}
TABLES = {
    "pandas": pd.DataFrame(MIXED),
    "pandas with extension types": pd.DataFrame(MIXED).astype(
        {"home": "category", "age": "Int64", "debt": "Float64"}
    ),
    "polars": pl.DataFrame(MIXED),
    "polars categories": pl.DataFrame(MIXED).with_columns(pl.col("home").cast(pl.Categorical)),
    "array of objects": pd.DataFrame(MIXED).to_numpy(dtype=object),
}


class Recorder(FakeClassifier):
    """Keeps the last table that it predicts."""

    def members(self, X):
        self.seen_ = X
        return np.zeros((2, len(X)))


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_other_features_are_held_at_a_typical_value(table):
    model = Recorder().fit(None, Y)
    is_frame = hasattr(table, "columns")
    features = ("size", "age") if is_frame else (1, 0)
    display = UncertaintyDisplay.from_estimator(
        model, table, features=features, grid_resolution=3, eps=0
    )
    seen = model.seen_
    assert type(seen) is type(table)
    age, size, home, paid, debt = zip(*np.asarray(seen).tolist(), strict=True)
    assert_allclose(np.unique(np.array(size, dtype=float)), [1, 3, 5])
    assert_allclose(np.unique(np.array(age, dtype=float)), [20, 35.5, 51])
    assert set(home) == {"own"}
    assert set(paid) == {True}
    assert set(debt) == {4.5}
    if is_frame:
        assert list(seen.columns) == list(table.columns)
        assert seen["home"].dtype == table["home"].dtype
        assert seen["paid"].dtype == table["paid"].dtype
    labels = [display.ax_.get_xlabel(), display.ax_.get_ylabel()]
    assert labels == (["size", "age"] if is_frame else ["feature 1", "feature 0"])
    by_position = UncertaintyDisplay.from_estimator(
        model, table, features=(-4, 0), grid_resolution=3, eps=0
    )
    assert_array_equal(by_position.xx0, display.xx0)


# ---- intervals


def test_intervals_are_those_of_the_regressor_as_one_column_moves():
    display = IntervalDisplay.from_estimator(
        REGRESSION, X, feature=1, confidence=(0.5, 0.9), grid_resolution=7, eps=2
    )
    low, high, std = X[:, 1].min(), X[:, 1].max(), X[:, 1].std()
    assert_allclose(display.x, [*np.linspace(low - 2 * std, high + 2 * std, 7), np.nan])
    rows = np.tile(np.median(X, axis=0), (8, 1))
    rows[:, 1] = display.x
    rows = REGRESSION[:-1].transform(rows)
    assert_allclose(display.prediction, REGRESSION[-1].predict(rows))
    assert display.confidence.tolist() == [0.9, 0.5]  # The wide one is drawn first.
    assert display.intervals.shape == (8, 2, 2)
    for place, share in enumerate(display.confidence):
        ends = display.intervals[:, :, place]
        assert_allclose(ends, REGRESSION[-1].predict_interval(rows, share))
    assert display.training_range == (low, high)
    assert display.ax_.get_xlabel() == "feature 1"
    assert texts(display.ax_.get_legend()) == [
        "prediction",
        "90 % interval",
        "50 % interval",
        "training range",
    ]


def test_bands_range_and_missing_cell_are_drawn_where_they_are():
    display = intervals(
        [20, NAN, 10], [3.0, 3.5, 2.0], [[2, 6], [0, 9], [1, 3]], training_range=(12, 18)
    )
    assert_array_equal(display.x, [10, 20, np.nan])
    assert_array_equal(display.line_.get_xydata(), [[10, 2], [20, 3]])
    (band,) = display.bands_
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices.tolist()}
    assert corners == {(10, 1), (10, 3), (20, 2), (20, 6)}
    # A rectangle, and a polygon in older versions of matplotlib.
    shape = display.range_.get_path().transformed(display.range_.get_patch_transform())
    assert np.unique(shape.vertices[:, 0]).tolist() == [12, 18]
    point, bar = display.missing_
    assert point.get_ydata().tolist() == [3.5]
    assert bar.get_ydata().tolist() == [0, 9]
    assert point.get_xdata()[0] == bar.get_xdata()[0] > 20
    low, high = display.ax_.get_xlim()
    assert low == 10
    assert point.get_xdata()[0] < high
    assert max(display.ax_.get_xticks()) <= 20
    assert [text.get_text() for text in display.ax_.texts] == ["missing cell"]


def test_the_missing_cell_is_named_outside_of_narrow_panels():
    with plt.style.context("sklearn_fordes.inspection.fordes"):
        figure, axes = plt.subplots(1, 4, figsize=(7.5, 4), sharey=True)
        for ax in axes:
            intervals([10, 20, NAN], [2, 3, 3], ENDS, ax=ax, legend=False).ax_.set_ylabel("")
        figure.canvas.draw()
    words = [ax.texts[0].get_window_extent() for ax in axes]
    assert not overlap([*words, *(ax.get_window_extent() for ax in axes)])
    assert not overlap([ax.get_tightbbox() for ax in axes])
    assert words[-1].x1 <= figure.bbox.x1


def test_no_curve_or_range_is_cut():
    first = intervals([10, 20, NAN], [2, 3, 3], ENDS, training_range=(5, 30))
    low, high = first.ax_.get_xlim()
    assert low == 5
    assert 30 < first.missing_[0].get_xdata()[0] < high
    _, axes = plt.subplots(1, 2, sharex=True)
    for ax, x in zip(axes, ([10, 40], [12, 20]), strict=True):
        intervals(x, [1, 2], ENDS[:2], ax=ax)
    assert axes[0].get_xlim() == (10, 40)
    long = support(REPORT, 5, ax=(axes := plt.subplots(1, 2, sharex=True)[1])[0])
    short = support(REPORT, 50, ax=axes[1])
    assert long.ax_.get_xlim() == short.ax_.get_xlim()
    assert long.ax_.get_xlim()[1] > 0.6


def test_the_legend_does_not_cover_the_missing_cell():
    x = [*np.linspace(0, 1, 30), NAN]
    display = intervals(x, np.full(31, 5.0), [[0.0, 10.0]] * 31, training_range=(0.4, 0.6))
    display.figure_.canvas.draw()
    legend, bar = display.ax_.get_legend(), display.missing_[1]
    assert not overlap([legend.get_window_extent(), bar.get_window_extent()])


@pytest.mark.parametrize(
    ("prepare", "categories", "is_of_encoder"),
    [
        (lambda model: model, "from_dtype", True),
        (make_pipeline, "from_dtype", True),
        (lambda model: make_pipeline(StandardScaler(), model), "from_dtype", False),
        (lambda model: model, [2], False),
    ],
)
def test_the_range_shown_is_the_one_that_the_encoder_knows(prepare, categories, is_of_encoder):
    X, y = np.random.default_rng(0).integers(5, size=(40, 3)) * 1.0, np.arange(40.0)
    model = FoRDERegressor(2, max_epochs=1, categorical_features=categories, random_state=0)
    model = prepare(model).fit(X, y)
    others = np.vstack([X, [9.0, 9, 9]])
    drawn = IntervalDisplay.from_estimator(
        model, others, feature=2, grid_resolution=3, eps=0, missing=False
    )
    assert drawn.training_range == ((0, 4) if is_of_encoder else (0, 9))


def test_without_missing_cell_or_range_neither_is_drawn():
    display = IntervalDisplay.from_estimator(REGRESSOR, X, missing=False, grid_resolution=4)
    assert len(display.x) == 4
    assert np.isfinite(display.x).all()
    assert display.missing_ == []
    assert not display.ax_.texts
    display = intervals([1, 2], [1, 2], ENDS[:2], color="gold")
    assert display.range_ is None
    assert same_color(display.line_.get_color(), "gold")
    assert same_color(display.bands_[0].get_facecolor()[0, :3], "gold")
    assert texts(display.ax_.get_legend()) == ["prediction", "90 % interval"]


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_other_columns_of_intervals_are_held_at_a_typical_value(table, monkeypatch):
    seen = []
    monkeypatch.setattr(FakeRegressor, "predict", lambda _, X: seen.append(X) or np.zeros(len(X)))
    monkeypatch.setattr(FakeRegressor, "predict_interval", lambda _, X, c: np.zeros((len(X), 2)))
    is_frame = hasattr(table, "columns")
    display = IntervalDisplay.from_estimator(
        REGRESSOR, table, feature="size" if is_frame else 1, grid_resolution=3, eps=0
    )
    assert type(seen[0]) is type(table)
    age, size, home, paid, debt = zip(*np.asarray(seen[0]).tolist(), strict=True)
    assert_allclose(np.array(size, dtype=float), [1, 3, 5, np.nan])
    assert (set(age), set(home), set(paid), set(debt)) == ({35.0}, {"own"}, {True}, {4.5})
    if is_frame:
        assert list(seen[0].columns) == list(table.columns)
        assert seen[0]["home"].dtype == table["home"].dtype
    assert display.training_range == (1, 5)
    assert display.ax_.get_xlabel() == ("size" if is_frame else "feature 1")


def test_tables_of_pyarrow_get_rows_of_their_own_kind(monkeypatch):
    seen = []
    monkeypatch.setattr(FakeRegressor, "predict", lambda _, X: seen.append(X) or np.zeros(len(X)))
    monkeypatch.setattr(FakeRegressor, "predict_interval", lambda _, X, c: np.zeros((len(X), 2)))
    table = pa.table(MIXED)
    display = IntervalDisplay.from_estimator(REGRESSOR, table, feature="size", grid_resolution=3)
    assert isinstance(seen[0], pa.Table)
    assert seen[0].column_names == table.column_names
    assert set(seen[0]["home"].to_pylist()) == {"own"}
    assert set(seen[0]["age"].to_pylist()) == {35.0}
    assert display.training_range == (1, 5)
    by_position = IntervalDisplay.from_estimator(REGRESSOR, table, feature=1, grid_resolution=3)
    assert_array_equal(by_position.x, display.x)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([np.nan] * 3, "Got a feature without any value, but expected numbers"),
        ([1, 2, np.inf], r"Got a feature from 1 to inf, but expected finite numbers"),
        (
            [1e300, 0, -1e300],
            r"Got a feature from -1e\+300 to 1e\+300, but expected finite numbers",
        ),
    ],
)
def test_a_column_without_a_range_is_named(column, message):
    table = np.column_stack([column, [1.0, 2, 3]])
    with pytest.raises(ValueError, match=message):
        IntervalDisplay.from_estimator(REGRESSOR, table)
    with pytest.raises(ValueError, match=message):
        UncertaintyDisplay.from_estimator(REGRESSOR, table)


# ---- support


@pytest.mark.parametrize("report", [pd.DataFrame, pl.DataFrame])
def test_support_is_the_share_of_rows_by_column_and_reason(report):
    display = support(report(REPORT), 5)
    assert display.columns.tolist() == ["age", "city", "debt"]
    assert_allclose(display.lengths, [[0.2, 0, 0, 0.2], [0.2, 0.4, 0, 0], [0, 0, 0.2, 0]])
    assert ticks(display) == ["debt", "age", "city"]  # From bottom to top.
    widths = {key: [bar.get_width() for bar in bars] for key, bars in display.bars_.items()}
    assert_allclose(widths["missing"], [0, 0.2, 0.2])
    assert_allclose(widths["unseen"], [0, 0, 0.4])
    assert_allclose(widths["below"], [0.2, 0, 0])
    assert_allclose(widths["above"], [0, 0.2, 0])
    # Each reason starts where those before it end.
    assert_allclose([bar.get_x() for bar in display.bars_["unseen"]], [0, 0.2, 0.2])
    assert display.ax_.get_xlabel() == "share of rows"
    two = support(REPORT[REPORT["reason"] != "below"], 5, max_columns=1, height=0.3)
    assert ticks(two) == ["city"]
    assert two.ax_.get_ylabel() == "column (1 of 2)"
    assert list(two.bars_) == ["missing", "unseen"]
    assert texts(two.ax_.get_legend()) == ["missing", "of an unseen level"]
    assert two.bars_["missing"][0].get_height() == pytest.approx(0.3)


def test_surprise_is_a_mean_over_all_rows():
    display = support(REPORT, 5, measure="surprise")
    assert_allclose(display.lengths, np.array([[0.5, 0, 0, 1.5], [2, 8, 0, 0], [0, 0, 9, 0]]) / 5)
    assert ticks(display) == ["age", "debt", "city"]
    assert display.ax_.get_xlabel() == "mean surprise (nats per row)"


def test_rows_without_such_cells_are_said_to_be_known():
    display = support(REPORT.head(0), 5)
    assert display.bars_ == {}
    assert [text.get_text() for text in display.ax_.texts] == ["every cell is known"]
    display.figure_.canvas.draw()


@pytest.mark.parametrize("measure", ["share", "surprise"])
def test_support_of_a_pipeline_is_that_of_its_last_step(measure):
    display = SupportDisplay.from_estimator(PIPELINE, X, measure=measure)
    expected = support(PIPELINE[-1].ood_report(SCALED), len(X), measure=measure)
    assert_array_equal(display.lengths, expected.lengths)
    is_above = np.where(SCALED > 1, SCALED if measure == "surprise" else 1, 0)
    assert_allclose(display.lengths[:, 3], is_above.mean(axis=0))


@pytest.mark.parametrize("frame", [np.asarray, pd.DataFrame, pl.DataFrame])
def test_support_of_any_container(frame):
    display = SupportDisplay.from_estimator(CLASSIFIER, frame(X))
    assert_allclose(display.lengths.sum(axis=1), (np.abs(X) > 1).mean(axis=0))


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


@pytest.mark.parametrize("scores", [[1, 2, 2, 3, 2, 1], [0] * 6, [6, 5, 4, 3, 2, 1]])
def test_rejection_with_ties_is_the_mean_over_orders(scores):
    correct = np.array([True, False, True, False, True, True])
    display = rejection(np.ones(6), correct, scores)
    assert_allclose(display.accuracy, mean_over_orders(correct, np.array(scores)))
    assert_allclose(display.rejected, np.arange(6) / 6)
    assert display.area == pytest.approx(np.mean(display.accuracy))


@pytest.mark.parametrize("measure", MEASURES)
def test_rejection_of_a_pipeline_uses_the_uncertainty_of_its_last_step(measure):
    display = AccuracyRejectionDisplay.from_estimator(PIPELINE, X, Y, measure=measure)
    scores = getattr(PIPELINE[-1].predict_uncertainty(SCALED), measure)
    expected = rejection(Y, PIPELINE.predict(X), scores)
    assert_array_equal(display.accuracy, expected.accuracy)
    assert f"FakeClassifier (area = {display.area:.3f})" == display.line_.get_label()


def test_rejection_of_any_classifier_uses_the_entropy():
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    display = AccuracyRejectionDisplay.from_estimator(model, X, Y)
    scores = entropy(model.predict_proba(X), axis=1)
    expected = rejection(Y, model.predict(X), scores)
    assert_array_equal(display.accuracy, expected.accuracy)


# ---- lengthscale


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
        score = partial(get_scorer(scoring), model, y_true=Y)
        assert_allclose(display.clean[position], score(X))
        assert_allclose(display.corrupted[position], np.mean([*map(score, copies)]))
    assert str(estimator.get_params()) == before
    one_copy = LengthscaleTradeoffDisplay.from_estimator(
        estimator, X, Y, pd.DataFrame(X), Y, pd.DataFrame(-X), alphas=[0.5]
    )
    assert one_copy.corrupted.shape == (1,)
    label = display.ax_.get_ylabel()
    assert label == ("accuracy" if scoring == "accuracy" else "negative log loss (nats)")


def test_tradeoff_over_seeds_shows_mean_and_one_standard_deviation():
    clean = np.array([[0.8, 0.9], [0.7, 0.9]])
    display = tradeoff([0, 1], clean, [0.5, 0.6], score_name="accuracy")
    assert_allclose(display.lines_["clean"].get_ydata(), [0.85, 0.8])
    assert_allclose(display.lines_["corrupted"].get_ydata(), [0.5, 0.6])
    assert set(display.bands_) == {"clean"}
    corners = display.bands_["clean"].get_paths()[0].vertices
    std = clean.std(axis=1, ddof=1)
    at_zero = np.unique(corners[corners[:, 0] == 0, 1].round(9))
    assert_allclose(at_zero[[0, -1]], [0.85 - std[0], 0.85 + std[0]])


# ---- bad input

TWO = [[0.5, 0.5], [0.5, 0.5]]
WITH_TEXT = np.c_[X, Y]
surface = UncertaintyDisplay.from_estimator
intervals_of = IntervalDisplay.from_estimator
rejection_of = AccuracyRejectionDisplay.from_estimator
BAD = [
    (reliability, ([0, 0], TWO), {}, r"Got y_proba of .* classes \[0\], but expected a row for"),
    (reliability, ([0, 7], TWO), {"classes": [0, 1]}, r"Got labels \[7\], but .* classes \[0, 1\]"),
    (reliability, ([0, 1], [[2.0, -1.0], [0.0, 1.0]]), {}, r"Got y_proba whose rows don't, but"),
    (reliability, ([0, 1, 1], TWO), {}, r"Got y_proba of shape \(2, 2\) for 3 labels and"),
    (reliability, ([0, 1], TWO), {"n_bins": 0}, r"n_bins == 0, must be >= 1"),
    (reliability, ([0, 1], TWO), {"n_bins": 2.5}, r"n_bins must be an instance of int, not float"),
    (diversity, (np.ones((1, 5, 2)),), {}, r"Got predictions of shape .* at least two members"),
    (diversity, (np.ones((2, 5)), np.ones((2, 4, 3))), {}, r"Got input_.* \(2, 4, 3\).*\(2, 5\)"),
    (history, ([],), {}, r"Got a history of 0 epochs without driving_loss, but expected"),
    (importances, ([0.1, 0.9],), {}, r"Got member_importances of shape \(2,\), but expected \(n_m"),
    (importances, (TWO,), {"feature_names": ["a"]}, r"shape \(1,\), but .* each of 2 features"),
    (importances, (TWO,), {"max_features": 0}, r"max_features == 0, must be >= 1"),
    (importances, (TWO,), {"features": [2]}, r"Got column 2, but .* an index below 2"),
    (importances, (TWO,), {"features": [True, False]}, r"Got column True, but expected one of"),
    (importances, (TWO,), {"features": 2}, r"Got features=2, but expected a list of one or more"),
    (importances, (TWO,), {"features": []}, r"Got features=\[\], but expected a list of one or"),
    (importances, (TWO,), {"features": "ab"}, r"Got features='ab', but expected a list of one or"),
    (uncertainty, (XX0[:2],), {}, r"Got xx0, xx1 and response of .*\(2, 4\)\], but expected one"),
    (uncertainty, (XX0,), {"points": X[:, :2]}, r"Got one of points and y, but expected both"),
    (uncertainty, (XX0,), {"measure": "x"}, r"Got measure='x', but expected one of .*, decision"),
    (surface, (LOGISTIC, X), {"measure": "x"}, r"Got measure='x', but .* total, .*, decision"),
    (surface, (LOGISTIC, FRAME), {"features": "ab"}, r"Got features='ab', but expected two"),
    (
        surface,
        (LOGISTIC, FRAME),
        {"features": ["a", "z"]},
        r"Got column 'z', but .*'b'.* index below 3",
    ),
    (surface, (LOGISTIC, X), {"features": (0, 3)}, r"Got column 3, but .* an index below 3"),
    (surface, (LOGISTIC, WITH_TEXT), {"features": (3, 0)}, r"Got feature 3, which isn't numeric"),
    (surface, (LOGISTIC, X), {"features": (0,)}, r"Got features=\(0,\), but expected two"),
    (surface, (LOGISTIC, X), {"features": (1, -2)}, r"Got features=\(1, -2\), but expected two"),
    (surface, (LOGISTIC, X), {"grid_resolution": 1}, r"grid_resolution == 1, must be >= 2"),
    (surface, (LOGISTIC, X), {"eps": -1}, r"eps == -1, must be >= 0"),
    (surface, (LOGISTIC, np.ones((2, 3, 3))), {}, r"Got X of shape \(2, 3, 3\), but expected"),
    (rejection, ([0, 1], [0, 1], [0.1, np.nan]), {}, r"Input uncertainty contains NaN"),
    (rejection, ([0.1, 0.2], [0.1, 0.3], [1, 2]), {}, r"Unknown label type: continuous"),
    (rejection_of, (LOGISTIC, X, Y), {"measure": "decision"}, r"'decision', but .*, support\."),
    (intervals, ([1, NAN], [1, 2], ENDS[:2]), {}, r"Got x of shape \(2,\) with 1 numbers, but exp"),
    (intervals, ([1, 2, NAN, NAN], [1] * 4, []), {}, r"with 2 numbers, but .* NaN at most once"),
    (intervals, ([1, 2, np.inf], [1] * 3, ENDS), {}, r"with 2 numbers, but .* two finite numbers"),
    (intervals, ([1, 2, 3], [1, 2], ENDS), {}, r"Got y_pred of shape \(2,\) and .* \(3, 2, 1\): 1"),
    (intervals, ([1, 2, 3], [1, 2, 3], ENDS), {"confidence": (0.5, 0.9)}, r"but .* \(3, 2, 2\): 2"),
    (intervals, ([1, 2, 3], [1, 2, 3], ENDS), {"confidence": 90}, r"Got confidence=90, but expec"),
    (intervals, ([1, 2], [1, 2], ENDS[:2]), {"training_range": (0, np.inf)}, "two finite numbers"),
    (intervals_of, (REGRESSOR, X), {"feature": 3}, r"Got column 3, but .* an index below 3"),
    (intervals_of, (REGRESSOR, WITH_TEXT), {"feature": 3}, r"Got feature 3, which isn't numeric"),
    (intervals_of, (REGRESSOR, X), {"eps": -1}, r"eps == -1, must be >= 0"),
    (intervals_of, (LINEAR, X), {}, r"Input X contains NaN"),
    (support, (REPORT.drop(columns="row"), 5), {}, r"Got a report without row, but expected the"),
    (support, (REPORT.assign(reason="odd"), 5), {}, r"Got the reasons \['odd'\], but expected"),
    (support, (REPORT, 3), {}, r"Got cells of the rows 0 to 3, but .* below n_rows=3"),
    (support, (REPORT, 0), {}, r"n_rows == 0, must be >= 1"),
    (support, (REPORT, 5), {"max_columns": 0}, r"max_columns == 0, must be >= 1"),
    (support, (REPORT, 5), {"measure": "total"}, r"'total', but expected one of share, surprise\."),
    (tradeoff, ([0, 2], [1, 2], [1, 2]), {}, r"Got alphas=\[0.0, 2.0\], but expected numbers"),
    (tradeoff, ([0, 1], [1, 2, 3], [1, 2]), {}, r"Got clean of shape \(3,\) for 2 alphas, but"),
]


@pytest.mark.parametrize(("method", "arguments", "options", "message"), BAD)
def test_bad_input_raises_before_a_figure_is_made(method, arguments, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        method(*arguments, **options)
    assert not plt.get_fignums()


@pytest.mark.parametrize(
    ("display", "model", "error", "message"),
    [
        (ReliabilityDisplay, LINEAR, AttributeError, r"has no attribute 'predict_proba'"),
        (AccuracyRejectionDisplay, LINEAR, AttributeError, r"Linear.* no .* 'predict_proba'"),
        (DiversityDisplay, LOGISTIC, AttributeError, r"Logistic.* no .* 'predict_proba_members'"),
        (ImportanceDisplay, LOGISTIC, AttributeError, r"Logistic.* no .* 'feature_importances_'"),
        (TrainingHistoryDisplay, LOGISTIC, AttributeError, r"Logistic.* no .* 'history_'"),
        (UncertaintyDisplay, LOGISTIC, AttributeError, r"Logistic.* no .* 'predict_uncertainty'"),
        (UncertaintyDisplay, LINEAR, AttributeError, r"Linear.* no .* 'predict_uncertainty'"),
        (CoverageDisplay, LINEAR, AttributeError, r"Linear.* no .* 'predict_interval'"),
        (IntervalDisplay, HISTOGRAM, AttributeError, r"Hist.* no .* 'predict_interval'"),
        (SupportDisplay, LINEAR, AttributeError, r"Linear.* no .* 'ood_report'"),
        (LengthscaleTradeoffDisplay, LOGISTIC, ValueError, r"'lengthscale' for .* Logistic"),
    ],
)
def test_an_estimator_without_what_a_display_needs_raises(display, model, error, message):
    for estimator in (model, make_pipeline(model)):
        with pytest.raises(error, match=message):
            display.from_estimator(estimator, *FROM_ESTIMATOR[display])
        assert not plt.get_fignums()


# ---- FoRDE's estimators


def test_every_display_of_a_fitted_classifier_in_a_pipeline(small, binary):
    X, y = pd.DataFrame(binary[0], columns=list("abcdef")), np.array(["no", "yes"])[binary[1]]
    scaler = StandardScaler().set_output(transform="pandas")
    model = make_pipeline(scaler, small()).fit(X, y)
    assert ReliabilityDisplay.from_estimator(model, X, y).ece < 0.5
    trained = TrainingHistoryDisplay.from_estimator(model)
    assert trained.epoch.tolist() == list(range(1, 7))
    assert trained.repulsion_ax_ is not None
    rejected = AccuracyRejectionDisplay.from_estimator(model, X, y, measure="epistemic")
    assert rejected.accuracy[0] == model.score(X, y)
    display = UncertaintyDisplay.from_estimator(model, X, features=("b", "d"), grid_resolution=5)
    held = pd.concat([X.median().to_frame().T] * 25)
    held = held.assign(b=display.xx0.ravel(), d=display.xx1.ravel())
    expected = model[-1].predict_uncertainty(model[:-1].transform(held)).epistemic
    assert_allclose(display.response.ravel(), expected, atol=1e-6)
    drawn = ImportanceDisplay.from_estimator(model)
    assert_array_equal(drawn.importances, model[-1].member_importances_)
    assert set(ticks(drawn)) == set("abcdef")
    compared = DiversityDisplay.from_estimator(model, X, y)
    assert_allclose(np.diag(compared.cosine), 1, rtol=1e-5)
    scores = LengthscaleTradeoffDisplay.from_estimator(model, X, y, X, y, [X + 1, X], alphas=(0, 1))
    assert np.isfinite(scores.corrupted).all()
    assert scores.clean[0] != scores.clean[1]


def test_every_display_of_a_fitted_regressor():
    X, y = make_regression(80, 4, random_state=0)
    model = FoRDERegressor(3, hidden_layer_sizes=(16,), max_epochs=3, random_state=0).fit(X, y)
    display = UncertaintyDisplay.from_estimator(model, X, y=y, measure="total", grid_resolution=4)
    assert (display.response > 0).all()
    members = model.predict_members(X)
    compared = DiversityDisplay.from_estimator(model, X, y)
    assert_allclose(compared.disagreement[0, 1], np.abs(members[0] - members[1]).mean())
    assert compared.cosine.shape == (3, 3)
    assert len(ImportanceDisplay.from_estimator(model, max_features=2).bars_) == 2
    drawn = IntervalDisplay.from_estimator(model, X, feature=2, grid_resolution=4)
    rows = np.tile(np.median(X, axis=0), (5, 1))
    rows[:, 2] = drawn.x
    assert_allclose(drawn.prediction, model.predict(rows))
    assert_allclose(drawn.intervals[..., 0], model.predict_interval(rows, 0.9))
    levels = [0.5, 0.95]
    ends = model.predict_interval(rows, levels)
    both = IntervalDisplay.from_predictions(
        drawn.x, drawn.prediction, ends, confidence=levels
    ).intervals
    assert_allclose(both, ends[..., ::-1])  # Wide ones are drawn first.
    inside = CoverageDisplay.from_predictions(y, model.predict_interval(X, levels), levels)
    assert inside.confidence.tolist() == levels
    unknown = SupportDisplay.from_estimator(model, rows)
    assert unknown.columns.tolist() == ["x2"]
    assert_allclose(unknown.lengths, [[0.2, 0, 0.4, 0.4]])
    assert "driving_loss" in TrainingHistoryDisplay.from_estimator(model).lines_
    quantiles = clone(model).set_params(noise="quantile").fit(X, y)
    label = TrainingHistoryDisplay.from_estimator(quantiles).ax_.get_ylabel()
    assert label == "twice the pinball loss per row"
    scores = LengthscaleTradeoffDisplay.from_estimator(model, X, y, X, y, X, alphas=[0, 1])
    expected = clone(model).set_params(lengthscale=1.0).fit(X, y).score(X, y)  # R²
    assert scores.clean[1] == pytest.approx(expected)


def test_displays_read_no_blocks():
    X, y = make_regression(60, 3, random_state=0)
    source = dataset(pa.table({"a": X[:, 0], "b": X[:, 1], "y": y}))
    model = FoRDERegressor(2, max_epochs=1, random_state=0).fit(source, "y")
    for draw in (
        lambda: CoverageDisplay.from_estimator(model, source, "y"),
        lambda: IntervalDisplay.from_estimator(model, source, feature="a"),
        lambda: SupportDisplay.from_estimator(model, source),
        lambda: DiversityDisplay.from_estimator(model, source),
    ):
        with pytest.raises(ValueError, match="Got a InMemoryDataset as X, but expected a table"):
            draw()
