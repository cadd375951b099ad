"""Check what lies in the lake before anything is trained on it.

Reads the day's events, users and pins. Beyond the contract, which is checked again because
others may write to the lake, a day must look normal: its volume, label rates and freshness.
"""

import pyarrow as pa

from feature_store.contracts.artifacts import Mark, in_lake
from feature_store.contracts.bounds import Check
from feature_store.contracts.digests import content_digest
from feature_store.contracts.errors import MissingInput
from feature_store.contracts.manifests import Acceptance, Artifact, Metrics
from feature_store.embeddings.noise import SIGMAS
from jobs.datasets.checks import Problems, check_tables, day_tables
from jobs.datasets.feature_audit import late_labels_told
from jobs.datasets.normal import normal_day, rate_of
from jobs.engine import skips
from jobs.engine.context import Outcome, RunContext
from jobs.engine.guards import hold


def run(ctx: RunContext) -> Outcome:
    """Check the day.

    Raises:
        MissingInput: a table lacks the day.
        ContractViolation: the day breaks its contract; all broken rules are listed.
        GuardFailed: it keeps its contract, and does not look like a normal day.
    """
    problems = Problems(ctx.ds)
    tables: dict[str, pa.Table] = {}
    for table in day_tables(ctx.spec):
        try:
            tables[table.name] = ctx.lake.read(table, ctx.ds)
        except MissingInput as error:
            problems.add(table.name, rule="the day in the lake", found=error.what, missing=True)
    skipped = skips.load(ctx.root, ctx.ds) is not None
    carried = skipped or ctx.spec.empty_days == "carry"
    check_tables(ctx.spec, tables, problems, may_be_empty=carried)
    problems.refuse(f"repair the source, then: derm run --from {ctx.ds} --to {ctx.ds}")
    used: tuple[Acceptance, ...] = ()
    told: Metrics = {}
    if len(events := tables["events"]):
        checks = normal_day(ctx.spec, events, ctx.ds)
        what = f"{ctx.ds} does not look like a normal day"
        used = hold(ctx.root, "validate", ctx.ds, None, checks, what)
        told, let_pass = _late_labels(ctx)
        used += let_pass
    rows = sum(t.num_rows for t in tables.values())
    checked = [ctx.artifact(in_lake(name)).digest for name in tables]
    artifact = Artifact(
        name=Mark("validated"),
        ds=ctx.ds,
        # Bounds say what passes, and not what it is.
        digest=content_digest(
            ctx.spec.model_dump_json(exclude={"guards", "surface_features"}), *checked
        ),
        rows=rows,
    )
    return Outcome(
        outputs=(artifact,),
        metrics={
            "rows": rows,
            "labels_mature_on": ctx.spec.mature_on(ctx.ds),
            **_rates(ctx, events),
            **told,
        },
        accepted=used,
    )


def _late_labels(ctx: RunContext) -> tuple[Metrics, tuple[Acceptance, ...]]:
    """Measure whether features tell late labels from those that were not late.

    Raises:
        GuardFailed: they do, better than chance and the bound explain; it names them.
    """
    bound, worst = ctx.recipe.guards.max_late_auc, None
    if ctx.spec.attribution_days:
        taught = [u.name for u in ctx.spec.declared_upstreams if ctx.spec.labels_of(u.name)]
        found = [late_labels_told(ctx.lake, ctx.spec, ctx.ds, name) for name in taught]
        worst = max((t for t in found if t.auc == t.auc), key=lambda t: t.auc, default=None)
    if worst is None:
        return {}, ()
    raised = bound + SIGMAS * worst.error
    check = Check(number="late_auc", found=worst.auc, bound=raised, least=False)
    what = f"late labels can be told from those that were not late, by {', '.join(worst.by[:5])}"
    used = hold(ctx.root, "validate", ctx.ds, None, [check], what)
    metrics: Metrics = {
        "late_auc": round(worst.auc, 4),
        "late_auc_bound": round(raised, 4),
        "late_labels": worst.late,
    }
    return metrics, used


def _rates(ctx: RunContext, events: pa.Table) -> dict[str, float | None]:
    names = [x.name for x in ctx.spec.labels if x.role == "primary"]
    rates = {name: rate_of(events, name) for name in names}
    return {f"rate_{n}": rate.share if rate else None for n, rate in rates.items()}
