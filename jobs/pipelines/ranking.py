"""The steps of a ranker's day as data. Imports nothing heavy: DAG files read it while parsing.

A ranker reads the events of a day and the pools of the day before. It is scored on the day before
it learns from it; what it reads is made by the daily pipeline, which never waits for a ranker.
Names in braces expand per ranker ({r}), per upstream that it reads ({u}), and per entity ({e}).
"""

from jobs.pipelines.declarations import Ref, Step

_AGAIN = "Run it again: a finished step is skipped, an unfinished one starts afresh."
_RANKER = Ref(name="ranker:{r}", offset=-1, optional=True)

STEPS: tuple[Step, ...] = (
    Step(
        name="assemble",
        summary="say what a ranker's day is joined with: events, counts and pools",
        inputs=(
            *(Ref(name=f"lake:{table}") for table in ("events", "users", "pins")),
            Ref(name="lake:counts/{e}", offset=-1, optional=True),
            Ref(name="validated"),
        ),
        outputs=("assembled:{r}",),
        per_ranker=True,
        reads_pools="always",
        recipe_parts=("ranking", "counting"),
        task="assemble",
        failure="A pool, the counts or a table that the day is joined with is not there.",
        remedy="The message names it and the command that makes it.",
    ),
    Step(
        name="evaluate",
        summary="score yesterday's ranker on the day, with and without embeddings",
        inputs=(Ref(name="assembled:{r}"), _RANKER),
        outputs=("evaluated:{r}",),
        per_ranker=True,
        recipe_parts=("ranking", "counting", "guards"),
        seeded=True,
        rounded=True,
        task="evaluate",
        resource="gpu",
        retries=1,
        timeout_minutes=180,
        failure="The ranker crashed on the day, or its AUC fell below the bound.",
        remedy="The message names the number and its bound; yesterday's export stays in use.",
    ),
    Step(
        name="train_ranker",
        summary="train a ranker on the new day from yesterday's",
        inputs=(Ref(name="assembled:{r}"), Ref(name="evaluated:{r}"), _RANKER),
        outputs=("ranker:{r}",),
        per_ranker=True,
        recipe_parts=("ranking", "counting"),
        seeded=True,
        rounded=True,
        task="train_ranker",
        resource="gpu",
        retries=1,
        timeout_minutes=360,
        failure="Training crashed, or what came out is not finite.",
        remedy=_AGAIN,
    ),
    Step(
        name="calibrate",
        summary="turn a ranker's logits into probabilities, a surface at a time",
        inputs=(
            Ref(name="evaluated:{r}"),
            Ref(name="calibrated:{r}", offset=-1, optional=True),
        ),
        outputs=("calibrated:{r}",),
        per_ranker=True,
        recipe_parts=("ranking",),
        task="calibrate",
        failure="The calibration could not be written.",
        remedy=_AGAIN,
    ),
    Step(
        name="export_ranker",
        summary="export a ranker with its calibration, for whoever serves it",
        inputs=(Ref(name="ranker:{r}"), Ref(name="calibrated:{r}")),
        outputs=("exported:{r}",),
        per_ranker=True,
        recipe_parts=("ranking", "counting"),
        task="export_ranker",
        failure="The export could not be written; the one before it stays in use.",
        remedy=_AGAIN,
    ),
)
