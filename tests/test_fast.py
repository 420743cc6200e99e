"""The written-out training step of stacked MLPs against autograd and vmap."""

from functools import partial

import pytest
import torch

from by_hand import make_batch, make_ensemble
from sklearn_fordes.networks import MLP, PeriodicEmbedding, stack_members
from sklearn_fordes.networks._mlp import ACTIVATIONS
from sklearn_fordes.networks.fast import _engine
from sklearn_fordes.networks.fast._passes import DERIVATIVES, Embedding
from sklearn_fordes.particles import (
    ACTIVATIONS_AT_ONCE,
    GRADIENT_TARGETS,
    SPACES,
    BuiltRepulsion,
    CategoricalLikelihood,
    Ensemble,
    accumulate_gradients,
)


def make_pair(**settings):
    return [make_ensemble(kind, **settings) for kind in (Ensemble, stack_members)]


def step_and_gradients(ensemble, X, y, fraction=1.0, weight=None, target="log_odds"):
    repulsion = None if fraction is None else BuiltRepulsion(fraction=fraction)
    settings = {"strength": 1.0, "likelihood": CategoricalLikelihood(target=target)}
    step = accumulate_gradients(ensemble, X, y, weight, repulsion=repulsion, **settings)
    return step, [parameter.grad for parameter in ensemble.parameters()]


def assert_steps_are_equal(pair, *arguments):
    expected, actual = (step_and_gradients(ensemble, *arguments) for ensemble in pair)
    torch.testing.assert_close(actual, expected, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("target", GRADIENT_TARGETS)
@pytest.mark.parametrize("fraction", [None, 0.3, 1.0])
def test_step_equals_that_of_the_general_ensemble(activation, target, fraction):
    X, y = make_batch()
    weight = torch.linspace(0.2, 1.8, len(X), dtype=torch.float64)
    assert_steps_are_equal(make_pair(activation=activation), X, y, fraction, weight, target)


@pytest.mark.parametrize("embedded_features", [[0, 1, 2, 3, 4], [3, 1]], ids=str)
@pytest.mark.parametrize("hidden_layer_sizes", [(), (7, 4)], ids=str)
@pytest.mark.parametrize("fraction", [None, 0.3, 1.0])
def test_step_with_embedded_columns(embedded_features, hidden_layer_sizes, fraction):
    settings = {"n_frequencies": 5, "n_components": 2, "frequency_scale": 0.2}
    general, written_out = make_pair(
        hidden_layer_sizes=hidden_layer_sizes, embedded_features=embedded_features, **settings
    )
    X, y = make_batch()
    torch.testing.assert_close(written_out(X), general(X))
    unshared = torch.stack([X + i for i in range(4)])
    torch.testing.assert_close(written_out(unshared, shared=False), general(unshared, shared=False))
    assert_steps_are_equal((general, written_out), X, y, fraction)
    assert all((parameter.grad != 0).any() for parameter in written_out.parameters())


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("embedded_features", [(), [1, 0]], ids=str)
@pytest.mark.parametrize(
    "shape", [(6, 3), (6, 7), (6, 2, 5), (1, 6, 5)], ids=["narrow", "wide", "deep", "unshared"]
)
def test_rows_of_another_shape_are_refused(shape, embedded_features, grad):
    shared = shape != (1, 6, 5)
    ensemble = make_ensemble(stack_members, embedded_features=embedded_features)
    with torch.set_grad_enabled(grad), pytest.raises(RuntimeError, match=r"[Ee]xpected|size|3D"):
        ensemble(torch.zeros(shape, dtype=torch.float64), shared=shared)


def test_embedding_under_autocast():
    ensemble = make_ensemble(stack_members, embedded_features=[3, 1]).float()
    X, _ = make_batch()
    for grad in (True, False):
        with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(grad):
            outputs = ensemble(X.float())
        assert outputs.dtype == torch.bfloat16
        torch.testing.assert_close(outputs.float(), ensemble(X.float()), atol=0.05, rtol=0.05)


def test_columns_are_embedded_once_and_may_be_counted_from_the_end():
    for twice in ([1, 1], [1, -4]):
        with pytest.raises(ValueError, match=r"of 5 columns, but expected each of them once"):
            MLP(5, 2, embedded_features=twice)
    assert_steps_are_equal(make_pair(embedded_features=[-2, 0]), *make_batch())


def test_components_and_slopes_by_hand():
    embedding = PeriodicEmbedding([1], n_frequencies=4, n_components=3).double()
    X = torch.randn(6, 2, dtype=torch.float64)
    frequency, phase = embedding.frequency[0], embedding.phase[0]
    angle = X[:, 1:] * frequency + phase
    expected = angle.cos() @ embedding.weight[0] + embedding.bias[0]
    torch.testing.assert_close(embedding(X), torch.cat([X, expected], dim=1))
    stacked = [parameter.detach()[None] for parameter in embedding.parameters()]
    passes = Embedding(embedding.features, *stacked)
    torch.testing.assert_close(passes.forward(X, 2)[0], expected.detach().T)
    step = torch.tensor([[0.0, 1e-5]], dtype=torch.float64)
    slope = (embedding(X[:2] + step) - embedding(X[:2] - step)) / 2e-5
    torch.testing.assert_close(passes.slope[0], slope[:, 2:].detach())


@pytest.mark.parametrize("sizes", [(), (3,), (12, 3, 8)])
@pytest.mark.parametrize("n_features", [1, 20])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_any_depth_and_width(sizes, n_features, n_classes):
    pair = make_pair(n_features=n_features, n_outputs=n_classes, hidden_layer_sizes=sizes)
    assert_steps_are_equal(pair, *make_batch(6, n_features, n_classes), 0.5)


def test_single_precision_is_close_to_double():
    X, y = make_batch(64)
    general, written_out = make_pair()
    _, expected = step_and_gradients(general, X, y, 0.25)
    _, actual = step_and_gradients(written_out.float(), X.float(), y, 0.25)
    for own, reference in zip(actual, expected, strict=True):
        torch.testing.assert_close(own.double(), reference, atol=1e-5, rtol=1e-3)


def test_gradients_accumulate():
    ensemble = make_ensemble(stack_members)
    X, y = make_batch()
    once = [gradient.clone() for gradient in step_and_gradients(ensemble, X, y)[1]]
    _, twice = step_and_gradients(ensemble, X, y)
    torch.testing.assert_close(twice, [2 * gradient for gradient in once])


@pytest.mark.parametrize("embedded_features", [(), [3, 1]], ids=str)
def test_step_with_dropout_has_the_masks_of_the_general_ensemble(embedded_features):
    """Autograd evaluates the whole batch at once here: each call has masks of its own."""
    pair = make_pair(dropout=0.4, embedded_features=embedded_features)
    X, y = make_batch()
    for _ in range(2):
        assert_steps_are_equal(pair, X, y)
    general, written_out = (ensemble(X) for ensemble in pair)
    torch.testing.assert_close(written_out, general, atol=1e-12, rtol=1e-9)
    general, written_out = (ensemble.eval().evaluate(X).outputs for ensemble in pair)
    torch.testing.assert_close(written_out, general, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("n_rows", [0, 11, 30])
def test_derivatives_of_activations(activation, n_rows):
    a = torch.linspace(-4, 4, 30, dtype=torch.float64).reshape(1, 30, 1).requires_grad_()
    module = ACTIVATIONS[activation]
    expected_value = module()(a)
    (expected_slope,) = torch.autograd.grad(expected_value.sum(), a, create_graph=True)
    value, slope, curvature = DERIVATIVES[module](a.detach().clone(), n_rows)
    torch.testing.assert_close(value, expected_value.detach())
    torch.testing.assert_close(slope, expected_slope.detach())
    if n_rows and activation != "relu":
        (expected_curvature,) = torch.autograd.grad(expected_slope.sum(), a)
        torch.testing.assert_close(curvature, expected_curvature[:, :n_rows])
    else:
        assert curvature is None
    # Far from zero too, they are finite.
    for part in DERIVATIVES[module](torch.tensor([[[-1e4, -200.0, 200.0, 1e4]]]), 1):
        assert part is None or torch.isfinite(part).all()


def test_rows_at_a_time_follow_the_widest_layer(monkeypatch):
    for layers, width in [({}, 6), ({"embedded_features": [0, 3]}, 32)]:
        ensemble = make_ensemble(stack_members, **layers)
        monkeypatch.setitem(ACTIVATIONS_AT_ONCE, "cpu", 4 * width * 100)
        assert ensemble.rows_at_a_time() == 100
        monkeypatch.setitem(ACTIVATIONS_AT_ONCE, "cpu", 4 * width * 100 - 1)
        assert ensemble.rows_at_a_time() == 99


def test_interleaved_evaluations_are_those_of_one_after_another():
    ensemble = make_ensemble(stack_members, embedded_features=[0, 2])
    batches = [make_batch(), make_batch(12)]

    def evaluate(batch):
        return SPACES["input_gradient"].evaluate(ensemble, *batch, 6, CategoricalLikelihood())

    def pulled_back(evaluation):
        cotangents = torch.ones_like(evaluation.outputs), evaluation.representation
        return evaluation.pullback(*cotangents)

    apart = [pulled_back(evaluate(batch)) for batch in batches]
    both = [evaluate(batch) for batch in batches]
    torch.testing.assert_close([pulled_back(e) for e in both], apart, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="second pullback"):
        pulled_back(both[0])


def make_mixed(mixed_precision, **settings):
    settings = {"hidden_layer_sizes": (800, 64), "embedded_features": [1, 3], **settings}
    return make_ensemble(stack_members, mixed_precision=mixed_precision, **settings).float()


def mixed_layers(ensemble):
    return [layer.is_mixed for layer in ensemble._layers(for_training=True)[0]]


@pytest.mark.parametrize("fraction", [None, 0.25])
@pytest.mark.parametrize(
    "settings",
    [{}, {"activation": "gelu"}, {"dropout": 0.2}, {"embedded_features": (), "n_features": 12}],
    ids=str,
)
def test_mixed_precision_is_close_to_single(settings, fraction):
    X, y = make_batch(64, settings.get("n_features", 5))
    gradients = {}
    for mixed_precision in (True, False):
        ensemble = make_mixed(mixed_precision, **settings)
        assert mixed_layers(ensemble) == [mixed_precision, mixed_precision, False]
        step, gradients[mixed_precision] = step_and_gradients(ensemble, X.float(), y, fraction)
        assert step.outputs.dtype == torch.float32
    for own, reference in zip(gradients[True], gradients[False], strict=True):
        assert own.dtype == torch.float32
        # Eight bits of each factor, in sums of 800 products at most.
        assert 0 < (own - reference).norm() < 0.03 * reference.norm()


@pytest.mark.parametrize("shared", [True, False])
def test_input_gradients_in_mixed_precision(shared):
    X, y = make_batch(64)
    rows = (X if shared else torch.stack([X + i for i in range(4)])).float()
    single, mixed = (
        SPACES["input_gradient"].evaluate(
            make_mixed(is_mixed), rows, y, 16, CategoricalLikelihood(), shared=shared
        )
        for is_mixed in (False, True)
    )
    for name in ("outputs", "representation"):
        own, reference = getattr(mixed, name), getattr(single, name)
        assert own.dtype == torch.float32
        assert 0 < (own - reference).norm() < 0.03 * reference.norm()


def test_mixed_precision_is_of_the_large_hidden_layers_in_training_alone():
    X, y = make_batch(64)
    outputs, steps, not_trained = [], [], []
    for mixed_precision in (True, False):
        # The last layer has the size of a large one.
        narrow = make_mixed(mixed_precision, hidden_layer_sizes=(16,), n_outputs=200)
        steps.append(step_and_gradients(narrow, X.float(), y)[1])
        outputs.append(make_mixed(mixed_precision).eval()(X.float()))
        not_trained.append(step_and_gradients(make_mixed(mixed_precision).eval(), X.float(), y)[1])
    assert all(map(torch.equal, *steps))
    assert all(map(torch.equal, *not_trained))
    assert torch.equal(*outputs)
    steps = [step_and_gradients(make_mixed(mixed).double(), X, y)[1] for mixed in (True, False)]
    assert all(map(torch.equal, *steps))


@pytest.mark.parametrize("mixed_precision", [True, False])
@pytest.mark.parametrize("dtypes", [(torch.float64, torch.float32), (torch.float32, torch.float64)])
def test_rows_of_another_type_are_refused(dtypes, mixed_precision):
    X, y = make_batch(64, 12)
    ensemble = make_mixed(mixed_precision, embedded_features=(), n_features=12).to(dtypes[1])
    with pytest.raises(RuntimeError, match=r"dtype|expected torch\.float32"):
        step_and_gradients(ensemble, X.to(dtypes[0]), y)


@pytest.mark.parametrize("instructions", [(), ("avx512_bf16",), ("amx_tile",)], ids=str)
def test_mixed_precision_follows_the_processor(instructions, monkeypatch):
    for name in ("avx512_bf16", "amx_tile"):
        known = partial(instructions.__contains__, name)
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", known)
    monkeypatch.setattr(_engine, "_multiplies_bfloat16", _engine._multiplies_bfloat16.__wrapped__)
    is_mixed = bool(instructions) and torch.backends.mkldnn.is_available()
    assert mixed_layers(make_mixed("auto")) == [is_mixed, is_mixed, False]
    assert not any(mixed_layers(make_mixed("auto").to("meta")))
    with monkeypatch.context() as without_library:
        without_library.setattr(torch.backends.mkldnn, "enabled", False)
        assert not any(mixed_layers(make_mixed("auto")))
    for name in ("avx512_bf16", "amx_tile"):
        monkeypatch.delattr(torch.cpu, f"_is_{name}_supported")
    assert not any(mixed_layers(make_mixed("auto")))  # This torch does not tell.


@pytest.mark.parametrize("fraction", [None, 0.25])
def test_mixed_precision_is_the_same_for_any_number_of_members(fraction):
    """Strength zero: members of more compare themselves with others."""
    X, y = make_batch(64)
    gradients = []
    for n_members in (4, 2):
        ensemble = make_mixed(True, n_members=n_members)
        repulsion = None if fraction is None else BuiltRepulsion(fraction=fraction)
        accumulate_gradients(ensemble, X.float(), y, repulsion=repulsion, strength=0.0)
        gradients.append([parameter.grad[:2] for parameter in ensemble.parameters()])
    assert all(map(torch.equal, *gradients))


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_unknown_mixed_precision(value):
    with pytest.raises(ValueError, match=rf"Got mixed_precision={value!r}, but expected True, Fal"):
        MLP(5, 2, mixed_precision=value)
