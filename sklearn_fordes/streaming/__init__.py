"""Data larger than memory: sources that are read in blocks, and what one pass learns of them."""

from typing import TYPE_CHECKING

from sklearn_fordes._lazy import names_of

if TYPE_CHECKING:
    from sklearn_fordes.streaming._public import *  # noqa: F403

__getattr__ = names_of(__name__)
