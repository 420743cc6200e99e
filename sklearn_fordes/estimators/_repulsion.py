"""From the parameters of an estimator to the repulsion, and to errors where they don't fit."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:  # torch is imported when a net is first needed
    from torch import Tensor

    from sklearn_fordes.particles import Metric, Repulsion, Space


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

    def make(self, X: Tensor) -> Repulsion | None:
        """Make the repulsion for training inputs X (N, ...) as the network sees them.

        Raises
        ------
        ValueError
            If the parameters don't make sense together.
        """
        from sklearn_fordes.particles import UPDATES, Kernel, Repulsion

        if isinstance(self.repulsion, str) and self.repulsion == "none":
            return None
        space = self._space()
        self._check_update(space)
        repulsion = Repulsion(
            space,
            Kernel(self._metric(space, X), self._bandwidth(space), space.directions),
            UPDATES[self.update],
            float(self.repulsion_strength),
            float(self.repulsion_fraction),
        )
        # Stein's update also averages the driving force, whatever the strength.
        idle = not self.repulsion_strength and self.update != "svgd"
        return None if idle else repulsion.to(X)

    def _space(self) -> Space:
        from sklearn_fordes.particles import SPACES, space_of

        return space_of(self.repulsion) if callable(self.repulsion) else SPACES[self.repulsion]

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

    def _bandwidth(self, space: Space) -> str | float:
        if isinstance(self.bandwidth, Real):
            return float(self.bandwidth)
        if self.bandwidth != "auto":
            return str(self.bandwidth)
        # The reference code's rule where it has one; elsewhere the usual, over all pairs.
        return "reference" if space.directions else "paper"

    def _metric(self, space: Space, X: Tensor) -> Metric:
        from sklearn_fordes.particles import LENGTHSCALES, Metric, tuned

        if self._is_identity:
            return Metric()
        read_off_inputs = isinstance(self.lengthscale, str | Real)
        if not (space.of_inputs or (callable(self.repulsion) and not read_off_inputs)):
            raise ValueError(
                f"Got lengthscale={self.lengthscale!r} with repulsion={self.repulsion!r}, whose "
                "axes are not the input's, but expected 'identity'"
                + (" or an array." if callable(self.repulsion) else ".")
            )
        if isinstance(self.lengthscale, str):
            return LENGTHSCALES[self.lengthscale](X)
        if isinstance(self.lengthscale, Real):
            return tuned(X, alpha=float(self.lengthscale), mix=self.lengthscale_mix)
        width = X[0].numel() if space.of_inputs else None
        return self._given_metric(width)

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
        if values.shape not in ((width,), (width, width)) or not np.isfinite(values).any():
            raise ValueError(
                f"Got a lengthscale of shape {values.shape}, but expected {(width,)} (lengthscales "
                f"ℓ of the features) or {(width, width)} (a precision matrix)."
            )
        make = from_lengthscales if values.ndim == 1 else from_precision_matrix
        try:
            return make(torch.from_numpy(values))
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"Got a lengthscale that is not usable: {error}") from error
