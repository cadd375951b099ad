"""What is trained, aggregated and published: whole configurations as Python functions.

A variant calls a base recipe and replaces fields; there is no flag for each knob.
"""

import dataclasses
import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from feature_store.config import (
    AggregationConfig,
    CountingConfig,
    IndexConfig,
    LayoutConfig,
    PublishingConfig,
    RetentionConfig,
)
from feature_store.contracts.bounds import Bounds
from feature_store.contracts.digests import content_digest, file_sha256
from feature_store.contracts.edges import GraphRules
from feature_store.contracts.errors import InputError
from feature_store.contracts.rankers import RankerDeclaration
from feature_store.contracts.upstreams import ModelOption, UpstreamDeclaration
from jobs.settings import Home
from models.derm.config import DermConfig, LossConfig
from models.nn.config import DhenConfig, SequenceConfig
from models.rankers.config import RankingConfig
from models.registry import default_config, reads
from models.training.config import InferenceConfig, TrainingConfig
from simulator import config as worlds
from simulator.market import config as markets
from simulator.market.config import Simulation

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardConfig:
    """Bounds between the steps; a broken one stops the day and leaves what is published alone.

    They are meant for a day of many: on a small one each lies as much lower as chance can do
    (`feature_store/embeddings/noise.py`). A data set may declare others (`[guards]`).

    Attributes:
        max_late_auc: how well the declared features may tell late labels from those of the same
            days that were not late; .5 is not at all.
        max_calibration_off: how far a ranker's predicted positives may be from the observed ones,
            on any surface, as the logarithm of their ratio.
    """

    max_late_auc: float = 0.6
    max_auc_drop: float = 0.05
    max_calibration_off: float = 1.0
    min_effective_rank: float = 1.2
    min_day_to_day_cosine: float = 0.2
    min_coverage: float = 0.0
    max_pool_shrink: float = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One complete configuration.

    Attributes:
        simulation: the world of the simulated data set; other data sets ignore it.
        market: the size of the markets, which are data sets too; the others ignore it.
        graph: what becomes an edge, where an upstream learns from edges.
        upstreams: beside those of the data set, or in their place.
        families: by family other than DERM, its configuration; else the family's default.
        overrides: by upstream, fields of the model that differ; a declared upstream's own `model`
            comes after them.
        rankers: what learns from the released vectors; None: one for the labels of each upstream.
    """

    name: str
    simulation: worlds.WorldConfig = field(default_factory=worlds.toy)
    market: markets.MarketConfig = field(default_factory=markets.toy)
    model: DermConfig = field(default_factory=DermConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    layout: LayoutConfig = field(default_factory=LayoutConfig)
    counting: CountingConfig = field(default_factory=CountingConfig)
    graph: GraphRules = field(default_factory=GraphRules)
    aggregation: AggregationConfig = field(default_factory=AggregationConfig)
    index: IndexConfig = field(default_factory=IndexConfig)
    publishing: PublishingConfig = field(default_factory=PublishingConfig)
    guards: GuardConfig = field(default_factory=GuardConfig)
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    upstreams: tuple[UpstreamDeclaration, ...] = ()
    families: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, dict[str, ModelOption]] = field(default_factory=dict)
    ranking: RankingConfig = field(default_factory=RankingConfig)
    rankers: tuple[RankerDeclaration, ...] | None = None

    def of(self, upstream: UpstreamDeclaration) -> "Recipe":
        """The recipe as one upstream has it: its own model and aggregation.

        Raises:
            InputError: the declaration names a field that the family's model does not have.
        """
        options = self.overrides.get(upstream.name, {}) | upstream.model
        if (found := reads(upstream.family)) != upstream.reads:
            raise InputError(
                "an upstream does not read what its family learns from",
                where=f"upstream {upstream.name}: reads",
                expected=found,
                found=upstream.reads,
            )
        model = self.model if upstream.family == "derm" else self.families.get(upstream.family)
        where = f"upstream {upstream.name}: model"
        own = {
            name: value
            for name in ("heuristic", "w", "inactive_days")
            if (value := getattr(upstream, name)) is not None
        }
        return dataclasses.replace(
            self,
            model=_overridden(model or default_config(upstream.family), options, where),
            aggregation=dataclasses.replace(self.aggregation, **own),
        )

    def of_ranker(self, ranker: RankerDeclaration) -> "Recipe":
        """The recipe as one ranker has it: its own model, and what it is declared to be.

        Raises:
            InputError: there is no such family, or the declaration names a field it does not have.
        """
        families = self.ranking.families
        where = f"ranker {ranker.name}"
        if ranker.family not in families:
            raise InputError(
                "there is no such family of rankers",
                where=where,
                expected=" | ".join(sorted(families)),
                found=ranker.family,
            )
        model = _overridden(families[ranker.family], ranker.model, f"{where}: model")
        own = dataclasses.replace(
            self.ranking,
            families={ranker.family: model},
            declaration=ranker.model_dump_json(),
        )
        return dataclasses.replace(self, ranking=own)

    def world(self, dataset: str) -> Simulation:
        """The simulated world that a data set of that name is; any, where it is none."""
        shaped = markets.MARKETS.get(dataset)
        return shaped(self.market) if shaped else self.simulation

    def bounded(self, declared: Bounds) -> "Recipe":
        """The recipe with the bounds that a data set declares in place of its own."""
        chosen = declared.model_dump(exclude_none=True)
        return dataclasses.replace(self, guards=dataclasses.replace(self.guards, **chosen))

    def digest(self, parts: tuple[str, ...]) -> str:
        """Digest of the named parts: what the result of a step depends on."""
        chosen = {p: dataclasses.asdict(getattr(self, p)) for p in parts}
        return content_digest(json.dumps(chosen, sort_keys=True))


def _overridden(config: T, options: Mapping[str, ModelOption], where: str) -> T:
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
        simulation=worlds.small(),
        market=markets.small(),
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
        simulation=worlds.large(),
        market=markets.large(),
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
    """The recipe called `name`: a function of this module, or `FILE.py:FUNCTION` of yours.

    Raises:
        InputError: there is none, or the file has no such function, or it returns no recipe.
    """
    if ":" in name:
        return _from_file(name)
    if name not in RECIPES:
        expected = " | ".join((*RECIPES, "FILE.py:FUNCTION"))
        raise InputError("unknown recipe", expected=expected, found=name)
    return RECIPES[name]()


def recipe_of(home: Home) -> Recipe:
    """The recipe of a home.

    Raises:
        InputError: it is in a file that is gone, or that changed since the home recorded it.
    """
    if home.recipe_digest and (found := recipe_digest(home.recipe)) != home.recipe_digest:
        raise InputError(
            "the file of the recipe changed since the home recorded it",
            where=home.recipe,
            expected=f"sha256 {home.recipe_digest}",
            found=found,
            hint="bring the file back; or take the change: derm init with the same arguments "
            "records it, and steps whose part of the recipe changed are stale",
        )
    return recipe(home.recipe)


def recipe_digest(name: str) -> str:
    """SHA-256 of the file that a recipe is in; empty for those of this module.

    Raises:
        InputError: the file cannot be read.
    """
    if ":" not in name:
        return ""
    path = name.rpartition(":")[0]
    try:
        return file_sha256(Path(path))
    except OSError as error:
        raise InputError(
            "the file of the recipe cannot be read", where=path, found=error.strerror or str(error)
        ) from error


def absolute(name: str) -> str:
    """A recipe's name that means the same from every folder."""
    path, colon, function = name.rpartition(":")
    return f"{Path(path).resolve()}:{function}" if colon else name


def _from_file(name: str) -> Recipe:
    path, _, function = name.rpartition(":")
    recipe_digest(name)
    spec = importlib.util.spec_from_file_location("derm_recipe", path)
    if spec is None or spec.loader is None:
        raise InputError("a recipe is a function of a Python file", expected="*.py", found=path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        made = getattr(module, function)()
    except Exception as error:  # whatever the user's file raises
        raise InputError(
            "the recipe could not be made",
            where=name,
            expected=f"a function {function}() that returns a Recipe",
            found=f"{type(error).__name__}: {error}",
        ) from error
    if not isinstance(made, Recipe):
        raise InputError(
            "the recipe is none", where=name, expected="a Recipe", found=type(made).__name__
        )
    return made
