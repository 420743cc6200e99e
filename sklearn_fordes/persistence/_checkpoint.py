"""Checkpoints: the state of a run of training in a file, from which the same run goes on."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch

from sklearn_fordes._warnings import warn
from sklearn_fordes.particles import ALONE, Communicator, LostProcessError
from sklearn_fordes.persistence._checks import check_training_state
from sklearn_fordes.persistence._file import (
    read,
    refusing,
    write,
    write_atomically,
)
from sklearn_fordes.persistence._values import can_pack
from sklearn_fordes.training import ParticleNet, TrainingState

_KIND = "Checkpoint"
# A checkpoint is written after an epoch if the last one is so many seconds old, and writing takes
# no more than this share of the time.
_SECONDS_BETWEEN, _LARGEST_SHARE = 5.0, 0.05

# A part of a file that is older belongs to a process that is gone.
_SECONDS_OF_A_WRITE = 60.0


class Checkpoint:
    """The state of one fit, in a file that is written between epochs, and read to go on.

    Where processes share out the members, each writes a file with its own, a shard, and then the
    first one writes the file that names them. Any number of processes can go on from it.

    Parameters
    ----------
    path : str
        Its folder exists. What earlier processes have left there is read now.
    version : str
        Of this package, noted in the file.
    communicator : Communicator, default=ALONE
        Reaches processes that train together, and see the same folder.

    Attributes
    ----------
    is_finished : bool
        Whether the run that the file knows has come to its end.

    Raises
    ------
    ValueError
        If there is a file that is no checkpoint, or that is damaged.
    OSError
        If the file can't be read.
    """

    def __init__(self, path: str, version: str, communicator: Communicator = ALONE) -> None:
        self.path = path
        self.version = version
        self._communicator = communicator
        self.is_finished = False
        self._state: dict[str, Any] | None = None
        self._next = 0.0  # When the next one is due.
        self._has_warned = False
        self._lost: set[str] = set()
        self._shards: list[str] = []  # Named by the file that is there.
        with communicator.together(), suppress(FileNotFoundError):
            self._state = _read(path)
            self.is_finished = self._state.get("is_finished") is True
            self._shards = list(self._state.get("shards", ()))
        self._remove_parts()
        # The first one may write before another one has looked.
        if communicator.broadcast(self._state is None) != (self._state is None):
            raise ValueError(
                f"Got {path!r} in some of the processes only, but expected a checkpoint_dir that "
                "is one folder for all of them."
            )

    def resume(self, net: ParticleNet) -> None:
        """Let a net go on from the file, or write the first one.

        Parameters
        ----------
        net : ParticleNet
            That of the same run, whose callbacks have begun.

        Raises
        ------
        ValueError
            If the file holds the state of another net.
        OSError
            If there is no file and none can be written.
        """
        if self._state is None:
            with naming_checkpoint_dir():
                self._write(net, is_finished=False)
            return
        with self._communicator.together(), refusing(self.path):
            state = self._known_state(self._state)
            without_members = {**state._asdict(), "members": {}}
            check_training_state(without_members, net.module_)
            state.load_into(net)
        self._state = None  # It is as large as the net.

    def write(self, net: ParticleNet, *, at_once: bool = False) -> None:
        """Write the state after an epoch, if it is due. If this fails, it warns, and keeps the old.

        Parameters
        ----------
        net : ParticleNet
        at_once : bool, default=False
            Whether it is due now.
        """
        if self._communicator.broadcast(at_once or time.monotonic() >= self._next):
            self._try_to_write(net, is_finished=False)

    def finish(self, net: ParticleNet) -> None:
        """Write the state of a run that has come to its end."""
        self._try_to_write(net, is_finished=True)
        self._remove_parts()

    def _remove_parts(self) -> None:
        """Remove what a process left that was killed while it wrote; another may be writing."""
        folder, name = os.path.split(self.path)
        stem, extension = map(glob.escape, os.path.splitext(name))
        # Of files, of shards, and shards that no file came to name.
        for pattern in (f".{stem}.*.tmp", f"{stem}.*.*{extension}"):
            for part in glob.glob(os.path.join(glob.escape(folder), pattern)):
                with suppress(OSError):
                    is_old = time.time() - os.stat(part).st_mtime > _SECONDS_OF_A_WRITE
                    if is_old and os.path.basename(part) not in self._shards:
                        os.unlink(part)

    def _try_to_write(self, net: ParticleNet, *, is_finished: bool) -> None:
        try:
            self._write(net, is_finished=is_finished)
        except (OSError, ValueError, LostProcessError) as error:
            # Training is worth more than its checkpoint. A callback may have noted in the history
            # what a file can't hold.
            if not self._has_warned:
                warn(
                    f"The checkpoint after {net.n_epochs} epochs can't be written ({error}): the "
                    "one before is kept, and training goes on."
                )
            self._has_warned = True

    def _warn_of_lost(self, name: str) -> None:
        if name not in self._lost:
            warn(
                f"Got a state of {name} that no file can hold, but expected one of numbers, "
                "strings, arrays, lists and dicts: it begins anew if this fit is broken off, which "
                "may change its result."
            )
        self._lost.add(name)

    def _write(self, net: ParticleNet, *, is_finished: bool) -> None:
        began = time.monotonic()
        training = TrainingState.of(net, within_run=True).to_dict()
        for callback, attributes in training["run"]["callbacks"].items():
            for name in [name for name, value in attributes.items() if not can_pack(value)]:
                value = attributes.pop(name)
                if isinstance(value, dict) and value.keys() == {"state_dict"}:
                    self._warn_of_lost(f"{callback}.{name}")
        try:
            self._write_together({"is_finished": is_finished}, {"training": training})
        finally:
            now = time.monotonic()
            self._next = now + max(_SECONDS_BETWEEN, (now - began) / _LARGEST_SHARE)

    def _write_together(self, about: dict[str, Any], state: dict[str, Any]) -> None:
        """Write a file, or shards and then the file that names them."""
        communicator = self._communicator
        first = communicator.members.start
        if first is not None:
            # Those of a time before stay whole until the new ones are there.
            token = communicator.broadcast(os.urandom(4).hex())
            with communicator.together():
                if communicator.row_share == 0:
                    self._write_shard(token, first, state)
            parts = sorted({*communicator.all_gather_object(first)})
            names = [os.path.basename(self._path_of(token, i)) for i in parts]
            # Old versions of safetensors keep no metadata of a file without arrays.
            state = {"shards": names, "first_members": np.array(parts)}
        with communicator.together():
            if communicator.is_first:
                write(self.path, _KIND, {**about, **state}, self.version)
                self._remove_shards(state.get("shards", []))

    def _path_of(self, token: str, first: int) -> str:
        name, extension = os.path.splitext(self.path)
        return f"{name}.{token}.{first}{extension}"

    def _write_shard(self, token: str, first: int, state: dict[str, Any]) -> None:
        path = self._path_of(token, first)
        write(path, _KIND, {**state, "shard": os.path.basename(path)}, self.version)

    def _remove_shards(self, new: list[str]) -> None:
        """Remove the shards that the file before named; another fit's may be on their way."""
        for name in self._shards:
            with suppress(OSError):
                os.unlink(os.path.join(os.path.dirname(self.path), os.path.basename(name)))
        self._shards = new

    def _known_state(self, state: dict[str, Any]) -> TrainingState:
        """Return the state of the members of this process, of all files that hold some."""
        states = [state]
        if "shards" in state:
            states = [self._read_shard(name) for name in state["shards"]]
        first, *others = (TrainingState.from_dict(s["training"]) for s in states)
        if others:
            first = first.over_members(lambda *parts: torch.cat(parts), *others)
        return first.over_members(lambda values: values[self._communicator.members])

    def _read_shard(self, name: str) -> dict[str, Any]:
        name = os.path.basename(name)  # It leads to no other folder.
        state = _read(os.path.join(os.path.dirname(self.path), name))
        if state.get("shard") != name:
            raise ValueError(f"Got {state.get('shard')!r} as {name!r}, but expected that shard.")
        return state


def _read(path: str) -> dict[str, Any]:
    kind, state = read(path)
    if kind != _KIND:
        raise ValueError(f"Got {path!r} of a {kind!r}, but expected a checkpoint.")
    return state


@contextmanager
def naming_checkpoint_dir() -> Iterator[None]:
    """Name the parameter in errors of the system."""
    try:
        yield
    except OSError as error:
        reason = f"{error.strerror}: no checkpoint can be written where checkpoint_dir says"
        raise OSError(error.errno, reason, error.filename) from error


def seed_in(folder: str) -> int:
    """Return the seed of the fits in a folder that have none of their own: drawn by the first one.

    Parameters
    ----------
    folder : str

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If its file holds something else.
    OSError
        If the file can't be read or written.
    """
    path = os.path.join(folder, "seed")
    with suppress(FileNotFoundError), open(path, "rb") as file:
        text = file.read(20)
        if not (text.strip().isdigit() and int(text) < 2**32):
            raise ValueError(
                f"Got {text!r} in {path!r}, but expected the seed of the fits in this folder, a "
                "whole number below 2**32: delete the file, and the next fit draws a seed."
            )
        return int(text)
    seed = int(np.random.randint(2**31 - 1))
    mine = f"{path}-{os.getpid()}-{seed}.tmp"
    write_atomically(mine, str(seed).encode())
    # Of processes that begin together one makes the file: a link to it is made only once.
    try:
        os.link(mine, path)
        os.unlink(mine)
    except FileExistsError:
        os.unlink(mine)
    except OSError:  # This file system has no links.
        os.replace(mine, path)
    return seed_in(folder)
