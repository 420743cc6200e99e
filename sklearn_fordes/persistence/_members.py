"""Members of a file, on an architecture that is made of parameters."""

from __future__ import annotations

from typing import Any

from sklearn_fordes import networks, particles
from sklearn_fordes.persistence._checks import limited_size


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
        If the weights are not those of the architecture.
    """
    tensors = {**state["parameters"], **state["buffers"]}
    with limited_size(sum(array.size for array in tensors.values())):
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
            names = sorted({name for name, _ in set(shapes.items()) ^ set(given.items())})
            raise ValueError(f"{part} {names} are not of the shape and type of the module's")
    is_known = set(state["trainable"]) <= set(state["parameters"])
    if state.keys() | {"make_member"} != expected.keys() or not is_known or state["training"]:
        raise ValueError("its members are not in the state that fit leaves")
    members: particles.Ensemble = object.__new__(type(example))
    members.__setstate__({**state, "make_member": expected["make_member"]})
    return members
