"""Training on a device without having one: nothing leaves it, and the host reads nothing.

Tensors on the device "meta" have no values, so that each read by the host fails. With a CUDA build
of torch the same is done with fake CUDA tensors, which know one device from another; autograd needs
a real device there, so that only passes written out are tried.
"""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes

from sklearn_fordes import FoRDEClassifier, FoRDERegressor, particles
from sklearn_fordes.inference import available_device
from sklearn_fordes.networks import MLP, stack_members
from sklearn_fordes.particles import SPACES, UPDATES, BuiltRepulsion, Ensemble, Kernel, Lengthscale
from sklearn_fordes.training import ParticleNet, WeightAverage

# Gradients that share memory are found by their address, which is not read on the device.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")

CATEGORICAL, GAUSSIAN = particles.CategoricalLikelihood(3), particles.GaussianLikelihood()
LIKELIHOODS = [CATEGORICAL, GAUSSIAN, particles.QuantileLikelihood()]
has_cuda_build = pytest.mark.skipif(torch.version.cuda is None, reason="needs a CUDA build")
fake_cuda = pytest.param("cuda", marks=has_cuda_build)
on_each_device = pytest.mark.parametrize("device", ["meta", fake_cuda])


@pytest.fixture
def fake(device):
    """Make tensors of the device without values."""
    with FakeTensorMode() if device == "cuda" else nullcontext():
        yield partial(torch.empty, device=device)


def make_ensemble(fake, kind=stack_members, n_outputs=3):
    mlp = {"hidden_layer_sizes": (6, 4), "dropout": 0.2, "embedded_features": [0, 2]}
    # Members are drawn on the host, outside of the mode.
    with _disable_current_modes():
        ensemble = kind(partial(MLP, 5, n_outputs, **mlp), 4)
    for part in ensemble.stacked.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            setattr(part, name, torch.nn.Parameter(fake(parameter.shape)))
        for name, buffer in list(part.named_buffers(recurse=False)):
            setattr(part, name, fake(buffer.shape, dtype=buffer.dtype))
    return ensemble


def make_batch(fake, likelihood=CATEGORICAL):
    is_classifier = likelihood.kind == "classifier"
    return fake(8, 5), fake(8, dtype=torch.int64 if is_classifier else torch.float32)


def make_repulsion(fake, space, update="wgd", bandwidth="paper"):
    space = SPACES[space]
    lengthscale = Lengthscale(fake(5, 5), fake(5)) if space.axes_are_inputs else Lengthscale()
    kernel = Kernel(lengthscale, bandwidth, space.unit_sphere)
    return BuiltRepulsion(space, kernel, UPDATES[update], fraction=0.5)


def assert_all_on(device, *tensors):
    assert {tensor.device.type for tensor in tensors} == {device}


def assert_step_stays(device, fake, ensemble, repulsion, likelihood=CATEGORICAL):
    extra = {"extra_inputs": fake(3, 5)} if repulsion.space.depends_on_inputs else {}
    settings = {"repulsion": repulsion, "strength": fake(()), "likelihood": likelihood, **extra}
    optimizer = torch.optim.SGD(ensemble.parameters(), lr=0.1, momentum=0.9)
    average = WeightAverage(ensemble.parameters(), 0.9)
    for _ in range(2):
        with average.training():
            batch = *make_batch(fake, likelihood), fake(8)
            step = particles.accumulate_gradients(ensemble, *batch, **settings)
            optimizer.step()
            average.update()
    assert_all_on(device, *step, *(p.grad for p in ensemble.parameters()))
    assert_all_on(device, *ensemble.parameters(), *average._other)


@on_each_device
@pytest.mark.parametrize(
    ("space", "update", "bandwidth"),
    [
        *(("input_gradient", "wgd", bandwidth) for bandwidth in ("reference", "paper", 0.5)),
        ("input_gradient", "lit", "reference"),
        *(("weight", update, "paper") for update in ("wgd", "svgd")),
    ],
)
def test_a_written_out_step_stays_on_the_device(device, fake, space, update, bandwidth):
    repulsion = make_repulsion(fake, space, update, bandwidth)
    assert_step_stays(device, fake, make_ensemble(fake), repulsion)
    assert_all_on(device, *repulsion.kernel.compare(fake(4, 8, 5)))


@pytest.mark.parametrize("device", ["meta"])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=lambda one: type(one).__name__)
def test_a_step_by_autograd_stays_on_the_device(device, fake, space, likelihood):
    ensemble = make_ensemble(fake, Ensemble, likelihood.n_outputs)
    assert_step_stays(device, fake, ensemble, make_repulsion(fake, space), likelihood)


@on_each_device
@pytest.mark.parametrize("kind", [stack_members, Ensemble])
def test_prediction_stays_on_the_device(device, fake, kind):
    ensemble = make_ensemble(fake, kind).eval()
    with torch.no_grad():
        outputs = ensemble(fake(8, 5))
    assert outputs.shape == (4, 8, 3)
    assert_all_on(device, outputs, CATEGORICAL.guess(outputs))


@pytest.mark.parametrize(
    ("offered", "expected"),
    [("cuda xpu mps", "cuda"), ("xpu mps", "xpu"), ("mps", "mps"), ("", "cpu")],
)
def test_auto_is_the_first_accelerator_that_torch_finds(monkeypatch, offered, expected):
    backends = {"cuda": torch.cuda, "xpu": torch.xpu, "mps": torch.backends.mps}
    for name, backend in backends.items():
        monkeypatch.setattr(backend, "is_available", lambda name=name: name in offered.split())
    # A number can't be made where there is no such device.
    monkeypatch.setattr(torch, "zeros", lambda *shape, device: torch.ones(shape))
    assert available_device("auto") == torch.device(expected)


READS = ("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "cpu")


@pytest.mark.parametrize("noise", [None, "heteroscedastic", "quantile"])
@pytest.mark.parametrize("repulsion", ["input_gradient", "function", "none"])
@pytest.mark.parametrize("n_members", [3, 5])  # Five leave folds out.
def test_default_steps_read_nothing(binary, monkeypatch, noise, repulsion, n_members):
    """Their figures are read once an epoch."""
    settings = {"repulsion": repulsion, "max_epochs": 2, "hidden_layer_sizes": (8,)}
    # AdamW's kernels for a CPU read the number of steps, which they keep there.
    settings |= {"optimizer": torch.optim.SGD, "lr": 0.01}
    kind = FoRDEClassifier if noise is None else partial(FoRDERegressor, noise=noise)
    train_step, n_steps = ParticleNet.train_step, []

    def refuse(*arguments):
        raise AssertionError("The host reads a tensor.")

    def watched(net, batch, **fit_params):
        n_steps.append(net.n_steps)
        with monkeypatch.context() as patch:
            for name in READS:
                patch.setattr(torch.Tensor, name, refuse)
            return train_step(net, batch, **fit_params)

    monkeypatch.setattr(ParticleNet, "train_step", watched)
    model = kind(n_members, random_state=0, **settings).fit(*binary)
    assert n_steps == list(range(model.net_.n_steps))
    assert len(n_steps) >= 10
