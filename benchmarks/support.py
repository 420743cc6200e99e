"""Whether the library knows what it does not know: rows of which the training rows say nothing.

AUROC of test rows under a condition against the same rows clean (0.5 is a guess), by `ood_score`,
by its epistemic part alone, and by scikit-learn's isolation forest on one-hot columns.

- numbers × 1,000: two numbers of each row, drawn among those that are neither missing nor zero.
- unseen levels: two categories of each row, on tables that have two.
- missing 0.3: each cell with this probability.
- natural shift: rows of the other domain, on tables that have one.
- held-out classes: rows of the rarest class, or of the rarest two of six classes or more, against
  test rows of the others, on tables of four classes or more. Another model is fitted without them.

Besides, the mean confidence (that of the most probable class) and log loss, which tell whether the
model knows it; false alarms, the share of clean test rows whose cells surprise by more than 0.05
nats; and by how much the log loss of a row of nothing but gaps exceeds that of the base rate.

Everything is as by default, and the list was fixed before the first run. One thing was chosen after
a look at the results: numbers beyond the range have an allowance (docs/uncertainty.md).
Run ``python -m benchmarks.support``; it goes on where it stopped. ``--sets`` names some of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

from benchmarks._harness import fixed, make_parser, run_missing, save_report
from benchmarks.datasets import FIRST_REPORTING_SETS, REPORTING_SETS, split
from benchmarks.peers import fordes, one_hot
from benchmarks.recipes_of_tables import Dataset, Sets, Split, numbers_of
from benchmarks.scores import nll

# All of the first reporting sets, and the first ten of the others with two numbers of more than two
# values.
NAMES = [
    *("telco_churn", "lending_club", "caravan", "loan_grade", "nass_cds", "mpls_stops"),
    *("portal_species", "flights_delay", "digits", "breast_cancer", "wine"),
    *("cirrhosis_stage", "prostate_recurrence", "intensive_care", "substance", "pima"),
    *("commuting_mode", "spam_words", "abortion", "flight_phase", "email"),
]
SETS: Sets = {name: {**FIRST_REPORTING_SETS, **REPORTING_SETS}[name] for name in NAMES}
CLEAN, NUMBERS, LEVELS = "clean", "numbers × 1,000", "unseen levels"
MISSING, SHIFT, CLASSES = "missing 0.3", "natural shift", "held-out classes"
CONDITIONS = (NUMBERS, LEVELS, MISSING, SHIFT, CLASSES)
SCORES = ("ood_score", "epistemic", "isolation forest")
LIMITS = {"max_train": 2000, "max_test": 1000}
N_CELLS, FACTOR, SHARE, FALSE_ALARM = 2, 1000, 0.3, 0.05
UNSEEN_LEVEL = "a level never seen"


class Scored(NamedTuple):
    """What models make of rows."""

    scores: dict[str, NDArray[np.float64]]
    probabilities: NDArray[np.float64]


class Models:
    """An ensemble and an isolation forest, fitted to the same rows."""

    def __init__(self, data: Split, seed: int) -> None:
        self.ensemble = fordes(seed).fit(data.X_train, data.y_train)
        forest = IsolationForest(random_state=seed)
        self.forest = make_pipeline(one_hot(scale=True), forest).fit(data.X_train)

    def __call__(self, X: pd.DataFrame) -> Scored:
        of_rows = (
            self.ensemble.ood_score(X),
            self.ensemble.predict_uncertainty(X).epistemic,
            -self.forest.score_samples(X),
        )
        return Scored(dict(zip(SCORES, of_rows, strict=True)), self.ensemble.predict_proba(X))


# ---- rows


def enlarge(X: pd.DataFrame, columns: list[str], rng: np.random.Generator) -> pd.DataFrame:
    """Multiply numbers of each row, of columns drawn by row; one that is zero would stay."""
    values = X[columns].to_numpy(dtype=float)
    is_hit = _drawn(~np.isnan(values) & (values != 0), rng)
    factors = pd.DataFrame(np.where(is_hit, FACTOR, 1), X.index, columns)
    return X.assign(**{name: X[name] * factors[name] for name in columns})


def rename(X: pd.DataFrame, columns: list[str], rng: np.random.Generator) -> pd.DataFrame:
    """Give each row a level that nobody saw, in columns drawn by row."""
    is_hit = _drawn(np.ones((len(X), len(columns)), dtype=bool), rng)
    hits = pd.DataFrame(is_hit, X.index, columns)
    renamed = {name: X[name].astype(object).mask(hits[name], UNSEEN_LEVEL) for name in columns}
    return X.assign(**renamed)


def _drawn(is_usable: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return for each row which of the usable cells are drawn, all of them if they are few."""
    order = np.where(is_usable, rng.random(is_usable.shape), 2.0).argsort(axis=1)
    is_drawn = np.zeros_like(is_usable)
    np.put_along_axis(is_drawn, order[:, :N_CELLS], True, axis=1)
    return is_drawn & is_usable


def kinds_of_rows(
    data: Split, is_category: NDArray[np.bool_], seed: int
) -> Iterator[tuple[str, pd.DataFrame, NDArray[Any]]]:
    """Yield test rows under each condition that the table has, and their classes."""
    X, y = data.X_test, data.y_test
    numbers = [name for name, x in numbers_of(data.X_train).items() if x.nunique() > 2]
    categories = [*data.X_train.columns[is_category]]
    rngs = [np.random.default_rng([seed, index]) for index in range(3)]
    yield CLEAN, X, y
    yield NUMBERS, enlarge(X, numbers, rngs[0]), y
    if len(categories) >= N_CELLS:
        yield LEVELS, rename(X, categories, rngs[1]), y
    yield MISSING, X.mask(rngs[2].random(X.shape) < SHARE), y
    if len(data.y_shifted):
        yield SHIFT, data.X_shifted, data.y_shifted


def without_classes(data: Dataset) -> tuple[Dataset, pd.DataFrame]:
    """Return rows of the table without the rarest classes, and those of these; no other domain."""
    here = np.ones(len(data.y), bool) if data.is_shifted is None else ~data.is_shifted
    X, y = data.X[here], data.y[here]
    order = y.value_counts().sort_index(kind="stable").sort_values(kind="stable").index
    is_out = y.isin(order[: 2 if len(order) >= 6 else 1])
    return Dataset(X[~is_out], y[~is_out]), X[is_out]


# ---- scores


def measure(rows: str, clean: Scored, found: Scored, y: NDArray[Any] | None) -> dict[str, Any]:
    """Return the scores of rows under a condition against the clean ones."""
    sizes = [len(part.probabilities) for part in (clean, found)]
    is_outside = np.repeat([False, True], sizes)
    aurocs = {
        f"AUROC {name}": np.nan
        if found is clean
        else roc_auc_score(is_outside, np.concatenate([clean.scores[name], values]))
        for name, values in found.scores.items()
    }
    return {
        "rows": rows,
        "n_rows": sizes[1],
        **aurocs,
        "confidence": found.probabilities.max(axis=1).mean(),
        "confidence clean": clean.probabilities.max(axis=1).mean(),
        "nll": np.nan if y is None else nll(y, found.probabilities),
        "false alarms": np.nan,
        "gaps": np.nan,
    }


def excess_of_gaps(models: Models, data: Split) -> float:
    """Return KL(base rate ‖ prediction) for a row of which nothing is known, in nats."""
    gaps = data.X_train.iloc[:1].astype(object).mask(np.ones((1, data.X_train.shape[1]), bool))
    predicted = models.ensemble.predict_proba(gaps)[0]
    share = np.bincount(data.y_train) / len(data.y_train)
    return float((share * np.log(share / predicted)).sum())


def run(name: str, seed: int) -> list[dict[str, Any]]:
    """Return a line for each condition."""
    table = SETS[name]()
    data = split(table, seed, **LIMITS)
    models = Models(data, seed)
    rows, clean = [], None
    is_category = models.ensemble.fitted_.encoder.is_categorical_
    for condition, X, y in kinds_of_rows(data, is_category, seed):
        found = models(X)
        clean = clean or found
        rows.append(measure(condition, clean, found, y))
    surprise = clean.scores["ood_score"] - clean.scores["epistemic"]
    rows[0]["false alarms"] = (surprise > FALSE_ALARM).mean()
    rows[0]["gaps"] = excess_of_gaps(models, data)
    if table.y.nunique() >= 4:
        inside, outside = without_classes(table)
        data = split(inside, seed, **LIMITS)
        models = Models(data, seed)
        drawn = np.random.default_rng(seed).permutation(len(outside))[: LIMITS["max_test"]]
        clean, found = models(data.X_test), models(outside.iloc[drawn])
        rows.append(measure(CLASSES, clean, found, None))
    return rows


# ---- the report


def report(results: pd.DataFrame) -> list[str]:
    """Return blocks of lines: means over sets, then each set."""
    of_sets = results.groupby(["rows", "set"], sort=False).mean(numeric_only=True)
    present = [name for name in CONDITIONS if name in of_sets.index]
    aurocs = of_sets[[f"AUROC {name}" for name in SCORES]].rename(
        columns=lambda name: name.removeprefix("AUROC ")
    )
    means = aurocs.groupby("rows").mean().reindex(present)
    means.insert(0, "sets", aurocs.groupby("rows").size())
    clean = of_sets.loc[CLEAN]
    sure = of_sets[["confidence clean", "confidence", "nll"]]
    known = sure.groupby("rows").mean().reindex(present)
    known.insert(2, "nll clean", [clean["nll"].reindex(sure.loc[c].index).mean() for c in present])
    known.loc[known["nll"].isna(), "nll clean"] = np.nan
    shares = clean[["false alarms", "gaps"]]
    enlarged = of_sets.loc[NUMBERS, ["confidence clean", "confidence", "nll"]]
    enlarged.insert(2, "nll clean", clean["nll"])
    blocks = [
        ("AUROC, mean over sets", means),
        ("Mean confidence and log loss, mean over sets", known),
        ("False alarms and excess log loss of a row of gaps, mean over sets", shares.mean()),
        *((f"AUROC, {name}", aurocs.loc[name]) for name in present),
        (f"Confidence and log loss, {NUMBERS}", enlarged),
        ("False alarms and excess log loss of a row of gaps", shares),
    ]
    return [f"\n{title}\n{fixed(block, 3)}" for title, block in blocks]


def main() -> None:
    parser = make_parser(__doc__, "support", seeds=3)
    parser.add_argument("--sets", nargs="+", choices=NAMES, default=NAMES)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    units = ((name, seed) for seed, name in product(range(arguments.seeds), arguments.sets))
    path = arguments.output.with_suffix(".csv")
    results = run_missing(path, ["set", "seed"], units, run, float_format="%.6g")
    n_seeds = results["seed"].nunique()
    title = f"Rows that the training rows say nothing of; mean over seeds 0 to {n_seeds - 1}."
    save_report(path.with_suffix(".txt"), *report(results), title=title)


if __name__ == "__main__":
    main()
