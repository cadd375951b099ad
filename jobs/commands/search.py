"""`derm search`: the Pins nearest to a user, from the current index."""

import argparse
import json
from collections.abc import Collection

from feature_store.contracts.errors import InputError
from feature_store.index.index import Wanted
from jobs.commands.get import open_client
from jobs.console import out
from jobs.settings import Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `derm search`."""
    parser.add_argument("--user", required=True, help="whose Pins")
    parser.add_argument("-k", type=int, default=10, help="how many; default: 10")
    parser.add_argument("--upstream", metavar="NAME", help="default: the first published one")
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="only Pins with this value of a categorical feature, or with a number between two: "
        "COLUMN=LEAST..MOST, COLUMN=..MOST, COLUMN=LEAST..; may be repeated",
    )


def main(args: argparse.Namespace, settings: Settings) -> int:
    """Print ids and scores, best first."""
    client = open_client(settings, args.upstream)
    where = _filters(args.filter, client.index.manifest.numbers) if args.filter else None
    hits = client.search(user_id=args.user, k=args.k, where=where)
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
        out(f"user {args.user}  {client.upstream}  release {client.release.release_id}")
        for rank, (pin, score) in enumerate(pairs, start=1):
            out(f"{rank:3}  {pin:20}  {score:+.4f}")
    return 0


def _filters(texts: list[str], numbers: Collection[str]) -> dict[str, Wanted]:
    return dict(_filter(text, numbers) for text in texts)


def _filter(text: str, numbers: Collection[str]) -> tuple[str, Wanted]:
    column, equals, value = text.partition("=")
    if equals and column not in numbers:
        return column, value
    least, dots, most = value.partition("..")
    if not dots:
        raise _unreadable(text)
    try:
        return column, (float(least) if least else None, float(most) if most else None)
    except ValueError as error:
        raise _unreadable(text) from error


def _unreadable(text: str) -> InputError:
    expected = "COLUMN=VALUE, or COLUMN=LEAST..MOST of a number"
    return InputError("a filter could not be read", expected=expected, found=text)
