"""`derm get`: one user from the online store, or one Pin from the index, as a ranker sees it."""

import argparse
import json

import numpy as np

from feature_store.client.client import FeatureClient
from feature_store.contracts.base import Upstream
from feature_store.contracts.errors import MissingInput
from jobs.console import out
from jobs.pipelines import catalog
from jobs.services.redis import ensure_redis
from jobs.settings import Home, Settings

_SHOWN = 8
_TIMEOUT_S = 5.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm get`."""
    parser.add_argument("entity", choices=("user", "pin"), help="what kind of id it is")
    parser.add_argument("id", help="the id")
    parser.add_argument("--upstream", metavar="NAME", help="default: the first published one")


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Print the embedding; exit code 2 when the id is not published."""
    client = open_client(settings, args.upstream)
    read = client.get_users if args.entity == "user" else client.get_pins
    vectors, found = read([args.id])
    if not found[0]:
        raise _absent(client, args.entity, args.id)
    vector, release = vectors[0], client.release
    if args.json:
        body = {"release": release.release_id, "ds": release.ds, "vector": vector.tolist()}
        out(json.dumps({args.entity: args.id, "upstream": client.upstream, **body}))
    else:
        shown = " ".join(f"{x:+.4f}" for x in vector[:_SHOWN])
        more = f" ... ({len(vector)} values)" if len(vector) > _SHOWN else ""
        norm = float(np.linalg.norm(vector))
        out(f"{args.entity} {args.id}  {client.upstream}  release {release.release_id}")
        out(f"norm {norm:.4f}  {shown}{more}")
    return 0


def open_client(settings: Settings, upstream: Upstream | None) -> FeatureClient:
    """A client of this home's online store and index, for its first published upstream by default.

    Raises:
        InputError: there is no such upstream, or no home; none is made.
    """
    pipeline = catalog.pipeline_of(Home.load(settings.home))
    upstream = pipeline.upstream(upstream or pipeline.published[0]).name
    url = ensure_redis(settings)
    return FeatureClient(url, upstream=upstream, home=settings.home, timeout_s=_TIMEOUT_S)


def _absent(client: FeatureClient, entity: str, entity_id: str) -> MissingInput:
    return MissingInput(
        f"{entity} {entity_id} is not published",
        where=f"release {client.release.release_id}, upstream {client.upstream}",
        hint=f"unknown, or no activity within the retention window of the {entity} pool",
    )
