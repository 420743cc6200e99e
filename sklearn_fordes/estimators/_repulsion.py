"""From the parameters of an estimator to the repulsion, and to errors where they don't fit."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:  # torch is imported when a net is first needed
    from torch import Tensor

    from sklearn_fordes.particles import Metric, Repulsion, Space


def look_up(registry: Mapping[str, Any], parameter: str, name: str) -> Any:
    """Return what a parameter names.

    Raises
    ------
    ValueError
        If it names nothing.
    """
    if name not in registry:
        raise ValueError(f"Got {parameter}={name!r}, but expected one of {list(registry)}.")
    return registry[name]


class RepulsionSettings(NamedTuple):
    """The parameters of an estimator that say how its members repel each other."""

    repulsion: Any
    update: str
    lengthscale: Any
    lengthscale_mix: str
    bandwidth: Any
    repulsion_strength: float
    repulsion_fraction: float

    @classmethod
    def of(cls, estimator: Any) -> RepulsionSettings:
        """Read them off an estimator."""
        return cls(*(getattr(estimator, name) for name in cls._fields))

    def make(self, X: Tensor, metric: Metric | None = None) -> Repulsion | None:
        """Make the repulsion for training inputs X (N, ...) as the network sees them.

        Parameters
        ----------
        X : Tensor of shape (N, ...)
        metric : Metric, optional
            Taken in place of the one that the parameters and X make.

        Returns
        -------
        Repulsion or None
            None if there is none, and then nothing else of the settings matters.

        Raises
        ------
        ValueError
            If the parameters don't make sense together.
        """
        from sklearn_fordes.particles import LENGTHSCALES, MIXES, UPDATES, Kernel, Repulsion

        space = self._space()
        update = look_up(UPDATES, "update", self.update)
        look_up(dict.fromkeys(MIXES), "lengthscale_mix", self.lengthscale_mix)
        if isinstance(self.lengthscale, str):
            look_up(LENGTHSCALES, "lengthscale", self.lengthscale)
        bandwidth = self._bandwidth(space)
        if space is None:
            return None
        self._check_update(space)
        self._check_lengthscale(space)
        metric = (metric or self._metric(space, X)).to(X)
        precision = metric.precision
        if precision is not None and not (precision.isfinite().all() and precision.any()):
            raise ValueError(
                f"Got a lengthscale whose inverse square is zero or infinite in {X.dtype}, but "
                "expected another unit."
            )
        return Repulsion(
            space,
            Kernel(metric, bandwidth, space.directions),
            update,
            float(self.repulsion_strength),
            float(self.repulsion_fraction),
        )

    def has_metric_of(self, other: RepulsionSettings) -> bool:
        """Whether the metric is read off the inputs, in the way that another's is."""
        return self._read_off is not None and self._read_off == other._read_off

    @property
    def _read_off(self) -> tuple[str | float, str | None] | None:
        """How the metric is read off the inputs: name or α, and how α mixes. None if given."""
        if not isinstance(self.lengthscale, str | Real):
            return None
        if isinstance(self.lengthscale, str):
            return self.lengthscale, None
        return float(self.lengthscale), self.lengthscale_mix

    def _space(self) -> Space | None:
        from sklearn_fordes.particles import SPACES, space_of

        if callable(self.repulsion):
            return space_of(self.repulsion)
        space: Space | None = look_up({**SPACES, "none": None}, "repulsion", self.repulsion)
        return space

    @property
    def _is_identity(self) -> bool:
        if isinstance(self.lengthscale, str):
            return self.lengthscale == "identity"
        return isinstance(self.lengthscale, Real) and self.lengthscale == 0

    def _check_update(self, space: Space) -> None:
        if self.update == "svgd" and not space.mixes_driving_force:
            raise ValueError(
                f"Got update='svgd' with repulsion={self.repulsion!r}, in which there is no "
                "driving force to smooth, but expected repulsion='weight' or 'function'."
            )
        if self.update == "svgd" and self.bandwidth == "reference":
            raise ValueError(
                "Got bandwidth='reference' with update='svgd', which needs a symmetric kernel, but "
                "expected 'auto', 'paper' or a number."
            )
        if self.update == "lit":
            self._check_independence(space)

    def _check_independence(self, space: Space) -> None:
        if not (space.directions or callable(self.repulsion)):
            raise ValueError(
                f"Got update='lit' with repulsion={self.repulsion!r}, but expected "
                "repulsion='input_gradient' or a function: it makes directions orthogonal."
            )
        if not self._is_identity or self.bandwidth != "auto":
            name = "bandwidth" if self._is_identity else "lengthscale"
            default = "'auto'" if self._is_identity else "'identity'"
            raise ValueError(
                f"Got {name}={getattr(self, name)!r} with update='lit', which has no kernel, but "
                f"expected {default}."
            )

    def _bandwidth(self, space: Space | None) -> str | float:
        from sklearn_fordes.particles import BANDWIDTHS

        if isinstance(self.bandwidth, Real):
            return float(self.bandwidth)
        # The reference code's rule where it has one; elsewhere the usual, over all pairs.
        auto = "reference" if space is not None and space.directions else "paper"
        rules = {"auto": auto, **{name: name for name in BANDWIDTHS}}
        return str(look_up(rules, "bandwidth", self.bandwidth))

    def _check_lengthscale(self, space: Space) -> None:
        given = callable(self.repulsion) and self._read_off is None
        if not (self._is_identity or space.of_inputs or given):
            raise ValueError(
                f"Got lengthscale={self.lengthscale!r} with repulsion={self.repulsion!r}, whose "
                "axes are not the input's, but expected 'identity'"
                + (" or an array." if callable(self.repulsion) else ".")
            )

    def _metric(self, space: Space, X: Tensor) -> Metric:
        from sklearn_fordes.particles import LENGTHSCALES, tuned

        if isinstance(self.lengthscale, str):
            return LENGTHSCALES[self.lengthscale](X)
        if isinstance(self.lengthscale, Real):
            return tuned(X, alpha=float(self.lengthscale), mix=self.lengthscale_mix)
        return self._given_metric(X[0].numel() if space.of_inputs else None)

    def _given_metric(self, width: int | None) -> Metric:
        import torch

        from sklearn_fordes.particles import from_lengthscales, from_precision_matrix

        try:
            values = np.asarray(self.lengthscale, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Got lengthscale={self.lengthscale!r}, but expected an array of numbers."
            ) from error
        width = len(values) if width is None and values.ndim else width
        if values.shape not in ((width,), (width, width)):
            raise ValueError(
                f"Got a lengthscale of shape {values.shape}, but expected {(width,)} (lengthscales "
                f"ℓ of the features) or {(width, width)} (a precision matrix)."
            )
        make = from_lengthscales if values.ndim == 1 else from_precision_matrix
        try:
            return make(torch.from_numpy(values))
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"Got a lengthscale that is not usable: {error}") from error
