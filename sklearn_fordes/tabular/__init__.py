"""What is particular to tables: the default network."""

from sklearn_fordes.tabular._mlp import MLP

__all__ = ["MLP"]
