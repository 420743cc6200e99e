"""Random tables, targets and parameters: a case is made from its seed and index alone.

``python tests/fuzz.py --seed 1 --n 3000`` prints what fails; ``--case 17`` runs a case alone.

A case passes if the estimator fits, and then predicts finite float64 numbers for the training rows
and for other ones, or refuses its input by a ValueError or TypeError that names what is wrong and
leaves the estimator as it was. Warnings must be worth reading.
"""

import argparse
import datetime
import os
import pickle
import sys
import traceback
import warnings
from collections import Counter
from decimal import Decimal

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import polars as pl
import torch
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning

from sklearn_fordes import FoRDEClassifier, FoRDERegressor
from sklearn_fordes.particles import Repulsion

WORDS = ["a", "", " ", "Oslo", "日本語", "🙂", "e\u0301", "é", "nan", "inf", "1", "1.0", "missing"]
WORDS += ["infrequent", "x" * 300, "\x00", "a\nb", "-1e400", "'", '"', "0150", "2024-01-02"]
MIXED = [1, 2.5, True, "a", "1", None, datetime.date(2024, 1, 2)]
START = pd.Timestamp("2020-01-01")

# Columns of n values, from a generator and standard normal numbers.
COLUMNS = {
    "float": lambda rng, u: u,
    "float32": lambda rng, u: u.astype(np.float32),
    "float16": lambda rng, u: (u * 1e4).astype(np.float16),
    "integer": lambda rng, u: rng.integers(-5, 5, len(u)),
    "uint64": lambda rng, u: rng.integers(0, 2**64 - 1, len(u), dtype=np.uint64),
    "truth": lambda rng, u: u > 0,
    "huge": lambda rng, u: u * 1e30,
    "of all sizes": lambda rng, u: u * 10.0 ** rng.integers(-300, 300, len(u)),
    "denormal": lambda rng, u: u * 1e-320,
    "hardly varying": lambda rng, u: 1e16 + rng.integers(0, 3, len(u)) * 2.0,
    "one huge cell": lambda rng, u: np.where(np.arange(len(u)) == 0, 1e308, u),
    "both ends": lambda rng, u: np.where(u > 0, 1.7e308, -1.7e308),
    "constant": lambda rng, u: np.full(len(u), rng.choice([0.0, 7.0, -1e300, 5e-324])),
    "gaps": lambda rng, u: np.where(rng.random(len(u)) < 0.4, np.nan, u),
    "constant and gaps": lambda rng, u: np.where(u > 0, np.nan, 3.0),
    "only gaps": lambda rng, u: np.full(len(u), np.nan),
    "only None": lambda rng, u: [None] * len(u),
    "only NaT": lambda rng, u: pd.Series([pd.NaT] * len(u)),
    "infinity": lambda rng, u: np.where(u > 0.5, np.inf, u),
    "integers and None": lambda rng, u: [int(v * 9) if v > -1 else None for v in u],
    "truths and None": lambda rng, u: [bool(v > 0) if v > -1 else None for v in u],
    "decimals": lambda rng, u: [Decimal(int(v * 99)) / 7 for v in u],
    "beyond double precision": lambda rng, u: [10 ** int(k) for k in rng.integers(0, 400, len(u))],
    "nullable integers": lambda rng, u: pd.array(
        [int(v * 9) if v > -1 else None for v in u], "Int32"
    ),
    "nullable truths": lambda rng, u: pd.array(
        [bool(v > 0) if v > -1 else None for v in u], "boolean"
    ),
    "text of numbers": lambda rng, u: [f"{v:.3f}" for v in u],
    "text of numbers and gaps": lambda rng, u: [f"{v:.3f}" if v > -1 else "NA" for v in u],
    "levels": lambda rng, u: rng.choice(["red", "green", "blue"], len(u)).tolist(),
    "levels and None": lambda rng, u: [None if v > 1 else "ab"[int(v > 0)] for v in u],
    "many levels": lambda rng, u: [f"level {k}" for k in rng.integers(0, 1000, len(u))],
    "identifiers": lambda rng, u: [f"id{k}" for k in range(len(u))],
    "words": lambda rng, u: [WORDS[k] for k in rng.integers(0, len(WORDS), len(u))],
    "mixed": lambda rng, u: [MIXED[k] for k in rng.integers(0, len(MIXED), len(u))],
    "bytes": lambda rng, u: [b"ab"[int(v > 0) :] for v in u],
    "category": lambda rng, u: pd.Categorical(
        np.where(u > 0, "u", "v"), categories=["z", "v", "u"]
    ),
    "category of numbers": lambda rng, u: pd.Categorical(rng.integers(0, 4, len(u))),
    "category of intervals": lambda rng, u: pd.cut(pd.Series(u), [-9, 0, 9]),
    "category of dates": lambda rng, u: pd.Categorical(
        START + pd.to_timedelta((u > 0) * 1, unit="D")
    ),
    "times": lambda rng, u: START + pd.to_timedelta(u * 1e6, unit="s"),
    "dates and None": lambda rng, u: [START.date() if v > 0 else None for v in u],
    "text of dates": lambda rng, u: [
        str((START + pd.Timedelta(f"{k}D")).date()) for k in range(len(u))
    ],
    "periods": lambda rng, u: pd.period_range("2020-01", periods=len(u), freq="M"),
    "durations": lambda rng, u: pd.to_timedelta(rng.integers(0, 99, len(u)), unit="h"),
    "complex": lambda rng, u: u + 1j,
    "lists": lambda rng, u: [[1, 2] for _ in u],
}
REFUSED = {"infinity", "beyond double precision", "complex", "lists"}
TARGETS = {
    "classifier": {
        "two": (0.3, lambda rng, u: (u > 0).astype(int)),
        "text": (0.2, lambda rng, u: np.array(["no", "yes", "maybe"])[rng.integers(0, 3, len(u))]),
        "many": (0.12, lambda rng, u: rng.integers(0, max(2, len(u) // 2), len(u))),
        "own": (0.05, lambda rng, u: np.arange(len(u))),
        "rare": (0.06, lambda rng, u: (np.arange(len(u)) == 0).astype(int)),
        "truth": (0.06, lambda rng, u: u > 0),
        "floats": (0.06, lambda rng, u: rng.integers(-2, 1, len(u)).astype(float)),
        "category": (0.04, lambda rng, u: pd.Series(pd.Categorical(np.where(u > 0, "u", "v")))),
        "nullable": (0.03, lambda rng, u: pd.Series(pd.array((u > 0).astype(int), "Int64"))),
        "one": (0.02, lambda rng, u: np.ones(len(u), int)),
        "continuous": (0.01, lambda rng, u: u),
        "gaps": (0.01, lambda rng, u: np.where(u > 1, np.nan, u > 0)),
        "None": (0.01, lambda rng, u: np.array([None if v > 1 else "a" for v in u], object)),
        "mixed": (0.01, lambda rng, u: np.array([1 if v > 0 else "a" for v in u], object)),
        "short": (0.01, lambda rng, u: (u > 0)[1:]),
        "two columns": (0.01, lambda rng, u: np.stack([u > 0, u > 0], axis=1)),
    },
    "regressor": {
        "normal": (0.4, lambda rng, u: u),
        "large": (0.08, lambda rng, u: u * 1e30),
        "larger": (0.03, lambda rng, u: u * 1e200),
        "small": (0.08, lambda rng, u: u * 1e-30),
        "denormal": (0.02, lambda rng, u: u * 1e-320),
        "constant": (0.1, lambda rng, u: np.full(len(u), rng.choice([3.0, 0.0, 1e-6, -1e200]))),
        "integers": (0.14, lambda rng, u: rng.integers(0, 50, len(u))),
        "truth": (0.05, lambda rng, u: u > 0),
        "outlier": (0.04, lambda rng, u: np.where(np.arange(len(u)) == 0, 1e12, u)),
        "gaps": (0.02, lambda rng, u: np.where(u > 1, np.nan, u)),
        "infinity": (0.02, lambda rng, u: np.where(u > 1, np.inf, u)),
        "text": (0.01, lambda rng, u: np.array(["a"] * len(u))),
        "short": (0.01, lambda rng, u: u[1:]),
    },
}
WEIGHTS = {
    "none": (0.78, lambda rng, u: None),
    "random": (0.08, lambda rng, u: rng.random(len(u))),
    "mostly zero": (0.03, lambda rng, u: (u > 0.5) * 1.0),
    "tiny": (0.03, lambda rng, u: np.full(len(u), 1e-300)),
    "huge": (0.02, lambda rng, u: np.full(len(u), 1e300)),
    "of all sizes": (0.02, lambda rng, u: 10.0 ** rng.integers(-300, 300, len(u))),
    "zero": (0.01, lambda rng, u: np.zeros(len(u))),
    "negative": (0.01, lambda rng, u: -np.ones(len(u))),
    "gaps": (0.01, lambda rng, u: np.full(len(u), np.nan)),
    "short": (0.01, lambda rng, u: np.ones(max(0, len(u) - 1))),
}
GOOD = {
    "n_members": [1, 2, 3, 5],
    "repulsion": [
        *("input_gradient", "weight", "function", "feature", "none"),
        *(Repulsion(update="svgd"), Repulsion(update="lit"), Repulsion.paper()),
        *(Repulsion(fraction=1.0, period=1), Repulsion(bandwidth=0.5), Repulsion(warmup=100)),
        *(Repulsion(relative=False), Repulsion("function", update="svgd")),
    ],
    "repulsion_strength": [0, 0.3, 10, 1e6],
    "lengthscale": ["identity", "pca", 0.0, 0.5, 1.0],
    "categorical_features": ["from_dtype", None, [0]],
    "hidden_layer_sizes": [(8,), (4, 4), (1,), 3, (), [2, 3, 4]],
    "batch_size": ["auto", 1, 2, 7, 10**9],
    "lr": ["auto", 4e-3, 1e-12, 0.1, 1.0, 1e3, 1e30],
    "lr_schedule": ["auto", "one_cycle", "constant"],
    "weight_decay": [0, 1e-4, 1.0, 1e6],
    "augmentation": ["auto", None],
    "ema_decay": [0.995, 0, 0.5, 0.999999],
    "early_stopping": [True, False],
    "validation_fraction": ["auto", 0.01, 0.5, 0.99],
    "n_iter_no_change": [1, 16],
    "random_state": [0, 2**32 - 1, None],
    "module__dropout": [0.0, 0.5, 0.999],
    "module__activation": ["gelu", "relu", "tanh", "silu"],
}
BAD = {
    "n_members": [0, -3, 2.0, "3", None, 10**12],
    "repulsion": ["x", 3, None],
    "repulsion_strength": [-1, np.nan, np.inf, "a"],
    "lengthscale": [-1, "x", np.nan, [np.nan], [[1e300]], [0.0]],
    "categorical_features": [[99], ["nope"], 3, [True]],
    "hidden_layer_sizes": [0, (0,), (2.5,), "8", None, (-1,), (10**9, 10**9)],
    "batch_size": [0, -1, 2.5, "x"],
    "lr": [0, -1, np.nan, np.inf, "x"],
    "lr_schedule": ["cosine", 1, None],
    "weight_decay": [-1, np.nan],
    "ema_decay": [1.0, -1, np.nan],
    "early_stopping": ["x"],
    "validation_fraction": [0, 1, 2, np.nan],
    "n_iter_no_change": [0, -1],
    "max_epochs": [0, -1, 1.5, None],
    "random_state": [-1, "x", 2**32],
    "device": ["gpu", 3],
    "callbacks": [3, ["x"], "early"],
    "verbose": [-1, "x"],
    "module__dropout": [1.0, -1, "x"],
    "module__activation": ["x"],
    "module__nope": [1],
    "optimizer__nope": [1],
    "optimizer": ["x", 3],
    "iterator_train__batch_size": [0],
    "module": [3],
    "encoder": ["x", 3],
    "learning_rate": [0.1],
}
# What a message can name, beside parameters.
NAMED = (
    " X",
    " y",
    "column",
    "class",
    "label",
    "sample_weight",
    "target",
    "feature",
    "sample",
    "rows",
)
NAMED += ("lengthscale", "loss", "epoch", "shape", "frame", "encoder", "module", "weight")
WORTH_READING = ("Most values of the columns", "hold text that is read as numbers", "feature names")
WORTH_READING += ("number of unique classes",)


def pick(rng, table):
    """Choose a name of a table by its share."""
    names = list(table)
    shares = np.array([table[name][0] for name in names])
    name = names[rng.choice(len(names), p=shares / shares.sum())]
    return name, table[name][1]


def make_table(rng, n_rows):
    names = [str(rng.choice(list(COLUMNS))) for _ in range(rng.integers(1, 7))]
    # Columns that are refused hide what stands beside them, so that most of them are left out.
    names = ["float" if name in REFUSED and rng.random() < 0.85 else name for name in names]
    columns = {
        f"c{i} {name}": COLUMNS[name](rng, rng.normal(size=n_rows)) for i, name in enumerate(names)
    }
    kinds = ["pandas", "polars", "array", "float array", "lists", "numbered", "duplicate names"]
    kind = str(rng.choice(kinds, p=[0.5, 0.2, 0.14, 0.07, 0.04, 0.04, 0.01]))
    X = pd.DataFrame({name: pd.Series(values) for name, values in columns.items()})
    try:
        if kind == "polars":
            X = pl.from_pandas(X)
        elif kind == "float array":
            X = X.to_numpy(dtype=float)
        elif kind in ("array", "lists"):
            X = np.array([list(values) for values in columns.values()], dtype=object).T
            X = X.reshape(n_rows, -1) if X.ndim == 2 else X
            X = X if kind == "array" else X.tolist()
        elif kind == "numbered":
            X.columns = range(len(names))
        elif kind == "duplicate names":
            X.columns = ["same"] * len(names)
    except Exception:  # This container cannot hold the columns; a frame can.
        kind = "pandas"
    return X, names, kind


def make_parameters(rng):
    chosen = {"hidden_layer_sizes": (8,), "n_members": int(rng.integers(1, 5)), "random_state": 0}
    chosen["max_epochs"] = int(rng.integers(1, 4))
    bad = []
    for table, size in (
        (GOOD, rng.integers(0, 6)),
        (BAD, rng.integers(1, 3) * (rng.random() < 0.2)),
    ):
        for name in map(str, rng.choice(list(table), size=int(size), replace=False)):
            chosen[name] = table[name][rng.integers(len(table[name]))]
            bad += [name] if table is BAD else []
    return chosen, bad


def other_rows(rng, X):
    """Return four of the ways in which later rows may differ, with their names."""
    found = {}
    if isinstance(X, pd.DataFrame) and X.columns.is_unique:
        whole = {
            name: pd.DataFrame(dict.fromkeys(X, [value] * len(X))) for name, value in VALUES.items()
        }
        found = {**whole, "text": X.astype(str), "objects": X.astype(object), "array": X.to_numpy()}
        found |= {"first row": X.iloc[:1], "no rows": X.iloc[:0], "reversed": X.iloc[:, ::-1]}
        found |= {"a column less": X.iloc[:, 1:], "a column more": X.assign(more=1.0)}
        found |= {"other index": X.set_axis([7] * len(X)), "renamed": X.add_prefix("q")}
    elif isinstance(X, pl.DataFrame):
        found = {
            name: pl.DataFrame(dict.fromkeys(X.columns, [value] * len(X)))
            for name, value in VALUES.items()
        }
        found |= {"pandas": X.to_pandas(), "lazy": X.lazy()}
        found |= {"first row": X[:1], "no rows": X[:0], "reversed": X[:, ::-1]}
    else:
        array = np.array(X, dtype=object)
        found = {name: np.full(array.shape, value, dtype=object) for name, value in VALUES.items()}
        found |= {"a column less": array[:, 1:], "one axis": array[0], "frame": pd.DataFrame(array)}
        found |= {"first row": array[:1], "no rows": array[:0], "sparse": csr_array(array.shape)}
    names = rng.permutation(list(found))[:4]
    return {str(name): found[name] for name in names}


VALUES = {"None": None, "NaN": np.nan, "infinity": np.inf, "huge": 1e308, "tiny": 5e-324}
VALUES |= {"word": "never seen 🙂", "number as text": "12", "date": datetime.date(2031, 1, 1)}


def check_predictions(model, X, n_rows):
    """Assert that what the model predicts is finite and means what it says."""
    if isinstance(model, FoRDEClassifier):
        p = model.predict_proba(X)
        assert p.dtype == np.float64
        assert p.shape == (n_rows, len(model.classes_))
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-9)
        assert (p >= 0).all()
        assert np.isin(model.predict(X), model.classes_).all()
    else:
        mean, std = model.predict(X, return_std=True)
        assert mean.dtype == std.dtype == np.float64
        assert mean.shape == std.shape == (n_rows,)
        assert np.isfinite(mean).all()
        assert np.isfinite(std).all()
        assert (std > 0).all()
    parts = model.predict_uncertainty(X)
    for values in parts:
        assert np.isfinite(values).all()
        assert (values >= -1e-6 * max(np.abs(values).max(), 1e-3)).all()


def run_case(seed, index):
    """Run one case, and return what it was and what came of it.

    Returns
    -------
    outcome : "fitted" or "refused"
    description : dict
    problems : list of str
    """
    rng = np.random.default_rng([seed, index])
    is_classifier = rng.random() < 0.6
    n_rows = int(rng.choice([1, 2, 3, 5, 10, 17, 40, 40, 100, 100, 300, 300]))
    X, names, kind = make_table(rng, n_rows)
    target, make_y = pick(rng, TARGETS["classifier" if is_classifier else "regressor"])
    y = make_y(rng, rng.normal(size=n_rows))
    weighted, make_weight = pick(rng, WEIGHTS)
    weight = make_weight(rng, rng.normal(size=n_rows))
    parameters, bad = make_parameters(rng)
    case = {"columns": names, "container": kind, "rows": n_rows, "y": target, "weights": weighted}
    case |= {"parameters": parameters, "bad": bad}
    problems = []

    def refused(error, where):
        message = str(error)
        parts = [name.split("__")[-1] for name in bad]
        if not any(word in message for word in (*NAMED, *parts, *(f"'{name}'" for name in bad))):
            problems.append(f"{where}: the message names nothing: {message}")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        generators = np.random.get_state()[1].copy(), torch.get_rng_state()
        try:
            model = (FoRDEClassifier if is_classifier else FoRDERegressor)(**parameters)
            before = dict(vars(model))
            model.fit(X, y, sample_weight=weight)
        except (ValueError, TypeError) as error:
            refused(error, "fit")
            if "before" in locals() and vars(model) != before:
                problems.append("fit: an error left a trace")
            return "refused", {**case, "message": str(error)}, problems
        finally:
            if parameters.get("random_state") is not None:
                assert (np.random.get_state()[1] == generators[0]).all()
            assert torch.equal(torch.get_rng_state(), generators[1])
        try:
            check_predictions(model, X, n_rows)
        except ValueError as error:
            # Rows of weight zero are left out, and may hold what no other row of a column does.
            if weight is None or "column" not in str(error):
                raise
        for name, rows in other_rows(rng, X).items():
            try:
                if name == "lazy":
                    blocks = [*model.predict(rows)]
                    np.testing.assert_array_equal(np.concatenate(blocks), model.predict(X))
                else:
                    check_predictions(model, rows, len(rows))
            except (ValueError, TypeError) as error:
                refused(error, f"predict {name}")
            except Exception as error:
                problems.append(f"predict {name}: {type(error).__name__}: {error}"[:300])
            else:
                continue
            taken = ("None", "NaN", "first row", "objects", "other index")
            if name in taken and weight is None:
                problems.append(f"predict {name}: refused")
        if rng.random() < 0.2:
            again = pickle.loads(pickle.dumps(model))
            np.testing.assert_array_equal(again.predict(X), model.predict(X))
    for warning in caught:
        is_expected = issubclass(warning.category, ConvergenceWarning)
        if not is_expected and not any(text in str(warning.message) for text in WORTH_READING):
            problems.append(f"noise: {warning.category.__name__}: {warning.message}"[:200])
    return "fitted", case, problems


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--case", type=int)
    parser.add_argument("--reasons", type=int, default=10)
    options = parser.parse_args()
    if options.case is not None:
        print(*run_case(options.seed, options.case), sep="\n")
        return 0
    counts, reasons = Counter(), Counter()
    for index in range(options.n):
        try:
            outcome, case, problems = run_case(options.seed, index)
        except Exception as error:
            outcome, case = f"crash {type(error).__name__}", {}
            problems = [traceback.format_exc(limit=-3)]
        counts[outcome] += 1
        reasons[case.get("message", "")[:60]] += outcome == "refused"
        counts["failed"] += bool(problems)
        if problems:
            print(index, outcome, *problems, sep="\n  ", flush=True)
    print(f"seed {options.seed}, {options.n} cases:", dict(counts))
    print("refused for:", *reasons.most_common(options.reasons), sep="\n  ")
    return bool(counts["failed"])


if __name__ == "__main__":
    sys.exit(main())
