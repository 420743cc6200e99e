"""M members of any torch module as stacked parameters, evaluated in one batched call."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from sklearn_fordes.particles._random import derived_seed, seeded_generators

MemberFactory = Callable[[], nn.Module]


class Ensemble(nn.Module):
    """M networks of one architecture, with parameters stacked along a leading axis.

    Parameters
    ----------
    make_member : callable or nn.Module
        Called without arguments, returns one freshly initialised member. An instance is taken as
        the architecture only: each member is a copy whose layers are reset.
    n_members : int
        M.
    seed : int, default=0
        Member i's initial weights depend on `seed` and i alone.

    Attributes
    ----------
    stacked : nn.Module
        A tree of the members' parameters and buffers, named as in the member, each of shape
        ``(M, *shape in the member)``. It holds tensors only and can't be called.
    n_members : int

    Raises
    ------
    TypeError
        If `make_member` returns something other than a module.
    ValueError
        If the module has no parameters, or an instance holds weights that can't be drawn anew for
        each member.

    Notes
    -----
    Dropout draws another mask for each member; batch normalisation keeps statistics of each
    member's own. Buffers must be updated in place, as torch's own layers do.

    Examples
    --------
    >>> import torch
    >>> ensemble = Ensemble(lambda: torch.nn.Linear(4, 3), n_members=5)
    >>> ensemble(torch.ones(8, 4)).shape
    torch.Size([5, 8, 3])
    >>> ensemble.stacked.weight.shape
    torch.Size([5, 3, 4])
    """

    _template: nn.Module

    def __init__(
        self, make_member: MemberFactory | nn.Module, n_members: int, seed: int = 0
    ) -> None:
        super().__init__()
        members = [_draw_member(make_member, derived_seed(seed, i)) for i in range(n_members)]
        if not any(True for _ in members[0].parameters()):
            raise ValueError("Got a module without parameters, but expected some to train.")
        self.n_members = n_members
        self.stacked = _stack(members)
        # Kept out of the registered modules: its own weights are never used.
        self.__dict__["_template"] = members[0]

    def forward(self, X: Tensor, *, shared: bool = True) -> Tensor:
        """Evaluate every member.

        Parameters
        ----------
        X : Tensor of shape (B, ...), or (M, B, ...) if not `shared`
            The same rows for all members, or rows of each member's own.
        shared : bool, default=True

        Returns
        -------
        Tensor of shape (M, B, ...)
        """
        batched_call = torch.vmap(
            self._call_member, in_dims=(0, 0, None if shared else 0), randomness="different"
        )
        parameters: dict[str, Tensor] = dict(self.stacked.named_parameters())
        buffers = dict(self.stacked.named_buffers())
        output: Tensor = batched_call(parameters, buffers, X)
        return output

    def _call_member(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], X: Tensor
    ) -> Tensor:
        output: Tensor = functional_call(self._template, (parameters, buffers), (X,))
        return output

    def train(self, mode: bool = True) -> Ensemble:
        """Set training mode, in the template too (see `torch.nn.Module.train`)."""
        super().train(mode)
        self._template.train(mode)
        return self

    @property
    def couples_rows(self) -> bool:
        """Whether a row's output depends on the other rows of its batch."""
        return self.training and any(isinstance(m, _BatchNorm) for m in self._template.modules())

    @property
    def dtype(self) -> torch.dtype:
        """The type of the parameters, which inputs must have."""
        return next(self.stacked.parameters()).dtype

    @torch.no_grad()
    def member(self, index: int) -> nn.Module:
        """Return member `index` as a module of its own, with a copy of its weights."""
        module = copy.deepcopy(self._template)
        stacked = {**dict(self.stacked.named_parameters()), **dict(self.stacked.named_buffers())}
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            tensor.data = stacked[name][index].clone()
        return module


def _draw_member(make_member: MemberFactory | nn.Module, seed: int) -> nn.Module:
    with seeded_generators(seed):
        if isinstance(make_member, nn.Module):
            return _reset_copy(make_member)
        member = make_member()
    if not isinstance(member, nn.Module):
        raise TypeError(
            f"Got a {type(member).__name__} from the module factory, but expected a "
            "torch.nn.Module."
        )
    return member


def _reset_copy(module: nn.Module) -> nn.Module:
    """Copy `module` with the weights of its layers drawn anew."""
    module = copy.deepcopy(module)
    for name, layer in module.named_modules():
        reset = getattr(layer, "reset_parameters", getattr(layer, "_reset_parameters", None))
        if reset is not None:
            reset()
        elif any(parameter.ndim > 1 for parameter in layer.parameters(recurse=False)):
            raise ValueError(
                f"Got a module instance whose part {name or 'itself'!r} "
                f"({type(layer).__name__}) holds weights but has no reset_parameters(), so that "
                "the members would start alike. Pass the class (or a function that returns a new "
                "instance), or give that part a reset_parameters method."
            )
    return module


def _stack(members: list[nn.Module]) -> nn.Module:
    tree = nn.Module()
    parameters = [dict(member.named_parameters()) for member in members]
    for name, first in parameters[0].items():
        stacked = torch.stack([tensors[name].detach() for tensors in parameters])
        parent, leaf = _branch(tree, name)
        parent.register_parameter(leaf, nn.Parameter(stacked, requires_grad=first.requires_grad))
    buffers = [dict(member.named_buffers()) for member in members]
    for name in buffers[0]:
        parent, leaf = _branch(tree, name)
        parent.register_buffer(leaf, torch.stack([tensors[name] for tensors in buffers]))
    return tree


def _branch(tree: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Return the module of `tree` that holds the tensor called `name`, and its last name."""
    *path, leaf = name.split(".")
    for child in path:
        if child not in tree._modules:
            tree.add_module(child, nn.Module())
        tree = tree.get_submodule(child)
    return tree, leaf
