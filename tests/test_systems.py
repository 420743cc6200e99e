"""Every system on a real table: what is offered trains, and what makes no sense says so."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_fordes import FoRDEClassifier, FoRDERegressor
from sklearn_fordes.networks import MLP
from sklearn_fordes.particles import (
    CATEGORICAL,
    GAUSSIAN,
    GRADIENT_TARGETS,
    SPACES,
    UPDATES,
    accumulate_gradients,
)
from sklearn_fordes.training import PERTURBATIONS, Schedule, drawn_from, perturbed_by


def probabilities(ensemble, X, y):
    """A space of a user's own: what members say, row by row."""
    return ensemble(X).softmax(-1)


def input_gradients(ensemble, X, y):
    """Another, with the axes of the input: gradients that are not normalised."""
    points = X.expand(ensemble.n_members, *X.shape).clone().requires_grad_()
    outputs = ensemble(points, shared=False)[..., 0]
    return torch.autograd.grad(outputs.sum(), points, create_graph=True)[0]


N_FEATURES = {"classifier": 30, "regressor": 10}
ALL_SPACES = [*SPACES, input_gradients, "none"]
LENGTHSCALES = ["identity", "pca", 0.0, 0.4, 1.0, "array", "matrix"]


def lengthscale(name, n_features):
    rng = np.random.default_rng(0)
    arrays = {
        "array": np.linspace(0.5, 2, n_features),
        "matrix": np.cov(rng.normal(size=(n_features, 3 * n_features))),
    }
    return arrays.get(name, name)


def makes_sense(space, update, scale):
    """The table of what is offered."""
    if space == "none":
        return True  # nothing of it is used
    identity = scale in ("identity", 0.0)
    if update == "svgd":
        return space in ("weight", "function") and identity
    if update == "lit":
        return space in ("input_gradient", input_gradients) and identity
    if callable(space):
        return identity or scale in ("array", "matrix")
    return space == "input_gradient" or identity


@pytest.fixture(scope="module")
def tables():
    tables = {}
    for kind, load in (("classifier", load_breast_cancer), ("regressor", load_diabetes)):
        X, y = load(return_X_y=True)
        tables[kind] = StandardScaler().fit_transform(X), y
    return tables


def make_model(kind, **parameters):
    model = FoRDEClassifier if kind == "classifier" else FoRDERegressor
    defaults = {"n_members": 3, "hidden_layer_sizes": (16,), "max_epochs": 8, "lr": 1e-2}
    defaults |= {"relative_strength": False, "repulsion_period": 1}
    defaults |= {"ema_decay": 0.0, "batch_size": 128}
    if parameters.get("module") is None:
        defaults["module__dropout"] = 0.0
    return model(**{**defaults, "random_state": 0, **parameters})


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
@pytest.mark.parametrize("scale", LENGTHSCALES)
@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("space", ALL_SPACES, ids=str)
def test_table_of_systems(tables, kind, space, update, scale):
    X, y = tables[kind]
    value = lengthscale(scale, N_FEATURES[kind])
    model = make_model(kind, repulsion=space, update=update, lengthscale=value)
    if not makes_sense(space, update, scale):
        with pytest.raises(ValueError, match=r"Got (update|lengthscale)=[\s\S]*but expected"):
            model.fit(X, y)
        assert not hasattr(model, "net_")
        return
    model.fit(X, y)
    first, last = model.history_[0], model.history_[-1]
    assert last["driving_loss"] < first["driving_loss"]
    assert (last["repulsion"] != 0) == (space != "none")
    assert model.score(X, y) > (0.9 if kind == "classifier" else 0.3)


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_each_system_is_another(tables, kind):
    X, y = tables[kind]
    settings = [
        {"repulsion": "none"},
        *({"repulsion": space} for space in SPACES),
        *({"repulsion": space, "update": "svgd"} for space in ("weight", "function")),
        {"update": "lit"},
        {"lengthscale": "pca"},
        {"lengthscale": 0.5},
        {"lengthscale": 0.5, "lengthscale_mix": "variance"},
        {"bandwidth": "paper"},
        {"bandwidth": 0.1},
        {"repulsion_period": 2},
        {"repulsion_warmup": 2},
        {"repulsion_perturbation": "noise"},
        {"repulsion_perturbation": "permute"},
    ]
    predictions = [
        make_model(kind, **setting, repulsion_strength=20.0, max_epochs=3).fit(X, y).predict_members
        if kind == "regressor"
        else make_model(kind, **setting, repulsion_strength=20.0, max_epochs=3)
        .fit(X, y)
        .predict_proba_members
        for setting in settings
    ]
    values = [predict(X[:50]).ravel() for predict in predictions]
    distances = np.array([[np.abs(a - b).max() for a in values] for b in values])
    assert (distances[~np.eye(len(values), dtype=bool)] > 1e-6).all()


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ({"lengthscale": 0}, {"lengthscale": "identity"}),
        ({"lengthscale": 1.0}, {"lengthscale": "pca"}),
        ({"lengthscale": 1.0, "lengthscale_mix": "variance"}, {"lengthscale": "pca"}),
        ({"lengthscale": np.full(30, 3.0)}, {"lengthscale": "identity"}),
        ({"lengthscale": np.diag([1.0, 4.0] * 15)}, {"lengthscale": np.array([1.0, 0.5] * 15)}),
        ({"bandwidth": "reference"}, {"bandwidth": "auto"}),
        ({"repulsion": "weight", "bandwidth": "paper"}, {"repulsion": "weight"}),
        ({"repulsion": "none"}, {"repulsion_strength": 0.0}),
    ],
    ids=str,
)
def test_settings_that_mean_the_same(tables, one, same):
    X, y = tables["classifier"]
    models = [make_model("classifier", max_epochs=2, **settings) for settings in (one, same)]
    actual, expected = (model.fit(X, y).predict_proba(X[:50]) for model in models)
    np.testing.assert_allclose(actual, expected, atol=2e-5)


@pytest.mark.parametrize("repulsion", ["weight", "function", "feature", probabilities], ids=str)
def test_systems_with_a_module_of_ones_own(tables, repulsion):
    X, y = tables["classifier"]
    model = make_model("classifier", module=MLP, repulsion=repulsion).fit(X, y)
    assert model.score(X, y) > 0.9
    restored = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(restored.predict_proba(X), model.predict_proba(X))
    assert clone(model).repulsion == repulsion


def test_a_grid_search_sweeps_alpha_and_systems(tables):
    X, y = tables["classifier"]
    grid = [
        {"lengthscale": [0.0, 0.5, 1.0]},
        {"repulsion": ["none", "weight", "function", "feature"]},
        {"repulsion": ["weight"], "update": ["svgd"]},
        {"update": ["lit"]},
    ]
    search = GridSearchCV(make_model("classifier", max_epochs=2), grid, cv=2, error_score="raise")
    search.fit(X, y)
    assert len(search.cv_results_["params"]) == 9


@pytest.mark.parametrize(
    ("space", "error", "message"),
    [
        (lambda ensemble, X, y: 3, TypeError, "Got a int from the space, but expected a tensor"),
        (
            lambda ensemble, X, y: ensemble(X)[0],
            ValueError,
            r"Got a tensor of shape \(1, 2\) from the space, but expected a tensor of shape \(3, r",
        ),
        (
            lambda ensemble, X, y: ensemble(X).detach(),
            ValueError,
            "that autograd did not follow",
        ),
    ],
)
def test_a_space_that_returns_something_else(tables, space, error, message):
    with pytest.raises(error, match=message):
        make_model("classifier", repulsion=space).fit(*tables["classifier"])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"lengthscale": np.ones(7)}, r"lengthscale of shape \(7,\), but expected \(30,\)"),
        ({"lengthscale": np.ones((3, 3))}, r"lengthscale of shape \(3, 3\), but expected \(30,\)"),
        ({"lengthscale": np.zeros(30)}, "not usable: Got lengthscales .* expected positive"),
        ({"lengthscale": -np.ones(30)}, "not usable: Got lengthscales .* expected positive"),
        ({"lengthscale": -np.eye(30)}, "not usable: Got a precision matrix .* negative eigenval"),
        ({"lengthscale": np.tri(30)}, "not usable: Got a precision matrix that is zero, not symme"),
        ({"lengthscale": np.zeros((30, 30))}, "not usable: Got a precision matrix that is zero"),
        ({"lengthscale": np.full(30, np.inf)}, "not usable: Got lengthscales .* one of them finit"),
        ({"lengthscale": np.full(30, np.nan)}, "Got a lengthscale"),
        ({"update": "svgd"}, "Got update='svgd' with repulsion='input_gradient'"),
        (
            {"repulsion": "weight", "update": "svgd", "bandwidth": "reference"},
            "Got bandwidth='reference' with update='svgd'",
        ),
        ({"update": "lit", "repulsion": "function"}, "Got update='lit' with repulsion='function'"),
        ({"update": "lit", "lengthscale": 0.3}, "Got lengthscale=0.3 with update='lit'"),
        ({"update": "lit", "bandwidth": 1.0}, "Got bandwidth=1.0 with update='lit'"),
        ({"repulsion": "weight", "lengthscale": "pca"}, "Got lengthscale='pca' with repulsion='w"),
        (
            {"repulsion": "weight", "repulsion_perturbation": "noise"},
            "Got repulsion_perturbation='noise' with repulsion='weight', which compares",
        ),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[:40],
)
@pytest.mark.parametrize("others", [{}, {"n_members": 1}, {"repulsion_strength": 0.0}], ids=str)
def test_combinations_that_make_no_sense(tables, parameters, message, others):
    model = make_model("classifier", **{**parameters, **others})
    with pytest.raises(ValueError, match=message):
        model.fit(*tables["classifier"])
    assert not hasattr(model, "net_")


def test_a_feature_of_infinite_lengthscale_is_left_out(tables):
    X, y = tables["classifier"]
    scales = np.where(np.arange(30) < 2, 1.0, np.inf)
    model = make_model("classifier", lengthscale=scales).fit(X, y)
    precision = model.net_.repulsion.kernel.metric.precision
    assert precision.tolist() == [1.0, 1.0, *[0.0] * 28]


@pytest.mark.parametrize("space", ALL_SPACES[:-1], ids=str)
def test_directions_are_compared_in_the_space_of_input_gradients_alone(tables, space):
    model = make_model("classifier", repulsion=space, max_epochs=1).fit(*tables["classifier"])
    kernel = model.net_.repulsion.kernel
    assert kernel.unit_sphere == (space == "input_gradient")
    assert kernel.bandwidth == ("reference" if space == "input_gradient" else "paper")


# ---- where and when


def test_noise_has_the_scale_of_each_column():
    X = torch.randn(4000, 3) * torch.tensor([1.0, 10.0, 0.0]) + 5
    added = PERTURBATIONS["noise"](X) - X
    torch.testing.assert_close(added.std(0), X.std(0), rtol=0.1, atol=1e-6)
    torch.testing.assert_close(added.mean(0), torch.zeros(3), rtol=0, atol=0.6)


@pytest.mark.parametrize("shape", [(3000, 4), (3000, 2, 3)])
def test_permuted_cells_are_those_of_other_rows(shape):
    X = torch.arange(3000.0).view(-1, *(1 for _ in shape[1:])).expand(shape).clone()
    permuted = PERTURBATIONS["permute"](X)
    assert (permuted != X).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert len(permuted.unique()) > 2000


def test_points_are_as_many_as_the_rows_compared(tables):
    X, y = tables["classifier"]
    model = make_model("classifier", repulsion="function", repulsion_fraction=0.25, batch_size=100)
    shapes = []

    def counted(representation, kernel):
        shapes.append(representation.shape)
        return UPDATES["wgd"](representation, kernel)

    model.fit(X[:100], y[:100], X_repulsion=X)
    net = model.net_
    net.repulsion = replace(net.repulsion, update=counted)
    net.points = drawn_from(torch.as_tensor(X[:3], dtype=torch.float32))
    rows = {"X": torch.as_tensor(X[:100], dtype=torch.float32)}
    net.history.new_epoch()
    net.history.new_batch()
    net.train_step_single((rows, torch.as_tensor(y[:100])))
    assert shapes == [(3, 1, (25 + 25) * 2)]


def test_drawn_points_come_from_all_rows():
    rows = torch.arange(50.0)[:, None]
    points = drawn_from(rows)
    drawn = torch.cat([points(torch.zeros(8, 1), 5) for _ in range(500)])
    assert sorted(drawn[:, 0].unique().tolist()) == rows[:, 0].tolist()


def test_rows_without_a_target_are_encoded(tables):
    X, y = tables["classifier"]
    settings = {"repulsion_strength": 20.0, "max_epochs": 2}
    one = make_model("classifier", **settings).fit(X, y, X_repulsion=X + 3)
    other = make_model("classifier", **settings).fit(100 * X + 7, y, X_repulsion=100 * (X + 3) + 7)
    np.testing.assert_allclose(other.predict_proba(100 * X + 7), one.predict_proba(X), atol=1e-3)


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_a_space_of_ones_own_is_given_guesses_where_there_is_no_target(tables, kind):
    X, y = tables[kind]
    seen = []

    def outputs(ensemble, X, y):
        values = ensemble(X)
        seen.append((values.detach(), y))
        return values

    settings = {"max_epochs": 1, "batch_size": 40, "repulsion_fraction": 0.5, "repulsion": outputs}
    model = make_model(kind, iterator_train__shuffle=False, **settings)
    model.fit(X[:40], y[:40], X_val=X[:5], y_val=y[:5], X_repulsion=X)
    values, targets = seen[-1]
    if kind == "classifier":
        guess, known = values.softmax(-1).mean(0).argmax(-1), y[:20]
    else:
        guess, known = values[..., 0].mean(0), (y[:20] - model.target_mean_) / model.target_scale_
    assert len(targets) == 40
    torch.testing.assert_close(targets[:20], guess[:20])
    np.testing.assert_allclose(targets[20:], known, rtol=1e-6)


@pytest.mark.parametrize("target", GRADIENT_TARGETS)
def test_a_space_of_ones_own_can_use_the_targets_beside_points(tables, target):
    X, y = tables["classifier"]

    def slopes(ensemble, X, y):
        points = X.expand(ensemble.n_members, *X.shape).clone().requires_grad_()
        values = GRADIENT_TARGETS[target](ensemble(points, shared=False), y)
        return torch.autograd.grad(values.sum(), points, create_graph=True)[0]

    model = make_model("classifier", repulsion=slopes).fit(X, y, X_repulsion=X + 5)
    assert model.score(X, y) > 0.9


def test_points_are_no_use_to_weights(tables):
    X, y = tables["classifier"]
    with pytest.raises(ValueError, match="Got X_repulsion with repulsion='weight', which compares"):
        make_model("classifier", repulsion="weight").fit(X, y, X_repulsion=X)


def test_unlabelled_rows_through_a_pipeline(tables):
    X, y = tables["classifier"]
    away = X + 3
    model = make_model("classifier", repulsion_strength=20.0)
    with sklearn.config_context(enable_metadata_routing=True):
        last = clone(model).set_fit_request(X_repulsion=True)
        scaler = StandardScaler()
        pipeline = make_pipeline(scaler, last, transform_input=["X_repulsion"])
        pipeline.fit(10 * X + 1, y, X_repulsion=10 * away + 1)
    expected = model.fit(X, y, X_repulsion=away).predict_proba(X)
    np.testing.assert_allclose(pipeline.predict_proba(10 * X + 1), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_rows_without_a_target(tables, kind):
    X, y = tables[kind]
    away = X + 10.0
    settings = {"repulsion_strength": 20.0, "repulsion": "function", "early_stopping": False}
    plain = make_model(kind, **settings).fit(X, y)
    model = make_model(kind, **settings).fit(X, y, X_repulsion=away)
    ratio = model.ood_score(away).mean() / plain.ood_score(away).mean()
    assert ratio > 1.2  # members disagree where they were asked to
    assert model.net_.points is None  # which would hold the rows
    again = make_model(kind, **settings).fit(X, y, X_repulsion=away)
    np.testing.assert_array_equal(model.ood_score(away), again.ood_score(away))


def test_rows_without_a_target_are_checked(tables):
    X, y = tables["classifier"]
    with pytest.raises(ValueError, match="Got X_repulsion that can't be used: X has 29 features"):
        make_model("classifier").fit(X, y, X_repulsion=X[:, 1:])
    model = make_model("classifier", encoder=None)
    with pytest.raises(ValueError, match=r"Got X_repulsion that can't be used: .* contains NaN"):
        model.fit(X, y, X_repulsion=np.full_like(X, np.nan))
    with pytest.raises(ValueError, match="Got X_repulsion beside repulsion_perturbation='noise'"):
        make_model("classifier", repulsion_perturbation="noise").fit(X, y, X_repulsion=X)


def test_a_perturbation_of_ones_own_sees_encoded_rows(tables):
    X, y = tables["classifier"]
    seen = []

    def shift(rows):
        seen.append(rows)
        return rows + 1

    make_model("classifier", repulsion_perturbation=shift, max_epochs=1).fit(100 * X + 7, y)
    assert torch.cat(seen).abs().max() < 3  # where the encoder clips


@pytest.mark.parametrize(
    ("perturbation", "error", "message"),
    [
        (
            lambda rows: rows[:, :2],
            ValueError,
            r"float32 of shape \(128, 2\) .* expected .*\(128, 30",
        ),
        (lambda rows: rows[:1], ValueError, r"float32 of shape \(1, 30\) from repulsion_pert"),
        (lambda rows: rows.double(), ValueError, "float64 of .* expected torch.float32"),
        (lambda rows: rows / 0, ValueError, "Got NaN or infinity from repulsion_perturbation"),
        (lambda rows: rows.numpy(), TypeError, "Got a ndarray from repulsion_perturbation, but"),
    ],
)
def test_a_perturbation_that_returns_something_else(tables, perturbation, error, message):
    model = make_model("classifier", repulsion_perturbation=perturbation)
    with pytest.raises(error, match=message):
        model.fit(*tables["classifier"])
    assert not hasattr(model, "net_")


def test_a_perturbation_sees_whole_batches(tables):
    X, y = tables["classifier"]
    seen = []

    def looked_at(rows):
        seen.append(len(rows))
        return rows

    settings = {"repulsion_perturbation": looked_at, "batch_size": 64, "max_epochs": 1}
    make_model("classifier", repulsion_period=3, early_stopping=False, **settings).fit(X, y)
    assert len(seen) == 1 + 3  # the trial, and every third of nine steps
    assert min(seen) >= 63


@pytest.mark.parametrize("where", ["repulsion", "repulsion_perturbation"])
def test_errors_of_a_function_of_ones_own_are_its_own(tables, where):
    def fails(*arguments):
        raise RuntimeError("out of ideas")

    with pytest.raises(RuntimeError, match="out of ideas"):
        make_model("classifier", **{where: fails}).fit(*tables["classifier"])


@pytest.mark.parametrize("name", ["lengthscale", "bandwidth", "update", "lengthscale_mix"])
def test_names_are_checked_even_where_they_do_not_matter(tables, name):
    with pytest.raises(ValueError, match=f"Got {name}='typo', but expected one of"):
        make_model("classifier", repulsion="none", **{name: "typo"}).fit(*tables["classifier"])


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_lengthscales_beyond_the_numbers_of_the_network(tables, scale):
    with pytest.raises(
        ValueError, match=r"Got a lengthscale whose inverse square is zero or infinite in"
    ):
        make_model("classifier", lengthscale=np.full(30, scale)).fit(*tables["classifier"])


def test_a_lengthscale_of_another_width_than_a_space_of_ones_own(tables):
    model = make_model("classifier", repulsion=probabilities, lengthscale=np.ones(3))
    with pytest.raises(
        ValueError, match=r"Got a lengthscale whose precision has shape \(3,\), but"
    ):
        model.fit(*tables["classifier"])


def test_perturbed_points_are_copies_of_the_rows_compared():
    X = torch.arange(12.0).view(6, 2)
    assert torch.equal(perturbed_by(lambda rows: -rows)(X, 4), -X[:4])


@pytest.mark.parametrize("period", [2, 5, 1000])
def test_period(tables, period):
    X, y = tables["classifier"]
    settings = {"max_epochs": 3, "batch_size": 64, "early_stopping": False}
    model = make_model("classifier", repulsion_period=period, **settings).fit(X, y)
    steps = [batch["repulsion"] for epoch in model.net_.history for batch in epoch["batches"]]
    assert [i for i, value in enumerate(steps) if value] == list(range(0, len(steps), period))
    every_step = make_model("classifier", **settings).fit(X, y)
    first = every_step.net_.history[0]["batches"][0]["repulsion"]
    assert steps[0] == pytest.approx(period * first, rel=1e-5)


def test_period_goes_on_in_partial_fit(tables):
    X, y = tables["classifier"]
    model = make_model("classifier", repulsion_period=2, batch_size=1000)  # one step a call
    for _ in range(4):
        model.partial_fit(X, y, classes=[0, 1])
    assert [epoch["repulsion"] != 0 for epoch in model.history_] == [True, False, True, False]


def test_warmup(tables):
    X, y = tables["classifier"]
    settings = {"max_epochs": 5, "lr": 1e-9, "early_stopping": False, "batch_size": 1000}
    model = make_model("classifier", repulsion_warmup=3, **settings).fit(X, y)
    repulsion = np.array([epoch["repulsion"] for epoch in model.history_])
    # Nothing is learnt, so that only the warm-up changes it (and which rows are compared).
    np.testing.assert_allclose(repulsion / repulsion[-1], [0.25, 0.5, 0.75, 1, 1], rtol=0.05)


def test_warmup_goes_on_in_partial_fit(tables):
    X, y = tables["classifier"]
    model = make_model("classifier", repulsion_warmup=3, lr=1e-9, batch_size=1000)
    for _ in range(5):
        model.partial_fit(X, y, classes=[0, 1])
    repulsion = np.array([epoch["repulsion"] for epoch in model.history_])
    np.testing.assert_allclose(repulsion / repulsion[-1], [0.25, 0.5, 0.75, 1, 1], rtol=0.05)


def test_perturbed_points_in_partial_fit(tables):
    X, y = tables["classifier"]
    settings = {"repulsion_strength": 50.0, "batch_size": 64}
    models = [
        make_model("classifier", repulsion_perturbation=p, **settings).partial_fit(X, y, [0, 1])
        for p in (None, "noise")
    ]
    one, other = (model.predict_proba(X) for model in models)
    assert np.abs(one - other).max() > 1e-6
    assert models[1].net_.points is None


def test_a_perturbation_in_place_leaves_the_training_rows_alone(tables):
    X, y = tables["classifier"]
    settings = {"repulsion": "function", "repulsion_perturbation": lambda rows: rows.mul_(0)}
    model = make_model("classifier", iterator_train__shuffle=False, **settings).fit(X, y)
    assert model.score(X, y) > 0.9


@pytest.mark.parametrize("space", ["weight", "function"])
def test_steins_driving_force_is_averaged_at_every_step(tables, space):
    X, y = tables["classifier"]
    settings = {"repulsion": space, "update": "svgd", "max_epochs": 2, "batch_size": 64}
    models = [
        make_model("classifier", repulsion_period=period, repulsion_strength=strength, **settings)
        for period, strength in ((1, 0.0), (1, 1e-12), (3, 1e-12))
    ]
    predictions = [model.fit(X, y).predict_proba(X) for model in models]
    np.testing.assert_allclose(predictions[1], predictions[0], atol=1e-6)
    np.testing.assert_allclose(predictions[2], predictions[0], atol=1e-6)


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_relative_strength_follows_what_members_get_wrong(tables, kind):
    X, y = tables[kind]
    settings = {"optimizer": torch.optim.SGD, "weight_decay": 0.0, "lr": 0.1, "max_epochs": 6}
    settings |= {"batch_size": len(X), "early_stopping": False, "repulsion_fraction": 1.0}
    model = make_model(kind, relative_strength=True, repulsion_strength=0.5, **settings).fit(X, y)

    start = make_model(kind, **{**settings, "lr": 1e-30, "max_epochs": 1}).fit(X, y)
    net, encoded = start.net_, torch.from_numpy(start.encoder_.transform(X)).float()
    target = torch.from_numpy(y if kind == "classifier" else (y - y.mean()) / y.std())
    target = target if kind == "classifier" else target.float()
    repulsion = make_model(kind, **settings).fit(X, y).net_.repulsion
    unexplained = 1.0
    for epoch in range(6):
        step = accumulate_gradients(
            net.module_,
            encoded,
            target,
            repulsion=replace(repulsion, strength=0.5 * unexplained * len(X)),
            likelihood=net.likelihood,
        )
        assert model.history_[epoch]["repulsion"] == pytest.approx(
            step.repulsion.mean().item(), rel=1e-3
        )
        if kind == "classifier":
            wrong = step.driving_loss.mean().item() / np.log(2)
        else:
            wrong = (step.outputs[..., 0] - target).square().mean().item()
        unexplained = min(1.0, 0.95 * unexplained + 0.05 * wrong)
        with torch.no_grad():
            for parameter in net.module_.parameters():
                parameter -= 0.1 * parameter.grad
                parameter.grad = None
    assert unexplained < 0.995
    assert model.net_.unexplained == pytest.approx(unexplained, rel=1e-4)


def test_relative_strength_goes_on_in_partial_fit_and_survives_a_pickle(tables):
    X, y = tables["classifier"]
    settings = {"relative_strength": True, "batch_size": 32}
    model = make_model("classifier", **settings).partial_fit(X, y, classes=[0, 1])
    before = model.net_.unexplained
    assert before < 0.98
    model = pickle.loads(pickle.dumps(model)).partial_fit(X, y)
    assert model.net_.unexplained < before - 0.1


def test_absolute_strength_does_not_fade(tables):
    X, y = tables["classifier"]
    settings = {"max_epochs": 20, "early_stopping": False, "batch_size": 64}
    model = make_model("classifier", repulsion_strength=0.5 * 64, **settings).fit(X, y)
    settings |= {"repulsion_strength": 0.5, "relative_strength": True}
    relative = make_model("classifier", **settings).fit(X, y)
    assert model.history_[-1]["repulsion"] > 3 * relative.history_[-1]["repulsion"] > 0


@pytest.mark.parametrize(("relative", "ratio"), [(True, 1), (False, 4)])
def test_relative_strength_does_not_depend_on_the_batch_size(tables, relative, ratio):
    X, y = tables["classifier"]
    settings = {
        "relative_strength": relative,
        "lr": 1e-30,
        "max_epochs": 1,
        "early_stopping": False,
    }
    small, large = (
        make_model("classifier", batch_size=size, **settings).fit(X[:400], y[:400]).history_[0]
        for size in (50, 200)
    )
    assert small["repulsion"] / large["repulsion"] == pytest.approx(ratio, rel=0.1)


@pytest.mark.parametrize("relative", [False, True])
def test_strength_rises_and_pauses_whether_or_not_it_is_relative(relative):
    schedule = Schedule(period=2, warmup=3, relative=relative)
    unit = 50 * 0.7 if relative else 1
    factors = [schedule.factor(epoch, step=4, n_rows=50, unexplained=0.7) for epoch in range(5)]
    np.testing.assert_allclose(factors, 2 * unit * np.array([0.25, 0.5, 0.75, 1, 1]))
    assert schedule.factor(4, step=5, n_rows=50, unexplained=0.7) == 0


@pytest.mark.parametrize("n_classes", [2, 3, 7])
@pytest.mark.parametrize("scale", [0.01, 1, 100])
def test_equal_probabilities_explain_nothing_whatever_the_weights(n_classes, scale):
    logits, y = torch.zeros(3, 8, n_classes), torch.arange(8) % n_classes
    for weight in (None, scale * torch.linspace(0, 1, 8)):
        loss, _ = CATEGORICAL.loss(logits, y, weight)
        unexplained = CATEGORICAL.unexplained(loss, logits, y, weight)
        np.testing.assert_allclose(unexplained, np.ones(3), rtol=1e-6)


def test_weights_count_as_repetitions_in_what_is_unexplained():
    rng = np.random.default_rng(0)
    y, weight = rng.normal(size=8), np.arange(1, 9)
    for likelihood, n_outputs, targets in (
        (GAUSSIAN, 2, torch.from_numpy(y)),
        (CATEGORICAL, 3, torch.arange(8) % 3),
    ):
        outputs = torch.from_numpy(rng.normal(size=(4, 8, n_outputs)))
        times = torch.from_numpy(weight)
        loss, _ = likelihood.loss(outputs, targets, times.double())
        weighted = likelihood.unexplained(loss, outputs, targets, times.double())
        repeated = outputs.repeat_interleave(times, 1), targets.repeat_interleave(times)
        loss, _ = likelihood.loss(*repeated, None)
        np.testing.assert_allclose(weighted, likelihood.unexplained(loss, *repeated, None))


def test_strength_is_the_same_throughout_a_step(tables):
    """LBFGS evaluates the objective many times, and compares the values."""
    X, y = tables["classifier"]
    settings = {"optimizer": torch.optim.LBFGS, "weight_decay": 0.0, "lr": 0.1, "max_epochs": 1}
    settings |= {"batch_size": len(X), "early_stopping": False, "relative_strength": True}
    model = make_model("classifier", **settings).fit(X, y)
    step = model.net_.history[-1, "batches", -1]
    assert model.net_.n_steps == 1
    assert step["unexplained"] < 0.7
    assert model.net_.unexplained == pytest.approx(0.95 + 0.05 * step["unexplained"])
    assert model.history_[0]["unexplained"] == pytest.approx(step["unexplained"])
