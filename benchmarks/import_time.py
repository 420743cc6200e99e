"""Import time of the package beside scikit-learn's, each in a fresh process.

Run ``make bench``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import partial
from pathlib import Path

import pandas as pd

from benchmarks.environment import describe_environment
from benchmarks.timing import interleaved_medians

STATEMENTS = {
    "nothing": "pass",
    "scikit-learn": "import sklearn",
    "a scikit-learn classifier": "from sklearn.ensemble import HistGradientBoostingClassifier",
    "sklearn_fordes": "import sklearn_fordes",
    "FoRDEClassifier": "from sklearn_fordes import FoRDEClassifier",
    "torch": "import torch",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/import_time.txt"))
    arguments = parser.parse_args()
    seconds = interleaved_medians(
        {
            name: partial(subprocess.run, [sys.executable, "-c", statement], check=True)
            for name, statement in STATEMENTS.items()
        },
        arguments.repeats,
    )
    report = "\n".join(
        [
            f"medians of {arguments.repeats} interleaved processes",
            describe_environment(),
            "",
            pd.Series(seconds, name="seconds").to_string(float_format="{:.3f}".format),
        ]
    )
    print(report)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(report + "\n")


if __name__ == "__main__":
    main()
