"""Take users or Pins out of the id tables that are served, in every version."""

from collections.abc import Sequence

from feature_store.contracts.base import Entity
from feature_store.contracts.errors import StoreError
from feature_store.contracts.hashing import key_of
from feature_store.tables.forgetting import forget_ids
from feature_store.tables.manifest import known_versions, read_version
from jobs.services import tables
from jobs.settings import Settings

_WITHIN_S = 30.0


def forget_served(
    settings: Settings, entity: Entity, ids: Sequence[str]
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Zero the rows of ids in every version, and wait until no shard serves the old ones.

    Returns:
        Rows removed, by version and table; and what could not be seen here, a sentence each.

    Raises:
        DamagedFile: a version is damaged, or an id is found again.
    """
    root = settings.paths.tables
    versions = known_versions(root)
    if not versions:
        return {}, ()
    done = forget_ids(root, key_of(ids), entity)
    found = {f"tables/{d.version}/{d.table}": d.rows for d in done}
    client = tables.open_tables(settings, read_version(root, versions[-1]).shards)
    try:
        # An attempt before this one may have been killed before the shards had read the new files.
        tables.await_revisions(root, client, versions, _WITHIN_S)
    except StoreError as error:
        return found, (f"shards of the id tables: {error.what}, {error.found}",)
    finally:
        client.close()
    return found, ()
