"""The rules of publishing: what is written again, what is refused, what the commands say."""

import json

import numpy as np
import pytest

from feature_store.contracts.base import shift_day
from feature_store.contracts.errors import GuardFailed, SpaceMismatch
from feature_store.contracts.tables import pool_table
from feature_store.online.releases import Releases
from feature_store.online.slots import ids_of, mismatches
from feature_store.online.store import open_store, slot_state
from jobs import cli
from jobs.services.redis import ensure_redis
from jobs.steps.publish import slot_write
from tests.publishing_fixtures import START, World, patient_client

pytestmark = pytest.mark.redis
DAYS = [shift_day(START, i) for i in range(5)]


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("DERM_HOME", str(tmp_path))
    world = World(tmp_path, users=200, pins=30)
    yield world
    world.close()


def assert_exact(world: World, ds: str) -> None:
    assert world.step("audit", ds).metrics["audited"] == 1
    client = patient_client(ensure_redis(world.settings))
    pool = world.pools["ctr", "user"]
    vectors, found = client.get_users(pool.ids.tolist())
    assert (client.release.ds, found.all()) == (ds, True)
    np.testing.assert_array_equal(vectors, pool.vectors.astype(np.float16).astype(np.float32))
    store = open_store(ensure_redis(world.settings))
    prefix = client.release.upstreams[0].users_prefix
    assert sorted(store.sample(prefix, 10**6)) == sorted(pool.ids)


def test_a_day_in_between_that_was_recomputed_forces_a_full_write(world):
    for ds in DAYS[:3]:
        world.grow(ds)
        world.publish(ds)
    # Day 1 is recomputed: the slot that holds it no longer is an ancestor of what follows.
    pool = world.pools["ctr", "user"]
    world.pools["ctr", "user"].vectors[:, 0] += 1
    world.commit(DAYS[1], "ctr", "user")
    world.pools["ctr", "user"] = pool
    world.commit(DAYS[2], "ctr", "user")
    world.grow(DAYS[3])
    done = world.publish(DAYS[3])
    assert done["publish ctr"].metrics["full"] == 1
    assert done["publish cvr"].metrics["full"] == 0
    assert_exact(world, DAYS[3])


def test_publishing_the_current_day_again_goes_to_the_other_slot(world):
    for ds in DAYS[:2]:
        world.grow(ds)
        world.publish(ds)
    store = open_store(ensure_redis(world.settings))
    before = Releases(world.root, store).current()
    world.pools["ctr", "user"].vectors[:5] += 1
    world.commit(DAYS[1], "ctr", "user")
    world.publish(DAYS[1])
    after = Releases(world.root, store).current()
    assert after.previous == before.release_id
    assert after.upstreams[0].slot != before.upstreams[0].slot
    assert_exact(world, DAYS[1])
    assert Releases(world.root, store).roll_back() == before


def test_a_slot_that_already_holds_the_pool_is_left_as_it_is(world):
    """As after a repair that gave a day back what it had: no row is newer than the slot."""
    for ds in (*DAYS[:2], DAYS[1]):
        if ds not in world.lake.days(pool_table("ctr", "user").name):
            world.grow(ds)
        world.publish(ds)
    done = world.publish(DAYS[1])
    assert done["publish ctr"].metrics["written"] == 0
    assert_exact(world, DAYS[1])


def test_releasing_the_same_day_again_changes_nothing(world):
    world.grow(DAYS[0])
    first = world.publish(DAYS[0])["release"]
    files = sorted((world.root / "releases").iterdir())
    assert world.step("release", DAYS[0]) == first
    assert sorted((world.root / "releases").iterdir()) == files


def test_indexing_the_same_day_again_builds_nothing(world):
    world.grow(DAYS[0])
    first = world.step("index", DAYS[0], "ctr")
    again = world.step("index", DAYS[0], "ctr")
    assert again.outputs == first.outputs
    assert again.metrics["build_s"] == 0


def test_unchanged_pins_are_warm_started_and_rebuilt_after_a_week(world):
    for day in range(9):
        ds = shift_day(START, day)
        world.grow(ds, prune=0.0, fresh=0.0)
        warm = world.step("index", ds, "ctr").metrics["warm"]
        assert warm == (day not in (0, 7))


@pytest.mark.parametrize("file", ["graph.faiss", "ids.npy", "index.json"])
def test_a_damaged_index_is_made_again_as_it_was(world, file):
    """Readers may be using it, so that the one of the day alone, from nothing, is no repair."""
    world.grow(DAYS[0])
    world.publish(DAYS[0])
    world.grow(DAYS[1], prune=0.0, fresh=0.0)
    made = world.step("index", DAYS[1], "ctr")
    assert made.metrics["warm"]
    [artifact] = made.outputs
    path = world.root / artifact.uri / file
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    again = world.step("index", DAYS[1], "ctr", force=True)
    assert path.read_bytes() == whole
    assert again.outputs[0].digest == artifact.digest
    assert world.step("index", DAYS[1], "ctr", force=True).metrics["warm"] == 0


def test_a_new_space_is_published_beside_the_old_one_then_the_old_one_is_freed(world):
    world.grow(DAYS[0])
    world.publish(DAYS[0])
    store = open_store(ensure_redis(world.settings))
    old = Releases(world.root, store).current().upstreams[0].users_prefix
    world.space = "2025-03-02-second"
    for day, ds in enumerate(DAYS[1:4]):
        world.grow(ds)
        world.publish(ds)
        assert_exact(world, ds)
        # Kept while it can be rolled back to, freed by the publish after that.
        assert (slot_state(store, old) is None) == (day > 1)
    assert store.sample(old, 10) == []


def test_two_spaces_in_one_pool_are_refused(world):
    world.grow(DAYS[0])
    users = len(world.pools["ctr", "user"].ids)
    world.commit(DAYS[0], "ctr", "user", spaces=[world.space] * (users - 1) + ["other"])
    pins = len(world.pools["ctr", "pin"].ids)
    world.commit(DAYS[0], "ctr", "pin", spaces=[world.space] * (pins - 1) + ["other"])
    with pytest.raises(SpaceMismatch, match="a pool holds vectors of several spaces"):
        world.step("publish", DAYS[0], "ctr")
    with pytest.raises(SpaceMismatch, match="the Pin pool holds vectors of several spaces"):
        world.step("index", DAYS[0], "ctr")


def test_users_and_pins_of_two_spaces_are_not_released(world):
    world.grow(DAYS[0])
    world.commit(DAYS[0], "ctr", "pin", spaces=["other"] * len(world.pools["ctr", "pin"].ids))
    for upstream in ("ctr", "cvr"):
        world.step("publish", DAYS[0], upstream)
        world.step("index", DAYS[0], upstream)
    with pytest.raises(SpaceMismatch, match="users and Pins of ctr"):
        world.step("release", DAYS[0])


def test_an_empty_pool_is_refused(world):
    world.grow(DAYS[0])
    empty = world.pools["ctr", "user"]
    empty.ids, empty.vectors = empty.ids[:0], empty.vectors[:0]
    empty.last_daily = empty.last_daily[:0]
    world.commit(DAYS[0], "ctr", "user")
    with pytest.raises(GuardFailed, match="user pool of 2025-03-01 is empty"):
        world.step("publish", DAYS[0], "ctr")


def test_float32_and_expiry_are_settings_and_changing_them_writes_everything(world):
    world.grow(DAYS[0])
    world.publish(DAYS[0])
    world.with_publishing(dtype="float32", expire_days=30)
    for ds in DAYS[1:4]:
        world.grow(ds)
        done = world.publish(ds)
        assert world.step("audit", ds).metrics["audited"] == 1
    assert done["publish ctr"].metrics["full"] == 0
    client = patient_client(ensure_redis(world.settings))
    pool = world.pools["ctr", "user"]
    np.testing.assert_array_equal(client.get_users(pool.ids.tolist())[0], pool.vectors)
    store = open_store(ensure_redis(world.settings))
    ttl = store._client.ttl(client.release.upstreams[0].users_prefix + str(pool.ids[0]))
    assert 0 < ttl <= 31 * 86_400


@pytest.mark.parametrize("damage", ["missing", "different", "extra", "index"])
def test_the_audit_finds_what_is_wrong_and_counts_it(world, damage):
    world.grow(DAYS[0])
    world.publish(DAYS[0])
    store = open_store(ensure_redis(world.settings))
    entry = Releases(world.root, store).current().upstreams[0]
    key = f"{entry.users_prefix}user7"
    if damage == "missing":
        store.delete(key)
    elif damage == "different":
        value = store.get(key)
        store.put(key, value[:-1] + bytes([value[-1] ^ 1]))
    elif damage == "extra":
        store.put(f"{entry.users_prefix}stranger", b"?")
    else:
        graph = world.root / entry.index_path / "graph.faiss"
        content = bytearray(graph.read_bytes())
        content[-1] ^= 1
        graph.write_bytes(content)
    with pytest.raises(GuardFailed, match="differs from the lake") as error:
        world.step("audit", DAYS[0])
    name = "damaged_files" if damage == "index" else damage
    assert f"{name}_per_mille=" in error.value.found


def test_what_the_audit_advises_heals_the_store_and_the_index(world):
    """Half the users are lost and the graph is damaged."""
    for ds in DAYS[:2]:
        world.grow(ds)
        world.publish(ds)
    store = open_store(ensure_redis(world.settings))
    releases = Releases(world.root, store)
    for entry in releases.current().upstreams:
        for user in store.sample(entry.users_prefix, 10**6)[::2]:
            store.delete(f"{entry.users_prefix}{user}")
        graph = world.root / entry.index_path / "graph.faiss"
        graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    with pytest.raises(GuardFailed, match="differs from the lake") as error:
        world.step("audit", DAYS[1])
    assert error.value.hint == (
        f"derm restore, then derm index --ds {DAYS[1]} --force, "
        f"then derm release --ds {DAYS[1]} --force"
    )
    assert cli.main(["restore"]) == 0
    for entry in releases.current().upstreams:
        world.step("index", DAYS[1], entry.upstream, force=True)
    world.step("release", DAYS[1])
    assert_exact(world, DAYS[1])
    assert cli.main(["rollback"]) == 0


def test_users_that_expiry_does_not_explain_are_missing(world):
    world.with_publishing(expire_days=30)
    world.grow(DAYS[0])
    world.publish(DAYS[0])
    store = open_store(ensure_redis(world.settings))
    entry = Releases(world.root, store).current().upstreams[0]
    store.delete(f"{entry.users_prefix}user7")
    with pytest.raises(GuardFailed, match="differs from the lake") as error:
        world.step("audit", DAYS[0])
    assert "missing_per_mille=" in error.value.found


def test_successive_days_compare_other_rows(world):
    world.grow(DAYS[0])
    world.publish(DAYS[0])
    store = open_store(ensure_redis(world.settings))
    entry = Releases(world.root, store).current().upstreams[0]
    plan = slot_write(world.context(DAYS[0], "ctr"), "ctr", entry.users_prefix, entry)
    files = world.lake.files(pool_table("ctr", "user").name, DAYS[0])[:1]
    size = len(ids_of(files))
    for user in ids_of(files).to_pylist()[-3:]:
        store.delete(f"{entry.users_prefix}{user}")
    pieces = -(-size // 4)
    found = [mismatches(store, plan, files, 4, turn) for turn in range(pieces)]
    assert [sum(c) for c in zip(*found, strict=True)] == [size, 3, 0]
    assert mismatches(store, plan, files, 4, pieces) == found[0] == (4, 0, 0)


def test_the_audit_of_a_day_that_readers_do_not_see_compares_nothing(world):
    for ds in DAYS[:2]:
        world.grow(ds)
        world.publish(ds)
    assert world.step("audit", DAYS[0]).metrics == {"audited": 0}


def run(capsys, *argv: str) -> tuple[int, str, str]:
    code = cli.main(argv)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_commands_say_what_readers_see(world, capsys):
    for ds in DAYS[:2]:
        world.grow(ds)
        world.publish(ds)
    pool, pins = world.pools["ctr", "user"], world.pools["ctr", "pin"]
    code, out, _ = run(capsys, "get", "user", pool.ids[0], "--json")
    body = json.loads(out)
    assert (code, body["ds"]) == (0, DAYS[1])
    np.testing.assert_allclose(body["vector"], pool.vectors[0], atol=1e-2)
    code, out, _ = run(capsys, "get", "pin", "pin3", "--upstream", "cvr")
    assert code == 0
    assert out.startswith("pin pin3  cvr  release 2025-03-02")
    code, out, _ = run(capsys, "search", "--user", "user1", "-k", "3", "--json")
    assert len(json.loads(out)["pins"]) == 3
    code, out, _ = run(capsys, "search", "--user", "user1", "-k", "50", "--filter", "topic=t1")
    assert 0 < len(out.splitlines()) - 1 < 10
    for wanted, ages in (("10..19", range(10, 20)), ("..4", range(5)), ("25..", range(25, 30))):
        _, out, _ = run(
            capsys, "search", "--user", "user1", "-k", "50", "--filter", f"age={wanted}", "--json"
        )
        found = {p["pin"] for p in json.loads(out)["pins"]}
        assert found == {f"pin{i}" for i in ages if i % 3} & set(pins.ids)
    code, out, _ = run(capsys, "rollback")
    assert f"readers see {DAYS[0]}-" in out.replace(" (", "-")
    code, out, _ = run(capsys, "get", "user", "user1")
    assert f"release {DAYS[0]}" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("get", "user", "nobody"), "user nobody is not published"),
        (("get", "pin", "nothing"), "pin nothing is not published"),
        (("search", "--user", "nobody"), "user nobody is not in release"),
        (("search", "--user", "user1", "--filter", "topic"), "a filter could not be read"),
        (("search", "--user", "user1", "--filter", "size=3"), "cannot be filtered by 'size'"),
        (("search", "--user", "user1", "--filter", "age=3"), "a filter could not be read"),
        (("search", "--user", "user1", "--filter", "age=young.."), "a filter could not be read"),
        (("rollback",), "there is no release to roll back to"),
    ],
)
def test_a_wrong_request_says_what_is_wrong(world, capsys, argv, message):
    world.grow(DAYS[0])
    world.publish(DAYS[0])
    code, _, err = run(capsys, *argv)
    assert code == 2
    assert message in err
