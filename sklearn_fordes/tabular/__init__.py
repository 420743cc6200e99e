"""What is particular to tables: their encoder, the default network, and training it fast."""

from sklearn_fordes.tabular._embedding import PeriodicEmbedding
from sklearn_fordes.tabular._encoder import TabularEncoder, as_table
from sklearn_fordes.tabular._heads import HomoscedasticNoise
from sklearn_fordes.tabular._mlp import MLP
from sklearn_fordes.tabular._mlp_ensemble import MLPEnsemble

__all__ = [
    "MLP",
    "HomoscedasticNoise",
    "MLPEnsemble",
    "PeriodicEmbedding",
    "TabularEncoder",
    "as_table",
]
