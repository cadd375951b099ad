r"""What a ranker's host does: score the candidates of requests with the program of one surface.

    python -m examples.scoring_host --program EXPORT/surfaces/1-HF --home HOME --url redis://... \
        --users users.txt --pins pins.txt

Users' vectors come from the online store, Pins' from the index, each request in one round trip per
upstream; the program needs torch and no code of this project. Requests are scored in batches: every
user once, and as many rows for each, padded with the last candidate. Other features come from
wherever a host keeps them (`Features`); run as a command, this file draws them at random, so that
only its times mean anything: it prints p50 and p99 of a batch, and rows a second.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from feature_store.client.client import FeatureClient

Arrays = Mapping[str, npt.NDArray]


class Features(Protocol):
    """Where a host keeps features that are no vectors of pools."""

    def __call__(self, entity: str, ids: Sequence[str]) -> Arrays:
        """The features of entities by name, a row for each id."""
        ...


@dataclass(frozen=True, kw_only=True)
class Request:
    """One page to fill.

    Attributes:
        context: a value for each candidate, by name of the feature; `ts` (UTC seconds) among them.
    """

    user_id: str
    pin_ids: Sequence[str]
    context: Arrays


class Host:
    """Scores requests of one surface.

    Args:
        folder: with `program.pt2` and `schema.json`.
        clients: by upstream, those that the program reads vectors of.
        schema: digest of the schema that this host was built for; empty takes any.
        batch_users: requests that are scored together, at most.

    Raises:
        ValueError: the program is damaged, or reads something else than this host provides.
    """

    def __init__(
        self,
        folder: Path,
        clients: Mapping[str, FeatureClient],
        features: Features,
        *,
        schema: str = "",
        batch_users: int = 32,
    ) -> None:
        self.schema: dict[str, Any] = json.loads((folder / "schema.json").read_text())
        if schema and self.schema["digest"] != schema:
            raise ValueError(f"schema: expected {schema}, found {self.schema['digest']}")
        program = folder / "program.pt2"
        if hashlib.sha256(program.read_bytes()).hexdigest() != self.schema["sha256"]:
            raise ValueError(f"{program}: not the file that was exported")
        inputs = [i for side in self.schema["inputs"].values() for i in side]
        if lacking := {i["pool"] for i in inputs if i["pool"]} - clients.keys():
            raise ValueError(f"clients: expected those of {sorted(lacking)} too")
        self.batch_users = batch_users
        self._clients, self._features = clients, features
        self._program = torch.export.load(program).module()

    def score(self, requests: Sequence[Request]) -> Iterator[npt.NDArray[np.float32]]:
        """The probabilities [candidates, tasks] of each request, in order.

        Raises:
            KeyError: a request lacks a feature of the context.
        """
        for start in range(0, len(requests), self.batch_users):
            yield from self._batch(requests[start : start + self.batch_users])

    def _batch(self, requests: Sequence[Request]) -> list[npt.NDArray[np.float32]]:
        width = max(self.schema["min_rows"], *(len(r.pin_ids) for r in requests))
        place = np.minimum(np.arange(width), [[len(r.pin_ids) - 1] for r in requests])
        users = self._read("user", [r.user_id for r in requests], "users")
        pin_ids = [r.pin_ids[at] for r, row in zip(requests, place, strict=True) for at in row]
        rows = self._read("pin", pin_ids, "rows")
        for i in self.schema["inputs"]["rows"]:
            if i["entity"] == "context":
                parts = [r.context[i["name"]][at] for r, at in zip(requests, place, strict=True)]
                rows[i["name"]] = _typed(np.concatenate(parts), i)
        # By position: the program knows its inputs in the order in which the schema names them.
        read = self.schema["inputs"]
        users = {i["name"]: users[i["name"]] for i in read["users"]}
        rows = {i["name"]: rows[i["name"]] for i in read["rows"]}
        with torch.inference_mode():
            told = self._program(users, rows).numpy().reshape(len(requests), width, -1)
        return [told[at, : len(r.pin_ids)] for at, r in enumerate(requests)]

    def _read(self, entity: str, ids: Sequence[str], side: str) -> dict[str, torch.Tensor]:
        inputs = [i for i in self.schema["inputs"][side] if i["entity"] == entity]
        kept = self._features(entity, ids)
        found: dict[str, torch.Tensor] = {}
        for i in inputs:
            if not i["pool"]:
                found[i["name"]] = _typed(kept[i["name"]], i)
                continue
            client = self._clients[i["pool"]]
            # Whom a pool does not know has zeros, which the ranker has learned to read.
            vectors, _ = client.get_users(ids) if entity == "user" else client.get_pins(ids)
            found[i["name"]] = _typed(vectors, i)
        return found


class Drawn:
    """Features drawn at random: times mean something, scores do not."""

    def __init__(self, schema: Mapping[str, Any], seed: int = 0) -> None:
        inputs = [i for side in schema["inputs"].values() for i in side]
        self._inputs = [i for i in inputs if not i["pool"]]
        self._random = np.random.default_rng(seed)

    def __call__(self, entity: str, ids: Sequence[str]) -> Arrays:
        """A row for each id."""
        return {i["name"]: self._some(i, len(ids)) for i in self._inputs if i["entity"] == entity}

    def _some(self, wanted: Mapping[str, Any], rows: int) -> npt.NDArray:
        shape = (rows, *wanted["shape"])
        if wanted["cardinality"]:
            return self._random.integers(1, wanted["cardinality"], shape).astype(np.int32)
        return self._random.random(shape).astype(wanted["dtype"])


def _typed(values: npt.NDArray, wanted: Mapping[str, Any]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=wanted["dtype"]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Score random requests, and print how long batches took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--program", type=Path, required=True, help="folder of a surface's export")
    parser.add_argument("--home", type=Path, required=True, help="where index/ is")
    parser.add_argument("--url", required=True, help="the online store")
    parser.add_argument("--users", type=Path, required=True, help="ids, a line each")
    parser.add_argument("--pins", type=Path, required=True, help="ids, a line each")
    parser.add_argument("--batches", type=int, default=50)
    parser.add_argument("--batch-users", type=int, default=8)
    parser.add_argument("--candidates", type=int, default=128, help="of each request")
    args = parser.parse_args(arguments)
    schema = json.loads((args.program / "schema.json").read_text())
    pools = {i["pool"] for side in schema["inputs"].values() for i in side if i["pool"]}
    clients = {
        name: FeatureClient(args.url, upstream=name, home=args.home, timeout_s=5.0)
        for name in sorted(pools)
    }
    drawn = Drawn(schema)
    host = Host(args.program, clients, drawn, batch_users=args.batch_users)
    random = np.random.default_rng(0)
    users, pins = (np.array(path.read_text().split()) for path in (args.users, args.pins))

    def request() -> Request:
        chosen = random.choice(pins, args.candidates).tolist()
        return Request(
            user_id=str(random.choice(users)), pin_ids=chosen, context=drawn("context", chosen)
        )

    seconds = []
    for number in range(args.batches + 1):
        batch = [request() for _ in range(args.batch_users)]
        began = time.perf_counter()
        list(host.score(batch))
        if number:  # the first one warms up
            seconds.append(time.perf_counter() - began)
    for client in clients.values():
        client.close()
    rows = args.batches * args.batch_users * args.candidates
    told = {
        "p50_ms": 1e3 * float(np.quantile(seconds, 0.5)),
        "p99_ms": 1e3 * float(np.quantile(seconds, 0.99)),
        "rows_per_s": rows / sum(seconds),
        "rows_per_batch": args.batch_users * args.candidates,
    }
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
