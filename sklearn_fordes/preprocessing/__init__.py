"""Encoding of mixed tables as numeric features."""

from sklearn_fordes.preprocessing._encoder import LOGARITHMIC_CLIP, TabularEncoder
from sklearn_fordes.preprocessing._hashes import mixed, row_hashes
from sklearn_fordes.preprocessing._state import encoder_from, encoder_state
from sklearn_fordes.preprocessing._support import HALFWAY, CellSupport
from sklearn_fordes.preprocessing._tables import as_rows, as_table, native_table

__all__ = [
    "HALFWAY",
    "LOGARITHMIC_CLIP",
    "CellSupport",
    "TabularEncoder",
    "as_rows",
    "as_table",
    "encoder_from",
    "encoder_state",
    "mixed",
    "native_table",
    "row_hashes",
]
