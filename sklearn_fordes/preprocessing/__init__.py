"""Encoding of mixed tables as numeric features."""

from sklearn_fordes.preprocessing._encoder import TabularEncoder
from sklearn_fordes.preprocessing._state import encoder_from, encoder_state
from sklearn_fordes.preprocessing._support import CellSupport
from sklearn_fordes.preprocessing._tables import as_rows, as_table

__all__ = [
    "CellSupport",
    "TabularEncoder",
    "as_rows",
    "as_table",
    "encoder_from",
    "encoder_state",
]
