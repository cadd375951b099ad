"""`derm search`: the Pins nearest to a user, from the current index."""

import argparse
import json

from feature_store.contracts.base import UPSTREAMS
from feature_store.contracts.errors import InputError
from jobs.cli import out
from jobs.get import open_client
from jobs.settings import Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm search`."""
    parser.add_argument("--user", required=True, help="whose Pins")
    parser.add_argument("-k", type=int, default=10, help="how many; default: 10")
    parser.add_argument("--upstream", choices=UPSTREAMS, default="ctr", help="default: ctr")
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="only Pins with this value of a categorical feature; may be repeated",
    )


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Print ids and scores, best first."""
    client = open_client(settings, args.upstream)
    hits = client.search(user_id=args.user, k=args.k, where=_filter(args.filter))
    pairs = [
        (str(pin), float(score))
        for pin, score in zip(hits.ids[0], hits.scores[0], strict=True)
        if pin
    ]
    if args.json:
        body = [{"pin": pin, "score": score} for pin, score in pairs]
        release = client.release.release_id
        out(json.dumps({"release": release, "user": args.user, "pins": body}))
    else:
        out(f"user {args.user}  {args.upstream}  release {client.release.release_id}")
        for rank, (pin, score) in enumerate(pairs, start=1):
            out(f"{rank:3}  {pin:20}  {score:+.4f}")
    return 0


def _filter(texts: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if bad := [text for text, pair in zip(texts, pairs, strict=True) if not pair[1]]:
        raise InputError("a filter could not be read", expected="COLUMN=VALUE", found=" ".join(bad))
    return {column: value for column, _, value in pairs}
