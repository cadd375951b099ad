"""A page of docs/ as HTML: what somebody who is woken reads inside Airflow's UI."""

import html
import itertools
import re
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from feature_store.contracts.errors import MissingInput

_STYLE = """
:root { color-scheme: light dark; }
body { max-width: 860px; margin: 0 auto; padding: 24px 20px 80px;
  font: 15px/1.55 system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
pre, code { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; }
pre { padding: 10px 14px; overflow: auto; border: 1px solid #8886; border-radius: 8px; }
table { border-collapse: collapse; } th, td { border-bottom: 1px solid #8884; padding: 5px 10px;
  text-align: left; vertical-align: top; }
h2, h3 { margin-top: 1.8em; } h3:target, h2:target { background: #f6c34355; }
img { max-width: 100%; }
"""


def docs_page(folder: Path, name: str) -> str:
    """A Markdown file below `folder` as a whole page; headings have the ids that links use.

    Raises:
        MissingInput: there is no such page.
    """
    path = (folder / name).resolve()
    if path.suffix != ".md" or folder.resolve() not in path.parents or not path.is_file():
        raise MissingInput("there is no such page", where=name, hint="docs/index.md lists them")
    parser = MarkdownIt("commonmark").enable("table")
    tokens = parser.parse(path.read_text())
    for heading, inline in itertools.pairwise(tokens):
        if heading.type == "heading_open":
            heading.attrSet("id", anchor(inline))
    body = parser.renderer.render(tokens, parser.options, {})
    title = html.escape(name)
    return f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>{body}"


def anchor(heading: Token) -> str:
    """The id of a heading, as the links of the docs spell it: `Going back` is `going-back`."""
    kept = re.sub(r"[^\w\- ]", "", heading.content.lower())
    return kept.strip().replace(" ", "-")
