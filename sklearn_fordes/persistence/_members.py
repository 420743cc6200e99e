"""Members of a file, on an architecture that is made of parameters."""

from __future__ import annotations

from typing import Any

import numpy as np

from sklearn_fordes import networks, particles


def members_from(make_member: Any, state: dict[str, Any]) -> particles.Ensemble:
    """Give members of an architecture the weights of a file.

    Parameters
    ----------
    make_member : callable or nn.Module
        As in `sklearn_fordes.particles.Ensemble`.
    state : dict
        That of the ensemble's pickle, without ``make_member``.

    Returns
    -------
    Ensemble
        On the CPU, of the engine that the members' type has chosen.

    Raises
    ------
    ValueError
        If the weights are not those of the architecture, or the default network can't predict
        with them.
    """
    tensors, settings = {**state["parameters"], **state["buffers"]}, _settings_of_mlp(make_member)
    if settings:
        _expect_no_more_weights(settings, sum(array.size for array in tensors.values()))
    example = networks.stack_members(make_member, 1)
    expected = example.__getstate__()
    n_members = {len(array) for array in tensors.values()}
    if len(n_members) != 1 or 0 in n_members:
        raise ValueError(f"its weights are of {sorted(n_members)} members")
    for part in ("parameters", "buffers"):
        shapes, given = (
            {name: (array.shape[1:], array.dtype) for name, array in arrays[part].items()}
            for arrays in (expected, state)
        )
        if shapes != given:
            both = shapes.keys() & given
            differing = {
                "in the module alone": shapes.keys() - given,
                "in the file alone": given.keys() - shapes,
                "of another shape or type": {name for name in both if shapes[name] != given[name]},
            }
            how = "; ".join(f"{what} {sorted(names)}" for what, names in differing.items() if names)
            raise ValueError(f"{part} are not of the shape and type of the module's: {how}")
    is_known = set(state["trainable"]) <= set(state["parameters"])
    if state.keys() | {"make_member"} != expected.keys() or not is_known or state["training"]:
        raise ValueError("its members are not in the state that fit leaves")
    if settings:
        _expect_values_of_mlp(settings, state)
    members: particles.Ensemble = object.__new__(type(example))
    ordered = {
        part: {name: state[part][name] for name in expected[part]}  # An engine relies on the order.
        for part in ("parameters", "buffers")
    }
    members.__setstate__({**state, **ordered, "make_member": expected["make_member"]})
    return members


def _settings_of_mlp(make_member: Any) -> dict[str, Any]:
    """Return the arguments of the default network, and nothing of another one."""
    # A noise level of the regressor stands around the network.
    makers = (make_member, *getattr(make_member, "args", ()))
    default = (maker for maker in makers if getattr(maker, "func", None) is networks.MLP)
    return next((maker.keywords for maker in default), {})


def _expect_no_more_weights(settings: dict[str, Any], n_numbers: int) -> None:
    """Refuse a network larger than the file before any of it is made."""
    n_weights = networks.MLP.count_weights(**settings)
    if n_weights > n_numbers:
        raise ValueError(
            f"its settings make a network of {n_weights} weights, more than the {n_numbers} "
            "numbers of members in the file"
        )


def _expect_values_of_mlp(settings: dict[str, Any], state: dict[str, Any]) -> None:
    """Refuse weights, and columns that are embedded, with which nothing can be predicted."""
    wrong = [name for name, array in state["parameters"].items() if not np.isfinite(array).all()]
    for name, columns in state["buffers"].items():
        if name.endswith("features") and (columns != list(settings["embedded_features"])).any():
            wrong.append(name)
    if wrong:
        raise ValueError(f"its {wrong} are not finite, or not the columns of its settings")
