"""What the pages need that no extension does: links to files of the repository, and own members."""

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

REPOSITORY = "https://github.com/sklearn-fordes/sklearn-fordes"
# Files outside of this folder that are pages of the site.
INCLUDED = {
    "CHANGELOG": "whats_new",
    "CONTRIBUTING": "contributing",
    "SECURITY": "security",
    "CODE_OF_CONDUCT": "conduct",
}


def link_to_repository(app: Sphinx, page: str, source: list[str]) -> None:
    """Point links to files that are no pages to the repository, or to their page."""
    text = re.sub(r"\]\(examples/(\w+)\.py\)", r"](auto_examples/\1.rst)", source[0])
    for name, place in INCLUDED.items():
        text = text.replace(f"](../{name}.md", f"]({place}.md")
    source[0] = re.sub(r"\]\(\.\./([^)]+)\)", rf"]({REPOSITORY}/blob/main/\1)", text)


def link_included(app: Sphinx, path: Any, parent: str, content: list[str]) -> None:
    """Point links of an included file, which stands above this folder, to pages."""
    text = content[0].replace("](docs/", "](")
    for name, place in INCLUDED.items():
        text = text.replace(f"]({name}.md", f"]({place}.md")
    content[0] = re.sub(
        r"\]\(((?:benchmarks|tests|sklearn_fordes|LICENSE)[^)]*)\)",
        rf"]({REPOSITORY}/blob/main/\1)",
        text,
    )


def is_inherited(app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any) -> bool:
    """Leave out what a class has from another library."""
    home = getattr(member, "__module__", None) or getattr(
        getattr(member, "fget", None), "__module__", ""
    )
    is_foreign = callable(member) and not str(home).startswith("sklearn_fordes")
    return skip or (what == "class" and is_foreign)


def source_link(domain: str, info: dict[str, str]) -> str | None:
    """Return the address of the code of a documented name, for `sphinx.ext.linkcode`."""
    found: Any = import_module(info["module"])
    for name in info["fullname"].split("."):
        found = getattr(found, name, None)
    found = inspect.unwrap(getattr(found, "fget", None) or found) if found is not None else None
    if not str(getattr(found, "__module__", "")).startswith("sklearn_fordes"):
        return None
    try:
        lines, first = inspect.getsourcelines(found)
        path = Path(inspect.getfile(found)).relative_to(Path(__file__).parents[2])
    except (OSError, TypeError, ValueError):
        return None
    return f"{REPOSITORY}/blob/main/{path.as_posix()}#L{first}-L{first + len(lines) - 1}"


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect these functions."""
    app.connect("source-read", link_to_repository)
    app.connect("include-read", link_included)
    app.connect("autodoc-skip-member", is_inherited)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
