"""Which parameters are worth tuning, and where."""

from __future__ import annotations

from typing import Any

from scipy.stats import loguniform


def search_space(step: str | None = None) -> dict[str, Any]:
    """Distributions of the parameters that pay to tune, for a randomized search.

    Ranges were chosen on development sets (``docs/defaults.md``): the defaults lie inside.

    Parameters
    ----------
    step : str, default=None
        Name of the estimator's step if it is in a pipeline.

    Returns
    -------
    dict
        From names of parameters to lists and distributions of scipy, as
        `sklearn.model_selection.RandomizedSearchCV` takes them.

    Examples
    --------
    >>> from sklearn.model_selection import RandomizedSearchCV
    >>> from sklearn_fordes import FoRDEClassifier, search_space
    >>> search = RandomizedSearchCV(
    ...     FoRDEClassifier(), search_space(), n_iter=20, scoring="neg_log_loss", random_state=0
    ... )
    >>> sorted(search_space("fordeclassifier"))[0]
    'fordeclassifier__hidden_layer_sizes'
    """
    space = {
        "repulsion_strength": loguniform(0.03, 1.5),
        "lengthscale": [0.0, 0.5, 1.0],
        "hidden_layer_sizes": [(64, 64), (128, 128), (256, 256)],
        "module__dropout": [0.0, 0.1, 0.2, 0.3],
        "module__frequency_scale": loguniform(0.05, 1),
        "lr": loguniform(1e-3, 1e-2),
    }
    prefix = "" if step is None else f"{step}__"
    return {prefix + name: values for name, values in space.items()}
