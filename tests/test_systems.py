"""Every system through the estimators on a real table: it trains, and differs from the others."""

import copy
import inspect
import pickle

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback

from sklearn_fordes import FoRDEClassifier, FoRDERegressor, Repulsion
from sklearn_fordes.particles import SPACES, accumulate_gradients, tuned_lengthscale

each_kind = pytest.mark.parametrize("kind", ["classifier", "regressor"])
OF_REPULSION = inspect.signature(Repulsion).parameters


def slopes(ensemble, X, y):
    """A space of a user's own: gradients that are not normalised."""
    points = X.expand(ensemble.n_members, *X.shape).clone().requires_grad_()
    outputs = ensemble(points, shared=False)[..., 0]
    return torch.autograd.grad(outputs.sum(), points, create_graph=True)[0]


@pytest.fixture(scope="module")
def tables():
    tables = {"classifier": load_breast_cancer(), "regressor": load_diabetes()}
    scale = StandardScaler().fit_transform
    return {kind: (scale(t.data)[:240], t.target[:240]) for kind, t in tables.items()}


def make_model(kind, **parameters):
    """Make a small estimator from its own parameters and those of its repulsion.

    It repels at every step, with a strength over the batch size, averages no weights and corrupts
    no cells, so that tests can compare with computations of their own.
    """
    of_repulsion = {k: parameters.pop(k) for k in list(parameters) if k in OF_REPULSION}
    repulsion = Repulsion(**{"period": 1, "relative": False, **of_repulsion})
    defaults = {"repulsion": repulsion, "n_members": 3, "hidden_layer_sizes": (8,), "lr": 2e-2}
    defaults |= {"max_epochs": 8, "batch_size": 60, "ema_decay": 0.0, "random_state": 0}
    defaults["augmentation"] = None
    if parameters.get("module") is None:
        defaults["module__dropout"] = 0.0
    model = FoRDEClassifier if kind == "classifier" else FoRDERegressor
    return model(**{**defaults, **parameters})


SYSTEMS = [
    *({"space": space} for space in (*SPACES, slopes, "none")),
    *({"space": space, "update": "svgd"} for space in ("weight", "function")),
    *({"space": space, "update": "lit"} for space in ("input_gradient", slopes)),
    *({"lengthscale": value} for value in ("pca", 0.5, tuned_lengthscale(0.5, "variance"))),
    {"lengthscale": lambda X: np.linspace(0.5, 2, X.shape[1])},
    *({"bandwidth": value} for value in ("paper", 0.1)),
    {"target": "logit"},
    *({name: 2} for name in ("period", "warmup")),
]


@each_kind
def test_each_system_learns_and_is_another(tables, kind):
    X, y = tables[kind]
    systems = [s for s in SYSTEMS if kind == "classifier" or "target" not in s]
    values = []
    for system in systems:
        model = make_model(kind, repulsion_strength=20.0, **system).fit(X, y)
        first, last = model.history_[0], model.history_[-1]
        assert last["driving_loss"] < first["driving_loss"]
        assert (last["repulsion"] != 0) == (system != {"space": "none"})
        assert model.score(X, y) > (0.9 if kind == "classifier" else 0.3)
        predict = getattr(model, "predict_proba_members", None) or model.predict_members
        values.append(predict(X[:50]).ravel())
    distances = np.array([[np.abs(a - b).max() for a in values] for b in values])
    assert (distances[~np.eye(len(values), dtype=bool)] > 1e-6).all()


def test_no_strength_is_no_repulsion(tables):
    X, y = tables["classifier"]
    settings = ({"repulsion_strength": 0.0}, {"repulsion": "none"}, {"space": "none"})
    models = [make_model("classifier", max_epochs=2, **s).fit(X, y) for s in settings]
    expected, *others = (model.predict_proba(X) for model in models)
    assert all(np.array_equal(other, expected) for other in others)


def test_a_grid_search_sweeps_alpha_and_systems(tables):
    X, y = tables["classifier"]
    grid = [
        {"lengthscale": [0.0, 0.5]},
        {"repulsion": ["none", "weight", Repulsion("weight", update="svgd")]},
        {"repulsion__update": ["lit"]},
        {"repulsion__fraction": [0.25, 1.0], "repulsion__bandwidth": np.array([0.5])},
    ]
    search = GridSearchCV(make_model("classifier", max_epochs=1), grid, cv=2, error_score="raise")
    search.fit(X, y)
    assert len(search.cv_results_["params"]) == 8


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"lengthscale": np.ones(7)}, "Got a lengthscale of 7 features, but expected 30"),
        ({"update": "svgd"}, "Got update='svgd' with repulsion='input_gradient'"),
        ({"repulsion": "typo"}, "Got repulsion='typo', but expected one of"),
        ({"fraction": 0, "n_members": 1}, "Got fraction=0, but expected"),
        ({"period": 0, "repulsion_strength": 0}, "Got period=0, but expected"),
        ({"space": slopes, "lengthscale": np.ones(3)}, "whose precision has shape"),
    ],
    ids=str,
)
def test_repulsions_that_make_no_sense_leave_no_fit(tables, parameters, message):
    model = make_model("classifier", **parameters)
    with pytest.raises(ValueError, match=message):
        model.fit(*tables["classifier"])
    assert not hasattr(model, "net_")


def test_errors_of_a_function_of_ones_own_are_its_own(tables):
    def fails(*arguments):
        raise RuntimeError("out of ideas")

    for parameters in ({"space": fails}, {"lengthscale": fails}):
        with pytest.raises(RuntimeError, match="out of ideas"):
            make_model("classifier", **parameters).fit(*tables["classifier"])


@each_kind
def test_rows_without_a_target(tables, kind):
    X, y = tables[kind]
    away = X + 10.0
    settings = {"repulsion_strength": 20.0, "space": "function", "early_stopping": False}
    plain = make_model(kind, **settings).fit(X, y)
    model = make_model(kind, **settings).fit(X, y, X_repulsion=away)
    disagreement, without = (m.predict_uncertainty(away).epistemic for m in (model, plain))
    assert disagreement.mean() > 1.2 * without.mean()  # where they were asked to
    again = make_model(kind, **settings).fit(X, y, X_repulsion=away)
    np.testing.assert_array_equal(model.ood_score(away), again.ood_score(away))


def test_as_many_extra_inputs_as_rows_are_compared(tables):
    X, y = tables["classifier"]
    shapes = []

    def seen(ensemble, X, y):
        shapes.append((X.shape, y.shape))
        return ensemble(X)

    settings = {"max_epochs": 1, "batch_size": 100, "early_stopping": False}
    model = make_model("classifier", space=seen, fraction=0.25, **settings)
    model.fit(X[:100], y[:100], X_repulsion=X)
    assert set(shapes) == {((25 + 25, 30), (25 + 25,))}


def test_rows_without_a_target_are_checked(tables):
    X, y = tables["classifier"]
    for settings, rows, message in [
        ({"space": "weight"}, X, "Got X_repulsion with .* in which members are the same"),
        ({}, X[:, 1:], "Got X_repulsion that can't be used: X has 29 features"),
        (
            {"encoder": None},
            np.full_like(X, np.nan),
            "Got X_repulsion that .* nan in row 0, column 0",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            make_model("classifier", **settings).fit(X, y, X_repulsion=rows)


def test_unlabelled_rows_through_a_pipeline(tables):
    X, y = tables["classifier"]
    away = X + 3
    model = make_model("classifier", repulsion_strength=20.0)
    with sklearn.config_context(enable_metadata_routing=True):
        last = clone(model).set_fit_request(X_repulsion=True)
        pipeline = make_pipeline(StandardScaler(), last, transform_input=["X_repulsion"])
        pipeline.fit(10 * X + 1, y, X_repulsion=10 * away + 1)
    scaler = StandardScaler().fit(X)
    expected = model.fit(scaler.transform(X), y, X_repulsion=scaler.transform(away))
    actual = pipeline.predict_proba(10 * X + 1)
    np.testing.assert_allclose(actual, expected.predict_proba(scaler.transform(X)), atol=1e-4)


@pytest.mark.parametrize("period", [2, 5, 1000])
def test_period(tables, period):
    X, y = tables["classifier"]
    settings = {"max_epochs": 3, "early_stopping": False}
    model = make_model("classifier", period=period, **settings).fit(X, y)
    steps = [batch["repulsion"] for epoch in model.net_.history for batch in epoch["batches"]]
    assert [i for i, value in enumerate(steps) if value] == list(range(0, len(steps), period))
    every_step = make_model("classifier", **settings).fit(X, y)
    first = every_step.net_.history[0]["batches"][0]["repulsion"]
    assert steps[0] == pytest.approx(period * first, rel=1e-5)


def repulsion_of_each_call(model, X, y, n_calls):
    for _ in range(n_calls):
        model.partial_fit(X, y, classes=[0, 1])
    return np.array([epoch["repulsion"] for epoch in model.history_])


def test_period_goes_on_in_partial_fit(tables):
    model = make_model("classifier", period=2, batch_size=1000)  # one step a call
    repulsion = repulsion_of_each_call(model, *tables["classifier"], 4)
    assert (repulsion != 0).tolist() == [True, False, True, False]


@pytest.mark.parametrize("in_calls", [False, True])
def test_warmup(tables, in_calls):
    X, y = tables["classifier"]
    settings = {"lr": 1e-9, "early_stopping": False, "batch_size": 1000, "fraction": 1.0}
    model = make_model("classifier", warmup=3, max_epochs=5, **settings)
    if in_calls:
        repulsion = repulsion_of_each_call(model, X, y, 5)
    else:
        repulsion = np.array([epoch["repulsion"] for epoch in model.fit(X, y).history_])
    # Nothing is learnt, so that only the warm-up changes it.
    np.testing.assert_allclose(repulsion / repulsion[-1], [0.25, 0.5, 0.75, 1, 1], rtol=1e-3)


@pytest.mark.parametrize("space", ["weight", "function"])
def test_steins_driving_force_is_averaged_at_every_step(tables, space):
    X, y = tables["classifier"]
    settings = {"space": space, "update": "svgd", "max_epochs": 2}
    predictions = [
        make_model("classifier", **settings, repulsion_strength=s, period=p).fit(X, y)
        for s, p in ((0.0, 1), (1e-12, 1), (1e-12, 3))
    ]
    predictions = [model.predict_proba(X) for model in predictions]
    np.testing.assert_allclose(predictions[1], predictions[0], atol=1e-6)
    np.testing.assert_allclose(predictions[2], predictions[0], atol=1e-6)


def test_relative_strength_goes_on_in_partial_fit_and_survives_a_pickle(tables):
    X, y = tables["classifier"]
    settings = {"relative": True, "batch_size": 16}
    model = make_model("classifier", **settings).partial_fit(X, y, classes=[0, 1])
    before = float(model.net_.relative_loss)
    assert before < 0.98
    model = pickle.loads(pickle.dumps(model)).partial_fit(X, y)
    assert float(model.net_.relative_loss) < before - 0.1


class Watch(Callback):
    """Makes each step on a copy of the members too, with a strength of one."""

    def __init__(self):
        self.potentials, self.noted = [], []

    def on_batch_begin(self, net, batch, training):
        if training:
            settings = {"repulsion": net.repulsion, "likelihood": net.likelihood}
            members = copy.deepcopy(net.module_)
            step = accumulate_gradients(members, batch[0]["X"], batch[1], **settings)
            self.potentials.append(step.repulsion.mean().item())

    def on_grad_computed(self, net, *args, **kwargs):
        self.noted.append(float(net.relative_loss))


@each_kind
def test_relative_strength_follows_the_loss_and_is_the_same_throughout_a_step(tables, kind):
    """LBFGS evaluates the objective of a step many times, and compares the values."""
    watch = Watch()
    settings = {"optimizer": torch.optim.LBFGS, "weight_decay": 0.0, "lr": 0.1, "max_epochs": 5}
    settings |= {"batch_size": 1000, "early_stopping": False, "callbacks": [watch]}
    model = make_model(kind, relative=True, repulsion_strength=0.5, **settings).fit(*tables[kind])
    history, expected = model.net_.history, [1.0]
    for loss in history[:, "relative_loss"]:
        expected.append(min(1.0, 0.95 * expected[-1] + 0.05 * loss))
    assert expected[-2] < 0.98
    assert len(watch.noted) > 5 * model.net_.n_steps == 25
    repulsion = 0.5 * np.multiply(expected[:-1], watch.potentials)
    np.testing.assert_allclose(history[:, "repulsion"], repulsion, rtol=1e-4)
    assert sorted(set(watch.noted)) == pytest.approx(sorted(set(expected[:-1])))
