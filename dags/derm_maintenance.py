"""### Every noon: free the disk, and look once more at what is published.

`retain` waits until no step of a day runs. It never touches what a release names, what an
unfinished backfill needs, or the newest day. `audit` compares samples of what readers see with the
lake: a store that lost something since midnight is found here.
"""

from airflow.sdk import DAG, Param

from jobs.scheduling.maintenance import MAINTENANCE
from jobs.scheduling.orchestration import add_chores, maintenance_arguments
from jobs.settings import Settings

settings = Settings.from_environment()

with DAG(
    dag_id="derm_maintenance",
    description="retention, vacuum; consistency of what is published",
    doc_md=__doc__,
    tags=["derm", "maintenance"],
    params={
        "day": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Released day to compare",
            description="Empty: the day that ended before the run.",
        ),
    },
    **maintenance_arguments(settings),
) as dag:
    add_chores(dag, settings, MAINTENANCE)
