"""Pictures of an estimator, as Display classes (need matplotlib), and scores under corruption."""

from sklearn_fordes.inspection._corruptions import CORRUPTIONS, corrupted_copies
from sklearn_fordes.inspection._coverage import CoverageDisplay
from sklearn_fordes.inspection._diversity import DiversityDisplay
from sklearn_fordes.inspection._drift import DriftReport
from sklearn_fordes.inspection._drift_scores import drift_scores
from sklearn_fordes.inspection._importances import ImportanceDisplay
from sklearn_fordes.inspection._intervals import IntervalDisplay
from sklearn_fordes.inspection._predictions import AccuracyRejectionDisplay, ReliabilityDisplay
from sklearn_fordes.inspection._support import SupportDisplay
from sklearn_fordes.inspection._training import LengthscaleTradeoffDisplay, TrainingHistoryDisplay
from sklearn_fordes.inspection._uncertainty import UncertaintyDisplay

__all__ = [
    "CORRUPTIONS",
    "AccuracyRejectionDisplay",
    "CoverageDisplay",
    "DiversityDisplay",
    "DriftReport",
    "ImportanceDisplay",
    "IntervalDisplay",
    "LengthscaleTradeoffDisplay",
    "ReliabilityDisplay",
    "SupportDisplay",
    "TrainingHistoryDisplay",
    "UncertaintyDisplay",
    "corrupted_copies",
    "drift_scores",
]
