"""Documents that hold: links resolve, commands parse, generated pages are current."""

import re
import shlex
from pathlib import Path

import pytest

from jobs.cli.reference import command_parser, pages
from tests.architecture.sources import ROOT, relative

_PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)[^)]*\)|<(?:img|source)[^>]*?src(?:set)?=\"([^\"]+)\"")
_BLOCK = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)


def _links(text: str) -> list[str]:
    return [a or b for a, b in _LINK.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL))]


def _anchors(path: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", _PAGES, ids=relative)
def test_links_resolve(page: Path) -> None:
    for link in _links(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{relative(page)} links to {link}, which is not there"
        if anchor:
            assert anchor in _anchors(path), f"{relative(page)}: no heading for {link}"


def _commands(page: Path) -> list[str]:
    blocks = "\n".join(_BLOCK.findall(page.read_text())).replace("\\\n", " ")
    return [line.strip() for line in blocks.splitlines() if line.strip().startswith("derm ")]


@pytest.mark.parametrize("page", _PAGES, ids=relative)
def test_commands_parse(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in _commands(page):
        words = shlex.split(re.split(r"\s[|>&]", line)[0], comments=True)
        if "--help" in words:
            continue
        # Placeholders in capitals stand for days, users and folders.
        words = ["2025-03-01" if w in ("D", "DAY", "DS") else w for w in words]
        try:
            command_parser(words[1]).parse_args(words[2:])
        except (SystemExit, KeyError):
            pytest.fail(f"{relative(page)}: {line}\n{capsys.readouterr().err}")


def test_reference_is_current() -> None:
    for name, text in pages().items():
        path = ROOT / "docs" / "reference" / name
        assert path.exists(), "run: derm docs"
        assert path.read_text() == text, f"{name}: run: derm docs"


def test_every_page_is_in_the_index() -> None:
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in (ROOT / "docs" / "index.md", ROOT / "docs" / "adr" / "index.md")
        for link in _links(page.read_text())
    }
    lost = [
        relative(p)
        for p in _PAGES
        if "docs" in p.relative_to(ROOT).parts and p not in linked and p.name != "index.md"
    ]
    assert not lost, f"no index links to {lost}"
