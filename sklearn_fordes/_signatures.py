"""Which arguments functions take that users bring."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any


def accepts(function: Any, name: str) -> bool:
    """Return whether the signature of a class or function has an argument of that name."""
    try:
        return name in inspect.signature(function).parameters
    except ValueError:  # Some builtins have no signature.
        return False


@contextmanager
def explaining_arguments(
    function: Any,
    given: str,
    expected: str,
    places: Sequence[str] = (),
    named: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[None]:
    """Explain the error of a call, inside the block, whose arguments a function does not take.

    Parameters
    ----------
    function : callable
    given : str
        What was given, for the error, such as ``"module=Net"``.
    expected : str
        What was expected.
    places : sequence of str, default=()
        Names of the arguments by position.
    named : mapping, optional
        Arguments by name.

    Raises
    ------
    TypeError
        If the call raised one, and the function's signature is of other arguments.
    """
    try:
        yield
    except TypeError as error:
        try:
            signature = inspect.signature(function, follow_wrapped=False)
        except ValueError:  # Some builtins have none.
            raise error from None
        try:
            signature.bind(*places, **named)
        except TypeError as reason:
            raise TypeError(
                f"Got {given}, with the arguments {signature} ({reason}), but expected {expected}."
            ) from error
        raise
