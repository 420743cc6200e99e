"""List figures of the documentation that no results file has.

A figure is a number with decimals, an error or a unit, outside of code and of generated tables.
It has to be in the results files, or the sections of pages, that its row or paragraph names; else
in those that the nearest text of its section names, or of the section around it. There it has to
be in a line about the same: one that shares most words with the name of the row, or a word with
the paragraph. Figures of throw-away and earlier runs have no file, and are counted apart.

A wrong figure may be in a file by chance. Of figures that are one off in the last digit 72 % have
no source: nine in ten of those of `docs/experiments.md`, and three in ten of `docs/regression.md`,
where whole percents meet a large file. Run ``python tests/figures.py [page ...]``; with
``--chance`` it counts this anew.
"""

import re
import sys
from collections import Counter
from functools import cache
from math import log, sqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
import words  # noqa: E402
from benchmarks.summaries import DEEP_ENSEMBLE, FORDE, SCORES, conditions_of, log_ratios  # noqa: E402

DOCS, RESULTS = ROOT / "docs", ROOT / "benchmarks" / "results"
AWAY = "without a file"
OTHER_NAMES = {"tables": "reporting", "datasets": ""}  # a script, and its results
SETTINGS_COLUMNS = {"two severities", "Severities", "Default", "Meaning", "Effect", "Limit"}
# Patterns of what was chosen, defined or counted, and not measured: of all pages, and of one.
SETTINGS = {
    "": {
        r"\d+ % (?:prediction )?(?:intervals?|sets)|(?:at|for) \d+ % coverage": "as asked for",
        r"\d[\d,]* × (?=\d)(?:\d[\d,]* × (?=\d))*\d[\d,]*": "a size",
        r"[α-ωh] = [\d.]+(?:, [\d.]+)*|U\([\d., ]+\)": "a parameter",
        r"(?:[Vv]ersions?|Python|Apache|scikit-learn|torch|onnxruntime) [\d.]+\d": "a version",
        r"(?:[Nn]oise|missing|permute|probability)(?: of)? (?:0\.\d(?!\d)|1)(?: and 0\.3)?"
        r"|(?:[Ss]trengths?|rate|dropout|periods|weight|decay)(?: of| from)? (?:0\.\d+|1)"
        r"(?:(?: and|,| to) [\d.]+)*": "a setting of what was run",
        r"(?:at|levels) 0\.05, 0\.15, …, 0\.95": "levels of quantiles",
        r"20 times the distance": "the definition of the interval score",
    },
    "benchmark": {r"0\.7 and 2\.2": "ends of an axis"},
    "choosing": {
        r"(?:0\.4|2\.2) MB|2 kB": "printed by the page's own code",
        r"of 2\.5, 2\.6": "versions",
    },
    "glossary": {r"confidence of 0\.8|be 0\.9": "an example"},
    "intervals": {r"from 10 to 95 %|90 % on average|60 % of the": "a setting, or an example"},
    "limits": {r"316,144 MB": "an error message"},
    "method": {
        r"2306\.02775": "an article",
        r"0\.01 to 0\.99|16 times|95 % of|0\.3, is 38|128, times": "settings",
        r"default is 0\.6|0\.995": "defaults",
        r"to 0\.01|to 10 %|to 12 %|up to 35 %": "bounds that tests/test_updates.py asserts",
    },
    "parameters": {r"0\.70 in place of 0\.93": "of rows with other names on defaults.md"},
    "policies": {r"[023]\.\d+": "versions"},
    "saving": {r"64 MB|32 times|1\.32|1\.0|0\.5": "limits, a version, and levels"},
    "scaling": {r"10 Gbit": "an assumption"},
    "start": {r"\d[\d.]* [MG]B": "sizes of files, as the table's last column says"},
    "streaming": {r"probability of 0\.99|probability of 0\.01": "binomial distributions"},
    "tables": {r"more than 30 %": "a setting"},
    "uncertainty": {r"95 % of|99 %|17 times": "settings"},
}
# Figures that follow from others: words up to the figure, a formula, and its numbers of a file.
DERIVED = {
    "glossary": {"0.693 nats": (lambda: log(2),)},
    "intervals": {
        "standard error is 0.02": (lambda: sqrt(0.9 * 0.1 / 200),),
        "from 0.86": (lambda: 0.9 - 2 * sqrt(0.9 * 0.1 / 200),),
        "to 0.94": (lambda: 0.9 + 2 * sqrt(0.9 * 0.1 / 200),),
    },
    "performance": {  # The first five are steps in mixed precision by steps in single precision.
        "0.47": (lambda a, b: a / b, "6.248", "13.182"),
        "0.70": (lambda a, b: a / b, "1.736", "2.494"),
        "0.77": (lambda a, b: a / b, "5.011", "6.485"),
        "0.74": (lambda a, b: a / b, "4.211", "5.673"),
        "0.76": (lambda a, b: a / b, "9.295", "12.210"),
        "2.5 times": (lambda a, b: a / b, "425.70", "168.00"),
        "about 1.6 MB": (lambda a: a / 1000, "1587.00"),
        "0.3": (lambda a, b: a / b, "0.9", "2.8"),
        "0.3 to 0.5": (lambda a, b: a / b, "0.8", "1.5"),
    },
    "scaling": {
        "1,250 MB": (lambda: 10_000 / 8,),
        "84 times": (lambda a, b: a / b, "96.000", "1.143"),
        "9 ms": (lambda a: a / 1.25, "11.203"),
    },
    "streaming": {
        "then 0.0047": (lambda: sqrt(log(2 / 0.01) / (2 * 118_000)),),
        "0.495": (lambda: 0.5 - sqrt(log(2 / 0.01) / (2 * 118_000)),),
        "and 0.505": (lambda: 0.5 + sqrt(log(2 / 0.01) / (2 * 118_000)),),
        "error of 0.012": (lambda: sqrt(log(2 / 0.01) / (2 * 18_000)),),
    },
    "uncertainty": {"92 %": (lambda: 100 * 10**2 / (10**2 + 9),)},
}
_UNIT = r"%|(?:milli)?seconds?\b|ms\b|s\b|minutes?\b|[kMG]B\b|times\b|nats\b"
_THOUSANDS = {"ms", "s", "seconds", "kB", "MB", "GB"}
_NUMBER = r"[−-]?\d[\d,]*(?:\.\d+)?"
_FIGURE = re.compile(
    rf"(?<![\w.,/^])(?P<value>{_NUMBER})(?![\w^]|\.\d|[-–]\w)(?: ?± ?(?P<error>\d+\.?\d*))?(?: ?"
    rf"(?P<unit>{_UNIT})|(?= (?:to|and|or|instead of|in place of) {_NUMBER} ?(?P<shared>{_UNIT})))?"
)
_SOURCE = re.compile(
    r"(?P<away>[Tt]hrow-away|earlier run|prints this table|keeps no results file)"
    r"|results/(?P<file>\w+)\.(?:txt|csv)"
    r"|benchmarks[./](?!results)(?P<script>\w+)|\[(?P<reference>\w+)\](?!\()"
    r"|\]\((?:[\w./:-]*/)?(?P<page>\w*)(?:\.md|\.html)?(?:#(?P<anchor>[\w-]+))?\)"
)
_CELL = re.compile(r"(?<!\\)\|")


class Figure(NamedTuple):
    line: int
    state: str
    text: str


def sections(text):
    """Return [level, title, blocks] for each heading; a block is [line, text, head of a table]."""
    front, code = r"(?s)\A---\n.*?\n---\n", r"(?m)^ {4}\S.*$"
    for pattern in (words._FENCE, words._GENERATED, words._COMMENT, front, code):
        text = re.sub(pattern, lambda one: "\n" * one[0].count("\n"), text)
    found, head, is_open = [[0, "", []]], "", False
    for number, line in enumerate(text.splitlines(), 1):
        head = (head or line) if line.startswith("|") else ""
        if title := re.match(r"(#+) (.*)", line):
            found.append([len(title[1]), title[2], []])
        elif is_open and line.strip() and not re.match(r"\s*([-*]|\d+\.|: )\s|\|", line):
            found[-1][2][-1][1] += " " + line.strip()
            continue
        elif line.strip():
            found[-1][2].append([number, line.strip(), head])
        is_open = bool(line.strip()) and not head and not title
    return found


def named(text):
    """Return the results files and the (page, anchor) that a text names."""
    found = list(_SOURCE.finditer(text))
    files = {one["file"] for one in found if one["file"]}
    files = files or {OTHER_NAMES.get(one["script"], one["script"]) for one in found}
    files = {name for name in files if name and (RESULTS / f"{name}.txt").exists()}
    files |= {AWAY for one in found if one["away"]}
    pages = {(one["page"] or one["reference"] or "", one["anchor"] or "") for one in found}
    return files, {one for one in pages if any(one)}


def sources(parts, index, number, page):
    """Return the files and the pages that a block names, or the nearest text that names files.

    A table is of a throw-away run if the text before it says it, all else if its section does
    and names no results file.
    """
    level, title, blocks = parts[index]
    files, pages = named(blocks[number][1])
    for other, anchor in pages:
        if not other:  # A note of the same page may name a file for many rows.
            files |= named(section(page, anchor))[0] - {AWAY}
    is_away, files = AWAY in files, files - {AWAY}
    if files:
        return files | ({AWAY} if is_away else set()), pages
    if blocks[number][2]:
        before = next((one[1] for one in blocks[:number][::-1] if not one[2]), "")
        is_away |= AWAY in named(before)[0]
    groups = [[*(one[1] for one in (*blocks[:number][::-1], *blocks[number + 1 :])), title]]
    for outer, title, others in reversed(parts[:index]):
        if outer < level:
            level = outer
            groups.append([*(one[1] for one in others[::-1]), title])
    around = [[one for one in map(named, texts) if any(one)] for texts in groups]
    if page == "README":  # It shows what pages have.
        files, more = next((one for group in around for one in group), (files, pages))
        return files, pages | more
    for group in around:
        with_files = [one - {AWAY} for one, _ in group if one - {AWAY}]
        if with_files or any(one for one, _ in group):
            # What has a page of its own is not of the throw-away run around it.
            is_away |= not with_files and not any(anchor for _, anchor in pages)
            return (with_files[0] if with_files else set()) | ({AWAY} if is_away else set()), pages
    more = next((more for group in around for _, more in group), set())
    return {AWAY} if is_away else set(), pages | more


def section(page, anchor):
    """Return the text below a heading of a page, generated tables with it; else the whole page."""
    path = ROOT / "README.md" if page == "README" else DOCS / f"{page}.md"
    kept, level = [], 0
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        if title := re.match(r"(#+) (.*)", line):
            slug = re.sub(r"[^\w -]", "", title[2].lower()).replace(" ", "-")
            level = len(title[1]) if slug == anchor else level * (len(title[1]) > level)
        kept += [line] if level or not anchor else []
    return "\n".join(kept)


def summary(name):
    """Return what follows from the scores of every fit, and the text of the results lacks."""
    if name in {"regression", "front"}:
        results = pd.read_csv(RESULTS / f"{name}.csv")
        base, by = (FORDE, "rows") if name == "regression" else ("FoRDE, 10", "seed")
        scores = ["crps"] if name == "regression" else ["clean", "shifted"]
        logs = {
            f"{score} {rows}": log_ratios(part.set_index(["set", "seed", "method"])[score], base)
            for score in scores
            for rows, part in results.groupby(by)
        }
        sign = -1 if name == "regression" else 1
        return "\n\n" + np.exp(sign * pd.concat({k: v.mean() for k, v in logs.items()})).to_string()
    if name not in {"reporting", "tables", "small", "ablation", "recipe"}:
        return ""
    results = pd.read_csv(RESULTS / f"{name}.csv")
    if name == "recipe":  # The notes of `docs/parameters.md` say what is left out.
        results = results[results["set"] != "leaf_flavia"].replace(
            {"method": {"2 × 64": "hidden, 64", "2 × 256": "hidden, 256", "pca": "pca, length"}}
        )
    bases = [FORDE, DEEP_ENSEMBLE] if name == "recipe" else [FORDE]
    lines, sign = [""], 1 if name in {"ablation", "recipe"} else -1
    for scores in conditions_of(results).values():
        means = scores.groupby(["method", "set"])[SCORES].mean().groupby("method").mean()
        for base in bases:
            logs = sign * log_ratios(scores["nll"], base)
            table = pd.DataFrame({"ratio": np.exp(logs.mean()), "error": logs.sem()}).join(means)
            lines += [table.to_string(header=False), ""]
        fits = np.log(scores["nll"]).unstack("method")  # noqa: PD010
        for other in {"CatBoost", "no ranks"} & set(fits):
            by_set = (fits[other] - fits[FORDE]).groupby("set").agg(["mean", "sem"])
            lines += [by_set.assign(ratio=np.exp(by_set["mean"])).to_string(), ""]
    return "\n".join(lines)


@cache
def numbers_of(name, anchor=None):
    """Return (words, words of the table, numbers) of the lines of a results file or a section."""
    text = section(name, anchor)
    if anchor is None:
        text = (RESULTS / f"{name}.txt").read_text(encoding="utf-8") + summary(name)
    found, caption, label = [], frozenset(), frozenset()
    for line in text.splitlines():
        own = stems(line)
        if not line.strip():
            caption, label = frozenset(), frozenset()
        elif not re.search(r"\d\.\d", line):
            caption |= own
        label = own or label
        numbers = re.findall(r"(?<![\w.])[−-]?\d[\d,]*(?:\.\d+)?(?:e[-+]\d+)?", line)
        if numbers:
            numbers = [one.replace("−", "-").replace(",", "") for one in numbers]
            found.append((own or label | caption, caption, numbers))
    return found


def stems(text):
    """Return the beginnings of the words of a text."""
    return frozenset(word.lower()[:5] for word in re.findall(r"[^\W\d_]{3,}", text))


def scopes(lines, text, head):
    """Return the numbers of lines about a block: the strict choice, and what else may count.

    These are lines that share most words with a row's name, and those that share one with all of
    the block, or else whose table's head does. Of a file that the block itself names it is all.
    """
    wanted, name = stems(text + head), stems(_CELL.split(text)[1] if head else "")
    most = max((len(label & name) for label, _, _ in lines), default=0)
    strict = [line for label, _, line in lines if most and len(label & name) == most]
    if named(text)[0] - {AWAY}:
        return strict, [line for _, _, line in lines]
    shared = [line for label, _, line in lines if label & wanted]
    return strict, shared or [line for _, table, line in lines if table & wanted]


def rounds_to(number, figure, unit):
    """Whether a number of a file is a figure, also as a share, a change, or in another unit."""
    decimals, places = len(figure.partition(".")[2]), len(number.partition(".")[2])
    value, wanted = abs(float(number)), abs(float(figure))
    forms = [(value, places)]
    if unit == "%":
        forms += [(100 * one, places - 2) for one in (value, abs(value - 1)) if one <= 1]
    elif unit in _THOUSANDS:
        forms += [(value * 1000, places - 3), (value / 1000, places + 3)]
    error = 0.5 * 10**-decimals + 1e-9
    return any(
        abs(form - wanted) <= error and (known >= decimals or form == wanted)
        for form, known in forms
    )


def is_in(lines, value, error, unit):
    """Whether a line has a figure, with its error after it."""
    return any(
        rounds_to(one, value, unit) and (not error or rounds_to(after, error, unit))
        for line in lines
        for one, after in zip(line, [*line[1:], "0"], strict=True)
    )


def is_derived(page, text, value, lines):
    """Whether a figure is computed, as `DERIVED` says, from numbers that the sources have."""
    for phrase, (formula, *numbers) in DERIVED.get(page, {}).items():
        if text.endswith(phrase):
            known = all(any(one in line for _, _, line in lines) for one in numbers)
            if known and rounds_to(f"{formula(*map(float, numbers)):.6f}", value, ""):
                return True
    return False


def figures(page, text, head):
    """Yield value, error, unit and the words before it, of the figures of a block."""
    cells = [(text, "")]
    if head:
        cells = list(zip(_CELL.split(text)[1:-1], _CELL.split(head)[1:-1], strict=True))
    settings = "|".join([*SETTINGS[""], *SETTINGS.get(page, [])])
    for column, (cell, title) in enumerate(cells):
        plain = words._LINK.sub(r"\1", words._ASIDE.sub("X", cell)).replace("*", "").strip()
        masked = re.sub(settings, lambda one: "x" * len(one[0]), plain)
        names_the_row = head and column == 0 and not _FIGURE.fullmatch(masked)
        if names_the_row or title.strip() in SETTINGS_COLUMNS:
            continue
        of_column = re.search(rf"(?:^|, |in )({_UNIT})", title.strip())
        for found in _FIGURE.finditer(masked):
            unit = found["unit"] or found["shared"] or (of_column[1] if of_column else "")
            value = found["value"].replace(",", "").replace("−", "-")
            if "." in value or unit or found["error"]:
                yield value, found["error"], unit, plain[: found.end()][-70:]


def check(path, shift=0):
    """Yield the figures of a page; with a shift the last digit of each in turn is another one."""
    page, parts = path.stem, sections(path.read_text(encoding="utf-8"))
    for index, (_, _, blocks) in enumerate(parts):
        for number, (line, text, head) in enumerate(blocks):
            files, pages = sources(parts, index, number, page)
            lines = [one for name in sorted(files - {AWAY}) for one in numbers_of(name)]
            lines += [one for other, anchor in pages for one in numbers_of(other or page, anchor)]
            strict, wide = scopes(lines, text, head)
            found = list(figures(page, text, head))
            for position, (value, error, unit, before) in enumerate(found):
                decimals = len(value.partition(".")[2])
                value = f"{float(value) + shift * 10**-decimals:.{decimals}f}" if shift else value
                whole = [*found[:position], (value, error, unit), *found[position + 1 :]]
                is_about = 2 * sum(is_in(strict, *one[:3]) for one in whole) > len(whole)
                state = AWAY if AWAY in files else f"not in {sorted(files)} {sorted(pages)}"
                if is_in(strict if is_about else wide, value, error, unit):
                    state = "found"
                elif is_derived(page, before, value, lines):
                    state = "derived"
                yield Figure(line, state, before)


def offenders(path):
    """Return the figures of a page that have no source."""
    return [one for one in check(path) if one.state.startswith("not in")]


def caught(paths):
    """Return how many figures that are one off in the last digit would be found, and would not."""
    count = Counter()
    for path in paths:
        for shift in (-1, 1):
            for right, wrong in zip(check(path), check(path, shift), strict=True):
                if right.state == "found":
                    count[wrong.state == "found"] += 1
    return count


def main():
    names = [Path(one).resolve() for one in sys.argv[1:] if not one.startswith("--")]
    paths = names or words.user_pages()
    for path in paths:
        for one in offenders(path):
            print(f"{path.name}:{one.line}: {one.state}: {one.text}")
    states = Counter(one.state.partition(" in")[0] for path in paths for one in check(path))
    print(", ".join(f"{n} {state}" for state, n in states.most_common()))
    if "--chance" in sys.argv:
        count = caught(paths)
        print(f"{count[False] / count.total():.0%} of {count.total()} wrong figures are not found")


if __name__ == "__main__":
    main()
