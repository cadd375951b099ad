"""### Let the rankers learn the day that was released.

Begins with every release. Each ranker is scored on the day, with embeddings and without, before it
learns it; then it is trained from yesterday's, calibrated and exported. **No day of embeddings
waits for a ranker**: one that is refused keeps its last export, and does not hold up the others.

`catch_up` first ranks days before this one that do not hold any more, because a backfill has
repaired them, or that were never ranked. `draw` draws the report again, with what the embeddings of
the day are worth.
"""

from airflow.sdk import DAG, Param

from jobs.scheduling.orchestration import add_ranking, released
from jobs.settings import Settings

settings = Settings.from_environment()

with DAG(
    dag_id="derm_ranking",
    description="a release -> rankers: evaluate, train, calibrate, export",
    doc_md=__doc__,
    tags=["derm", "ranking"],
    schedule=released(settings),
    max_active_runs=1,
    # Training rankers costs as much as training upstreams: whoever wants it unpauses it.
    is_paused_upon_creation=True,
    params={
        "day": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Day to rank",
            description="Empty: the day whose release began the run.",
        ),
    },
) as dag:
    add_ranking(dag, settings)
