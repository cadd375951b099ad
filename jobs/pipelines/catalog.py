"""The steps of a home's days, the upstreams and rankers they run for, and who makes what."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby

from feature_store.contracts.artifacts import Events, Graph, Pool, Reference, Rows
from feature_store.contracts.base import ENTITIES, Upstream
from feature_store.contracts.errors import InputError
from feature_store.contracts.rankers import Ranker, RankerDeclaration
from feature_store.contracts.upstreams import UpstreamDeclaration
from jobs.pipelines import daily, ranking
from jobs.pipelines.declarations import Read, Stage, Step
from jobs.settings import Home
from simulator.market.config import WORLDS


def step(name: str) -> Step:
    """The step called `name`.

    Raises:
        KeyError: there is none.
    """
    for candidate in every_step():
        if candidate.name == name:
            return candidate
    raise KeyError(name)


def every_step() -> tuple[Step, ...]:
    """The steps of a day, then those of its rankers."""
    return (*daily.STEPS, *ranking.STEPS)


def steps_for(dataset: str) -> tuple[Step, ...]:
    """The steps a data set needs: real data is not simulated."""
    return tuple(s for s in daily.STEPS if s.name != "simulate" or dataset in WORLDS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pipeline:
    """The steps of a day, and the upstreams they run for.

    Attributes:
        upstreams: in the order in which they are shown and run.
        steps: of the day that ends with its release, and that no ranker holds up; those that none
            of the upstreams needs are left out.
        rankers: what reads the released vectors, a step of `ranking` after the other.
        tables: of a day, beside events, users and Pins.
    """

    upstreams: tuple[UpstreamDeclaration, ...]
    steps: tuple[Step, ...] = field(default_factory=lambda: daily.STEPS)
    rankers: tuple[RankerDeclaration, ...] = ()
    ranking: tuple[Step, ...] = field(default_factory=lambda: ranking.STEPS)
    tables: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        read = {None, *(u.reads for u in self.upstreams)}
        needed = tuple(s for s in self.steps if s.needed_by in read)
        object.__setattr__(self, "steps", needed)

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

    def ranker(self, name: Ranker) -> RankerDeclaration:
        """The declaration of a ranker.

        Raises:
            InputError: none has that name.
        """
        for declared in self.rankers:
            if declared.name == name:
                return declared
        names = " | ".join(r.name for r in self.rankers) or "none: the home declares no ranker"
        raise InputError("there is no such ranker", expected=names, found=name)

    def is_ranker(self, name: Upstream | None) -> bool:
        """Whether a name is that of a ranker."""
        return any(r.name == name for r in self.rankers)

    def upstreams_of(
        self, step: Step, asked: Upstream | None = None
    ) -> tuple[Upstream | None, ...]:
        """The upstreams, or the rankers, a step runs for: the one asked for, all, or None once.

        Raises:
            InputError: none has the name that was asked for.
        """
        if step.per_ranker:
            if asked:
                self.ranker(asked)
            return tuple(r.name for r in self.rankers if asked in (None, r.name))
        if asked:
            self.upstream(asked)
        if not step.per_upstream:
            return (None,)
        mine = self.published if step.published else self.names
        if step.needed_by:
            mine = tuple(u for u in mine if self.upstream(u).reads == step.needed_by)
        return tuple(u for u in mine if asked in (None, u))

    def steps_of(self, *stages: Stage) -> tuple[Step, ...]:
        """The steps of some stages, in the order of the catalog."""
        return tuple(s for s in self.steps if s.stage in stages)

    def in_order(self, *stages: Stage) -> Iterator[tuple[Step, Upstream | None]]:
        """The steps of some stages as they run: those of an upstream together, then the next's."""
        for per_upstream, group in groupby(self.steps_of(*stages), lambda s: s.per_upstream):
            steps = tuple(group)
            for upstream in self.names if per_upstream else (None,):
                yield from ((s, upstream) for s in steps if upstream in self.upstreams_of(s))

    def inputs_of(
        self, step: Step, upstream: Upstream | None
    ) -> tuple[tuple[Read, Reference], ...]:
        """What a step reads: each read of the catalog with the artifact it is of."""
        refs = [(ref, found) for ref in step.inputs for found in self.expand(ref.what, upstream)]
        if upstream and step.learns and self.upstream(upstream).reads != "edges":
            refs += self._rested(step, upstream)
        if upstream and step.per_ranker:
            return (*refs, *(self._joined(upstream) if step.reads_pools != "never" else ()))
        if upstream and step.reads_history:
            refs += self._looked_back_on(upstream)
        if upstream and step.reads_graph and self.upstream(upstream).reads == "edges":
            refs.append((Read(Graph()), Graph()))
        if upstream and step.reads_pools != "never":
            continued = step.reads_pools == "unless from scratch"
            ref = Read(Pool(), offset=-1, optional=True, continued=continued)
            for other in self.upstream(upstream).pools:
                refs += [(ref, found) for found in self.expand(ref.what, other)]
        return tuple(refs)

    def _joined(self, ranker: Ranker) -> tuple[tuple[Read, Reference], ...]:
        """The pools that a ranker's day is joined with."""
        declared = self.ranker(ranker)
        ref = Read(Pool(), offset=-declared.lag, optional=declared.lag > 0)
        return tuple((ref, found) for u in declared.pools for found in self.expand(ref.what, u))

    def _rested(self, step: Step, upstream: Upstream) -> list[tuple[Read, Reference]]:
        """What a step reads of the days since the upstream last learned."""
        every_day = [ref for ref in step.inputs if ref.what not in step.outputs]
        return [
            (replace(ref, offset=ref.offset - back, optional=True, continued=True), found)
            for back in range(1, self.upstream(upstream).every_days)
            for ref in every_day
            for found in self.expand(ref.what, upstream)
        ]

    def _looked_back_on(self, upstream: Upstream) -> list[tuple[Read, Reference]]:
        """The events before the day that an upstream reads."""
        days = self.upstream(upstream).history_days
        return [(Read(Events(), offset=-back, history=True), Events()) for back in range(1, days)]

    def outputs_of(self, step: Step, upstream: Upstream | None) -> tuple[Reference, ...]:
        """The artifacts a step writes."""
        return tuple(found for what in step.outputs for found in self.expand(what, upstream))

    def expand(self, what: Reference, upstream: Upstream | None) -> Iterator[Reference]:
        """What a reference stands for, for one upstream (all that make it, when None)."""
        if what.per_ranker:
            rankers = (upstream,) if upstream else tuple(r.name for r in self.rankers)
            yield from (what.of_ranker(ranker) for ranker in rankers)
            return
        if what == Rows():
            yield from (Rows(name) for name in self.tables)
            return
        if not what.per_upstream:
            yield from what.of(None, ENTITIES)
            return
        for u in (upstream,) if upstream else self._makers(what):
            if what.read_by not in ("", self.upstream(u).reads):
                continue
            yield from what.of(u, self.upstream(u).entities)

    def producer(self, artifact: Reference) -> tuple[Step, Upstream | None]:
        """The step, and its upstream, that writes an artifact.

        Raises:
            KeyError: no step does.
        """
        for step in (*self.steps, *self.ranking):
            for upstream in self.upstreams_of(step):
                if artifact in self.outputs_of(step, upstream):
                    return step, upstream
        raise KeyError(artifact)

    def makes(self, artifact: Reference) -> bool:
        """Whether a step of this pipeline writes an artifact."""
        return any(
            artifact in self.outputs_of(step, upstream)
            for step in (*self.steps, *self.ranking)
            for upstream in self.upstreams_of(step)
        )

    def _makers(self, what: Reference) -> tuple[Upstream, ...]:
        only_published = any(s.published for s in self.steps if what in s.outputs)
        return self.published if only_published else self.names


def pipeline_of(home: Home) -> Pipeline:
    """The pipeline of a home's days."""
    return Pipeline(
        upstreams=home.upstreams,
        steps=steps_for(home.dataset),
        rankers=home.rankers,
        tables=home.tables,
    )
