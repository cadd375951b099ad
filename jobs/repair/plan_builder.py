"""What a plan is built with, whoever plans: steps of the catalog by stage, with what they cost."""

from feature_store.contracts.base import Upstream
from jobs.engine.unfinished import PlannedStep
from jobs.pipelines.catalog import Pipeline
from jobs.pipelines.declarations import Stage, Step
from jobs.repair.starting_points import Record, estimate

_KEPT = Record(rows=0, seconds=0.0)


class PlanBuilder:
    """Collects the steps of a plan, in the order in which they will run."""

    def __init__(self, pipeline: Pipeline, records: dict[str, Record]) -> None:
        self.pipeline, self.steps = pipeline, list[PlannedStep]()
        self._records = records

    def add(
        self,
        step: Step,
        ds: str,
        upstream: Upstream | None,
        *,
        keep: bool = False,
        snapshot_of: str | None = None,
    ) -> None:
        """Plan one step; with `keep` its result stands as it is."""
        record = _KEPT if keep else estimate(self._records, (step.name, ds, upstream))
        self.steps.append(
            PlannedStep(
                step=step.name,
                ds=ds,
                upstream=upstream,
                snapshot_of=snapshot_of,
                keep=keep,
                writes=() if keep else self.pipeline.outputs_of(step, upstream),
                rows=record.rows,
                seconds=record.seconds,
            )
        )

    def add_stages(self, ds: str, *stages: Stage) -> None:
        """Plan every step of some stages, for every upstream."""
        for step, upstream in self.pipeline.in_order(*stages):
            self.add(step, ds, upstream)
