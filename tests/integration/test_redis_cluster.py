"""Publishing to a Redis Cluster: two real nodes, keys on both, the same answers."""

import itertools
import socket
import subprocess
import time

import pytest
import redis

from feature_store.client.client import FeatureClient
from feature_store.contracts.base import shift_day
from jobs.services.redis_program import server_program
from tests.publishing_fixtures import START, World, patient_client

pytestmark = [pytest.mark.redis, pytest.mark.integration]
SLOTS = 16384


def free_port() -> int:
    # A cluster node also listens on its port + 10,000.
    for port in itertools.count(21_000):
        with socket.socket() as probe, socket.socket() as bus:
            try:
                probe.bind(("127.0.0.1", port))
                bus.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port
    raise AssertionError


def await_that(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def cluster(tmp_path):
    """Two primaries, each with half of the slots, and the port of one of them."""
    nodes, processes = [], []
    for name in "ab":
        folder, port = tmp_path / name, free_port()
        folder.mkdir()
        options = {"port": port, "bind": "127.0.0.1", "cluster-enabled": "yes", "save": ""}
        options |= {
            "cluster-config-file": "nodes.conf",
            "dir": folder,
            "cluster-node-timeout": 2000,
        }
        arguments = [str(a) for k, v in options.items() for a in (f"--{k}", v)]
        processes.append(
            subprocess.Popen([server_program(), *arguments], stdout=subprocess.DEVNULL)
        )
        node = redis.Redis(port=port)
        await_that(lambda node=node: answers(node))
        nodes.append(node)
    for node, slots in zip(nodes, (range(SLOTS // 2), range(SLOTS // 2, SLOTS)), strict=True):
        node.execute_command("CLUSTER ADDSLOTS", *slots)
    ports = [n.connection_pool.connection_kwargs["port"] for n in nodes]
    nodes[0].execute_command("CLUSTER MEET", "127.0.0.1", ports[1])
    await_that(lambda: all(n.cluster("info")["cluster_state"] == "ok" for n in nodes))
    await_that(lambda: all(len(n.execute_command("CLUSTER SLOTS")) == 2 for n in nodes))
    yield f"redis://127.0.0.1:{ports[0]}", nodes
    for node in nodes:
        node.close()
    for process in processes:
        process.terminate()
        process.wait()


def answers(node: redis.Redis) -> bool:
    try:
        return bool(node.ping())
    except redis.RedisError:
        return False


def test_three_days_on_a_cluster(cluster, tmp_path):
    url, nodes = cluster
    world = World(tmp_path / "home", users=300, pins=12, redis_url=url)
    for day in range(3):
        ds = shift_day(START, day)
        world.grow(ds)
        done = world.publish(ds)
        assert world.step("audit", ds).metrics["audited"] == 1
        client = FeatureClient(url, cluster=True, timeout_s=5)
        assert client.get_users(world.pools["ctr", "user"].ids.tolist())[1].all()
        client.close()
    assert done["publish ctr"].metrics["full"] == 0
    assert all(node.dbsize() > 300 for node in nodes)
    world.with_publishing(expire_days=90)
    ds = shift_day(START, 3)
    world.grow(ds)
    world.publish(ds)
    client = patient_client(url, cluster=True)
    prefix = client.release.upstreams[0].users_prefix
    client.close()
    ages = [n.ttl(k) for n in nodes for k in n.scan_iter(f"{prefix}*")]
    assert len(ages) == len(world.pools["ctr", "user"].ids)
    assert min(ages) > 86 * 86_400
    assert max(ages) <= 91 * 86_400
