"""The method in pure torch: ensembles of particles and the forces between them.

This package needs neither skorch nor scikit-learn, so it serves any training loop. Its names are
listed in ``_public.py``, and torch is imported when one of them is first used.
"""

from typing import TYPE_CHECKING

from sklearn_fordes._lazy import names_of

if TYPE_CHECKING:
    from sklearn_fordes.particles._public import *  # noqa: F403

__getattr__ = names_of(__name__)
