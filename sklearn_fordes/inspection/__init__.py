"""Pictures of an ensemble, as Display classes in scikit-learn's manner (needs matplotlib)."""

from sklearn_fordes.inspection._accuracy_rejection import AccuracyRejectionDisplay
from sklearn_fordes.inspection._diversity import DiversityDisplay
from sklearn_fordes.inspection._lengthscale_tradeoff import LengthscaleTradeoffDisplay
from sklearn_fordes.inspection._reliability import ReliabilityDisplay
from sklearn_fordes.inspection._training_history import TrainingHistoryDisplay
from sklearn_fordes.inspection._uncertainty import UncertaintyDisplay

__all__ = [
    "AccuracyRejectionDisplay",
    "DiversityDisplay",
    "LengthscaleTradeoffDisplay",
    "ReliabilityDisplay",
    "TrainingHistoryDisplay",
    "UncertaintyDisplay",
]
