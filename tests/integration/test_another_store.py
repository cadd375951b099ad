"""A home publishes to one online store, and a shell that names another one is told so."""

import pytest

from feature_store.contracts.base import shift_day
from feature_store.contracts.errors import InputError
from feature_store.online.releases import Releases
from feature_store.online.store import open_store
from jobs.cli import main
from jobs.services.redis import ensure_redis, stop_redis
from jobs.settings import Settings
from tests.pipelines import UPSTREAMS
from tests.publishing_fixtures import START, World

pytestmark = pytest.mark.redis
NEXT = shift_day(START, 1)


@pytest.fixture
def store(tmp_path):
    """A Redis of somebody else's."""
    folder = tmp_path / "elsewhere"
    yield ensure_redis(Settings(home=folder))
    stop_redis(folder)


@pytest.fixture
def world(tmp_path, store):
    """A home that has published a day there."""
    made = World(tmp_path / "home", users=60, pins=12, redis_url=store)
    for ds in (START, NEXT):
        made.grow(ds)
    made.publish(START)
    yield made
    made.close()


def pointer(world):
    return (world.root / "releases" / "current").read_text()


@pytest.mark.parametrize("command", [["rollback"], ["get", "user", "user1"], ["up"]])
def test_a_shell_without_the_variable_starts_nothing(command, world, monkeypatch, capsys, store):
    before = pointer(world)
    monkeypatch.setenv("DERM_HOME", str(world.root))
    monkeypatch.delenv("DERM_REDIS_URL", raising=False)
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "DERM_REDIS_URL is not set" in said
    assert "set DERM_REDIS_URL to it" in said
    assert store.split("@")[1] in said
    assert store.split(":")[2].split("@")[0] not in said, "the password"
    world.redis_url = ""
    with pytest.raises(InputError, match="publishes to another online store"):
        world.step("publish", NEXT, "ctr")
    assert not (world.root / "services" / "redis").exists()
    assert pointer(world) == before


def test_another_store_is_refused_and_the_same_by_another_name_is_not(world, tmp_path, store):
    world.redis_url = f"file://{tmp_path}/empty"
    with pytest.raises(InputError, match="publishes to another online store"):
        world.step("publish", NEXT, "ctr")
    world.redis_url = store.replace("127.0.0.1", "localhost")
    world.publish(NEXT)
    assert Releases(world.root, open_store(store)).current().ds == NEXT


def test_an_embedded_server_is_not_left_by_accident(tmp_path, store):
    world = World(tmp_path / "home", users=60, pins=12)
    world.grow(START)
    world.publish(START)
    world.redis_url = store
    with pytest.raises(InputError, match="publishes to another online store") as caught:
        ensure_redis(world.settings)
    assert "unset DERM_REDIS_URL" in caught.value.hint
    world.close()


def test_moving_on_purpose(world, tmp_path):
    (world.root / "releases" / "store").unlink()
    world.redis_url = f"file://{tmp_path}/new"
    for upstream in UPSTREAMS:
        assert world.step("publish", START, upstream).metrics["full"] == 1
    world.step("release", START)
    assert world.step("audit", START).metrics["audited"] == 1
    world.publish(NEXT)
    assert Releases(world.root, open_store(world.redis_url)).current().ds == NEXT
