"""Commands that Airflow runs beside the steps of a day, as data. Imports nothing heavy.

Arguments are templates: `params` are what the form in the UI asks for.
"""

from dataclasses import dataclass

from feature_store.contracts.artifacts import Events, Pool, Reference, ReleaseMark
from jobs.pipelines.declarations import Resource


@dataclass(frozen=True, kw_only=True, slots=True)
class Chore:
    """One command of the command line as a task.

    Attributes:
        arguments: what follows `derm`; a template. Empty: it waits until a person approves.
        outlets: artifacts it makes anew, which other DAGs may wait for.
        failure: what it means when it fails.
        remedy: what to do then.
    """

    name: str
    summary: str
    arguments: str
    outlets: tuple[Reference, ...] = ()
    resource: Resource = "cpu"
    retries: int = 0
    timeout_minutes: int
    failure: str
    remedy: str

    @property
    def is_approval(self) -> bool:
        """It runs nothing: it waits for a person."""
        return not self.arguments


# Before `ingest`, where the data set declares when a day is whole.
WAIT = Chore(
    name="wait",
    summary="Look whether the source of the day is whole, now and then; no slot is held between.",
    arguments="ready --ds {{ data_interval_start | ds }}",
    # A look.
    timeout_minutes=10,
    failure="The source of the day did not become whole in time, or cannot be looked at.",
    remedy="The log names the file or marker that is waited for. Once it is there: clear this "
    "task. If it will never come: `derm skip`.",
)

# What rankers and other DAGs read of a day.
_PUBLISHED = (Pool(), ReleaseMark())

_REPAIR = (
    "--from {{ params.first_day }} --to {{ params.last_day }} --what {{ params.what }}"
    "{{ {'retrain': ' --retrain', 'keep': ' --no-retrain'}.get(params.models, '') }}"
)

BACKFILL = (
    Chore(
        name="plan",
        summary="Show in the log which days and steps are recomputed, from which good state.",
        arguments=f"backfill {_REPAIR} --dry-run",
        timeout_minutes=10,
        failure="The days cannot be repaired; nothing was changed.",
        remedy="The message names the oldest day that can be, or what else is in the way.",
    ),
    Chore(
        name="approve",
        summary="May the days be overwritten?",
        arguments="",
        timeout_minutes=7 * 24 * 60,
        failure="The plan was rejected, or nobody answered within a week; nothing was changed.",
        remedy="Trigger the DAG again with what is to be repaired instead.",
    ),
    Chore(
        name="backfill",
        summary="Recompute the days in order, alone in the pipeline; publish once, at the end.",
        arguments=f"backfill {_REPAIR} --yes --in-process",
        outlets=(Events(), *_PUBLISHED),
        # Its steps want whatever any step wants.
        resource="gpu",
        retries=1,
        timeout_minutes=3 * 24 * 60,
        failure="A step failed or a guard refused its result. Readers keep the present release.",
        remedy="The log names the step: its section of the runbook applies. Then clear this task: "
        "it continues with the step that failed. No day begins before it has finished.",
    ),
)

_SPACE = "--ds {{ params.day }} --back {{ params.days_back }}"

BOOTSTRAP = (
    Chore(
        name="plan",
        summary="Show in the log which days are trained on, embedded and written.",
        arguments=f"bootstrap {_SPACE} --dry-run",
        timeout_minutes=10,
        failure="No space can begin on that day; nothing was changed.",
        remedy="The message names the days on which one can.",
    ),
    Chore(
        name="bootstrap",
        summary="Train from scratch, embed the days before, merge them; publish once, at the end.",
        arguments=f"bootstrap {_SPACE} --yes --in-process",
        outlets=_PUBLISHED,
        # Its steps want whatever any step wants.
        resource="gpu",
        retries=1,
        timeout_minutes=3 * 24 * 60,
        failure="A step failed or a guard refused its result. Readers keep the present space.",
        remedy="The log names the step: its section of the runbook applies. Then clear this task: "
        "it continues with the step that failed. No day begins before it has finished.",
    ),
)

MAINTENANCE = (
    Chore(
        name="retain",
        summary="Drop what retention no longer keeps, clean the logs, free the disk.",
        arguments="retain",
        retries=1,
        timeout_minutes=240,
        failure="The disk fills up; the pipeline goes on as before.",
        remedy="Run it again. `derm retain --dry-run` says what would go.",
    ),
    Chore(
        name="audit",
        summary="Compare what readers see now with the lake once more, hours after its release.",
        arguments="audit{% if params.day %} --ds {{ params.day }} --force{% endif %}",
        retries=1,
        timeout_minutes=20,
        failure="The store has lost users, or users or Pins that readers see differ from the lake.",
        remedy="The message counts what differs and names the command: `derm restore` for users.",
    ),
)

PROBE = (
    Chore(
        name="probe",
        summary="Look at the store, the disk, the steps at work and the day that is due.",
        arguments="probe",
        timeout_minutes=5,
        failure="Something is lost, full, hanging or late now. The message says what, since when.",
        remedy="The message has the command. Told when it is new, then once an hour.",
    ),
)

CHORES = (WAIT, *BACKFILL, *BOOTSTRAP, *MAINTENANCE, *PROBE)
