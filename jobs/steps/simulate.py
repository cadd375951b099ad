"""Write one day of a simulated world as source files, as if another team had delivered them.

Reads digests of earlier days, if there are any (they only save time). Writes
source/simulated/ds=DAY/{events,users,pins,truth}.parquet, and a file for each further table of
the world.
"""

import dataclasses
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.contracts.artifacts import SOURCE
from feature_store.contracts.digests import content_digest
from feature_store.contracts.errors import InputError
from feature_store.contracts.manifests import Artifact
from feature_store.lake.lake import rows_digest
from jobs.datasets.registry import simulated_folder
from jobs.engine.context import Outcome, RunContext
from simulator.market.worlds import made


def run(ctx: RunContext) -> Outcome:
    """Simulate the day.

    Raises:
        InputError: the world has not begun, or is over.
    """
    name = ctx.home.dataset
    config, folder = ctx.recipe.world(name), simulated_folder(ctx.root)
    identity = content_digest(json.dumps(dataclasses.asdict(config)), str(ctx.home.seed))
    cache = folder / f"history-{identity}"
    world = made(name, config, ctx.home.seed, ctx.home.first_ds, cache=cache)
    try:
        day = world.day(ctx.ds)
    except ValueError as error:
        raise InputError(
            f"the simulated world has no {ctx.ds}", expected=str(error), found=ctx.ds
        ) from error
    target = folder / f"ds={ctx.ds}"
    target.mkdir(parents=True, exist_ok=True)
    tables = {"events": day.events, "users": day.users, "pins": day.pins, "truth": day.truth}
    tables |= day.more
    digests = [_write(target / f"{name}.parquet", data) for name, data in tables.items()]
    artifact = Artifact(
        name=SOURCE,
        ds=ctx.ds,
        digest=content_digest(*digests),
        rows=day.events.num_rows,
        size=sum(f.stat().st_size for f in target.glob("*.parquet")),
        uri=target.relative_to(ctx.root).as_posix(),
    )
    return Outcome(outputs=(artifact,), metrics={"events": day.events.num_rows})


def _write(path: Path, data: pa.Table) -> str:
    draft = path.with_suffix(".draft")
    pq.write_table(data, draft, compression="zstd", write_page_checksum=True)
    draft.replace(path)
    return rows_digest(data)
