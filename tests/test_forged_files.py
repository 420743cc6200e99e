"""Files of a safe format that `save` did not write, or that were damaged since."""

import bz2
import gzip
import hashlib
import json
import lzma
import os
import pickle
import random
import stat
import zlib
from collections import Counter

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from contracts import SIZES
from frames import as_pandas, plain_columns, with_dates
from fuzz_files import run_cases
from sklearn_fordes import FoRDEClassifier, FoRDERegressor, Repulsion, load
from sklearn_fordes.networks import MLP, _mlp
from sklearn_fordes.preprocessing import TabularEncoder


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture(scope="module")
def X():
    return as_pandas(with_dates(plain_columns())).drop(columns=["constant", "empty"])


def content(path):
    """The arrays of a file, and the metadata with the state as Python objects."""
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata()
    return safetensors.numpy.load_file(path), {**metadata, "state": json.loads(metadata["state"])}


def forge(path, tensors, metadata, signed=True):
    """Write a file as someone would who knows the format, with a checksum that is right."""
    metadata = {**metadata, "state": json.dumps(metadata["state"]), "sha256": "0" * 64}
    raw = safetensors.numpy.save(tensors, metadata)
    if signed:
        field = '"sha256":"{}"'
        digest = field.format(hashlib.sha256(raw).hexdigest())
        raw = raw.replace(field.format("0" * 64).encode(), digest.encode())
    path.write_bytes(raw)


def entry(state, *names):
    """The node of a packed state at the end of a path of keys, to be changed in place."""
    node = state[names[0]]
    for name in names[1:]:
        if isinstance(node, dict) and node.keys() != {"dict"}:
            (node,) = node.values()
        node = next(pair for pair in node["dict"] if pair[0] == name)[1]
    return node


def replace(state, *names, by):
    *before, last = names
    node = entry(state, *before)
    if node.keys() != {"dict"}:
        (node,) = node.values()
    next(pair for pair in node["dict"] if pair[0] == last)[1] = by


@pytest.fixture(scope="module")
def saved(X, tmp_path_factory):
    """Files of a classifier with the training state and of a regressor."""
    folder = tmp_path_factory.mktemp("saved")
    size = X["size"]
    classifier = FoRDEClassifier(**SIZES, random_state=0, lengthscale="pca", repulsion=Repulsion())
    classifier.fit(X, size > 0).save(folder / "classifier", include_training_state=True)
    FoRDERegressor(**SIZES, random_state=0).fit(X, size).save(folder / "regressor")
    return folder


def test_a_forged_file_that_changes_nothing_loads(saved, path):
    forge(path, *content(saved / "classifier"))
    assert load(path).n_members == 3


METADATA = {
    "another format": ({"format": "pt"}, "its format is 'pt'"),
    "no format": ({"format": ""}, "its format is ''"),
    "a newer version": ({"format_version": "2"}, "format_version is 2.* reads up to 1"),
    "no version": ({"format_version": "x"}, "invalid literal"),
    "a class": ({"class": "os.system"}, "of a 'os.system', but expected one of"),
    "no JSON": ({"versions": "{"}, "JSONDecodeError"),
    "deep": ({"versions": "[" * 100_000}, "RecursionError"),
    "a list": ({"versions": "[1, 2]"}, "its JSON is no object"),
    "no constant of JSON": ({"versions": '{"numpy": NaN}'}, "NaN is no number of JSON"),
    "digits": ({"versions": '{"a": ' + "9" * 5000 + "}"}, "4300"),
}


@pytest.mark.parametrize(("changes", "message"), METADATA.values(), ids=METADATA)
def test_metadata_of_another_kind_are_refused(saved, path, changes, message):
    tensors, metadata = content(saved / "classifier")
    forge(path, tensors, {**metadata, **changes})
    with pytest.raises(ValueError, match=message):
        load(path)


def test_a_wrong_class_is_refused(saved):
    with pytest.raises(ValueError, match=r"of a 'FoRDEClassifier', but expected .*FoRDERegressor"):
        FoRDERegressor.load(saved / "classifier")


def test_a_checksum_is_needed(saved, path):
    forge(path, *content(saved / "classifier"), signed=False)
    with pytest.raises(ValueError, match="its checksum is not that of its content"):
        load(path)
    safetensors.numpy.save_file({"x": np.ones(3)}, path)
    with pytest.raises(ValueError, match="its format is None"):
        load(path)
    with pytest.raises(FileNotFoundError):
        load(path.with_name("missing"))


ENCODER = ("fitted", "encoder")
LOW, HIGH = (f"fitted.encoder.TabularEncoder.{name}" for name in ("low_", "high_"))
TRAINING = ("learnt", "_training_state_")
FORGERIES = {
    "a callable": ("parameters", "repulsion", {"os.system": "true"}),
    "two forms": ("parameters", "repulsion", {"tuple": [], "dict": []}),
    "no optimizer": ("parameters", "optimizer", {"optimizer": "Optimizers"}),
    "another name of torch.optim": ("parameters", "optimizer", {"optimizer": "lr_scheduler"}),
    "a list for a name": ("parameters", "optimizer", {"optimizer": []}),
    "a random state": (
        "parameters", "random_state",
        {"RandomState": {"dict": [["state", {"dict": [["pos", 10**9]]}]]}},
    ),
    "a tensor twice": (*ENCODER, "low_", {"array": [HIGH, "<f8", [0]]}),
    "a type": (*ENCODER, "low_", {"array": [LOW, "<f4", [0]]}),
    "an object type": (*ENCODER, "low_", {"array": [LOW, "|O", [0]]}),
    "axes": (*ENCODER, "low_", {"array": [LOW, "<f8", [1]]}),
    "NaN": (*ENCODER, "clip", {"float": "nan"}),
    "a float": (*ENCODER, "clip", {"float": "1e5"}),
    "kinds": (*ENCODER, "kinds_", ["number"]),
    "parts": (*ENCODER, "parts_", [["year"]]),
    "tails": (*ENCODER, "is_long_tailed_", [True]),
    "indicators": (*ENCODER, "gap_indicators", "none"),
    "levels": (*ENCODER, "known_levels_", [[]]),
    "shares": (*ENCODER, "level_shares_", []),
    "columns": (*ENCODER, "n_features_in_", 3),
    "another encoder": ("fitted", "encoder", {"StandardScaler": {"dict": []}}),
    "no encoder": ("fitted", "encoder", {"tuple": []}),
    "an encoder that does nothing": ("fitted", "encoder", {"FunctionTransformer": {"dict": []}}),
    "likelihood": ("fitted", "likelihood", {"GaussianLikelihood": {"dict": []}}),
    "target": (
        "fitted", "likelihood",
        {"CategoricalLikelihood": {"dict": [["n_outputs", 2], ["target", "pickle"]]}},
    ),
    "a shape": ("fitted", "input_shape", {"tuple": [10**15]}),
    "a negative shape": ("fitted", "input_shape", {"tuple": [-1]}),
    "chunks": ("fitted", "rows_per_chunk", 0),
    "a wide layer": ("then", "hidden_layer_sizes", {"tuple": [10**12]}),
    "many layers": ("then", "hidden_layer_sizes", {"tuple": [8] * 500}),
    "narrow layers": ("then", "hidden_layer_sizes", {"tuple": [4]}),
    "a parameter": ("then", "n_members", {"array": ["x", "<f8", []]}),
    "an augmentation": ("then", "augmentation", "os.system"),
    "a module": ("then", "module", "os.system"),
    "classes": ("learnt", "classes_", [0, 1, 2]),
    "epochs": ("learnt", "n_iter_", 10**30),
    "features": ("learnt", "n_features_in_", True),
    "names": ("learnt", "feature_names_in_", {"objects": [[2], ["a", "b"]]}),
    "a history": ("learnt", "history_", {"dict": []}),
    "batches": (*TRAINING, "batches", {"dict": [["bit_generator", "MT19937"]]}),
    "steps": (*TRAINING, "n_steps", -1),
    "a seed": (*TRAINING, "seed", 1e400),
    "a loss": (*TRAINING, "relative_loss", {"float": "nan"}),
    "moments": (*TRAINING, "optimizer", {"dict": [["parameters", {"dict": [["x", [1, 2]]]}]]}),
    "a lengthscale": (*TRAINING, "lengthscale", {"tuple": [[1.0], [[1.0, 2.0]]]}),
}  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_forged_settings_are_refused(saved, path, forgery):
    *names, by = forgery
    tensors, metadata = content(saved / "classifier")
    replace(metadata["state"], *names, by=by)
    forge(path, tensors, metadata)
    with pytest.raises(ValueError, match=r"Got '.*', which can't be loaded \(.*\), but expected"):
        load(path)


@pytest.mark.parametrize(
    "settings",
    [{"module__n_frequencies": 10**12}, {"module__n_components": 10**10}, {"module__dropout": 2}],
)
def test_forged_settings_of_the_network_fill_no_memory(saved, path, settings):
    tensors, metadata = content(saved / "regressor")
    then = entry(metadata["state"], "then")
    others = [pair for pair in then["dict"] if pair[0] not in settings]
    then["dict"] = others + [list(pair) for pair in settings.items()]
    forge(path, tensors, metadata)
    message = r"make a network of .* weights|moments take .* MB|Got dropout=2"
    with pytest.raises(ValueError, match=message):
        load(path)


class Subclass(MLP):
    """A module of the user's own."""


@pytest.fixture(scope="module")
def networks(saved, X):
    """Each kind of network: the file's name, and the module given to `load`."""
    size, settings = X["size"], {**SIZES, "random_state": 0}
    noisy = FoRDERegressor(**settings, noise="homoscedastic").fit(X, size)
    noisy.save(saved / "homoscedastic")
    own = FoRDERegressor(**settings, module=Subclass, encoder=TabularEncoder()).fit(X, size)
    own.save(saved / "own")
    return {"regressor": None, "homoscedastic": None, "own": Subclass}


@pytest.mark.parametrize("name", ["regressor", "homoscedastic", "own"])
@pytest.mark.parametrize("sizes", [[1020] * 300, [1] * 20_000], ids=["wide", "narrow"])
def test_many_layers_are_refused_before_they_are_made(
    saved, networks, path, name, sizes, monkeypatch
):
    n_made, make = [], _mlp._linear

    def counted(n_inputs, n_outputs, generator):
        n_made.append(n_inputs * n_outputs)
        return make(n_inputs, n_outputs, generator)

    monkeypatch.setattr(_mlp, "_linear", counted)
    tensors, metadata = content(saved / name)
    replace(metadata["state"], "then", "hidden_layer_sizes", by={"tuple": sizes})
    replace(metadata["state"], "then", "n_members", by=1)
    forge(path, tensors, metadata)
    limit = "make a tensor of .* more than" if networks[name] else "make a network of .* weights"
    with pytest.raises(ValueError, match=limit):
        load(path, module=networks[name])
    # One layer of each width is far below the limit, which holds for the sum.
    assert sum(n_made) <= (18_000_000 if networks[name] else 0)
    assert len(n_made) <= 1 << 14


def test_the_order_of_weights_in_a_file_changes_nothing(saved, path, X):
    tensors, metadata = content(saved / "regressor")
    entry(metadata["state"], "members", "parameters")["dict"].reverse()
    forge(path, tensors, metadata)
    expected = load(saved / "regressor").predict(X)
    np.testing.assert_array_equal(load(path).predict(X), expected)


@pytest.mark.parametrize("name", ["regressor", "homoscedastic"])
def test_weights_and_columns_that_predict_nothing_are_refused(saved, networks, path, name):
    tensors, metadata = content(saved / name)
    (columns,) = (key for key in tensors if key.endswith(".features"))
    weights = next(key for key in tensors if key.endswith("weight"))
    without = np.full_like(tensors[weights], np.nan)
    for changed in ({columns: tensors[columns] + 10**6}, {weights: without}):
        forge(path, {**tensors, **changed}, metadata)
        with pytest.raises(ValueError, match="not finite, or not the columns of its settings"):
            load(path)


def test_a_row_of_the_default_network_has_one_axis(saved, path):
    tensors, metadata = content(saved / "regressor")
    width = len(load(saved / "regressor").encoder_.column_map_)
    replace(metadata["state"], "fitted", "input_shape", by={"tuple": [width, 1]})
    forge(path, tensors, metadata)
    with pytest.raises(ValueError, match=r"its \['input_shape'\] are of another type"):
        load(path)


@pytest.mark.parametrize(
    ("change", "kind", "axes"),
    [
        (lambda tails: tails[:-1], "|b1", [0]),
        (lambda tails: tails[None], "|b1", [0, 1]),
        (lambda tails: tails.astype(np.uint8), "|u1", [0]),
        (lambda tails: tails.astype(np.float64), "<f8", [0]),
    ],
    ids=["fewer", "a matrix", "whole numbers", "floats"],
)
def test_tails_of_another_type_or_shape_are_refused(saved, path, change, kind, axes):
    tensors, metadata = content(saved / "classifier")
    (name,) = (key for key in tensors if key.endswith("is_long_tailed_"))
    replace(metadata["state"], *ENCODER, "is_long_tailed_", by={"array": [name, kind, axes]})
    forge(path, {**tensors, name: change(tensors[name])}, metadata)
    with pytest.raises(ValueError, match=r"whose \['is_long_tailed_'\] do not fit the others"):
        load(path)


def test_forged_tensors_are_refused(saved, path):
    tensors, metadata = content(saved / "regressor")
    weights = [name for name in tensors if name.startswith("members.parameters")]
    name = weights[-1]
    for forged in (
        {**tensors, "more": np.ones(2)},
        {other: tensors[other] for other in tensors if other != name},
        {**tensors, name: tensors[name][:2]},
        {**tensors, name: tensors[name][..., :1, :]},
        {**tensors, name: tensors[name].astype(np.float64)},
        {**tensors, name: tensors[name].astype(np.int32)},
        {**tensors, name: np.zeros((0, 3), np.float32)},
    ):
        forge(path, forged, metadata)
        with pytest.raises(ValueError, match="which can't be loaded"):
            load(path)
    for scale in ({"float": "nan"}, 0.0, -1.0, "x"):
        replace(metadata["state"], "learnt", "target_scale_", by=scale)
        forge(path, tensors, metadata)
        with pytest.raises(ValueError, match="which can't be loaded"):
            load(path)


def test_a_damaged_file_raises_a_value_error(saved, path):
    raw = (saved / "classifier").read_bytes()
    rng = np.random.default_rng(0)
    header = int.from_bytes(raw[:8], "little")
    positions = [*range(10), *rng.integers(8, header, 80), *rng.integers(header, len(raw), 50)]
    damaged = []
    for position in positions:
        changed = bytearray(raw)
        changed[position] ^= int(rng.integers(1, 256))
        damaged.append(bytes(changed))
    damaged += [raw[:end] for end in [0, 1, 7, 8, 9, *rng.integers(0, len(raw), 60)]]
    damaged += [raw + b"\0", b"\xff" * 200, rng.bytes(5000), pickle.dumps({"a": 1})]
    for content_of_file in damaged:
        path.write_bytes(content_of_file)
        with pytest.raises(ValueError, match="which can't be loaded"):
            load(path)


A_PICKLE = pickle.dumps({"a": np.ones(99)})
OTHER_FILES = {
    **{
        f"protocol {n}": (pickle.dumps({"a": 1}, n), "looks like a pickle: job")
        for n in range(2, 6)
    },
    "zlib": (zlib.compress(A_PICKLE), "is compressed: joblib.load opens it"),
    "gzip": (gzip.compress(A_PICKLE), "is compressed: joblib.load opens it"),
    "bz2": (bz2.compress(A_PICKLE), "is compressed: joblib.load opens it"),
    "xz": (lzma.compress(A_PICKLE), "is compressed: joblib.load opens it"),
    "lzma": (lzma.compress(A_PICKLE, lzma.FORMAT_ALONE), "is compressed: joblib.load opens it"),
    "zip": (b"PK\x03\x04" + bytes(99), "is a zip archive, as torch.save"),
    "text": (b"age,city\n31,Oslo\n", "does not begin as a safetensors file does"),
    "nothing": (b"", "does not begin as a safetensors file does"),
}


@pytest.mark.parametrize(("raw", "message"), OTHER_FILES.values(), ids=OTHER_FILES)
def test_a_file_of_another_format_is_named(path, monkeypatch, raw, message):
    monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(pickle, "load", None)
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=rf"Got '.*', which can't be loaded \(it {message}"):
        load(path)


def test_what_is_no_file_is_refused_before_it_is_read(tmp_path):
    message = r"Got '.*', which can't be loaded \(it is no regular file\)"
    if os.path.exists("/dev/zero"):
        with pytest.raises(ValueError, match=message):
            load("/dev/zero")
    if hasattr(os, "mkfifo"):  # Nobody writes to it: opening it in the ordinary way would wait.
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ValueError, match=message):
            load(tmp_path / "pipe")
    with pytest.raises(OSError, match=os.path.basename(tmp_path)):
        load(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="A pipe is needed.")
@pytest.mark.parametrize("method", ["save", "to_onnx"])
def test_nothing_but_a_regular_file_is_replaced(method, saved, tmp_path):
    model = load(saved / "classifier")
    if method == "to_onnx":
        pytest.importorskip("onnx")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name, error in (
        ("pipe", FileExistsError),
        ("link", FileExistsError),
        ("folder", IsADirectoryError),
    ):
        with pytest.raises(error, match="expected the name of a regular file"):
            getattr(model, method)(tmp_path / name)
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)
    assert {one.name for one in tmp_path.iterdir()} == {"pipe", "folder", "link"}


def test_a_file_larger_than_the_memory_is_refused_before_it_is_read(path):
    with open(path, "wb") as file:
        file.truncate(1 << 43)  # It has a hole, and takes no room.
    with pytest.raises(ValueError, match=r"a file whose contents take .* MB, but expected at most"):
        load(path)


JSON = {
    "nested": "[" * 300 + "]" * 300,
    "flat": "[]",
    "objects": '{"":[]}',
}


@pytest.mark.parametrize("item", JSON.values(), ids=JSON)
def test_settings_of_too_many_parts_are_refused_before_they_are_made(saved, path, item):
    tensors, metadata = content(saved / "classifier")
    metadata["state"]["more"] = "HERE"
    n_items = (1 << 21) // (item.count("[") + 8 * item.count("{")) + 1
    text = json.dumps(metadata["state"]).replace('"HERE"', f"[{','.join([item] * n_items)}]")
    forge(path, tensors, {**metadata, "versions": text})
    with pytest.raises(ValueError, match=r"its JSON has \d+ parts, and not at most 2097152"):
        load(path)


def test_a_header_that_is_too_long_is_refused(saved, path):
    tensors, metadata = content(saved / "classifier")
    forge(path, tensors, {**metadata, "more": "x" * (1 << 26)})
    with pytest.raises(ValueError, match=r"its header takes \d+ bytes, and not at most 67108864"):
        load(path)


def test_settings_that_no_file_can_give_back_are_not_saved(X, path):
    model = FoRDEClassifier(**SIZES, random_state=0).fit(X, X["size"] > 0)
    for many in ("x" * (1 << 26), [0] * (1 << 21)):
        with pytest.raises(ValueError, match=r"settings take \d+ bytes .* too many levels"):
            model.set_params(verbose=False, optimizer__betas=many).save(path)
        assert not path.exists()


def test_a_key_that_is_there_twice_is_refused(saved, path):
    tensors, metadata = content(saved / "classifier")
    pairs = entry(metadata["state"], "then")["dict"]
    pairs.append(pairs[0])
    forge(path, tensors, metadata)
    with pytest.raises(ValueError, match="a key is there twice"):
        load(path)
    forge(path, tensors, {**metadata, "versions": '{"torch": "1", "torch": "2"}'})
    with pytest.raises(ValueError, match="its JSON has a key twice"):
        load(path)


def test_a_long_reason_is_cut(saved, path):
    tensors, metadata = content(saved / "classifier")
    forge(path, {**tensors, **{f"more {i}": np.ones(1) for i in range(1000)}}, metadata)
    with pytest.raises(ValueError, match="it has tensors that belong to nothing") as caught:
        load(path)
    assert len(str(caught.value)) < 2000


def test_random_damage_does_no_harm():
    """A share of the cases of `fuzz_files`, in a process of its own that it watches."""
    outcomes = [*run_cases(seed=0, n_cases=68)]
    assert [case for case in outcomes if case[2].startswith("FAILED")] == []
    assert len(outcomes) == 68
    found = Counter(outcome for _, _, outcome in outcomes)
    assert found["refused"] >= 50
    assert found["predicts otherwise"] >= 1  # Where numbers of a tensor were forged too.


def paths_of(node, *above):
    """The places of a tree of dicts and lists."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, child in items:
        yield *above, key
        if isinstance(child, dict | list):
            yield from paths_of(child, *above, key)


ANYTHING = [None, True, -1, 10**30, 1e308, {"float": "nan"}, "", "x", [], ["a"], [1], 1 << 40]
ANYTHING += [{"tuple": [1, 2]}, {"dict": []}, {"dict": [["a", 1]]}, {"scalar": ["<f4", 1.0]}]
ANYTHING += [{"objects": [[1], [1]]}, {"device": "meta"}, {"optimizer": "SGD"}, {"bad": 1}]


@pytest.mark.parametrize("name", ["classifier", "regressor"])
def test_a_setting_of_anything_raises_a_value_error_or_does_no_harm(saved, path, X, name):
    tensors, metadata = content(saved / name)
    rng, n_refused = random.Random(0), 0
    places = list(paths_of(metadata["state"]))
    for _ in range(100):
        state = json.loads(json.dumps(metadata["state"]))
        *above, last = rng.choice(places)
        node = state
        for key in above:
            node = node[key]
        node[last] = rng.choice(ANYTHING)
        forge(path, tensors, {**metadata, "state": state})
        try:
            load(path).predict(X)
        except ValueError:
            n_refused += 1
    assert 50 < n_refused < 100


def test_a_file_names_no_folder_to_write_in(saved, path, X):
    tensors, metadata = content(saved / "classifier")
    for part in ("parameters", "then"):
        replace(metadata["state"], part, "checkpoint_dir", by=str(path.parent / "away"))
    forge(path, tensors, metadata)
    model = load(path)
    assert model.checkpoint_dir is None
    model.set_params(max_epochs=1).fit(X, X["size"] > 0)
    assert not (path.parent / "away").exists()
