"""Files of fitted estimators: arrays, and settings as JSON. Nothing in a file is executed."""

from typing import TYPE_CHECKING

from sklearn_fordes._lazy import names_of

if TYPE_CHECKING:
    from sklearn_fordes.persistence._public import *  # noqa: F403

__getattr__ = names_of(__name__)
