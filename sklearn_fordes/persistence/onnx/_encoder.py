"""Columns of a table as inputs of a graph, and their codes, step by step as `TabularEncoder`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.preprocessing import FunctionTransformer

from sklearn_fordes.persistence.onnx._graph import Graph, Value
from sklearn_fordes.preprocessing import HALFWAY, LOGARITHMIC_CLIP, TabularEncoder

# Time is counted in microseconds, as the encoder counts it, and a gap is the NaT of numpy.
_GAP_IN_TIME = np.iinfo(np.int64).min
_SECOND = 10**6
_DAY = 86400 * _SECOND
_UNITS = {"date": "microseconds since 1970-01-01 UTC", "duration": "microseconds"}
# Numbers beyond are as good as infinite, and their squares are finite.
_LARGEST = 1e150


class Rows(NamedTuple):
    """The encoded rows of a table, and how it is given to a graph.

    Parameters
    ----------
    values : Value of shape (B, ...)
        Of type float32 or float64.
    is_refused : Value of shape (B, 1)
        Whether an estimator would refuse the row; None if there are no numbers.
    columns : list of dict
        Name, input and kind of each column, and what stands for a gap in it.
    """

    values: Value
    is_refused: Value | None
    columns: list[dict[str, Any]]


def encode(
    graph: Graph,
    encoder: Any,
    names: list[str],
    *,
    is_named: bool,
    shape: tuple[int, ...],
    dtype: Any,
) -> Rows:
    """Add inputs to a graph, and what an encoder makes of them.

    Parameters
    ----------
    graph : Graph
    encoder : TabularEncoder or FunctionTransformer
        Fitted; the latter changes nothing.
    names : list of str
        Of the columns' inputs.
    is_named : bool
        Whether each column is an input, whatever it holds. Otherwise numbers come as one input X.
    shape : tuple of int
        Of an encoded row.
    dtype : numpy.dtype
        Of the members.

    Returns
    -------
    Rows

    Raises
    ------
    ValueError
        If the encoder is of another class.
    """
    if type(encoder) is TabularEncoder:
        return _encoded(graph, encoder, names, is_named)
    if not _is_identity(encoder):
        raise ValueError(
            f"Got an encoder of type {type(encoder).__name__}, but expected a TabularEncoder or "
            "none, which a graph of ONNX can hold: encode before the estimator, in a pipeline, and "
            "export both parts."
        )
    if is_named:
        values = graph.concat([graph.input(name, dtype, (1,)) for name in names], axis=1)
    else:
        values = graph.input("X", dtype, shape)
    # Other rows than those of tables have no columns.
    names = names if len(shape) == 1 else []
    columns = [{"kind": "number", "input": name if is_named else "X"} for name in names]
    is_refused = values.call("IsNaN") | values.call("IsInf")
    return Rows(values, _any_of_row(is_refused.call("Flatten")), columns)


def _is_identity(encoder: Any) -> bool:
    return type(encoder) is FunctionTransformer and encoder.get_params() == (
        FunctionTransformer().get_params()
    )


def _any_of_row(are: Value) -> Value:
    """Return whether any of (B, n) truth values is true, (B, 1)."""
    return are.cast(np.int32).reduce("Max", 1, keepdims=True).cast(np.bool_)


def _encoded(graph: Graph, encoder: TabularEncoder, names: list[str], is_named: bool) -> Rows:
    is_named = is_named or bool(np.isin(encoder.kinds_, ["category", *_UNITS]).any())
    columns = _described(encoder, names, is_named)
    blocks: list[Value] = []
    is_refused = None
    numeric = _numeric(encoder, columns)
    if numeric:
        is_missing, numbers = _read(graph, numeric, columns, is_named)
        if numbers is not None:
            is_refused = _any_of_row(numbers.call("IsInf"))
        blocks = _codes(encoder, numeric, is_missing, numbers)
    categories = [column for column in columns if column["kind"] == "category"]
    for column, levels in zip(categories, encoder.levels_, strict=True):
        if "input" in column:
            labels = graph.input(column["input"], np.str_, (1,))
            blocks.append(_levels(graph, labels, column["gap"], levels))
    return Rows(graph.concat(blocks, axis=1), is_refused, columns)


def _described(encoder: TabularEncoder, names: list[str], is_named: bool) -> list[dict[str, Any]]:
    """Return kind and input of each column, without an input if its values change nothing."""
    is_read = np.isin(np.arange(len(names)), encoder.column_map_)
    levels = iter(zip(encoder.known_levels_, encoder.rare_levels_, strict=True))
    columns: list[dict[str, Any]] = []
    for kind, name, has_input in zip(encoder.kinds_.tolist(), names, is_read, strict=True):
        column: dict[str, Any] = {"kind": kind}
        if has_input or not is_named:
            column["input"] = name if is_named else "X"
        if kind in _UNITS:
            column |= {"unit": _UNITS[kind], "gap": _GAP_IN_TIME}
        elif kind == "category":
            column["gap"] = _gap_in_text({level for some in next(levels) for level in some})
        columns.append(column)
    return columns


class _Numeric(NamedTuple):
    """A column of numbers, dates or durations that is read."""

    position: int
    column: dict[str, Any]
    parts: list[str]
    has_gaps: bool


def _numeric(encoder: TabularEncoder, columns: list[dict[str, Any]]) -> list[_Numeric]:
    positions = np.flatnonzero(~np.isin(encoder.kinds_, ["category", "empty"]))
    found = zip(positions.tolist(), encoder.parts_, encoder.has_gaps_.tolist(), strict=True)
    return [
        _Numeric(position, columns[position], parts, has_gaps)
        for position, parts, has_gaps in found
        if parts or has_gaps
    ]


def _read(
    graph: Graph, numeric: list[_Numeric], columns: list[dict[str, Any]], is_named: bool
) -> tuple[Value, Value | None]:
    """Return whether cells are missing (B, C), and the numbers of all columns, NaN where missing.

    There are no numbers, but gaps perhaps, if the only columns are dates that never changed.
    """
    if not is_named:
        X = graph.input("X", np.float64, (len(columns),))
        if len(numeric) < len(columns):
            X = X.take([part.position for part in numeric], axis=1)
        return X.call("IsNaN"), X
    are_missing, numbers = [], []
    for _, column, parts, _ in numeric:
        if column["kind"] == "number":
            number = graph.input(column["input"], np.float64, (1,))
            is_missing, made = number.call("IsNaN"), [number]
        else:
            time = graph.input(column["input"], np.int64, (1,))
            is_missing = time.equals(_GAP_IN_TIME)
            known = graph.where(is_missing, 0, time)
            made = [graph.where(is_missing, np.nan, _part(known, name)) for name in parts]
        are_missing.append(is_missing)
        numbers += made
    return graph.concat(are_missing, axis=1), graph.concat(numbers, axis=1) if numbers else None


def _part(time: Value, name: str) -> Value:
    """Return seconds of a duration, or a part of a date, as floats."""
    if name in ("", "elapsed"):
        return time.cast(np.float64) / (_DAY / 1.0 if name else _SECOND / 1.0)
    time_of_day = time.call("Mod", _DAY)
    if name == "hour":
        return time_of_day.cast(np.float64) / (_DAY / 24)
    day = (time - time_of_day) / _DAY
    if name == "weekday":
        return (day + 3).call("Mod", 7).cast(np.float64)
    return _month_or_year(day, name).cast(np.float64)


def _month_or_year(day: Value, name: str) -> Value:
    """Return a part of days since 1970, of the years 1 to 9999.

    Months are counted from March on, in eras of 400 years (Hinnant: chrono-compatible low-level
    date algorithms, 2013). Integers are divided without their rest.
    """
    day = day + 719468
    era = day / 146097
    day = day - era * 146097
    year = (day - day / 1460 + day / 36524 - day / 146096) / 365
    day = day - (year * 365 + year / 4 - year / 100)
    month = (day * 5 + 2) / 153
    is_of_this_year = month < 10
    if name == "month":
        return day.graph.where(is_of_this_year, month + 3, month - 9)
    return year + era * 400 + day.graph.where(is_of_this_year, 0, 1)


def _codes(
    encoder: TabularEncoder, numeric: list[_Numeric], is_missing: Value, numbers: Value | None
) -> list[Value]:
    """Return the codes of numbers, and indicators of gaps, as `TabularEncoder` computes them."""
    blocks, unknown = [], is_missing.cast(np.float64)
    if numbers is not None:
        known = numbers.graph.where(numbers.call("IsNaN"), encoder.center_, numbers)
        code = _scaled_code(encoder, known)
        # As in the encoder: another network does not know what an indicator means.
        if encoder.gap_indicators == "all" and encoder.n_samples_seen_:
            degree = _degree(encoder, known)
            parts = [part.parts for part in numeric]
            of_columns, owner = _of_columns(degree, parts)
            code = code * (1.0 - of_columns.take(owner, axis=1))
            unknown = unknown.call("Max", of_columns)
        blocks.append(code.cast(np.float32))
    with_gaps = [index for index, part in enumerate(numeric) if part.has_gaps]
    if with_gaps:
        blocks.append(unknown.take(with_gaps, axis=1).cast(np.float32))
    return blocks


def _scaled_code(encoder: TabularEncoder, known: Value) -> Value:
    """Return numbers without gaps clipped, centred, scaled, bounded, and mixed with ranks."""
    z: Value = _from_center(encoder, known.clip(encoder.low_, encoder.high_)).clip(
        -_LARGEST, _LARGEST
    )
    code: Value = z
    is_long = encoder.is_long_tailed_
    if is_long.any():
        code = z.graph.where(is_long, _asinh(z), z)
    bound = np.where(is_long, LOGARITHMIC_CLIP * encoder.clip, float(encoder.clip))
    share = code / bound
    code = code / (share * share + 1.0).call("Sqrt")
    is_ranked = np.isin(np.arange(len(is_long)), encoder.continuous_) & ~is_long
    if not (encoder.rank_share and is_ranked.any()):
        return code
    ranked, others = np.flatnonzero(is_ranked), np.flatnonzero(~is_ranked)
    score = _interpolated(
        z.take(ranked, axis=1), encoder.rank_numbers_[ranked], encoder.rank_scores_[ranked]
    )
    of_ranked = code.take(ranked, axis=1)
    blocks = [of_ranked + (score - of_ranked) * float(encoder.rank_share)]
    if len(others):
        blocks.append(code.take(others, axis=1))
    order = np.argsort(np.concatenate([ranked, others]))
    return z.graph.concat(blocks, axis=1).take(order, axis=1)


def _from_center(encoder: TabularEncoder, numbers: Any) -> Any:
    # Halves, since the difference of two numbers may be beyond double precision.
    return (numbers / 2.0 - encoder.center_ / 2) * encoder.scale_ * 2.0


def _asinh(z: Value) -> Value:
    """Return the inverse hyperbolic sine, which onnxruntime lacks in double precision."""
    size = z.call("Abs")
    unit = size.call("Max", 1.0)  # Squares of larger numbers would overflow.
    size, one = size / unit, unit.call("Reciprocal")
    logarithm = (size + (size * size + one * one).call("Sqrt")).call("Log")
    return z.call("Sign") * (unit.call("Log") + logarithm)


def _interpolated(z: Value, knots: Any, scores: Any) -> Value:
    """Return scores of numbers (B, R) between knots (R, K), constant beyond them.

    Each distance between two knots adds its share of the scores' difference.
    """
    share: Value = ((z.new_axis(2) - knots[:, :-1]) / np.diff(knots)).clip(0.0, 1.0)
    score: Value = (share * np.diff(scores)).reduce("Sum", 2) + scores[:, 0]
    return score


def _degree(encoder: TabularEncoder, known: Value) -> Value:
    """Return how far numbers (B, N) are unknown, as `degree_of` and `overshoot` do."""
    largest, is_long = np.finfo(np.float64).max, encoder.is_long_tailed_
    z: Value = _from_center(encoder, known).clip(-largest, largest)
    if is_long.any():
        z = known.graph.where(is_long, _asinh(z), z)
    with np.errstate(over="ignore"):
        ends = [_from_center(encoder, v) for v in (encoder.low_, encoder.high_)]
    low, high = (np.where(is_long, np.arcsinh(v), v).clip(-_LARGEST, _LARGEST) for v in ends)
    z = z.clip(-_LARGEST, _LARGEST)
    distance = (z - high).call("Max", 0.0) + (low - z).call("Max", 0.0)
    is_constant = encoder.scale_ == 0
    if is_constant.any():
        is_other = (known < encoder.low_) | (known > encoder.high_)
        of_constants = known.graph.where(is_other, np.where(is_constant, _LARGEST, 0.0), 0.0)
        distance = distance.call("Max", of_constants)
    square = distance * distance
    degree: Value = square / (square + HALFWAY**2)
    return degree


def _of_columns(degree: Value, parts: list[list[str]]) -> tuple[Value, Any]:
    """Return the largest degree of the numbers of each column, and the column of each number."""
    sizes = [len(names) for names in parts]
    owner = np.repeat(np.arange(len(parts)), sizes)
    if sizes == [1] * len(parts):
        return degree, owner
    first = np.minimum(np.cumsum(sizes) - sizes, len(owner) - 1)
    # Shorter columns repeat their last number, and those without any have a degree of zero.
    steps = np.minimum(np.arange(max(sizes)), np.maximum(sizes, 1)[:, None] - 1)
    largest = degree.take(first[:, None] + steps, axis=1).reduce("Max", 2)
    return largest * (np.array(sizes) > 0).astype(np.float64), owner


def _gap_in_text(levels: set[str]) -> str:
    """Return the text that stands for a gap: the empty one, if it is no level."""
    gap = ""
    while gap in levels:
        gap = f"<{gap or 'missing'}>"
    return gap


def _levels(graph: Graph, labels: Value, gap: str, levels: Any) -> Value:
    """Return indicators of levels, or their shares, as `Levels.encode` does."""
    other = {name: len(levels.known) + index for index, name in enumerate(levels.other)}
    index = labels.call(
        "LabelEncoder",
        domain="ai.onnx.ml",
        keys_strings=[*levels.known, gap],
        values_int64s=[*range(len(levels.known)), other.get("missing", -1)],
        default_int64=other.get("infrequent", -1),
    )
    indicators = index.equals(np.arange(len(levels.share))).cast(np.float32)
    return graph.where(index < 0, levels.share.astype(np.float32)[None], indicators)
