"""The steps of a home's days, the upstreams they run for, and who makes which artifact."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from feature_store.contracts.base import ENTITIES, Entity, Upstream
from feature_store.contracts.errors import InputError
from feature_store.contracts.upstreams import UpstreamDeclaration
from jobs.pipelines import daily
from jobs.pipelines.declarations import Ref, Step
from jobs.settings import Home
from simulator.market.config import WORLDS

EVENTS = "lake:events"


def step(name: str) -> Step:
    """The step called `name`.

    Raises:
        KeyError: there is none.
    """
    for candidate in daily.STEPS:
        if candidate.name == name:
            return candidate
    raise KeyError(name)


def steps_for(dataset: str) -> tuple[Step, ...]:
    """The steps a data set needs: real data is not simulated."""
    return tuple(s for s in daily.STEPS if s.name != "simulate" or dataset in WORLDS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pipeline:
    """The steps of a day, and the upstreams they run for.

    Attributes:
        upstreams: in the order in which they are shown and run.
        tables: of a day, beside events, users and Pins.
    """

    upstreams: tuple[UpstreamDeclaration, ...]
    steps: tuple[Step, ...] = field(default_factory=lambda: daily.STEPS)
    tables: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[Upstream, ...]:
        """The upstreams by name."""
        return tuple(u.name for u in self.upstreams)

    @property
    def published(self) -> tuple[Upstream, ...]:
        """The upstreams that rankers read, by name."""
        return tuple(u.name for u in self.upstreams if u.published)

    def upstream(self, name: Upstream) -> UpstreamDeclaration:
        """The declaration of an upstream.

        Raises:
            InputError: none has that name.
        """
        for declared in self.upstreams:
            if declared.name == name:
                return declared
        raise InputError("there is no such upstream", expected=" | ".join(self.names), found=name)

    def upstreams_of(
        self, step: Step, asked: Upstream | None = None
    ) -> tuple[Upstream | None, ...]:
        """The upstreams a step runs for: the one asked for, all, or None once.

        Raises:
            InputError: no upstream has the name that was asked for.
        """
        if asked:
            self.upstream(asked)
        if not step.per_upstream:
            return (None,)
        mine = self.published if step.published else self.names
        return tuple(u for u in mine if asked in (None, u))

    def inputs_of(self, step: Step, upstream: Upstream | None) -> tuple[tuple[Ref, str], ...]:
        """What a step reads: each reference of the catalog with the artifact it names."""
        refs = [(ref, name) for ref in step.inputs for name in self.expand(ref.name, upstream)]
        if upstream and step.learns:
            refs += self._rested(step, upstream)
        if upstream and step.reads_history:
            refs += self._looked_back_on(upstream)
        if upstream and step.reads_pools != "never":
            continued = step.reads_pools == "unless from scratch"
            ref = Ref(name=daily.POOL, offset=-1, optional=True, continued=continued)
            for other in self.upstream(upstream).pools:
                refs += [(ref, name) for name in self.expand(ref.name, other)]
        return tuple(refs)

    def _rested(self, step: Step, upstream: Upstream) -> list[tuple[Ref, str]]:
        """What a step reads of the days since the upstream last learned."""
        every_day = [ref for ref in step.inputs if ref.name not in step.outputs]
        return [
            (replace(ref, offset=ref.offset - back, optional=True, continued=True), name)
            for back in range(1, self.upstream(upstream).every_days)
            for ref in every_day
            for name in self.expand(ref.name, upstream)
        ]

    def _looked_back_on(self, upstream: Upstream) -> list[tuple[Ref, str]]:
        """The events before the day that an upstream reads."""
        days = self.upstream(upstream).history_days
        return [(Ref(name=EVENTS, offset=-back, history=True), EVENTS) for back in range(1, days)]

    def outputs_of(self, step: Step, upstream: Upstream | None) -> tuple[str, ...]:
        """The artifacts a step writes."""
        return tuple(name for t in step.outputs for name in self.expand(t, upstream))

    def expand(self, template: str, upstream: Upstream | None) -> Iterator[str]:
        """Artifact names of a template, for one upstream (all that make it, when None)."""
        if "{t}" in template:
            yield from (template.replace("{t}", name) for name in self.tables)
            return
        if "{u}" not in template:
            for entity in _entities(template, ENTITIES):
                yield template.replace("{e}", entity)
            return
        for u in (upstream,) if upstream else self._makers(template):
            for entity in _entities(template, self.upstream(u).entities):
                yield template.replace("{u}", u).replace("{e}", entity)

    def producer(self, artifact: str) -> tuple[Step, Upstream | None]:
        """The step, and its upstream, that writes an artifact.

        Raises:
            KeyError: no step does.
        """
        for step in self.steps:
            for upstream in self.upstreams_of(step):
                if artifact in self.outputs_of(step, upstream):
                    return step, upstream
        raise KeyError(artifact)

    def makes(self, artifact: str) -> bool:
        """Whether a step of this pipeline writes an artifact."""
        return any(
            artifact in self.outputs_of(step, upstream)
            for step in self.steps
            for upstream in self.upstreams_of(step)
        )

    def _makers(self, template: str) -> tuple[Upstream, ...]:
        only_published = any(s.published for s in self.steps if template in s.outputs)
        return self.published if only_published else self.names


def pipeline_of(home: Home) -> Pipeline:
    """The pipeline of a home's days."""
    return Pipeline(upstreams=home.upstreams, steps=steps_for(home.dataset), tables=home.tables)


def _entities(template: str, entities: tuple[Entity, ...]) -> tuple[str, ...]:
    return entities if "{e}" in template else ("",)
