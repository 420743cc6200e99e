"""Import the packages that need torch when one of their names is first used."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def names_of(package: str) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a package (PEP 562) whose names are those in its ``_public``.

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
        is_all = name == "__all__"
        value = [n for n in vars(public) if n[0] != "_"] if is_all else getattr(public, name)
        setattr(sys.modules[package], name, value)
        return value

    return find
