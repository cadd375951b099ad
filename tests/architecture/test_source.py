"""Habits that a linter does not know: sizes, names, sources, and what never appears in the code."""

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.architecture.sources import (
    PACKAGES,
    base_names,
    classes,
    python_files,
    relative,
    text_files,
    tree,
)

_MAX_LINES = 350
_MAX_ARGUMENTS = 5
# Assembled, so that this file does not hold what it forbids.
_MARKERS = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX")) + r")\b")
_MACHINE = re.compile(r"(?<![\w.~-])/(" + "|".join(("wo" + "rk", "ro" + "ot", "ho" + "me")) + ")/")

_CITED = re.compile(r"\b" + "SP" + r"EC\b")
_UNSAFE = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
_DEFINITIONS = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_CODE = python_files(*PACKAGES, "dags", "infra")


def _held(rule: Callable[[Path], Iterator[str]], paths: Iterable[Path]) -> None:
    """Every file keeps a rule that yields what breaks it; all of it is named at once."""
    broken = [f"{relative(path)}{what}" for path in paths for what in rule(path)]
    assert not broken, "\n".join(broken)


def test_files_are_short() -> None:
    def rule(path: Path) -> Iterator[str]:
        lines = len(path.read_text().splitlines())
        if lines > _MAX_LINES:
            yield f" has {lines} lines: split it by idea"

    _held(rule, [*_CODE, *python_files("tests", "benchmarks")])


def test_modules_say_what_they_are() -> None:
    def rule(path: Path) -> Iterator[str]:
        if tree(path).body and not ast.get_docstring(tree(path)):
            yield " has no docstring"

    _held(rule, _CODE)


def test_no_print_and_no_pickle() -> None:
    def rule(path: Path) -> Iterator[str]:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
                yield f":{node.lineno} prints"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {a.name for a in node.names} | {getattr(node, "module", "") or ""}
                if unsafe := names & _UNSAFE:
                    yield f":{node.lineno} imports {unsafe}"

    _held(rule, _CODE)


def test_no_reminder_and_no_path_of_one_machine() -> None:
    def rule(path: Path) -> Iterator[str]:
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
            if _MARKERS.search(line):
                yield f":{number}: finish it or open an issue: {line.strip()}"
            # An image's own folders, given as variables, are no machine's.
            if "$" not in line and _MACHINE.search(line):
                yield f":{number}: a path of one machine: {line.strip()}"

    _held(rule, text_files())


def test_no_page_is_cited_that_is_not_here() -> None:
    """Sources are published papers, and pages of docs/."""

    def rule(path: Path) -> Iterator[str]:
        said = path.read_text()
        if _CITED.search(said) and _CITED.search(_prose(path, said)):
            yield ": cite the paper, or docs/"

    _held(rule, [p for p in text_files() if p.suffix in (".py", ".md")])


def _prose(path: Path, said: str) -> str:
    """What a file says to its reader: of a module, docstrings and comments."""
    if path.suffix != ".py":
        return said
    nodes = (n for n in ast.walk(tree(path)) if isinstance(n, ast.Module | _DEFINITIONS))
    comments = re.findall(r"(?:^|\s)#.*", said)
    return "\n".join([*(ast.get_docstring(n) or "" for n in nodes), *comments])


@pytest.mark.parametrize(
    "packages", [("jobs", "feature_store"), ("models",), ("simulator",), ("experiments",)]
)
def test_no_two_things_of_one_name(packages: tuple[str, ...]) -> None:
    """Classes, and functions of more than one word; others are read with their module.

    Families of models answer to the same questions by the same names, adapters by `open_folder`,
    experiments by `Options`.
    """
    found: dict[str, list[str]] = {}
    for path in python_files(*packages):
        if path.parent.parent.name == "models" and path.parent.name not in ("nn", "training"):
            continue
        for node in tree(path).body:
            doors = {"open_folder", "Options"}
            named = isinstance(node, ast.ClassDef) or (
                isinstance(node, ast.FunctionDef) and "_" in node.name.removeprefix("of_")
            )
            if named and node.name not in doors and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(relative(path))
    doubled = {name: paths for name, paths in found.items() if len(paths) > 1}
    assert not doubled, "one thing, one name; two things, two names"


_OF_A_HOME = re.compile(
    r"""(?:home|(?<!self\.)root)(?:\.absolute\(\))? / f?"|"""
    r"""(?:home|root)\.glob\("(?:index|services|releases|snapshots)"""
)


def test_nobody_joins_paths_below_a_home() -> None:
    def rule(path: Path) -> Iterator[str]:
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if _OF_A_HOME.search(line):
                yield f":{number}: ask jobs.paths"

    files = python_files("jobs", "dags", "experiments")
    _held(rule, [p for p in files if relative(p) != "jobs/paths.py"])


def test_test_files_have_unique_names() -> None:
    counts = Counter(p.name for p in python_files("tests") if p.name.startswith("test_"))
    doubled = [name for name, count in counts.items() if count > 1]
    assert not doubled, f"give each test file a name of its own: {doubled}"


def _networks() -> list[tuple[Path, ast.ClassDef]]:
    """Classes of `models` that are an nn.Module, directly or through another of them."""
    every = list(classes("models"))
    known = {"Module"}
    while True:
        found = {node.name for _, node in every if base_names(node) & known} | {"Module"}
        if found == known:
            return [(path, node) for path, node in every if base_names(node) & known]
        known = found


def _network_id(item: object) -> str:
    return item.name if isinstance(item, ast.ClassDef) else ""


@pytest.mark.parametrize(("path", "network"), _networks(), ids=_network_id)
def test_network_takes_few_arguments(path: Path, network: ast.ClassDef) -> None:
    for node in network.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            count = len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]) - 1
            assert count <= _MAX_ARGUMENTS, (
                f"{relative(path)}: {network.name} takes {count} arguments: give it a config"
            )


@pytest.mark.parametrize(("path", "network"), _networks(), ids=_network_id)
def test_network_names_its_source(path: Path, network: ast.ClassDef) -> None:
    if network.name.startswith("_"):
        pytest.skip("private")
    said = f"{ast.get_docstring(network) or ''}\n{ast.get_docstring(tree(path)) or ''}"
    assert "Source:" in said, f"{relative(path)}: {network.name}: which paper, which equation?"
