"""The reference algorithm in JAX, written independently of ours: one jitted step of M stacked MLPs.

As in the paper: the true class's logit is differentiated, members are compared at every row, and
one joint vector-Jacobian product gives both terms; autodiff finds the kernel's gradient. Members
are either batched (``jax.vmap``) or gone through in a compiled loop (``jax.lax.map``), which
evaluates them twice and may yet be faster on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

Layers = list[tuple[jax.Array, jax.Array]]


def network(layers: Layers, x: jax.Array) -> jax.Array:
    *hidden, (last_weight, last_bias) = layers
    for weight, bias in hidden:
        x = jax.nn.silu(x @ weight + bias)
    return x @ last_weight + last_bias


def logits_and_gradients(layers: Layers, X: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return a member's logits (B, C) and input gradients of the true class's logit (B, D)."""
    true_class = jax.nn.one_hot(y, layers[-1][1].shape[-1])

    def true_logits(X: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = network(layers, X)
        return (logits * true_class).sum(), logits

    gradients, logits = jax.grad(true_logits, has_aux=True)(X)
    return logits, gradients


def cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    log_prob = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_prob, y[None, :, None], -1).mean((1, 2)).sum()


def log_density(gradients: jax.Array) -> jax.Array:
    """Σ_i log Σ_j k(i, stopgrad j), with the median bandwidth held constant."""
    u = gradients * jax.lax.rsqrt((gradients**2).sum(-1, keepdims=True) + 1e-24)
    rows_first = u.swapaxes(0, 1)
    others = jax.lax.stop_gradient(rows_first)
    sq_dist = ((rows_first[:, :, None] - others[:, None]) ** 2).sum(-1)  # (B, M, M)
    bandwidth = jnp.median(sq_dist, axis=1, keepdims=True) / np.log(len(u)) + 1e-12
    kernel = jnp.exp(-sq_dist / jax.lax.stop_gradient(bandwidth)).mean(0)
    return jnp.log(kernel.sum(1)).sum()


def gradients_of_step(
    params: Layers, X: jax.Array, y: jax.Array, *, repels: bool, loops: bool
) -> Layers:
    if not repels:

        def loss(layers: Layers) -> jax.Array:
            return cross_entropy(network(layers, X)[None], y)

        gradient = jax.grad(loss)
        return jax.lax.map(gradient, params) if loops else jax.vmap(gradient)(params)

    def evaluate(layers: Layers) -> tuple[jax.Array, jax.Array]:
        return logits_and_gradients(layers, X, y)

    if loops:
        logits, gradients = jax.lax.map(evaluate, params)
    else:
        (logits, gradients), pullback = jax.vjp(jax.vmap(evaluate), params)
    cotangents = jax.grad(cross_entropy)(logits, y), jax.grad(log_density)(gradients) / len(y)
    if not loops:
        return pullback(cotangents)[0]
    return jax.lax.map(lambda both: jax.vjp(evaluate, both[0])[1](both[1])[0], (params, cotangents))


def adamw(gradient: jax.Array, value: jax.Array, m: jax.Array, v: jax.Array, step: Any) -> Any:
    m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
    update = (m / (1 - 0.9**step)) / (jnp.sqrt(v / (1 - 0.999**step)) + 1e-8)
    return value - 1e-3 * (update + 0.01 * value), m, v


@partial(jax.jit, static_argnames=("repels", "loops"), donate_argnums=0)
def step(state: Any, X: jax.Array, y: jax.Array, *, repels: bool, loops: bool) -> Any:
    params, m, v, n = state
    gradients = gradients_of_step(params, X, y, repels=repels, loops=loops)
    moved = jax.tree.map(lambda *leaves: adamw(*leaves, n), gradients, params, m, v)
    is_leaf = lambda node: isinstance(node, tuple) and not isinstance(node[0], tuple)  # noqa: E731
    params, m, v = (
        jax.tree.map(lambda leaf, i=i: leaf[i], moved, is_leaf=is_leaf) for i in range(3)
    )
    return params, m, v, n + 1


def make_steps(
    sizes: list[int],
    n_members: int,
    X: NDArray[Any],
    y: NDArray[Any],
    *,
    repels: bool,
    loops: bool,
) -> Callable[[int], None]:
    """Return a function that makes some number of steps and waits for them."""
    rng = np.random.default_rng(0)
    params = [
        (
            jnp.asarray(rng.normal(0, n_in**-0.5, (n_members, n_in, n_out)), dtype=jnp.float32),
            jnp.zeros((n_members, n_out), dtype=jnp.float32),
        )
        for n_in, n_out in pairwise(sizes)
    ]
    zeros = jax.tree.map(jnp.zeros_like, params)
    state = [(params, zeros, jax.tree.map(jnp.zeros_like, params), jnp.float32(1))]
    X_device, y_device = jnp.asarray(X), jnp.asarray(y)

    def run(n_steps: int) -> None:
        for _ in range(n_steps):
            state[0] = step(state[0], X_device, y_device, repels=repels, loops=loops)
        jax.block_until_ready(state[0])

    return run
