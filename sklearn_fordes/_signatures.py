"""Which arguments functions take that users bring."""

from __future__ import annotations

import inspect
from typing import Any


def accepts(function: Any, name: str) -> bool:
    """Return whether the signature of a class or function has an argument of that name."""
    try:
        return name in inspect.signature(function).parameters
    except ValueError:  # Some builtins have no signature.
        return False


def expect_arguments(function: Any, given: str, expected: str, *places: str, **named: Any) -> None:
    """Raise an error if a class or function can't be called with some arguments.

    Parameters
    ----------
    function : callable
    given : str
        What was given, for the error, such as ``"augmentation=f"``.
    expected : str
        What was expected.
    *places
        Names of the arguments by position.
    **named
        Arguments by name.

    Raises
    ------
    TypeError
        If it can't.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # Some builtins have none.
        return
    try:
        signature.bind(*places, **named)
    except TypeError as error:
        raise TypeError(
            f"Got {given}, with the arguments {signature} ({error}), but expected {expected}."
        ) from error
