"""One fit in several processes, which this package starts: here, or on a Ray or Dask cluster."""

from typing import TYPE_CHECKING

from sklearn_fordes._lazy import names_of

if TYPE_CHECKING:
    from sklearn_fordes.distributed._public import *  # noqa: F403

__getattr__ = names_of(__name__)
