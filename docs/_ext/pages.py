"""What the pages need that no extension does: links to the repository, descriptions and others."""

import inspect
import re
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

from sklearn_fordes import FoRDEClassifier, FoRDERegressor

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


def link_to_pages(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Make links of the pages that docstrings name as files of the repository."""
    lines[:] = [re.sub(r"(`*)docs/(\w+)\.md\1", r":doc:`/\2`", line) for line in lines]


def link_names(app: Sphinx, doctree: nodes.document) -> None:
    """Make links of the public names that a page has as code."""
    page = app.env.docname
    if page.startswith("api/"):
        return
    for literal in [*doctree.findall(nodes.literal)]:
        name = literal.astext().removesuffix("()")
        if name in API and not isinstance(literal.parent, IN_LINKS):
            target = addnodes.pending_xref(
                "", refdomain="py", reftype="obj", reftarget=API[name], refdoc=page, refwarn=False
            )
            literal.replace_self(target)
            target += literal


def public_names() -> dict[str, str]:
    """Return the names of the API pages, with the packages that have them."""
    found, package = {}, ""
    text = (Path(__file__).parents[1] / "api" / "index.rst").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith(".. currentmodule:: "):
            package = line.split()[-1]
        elif re.fullmatch(r"   \w+", line):
            found[line.strip()] = f"{package}.{line.strip()}"
    # A page that has the name of a method means the method.
    methods = {*dir(FoRDEClassifier), *dir(FoRDERegressor)}
    return {name: place for name, place in found.items() if name not in methods}


API = public_names()
# Code in one of these is no link, or is one already.
IN_LINKS = (nodes.reference, nodes.title, addnodes.pending_xref)
# More of a description is of no use: search engines show about as many characters.
N_SHOWN = 200
# A paragraph in one of these does not begin the text of a page.
ASIDE = (nodes.note, nodes.list_item, nodes.table)


def description_of(doctree: nodes.document) -> str:
    """Return the description in the page's front matter, or the first sentences of its text."""
    for meta in doctree.findall(nodes.meta):
        if meta.get("name") == "description":
            return str(meta["content"])
    for paragraph in doctree.findall(nodes.paragraph):
        parent = paragraph.parent
        while parent is not None and not isinstance(parent, ASIDE):
            parent = parent.parent
        if parent is None:
            return first_sentences(" ".join(paragraph.astext().split()))
    return ""


def first_sentences(text: str) -> str:
    """Return the first sentence, and those after it that search engines show too."""
    # An initial, as of a name, does not end a sentence.
    shown, *others = re.split(r"(?<=[.?!])(?<![ .][A-Z]\.) ", text)
    for sentence in others:
        if len(shown) + len(sentence) >= N_SHOWN or sentence.endswith(":"):
            break
        shown = f"{shown} {sentence}"
    return shown


def describe(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Add what search engines and previews of links show of a page."""
    if doctree is None:  # The index and the search are no pages to find.
        return
    description = escape(description_of(doctree))
    if 'name="description"' not in context["metatags"]:
        context["metatags"] += f'\n<meta name="description" content="{description}" />'
    shown = {
        "site_name": app.config.html_title,
        "type": "website",
        "title": re.sub("<[^>]+>", "", context["title"]),
        "description": description,
        "url": f"{app.config.html_baseurl}{page}.html",
    }
    for name, value in shown.items():
        context["metatags"] += f'\n<meta property="og:{name}" content="{value}" />'


def link_from_anywhere(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Let links of the page for wrong addresses, which has any address, begin at the site."""
    if page == "404":
        path = urlsplit(app.config.html_baseurl).path
        context["metatags"] = f'\n<base href="{path}" />{context.get("metatags", "")}'
        # The theme looks for the versions next to the address.
        switcher = context["theme_switcher"]
        context["theme_switcher"] = {**switcher, "json_url": path + switcher["json_url"]}


def mend_tables(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Make empty headers plain cells, which screen readers skip; let keys scroll examples."""
    body = re.sub(r"<th( [^>]*)?>\s*(?:<p></p>)?\s*</th>", r"<td\1></td>", context.get("body", ""))
    body = re.sub(r"<thead>\s*<tr[^>]*>(?:\s*<td[^>]*></td>)*\s*</tr>\s*</thead>", "", body)
    context["body"] = body.replace('<div class="output_sub', '<div tabindex="0" class="output_sub')


def link_sources(app: Sphinx, exception: Exception | None) -> None:
    """Point links of the pages' markdown, which the site serves as text, to such files."""
    if exception or app.builder.name != "html":
        return
    site = Path(app.outdir)
    files = [(path, "", "../_images/") for path in (site / "_sources").glob("*.md.txt")]
    for path, pages, pictures in [*files, (site / "llms-full.txt", "_sources/", "_images/")]:
        source = [path.read_text(encoding="utf-8")]
        link_to_repository(app, "", source)
        text = re.sub(r"\]\(((?:\w+/)?\w+\.(?:md|rst))(?=[#)])", rf"]({pages}\1.txt", source[0])
        text = re.sub(r"\]\((\w+\.png)\)", rf"]({pictures}\1)", text)
        path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect these functions."""
    app.connect("source-read", link_to_repository)
    app.connect("include-read", link_included)
    app.connect("autodoc-skip-member", is_inherited)
    app.connect("autodoc-process-docstring", link_to_pages)
    app.connect("doctree-read", link_names)
    app.connect("build-finished", link_sources, priority=900)  # After those of extensions.
    # The theme reads what these change.
    for change in (describe, link_from_anywhere, mend_tables):
        app.connect("html-page-context", change, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
