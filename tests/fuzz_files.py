"""Damaged and forged files of models: a case is made from its seed and index alone.

``python tests/fuzz_files.py --seed 0 --n 2000`` counts what becomes of them, and prints what should
not be; ``--case 17`` runs a case alone, and ``--output`` names a file for the table.

A case passes if `load` refuses the file by a ValueError that names it, or gives an estimator that
predicts arrays of the right shape or refuses the rows by a ValueError. Where the checksum was not
forged too, it must predict as the original. Meanwhile nothing may be executed, compiled, imported
or opened that a good file does not need, no case may take ten seconds or a gigabyte more memory.
"""

import argparse
import hashlib
import io
import json
import os
import pickle
import queue
import re
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import warnings
import zipfile
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch

from frames import as_pandas, plain_columns, with_dates
from sklearn_fordes import FoRDEClassifier, FoRDERegressor, load
from sklearn_fordes.preprocessing import TabularEncoder

# Seconds of computing, and bytes, that a case may take, and seconds after which it hangs: a machine
# may do other things too.
SECONDS, BYTES, WAITING = 10, 1 << 30, 90
SETTINGS = {"n_members": 2, "hidden_layer_sizes": (5,), "max_epochs": 2, "random_state": 0}
# What code can do to a process, as Python reports it.
WATCHED = {
    "exec",
    "compile",
    "import",
    "open",
    "code.__new__",
    "marshal.loads",
    "pickle.find_class",
}
WATCHED |= {"subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn"}
WATCHED |= {"socket.__new__", "socket.connect", "ctypes.dlopen", "ctypes.dlsym", "os.remove"}
WATCHED |= {"os.rename", "os.mkdir", "os.putenv", "os.chmod", "os.truncate", "os.listdir"}


class Payload:
    """Code, if someone unpickled it."""

    def __reduce__(self):
        return os.system, ("exit 1",)


# ---- the files that are changed


def make_bases(folder):
    """Save a few small models, and return their files and the rows that they take."""
    columns = with_dates(plain_columns(60))
    X = as_pandas(columns).drop(columns=["constant", "empty"])
    y = np.array(columns["size"])
    models = {
        "classifier": FoRDEClassifier(**SETTINGS, lengthscale="pca"),
        "regressor": FoRDERegressor(**SETTINGS),
        "homoscedastic": FoRDERegressor(**SETTINGS, noise="homoscedastic", encoder=None),
        "quantile": FoRDERegressor(**SETTINGS, noise="quantile", encoder=TabularEncoder()),
    }
    bases = {}
    for name, model in models.items():
        rows = X[["size", "again", "code"]] if model.encoder is None else X
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(rows, np.where(y > 0, "up", "down") if name == "classifier" else y)
        path = folder / name
        model.save(path, include_training_state=name in ("classifier", "homoscedastic"))
        bases[name] = path.read_bytes(), rows
    return bases


def predictions(model, X):
    """All kinds of predictions, and the shapes that they should have."""
    n_rows = len(X)
    found = {"predict": model.predict(X), "total": model.predict_uncertainty(X).total}
    shapes = {"predict": (n_rows,), "total": (n_rows,)}
    if isinstance(model, FoRDEClassifier):
        found["proba"] = model.predict_proba(X)
        shapes["proba"] = (n_rows, len(model.classes_))
    else:
        found["quantiles"] = model.predict_quantiles(X, [0.1, 0.5, 0.9])
        shapes["quantiles"] = (n_rows, 3)
    return found, shapes


# ---- parts of a file


def parts_of(raw):
    """The JSON of the header, that of the state inside it, and the bytes of the tensors."""
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:end])
    return header, json.loads(header["__metadata__"]["state"]), raw[end:]


def whole(header, tensors, state=None, text=None):
    """A file with a header as it stands; its checksum is not that of the content."""
    if state is not None:
        header["__metadata__"]["state"] = json.dumps(state)
    text = (json.dumps(header, separators=(",", ":")) if text is None else text).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + tensors


def signed(raw):
    """The same with the checksum that it asks for, if there is a place for one."""
    end = 8 + int.from_bytes(raw[:8], "little")
    mark = b'"sha256":"'
    start = raw.find(mark, 0, min(end, len(raw))) + len(mark)
    if start < len(mark):
        return raw
    zeros = raw[:start] + b"0" * 64 + raw[start + 64 :]
    return raw[:start] + hashlib.sha256(zeros).hexdigest().encode() + raw[start + 64 :]


def places(node, *above):
    """The places of a tree of dicts and lists."""
    for key, child in node.items() if isinstance(node, dict) else enumerate(node):
        yield *above, key
        if isinstance(child, dict | list):
            yield from places(child, *above, key)


def parent(tree, place):
    for key in place[:-1]:
        tree = tree[key]
    return tree


def pick(rng, items):
    items = list(items)
    return items[int(rng.integers(len(items)))]


# ---- kinds of damage: each takes a generator and the files, and returns bytes and the base's name

KINDS = {}


def kind(function):
    KINDS[function.__name__.replace("_", " ")] = function
    return function


def base_of(rng, bases):
    name = pick(rng, bases)
    return name, bases[name][0]


@kind
def bits(rng, bases):
    name, raw = base_of(rng, bases)
    changed = bytearray(raw)
    end = 8 + int.from_bytes(raw[:8], "little")
    regions = (0, 8), (8, end), (end, len(raw)), (0, len(raw))
    for _ in range(int(rng.integers(1, 5))):
        changed[int(rng.integers(*pick(rng, regions)))] ^= 1 << int(rng.integers(8))
    return name, bytes(changed)


@kind
def truncation(rng, bases):
    name, raw = base_of(rng, bases)
    end = 8 + int.from_bytes(raw[:8], "little")
    return name, raw[: int(pick(rng, [rng.integers(9), rng.integers(end), rng.integers(len(raw))]))]


@kind
def insertion(rng, bases):
    name, raw = base_of(rng, bases)
    at, n_bytes = int(rng.integers(len(raw) + 1)), int(pick(rng, [1, 8, 64, 4096]))
    inserted = pick(rng, [rng.bytes(n_bytes), b"\0" * n_bytes, b" " * n_bytes])
    return name, raw[:at] + inserted + raw[at + int(pick(rng, [0, n_bytes])) :]


@kind
def header_length(rng, bases):
    name, raw = base_of(rng, bases)
    length = int.from_bytes(raw[:8], "little")
    lengths = [
        0,
        1,
        length - 1,
        length + 1,
        len(raw) - 8,
        len(raw),
        1 << 31,
        1 << 40,
        (1 << 63) - 1,
    ]
    lengths += [(1 << 64) - 1, (1 << 64) - 8, 100_000_000, 99_999_999]
    return name, pick(rng, lengths).to_bytes(8, "little") + raw[8:]


SIZES = [0, 1, -1, 2, 1 << 31, 1 << 40, 1 << 62, 1 << 63, 1 << 64, 10**30, 0.5, None, "8", [1]]


@kind
def header_of_a_tensor(rng, bases):
    name, raw = base_of(rng, bases)
    header, _, tensors = parts_of(raw)
    entry = header[pick(rng, header.keys() - {"__metadata__"})]
    field = pick(rng, ["dtype", "shape", "shape", "data_offsets", "data_offsets", "keys"])
    if field == "dtype":
        known = ["F64", "F32", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "C64", "V", "", "O"]
        entry["dtype"] = pick(rng, [*known, None, 4, ["F32"]])
    elif field == "keys":
        entry[pick(rng, ["more", "dtype ", "Shape"])] = pick(rng, SIZES)
        entry.pop(pick(rng, ["dtype", "shape", "data_offsets", "none"]), None)
    elif rng.random() < 0.3:
        entry[field] = pick(rng, [None, [], {}, "x", [0], [1 << 62, 1 << 62], [0] * 5000, [[1]]])
    else:
        entry[field] = [pick(rng, [size, *SIZES]) for size in entry[field]]
    return name, whole(header, tensors)


@kind
def swapped_tensors(rng, bases):
    name, raw = base_of(rng, bases)
    header, _, tensors = parts_of(raw)
    by_shape = {}
    for key, entry in header.items():
        if key != "__metadata__":
            by_shape.setdefault((entry["dtype"], str(entry["shape"])), []).append(key)
    keys = pick(rng, [alike for alike in by_shape.values() if len(alike) > 1])
    one, other = (keys[i] for i in rng.choice(len(keys), 2, replace=False))
    header[one], header[other] = header[other], header[one]
    return name, whole(header, tensors)


NUMBERS = [0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 1e30, -1e300, 5e-324, 1 << 31, -(1 << 62)]
KINDS_OF_NUMBERS = {"F64": "f8", "F32": "f4", "I64": "i8", "I32": "i4", "U8": "u1", "BOOL": "?"}
KINDS_OF_NUMBERS |= {"U32": "u4", "U64": "u8", "I8": "i1", "F16": "f2"}


@kind
def values_of_a_tensor(rng, bases):
    name, raw = base_of(rng, bases)
    header, _, tensors = parts_of(raw)
    entry = header[pick(rng, header.keys() - {"__metadata__"})]
    start, end = entry["data_offsets"]
    values = np.frombuffer(tensors[start:end], KINDS_OF_NUMBERS[entry["dtype"]]).copy()
    if len(values):
        with np.errstate(all="ignore"):
            n_changed = pick(rng, [1, len(values)])
            index = rng.choice(len(values), n_changed, replace=False)
            values[index] = np.array(pick(rng, NUMBERS)).astype(values.dtype)
    return name, whole(header, tensors[:start] + values.tobytes() + tensors[end:])


@kind
def another_shape(rng, bases):
    """All of the file says that a tensor is smaller or larger than it was."""
    name, raw = base_of(rng, bases)
    header, state, tensors = parts_of(raw)
    key = pick(rng, header.keys() - {"__metadata__"})
    entry = header[key]
    kinds = list(KINDS_OF_NUMBERS)
    dtype = pick(rng, [entry["dtype"], pick(rng, kinds)])
    shape = list(entry["shape"])
    change = pick(rng, ["size", "more axes", "fewer axes", "none", "huge but empty"])
    if change == "size" and shape:
        shape[int(rng.integers(len(shape)))] = int(rng.integers(0, 9))
    elif change == "more axes":
        shape.insert(0, int(rng.integers(0, 3)))
    elif change == "fewer axes":
        shape = shape[1:]
    elif change == "huge but empty":
        shape = [0, int(pick(rng, [1 << 28, 1 << 31, 1 << 60]))]
    n_bytes = int(np.prod(shape, dtype=object)) * np.dtype(KINDS_OF_NUMBERS[dtype]).itemsize
    data = {k: tensors[slice(*e["data_offsets"])] for k, e in header.items() if "shape" in e}
    old = data[key] or b"\0"
    data[key] = (old * (n_bytes // len(old) + 1))[:n_bytes]
    entry.update(dtype=dtype, shape=shape)
    at = 0
    for k, part in data.items():
        header[k]["data_offsets"] = [at, at + len(part)]
        at += len(part)
    node = next((n for n in nodes(state) if n.get("array", [None])[0] == key), None)
    if node is not None and rng.random() < 0.7:  # As the state asks for it.
        old_type = node["array"][1]
        if not old_type[1:].startswith("U"):
            node["array"][1] = np.dtype(KINDS_OF_NUMBERS[dtype]).str
            node["array"][2] = list(range(len(shape)))
        elif shape:
            node["array"][1] = f"<U{shape[-1]}"
    return name, whole(header, b"".join(data.values()), state)


def nodes(tree):
    if isinstance(tree, dict):
        yield tree
    for child in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(child, dict | list):
            yield from nodes(child)


ANYTHING = [None, True, False, 0, -1, 1, 2, 10**30, 1 << 40, 1e308, 5e-324, "", "x", [], ["a"], [1]]
ANYTHING += [{"float": "nan"}, {"float": "inf"}, {"float": "-inf"}, {"float": "1"}, {}, "\ud800"]
ANYTHING += [{"tuple": []}, {"tuple": [1, 2]}, {"tuple": ["x"]}, {"dict": []}, {"dict": [["a", 1]]}]
ANYTHING += [{"dict": [[[], 1]]}, {"scalar": ["<f4", 1.0]}, {"scalar": ["<U1", "a"]}, {"x": 1}]
ANYTHING += [{"scalar": ["|V9", 1]}, {"scalar": ["<i8", 10**30]}, {"objects": [[1], [1]]}]
ANYTHING += [{"objects": [[10**9], []]}, {"objects": [[2, 2], [1, "a", None, 2.0]]}]
ANYTHING += [
    {"device": "meta"},
    {"device": "cuda:99"},
    {"optimizer": "SGD"},
    {"optimizer": "LBFGS"},
]
ANYTHING += [{"optimizer": "__builtins__"}, {"optimizer": "os"}, {"Index": [["a"], "b"]}]
ANYTHING += [{"UsersModule": ["os.system"]}, {"Tensor": 1}, {"Lengthscale": [None, None]}]
ANYTHING += [{"CategoricalLikelihood": {"dict": [["n_outputs", 1 << 40]]}}, "os.system", "__main__"]
ANYTHING += [{"TabularEncoder": {"dict": []}}, {"FunctionTransformer": {"dict": []}}, "🙂" * 999]
ANYTHING += [{"Repulsion": {"dict": [["space", "os.system('exit 1')"]]}}, "__import__('os')"]
ANYTHING += [{"array": ["members.parameters.0.weight", "<f4", [0, 1, 2]]}, {"RandomState": {}}]
ANYTHING += [
    {"QuantileLikelihood": {"dict": [["levels", {"tuple": [0.5]}]]}},
    "a\0b",
    -0.0,
    1 << 20,
]


@kind
def a_setting(rng, bases):
    name, raw = base_of(rng, bases)
    header, state, tensors = parts_of(raw)
    for _ in range(int(pick(rng, [1, 1, 1, 2]))):
        part = pick(rng, state)  # Some are much larger than others.
        place = pick(rng, [place for place in places(state) if place[0] == part])
        parent(state, place)[place[-1]] = pick(rng, ANYTHING)
    return name, whole(header, tensors, state)


@kind
def a_number_or_name(rng, bases):
    """A leaf becomes another one of its type."""
    name, raw = base_of(rng, bases)
    header, state, tensors = parts_of(raw)
    leaves = [p for p in places(state) if not isinstance(parent(state, p)[p[-1]], dict | list)]
    part = pick(rng, state)
    place = pick(rng, [place for place in leaves if place[0] == part])
    old = parent(state, place)[place[-1]]
    others = [parent(state, p)[p[-1]] for p in leaves]
    alike = [other for other in others if type(other) is type(old) and other != old]
    if isinstance(old, int) and not isinstance(old, bool):
        alike = [-old, old + 1, old - 1, 0, old * 1000, 1 << 31, 1 << 62, *alike]
    elif isinstance(old, float):
        alike = [-old, old * 1e9, old * 1e-9, 0.0, 1e308, *alike]
    parent(state, place)[place[-1]] = pick(rng, alike or [None])
    return name, whole(header, tensors, state)


@kind
def shape_of_the_state(rng, bases):
    """A list or dict loses a part, gets one twice, or is put in another order."""
    name, raw = base_of(rng, bases)
    header, state, tensors = parts_of(raw)
    lists = [node for p in places(state) if isinstance(node := parent(state, p)[p[-1]], list)]
    node = pick(rng, [node for node in lists if node])
    at = int(rng.integers(len(node)))
    change = pick(rng, ["less", "twice", "reverse", "none", "nested"])
    if change == "less":
        del node[at]
    elif change == "twice":
        node.insert(at, node[at])
    elif change == "reverse":
        node.reverse()
    elif change == "none":
        node.clear()
    else:
        node[:] = [list(node)]
    return name, whole(header, tensors, state)


@kind
def parts_of_another_model(rng, bases):
    name, raw = base_of(rng, bases)
    _, other = base_of(rng, bases)
    header, state, tensors = parts_of(raw)
    other_header, other_state, other_tensors = parts_of(other)
    part = pick(rng, state)
    change = pick(rng, ["state", "part", "tensors", "header", "arrays"])
    if change == "state":
        state = other_state
    elif change == "part":
        state[part] = other_state[part]
    elif change == "tensors":
        tensors = other_tensors
    elif change == "header":
        metadata = header["__metadata__"]
        header = {**other_header, "__metadata__": metadata}
        tensors = other_tensors
    else:  # A part with its arrays, next to those of the model.
        state[part], at = other_state[part], len(tensors)
        for key, entry in other_header.items():
            if key.startswith(part):
                start, end = entry["data_offsets"]
                header[key] = {**entry, "data_offsets": [at, at + end - start]}
                tensors += other_tensors[start:end]
                at += end - start
        used = {n["array"][0] for n in nodes(state) if "array" in n}
        data, at = [], 0
        for key in list(header):
            if key != "__metadata__" and key not in used:
                del header[key]
            elif key != "__metadata__":
                start, end = header[key]["data_offsets"]
                data.append(tensors[start:end])
                header[key]["data_offsets"] = [at, at + end - start]
                at += end - start
        tensors = b"".join(data)
    return name, whole(header, tensors, state)


@kind
def metadata(rng, bases):
    name, raw = base_of(rng, bases)
    header, _, tensors = parts_of(raw)
    texts = ["", "x", "0", "1", "2", "-1", "1.0", "１", "FoRDERegressor", "FoRDEClassifier", "{}"]
    texts += ["os.system", "__main__.X", "[]", "null", "{", '{"a": NaN}', "9" * 5000, "\0", 1, None]
    field = pick(rng, [*header["__metadata__"], "more"])
    if rng.random() < 0.2:
        header["__metadata__"].pop(field, None)
    else:
        header["__metadata__"][field] = pick(rng, texts)
    if rng.random() < 0.1:
        header["__metadata__"] = pick(rng, [None, [], {}, "x"])
    return name, whole(header, tensors)


def put_text(rng, header, state, where, text):
    """Put a text of JSON in the place of a field of the metadata, or of a value of the state."""
    if where == "inside":
        place = pick(rng, [p for p in places(state) if isinstance(p[-1], int)])
        parent(state, place)[place[-1]] = "HERE"
        where, text = "state", json.dumps(state).replace('"HERE"', text, 1)
    header["__metadata__"][where] = text


@kind
def deep_json(rng, bases):
    name, raw = base_of(rng, bases)
    header, state, tensors = parts_of(raw)
    depth = int(pick(rng, [20, 200, 900, 2000, 100_000, 1_000_000]))
    opening, closing = pick(rng, [("[", "]"), ('{"tuple":', "}"), ('{"dict":[["a",', "]]}")])
    text = opening * depth + pick(rng, ["1", "[]"]) + closing * depth
    text = pick(rng, [text, text, opening * depth])
    where = pick(rng, ["state", "versions", "header", "inside"])
    if where == "header":
        return name, whole(header, tensors, text=text)
    put_text(rng, header, state, where, text)
    return name, whole(header, tensors)


@kind
def huge_json(rng, bases):
    name, raw = base_of(rng, bases)
    header, state, tensors = parts_of(raw)
    item = pick(rng, ["[]", "[[]]", "[[[[[[[[]]]]]]]]", "{}", "1", '"ab"', "1e9", '{"":0}', '"🙂"'])
    n_bytes = int(pick(rng, [1e6, 1e6, 1e7, 3e7, 9e7]))
    text = "[" + ",".join([item] * (n_bytes // (len(item.encode()) + 1))) + "]"
    where = pick(rng, ["state", "versions", "inside", "header", "tensors"])
    if where == "header":
        return name, whole(header, tensors, text='{"a":' + text + "}")
    if where == "tensors":
        entry = '"%s":{"dtype":"U8","shape":[0],"data_offsets":[%d,%d]}'
        at = len(tensors)
        more = ",".join(entry % (i, at, at) for i in range(n_bytes // 60))
        text = json.dumps(header, separators=(",", ":"))
        return name, whole(header, tensors, text=text[:-1] + "," + more + "}")
    put_text(rng, header, state, where, text)
    return name, whole(header, tensors)


@kind
def duplicate_keys(rng, bases):
    name, raw = base_of(rng, bases)
    header, state, tensors = parts_of(raw)
    where = pick(rng, ["tensor", "metadata", "state", "field", "checksum"])
    text = json.dumps(header, separators=(",", ":"))
    if where == "tensor":
        key = pick(rng, header.keys() - {"__metadata__"})
        text = text[:-1] + f",{json.dumps(key)}:{json.dumps(header[key])}" + "}"
    elif where == "metadata":
        more = pick(rng, ['{"format":"x"}', '{"state":"{}"}', json.dumps(header["__metadata__"])])
        text = text[:-1] + f',"__metadata__":{more}' + "}"
    elif where == "checksum":
        text = text.replace('"sha256":', f'"sha256":"{"0" * 64}","sha256":', 1)
    elif where == "field":
        more = pick(rng, ['"class":"FoRDERegressor"', '"format":"x"', '"state":"{}"'])
        text = text.replace('"__metadata__":{', f'"__metadata__":{{{more},', 1)
    else:
        part = pick(rng, state)
        more = pick(rng, ["null", "[]", json.dumps(state[part]), '{"dict":[]}'])
        inner = json.dumps(state)[:-1] + f',"{part}":{more}' + "}"
        return name, whole(
            {**header, "__metadata__": {**header["__metadata__"], "state": inner}}, tensors
        )
    return name, whole(header, tensors, text=text)


def payload_of(rng):
    """Bytes that other programs would unpack or execute."""
    made, form = io.BytesIO(), pick(rng, ["pickle", "zip", "tar", "torch", "npy", "script", "bomb"])
    if form == "pickle":
        return pickle.dumps(Payload(), protocol=int(rng.integers(6)))
    if form == "zip":
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr("data.pkl", pickle.dumps(Payload()))
            archive.writestr("../../escaped", "x")
    elif form == "tar":
        with tarfile.open(fileobj=made, mode="w:gz") as archive:
            entry = tarfile.TarInfo("../../escaped")
            entry.size = 1
            archive.addfile(entry, io.BytesIO(b"x"))
    elif form == "torch":
        torch.save({"weight": torch.ones(3)}, made)
    elif form == "npy":
        np.save(made, np.array([Payload()], dtype=object), allow_pickle=True)
    elif form == "script":
        made.write(b"#!/bin/sh\nexit 1\n")
    else:
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("zeros", b"\0" * 10_000_000)
    return made.getvalue()


@kind
def payloads(rng, bases):
    name, raw = base_of(rng, bases)
    header, state, tensors = parts_of(raw)
    payload = payload_of(rng)
    where = pick(rng, ["file", "before", "after", "tensor", "more", "state", "name"])
    if where == "file":
        return name, payload
    if where == "before":
        return name, payload + raw
    if where == "after":
        return name, raw + payload
    if where == "tensor":
        start, end = header[pick(rng, header.keys() - {"__metadata__"})]["data_offsets"]
        filled = payload[: end - start].ljust(end - start, b"\0")
        return name, whole(header, tensors[:start] + filled + tensors[end:])
    if where == "more":
        at = len(tensors)
        header["more"] = {
            "dtype": "U8",
            "shape": [len(payload)],
            "data_offsets": [at, at + len(payload)],
        }
        return name, whole(header, tensors + payload)
    text = payload[:5000].decode("latin-1")
    place = pick(rng, places(state))
    if where == "state":
        parent(state, place)[place[-1]] = text
    else:
        parent(state, place)[place[-1]] = {pick(rng, ["pickle", "py/object", "__reduce__"]): text}
    return name, whole(header, tensors, state)


def make_case(seed, index, bases):
    """Return the kind of damage, whether the checksum is forged too, the base and the file."""
    rng = np.random.default_rng([seed, index])
    names = list(KINDS)
    name = names[index % len(names)]
    is_signed = bool(index // len(names) % 2)
    base, raw = KINDS[name](rng, bases)
    return name, is_signed, base, signed(raw) if is_signed else raw


# ---- what becomes of them


class Watch:
    """Refuses what code could do, except what also happens when a good file is loaded."""

    def __init__(self):
        self.state, self.known, self.seen = "off", set(), []
        sys.addaudithook(self)

    def __call__(self, event, arguments):
        if self.state == "off" or event not in WATCHED:
            return
        # A library that is looked into again has another handle, and another address.
        what = re.sub("handle [0-9a-f]+|0x[0-9a-f]+", "", str(arguments[0])) if arguments else ""
        happened = event, what[:200]
        if self.state == "learning":
            self.known.add(happened)
        elif happened not in self.known:
            self.seen.append(happened)
            raise RuntimeError(f"{happened} is not allowed.")


def peak_memory(*, reset=False):
    """Bytes of the peak of this process, since the last reset where the system can do that."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) * 1024
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Laboratory:
    """Loads and predicts, under watch, in this process."""

    def __init__(self, folder):
        self.bases, self.path = make_bases(folder), folder / "model.safetensors"
        self.expected, self.watch = {}, Watch()
        for state in ("off", "learning"):  # What is imported once is not allowed again.
            self.watch.state = state
            for name, (raw, rows) in self.bases.items():
                self.path.write_bytes(raw)
                self.expected[name] = predictions(load(self.path), rows)[0]
                self.path.write_bytes(raw[:-1])
                self._outcome(name, True)
            self.watch.state = "off"

    def run(self, seed, index):
        """Return the kind, whether the checksum is forged, and the outcome of a case."""
        name, is_signed, base, raw = make_case(seed, index, self.bases)
        self.path.write_bytes(raw)
        del raw
        before, start = peak_memory(reset=True), time.process_time()
        self.watch.seen.clear()
        self.watch.state = "on"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcome = self._outcome(base, is_signed)
        finally:
            self.watch.state = "off"
        if self.watch.seen:
            outcome = f"FAILED: code did {self.watch.seen[:3]}"
        if time.process_time() - start > SECONDS:
            outcome = f"FAILED: {time.process_time() - start:.0f} s ({outcome})"
        taken = peak_memory() - before
        if taken > BYTES:
            outcome = f"FAILED: {taken >> 20} MB of memory ({outcome})"
        return name, is_signed, outcome

    def _outcome(self, base, is_signed):
        rows = self.bases[base][1]
        try:
            model = load(self.path)
        except ValueError as error:
            is_named = repr(os.fspath(self.path)) in str(error)
            return "refused" if is_named else f"FAILED: does not name the file: {error}"
        except BaseException as error:
            return f"FAILED: load raises {type(error).__name__}: {error}"
        try:
            found, shapes = predictions(model, rows)
        except ValueError:
            return "refuses rows" if is_signed else "FAILED: refuses rows"
        except BaseException as error:
            return f"FAILED: predict raises {type(error).__name__}: {error}"
        if {name: value.shape for name, value in found.items()} != shapes:
            return "FAILED: predictions of another shape"
        expected = self.expected[base]
        if found.keys() == expected.keys() and all(
            found[name].tobytes() == expected[name].tobytes() for name in found
        ):
            return "predicts as before"
        return "predicts otherwise" if is_signed else "FAILED: predicts otherwise"


OUTCOMES = ["refused", "refuses rows", "predicts as before", "predicts otherwise", "FAILED"]


def table_of(outcomes):
    """Count outcomes by the kind of damage."""
    counts = Counter(
        (name, "forged" if is_signed else "as it was", outcome.split(":")[0])
        for name, is_signed, outcome in outcomes
    )
    damages = sorted({(name, checksum) for name, checksum, _ in counts})
    rows = [[counts[*damage, outcome] for outcome in OUTCOMES] for damage in damages]
    index = pd.MultiIndex.from_tuples([*damages, ("all", "")], names=["damage", "checksum"])
    table = pd.DataFrame([*rows, np.sum(rows, axis=0)], index, OUTCOMES)
    return table.to_string()


def worker(seed, start, stop):
    """Run cases, and print a line for each one as soon as it is over."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        laboratory = Laboratory(Path(folder))
        print("ready", flush=True)
        for index in range(start, stop):
            print(json.dumps(laboratory.run(seed, index)), flush=True)


def run_cases(seed, n_cases):
    """Yield the outcome of each case; a process that hangs or dies is replaced."""
    index = 0
    while index < n_cases:
        command = [
            sys.executable,
            __file__,
            "--seed",
            str(seed),
            "--worker",
            str(index),
            str(n_cases),
        ]
        paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # What is tested here.
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=paths)
        lines = queue.Queue()

        def read(stream=process.stdout, lines=lines):
            for line in stream:
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()
        if lines.get(timeout=2 * WAITING) != "ready\n":
            raise RuntimeError("The process that loads files did not start.")
        while index < n_cases:
            try:
                line = lines.get(timeout=WAITING)
                problem = "FAILED: the process died"
            except queue.Empty:
                line, problem = None, f"FAILED: more than {WAITING} s"
            names = list(KINDS)
            kind_of = names[index % len(names)], bool(index // len(names) % 2)
            yield (*kind_of, problem) if line is None else tuple(json.loads(line))
            index += 1
            if line is None:
                break
        process.kill()
        process.wait()
        process.stdout.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--case", type=int)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.seed, *options.worker)
        return 0
    if options.case is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(*Laboratory(Path(folder)).run(options.seed, options.case), sep="\n")
        return 0
    outcomes = []
    for index, case in enumerate(run_cases(options.seed, options.n)):
        outcomes.append(case)
        if case[2].startswith("FAILED"):
            print(index, *case, flush=True)
    libraries = ["sklearn-fordes", "safetensors", "torch", "numpy", "scikit-learn", "pandas"]
    from importlib.metadata import version

    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    table = "\n".join(line.rstrip() for line in table_of(outcomes).splitlines())
    title = "damaged and forged files: what load and prediction make of them"
    report = f"{title}\nseed {options.seed}, {options.n} cases; {versions}\n\n{table}\n"
    print(report)
    if options.output:
        options.output.write_text(report)
    return any(case[2].startswith("FAILED") for case in outcomes)


if __name__ == "__main__":
    sys.exit(main())
