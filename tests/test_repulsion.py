"""The repulsion as users describe it: its parameters, what is offered, and what acts when."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone

from by_hand import make_batch, make_ensemble, random_tensor
from sklearn_fordes import Repulsion, particles
from sklearn_fordes.particles import BANDWIDTHS, SPACES, UPDATES, BuiltRepulsion, Lengthscale
from sklearn_fordes.training import unit_of_strength


def slopes(ensemble, X, y):
    """A space of a user's own."""
    return X


X = random_tensor(40, 3)
LENGTHSCALES = {
    "identity": "identity",
    "pca": "pca",
    "zero": 0.0,
    "alpha": 0.4,
    "tuned": particles.tuned_lengthscale(0.4, mix="variance"),
    "array": np.array([0.5, 1.0, 2.0]),
    "matrix": np.cov(np.random.default_rng(0).normal(size=(3, 9))),
    "object": Lengthscale(precision=torch.ones(3)),
}


def is_offered(space, update, name):
    """The table of what is offered."""
    if space == "none":
        return True  # nothing of it is used
    is_identity = name in ("identity", "zero")
    if update == "svgd":
        return space in ("weight", "function") and is_identity
    if update == "lit":
        return space in ("input_gradient", slopes) and is_identity
    if space is slopes:
        return is_identity or name in ("array", "matrix", "object")
    return space == "input_gradient" or is_identity


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("space", [*SPACES, slopes, "none"], ids=str)
def test_table_of_systems(space, update):
    repulsion = Repulsion(space, update=update)
    for name, lengthscale in LENGTHSCALES.items():
        if is_offered(space, update, name):
            assert (repulsion.build(X, lengthscale) is None) == (space == "none")
            continue
        with pytest.raises(ValueError, match=r"Got (update|lengthscale)=[\s\S]*but expected"):
            repulsion.build(X, lengthscale)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"space": "typo"}, "Got repulsion='typo', but expected one of"),
        ({"space": 3}, "Got repulsion=3, but expected one of"),
        *(({k: "typo"}, f"Got {k}='typo', but") for k in ("update", "target", "bandwidth")),
        *(({"bandwidth": v}, "Got bandwidth=.* a number > 0") for v in (0, -1.0, np.nan, None)),
        *(({"fraction": v}, r"Got fraction=.* in \(0, 1\]") for v in (0, 1.5, np.nan, "all", True)),
        *(({"period": v}, "Got period=.* integer >= 1") for v in (0, 1.0, None, True)),
        *(({"warmup": v}, "Got warmup=.* integer >= 0") for v in (-1, 0.5, None)),
        *(({"relative": v}, "Got relative=.* True or False") for v in (1, None, "yes")),
    ],
    ids=str,
)
@pytest.mark.parametrize("space", ["input_gradient", "none"])  # where it does not matter too
def test_wrong_parameters(space, parameters, message):
    with pytest.raises(ValueError, match=message):
        Repulsion(**{"space": space, **parameters}).build(X)


@pytest.mark.parametrize("space", ["input_gradient", "weight", "none"])
def test_names_of_lengthscales_are_checked_even_where_they_do_not_matter(space):
    with pytest.raises(ValueError, match="Got lengthscale='typo', but expected one of"):
        Repulsion(space).build(X, "typo")


@pytest.mark.parametrize(
    ("space", "update", "bandwidth"),
    [("weight", "svgd", "reference"), ("input_gradient", "lit", 1.0)],
)
def test_updates_that_a_bandwidth_does_not_fit(space, update, bandwidth):
    repulsion = Repulsion(space, update=update, bandwidth=bandwidth)
    ensemble, batch = make_ensemble(), make_batch()
    with pytest.raises(ValueError, match=f"Got bandwidth={bandwidth!r} with update='{update}'"):
        particles.accumulate_gradients(ensemble, *batch, repulsion=repulsion)


@pytest.mark.parametrize("space", [*SPACES, slopes], ids=str)
def test_directions_are_compared_in_the_space_of_input_gradients_alone(space):
    kernel = Repulsion(space).build(X).kernel
    assert kernel.unit_sphere == (space == "input_gradient")
    assert kernel.bandwidth == ("reference" if space == "input_gradient" else "paper")


@pytest.mark.parametrize("bandwidth", [*BANDWIDTHS, 0.5, np.float32(2.0)])
def test_a_bandwidth_that_is_given_is_taken(bandwidth):
    assert Repulsion(bandwidth=bandwidth).build(X).kernel.bandwidth == bandwidth


@pytest.mark.parametrize("shape", [(1,), (1, 1), (1, 2)])
def test_one_feature_has_no_directions(shape):
    kernel = Repulsion().build(torch.ones(40, *shape)).kernel
    assert kernel.unit_sphere == (kernel.bandwidth == "reference") == (2 in shape)


def test_a_space_may_be_an_object():
    space = particles.WeightSpace()
    built = Repulsion(space, update="svgd", bandwidth=0.5).build(X)
    assert built.space is space
    assert built.update is particles.stein_update


def test_parameters_can_be_read_set_and_cloned():
    repulsion = Repulsion("weight", bandwidth=0.5)
    expected = {"space": "weight", "update": "wgd", "target": "log_odds", "bandwidth": 0.5}
    expected |= {"fraction": 0.25, "period": 4, "warmup": 0, "relative": True}
    assert repulsion.get_params() == expected
    copies = [clone(repulsion), pickle.loads(pickle.dumps(repulsion))]
    assert copies == [repulsion, repulsion]
    assert repulsion.set_params(period=1, space="function") is repulsion
    assert repulsion.get_params() == {**expected, "period": 1, "space": "function"}
    assert copies[0] != repulsion
    assert repr(repulsion) == "Repulsion(space='function', bandwidth=0.5, period=1)"
    with pytest.raises(ValueError, match="Got parameter 'perid' of Repulsion, but expected one of"):
        repulsion.set_params(perid=2)


class Smooth(Repulsion):
    def __init__(self, *, period=1, smoothness=0.1):
        super().__init__(period=period)
        self.smoothness = smoothness


def test_a_subclass_has_the_parameters_of_its_own_constructor():
    repulsion = clone(Smooth(smoothness=0.5))
    assert repulsion.get_params() == {"period": 1, "smoothness": 0.5}
    assert repr(repulsion) == "Smooth(smoothness=0.5)"
    assert "bandwidth=array" in repr(Repulsion(bandwidth=np.ones(2)))


@pytest.mark.parametrize("of_class", [Repulsion, particles.WeightSpace])
def test_a_class_in_place_of_an_object_is_named(of_class):
    name = of_class.__name__
    with pytest.raises(ValueError, match=rf"Got the class {name} as .*, but .* of it: {name}\(\)"):
        particles.as_repulsion(of_class).build(X)


def test_the_papers_repulsion():
    built = Repulsion.paper().build(X)
    assert built.kernel.bandwidth == "reference"
    assert (built.fraction, built.period, built.relative) == (1.0, 1, False)
    assert Repulsion.paper().target == "logit"
    changed = Repulsion("weight", target="logit", fraction=0.5, period=1, relative=False)
    assert Repulsion.paper("weight", fraction=0.5) == changed


@pytest.mark.parametrize(("relative", "unit"), [(False, 1 / 50), (True, 0.7)])
@pytest.mark.parametrize("number", [float, torch.tensor])
def test_unit_of_the_strength_rises_over_epochs(relative, unit, number):
    built = BuiltRepulsion(period=2, warmup=3, relative=relative)
    loss = number(0.7)
    factors = [float(unit_of_strength(built, epoch, 50, loss)) for epoch in range(5)]
    np.testing.assert_allclose(factors, 2 * unit * np.array([0.25, 0.5, 0.75, 1, 1]), rtol=1e-6)
