"""The steps of a ranker's day as data. Imports nothing heavy: DAG files read it while parsing.

A ranker reads the events of a day and the pools of the day before. It is scored on the day before
it learns from it; what it reads is made by the daily pipeline, which never waits for a ranker.
A reference without an owner stands for those of the step's ranker.
"""

from feature_store.contracts.artifacts import (
    Assembled,
    Calibrated,
    Counts,
    Evaluated,
    Events,
    Exported,
    Mark,
    RankerWeights,
    Rows,
)
from jobs.pipelines.declarations import Read, Step

_AGAIN = "Run it again: a finished step is skipped, an unfinished one starts afresh."
_RANKER = Read(RankerWeights(), offset=-1, optional=True)

STEPS: tuple[Step, ...] = (
    Step(
        name="assemble",
        summary="say what a ranker's day is joined with: events, counts and pools",
        stage="ranking",
        inputs=(
            Read(Events()),
            Read(Rows("users")),
            Read(Rows("pins")),
            Read(Counts(), offset=-1, optional=True),
            Read(Mark("validated")),
        ),
        outputs=(Assembled(),),
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
        stage="ranking",
        inputs=(Read(Assembled()), _RANKER),
        outputs=(Evaluated(),),
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
        stage="ranking",
        inputs=(Read(Assembled()), Read(Evaluated()), _RANKER),
        outputs=(RankerWeights(),),
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
        stage="ranking",
        inputs=(
            Read(Evaluated()),
            Read(Calibrated(), offset=-1, optional=True),
        ),
        outputs=(Calibrated(),),
        per_ranker=True,
        recipe_parts=("ranking", "guards"),
        task="calibrate",
        failure="Predicted and observed positives are far apart on a surface.",
        remedy="The message names the number and its bound; yesterday's export stays in use.",
    ),
    Step(
        name="export_ranker",
        summary="export a ranker with its calibration, for whoever serves it",
        stage="ranking",
        inputs=(Read(RankerWeights()), Read(Calibrated())),
        outputs=(Exported(),),
        per_ranker=True,
        recipe_parts=("ranking", "counting"),
        task="export_ranker",
        failure="The export could not be written; the one before it stays in use.",
        remedy=_AGAIN,
    ),
)
