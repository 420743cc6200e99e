"""Estimators as a file without code, and back."""

from __future__ import annotations

import math
import os
import warnings
from abc import abstractmethod
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from inspect import signature
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import is_classifier
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.preprocessing import FunctionTransformer

import sklearn_fordes
from sklearn_fordes import inference, particles, persistence, training
from sklearn_fordes._maps import without_maps
from sklearn_fordes.estimators._parameters import Parameters
from sklearn_fordes.preprocessing import TabularEncoder

# Attributes that `fit` sets, and that are saved as they are.
LEARNT_VALUES = (
    "n_features_in_",
    "feature_names_in_",
    "_is_table_",
    "_is_sparse_taken_",
    "classes_",
    "target_mean_",
    "target_scale_",
    "history_",
    "n_iter_",
    "_training_state_",
    "_importances_",
)
_FITTED = ("encoder", "likelihood", "input_shape", "rows_per_chunk")
_OF_TARGETS = ("classes", "target_mean", "target_scale")
# What these say is in the weights. Other parameters of a fit only acted in it.
_OF_THE_NETWORK = ("module", "hidden_layer_sizes", "noise")
# Parameters that files of older versions lack, with the values by which these were fitted. Their
# defaults are others.
_OF_OLDER_FILES = {"augmentation": None, "lr_schedule": "constant"}
# The default network of files that do not tell theirs.
_RECIPE_OF_OLDER_FILES = {"module__n_frequencies": 16, "module__frequency_scale": 0.3}
# Numbers of an input. A file of a few bytes could ask for more than fit into the memory.
_LARGEST_ROW = 1 << 24


class Saving(Parameters):
    """`save`, `load`, export and pickle of the estimators."""

    _then_: Self
    fitted_: inference.FittedEnsemble

    @abstractmethod
    def _as_fitted(self) -> Self:
        """Return the estimator as it is now, if it is fitted."""

    def save(self, path: str | os.PathLike[str], *, include_training_state: bool = False) -> None:
        """Save the fitted estimator in one file, from which nothing is ever executed.

        The file is in the safetensors format: arrays, and settings as JSON. It holds no rows of
        data. If saving fails, an older file of that name stays as it was.

        Parameters
        ----------
        path : str or path-like
            Name of the file, by custom with the suffix ``.safetensors``.
        include_training_state : bool, default=False
            Whether to save the optimizer's moments too, two or so numbers for each weight. With
            them `partial_fit` of the loaded estimator does what it would do here; without them the
            optimizer starts anew, from the same weights.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If a file can't hold a parameter, such as a function, a callback or another encoder. The
            error says what to do.
        OSError
            If the file can't be written.

        See Also
        --------
        load : Load the estimator.
        """
        now = self._as_fitted()
        state = _state_of(now, include_training_state)
        persistence.write(path, type(now).__name__, state, sklearn_fordes.__version__)

    def to_onnx(self, path: str | os.PathLike[str], *, quantiles: ArrayLike = ()) -> None:
        """Export the fitted estimator as one graph of ONNX, from raw columns to predictions.

        Programs without this package, torch or pandas predict by it, such as onnxruntime. If
        exporting fails, an older file of that name stays as it was.

        Parameters
        ----------
        path : str or path-like
            Name of the file, by custom with the suffix ``.onnx``.
        quantiles : array-like of shape (n_quantiles,), default=()
            Levels in (0, 1) of the output ``quantiles`` of a regressor.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ImportError
            If onnx is not installed, or onnxscript, which a `module` of your own needs.
        ValueError
            If a graph can't hold the encoder, the module or the labels, or the file would be larger
            than 2 GB.
        OSError
            If the file can't be written.

        See Also
        --------
        save : Save the estimator for this package.

        Notes
        -----
        The graph uses opset 18 and takes any number of rows. Its inputs are

        - a column each, of shape (n_rows, 1) and named as in the training table, where that had
          names, or else x0, x1, …. Numbers and truth values are float64 with NaN for a gap; dates
          and durations int64, in microseconds (dates since 1970, UTC), with the smallest int64 for
          a gap; categories strings with "" for a gap. If "" was a level, or a name is that of an
          output, the metadata tell another one. Columns that tell nothing are no inputs.
        - or ``X`` of shape (n_rows, n_features), if the columns have no names and hold numbers
          only: float64 with NaN for gaps. Without an encoder it is of the shape of the training
          rows, without gaps, and of the type of the module's weights, float32 mostly.

        Outputs of a classifier are ``label``, ``probabilities`` (n_rows, n_classes) and ``members``
        (n_members, n_rows, n_classes); those of a regressor ``mean``, ``std``, ``quantiles`` if
        asked for, and ``members`` (n_members, n_rows). Rows with infinite numbers, which `predict`
        refuses, get NaN. ``docs/saving.md`` has an example and describes the metadata.
        """
        now = self._as_fitted()
        names = getattr(now, "feature_names_in_", None) if now._is_table_ else None
        persistence.write_onnx(
            path,
            now.fitted_,
            kind=type(now).__name__,
            version=sklearn_fordes.__version__,
            names=[f"x{i}" for i in range(now.n_features_in_)] if names is None else names.tolist(),
            is_named=names is not None,
            quantiles=np.atleast_1d(np.asarray(quantiles, dtype=np.float64)),
            **{name: vars(now)[f"{name}_"] for name in _OF_TARGETS if f"{name}_" in vars(now)},
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: Any = None, module: Any = None) -> Self:
        """Load a fitted estimator of this class that `save` wrote.

        Parameters
        ----------
        path : str or path-like
        device : str or torch.device, optional
            Where to predict and train, the parameter `device` of the estimator. By default the
            saved one, and the CPU where that is not available.
        module : type, callable or torch.nn.Module, optional
            The `module` of the saved estimator, if it had one of your own: a file holds its
            weights and no code.

        Returns
        -------
        estimator : FoRDEClassifier or FoRDERegressor
            On the same device it predicts the same numbers as the saved one.

        Raises
        ------
        ValueError
            If the file is damaged, of a newer format or of another class; if `module` is missing
            or makes another network; or if this machine does not have the device given.
        OSError
            If the file can't be read.

        See Also
        --------
        save : Save an estimator.
        """
        loaded: Self = load_one_of([cls], path, device, module)
        return loaded

    def __getstate__(self) -> dict[str, Any]:
        """Replace the net, whose own pickle hides another, by arrays and numbers."""
        state = dict(super().__getstate__())
        if "_net_" in state:
            net_state = training.TrainingState.of(state.pop("_net_"))
            state["_training_state_"] = net_state._replace(members={}).to_dict()
        return {**state, "_sklearn_fordes_version": sklearn_fordes.__version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        written_by = state.pop("_sklearn_fordes_version", "unknown")
        if written_by != sklearn_fordes.__version__:
            warnings.warn(
                InconsistentVersionWarning(
                    estimator_name=type(self).__name__,
                    current_sklearn_version=f"{sklearn_fordes.__version__} of sklearn_fordes",
                    original_sklearn_version=f"{written_by} of sklearn_fordes",
                ),
                stacklevel=2,
            )
        # All but the moments is small, and used to index tensors.
        parts = {
            name: without_maps(part, copied=name != "_training_state_")
            for name, part in state.items()
        }
        # Parameters that a version before did not have.
        new = {p.name: p.default for p in signature(type(self)).parameters.values()}
        super().__setstate__({**new, **parts})
        if "fitted_" in state:
            with suppress(ValueError):  # This machine may not have the device.
                self.fitted_.members.to(inference.available_device(self.device))


def load_one_of(
    kinds: Iterable[Any], path: str | os.PathLike[str], device: Any = None, module: Any = None
) -> Any:
    """Load an estimator of one of some classes (see `Saving.load`)."""
    if device is not None:
        inference.available_device(device)  # It raises if there is none.
    name, state = persistence.read(path)
    known = {kind.__name__: kind for kind in kinds}
    if name not in known:
        raise ValueError(
            f"Got {os.fspath(path)!r} of a {name!r}, but expected one of {sorted(known)}: call "
            "load of its class, or sklearn_fordes.load."
        )
    saved = _module_of(state)
    if (saved is None) != (module is None):
        raise ValueError(
            f"Got {os.fspath(path)!r} of an estimator with module={saved}, and module={module!r}, "
            "but expected both or neither: a file holds no code."
        )
    # A server may load before it forks. A module of the user's own is evaluated, with all threads.
    with inference.one_thread() if module is None else nullcontext():
        with persistence.refusing(path), inference.ordinary_state(grad=True):
            estimator = _estimator_of(known[name], state, module)
        if device is not None:
            estimator.device = device
        # This machine may not have the saved device.
        with inference.ordinary_state(grad=True), suppress(ValueError):
            estimator.fitted_.members.to(inference.available_device(estimator.device))
    return estimator


def _module_of(state: dict[str, Any]) -> str | None:
    """Return the name of the module of the user's own, if there is one."""
    parts = (state.get(part) for part in ("then", "parameters"))
    modules = (part.get("module") for part in parts if isinstance(part, dict))
    return next((m.name for m in modules if isinstance(m, persistence.UsersModule)), None)


def _state_of(estimator: Any, include_training_state: bool) -> dict[str, Any]:
    """Return all of a fitted estimator as values that a file can hold, or that it refuses."""
    attributes = estimator.__getstate__()  # With the training state as values.
    if not include_training_state:
        attributes["_training_state_"] = {**attributes["_training_state_"], "optimizer": {}}
    now, then = (_parameters_of(one) for one in (estimator, estimator._then_))
    if not all(_must_be_kept(name, value) for name, value in then.items()):
        estimator._validate_params()  # Parameters of now are used for those of then.
    fitted = estimator.fitted_
    members = fitted.members.__getstate__()
    del members["make_member"]
    kept = {n: value if _must_be_kept(n, value) else now.get(n) for n, value in then.items()}
    if then["module"] is None:  # Another version may have another default network.
        recipe = estimator._then_._recipe.items()
        kept = {**{f"module__{name}": value for name, value in recipe}, **kept}
    return {
        "parameters": now,
        "then": kept,
        "learnt": {name: attributes[name] for name in LEARNT_VALUES if name in attributes},
        "fitted": {name: getattr(fitted, name) for name in _FITTED},
        "members": members,
    }


def _must_be_kept(name: str, value: Any) -> bool:
    """Return whether a parameter of the last fit is saved, and not replaced by that of now."""
    return name.startswith(_OF_THE_NETWORK) or persistence.can_pack(value)


def _parameters_of(estimator: Any) -> dict[str, Any]:
    parameters: dict[str, Any] = estimator.get_params(deep=False)
    module = parameters["module"]
    if module is not None:
        name = getattr(module, "__qualname__", type(module).__qualname__)
        parameters["module"] = persistence.UsersModule(name)
    parameters["checkpoint_dir"] = None  # A folder of this machine.
    return parameters


def _estimator_of(kind: Any, state: dict[str, Any], module: Any) -> Any:
    """Return the estimator that a state describes, with members on the CPU."""
    is_older = module is None and not _RECIPE_OF_OLDER_FILES.keys() <= state["then"].keys()
    recipe = _RECIPE_OF_OLDER_FILES if is_older else {}
    now, then = (
        _with_parameters(kind, {**recipe, **state[part]}, module) for part in ("parameters", "then")
    )
    then._validate_params()
    learnt, parts, members = state["learnt"], state["fitted"], state["members"]
    encoder, likelihood, shape, rows_per_chunk = (parts[name] for name in _FITTED)
    vars(now).update(learnt, _then_=then, encoder_=encoder)
    _check({**_checks_of_learnt(now), **_checks_of_fitted(now, then, **parts)})
    arrays = [*members["parameters"].values(), *members["buffers"].values()]
    with persistence.limited_size(sum(array.size for array in arrays)):
        make_member = then._member_factory(
            encoder, shape, likelihood.n_outputs, inference.available_device("cpu")
        )
        ensemble = persistence.members_from(make_member, members)
    training_state = training.TrainingState.from_dict(learnt["_training_state_"])
    persistence.check_training_state(training_state._asdict(), ensemble)
    now.fitted_ = inference.FittedEnsemble(encoder, ensemble, likelihood, shape, rows_per_chunk)
    if module is not None:  # The weights of the default network say what it returns.
        with inference.ordinary_state(grad=False):
            outputs = ensemble(now.fitted_.as_inputs(np.zeros((2, *shape))))
        _check({"outputs": outputs.shape == (ensemble.n_members, 2, likelihood.n_outputs)})
    return now


def _with_parameters(kind: Any, parameters: dict[str, Any], module: Any) -> Any:
    saved = parameters["module"]
    if not isinstance(saved, persistence.UsersModule | None):
        raise ValueError(f"its module is {saved!r}")
    # A file must not name a folder that a later fit writes in.
    not_from_file = {"module": None if saved is None else module, "checkpoint_dir": None}
    return kind(**{**_OF_OLDER_FILES, **parameters, **not_from_file})


def _check(are_right: dict[str, Any]) -> None:
    wrong = [name for name, is_right in are_right.items() if not is_right]
    if wrong:
        raise ValueError(f"its {wrong} are of another type, shape or size than expected")


def _checks_of_learnt(now: Any) -> dict[str, Any]:
    """Return whether each attribute is what a fit sets."""
    found, optional = vars(now).keys() & {*LEARNT_VALUES}, {"feature_names_in_"}
    of_class, of_number = {"classes_"}, {"target_mean_", "target_scale_"}
    needed = {*LEARNT_VALUES} - optional - (of_number if is_classifier(now) else of_class)
    names, history = getattr(now, "feature_names_in_", None), now.history_
    checks = {
        "attributes": found - optional == needed,
        "n_features_in_": type(now.n_features_in_) is int and now.n_features_in_ >= 1,
        "feature_names_in_": names is None
        or (names.shape == (now.n_features_in_,) and {*map(type, names)} == {str}),
        "_is_table_": type(now._is_table_) is bool,
        "_is_sparse_taken_": type(now._is_sparse_taken_) is bool,
        "_importances_": _are_importances(now._importances_, now.n_features_in_),
        "history_": type(history) is list and all(type(epoch) is dict for epoch in history),
        "n_iter_": type(now.n_iter_) is int and now.n_iter_ == len(history),
    }
    if is_classifier(now):
        classes = now.classes_
        is_sorted = classes.ndim == 1 and np.array_equal(np.unique(classes), classes)
        return {**checks, "classes_": is_sorted and len(classes) >= 2}
    is_scale = np.finfo(np.float64).tiny < now.target_scale_ < np.inf
    return {**checks, "target_mean_": np.isfinite(now.target_mean_), "target_scale_": is_scale}


def _checks_of_fitted(
    now: Any, then: Any, encoder: Any, likelihood: Any, input_shape: Any, rows_per_chunk: Any
) -> dict[str, Any]:
    """Return whether each part of what was learnt fits the others."""
    expected = then._copied(classes_=getattr(now, "classes_", ()))._likelihood()
    width = len(encoder.column_map_) if isinstance(encoder, TabularEncoder) else now.n_features_in_
    is_whole = type(input_shape) is tuple and {type(size) for size in input_shape} == {int}
    return {
        "callbacks": not then.callbacks,
        "encoder": isinstance(encoder, TabularEncoder | FunctionTransformer)
        and encoder.n_features_in_ == now.n_features_in_
        # Without an encoder rows come as arrays.
        and (_names(encoder) == _names(now) or not (_names(encoder) or now._is_table_)),
        "likelihood": type(likelihood) is type(expected)
        and likelihood.n_outputs == expected.n_outputs
        and getattr(likelihood, "target", expected.kind)
        in (*particles.GRADIENT_TARGETS, "regressor"),
        "input_shape": is_whole
        and min(input_shape) >= 1
        and input_shape[0] == width
        and (len(input_shape) == 1 or then.module is not None)
        and math.prod(input_shape) <= _LARGEST_ROW,
        "rows_per_chunk": type(rows_per_chunk) is int and rows_per_chunk >= 1,
    }


def _are_importances(saved: Any, n_features: int) -> bool:
    """Whether these are shares of columns for each member, or the reason why there are none."""
    if not isinstance(saved, np.ndarray):
        return isinstance(saved, str)
    are_shares = saved.ndim == 2 and saved.shape[1] == n_features and saved.dtype == np.float64
    return are_shares and bool((saved >= 0).all() and np.allclose(saved.sum(axis=1), 1))


def _names(fitted: Any) -> list[str]:
    return list(getattr(fitted, "feature_names_in_", []))
