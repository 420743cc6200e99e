"""The site as a browser shows it: ``make test-docs`` builds it first, and saves screenshots."""

import json
import os
import re
import shutil
import threading
from collections import Counter
from functools import cache, partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
SITE = ROOT / "build" / "site"
PICTURES = ROOT / "build" / "screenshots"
PAGES = (
    "index.html",
    "start.html",
    "choosing.html",
    "api/index.html",
    "api/generated/sklearn_fordes.FoRDEClassifier.html",
    "auto_examples/index.html",
    "method.html",
    "404.html",
)
# Where the service puts the site; links of the page for wrong addresses begin there.
PLACE = "/sklearn-fordes/stable/"
WIDTHS = (1280, 400)
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.skipif(not SITE.exists(), reason="The site is not built: run make docs."),
    # Its libraries open sockets which they leave to the end of the process.
    pytest.mark.filterwarnings("default::ResourceWarning", "default::DeprecationWarning"),
]


# ---- links


class Links(HTMLParser):
    """Collect what a page refers to, and the anchors that it has."""

    def __init__(self, text):
        super().__init__()
        self.found, self.anchors, self.meta = [], {"", "top"}, {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        if tag == "meta":
            self.meta[named.get("name") or named.get("property")] = named.get("content")
        self.anchors |= {named.get("id"), named.get("name")}
        for name in ("href", "src"):
            # An address in a canonical link or for other sites is that of the site on the web.
            if named.get(name) and named.get("rel") != "canonical":
                self.found.append((tag, named[name]))


@cache
def links_of(path):
    return Links(path.read_text(encoding="utf-8"))


def pages():
    return sorted(path for path in SITE.rglob("*.html") if "_static" not in path.parts)


def test_no_link_within_the_site_is_broken():
    broken = []
    for page in pages():
        for tag, link in links_of(page).found:
            if urlsplit(link).scheme or link.startswith("//") or tag == "base":
                continue
            address, anchor = urldefrag(urljoin(page.relative_to(SITE).as_posix(), link))
            target = SITE / unquote(urlsplit(address).path)
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                broken.append((page.name, link))
            elif target.suffix == ".html" and tag == "a":
                is_there = unquote(anchor) in links_of(target).anchors
                if not is_there:
                    broken.append((page.name, link))
    assert not broken
    assert len(pages()) > 100


def test_pages_load_nothing_from_elsewhere():
    loaded = [
        (page.name, link)
        for page in pages()
        for tag, link in links_of(page).found
        if tag in ("script", "img", "link", "iframe") and urlsplit(link).netloc
    ]
    assert not loaded


def test_a_page_has_a_title_and_a_description_of_its_own():
    titles, descriptions = Counter(), Counter()
    for page in pages():
        if page.name not in ("404.html", "genindex.html", "search.html"):
            meta = links_of(page).meta
            assert 20 <= len(meta["description"]) <= 250, page
            assert meta["og:description"] == meta["description"]
            titles[meta["og:title"]] += 1
            descriptions[meta["description"]] += 1
    assert not [title for title, count in titles.items() if count > 1]
    # The classifier and the regressor share their first sentence.
    assert [count for count in descriptions.values() if count > 1] in ([], [2])


def test_headers_of_tables_have_text():
    empty = re.compile(r"<th\b[^>]*>(?:\s|<p>|</p>)*</th>")
    assert not [page.name for page in pages() if empty.search(page.read_text(encoding="utf-8"))]


def test_keys_scroll_the_tables_of_examples():
    found = [
        tag
        for page in pages()
        for tag in re.findall(r'<div[^>]* class="output_subarea[^>]*>', page.read_text("utf-8"))
    ]
    assert found
    assert all('tabindex="0"' in tag for tag in found)


def test_the_index_of_names_can_be_reached():
    links = links_of(SITE / "api" / "index.html").found
    assert ("a", "../genindex.html") in links


def test_machines_find_the_pages():
    text = (SITE / "llms.txt").read_text(encoding="utf-8")
    assert "_sources/start.md.txt" in text
    assert (SITE / "_sources" / "start.md.txt").exists()
    assert "predict_uncertainty" in (SITE / "llms-full.txt").read_text(encoding="utf-8")
    assert "/start.html</loc>" in (SITE / "sitemap.xml").read_text(encoding="utf-8")


def test_links_of_the_markdown_lead_to_files():
    files = [*(SITE / "_sources").glob("*.md.txt"), SITE / "llms-full.txt"]
    links = [
        (file, link.partition("#")[0])
        for file in files
        for link in re.findall(r"\]\(([^)\s]+)\)", file.read_text(encoding="utf-8"))
        if not link.startswith(("http", "#"))
    ]
    assert len(links) > 100
    assert not [(file.name, link) for file, link in links if not (file.parent / link).exists()]


# ---- in a browser


@pytest.fixture(scope="module")
def address():
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            """Write nothing."""

        def translate_path(self, path):
            return super().translate_path(path.replace(PLACE, "/"))

        def send_error(self, code, *arguments):
            self.send_response(code)
            self.end_headers()
            self.wfile.write((SITE / "404.html").read_bytes())

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver")
    if BROWSER is None or shutil.which("chromedriver") is None:
        pytest.skip("There is no Chromium with its driver.")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("--headless=new", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    if getattr(os, "getuid", int)() == 0:  # As in a container.
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options, service)
    yield driver
    driver.quit()


def show(browser, address, *, width=1280, theme="light"):
    """Open a page as wide as that, and wait until all of it is there."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    # The theme writes what it finds, so that it has to find it before it runs.
    choose = "".join(f"localStorage.setItem('{key}', '{theme}');" for key in ("mode", "theme"))
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": choose})
    browser.get_log("browser")
    browser.get(address)
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
    assert browser.execute_script("return document.documentElement.dataset.theme") == theme


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_shown_whole(browser, address, page, width, theme):
    show(browser, address + page, width=width, theme=theme)
    PICTURES.mkdir(parents=True, exist_ok=True)
    name = page.replace("/", "-").removesuffix(".html")
    assert browser.save_screenshot(str(PICTURES / f"{name}-{width}-{theme}.png"))
    messages = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not messages
    found = browser.execute_script(
        """
        const images = [...document.images].filter(one => one.loading != 'lazy');
        return {
            scroll: document.documentElement.scrollWidth,
            articles: [...document.querySelectorAll('.bd-article, .bd-article-container')].map(
                one => one.scrollWidth - one.clientWidth),
            empty: images.filter(one => !one.naturalWidth).map(one => one.src),
            loaded: performance.getEntriesByType('resource').map(one => one.name),
        };
        """
    )
    assert found["scroll"] <= width
    # Tables and code scroll by themselves, and the text around them does not.
    assert not any(found["articles"])
    assert not found["empty"]
    assert all(one.startswith(address) for one in found["loaded"])


def test_the_search_finds_a_method(browser, address):
    show(browser, address + "search.html?q=predict_uncertainty")
    support = pytest.importorskip("selenium.webdriver.support.ui")
    script = "return [...document.querySelectorAll('#search-results li a')].map(one => one.href)"
    wait = support.WebDriverWait(browser, 20)
    found = wait.until(lambda driver: driver.execute_script(script))
    assert any("FoRDEClassifier.html" in one for one in found)


@pytest.mark.parametrize("page", ["api/index.html", "there/is/no/such/page.html"])
def test_the_switcher_knows_this_version(browser, address, page):
    from sklearn_fordes import __version__

    versions = json.loads((SITE / "_static" / "versions.json").read_text(encoding="utf-8"))
    names = {one["version"]: one["name"] for one in versions}
    show(browser, address + page)
    support = pytest.importorskip("selenium.webdriver.support.ui")
    script = "return {...document.querySelector('.version-switcher__button').dataset}"
    wait = support.WebDriverWait(browser, 20)
    wait.until(lambda driver: "activeVersion" in driver.execute_script(script))
    active = browser.execute_script(script)
    assert active["activeVersion"] == (
        __version__ if re.fullmatch(r"[\d.]+", __version__) else "dev"
    )
    assert active["activeVersionName"] == names[active["activeVersion"]]


def test_a_wrong_address_shows_a_page_that_leads_back(browser, address):
    show(browser, address + "there/is/no/such/page.html")
    failed = [one["message"] for one in browser.get_log("browser") if one["level"] == "SEVERE"]
    assert all(f"{address}there/is/no/such/page.html" in one for one in failed)
    links = browser.execute_script(
        "return [...document.querySelectorAll('article a')].map(one => one.href)"
    )
    assert address + PLACE[1:] + "index.html" in links
    assert browser.execute_script("return document.querySelector('.logo__image').naturalWidth")


def test_formulas_are_set(browser, address):
    show(browser, address + "method.html")
    support = pytest.importorskip("selenium.webdriver.support.ui")
    script = """
        const formulas = [...document.querySelectorAll('div.math mjx-container')];
        return formulas.map(one => one.getBoundingClientRect().width);
    """
    wait = support.WebDriverWait(browser, 20)
    widths = wait.until(lambda driver: driver.execute_script(script))
    assert len(widths) > 5
    assert min(widths) > 100
