"""Pictures of an ensemble, as Display classes in scikit-learn's manner (needs matplotlib)."""

from sklearn_fordes.inspection._diversity import DiversityDisplay
from sklearn_fordes.inspection._importances import ImportanceDisplay
from sklearn_fordes.inspection._intervals import IntervalDisplay
from sklearn_fordes.inspection._predictions import AccuracyRejectionDisplay, ReliabilityDisplay
from sklearn_fordes.inspection._support import SupportDisplay
from sklearn_fordes.inspection._training import LengthscaleTradeoffDisplay, TrainingHistoryDisplay
from sklearn_fordes.inspection._uncertainty import UncertaintyDisplay

__all__ = [
    "AccuracyRejectionDisplay",
    "DiversityDisplay",
    "ImportanceDisplay",
    "IntervalDisplay",
    "LengthscaleTradeoffDisplay",
    "ReliabilityDisplay",
    "SupportDisplay",
    "TrainingHistoryDisplay",
    "UncertaintyDisplay",
]
