"""Where everything of a home is. Nobody else joins paths below a home."""

from pathlib import Path

from feature_store.contracts.base import Upstream


class HomePaths:
    """The files and folders of a home.

    What is here is private to its owner; `metrics` alone may be read by a collector.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        # What the home is, and what happened to it.
        self.declaration = root / "home.json"
        self.spaces = root / "spaces.json"
        self.kept = root / "kept.json"
        self.backfill = root / "backfill.json"
        self.deletion = root / "forgotten" / "begun.json"
        self.forgotten = root / "forgotten"
        self.repairs = root / "repairs"
        # What steps recorded and wrote.
        self.lake = root / "lake"
        self.manifests = root / "manifests"
        self.attempts = root / "attempts"
        self.indexes = root / "index"
        self.tables = root / "tables"
        self.releases = root / "releases"
        self.pointer = root / "releases" / "current"
        self.store_record = root / "releases" / "store"
        self.sources = root / "sources"
        self.source = root / "source"
        # What people look at.
        self.report = root / "report"
        self.page = root / "report" / "index.html"
        self.probe = root / "probe.json"
        self.metrics = root / "metrics" / "derm.prom"
        self.tracking = root / "tracking"
        # What may be removed while nothing runs.
        self.scratch = root / "scratch"
        self.tmp = root / "tmp"
        self.services = root / "services"
        self.airflow = root / "services" / "airflow"
        self.postgres = root / "services" / "airflow" / "postgres"
        self.redis = root / "services" / "redis"
        self.warm_socket = root / "services" / "warm" / "socket"
        self.table_sockets = root / "services" / "tables"
        self.code = root / "services" / "code.json"
        self.pipeline_lock = root / "services" / "pipeline.lock"

    def snapshots(self, upstream: Upstream) -> Path:
        """The folder of an upstream's snapshots."""
        return self.root / "snapshots" / upstream

    def ranker(self, kind: str, name: str) -> Path:
        """The folder of what a ranker's steps make: weights, scores, calibrations or exports."""
        return self.root / "rankers" / kind / name

    def ranker_pointer(self, name: str) -> Path:
        """What names the current export of a ranker."""
        return self.ranker("exports", name) / "current"

    def shard_metrics(self, shard: int) -> Path:
        """What a shard of the id tables says of itself, for a collector."""
        return self.metrics.with_name(f"table_shard_{shard}.prom")

    def index(self, upstream: Upstream, identity: str) -> Path:
        """The folder of a Pin index."""
        return self.indexes / upstream / identity

    def release(self, release_id: str) -> Path:
        """The record of a release."""
        return self.releases / f"{release_id}.json"

    def accepted(self, ds: str) -> Path:
        """What a person has let pass of a day."""
        return self.root / "accepted" / f"{ds}.json"

    def skipped(self, ds: str) -> Path:
        """That a day's events will never come."""
        return self.root / "skipped" / f"{ds}.json"

    def attempt(self, ds: str, name: str) -> Path:
        """The record of a step at work, or of one that ended badly."""
        return self.attempts / ds / f"{name.replace(' ', '.')}.json"

    def step_lock(self, name: str) -> Path:
        """What keeps a step of a day from running twice at once."""
        return self.services / "steps" / f"{name.replace(' ', '.')}.lock"

    def publish_lock(self, upstream: Upstream) -> Path:
        """What keeps two days from writing the slots of an upstream at once."""
        return self.services / f"publish.{upstream}.lock"

    def uri(self, path: Path) -> str:
        """A path as manifests and releases record it: relative to the home."""
        return path.relative_to(self.root).as_posix()
