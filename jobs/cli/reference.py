"""`derm docs`: the reference pages, generated from the declarations they describe.

A page that is generated cannot drift: a test compares the committed pages with these functions.
"""

import argparse
import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from feature_store.contracts import tables
from feature_store.contracts.atomic import write_atomic
from feature_store.contracts.edges import graph_table, nodes_table
from feature_store.contracts.errors import InputError
from feature_store.contracts.tables import Column, Table
from jobs.cli import COMMANDS, build_parser
from jobs.console import out
from jobs.datasets.registry import dataset_spec
from jobs.pipelines import catalog
from jobs.pipelines.declarations import Step
from jobs.recipes import RECIPES
from jobs.settings import Settings

_PAGES_FOLDER = Path("docs/reference")
_NOTICE = "<!-- Written by `derm docs`; edit the declarations instead. -->\n"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm docs`."""
    parser.add_argument("--out", type=Path, default=_PAGES_FOLDER, help="folder of the pages")
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")


def main(args: argparse.Namespace, settings: Settings) -> int:  # noqa: ARG001 - one form for all
    """Write the pages, or compare them.

    Raises:
        InputError: with --check, a page is missing or differs.
    """
    rendered = pages()
    if args.check:
        _check(args.out, rendered)
        return 0
    for name, text in rendered.items():
        write_atomic(args.out / name, text)
        out(str(args.out / name))
    return 0


def pages() -> dict[str, str]:
    """Every reference page by file name."""
    makers: dict[str, Callable[[], str]] = {
        "cli.md": cli_page,
        "recipes.md": recipes_page,
        "steps.md": steps_page,
        "tables.md": tables_page,
    }
    return {name: _NOTICE + "\n" + make().rstrip() + "\n" for name, make in makers.items()}


def steps_page() -> str:
    """The catalog: what each step reads, writes, and what its failure means."""
    head = (
        "# Steps\n\nThe daily pipeline in order. `{u}` is an upstream (ctr, cvr), `{e}` an entity "
        "(user, pin); *yesterday* marks what is read of the day before.\n"
    )
    parts = [
        head,
        _markdown_table(
            ("step", "does", "per upstream", "resource", "retries", "timeout"),
            [
                (
                    f"[`{s.name}`](#{s.name})",
                    s.summary,
                    "yes" if s.per_upstream else "",
                    s.resource,
                    str(s.retries),
                    f"{s.timeout_minutes} min",
                )
                for s in catalog.every_step()
            ],
        ),
    ]
    return "\n".join([*parts, *(_step_section(s) for s in catalog.every_step())])


def _step_section(step: Step) -> str:
    reads = [
        f"`{r.what}`{' (yesterday)' if r.offset else ''}{' (optional)' if r.optional else ''}"
        for r in step.inputs
    ]
    writes = [f"`{name}`" for name in step.outputs]
    parts = [f"`{part}`" for part in step.recipe_parts]
    return (
        f"## {step.name}\n\n{step.summary[0].upper()}{step.summary[1:]}.\n\n"
        f"- Reads: {', '.join(reads) or 'nothing'}\n"
        f"- Writes: {', '.join(writes) or 'nothing'}\n"
        f"- Depends on these parts of the recipe: {', '.join(parts) or 'none'}\n"
        f"- Runs in task `{step.task}`\n"
        f"- When it fails: {step.failure}\n"
        f"- What to do: {step.remedy}\n"
    )


def tables_page() -> str:
    """Every table of the lake and its columns."""
    spec = dataset_spec("simulated", "")
    declared = [spec.events_table(), spec.users_table(), spec.pins_table(), *_lake_tables()]
    head = (
        "# Tables\n\nEvery table is a Delta table below `DERM_HOME/lake`, partitioned by `ds` (and "
        "by `bucket`, where it says so). Source tables are those of the simulated world; "
        "another data set has its own features and labels. Embedding tables exist for each "
        "upstream and entity; those of ctr users are shown.\n"
    )
    return "\n".join([head, *(_table_section(t) for t in declared)])


def _lake_tables() -> Iterator[Table]:
    """What the functions named `*_table` of the contracts declare, for ctr and users."""
    example = {"upstream": "ctr", "entity": "user"}
    for name, declare in vars(tables).items():
        if name.endswith("_table") and inspect.isfunction(declare):
            yield declare(*(example[p] for p in inspect.signature(declare).parameters))
    yield graph_table()
    yield nodes_table("graph")


def _table_section(table: Table) -> str:
    rows = [
        (f"`{c.name}`", c.dtype, "yes" if c.nullable else "", _allowed(c), c.meaning)
        for c in table.columns
    ]
    return (
        f"## {table.name}\n\nGrain: {table.grain}.\n\n"
        f"Key within a day: {', '.join(f'`{k}`' for k in table.key)}. "
        f"Partitioned by {', '.join(f'`{p}`' for p in table.partition_by)}.\n\n"
        + _markdown_table(("column", "type", "nullable", "allowed", "meaning"), rows)
    )


def _allowed(column: Column) -> str:
    if column.values is not None:
        return ", ".join(column.values)
    low, high = column.minimum, column.maximum
    if low is None and high is None:
        return ""
    return " .. ".join("" if bound is None else f"{bound:g}" for bound in (low, high)).strip()


def recipes_page() -> str:
    """Every field of every recipe, side by side."""
    values = {name: dict(_fields(make())) for name, make in RECIPES.items()}
    meanings = dict(_meanings(next(iter(RECIPES.values()))()))
    names = list(dict.fromkeys(field for fields in values.values() for field in fields))
    rows = [
        (f"`{n}`", *(f"{fields.get(n, '')}" for fields in values.values()), meanings.get(n, ""))
        for n in names
    ]
    return (
        "# Recipes\n\nA recipe is a function in `jobs/recipes.py` that returns a whole "
        "configuration. `derm init --recipe NAME` chooses one.\n\n"
        + _markdown_table(("field", *values, "meaning"), rows)
    )


def _fields(config: Any, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Dotted names and values of the leaves of nested dataclasses."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _fields(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value


def _meanings(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and what the class docstrings say about them."""
    said = attributes_of(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _meanings(value, f"{prefix}{field.name}.")
        elif field.name in said:
            yield f"{prefix}{field.name}", said[field.name]


def attributes_of(owner: type) -> dict[str, str]:
    """The `Attributes:` section of a class docstring, by attribute."""
    _, _, section = (inspect.getdoc(owner) or "").partition("Attributes:\n")
    section = section.partition("\n\n")[0]
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?= {4}\S)", "\n" + section):
        names, colon, text = entry.strip().partition(": ")
        if colon:
            found |= {n.strip(): " ".join(text.split()) for n in names.split(",")}
    return found


def cli_page() -> str:
    """Every command and its arguments."""
    rows = [
        (f"[`derm {name}`](#derm-{name})", entry["summary"])
        for name, entry in cli_surface().items()
    ]
    sections = [_command_section(name, entry) for name, entry in cli_surface().items()]
    head = (
        "# Command line\n\n`derm COMMAND`. Every command has `--help` and `--json`. Exit codes: 0 "
        "done, 2 wrong input or request and nothing changed, 3 a guard refused a result, 1 "
        "anything else, 130 interrupted (Ctrl-C), 141 the reader of its output left (`| head`). "
        "Each but the last says on standard error what happened; `DERM_DEBUG=1` adds where it "
        "came from.\n"
    )
    return "\n".join([head, _markdown_table(("command", "does"), rows), *sections])


def _command_section(name: str, entry: dict[str, Any]) -> str:
    rows = [
        (
            f"`{argument['name']}`",
            "yes" if argument["required"] else "",
            argument["choices"] or argument["default"],
            argument["help"],
        )
        for argument in entry["arguments"]
    ]
    table = _markdown_table(("argument", "required", "choices or default", "meaning"), rows)
    summary = f"{entry['summary'][0].upper()}{entry['summary'][1:]}"
    return f"## derm {name}\n\n{summary}.\n\n{table}\n```bash\n{entry['example']}\n```\n"


def cli_surface() -> dict[str, dict[str, Any]]:
    """Every command: summary, example and arguments, as plain values."""
    names = [*(s.name for s in catalog.every_step()), *(c.name for c in COMMANDS)]
    return {name: _surface(command_parser(name)) for name in names}


def command_parser(name: str) -> argparse.ArgumentParser:
    """The parser of one command, with all its arguments."""
    for action in build_parser(name)._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices[name]  # type: ignore[no-any-return]
    raise KeyError(name)


def _surface(parser: argparse.ArgumentParser) -> dict[str, Any]:
    actions = [a for a in parser._actions if a.dest != "help"]
    return {
        "summary": parser.description or "",
        "example": (parser.epilog or "").removeprefix("example: "),
        "arguments": [_argument(a) for a in sorted(actions, key=lambda a: list(a.option_strings))],
    }


def _argument(action: argparse.Action) -> dict[str, Any]:
    default = action.default
    shown = "" if default in (None, False, argparse.SUPPRESS) else str(default)
    return {
        "name": ", ".join(action.option_strings) or action.dest.upper(),
        "required": action.required,
        "choices": ", ".join(map(str, action.choices or ())),
        "default": shown,
        "help": (action.help or "").replace("%%", "%"),
    }


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )


def _check(folder: Path, rendered: dict[str, str]) -> None:
    stale = [
        name
        for name, text in rendered.items()
        if not (folder / name).exists() or (folder / name).read_text() != text
    ]
    if stale:
        raise InputError(
            "reference pages are not current",
            where=str(folder),
            found=" ".join(stale),
            hint="derm docs",
        )
