"""The online store loses what it held: after a release, before a day, in the middle of one."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import redis

from feature_store.online.codec import CURRENT_KEY
from jobs.services.redis import ensure_redis
from jobs.settings import Settings
from tests.chaos.fault import NEXT, Result, rng_of
from tests.chaos.process import Copy, derm, in_copy, must, start
from tests.chaos.stage import Stage, traceback_in

_RUN = ("run", "--from", NEXT, "--to", NEXT)
WHEN = ("after the release", "in the middle of a day")
Client = redis.Redis


def flush(store: Client, _: float) -> None:
    """FLUSHALL."""
    store.flushall()


def evict(store: Client, share: float) -> None:
    """Some keys are gone, as under `maxmemory`."""
    keys = sorted(store.scan_iter("derm:*:member*", count=1000)) or sorted(store.scan_iter())
    store.delete(*keys[: max(1, int(len(keys) * share))])


def lose_pointer(store: Client, _: float) -> None:
    """The pointer alone is gone."""
    store.delete(CURRENT_KEY)


def lose_slots(store: Client, _: float) -> None:
    """The records that say what a slot holds are gone."""
    for key in list(store.scan_iter("derm:slot:*", count=1000)):
        store.delete(key)


def replica(store: Client, _: float) -> None:
    """It became a read-only replica of a server that is not there."""
    store.replicaof("127.0.0.1", 1)


def refuse_writes(store: Client, _: float) -> None:
    """No memory is left."""
    store.config_set("maxmemory", 1)


ON_THE_SERVER = {
    "FLUSHALL": flush,
    "eviction": evict,
    "the pointer is gone": lose_pointer,
    "records of slots are gone": lose_slots,
    "a replica": replica,
    "out of memory": refuse_writes,
}
# Those that end a server: kill -9, with its last save or (another server) without any.
OFF = ("kill -9", "another server behind the name")
_HEALED: dict[str, Callable[[Client], object]] = {
    "a replica": lambda store: store.replicaof("NO", "ONE"),
    "out of memory": lambda store: store.config_set("maxmemory", 0),
}


def cases(stage: Stage, seed: int, each: int) -> Iterator[tuple[str, int, Callable[[], Result]]]:
    """Each loss at each time, so often."""
    expected: dict[str, dict[str, str]] = {}
    for number in range(each):
        for loss in (*ON_THE_SERVER, *OFF):
            for when in WHEN:

                def play(loss: str = loss, when: str = when, number: int = number) -> Result:
                    return _play(stage, loss, when, seed + number, expected)

                yield f"{loss}, {when}", seed + number, play


def _play(
    stage: Stage, loss: str, when: str, seed: int, expected: dict[str, dict[str, str]]
) -> Result:
    if when not in expected:
        stage.restore()
        if when == WHEN[1]:
            must(stage.home, *_RUN)
        expected[when] = stage.observe()
    rng = rng_of("loss", loss, when, seed)
    share, moment = rng.uniform(0.05, 1), rng.uniform(0.1, 1.8)
    result = Result(kind="loss", name=f"{loss}, {when}", seed=seed)
    stage.restore()
    _server(stage, lambda store: store.ping())
    copies: list[Copy] = []
    if when == WHEN[1]:
        copies.append(start(stage.home, *_RUN))
        time.sleep(moment)
        _lose(stage, loss, share)
        copies[0].wait()
        result.how = f"after {moment:.2f} s"
    else:
        _lose(stage, loss, share)
    copies += _recover(stage, loss, result, day=when == WHEN[1])
    result.wrong += [f"traceback: {c.said()[-600:]}" for c in copies if traceback_in(c)]
    if not result.wrong:
        # Of older releases readers and rollbacks need nothing.
        old = {f"key derm:release:{f.stem}" for f in _older(stage)}
        result.wrong = [name for name in stage.differing(expected[when]) if name not in old][:10]
    return result


def _older(stage: Stage) -> list[Path]:
    """Releases before the one that a rollback goes to."""
    return sorted((stage.home / "releases").glob("*.json"))[:-2]


def _recover(stage: Stage, loss: str, result: Result, *, day: bool) -> list[Copy]:
    """What an operator does: look, repair what was said, give the day again."""
    copies = [derm(stage.home, "probe")]
    noticed = copies[0].code == 3
    result.noticed = "probe" if noticed else "readers miss nothing"
    if loss in _HEALED:
        _server(stage, _HEALED[loss])
    if noticed:
        copies.append(derm(stage.home, "restore"))
    if day:
        copies.append(derm(stage.home, *_RUN))
        # Also what a refused day says; and the slot of the day before, which readers do not miss.
        copies.append(derm(stage.home, "restore"))
        if copies[-2].code != 0:
            copies.append(derm(stage.home, *_RUN))
    after = derm(stage.home, "audit", "--force")
    copies.append(after)
    if after.code != 0:
        result.wrong.append(f"audit after the repair: {after.said()[-500:]}")
    last = derm(stage.home, "probe")
    if last.code != 0:
        result.wrong.append(f"probe after the repair: {last.said()[-500:]}")
    return [*copies, last]


def _lose(stage: Stage, loss: str, share: float) -> None:
    if loss in ON_THE_SERVER:
        _server(stage, lambda store: ON_THE_SERVER[loss](store, share))
        return
    if pid := stage.store_pid():
        os.kill(pid, signal.SIGKILL)
    if loss == OFF[1]:
        for save in (stage.home / "services" / "redis").glob("*.rdb"):
            save.unlink()
        _server(stage, lambda store: store.ping())


def _server(stage: Stage, work: Callable[[Client], object]) -> None:
    def talk() -> None:
        with redis.Redis.from_url(ensure_redis(Settings(home=stage.home))) as store:
            work(store)

    in_copy(talk)
