"""The code blocks of the documentation are tests."""

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()], patterns=["README.md", "CONTRIBUTING.md", "docs/*.md"]
).pytest()

# The site executes its examples, and Sphinx imports the rest.
collect_ignore_glob = ["docs/*.py", "docs/*/*.py"]
