"""Small ensembles and batches, and computations by definition that tests compare with."""

import torch
from torch import nn

from sklearn_fordes.networks import MLP
from sklearn_fordes.particles import GRADIENT_TARGETS, Ensemble


def random_tensor(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make_ensemble(kind=Ensemble, n_members=4, n_features=5, n_outputs=3, **mlp):
    settings = {"hidden_layer_sizes": (6, 4), **mlp}
    return kind(lambda: MLP(n_features, n_outputs, **settings), n_members, seed=3).double()


def make_batch(n_rows=8, n_features=5, n_classes=3):
    classes = torch.randint(n_classes, (n_rows,), generator=torch.Generator().manual_seed(1))
    return random_tensor(n_rows, n_features), classes


def gradients_of(ensemble):
    return [parameter.grad.clone() for parameter in ensemble.parameters()]


def kernel_by_hand(points, bandwidth):
    """k(i, j) = mean_b exp(−d²/h) with the second argument held constant, (M, M)."""
    sq_dist = (points.unsqueeze(1) - points.detach().unsqueeze(0)).square().sum(-1)  # (M, M, B)
    return torch.exp(-sq_dist / bandwidth).mean(-1)


def input_gradients_by_autograd(ensemble, X, target):
    """Differentiate a function of outputs (M, B, C) → (M, B) with respect to the inputs."""
    points = X.expand(ensemble.n_members, *X.shape).clone().requires_grad_()
    values = target(ensemble(points, shared=False))
    return torch.autograd.grad(values.sum(), points, create_graph=True)[0]


def representation_by_hand(ensemble, space, X, y=None, target="log_odds"):
    """What members of `make_ensemble` are compared by, part of an autograd graph."""
    if space == "input_gradient":
        value = GRADIENT_TARGETS[target].value
        return input_gradients_by_autograd(ensemble, X, lambda logits: value(logits, y))
    parameters = list(ensemble.parameters())
    if space == "weight":
        return torch.cat([p.flatten(1) for p in parameters], dim=1).unsqueeze(1)
    if space == "function":
        return ensemble(X).softmax(-1).flatten(1).unsqueeze(1)
    h = X.expand(len(parameters[0]), *X.shape)
    for weight, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
        h = nn.functional.silu(h @ weight.mT + bias.unsqueeze(1))
    return h


def case_of(reference, case):
    """Return the reference values of a case by name."""
    prefix = f"{case}/"
    return {k.removeprefix(prefix): v for k, v in reference.items() if k.startswith(prefix)}
