"""Import the rooms that need torch when one of their names is first used."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def names_of(package: str) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a package (PEP 562) whose names are those of its ``_public``.

    Parameters
    ----------
    package : str
        Full name of the package.

    Returns
    -------
    callable
        Imports ``_public`` for the first name, and keeps each name that it found in the package.
    """

    def find(name: str) -> Any:
        if name.startswith("_") and name != "__all__":  # Python asks for names such as __path__.
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        public = import_module(f"{package}._public")
        if name != "__all__" and name not in public.__all__:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(public, name)
        setattr(sys.modules[package], name, value)
        return value

    return find
