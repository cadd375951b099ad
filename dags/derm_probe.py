"""### Every ten minutes: is all that readers should see there, and does work go on?

`probe` asks the online store for the pointer, the slots, its keys and a sample of users, and looks
at the disk, at steps that take too long, and at the day that is due. It takes a second or two and
changes nothing. Red: the message says what is wrong and which command repairs it; people are told
when it is new, and once an hour after that.
"""

from airflow.sdk import DAG

from jobs.scheduling.maintenance import PROBE
from jobs.scheduling.orchestration import add_chores, probe_arguments
from jobs.settings import Settings

settings = Settings.from_environment()

with DAG(
    dag_id="derm_probe",
    description="the store, the disk, steps that hang, days that are late",
    doc_md=__doc__,
    tags=["derm", "maintenance"],
    is_paused_upon_creation=False,
    **probe_arguments(settings),
) as dag:
    add_chores(dag, settings, PROBE)
