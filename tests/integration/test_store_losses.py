"""An online store that loses what it held: noticed by every look, repaired by one command.

Played on a real Redis: FLUSHALL, an empty server behind the same name, kill -9 with an old save,
eviction, a lost pointer, another pipeline's store; and a restore that is killed.
"""

import json
import os
import signal

import numpy as np
import pytest
import redis

from feature_store.client.client import FeatureClient
from feature_store.contracts.base import shift_day
from feature_store.contracts.errors import GuardFailed, StoreError
from feature_store.online.codec import CURRENT_KEY
from jobs import cli
from jobs.engine import findings
from jobs.repair import restore
from jobs.services import redis as service
from jobs.services.redis import ensure_redis
from tests.publishing_fixtures import START, World, patient_client

pytestmark = pytest.mark.redis
NEXT = shift_day(START, 1)


class Store:
    """A world with two released days, its Redis, and what its commands say."""

    def __init__(self, root, capsys) -> None:
        self.world, self._capsys = World(root, users=300, pins=20), capsys
        self.pools = {}
        for ds in (START, NEXT):
            self.world.grow(ds)
            self.world.publish(ds)
            self.pools[ds] = self.world.pools["ctr", "user"]
        self.release = (root / "releases" / "current").read_text().strip()
        self.prefix = self.reader().release.upstreams[0].users_prefix

    @property
    def admin(self) -> redis.Redis:
        return redis.Redis.from_url(ensure_redis(self.world.settings))

    def reader(self) -> FeatureClient:
        return patient_client(ensure_redis(self.world.settings))

    def derm(self, *argv: str) -> tuple[int, str, str]:
        code = cli.main(argv)
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def metrics(self) -> str:
        return (self.world.root / "metrics" / "derm.prom").read_text()

    def assert_noticed(self) -> None:
        """Every look says so, and names the command."""
        with pytest.raises(GuardFailed) as audited:
            self.world.step("audit", NEXT)
        assert audited.value.hint == "derm restore"
        code, _, said = self.derm("probe")
        assert code == 3
        assert "derm restore" in said
        assert 'derm_probe_finding{kind="store"} 1.0' in self.metrics()
        assert findings.load(self.world.root).of("store").hint == "derm restore"

    def assert_restored(self) -> None:
        code, _, said = self.derm("restore")
        assert code == 0, said
        for ds in (NEXT, START):
            reader, pool = self.reader(), self.pools[ds]
            vectors, found = reader.get_users(pool.ids.tolist())
            assert (reader.release.ds, found.all()) == (ds, True)
            expected = pool.vectors.astype(np.float16).astype(np.float32)
            np.testing.assert_array_equal(vectors, expected)
            prefix = reader.release.upstreams[0].users_prefix.encode()
            keys = {k.removeprefix(prefix) for k in self.admin.scan_iter(prefix + b"*")}
            assert keys == {i.encode() for i in pool.ids}
            if ds == NEXT:
                assert reader.release.release_id == self.release
                assert self.world.step("audit", NEXT).metrics["audited"] == 1
                assert self.derm("probe")[0] == 0
                assert 'derm_probe_finding{kind="store"} 0.0' in self.metrics()
                assert self.derm("rollback")[0] == 0


@pytest.fixture
def store(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DERM_HOME", str(tmp_path))
    made = Store(tmp_path, capsys)
    yield made
    made.world.close()


def flush(store: Store) -> None:
    store.admin.flushall()


def another_server(store: Store) -> None:
    folder = store.world.root / "services" / "redis"
    os.kill(service._state(folder)["pid"], signal.SIGKILL)
    (folder / "users.rdb").unlink()
    ensure_redis(store.world.settings)


def evict(store: Store) -> None:
    keys = sorted(store.admin.scan_iter(f"{store.prefix}*"))
    store.admin.delete(*keys[::2])


def lose_the_pointer(store: Store) -> None:
    store.admin.delete(CURRENT_KEY)


def lose_a_slot(store: Store) -> None:
    for key in store.admin.scan_iter(f"{store.prefix}*"):
        store.admin.delete(key)


def hold_another_day(store: Store) -> None:
    """An old copy took over: the pointer and the slots of the day before."""
    store.admin.set(CURRENT_KEY, store.reader().release.previous)


@pytest.mark.parametrize(
    "lose",
    [flush, another_server, evict, lose_the_pointer, lose_a_slot, hold_another_day],
    ids=lambda f: f.__name__,
)
def test_a_loss_is_noticed_by_every_look_and_one_command_repairs_it(store, lose):
    assert store.world.step("audit", NEXT).metrics["audited"] == 1
    lose(store)
    store.assert_noticed()
    store.assert_restored()


def test_what_is_lost_while_a_day_runs_is_missed_before_a_rollback_needs_it(store):
    """The day fills one slot; the other, which a rollback would show, is empty unseen."""
    third = shift_day(NEXT, 1)
    store.world.grow(third)
    flush(store)
    store.world.publish(third)
    code, _, said = store.derm("probe")
    assert (code, "which a rollback would show" in said, "derm restore" in said) == (3, True, True)
    assert store.derm("restore")[0] == 0
    assert store.derm("probe")[0] == 0
    assert store.derm("rollback")[0] == 0
    assert store.reader().get_users(store.pools[NEXT].ids.tolist())[1].all()


def test_a_slot_that_the_next_day_has_begun_to_fill_is_no_loss(store):
    third = shift_day(NEXT, 1)
    store.world.grow(third)
    store.world.step("publish", third, "ctr")
    assert store.derm("probe")[0] == 0


def test_after_kill_9_the_probe_starts_the_server_again_and_nothing_is_lost(store):
    folder = store.world.root / "services" / "redis"
    os.kill(service._state(folder)["pid"], signal.SIGKILL)
    code, said, _ = store.derm("probe")
    assert code == 0, said
    assert "sampled users as in the lake" in said
    store.assert_restored()


def test_a_server_that_was_stopped_in_order_is_no_loss(store):
    store.world.close()
    code, said, _ = store.derm("probe")
    assert (code, "no store to look at" in said) == (0, True)


def test_what_a_reader_is_told_names_the_command(store):
    flush(store)
    code, _, said = store.derm("get", "user", "user1")
    assert code == 1
    assert "derm restore" in said


def test_a_store_of_somebody_else_is_not_written_over(store):
    flush(store)
    store.admin.set(CURRENT_KEY, "2031-01-01-12345678")
    code, _, said = store.derm("restore")
    assert (code, "another pipeline's store" in said) == (2, True)
    assert store.admin.dbsize() == 1
    assert store.derm("restore", "--overwrite")[0] == 0


def test_a_restore_that_is_killed_goes_on(store, monkeypatch):
    flush(store)
    whole, calls = restore.write_buckets, []

    def stop_at_the_second(url, config, plan, buckets, state, *rest):
        calls.append(plan.prefix)
        if len(calls) == 2:
            whole(url, config, plan, buckets[:3], state, *rest)
            raise StoreError("killed here")
        return whole(url, config, plan, buckets, state, *rest)

    monkeypatch.setattr(restore, "write_buckets", stop_at_the_second)
    assert store.derm("restore")[0] == 1
    with pytest.raises(StoreError, match="nothing is published"):
        store.reader().get_users(["user1"])
    monkeypatch.setattr(restore, "write_buckets", whole)
    store.assert_restored()


def test_users_that_are_left_stay_readable_while_the_others_are_written(store, monkeypatch):
    evict(store)
    left = {k.decode()[len(store.prefix) :] for k in store.admin.scan_iter(f"{store.prefix}*")}
    whole = restore.write_buckets

    def look_meanwhile(*given):
        _, found = store.reader().get_users(sorted(left))
        assert found.all()
        return whole(*given)

    monkeypatch.setattr(restore, "write_buckets", look_meanwhile)
    store.assert_restored()


def test_a_pool_that_was_recomputed_since_is_not_passed_off_as_the_released_one(store):
    store.world.grow(NEXT)
    flush(store)
    code, _, said = store.derm("restore")
    assert code == 2
    assert "recomputed since" in said
    assert f"derm publish --ds {NEXT} --force" in said


def test_a_pool_that_was_recomputed_since_is_no_loss_of_the_store(store):
    store.world.grow(NEXT, change=0.9)
    code, said, _ = store.derm("probe")
    assert (code, "nothing is wrong" in said) == (0, True)


def test_nothing_published_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DERM_HOME", str(tmp_path))
    World(tmp_path)
    assert cli.main(["restore"]) == 2
    assert "nothing was ever published" in capsys.readouterr().err
    assert cli.main(["audit"]) == 0
    assert cli.main(["probe", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["store"] is None


def test_without_a_day_the_audit_takes_what_is_current(store, monkeypatch, capsys):
    """At noon the calendar day may not be released; what readers see is."""
    code, said, _ = store.derm("audit")
    # The home of this test has no manifests of the steps before, which a real one has.
    assert (code, NEXT in said) == (0, True)
