"""A public graph: three files of triples by name, as a graph and what is asked of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.contracts.errors import ContractViolation, MissingInput
from models.transra.graph import Graph, Relation, Triples, make_graph

PARTS = ("train", "valid", "test")
_COLUMNS = ("head", "relation", "tail")
_TYPE = "entity"

Names = npt.NDArray[np.str_]


@dataclass(frozen=True, kw_only=True, slots=True)
class PublicGraph:
    """A graph to learn from, and triples that it does not hold.

    Attributes:
        graph: of the training triples; its nodes are those of all three parts, so that a node that
            training never sees is a candidate and is asked for like any other.
        unseen: nodes that are in no training triple.
    """

    graph: Graph
    valid: Triples
    test: Triples
    unseen: int


def read_public(folder: Path) -> PublicGraph:
    """Read `train.parquet`, `valid.parquet` and `test.parquet`: head, relation, tail, by name.

    Raises:
        MissingInput: a file is not there.
        ContractViolation: a column is missing, or a triple is in two parts.
    """
    tables = {part: _read(folder / f"{part}.parquet") for part in PARTS}
    nodes = np.unique(np.concatenate([t[c] for t in tables.values() for c in ("head", "tail")]))
    relations = np.unique(np.concatenate([t["relation"] for t in tables.values()]))
    coded = {part: _coded(table, nodes, relations) for part, table in tables.items()}
    _check_apart(coded, len(nodes), len(relations), folder)
    graph = make_graph(
        (_TYPE,),
        np.zeros(len(nodes)),
        [Relation(name=str(name), head=_TYPE, tail=_TYPE) for name in relations],
        coded["train"],
    )
    seen = np.union1d(coded["train"].head_K, coded["train"].tail_K)
    unseen = len(nodes) - len(seen)
    return PublicGraph(graph=graph, valid=coded["valid"], test=coded["test"], unseen=unseen)


def _read(path: Path) -> dict[str, Names]:
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise MissingInput(
            "a part of a public graph is not there",
            where=str(path),
            expected=" ".join(f"{part}.parquet" for part in PARTS),
            found="no such file",
            hint="derm experiment graph --set folder=FOLDER, with a folder per graph in it",
        ) from error
    if lacking := [c for c in _COLUMNS if c not in table.column_names]:
        raise ContractViolation(
            "a part of a public graph lacks a column",
            where=str(path),
            expected=" ".join(_COLUMNS),
            found=f"no {' and no '.join(lacking)}",
        )
    return {c: table[c].cast(pa.string()).to_numpy().astype(str) for c in _COLUMNS}


def _coded(table: dict[str, Names], nodes: Names, relations: Names) -> Triples:
    return Triples.of(
        np.searchsorted(nodes, table["head"]),
        np.searchsorted(relations, table["relation"]),
        np.searchsorted(nodes, table["tail"]),
    )


def _check_apart(
    parts: dict[str, Triples], num_nodes: int, num_relations: int, folder: Path
) -> None:
    """Refuse triples that are learned from and asked for."""
    keys = {part: _keys(triples, num_nodes, num_relations) for part, triples in parts.items()}
    for first, second in _pairs():
        if both := len(np.intersect1d(keys[first], keys[second])):
            raise ContractViolation(
                "triples are in two parts of a public graph",
                where=str(folder),
                expected=f"none of {first} in {second}",
                found=f"{both} of {len(keys[second])}",
            )


def _keys(triples: Triples, num_nodes: int, num_relations: int) -> npt.NDArray[np.int64]:
    return (triples.head_K * num_relations + triples.relation_K) * num_nodes + triples.tail_K


def _pairs() -> Iterator[tuple[str, str]]:
    for position, first in enumerate(PARTS):
        for second in PARTS[position + 1 :]:
            yield first, second
