"""One file in the safetensors format, written as a whole or not at all, and checked when read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import numpy as np
import safetensors.numpy
import sklearn
import torch
from numpy.typing import NDArray

from sklearn_fordes.particles import expect_memory
from sklearn_fordes.persistence._values import pack, unpack

FORMAT, FORMAT_VERSION = "sklearn_fordes", 1
# Bytes of the header, and values of its JSON. Of these objects of Python are made that are many
# times as large: the limits keep them below a gigabyte, whatever the header says.
_LARGEST_HEADER, _MOST_PARTS = 1 << 26, 1 << 21
# An object of JSON, or a tensor, counts as so many parts.
_PARTS_OF_AN_OBJECT = 8
_NO_DIGEST = "0" * 64
_LONGEST_REASON = 1000
_PICKLE = "joblib.load or pickle.load opens it, and runs the code in it"
_COMPRESSED = "it is compressed: joblib.load opens it if joblib wrote it, and runs the code in it"
# First bytes of files that users mistake for ours. Nothing of such a file is read.
_OTHER_FORMATS = {
    **{bytes([0x80, protocol]): f"it looks like a pickle: {_PICKLE}" for protocol in range(2, 6)},
    **{b"\x78" + level: _COMPRESSED for level in (b"\x01", b"\x5e", b"\x9c", b"\xda")},  # zlib
    **dict.fromkeys([b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x5d\x00"], _COMPRESSED),
    b"PK\x03\x04": "it is a zip archive, as torch.save and numpy.savez write",
}
# A text of JSON, which ends with the whole at the latest: so this takes a time that is linear.
_TEXT = re.compile(r'"[^"\\]*+(?:\\.?[^"\\]*+)*+(?:"|\Z)', re.DOTALL)


def write(path: str | os.PathLike[str], kind: str, state: Mapping[str, Any], version: str) -> None:
    """Write the state of an estimator. If this fails, an older file stays as it was.

    Parameters
    ----------
    path : str or path-like
    kind : str
        Name of the estimator's class.
    state : dict
        Of values that `pack` takes.
    version : str
        Of this package. Those of others are noted too, for people who look into the file.

    Raises
    ------
    ValueError
        If a file can't hold a value, or not so many settings.
    OSError
        If the file can't be written.
    """
    arrays: dict[str, NDArray[Any]] = {}
    packed = {name: pack(value, name, arrays) for name, value in state.items()}
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "class": kind,
        "versions": json.dumps(library_versions() | {"sklearn_fordes": version}),
        "state": json.dumps(packed, allow_nan=False),
        "sha256": _NO_DIGEST,
    }
    raw = safetensors.numpy.save(arrays, metadata)
    header, tensors = _split(raw)
    n_parts = max(map(_count_parts, (header[8:].decode(), metadata["state"])))
    if len(header) > _LARGEST_HEADER or n_parts > _MOST_PARTS:
        raise ValueError(
            f"Got an estimator whose settings take {len(header)} bytes in {n_parts} parts, but "
            f"expected up to {_LARGEST_HEADER} in {_MOST_PARTS}, which load reads: it has too many "
            "levels of categories, or too many epochs."
        )
    digest = _digest(header, tensors)
    write_atomically(path, _with_digest(header, _NO_DIGEST, digest), tensors)


def read(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any]]:
    """Read the state of an estimator.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    kind : str
        Name of the estimator's class.
    state : dict

    Raises
    ------
    ValueError
        If the file is not of this format, of a newer version, or damaged.
    OSError
        If the file can't be read.
    """
    raw = _content(path)
    with refusing(path):
        if raw[8:9] != b"{":  # With which the format wants headers to begin.
            known = (kind for start, kind in _OTHER_FORMATS.items() if raw.startswith(start))
            raise ValueError(next(known, "it does not begin as a safetensors file does"))
        header, tensors = _split(raw)
        if len(header) > _LARGEST_HEADER:
            raise ValueError(
                f"its header takes {len(header)} bytes, and not at most {_LARGEST_HEADER}"
            )
        metadata = _json(header[8:].decode()).get("__metadata__", {})
        if metadata.get("format") != FORMAT:
            raise ValueError(f"its format is {metadata.get('format')!r} and not {FORMAT!r}")
        versions = _json(metadata["versions"])
        if not 1 <= int(metadata["format_version"]) <= FORMAT_VERSION:
            raise ValueError(
                f"its format_version is {metadata['format_version']}, of sklearn_fordes "
                f"{versions.get('sklearn_fordes')}, and this one reads up to {FORMAT_VERSION}"
            )
        given = metadata["sha256"]
        if _digest(_with_digest(header, given, _NO_DIGEST), tensors) != given:
            raise ValueError("its checksum is not that of its content: it was changed or damaged")
        arrays = safetensors.numpy.load(raw)
        del raw, header, tensors
        packed = _json(metadata.pop("state"))
        state = {name: unpack(packed.pop(name), arrays) for name in list(packed)}
        if arrays:
            raise ValueError(f"it has tensors that belong to nothing: {sorted(arrays)}")
        return metadata["class"], state


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file, also a pipe to which nobody writes."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _content(path: str | os.PathLike[str]) -> bytes:
    """Return all of a file that has an end and fits into the memory."""
    with open(path, "rb", opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        with refusing(path):
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("it is no regular file")
            # The content, tensors of it, and their copies in the members.
            expect_memory("a file whose contents", 3 * status.st_size, torch.device("cpu"))
        return file.read(status.st_size)


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries on which the digits of a prediction depend."""
    libraries = {"torch": torch, "scikit-learn": sklearn, "numpy": np}
    return {name: str(library.__version__) for name, library in libraries.items()}


@contextmanager
def refusing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever goes wrong with the content of a file into a ValueError that names it."""
    try:
        yield
    except Exception as error:
        reason = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        reason = reason if len(reason) <= _LONGEST_REASON else reason[:_LONGEST_REASON] + "…"
        raise ValueError(
            f"Got {os.fspath(path)!r}, which can't be loaded ({reason}), but expected an intact "
            "file that save wrote, and its own module if it needs one."
        ) from error


def _json(text: str) -> dict[str, Any]:
    if (n_parts := _count_parts(text)) > _MOST_PARTS:
        raise ValueError(f"its JSON has {n_parts} parts, and not at most {_MOST_PARTS}")
    made: dict[str, Any] = json.loads(
        text, parse_constant=_no_constant, object_pairs_hook=_without_repeated_keys
    )
    if not isinstance(made, dict):
        raise ValueError("its JSON is no object")
    return made


def _count_parts(text: str) -> int:
    """Return at least the number of values in a text of JSON."""
    n_lists, n_commas, n_objects = map(_TEXT.sub("", text).count, "[,{")
    return n_lists + n_commas + _PARTS_OF_AN_OBJECT * n_objects


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("its JSON has a key twice")
    return made


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _split(raw: bytes) -> tuple[bytes, memoryview]:
    """Return the length and text of the header, and the tensors."""
    end = 8 + int.from_bytes(raw[:8], "little")
    return raw[:end], memoryview(raw)[end:]


def _with_digest(header: bytes, old: str, new: str) -> bytes:
    # In a text of JSON inside the header the quotes are escaped, so that this is the only place.
    before, after = (f'"sha256":"{digest}"'.encode() for digest in (old, new))
    if header.count(before) != 1:
        raise ValueError("it has no checksum")
    return header.replace(before, after)


def _digest(header: bytes, tensors: memoryview) -> str:
    """Return the checksum of a file in which that of the header is still zero."""
    digest = hashlib.sha256(header)
    digest.update(tensors)
    return digest.hexdigest()


def write_atomically(path: str | os.PathLike[str], *parts: bytes | memoryview) -> None:
    target = os.path.realpath(os.fsdecode(path))
    if os.path.exists(target) and not os.path.isfile(target):  # A rename would replace a device.
        kind = IsADirectoryError if os.path.isdir(target) else FileExistsError
        reason = "Got a folder, a pipe or a device, but expected the name of a regular file"
        raise kind(errno.EISDIR if kind is IsADirectoryError else errno.EEXIST, reason, target)
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            os.chmod(
                temporary, stat.S_IMODE(os.stat(target).st_mode)
            )  # Who may read it, still may.
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename == temporary:
            raise OSError(error.errno, error.strerror, target) from error
        raise
