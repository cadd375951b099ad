"""What a step gets: its day, its inputs, and where things are."""

import dataclasses
import logging
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from feature_store.contracts.artifacts import Reference
from feature_store.contracts.base import Entity, Upstream, days_between, shift_day
from feature_store.contracts.datasets import DatasetSpec
from feature_store.contracts.digests import content_digest
from feature_store.contracts.errors import InputError, MissingInput
from feature_store.contracts.manifests import Acceptance, Artifact, Metrics
from feature_store.contracts.upstreams import UpstreamDeclaration
from feature_store.lake.lake import Lake
from feature_store.reading.counts import Counting
from feature_store.reading.pools import PoolInput
from jobs.engine.code import code_digest
from jobs.engine.manifests import ManifestStore
from jobs.engine.spaces import Spaces
from jobs.paths import HomePaths
from jobs.pipelines import catalog
from jobs.pipelines.declarations import Read, Step
from jobs.recipes import Recipe
from jobs.settings import Home, Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a step hands back: artifacts written, numbers measured, seconds by phase.

    Attributes:
        accepted: numbers outside their bounds that it let pass, because a person had.
        device: what it computed on.
        also_read: inputs that only the work itself could choose (`Ref.chosen`).
    """

    outputs: tuple[Artifact, ...]
    metrics: Metrics = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    accepted: tuple[Acceptance, ...] = ()
    device: str = "cpu"
    also_read: tuple[Artifact, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class RunContext:
    """One step of one day. `upstream` is None for steps that serve all of them.

    Attributes:
        recipe: the home's; what an upstream has of its own is in `own_recipe`.
        spec: the data set, with the upstreams that the recipe adds.
        force: what is there already is not to be built on, or taken as the result.
        repair: the repair that it is part of: what an interrupted attempt of the same repair has
            left is built on, although forced.
    """

    settings: Settings
    home: Home
    recipe: Recipe
    spec: DatasetSpec
    lake: Lake
    manifests: ManifestStore
    ds: str
    upstream: Upstream | None
    log: logging.Logger
    spaces: Spaces = field(default_factory=Spaces)
    force: bool = False
    repair: str = ""

    @property
    def root(self) -> Path:
        """Root of everything a run writes."""
        return self.settings.home

    @property
    def paths(self) -> HomePaths:
        """Where everything of the home is."""
        return self.settings.paths

    @property
    def pipeline(self) -> catalog.Pipeline:
        """The steps of the home's days, and the upstreams they run for."""
        return catalog.pipeline_of(self.home)

    @property
    def own_upstream(self) -> Upstream:
        """The upstream that the step runs for.

        Raises:
            InputError: it was started without one.
        """
        if self.upstream is None:
            raise InputError(
                "this step runs for one upstream",
                expected=" | ".join(self.pipeline.names),
                found="none",
            )
        return self.upstream

    @property
    def own_entities(self) -> tuple[Entity, ...]:
        """What the upstream of the step embeds.

        Raises:
            InputError: the step was started without an upstream.
        """
        return self._own_declaration.entities

    @property
    def reads_rows(self) -> bool:
        """Whether the upstream of the step learns from rows of events, which have labels."""
        return self._own_declaration.reads == "rows"

    @property
    def _own_declaration(self) -> UpstreamDeclaration:
        return self.pipeline.upstream(self.own_upstream)

    @property
    def own_recipe(self) -> Recipe:
        """The recipe as the upstream of the step has it."""
        return (
            self.recipe.of(self.pipeline.upstream(self.upstream)) if self.upstream else self.recipe
        )

    def recipe_digest(self, step: Step) -> str:
        """Digest of the part of the recipe, and of the seed, that a step's result depends on."""
        digest = self.own_recipe.digest(step.recipe_parts)
        return content_digest(digest, str(self.home.seed)) if step.seeded else digest

    def code_digest(self, step: Step) -> str:
        """Digest of the code that decides what a step writes."""
        family = self._own_declaration.family if self.upstream else ""
        return code_digest(step.name, self.home.dataset, self.root, family)

    @property
    def counting(self) -> Counting:
        """How counts become features here."""
        return Counting(smoothing=self.recipe.counting.smoothing, first_ds=self.home.first_ds)

    @property
    def is_first_day(self) -> bool:
        """Whether the pipeline starts with this day, so that there is no yesterday."""
        return self.ds <= self.home.start_ds

    def at(self, ds: str) -> "RunContext":
        """The same for another day."""
        return dataclasses.replace(self, ds=ds)

    def has_previous(self, what: Reference) -> bool:
        """Whether an artifact continues yesterday's: not on the first day, nor in a new space."""
        if what.begins == "data":
            return self.ds > self.home.first_ds
        anew = {"training": self.spaces.trained, "pools": self.spaces.pooled}
        return not self.is_first_day and self.ds not in anew.get(what.begins, ())

    @property
    def begins_a_space(self) -> bool:
        """Whether the day's models are trained from scratch."""
        return self.is_first_day or self.ds in self.spaces.trained

    @property
    def rests(self) -> bool:
        """Whether the step's upstream neither learns nor embeds on the day (`every_days`)."""
        anchor = max([self.home.start_ds, *(d for d in self.spaces.trained if d <= self.ds)])
        return (len(days_between(anchor, self.ds)) - 1) % self._own_declaration.every_days > 0

    def is_read(self, ref: Read, what: Reference) -> bool:
        """Whether there is the artifact that a step's reference names."""
        if ref.history:
            return shift_day(self.ds, ref.offset) >= self.home.first_ds
        if ref.continued and (self.begins_a_space or self.rests):
            return False
        return self.has_previous(what) if ref.optional else self.pipeline.makes(what)

    @property
    def pool_inputs(self) -> tuple[PoolInput, ...]:
        """The pools that the step's upstream reads as features, from where the space begins on."""
        since = max([self.home.start_ds, *(d for d in self.spaces.pooled if d <= self.ds)])
        read = [self.pipeline.upstream(name) for name in self._own_declaration.pools]
        return tuple(
            PoolInput(
                upstream=other.name,
                entity=entity,
                dim=self.recipe.of(other).model.embedding_dim,
                since=since,
            )
            for other in read
            for entity in other.entities
        )

    def artifact(self, what: Reference, offset: int = 0) -> Artifact:
        """An artifact as its producer's manifest records it.

        Raises:
            MissingInput: its producer has not finished on that day.
        """
        ds = shift_day(self.ds, offset)
        step, upstream = self.pipeline.producer(what)
        manifest = self.manifests.get(step.name, ds, upstream)
        if manifest is None:
            first = self._first_missing(step, ds, upstream)
            raise MissingInput(
                f"{what} of {ds} is not there",
                where=str(self.manifests.path(step.name, ds, upstream)),
                expected=f"step {step.name} finished for {ds}",
                found=f"no manifest; the first that is missing: {' '.join(filter(None, first))}",
                hint=_command(first, ds, step.name),
            )
        return manifest.output(what)

    def previous(self, what: Reference) -> Artifact | None:
        """Yesterday's artifact, None on the first day of the pipeline or of a new space.

        Raises:
            MissingInput: there should be one, and yesterday has not finished.
        """
        return self.artifact(what, -1) if self.has_previous(what) else None

    def _first_missing(
        self, step: Step, ds: str, upstream: Upstream | None
    ) -> tuple[str, Upstream | None, str]:
        """The step to begin with, its upstream and day: nothing that it reads is missing."""
        while makers := list(self.at(ds)._missing_makers(step, upstream)):
            step, upstream, ds = min(makers, key=operator.itemgetter(2))
        return step.name, upstream, ds

    def _missing_makers(
        self, step: Step, upstream: Upstream | None
    ) -> Iterator[tuple[Step, Upstream | None, str]]:
        """What makes the inputs of a step of this day, and has not finished."""
        view = dataclasses.replace(self, upstream=upstream)
        for ref, name in self.pipeline.inputs_of(step, upstream):
            if ref.chosen or not self.pipeline.makes(name) or not view.is_read(ref, name):
                continue
            maker, own = self.pipeline.producer(name)
            ds = shift_day(self.ds, ref.offset)
            if not self.manifests.path(maker.name, ds, own).exists():
                yield maker, own, ds


def _command(first: tuple[str, Upstream | None, str], ds: str, step: str) -> str:
    """What makes a step of a day, from the first step that is missing on."""
    name, upstream, day = first
    if (name, day) != (step, ds):
        return f"derm run --from {day} --to {ds}"
    return f"derm {name} --ds {ds}" + (f" --upstream {upstream}" if upstream else "")
