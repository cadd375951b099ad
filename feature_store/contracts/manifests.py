"""Manifests: what a step read, what it wrote, what it measured."""

from typing import Literal

from pydantic import Field

from feature_store.contracts.artifacts import Reference, reference
from feature_store.contracts.base import Contract, Day, Upstream

Metrics = dict[str, float | int | str | None]


class Artifact(Contract):
    """One day of something: a table partition, a snapshot, a published copy.

    Attributes:
        name: as a reference of `feature_store.contracts.artifacts` is written.
        digest: of the content, so that equal content has equal digests wherever it was made.
        rows: rows (or vectors, or keys) it holds.
        size: bytes it holds.
        uri: where it is.
        dropped: whether retention has removed it since.
    """

    name: str
    ds: Day
    digest: str
    rows: int = 0
    size: int = 0
    uri: str = ""
    dropped: bool = False

    @property
    def reference(self) -> Reference:
        """What the name says."""
        return reference(self.name)

    @property
    def table(self) -> str:
        """The table of the lake that it is a partition of; empty when it is none."""
        return self.reference.table


class Acceptance(Contract):
    """A number that a guard refused, and a person let pass: one day, one guard.

    Attributes:
        guard: `<step>.<number>`.
        upstream: the model it was refused for; None where the step serves all.
        found: the number that was refused; one further from the bound is refused again.
        least: whether the bound is the lowest that passes; else it is the highest.
        at: when it was accepted, UTC.
    """

    ds: Day
    guard: str
    upstream: Upstream | None
    found: float
    bound: float
    least: bool
    reason: str
    at: str

    def covers(self, found: float) -> bool:
        """Whether a number is no further from the bound than the one that was looked at."""
        return found >= self.found if self.least else found <= self.found


class MadeOn(Contract):
    """What decides the last bits of a result beside its inputs; recorded, and not compared.

    Attributes:
        cpu: model, and the widest vectors it has.
        device: what torch computed on.
        threads, processes: of one step; 0 threads are as many as there are cores.
        libraries: their versions.
    """

    cpu: str
    device: str
    threads: int
    processes: int
    libraries: dict[str, str]


class StepManifest(Contract):
    """The record of one finished step of one day. A step without a manifest never finished.

    Attributes:
        recipe: digest of the part of the configuration, and of the seed, that the step depends on.
        code: digest of the code that decides what it writes.
        made_on: the machine, as far as it decides bits.
        timings: seconds by phase.
        accepted: numbers outside their bounds that the step let pass, because a person had.
    """

    step: str
    ds: Day
    upstream: Upstream | None = None
    inputs: tuple[Artifact, ...] = ()
    outputs: tuple[Artifact, ...] = ()
    metrics: Metrics = Field(default_factory=dict)
    recipe: str = ""
    code: str = ""
    made_on: MadeOn | None = None
    started_at: str
    finished_at: str
    duration_s: float
    timings: dict[str, float] = Field(default_factory=dict)
    accepted: tuple[Acceptance, ...] = ()

    def output(self, name: str) -> Artifact:
        """The output called `name`.

        Raises:
            KeyError: the step wrote no such thing.
        """
        for artifact in self.outputs:
            if artifact.name == name:
                return artifact
        raise KeyError(f"step {self.step} of {self.ds} has no output {name!r}")


class SnapshotManifest(Contract):
    """A trained model: its lineage and what it has seen.

    Attributes:
        snapshot_id: day + digest of recipe, parent and training data.
        space_id: the snapshot id of the from-scratch training that began the lineage.
        parent_id: the snapshot it continued from; None for a from-scratch training.
        seen_days: every day it was trained on, oldest first.
        files: name -> digest of each file beside the manifest.
    """

    snapshot_id: str
    space_id: str
    parent_id: str | None
    upstream: Upstream
    ds: Day
    seen_days: tuple[Day, ...]
    embedding_dim: int
    recipe: str
    metrics: Metrics = Field(default_factory=dict)
    files: dict[str, str]


class PublishedUpstream(Contract):
    """Where the published vectors of one upstream are.

    Attributes:
        slot: which of the two Redis slots (`a`, `b`) holds the users of this release.
        users_prefix: prefix of every user key of this release.
        index_path: folder of the Pin index, relative to the home.
    """

    upstream: Upstream
    space_id: str
    dim: int
    dtype: Literal["float16", "float32"]
    slot: Literal["a", "b"]
    users_prefix: str
    users: int
    pool_digest: str
    index_path: str
    index_digest: str
    pins: int


class Release(Contract):
    """What online systems see: one complete day. A pointer names the current release."""

    release_id: str
    ds: Day
    upstreams: tuple[PublishedUpstream, ...]
    previous: str | None = None
