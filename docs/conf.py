"""Sphinx builds the site from this folder: ``make docs``."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from pages import REPOSITORY, source_link

import sklearn_fordes

project = "sklearn-fordes"
author = copyright = "The sklearn-fordes developers"
# The site of main is that of no release, whatever its version is.
release = version = os.environ.get("SITE_VERSION", sklearn_fordes.__version__)

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.linkcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "sphinx-mathjax-offline",
    "sphinx_llms_txt",
    "sphinx_sitemap",
    "pages",
]
exclude_patterns = ["examples", "_templates", "_ext", "auto_examples/*.ipynb"]
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["site.css"]
# Names in single backticks are links where the site has their page.
default_role = "py:obj"

# ---- pages

myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# ---- API

autosummary_generate = True
linkcode_resolve = source_link
autodoc_typehints = "none"
autodoc_preserve_defaults = True
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
toc_object_entries_show_parents = "hide"

# ---- gallery

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"[\\/]plot_",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
    "min_reported_time": 60,
    "matplotlib_animations": False,
    "reset_modules": ("matplotlib",),
    "backreferences_dir": "api/backreferences",
    "doc_module": ("sklearn_fordes",),
}
suppress_warnings = ["config.cache"]

# ---- look

html_theme = "pydata_sphinx_theme"
html_title = "sklearn-fordes"
html_logo = html_favicon = "_static/logo.svg"
# Search engines are sent to the newest release, whichever version they have found.
html_baseurl = "https://sklearn-fordes.github.io/sklearn-fordes/stable/"
html_show_sourcelink = False
html_sidebars = {"index": [], "start": [], "404": []}
html_copy_source = True
html_additional_pages = {"404": "404.html"}
html_theme_options = {
    "github_url": REPOSITORY,
    "logo": {"text": html_title},
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "navbar_end": ["version-switcher", "theme-switcher", "navbar-icon-links"],
    # Each deployment puts the newest list into the sites of all versions.
    "switcher": {
        "json_url": "_static/versions.json",
        "version_match": release if release.replace(".", "").isdecimal() else "dev",
    },
    "show_version_warning_banner": True,
    "check_switcher": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "secondary_sidebar_items": ["page-toc"],
}
sitemap_url_scheme = "{link}"
sitemap_show_lastmod = False
sitemap_excludes = ["404.html", "genindex.html", "search.html"]
