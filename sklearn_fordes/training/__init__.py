"""Where the method meets skorch: the net, its batches, and a run of training."""

from typing import TYPE_CHECKING

from sklearn_fordes._lazy import names_of

if TYPE_CHECKING:
    from sklearn_fordes.training._public import *  # noqa: F403

__getattr__ = names_of(__name__)
