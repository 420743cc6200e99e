"""Fitted estimators as files of ONNX, which other programs run."""

from __future__ import annotations

import os
from typing import Any

from sklearn_fordes.persistence._file import write_atomically


def write_onnx(path: str | os.PathLike[str], fitted: Any, **about: Any) -> None:
    """Write a graph from columns to predictions. If this fails, an older file stays as it was.

    Parameters
    ----------
    path : str or path-like
    fitted : FittedEnsemble
    **about
        As in `sklearn_fordes.persistence.onnx._model.model_of`.

    Raises
    ------
    ImportError
        If a package that this needs is not installed.
    ValueError
        If a graph can't hold a part of the estimator.
    OSError
        If the file can't be written.
    """
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Got a call of to_onnx without the package onnx, but expected it to be installed: "
            "pip install onnx, or this package with its extra 'onnx'."
        ) from error
    from sklearn_fordes.persistence.onnx._model import model_of

    try:
        model = model_of(fitted, **about)
    except UnicodeEncodeError as error:
        raise ValueError(
            f"Got a name, level or label {error.object!r} that is no text of Unicode, but expected "
            "some that a graph of ONNX can hold."
        ) from error
    write_atomically(path, model.SerializeToString())
