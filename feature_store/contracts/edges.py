"""The graph of a day as a table, and the rules by which a data set becomes one.

A node is its type and its id: the same id in two types is two nodes.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from feature_store.contracts.base import Upstream
from feature_store.contracts.datasets import DatasetSpec
from feature_store.contracts.errors import InputError
from feature_store.contracts.tables import Column, Table

GRAPH = "graph"
NODE_TYPES = ("user", "pin", "advertiser", "item")
OFFSITE = ("user_id", "item_id", "advertiser_id", "kind")
CAMPAIGNS = ("pin_id", "item_id", "advertiser_id")
EDGE = ("head_type", "head_id", "relation", "tail_type", "tail_id")


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphRules:
    """What becomes an edge, and for how long it is remembered.

    Attributes:
        actions: of impressions, from user to Pin; none: all but the first that is declared, which
            is the weakest, and those that are called like a label.
        labels: that are 1, from user to Pin, on the day they arrive on; none: all.
        half_life_days: after which a count weighs half.
        least: a decayed count below it is forgotten.
    """

    actions: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    half_life_days: float = 90.0
    least: float = 0.05

    def __post_init__(self) -> None:
        for name in ("half_life_days", "least"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: expected > 0, found {getattr(self, name)}")

    def of(self, spec: DatasetSpec) -> "GraphRules":
        """The rules with the actions and labels of a data set, where they name none.

        Raises:
            InputError: they name an action or a label that the data set does not have.
        """
        there = tuple(dict.fromkeys(x.name for x in spec.labels))
        for what, asked, known in (
            ("actions", self.actions, spec.actions),
            ("labels", self.labels, there),
        ):
            if unknown := sorted(set(asked) - set(known)):
                raise InputError(
                    f"a graph is made of {what} that the data set does not have",
                    where=f"{spec.name}: {what}",
                    expected=" | ".join(known),
                    found=" ".join(unknown),
                )
        return dataclasses.replace(
            self,
            actions=self.actions or tuple(x for x in spec.actions[1:] if x not in there),
            labels=self.labels or there,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class EdgeInputs:
    """What a family reads of the graph of a day.

    Attributes:
        kinds: (head type, relation, tail type) that it knows; edges of others are left out.
        least_degree: a node that fewer edges touch is left out, and its edges with it.
        chunk_rows: edges of one kind that are drawn together.
        power: a kind is drawn in proportion to its edges to this power; 1 takes every edge once.
        passes, first_passes: over the graph, of a day that continues, and of one that begins.
    """

    kinds: tuple[tuple[str, str, str], ...]
    least_degree: int
    chunk_rows: int
    power: float
    passes: int
    first_passes: int


def edge_kinds(spec: DatasetSpec) -> tuple[tuple[str, str, str], ...]:
    """Every (head type, relation, tail type) that a data set can have, in order.

    Whatever the rules: a relation that has no edges is none to learn. Kinds of `offsite` are those
    that its column declares.
    """
    names = (*spec.actions, *(x.name for x in spec.labels))
    found = [("user", name, "pin") for name in names]
    if offsite := offsite_table(spec):
        done = offsite.column("kind").values or ()
        found += [("user", kind, to) for kind in done for to in ("item", "advertiser")]
    if campaigns_table(spec):
        found += [("pin", "promotes", "item"), ("advertiser", "owns", "pin")]
    return tuple(sorted(set(found)))


def nodes_table(upstream: Upstream) -> Table:
    """Vectors of nodes that are no entities, which nobody publishes."""
    return Table(
        name=f"nodes/{upstream}",
        grain=f"one node of the {upstream} graph of the day that is neither a user nor a Pin",
        key=("node_type", "node_id"),
        partition_by=("ds", "bucket"),
        columns=(
            Column(name="node_type", dtype="string", meaning="what kind of node it is"),
            Column(name="node_id", dtype="string", meaning="its id", is_id=True),
            Column(
                name="embedding",
                dtype="binary",
                meaning="packed little-endian vector; table properties derm.dtype and derm.dim",
            ),
            Column(name="snapshot_id", dtype="string", meaning="model snapshot that made it"),
            Column(name="space_id", dtype="string", meaning="embedding space the vector lives in"),
        ),
    )


def offsite_table(spec: DatasetSpec) -> Table | None:
    """What users did on pages of advertisers: a table of that name with the columns it takes."""
    return _further(spec, "offsite", OFFSITE)


def campaigns_table(spec: DatasetSpec) -> Table | None:
    """Whose Pins promote what: a table of that name with the columns it takes."""
    return _further(spec, "campaigns", CAMPAIGNS)


def _further(spec: DatasetSpec, name: str, columns: Sequence[str]) -> Table | None:
    found = (t for t in spec.tables if t.name == name)
    return next((t for t in found if {c.name for c in t.columns} >= set(columns)), None)


def graph_table() -> Table:
    """The graph as of the end of a day."""
    named = {
        "head_type": "what kind of node acts",
        "head_id": "its id",
        "relation": "what it does",
        "tail_type": "what kind of node it acts on",
        "tail_id": "its id",
    }
    return Table(
        name=GRAPH,
        grain="one edge that is remembered as of the end of the day",
        key=EDGE,
        partition_by=("ds", "bucket"),
        columns=(
            *(
                Column(name=n, dtype="string", meaning=m, is_id=n.endswith("_id"))
                for n, m in named.items()
            ),
            Column(
                name="count",
                dtype="float64",
                minimum=0.0,
                meaning="how often, halved for every half-life that has passed since",
            ),
            Column(name="last_day", dtype="string", meaning="the day it happened last"),
        ),
    )
