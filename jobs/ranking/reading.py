"""What a ranker reads of a day, and the ranker itself, with its vectors and without."""

from typing import Literal

from feature_store.contracts.artifacts import RankerWeights
from feature_store.contracts.base import days_between, shift_day
from feature_store.contracts.digests import content_digest
from feature_store.contracts.manifests import SnapshotManifest
from feature_store.reading.examples import DayExamples
from feature_store.reading.pools import PoolInput
from jobs.engine.context import RunContext
from jobs.engine.snapshots import SnapshotStore
from models.rankers import export
from models.rankers.config import ARCHITECTURE, RankerConfig, RankingConfig
from models.rankers.export import ExportedRanker
from models.rankers.objective import RankingObjective
from models.rankers.parts.inputs import RankingInputs
from models.rankers.unified.config import UnifiedConfig
from models.training.loop import Trainer

# The ranker that is exported, and the one beside it that reads no vectors.
Arm = Literal["with", "without"]


def ranking(ctx: RunContext) -> RankingConfig:
    """How the step's ranker is trained."""
    return ctx.own_recipe.ranking


def config_of(ctx: RunContext) -> RankerConfig:
    """What the step's ranker is made of."""
    return ranking(ctx).families[ctx.own_ranker.family]


def surfaces(ctx: RunContext) -> tuple[str, ...]:
    """The surfaces that the step's ranker is guarded on one by one: those that it keeps apart."""
    return ctx.spec.surfaces if isinstance(config_of(ctx), UnifiedConfig) else ()


def arms(ctx: RunContext) -> tuple[Arm, ...]:
    """The ranker, and the one that it is compared with."""
    return ("with", "without") if ctx.own_ranker.compared else ("with",)


def pools(ctx: RunContext) -> tuple[PoolInput, ...]:
    """The pools that the step's ranker reads."""
    declared = ctx.own_ranker
    return ctx.pools_of(declared.pools, lag=declared.lag)


def spaces(ctx: RunContext) -> dict[str, str]:
    """Where the spaces of those pools begin, by upstream."""
    return {pool.upstream: pool.since for pool in pools(ctx)}


def inputs(ctx: RunContext, arm: Arm) -> RankingInputs:
    """The features, vectors and tasks of the step's ranker."""
    vectors = (pool.feature for pool in pools(ctx)) if arm == "with" else ()
    return RankingInputs.of(ctx.spec, ctx.own_ranker.learns, vectors)


def new_ranker(ctx: RunContext, arm: Arm) -> RankingObjective:
    """The step's ranker, with weights drawn from torch's generator."""
    return RankingObjective(inputs(ctx, arm), config_of(ctx))


def examples(ctx: RunContext, ds: str) -> DayExamples:
    """The examples of a day, joined with the pools that the ranker reads.

    A label that arrives late is read where its impression is joined as the day's own are. Of an
    older impression nobody would be known to a pool, and that alone would tell that it is late.
    """
    read = pools(ctx)
    oldest = max(shift_day(p.since, p.lag) for p in read)
    late_since = max(shift_day(ds, -ranking(ctx).late_days), oldest)
    learns = ctx.own_ranker.learns
    return DayExamples(ctx.lake, ctx.spec, ds, learns, ctx.counting, read, late_since=late_since)


def first_days(ctx: RunContext) -> tuple[str, ...]:
    """The validated days of the window that ends with today, oldest first."""
    first = max(shift_day(ctx.ds, 1 - ranking(ctx).training.window_days), ctx.home.first_ds)
    days = days_between(first, ctx.ds)
    return tuple(d for d in days if ctx.manifests.get("validate", d, None))


def store(ctx: RunContext) -> SnapshotStore:
    """The rankers of the step's name."""
    name = ctx.own_ranker.name
    weights = ctx.paths.ranker("weights", name)
    return SnapshotStore(ctx.root, name, root=weights, step="train_ranker")


def yesterdays(ctx: RunContext) -> SnapshotManifest | None:
    """The ranker that a day begins with; None where it begins anew.

    Raises:
        MissingInput: there should be one.
    """
    recorded = ctx.previous(RankerWeights(ctx.own_ranker.name))
    if recorded is None:
        return None
    found = store(ctx).of(recorded)
    return found if found.recipe == ranker_digest(ctx) else None


def teacher(ctx: RunContext) -> ExportedRanker | None:
    """The export before, which a ranker that begins anew is held to where its recipe says so.

    None where it is of another space, surfaces or tasks, or reads what is there no more: what it
    would say of the new rows means nothing.

    Raises:
        ManifestCorrupt: it cannot be read back.
    """
    config, pointer = config_of(ctx), ctx.paths.ranker_pointer(ctx.own_ranker.name)
    if not isinstance(config, UnifiedConfig) or not config.distillation or not pointer.exists():
        return None
    found = export.load(pointer.parent / pointer.read_text().strip())
    said, offered = found.description, inputs(ctx, "with")
    known = all(set(read) <= set(getattr(offered, scope)) for scope, read in said.features.items())
    same = (said.spaces, said.tasks, said.surfaces) == (
        spaces(ctx),
        offered.tasks,
        offered.surfaces,
    )
    return found if known and same and said.ds < ctx.ds else None


def ranker_digest(ctx: RunContext) -> str:
    """Digest of everything that shapes the weights."""
    offered = inputs(ctx, "with")
    features = (*offered.user, *offered.pin, *offered.context, *offered.vectors)
    return content_digest(
        str(ARCHITECTURE),
        ctx.own_recipe.digest(("ranking", "counting")),
        *ctx.spec.surfaces,
        *offered.tasks,
        *(f.model_dump_json() for f in features),
        *(f"{n}: {' '.join(own)}" for n, own in enumerate(offered.own) if own),
    )


def weights_of(arm: Arm) -> tuple[str, str]:
    """The files of a ranker's weights and of its optimizer."""
    prefix = "" if arm == "with" else "without_"
    return f"{prefix}model.safetensors", f"{prefix}optimizer.safetensors"


def load(ctx: RunContext, trainer: Trainer, manifest: SnapshotManifest, arm: Arm) -> None:
    """Let a trainer begin where a ranker stopped.

    Raises:
        ManifestCorrupt: a file of it is damaged.
    """
    model, optimizer = weights_of(arm)
    trainer.objective.load_state_dict(store(ctx).read(manifest, model))
    trainer.optimizer.load(store(ctx).read(manifest, optimizer))
