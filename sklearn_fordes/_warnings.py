"""Warnings that point at the line of the user's that calls the package."""

from __future__ import annotations

import sys
import warnings

# Packages between the user's line and a warning: skorch runs epochs, joblib the fits of searches.
_BETWEEN = {"sklearn_fordes", "sklearn", "skorch", "joblib"}


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn as if the nearest caller outside of this package and scikit-learn did.

    Parameters
    ----------
    message : str
    category : type of Warning, default=UserWarning
    """
    # How many calls lie between depends on decorators, pipelines and searches. From Python 3.12 on,
    # skip_file_prefixes of warnings.warn passes over them.
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
