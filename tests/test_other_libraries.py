"""Libraries that take members, probabilities or scores of a fitted estimator."""

import numpy as np
import pandas as pd
import pytest
import skops.io
from mapie.classification import SplitConformalClassifier
from mapie.regression import SplitConformalRegressor
from pyod.models.base import BaseDetector
from pyod.utils.utility import score_to_label
from skactiveml.classifier import SklearnClassifier
from skactiveml.pool import QueryByCommittee
from skactiveml.regressor import SklearnRegressor
from sklearn.datasets import make_classification
from sklearn.pipeline import make_pipeline
from skrub import StringEncoder, TableVectorizer

from sklearn_fordes import FoRDEClassifier, FoRDERegressor

COMMITTEES = ["KL_divergence", "vote_entropy", "variation_ratios"]


@pytest.mark.parametrize("method", COMMITTEES)
def test_scikit_activeml_queries_by_committee(small, multiclass, method):
    X, y = multiclass
    labels = np.full(len(X), np.nan)
    labels[:60] = y[:60]
    model = small(n_members=5).fit(X[:60], y[:60])
    wrapped = SklearnClassifier(model, classes=[0, 1, 2])
    members = [SklearnClassifier(member, classes=[0, 1, 2]) for member in model.estimators_]
    utilities = []
    for committee, settings, options in (
        (wrapped, {}, {}),  # by its estimators_
        (wrapped, {"sample_predictions_method_name": "predict_proba_members"}, {}),
        (members, {}, {"fit_ensemble": False}),
    ):
        strategy = QueryByCommittee(method=method, random_state=0, **settings)
        chosen, utility = strategy.query(
            X, labels, committee, batch_size=3, return_utilities=True, **options
        )
        assert (chosen >= 60).all()  # of the rows without a label
        utilities.append(utility[0, 60:])
    np.testing.assert_allclose(utilities[0], utilities[1], atol=1e-6)
    if method == "KL_divergence":
        disagreement = model.predict_uncertainty(X[60:]).epistemic
        np.testing.assert_allclose(utilities[2], disagreement, atol=1e-5)


def test_scikit_activeml_queries_by_a_committee_of_regressors():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 3))
    y = np.r_[X[:60, 0], np.full(60, np.nan)]
    model = FoRDERegressor(4, max_epochs=5, random_state=0).fit(X[:60], y[:60])
    members = [SklearnRegressor(member) for member in model.estimators_]
    strategy = QueryByCommittee(random_state=0)
    _, utility = strategy.query(X, y, members, fit_ensemble=False, return_utilities=True)
    disagreement = model.predict_uncertainty(X[60:]).epistemic
    np.testing.assert_allclose(utility[0, 60:] ** 2, disagreement, rtol=1e-5)


def test_mapie_makes_prediction_sets(small):
    X, y = make_classification(1100, 6, n_informative=4, n_classes=3, class_sep=2.0, random_state=1)
    model = small(max_epochs=30).fit(X[:100], y[:100])
    conformal = SplitConformalClassifier(model, confidence_level=0.9, prefit=True)
    labels, sets = conformal.conformalize(X[100:600], y[100:600]).predict_set(X[600:])
    np.testing.assert_array_equal(labels, model.predict(X[600:]))
    # Three standard errors, of the rows to calibrate with and of those to predict.
    assert sets[np.arange(500), y[600:], 0].mean() == pytest.approx(0.9, abs=0.057)


def test_mapie_makes_prediction_intervals():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 3))
    y = X[:, 0] + 0.3 * rng.normal(size=600)
    model = FoRDERegressor(4, max_epochs=20, random_state=0).fit(X[:200], y[:200])
    conformal = SplitConformalRegressor(model, confidence_level=0.9, prefit=True)
    _, interval = conformal.conformalize(X[200:400], y[200:400]).predict_interval(X[400:])
    inside = (interval[:, 0, 0] <= y[400:]) & (y[400:] <= interval[:, 1, 0])
    assert 0.83 < inside.mean() < 0.97


class EnsembleDetector(BaseDetector):
    """PyOD's machinery (threshold, labels, outlier probabilities) around a fitted estimator."""

    def __init__(self, model, contamination=0.1):
        super().__init__(contamination=contamination)
        self.model = model

    def fit(self, X, y=None):
        self._set_n_classes(y)
        self.decision_scores_ = self.model.ood_score(X)
        self._process_decision_scores()
        return self

    def decision_function(self, X):
        return self.model.ood_score(X)


def test_pyod_sets_a_threshold_on_the_score(small, multiclass):
    X, y = multiclass
    model = small(max_epochs=40).fit(X, y)
    detector = EnsembleDetector(model, contamination=0.05).fit(X)
    assert detector.labels_.mean() == pytest.approx(0.05, abs=0.01)
    probability = detector.predict_proba(X)[:, 1]
    order = model.ood_score(X).argsort()
    assert (np.diff(probability[order]) >= 0).all()  # larger is more outlying
    np.testing.assert_array_equal(detector.predict(X), model.ood_score(X) > detector.threshold_)
    np.testing.assert_array_equal(
        score_to_label(model.ood_score(X), outliers_fraction=0.05), detector.predict(X)
    )


@pytest.mark.parametrize("kind", [FoRDEClassifier, FoRDERegressor])
def test_skops_sees_all_types_of_a_file_and_loads_it(binary, kind):
    X, y = binary
    model = kind(2, max_epochs=2, random_state=0).fit(X, y)
    file = skops.io.dumps(model)
    types = skops.io.get_untrusted_types(data=file)
    assert all(name.startswith("sklearn_fordes.") or name == "functools.partial" for name in types)
    loaded = skops.io.loads(file, trusted=types)
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    assert loaded.partial_fit(X, y).n_iter_ == 3


def test_skrub_encodes_text_before_the_default_encoder():
    rng = np.random.default_rng(0)
    urgent = rng.random(300) < 0.5
    words = np.array(["late order", "broken screen", "wrong colour", "two boxes"])
    notes = [
        f"{'please hurry' if u else 'no rush'}, {rng.choice(words)} {i}"
        for i, u in enumerate(urgent)
    ]
    X = pd.DataFrame({"note": notes, "size": rng.normal(size=300)})
    model = FoRDEClassifier(3, max_epochs=20, random_state=0)
    text = TableVectorizer(high_cardinality=StringEncoder(n_components=5, random_state=0))
    pipeline = make_pipeline(text, model).fit(X[:200], urgent[:200])
    assert pipeline.score(X[200:], urgent[200:]) > 0.95
    with pytest.warns(UserWarning, match=r"Most values of the columns \['note'\]"):
        alone = model.fit(X[:200], urgent[:200])
    assert alone.score(X[200:], urgent[200:]) < 0.7
