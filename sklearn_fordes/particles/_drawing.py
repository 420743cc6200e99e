"""How the members of an ensemble are drawn, each by a seed of its own."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from sklearn_fordes.particles._random import seeded_generators

MemberFactory = Callable[..., nn.Module]


def derived_seed(*entropy: int) -> int:
    """Return a seed that depends on every number given and on nothing else.

    Parameters
    ----------
    *entropy : int
        Non-negative.

    Returns
    -------
    int
        Below 2**63.
    """
    (state,) = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    return int(state) >> 1


def accepts_generator(make: Callable[..., object]) -> bool:
    """Return whether a function has an argument ``generator`` for its random draws.

    Parameters
    ----------
    make : callable

    Returns
    -------
    bool
        False for a callable without a signature, too.
    """
    try:
        return "generator" in inspect.signature(make).parameters
    except (TypeError, ValueError):  # A callable written in C.
        return False


def expect_trainable(parameters: dict[str, Tensor]) -> None:
    """Refuse members that have nothing to train, or would start alike.

    Raises
    ------
    ValueError
    """
    trainable = [p for p in parameters.values() if p.requires_grad]
    if not trainable:
        raise ValueError("Got a module without parameters, but expected some to train.")
    if len(trainable[0]) > 1 and all(torch.equal(p, p[:1].expand_as(p)) for p in trainable):
        raise ValueError(
            "Got a module whose initial weights are the same for each member, so that the "
            "members would stay alike, but expected random ones. Does it return the same "
            "instance each time, or seed the generator itself?"
        )


def draw_member(make_member: MemberFactory, seed: int) -> nn.Module:
    """Make a member whose initial weights depend on the seed alone.

    Raises
    ------
    TypeError
        If it is no module.
    """
    # On the CPU, whatever torch's default device: a seed gives the same weights on each.
    if accepts_generator(make_member):
        member = make_member(generator=torch.Generator("cpu").manual_seed(seed))
    else:
        with seeded_generators(seed):
            member = make_member()
    if not isinstance(member, nn.Module):
        raise TypeError(
            f"Got a {type(member).__name__} from the module factory, but expected a "
            "torch.nn.Module."
        )
    return member


def share_masks(member: nn.Module, buffers: dict[str, Tensor]) -> None:
    """Let parts that have a method for it share out one sequence of masks among the members."""
    for name, part in member.named_modules():
        draws = buffers.get(f"{name}.draws".lstrip("."))
        if draws is not None and hasattr(part, "share_draws"):
            part.share_draws(draws)


def has_matrix(layer: nn.Module) -> bool:
    """Whether a layer holds a weight matrix, or its parametrization (a weight norm, say)."""
    return any(p.ndim > 1 for p in layer.parameters(recurse=is_parametrized(layer)))


def reset_copy(module: nn.Module) -> nn.Module:
    """Copy `module` with the weights of its layers drawn anew."""
    module = copy.deepcopy(module)
    for name, layer in module.named_modules():
        reset = getattr(layer, "reset_parameters", getattr(layer, "_reset_parameters", None))
        if reset is not None:
            reset()
        elif has_matrix(layer):
            raise ValueError(
                f"Got a module instance whose part {name or 'itself'!r} "
                f"({type(layer).__name__}) holds weights but has no reset_parameters(), so that "
                "the members would start alike. Pass the class (or a function that returns a new "
                "instance), or give that part a reset_parameters method."
            )
    return module
