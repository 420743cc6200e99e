"""The default network for tables, its parts, and the engine that differentiates its members."""

from typing import TYPE_CHECKING

from sklearn_fordes._lazy import names_of

if TYPE_CHECKING:
    from sklearn_fordes.networks._public import *  # noqa: F403

__getattr__ = names_of(__name__)
