"""Small ensembles and batches, and computations by definition that tests compare with."""

import math

import numpy as np
import torch

from sklearn_fordes.networks import MLP
from sklearn_fordes.particles import Ensemble


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


def flat_parameters(ensemble):
    return torch.cat([p.flatten(1) for p in ensemble.parameters()], dim=1).unsqueeze(1)


def kernel_by_hand(points, fixed, bandwidths):
    """k(i, j) = mean_b exp(−d²/h) with the second argument and h held constant, (M, M)."""
    sq_dist = (points.unsqueeze(1) - fixed.detach().unsqueeze(0)).square().sum(-1)  # (M, M, B)
    return torch.exp(-sq_dist / bandwidths).mean(-1)


def paper_bandwidths(points):
    sq_dist = (points.unsqueeze(1) - points.unsqueeze(0)).square().sum(-1).detach().numpy()
    medians = np.median(sq_dist.reshape(-1, sq_dist.shape[-1]), axis=0)
    return torch.tensor(medians / math.log(len(points)) + 1e-12)


def input_gradients_by_autograd(ensemble, X, target):
    """Differentiate a function of outputs (M, B, C) → (M, B) with respect to the inputs."""
    points = X.expand(ensemble.n_members, *X.shape).clone().requires_grad_()
    values = target(ensemble(points, shared=False))
    return torch.autograd.grad(values.sum(), points, create_graph=True)[0]
