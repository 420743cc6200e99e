"""Versions of a batch's rows: which cells change, for whom, and what training makes of them."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone

from sklearn_fordes import CellCorruption, FoRDEClassifier, FoRDERegressor, Repulsion, load
from sklearn_fordes.networks import MLP, stack_members
from sklearn_fordes.particles import Ensemble, accumulate_gradients
from sklearn_fordes.preprocessing import TabularEncoder

# Encoded columns: numbers 0 and 1, levels of columns 2 and 3, an indicator of gaps in column 0.
COLUMN_OF = [0, 1, 2, 2, 2, 3, 3, 0]
GAPS = torch.tensor([0.0, 0.0, 0.2, 0.3, 0.5, 0.6, 0.4, 1.0])
BLOCKS = [[0, 7], [1], [2, 3, 4], [5, 6]]


def encoded_rows(n_rows=500, seed=0):
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(n_rows, 2))
    levels = [np.eye(n)[rng.integers(n, size=n_rows)] for n in (3, 2)]
    return torch.tensor(np.hstack([numbers, *levels, np.zeros((n_rows, 1))]), dtype=torch.float32)


def corruption(rows, n_members=4, exposure=None, **settings):
    settings = {"swapped": 0.0, "blanked": 0.0, "noise": 0.0, **settings}
    made = CellCorruption(**settings).build(
        rows,
        column_of=COLUMN_OF,
        continuous=[0, 1],
        gaps=GAPS,
        n_members=n_members,
    )
    if exposure is not None:
        object.__setattr__(made, "exposure", torch.tensor(exposure))
    return made


def changed(versions, rows, block):
    """Whether a version of the cell differs from the row's own, (M, B)."""
    return (versions[..., block] != rows[:, block]).any(-1)


def test_half_of_the_members_see_rows_as_they_are():
    rows = encoded_rows()
    made = corruption(rows, n_members=5, swapped=0.5, noise=1.0)
    versions = made(rows, np.random.default_rng(0))
    assert versions.shape == (5, *rows.shape)
    assert (versions[::2] == rows).all()
    assert (versions[1] == versions[3]).all()
    assert changed(versions[1], rows, [0, 1]).all()


@pytest.mark.parametrize("n_members", [1, 2, 3, 10])
def test_every_second_member_is_exposed_however_many_there_are(n_members):
    exposure = corruption(encoded_rows(), n_members).exposure
    assert exposure.tolist() == [i % 2 for i in range(n_members)]


def test_swapped_cells_are_whole_cells_of_training_rows():
    rows, batch = encoded_rows(), encoded_rows(200, seed=1)
    versions = corruption(rows, swapped=1.0)(batch, np.random.default_rng(0))[-1]
    for block in BLOCKS:
        known = {tuple(cell) for cell in torch.cat([rows, batch])[:, block].tolist()}
        assert {tuple(cell) for cell in versions[:, block].tolist()} <= known
    from_others = changed(versions, batch, [1])
    assert {*versions[from_others, 1].tolist()} <= {*rows[:, 1].tolist()}


@pytest.mark.parametrize(("settings", "block"), [({"swapped": 0.4}, [1]), ({"blanked": 0.4}, [0])])
def test_the_share_of_changed_cells_is_half_of_the_largest(settings, block):
    rows = encoded_rows(20_000)
    versions = corruption(rows, **settings)(rows, np.random.default_rng(0))
    # The probability of a row is drawn from U(0, 0.4), which makes 0.2; 4 standard errors. Where
    # cells are blanked, one row in fifty is blank altogether.
    expected = 0.98 * 0.2 + 0.02 if "blanked" in settings else 0.2
    error = 4 * (0.2 * 0.8 / 20_000) ** 0.5
    assert changed(versions[-1], rows, block).float().mean() == pytest.approx(expected, abs=error)


def test_severities_are_the_rows_own():
    # Of 50 columns of numbers, so that the share of a row's cells tells its probability.
    rows = torch.randn(4000, 50, generator=torch.Generator().manual_seed(0))
    made = CellCorruption(swapped=0.6, blanked=0.0, noise=0.0).build(
        rows,
        column_of=range(50),
        continuous=range(50),
        gaps=torch.zeros(50),
        n_members=2,
    )
    share = (made(rows, np.random.default_rng(0))[1] != rows).float().mean(1)
    # U(0, 0.6) has a standard deviation of 0.173, and 50 draws add a variance of p (1 − p) / 50:
    # 0.18 in all. Equal probabilities of 0.3 would have 0.065.
    assert share.std() == pytest.approx(0.183, abs=0.01)


def test_noise_is_in_units_of_the_columns_and_for_numbers_alone():
    rows = encoded_rows(20_000) * torch.tensor([1.0, 5.0, *[1.0] * 6])
    versions = corruption(rows, noise=0.5)(rows, np.random.default_rng(0))[-1]
    added = versions - rows
    # σ from U(0, 0.5) has a mean square of 1/12.
    expected = (1 / 12) ** 0.5 * rows[:, :2].std(dim=0)
    torch.testing.assert_close(added[:, :2].std(dim=0), expected, rtol=0.03, atol=0.0)
    assert (added[:, 2:] == 0).all()


def test_gaps_get_the_code_of_gaps_in_all_of_their_columns():
    rows = encoded_rows()
    versions = corruption(rows, blanked=1.0)(rows, np.random.default_rng(0))[-1]
    for block in BLOCKS:
        is_blank = (versions[:, block] == GAPS[block]).all(-1)
        assert is_blank.any()
        assert (versions[~is_blank][:, block] == rows[~is_blank][:, block]).all()


def test_every_member_learns_the_code_of_gaps():
    rows = encoded_rows(20_000)
    made = corruption(rows, blanked=0.5)
    share = changed(made(rows, np.random.default_rng(0)), rows, [0]).float().mean(1)
    assert share[0] == pytest.approx(0.98 * 0.2 * 0.25 + 0.02, abs=0.01)
    assert share[-1] == pytest.approx(0.98 * 0.25 + 0.02, abs=0.02)


def test_one_row_in_fifty_is_blank_for_every_member():
    rows = encoded_rows(20_000)
    versions = corruption(rows, blanked=0.01)(rows, np.random.default_rng(0))
    is_blank = (versions == GAPS).all(-1)
    assert is_blank.float().mean().item() == pytest.approx(0.02, abs=0.004)
    assert (is_blank == is_blank[0]).all()
    assert not (corruption(rows, noise=0.1)(rows, np.random.default_rng(0)) == GAPS).all(-1).any()


def test_a_larger_exposure_sees_what_a_smaller_one_sees():
    rows = encoded_rows()
    made = corruption(rows, exposure=[0.0, 0.3, 1.0], swapped=0.9, n_members=3)
    versions = made(rows, np.random.default_rng(0))
    for block in BLOCKS:
        little, much = (changed(versions[i], rows, block) for i in (1, 2))
        assert (versions[1][little][:, block] == versions[2][little][:, block]).all()
        assert little.sum() < much.sum()


def test_draws_do_not_depend_on_the_number_of_members():
    rows = encoded_rows()
    few, many = (
        corruption(rows, n, swapped=0.3, blanked=0.3, noise=0.5)(rows, np.random.default_rng(0))
        for n in (2, 10)
    )
    assert torch.equal(few[0], many[0])
    assert torch.equal(few[1], many[-1])


def test_gaps_stay_gaps_when_noise_is_added():
    rows = encoded_rows()
    rows[::2, 0], rows[::2, 7] = 0.0, 1.0
    versions = corruption(rows, noise=1.0)(rows, np.random.default_rng(0))[-1]
    assert (versions[::2, 0] == 0).all()
    assert (versions[1::2, 0] != rows[1::2, 0]).all()
    assert (versions[:, 1] != rows[:, 1]).all()


# ---- steps at rows of each member's own


def gradients(make, X, shared=False, **settings):
    def member(generator):
        return MLP(4, 3, hidden_layer_sizes=(8, 8), embedded_features=[1, 3], generator=generator)

    ensemble = make(member, 5)
    y = torch.arange(12) % 3
    step = accumulate_gradients(ensemble, X, y, shared=shared, **settings)
    return [step.outputs, *(parameter.grad for parameter in ensemble.trainable)]


def own_rows():
    return torch.randn(5, 12, 4, generator=torch.Generator().manual_seed(0))


SPACES = ["input_gradient", "weight", "function", "feature", "none"]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("extra", [None, torch.linspace(-1, 1, 28).view(7, 4)])
def test_both_engines_agree_at_own_rows(space, extra):
    if space == "weight":
        extra = None  # Members are the same at all rows.
    settings = {"repulsion": Repulsion(space), "strength": 2.0, "extra_inputs": extra}
    pair = (gradients(make, own_rows(), **settings) for make in (stack_members, Ensemble))
    for fast, general in zip(*pair, strict=True):
        torch.testing.assert_close(fast, general, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("make", [stack_members, Ensemble])
def test_equal_own_rows_are_shared_rows(make, space):
    X, settings = own_rows()[0], {"repulsion": Repulsion(space), "strength": 2.0}
    own = gradients(make, X.expand(5, *X.shape), **settings)
    for a, b in zip(own, gradients(make, X, shared=True, **settings), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_members_do_not_see_the_rows_of_others():
    X = own_rows()
    changed_rows = X.clone()
    changed_rows[2] += 1
    before, after = (gradients(stack_members, rows) for rows in (X, changed_rows))
    for a, b in zip(before, after, strict=True):
        is_same = (a == b).flatten(1).all(1)
        assert is_same.tolist() == [True, True, False, True, True]


def test_a_function_of_the_ensemble_gets_the_rows_that_all_share():
    X, seen = own_rows(), []
    X[:, :3] = X[0, :3]

    def outputs(ensemble, rows, y):
        seen.append(rows)
        return ensemble(rows)

    gradients(Ensemble, X, repulsion=Repulsion(outputs, fraction=0.25))
    assert torch.equal(seen[0], X[0, :3])


# ---- estimators


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "a": rng.normal(size=300),
            "b": rng.normal(size=300),
            "city": rng.choice(["Oslo", "Bergen", "Bodø"], 300),
        }
    )
    return X, (X["a"] + (X["city"] == "Oslo") > 0.3).astype(int)


def make(kind=FoRDEClassifier, **parameters):
    sizes = {"n_members": 4, "hidden_layer_sizes": (8,), "max_epochs": 3, "random_state": 0}
    return kind(**{**sizes, **parameters})


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.fitted_.members.parameters()])


def test_an_augmentation_that_changes_nothing_changes_nothing(table):
    plain = make(augmentation=None).fit(*table)
    assert torch.equal(weights(plain), weights(make(augmentation=lambda X, rng: X).fit(*table)))


@pytest.mark.parametrize("kind", [FoRDEClassifier, FoRDERegressor])
def test_functions_see_encoded_batches_and_a_generator(table, kind):
    X, y = table
    seen = []

    def augmentation(rows, rng):
        seen.append((rows.shape[1], rng.random()))
        return rows.expand(4, *rows.shape) + 0.1

    first = make(kind, augmentation=augmentation, batch_size=64).fit(X, y)
    n_steps = len(seen)
    assert n_steps == 3 * 5
    assert {width for width, _ in seen} == {first.encoder_.transform(X).shape[1]}
    again = make(kind, augmentation=augmentation, batch_size=64).fit(X, y)
    assert seen[:n_steps] == seen[n_steps:]
    assert torch.equal(weights(first), weights(again))


@pytest.mark.parametrize(
    ("augmentation", "message"),
    [
        (lambda X, rng: X[:-1], "of shape .* from augmentation, but expected a dense tensor"),
        (lambda X, rng: X.numpy(), "Got a ndarray of shape"),
        (lambda X, rng: None, "Got a NoneType of shape"),
        (lambda X, rng: X.expand(3, *X.shape), "Got versions of rows for 3 members"),
    ],
)
def test_versions_of_another_shape_are_refused(table, augmentation, message):
    with pytest.raises(ValueError, match=message):
        make(augmentation=augmentation).fit(*table)


@pytest.mark.parametrize(
    ("exposed", "n_members", "n_exposed"), [(0, 10, 0), (0.3, 10, 3), (1, 3, 3), (0.99, 1, 0)]
)
def test_the_share_of_exposed_members_is_rounded_down(exposed, n_members, n_exposed):
    assert corruption(encoded_rows(), n_members, exposed=exposed).exposure.sum() == n_exposed


@pytest.mark.parametrize(
    "parameters",
    [
        {"swapped": 1.1},
        {"blanked": -0.1},
        {"noise": np.nan},
        {"noise": np.inf},
        {"exposed": "all"},
        {"noise": -1},
    ],
)
def test_parameters_are_checked(parameters):
    ((name, value),) = parameters.items()
    with pytest.raises(ValueError, match=f"Got {name}={value!r}, but expected a number"):
        corruption(encoded_rows(), **parameters)


def test_corruption_has_parameters_of_the_estimator(table):
    model = make(augmentation=CellCorruption(noise=0.0))
    assert clone(model).get_params()["augmentation__noise"] == 0.0
    model.set_params(augmentation__blanked=0.0)
    # Without gaps drawn there is nothing for an indicator to say.
    assert len(model.fit(*table).encoder_.column_map_) == 5


def test_corruption_of_rows_that_nothing_is_known_of_is_refused(table):
    X, y = table
    model = make(augmentation=CellCorruption(), module=MLP, module__hidden_layer_sizes=(8,))
    with pytest.raises(ValueError, match="with rows that no TabularEncoder encodes"):
        model.fit(X[["a", "b"]].to_numpy(), y)


def test_auto_is_a_corruption_with_its_defaults(table):
    pair = (make(augmentation=a).fit(*table) for a in ("auto", CellCorruption()))
    assert torch.equal(*map(weights, pair))


def test_corruption_is_saved(table, tmp_path):
    model = make(augmentation=CellCorruption(swapped=0.1)).fit(*table)
    model.save(tmp_path / "model")
    assert load(tmp_path / "model").get_params()["augmentation__swapped"] == 0.1


def test_functions_that_write_into_a_batch_change_no_training_row(table):
    largest = []

    def augmentation(rows, rng):
        largest.append(float(rows.abs().max()))
        return rows.mul_(3)

    settings = {"iterator_train__shuffle": False, "batch_size": 1000}
    make(augmentation=augmentation, **settings).fit(*table)
    assert len(set(largest)) == 1


@pytest.mark.parametrize("augmentation", [Repulsion(), CellCorruption])
def test_other_objects_are_refused(table, augmentation):
    with pytest.raises(ValueError, match="but expected 'auto', a CellCorruption object"):
        make(augmentation=augmentation).fit(*table)


def test_a_parameter_of_the_default_says_how_to_set_it():
    with pytest.raises(ValueError, match=r"expected augmentation=CellCorruption\(noise=0.1\)"):
        make().set_params(augmentation__noise=0.1)


@pytest.mark.parametrize("augmentation", ["swap", 3, True])
def test_other_values_are_refused(table, augmentation):
    with pytest.raises(ValueError, match="The 'augmentation' parameter"):
        make(augmentation=augmentation).fit(*table)


def test_gaps_have_indicators_where_they_are_drawn(table):
    X, y = table
    model = make(augmentation="auto").fit(X, y)
    assert [*model.encoder_.get_feature_names_out()][2:4] == ["a_missing", "b_missing"]
    assert len(make(augmentation=None).fit(X, y).encoder_.column_map_) == 5


def test_rows_that_nothing_is_known_of_are_not_corrupted(table):
    X, y = table
    numbers = X[["a", "b"]].to_numpy()
    parameters = {"module": MLP, "batch_size": 64, "module__hidden_layer_sizes": (8,)}
    of_own = [make(augmentation=a, **parameters).fit(numbers, y) for a in ("auto", None)]
    assert torch.equal(*map(weights, of_own))
    # An encoder that says from which column each encoded one comes is enough.
    encoder = TabularEncoder(gap_indicators="all")
    one, other = (
        make(augmentation=a, encoder=encoder, **parameters).fit(X, y) for a in ("auto", None)
    )
    assert not torch.equal(weights(one), weights(other))


def test_members_are_compared_at_rows_as_they_are(table):
    X, y = table
    compared = []

    def outputs(ensemble, rows, y):
        compared.append(rows)
        return ensemble(rows)

    model = make(repulsion=outputs, augmentation="auto").fit(X, y)
    known = {tuple(row) for row in model.encoder_.transform(X).tolist()}
    assert len(compared) > 1
    assert all(tuple(row) in known for rows in compared for row in rows.tolist())


def test_validation_rows_are_not_corrupted(table):
    X, y = table
    model = make(augmentation="auto", early_stopping=True).fit(X, y, X_val=X, y_val=y)
    losses = -np.log(model.predict_proba(X)[np.arange(len(y)), y]).mean()
    best = min(epoch["valid_loss"] for epoch in model.history_)
    assert losses == pytest.approx(best, rel=1e-5)


def test_lengthscales_may_be_those_of_the_columns_of_the_table(table):
    X, y = table
    of_columns = make(lengthscale=[1.0, 2.0, 4.0]).fit(X, y)
    of_inputs = make(lengthscale=[1.0, 2.0, 1.0, 2.0, 4.0, 4.0, 4.0]).fit(X, y)
    assert torch.equal(*map(weights, (of_columns, of_inputs)))
    with pytest.raises(ValueError, match=r"of 4 features, but expected 3, .* or 7, one for"):
        make(lengthscale=np.ones(4)).fit(X, y)


def test_a_drifting_table_costs_less(table):
    rng = np.random.default_rng(1)
    X, y = table
    drifted = X.assign(a=X["a"].where(rng.random(300) < 0.5, rng.permutation(X["a"])))

    def loss(augmentation):
        model = make(augmentation=augmentation, max_epochs=60).fit(X, y)
        return -np.log(model.predict_proba(drifted)[np.arange(300), y]).mean()

    assert loss("auto") < 0.9 * loss(None)


def test_weights_are_compared_wherever_the_rows_lie(table):
    losses = [
        make(repulsion=Repulsion("weight", fraction=fraction, period=1)).fit(*table).history_
        for fraction in (0.1, 1.0)
    ]
    assert losses[0][-1]["driving_loss"] == losses[1][-1]["driving_loss"]


def test_an_augmentation_of_the_users_that_makes_gaps_is_named(small, binary):
    with pytest.raises(ValueError, match="Got NaN or infinity in what augmentation returns"):
        small(augmentation=lambda X, rng: X * np.nan).fit(*binary)
