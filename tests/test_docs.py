"""The site's pages name all that is public, in words that users can read."""

import inspect
import json
import re
from pathlib import Path

import pandas as pd
import pytest

import figures
import words
from benchmarks import recipe, regression, summaries, tables
from sklearn_fordes import FoRDEClassifier, FoRDERegressor, Repulsion, __version__
from test_docstrings import public_names

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Figures of throw-away and earlier runs, which no results file has. Others may only become fewer.
N_WITHOUT_A_FILE = 728
# Sentences that are long, or full of numbers, because a reader looks figures up there.
N_OFFENDERS = 5


def test_each_public_name_has_a_page():
    text = (DOCS / "api" / "index.rst").read_text(encoding="utf-8")
    package, listed = "", set()
    for line in text.splitlines():
        if line.startswith(".. currentmodule:: "):
            package = line.split()[-1]
        elif re.fullmatch(r"   [\w.]+", line):
            listed.add(f"{package}.{line.strip()}")
    names = {name for name in public_names() if not is_of_a_class(name)}
    names -= {"sklearn_fordes.particles.Repulsion", "sklearn_fordes.training.CellCorruption"}
    assert not names - listed
    assert {"sklearn_fordes.Repulsion", "sklearn_fordes.CellCorruption"} <= listed


def is_of_a_class(name):
    return name.split(".")[-2][0].isupper() or name.split(".")[-2].startswith("FoRDE")


@pytest.mark.parametrize("kind", [FoRDEClassifier, FoRDERegressor, Repulsion])
def test_each_parameter_is_in_the_guide(kind):
    text = (DOCS / "parameters.md").read_text(encoding="utf-8")
    names = [name for name in inspect.signature(kind).parameters if name != "kwargs"]
    missing = [name for name in names if not re.search(rf"`{name}(`|=)", text)]
    assert not missing


def test_each_page_can_be_reached():
    pages = {path.stem for path in DOCS.glob("*.md")} - {"index"}
    named = set()
    for path in DOCS.glob("*.md"):
        for block in re.findall(r"```\{toctree\}(.*?)```", path.read_text("utf-8"), re.DOTALL):
            named |= set(re.findall(r"^(?:[\w ]+<)?([\w/]+)>?$", block, re.MULTILINE))
    assert not pages - named


def test_pages_use_the_words_of_the_field():
    found = [
        (path.name, number, reason)
        for path in words.user_pages()
        for number, reason, _ in words.offenders(path)
    ]
    retired = [one for one in found if one[2].startswith("word")]
    assert not retired
    assert len(found) <= N_OFFENDERS


def test_a_sentence_that_is_hard_to_read_is_found(tmp_path):
    text = "# A title\n\nOne. It was told " + "again and " * 15 + "again.\n\n| 1 | 2 | 3 | 4 |\n"
    path = tmp_path / "page.md"
    path.write_text(text, encoding="utf-8")
    reasons = [reason for _, reason, _ in words.offenders(path)]
    assert reasons == ["34 words", "word 'told'"]
    numbers = "It was 0.1, 0.2, 0.3 and 4 %. `1 2 3 4` and [5](6_7_8_9.md).\n"
    assert [len(words._NUMBER.findall(one)) for _, one in words.sentences(numbers)] == [4, 1]


def test_each_figure_comes_from_a_results_file():
    """Or from a run without a file, as the page says."""
    found = [(path.name, one) for path in words.user_pages() for one in figures.check(path)]
    assert not [one for one in found if one[1].state.startswith("not in")]
    assert sum(one.state == figures.AWAY for _, one in found) <= N_WITHOUT_A_FILE


@pytest.mark.parametrize(
    ("loss", "ending", "lines"),
    [
        ("0.431", "It took `0.5` s.", []),
        ("0.43", "A throw-away run took 5 s.", []),
        ("0.432", "Three of them.", [7]),
        ("0.472", "It is 0.431 ± 0.028 of CatBoost's.", [7, 12]),
        ("0.431", "It took 9 s in version 0.2.", [12]),
    ],
)
def test_a_wrong_figure_is_found(tmp_path, loss, ending, lines):
    link = "[results](../benchmarks/results/ten_lines.txt)"
    table = f"| | loss | error |\n|---|---|---|\n| FoRDE | {loss} | 0.028 |\n"
    text = f"# A title\n\nIn the {link}:\n\n{table}| CatBoost | 0.472 | 0.063 |\n"
    path = tmp_path / "page.md"
    path.write_text(f"{text}\n# Another title\n\n{ending}\n", encoding="utf-8")
    assert [one.line for one in figures.offenders(path)] == lines


def test_most_wrong_figures_are_found():
    """A wrong figure may be in a file by chance, so that the check misses some."""
    count = figures.caught([DOCS / "experiments.md", DOCS / "limits.md", DOCS / "scaling.md"])
    assert count[False] > 0.7 * count.total() > 100


def environment_of(name):
    text = (figures.RESULTS / f"{name}.txt").read_text(encoding="utf-8")
    return re.search(r"^Python .*$", text, re.MULTILINE)[0]


def test_generated_tables_are_those_of_the_results(tmp_path, monkeypatch):
    """Writing all of them again changes no page, and no page has others."""
    before = {path.name: path.read_text(encoding="utf-8") for path in DOCS.glob("*.md")}
    for name, text in before.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    written, write_generated = [], summaries.write_generated

    def write(page, mark, text):
        written.append(summaries.GENERATED.format(mark))
        write_generated(tmp_path / page.name, mark, text)

    read = {
        name: pd.read_csv(figures.RESULTS / f"{name}.csv")
        for name in ("reporting", "tables", "regression", "recipe")
    }
    for module in (tables, regression):
        monkeypatch.setattr(module, "describe_environment", lambda: environment)
    monkeypatch.setattr(regression, "write_generated", write)
    monkeypatch.setattr(regression, "draw", lambda *_: None)
    monkeypatch.setattr(summaries, "write_generated", write)
    monkeypatch.setattr(summaries, "draw", lambda *_: None)
    for mark, name in (("reporting", "reporting"), ("first", "tables")):
        environment = environment_of(name)
        tables.write_page(read[name], mark)
    environment = environment_of("regression")
    regression.write_page(read["regression"])
    text = summaries.describe(read["recipe"]), summaries.ratio_table(read["recipe"])
    write(recipe.PAGE, "recipe", "\n\n".join(text))
    marks = {one for text in before.values() for one in re.findall("<!-- generated: .*? -->", text)}
    assert set(written) == marks
    assert {name: (tmp_path / name).read_text(encoding="utf-8") for name in before} == before


def test_readme_and_site_show_the_same_figures():
    """The README has what the pages have, which come from results."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    results = ROOT / "benchmarks" / "results"
    ten_lines = (results / "ten_lines.txt").read_text(encoding="utf-8")
    scores = re.findall(r"^(\w+) +(0\.\d+) +(0\.\d+)$", ten_lines, re.MULTILINE)
    assert len(scores) == 3
    for method, loss, error in scores:
        assert re.search(rf"\| \**{method}\** \| \**{loss}\** \| \**{error}\** \|", readme)
    benchmark = (DOCS / "benchmark.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [^|]+ \| (\d\.\d\d) ± (\d\.\d\d) \| (\d\.\d\d) ±", readme, re.MULTILINE)
    assert len(rows) == 3
    parts = ("peers, clean", "peers, shifted", "peers, natural shift")
    for part, (ratio, error, forest) in zip(parts, rows, strict=True):
        table = benchmark.split(f"<!-- generated: reporting: {part} -->")[1]
        found = re.search(r"\| CatBoost \| (\S+) ± (\S+) \|", table)
        assert f"{float(found[1]):.2f} {float(found[2]):.2f}" == f"{ratio} {error}"
        found = re.search(r"\| random forest \| (\S+) ±", table)
        assert f"{float(found[1]):.2f}" == forest


def test_the_version_is_one_of_the_switchers():
    versions = json.loads((DOCS / "_static" / "versions.json").read_text("utf-8"))
    is_released = re.fullmatch(r"[\d.]+", __version__)
    assert (__version__ if is_released else "dev") in {one["version"] for one in versions}
