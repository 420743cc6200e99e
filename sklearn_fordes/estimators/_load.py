"""Load an estimator of any class of this package."""

from __future__ import annotations

import os
from typing import Any

from sklearn_fordes.estimators._classifier import FoRDEClassifier
from sklearn_fordes.estimators._regressor import FoRDERegressor
from sklearn_fordes.estimators._saving import load_one_of


def load(path: str | os.PathLike[str], device: Any = None, module: Any = None) -> Any:
    """Load a fitted estimator that its method `save` wrote.

    Nothing in a file is executed, and nothing is imported by a name in it.

    Parameters
    ----------
    path : str or path-like
    device : str or torch.device, optional
        Where to predict and train, the parameter `device` of the estimator. By default the saved
        one, and the CPU where that is not available.
    module : type, callable or torch.nn.Module, optional
        The `module` of the saved estimator, if it had one of your own: a file holds its weights
        and no code.

    Returns
    -------
    estimator : FoRDEClassifier or FoRDERegressor
        On the same device it predicts the same numbers as the saved one.

    Raises
    ------
    ValueError
        If the file is damaged, of a newer format or of a class of your own; if `module` is
        missing or makes another network; or if this machine does not have the device given.
    OSError
        If the file can't be read.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklearn.datasets import load_iris
    >>> import sklearn_fordes
    >>> X, y = load_iris(return_X_y=True)
    >>> model = sklearn_fordes.FoRDEClassifier(2, max_epochs=2, random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "iris.safetensors")
    ...     model.save(path)
    ...     loaded = sklearn_fordes.load(path)
    >>> bool((loaded.predict_proba(X) == model.predict_proba(X)).all())
    True
    """
    return load_one_of([FoRDEClassifier, FoRDERegressor], path, device, module)
