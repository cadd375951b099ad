"""What a data set is made of: labels, features, and the three source tables they declare."""

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import Field, model_validator

from feature_store.contracts.base import Contract, Entity, Upstream, shift_day
from feature_store.contracts.bounds import Bounds
from feature_store.contracts.surfaces import check_surface_features
from feature_store.contracts.tables import Column, Dtype, Table
from feature_store.contracts.upstreams import UpstreamDeclaration, check_together

# Lengths, in days, of what is counted per user and Pin; the first is the day alone.
WINDOWS = (1, 7, 28, 90)

# Of every home, or of those that have a graph.
_TABLES = {"events", "users", "pins", "graph", "runs"}

FeatureKind = Literal["categorical", "numeric", "list", "sequence", "embedding"]
FeatureScope = Literal["user", "pin", "context"]
# A day without events stops the pipeline, or everybody is carried over.
EmptyDays = Literal["refuse", "carry"]

_FEATURE_DTYPE: dict[FeatureKind, Dtype] = {
    "categorical": "string",
    "numeric": "float32",
    "list": "list<string>",
    "sequence": "list<string>",
    "embedding": "binary",
}


def counts_name(entity: Entity) -> str:
    """The table that holds the counts of an entity type."""
    return f"counts/{entity}"


class Feature(Contract):
    """One model input.

    `scope` decides which tower may see it: user and pin features live in the snapshot tables and
    reach their own entity tower; context features live in `events` and reach only the overall
    interaction tower (Source: DERM, section 3.1).

    Attributes:
        kind: categorical (string), numeric (float32), list (unordered strings), sequence (strings,
            oldest first), embedding (packed little-endian float32).
        cardinality: rows of the hashed embedding table (categorical, list, sequence).
        dim: width of an embedding feature.
        max_len: longest list or sequence kept (the newest elements of a sequence).
        ids_of: the entity type whose ids a list or sequence holds, so that `derm forget` finds
            them; None when they are no ids.
        group: numeric features of one group share a token of the model.
    """

    name: str
    scope: FeatureScope
    kind: FeatureKind
    meaning: str
    cardinality: int = Field(default=1024, ge=2)
    dim: int = Field(default=0, ge=0)
    max_len: int = Field(default=0, ge=0)
    ids_of: Entity | None = None
    group: str = ""

    @model_validator(mode="after")
    def _sizes_fit_kind(self) -> Self:
        if (self.kind == "embedding") != (self.dim > 0):
            raise ValueError(f"feature {self.name}: dim is for kind 'embedding', and needed there")
        if (self.kind in ("list", "sequence")) != (self.max_len > 0):
            raise ValueError(f"feature {self.name}: max_len is for lists and sequences only")
        if self.ids_of and not self.max_len:
            raise ValueError(f"feature {self.name}: ids_of is for lists and sequences only")
        if self.group and self.kind != "numeric":
            raise ValueError(f"feature {self.name}: group is for numeric features only")
        return self

    def column(self) -> Column:
        """The column that holds the feature."""
        nullable = self.kind in ("categorical", "numeric")
        return Column(
            name=self.name, dtype=_FEATURE_DTYPE[self.kind], meaning=self.meaning, nullable=nullable
        )


class Label(Contract):
    """One prediction target: an int8 column of `events`, 0 or 1, null where it does not apply.

    Two upstreams may learn the same column: it is then declared once for each, with one meaning.

    Attributes:
        upstream: the model that learns it.
        role: the `primary` label of an upstream gives its AUC; `task` labels are learned beside
            it; `auxiliary` ones only help it.
    """

    name: str
    upstream: Upstream
    role: Literal["primary", "task", "auxiliary"]
    meaning: str


class DatasetSpec(Contract):
    """A data set as `derm` sees it.

    Attributes:
        columns: further columns of `events`, which no model reads.
        tables: further tables of a day, which the lake keeps beside events, users and Pins; a
            column `ts` of one lies within the day, and a list `user_ids` or `pin_ids` holds ids.
        upstreams: what learns from it; when none is declared, those that the labels name, in their
            order.
        surfaces: allowed values of `events.surface`.
        surface_features: by surface, the context features that it alone fills.
        actions: allowed values of `events.action`.
        attribution_days: a label may become known this many days after its impression. One that
            arrives after the impression's day is a row of its own, filed under its arrival's day.
        daily_rows: lowest and highest number of events a normal day has.
        label_rates: lowest and highest share of positives of each label on a normal day.
        freshness_hours: the newest event of a complete day is at most this long before its end.
        guards: bounds in place of the recipe's.
        empty_days: what a day without events means; `carry` publishes it, with everybody carried
            over and yesterday's models, `refuse` stops until somebody has looked (`derm skip`).
    """

    name: str
    description: str
    surfaces: tuple[str, ...]
    actions: tuple[str, ...]
    labels: tuple[Label, ...]
    features: tuple[Feature, ...]
    columns: tuple[Column, ...] = ()
    tables: tuple[Table, ...] = ()
    upstreams: tuple[UpstreamDeclaration, ...] = ()
    attribution_days: int = Field(default=0, ge=0)
    daily_rows: tuple[int, int] = (1, 2**62)
    label_rates: dict[str, tuple[float, float]] = Field(default_factory=dict)
    freshness_hours: int = Field(default=24, ge=1, le=24)
    surface_features: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    guards: Bounds = Bounds()
    empty_days: EmptyDays = "refuse"

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        self._check_upstreams()
        context = {f.name for f in self.features_of("context")}
        check_surface_features(self.name, self.surface_features, self.surfaces, context)
        for scope in ("user", "pin"):
            if not self.features_of(scope):
                raise ValueError(f"dataset {self.name}: no {scope} feature is declared")
        names = [f.name for scope in ("user", "pin", "context") for f in self.inputs_of(scope)]
        if doubled := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"dataset {self.name}: features {doubled} are declared twice")
        if taken := {t.name for t in self.tables} & _TABLES:
            raise ValueError(f"dataset {self.name}: tables {sorted(taken)} are there already")
        if "impressions" in self.counted[1:]:
            raise ValueError(f"dataset {self.name}: no label may be called impressions")
        targets = [(x.name, x.upstream) for x in self.labels]
        if doubled_labels := sorted({t for t in targets if targets.count(t) > 1}):
            raise ValueError(f"dataset {self.name}: labels {doubled_labels} are declared twice")
        if len({(x.name, x.meaning) for x in self.labels}) > len({x.name for x in self.labels}):
            raise ValueError(f"dataset {self.name}: a label has two meanings")
        if unknown := sorted(set(self.label_rates) - {x.name for x in self.labels}):
            raise ValueError(f"dataset {self.name}: label_rates names unknown labels {unknown}")
        return self

    def _check_upstreams(self) -> None:
        declared = check_together(self.declared_upstreams)
        names = [u.name for u in declared]
        taught = {u.learns_as or u.name for u in declared}
        for label in self.labels:
            if label.upstream not in taught:
                raise ValueError(
                    f"dataset {self.name}: label {label.name} is of upstream {label.upstream}, "
                    f"declared are {' '.join(names)}"
                )
        for upstream in declared:
            primary = [x.name for x in self.labels_of(upstream.name) if x.role == "primary"]
            if upstream.reads == "rows" and len(primary) != 1:
                raise ValueError(
                    f"dataset {self.name}: upstream {upstream.name} needs one primary label, "
                    f"{primary}"
                )

    @property
    def declared_upstreams(self) -> tuple[UpstreamDeclaration, ...]:
        """The upstreams that learn from it."""
        named = dict.fromkeys(x.upstream for x in self.labels)
        return self.upstreams or tuple(UpstreamDeclaration(name=name) for name in named)

    def with_upstreams(self, upstreams: Iterable[UpstreamDeclaration]) -> Self:
        """The data set with more upstreams, or with others in the place of those of their names.

        Raises:
            ValueError: they do not fit the data set or each other.
        """
        changed = {u.name: u for u in upstreams}
        present = {u.name: u for u in self.declared_upstreams}
        merged = tuple((present | changed).values())
        return type(self).model_validate(self.model_copy(update={"upstreams": merged}).__dict__)

    def mature_on(self, ds: str) -> str:
        """The day with whose end the labels of a day are final: no conversion comes after it."""
        return shift_day(ds, self.attribution_days)

    def features_of(self, scope: FeatureScope) -> tuple[Feature, ...]:
        """The features that one tower may see."""
        return tuple(f for f in self.features if f.scope == scope)

    def inputs_of(self, scope: FeatureScope) -> tuple[Feature, ...]:
        """What one tower sees: the declared features, then those that the pipeline counts."""
        counts = () if scope == "context" else self.counting_features(scope)
        return self.features_of(scope) + counts

    @property
    def counted(self) -> tuple[str, ...]:
        """What is counted: impressions, then the positives of every label."""
        return ("impressions", *dict.fromkeys(x.name for x in self.labels))

    def counting_features(self, entity: Entity) -> tuple[Feature, ...]:
        """Counts, then smoothed rates, of one window after the other, before the day."""
        impressions, *labels = self.counted
        counts = {impressions: "impressions"} | {f"{x}_count": f"positives of {x}" for x in labels}
        rates = {f"{x}_rate": f"smoothed rate of {x}" for x in labels}
        return tuple(
            Feature(
                name=f"{entity}_{name}_{days}d",
                scope=entity,
                kind="numeric",
                meaning=f"{meaning} in the {days} days before the day",
                group=group,
            )
            for days in WINDOWS
            for group, meanings in (("counts", counts), ("rates", rates))
            for name, meaning in meanings.items()
        )

    def labels_of(self, upstream: Upstream) -> tuple[Label, ...]:
        """The tasks of an upstream, the primary one first."""
        taught_as = next(
            (u.learns_as or u.name for u in self.upstreams if u.name == upstream), upstream
        )
        mine = [x for x in self.labels if x.upstream == taught_as]
        return tuple(sorted(mine, key=lambda x: x.role != "primary"))

    def events_table(self) -> Table:
        """The declaration of `events` for this data set."""
        label_columns = {
            x.name: Column(
                name=x.name, dtype="int8", meaning=x.meaning, nullable=True, minimum=0, maximum=1
            )
            for x in self.labels
        }
        return Table(
            name="events",
            grain="one impression of a Pin to a user; or a label that arrived after the day of its "
            "impression, with what the impression carried",
            key=("event_id",),
            columns=(
                Column(name="event_id", dtype="string", meaning="unique in the day", is_id=True),
                Column(
                    name="ts", dtype="timestamp", meaning="time of the impression, UTC, on any row"
                ),
                Column(
                    name="arrived_at",
                    dtype="timestamp",
                    meaning="when a late label arrived, UTC; null for an impression",
                    nullable=True,
                ),
                Column(
                    name="impression_id",
                    dtype="string",
                    meaning="event_id of the impression, on the day of ts, that a late label "
                    "belongs to; null for an impression",
                    nullable=True,
                    is_id=True,
                ),
                Column(name="user_id", dtype="string", meaning="who saw it", is_id=True),
                Column(name="pin_id", dtype="string", meaning="what was shown", is_id=True),
                Column(
                    name="surface",
                    dtype="string",
                    meaning="where it was shown",
                    values=self.surfaces,
                ),
                Column(
                    name="action",
                    dtype="string",
                    meaning="the strongest action that followed, or that a late conversion arrived",
                    values=self.actions,
                ),
                Column(
                    name="duration_s",
                    dtype="float32",
                    meaning="seconds spent with the Pin, where known",
                    nullable=True,
                    minimum=0,
                ),
                *self.columns,
                *label_columns.values(),
                *(f.column() for f in self.features_of("context")),
            ),
        )

    def users_table(self) -> Table:
        """The declaration of `users` for this data set."""
        return self._snapshot("user")

    def pins_table(self) -> Table:
        """The declaration of `pins` for this data set."""
        return self._snapshot("pin")

    def counts_table(self, entity: Entity) -> Table:
        """The declaration of the counts of an entity type, one column per window and count."""
        return Table(
            name=counts_name(entity),
            grain=f"one {entity} with an event in the {WINDOWS[-1]} days that end with the day",
            key=("entity_id",),
            partition_by=("ds", "bucket"),
            columns=(
                Column(name="entity_id", dtype="string", meaning=f"{entity} id"),
                *(
                    Column(
                        name=f"{name}_{days}d",
                        dtype="int32",
                        meaning=f"{name if name == 'impressions' else f'positives of {name}'} "
                        f"of the {days} days that end with the day",
                        minimum=0,
                    )
                    for days in WINDOWS
                    for name in self.counted
                ),
            ),
        )

    def _snapshot(self, scope: Literal["user", "pin"]) -> Table:
        key = f"{scope}_id"
        columns = (
            Column(name=key, dtype="string", meaning=f"{scope} id", is_id=True),
            *(f.column() for f in self.features_of(scope)),
        )
        return Table(
            name=f"{scope}s",
            grain=f"one {scope} and its features as of the start of the day",
            key=(key,),
            columns=columns,
        )
