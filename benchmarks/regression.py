"""Default FoRDERegressor against what users would otherwise take, clean and drifting.

Run ``python -m benchmarks.regression``; it goes on where it stopped, with what the results file
has. Peers come with the extra ``peers``; the environment variable PEER_THREADS says how many
threads they use. ``--report-only`` prints the tables of a results file, and ``--page`` writes them
in the docs.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pandas as pd

from benchmarks._harness import RESULTS, describe_environment, make_parser, save_report
from benchmarks.regression_peers import METHODS
from benchmarks.regression_scores import measure
from benchmarks.regression_summaries import (
    conditions_of,
    coverage_table,
    draw,
    peer_table,
    report,
)
from benchmarks.regression_tables import (
    REGRESSION_DEVELOPMENT_SETS,
    REGRESSION_REPORTING_SETS,
    split,
)
from benchmarks.summaries import describe, write_generated
from benchmarks.table_scores import run_tables

PAGE, PICTURE = Path("docs/regression.md"), Path("docs/regression.png")


def write_page(results: pd.DataFrame) -> None:
    """Put the tables of the results in the docs."""
    write_generated(PAGE, "fits", f"```text\n{describe_environment()}\n{describe(results)}\n```")
    write_generated(PAGE, "coverage", coverage_table(results))
    for condition, scores in conditions_of(results).items():
        write_generated(PAGE, condition, peer_table(scores))
    draw(results, PICTURE)


def main() -> None:
    parser = make_parser(__doc__, "regression", seeds=3, max_train=2000, max_test=1500)
    parser.set_defaults(output=None)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--development", action="store_true", help="the sets for choosing")
    parser.add_argument("--sets", nargs="+", help="some of them")
    parser.add_argument("--report-only", action="store_true")
    parser.add_argument("--page", action="store_true", help="write docs/regression.md's tables")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")  # peers warn of what is asked of them here
    name, sets = "regression", REGRESSION_REPORTING_SETS
    if arguments.development:
        name, sets = "regression_development", REGRESSION_DEVELOPMENT_SETS
    output = arguments.output or RESULTS / f"{name}.txt"
    results = run_tables(
        output.with_suffix(".csv"),
        {name: sets[name] for name in arguments.sets or sets},
        {name: METHODS[name] for name in arguments.methods},
        seeds=0 if arguments.report_only else arguments.seeds,
        max_train=arguments.max_train,
        max_test=arguments.max_test,
        split=split,
        measure=measure,
        float_format="%.6g",
    )
    save_report(output.with_suffix(".txt"), report(results))
    if arguments.page and not arguments.development:
        write_page(results)


if __name__ == "__main__":
    main()
