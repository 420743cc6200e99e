"""The default network for tables, and its fast training step."""

from sklearn_fordes.tabular._embedding import PeriodicEmbedding
from sklearn_fordes.tabular._heads import HomoscedasticNoise
from sklearn_fordes.tabular._mlp import MLP
from sklearn_fordes.tabular._mlp_ensemble import MLPEnsemble

__all__ = [
    "MLP",
    "HomoscedasticNoise",
    "MLPEnsemble",
    "PeriodicEmbedding",
]
