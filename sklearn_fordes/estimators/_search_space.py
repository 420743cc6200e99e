"""The parameters that pay to tune, and where to look."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from typing import Any, Literal

from scipy.stats import loguniform

# Ranges on a logarithmic scale, or lists of choices, with the default of each parameter.
_Candidates = dict[str, tuple[tuple[float, float] | list[Any], Any]]
_CANDIDATES: _Candidates = {
    "repulsion_strength": ((0.03, 1.5), 0.3),
    "lengthscale": ([0.0, 0.5, 1.0], 0.0),
    "hidden_layer_sizes": ([[64, 64], [128, 128], [256, 256]], [128, 128]),
    "module__dropout": ([0.0, 0.1, 0.2, 0.3], 0.1),
    "module__frequency_scale": ((0.05, 1.0), 0.45),
    "lr": (["auto", 0.01, 0.02, 0.05], "auto"),
}
_OF_REGRESSOR: _Candidates = {
    "repulsion_strength": (_CANDIDATES["repulsion_strength"][0], 0.6),
    "module__dropout": (_CANDIDATES["module__dropout"][0], 0.0),
    "noise": (["heteroscedastic", "homoscedastic", "quantile"], "heteroscedastic"),
}


def search_space(
    step: str | None = None,
    *,
    kind: Literal["classifier", "regressor"] = "classifier",
    family: Literal["scipy", "optuna", "default"] = "scipy",
) -> dict[str, Any]:
    """Distributions of the parameters that pay to tune, for a search.

    Ranges were chosen on development sets (``docs/defaults.md``): the defaults lie inside.

    Parameters
    ----------
    step : str, default=None
        Name of the estimator's step in a pipeline, with which the names of parameters begin. None
        if it is in no pipeline. It does not choose the `kind`.
    kind : {"classifier", "regressor"}, default="classifier"
        A regressor has its `noise` in the space too.
    family : {"scipy", "optuna", "default"}, default="scipy"
        Lists and distributions of scipy, as `sklearn.model_selection.RandomizedSearchCV` takes
        them; Optuna's, as ``optuna_integration.OptunaSearchCV`` and ``study.ask`` take them; or no
        distributions but the defaults, one value for each parameter, as ``study.enqueue_trial``
        takes them: then the first trial is what there is without tuning.

    Returns
    -------
    dict
        From names of parameters to distributions or values.

    Raises
    ------
    ImportError
        If Optuna's are asked for, and it is not installed.
    ValueError
        If there is no such kind or family, or `step` is no name.

    Examples
    --------
    >>> from sklearn.model_selection import RandomizedSearchCV
    >>> from sklearn_fordes import FoRDEClassifier, search_space
    >>> search = RandomizedSearchCV(
    ...     FoRDEClassifier(), search_space(), n_iter=20, scoring="neg_log_loss", random_state=0
    ... )
    >>> sorted(search_space("fordeclassifier"))[0]
    'fordeclassifier__hidden_layer_sizes'
    >>> search_space(family="default")["repulsion_strength"]
    0.3
    >>> search_space(kind="regressor")["noise"]
    ['heteroscedastic', 'homoscedastic', 'quantile']
    >>> from sklearn.pipeline import Pipeline
    >>> from sklearn_fordes import FoRDERegressor
    >>> pipeline = Pipeline([("model", FoRDERegressor())])
    >>> sorted(search_space("model", kind="regressor"))[0]
    'model__hidden_layer_sizes'
    """
    kinds = {"classifier": _CANDIDATES, "regressor": {**_CANDIDATES, **_OF_REGRESSOR}}
    families: dict[str, Callable[..., Any]] = {
        "scipy": lambda values, _: values if isinstance(values, list) else loguniform(*values),
        "optuna": lambda values, _: _optuna_distribution(values),
        "default": lambda _, default: default,
    }
    for name, value, known in (("kind", kind, kinds), ("family", family, families)):
        if value not in known:
            raise ValueError(f"Got {name}={value!r}, but expected one of {', '.join(known)}.")
    if not isinstance(step, str | None):
        raise ValueError(f"Got step={step!r}, but expected the name of a step in a pipeline.")
    prefix = "" if step is None else f"{step}__"
    make = families[family]
    return {prefix + name: make(*deepcopy(entry)) for name, entry in kinds[kind].items()}


def _optuna_distribution(values: Any) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if not isinstance(values, list):
        low, high = values
        return FloatDistribution(low, high, log=True)
    with warnings.catch_warnings():
        # Optuna warns of choices that are no scalars: a database returns tuples as lists. These
        # are lists.
        warnings.simplefilter("ignore", UserWarning)
        return CategoricalDistribution(values)
