"""Whether what a step recorded is still there, as it was recorded: existence, size, lineage.

Cheap enough to be asked before anything is called current or built on: a table's log, and the
sizes of its files. Content is checked where it is read (`feature_store.lake.content`,
`SnapshotStore.read`), all of it by `derm verify`.
"""

from collections.abc import Iterable
from pathlib import Path

from feature_store.contracts.errors import ContractViolation, DamagedFile, MissingInput
from feature_store.contracts.manifests import Artifact
from jobs.engine.context import RunContext


def check(ctx: RunContext, inputs: Iterable[Artifact]) -> None:
    """Refuse to build on partitions that are not what their steps recorded.

    Raises:
        DamagedFile: naming the first one, and the command that makes it again.
    """
    for artifact in inputs:
        if artifact.table and (found := _written_by(ctx, artifact)):
            raise DamagedFile(
                f"{artifact.name} of {artifact.ds} is not what its step recorded",
                where=ctx.lake.path(artifact.table),
                expected=f"rows with digest {artifact.digest}",
                found=found,
                hint=remedy(ctx, artifact),
            )


def problem(ctx: RunContext, artifact: Artifact) -> str:
    """What is wrong with an artifact that a step recorded; empty when nothing is.

    What retention has removed is not missed; what is in the online store is for the audit.
    """
    if artifact.dropped or not artifact.reference.below_home:
        return ""
    if artifact.table:
        return _written_by(ctx, artifact) or _absent(ctx, artifact)
    if not artifact.uri:
        return ""
    path = ctx.root / artifact.uri
    if not path.exists():
        return f"{artifact.uri} is gone"
    if artifact.size and (found := bytes_in(path)) != artifact.size:
        return f"{artifact.uri} has {found:,} bytes, and had {artifact.size:,}"
    return ""


def remedy(ctx: RunContext, artifact: Artifact) -> str:
    """The command that makes an artifact again."""
    step, upstream = ctx.pipeline.producer(artifact.reference)
    suffix = f" --upstream {upstream}" if upstream else ""
    return f"derm {step.name} --ds {artifact.ds}{suffix} --force"


def bytes_in(path: Path) -> int:
    """Bytes of a file, or of the files directly in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(f.stat().st_size for f in path.iterdir() if f.is_file())


def _written_by(ctx: RunContext, artifact: Artifact) -> str:
    """Who else wrote a partition since, as far as its log tells; empty when nobody did."""
    try:
        found = ctx.lake.artifact(artifact.table, artifact.ds)
    except MissingInput as error:
        return error.what
    except ContractViolation as error:
        return f"{error.what}: {error.found}"
    if found.digest != artifact.digest:
        return f"rows with digest {found.digest}: the partition was written by something else since"
    return ""


def _absent(ctx: RunContext, artifact: Artifact) -> str:
    files = ctx.lake.absent(artifact.table, artifact.ds)
    return f"gone or cut short: {' '.join(files)}" if files else ""
