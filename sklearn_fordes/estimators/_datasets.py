"""From checked rows to what a net trains on."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from sklearn_fordes import inference, streaming, training
from sklearn_fordes._signatures import accepts
from sklearn_fordes.estimators._folds import Folds
from sklearn_fordes.estimators._validation import TrainingData, naming_argument
from sklearn_fordes.preprocessing import TabularEncoder


def first_encoded(estimator: Any, encoder: Any, data: TrainingData) -> Any:
    """Fit the encoder, and return what it makes of the training rows.

    Rows held out decide with them what the columns hold, where the encoder takes the whole table: a
    value in one of them could make it unreadable.
    """
    # A subclass may have a method of its own.
    is_ours = isinstance(encoder, TabularEncoder) and accepts(encoder.fit_transform, "rows")
    takes_rows = data.at is not None and is_ours
    X = data.X if takes_rows else data.table
    rows = {"rows": data.at} if takes_rows else {}
    if isinstance(estimator.encoder, str | None):
        return encoder.fit_transform(X, data.y, **rows)
    with naming_argument(f"encoder={estimator.encoder!r}"):
        encoded = encoder.fit_transform(X, data.y, **rows)
        n_rows = np.shape(encoded)[0]
        if n_rows != len(data.y):
            raise ValueError(f"it made {n_rows} rows of {len(data.y)}.")
    return encoded


def dataset_of(
    estimator: Any,
    fitted: inference.FittedEnsemble,
    inputs: Any,
    data: TrainingData,
    valid: TrainingData | Folds | None,
    X_repulsion: Any,
) -> training.DeviceDataset:
    """Return what a net trains on, with encoded inputs, and what it validates on."""
    new = partial(training.DeviceDataset, dtype=inputs.dtype)
    valid_rows, weight = None, data.sample_weight
    if X_repulsion is not None:
        if streaming.is_stream(X_repulsion):
            raise ValueError(
                f"Got a {type(X_repulsion).__name__} as X_repulsion, which is read in blocks, but "
                "expected a table."
            )
        with naming_argument("X_repulsion"):
            X_repulsion = fitted.encode(estimator._checked(X_repulsion))
    if isinstance(valid, Folds):
        n_members = fitted.members.n_members
        index, validators = valid.validators(n_members)
        valid_rows = new(inputs[index], data.y[index], weight[index], validators=validators)
        weight = valid.training_weights(weight, n_members)
    elif valid is not None:
        with naming_argument("validation rows"):
            valid_rows = new(fitted.encode(valid.table), valid.y, valid.sample_weight)
    return new(
        inputs,
        data.y,
        weight,
        X_repulsion,
        augmentation=estimator._new_augmentation(fitted, inputs),
        valid=valid_rows,
    )
