"""Every test that the page of promises names is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_each_promise_names_tests_that_exist():
    lines = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8").splitlines()
    promises = [line for line in lines if line.startswith("| ") and "| Promise |" not in line]
    assert len(promises) >= 15
    missing = []
    for line in promises:
        *_, tests, _ = line.split("|")
        names = re.findall(r"`(tests/\w+\.py)::(?:(\w+)::)?(\w+)`", tests)
        assert names, f"No test in the last column of {line!r}."
        for path, group, name in names:
            text = (ROOT / path).read_text(encoding="utf-8")
            is_there = re.search(rf"^ *def {name}\(", text, re.MULTILINE)
            if not (is_there and re.search(rf"^class {group}\b" if group else "", text, re.M)):
                missing.append(f"{path}::{name}")
    assert missing == []
