"""The code blocks of the documentation are tests."""

import sys

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser


def close_figures(_namespace):
    """Close what the blocks of a page have drawn: matplotlib warns of many figures."""
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()],
    patterns=["README.md", "CONTRIBUTING.md", "docs/*.md"],
    teardown=close_figures,
).pytest()

# The site executes its examples, and Sphinx imports the rest.
collect_ignore_glob = ["docs/*.py", "docs/*/*.py"]
