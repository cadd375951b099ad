"""Graph: who was related to what, and how often, as of the end of the day.

Reads the day's events, what the data set has beside them (`offsite`, `campaigns`), and the graph of
yesterday; writes `graph`. Grain: one row per edge. Yesterday's counts decay by a day and the day's
are added, so events of earlier days are never read again, and a day that is made again from the
same tables has the same bits. Memory is bounded by a bucket of edges.
"""

from feature_store.contracts.edges import GRAPH
from feature_store.contracts.manifests import Metrics
from feature_store.reading.graph import build_graph, graph_layout
from jobs.engine.context import Outcome, RunContext
from jobs.engine.scratch import scratch_folder


def run(ctx: RunContext) -> Outcome:
    """Write the graph of the day.

    Raises:
        MissingInput: a table of the day, or the graph of yesterday, is not there.
        InputError: the recipe names an action or a label that the data set does not have.
        ContractViolation: the table is laid out differently.
    """
    buckets = ctx.recipe.layout.user_buckets
    if ctx.lake.exists(GRAPH):
        graph_layout(buckets).check(ctx.lake.layout(GRAPH), GRAPH)
    with scratch_folder(ctx.root, "graph") as folder:
        artifact, made = build_graph(
            ctx.lake, ctx.spec, ctx.ds, ctx.recipe.graph, folder, buckets=buckets
        )
    metrics: Metrics = {
        "edges": artifact.rows,
        "edges_new": made.new,
        "edges_again": made.again,
        "edges_forgotten": made.forgotten,
    }
    return Outcome(outputs=(artifact,), metrics=metrics)
