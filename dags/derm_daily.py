"""### One day of embeddings, from events to what rankers read.

`gate` checks yesterday, `ingest` and `validate` bring the day in, each upstream (`ctr`, `cvr`)
trains, infers, aggregates, verifies and publishes to a place no reader looks at yet, and `release`
makes users and Pins of both visible at once. **Until `release` readers see yesterday, complete.**

A failed day stops the days after it. Open the red task: its documentation says what its failure
means and what to do. Then clear it, and unpause the DAG: the days that waited follow in order.
"""

from airflow.sdk import DAG

from jobs.scheduling.orchestration import add_tasks, daily_arguments, deadline
from jobs.settings import Settings

settings = Settings.from_environment()

with DAG(
    dag_id="derm_daily",
    description="events -> models -> embeddings -> pool -> Redis and Pin index, once a day",
    doc_md=__doc__,
    tags=["derm", "embeddings"],
    deadline=deadline(),
    **daily_arguments(settings),
) as dag:
    add_tasks(dag, settings)
