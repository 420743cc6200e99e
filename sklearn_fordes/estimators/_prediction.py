"""From a trained net and rows to what the members say."""

from __future__ import annotations

import math
from abc import ABCMeta, abstractmethod
from collections.abc import Iterator
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_is_fitted

from sklearn_fordes.estimators._input import TableInput
from sklearn_fordes.uncertainty import Uncertainty

if TYPE_CHECKING:  # torch is imported when a net is first needed
    from torch import Tensor

    from sklearn_fordes.particles import Ensemble, Likelihood
    from sklearn_fordes.training import ParticleNet, Rows

# Rows encoded at a time, so that memory does not grow with the table.
_ENCODED_AT_A_TIME = 65_536
# Activations of a net's widest layer, over rows and members, at a time. On a CPU 4 MB a layer in
# single precision, which is in the cache when the next layer reads it.
_ACTIVATIONS_AT_A_TIME = {"cpu": 1 << 20, "cuda": 1 << 27}
# With fewer rows, reading the weights takes longer than what the cache saves; up to 16 MB a layer.
_FEWEST_ROWS = 128
_MOST_ACTIVATIONS = 1 << 22


class EnsemblePrediction(TableInput, metaclass=ABCMeta):
    """How an estimator evaluates its net: in bounded memory, all members or one."""

    net_: ParticleNet
    n_members: int
    predict_batch_size: Any

    @property
    @abstractmethod
    def _likelihood(self) -> Likelihood:
        """What the network's outputs mean."""

    @abstractmethod
    def predict_uncertainty(self, X: Any) -> Uncertainty:
        """Split the uncertainty of the prediction into aleatoric and epistemic."""

    def ood_score(self, X: Any) -> NDArray[np.float64]:
        """Score how much rows look unlike the training data: the epistemic uncertainty.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
            Larger is more outlying, as in PyOD. (scikit-learn's ``score_samples`` has the other
            sign.)
        """
        return self.predict_uncertainty(X).epistemic

    @property
    def estimators_(self) -> list[Self]:
        """The members as fitted estimators of their own, with ``n_members=1``.

        Made anew at each access, with copies of the weights.
        """
        check_is_fitted(self)
        return [self._single_member(index) for index in range(self.net_.module__n_members)]

    def _single_member(self, index: int) -> Self:
        from sklearn_fordes.training import select_members

        member = object.__new__(type(self))  # a copy goes through a pickle, which moves the net
        member.__dict__.update(vars(self))
        member.n_members = 1
        member.net_ = select_members(self.net_, [index])
        return member

    def _iter_input_gradients(self, rows: Rows) -> Iterator[NDArray[np.float64]]:
        """Yield the members' input gradients at successive rows, (M, rows, K)."""
        import torch

        from sklearn_fordes.particles import input_gradients
        from sklearn_fordes.training import Batches

        ensemble: Ensemble = self.net_.module_.eval()
        # Derivatives are kept of every layer, where outputs need one at a time.
        for inputs, y in Batches(rows, max(1, self._predict_batch_size() // 4)):
            X: Tensor = inputs["X"]
            if y is None:
                with torch.no_grad():
                    y = self._likelihood.guess(ensemble(X))
            try:
                evaluation = input_gradients(ensemble, X, y, len(X), self._likelihood)
            except RuntimeError as error:
                raise ValueError(
                    f"Got a module whose output can't be differentiated twice ({error}), but "
                    "expected one that can."
                ) from error
            gradients = cast("Tensor", evaluation.representation)
            yield gradients.cpu().numpy().astype(np.float64)

    def _iter_outputs(self, X: Any) -> Iterator[Tensor]:
        """Yield the members' outputs for successive rows of X, (rows, M, n_outputs)."""
        import torch

        from sklearn_fordes.training import Batches

        X = self._validate_inputs(X, reset=False)
        for start in range(0, X.shape[0], _ENCODED_AT_A_TIME):
            part = _safe_indexing(X, slice(start, start + _ENCODED_AT_A_TIME))
            for batch in Batches(self._encode(self.net_, part), self._predict_batch_size()):
                outputs = self.net_.evaluation_step(batch).cpu()
                if not math.isfinite(outputs.sum(dtype=torch.float64)):  # float32 can't overflow
                    raise ValueError(
                        "Got X for which the network's output is not finite, but expected the "
                        "scale of the training rows."
                    )
                yield outputs

    def _predict_batch_size(self) -> int:
        n_rows = self.predict_batch_size
        if isinstance(n_rows, str) and n_rows == "auto":
            return int(self.net_.iterator_valid__batch_size)
        if not (isinstance(n_rows, Integral) and int(n_rows) >= 1):
            raise ValueError(
                f"Got predict_batch_size={n_rows!r}, but expected an integer >= 1 or 'auto'."
            )
        return int(n_rows)


def rows_at_a_time(net: ParticleNet) -> int:
    """Return how many rows a fitted net is to evaluate at a time, by default."""
    activations = _ACTIVATIONS_AT_A_TIME.get(net.device.split(":")[0], 1 << 20)
    ensemble: Ensemble = net.module_
    fewest = min(_FEWEST_ROWS, ensemble.rows_at_a_time(_MOST_ACTIVATIONS))
    return max(fewest, ensemble.rows_at_a_time(activations))
