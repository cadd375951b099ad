"""### Repair days whose data was wrong, and everything that was made from them.

Trigger it with the first and the last wrong day and what was wrong with them; or run
`derm backfill`, which shows the plan, asks, and follows this DAG in the terminal.

`plan` shows in its log what will be recomputed. `approve` waits for a person, where the form asks
for it. `backfill` has the pipeline to itself: it begins when no step of a day runs, and days that
come due wait in their `gate`; a day that is past it stops red: when this has finished, clear every
task of its run. Every later day is recomputed in order; **readers see the present release until the
end**, and go on seeing it if a guard refuses the result. Killed or cleared, `backfill` continues
where it was.
"""

from airflow.sdk import DAG, Param

from jobs.scheduling.maintenance import BACKFILL
from jobs.scheduling.orchestration import add_chores
from jobs.settings import Settings

with DAG(
    dag_id="derm_backfill",
    description="wrong days -> every later day again, in order -> one release",
    doc_md=__doc__,
    tags=["derm", "repair"],
    schedule=None,
    max_active_runs=1,
    is_paused_upon_creation=False,
    params={
        "first_day": Param(type="string", format="date", title="First wrong day"),
        "last_day": Param(type="string", format="date", title="Last wrong day, included"),
        "what": Param(
            "labels",
            enum=["labels", "features", "embeddings"],
            title="What was wrong",
            description="labels, features: ingest, train and infer again; embeddings: infer again.",
        ),
        "models": Param(
            "as needed",
            enum=["as needed", "retrain", "keep"],
            title="Do the models learn the repaired days?",
            description="As needed: unless only the embeddings were wrong.",
        ),
        "approval": Param(
            False,
            type="boolean",
            title="Wait for an approval between plan and overwrite?",
            description="Somebody reads the plan, and approves it under *Required Actions*.",
        ),
    },
) as dag:
    add_chores(dag, Settings.from_environment(), BACKFILL)
