"""The repulsion between members, as users describe it and as a training step applies it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from torch import Tensor

from sklearn_fordes.particles._communication import ALONE, Communicator
from sklearn_fordes.particles._kernel import Kernel
from sklearn_fordes.particles._lengthscales import LENGTHSCALES, make_lengthscale
from sklearn_fordes.particles._spaces import SPACES, FunctionOfEnsemble, Representation, Space
from sklearn_fordes.particles._updates import UPDATES, Update, wasserstein_update
from sklearn_fordes.particles.likelihoods import GRADIENT_TARGETS


@dataclass(frozen=True)
class BuiltRepulsion:
    """A repulsion whose parts are chosen: what a training step applies.

    Parameters
    ----------
    space : Space, default=SPACES["input_gradient"]
        What members are compared by.
    kernel : Kernel, default=Kernel()
        How distances in that space are measured.
    update : callable, default=wasserstein_update
        Maps a representation, the kernel and a communicator to `Forces`.
    fraction : float, default=1.0
        Share of a batch's rows at which members are compared, in (0, 1].
    period, warmup : int, default=1, 0
        When the repulsion acts (see `Repulsion`).
    relative : bool, default=False
        Unit of the strength (see `Repulsion`).
    mixes_driving_force : bool, default=False
        Whether the update returns a mixing, which changes the driving force at a strength of zero
        as well.
    """

    space: Space = SPACES["input_gradient"]
    kernel: Kernel = field(default_factory=Kernel)
    update: Update = wasserstein_update
    fraction: float = 1.0
    period: int = 1
    warmup: int = 0
    relative: bool = False
    mixes_driving_force: bool = False

    def n_compared(self, n_rows: int, communicator: Communicator = ALONE) -> int:
        """Return at how many rows of a batch, its first ones, this process compares members.

        Raises
        ------
        ValueError
            If there is not one for each process that shares the rows.
        """
        n_compared = max(1, round(self.fraction * n_rows))
        n_own = communicator.n_own_rows(n_compared)
        if n_compared < communicator.n_row_shares and self.space.depends_on_inputs:
            raise ValueError(
                f"Got {n_compared} of {n_rows} rows of a batch at which members are compared, for "
                f"{communicator.n_row_shares} processes, but expected one for each: raise the "
                "fraction of the Repulsion, or batch_size."
            )
        return n_own


@dataclass(repr=False)
class Repulsion:
    """How the members of an ensemble repel each other.

    Parameters
    ----------
    space : {"input_gradient", "weight", "function", "feature", "none"}, callable or Space, \
            default="input_gradient"
        The space in which members repel each other: their input gradients, their weights, their
        predictions at the rows of a batch (as one vector), the inputs of their last layer, or none
        (a deep ensemble). A function maps ``(ensemble, X, y)``, with the rows compared and their
        targets as tensors, to a tensor ``(n_members, rows, K)`` that autograd can follow.
    update : {"wgd", "svgd", "lit"}, default="wgd"
        Wasserstein gradient descent: each member descends its own loss, and moves away from where
        the others are dense. Stein variational gradient descent also averages the driving force
        over near members ("weight" and "function" only). Local independence training makes
        directions orthogonal ("input_gradient" and functions only).
    target : {"log_odds", "logit", "log_prob"}, default="log_odds"
        The output of a classifier whose input gradient is compared: the true class's log-odds, its
        raw logit (the paper's code) or its log probability (the paper's text). A regressor always
        compares the gradients of its members' locations.
    bandwidth : {"auto", "reference", "paper"} or float, default="auto"
        Bandwidth of the kernel, in units of a squared distance: the median of the distances to each
        member at each row (the paper's code), or of all pairs at each row (the paper's text), both
        divided by log n_members, or a fixed number. "auto" is "reference" if directions are
        compared and "paper" elsewhere.
    fraction : float, default=0.25
        Share of a batch's rows at which members are compared, in (0, 1]. The cost of the repulsion
        is proportional to it. In these steps the rows compared are the same for all members: they
        are not corrupted, if the others are.
    period : int, default=4
        Apply the repulsion every `period` steps, `period` times as strongly. The average force does
        not depend on it; the cost of the repulsion falls by this factor.
    warmup : int, default=0
        Number of epochs in which the strength rises linearly to its full value.
    relative : bool, default=True
        Unit of the strength. If true, the potential is multiplied by the members' relative loss: a
        running mean over steps of cross-entropy / log(n_classes), or of squared error / variance
        of y, at most 1; then the strength does not depend on the batch size. If false, the
        potential is divided by the batch size, as in the paper.

    Notes
    -----
    Directions are compared in input-gradient space: each gradient is divided by its norm. With a
    single input feature a direction is only a sign, and the gradients themselves are compared.

    Parameters are checked where the repulsion is used, as those of scikit-learn's estimators are.

    References
    ----------
    T. Trinh, M. Heinonen, L. Acerbi, S. Kaski. Input-gradient space particle inference for neural
    network ensembles. ICLR 2024.

    Examples
    --------
    >>> from sklearn_fordes import FoRDEClassifier, Repulsion
    >>> model = FoRDEClassifier(repulsion=Repulsion("weight", bandwidth="paper"))
    >>> model.set_params(repulsion__period=1).repulsion
    Repulsion(space='weight', bandwidth='paper', period=1)
    """

    space: str | Representation | Space = "input_gradient"
    _: KW_ONLY
    update: str = "wgd"
    target: str = "log_odds"
    bandwidth: str | float = "auto"
    fraction: float = 0.25
    period: int = 4
    warmup: int = 0
    relative: bool = True

    @classmethod
    def paper(
        cls, space: str | Representation | Space = "input_gradient", **parameters: Any
    ) -> Self:
        """Make the repulsion of the paper's code.

        Every row, every step, the raw logit, a strength that is divided by the batch size, and in
        input-gradient space the bandwidth of the reference implementation. The rest of the paper's
        recipe is ``repulsion_strength=1, ema_decay=0, augmentation=None``. The method's page names
        what still differs.

        Parameters
        ----------
        space : {"input_gradient", "weight", "function", "feature"}, callable or Space
        **parameters
            Other parameters than the paper's.

        Returns
        -------
        Repulsion
        """
        recipe = {"target": "logit", "fraction": 1.0, "period": 1, "relative": False}
        return cls(space, **{**recipe, **parameters})

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters by name, as scikit-learn's `clone` and grid searches do.

        Parameters
        ----------
        deep : bool, default=True
            Not used.

        Returns
        -------
        dict
        """
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **parameters: Any) -> Self:
        """Set parameters by name.

        Parameters
        ----------
        **parameters

        Returns
        -------
        self : Repulsion

        Raises
        ------
        ValueError
            If there is no parameter of that name.
        """
        for name, value in parameters.items():
            if name not in (known := self.get_params()):
                raise ValueError(
                    f"Got parameter {name!r} of Repulsion, but expected one of {list(known)}."
                )
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self)).parameters
        changed = (
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if repr(value) != repr(defaults[name].default)
        )
        return f"{type(self).__name__}({', '.join(changed)})"

    def build(self, X: Tensor, lengthscale: Any = "identity") -> BuiltRepulsion | None:
        """Choose the parts for training inputs.

        Parameters
        ----------
        X : Tensor of shape (N, ...)
            Encoded training inputs.
        lengthscale : {"identity", "pca"}, float, array-like, Lengthscale or callable, \
                default="identity"
            Lengthscale of the input-gradient space (see `FoRDEClassifier`).

        Returns
        -------
        BuiltRepulsion or None
            None for the space "none".

        Raises
        ------
        ValueError
            If a parameter is not as expected, or two of them don't fit together.
        """
        space = self._space()
        self._check_parameters()
        if isinstance(lengthscale, str):
            _look_up(LENGTHSCALES, "lengthscale", lengthscale)
        if space is None:
            return None
        made = make_lengthscale(lengthscale, X)
        widths = {len(part) for part in made if part is not None}
        if widths and not space.axes_are_inputs:
            self._check_lengthscale(lengthscale)
        self._check_update(space, lengthscale, is_identity=not widths)
        width = X[0].numel()
        if space.axes_are_inputs and not widths <= {width}:
            raise ValueError(
                f"Got a lengthscale of {widths.pop()} features, but expected {width}, those of the "
                "encoded inputs."
            )
        # A direction in one dimension is only a sign.
        unit_sphere = space.unit_sphere and width > 1
        bandwidth: Any = self.bandwidth
        if bandwidth == "auto":
            bandwidth = "reference" if unit_sphere else "paper"
        return BuiltRepulsion(
            space,
            Kernel(made, bandwidth, unit_sphere),
            UPDATES[self.update],
            float(self.fraction),
            int(self.period),
            int(self.warmup),
            bool(self.relative),
            mixes_driving_force=self.update == "svgd",
        )

    def _space(self) -> Space | None:
        if isinstance(self.space, type):
            name = self.space.__name__
            raise ValueError(
                f"Got the class {name} as repulsion, but expected an object of it: {name}()."
            )
        if isinstance(self.space, Space):
            return self.space
        if callable(self.space):
            return FunctionOfEnsemble(self.space)
        space: Space | None = _look_up({**SPACES, "none": None}, "repulsion", self.space)
        return space

    def _check_parameters(self) -> None:
        _look_up(UPDATES, "update", self.update)
        _look_up(GRADIENT_TARGETS, "target", self.target)
        if not (isinstance(self.bandwidth, str) and self.bandwidth == "auto"):
            Kernel(bandwidth=self.bandwidth)  # It checks its bandwidth.
        checks = {
            "fraction": (_is_number(self.fraction, Real, 1e-300, 1), "a number in (0, 1]"),
            "period": (_is_number(self.period, Integral, 1), "an integer >= 1"),
            "warmup": (_is_number(self.warmup, Integral, 0), "an integer >= 0"),
            "relative": (isinstance(self.relative, bool | np.bool_), "True or False"),
        }
        for name, (is_valid, expected) in checks.items():
            if not is_valid:
                raise ValueError(f"Got {name}={getattr(self, name)!r}, but expected {expected}.")

    def _check_lengthscale(self, lengthscale: Any) -> None:
        """Reject a lengthscale, not the identity, where axes are not those of the input."""
        is_given = not isinstance(lengthscale, str | Real | Callable)
        if not (callable(self.space) and is_given):
            raise ValueError(
                f"Got lengthscale={lengthscale!r} with repulsion={self.space!r}, whose axes are "
                "not the input's, but expected 'identity'"
                + (" or an array." if callable(self.space) else ".")
            )

    def _check_update(self, space: Space, lengthscale: Any, *, is_identity: bool) -> None:
        if self.update == "svgd" and not space.supports_svgd:
            raise ValueError(
                f"Got update='svgd' with repulsion={self.space!r}, in which there is no driving "
                "force to smooth, but expected repulsion='weight' or 'function'."
            )
        if self.update != "lit":
            return
        if not (space.unit_sphere or callable(self.space)):
            raise ValueError(
                f"Got update='lit' with repulsion={self.space!r}, but expected "
                "repulsion='input_gradient' or a function: it makes directions orthogonal."
            )
        for name, value, default in (
            ("lengthscale", "identity" if is_identity else lengthscale, "identity"),
            ("bandwidth", self.bandwidth, "auto"),
        ):
            if not (isinstance(value, str) and value == default):
                raise ValueError(
                    f"Got {name}={value!r} with update='lit', which has no kernel, but expected "
                    f"{default!r}."
                )


def as_repulsion(value: str | Representation | Space | Repulsion) -> Repulsion:
    """Return the repulsion that an estimator's parameter describes.

    Parameters
    ----------
    value : str, callable, Space or Repulsion
        A `Repulsion`, or the space of one with the default parameters.

    Returns
    -------
    Repulsion
        The same object, if it is one.
    """
    return value if isinstance(value, Repulsion) else Repulsion(value)


def _look_up(registry: Mapping[str, Any], parameter: str, name: Any) -> Any:
    if not isinstance(name, str) or name not in registry:
        raise ValueError(f"Got {parameter}={name!r}, but expected one of {list(registry)}.")
    return registry[name]


def _is_number(value: Any, kind: Any, low: float, high: float = 1e300) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and low <= float(value) <= high
