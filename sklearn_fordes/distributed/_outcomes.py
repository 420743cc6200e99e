"""How the fit of one worker ended, and the error that is raised if it failed."""

from __future__ import annotations

import pickle
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn


@dataclass(frozen=True)
class Fitted:
    """The fit of a worker came to its end.

    Attributes
    ----------
    rank : int
    pickled : bytes or None
        Of rank 0: the fitted estimator, the names of the attributes that the fit left alone, and
        the warnings.
    """

    rank: int
    pickled: bytes | None = None


@dataclass(frozen=True)
class Failed:
    """The fit of a worker raised an error.

    Attributes
    ----------
    rank : int
    summary : str
        Type and text of the error.
    traceback : str
    pickled : bytes or None
        The error, if it can be pickled.
    is_consequence : bool
        Whether the worker only lost the exchange with another one.
    """

    rank: int
    summary: str
    traceback: str = ""
    pickled: bytes | None = None
    is_consequence: bool = False


@dataclass(frozen=True)
class Died:
    """A worker is gone without an outcome.

    Attributes
    ----------
    rank : int
    how : str
        In words, such as "(signal 9, SIGKILL)".
    details : str
        What it wrote last on standard error, or what the cluster says.
    """

    rank: int
    how: str
    details: str = ""


Outcome = Fitted | Failed | Died


class RemoteError(Exception):
    """The traceback of an error in another process, as the cause of the error here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def is_final(failures: list[Failed | Died]) -> bool:
    """Return whether no other outcome can say better why the fit failed."""
    return any(isinstance(one, Died) or not one.is_consequence for one in failures)


def raise_cause(failures: Iterable[Failed | Died], n_workers: int, advice: str) -> NoReturn:
    """Raise the error that the others follow from.

    A worker that raises or dies takes its connections with it, and the others fail too. The
    libraries may also end a process whose connection is lost, so an error of a worker's own comes
    before a death.
    """
    cause = min(failures, key=lambda one: (_distance(one), one.rank))
    of_all = f"rank {cause.rank} of {n_workers}"
    if isinstance(cause, Died):
        more = f"\n{cause.details}" if cause.details else ""
        raise RuntimeError(f"The worker of {of_all} died {cause.how}. {advice}{more}")
    remote = RemoteError(f"In the worker of {of_all}:\n{cause.traceback}")
    raise _unpickled(cause, of_all) from remote


def _distance(failure: Failed | Died) -> int:
    if isinstance(failure, Died):
        return 1
    return 2 if failure.is_consequence else 0


def _unpickled(cause: Failed, of_all: str) -> Exception:
    """Return the error itself, or one with its text if it does not survive the way here."""
    error: Any = None
    if cause.pickled is not None:
        try:
            error = pickle.loads(cause.pickled)
        except Exception:  # Unpickling calls the error's own code.
            error = None
    # An exit or an interrupt of a worker ends this worker, and not the program here.
    if isinstance(error, Exception):
        return error
    return RuntimeError(f"The worker of {of_all} raised {cause.summary}")


def how_ended(code: int) -> str:
    """Return an exit code of `subprocess` in words."""
    if code >= 0:
        return f"(exit code {code})"
    try:
        name = f", {signal.Signals(-code).name}"
    except ValueError:
        name = ""
    reason = ", by which systems end processes when memory runs out" if -code == 9 else ""
    return f"(signal {-code}{name}{reason})"
