"""### Begin a new embedding space, side by side with the one that readers see.

What a changed model needs. Trigger it with the day to publish and how many days before it are to
be embedded too; or run `derm bootstrap`, which shows the plan, asks, and follows this DAG in the
terminal.

`plan` shows in its log what will be made. `bootstrap` trains both upstreams from scratch on the
window that ends with the day, embeds the days before it with what was learnt, fills new pools and
writes users and Pins under keys of their own. **Readers see the present space until the end**, then
the new one at once; `derm rollback` returns to the old one. It has the pipeline to itself, and
killed or cleared it continues where it was. `derm_daily` goes on with the day after.
"""

from airflow.sdk import DAG, Param

from jobs.scheduling.maintenance import BOOTSTRAP
from jobs.scheduling.orchestration import add_chores
from jobs.settings import Settings

with DAG(
    dag_id="derm_bootstrap",
    description="train from scratch -> embed past days -> new pools -> one release",
    doc_md=__doc__,
    tags=["derm", "embeddings"],
    schedule=None,
    max_active_runs=1,
    is_paused_upon_creation=False,
    params={
        "day": Param(type="string", format="date", title="Day to publish"),
        "days_back": Param(
            6,
            type="integer",
            minimum=0,
            title="Days before it to embed too",
            description="As many as the model is trained on, at least.",
        ),
    },
) as dag:
    add_chores(dag, Settings.from_environment(), BOOTSTRAP)
