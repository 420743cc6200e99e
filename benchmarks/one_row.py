"""Time of predicting one row, as a service does: of an array of numbers, and of a mixed frame.

The array is of numbers in double precision; the frame has numbers, some with gaps, integers,
truth values, text and categories. Peers that read no such frame have the usual steps in front, see
`benchmarks.peers`; one takes a frame whose text was made categories before. A forest predicts in
one thread, which is faster for a row. Run ``python -m benchmarks.one_row``. CatBoost is measured
if it is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier

from benchmarks._harness import fixed, interleaved_seconds, make_parser, save_report
from benchmarks._steps import use_threads
from benchmarks.peers import catboost as catboost_of_frames
from benchmarks.peers import fitted_catboost, hist_gradient_boosting, random_forest
from sklearn_fordes import FoRDEClassifier, FoRDERegressor

N_COLUMNS, N_PREDICTED, SEED = 20, 100, 0
N_LEVELS, GAPS = (3, 8, 20), 0.1
AN_ARRAY, A_FRAME = "array", "mixed frame"

Call = Callable[[], object]


def mixed_frame(X: NDArray[np.float64], seed: int) -> pd.DataFrame:
    """Return a frame of 20 columns: 12 of X, integers, truth values, text and categories."""
    rng = np.random.default_rng(seed)
    n_rows = len(X)
    columns: dict[str, Any] = {f"number {i}": pd.Series(X[:, i]) for i in range(12)}
    for name in list(columns)[:3]:
        columns[name] = columns[name].where(rng.random(n_rows) > GAPS)
    columns["count"] = rng.poisson(3, n_rows)
    columns["flag"] = rng.random(n_rows) < 0.5
    for n in N_LEVELS:
        text = pd.Series([f"level {i}" for i in rng.integers(n, size=n_rows)])
        columns[f"text {n}"] = text.where(rng.random(n_rows) > GAPS)
        levels = pd.Series([f"level {i}" for i in rng.integers(n, size=n_rows)])
        columns[f"category {n}"] = levels.astype("category")
    return pd.DataFrame(columns)


def with_categories(X: pd.DataFrame) -> pd.DataFrame:
    return X.astype({name: "category" for name in X if str(name).startswith("text")})


def each_row_in_turn(predict: Callable[[Any], object], rows: Any, n_predicted: int) -> Call:
    """Return a call that predicts another one of some rows each time."""
    cut = rows.iloc if isinstance(rows, pd.DataFrame) else rows
    parts: Iterator[Any] = cycle([cut[i : i + 1] for i in range(min(n_predicted, len(rows)))])
    return lambda: predict(next(parts))


def fitted(n_rows: int, max_epochs: int | None) -> dict[tuple[str, str], Call]:
    """Return the calls to time, by method and kind of row. How well they predict is no matter."""
    X, y = make_classification(n_rows, N_COLUMNS, n_informative=15, random_state=SEED)
    frame = mixed_frame(X, SEED)
    categories = with_categories(frame)
    epochs = {} if max_epochs is None else {"max_epochs": max_epochs}
    calls: dict[tuple[str, str], Call] = {}

    def add(name: str, kind: str, predict: Callable[[Any], object], rows: Any) -> None:
        calls[name, kind] = each_row_in_turn(predict, rows, N_PREDICTED)

    for kind, rows in ((AN_ARRAY, X), (A_FRAME, frame)):
        classifier = FoRDEClassifier(random_state=SEED, **epochs).fit(rows, y)
        add("FoRDEClassifier", kind, classifier.predict_proba, rows)
        regressor = FoRDERegressor(random_state=SEED, **epochs).fit(rows, X[:, 0] + y)
        add("FoRDERegressor", kind, regressor.predict, rows)
    boosting = hist_gradient_boosting(SEED)
    alone = HistGradientBoostingClassifier(random_state=SEED)
    add("HistGradientBoosting", AN_ARRAY, alone.fit(X, y).predict_proba, X)
    add("HistGradientBoosting", A_FRAME, boosting.fit(frame, y).predict_proba, frame)
    alone = HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=SEED)
    predict = alone.fit(categories, y).predict_proba
    add("HistGradientBoosting, no text", A_FRAME, predict, categories)
    forest = random_forest(SEED).fit(frame, y)
    forest[-1].n_jobs = 1
    add("random forest", A_FRAME, forest.predict_proba, frame)
    alone = random_forest(SEED)[-1].set_params(n_jobs=1)
    add("random forest", AN_ARRAY, alone.fit(X, y).predict_proba, X)
    if find_spec("catboost"):
        of_frames = catboost_of_frames(SEED).fit(frame, y)
        add("CatBoost", A_FRAME, of_frames.predict_proba, frame)
        trees = fitted_catboost("CatBoostClassifier", SEED, pd.DataFrame(X), y)
        add("CatBoost", AN_ARRAY, trees.predict_proba, X)
    return calls


def measure(n_rows: int, repeats: int, max_epochs: int | None = None) -> pd.DataFrame:
    """Return medians and 95th percentiles in milliseconds, a line for each method."""
    calls = fitted(n_rows, max_epochs)
    seconds = interleaved_seconds(calls, repeats)
    milliseconds = {
        (kind, name): {
            method: 1e3 * np.quantile(seconds[method, k], level) for method, k in calls if k == kind
        }
        for kind in (AN_ARRAY, A_FRAME)
        for name, level in (("median", 0.5), ("95 %", 0.95))
    }
    return pd.DataFrame(milliseconds).reindex(list(dict.fromkeys(method for method, _ in calls)))


def main() -> None:
    parser = make_parser(__doc__, "one_row", rows=2000, repeats=300, threads=2)
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    n_rows, repeats = arguments.rows, arguments.repeats
    table = measure(n_rows, repeats)
    peers = f"CatBoost {version('catboost')}" if find_spec("catboost") else "no CatBoost"
    save_report(
        arguments.output,
        f"{peers}; seed {SEED}",
        "",
        fixed(table, 2),
        title=f"one row of {N_COLUMNS} columns, milliseconds, {repeats} interleaved calls; "
        f"{n_rows} training rows",
    )


if __name__ == "__main__":
    main()
