"""The report in a real browser: no error, nothing fetched, everything inside its card."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.engine.manifests import ManifestStore
from jobs.recipes import recipe
from jobs.rendering.page import render_page
from jobs.rendering.state import read_state
from jobs.rendering.summary import DaySummary
from tests.pipelines import UPSTREAMS
from tests.report_fixtures import make_home

sync_api = pytest.importorskip("playwright.sync_api")
_CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(_CHROMIUM is None, reason="no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    make_home(home, days=12)
    store = ManifestStore(home / "manifests")
    days = [DaySummary.of(ds, store.of_day(ds)) for ds in store.days()]
    path = home / "index.html"
    path.write_text(render_page(days, UPSTREAMS, recipe("toy"), read_state(home)))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1360, 420])
def test_page_stands_alone_and_fits(browser, page_path: Path, scheme: str, width: int) -> None:
    view = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    problems: list[str] = []
    fetched: list[str] = []
    view.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    view.on("pageerror", lambda e: problems.append(str(e)))
    view.on("request", lambda r: fetched.append(r.url))
    view.goto(page_path.as_uri())
    assert problems == []
    assert fetched == [page_path.as_uri()]
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    assert view.locator("svg.chart").count() > 25
    view.close()


def test_colours_follow_the_scheme(browser, page_path: Path) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        view = browser.new_page(color_scheme=scheme)
        view.goto(page_path.as_uri())
        grounds[scheme] = view.evaluate("getComputedStyle(document.body).backgroundColor")
        lines = view.evaluate(
            "[...document.querySelectorAll('path.line')].map(e => getComputedStyle(e).stroke)"
        )
        assert len(set(lines)) == 2, "ctr and cvr have one colour each, in every chart"
        view.close()
    assert grounds["light"] != grounds["dark"]


def test_the_reader_sees_how_old_the_release_is(browser, page_path: Path) -> None:
    view = browser.new_page()
    view.goto(page_path.as_uri())
    assert "h ago" in view.locator("time").inner_text()
    view.close()


def test_last_values_stay_inside_the_card(browser, page_path: Path) -> None:
    view = browser.new_page(viewport={"width": 1360, "height": 900})
    view.goto(page_path.as_uri())
    outside = view.evaluate(
        """[...document.querySelectorAll('figure')].flatMap(card => {
            const edge = card.getBoundingClientRect().right;
            return [...card.querySelectorAll('text')]
                .filter(t => t.getBoundingClientRect().right > edge)
                .map(t => card.querySelector('h3').textContent + ': ' + t.textContent);
        })"""
    )
    assert outside == []
    view.close()
