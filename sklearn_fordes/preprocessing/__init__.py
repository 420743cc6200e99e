"""Encoding of mixed tables as numeric features."""

from sklearn_fordes.preprocessing._columns import as_rows, as_table
from sklearn_fordes.preprocessing._encoder import TabularEncoder

__all__ = ["TabularEncoder", "as_rows", "as_table"]
