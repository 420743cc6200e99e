"""What was learnt, and its evaluation on new rows; knows neither skorch nor training."""

from typing import TYPE_CHECKING

from sklearn_fordes._lazy import names_of

if TYPE_CHECKING:
    from sklearn_fordes.inference._public import *  # noqa: F403

__getattr__ = names_of(__name__)
