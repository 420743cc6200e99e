"""M members of any torch module as stacked parameters: one batched call, trained by autograd."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from operator import attrgetter
from threading import local
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from sklearn_fordes.particles._arrays import to_arrays, to_tensors
from sklearn_fordes.particles._drawing import (
    MemberFactory,
    accepts_generator,
    derived_seed,
    draw_member,
    expect_trainable,
    has_matrix,
    reset_copy,
    share_masks,
)
from sklearn_fordes.particles._evaluation import (
    Evaluation,
    Gradients,
    OutputDerivatives,
    OutputFunction,
)
from sklearn_fordes.particles._random import GLOBAL_STATE
from sklearn_fordes.particles._rows import filled_up, n_missing

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
    row_multiple : int, default=1
        Prediction evaluates multiples of so many rows, where this makes a row's output independent
        of how many others there are.
    mask_sequence : int, default=0
        Which of several independent sequences of masks `networks.Dropout` draws, where processes
        that hold the same members share rows.
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
    An ensemble starts in training mode, as all of torch's modules do: call ``eval()`` before you
    predict. Dropout draws another mask for each member; batch normalisation keeps statistics of
    each member's own. Buffers must be updated in place, as torch's own layers do.

    Examples
    --------
    >>> import torch
    >>> ensemble = Ensemble(lambda: torch.nn.Linear(4, 3), n_members=5)
    >>> ensemble(torch.ones(8, 4)).shape
    torch.Size([5, 8, 3])
    >>> ensemble.stacked.weight.shape
    torch.Size([5, 3, 4])
    """

    row_multiple = 1
    mask_sequence = 0

    def __init__(
        self, make_member: MemberFactory | nn.Module, n_members: int, seed: int = 0
    ) -> None:
        if n_members < 1:
            raise ValueError(f"Got n_members={n_members}, but expected an integer >= 1.")
        if isinstance(make_member, nn.Module):
            # Its user may change it later.
            make_member = partial(reset_copy, copy.deepcopy(make_member))
        members = [draw_member(make_member, derived_seed(seed, i)) for i in range(n_members)]
        parameters, buffers = stack_module_state(members)
        share_masks(members[0], buffers)
        expect_trainable(parameters)
        self._assemble(make_member, parameters, buffers)

    def _assemble(
        self, make_member: MemberFactory, parameters: dict[str, Tensor], buffers: dict[str, Tensor]
    ) -> None:
        super().__init__()
        self.n_members = len(next(iter(parameters.values())))
        self.stacked = _tree(parameters, buffers)
        self.draws_globally = not accepts_generator(make_member)
        self._make_member = make_member
        self._templates = local()  # One for each thread: a functional call writes into the module.

    @property
    def _template(self) -> nn.Module:
        """A member of this thread, whose weights are replaced in each call."""
        if not hasattr(self._templates, "module"):
            self._templates.module = draw_member(self._make_member, 0)
        template: nn.Module = self._templates.module
        if template.training != self.training:
            template.train(self.training)
        for part in template.modules() if self.mask_sequence else ():
            if isinstance(vars(part).get("mask_sequence"), int):
                vars(part)["mask_sequence"] = self.mask_sequence
        return template

    def _state(self, index: Any) -> dict[str, Any]:
        """Return all that makes an ensemble of the members at an index."""
        parameters = dict(self.stacked.named_parameters())
        return {
            "make_member": self._make_member,
            "training": self.training,
            "trainable": [name for name, p in parameters.items() if p.requires_grad],
            "parameters": {name: p.detach()[index] for name, p in parameters.items()},
            "buffers": {name: buffer[index] for name, buffer in self.stacked.named_buffers()},
        }

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = to_arrays(self._state(slice(None)))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        with torch.inference_mode(False):
            state = to_tensors(state)
            for name in state["trainable"]:
                state["parameters"][name].requires_grad_()
            self._assemble(state["make_member"], state["parameters"], state["buffers"])
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
        output: Tensor = self._over_members(_call_member, X, None if shared else 0)
        return output

    def _over_members(
        self, call: Callable[..., Any], X: Tensor, axis_of_X: int | None = None
    ) -> Any:
        """Call a function of member, parameters, buffers and rows for all members at once."""
        tensors = dict(self.stacked.named_parameters()), dict(self.stacked.named_buffers())
        in_dims = (0, 0, axis_of_X)
        call = partial(call, self._template)
        return torch.vmap(call, in_dims, randomness="different")(*tensors, X)

    def evaluate(
        self,
        X: Tensor,
        n_rows: int = 0,
        target: OutputFunction | None = None,
        derivatives: OutputDerivatives | None = None,
        *,
        shared: bool = True,
    ) -> Evaluation:
        """Evaluate every member for training, with input gradients at the first rows.

        Parameters
        ----------
        X : Tensor of shape (B, ...), or (M, B, ...) if not `shared`
            K features when flattened.
        n_rows : int, default=0
            How many rows gradients are taken at.
        target : callable, optional
            Maps outputs ``(M, n_rows, C)`` to what is differentiated, ``(M, n_rows)``.
        derivatives : callable, optional
            The target's derivatives with respect to outputs, where they are known (see
            `autograd_derivatives`).
        shared : bool, default=True
            As in `forward`.

        Returns
        -------
        Evaluation
            With the input gradients ``(M, n_rows, K)`` as representation, if any are taken.
        """
        n_given = X.shape[0 if shared else 1]
        if self.rows_are_independent:
            X = filled_up(X, shared=shared)
        if target is None:
            return autograd_evaluation(self, self(X, shared=shared)[:, :n_given])
        own = X.expand(self.n_members, *X.shape) if shared else X
        # Only the rows compared need the more expensive graph of second derivatives, unless the
        # forward pass itself mixes rows.
        n_together = own.shape[1] if self.couples_rows else n_rows
        if self.rows_are_independent:
            n_together += n_missing(n_rows, X.device)
        points = own[:, :n_together].detach().requires_grad_()
        # The fused kernels of attention have no second derivative. Which kernels may be used is a
        # setting of the process.
        with GLOBAL_STATE, sdpa_kernel(SDPBackend.MATH):
            outputs = self(points, shared=False)
        targets = target(outputs[:, :n_rows])
        (gradients,) = torch.autograd.grad(targets.sum(), points, create_graph=True)
        if n_together < own.shape[1]:
            rest = X[n_together:] if shared else X[:, n_together:]
            outputs = torch.cat([outputs, self(rest, shared=shared)], dim=1)
        gradients = gradients[:, :n_rows].flatten(2)
        return autograd_evaluation(self, outputs[:, :n_given], gradients)

    def outputs_and_features(self, X: Tensor, *, shared: bool = True) -> tuple[Tensor, Tensor]:
        """Evaluate every member, and note the input of its last layer with a weight matrix.

        Parameters
        ----------
        X : Tensor of shape (B, ...), or (M, B, ...) if not `shared`
        shared : bool, default=True
            As in `forward`.

        Returns
        -------
        outputs : Tensor of shape (M, B, C)
        features : Tensor of shape (M, B, ...)

        Raises
        ------
        ValueError
            If the module has no such layer, or calls none.
        """
        n_given, axis = X.shape[0 if shared else 1], None if shared else 0
        filled = filled_up(X, shared=shared) if self.rows_are_independent else X
        outputs, features = self._over_members(_call_noting_features, filled, axis)
        # A layer of the user's may see cells, say, and not rows.
        return outputs[:, :n_given], features[:, :n_given] if filled is not X else features

    @property
    def trainable(self) -> list[nn.Parameter]:
        """The stacked parameters that are not frozen."""
        return [parameter for parameter in self.stacked.parameters() if parameter.requires_grad]

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
    def rows_are_independent(self) -> bool:
        """Whether a member says that a row's output depends on no other row.

        Batches may then be filled up (see `filled_up`).
        """
        return bool(getattr(self._template, "rows_are_independent", False))

    @property
    def dtype(self) -> torch.dtype:
        """The type of the parameters, which inputs must have."""
        return next(self.stacked.parameters()).dtype

    @cached_property
    def activations_of_a_row(self) -> float:
        """Numbers of a row in the widest layer, over all members; infinity if nothing tells it."""
        return math.inf  # Weights do not tell how large the maps of a convolution are.

    def rows_at_a_time(self) -> int:
        """Return the number of rows whose widest layer has `ACTIVATIONS_AT_ONCE` in all members.

        So a layer stays in the processor's cache until the next one reads it. At most 1024: weights
        do not tell how large the maps of a convolution are.
        """
        widths = (p.shape[1] for p in self.stacked.parameters() if p.ndim > 2)
        n_activations = ACTIVATIONS_AT_ONCE[next(self.stacked.parameters()).device.type]
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
        selected = type(self).__new__(type(self))
        with torch.inference_mode(False):
            selected.__setstate__(self._state(list(members)))
        return selected

    @torch.no_grad()
    def member(self, index: int) -> nn.Module:
        """Return member `index` as a module of its own, with a copy of its weights."""
        module = copy.deepcopy(self._template)
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            tensor.data = attrgetter(name)(self.stacked)[index].clone()
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
    followed = [outputs] if representation is None else [outputs, representation]

    def pullback(*cotangents: Tensor) -> Gradients:
        trainable = ensemble.trainable
        return list(torch.autograd.grad(followed, trainable, cotangents, allow_unused=True))

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

    hooks = [
        layer.register_forward_pre_hook(note, with_kwargs=True)
        for name, layer in member.named_modules()
        if has_matrix(layer) and "parametrizations" not in name.split(".")
    ]
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


def _tree(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> nn.Module:
    """Make a module that holds parameters, as trainable as they are now, and buffers by name."""
    tree = nn.Module()
    for name, tensor in {**parameters, **buffers}.items():
        *path, leaf = name.split(".")
        parent = tree
        for child in path:
            if child not in parent._modules:
                parent.add_module(child, nn.Module())
            parent = parent.get_submodule(child)
        if name in buffers:
            parent.register_buffer(leaf, tensor)
        else:
            parent.register_parameter(leaf, nn.Parameter(tensor, tensor.requires_grad))
    return tree
