"""What comes in: tables and arrays, checked, and made into the rows that a net sees."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _check_y, check_consistent_length, validate_data

if TYPE_CHECKING:  # torch is imported when a net is first needed
    from sklearn_fordes.training import ParticleNet, Rows


class Table(NamedTuple):
    """Validated rows: inputs (N, ...), encoded targets (N,) and weights (N,).

    The inputs are an array or a data frame.
    """

    X: Any
    y: NDArray[Any]
    sample_weight: NDArray[np.float64]

    def take(self, index: NDArray[Any]) -> Table:
        """Return the rows at `index`, indices or a mask."""
        return Table(*(_safe_indexing(column, index) for column in self))

    def of_mean_weight_one(self) -> Table:
        """Scale the weights, so that they change what rows count and not the step size."""
        weight = self.sample_weight / self.sample_weight.max()  # whose sum can't overflow
        return self._replace(sample_weight=weight / weight.mean())


class TableInput:
    """How an estimator with an encoder takes its input: validation, and encoding for the net."""

    encoder: Any
    encoder_: Any
    n_features_in_: int
    module: Any
    categorical_features: Any
    _row_shape: tuple[int, ...]  # as given
    _n_inputs: int  # of the network: columns of a row once it is encoded

    def _validate_inputs(self, X: Any, *, reset: bool, **with_y: Any) -> Any:
        """Return rows (and y, if given), and note the features or check them.

        Rows for an encoder are data frames or arrays; without one, finite arrays of floats.
        """
        if self._is_encoded:
            return self._validate_table(X, reset=reset, **with_y)
        shape = getattr(X, "shape", ())
        if not reset and max(len(shape), len(self._row_shape) + 1) > 2:
            self._check_row_shape(shape[1:])  # scikit-learn would compare the second axis only
        arrays = validate_data(
            self,
            X,
            dtype=(np.float64, np.float32),
            allow_nd=True,
            reset=reset,
            **with_y,
        )
        shape = (arrays[0] if with_y else arrays).shape[1:]
        if reset:
            self._row_shape = shape
        self._check_row_shape(shape)
        return arrays

    def _validate_table(self, X: Any, *, reset: bool, **with_y: Any) -> Any:
        from sklearn_fordes.preprocessing import as_table

        X = as_table(X)
        validate_data(self, X, reset=reset, skip_check_array=True)
        self._row_shape = (self.n_features_in_,)
        if not with_y:
            return X
        y = _check_y(with_y["y"], y_numeric=with_y.get("y_numeric", False), estimator=self)
        check_consistent_length(X, y)
        return X, y

    def _validate_validation_rows(self, X_val: Any, y_val: Any, **settings: Any) -> Any:
        """Return checked arrays of both, or None if neither is given."""
        if (X_val is None) != (y_val is None):
            given, missing = ("y_val", "X_val") if X_val is None else ("X_val", "y_val")
            raise ValueError(f"Got {given} without {missing}, but expected both or neither.")
        if X_val is None:
            return None
        with errors_about("X_val and y_val"):
            return self._validate_inputs(X_val, y=y_val, reset=False, **settings)

    def _validate_unlabelled_rows(self, X_repulsion: Any) -> NDArray[Any] | None:
        """Return a checked array, or None if nothing is given."""
        if X_repulsion is None:
            return None
        with errors_about("X_repulsion"):
            rows: NDArray[Any] = self._validate_inputs(X_repulsion, reset=False)
        return rows

    def _check_row_shape(self, shape: tuple[int, ...]) -> None:
        if shape != self._row_shape:
            raise ValueError(
                f"Got X with rows of shape {shape}, but {type(self).__name__} was fitted with rows "
                f"of shape {self._row_shape}."
            )

    @property
    def _is_encoded(self) -> bool:
        # By default a module of the user's own sees the rows as they come.
        is_default = isinstance(self.encoder, str)
        return self.module is None if is_default else self.encoder is not None

    def _make_encoder(self) -> Any:
        from sklearn_fordes.preprocessing import TabularEncoder

        given = self.categorical_features
        if self._is_encoded and isinstance(self.encoder, str):
            # Arrays, whatever scikit-learn's configuration says.
            return TabularEncoder(given).set_output(transform="default")
        if given is not None and not isinstance(given, str):
            raise ValueError(
                f"Got categorical_features={given!r} beside an encoder or a module of your own, "
                "but expected 'from_dtype' or None. encoder=TabularEncoder(categorical_features) "
                "can stand before a module."
            )
        if self._is_encoded:
            return clone(self.encoder)
        return FunctionTransformer().set_output(transform="default")

    def _to_rows(self, table: Table, net: ParticleNet, encoded: NDArray[Any] | None = None) -> Rows:
        # Weights that change nothing are not worth gathering in every batch.
        weight = None if (table.sample_weight == 1).all() else table.sample_weight
        return self._encode(net, table.X, table.y, weight, encoded=encoded)

    def _encode(
        self,
        net: ParticleNet,
        X: Any,
        *y_and_weight: Any,
        encoded: NDArray[Any] | None = None,
    ) -> Rows:
        from sklearn_fordes.training import Rows

        encoded = self._transform(X) if encoded is None else encoded
        rows = Rows(encoded, *y_and_weight, device=net.device, dtype=net.module_.dtype)
        # Finite in double precision need not be finite in the network's.
        if not rows.X.isfinite().all():
            raise ValueError(
                f"Got X with values that are missing, or too large for {net.module_.dtype}, after "
                "encoding, but expected finite numbers of the scale of the training rows."
            )
        return rows

    def _transform(self, X: Any) -> NDArray[Any]:
        with warnings.catch_warnings():  # which the estimator has said already
            warnings.filterwarnings("ignore", "X (does not have valid|has) feature names")
            encoded = as_array(self.encoder_.transform(X))
        width = math.prod(encoded.shape[1:])
        if width != self._n_inputs:
            raise ValueError(
                f"Got {width} columns from the encoder, but expected {self._n_inputs}, as for the "
                "training rows."
            )
        return encoded


def as_array(encoded: Any) -> NDArray[Any]:
    """Return what an encoder gave, sparse or a frame maybe, as an array."""
    return np.asarray(encoded.toarray() if issparse(encoded) else encoded)


@contextmanager
def errors_about(name: str) -> Iterator[None]:
    """Name the argument in errors of a function that calls it X."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise type(error)(f"Got {name} that can't be used: {error}") from error
