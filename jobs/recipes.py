"""What is trained, aggregated and published: whole configurations as Python functions.

A variant calls a base recipe and replaces fields; there is no flag for each knob.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from feature_store.config import (
    AggregationConfig,
    CountingConfig,
    IndexConfig,
    LayoutConfig,
    PublishingConfig,
    RetentionConfig,
)
from feature_store.contracts.errors import InputError
from feature_store.contracts.upstreams import ModelOption, UpstreamDeclaration
from jobs.engine.digest import content_digest
from models.derm.config import DermConfig, LossConfig
from models.nn.config import DhenConfig, SequenceConfig
from models.training.config import InferenceConfig, TrainingConfig
from simulator import config as worlds

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardConfig:
    """Bounds between the steps; a broken one stops the day and leaves what is published alone."""

    max_auc_drop: float = 0.05
    min_effective_rank: float = 1.2
    min_day_to_day_cosine: float = 0.2
    min_coverage: float = 0.0
    max_pool_shrink: float = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One complete configuration.

    Attributes:
        simulation: the world of the simulated data set; other data sets ignore it.
        upstreams: beside those of the data set, or in their place.
        overrides: by upstream, fields of the model that differ; a declared upstream's own `model`
            comes after them.
    """

    name: str
    simulation: worlds.WorldConfig = field(default_factory=worlds.toy)
    model: DermConfig = field(default_factory=DermConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    layout: LayoutConfig = field(default_factory=LayoutConfig)
    counting: CountingConfig = field(default_factory=CountingConfig)
    aggregation: AggregationConfig = field(default_factory=AggregationConfig)
    index: IndexConfig = field(default_factory=IndexConfig)
    publishing: PublishingConfig = field(default_factory=PublishingConfig)
    guards: GuardConfig = field(default_factory=GuardConfig)
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    upstreams: tuple[UpstreamDeclaration, ...] = ()
    overrides: dict[str, dict[str, ModelOption]] = field(default_factory=dict)

    def of(self, upstream: UpstreamDeclaration) -> "Recipe":
        """The recipe as one upstream has it: its own model and aggregation.

        Raises:
            InputError: the declaration names a field that the family's model does not have.
        """
        options = self.overrides.get(upstream.name, {}) | upstream.model
        own = {
            name: value
            for name in ("heuristic", "w", "inactive_days")
            if (value := getattr(upstream, name)) is not None
        }
        return dataclasses.replace(
            self,
            model=_overridden(self.model, options, f"upstream {upstream.name}: model"),
            aggregation=dataclasses.replace(self.aggregation, **own),
        )

    def digest(self, parts: tuple[str, ...]) -> str:
        """Digest of the named parts: what the result of a step depends on."""
        chosen = {p: dataclasses.asdict(getattr(self, p)) for p in parts}
        return content_digest(json.dumps(chosen, sort_keys=True))


def _overridden(config: DermConfig, options: Mapping[str, ModelOption], where: str) -> DermConfig:
    """A configuration with some fields replaced, nested ones too."""
    for path, value in options.items():
        config = _replaced(config, path.split("."), value, f"{where}.{path}")
    return config


def _replaced(config: T, path: list[str], value: ModelOption, where: str) -> T:
    known = {f.name for f in dataclasses.fields(config)} if dataclasses.is_dataclass(config) else ()
    if path[0] not in known:
        raise InputError(
            "a declaration changes what the model does not have",
            where=where,
            expected=" | ".join(sorted(known)) or "a field that has no fields of its own",
            found=path[0],
        )
    present = getattr(config, path[0])
    new = value if len(path) == 1 else _replaced(present, path[1:], value, where)
    if len(path) == 1 and type(value) is not type(present):
        raise InputError(
            "a declaration gives the model a value of another type",
            where=where,
            expected=f"{type(present).__name__}, as {present!r}",
            found=repr(value),
        )
    try:
        return cast("T", dataclasses.replace(cast("Any", config), **{path[0]: new}))
    except ValueError as error:
        raise InputError(
            "a declaration gives the model a value it cannot have", where=where, found=str(error)
        ) from error


def toy() -> Recipe:
    """Minutes on two cores: the whole pipeline, small."""
    # Conversions are rare: their tasks may weigh more.
    return Recipe(name="toy", overrides={"cvr": {"loss.weight_cap": 10.0}})


def small() -> Recipe:
    """An hour on one GPU or sixteen cores: embeddings of 256 dimensions."""
    tower = DhenConfig(
        token_dim=32,
        num_tokens=8,
        layers=(("mask", "mlp"), ("transformer", "mlp"), ("mask", "mlp")),
        mask_ratio=0.3,
    )
    return dataclasses.replace(
        toy(),
        name="small",
        model=DermConfig(
            tower=tower,
            sequence=SequenceConfig(max_len=50, num_layers=2, latest=10),
            head_hidden=(64,),
            loss=LossConfig(sketch_width=2**20),
        ),
        training=TrainingConfig(
            window_days=60,
            batch_rows=4096,
            learning_rate=1e-3,
            incremental_learning_rate=3e-4,
            precision="bfloat16",
        ),
        inference=InferenceConfig(batch_rows=8192),
        layout=LayoutConfig(user_buckets=64, pin_buckets=32),
    )


def paper() -> Recipe:
    """A cluster: the sizes that the publication implies, embeddings of 512 dimensions."""
    base = small()
    tower = DhenConfig(
        token_dim=64,
        num_tokens=8,
        layers=(("mask", "mlp"), ("transformer", "mlp")) * 2,
        mask_ratio=0.1,
        dropout=0.005,
    )
    return dataclasses.replace(
        base,
        name="paper",
        model=dataclasses.replace(
            base.model,
            tower=tower,
            sequence=SequenceConfig(max_len=100, num_layers=2, num_heads=2, latest=10),
            head_hidden=(128, 64),
            loss=LossConfig(sketch_width=2**26),
        ),
        training=dataclasses.replace(base.training, compile=True),
        inference=InferenceConfig(rows="last", batch_rows=16_384),
        layout=LayoutConfig(user_buckets=1024, pin_buckets=512),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {"toy": toy, "small": small, "paper": paper}


def recipe(name: str) -> Recipe:
    """The recipe called `name`.

    Raises:
        InputError: there is none.
    """
    if name not in RECIPES:
        raise InputError("unknown recipe", expected=" | ".join(RECIPES), found=name)
    return RECIPES[name]()
