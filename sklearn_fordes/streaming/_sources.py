"""Kinds of sources: what pyarrow, polars, numpy and Python's iterables offer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_fordes.streaming._blocks import Source, SourceOfParts, rows_of_a_block

# Of row groups that are open at once. Each of them is read as a whole.
_BYTES_AT_ONCE = 1 << 28


class ArrowDataset(SourceOfParts):
    """A dataset of pyarrow: a part is a row group of a Parquet file, or another file.

    Parameters
    ----------
    dataset : pyarrow.dataset.Dataset
        One that was filtered is read in its own order.
    """

    name = "the dataset"

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        try:
            fragments = [*dataset.get_fragments()]
        except ValueError:  # pyarrow refuses this for a filtered dataset.
            self._fragments: list[Any] = []
            return
        self._fragments = [  # Its metadata, and no rows, are read for this.
            part
            for fragment in fragments
            for part in getattr(fragment, "split_by_row_group", lambda f=fragment: [f])()
        ]
        self.n_parts = len(self._fragments)
        largest = max(map(_bytes_of, self._fragments), default=1)
        self.parts_at_once = max(1, min(type(self).parts_at_once, _BYTES_AT_ONCE // largest))

    def read_part(self, part: int) -> Iterator[Any]:
        """Yield tables with the rows of a part."""
        batches = self._fragments[part].scanner(schema=self.dataset.schema, **self._settings)
        yield from _tables_of(batches.to_batches(), self.dataset.schema)

    def read_all(self) -> Iterator[Any]:
        """Yield blocks in the dataset's own order."""
        if self.n_parts is not None:
            # One by one: a scanner of the whole reads row groups ahead.
            yield from super().read_all()
            return
        batches = self.dataset.scanner(**self._settings)
        yield from _tables_of(batches.to_batches(), batches.projected_schema)

    @property
    def _settings(self) -> dict[str, Any]:
        # Each batch that is read ahead takes memory, and threads may change their order.
        n_rows = rows_of_a_block(len(self.dataset.schema.names))
        files: Any = getattr(self.dataset, "format", None)
        options: Any = None
        if getattr(files, "default_extname", None) == "parquet":
            options = copy(files.default_fragment_scan_options)
            options.pre_buffer = False  # It keeps all of a file that was read.
        return {
            "fragment_scan_options": options,
            "batch_size": n_rows,
            "batch_readahead": 1,
            "fragment_readahead": 1,
            "use_threads": False,
        }


class ArrowStream(Source):
    """What has ``__arrow_c_stream__``, from its beginning each time, such as a query of duckdb's.

    Parameters
    ----------
    stream : object
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.name = f"the {type(stream).__name__}"

    def read_all(self) -> Iterator[Any]:
        """Yield blocks of one length, whatever the source yields at once."""
        reader = _pyarrow(self.name).RecordBatchReader.from_stream(self.stream)
        try:
            yield from _tables_of(reader, reader.schema)
        finally:
            reader.close()  # A connection may have one open result only.


class PolarsLazyFrame(Source):
    """A query of polars, which runs anew each time.

    Parameters
    ----------
    frame : polars.LazyFrame
    """

    name = "the LazyFrame"

    def __init__(self, frame: Any) -> None:
        if not hasattr(frame, "collect_batches"):
            raise TypeError(
                "Got a LazyFrame of a version of polars that can't collect it in batches, but "
                "expected a later version, a frame (collect it), or a pyarrow dataset."
            )
        self.frame = frame

    def read_all(self) -> Iterator[Any]:
        """Yield blocks of one length."""
        n_rows = rows_of_a_block(len(self.frame.collect_schema().names()))
        frames = self.frame.collect_batches(chunk_size=n_rows, maintain_order=True)
        tables = (frame.to_arrow() for frame in frames)
        yield from _of_one_length(batch for table in tables for batch in table.to_batches())


class Array(SourceOfParts):
    """An array, such as one that is mapped from a file: a part is a slice of it.

    Parameters
    ----------
    array : ndarray of shape (n_rows, n_columns)
    """

    name = "the array"

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array
        self._n_rows = rows_of_a_block(array.shape[1])
        self.n_parts = -(-len(array) // self._n_rows)

    def read_part(self, part: int) -> Iterator[Any]:
        """Yield a copy of a slice."""
        begin = part * self._n_rows
        yield np.array(self.array[begin : begin + self._n_rows])


class Pairs(SourceOfParts):
    """A list of pairs of a table and its targets: each is a part.

    Parameters
    ----------
    pairs : sequence of tuple
    """

    name = "the list"

    def __init__(self, pairs: Sequence[Any]) -> None:
        self.pairs = pairs
        self.n_parts = len(pairs)

    def read_part(self, part: int) -> Iterator[Any]:
        """Yield a pair."""
        yield as_pair(self.pairs[part])


class Iterated(Source):
    """What makes a new iterator over pairs of a table and its targets each time.

    Parameters
    ----------
    source : iterable or callable
        A function without arguments returns the iterator.
    check : callable
        Called on what the iterator yields.
    """

    def __init__(self, source: Any, check: Callable[[Any], Any]) -> None:
        self.source = source
        self.name = f"the {type(source).__name__}"
        self._check = check

    def read_all(self) -> Iterator[Any]:
        """Yield what the source yields, from its beginning."""
        is_function = callable(self.source)
        yield from map(self._check, iter(self.source() if is_function else self.source))


def _bytes_of(fragment: Any) -> int:
    """Return the bytes of a row group without compression; 1 of a file that is read bit by bit."""
    groups = getattr(fragment, "row_groups", None) or ()
    return max(1, sum(int(group.total_byte_size) for group in groups))


def as_pair(given: Any) -> tuple[Any, Any]:
    """Return a pair of a table and its targets.

    Raises
    ------
    ValueError
        If something else is given.
    """
    if isinstance(given, tuple | list) and len(given) == 2:
        X, y = given
        return X, y
    raise ValueError(
        f"Got a block of type {type(given).__name__} from an iterable, but expected pairs "
        "(X_block, y_block) of a table and its targets."
    )


def _pyarrow(name: str) -> Any:
    try:
        import pyarrow  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(
            f"Got {name}, which pyarrow reads, but pyarrow is not installed: install it, or pass "
            "an iterable of pairs (X_block, y_block)."
        ) from error
    return pyarrow


def _tables_of(batches: Any, schema: Any) -> Iterator[Any]:
    """Yield batches of Arrow as tables of one length, the last one of a shorter one."""
    pa, plain = _pyarrow("Arrow data"), _plain(schema)
    if not schema.equals(plain):
        tables = (pa.Table.from_batches([batch], schema).cast(plain) for batch in batches)
        batches = (batch for table in tables for batch in table.to_batches())
    yield from _of_one_length(batches)


def _of_one_length(batches: Any) -> Iterator[Any]:
    """Yield record batches as tables of as many rows as a block has, but for the last one."""
    pa = _pyarrow("Arrow data")
    held: list[Any] = []
    n_held = 0
    for batch in batches:
        n_rows = rows_of_a_block(batch.num_columns)
        held.append(batch)
        n_held += batch.num_rows
        if n_held < n_rows:
            continue
        table = pa.Table.from_batches(held)
        for begin in range(0, n_held - n_rows + 1, n_rows):
            yield table.slice(begin, n_rows)
        rest = table.slice(n_held - n_held % n_rows)
        held, n_held = rest.to_batches(), rest.num_rows
    if n_held:
        yield pa.Table.from_batches(held)


def _plain(schema: Any) -> Any:
    """Return a schema with text of a type from which rows can be taken, which views are not."""
    pa = _pyarrow("Arrow data")
    is_view = getattr(pa.types, "is_string_view", lambda _: False)
    for place, field in enumerate(schema):
        held = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if is_view(held):
            schema = schema.set(place, field.with_type(pa.large_string()))
    return schema
