"""Workers as processes of this machine, which end with the call, and with this process."""

from __future__ import annotations

import codecs
import contextlib
import faulthandler
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing.spawn import get_executable
from pathlib import Path
from typing import Any

import joblib

from sklearn_fordes.distributed._outcomes import Died, Outcome, how_ended
from sklearn_fordes.distributed._parcel import Parcel

# A new interpreter that runs this does not import the script of the user's again, which therefore
# needs no `if __name__ == "__main__"`, and may come from a notebook or from standard input.
_START = """
import json, sys
from pathlib import Path
folder, rank = Path(sys.argv[1]), int(sys.argv[2])
sys.path[:] = json.loads((folder / "path").read_text())
from sklearn_fordes.distributed._processes import work
work(folder, rank)
"""
_LIMITS_OF_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_SECONDS_BETWEEN_LOOKS = 0.05
_SECONDS_TO_LEAVE = 5.0
_SECONDS_TO_OPEN = 10.0
_LOOPBACKS = ("lo", "lo0")


class Processes:
    """Processes that fit, and the folder through which they get and give objects.

    Parameters
    ----------
    content : object
        What workers get.
    n_workers : int
    timeout : float
        Seconds for which workers wait for each other.
    uses_gpus : bool
        Whether each worker uses a CUDA device of its own if there are enough.
    """

    def __init__(self, content: Any, n_workers: int, timeout: float, uses_gpus: bool) -> None:
        self.n_workers = n_workers
        self._folder = Path(tempfile.mkdtemp(prefix="sklearn_fordes_"))
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            self._write_job(content, timeout, uses_gpus and _n_gpus() >= n_workers)
            self._forwarded = [
                _Forwarded(self._log(0, name), name) for name in ("stdout", "stderr")
            ]
            for rank in range(n_workers):
                self._processes.append(self._started(rank))
        except BaseException:
            self.end()
            raise

    def _write_job(self, content: Any, timeout: float, has_gpus: bool) -> None:
        parcel = Parcel.of(content).write(self._folder / "arrays")
        job = (parcel, self.n_workers, timeout, has_gpus, os.getpid())
        (self._folder / "job").write_bytes(pickle.dumps(job))
        (self._folder / "path").write_text(json.dumps([p for p in sys.path if isinstance(p, str)]))

    def _started(self, rank: int) -> subprocess.Popen[bytes]:
        with (
            self._log(rank, "stdout").open("wb") as stdout,
            self._log(rank, "stderr").open("wb") as stderr,
        ):
            return subprocess.Popen(
                [get_executable(), "-c", _START, str(self._folder), str(rank)],
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                env=_environment(self.n_workers),
                # An interrupt from the keyboard is for this process, which ends the others.
                start_new_session=True,
            )

    def _log(self, rank: int, name: str) -> Path:
        return self._folder / f"{name}{rank}"

    def poll(self, ranks: list[int]) -> list[Outcome]:
        """Return the outcomes of those of some workers that are done, after a short wait."""
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        for stream in self._forwarded:
            stream.forward()
        return [outcome for rank in ranks if (outcome := self._outcome(rank)) is not None]

    def _outcome(self, rank: int) -> Outcome | None:
        code = self._processes[rank].poll()  # Before the look at the file, which comes first.
        path = _path_of_outcome(self._folder, rank)
        if path.exists():
            outcome: Outcome = pickle.loads(path.read_bytes())
            return outcome
        if code is None:
            return None
        lines = self._log(rank, "stderr").read_text(errors="replace").splitlines()[-20:]
        return Died(rank, how_ended(code), "\n".join(lines))

    def end(self, *, succeeded: bool = False) -> None:
        """End all workers, and remove what they leave."""
        if succeeded:
            deadline = time.monotonic() + _SECONDS_TO_LEAVE
            for process in self._processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
            for stream in self._forwarded:
                stream.forward()
        for process in self._processes:
            _kill(process)
        for process in self._processes:
            process.wait()
            if process.stdin:
                process.stdin.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class _Forwarded:
    """What a worker writes to a file, which goes on to a stream of this process."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        self._n_read = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def forward(self) -> None:
        """Write what is new."""
        if self._path.stat().st_size == self._n_read:
            return
        with self._path.open("rb") as file:
            file.seek(self._n_read)
            new = file.read()
        self._n_read += len(new)
        # There may be no stream, or one that is closed.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream = getattr(sys, self._name)
            stream.write(self._decoder.decode(new))
            stream.flush()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it has started."""
    if process.poll() is None:
        process.kill()
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _environment(n_workers: int) -> dict[str, str]:
    """Return the environment of workers."""
    env = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8:replace"}
    if "OMP_NUM_THREADS" not in env:
        n_threads = max(1, joblib.cpu_count() // n_workers)
        if "torch" in sys.modules:
            n_threads = min(n_threads, sys.modules["torch"].get_num_threads())
        env.update((name, str(n_threads)) for name in _LIMITS_OF_THREADS if name not in env)
    # The name of this machine may lead to an address that is reached through a network, or not.
    with contextlib.suppress(OSError):
        own = [name for _, name in socket.if_nameindex() if name in _LOOPBACKS]
        env.update(("GLOO_SOCKET_IFNAME", name) for name in own if "GLOO_SOCKET_IFNAME" not in env)
    return env


def _n_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _path_of_outcome(folder: Path, rank: int) -> Path:
    return folder / f"outcome{rank}"


def work(folder: Path, rank: int) -> None:
    """Fit as one of the workers: what their interpreters run.

    Parameters
    ----------
    folder : Path
    rank : int
    """
    job = pickle.loads((folder / "job").read_bytes())
    parcel, n_workers, timeout, has_gpus, parent = job
    threading.Thread(target=_end_with, args=(parent, folder), daemon=True).start()

    from sklearn_fordes.distributed._worker import Place, fit_as

    place = Place(rank, n_workers, timeout, gpu=rank if has_gpus else None)
    outcome = fit_as(place, lambda: _store(folder, n_workers), parcel)
    path = _path_of_outcome(folder, rank)
    part = path.with_suffix(".part")
    part.write_bytes(pickle.dumps(outcome))
    part.replace(path)


def _store(folder: Path, n_workers: int) -> Any:
    """Open the place where workers meet: a file needs no port, which others could take or reach."""
    from torch.distributed import FileStore  # type: ignore[attr-defined]

    # If another worker has found the parent gone, and removed the folder, torch tries for minutes
    # and lets no other thread of Python run.
    faulthandler.dump_traceback_later(_SECONDS_TO_OPEN, exit=True, file=2)
    try:
        return FileStore(str(folder / "store"), n_workers)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _end_with(parent: int, folder: Path) -> None:
    """End this worker, its own processes and what they leave when their parent is gone."""
    if os.name == "posix":
        while os.getppid() == parent:
            time.sleep(0.5)
    else:
        sys.stdin.buffer.read()
    shutil.rmtree(folder, ignore_errors=True)
    if os.name == "posix":
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
