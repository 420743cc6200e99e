"""Default FoRDE against what users would otherwise take, on raw tables, clean and drifting.

Run ``python -m benchmarks.tables``; it goes on where it stopped, with what the results file has.
Peers come with the extra ``peers``.
``--report-only`` prints the tables of a results file.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pandas as pd

from benchmarks import summaries
from benchmarks._harness import RESULTS, describe_environment, make_parser, save_report
from benchmarks.datasets import DEVELOPMENT_SETS, FIRST_REPORTING_SETS, REPORTING_SETS
from benchmarks.peers import PEERS
from benchmarks.table_scores import run_tables

PAGE, PICTURE = Path("docs/benchmark.md"), Path("docs/benchmark.png")


def write_page(results: pd.DataFrame, mark: str) -> None:
    """Put the tables of a results file in the docs; of the first sets those against peers."""
    texts = {"fits": f"```text\n{describe_environment()}\n{summaries.describe(results)}\n```"}
    for condition, scores in summaries.conditions_of(results).items():
        texts[f"peers, {condition}"] = summaries.peer_table(scores)
        if mark == "reporting":
            texts[f"ranks, {condition}"] = summaries.rank_table(scores)
            losses = summaries.losses(scores).fillna("").T
            texts[f"losses, {condition}"] = summaries.markdown(losses)
    for title, text in texts.items():
        summaries.write_generated(PAGE, f"{mark}: {title}", text)
    if mark == "reporting":
        summaries.draw(results, PICTURE)


def main() -> None:
    parser = make_parser(__doc__, "tables", seeds=3, max_train=3000, max_test=2000)
    parser.set_defaults(output=None)
    parser.add_argument("--methods", nargs="+", choices=PEERS, default=list(PEERS))
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--development", action="store_true", help="the sets for choosing")
    which.add_argument("--first", action="store_true", help="the first eleven sets for reporting")
    parser.add_argument("--sets", nargs="+", help="some of them")
    parser.add_argument("--report-only", action="store_true")
    parser.add_argument("--page", action="store_true", help="write docs/benchmark.md's tables")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")  # peers warn of what is asked of them here
    if arguments.page and arguments.development:
        parser.error("the page reports on no set for choosing")
    name, sets = "reporting", REPORTING_SETS
    if arguments.development:
        name, sets = "development", DEVELOPMENT_SETS
    if arguments.first:
        name, sets = "tables", FIRST_REPORTING_SETS
        arguments.max_train, arguments.max_test = 2000, 3000  # As when they were first measured.
    output = arguments.output or RESULTS / f"{name}.txt"
    results = run_tables(
        output.with_suffix(".csv"),
        {name: sets[name] for name in arguments.sets or sets},
        {name: PEERS[name] for name in arguments.methods},
        seeds=0 if arguments.report_only else arguments.seeds,
        max_train=arguments.max_train,
        max_test=arguments.max_test,
    )
    save_report(output.with_suffix(".txt"), summaries.report(results))
    if arguments.page:
        write_page(results, "first" if arguments.first else "reporting")


if __name__ == "__main__":
    main()
