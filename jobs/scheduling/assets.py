"""What other DAGs may wait for, as data: names, and what is said of each when it was made.

Imports nothing of Airflow.
"""

from pathlib import Path

from feature_store.contracts.artifacts import Reference
from feature_store.contracts.errors import DermError
from jobs.engine.manifests import ManifestStore
from jobs.paths import HomePaths
from jobs.pipelines.catalog import Pipeline, pipeline_of
from jobs.settings import Home


def uri(artifact: Reference) -> str:
    """Its address as an asset."""
    return f"x-derm://{artifact.replace(':', '/')}"


def description(pipeline: Pipeline, artifact: Reference) -> dict[str, str]:
    """What is always true of an artifact: who writes it, what it is, how it is read."""
    step, upstream = pipeline.producer(artifact)
    said = {"step": step.name, "made by": f"derm {step.name} --ds DAY", "what": step.summary}
    if upstream:
        said["upstream"] = upstream
    if artifact.table:
        said["table"] = f"{artifact.table}, partition ds=DAY of the lake"
    return said


def metadata(home: Path, artifact: Reference, ds: str) -> dict[str, str | int]:
    """What was made: day, rows, bytes, digest.

    Args:
        ds: the day; empty for the day that readers see, which a repair ends with.

    Raises:
        OSError, LookupError, ValueError: it is not on record.
    """
    if not ds:
        ds = HomePaths(home).pointer.read_text()[:10]
    try:
        step, upstream = pipeline_of(Home.load(home)).producer(artifact)
        manifest = ManifestStore(HomePaths(home).manifests).get(step.name, ds, upstream)
    except DermError as error:
        raise LookupError(str(error)) from error
    if manifest is None:
        raise LookupError(f"{artifact} of {ds}")
    made = manifest.output(artifact)
    return {
        "ds": ds,
        "rows": made.rows,
        "bytes": made.size,
        "digest": made.digest,
        "uri": made.uri,
        "made_at": manifest.finished_at,
    }
