"""Publish, index, release, read and roll back, on a real redis-server and a real index."""

import shutil

import numpy as np
import pytest

from feature_store.client.client import FeatureClient
from feature_store.contracts.base import shift_day
from feature_store.contracts.errors import GuardFailed, ManifestCorrupt, MissingInput, StoreError
from feature_store.online.codec import slot_key
from feature_store.online.releases import Releases
from feature_store.online.store import open_store
from jobs.cli import main
from jobs.rendering.published import read_published
from jobs.services.redis import ensure_redis
from jobs.steps import publish
from tests.pipelines import UPSTREAMS
from tests.publishing_fixtures import START, World

pytestmark = pytest.mark.redis


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.close()


def assert_readers_see(world: World, client: FeatureClient) -> None:
    """Redis holds exactly the pool's users, and their vectors."""
    pool = world.pools["ctr", "user"]
    vectors, found = client.get_users(pool.ids.tolist())
    assert found.all()
    np.testing.assert_array_equal(vectors, pool.vectors.astype(np.float16).astype(np.float32))
    store = open_store(ensure_redis(world.settings))
    prefix = client.release.upstreams[0].users_prefix
    assert sorted(store.sample(prefix, 10**6)) == sorted(pool.ids.tolist())


def test_three_days_write_only_what_changed_and_readers_see_each_day(world):
    client = None
    for day in range(3):
        ds = shift_day(START, day)
        world.grow(ds)
        done = world.publish(ds)
        client = client or FeatureClient(ensure_redis(world.settings), home=world.root, timeout_s=5)
        assert_readers_see(world, client)
        assert world.step("audit", ds).metrics["audited"] == 1
        users = len(world.pools["ctr", "user"].ids)
        written = done["publish ctr"].metrics["written"]
        assert written == users if day < 2 else written < users
    assert done["publish ctr"].metrics["removed"] > 0
    hits = client.search(user_id="user1", k=10)
    assert len(set(hits.ids[0])) == 10


def test_rollback_restores_the_day_before_and_only_that(world):
    for day in range(2):
        world.grow(shift_day(START, day))
        world.publish(shift_day(START, day))
    store = open_store(ensure_redis(world.settings))
    releases = Releases(world.root, store)
    assert releases.roll_back().ds == START
    assert releases.current().ds == START
    with pytest.raises(MissingInput, match="no release to roll back to"):
        releases.roll_back()
    world.step("release", shift_day(START, 1))
    assert releases.current().ds == shift_day(START, 1)


def test_rollback_to_an_index_that_is_gone_names_the_day_to_publish_again(world):
    for day in range(2):
        world.grow(shift_day(START, day))
        world.publish(shift_day(START, day))
    releases = Releases(world.root, open_store(ensure_redis(world.settings)))
    before = releases.get(releases.current().previous)
    shutil.rmtree(world.root / before.upstreams[0].index_path)
    with pytest.raises(GuardFailed) as refused:
        releases.roll_back()
    assert f"derm index --ds {START} --upstream ctr --force" in refused.value.hint
    assert releases.current().ds == shift_day(START, 1)


def test_rollback_to_a_slot_that_the_store_has_lost_names_the_restore(world, monkeypatch):
    monkeypatch.setenv("DERM_HOME", str(world.root))
    for day in range(2):
        world.grow(shift_day(START, day))
        world.publish(shift_day(START, day))
    store = open_store(ensure_redis(world.settings))
    releases = Releases(world.root, store)
    before = releases.get(releases.current().previous)
    for entry in before.upstreams:
        store.wipe(entry.users_prefix)
        store.delete(slot_key(entry.users_prefix))
    with pytest.raises(GuardFailed) as refused:
        releases.roll_back()
    assert "derm restore" in refused.value.hint
    assert main(["restore"]) == 0
    assert releases.roll_back().ds == START


def test_rollback_is_refused_once_the_old_slot_is_reused(world):
    for day in range(2):
        world.grow(shift_day(START, day))
        world.publish(shift_day(START, day))
    ds = shift_day(START, 2)
    world.grow(ds)
    world.step("publish", ds, "ctr")
    releases = Releases(world.root, open_store(ensure_redis(world.settings)))
    with pytest.raises(GuardFailed, match="does not hold the users of this release"):
        releases.roll_back()
    assert releases.current().ds == shift_day(START, 1)


def test_rollback_is_refused_from_the_moment_a_publish_has_chosen_its_slot(
    world, monkeypatch, capsys
):
    """Between the choice and the mark `writing` the old slot still looks whole."""
    for day in range(3):
        world.grow(shift_day(START, day))
        if day < 2:
            world.publish(shift_day(START, day))
    monkeypatch.setenv("DERM_HOME", str(world.root))
    codes, free = [], publish._drop_unused

    def roll_back_meanwhile(*args):
        codes.append(main(["rollback"]))
        free(*args)

    monkeypatch.setattr(publish, "_drop_unused", roll_back_meanwhile)
    world.step("publish", shift_day(START, 2), "cvr")
    assert codes == [1]
    assert "another publish of cvr is running" in capsys.readouterr().err
    releases = Releases(world.root, open_store(ensure_redis(world.settings)))
    assert releases.current().ds == shift_day(START, 1)


def test_rollback_tells_the_metrics_what_readers_see(world, monkeypatch):
    for day in range(2):
        world.grow(shift_day(START, day))
        world.publish(shift_day(START, day))
    written, name = world.root / "metrics" / "derm.prom", "derm_release_day_end_timestamp"
    newer = published_day(written, name)
    monkeypatch.setenv("DERM_HOME", str(world.root))
    assert main(["rollback"]) == 0
    assert newer - published_day(written, name) == 86_400


def published_day(file, name):
    return float(next(x.split()[1] for x in file.read_text().splitlines() if x.startswith(name)))


def _cut(file, _):
    file.write_bytes(file.read_bytes()[:-9])


def _another(file, other):
    file.write_bytes(other.read_bytes())


@pytest.mark.parametrize("damage", [lambda f, _: f.unlink(), _cut, _another])
@pytest.mark.parametrize("name", ["{}.json", "current"])
def test_a_damaged_release_comes_back_from_the_store(world, monkeypatch, capsys, name, damage):
    """What the message says that helps does help, and a rollback still leads to the day before."""
    for day in range(2):
        world.grow(shift_day(START, day))
        world.publish(shift_day(START, day))
    before = read_published(world.root).release
    folder = world.root / "releases"
    file = folder / name.format(before.release_id)
    whole = file.read_bytes()
    damage(file, folder / f"{before.previous}.json")
    monkeypatch.setenv("DERM_HOME", str(world.root))
    if file.exists() or name != "current":
        with pytest.raises(ManifestCorrupt) as caught:
            read_published(world.root)
        assert caught.value.hint == "derm restore"
        assert main(["restore"]) == 0, capsys.readouterr().err
        assert file.read_bytes() == whole
    world.step("release", before.ds)
    assert read_published(world.root).release == before
    assert main(["rollback"]) == 0
    assert read_published(world.root).release.ds == START


def test_no_publish_begins_between_the_check_of_a_slot_and_the_flip_to_it(world, monkeypatch):
    for day in range(3):
        world.grow(shift_day(START, day))
    world.publish(START)
    ds, check = shift_day(START, 1), Releases.check
    for upstream in UPSTREAMS:
        world.step("index", ds, upstream)
        world.step("publish", ds, upstream)
    refused = []

    def publish_meanwhile(self, *asked):
        check(self, *asked)
        with pytest.raises(StoreError, match="another publish of ctr is running") as caught:
            world.step("publish", shift_day(START, 2), "ctr")
        refused.append(caught)

    monkeypatch.setattr(Releases, "check", publish_meanwhile)
    world.step("release", ds)
    assert len(refused) == 1
    monkeypatch.undo()
    assert Releases(world.root, open_store(ensure_redis(world.settings))).current().ds == ds
    assert world.step("audit", ds).metrics["audited"] == 1
