"""The pickles of workers: by cloudpickle, for what a script or a notebook defines."""

from __future__ import annotations

from collections.abc import Callable

try:
    import cloudpickle
except ImportError:  # joblib needs it from 1.6 on, and has a copy of it until then.
    from joblib.externals import cloudpickle

dumps: Callable[..., bytes] = cloudpickle.dumps
