"""M members of any torch module as stacked parameters: one batched call, trained by autograd."""

from __future__ import annotations

import copy
import inspect
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from threading import local
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import is_parametrized

from sklearn_fordes.particles._arrays import to_arrays, to_tensors
from sklearn_fordes.particles._evaluation import (
    Evaluation,
    Gradients,
    OutputDerivatives,
    OutputFunction,
)
from sklearn_fordes.particles._random import GLOBAL_STATE, seeded_generators

MemberFactory = Callable[..., nn.Module]
# Activations of the widest layer over rows and members: a layer of 4 MB stays in a CPU's cache.
ACTIVATIONS_AT_ONCE = defaultdict(lambda: 1 << 20, cuda=1 << 27)


class Ensemble(nn.Module):
    """M networks of one architecture, with parameters stacked along a leading axis.

    Parameters
    ----------
    make_member : callable or nn.Module
        Returns one freshly initialised member. It is called with a `torch.Generator` if it has an
        argument ``generator``, and without arguments otherwise, while torch's and numpy's global
        generators are seeded. Of an instance only the architecture counts: each member is a copy
        whose layers are reset.
    n_members : int
        M.
    seed : int, default=0
        Member i's initial weights depend only on `seed` and i.

    Attributes
    ----------
    stacked : nn.Module
        A tree of the members' parameters and buffers, named as in the member, each of shape
        ``(M, *shape in the member)``. It holds tensors only and can't be called.
    n_members : int
    draws_globally : bool
        Whether members may draw from the global generators, because they take no `generator`.

    Raises
    ------
    TypeError
        If `make_member` returns something other than a module.
    ValueError
        If the module has no parameters to train, or the members would start alike.

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

    _make_member: MemberFactory | nn.Module
    _templates: local  # One for each thread: a functional call writes into the module.

    def __init__(
        self, make_member: MemberFactory | nn.Module, n_members: int, seed: int = 0
    ) -> None:
        super().__init__()
        if n_members < 1:
            raise ValueError(f"Got n_members={n_members}, but expected an integer >= 1.")
        if isinstance(make_member, nn.Module):
            make_member = copy.deepcopy(make_member)  # Its user may change it later.
        members = [_draw_member(make_member, derived_seed(seed, i)) for i in range(n_members)]
        self._assemble(make_member, n_members, _stack(members))
        self._check_trainable()
        self._templates.module = members[0]

    def _assemble(
        self, make_member: MemberFactory | nn.Module, n_members: int, stacked: nn.Module
    ) -> None:
        self.n_members = n_members
        self.stacked = stacked
        # Not registered as modules, because their weights are never used.
        self.__dict__["_make_member"] = make_member
        self.draws_globally = not accepts_generator(make_member)
        self.__dict__["_templates"] = local()

    def _check_trainable(self) -> None:
        trainable = [p for p in self.stacked.parameters() if p.requires_grad]
        if not trainable:
            raise ValueError("Got a module without parameters, but expected some to train.")
        if self.n_members > 1 and all(torch.equal(p, p[:1].expand_as(p)) for p in trainable):
            raise ValueError(
                "Got a module whose initial weights are the same for each member, so that the "
                "members would stay alike, but expected random ones. Does it return the same "
                "instance each time, or seed the generator itself?"
            )

    @property
    def _template(self) -> nn.Module:
        """A member of this thread, whose weights are replaced in each call."""
        template: nn.Module | None = getattr(self._templates, "module", None)
        if template is None:
            template = self._templates.module = _draw_member(self._make_member, 0)
        if template.training != self.training:
            template.train(self.training)
        return template

    def __getstate__(self) -> dict[str, Any]:
        parameters = dict(self.stacked.named_parameters())
        return {
            "make_member": self._make_member,
            "n_members": self.n_members,
            "training": self.training,
            "trainable": {name: p.requires_grad for name, p in parameters.items()},
            "parameters": to_arrays(parameters),
            "buffers": to_arrays(dict(self.stacked.named_buffers())),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        nn.Module.__init__(self)
        trainable = state["trainable"]
        with torch.inference_mode(False), torch.no_grad():
            parameters = to_tensors(state["parameters"])
            stacked = _tree(
                {name: (values, trainable[name]) for name, values in parameters.items()},
                to_tensors(state["buffers"]),
            )
        self._assemble(state["make_member"], state["n_members"], stacked)
        self.train(state["training"])

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
        call = partial(_call_member, self._template)
        output: Tensor = self._over_members(call, X, 0 if not shared else None)
        return output

    def _over_members(self, call: Callable[..., Any], X: Tensor, axis_of_X: int | None) -> Any:
        """Call a function of parameters, buffers and rows for all members at once."""
        tensors = dict(self.stacked.named_parameters()), dict(self.stacked.named_buffers())
        return torch.vmap(call, in_dims=(0, 0, axis_of_X), randomness="different")(*tensors, X)

    def evaluate(
        self,
        X: Tensor,
        n_rows: int = 0,
        target: OutputFunction | None = None,
        derivatives: OutputDerivatives | None = None,
    ) -> Evaluation:
        """Evaluate every member for training, with input gradients at the first rows.

        Parameters
        ----------
        X : Tensor of shape (B, ...)
            K features when flattened.
        n_rows : int, default=0
            How many rows gradients are taken at. None are if it is zero.
        target : callable
            Maps outputs ``(M, n_rows, C)`` to what is differentiated, ``(M, n_rows)``.
        derivatives : callable, optional
            The target's derivatives with respect to outputs, where they are known (see
            `autograd_derivatives`).

        Returns
        -------
        Evaluation
            With the input gradients ``(M, n_rows, K)`` as representation, if any are taken.
        """
        if not n_rows or target is None:
            return autograd_evaluation(self, self(X))
        # Only the rows compared need the more expensive graph of second derivatives, unless the
        # forward pass itself mixes rows.
        together = X if self.couples_rows else X[:n_rows]
        points = together.expand(self.n_members, *together.shape).detach().requires_grad_()
        # The fused kernels of attention have no second derivative. Which kernels may be used is a
        # setting of the process.
        with GLOBAL_STATE, sdpa_kernel(SDPBackend.MATH):
            outputs = self(points, shared=False)
        targets = target(outputs[:, :n_rows])
        (gradients,) = torch.autograd.grad(targets.sum(), points, create_graph=True)
        if len(together) < len(X):
            outputs = torch.cat([outputs, self(X[n_rows:])], dim=1)
        return autograd_evaluation(self, outputs, gradients[:, :n_rows].flatten(2))

    def outputs_and_features(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate every member, and note the input of its last layer with a weight matrix.

        Parameters
        ----------
        X : Tensor of shape (B, ...)

        Returns
        -------
        outputs : Tensor of shape (M, B, C)
        features : Tensor of shape (M, B, ...)

        Raises
        ------
        ValueError
            If the module has no such layer, or calls none.
        """
        call = partial(_call_noting_features, self._template)
        outputs, features = self._over_members(call, X, None)
        return outputs, features

    @property
    def couples_rows(self) -> bool:
        """Whether a row's output depends on the other rows of its batch.

        It does in the training of batch normalisation, and where a part of the member has an
        attribute ``couples_rows`` that is true.
        """
        return any(
            (self.training and isinstance(part, _BatchNorm)) or getattr(part, "couples_rows", False)
            for part in self._template.modules()
        )

    @property
    def dtype(self) -> torch.dtype:
        """The type of the parameters, which inputs must have."""
        return next(self.stacked.parameters()).dtype

    def rows_at_a_time(self) -> int:
        """Return the number of rows whose widest layer has `ACTIVATIONS_AT_ONCE` in all members.

        A layer stays in the processor's cache until the next one reads it. At most 1024: weights do
        not tell how large the maps of a convolution are.
        """
        widths = (p.shape[1] for p in self.stacked.parameters() if p.ndim > 2)
        device = next(self.stacked.parameters()).device.type
        n_activations = ACTIVATIONS_AT_ONCE[device]
        return min(max(1, n_activations // (self.n_members * max(widths, default=1))), 1024)

    def select(self, members: Sequence[int]) -> Ensemble:
        """Return an ensemble of some of the members, with copies of their weights.

        Parameters
        ----------
        members : sequence of int
            Their indices.

        Returns
        -------
        Ensemble
            Of the same class.
        """
        index = list(members)
        selected = type(self).__new__(type(self))
        nn.Module.__init__(selected)
        with torch.inference_mode(False), torch.no_grad():
            parameters = {
                name: (parameter.detach()[index].clone(), parameter.requires_grad)
                for name, parameter in self.stacked.named_parameters()
            }
            buffers = {name: b[index].clone() for name, b in self.stacked.named_buffers()}
            selected._assemble(self._make_member, len(index), _tree(parameters, buffers))
        return selected.train(self.training)

    @torch.no_grad()
    def member(self, index: int) -> nn.Module:
        """Return member `index` as a module of its own, with a copy of its weights."""
        module = copy.deepcopy(self._template)
        stacked = {**dict(self.stacked.named_parameters()), **dict(self.stacked.named_buffers())}
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            tensor.data = stacked[name][index].clone()
        return module


def autograd_evaluation(
    ensemble: Ensemble, outputs: Tensor, representation: Tensor | None = None
) -> Evaluation:
    """Make an evaluation of tensors that autograd has followed, with one joint backward pass.

    Parameters
    ----------
    ensemble : Ensemble
        The ensemble whose parameters get gradients.
    outputs : Tensor of shape (M, B, C)
        Part of the autograd graph.
    representation : Tensor of shape (M, n_rows, K), optional
        Part of the autograd graph.

    Returns
    -------
    Evaluation
        The same tensors, detached.
    """
    followed = [tensor for tensor in (outputs, representation) if tensor is not None]
    trainable = [p for p in ensemble.stacked.parameters() if p.requires_grad]

    def pullback(*cotangents: Tensor) -> Gradients:
        found = iter(torch.autograd.grad(followed, trainable, cotangents, allow_unused=True))
        return [next(found) if p.requires_grad else None for p in ensemble.stacked.parameters()]

    detached = None if representation is None else representation.detach()
    return Evaluation(outputs.detach(), detached, pullback)


def _call_member(
    member: nn.Module, parameters: dict[str, Tensor], buffers: dict[str, Tensor], X: Tensor
) -> Tensor:
    output = functional_call(member, (parameters, buffers), (X,))
    if not isinstance(output, Tensor):
        raise TypeError(
            f"Got a {type(output).__name__} as output of the module, but expected a tensor of "
            "logits."
        )
    return output


def _call_noting_features(
    member: nn.Module, parameters: dict[str, Tensor], buffers: dict[str, Tensor], X: Tensor
) -> tuple[Tensor, Tensor]:
    entering: list[Tensor] = []

    def note(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        value = next(iter([*inputs, *named.values()]), None)
        if isinstance(value, Tensor) and value.is_floating_point():  # Indices are no features.
            entering.append(value)

    layers = _layers_with_matrices(member)
    hooks = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    try:
        output = _call_member(member, parameters, buffers, X)
    finally:
        for hook in hooks:
            hook.remove()
    if not entering:
        raise ValueError(
            "Got a module that calls no layer with a weight matrix, but expected one whose inputs "
            "are the features to compare (such as a torch.nn.Linear at the end)."
        )
    return output, entering[-1]


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
    state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


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
        parameter = inspect.signature(make).parameters.get("generator")
    except (TypeError, ValueError):  # An instance of a module, or a callable written in C.
        return False
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return parameter is not None and parameter.kind in named


def _draw_member(make_member: MemberFactory | nn.Module, seed: int) -> nn.Module:
    if isinstance(make_member, nn.Module):
        make_member = partial(_reset_copy, make_member)
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


def _layers_with_matrices(module: nn.Module) -> list[nn.Module]:
    """Layers that hold a weight matrix themselves, or its parametrization (a weight norm, say)."""
    layers = []
    for name, layer in module.named_modules():
        if "parametrizations" in name.split("."):
            continue
        own = list(layer.parameters(recurse=False))
        if is_parametrized(layer):
            own += layer.get_submodule("parametrizations").parameters()
        if any(parameter.ndim > 1 for parameter in own):
            layers.append(layer)
    return layers


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
    parameters = [dict(member.named_parameters()) for member in members]
    buffers = [dict(member.named_buffers()) for member in members]
    return _tree(
        {
            name: (torch.stack([p[name].detach() for p in parameters]), first.requires_grad)
            for name, first in parameters[0].items()
        },
        {name: torch.stack([b[name] for b in buffers]) for name in buffers[0]},
    )


def _tree(parameters: dict[str, tuple[Tensor, bool]], buffers: dict[str, Tensor]) -> nn.Module:
    """Make a module that holds parameters (and whether they are trained) and buffers by name."""
    tree = nn.Module()
    for name, (tensor, requires_grad) in parameters.items():
        parent, leaf = _branch(tree, name)
        parent.register_parameter(leaf, nn.Parameter(tensor, requires_grad=requires_grad))
    for name, tensor in buffers.items():
        parent, leaf = _branch(tree, name)
        parent.register_buffer(leaf, tensor)
    return tree


def _branch(tree: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Return the module of `tree` that holds the tensor called `name`, and its last name."""
    *path, leaf = name.split(".")
    for child in path:
        if child not in tree._modules:
            tree.add_module(child, nn.Module())
        tree = tree.get_submodule(child)
    return tree, leaf
