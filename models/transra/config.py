"""What the graph model is made of. Imports no torch: recipes are read without it."""

from dataclasses import dataclass, field
from typing import Literal

# Changes with the architecture: weights of another one cannot be continued.
ARCHITECTURE = 1

ScoreName = Literal["transe", "transr", "twhin", "rotate", "complex"]
Anchor = Literal["none", "identity", "prototype", "snapshot"]
Distance = Literal["squared", "euclidean", "manhattan"]
GraphLossName = Literal["softmax", "margin", "self_adversarial"]

_PROJECTS: tuple[ScoreName, ...] = ("transr",)
_TRANSLATES: tuple[ScoreName, ...] = ("transe", "transr", "rotate")
_COMPLEX: tuple[ScoreName, ...] = ("rotate", "complex")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreConfig:
    """How well a triple (head, relation, tail) fits. TransRA is `transr` with an anchor.

    What the publication of TransRA calls an anchor is not public. The three readings here are this
    project's own; `docs/graph.md` says what speaks for each.

    Attributes:
        anchor: `identity` leaves the space of one relation the space of the nodes, and draws those
            of the others towards it; `prototype` adds to a node what learned prototypes of its type
            say about it; `snapshot` draws a node to where it was the day before.
        anchor_relation: of `identity`, the relation whose matrix stays the identity.
        anchor_weight: what the anchor adds to the loss: of `identity` the squared norm of what the
            matrices differ from the identity, of `snapshot` the squared distance to yesterday.
        prototypes: per node type, of `prototype`.
        distance: of the scores that translate; the others are inner products.
        relation_dim: of `transr`, width of the space of a relation; 0: that of the nodes.
        clamp_projections: of `transr`, projected nodes of a norm above 1 are put on the unit ball.
    """

    name: ScoreName = "transr"
    anchor: Anchor = "identity"
    anchor_relation: str = "click"
    anchor_weight: float = 1e-3
    prototypes: int = 64
    distance: Distance = "squared"
    relation_dim: int = 0
    clamp_projections: bool = False

    def __post_init__(self) -> None:
        if self.anchor != "none" and self.name not in _PROJECTS:
            raise ValueError(f"anchor: expected none, since the score is {self.name}")
        if self.relation_dim and (self.name not in _PROJECTS or self.anchor == "identity"):
            raise ValueError(
                f"relation_dim: expected 0 for {self.name} with anchor {self.anchor}, "
                f"found {self.relation_dim}"
            )
        if self.name == "rotate" and self.distance == "manhattan":
            raise ValueError("distance: expected squared or euclidean, which turning leaves alone")
        if self.prototypes < 1:
            raise ValueError(f"prototypes: expected >= 1, found {self.prototypes}")

    @property
    def projects(self) -> bool:
        """Whether a candidate's vector depends on the relation."""
        return self.name in _PROJECTS

    @property
    def translates(self) -> bool:
        """Whether it is a distance."""
        return self.name in _TRANSLATES


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphLossConfig:
    """What makes a triple fit better than one with another head or tail.

    Attributes:
        margin: of `margin`, between a triple and its negatives; of `self_adversarial`, what is
            added to every score.
        scale: scores are multiplied by it before a softmax.
        trains_scale: whether it is learned from there; vectors without a bound learn it themselves.
        adversarial: of `self_adversarial`, the temperature by which hard negatives weigh more.
        n3: weight of the mean cubed modulus of heads, relations and tails (complex scores only).
    """

    name: GraphLossName = "softmax"
    margin: float = 1.0
    scale: float = 1.0
    trains_scale: bool = True
    adversarial: float = 1.0
    n3: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawConfig:
    """How triples and their negatives are drawn.

    Attributes:
        chunk_rows: triples of one relation that are projected together.
        chunks: of a batch.
        negatives: nodes of each type that a batch draws, shared by all of its triples; 0: all.
        in_batch: heads and tails of the same chunk are negatives too.
        relation_power: a relation is drawn in proportion to its triples to this power; 1 takes
            every triple once a pass.
    """

    chunk_rows: int = 128
    chunks: int = 64
    negatives: int = 512
    in_batch: bool = True
    relation_power: float = 0.75

    def __post_init__(self) -> None:
        for name, least in (("chunk_rows", 1), ("chunks", 1), ("negatives", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected >= {least}, found {getattr(self, name)}")
        if not 0 <= self.relation_power <= 1:
            raise ValueError(f"relation_power: expected 0 .. 1, found {self.relation_power}")


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphConfig:
    """The graph model.

    Attributes:
        embedding_dim: width of a node's vector; complex scores take it as half as many numbers.
        max_norm: of a node's vector, held after every step; 0 sets no bound.
        table_learning_rate: of the nodes (Adagrad, one accumulator per node).
        learning_rate: of everything else (Adam); as an upstream, the training's own.
        least_degree: as an upstream, a node that fewer edges touch is left out.
        passes, first_passes: as an upstream, over the graph of a day that continues, and of one
            that begins.
    """

    score: ScoreConfig = field(default_factory=ScoreConfig)
    loss: GraphLossConfig = field(default_factory=lambda: GraphLossConfig(scale=10.0))
    draw: DrawConfig = field(default_factory=DrawConfig)
    embedding_dim: int = 64
    max_norm: float = 1.0
    table_learning_rate: float = 0.1
    learning_rate: float = 1e-3
    least_degree: int = 3
    passes: int = 2
    first_passes: int = 20

    def __post_init__(self) -> None:
        for name in ("least_degree", "passes", "first_passes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected >= 1, found {getattr(self, name)}")
        if self.embedding_dim < 1 or (self.score.name in _COMPLEX and self.embedding_dim % 2):
            raise ValueError(
                f"embedding_dim: expected >= 1, and even for {' and '.join(_COMPLEX)}, "
                f"found {self.embedding_dim}"
            )
        if self.draw.in_batch and self.loss.name != "softmax":
            raise ValueError(f"draw.in_batch: expected false with loss {self.loss.name}")
        if self.draw.in_batch and self.score.translates and self.score.distance != "squared":
            raise ValueError(f"draw.in_batch: expected false with {self.score.distance} distances")
        if self.loss.n3 and self.score.name not in _COMPLEX:
            raise ValueError(f"loss.n3: expected 0, since {self.score.name} is not complex")


DEFAULT = GraphConfig()
READS = "edges"
