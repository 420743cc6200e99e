"""Import time of the package and of scikit-learn, each in a fresh process.

Run ``make bench``.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pandas as pd

from benchmarks._harness import fixed, interleaved_medians, make_parser, save_report

STATEMENTS = {
    "nothing": "pass",
    "scikit-learn": "import sklearn",
    "a scikit-learn classifier": "from sklearn.ensemble import HistGradientBoostingClassifier",
    "sklearn_fordes": "import sklearn_fordes",
    "FoRDEClassifier": "from sklearn_fordes import FoRDEClassifier",
    "torch": "import torch",
}


def main() -> None:
    arguments = make_parser(__doc__, "import_time", repeats=9).parse_args()
    calls = {
        name: partial(subprocess.run, [sys.executable, "-c", statement], check=True)
        for name, statement in STATEMENTS.items()
    }
    seconds = pd.Series(interleaved_medians(calls, arguments.repeats))
    title = f"medians of {arguments.repeats} interleaved processes"
    save_report(arguments.output, "", fixed(seconds, 3), title=title)


if __name__ == "__main__":
    main()
