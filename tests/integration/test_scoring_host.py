"""The example of a ranker's host: real store, real index, the program of a surface."""

import json

import numpy as np
import pytest
import torch

from examples.scoring_host import Drawn, Host, Request, main
from feature_store.contracts.base import ENTITIES
from feature_store.reading.pools import PoolInput
from jobs.services.redis import ensure_redis
from models.rankers.parts.inputs import RankingInputs
from models.rankers.unified import artifact
from models.rankers.unified.model import UnifiedRanker
from models.rankers.unified.program import SurfaceCalibration, SurfaceProgram
from tests.model_fixtures import unified
from tests.pipelines import UPSTREAMS
from tests.publishing_fixtures import SPEC, START, World, patient_client

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A released day, and a program that reads the vectors of both upstreams."""
    world = World(tmp_path_factory.mktemp("host"))
    world.grow(START, change=1.0, prune=0.0)
    world.publish(START)
    vectors = [
        PoolInput(upstream=u, entity=e, dim=world.dim, since=START).feature
        for u in UPSTREAMS
        for e in ENTITIES
    ]
    torch.manual_seed(0)
    ranker = UnifiedRanker(RankingInputs.of(SPEC, "ctr", vectors), unified.SMALL).eval()
    program = SurfaceProgram(ranker, 1, SurfaceCalibration(torch.tensor([[1.0, 0.0]])))
    folder = world.root / "program"
    artifact.write(folder, program, artifact.schema_of(program, "feed", ("click",), {}))
    yield world, folder
    world.close()


@pytest.fixture(scope="module")
def clients(served):
    url = ensure_redis(served[0].settings)
    made = {u: patient_client(url, upstream=u, home=served[0].root) for u in UPSTREAMS}
    yield made
    for client in made.values():
        client.close()


class Known:
    """Features that an entity keeps, whatever it is asked with."""

    def __init__(self, schema):
        self._schema = schema

    def __call__(self, entity, ids):
        rows = [Drawn(self._schema, sum(map(ord, i)))(entity, [i]) for i in ids]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _requests(world, schema):
    pins = world.pools["ctr", "pin"].ids.tolist()
    asked = [("user3", pins[:5]), ("nobody", pins[4:7]), ("user8", [pins[9]])]
    drawn = Drawn(schema, 5)
    return [Request(user_id=u, pin_ids=p, context=drawn("context", p)) for u, p in asked]


def test_a_batch_says_what_the_program_says_of_what_was_published(served, clients):
    world, folder = served
    program = artifact.load(folder)
    known = Known(program.schema)
    host = Host(folder, clients, known, schema=program.schema["digest"])
    requests = _requests(world, program.schema)
    together = list(host.score(requests))
    assert [x.shape for x in together] == [(5, 1), (3, 1), (1, 1)]
    first = requests[0]
    vectors = {u: world.pools[u, "user"] for u in UPSTREAMS}
    users = dict(known("user", ["user3"]))
    users |= {
        f"user_{u}_vector": pool.vectors[[3]].astype(np.float16).astype(np.float32)
        for u, pool in vectors.items()
    }
    rows = dict(known("pin", first.pin_ids)) | dict(first.context)
    rows |= {f"pin_{u}_vector": clients[u].get_pins(first.pin_ids)[0] for u in UPSTREAMS}
    tensors = [{n: torch.from_numpy(x) for n, x in side.items()} for side in (users, rows)]
    want = program.predict(*tensors).numpy()
    np.testing.assert_allclose(together[0], want, atol=1e-6)
    alone = [next(host.score([request])) for request in requests]
    for one, many in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, many, atol=1e-6)


def test_a_host_refuses_what_it_was_not_built_for(served, clients):
    world, folder = served
    schema = json.loads((folder / "schema.json").read_text())
    with pytest.raises(ValueError, match="schema: expected"):
        Host(folder, clients, Drawn(schema), schema="another")
    with pytest.raises(ValueError, match="cvr"):
        Host(folder, {"ctr": clients["ctr"]}, Drawn(schema))
    host = Host(folder, clients, Drawn(schema))
    request = _requests(world, schema)[0]
    with pytest.raises(KeyError):
        next(host.score([Request(user_id="user1", pin_ids=request.pin_ids, context={})]))


def test_it_measures_itself(served, tmp_path, capsys):
    world, folder = served
    for entity in ENTITIES:
        ids = world.pools["ctr", entity].ids.tolist()
        (tmp_path / f"{entity}s.txt").write_text("\n".join(ids))
    code = main([
        *("--program", str(folder), "--home", str(world.root)),
        *("--url", ensure_redis(world.settings), "--batches", "3", "--candidates", "4"),
        *("--users", str(tmp_path / "users.txt"), "--pins", str(tmp_path / "pins.txt")),
    ])  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert code == 0
    assert 0 < told["p50_ms"] <= told["p99_ms"]
    assert told["rows_per_batch"] == 32
