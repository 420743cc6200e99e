"""List sentences of the documentation that are hard to read.

A sentence has at most 30 words and at most 3 numbers outside of tables, and uses the words of the
field in place of the house's. Run ``python tests/words.py [page ...]``; without pages it looks at
all that users read.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOST_WORDS, MOST_NUMBERS = 30, 3
# Idioms that make a reader from elsewhere stop.
RETIRED = (
    "told",
    "says so",
    "so many",
    "beside",
    "taken for",
    "stands in",
    "stands before",
    "what leaves",
    "what enters",
    "of one's own",
    "maybe",
    "at hand",
    "rooms",
)
_RETIRED = re.compile(rf"\b({'|'.join(map(re.escape, RETIRED))})\b", re.IGNORECASE)
_FENCE = re.compile(r"^(\s*)(`{3,}|:{3,}|\${2}).*?^\s*\2\s*$", re.DOTALL | re.MULTILINE)
_GENERATED = re.compile(r"<!-- (generated: .*?) -->.*?<!-- \1 -->", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_ASIDE = re.compile(r"`[^`]*`|\$[^$]*\$|!\[[^]]*\]\([^)]*\)", re.DOTALL)
_LINK = re.compile(r"\[([^]]*)\](\([^)]*\)|\[[^]]*\])?")
# A size such as 2 × 128, a number with its error, and a date count as one.
_NUMBER = re.compile(
    r"(?<![\w.])(?:\d{4}-\d\d-\d\d|[−-]?\d[\d,.]*(?:\s?[×±]\s?\d[\d,.]*)*(?:\s?[×%])?)(?!\w)"
)
# A full stop ends a sentence before a capital letter, a quotation, or code.
_END = re.compile(r"(?<=[.!?:])[)*_\"”]*\s+(?=[A-ZΑ-Ωα-ω*_\[`(\"“])")


def user_pages():
    """Return the files that users read; those for contributors are not among them."""
    others = {
        "architecture.md",
        "contributing.md",
        "promises.md",
        "whats_new.md",
        "conduct.md",
        "site_checklist.md",
    }
    return [
        ROOT / "README.md",
        *(p for p in sorted((ROOT / "docs").glob("*.md")) if p.name not in others),
    ]


def paragraphs(text):
    """Yield the number of the first line, and the text, of each paragraph or item of a list."""
    text = _GENERATED.sub(lambda found: "\n" * found[0].count("\n"), text)
    text = _COMMENT.sub(lambda found: "\n" * found[0].count("\n"), text)
    text = _FENCE.sub(lambda found: "\n" * found[0].count("\n"), text)
    text = re.sub(
        r"\A---\n.*?\n---\n", lambda found: "\n" * found[0].count("\n"), text, flags=re.DOTALL
    )
    lines, first = [], 1
    for number, line in enumerate([*text.splitlines(), ""], 1):
        is_apart = not line.strip() or re.match(r"\s*(\||#|    |\[[^]]+\]: )", line)
        if is_apart or re.match(r"\s*([-*]|\d+\.|: )\s", line):
            if lines:
                yield first, " ".join(lines)
            lines, first = [], number
        if not is_apart:
            lines.append(line.strip())


def sentences(text):
    """Yield the number of a line, and a sentence without code, formulas and addresses."""
    for number, paragraph in paragraphs(text):
        plain = _LINK.sub(r"\1", _ASIDE.sub("X", paragraph))
        for sentence in _END.split(plain):
            yield number, sentence.strip()


def offenders(path):
    """Yield the line, what is wrong and the sentence, for each that is hard to read."""
    for number, sentence in sentences(path.read_text(encoding="utf-8")):
        n_words = len(re.findall(r"[^\W\d_][\w'’-]*", sentence))
        n_numbers = len(_NUMBER.findall(sentence))
        if n_words > MOST_WORDS:
            yield number, f"{n_words} words", sentence
        if n_numbers > MOST_NUMBERS:
            yield number, f"{n_numbers} numbers", sentence
        for word in _RETIRED.findall(sentence):
            yield number, f"word {word!r}", sentence


def main():
    paths = [Path(name).resolve() for name in sys.argv[1:]] or user_pages()
    n_found = 0
    for path in paths:
        for number, reason, sentence in offenders(path):
            n_found += 1
            print(f"{path.relative_to(ROOT)}:{number}: {reason}: {sentence[:160]}")
    print(f"{n_found} in {len(paths)} pages")


if __name__ == "__main__":
    main()
