"""Where workers of several machines meet: a server in the process of rank 0, on a free port."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]

_SECONDS_TO_CONNECT = 30.0


def opened(host: str, timeout: float) -> tuple[Any, tuple[str, int]]:
    """Open a server, and return its store and its address.

    The system chooses the port, and the server holds it from then on.
    """
    waits = timedelta(seconds=timeout)
    store = TCPStore(host, 0, is_master=True, timeout=waits, wait_for_workers=False)
    return store, (host, store.port)


def joined(address: tuple[str, int], timeout: float) -> Any:
    """Return the store at an address, where a server has been opened."""
    # Nothing can end this wait if the server is gone.
    connects = timedelta(seconds=min(timeout, _SECONDS_TO_CONNECT))
    store = TCPStore(*address, is_master=False, timeout=connects, wait_for_workers=False)
    store.set_timeout(timedelta(seconds=timeout))
    return store
