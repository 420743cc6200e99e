"""The encoder of tables."""

from sklearn_fordes.tabular._encoder import TabularEncoder, as_table

__all__ = ["TabularEncoder", "as_table"]
