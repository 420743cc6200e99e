"""Progress of long work on standard error: a bar in a terminal, lines in a log."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import Any

from tqdm import tqdm  # tqdm.auto warns in notebooks that lack ipywidgets.

_SECONDS_BETWEEN_LINES = 5.0
# What writing on a stream may raise that is closed, full or no real stream.
_STREAM_ERRORS = (AttributeError, OSError, ValueError)


class Progress:
    """Say how much of some work is done, and how long it took.

    A log gets a line every five seconds and one at the end, without carriage returns. The work goes
    on if nothing can be written.

    Parameters
    ----------
    doing : str
        Such as "training".
    total : int
    unit : str
        What is counted, such as "epoch".
    only_if_slow : bool, default=False
        Whether to say nothing of work that takes less than five seconds.
    """

    def __init__(self, doing: str, total: int, unit: str, *, only_if_slow: bool = False) -> None:
        self.doing = doing
        self.total = total
        self.unit = unit
        self.n_done = 0
        self._silent_for = _SECONDS_BETWEEN_LINES if only_if_slow else 0.0
        self._began = self._last_line = time.monotonic()
        # The stream of now: it may be replaced later, and can't be pickled.
        self._stream = _Stream(sys.stderr)
        self._bar: Any = None
        if self._stream.isatty():
            self._bar = tqdm(
                total=total, desc=doing, unit=unit, file=self._stream, delay=self._silent_for
            )

    def advance(self, n: int, note: str = "") -> None:
        """Count `n` more as done."""
        self.n_done += n
        now = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(n)
        elif now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            where = f"{self.unit} {self.n_done} of at most {self.total}"
            self._write(", ".join(filter(None, [where, note])))

    def close(self, summary: str) -> None:
        """Say how the work ended."""
        if self._bar is not None:
            self._bar.close()
        self._write(summary)

    def _write(self, text: str) -> None:
        seconds = time.monotonic() - self._began
        if seconds < self._silent_for:
            return
        self._stream.write(f"{self.doing}: {text}, {seconds:.1f} s\n")
        self._stream.flush()


class _Stream:
    """A stream on which writing never fails: what can't be written is lost.

    An error in the middle of a bar would leave tqdm's lock taken, and the process waiting for it.

    Parameters
    ----------
    stream : text stream or None
        A program without a console has none.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None)

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        with suppress(*_STREAM_ERRORS):
            return bool(self._stream.isatty())
        return False

    def write(self, text: str) -> None:
        """Write a text."""
        with suppress(*_STREAM_ERRORS):
            self._stream.write(text)

    def flush(self) -> None:
        """Write out what is kept."""
        with suppress(*_STREAM_ERRORS):
            self._stream.flush()
