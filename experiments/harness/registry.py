"""Experiments by name; a module is imported when its experiment is asked for.

A new experiment is a module and a line here, or a file of one's own that is named instead.
"""

import dataclasses
import importlib
import importlib.util
import sys
import typing
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from experiments.harness.design import Design
from feature_store.contracts.errors import InputError

# Name -> module, and what is compared.
EXPERIMENTS: dict[str, tuple[str, str]] = {
    "aggregation": (
        "experiments.ranking.aggregation",
        "averages of past vectors, by what they foretell",
    ),
    "arrivals": ("experiments.arrivals", "worlds of different ages, by the conversions they hide"),
    "graph": ("experiments.graph.links", "graph models on public graphs, by the rank of links"),
    "downstream": ("experiments.ranking.downstream", "sets of embeddings, by what a ranker gains"),
    "ab": ("experiments.ab", "rankers played against the policy that made the log"),
    "graph_world": ("experiments.graph.worlds", "graph models on markets: links, raw vectors"),
    "instrument": (
        "experiments.instrument",
        "false positives, power and coverage of the simulated A/B test",
    ),
    "next_item": ("experiments.next_item.losses", "losses of a next-item model on public data"),
    "projection": ("experiments.ranking.projection", "widths of a ranker's embedding block"),
    "tables": (
        "experiments.id_tables.grids",
        "pretrained tables of ids in a click ranker: facets, fine-tuning, staleness, bits",
    ),
    "upstream": ("experiments.upstream", "ways to build or train the upstream model"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """An experiment and its options, as they were typed; processes are told no more.

    Attributes:
        name: of the registry, or a Python file.
        options: values by field of the module's `Options`.
    """

    name: str
    options: tuple[tuple[str, str], ...] = ()


def load(chosen: Chosen) -> Design:
    """The design of an experiment with some of its options set.

    Raises:
        InputError: there is no such experiment or option, or a value that it cannot have.
    """
    module = _module(chosen.name)
    values = {
        name: _value(module.Options, name, text, where=chosen.name) for name, text in chosen.options
    }
    try:
        design: Design = module.design(module.Options(**values))
    except ValueError as error:
        raise InputError(
            "the experiment cannot be made of these options", where=chosen.name, found=str(error)
        ) from error
    return design


def _module(name: str) -> ModuleType:
    if name in EXPERIMENTS:
        return importlib.import_module(EXPERIMENTS[name][0])
    path = Path(name)
    if path.suffix != ".py" or not path.is_file():
        expected = " | ".join((*EXPERIMENTS, "FILE.py"))
        raise InputError("there is no such experiment", expected=expected, found=name)
    spec = importlib.util.spec_from_file_location(f"derm_experiment_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError("an experiment is a Python file", expected="*.py", found=name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the file of somebody raises
        raise InputError(
            "the file of the experiment cannot be imported",
            where=name,
            found=f"{type(error).__name__}: {error}",
        ) from error
    if lacking := {"Options", "design"} - vars(module).keys():
        raise InputError(
            "the file is no experiment",
            where=name,
            expected="a dataclass Options, and design(options)",
            found=f"no {' and no '.join(sorted(lacking))}",
        )
    return module


def _value(options: Any, name: str, text: str, *, where: str) -> object:
    """What was typed, as the type of the option's default."""
    fields = {f.name: f for f in dataclasses.fields(options)}
    if name not in fields:
        raise InputError(
            "the experiment has no such option",
            where=where,
            expected=" | ".join(sorted(fields)) or "none",
            found=name,
        )
    kind = typing.get_type_hints(options)[name]
    allowed: tuple[object, ...] = typing.get_args(kind)
    if kind is bool:
        allowed = (True, False)
    try:
        if allowed:
            return next(a for a in allowed if str(a).lower() == text.lower())
        return cast("object", kind(text))
    except (StopIteration, ValueError) as error:
        raise InputError(
            "an option has a value that it cannot have",
            where=f"{where}: {name}",
            expected=" | ".join(map(str, allowed)) or kind.__name__,
            found=text,
        ) from error
