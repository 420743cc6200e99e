"""An encoder as plain values and arrays, and back."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from sklearn_fordes.preprocessing._columns import CATEGORY, EMPTY
from sklearn_fordes.preprocessing._encoder import TabularEncoder
from sklearn_fordes.preprocessing._layout import column_map
from sklearn_fordes.preprocessing._numbers import DATE_PARTS
from sklearn_fordes.preprocessing._values import DATE, DURATION, NUMBER

_PARAMETERS = set(inspect.signature(TabularEncoder).parameters)
_LEARNT = {
    "kinds_",
    "parts_",
    "low_",
    "high_",
    "center_",
    "scale_",
    "is_long_tailed_",
    "rank_numbers_",
    "rank_scores_",
    "has_gaps_",
    "continuous_",
    "known_levels_",
    "other_levels_",
    "level_shares_",
    "column_map_",
    "training_shares_",
    "n_features_in_",
    "n_samples_seen_",
    "rare_levels_",
    "unseen_shares_",
    "ordinary_surprise_",
    "samples_",
}
# What encoders of older versions lack, oldest first: parameters with what they did, and attributes
# that are zeros, of the type and the shape given, for which "numbers", "categories" and "encoded"
# stand for the numbers of these.
_NEWER: list[tuple[dict[str, Any], dict[str, tuple[Any, tuple[Any, ...]]]]] = [
    ({"gap_indicators": "frequent"}, {"is_long_tailed_": (bool, ("numbers",))}),
    (
        {"rank_share": 0.0},
        {"rank_numbers_": (float, ("numbers", 2)), "rank_scores_": (float, ("numbers", 2))},
    ),
    (
        {},
        {
            "n_samples_seen_": (int, ()),
            "rare_levels_": (list, ("categories",)),
            "unseen_shares_": (float, ("categories",)),
            "ordinary_surprise_": (float, (2,)),
            "samples_": (np.float32, (0, "encoded")),
        },
    ),
]
_ROUNDING = 1e-12
_OTHERS = {"feature_names_in_", "_sklearn_output_config"}


def encoder_state(encoder: TabularEncoder) -> dict[str, Any]:
    """Return parameters, and what was learnt, as lists, arrays, numbers and strings.

    Parameters
    ----------
    encoder : TabularEncoder
        Fitted or not.

    Returns
    -------
    dict
        By the names of attributes.
    """
    known = _PARAMETERS | _LEARNT | _OTHERS
    return {name: value for name, value in vars(encoder).items() if name in known}


def encoder_from(state: dict[str, Any]) -> TabularEncoder:
    """Make the encoder that `encoder_state` described.

    Parameters
    ----------
    state : dict

    Returns
    -------
    TabularEncoder
        It encodes as the one described.

    Raises
    ------
    ValueError
        If names, types or shapes do not fit together.
    """
    state = _completed(state)
    learnt = state.keys() & (_LEARNT | {"feature_names_in_"})
    if state.keys() - _LEARNT - _OTHERS != _PARAMETERS or (learnt and not learnt >= _LEARNT):
        raise ValueError(f"an encoder with the attributes {sorted(state)}")
    encoder = TabularEncoder(**{name: state[name] for name in _PARAMETERS})
    encoder._check_parameters()
    encoder.__dict__.update(state)
    config = state.get("_sklearn_output_config", {})
    is_known = config in ({}, *({"transform": name} for name in ("default", "pandas", "polars")))
    faults = [] if is_known else ["_sklearn_output_config"]
    if learnt:
        faults += [name for name, is_right in _checks(encoder).items() if not is_right]
    if faults:
        raise ValueError(f"an encoder whose {faults} do not fit the others")
    return encoder


def _completed(state: dict[str, Any]) -> dict[str, Any]:
    """Add what encoders of older versions did without a name for it, if it is one of these."""
    is_fitted = "scale_" in state
    for index, (parameters, attributes) in enumerate(_NEWER):
        # What is newer still is not there either, or the state is not that of any version.
        if not any(state.keys() & {*new, *learnt} for new, learnt in _NEWER[index:]):
            state = {**state, **parameters}
            if is_fitted:
                sizes = {
                    "numbers": np.size(state["scale_"]),
                    "categories": len(state["known_levels_"]),
                    "encoded": np.size(state["column_map_"]),
                }
                for name, (dtype, axes) in attributes.items():
                    shape = tuple(sizes.get(axis, axis) for axis in axes)
                    state[name] = _zeros(dtype, shape)
    return state


def _checks(encoder: TabularEncoder) -> dict[str, bool]:
    """Return whether each attribute has the type, shape and values that the others ask for."""
    kinds = encoder.kinds_
    n_columns, is_number = len(kinds), ~np.isin(kinds, [CATEGORY, EMPTY])
    n_categories = int(np.count_nonzero(kinds == CATEGORY))
    n_numbers = sum(map(len, encoder.parts_))
    names = getattr(encoder, "feature_names_in_", np.full(n_columns, "", dtype=object))
    levels = encoder.levels_
    texts = [text for level in levels for text in level.columns]
    n_encoded = len(encoder.column_map_)
    n_knots = np.shape(encoder.rank_numbers_)[-1:]
    return {
        "kinds_": kinds.ndim == 1
        and set(kinds.tolist()) <= {NUMBER, DATE, DURATION, CATEGORY, EMPTY},
        "n_features_in_": encoder.n_features_in_ == n_columns,
        "feature_names_in_": names.shape == (n_columns,)
        and all(isinstance(name, str) for name in names),
        "parts_": len(encoder.parts_) == np.count_nonzero(is_number)
        and all(
            set(parts) <= set(DATE_PARTS) if kind == DATE else parts == [""]
            for kind, parts in zip(kinds[is_number], encoder.parts_, strict=True)
        ),
        **{
            name: _is_array(getattr(encoder, name), "f", n_numbers)
            and bool(np.isfinite(getattr(encoder, name)).all())
            for name in ("low_", "high_", "center_", "scale_")
        },
        "is_long_tailed_": _is_array(encoder.is_long_tailed_, "b", n_numbers),
        **{
            name: n_knots >= (2,)
            and _is_array(getattr(encoder, name), "f", n_numbers, *n_knots)
            and bool(np.isfinite(getattr(encoder, name)).all())
            # Scores of older versions may fall by the rounding of their difference.
            and bool((np.diff(getattr(encoder, name)) >= -_ROUNDING).all())
            for name in ("rank_numbers_", "rank_scores_")
        },
        "has_gaps_": _is_array(encoder.has_gaps_, "b", len(encoder.parts_)),
        "continuous_": _is_array(encoder.continuous_, "i")
        and set(encoder.continuous_.tolist()) <= set(range(n_numbers)),
        "known_levels_": len(levels) == n_categories and all(isinstance(t, str) for t in texts),
        "level_shares_": all(_is_array(v.share, "f", len(v.columns)) for v in levels),
        "column_map_": np.array_equal(
            column_map(kinds, encoder.parts_, encoder.has_gaps_, levels), encoder.column_map_
        )
        and _is_array(encoder.column_map_, "i", n_encoded),
        "training_shares_": _is_array(encoder.training_shares_, "f", 3, n_columns),
        **_checks_of_support(encoder, n_categories, n_encoded),
    }


def _checks_of_support(
    encoder: TabularEncoder, n_categories: int, n_encoded: int
) -> dict[str, bool]:
    """Return the same for what is known of unknown cells."""
    return {
        "n_samples_seen_": type(encoder.n_samples_seen_) is int and encoder.n_samples_seen_ >= 0,
        "rare_levels_": len(encoder.rare_levels_) == n_categories
        and all(isinstance(text, str) for rare in encoder.rare_levels_ for text in rare),
        "unseen_shares_": _is_array(encoder.unseen_shares_, "f", n_categories)
        and bool((encoder.unseen_shares_ >= 0).all() and (encoder.unseen_shares_ <= 1).all()),
        "ordinary_surprise_": _is_array(encoder.ordinary_surprise_, "f", 2)
        and bool(np.isfinite(encoder.ordinary_surprise_).all())
        and bool((encoder.ordinary_surprise_ >= 0).all()),
        "samples_": _is_array(encoder.samples_, "f", len(encoder.samples_), n_encoded)
        and bool(np.isfinite(encoder.samples_).all()),
    }


def _zeros(dtype: Any, shape: tuple[int, ...]) -> Any:
    if dtype is list:
        return [[] for _ in range(*shape)]
    return np.zeros(shape, dtype) if shape else dtype(0)


def _is_array(value: Any, kind: str, *shape: int) -> bool:
    is_array = isinstance(value, np.ndarray) and value.dtype.kind == kind
    return is_array and (value.shape == shape if shape else value.ndim == 1)
