"""`derm tables`: serve id tables from shards, publish a version of them, go back, look."""

import argparse
import json
import logging
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from feature_store.contracts.errors import InputError, StoreError
from feature_store.tables.address import Address
from feature_store.tables.ledger import FileLedger
from feature_store.tables.manifest import known_versions
from feature_store.tables.server import ShardServer
from jobs.console import out
from jobs.rendering.exposition import write_exposition
from jobs.rendering.table_metrics import table_exposition
from jobs.services import tables
from jobs.settings import Settings

log = logging.getLogger("derm")

_ACTIONS = ("serve", "publish", "rollback", "status")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm tables`."""
    parser.add_argument(
        "action",
        choices=_ACTIONS,
        help="serve: start the shards; publish: make VERSION live on all of them; rollback: the "
        "version before; status: what each shard holds",
    )
    parser.add_argument("version", nargs="?", help="of publish: a folder below tables/ of the home")
    parser.add_argument("--shard", type=int, help="of serve: this one, in this process")
    parser.add_argument("--shards", type=int, help="of serve: how many; default: as the version")
    parser.add_argument("--listen", metavar="ADDRESS", help="unix:///a/path or tcp://host:port")
    parser.add_argument(
        "--within", type=float, default=600.0, help="seconds for every shard to read a version"
    )
    parser.add_argument("--metrics", type=Path, help="of status: write Prometheus text here too")


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Do what was asked for.

    Raises:
        InputError: an argument is missing, or none of this action's.
    """
    if (args.action == "publish") != (args.version is not None):
        raise InputError(
            "publish has a version, and nothing else has one",
            found=f"{args.action} {args.version or ''}".strip(),
            hint="derm tables publish VERSION; there are: "
            + (" ".join(known_versions(settings.paths.tables)) or "none"),
        )
    if args.action == "serve":
        return _serve(args, settings)
    client = tables.open_tables(settings, tables.shards_of(settings))
    try:
        if args.action == "status":
            return _status(args, settings, client.statuses())
        root = settings.paths.tables
        if args.action == "publish":
            served = tables.publish(root, client, args.version, within_s=args.within, said=log.info)
        else:
            served = tables.roll_back(root, client, within_s=args.within, said=log.info)
    finally:
        client.close()
    if args.json:
        found = {**asdict(served), "pointer": served.pointer.model_dump()}
        out(json.dumps(found))
    else:
        out(f"{served.pointer.version} is live, after {served.seconds:.1f} s")
        out(f"before: {served.pointer.previous or 'nothing'}; back again: derm tables rollback")
        for shard in served.silent:
            out(f"shard {shard} has not answered; it finds what is live when it is back")
    return 0


def _serve(args: argparse.Namespace, settings: Settings) -> int:
    shards = args.shards or tables.shards_of(settings)
    if args.shard is None:
        if args.listen:
            raise InputError("an address is for one shard", expected="--shard N --listen ADDRESS")
        said = tables.start_shards(settings, shards)
        _say(args, said)
        return 0
    if not 0 <= args.shard < shards:
        raise InputError("there is no such shard", expected=f"0 to {shards - 1}", found=args.shard)
    named = Address.parse(args.listen) if args.listen else None
    address = named or tables.addresses(settings, shards)[args.shard]
    token = settings.table_token.get_secret_value()
    if not token and not address.is_private:
        raise InputError(
            "whoever reaches this address could change what is live",
            where=str(address),
            hint="set DERM_TABLE_TOKEN to a secret, the same for shards and publishers",
        )

    def report(status: dict[str, Any]) -> None:
        text = table_exposition({args.shard: status}, time.time())
        write_exposition(settings.paths.shard_metrics(args.shard), text)

    server = ShardServer(
        settings.paths.tables, args.shard, shards, address, token=token, report=report
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    log.info("shard %d of %d serves %s at %s", args.shard, shards, settings.paths.tables, address)
    server.run()
    return 0


def _status(
    args: argparse.Namespace, settings: Settings, statuses: list[dict[str, Any] | StoreError]
) -> int:
    """What is live and what each shard holds; exit code 1 when one is silent or behind."""
    if args.metrics:
        write_exposition(args.metrics, table_exposition(dict(enumerate(statuses)), time.time()))
    _say(args, statuses)
    pointer = FileLedger(settings.paths.tables).pointer()
    if not args.json:
        out(f"live: {pointer.version if pointer else 'nothing'}")
        out("versions: " + " ".join(known_versions(settings.paths.tables)))
    whole = all(
        isinstance(s, dict)
        and (pointer is None or s["versions"].get(pointer.version, {}).get("state") == "live")
        for s in statuses
    )
    return 0 if whole else 1


def _say(args: argparse.Namespace, statuses: "list[Any]") -> None:
    if args.json:
        shown = [s if isinstance(s, dict) else {"error": str(s)} for s in statuses]
        out(json.dumps({"shards": shown}))
        return
    for shard, status in enumerate(statuses):
        if isinstance(status, StoreError):
            out(f"shard {shard}: {status}")
            continue
        held = ", ".join(f"{v} {h['state']}" for v, h in status["versions"].items()) or "nothing"
        counts = status["counts"]
        out(f"shard {shard}: {held}; {counts['requests']} requests, {counts['rows']} rows")
        for version, h in status["versions"].items():
            if h["error"]:
                out(f"  {version}: {h['error']}")
